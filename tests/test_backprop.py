"""The engine's numbers and gradients equal hand, NumPy, the tape and differences; nonsense is named."""

import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from aimodels import mlp
from aimodels.backprop import Scalar

to_scalars = np.vectorize(Scalar, otypes=[object])
gradient_of = np.vectorize(lambda node: node.gradient, otypes=[float])

# Each operation of the engine, as it is written for TensorFlow, and places where it is smooth.
OPERATIONS = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "add a number": (lambda x, y: x + 2 + (3 + y), lambda x, y: x + 2 + (3 + y)),
    "subtract": (lambda x, y: x - y, lambda x, y: x - y),
    "subtract a number": (lambda x, y: (x - 2) * (3 - y), lambda x, y: (x - 2) * (3 - y)),
    "multiply": (lambda x, y: x * y, lambda x, y: x * y),
    "multiply by a number": (lambda x, y: x * 2 + 3 * y, lambda x, y: x * 2 + 3 * y),
    "divide": (lambda x, y: x / y, lambda x, y: x / y),
    "divide a number": (lambda x, y: x / 2 + 3 / y, lambda x, y: x / 2 + 3 / y),
    "negate": (lambda x, y: -x * y, lambda x, y: -x * y),
    "power": (lambda x, y: x**3 * y**-2 + y**0, lambda x, y: x**3 * y**-2 + y**0),
    "tanh": (lambda x, y: (x * y).tanh(), lambda x, y: tf.tanh(x * y)),
    "relu": (lambda x, y: (x * y).relu() * y, lambda x, y: tf.nn.relu(x * y) * y),
    "exp": (lambda x, y: (x - y).exp(), lambda x, y: tf.exp(x - y)),
    "log": (lambda x, y: (x * x).log() * y, lambda x, y: tf.math.log(x * x) * y),
    "root": (lambda x, y: (x * x + y * y) ** 0.5, lambda x, y: (x * x + y * y) ** 0.5),
    "many uses": (
        lambda x, y: (x * x + x) * (x * y) - x / (y * y) + (x * y) * (x * y),
        lambda x, y: (x * x + x) * (x * y) - x / (y * y) + (x * y) * (x * y),
    ),
}


def slopes(function, *values):
    inputs = [Scalar(value) for value in values]
    result = function(*inputs)
    result.backward()
    return result.value, [node.gradient for node in inputs]


def test_a_graph_by_hand():
    a, b = Scalar(3), Scalar(2)
    u = a * b
    v = u + a
    f = u * v
    f.backward()
    assert [node.value for node in (u, v, f)] == [6, 9, 54]
    assert [node.gradient for node in (f, v, u, b, a)] == [1, 6, 15, 45, 36]
    assert (u.parents, u.slopes) == ((a, b), (2, 3))


def test_a_number_used_twice_gets_both_parts():
    assert slopes(lambda x: x + x, 5) == (10, [2])
    assert slopes(lambda x: x * x, 5) == (25, [10])
    assert slopes(lambda x: x - x, 5) == (0, [0])
    assert slopes(lambda x: x / x, 5)[1] == pytest.approx([0], abs=1e-15)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("x", "y"), [(0.7, 1.3), (-1.1, 0.4), (2.5, -0.3), (-0.2, -3.0)])
def test_values_and_gradients_are_those_of_the_tape(name, x, y):
    ours, theirs = OPERATIONS[name]
    variables = [tf.Variable(value, dtype="float64") for value in (x, y)]
    with tf.GradientTape() as tape:
        expected = theirs(*variables)
    found = tape.gradient(expected, variables)
    value, gradients = slopes(ours, x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(gradients, found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_finite_differences(name):
    function, place = OPERATIONS[name][0], [0.7, 1.3]
    _, gradients = slopes(function, *place)
    for n, gradient in enumerate(gradients):
        ends = []
        for nudge in (1e-5, -1e-5):
            moved = list(place)
            moved[n] += nudge
            ends.append(function(*map(Scalar, moved)).value)
        assert gradient == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("batch", "d", "h", "c"), [(1, 1, 1, 1), (1, 3, 2, 2), (5, 2, 4, 3)])
@pytest.mark.parametrize("bend", ["tanh", "relu"])
def test_a_network_of_scalars_has_the_gradients_of_the_array_code(batch, d, h, c, bend):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape) for shape in ((d, h), (h,), (h, c), (c,))]
    x, labels = rng.normal(size=(batch, d)), rng.integers(c, size=batch)
    layers = [mlp.Layer(*parts[:2], bend), mlp.Layer(*parts[2:])]
    expected, pairs = mlp.loss_and_gradients(x, labels, layers)
    w1, b1, w2, b2 = nodes = [to_scalars(part) for part in parts]
    bent = np.frompyfunc(getattr(Scalar, bend), 1, 1)(x @ w1 + b1)
    z = bent @ w2 + b2
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(batch), labels]
    loss = losses.sum() / batch
    loss.backward()
    np.testing.assert_allclose(loss.value, expected, rtol=1e-13, atol=1e-15)
    for node, theirs in zip(nodes, [part for pair in pairs for part in pair], strict=True):
        np.testing.assert_allclose(gradient_of(node), theirs, rtol=1e-11, atol=1e-15)


def test_each_scalar_comes_after_its_parents_once():
    x = Scalar(1)
    y = x
    for _ in range(30):
        y = y + y * x  # 2 to the power of 30 paths
    order = y.graph()
    place = {node: n for n, node in enumerate(order)}
    assert len(order) == len(place) == 61
    assert order[-1] is y
    assert all(place[parent] < place[node] for node in order for parent in node.parents)
    y.backward()
    assert y.value == 2**30
    assert x.gradient == 2**30 + 30 * 2**29


def test_a_chain_of_a_hundred_thousand_has_no_limit():
    x = y = Scalar(0)
    for _ in range(100_000):
        y = y + 1
    y.backward()
    assert (y.value, x.gradient) == (100_000, 1)


def test_a_second_backward_sets_the_same_again():
    x = Scalar(3)
    y = x * x
    for _ in range(2):
        y.backward()
        assert x.gradient == 6


def test_another_result_replaces_the_gradient():
    x = Scalar(3)
    other = x * 5
    (x * x).backward()
    other.backward()
    assert x.gradient == 5


def test_what_the_result_does_not_depend_on_is_left_alone():
    x, unused = Scalar(3), Scalar(4)
    later = x * unused
    (x * 2).backward()
    assert (unused.gradient, later.gradient) == (None, None)


def test_backward_from_the_middle_stops_at_the_inputs():
    x = Scalar(3)
    middle = x * x
    result = middle * 7
    middle.backward()
    assert (x.gradient, middle.gradient, result.gradient) == (6, 1, None)


def test_slopes_are_those_of_the_time_of_computing():
    x = Scalar(3)
    y = x * x
    x.value = 100.0
    y.backward()
    assert x.gradient == 6


def test_an_input_has_gradient_one_by_itself():
    x = Scalar(2.5)
    x.backward()
    assert x.gradient == 1


def test_relu_has_slope_zero_at_zero():
    assert slopes(lambda x: x.relu(), 0) == (0, [0])
    assert slopes(lambda x: x.relu(), 1e-300) == (1e-300, [1])
    assert slopes(lambda x: x.relu() - (-x).relu(), 0) == (0, [0])


def test_powers_at_zero():
    assert slopes(lambda x: x**0, 0) == (1, [0])
    assert slopes(lambda x: x**1, 0) == (0, [1])
    assert slopes(lambda x: x**2, 0) == (0, [0])
    assert slopes(lambda x: x**3, -2) == (-8, [12])


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_numbers_of_numpy_are_numbers_on_both_sides(number):
    x = Scalar(3)
    for result in (x * number, number * x, x + number, number + x, x**number):
        assert isinstance(result, Scalar)
        assert isinstance(result.value, float)
    assert (number - x).value == -1
    assert (number / x).value == pytest.approx(2 / 3)


def test_text_shows_value_and_gradient():
    x = Scalar(2)
    (x * 3).backward()
    assert repr(x) == "Scalar(2, gradient=3.0)"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: Scalar("2"), "value is '2'; allowed is a real number"),
        (lambda: Scalar(None), "value is None; allowed is a real number"),
        (lambda: Scalar(True), "value is True; allowed is a real number"),
        (lambda: Scalar(1j), "value is 1j; allowed is a real number"),
        (lambda: Scalar(np.zeros(2)), r"value is array\(\[0., 0.\]\); allowed"),
        (lambda: Scalar(2) + "a", "value is 'a'; allowed is a real number or a Scalar"),
        (lambda: [] * Scalar(2), r"value is \[\]; allowed"),
        (lambda: Scalar(2) / None, "value is None; allowed"),
        (lambda: Scalar(2) - 1j, "value is 1j; allowed"),
        (lambda: Scalar(math.nan), "value is nan; allowed is a finite number"),
        (lambda: Scalar(-math.inf), "value is -inf; allowed is a finite number"),
        (lambda: Scalar(1) * math.nan, "value is nan; allowed is a finite number"),
        (lambda: Scalar(1e300) * 1e300, "value is inf; allowed is a finite number"),
        (lambda: Scalar(1) / 0, "divisor is 0; allowed is any other number"),
        (lambda: 1 / Scalar(0), "divisor is 0; allowed is any other number"),
        (lambda: Scalar(1e-10) / 1e-200, "slope is -inf; allowed is a finite number"),
        (lambda: Scalar(2) ** Scalar(2), r"exponent is Scalar\(2.*; allowed is a finite number"),
        (lambda: Scalar(2) ** math.nan, "exponent is nan; allowed is a finite number"),
        (lambda: Scalar(-2) ** 0.5, r"base is -2.0; allowed is 0 or more for power 0.5"),
        (lambda: Scalar(0) ** -1, r"0.0 \*\* -1.0 or its slope is not finite"),
        (lambda: Scalar(0) ** 0.5, r"0.0 \*\* 0.5 or its slope is not finite"),
        (lambda: Scalar(1e200) ** 2, r"1e\+200 \*\* 2.0 or its slope is not finite"),
        (lambda: Scalar(1000).exp(), "exp of 1000.0 is not finite"),
        (lambda: Scalar(0).log(), "log of 0.0; allowed is a number above 0"),
        (lambda: Scalar(-1).log(), "log of -1.0; allowed is a number above 0"),
    ],
)
def test_what_is_no_finite_number_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        bad()


def test_a_gradient_that_overflows_is_refused():
    x = Scalar(1e-200)
    y = (x * 1e200) * 1e200
    with pytest.raises(ValueError, match="a gradient is not finite"):
        y.backward()


def test_the_module_needs_no_library():
    code = (
        "import sys, aimodels.backprop;"
        "assert not {'numpy', 'keras', 'tensorflow', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
