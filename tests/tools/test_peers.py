"""The bench counts the same work in two ways."""

import math

from tools.peers import Size


def test_products_are_three_forward_passes():
    size = Size(1000, 128, 64, 4, 3)
    pairs = size.products(16)
    assert all(a[-1] == b[-2] and a[:-2] == b[:-2] for a, b in pairs)
    assert sum(2 * math.prod(a) * b[-1] for a, b in pairs) == 3 * size.work(16)
