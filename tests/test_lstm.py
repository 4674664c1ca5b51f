"""LSTM and GRU: hand-worked numbers, the same numbers as Keras, masks, precision, errors."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.lstm import GRU, LSTM, gru_step, lstm_step, recur

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BOTH = pytest.mark.parametrize("kind", [LSTM, GRU])
PEERS = pytest.mark.parametrize(
    ("ours", "theirs"), [(LSTM, keras.layers.LSTM), (GRU, keras.layers.GRU)]
)
# B, T, D, U
SHAPES = [(3, 7, 5, 4), (1, 1, 1, 1), (2, 5, 3, 1), (1, 4, 1, 3), (2, 1, 4, 2)]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def randomized(layer, width, seed=0):
    layer.build((None, None, width))
    layer.set_weights([normal(seed + i, *w.shape) / 2 for i, w in enumerate(layer.weights)])
    return layer


def twin(ours, theirs, width, **arguments):
    peer = theirs(ours.units, return_sequences=ours.return_sequences, **arguments)
    peer.build((None, None, width))
    peer.set_weights(ours.get_weights())
    return peer


def padding(samples, steps):
    return np.arange(steps) < (np.arange(samples) % steps + 1)[:, None]


# ---- numbers worked by hand


def test_one_step_of_the_lstm():
    # i = σ(0) = 1/2, f = σ(ln 3) = 3/4, g = tanh(1), o = σ(-ln 3) = 1/4; c was 2.
    kernel, recurrent = np.array([[0.0, 0.0, 1.0, 0.0]]), np.zeros((1, 4))
    bias = np.array([0.0, np.log(3), 0.0, -np.log(3)])
    h, c = lstm_step(
        np.ones((1, 1)), (np.zeros((1, 1)), np.full((1, 1), 2.0)), (kernel, recurrent, bias)
    )
    cell = 0.75 * 2 + 0.5 * np.tanh(1)
    close(c, [[cell]], 1e-7)
    close(h, [[0.25 * np.tanh(cell)]], 1e-7)


def test_the_recurrent_kernel_reads_h_and_not_c():
    # h = 1 and c = 0 give f, i, o = 1/2 and g = tanh(2).
    kernel, recurrent = np.zeros((1, 4)), np.array([[0.0, 0.0, 2.0, 0.0]])
    state = np.ones((1, 1)), np.zeros((1, 1))
    _, c = lstm_step(np.zeros((1, 1)), state, (kernel, recurrent, np.zeros(4)))
    close(c, [[0.5 * np.tanh(2)]], 1e-7)


def test_one_step_of_the_gru():
    # z = σ(ln 3) = 3/4, r = σ(0) = 1/2; after: n = tanh(1 + 1/2 (2·4 + 6)) = tanh(8);
    # before, without the second bias: n = tanh(1 + (1/2·2)·4) = tanh(5).
    kernel, recurrent = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 4.0]])
    bias = np.array([[np.log(3), 0.0, 0.0], [0.0, 0.0, 6.0]])
    x, h = np.ones((1, 1)), np.full((1, 1), 2.0)
    after = gru_step(x, h, (kernel, recurrent, bias))
    before = gru_step(x, h, (kernel, recurrent, bias[0]), reset_after=False)
    close(after, [[0.75 * 2 + 0.25 * np.tanh(8)]], 1e-7)
    close(before, [[0.75 * 2 + 0.25 * np.tanh(5)]], 1e-7)


def test_the_forget_bias_is_one_and_the_others_zero():
    layer = LSTM(2)
    layer.build((None, None, 3))
    assert layer.get_weights()[2].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    layer = LSTM(1, forget_bias=4.0)
    layer.build((None, None, 3))
    assert layer.get_weights()[2].tolist() == [0, 4, 0, 0]
    layer = GRU(2)
    layer.build((None, None, 3))
    assert not layer.get_weights()[2].any()


@pytest.mark.parametrize(("kind", "count"), [(LSTM, 4 * (15 + 9 + 3)), (GRU, 3 * (15 + 9 + 6))])
def test_parameters_are_counted_by_the_formula(kind, count):
    assert randomized(kind(3), 5).count_params() == count


# ---- the same numbers as a trusted peer


@PEERS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_those_of_keras(ours, theirs, shape, sequences, masked):
    samples, steps, width, units = shape
    mask = (normal(9, samples, steps) > -0.3) if masked else None
    if masked:
        mask[:, 0] = True  # for padding before the first real step Keras returns zeros
    ours = randomized(ours(units, return_sequences=sequences), width)
    theirs = twin(ours, theirs, width)
    x, results = tf.constant(normal(8, samples, steps, width)), []
    for layer, name in [(ours, "step_mask"), (theirs, "mask")]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            hidden = layer(x, **{name: mask})
            cubes = ops.sum(hidden**3)
        results.append([hidden, *tape.gradient(cubes, [x, *layer.trainable_variables])])
    for mine, its in zip(*results, strict=True):
        close(mine, its)


@PEERS
def test_the_state_goes_in_and_comes_out_as_in_keras(ours, theirs):
    ours = randomized(ours(3), 4)
    theirs = twin(ours, theirs, 4, return_state=True)
    x = normal(1, 2, 5, 4)
    state = [tf.constant(normal(2 + i, 2, 3)) for i in range(ours.states)]
    results = []
    for call in (
        lambda: ours(x, initial_state=state, return_state=True),
        lambda: theirs(x, initial_state=state),
    ):
        with tf.GradientTape() as tape:
            tape.watch(state)
            parts = tf.nest.flatten(call())
            total = ops.sum(ops.stack([ops.sum(part**3) for part in parts]))
        results.append(parts + tape.gradient(total, state))
    for mine, its in zip(*results, strict=True):
        close(mine, its)


def test_relu_equals_keras():
    ours = randomized(LSTM(3, activation="relu"), 4)
    theirs = twin(ours, keras.layers.LSTM, 4, activation="relu")
    x = normal(1, 2, 5, 4)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("reset_after", [False, True])
def test_gru_steps_equal_keras_in_both_forms(reset_after):
    theirs = keras.layers.GRU(3, reset_after=reset_after)
    randomized(theirs, 4)
    x, h = normal(1, 2, 5, 4), np.zeros((2, 3), "float32")
    for t in range(5):
        h = gru_step(x[:, t], h, theirs.get_weights(), reset_after)
    close(h, theirs(x))


def test_lstm_steps_equal_the_layer():
    layer = randomized(LSTM(3), 4)
    x, state = normal(1, 2, 5, 4), 2 * [np.zeros((2, 3), "float32")]
    for t in range(5):
        state = lstm_step(x[:, t], state, layer.get_weights())
    _, last = layer(x, return_state=True)
    close(state[0], last[0])
    close(state[1], last[1])


# ---- what must hold for any input


@BOTH
def test_padding_is_not_read_and_the_state_passes_through(kind):
    layer = randomized(kind(3, return_sequences=True), 4)
    x, mask = normal(1, 3, 5, 4), padding(3, 5)
    before = np.asarray(layer(x, mask))
    x[~mask] = np.nan
    after = np.asarray(layer(x, mask))
    assert (before == after).all()
    for row, length in zip(after, mask.sum(1), strict=True):
        assert (row[length:] == row[length - 1]).all()


@BOTH
def test_gradients_are_finite_where_padding_holds_nan(kind):
    layer = randomized(kind(3), 4)
    x, mask = normal(1, 3, 5, 4), padding(3, 5)
    x[~mask] = np.nan
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = ops.sum(layer(x, mask))
    gradients = tape.gradient(total, [x, *layer.trainable_variables])
    assert all(np.isfinite(g).all() for g in gradients)
    assert not np.asarray(gradients[0])[~mask].any()


@BOTH
def test_nan_in_a_real_step_comes_out_as_nan_of_its_own_sequence(kind):
    x = normal(1, 2, 5, 4)
    x[0, 2, 1] = np.nan
    hidden = np.asarray(randomized(kind(3, return_sequences=True), 4)(x))
    assert np.isnan(hidden[0, 2:]).all()
    assert np.isfinite(hidden[0, :2]).all()
    assert np.isfinite(hidden[1]).all()


@BOTH
def test_a_sequence_in_two_pieces_gives_the_same_numbers(kind):
    layer, x = randomized(kind(3), 4), normal(1, 2, 7, 4)
    _, state = layer(x[:, :3], return_state=True)
    close(layer(x[:, 3:], initial_state=state), layer(x), 1e-6)


@BOTH
def test_a_sequence_without_real_steps_keeps_its_state(kind):
    layer = randomized(kind(3), 4)
    state = [normal(i, 2, 3) for i in range(layer.states)]
    output = layer(normal(1, 2, 5, 4), np.zeros((2, 5), bool), initial_state=state)
    assert (np.asarray(output) == state[0]).all()


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in [(4, 2, 3), (3, 3), (3,), (2, 3)]]
    real = rng.random((4, 2, 1)) < 0.7

    def total(z, recurrent, bias, h):
        hidden, last = recur(
            lambda z, inner, old: [tf.tanh(z + inner) + 0.5 * old[0] * z],
            *(tf.convert_to_tensor(a) for a in (z, recurrent, bias)),
            [tf.convert_to_tensor(h)],
            real=real,
        )
        return tf.reduce_sum(hidden**2) + tf.reduce_sum(last[0] ** 3)

    variables = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        loss = total(*variables)
    for place, gradient in enumerate(tape.gradient(loss, variables)):
        at = tuple(n - 1 for n in arrays[place].shape)
        moved = [[a.copy() for a in arrays] for _ in range(2)]
        moved[0][place][at] -= 1e-6
        moved[1][place][at] += 1e-6
        slope = float(total(*moved[1]) - total(*moved[0])) / 2e-6
        assert abs(slope - gradient.numpy()[at]) < 1e-6 * (1 + abs(slope))


# ---- compiled, saved, in half precision


@BOTH
def test_unknown_sizes_and_xla_give_the_same_numbers(kind):
    x, allowed = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    last = kind(3)(x, allowed)
    assert last.shape == (None, 3)
    assert kind(3, return_sequences=True)(x, allowed).shape == (None, None, 3)
    model = keras.Model([x, allowed], last)

    def both(x, mask):
        with tf.GradientTape() as tape:
            loss = ops.sum(model([x, mask]) ** 2)
        return loss, tape.gradient(loss, model.trainable_variables)

    arrays = tf.constant(normal(1, 3, 6, 4)), tf.constant(padding(3, 6))
    wanted = tf.nest.flatten(both(*arrays))
    compiled = tf.function(both, jit_compile=True, autograph=False)
    for mine, its in zip(tf.nest.flatten(compiled(*arrays)), wanted, strict=True):
        close(mine, its)


def test_it_trains():
    layer, x = randomized(LSTM(3), 4), tf.constant(normal(1, 8, 3, 4))
    optimizer, losses = keras.optimizers.Adam(0.1), []
    for _ in range(15):
        with tf.GradientTape() as tape:
            loss = ops.mean((layer(x) - x[:, 0, :3] / 4) ** 2)
        variables = layer.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


@SAVING
def test_a_saved_model_gives_the_same_numbers(tmp_path):
    x = keras.Input((None, 4))
    hidden = LSTM(5, True, activation="relu", forget_bias=2.0, name="reads")(x)
    model = keras.Model(x, GRU(3)(hidden))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    data = normal(1, 2, 5, 4)
    assert (np.asarray(model(data)) == np.asarray(again(data))).all()
    layer = again.get_layer("reads")
    assert (layer.units, layer.return_sequences, layer.forget_bias) == (5, True, 2.0)
    assert layer.activation is keras.activations.relu


@BOTH
@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
def test_half_precision_is_finite_and_near(kind, policy):
    layer, x = randomized(kind(3, dtype=policy), 4), normal(1, 2, 6, 4)
    output = layer(x, padding(2, 6))
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    exact = kind(3)
    exact.build((None, None, 4))
    exact.set_weights([w.astype("float32") for w in layer.get_weights()])
    wanted = np.asarray(exact(x, padding(2, 6)))
    assert np.abs(np.asarray(output, "float32") - wanted).max() < 0.01


# ---- bad arguments


X = np.zeros((2, 3, 4), "float32")


@BOTH
@pytest.mark.parametrize("units", [0, -1, 1.5, None])
def test_units_must_be_a_whole_number(kind, units):
    text = f"units must be an integer of at least 1; received {units!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        kind(units)


@BOTH
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X[0],), "x must be [batch, steps, width]; received (3, 4)"),
        ((X[:, :0],), "x must be [batch, steps, width], each at least 1; received (2, 0, 4)"),
        ((X[:0],), "x must be [batch, steps, width], each at least 1; received (0, 3, 4)"),
        (
            (X, np.ones((2, 3), "float32")),
            "mask must be boolean, True where real; received float32",
        ),
        ((X, np.ones((3, 2), bool)), "mask must be [batch, steps] = (2, 3); received (3, 2)"),
        ((X, np.ones((2, 1, 3), bool)), "mask must be [batch, steps] = (2, 3); received (2, 1, 3)"),
    ],
)
def test_the_layer_refuses(kind, arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kind(5)(*arguments)


@BOTH
def test_the_layer_refuses_another_state(kind):
    layer = randomized(kind(5), 4)
    states = [np.zeros((2, 4), "float32")] * layer.states
    text = "initial_state must be [batch, units] = (2, 5); received (2, 4)"
    with pytest.raises(ValueError, match=re.escape(text)):
        layer(X, initial_state=states)
    text = f"initial_state must hold {layer.states} arrays; received 3"
    with pytest.raises(ValueError, match=re.escape(text)):
        layer(X, initial_state=[np.zeros((2, 5), "float32")] * 3)
