"""Recurrent networks: hand-worked numbers, the same numbers as Keras, gradients, masks, edges."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.rnn import Gradients, Recurrent, backward, rnn, rnn_step, unroll

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def weights_of(seed, width, units):
    return (
        normal(seed, width, units, dtype="float64"),
        normal(seed + 1, units, units, dtype="float64") / np.sqrt(units),
        normal(seed + 2, units, dtype="float64"),
    )


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(np.abs(b).max(), 1e-30))


def message(text):
    return f"^{re.escape(text)}"


def mask_of(kind, batch, steps):
    """None, lengths from 1 up (padding after), the same before, or anything, but real once."""
    lengths = np.arange(batch) % steps + 1
    after = np.arange(steps) < lengths[:, None]
    if kind == "random":
        mask = normal(9, batch, steps) > 0
        mask[:, steps // 2] = True
        return mask
    return {"none": None, "after": after, "before": after[:, ::-1]}[kind]


MASKS = ["none", "after", "before", "random"]

# ---- numbers worked by hand


def test_two_steps_on_paper():
    # h_1 = tanh(1·½ + 0) = tanh ½;  h_2 = tanh(0·½ + 2 tanh ½ − ¼).
    weights = np.array([[0.5]]), np.array([[2.0]]), np.array([0.0])
    hidden = unroll(np.array([[[1.0], [0.0]]]), weights)
    first = math.tanh(0.5)
    close(hidden[0, :, 0], [0, first, math.tanh(2 * first)], 1e-12)
    shifted = unroll(np.array([[[1.0], [0.0]]]), (*weights[:2], np.array([-0.25])))
    first = math.tanh(0.25)
    close(shifted[0, :, 0], [0, first, math.tanh(2 * first - 0.25)], 1e-12)


def test_gradients_of_two_steps_on_paper():
    # L = h_2 of the test above: dL/dz_2 = 1 − h_2², dL/dh_1 = 2 dL/dz_2, dL/dz_1 = that (1 − h_1²).
    weights = np.array([[0.5]]), np.array([[2.0]]), np.array([0.0])
    x = np.array([[[1.0], [0.0]]])
    hidden = unroll(x, weights)
    _, one, two = hidden[0, :, 0]
    found = backward(x, hidden, np.array([[[0.0], [1.0]]]), weights)
    second = 1 - two**2
    first = 2 * second * (1 - one**2)
    close(found.kernel, [[first]], 1e-12)
    close(found.recurrent, [[one * second]], 1e-12)
    close(found.bias, [first + second], 1e-12)
    close(found.x[0, :, 0], [first / 2, second / 2], 1e-12)
    close(found.hidden[0, :, 0], [2 * first, 2 * second, 1], 1e-12)


def test_rows_multiply_from_the_left():
    # R moves unit 0 into unit 1; transposed it would move unit 1 into unit 0.
    weights = np.zeros((1, 2)), np.array([[0.0, 1.0], [0.0, 0.0]]), np.zeros(2)
    hidden = unroll(np.zeros((1, 1, 1)), weights, state=np.array([[0.5, 0.0]]))
    close(hidden[0, 1], [0, math.tanh(0.5)], 1e-12)
    step = rnn_step(np.zeros((1, 1)), np.array([[0.5, 0.0]]), weights)
    close(step[0], [0, math.tanh(0.5)], 1e-12)


# ---- the same numbers as a trusted peer

# B, T, D, U
SHAPES = {
    "ordinary": (3, 7, 5, 4),
    "one sample": (1, 6, 3, 4),
    "one step": (3, 1, 3, 4),
    "one number": (3, 5, 1, 4),
    "one unit": (3, 5, 3, 1),
    "ones": (1, 1, 1, 1),
    "long": (2, 120, 8, 16),
}


def pair(width, units, seed=0, **settings):
    """Return our layer and Keras' with the same random weights."""
    ours, theirs = Recurrent(units, **settings), keras.layers.SimpleRNN(units, **settings)
    for layer in (ours, theirs):
        layer.build((None, None, width))
        layer.set_weights([np.asarray(w, "float32") for w in weights_of(seed, width, units)])
    return ours, theirs


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_it_equals_simple_rnn_with_the_same_weights(shape, kind):
    batch, steps, width, units = shape
    x, mask = normal(5, batch, steps, width), mask_of(kind, batch, steps)
    ours, theirs = pair(width, units, return_sequences=True)
    states = ours(x, step_mask=mask)
    close(states, theirs(x, mask=mask))
    close(unroll(x, weights_of(0, width, units), mask)[:, 1:], states)
    ours, theirs = pair(width, units)
    last = ours(x, step_mask=mask)
    close(last, theirs(x, mask=mask))
    close(last, np.asarray(states)[:, -1])


@pytest.mark.parametrize("activation", ["relu", "linear", "sigmoid"])
def test_it_equals_simple_rnn_with_other_activations(activation):
    ours, theirs = pair(3, 5, activation=activation, return_sequences=True)
    x, state = normal(5, 2, 6, 3), normal(6, 2, 5)
    close(ours(x, initial_state=state), theirs(x, initial_state=state))


def test_its_gradients_equal_those_of_simple_rnn():
    x, mask, state = normal(5, 4, 9, 3), mask_of("random", 4, 9), tf.Variable(normal(6, 4, 5))
    ours, theirs = pair(3, 5, return_sequences=True)
    wanted = normal(7, 4, 9, 5)
    found = []
    for layer, settings in ((ours, {"step_mask": mask}), (theirs, {"mask": mask})):
        with tf.GradientTape() as tape:
            # Where the first steps are padding, Keras returns zeros for them: compare later ones.
            loss = ops.sum((layer(x, initial_state=state, **settings) * wanted)[:, 4:])
        found.append(tape.gradient(loss, [*layer.trainable_variables, state]))
    for a, b in zip(*found, strict=True):
        close(a, b)


# ---- backpropagation through time


@pytest.mark.parametrize("kind", MASKS)
def test_gradients_equal_those_of_the_tape(kind):
    x, mask, state = normal(5, 4, 9, 3, dtype="float64"), mask_of(kind, 4, 9), normal(6, 4, 5)
    weights, upstream = weights_of(0, 3, 5), normal(7, 4, 9, 5, dtype="float64")
    hidden = unroll(x, weights, mask, state)
    found = backward(x, hidden, upstream, weights, mask)
    variables = [tf.Variable(a, dtype="float64") for a in (*weights, x, state)]
    with tf.GradientTape() as tape:
        states = rnn(
            lambda x, h: rnn_step(x, h, variables[:3]),
            tf.convert_to_tensor(variables[3]),
            tf.convert_to_tensor(variables[4]),
            mask,
        )
        loss = ops.sum(states * upstream)
    close(states, hidden[:, 1:], 1e-12)
    expected = tape.gradient(loss, variables)
    for a, b in zip((*found[:4], found.hidden[:, 0]), expected, strict=True):
        close(a, b, 1e-12)


def test_gradients_equal_finite_differences():
    x, weights = normal(5, 2, 6, 3, dtype="float64"), weights_of(0, 3, 4)
    upstream, mask = normal(7, 2, 6, 4, dtype="float64"), mask_of("random", 2, 6)

    def loss(arrays):
        return (unroll(arrays[3], arrays[:3], mask)[:, 1:] * upstream).sum()

    found = backward(x, unroll(x, weights, mask), upstream, weights, mask)
    arrays = [*weights, x]
    for place, gradient in enumerate(found[:4]):
        for index in np.ndindex(gradient.shape):
            sides = []
            for side in (1e-6, -1e-6):
                moved = [array.copy() for array in arrays]
                moved[place][index] += side
                sides.append(loss(moved))
            assert abs((sides[0] - sides[1]) / 2e-6 - gradient[index]) < 1e-6


def test_hidden_gradients_are_derivatives_by_the_state():
    # The sequence from step 3 on, started with the state after step 3, has the same gradient.
    x, weights = normal(5, 2, 8, 3), weights_of(0, 3, 4)
    upstream = normal(7, 2, 8, 4)
    hidden = unroll(x, weights)
    whole = backward(x, hidden, upstream, weights).hidden
    later = backward(x[:, 3:], hidden[:, 3:], upstream[:, 3:], weights).hidden
    close(whole[:, 4:], later[:, 1:], 1e-12)
    close(whole[:, 3] - upstream[:, 2], later[:, 0], 1e-12)


@pytest.mark.parametrize("window", [1, 3, 4])
def test_truncation_is_the_sum_over_the_pieces(window):
    x, weights, mask = normal(5, 3, 10, 3), weights_of(0, 3, 4), mask_of("random", 3, 10)
    hidden, upstream = unroll(x, weights, mask), normal(7, 3, 10, 4)
    found = backward(x, hidden, upstream, weights, mask, window=window)
    pieces = []
    for start in range(0, 10, window):
        part = slice(start, start + window)
        states = hidden[:, start : start + window + 1]
        close(states, unroll(x[:, part], weights, mask[:, part], states[:, 0]), 1e-12)
        pieces.append(backward(x[:, part], states, upstream[:, part], weights, mask[:, part]))
    for name in ("kernel", "recurrent", "bias"):
        close(getattr(found, name), sum(getattr(piece, name) for piece in pieces), 1e-12)
    close(found.x, np.concatenate([piece.x for piece in pieces], axis=1), 1e-12)


def test_a_window_of_the_whole_sequence_cuts_nothing():
    x, weights = normal(5, 3, 10, 3), weights_of(0, 3, 4)
    hidden, upstream = unroll(x, weights), normal(7, 3, 10, 4)
    for a, b in zip(
        backward(x, hidden, upstream, weights),
        backward(x, hidden, upstream, weights, window=10),
        strict=True,
    ):
        assert np.array_equal(a, b)


# ---- masks and time


@pytest.mark.parametrize("kind", ["after", "before", "random"])
@pytest.mark.parametrize("hidden", [1e6, np.nan, np.inf])
def test_a_hidden_step_is_not_read(kind, hidden):
    x, mask = normal(5, 4, 9, 3), mask_of(kind, 4, 9)
    changed = np.where(mask[..., None], x, hidden).astype("float32")
    layer = Recurrent(5)
    found = []
    for given in (x, changed):
        with tf.GradientTape() as tape:
            state = layer(given, step_mask=mask)
            loss = ops.sum(state**2)
        found.append([state, *tape.gradient(loss, layer.trainable_variables)])
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a, b)
    weights = weights_of(0, 3, 5)
    states = unroll(changed, weights, mask)
    assert np.array_equal(states, unroll(x, weights, mask))
    upstream = normal(7, 4, 9, 5)
    for a, b in zip(
        backward(changed, states, upstream, weights, mask),
        backward(x, states, upstream, weights, mask),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_padding_equals_the_shorter_sequence():
    x, layer = normal(5, 1, 9, 3), Recurrent(5)
    short = layer(x[:, :4])
    close(layer(x, step_mask=np.arange(9)[None] < 4), short, 1e-6)
    before = np.concatenate([x[:, 4:], x[:, :4]], axis=1)
    close(layer(before, step_mask=np.arange(9)[None] > 4), short, 1e-6)


def test_a_sequence_of_padding_keeps_its_state():
    x, state = normal(5, 2, 4, 3), normal(6, 2, 5)
    none = np.zeros((2, 4), bool)
    assert np.array_equal(Recurrent(5)(x, step_mask=none, initial_state=state), state)
    assert np.array_equal(unroll(x, weights_of(0, 3, 5), none, state)[:, -1], state)


def test_the_future_is_not_read():
    x, layer = normal(5, 2, 8, 3), Recurrent(5, return_sequences=True)
    before = np.asarray(layer(x))
    x[:, 5:] += 10
    after = np.asarray(layer(x))
    assert np.array_equal(before[:, :5], after[:, :5])
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(-1) > 1e-3).all()


def test_a_sequence_may_be_read_in_two_parts():
    x, layer = normal(5, 2, 8, 3), Recurrent(5)
    close(layer(x[:, 3:], initial_state=layer(x[:, :3])), layer(x), 1e-6)


def test_samples_do_not_meet():
    x, layer = normal(5, 4, 6, 3), Recurrent(5)
    together = np.asarray(layer(x))
    for i in range(4):
        close(layer(x[i : i + 1])[0], together[i], 1e-5)


def test_a_state_may_be_a_tuple():
    # Two counters in one state: the sum of what was read, and the number of real steps.
    x, mask = normal(5, 3, 6, 2), mask_of("random", 3, 6)
    sums, counts = rnn(
        lambda x, state: (state[0] + x, state[1] + 1.0),
        ops.convert_to_tensor(x),
        (ops.zeros((3, 2)), ops.zeros((3, 1))),
        mask,
    )
    close(sums, np.cumsum(x * mask[..., None], axis=1))
    close(counts, np.cumsum(mask, axis=1)[..., None])


# ---- shapes, compilation, types, saving


@pytest.mark.parametrize("sequences", [False, True])
def test_batch_and_steps_may_be_unknown(sequences):
    inputs = keras.Input((None, 3))
    mask, state = keras.Input((None,), dtype="bool"), keras.Input((5,))
    layer = Recurrent(5, return_sequences=sequences)
    output = layer(inputs, step_mask=mask, initial_state=state)
    assert output.shape == ((None, None, 5) if sequences else (None, 5))
    model = keras.Model([inputs, mask, state], output)
    for steps in (1, 6):
        given = normal(5, 2, steps, 3), mask_of("after", 2, steps), normal(6, 2, 5)
        close(model(given), layer(given[0], step_mask=given[1], initial_state=given[2]), 1e-6)


def test_compiled_it_gives_the_same_states_and_gradients():
    x, mask, layer = normal(5, 4, 9, 3), mask_of("random", 4, 9), Recurrent(5)

    def both(x):
        with tf.GradientTape() as tape:
            state = layer(x, step_mask=mask)
            loss = ops.sum(state**2)
        return [state, *tape.gradient(loss, layer.trainable_variables)]

    eager = both(x)
    for jit in (False, True):
        for a, b in zip(tf.function(both, jit_compile=jit)(x), eager, strict=True):
            close(a, b)


def test_it_trains():
    keras.utils.set_random_seed(0)
    x = normal(5, 64, 7, 1)
    y = x[:, 2, 0]  # remember the third number
    model = keras.Sequential([keras.Input((None, 1)), Recurrent(16), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    losses = [model.train_on_batch(x, y) for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"])
def test_it_follows_its_policy(policy):
    x, mask = normal(5, 4, 20, 3), mask_of("random", 4, 20)
    exact = Recurrent(8)
    wanted = exact(x, step_mask=mask)
    # TensorFlow has no QR decomposition in bfloat16, so no orthogonal matrix either.
    start = "glorot_uniform" if "bfloat16" in policy else "orthogonal"
    layer = Recurrent(8, recurrent_initializer=start, dtype=policy)
    layer.build(x.shape)
    layer.set_weights(exact.get_weights())
    with tf.GradientTape() as tape:
        state = layer(x, step_mask=mask)
        loss = ops.sum(state**2)
    assert keras.backend.standardize_dtype(state.dtype) == policy.removeprefix("mixed_")
    assert layer.kernel.dtype == layer.variable_dtype
    tolerance = 0.01 if "bfloat" not in policy else 0.08
    assert np.abs(np.asarray(state, "float32") - np.asarray(wanted)).max() < tolerance
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert np.isfinite(np.asarray(gradient, "float32")).all()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("jit", [False, True])
def test_nan_comes_out_as_nan_and_only_where_it_went_in(activation, jit):
    x, layer = normal(5, 3, 6, 2), Recurrent(4, activation, return_sequences=True)
    x[1, 2, 0] = np.nan
    states = np.asarray(tf.function(layer, jit_compile=jit)(x))
    assert np.isnan(states[1, 2:]).all()
    assert np.isfinite(states[1, :2]).all()
    assert np.isfinite(states[[0, 2]]).all()


@SAVING
def test_a_saved_layer_gives_the_same_numbers(tmp_path):
    inputs, mask = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    layer = Recurrent(5, "relu", True, keras.initializers.Identity(0.5), name="reads")
    model = keras.Model([inputs, mask], layer(inputs, step_mask=mask))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    given = normal(5, 2, 6, 3), mask_of("random", 2, 6)
    assert np.array_equal(model(given), again(given))
    assert again.get_layer("reads").get_config() == layer.get_config()


def test_the_configuration_makes_the_same_layer():
    layer = Recurrent(5, "relu", True, "glorot_uniform", name="reads")
    again = Recurrent.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.units, again.return_sequences) == (5, True)


def test_weights_start_orthogonal_and_without_bias():
    layer = Recurrent(16)
    layer.build((None, None, 3))
    recurrent = np.asarray(layer.recurrent)
    close(recurrent @ recurrent.T, np.eye(16), 1e-5)
    assert not np.asarray(layer.bias).any()
    assert layer.count_params() == (3 + 16 + 1) * 16


# ---- bad arguments

X, W = np.zeros((2, 3, 4)), weights_of(0, 4, 5)  # [B, T, D], U = 5
H, UP = np.zeros((2, 4, 5)), np.zeros((2, 3, 5))
BAD_X = [X[0], X[:0], X[:, :0], X[..., None]]
BAD_MASKS = [
    (np.ones((2, 3)), "mask must be boolean, True where real; received float64"),
    (np.ones((2, 4), bool), "mask must be [batch, steps] = (2, 3); received (2, 4)"),
    (np.ones((3, 2), bool), "mask must be [batch, steps] = (2, 3); received (3, 2)"),
    (np.ones((2, 1, 3), bool), "mask must be [batch, steps] = (2, 3); received (2, 1, 3)"),
]


@pytest.mark.parametrize("x", BAD_X, ids=str)
def test_another_shape_of_x_is_named(x):
    text = f"x must be [batch, steps, width], each at least 1; received {x.shape}"
    for call in (
        lambda: unroll(x, W),
        lambda: backward(x, H, UP, W),
        lambda: rnn(lambda x, h: h, ops.convert_to_tensor(x), ops.zeros((2, 5))),
    ):
        with pytest.raises(ValueError, match=message(text)):
            call()


@pytest.mark.parametrize(("mask", "text"), BAD_MASKS)
def test_another_mask_is_named(mask, text):
    for call in (
        lambda: unroll(X, W, mask),
        lambda: backward(X, H, UP, W, mask),
        lambda: rnn(lambda x, h: h, ops.convert_to_tensor(X), ops.zeros((2, 5)), mask),
    ):
        with pytest.raises(ValueError, match=message(text)):
            call()
    with pytest.raises(ValueError, match=re.escape(text.replace("float64", "float32"))):
        Recurrent(5)(X, step_mask=mask)  # Keras casts to the layer's type first


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numpy_refuses_what_is_not_finite(value):
    x = X.copy()
    x[1, 2, 0] = value
    text = "x must be finite where it is real; received NaN or infinity"
    with pytest.raises(ValueError, match=message(text)):
        unroll(x, W)


def test_another_state_is_named():
    text = "state must be [batch, units] = (2, 5); received (2, 4)"
    with pytest.raises(ValueError, match=message(text)):
        unroll(X, W, state=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=re.escape("initial_" + text)):
        Recurrent(5)(X, initial_state=np.zeros((2, 4)))


def test_other_arrays_are_named():
    for hidden, upstream, text in (
        (H[:, 1:], UP, "hidden must be [batch, steps + 1, units] = (2, 4, 5); received (2, 3, 5)"),
        (H, H, "upstream must be [batch, steps, units] = (2, 3, 5); received (2, 4, 5)"),
    ):
        with pytest.raises(ValueError, match=message(text)):
            backward(X, hidden, upstream, W)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ((W[0][1:], *W[1:]), "kernel must be [width, units] = (4, 5); received (3, 5)"),
        ((W[0], W[1][:, 1:], W[2]), "recurrent must be [units, units] = (5, 5); received (5, 4)"),
        ((*W[:2], W[2][:1]), "bias must be [units] = (5,); received (1,)"),
    ],
)
def test_other_weights_are_named(weights, text):
    for call in (lambda: unroll(X, weights), lambda: backward(X, H, UP, weights)):
        with pytest.raises(ValueError, match=message(text)):
            call()


@pytest.mark.parametrize("window", [0, -1, 2.0])
def test_a_window_is_a_whole_number(window):
    text = f"window must be an integer of at least 1 or None; received {window!r}"
    with pytest.raises(ValueError, match=message(text)):
        backward(X, H, UP, W, window=window)


@pytest.mark.parametrize("units", [0, -2, 1.5, None])
def test_units_are_a_whole_number(units):
    text = f"units must be an integer of at least 1; received {units!r}"
    with pytest.raises(ValueError, match=message(text)):
        Recurrent(units)


def test_the_layer_refuses_other_ranks():
    with pytest.raises(ValueError, match=message("x must be [batch, steps, width]; received (2,")):
        Recurrent(5)(X[:, 0])


def test_a_mask_that_keras_attaches_is_not_lost_silently():
    masked = keras.layers.Masking()(keras.Input((None, 3)))
    with pytest.warns(UserWarning, match="does not support mask"):
        Recurrent(5)(masked)


def test_gradients_have_names():
    assert Gradients._fields == ("kernel", "recurrent", "bias", "x", "hidden")
