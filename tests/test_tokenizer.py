import numpy as np
import pytest

from aimodels.tokenizer import center


def test_every_column_sums_to_zero():
    x = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(center(x).sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (0, 2), (1, 2, 3)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"x must have shape \[B, D\]"):
        center(np.ones(shape))
