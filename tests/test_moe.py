"""Mixture of experts: a peer token by token, dense when experts are equal, slots, balance, counts."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.gpt import GPT, generate, next_token_loss
from aimodels.moe import (
    MixtureOfExperts,
    balance_loss,
    by_loop,
    by_slots,
    capacity,
    parameter_count,
    places,
    route,
)
from aimodels.training import make_step
from aimodels.transformer import Block, FeedForward

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def message(text):
    return f"^{re.escape(text)}"


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    scale = np.abs(b).max() if b.size else 0
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def made(width, experts, hidden, top_k=2, seed=0, **options):
    """Return a layer of which every weight, biases too, is random."""
    layer = MixtureOfExperts(experts, hidden, top_k, **options)
    layer.build((None, width))
    layer.set_weights([0.7 * normal(seed + n, *w.shape) for n, w in enumerate(layer.weights)])
    return layer


# ---- counts


@pytest.mark.parametrize("size", [(5, 7, 3, 2), (1, 1, 1, 1), (4, 6, 8, 8), (2, 9, 5, 1)])
def test_the_count_is_that_of_the_layer(size):
    width, hidden, experts, top_k = size
    layer = made(width, experts, hidden, top_k)
    total, active = parameter_count(width, hidden, experts, top_k)
    assert total == layer.count_params()
    idle = sum(math.prod(w.shape[1:]) for w in layer.weights[1:]) * (experts - top_k)
    assert active == total - idle


def test_mixtral_has_46_7_and_12_9_thousand_million():
    # Jiang et al. 2024, table 1: 32 layers, 32 heads and 8 for keys and values, each of 128.
    attention = 4096 * 128 * (32 + 8 + 8 + 32)
    rest = 32 * (attention + 2 * 4096) + 2 * 32000 * 4096 + 4096
    total, active = (
        32 * count + rest for count in parameter_count(4096, 14336, 8, 2, matrices=3, biases=False)
    )
    assert total == 46_702_792_704
    assert active == 12_879_925_248


def test_switch_c_has_1571_thousand_million():
    # Fedus et al. 2021, table 9: 15 layers in encoder and decoder, 32 heads of 64, no gate.
    attention = 3 * 15 * 4 * 2080 * 32 * 64  # one of the encoder, two of the decoder
    total, _ = parameter_count(2080, 6144, 2048, 1, biases=False)
    assert round((30 * total + attention + 32128 * 2080) / 1e9) == 1571


# ---- the router


def test_gates_worked_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    p, gates, chosen = route(logits, 2)
    close(p, [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    close(gates, [[0.625, 0.375], [8 / 9, 1 / 9]])
    assert np.asarray(chosen).tolist() == [[0, 1], [2, 0]]  # of equal ones the first
    close(route(logits, 1, renormalize=False)[1], [[0.5], [0.8]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_probabilities_are_float32(dtype):
    p, gates, _ = route(ops.cast(normal(0, 3, 4), dtype), 2)
    assert p.dtype == gates.dtype == tf.float32


@pytest.mark.parametrize("jit", [False, True])
def test_nan_gives_nan_gates_and_experts_that_exist(jit):
    logits = normal(0, 5, 4)
    logits[1, 2] = np.nan
    logits[2, 0] = np.inf
    logits[3, 1] = -np.inf
    compiled = tf.function(lambda x: route(x, 3), jit_compile=jit)
    p, gates, chosen = (np.asarray(part) for part in compiled(tf.constant(logits)))
    for part in (p, gates):
        assert np.isnan(part).all(1).tolist() == [False, True, True, False, False]
        assert np.isnan(part).any(1).sum() == 2
    assert p[3, 1] == 0  # an expert that must not be chosen
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    assert 0 <= chosen.min() <= chosen.max() <= 3


def gradient_of_the_router(renormalize):
    layer = made(3, 4, 5, 1)
    x = tf.constant(normal(1, 6, 3))
    with tf.GradientTape() as tape:
        _, gates, chosen = route(ops.matmul(x, layer.router), 1, renormalize)
        weights = [ops.convert_to_tensor(w) for w in layer.weights[1:]]
        y = by_slots(x, gates, chosen, weights, layer.activation, slots=6)
        loss = ops.sum(y * normal(2, 6, 3))
    return np.abs(np.asarray(tape.gradient(loss, layer.router.value))).max()


def test_one_renormalized_gate_teaches_the_router_nothing():
    assert gradient_of_the_router(renormalize=True) < 1e-6
    assert gradient_of_the_router(renormalize=False) > 1e-2


# ---- the balance


def test_balance_worked_by_hand():
    even = np.full((4, 4), 0.25)
    assert float(balance_loss(even, np.arange(4)[:, None])) == pytest.approx(1)
    one = np.tile([[1.0, 0, 0, 0]], (4, 1))
    assert float(balance_loss(one, np.zeros((4, 1), int))) == pytest.approx(4)
    # Shares of choices 1/2, 1/4, 1/4, 0; mean probabilities 0.4, 0.3, 0.2, 0.1.
    p = np.tile([[0.4, 0.3, 0.2, 0.1]], (2, 1))
    assert float(balance_loss(p, np.array([[0, 1], [2, 0]]))) == pytest.approx(
        4 * (0.4 / 2 + 0.3 / 4 + 0.2 / 4)
    )


def test_padding_does_not_count_in_the_balance():
    p, _, chosen = (np.asarray(part) for part in route(normal(0, 6, 5), 2))
    mask = np.array([True, False, True, True, False, True])
    spoilt = np.where(mask[:, None], p, np.nan)
    close(balance_loss(spoilt, chosen, mask), balance_loss(p[mask], chosen[mask]))
    assert float(balance_loss(p, chosen, ~np.ones(6, bool))) == 0


def test_the_balance_has_a_gradient_by_the_probabilities_alone():
    p = tf.Variable([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3]])
    with tf.GradientTape() as tape:
        loss = balance_loss(p, np.array([[0], [0]]))
    close(tape.gradient(loss, p), [[1.5, 0, 0], [1.5, 0, 0]])  # M f / S


# ---- capacity and slots


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "factor", "slots"),
    [
        (8, 4, 1, 1.0, 2),
        (8, 4, 1, 1.25, 3),
        (10, 4, 2, 1.1, 6),  # 5.5
        (20, 4, 2, 1.1, 11),  # exactly, although 1.1 is a little more than 1.1
        (7, 8, 1, 0.5, 1),
        (5, 2, 2, 4.0, 5),
        (5, 2, 1, None, 5),
        (0, 2, 1, 1.25, 0),
    ],
)
def test_slots_worked_by_hand(tokens, experts, top_k, factor, slots):
    assert capacity(tokens, experts, top_k, factor) == slots
    assert int(capacity(tf.constant(tokens), experts, top_k, factor)) == slots


def test_first_come_first_served():
    chosen = np.array([[0, 1], [0, 2], [1, 0], [1, 2]])
    assert np.asarray(places(chosen, 3, 2)).tolist() == [[0, 0], [1, 0], [1, -1], [-1, 1]]
    mask = np.array([True, False, True, True])
    assert np.asarray(places(chosen, 3, 2, mask)).tolist() == [[0, 0], [-1, -1], [1, 1], [-1, 0]]


# ---- a peer written apart


def token_by_token(layer, x, factor, mask):
    """Return y in float64: one token after the other, each expert counting whom it has served."""
    router, w1, b1, w2, b2 = (np.asarray(w, "float64") for w in layer.weights)
    experts, top_k = layer.sizes["experts"], layer.sizes["top_k"]
    room = len(x) if factor is None else math.ceil(round(factor * len(x) * top_k / experts, 9))
    y, served = np.zeros(x.shape), [0] * experts
    erf = np.vectorize(math.erf)
    for t, row in enumerate(x.astype("float64")):
        if not mask[t]:
            continue
        scores = np.exp(row @ router - (row @ router).max())
        scores /= scores.sum()
        best = sorted(range(experts), key=lambda m: -scores[m])[:top_k]
        scale = sum(scores[m] for m in best) if top_k > 1 else 1.0
        for m in best:
            served[m] += 1
            if served[m] <= room:
                h = row @ w1[m] + b1[m]
                h = h * (1 + erf(h / math.sqrt(2))) / 2
                y[t] += scores[m] / scale * (h @ w2[m] + b2[m])
    return y


SIZES = [  # S, D, E, M, K, factor
    (1, 1, 1, 1, 1, 1.0),
    (7, 3, 5, 1, 1, 0.5),
    (6, 2, 1, 4, 4, 0.75),
    (9, 4, 3, 5, 1, 1.0),
    (12, 3, 4, 3, 2, 0.5),
    (1, 5, 2, 6, 3, 1.25),
    (16, 6, 7, 8, 2, 1.25),
    (11, 1, 3, 2, 2, None),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_peer_token_by_token(size, masked):
    tokens, width, hidden, experts, top_k, factor = size
    layer = made(width, experts, hidden, top_k, seed=tokens, evaluation_factor=factor)
    x = normal(99, tokens, width)
    mask = np.random.default_rng(7).random(tokens) < 0.7 if masked else np.ones(tokens, bool)
    y = layer(x, token_mask=ops.convert_to_tensor(mask)) if masked else layer(x)
    slots = capacity(int(mask.size), experts, top_k, factor)
    assert slots >= 1
    close(y, token_by_token(layer, x, factor, mask))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_slots_and_loop_agree_with_their_gradients(size, masked):
    tokens, width, hidden, experts, top_k, _ = size
    layer = made(width, experts, hidden, top_k, seed=tokens)
    x = tf.constant(normal(98, tokens, width))
    mask = tf.constant(np.random.default_rng(8).random(tokens) < 0.6) if masked else None
    found = []
    for way in ("slots", "loop"):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, gates, chosen = layer.choose(x)
            weights = [ops.convert_to_tensor(w) for w in layer.weights[1:]]
            more = {"slots": tokens} if way == "slots" else {}
            run = by_slots if way == "slots" else by_loop
            y = run(x, gates, chosen, weights, layer.activation, mask=mask, **more)
            loss = ops.sum(y * normal(97, tokens, width))
        sources = [x, *(w.value for w in layer.weights)]
        slopes = tape.gradient(loss, sources, unconnected_gradients="zero")
        found.append([y, *(tf.convert_to_tensor(slope) for slope in slopes)])
    for one, other in zip(*found, strict=True):
        close(one, other, 2e-5)


# ---- equal experts are one dense layer


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (4, 2), (5, 5), (3, 1)])
def test_equal_experts_are_the_dense_layer(experts, top_k):
    dense = FeedForward(7)
    dense.build((None, 4))
    dense.set_weights([normal(n, *w.shape) for n, w in enumerate(dense.weights)])
    layer = made(4, experts, 7, top_k)
    equal = [np.stack([w] * experts) for w in dense.get_weights()]
    layer.set_weights([layer.get_weights()[0], *equal])
    x = normal(5, 3, 6, 4)
    p = np.asarray(layer.choose(x.reshape(-1, 4))[0]).max(-1).reshape(3, 6, 1)
    expected = np.asarray(dense(x)) * (p if top_k == 1 else 1)  # Switch: times its probability
    close(layer(x), expected)


# ---- what must hold for any input


def test_a_token_does_not_depend_on_later_ones():
    layer = made(4, 3, 5, 2, evaluation_factor=0.6)
    x, other = normal(0, 1, 10, 4), normal(1, 1, 10, 4)
    other[:, :6] = x[:, :6]
    assert (np.asarray(layer(x))[:, :6] == np.asarray(layer(other))[:, :6]).all()


def test_with_a_limit_a_sample_depends_on_those_before_it():
    x, other = normal(0, 2, 5, 4), normal(1, 1, 5, 4)
    limited = made(4, 3, 5, 2, evaluation_factor=0.6)
    free = made(4, 3, 5, 2)
    alone = [np.asarray(layer(x[:1])) for layer in (limited, free)]
    joined = np.concatenate([x[1:], x[:1]])
    assert np.abs(np.asarray(limited(joined))[1] - alone[0][0]).max() > 0.1
    close(np.asarray(free(joined))[1], alone[1][0])
    close(np.asarray(free(np.concatenate([other, x[:1]])))[1], alone[1][0])


def test_a_dropped_token_gets_zero():
    layer = made(3, 2, 4, 1, evaluation_factor=0.5)
    x = np.tile(normal(0, 1, 3), (8, 1))  # all choose the same expert, with two slots
    y = np.asarray(layer(x))
    assert (np.abs(y).max(-1) > 0).tolist() == [True] * 2 + [False] * 6


def test_the_factors_act_in_their_own_phase():
    x = np.tile(normal(0, 1, 3), (8, 1))
    layer = made(3, 2, 4, 1, capacity_factor=0.25, evaluation_factor=0.75)
    count = [int((np.abs(np.asarray(layer(x, training=t))).max(-1) > 0).sum()) for t in (1, 0)]
    assert count == [1, 3]


def test_padding_takes_no_slot_and_gets_zero():
    layer = made(4, 3, 5, 2, evaluation_factor=0.7)
    x = normal(0, 2, 6, 4)
    mask = np.array([[False, True, True, False, True, True], [True, False] * 3])
    before = np.asarray(layer(x, token_mask=ops.convert_to_tensor(mask)))
    changed = np.where(mask[..., None], x, np.nan)
    after = np.asarray(layer(changed, token_mask=ops.convert_to_tensor(mask)))
    assert (before == after).all()
    assert (after[~mask] == 0).all()
    rows = capacity(12, 3, 2, 0.7)
    again = by_slots(
        x[mask], *layer.choose(x[mask])[1:], [*layer.weights[1:]], layer.activation, slots=rows
    )
    close(after[mask], again)


def test_padding_has_no_gradient():
    layer = made(4, 3, 5, 2)
    x = normal(0, 6, 4)
    x[2] = np.nan
    mask = tf.constant([True, True, False, True, True, False])
    with tf.GradientTape() as tape:
        loss = ops.sum(layer(x, token_mask=mask, training=True)) + sum(layer.losses)
    for slope in tape.gradient(loss, layer.trainable_variables):
        assert np.isfinite(np.asarray(tf.convert_to_tensor(slope))).all()


@pytest.mark.parametrize("factor", [None, 0.5])
def test_nan_stays_with_its_token(factor):
    x = normal(0, 8, 4)
    x[3] = np.nan
    y = np.asarray(made(4, 3, 5, 2, evaluation_factor=factor)(x))
    assert np.isnan(y).all(-1).tolist() == [t == 3 for t in range(8)]
    assert np.isnan(y).any(-1).sum() == 1


def test_the_loss_of_balance_is_added_in_training_alone():
    layer, x = made(4, 3, 5, 2, balance=0.5), normal(0, 2, 6, 4)
    layer(x)
    assert layer.losses == []
    layer(x, training=True)
    p, _, chosen = layer.choose(x.reshape(12, 4))
    assert float(layer.losses[0]) == pytest.approx(0.5 * float(balance_loss(p, chosen)))
    free = made(4, 3, 5, 2, balance=0.0)
    free(x, training=True)
    assert free.losses == []


def test_dropout_acts_in_training_alone():
    layer, x = made(4, 3, 5, 2, dropout=0.5), normal(0, 20, 4)
    assert (np.asarray(layer(x)) == np.asarray(layer(x))).all()
    zeros = (np.asarray(layer(x, training=True)) == 0).mean()
    assert 0.2 < zeros < 0.8


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_nothing_in_nothing_out(shape):
    layer = made(4, 3, 5, 2, evaluation_factor=1.0)
    assert layer(np.zeros(shape, "float32")).shape == shape
    assert layer(np.zeros(shape, "float32"), training=True).shape == shape
    assert float(layer.losses[0]) == 0


# ---- as a Keras layer


@pytest.mark.parametrize("factor", [None, 0.6])
@pytest.mark.parametrize("jit", [False, True])
def test_compiled_numbers_are_the_same(jit, factor):
    layer, x = made(4, 3, 5, 2, evaluation_factor=factor), normal(0, 2, 6, 4)
    compiled = tf.function(layer, jit_compile=jit, autograph=False)
    close(compiled(tf.constant(x)), layer(x))


@pytest.mark.parametrize("factor", [None, 0.6])
def test_shapes_may_be_unknown(factor):
    layer = made(4, 3, 5, 2, evaluation_factor=factor)
    entry = keras.Input((None, 4))
    model = keras.Model(entry, layer(entry))
    assert model.output_shape == (None, None, 4)
    for shape in ((2, 5, 4), (1, 1, 4)):
        close(model(normal(0, *shape)), layer(normal(0, *shape)))


@SAVING
def test_a_saved_layer_gives_the_same_numbers(tmp_path):
    layer = made(4, 3, 5, 2, evaluation_factor=0.8, activation="relu")
    entry = keras.Input((None, 4))
    model = keras.Model(entry, layer(entry))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = normal(0, 2, 6, 4)
    assert (np.asarray(again(x)) == np.asarray(model(x))).all()


def test_the_configuration_makes_the_same_layer():
    layer = MixtureOfExperts(
        3,
        5,
        1,
        capacity_factor=2.0,
        evaluation_factor=1.5,
        balance=0.1,
        activation="relu",
        dropout=0.25,
        name="mix",
    )
    again = MixtureOfExperts.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.drop.rate == 0.25


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_half_precision_routes_in_float32(policy):
    half = made(4, 5, 6, 2, dtype=policy)
    assert half.router.dtype == "float32"
    full = made(4, 5, 6, 2)
    full.set_weights(half.get_weights())
    x = ops.cast(normal(0, 30, 4), half.compute_dtype)
    p, _, chosen = half.choose(x)
    expected, _, others = full.choose(ops.cast(x, "float32"))
    assert (np.asarray(p) == np.asarray(expected)).all()
    assert (np.asarray(chosen) == np.asarray(others)).all()
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == half.compute_dtype
    close(ops.cast(y, "float32"), full(ops.cast(x, "float32")), 0.05)


def test_each_expert_starts_as_a_dense_layer_does():
    keras.utils.set_random_seed(0)
    layer = MixtureOfExperts(64, 30, 2)
    layer.build((None, 20))
    for w in (layer.widen, layer.narrow):
        assert np.std(w) == pytest.approx((2 / (20 + 30)) ** 0.5, rel=0.02)
        assert np.abs(w).max() <= (6 / 50) ** 0.5
    assert len(np.unique(np.asarray(layer.widen)[:, 0, 0])) == 64


# ---- inside a Transformer


def test_a_block_takes_it_as_its_feedforward_network():
    block = Block(2, 1, feed_forward=made(4, 3, 5, 2, seed=3))
    x = normal(0, 2, 6, 4)
    y = block(x)
    plain = Block(2, 5)
    plain.build((None, None, 4))
    plain.attend.set_weights(block.attend.get_weights())
    z = x + np.asarray(plain.attend(plain.norms[0](x)))
    close(y, z + np.asarray(block.feed(plain.norms[1](z))), 1e-4)


def test_a_block_hands_on_the_mask():
    block = Block(2, 1, feed_forward=made(4, 3, 5, 2, seed=3, evaluation_factor=0.5))
    x, mask = normal(0, 2, 6, 4), np.array([[True, False] * 3, [False] * 2 + [True] * 4])
    mask = ops.convert_to_tensor(mask)
    read = x + np.asarray(block.attend(block.norms[0](x)))
    y = block(x, token_mask=mask)
    close(y, read + np.asarray(block.feed(block.norms[1](read), token_mask=mask)), 1e-4)
    assert np.abs(np.asarray(y) - np.asarray(block(x))).max() > 0.1


def mixed(**options):
    keras.utils.set_random_seed(0)
    return GPT(6, 8, 8, 2, 2, feed_forward=MixtureOfExperts(4, 6, 2, **options))


def test_each_block_has_experts_of_its_own():
    model = mixed()
    one, other = (block.feed for block in model.blocks)
    assert one is not other
    assert (np.asarray(one.widen) != np.asarray(other.widen)).all()
    dense = GPT(6, 8, 8, 2, 2, hidden=12)
    more = parameter_count(8, 6, 4, 2)[0] - (2 * 8 * 12 + 12 + 8)
    assert model.count_params() == dense.count_params() + 2 * more


@SAVING
def test_a_saved_gpt_keeps_its_experts(tmp_path):
    model = mixed(capacity_factor=2.0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    ids = np.array([[0, 3, 1, 5]])
    assert (np.asarray(again(ids)) == np.asarray(model(ids))).all()
    assert again.blocks[1].feed.factors == model.blocks[1].feed.factors
    assert again.get_config() == model.get_config()


def test_a_gpt_with_a_limit_reads_only_the_past():
    model = mixed(evaluation_factor=0.5)
    ids = np.array([[0, 3, 1, 5, 2, 4, 4, 1]])
    changed = np.array([[0, 3, 1, 5, 2, 0, 1, 2]])
    before, after = np.asarray(model(ids)), np.asarray(model(changed))
    assert (before[:, :5] == after[:, :5]).all()


def test_a_cache_gives_the_same_tokens():
    start = np.array([[1, 2], [3, 4]])
    model = mixed()
    one, other = (generate(model, start, 5, cache=cache) for cache in (True, False))
    assert one.tolist() == other.tolist()


def test_it_learns_by_heart_and_the_balance_is_in_the_loss():
    model = mixed(balance=0.0)
    text = np.array([[0, 1, 2, 0, 3, 1, 4, 5, 2]])
    step = make_step(model, keras.optimizers.Adam(0.03), next_token_loss, jit_compile=True)
    losses = [float(step(text[:, :-1], text[:, 1:])) for _ in range(60)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.1
    heavy = mixed(balance=10.0)
    heavy(text[:, :-1], training=True)
    assert float(sum(heavy.losses)) > 15  # about 10 for each block


# ---- bad arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"experts": 0}, "experts must be an integer of at least 1; received 0"),
        ({"experts": 2.0}, "experts must be an integer of at least 1; received 2.0"),
        ({"hidden": -1}, "hidden must be an integer of at least 1; received -1"),
        ({"top_k": True}, "top_k must be an integer of at least 1; received True"),
        ({"top_k": 5}, "top_k must be an integer from 1 to 4; received 5"),
        ({"capacity_factor": 0}, "capacity_factor must be at least 0.01 or None; received 0"),
        (
            {"evaluation_factor": math.nan},
            "evaluation_factor must be at least 0.01 or None; received nan",
        ),
        ({"balance": -0.1}, "balance must be a number from 0; received -0.1"),
        ({"balance": math.nan}, "balance must be a number from 0; received nan"),
    ],
)
def test_the_layer_refuses(options, text):
    with pytest.raises(ValueError, match=message(text)):
        MixtureOfExperts(**{"experts": 4, "hidden": 3, **options})


def test_the_width_must_be_known():
    with pytest.raises(ValueError, match=r"^x must have a known width; received shape \(2, None\)"):
        MixtureOfExperts(2, 3).build((2, None))


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.ones((2, 3, 4), bool), "token_mask must be bool of rank 2; received bool (2, 3, 4)"),
        (np.ones((2, 3), "int32"), "token_mask must be bool of rank 2; received int32 (2, 3)"),
    ],
)
def test_a_mask_of_another_form_is_refused(mask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        made(4, 3, 5)(normal(0, 2, 3, 4), token_mask=tf.constant(mask))


@pytest.mark.parametrize("top_k", [0, 4, 1.0, True])
def test_the_router_refuses(top_k):
    text = f"top_k must be an integer from 1 to 3; received {top_k!r}"
    with pytest.raises(ValueError, match=message(text)):
        route(np.zeros((2, 3)), top_k)
    with pytest.raises(ValueError, match=message("logits must be [S, M]; received (3,)")):
        route(np.zeros(3), 1)


def test_counts_and_slots_refuse():
    with pytest.raises(
        ValueError, match=message("top_k must be an integer from 1 to 4; received 5")
    ):
        parameter_count(2, 3, 4, 5)
    with pytest.raises(
        ValueError, match=message("factor must be at least 0.01 or None; received -1")
    ):
        capacity(8, 4, 1, -1)


def test_gpt_takes_a_layer_or_none():
    with pytest.raises(
        ValueError, match=message("feed_forward must be a layer or None; received 8")
    ):
        GPT(6, 8, 8, 2, 1, feed_forward=8)
