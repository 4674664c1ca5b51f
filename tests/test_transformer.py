"""The Transformer: hand-worked positions, the same numbers as Keras' own layers, invariants."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from aimodels.attention import causal_mask, padding_mask
from aimodels.transformer import (
    Block,
    FeedForward,
    block_parameters,
    rotate,
    sinusoidal_positions,
)

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ONE_KEY = pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def randomize(layer, seed=0):
    """Give every weight, biases and norms too, a random value."""
    layer.set_weights([normal(seed + i, *w.shape) / 3 for i, w in enumerate(layer.weights)])


# ---- positions


def test_sines_and_cosines_worked_by_hand():
    # D = 4: frequencies 1 and 1/100; columns sin, cos, sin, cos.
    rows = [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(3)]
    close(sinusoidal_positions(3, 4), rows, 1e-6)


def test_a_shift_is_a_rotation_of_each_pair():
    table = sinusoidal_positions(60, 8).reshape(60, 4, 2)  # sine, cosine
    angle = 5 * 10000.0 ** (-np.arange(4) / 4)
    sin, cos = table[:-5, :, 0], table[:-5, :, 1]
    close(table[5:, :, 0], sin * np.cos(angle) + cos * np.sin(angle), 1e-5)
    close(table[5:, :, 1], cos * np.cos(angle) - sin * np.sin(angle), 1e-5)


def test_no_steps_are_an_empty_table():
    assert sinusoidal_positions(0, 6).shape == (0, 6)


def test_a_quarter_turn_by_hand():
    # F = 4: pairs (0, 2) and (1, 3), frequencies 1 and 1/100.
    turned = rotate(np.array([[1.0, 2.0, 3.0, 4.0]], "float32"), [np.pi / 2])
    small = np.pi / 200
    wanted = [
        -3,
        2 * math.cos(small) - 4 * math.sin(small),
        1,
        4 * math.cos(small) + 2 * math.sin(small),
    ]
    close(turned, [wanted], 1e-6)


def test_scores_of_rotated_vectors_depend_on_distance_alone():
    query, key = normal(0, 1, 16), normal(1, 1, 16)

    def score(i, j):
        return float(np.sum(np.asarray(rotate(query, [i])) * np.asarray(rotate(key, [j]))))

    assert abs(score(7, 3) - score(104, 100)) < 1e-4
    assert abs(score(7, 3) - score(3, 7)) > 1e-2


def test_rotation_starts_at_position_zero_and_keeps_lengths():
    x = normal(0, 2, 3, 5, 8)
    turned = np.asarray(rotate(x))
    close(turned[..., 0, :], x[..., 0, :])
    close((turned**2).sum(-1), (x**2).sum(-1))
    close(turned, rotate(x, np.arange(5)))
    close(turned[..., 2:, :], rotate(x[..., 2:, :], np.arange(2, 5)))


def test_the_base_sets_the_slowest_turn():
    # F = 4, base 16: frequencies 1 and 16^(-1/2) = 1/4.
    turned = rotate(np.array([[0.0, 1.0, 0.0, 0.0]], "float32"), [2.0], base=16)
    close(turned, [[0, math.cos(0.5), 0, math.sin(0.5)]], 1e-6)


def test_angles_keep_their_precision_in_half_floats():
    # Position 4097 does not exist in float16; it is turned as if it were 4096 or 4098.
    x = np.tile(normal(0, 1, 8), (2, 1))
    half = np.asarray(rotate(x.astype("float16"), [4096, 4097]), "float32")
    close(half, rotate(x, [4096, 4097]), 5e-3)


# ---- the same numbers as Keras' own layers


def twin(block, heads, x, memory, masks):
    """Return what Keras' own layers make of `x` with the weights of `block`."""
    width = x.shape[-1]

    def attention(ours, query, key, mask):
        theirs = keras.layers.MultiHeadAttention(heads, width // heads)
        theirs.build(query.shape, key.shape)
        shapes = [w.shape for w in theirs.weights]
        theirs.set_weights([w.reshape(s) for w, s in zip(ours.get_weights(), shapes, strict=True)])
        return theirs(query, key, attention_mask=mask)

    def norm(n, x):
        theirs = keras.layers.LayerNormalization(epsilon=block.options["epsilon"])
        theirs.build(x.shape)
        theirs.set_weights(block.norms[n].get_weights())
        return theirs(x)

    def feed(x):
        weights = block.feed.get_weights()
        one = keras.layers.Dense(len(weights[1]), block.activation)
        two = keras.layers.Dense(width)
        one.build(x.shape)
        two.build((*x.shape[:-1], len(weights[1])))
        one.set_weights(weights[:2])
        two.set_weights(weights[2:])
        return two(one(x))

    branches = [lambda x: attention(block.attend, x, x, masks[0])]
    if memory is not None:
        branches.append(lambda x: attention(block.read, x, memory, masks[1]))
    branches.append(feed)
    for n, branch in enumerate(branches):
        x = x + branch(norm(n, x)) if block.norm == "pre" else norm(n, x + branch(x))
    return x


# B, T, K, D, C, E, H
SHAPES = [
    (2, 5, 7, 8, 6, 16, 2),
    (1, 1, 1, 4, 4, 3, 1),
    (3, 4, 1, 6, 6, 1, 6),
    (1, 9, 4, 12, 5, 24, 3),
]


@ONE_KEY
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_equals_keras_layers_with_the_same_weights(shape, norm, cross):
    samples, steps, keys, width, other, hidden, heads = shape
    activation = "relu" if hidden == 3 else "gelu"
    block = Block(heads, hidden, norm, cross=cross, activation=activation, epsilon=1e-3)
    x, memory = normal(1, samples, steps, width), normal(2, samples, keys, other)
    memory = memory if cross else None
    causal = np.asarray(causal_mask(steps))
    real = np.asarray(padding_mask(np.arange(samples) % keys + 1, keys))
    masks = np.broadcast_to(causal, (samples, steps, steps)), np.repeat(real, steps, 1)
    block.build(x.shape, memory.shape if cross else None)
    randomize(block)
    output = block(x, memory, attention_mask=causal, memory_mask=real if cross else None)
    close(output, twin(block, heads, x, memory, masks))


@pytest.mark.parametrize("cross", [False, True])
def test_the_parameters_of_a_block_are_as_many_as_the_formula_says(cross):
    width, hidden, other = 12, 20, 7
    block = Block(3, hidden, cross=cross)
    block.build((None, None, width), (None, None, other) if cross else None)
    wanted = 4 * width**2 + 2 * width * hidden + hidden + 9 * width
    wanted += cross * (2 * width**2 + 2 * other * width + 6 * width)
    assert block.count_params() == wanted
    usual = Block(2, 32)
    usual.build((None, None, 8))
    assert usual.count_params() == block_parameters(8, 32) == 12 * 8**2 + 13 * 8
    assert block_parameters(width, hidden) == 4 * width**2 + 2 * width * hidden + hidden + 9 * width


# ---- what must hold for any input


def test_with_branches_of_zero_a_pre_norm_block_is_the_identity():
    x = normal(0, 2, 3, 8)
    pre, post = Block(2, 16, "pre"), Block(2, 16, "post")
    for block in (pre, post):
        block.build(x.shape)
        for dense in (block.attend.merge, block.feed.narrow):
            dense.set_weights([0 * w for w in dense.get_weights()])
    assert (np.asarray(pre(x)) == x).all()
    rows = np.asarray(post(x))
    assert np.abs(rows.mean(-1)).max() < 1e-6
    close(rows.var(-1), np.ones((2, 3)), 1e-3)


def test_a_hidden_step_is_not_read():
    block = Block(2, 16, cross=True, rotary=True)
    x, memory, real = normal(0, 2, 5, 8), normal(1, 2, 4, 8), padding_mask([2, 4], 4)
    masks = {"attention_mask": causal_mask(5), "memory_mask": real}
    before = np.asarray(block(x, memory, **masks))
    memory[0, 2:] = 99
    x[:, 3:] += 1
    after = np.asarray(block(x, memory, **masks))
    assert (before[:, :3] == after[:, :3]).all()
    assert (np.abs(before - after)[:, 3:].max(-1) > 1e-4).all()


def test_the_memory_is_read():
    block = Block(2, 16, cross=True)
    x, memory = normal(0, 1, 3, 8), normal(1, 1, 4, 8)
    assert np.abs(np.asarray(block(x, memory)) - np.asarray(block(x, memory + 1))).max() > 1e-3


def test_rotary_blocks_see_distance_and_not_place():
    block, x = Block(2, 16, rotary=True), normal(0, 1, 4, 8)
    padded = np.concatenate([np.zeros((1, 3, 8), "float32"), x], 1)
    shifted = block(padded, attention_mask=np.arange(7)[None] >= 3)
    close(shifted[:, 3:], block(x), 1e-4)
    assert np.abs(np.asarray(block(x[:, ::-1]))[:, ::-1] - np.asarray(block(x))).max() > 1e-3


def test_without_positions_permuted_steps_give_permuted_outputs():
    block, x = Block(2, 16), normal(0, 2, 7, 8)
    order = np.random.default_rng(1).permutation(7)
    close(block(x[:, order]), np.asarray(block(x))[:, order])


@pytest.mark.parametrize("rotary", [False, True])
def test_steps_with_a_cache_equal_steps_at_once(rotary):
    block, x = Block(2, 16, rotary=rotary), normal(0, 2, 6, 8)
    wanted = block(x, attention_mask=causal_mask(6))
    cache, outputs = (np.zeros((2, 2, 9, 4), "float32"),) * 2, []
    for start, end in ((0, 2), (2, 3), (3, 6)):
        output, cache = block(x[:, start:end], cache=cache, index=start)
        outputs.append(np.asarray(output))
    close(np.concatenate(outputs, 1), wanted)


def test_dropout_works_in_training_alone():
    block, x = Block(2, 16, dropout=0.5), normal(0, 2, 3, 8)
    assert (np.asarray(block(x)) == np.asarray(block(x))).all()
    assert (np.asarray(block(x, training=True)) != np.asarray(block(x, training=True))).any()
    with_none = Block(2, 16)
    with_none.build(x.shape)
    with_none.set_weights([w for w in block.get_weights() if w.dtype == "float32"])
    close(with_none(x, training=True), block(x))


@pytest.mark.parametrize("kept", ["attend", "read", "feed"])
def test_each_branch_drops(kept):
    block, x, memory = Block(2, 16, cross=True, dropout=0.5), normal(0, 2, 3, 8), normal(1, 2, 4, 8)
    block.build(x.shape, memory.shape)
    last = {"attend": block.attend.merge, "read": block.read.merge, "feed": block.feed.narrow}
    for name, dense in last.items():
        if name != kept:  # only one branch adds anything, so only its dropout can show
            dense.set_weights([0 * w for w in dense.get_weights()])
    change = np.asarray(block(x, memory, training=True)) - x
    wanted = np.asarray(block(x, memory)) - x
    dropped = np.abs(change) < 1e-6
    assert 0.2 < dropped.mean() < 0.8
    close(change[~dropped], 2 * wanted[~dropped], 1e-4)


def test_nan_comes_out_as_nan():
    x = normal(0, 2, 3, 8)
    x[1, 1] = np.nan
    output = np.asarray(Block(2, 16)(x))
    assert np.isfinite(output[0]).all()
    assert np.isnan(output[1]).all()


def test_an_empty_batch_is_an_empty_batch():
    assert Block(2, 16)(np.zeros((0, 3, 8), "float32")).shape == (0, 3, 8)


def test_another_layer_may_take_the_place_of_the_feedforward_network():
    dense, x = keras.layers.Dense(8), normal(0, 2, 3, 8)
    block = Block(2, 16, feed_forward=dense)
    assert block(x).shape == (2, 3, 8)
    assert (block.feed is dense, len(block.weights)) == (True, 14)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_half_precision_is_finite_and_near(norm, policy):
    x, memory = normal(0, 2, 6, 8), normal(1, 2, 3, 8)
    block = Block(2, 16, norm, cross=True, rotary=True, dtype=policy)
    masks = {"attention_mask": causal_mask(6), "memory_mask": padding_mask([0, 2], 3)}
    output = block(x, memory, **masks)
    assert output.dtype.name == "float16"
    exact = Block(2, 16, norm, cross=True, rotary=True)
    exact.build(x.shape, memory.shape)
    exact.set_weights([np.asarray(w, "float32") for w in block.get_weights()])
    assert (
        np.abs(np.asarray(output, "float32") - np.asarray(exact(x, memory, **masks))).max() < 0.03
    )


# ---- shapes known later, compiled, saved


def model(feed_forward=None):
    x, memory = keras.Input((None, 8)), keras.Input((None, 6))
    real = keras.Input((1, None), dtype="bool")
    block = Block(2, 16, "post", cross=True, rotary=True, feed_forward=feed_forward, name="block")
    output = block(x, memory, memory_mask=real)
    assert output.shape == (None, None, 8)
    return keras.Model([x, memory, real], output)


INPUTS = normal(0, 2, 5, 8), normal(1, 2, 3, 6), np.asarray(padding_mask([3, 1], 3))


def test_compiled_it_gives_the_same_numbers():
    network = model()
    compiled = tf.function(lambda *inputs: network(inputs), jit_compile=True)
    close(compiled(*INPUTS), network(INPUTS), 1e-4)


@SAVING
@pytest.mark.parametrize("given", [None, FeedForward(7, "relu", 0.1)])
def test_a_saved_block_gives_the_same_numbers(tmp_path, given):
    network = model(given)
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (np.asarray(network(INPUTS)) == np.asarray(again(INPUTS))).all()
    one, two = (m.get_layer("block") for m in (network, again))
    assert two.feed.get_config() == one.feed.get_config()
    configs = [{**block.get_config(), "feed_forward": None} for block in (one, two)]
    assert configs[0] == configs[1]


def test_the_configuration_makes_the_same_layer():
    for layer in (
        FeedForward(5, "relu", 0.2),
        Block(2, 9, "post", cross=True, activation="silu", dropout=0.3, epsilon=1e-3, rotary=True),
    ):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config() == config
    assert {
        k: config[k] for k in ("heads", "hidden", "norm", "cross", "activation", "dropout")
    } == {
        "heads": 2,
        "hidden": 9,
        "norm": "post",
        "cross": True,
        "activation": "silu",
        "dropout": 0.3,
    }
    assert (config["epsilon"], config["rotary"]) == (1e-3, True)


# ---- bad arguments


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: sinusoidal_positions(-1, 4), "steps must be 0 or more; received -1"),
        (lambda: sinusoidal_positions(3, 5), "width must be even and at least 2; received 5"),
        (lambda: sinusoidal_positions(3, 0), "width must be even and at least 2; received 0"),
        (lambda: rotate(np.zeros(4)), "x must be [..., steps, even width]; received (4,)"),
        (lambda: rotate(np.zeros((2, 3))), "x must be [..., steps, even width]; received (2, 3)"),
        (lambda: FeedForward(0), "hidden must be an integer of at least 1; received 0"),
        (lambda: FeedForward(2.5), "hidden must be an integer of at least 1; received 2.5"),
        (lambda: Block(2, 8, "layer"), "norm must be 'pre' or 'post'; received 'layer'"),
        (lambda: Block(0, 8), "heads must be an integer of at least 1; received 0"),
        (lambda: Block(3, 8)(np.zeros((1, 2, 8))), "heads must divide the width 8; received 3"),
        (lambda: Block(2, 8)(np.zeros((2, 8))), "query must be [batch, steps, width]"),
        (
            lambda: Block(2, 8, cross=True)(np.zeros((1, 2, 8))),
            "memory must be given where cross is True; received None",
        ),
        (
            lambda: Block(2, 8)(np.zeros((1, 2, 8)), np.zeros((1, 2, 8))),
            "memory must be None where cross is False",
        ),
    ],
)
def test_wrong_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()
