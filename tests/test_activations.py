"""Activation functions equal Keras and SciPy, their slopes finite differences, at any size of input."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, ndtr

from aimodels import activations
from aimodels.activations import (
    gelu,
    gelu_derivative,
    leaky_relu,
    leaky_relu_derivative,
    relu,
    relu_derivative,
    sigmoid,
    sigmoid_derivative,
    silu,
    silu_derivative,
    softmax,
    softmax_jacobian,
    softmax_product,
    tanh,
    tanh_derivative,
)


def gelu_tanh(x):
    return gelu(x, approximate=True)


def gelu_tanh_derivative(x):
    return gelu_derivative(x, approximate=True)


# name: (function, derivative, Keras' function, values at -inf and inf, slopes at -inf and inf)
CURVES = {
    "sigmoid": (sigmoid, sigmoid_derivative, keras.activations.sigmoid, (0, 1), (0, 0)),
    "tanh": (tanh, tanh_derivative, keras.activations.tanh, (-1, 1), (0, 0)),
    "relu": (relu, relu_derivative, keras.activations.relu, (0, np.inf), (0, 1)),
    "leaky": (
        leaky_relu,
        leaky_relu_derivative,
        keras.activations.leaky_relu,
        (-np.inf, np.inf),
        (0.2, 1),
    ),
    "gelu": (gelu, gelu_derivative, keras.activations.gelu, (0, np.inf), (0, 1)),
    "gelu_tanh": (
        gelu_tanh,
        gelu_tanh_derivative,
        lambda x: keras.activations.gelu(x, approximate=True),
        (0, np.inf),
        (0, 1),
    ),
    "silu": (silu, silu_derivative, keras.activations.silu, (0, np.inf), (0, 1)),
}
# TensorFlow passes their constants through float32, so that in float64 it has 7 digits.
CONSTANTS = ("leaky", "gelu", "gelu_tanh")
GRID = np.concatenate([np.linspace(-40, 40, 4001), [-1e4, -1e3, -745.2, 710.0, 1e3, 1e4]])
# At 0 the slopes of both ReLUs are a convention; TensorFlow's is ours.
curves = pytest.mark.parametrize("name", CURVES)


@pytest.mark.parametrize(
    ("function", "z", "value"),
    [
        (sigmoid, 0, 1 / 2),
        (sigmoid, math.log(3), 3 / 4),
        (sigmoid, -math.log(4), 1 / 5),
        (sigmoid_derivative, 0, 1 / 4),
        (sigmoid_derivative, math.log(3), 3 / 16),
        (tanh, math.log(2), 3 / 5),
        (tanh_derivative, 0, 1),
        (tanh_derivative, math.log(2), 16 / 25),
        (relu, -3, 0),
        (relu, 3, 3),
        (relu_derivative, 0, 0),
        (leaky_relu, -3, -0.6),
        (leaky_relu_derivative, 0, 0.2),
        (silu, math.log(3), 3 / 4 * math.log(3)),
        (silu_derivative, 0, 1 / 2),
        (gelu, 0, 0),
        (gelu, 1, 0.8413447460685429),
        (gelu_derivative, 0, 1 / 2),
        (gelu_derivative, 1, 0.8413447460685429 + math.exp(-1 / 2) / math.sqrt(2 * math.pi)),
        (gelu_tanh, 1, 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715))),
        (gelu_tanh_derivative, 0, 1 / 2),
    ],
)
def test_values_worked_by_hand(function, z, value):
    np.testing.assert_allclose(function(z), value, rtol=1e-14)


def test_softmax_and_its_jacobian_worked_by_hand():
    x = np.log([1.0, 2.0, 5.0])
    np.testing.assert_allclose(softmax(x), [1 / 8, 2 / 8, 5 / 8], rtol=1e-14)
    expected = np.array([[7, -2, -5], [-2, 12, -10], [-5, -10, 15]]) / 64
    np.testing.assert_allclose(softmax_jacobian(x), expected, atol=1e-16)
    np.testing.assert_allclose(softmax_product(x, [1.0, 0, 0]), [7 / 64, -2 / 64, -5 / 64])


@curves
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_values_and_slopes_are_those_of_keras(name, kind):
    function, derivative, theirs, *_ = CURVES[name]
    x = GRID.astype(kind)
    entry = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(entry)
        value = theirs(entry)
    slope = tape.gradient(value, entry).numpy()
    limit = 1e-14 if kind == "float64" and name not in CONSTANTS else 5e-6
    if kind == "float64" and name in CONSTANTS:
        limit = 1e-7
    np.testing.assert_allclose(function(x), value.numpy(), rtol=limit, atol=limit)
    np.testing.assert_allclose(derivative(x), slope, rtol=limit, atol=limit)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_softmax_and_its_product_are_those_of_keras(kind):
    rng = np.random.default_rng(0)
    x, v = (rng.normal(0, 20, (6, 3, 11)).astype(kind) for _ in range(2))
    entry = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(entry)
        value = keras.activations.softmax(entry)
    pulled = tape.gradient(value, entry, output_gradients=tf.constant(v)).numpy()
    limit = 50 * np.finfo(kind).eps
    np.testing.assert_allclose(softmax(x), value.numpy(), rtol=10 * limit, atol=limit)
    np.testing.assert_allclose(softmax_product(x, v), pulled, rtol=10 * limit, atol=20 * limit)
    by_matrix = np.einsum("...jl,...l->...j", softmax_jacobian(x), v)
    np.testing.assert_allclose(softmax_product(x, v), by_matrix, rtol=10 * limit, atol=20 * limit)


def test_small_values_have_as_many_digits_as_those_of_scipy():
    x = np.linspace(-30, 30, 2001)
    np.testing.assert_allclose(sigmoid(x), expit(x), rtol=1e-14)
    np.testing.assert_allclose(gelu(x), x * ndtr(x), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(silu(x), x * expit(x), rtol=1e-14)
    np.testing.assert_allclose(sigmoid_derivative(x), expit(x) * expit(-x), rtol=1e-13)
    np.testing.assert_allclose(tanh_derivative(x), 4 * expit(2 * x) * expit(-2 * x), rtol=1e-13)


@curves
def test_slopes_are_finite_differences(name):
    function, derivative, *_ = CURVES[name]
    x = GRID[(np.abs(GRID) > 1e-3) & (np.abs(GRID) < 50)]
    differences = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(derivative(x), differences, atol=1e-9)


def test_the_jacobian_is_that_of_finite_differences():
    x = np.random.default_rng(0).normal(size=(4, 5))
    for l in range(5):  # noqa: E741 the index of the formula
        nudge = 1e-5 * np.eye(5)[l]
        column = (softmax(x + nudge) - softmax(x - nudge)) / 2e-5
        np.testing.assert_allclose(softmax_jacobian(x)[..., l], column, atol=1e-10)


def test_the_jacobian_is_symmetric_and_its_rows_sum_to_zero():
    jacobian = softmax_jacobian(np.random.default_rng(0).normal(0, 5, (4, 7)))
    np.testing.assert_array_equal(jacobian, jacobian.swapaxes(-1, -2))
    np.testing.assert_allclose(jacobian.sum(axis=-1), 0, atol=1e-15)
    assert np.linalg.eigvalsh(jacobian).min() > -1e-15


@curves
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_infinity_and_the_largest_numbers_give_limits_without_warning(name, kind):
    function, derivative, _, values, slopes = CURVES[name]
    infinite = np.array([-np.inf, np.inf], kind)
    np.testing.assert_allclose(function(infinite), np.array(values, kind), atol=0)
    np.testing.assert_allclose(derivative(infinite), np.array(slopes, kind), atol=0)
    largest = np.array([-np.finfo(kind).max, np.finfo(kind).max])
    assert np.isfinite(function(largest)).all()
    np.testing.assert_allclose(derivative(largest), np.array(slopes, kind), atol=0)


@curves
def test_not_a_number_stays_so(name):
    function, derivative, *_ = CURVES[name]
    assert np.isnan(function(np.array([np.nan]))).all()
    assert np.isnan(derivative(np.array([np.nan]))).all()


@curves
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_shape_and_precision_are_kept(name, kind, shape):
    for function in CURVES[name][:2]:
        result = function(np.full(shape, -0.5, kind))
        assert result.dtype == kind
        assert result.shape == shape


@curves
def test_whole_numbers_and_lists_become_double_precision(name):
    for function in CURVES[name][:2]:
        result = function([-2, 0, 3])
        assert result.dtype == "float64"
        np.testing.assert_array_equal(result, function(np.array([-2.0, 0.0, 3.0])))


@curves
def test_the_input_is_left_alone(name):
    x = GRID.copy()
    for function in CURVES[name][:2]:
        function(x)
    np.testing.assert_array_equal(x, GRID)


def test_each_curve_has_its_symmetry():
    np.testing.assert_allclose(sigmoid(GRID) + sigmoid(-GRID), 1, rtol=1e-15)
    np.testing.assert_array_equal(tanh(GRID), -tanh(-GRID))
    for curve in (relu, gelu, gelu_tanh, silu):
        np.testing.assert_allclose(curve(GRID) - curve(-GRID), GRID, rtol=1e-14, atol=1e-15)
    for slope in (sigmoid_derivative, tanh_derivative):
        np.testing.assert_array_equal(slope(GRID), slope(-GRID))
    for slope in (gelu_derivative, gelu_tanh_derivative, silu_derivative):
        np.testing.assert_allclose(slope(GRID) + slope(-GRID), 1, rtol=1e-13)


def test_lowest_values_are_as_documented():
    x = np.linspace(-10, 10, 200_001)
    assert -0.18 < gelu(x).min() < -0.16
    assert -0.28 < silu(x).min() < -0.27


def test_the_tanh_form_of_gelu_is_near_and_not_equal():
    apart = np.abs(gelu(GRID) - gelu_tanh(GRID)).max()
    assert 4e-4 < apart < 5e-4


@pytest.mark.parametrize("slope", [0.01, 0.5])
def test_the_slope_of_leaky_relu_can_be_chosen(slope):
    np.testing.assert_allclose(leaky_relu([-2.0, 2.0], slope), [-2 * slope, 2])
    np.testing.assert_allclose(leaky_relu_derivative([-2.0, 2.0], slope), [slope, 1])


def test_softmax_ignores_a_constant_and_takes_any_gap():
    x = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_allclose(softmax(x + 1e4), softmax(x), rtol=1e-11)
    np.testing.assert_array_equal(softmax([1e4, -1e4, -np.inf]), [1, 0, 0])
    np.testing.assert_array_equal(softmax([1e308, -1e308]), [1, 0])
    np.testing.assert_array_equal(softmax([-np.inf, 3.0, 3.0]), [0, 0.5, 0.5])
    np.testing.assert_array_equal(softmax_product([1e4, -1e4], [1.0, 2.0]), [0, 0])
    assert softmax(np.float32([[1, 2]])).dtype == "float32"
    assert softmax_jacobian(np.float32([[1, 2]])).dtype == "float32"
    np.testing.assert_array_equal(softmax([7]), [1])


def test_rows_of_softmax_do_not_see_each_other():
    x = [[0.0, 0.0], [1e4, 1e4], [-1e4, -1e4]]
    np.testing.assert_array_equal(softmax(x), np.full((3, 2), 0.5))
    expected = np.tile([[0.25, -0.25], [-0.25, 0.25]], (3, 1, 1))
    np.testing.assert_array_equal(softmax_jacobian(x), expected)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (1.0, r"z has shape \(\); allowed is \[\.\.\., K\]"),
        (np.zeros((3, 0)), r"z has shape \(3, 0\); allowed"),
        ([[0.0, 1.0], [np.inf, 0.0]], "z has a row whose largest entry is inf"),
        ([-np.inf, -np.inf], "z has a row whose largest entry is -inf"),
        ([0.0, np.nan], "z has a row whose largest entry is nan"),
    ],
)
@pytest.mark.parametrize(
    "function", [softmax, softmax_jacobian, lambda x: softmax_product(x, np.zeros(2))]
)
def test_softmax_refuses_rows_without_an_answer(function, x, words):
    with pytest.raises(ValueError, match=words):
        function(x)


def test_softmax_product_needs_one_shape():
    with pytest.raises(ValueError, match=r"v has shape \(2,\); allowed is that of z, \(3,\)"):
        softmax_product(np.zeros(3), np.zeros(2))


@pytest.mark.parametrize("slope", [0, 1, -0.2, np.nan])
@pytest.mark.parametrize("function", [leaky_relu, leaky_relu_derivative])
def test_a_leak_lies_between_0_and_1(function, slope):
    with pytest.raises(ValueError, match=f"slope is {slope}; allowed is a number between 0 and 1"):
        function([1.0], slope)


@curves
@pytest.mark.parametrize("bad", [np.array([1j]), np.array(["a"]), np.array([None])])
def test_only_real_numbers_are_taken(name, bad):
    for function in (*CURVES[name][:2], softmax):
        with pytest.raises(ValueError, match=r"[xz] has dtype .*; allowed are real numbers"):
            function(bad)


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.activations;"
        "assert not {'keras', 'tensorflow', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_curve_has_a_derivative():
    public = {name for name in vars(activations) if not name.startswith("_")}
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu"):
        assert {name, f"{name}_derivative"} <= public
