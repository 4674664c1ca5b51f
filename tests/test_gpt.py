"""GPT: counts of published tables, a peer written apart, the past alone is read, cache, sampling."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from aimodels.gpt import (
    GPT,
    generate,
    next_token_loss,
    parameter_count,
    probabilities,
    sample,
)
from aimodels.training import make_step

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ONE_STEP = pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")


def message(text):
    return f"^{re.escape(text)}"


def randomize(model, seed=0, scale=0.3):
    """Give every weight, biases and gains too, a random value."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=scale, size=w.shape) for w in model.weights])
    return model


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def ids(seed, *shape, vocabulary=11):
    return np.random.default_rng(seed).integers(0, vocabulary, shape).astype("int32")


@pytest.fixture(scope="module")
def small():
    return randomize(GPT(11, 8, 6, 2, 2))


# ---- counts


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((50257, 1024, 768, 12), 124_439_808),
        ((50257, 1024, 1024, 24), 354_823_168),
        ((50257, 1024, 1280, 36), 774_030_080),
        ((50257, 1024, 1600, 48), 1_557_611_200),
        ((50257, 2048, 12288, 96), 174_604_259_328),
    ],
)
def test_published_sizes(size, count):
    assert parameter_count(*size) == count


@pytest.mark.parametrize(
    "size", [(7, 5, 4, 2, 1, None), (1, 1, 1, 1, 1, 1), (9, 3, 6, 3, 4, 5), (300, 64, 32, 4, 2, 8)]
)
def test_the_count_is_that_of_the_model(size):
    vocabulary, steps, width, heads, depth, hidden = size
    model = GPT(vocabulary, steps, width, heads, depth, hidden=hidden)
    assert model.count_params() == parameter_count(vocabulary, steps, width, depth, hidden)


# ---- a peer written apart


def norm(x, gain, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain + bias


def forward(weights, tokens, heads):
    """Return logits in float64, one sample, one head and one query at a time."""
    left = [np.asarray(w, "float64") for w in weights]
    take = lambda n: [left.pop(0) for _ in range(n)]  # noqa: E731
    table, places = take(2)
    x = table[tokens] + places[: tokens.shape[1]]
    erf = np.vectorize(math.erf)
    while len(left) > 2:
        wq, bq, wk, bk, wv, bv, wo, bo, w1, b1, w2, b2, g1, c1, g2, c2 = take(16)
        h = norm(x, g1, c1)
        q, k, v = h @ wq + bq, h @ wk + bk, h @ wv + bv
        read, size = np.zeros_like(q), x.shape[-1] // heads
        for sample_ in range(len(x)):
            for head in range(heads):
                at = slice(head * size, (head + 1) * size)
                for step in range(x.shape[1]):
                    scores = k[sample_, : step + 1, at] @ q[sample_, step, at] / math.sqrt(size)
                    weight = np.exp(scores - scores.max())
                    read[sample_, step, at] = weight / weight.sum() @ v[sample_, : step + 1, at]
        x = x + read @ wo + bo
        h = norm(x, g2, c2) @ w1 + b1
        x = x + h * (1 + erf(h / math.sqrt(2))) / 2 @ w2 + b2
    return norm(x, *left) @ table.T


def ordered(model):
    """Return the weights in the order of `forward`, each found by its name."""
    weights = [model.tokens, model.positions]
    for block in model.blocks:
        attend, feed = block.attend, block.feed
        for dense in (
            attend.query,
            attend.key,
            attend.value,
            attend.merge,
            feed.widen,
            feed.narrow,
        ):
            weights += [dense.kernel, dense.bias]
        for one in block.norms:
            weights += [one.gamma, one.beta]
    return [*weights, model.norm.gamma, model.norm.beta]


SIZES = [  # V, M, D, H, depth, B, T
    (11, 8, 6, 2, 2, 3, 8),
    (5, 4, 4, 1, 1, 1, 3),
    (5, 4, 4, 4, 3, 2, 1),
    (1, 3, 2, 2, 1, 2, 3),
    (50, 16, 24, 3, 2, 2, 16),
]


@pytest.mark.parametrize("size", SIZES)
def test_logits_equal_a_peer_written_apart(size):
    vocabulary, steps, width, heads, depth, batch, length = size
    model = randomize(GPT(vocabulary, steps, width, heads, depth), sum(size))
    tokens = ids(1, batch, length, vocabulary=vocabulary)
    close(model(tokens), forward(ordered(model), tokens, heads))


def test_logits_equal_keras_hub_with_the_same_weights():
    pytest.importorskip("keras_hub")
    import keras_hub

    peer = keras_hub.models.GPT2Backbone(
        50, num_layers=2, num_heads=3, hidden_dim=24, intermediate_dim=40, max_sequence_length=16
    )
    model = randomize(GPT(50, 16, 24, 3, 2, hidden=40), 3)
    peer.token_embedding.set_weights([model.tokens])
    peer.position_embedding.set_weights([model.positions])
    for theirs, ours in zip(peer.transformer_layers, model.blocks, strict=True):
        attend = theirs._self_attention_layer
        pairs = zip(
            (attend.query_dense, attend.key_dense, attend.value_dense, attend.output_dense),
            (ours.attend.query, ours.attend.key, ours.attend.value, ours.attend.merge),
            strict=True,
        )
        for dense, mine in pairs:
            kernel, bias = dense.get_weights()
            dense.set_weights(
                [np.reshape(mine.kernel, kernel.shape), np.reshape(mine.bias, bias.shape)]
            )
        theirs._feedforward_intermediate_dense.set_weights(ours.feed.widen.get_weights())
        theirs._feedforward_output_dense.set_weights(ours.feed.narrow.get_weights())
        theirs._self_attention_layer_norm.set_weights(ours.norms[0].get_weights())
        theirs._feedforward_layer_norm.set_weights(ours.norms[1].get_weights())
        for block in (theirs,):  # they use the tanh form of GELU; ours is exact
            block._feedforward_intermediate_dense.activation = keras.activations.gelu
    peer.layer_norm.set_weights(model.norm.get_weights())
    tokens = ids(0, 3, 12, vocabulary=50)
    read = peer({"token_ids": tokens, "padding_mask": np.ones_like(tokens)})
    theirs = peer.token_embedding(read, reverse=True)
    close(keras.ops.convert_to_numpy(model(tokens)), keras.ops.convert_to_numpy(theirs))


# ---- what must hold for any input


def test_an_untrained_model_is_hardly_worse_than_an_even_guess():
    keras.utils.set_random_seed(0)
    model = GPT(64, 8, 16, 2, 2)
    loss = next_token_loss(ids(0, 4, 8, vocabulary=64), model(ids(1, 4, 8, vocabulary=64)))
    assert 0 < float(loss) - math.log(64) < 1


def test_no_row_reads_a_later_token(small):
    before = np.asarray(small(ids(0, 2, 8)))
    changed = ids(0, 2, 8)
    changed[:, 5] = (changed[:, 5] + 1) % 11
    after = np.asarray(small(changed))
    assert (before[:, :5] == after[:, :5]).all()
    assert (np.abs(before[:, 5:] - after[:, 5:]).max(-1) > 1e-4).all()


def test_the_order_of_the_tokens_counts(small):
    one, other = (np.asarray(small(np.array([t]))) for t in ([1, 2, 3], [2, 1, 3]))
    assert np.abs(one[:, -1] - other[:, -1]).max() > 1e-3


def test_samples_do_not_meet(small):
    together = np.asarray(small(ids(0, 3, 8)))
    close(together[1:2], small(ids(0, 3, 8)[1:2]))


@pytest.mark.parametrize("parts", [(8,), (3, 5), (1,) * 8, (5, 1, 2)])
def test_a_cache_gives_the_same_logits(small, parts):
    tokens, cache, done, logits = ids(0, 2, 8), small.empty_cache(2), 0, []
    for part in parts:
        some, cache = small(tokens[:, done : done + part], cache=cache, index=done)
        logits.append(np.asarray(some))
        done += part
    close(np.concatenate(logits, 1), small(tokens))


def test_what_stands_behind_the_index_is_overwritten(small):
    _, cache = small(np.full((1, 8), 3), cache=small.empty_cache(1), index=0)
    tokens = ids(0, 1, 4)
    for step in range(4):
        logits, cache = small(tokens[:, step : step + 1], cache=cache, index=step)
        close(logits[:, 0], np.asarray(small(tokens))[:, step])


@pytest.mark.parametrize("jit", [False, True])
def test_an_id_or_position_out_of_range_gives_nan(small, jit):
    compiled = tf.function(small, jit_compile=jit, autograph=False)
    for wrong in (-1, 11, 2**30):
        logits = np.asarray(compiled(tf.constant([[1, 2, wrong], [1, 2, 3]])))
        assert np.isnan(logits[0, 2]).all()
        assert np.isfinite(logits[1]).all()
    cached = tf.function(
        lambda x, i: small(x, cache=small.empty_cache(1), index=i)[0], jit_compile=jit
    )
    assert np.isfinite(cached(tf.constant([[1]]), tf.constant(7))).all()
    assert np.isnan(cached(tf.constant([[1]]), tf.constant(8))).all()
    longer = tf.function(small, [tf.TensorSpec((None, None), "int32")])
    assert np.isnan(longer(tf.ones((1, 9), "int32"))[0, -1]).all()


@pytest.mark.parametrize("jit", [False, True])
def test_compiled_numbers_are_the_same(small, jit):
    compiled = tf.function(small, jit_compile=jit, autograph=False)
    close(compiled(tf.constant(ids(0, 2, 7))), small(ids(0, 2, 7)))


def test_shapes_may_be_unknown(small):
    logits = small(keras.Input((None,), dtype="int32"))
    assert logits.shape == (None, None, 11)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), small])
    close(model(ids(0, 2, 5)), small(ids(0, 2, 5)))


@SAVING
def test_a_saved_model_gives_the_same_numbers(small, tmp_path):
    assert callable(small.step)  # what is compiled is not in the way
    small.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (np.asarray(again(ids(0, 2, 8))) == np.asarray(small(ids(0, 2, 8)))).all()


def test_the_configuration_makes_the_same_model():
    model = GPT(7, 5, 4, 2, 3, hidden=9, dropout=0.25, name="tiny")
    again = GPT.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near(policy):
    half = randomize(GPT(11, 8, 6, 2, 1, dtype=policy), scale=0.2)
    full = GPT(11, 8, 6, 2, 1)
    full.set_weights(half.get_weights())
    logits = half(ids(0, 2, 8))
    assert keras.backend.standardize_dtype(logits.dtype) == policy.removeprefix("mixed_")
    close(logits, full(ids(0, 2, 8)), 0.05)
    assert next_token_loss(ids(1, 2, 8), logits).dtype == "float32"
    cached, _ = half(ids(0, 2, 8), cache=half.empty_cache(2), index=0)
    close(cached, logits, 0.01)


def test_dropout_acts_in_training_alone():
    model = randomize(GPT(11, 8, 6, 2, 1, dropout=0.5))
    x = ids(0, 1, 8)
    assert (np.asarray(model(x)) == np.asarray(model(x))).all()
    one, two = (np.asarray(model(x, training=True)) for _ in range(2))
    assert np.abs(one - two).max() > 1e-3


def test_it_learns_by_heart():
    keras.utils.set_random_seed(1)
    model = GPT(6, 8, 16, 2, 1)
    text = np.array([[0, 1, 2, 0, 3, 1, 4, 5, 2]])
    step = make_step(model, keras.optimizers.Adam(0.03), next_token_loss)
    losses = [float(step(text[:, :-1], text[:, 1:])) for _ in range(60)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.1
    assert np.asarray(model(text[:, :-1])).argmax(-1).tolist() == text[:, 1:].tolist()


# ---- the loss


def test_a_loss_worked_by_hand():
    # Probabilities 1/4 and 3/4: the truths cost ln 4 and ln 4/3.
    logits = np.log(np.array([[[1.0, 3.0], [1.0, 3.0]]]))
    assert float(next_token_loss(np.array([[0, 1]]), logits)) == pytest.approx(
        (math.log(4) + math.log(4 / 3)) / 2
    )
    mask = np.array([[True, False]])
    assert float(next_token_loss(np.array([[0, -7]]), logits, mask)) == pytest.approx(math.log(4))


def test_the_loss_of_nothing_is_nan():
    logits, mask = np.zeros((1, 2, 3), "float32"), np.zeros((1, 2), bool)
    assert np.isnan(next_token_loss(np.zeros((1, 2), int), logits, mask))
    assert np.isnan(next_token_loss(np.zeros((0, 2), int), logits[:0]))


def test_a_hidden_target_has_no_gradient():
    logits = tf.Variable(np.random.default_rng(0).normal(size=(2, 3, 5)).astype("float32"))
    mask = np.array([[True, False, True], [False, True, True]])
    with tf.GradientTape() as tape:
        loss = next_token_loss(ids(0, 2, 3, vocabulary=5), logits, mask)
    gradient = np.asarray(tape.gradient(loss, logits))
    assert ((np.abs(gradient).sum(-1) > 0) == mask).all()


def test_nan_stays_nan_in_the_loss():
    logits = np.zeros((1, 2, 3), "float32")
    logits[0, 1, 2] = np.nan
    assert np.isnan(next_token_loss(np.array([[0, 0]]), logits))
    compiled = tf.function(next_token_loss, jit_compile=True)
    assert np.isnan(compiled(tf.constant([[0, 3]]), tf.zeros((1, 2, 3))))


@pytest.mark.parametrize(
    ("targets", "mask", "text"),
    [
        (np.zeros((1, 3), int), None, "targets must be int (1, 2); received int64 (1, 3)"),
        (np.zeros(2, int), None, "targets must be int (1, 2); received int64 (2,)"),
        (np.zeros((1, 2)), None, "targets must be int (1, 2); received float64 (1, 2)"),
        (np.zeros((1, 2), int), np.ones((1, 1), bool), "mask must be bool (1, 2); received bool"),
        (np.zeros((1, 2), int), np.ones((1, 2), int), "mask must be bool (1, 2); received int64"),
    ],
)
def test_the_loss_refuses(targets, mask, text):
    with pytest.raises(ValueError, match=message(text)):
        next_token_loss(targets, np.zeros((1, 2, 3), "float32"), mask)


# ---- choosing a token

LOGITS = np.log([0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 0.5}, np.array([25, 9, 2.25, 0.25]) / 36.5),  # squares
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 4}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_p": 0.51}, [0.625, 0.375, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),  # 0.625 reaches 0.6 only after top_k
    ],
)
def test_distributions_worked_by_hand(choice, expected):
    order = [2, 0, 3, 1]  # the rule must not depend on where the tokens stand
    p = probabilities(np.stack([LOGITS, LOGITS[order]]), **choice)
    np.testing.assert_allclose(p, [expected, np.array(expected)[order]], atol=1e-12)


def test_of_equal_tokens_the_first_stays():
    assert probabilities(np.zeros(5), top_k=2).tolist() == [0.5, 0.5, 0, 0, 0]
    assert probabilities(np.zeros(4), temperature=0).tolist() == [1, 0, 0, 0]


def test_a_forbidden_token_never_comes():
    logits = np.array([0.0, -np.inf, 1.0])
    drawn = sample(np.tile(logits, (200, 1)), np.random.default_rng(0), temperature=9.0)
    assert set(drawn) == {0, 2}


def test_draws_follow_the_distribution():
    rng = np.random.default_rng(0)
    drawn = sample(np.tile(LOGITS, (20_000, 1)), rng)
    share = np.bincount(drawn, minlength=4) / 20_000
    assert np.abs(share - np.exp(LOGITS)).max() < 0.012
    assert sample(LOGITS, rng).shape == ()
    assert sample(np.zeros((2, 3, 4)), rng).shape == (2, 3)


def test_huge_logits_do_not_overflow():
    p = probabilities(np.array([1e308, -1e308, 1e308]), temperature=1e-3)
    assert p.tolist() == [0.5, 0, 0.5]
    assert probabilities(np.array([1.0, 0.0]), temperature=5e-324).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("logits", "choice", "text"),
    [
        (1.0, {}, "logits must be [..., V] with V at least 1; received ()"),
        (np.zeros((2, 0)), {}, "logits must be [..., V] with V at least 1; received (2, 0)"),
        (LOGITS, {"temperature": -1}, "temperature must be a number from 0; received -1"),
        (LOGITS, {"temperature": np.nan}, "temperature must be a number from 0; received nan"),
        (LOGITS, {"top_k": 0}, "top_k must be an integer from 1 to 4; received 0"),
        (LOGITS, {"top_k": 5}, "top_k must be an integer from 1 to 4; received 5"),
        (LOGITS, {"top_k": 1.5}, "top_k must be an integer from 1 to 4; received 1.5"),
        (LOGITS, {"top_p": 0}, "top_p must be above 0 and at most 1; received 0"),
        (LOGITS, {"top_p": 1.1}, "top_p must be above 0 and at most 1; received 1.1"),
        (LOGITS, {"top_p": np.nan}, "top_p must be above 0 and at most 1; received nan"),
        (np.array([0, np.nan]), {}, "logits must hold a largest number in each row; received nan"),
        (np.array([0, np.inf]), {}, "logits must hold a largest number in each row; received inf"),
        (np.full(2, -np.inf), {}, "logits must hold a largest number in each row; received -inf"),
    ],
)
def test_choosing_refuses(logits, choice, text):
    with pytest.raises(ValueError, match=message(text)):
        sample(logits, np.random.default_rng(0), **choice)


# ---- generating


@pytest.mark.parametrize("choice", [{}, {"temperature": 0.8, "top_k": 7, "top_p": 0.9}])
def test_a_cache_gives_the_same_tokens(small, choice):
    start = ids(4, 3, 2)
    rng = [np.random.default_rng(5) if choice else None for _ in range(2)]
    one = generate(small, start, 6, rng[0], **choice)
    other = generate(small, start, 6, rng[1], cache=False, **choice)
    assert one.tolist() == other.tolist()
    assert one.shape == (3, 8)
    assert (one[:, :2] == start).all()


def test_greedy_tokens_are_those_of_the_plain_call(small):
    text = ids(4, 3, 1)
    while text.shape[1] < 8:
        best = np.asarray(small(text))[:, -1].argmax(-1)
        text = np.concatenate([text, best[:, None]], 1)
    assert generate(small, text[:, :1], 7).tolist() == text.tolist()


def test_one_compilation_for_each_shape():
    model = randomize(GPT(11, 8, 6, 2, 1))
    generate(model, [[1]], 4)
    generate(model, [[1, 2, 3]], 5)
    generate(model, [[2, 3]], 3, cache=False)
    assert model.step.experimental_get_tracing_count() == 2
    model.set_weights([np.zeros(w.shape) for w in model.weights])  # new weights are used
    assert generate(model, [[1, 2]], 2).tolist() == [[1, 2, 0, 0]]
    assert model.step.experimental_get_tracing_count() == 2
    assert generate(model, [[4, 5]], 0).tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("start", "count", "more", "text"),
    [
        ([1], 1, {}, "ids must be integers [B, T], none empty; received (1,)"),
        ([[]], 1, {}, "ids must be integers [B, T], none empty; received (1, 0)"),
        ([[0.5]], 1, {}, "ids must be integers [B, T], none empty; received (1, 1)"),
        ([[11]], 1, {}, "ids must be 0 to 10; received 11 to 11"),
        ([[3, -1]], 1, {}, "ids must be 0 to 10; received -1 to 3"),
        ([[1, 2]], 7, {}, "count must be an integer from 0 to 6, as the model has 8 steps;"),
        ([[1]], -1, {}, "count must be an integer from 0 to 7, as the model has 8 steps;"),
        ([[1]], 1, {"top_k": 2}, "rng must be given to draw with top_k; received None"),
    ],
)
def test_generating_refuses(small, start, count, more, text):
    with pytest.raises(ValueError, match=message(text)):
        generate(small, start, count, **more)


def test_nan_weights_are_not_hidden():
    model = randomize(GPT(11, 8, 6, 2, 1))
    model.positions.assign(np.full((8, 6), np.nan))
    with pytest.raises(ValueError, match="logits must hold a largest number in each row"):
        generate(model, [[1]], 1)


# ---- bad arguments of the model


@pytest.mark.parametrize("name", ["vocabulary", "steps", "width", "heads", "depth", "hidden"])
@pytest.mark.parametrize("size", [0, -3, 2.0, True])
def test_sizes_are_whole_numbers(name, size):
    sizes = {"vocabulary": 5, "steps": 4, "width": 4, "heads": 2, "depth": 1, "hidden": 8}
    text = f"{name} must be an integer of at least 1; received {size!r}"
    with pytest.raises(ValueError, match=message(text)):
        GPT(**{**sizes, name: size})


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide the width 4; received 3"):
        GPT(5, 4, 4, 3, 1)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (np.zeros(4, "int32"), "ids must be integers [B, T], none empty; received int32 (4,)"),
        (np.zeros((1, 4)), "ids must be integers [B, T], none empty; received float"),
        (
            np.zeros((0, 4), "int32"),
            "ids must be integers [B, T], none empty; received int32 (0, 4)",
        ),
        (np.zeros((1, 9), "int32"), "ids must have at most 8 steps; received 9"),
    ],
)
def test_the_model_refuses(small, tokens, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        small(tokens)
