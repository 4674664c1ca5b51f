"""A feedforward network equals Keras, its gradients equal finite differences, nonsense is named."""

import subprocess
import sys
from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

from aimodels.mlp import (
    ACTIVATIONS,
    Layer,
    dense,
    forward,
    initialize,
    loss_and_gradients,
    parameter_count,
    train,
)

SQUARE = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = np.array([0, 1, 1, 0])
HAND = [
    Layer(np.ones((2, 2)), np.array([0.0, -1.0]), "relu"),
    Layer(np.array([[1.0], [-2.0]]), np.zeros(1)),
]
NETWORKS = [([3, 2], 1), ([5, 1, 4], 7), ([2, 8, 8, 3], 33), ([64, 40, 30, 20, 10, 2], 130)]


def some(widths, rows, activation, seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        Layer(rng.normal(size=(d, e)) / np.sqrt(d), rng.normal(size=e), activation)
        for d, e in pairwise(widths)
    ]
    x, labels = rng.normal(size=(rows, widths[0])), rng.integers(widths[-1], size=rows)
    return x, labels, [*layers[:-1], layers[-1]._replace(activation="linear")]


def stack_of(layers):
    width = len(layers[0].weights)
    stack = keras.Sequential(
        [keras.Input((width,), dtype="float64")]
        + [
            keras.layers.Dense(len(layer.bias), activation=layer.activation, dtype="float64")
            for layer in layers
        ]
    )
    stack.set_weights([part for layer in layers for part in layer[:2]])
    return stack


def squares(logits, wanted):
    error = logits[:, 0] - wanted
    return np.mean(error**2), 2 * error[:, None] / len(error)


def test_another_loss_can_be_given():
    x, _, layers = some([3, 4, 1], 9, "tanh")
    wanted = np.linspace(-1, 1, 9)
    loss, gradients = loss_and_gradients(x, wanted, layers, squares)
    assert loss == pytest.approx(np.mean((forward(x, layers)[:, 0] - wanted) ** 2))
    step = np.zeros_like(layers[0].weights)
    step[1, 2] = 1e-6
    ends = [
        loss_and_gradients(
            x,
            wanted,
            [layers[0]._replace(weights=layers[0].weights + s * step), layers[1]],
            squares,
        )[0]
        for s in (1, -1)
    ]
    assert gradients[0][0][1, 2] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)
    trained, losses = train(
        x, wanted, layers, np.random.default_rng(0), rate=0.1, epochs=50, loss=squares
    )
    assert losses[-1] < losses[0] / 2
    assert loss_and_gradients(x, wanted, trained, squares)[0] < losses[-1]


def test_a_derivative_of_another_shape_than_the_logits_is_named():
    x, _, layers = some([3, 4, 1], 9, "tanh")
    with pytest.raises(ValueError, match=r"shape \(9,\); allowed is that of the logits, \(9, 1\)"):
        loss_and_gradients(x, np.zeros(9), layers, lambda z, y: (0.0, z[:, 0]))


def test_a_dense_layer_by_hand():
    x, weights, bias = [[1.0, 2.0]], [[1.0, 0.0, -1.0], [3.0, -1.0, 0.0]], [0.5, 0.5, 0.5]
    np.testing.assert_array_equal(dense(x, weights, bias), [[7.5, -1.5, -0.5]])
    np.testing.assert_array_equal(dense(x, weights, bias, "relu"), [[7.5, 0, 0]])


def test_two_units_set_by_hand_compute_xor():
    np.testing.assert_array_equal(forward(SQUARE, HAND)[:, 0], XOR)
    np.testing.assert_array_equal(forward(SQUARE, HAND[:1]), [[0, 0], [1, 0], [1, 0], [2, 1]])


def test_no_layers_change_nothing():
    np.testing.assert_array_equal(forward(SQUARE, []), SQUARE)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_keras_far_out_too(activation):
    z = np.array([[-800.0, -30, -1, -1e-3, 0, 1e-3, 1, 30, 800]])
    theirs = keras.activations.get(activation)(tf.constant(z)).numpy()
    ours = dense(z, np.eye(9), np.zeros(9), activation)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("widths", "rows"), NETWORKS)
def test_outputs_are_those_of_a_keras_stack(widths, rows, activation):
    x, _, layers = some(widths, rows, activation)
    theirs = stack_of(layers)(x).numpy()
    np.testing.assert_allclose(forward(x, layers), theirs, rtol=1e-11, atol=1e-12)
    assert forward(x, layers).shape == (rows, widths[-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("widths", "rows"), NETWORKS)
def test_loss_and_gradients_are_those_of_the_tape(widths, rows, activation):
    x, labels, layers = some(widths, rows, activation)
    stack = stack_of(layers)
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, stack(x))
        expected = tf.reduce_mean(losses)
    theirs = tape.gradient(expected, stack.trainable_variables)
    loss, ours = loss_and_gradients(x, labels, layers)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for mine, other in zip([part for pair in ours for part in pair], theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_finite_differences(activation):
    x, labels, layers = some([3, 4, 5, 3], 6, activation)
    _, gradients = loss_and_gradients(x, labels, layers)
    for n, pair in enumerate(gradients):
        for part, gradient in enumerate(pair):
            assert gradient.shape == layers[n][part].shape
            for place in np.ndindex(gradient.shape):
                ends = []
                for nudge in (1e-5, -1e-5):
                    moved = layers[n][part].copy()
                    moved[place] += nudge
                    changed = layers[n]._replace(**{("weights", "bias")[part]: moved})
                    nearby = [*layers[:n], changed, *layers[n + 1 :]]
                    ends.append(loss_and_gradients(x, labels, nearby)[0])
                slope = (ends[0] - ends[1]) / 2e-5
                np.testing.assert_allclose(gradient[place], slope, rtol=1e-5, atol=1e-9)


def test_equal_logits_cost_the_logarithm_of_the_classes():
    loss, _ = loss_and_gradients(SQUARE, XOR, [Layer(np.zeros((2, 5)), np.zeros(5))])
    np.testing.assert_allclose(loss, np.log(5))


def test_huge_logits_stay_finite():
    layers = [Layer(1e4 * np.eye(2), np.zeros(2))]
    loss, ((by_weights, _),) = loss_and_gradients([[1.0, 0.0]], np.array([1]), layers)
    assert loss == 1e4
    np.testing.assert_array_equal(by_weights, [[1, -1], [0, 0]])


def test_hidden_units_in_another_order_change_nothing():
    x, _, (first, last) = some([6, 9, 3], 20, "tanh")
    order = np.random.default_rng(1).permutation(9)
    twin = [
        Layer(first.weights[:, order], first.bias[order], "tanh"),
        Layer(last.weights[order], last.bias),
    ]
    np.testing.assert_allclose(forward(x, twin), forward(x, [first, last]), atol=1e-13)


@pytest.mark.parametrize(
    ("activation", "variance"), [("relu", 2 / 400), ("tanh", 2 / 700), ("linear", 2 / 700)]
)
def test_drawn_weights_have_the_published_variance(activation, variance):
    first, last = initialize([400, 300, 100], np.random.default_rng(0), activation)
    np.testing.assert_allclose(first.weights.var(), variance, rtol=0.03)
    np.testing.assert_allclose(last.weights.var(), 2 / 400, rtol=0.03)
    assert (first.activation, last.activation) == (activation, "linear")
    assert first.weights.shape == (400, 300)
    assert not first.bias.any()
    assert first.bias.shape == (300,)


def test_he_weights_keep_the_size_of_what_goes_through_twenty_layers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 300))
    deep = forward(x, initialize([300] * 21, rng)[:-1])
    assert 0.5 < np.mean(deep**2) < 2


def test_the_same_seed_draws_the_same_layers():
    one, two = (initialize([3, 4, 2], np.random.default_rng(7)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)


@pytest.mark.parametrize(
    ("widths", "count"), [([2, 2, 1], 9), ([64, 10], 650), ([784, 300, 100, 10], 266_610)]
)
def test_parameters_are_counted(widths, count):
    assert parameter_count(widths) == count
    drawn = initialize(widths, np.random.default_rng(0))
    assert sum(layer.weights.size + layer.bias.size for layer in drawn) == count


def test_one_step_of_training_by_hand():
    start = [Layer(np.zeros((2, 2)), np.zeros(2))]
    rng = np.random.default_rng(0)
    (end,), losses = train(np.array([[1.0, 2.0]]), np.array([0]), start, rng, rate=0.5, epochs=1)
    np.testing.assert_allclose(end.weights, [[0.25, -0.25], [0.5, -0.5]])
    np.testing.assert_allclose(end.bias, [0.25, -0.25])
    np.testing.assert_allclose(losses, [np.log(2)])
    assert not start[0].weights.any()


def test_a_pass_uses_every_row_once():
    rng = np.random.default_rng(0)
    start = initialize([2, 3, 2], rng)
    x, labels = np.tile(SQUARE, (3, 1))[:11], np.tile(XOR, 3)[:11]
    _, losses = train(x, labels, start, rng, rate=1e-12, epochs=2, batch=4)
    assert losses.shape == (6,)
    whole, _ = loss_and_gradients(x, labels, start)
    for part in (losses[:3], losses[3:]):
        np.testing.assert_allclose(np.average(part, weights=[4, 4, 3]), whole)


def test_training_learns_xor_and_can_be_repeated():
    ends = []
    for _ in range(2):
        rng = np.random.default_rng(0)
        start = initialize([2, 8, 2], rng)
        end, losses = train(SQUARE, XOR, start, rng, rate=1.0, epochs=300)
        np.testing.assert_array_equal(forward(SQUARE, end).argmax(axis=1), XOR)
        assert losses[-1] < 0.05 < losses[0]
        ends.append(end[0].weights)
    np.testing.assert_array_equal(*ends)


def test_equal_units_stay_equal_and_zeros_never_move():
    rng = np.random.default_rng(0)
    for size in (0.0, 0.1):
        start = [Layer(np.full((2, 5), size), np.zeros(5), "relu")]
        start.append(Layer(np.full((5, 2), size), np.zeros(2)))
        (first, _), _ = train(SQUARE, XOR, start, rng, rate=0.5, epochs=50, batch=3)
        assert len(np.unique(first.weights.round(12), axis=1).T) == 1
        assert (first.weights == size).all() == (size == 0)


def test_layers_without_an_activation_are_one_layer():
    x, _, layers = some([4, 6, 5, 3], 10, "linear")
    slope = layers[0].weights @ layers[1].weights @ layers[2].weights
    level = forward(np.zeros((1, 4)), layers)
    np.testing.assert_allclose(forward(x, layers), x @ slope + level, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(3), np.zeros((3, 2)), np.zeros(2)), r"weights has shape \(3, 2\) for x of"),
        ((np.zeros((4, 2)), np.zeros((3, 2)), np.zeros(2)), r"allowed is \[D, D'\] for \[B, D\]"),
        ((np.zeros((4, 3)), np.zeros(3), np.zeros(1)), r"weights has shape \(3,\)"),
        ((np.zeros((4, 3)), np.zeros((3, 2)), np.zeros(3)), r"bias has shape \(3,\); .* \(2,\)"),
        ((np.zeros((4, 3)), np.zeros((3, 2)), 0.0), r"bias has shape \(\); allowed is \(2,\)"),
        (
            (np.zeros((4, 3)), np.zeros((3, 2)), np.zeros(2), "softmax"),
            "activation is 'softmax'; allowed are linear, relu, tanh, sigmoid",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        dense(*arguments)


@pytest.mark.parametrize("widths", [[], [3], [3, 0], [3, -1, 2]])
def test_widths_must_name_an_input_and_an_output(widths):
    for call in (lambda: parameter_count(widths), lambda: initialize(widths, None)):
        with pytest.raises(ValueError, match="allowed are two or more numbers, each above 0"):
            call()


def test_hidden_layers_need_a_known_activation():
    with pytest.raises(ValueError, match="activation is 'swish'; allowed are linear, relu"):
        initialize([2, 3, 2], np.random.default_rng(0), "swish")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], r"labels has shape \(2,\); allowed is \[B\], here \(4,\)"),
        ([[0], [1], [1], [0]], r"labels has shape \(4, 1\)"),
        ([0, 1, 2, 0], "labels must be whole numbers from 0 to 1"),
        ([0, -1, 1, 0], "labels must be whole numbers from 0 to 1"),
        ([0.0, 1.0, 1.0, 0.0], "labels must be whole numbers from 0 to 1"),
    ],
)
def test_labels_must_be_classes(labels, words):
    with pytest.raises(ValueError, match=words):
        loss_and_gradients(SQUARE, np.array(labels), [Layer(np.zeros((2, 2)), np.zeros(2))])


def test_no_rows_have_no_loss():
    with pytest.raises(ValueError, match=r"labels has shape \(0,\)"):
        loss_and_gradients(np.zeros((0, 2)), np.zeros(0, int), initialize([2, 2], np.random))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 0}, "rate is 0; allowed is a number above 0"),
        ({"rate": np.nan}, "rate is nan; allowed"),
        ({"epochs": -1}, "epochs is -1; allowed is 0 or more"),
        ({"batch": 0}, "batch is 0; allowed is 1 or more"),
    ],
)
def test_settings_of_training_are_checked(options, words):
    settings = {"rate": 0.1, "epochs": 1, "batch": None} | options
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=words):
        train(SQUARE, XOR, initialize([2, 2], rng), rng, **settings)


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.mlp;assert not {'keras', 'tensorflow', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
