"""BERT: masking by the rule, published counts, a peer written apart, padding, both sides, heads."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from aimodels.attention import causal_mask
from aimodels.bert import (
    BERT,
    Classifier,
    MaskedLanguageModel,
    look_up,
    mask_tokens,
    parameter_count,
    token_loss,
)
from aimodels.training import make_step

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ONE_STEP = pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")


def message(text):
    return f"^{re.escape(text)}"


def randomize(model, seed=0, scale=0.6):
    """Give every weight, biases and gains too, a random value; gains about 1."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(scale=scale, size=w.shape) for w in model.weights]
    model.set_weights([v + (w.name == "gamma") for v, w in zip(values, model.weights, strict=True)])
    return model


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def ids(seed, *shape, vocabulary=11):
    return np.random.default_rng(seed).integers(1, vocabulary, shape).astype("int32")


def encoder(**options):
    return randomize(BERT(11, 8, 6, 2, 2, padding=0, **options))


@pytest.fixture(scope="module")
def small():
    return encoder()


# ---- masking


def test_the_shares_are_those_of_the_rule():
    text = np.random.default_rng(0).integers(3, 1000, (400, 500))
    read, chosen = mask_tokens(text, np.random.default_rng(1), 1000, 2, (0, 1))
    assert chosen.mean() == pytest.approx(0.15, abs=0.003)
    hidden, same = read == 2, read == text
    assert hidden[chosen].mean() == pytest.approx(0.8, abs=0.01)
    assert same[chosen].mean() == pytest.approx(0.1, abs=0.01)
    assert (~hidden & ~same)[chosen].mean() == pytest.approx(0.1, abs=0.01)
    assert same[~chosen].all()


def test_any_ordinary_token_may_be_put_in_and_no_special_one():
    text = np.full(100_000, 5)
    read, chosen = mask_tokens(text, np.random.default_rng(0), 8, 7, (0, 3), rate=1)
    assert chosen.all()
    assert set(np.unique(read)) == {1, 2, 4, 5, 6, 7}
    put = np.bincount(read, minlength=8)[[1, 2, 4, 6]] / len(text)
    assert put == pytest.approx(np.full(4, 0.1 / 5), abs=0.002)


def test_special_tokens_are_never_chosen():
    text = np.array([[1, 5, 6, 2, 0, 7]])
    for seed in range(20):
        read, chosen = mask_tokens(text, np.random.default_rng(seed), 9, 7, (0, 1, 2), rate=1)
        assert chosen.tolist() == [[False, True, True, False, False, False]]
        assert read[0, [0, 3, 4, 5]].tolist() == [1, 2, 0, 7]


def test_the_generator_alone_decides():
    text = ids(0, 5, 40)
    one, other = (mask_tokens(text, np.random.default_rng(3), 11, 0) for _ in range(2))
    assert (one[0] == other[0]).all()
    assert (one[1] == other[1]).all()
    assert (mask_tokens(text, np.random.default_rng(4), 11, 0)[1] != one[1]).any()
    assert (text == ids(0, 5, 40)).all()  # what was given is left alone


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3, 4)])
def test_masking_keeps_shape_and_type(shape):
    read, chosen = mask_tokens(ids(0, *shape), np.random.default_rng(0), 11, 0)
    assert read.shape == chosen.shape == shape
    assert read.dtype == "int32"
    assert chosen.dtype == bool


def test_a_rate_of_zero_changes_nothing():
    read, chosen = mask_tokens(ids(0, 4, 9), np.random.default_rng(0), 11, 0, rate=0)
    assert (read == ids(0, 4, 9)).all()
    assert not chosen.any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ids": np.zeros(3)}, "ids must be integers; received float64"),
        ({"ids": np.array([True])}, "ids must be integers; received bool"),
        ({"ids": np.array([3, 11])}, "ids must be 0 to 10; received 3 to 11"),
        ({"ids": np.array([-1, 3])}, "ids must be 0 to 10; received -1 to 3"),
        ({"mask": 11}, "special must be 0 to 10; received 11 to 11"),
        ({"mask": 0.5}, "special must be integers; received float64"),
        ({"special": (-2, 3)}, "special must be 0 to 10; received -2 to 3"),
        ({"rate": 1.1}, "rate must be 0 to 1; received 1.1"),
        ({"rate": -0.1}, "rate must be 0 to 1; received -0.1"),
        ({"rate": math.nan}, "rate must be 0 to 1; received nan"),
        ({"vocabulary": 0}, "vocabulary must be an integer of at least 1; received 0"),
        (
            {"ids": np.array([1]), "vocabulary": 2, "mask": 0, "special": (1,)},
            "vocabulary must hold ordinary tokens; received 2, all special",
        ),
    ],
)
def test_masking_refuses(change, text):
    given = {"ids": ids(0, 4), "rng": np.random.default_rng(0), "vocabulary": 11, "mask": 0}
    with pytest.raises(ValueError, match=message(text)):
        mask_tokens(**{**given, **change})


# ---- counts


def test_bert_base_has_the_published_size():
    pooler = 768 * 768 + 768
    assert parameter_count(30522, 512, 768, 12) + pooler == 109_482_240
    assert parameter_count(30522, 512, 1024, 24) + 1024 * 1024 + 1024 == 335_141_888


@pytest.mark.parametrize(
    "size", [(7, 5, 4, 2, 1, None, 2), (1, 1, 1, 1, 1, 1, 1), (9, 3, 6, 3, 4, 5, 3)]
)
def test_the_count_is_that_of_the_model(size):
    vocabulary, steps, width, heads, depth, hidden, segments = size
    model = BERT(vocabulary, steps, width, heads, depth, hidden=hidden, segments=segments)
    count = parameter_count(vocabulary, steps, width, depth, hidden, segments=segments)
    assert model.count_params() == count
    head = width * width + width
    assert Classifier(model, 3).count_params() == count + head + 3 * (width + 1)
    language = MaskedLanguageModel(model)
    assert language.count_params() == count + head + 2 * width + vocabulary


# ---- a peer written apart


def norm(x, gain, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * gain + bias


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def forward(weights, tokens, kinds, heads, real):
    """Return what `BERT` returns in float64, one sample, one head and one query at a time."""
    left = [np.asarray(w, "float64") for w in weights]
    take = lambda n: [left.pop(0) for _ in range(n)]  # noqa: E731
    table, places, segments, gain, bias = take(5)
    x = norm(table[tokens] + places[: tokens.shape[1]] + segments[kinds], gain, bias)
    while left:
        wq, bq, wk, bk, wv, bv, wo, bo, w1, b1, w2, b2, g1, c1, g2, c2 = take(16)
        q, k, v = x @ wq + bq, x @ wk + bk, x @ wv + bv
        read, size = np.zeros_like(q), x.shape[-1] // heads
        for sample in range(len(x)):
            keys = np.flatnonzero(real[sample])
            for head in range(heads):
                at = slice(head * size, (head + 1) * size)
                for step in range(x.shape[1]):
                    scores = k[sample, keys, at] @ q[sample, step, at] / math.sqrt(size)
                    weight = np.exp(scores - scores.max())
                    read[sample, step, at] = weight / weight.sum() @ v[sample, keys, at]
        x = norm(x + read @ wo + bo, g1, c1)
        x = norm(x + gelu(x @ w1 + b1) @ w2 + b2, g2, c2)
    return x


def ordered(model):
    """Return the weights in the order of `forward`, each found by its name."""
    weights = [model.tokens, model.positions, model.kinds, model.norm.gamma, model.norm.beta]
    for block in model.blocks:
        attend, feed = block.attend, block.feed
        layers = (attend.query, attend.key, attend.value, attend.merge, feed.widen, feed.narrow)
        for dense in layers:
            weights += [dense.kernel, dense.bias]
        for one in block.norms:
            weights += [one.gamma, one.beta]
    return weights


SIZES = [  # V, M, D, H, depth, S, B, T
    (11, 8, 6, 2, 2, 2, 3, 8),
    (5, 4, 4, 1, 1, 1, 1, 3),
    (5, 4, 4, 4, 3, 3, 2, 1),
    (2, 3, 2, 2, 1, 2, 2, 3),
    (50, 16, 24, 3, 2, 2, 2, 16),
]


@ONE_STEP
@pytest.mark.parametrize("size", SIZES)
def test_every_output_equals_a_peer_written_apart(size):
    vocabulary, steps, width, heads, depth, segments, batch, length = size
    model = BERT(vocabulary, steps, width, heads, depth, segments=segments, padding=0)
    language = randomize(MaskedLanguageModel(model), sum(size))
    classifier = Classifier(model, 3)
    classifier.pooler.set_weights([np.eye(width) / 2, np.full(width, 0.1)])
    tokens = ids(1, batch, length, vocabulary=vocabulary)
    tokens[-1, max(1, length - 2) :] = 0
    kinds = ids(2, batch, length, vocabulary=segments + 1) - 1
    real = tokens != 0
    x = forward(ordered(model), tokens, kinds, heads, real)
    close(np.asarray(model(tokens, kinds))[real], x[real])
    kernel, bias = (np.asarray(w, "float64") for w in language.dense.get_weights())
    turned = norm(gelu(x @ kernel + bias), *language.norm.get_weights())
    scores = turned @ np.asarray(model.tokens).T + np.asarray(language.bias)
    close(np.asarray(language(tokens, kinds))[real], scores[real])
    pooled = np.tanh(x[:, 0] / 2 + 0.1) @ np.asarray(classifier.last.kernel)
    close(classifier(tokens, kinds), pooled)


def test_outputs_equal_keras_hub_with_the_same_weights():
    keras_hub = pytest.importorskip("keras_hub")
    peer = keras_hub.models.BertBackbone(
        50, num_layers=2, num_heads=3, hidden_dim=24, intermediate_dim=40, max_sequence_length=16
    )
    model = randomize(BERT(50, 16, 24, 3, 2, hidden=40, padding=0), 3)
    peer.token_embedding.set_weights([model.tokens])
    peer.position_embedding.set_weights([model.positions])
    peer.segment_embedding.set_weights([model.kinds])
    peer.embeddings_layer_norm.set_weights(model.norm.get_weights())
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
        theirs._feedforward_intermediate_dense.activation = keras.activations.gelu  # exact
    tokens = ids(0, 3, 12, vocabulary=50)
    tokens[1, 7:] = 0
    kinds, real = ids(1, 3, 12, vocabulary=3) - 1, tokens != 0
    given = {"token_ids": tokens, "segment_ids": kinds, "padding_mask": real.astype("int32")}
    theirs = keras.ops.convert_to_numpy(peer(given)["sequence_output"])
    close(np.asarray(model(tokens, kinds))[real], theirs[real])


# ---- what must hold for any input


def test_every_row_reads_both_sides(small):
    before = np.asarray(small(ids(0, 2, 8)))
    changed = ids(0, 2, 8)
    changed[:, 4] = changed[:, 4] % 10 + 1
    after = np.asarray(small(changed))
    assert (np.abs(before - after).max(-1) > 1e-4).all()


def test_padding_is_not_read(small):
    short = ids(0, 2, 4)
    long = np.pad(short, [(0, 0), (0, 4)])
    close(np.asarray(small(long))[:, :4], small(short))
    classifier = randomize(Classifier(small, 3))
    close(classifier(long), classifier(short))


def test_without_a_padding_every_id_is_read():
    with_padding, without = encoder(), randomize(BERT(11, 8, 6, 2, 2))
    tokens = ids(0, 1, 8)
    close(with_padding(tokens), without(tokens))
    tokens[0, 5] = 0
    first = [np.asarray(model(tokens))[0, 0] for model in (with_padding, without)]
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_rows_of_nothing_but_padding_are_no_nan(small):
    tokens = ids(0, 2, 5)
    tokens[1] = 0
    assert np.isfinite(small(tokens)).all()
    close(np.asarray(small(tokens))[:1], small(tokens[:1]))


def test_a_further_mask_hides_more(small):
    tokens = ids(0, 2, 8)
    tokens[0, 6:] = 0
    past = np.asarray(small(tokens, attention_mask=causal_mask(8)))
    close(past[:, :5], small(tokens[:, :5], attention_mask=causal_mask(5)))
    shorter = tokens.copy()
    shorter[0, 3:] = 0
    also = np.asarray(small(tokens, attention_mask=(shorter != 0)[:, None, :]))
    close(also[0, :3], np.asarray(small(shorter))[0, :3])


def test_order_and_segments_count(small):
    one, other = (np.asarray(small(np.array([t]))) for t in ([1, 2, 3], [2, 1, 3]))
    assert np.abs(one[:, -1] - other[:, -1]).max() > 1e-3
    tokens, kinds = ids(0, 1, 4), np.array([[0, 0, 1, 1]])
    assert np.abs(np.asarray(small(tokens)) - np.asarray(small(tokens, kinds))).max() > 1e-3
    close(small(tokens), small(tokens, 0 * kinds))


def test_samples_do_not_meet(small):
    close(np.asarray(small(ids(0, 3, 8)))[1:2], small(ids(0, 3, 8)[1:2]))


@pytest.mark.parametrize("jit", [False, True])
def test_what_is_out_of_range_gives_nan(small, jit):
    compiled = tf.function(small, jit_compile=jit, autograph=False)
    for wrong in (-1, 11, 2**30):
        read = np.asarray(compiled(tf.constant([[1, 2, wrong], [1, 2, 3]])))
        assert np.isnan(read[0]).all()
        assert np.isfinite(read[1]).all()
    with_kinds = tf.function(small, jit_compile=jit, autograph=False)
    for wrong in (-1, 2):
        read = with_kinds(tf.constant([[1, 2]]), tf.constant([[0, wrong]]))
        assert np.isnan(read).all()
    longer = tf.function(small, [tf.TensorSpec((None, None), "int32")])
    assert np.isnan(longer(tf.ones((1, 9), "int32"))).all()


def test_rows_are_looked_up():
    table = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    found = np.asarray(look_up(keras.ops.convert_to_tensor(table), np.array([[1, 0, 2, -1]])))
    assert found[0, :2].tolist() == [[3, 4], [1, 2]]
    assert np.isnan(found[0, 2:]).all()


HEADS = [lambda e: e, MaskedLanguageModel, lambda e: Classifier(e, 3, dropout=0.2)]


@pytest.mark.parametrize("head", HEADS)
def test_compiled_numbers_are_the_same(small, head):
    model = randomize(head(small))
    compiled = tf.function(model, jit_compile=True, autograph=False)
    tokens = ids(0, 2, 7)
    tokens[1, 4:] = 0
    close(compiled(tf.constant(tokens)), model(tokens))


@pytest.mark.parametrize("head", HEADS)
def test_shapes_may_be_unknown(small, head):
    model = randomize(head(small))
    given = [keras.Input((None,), dtype="int32") for _ in range(2)]
    outer = keras.Model(given, model(*given))
    kinds = ids(1, 2, 5, vocabulary=3) - 1
    close(outer([ids(0, 2, 5), kinds]), model(ids(0, 2, 5), kinds))


@SAVING
@pytest.mark.parametrize("head", HEADS)
def test_a_saved_model_gives_the_same_numbers(head, tmp_path):
    model = randomize(head(BERT(11, 8, 6, 2, 2, hidden=7, padding=0, segments=3, dropout=0.1)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    tokens, kinds = ids(0, 2, 8), ids(1, 2, 8, vocabulary=4) - 1
    tokens[1, 5:] = 0
    assert (np.asarray(again(tokens, kinds)) == np.asarray(model(tokens, kinds))).all()
    assert again.get_config() == model.get_config()


def test_the_configuration_makes_the_same_model():
    model = BERT(7, 5, 4, 2, 3, hidden=9, segments=3, padding=6, rotary=True, name="tiny")
    again = BERT.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    head = Classifier(model, 4, dropout=0.5)
    again = Classifier.from_config(head.get_config())
    assert again.get_config() == head.get_config()
    assert again.encoder.options == {"padding": 6, "rotary": True, "dropout": 0.0}


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("head", HEADS)
def test_half_precision_is_near(policy, head):
    full = randomize(head(BERT(11, 8, 6, 2, 1, padding=0)), scale=0.2)
    half = head(BERT(11, 8, 6, 2, 1, padding=0, dtype=policy))
    half.set_weights(full.get_weights())
    tokens = ids(0, 2, 8)
    tokens[1, 5:] = 0
    read = half(tokens)
    assert keras.backend.standardize_dtype(read.dtype) == policy.removeprefix("mixed_")
    close(read, full(tokens), 0.06)


def test_dropout_acts_in_training_alone():
    for model in (encoder(dropout=0.5), randomize(Classifier(encoder(), 3, dropout=0.5))):
        x = ids(0, 1, 8)
        assert (np.asarray(model(x)) == np.asarray(model(x))).all()
        one, two = (np.asarray(model(x, training=True)) for _ in range(2))
        assert np.abs(one - two).max() > 1e-3


def test_heads_share_the_encoder(small):
    encoder_ = encoder()
    language, classifier = MaskedLanguageModel(encoder_), Classifier(encoder_, 3)
    before = np.asarray(classifier(ids(0, 2, 8)))
    make_step(language, keras.optimizers.Adam(0.1), token_loss)(ids(0, 2, 8), ids(1, 2, 8))
    assert np.abs(np.asarray(classifier(ids(0, 2, 8))) - before).max() > 1e-3


def test_an_untrained_model_is_hardly_worse_than_an_even_guess():
    keras.utils.set_random_seed(0)
    model = MaskedLanguageModel(BERT(64, 8, 16, 2, 2))
    loss = token_loss(ids(0, 4, 8, vocabulary=64), model(ids(1, 4, 8, vocabulary=64)))
    assert 0 < float(loss) - math.log(64) < 1


def test_it_fills_gaps_that_only_both_sides_tell():
    keras.utils.set_random_seed(1)
    # The middle token is 3 + the sum of its neighbours: neither side alone tells it.
    sides = np.array([[a, b] for a in range(3) for b in range(3)])
    text = np.stack([sides[:, 0], 3 + sides.sum(1), sides[:, 1]], 1).astype("int32")
    hidden = np.where([False, True, False], 8, text).astype("int32")
    model = MaskedLanguageModel(BERT(9, 3, 16, 2, 1))
    chosen = hidden == 8
    loss = lambda y, z: token_loss(y, z, chosen)  # noqa: E731
    step = make_step(model, keras.optimizers.Adam(0.02), loss)
    for _ in range(120):
        step(hidden, text)
    assert (np.asarray(model(hidden)).argmax(-1)[chosen] == text[chosen]).all()


def test_every_weight_gets_a_gradient():
    model = Classifier(encoder(), 3)
    with tf.GradientTape() as tape:
        kinds = np.tile([0, 1], (2, 4))
        loss = keras.ops.sum(model(ids(0, 2, 8), kinds) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.abs(np.asarray(tf.convert_to_tensor(g))).max() > 0 for g in gradients)


# ---- the loss


def test_a_loss_worked_by_hand():
    # Probabilities 1/4 and 3/4: the truths cost ln 4 and ln 4/3.
    logits = np.log(np.array([[[1.0, 3.0], [1.0, 3.0]]]))
    assert float(token_loss(np.array([[0, 1]]), logits)) == pytest.approx(
        (math.log(4) + math.log(4 / 3)) / 2
    )
    mask = np.array([[True, False]])
    assert float(token_loss(np.array([[0, -7]]), logits, mask)) == pytest.approx(math.log(4))


# ---- bad arguments


@pytest.mark.parametrize(
    "name", ["vocabulary", "steps", "width", "heads", "depth", "hidden", "segments"]
)
@pytest.mark.parametrize("size", [0, -3, 2.0, True])
def test_sizes_are_whole_numbers(name, size):
    sizes = {"vocabulary": 5, "steps": 4, "width": 4, "heads": 2, "depth": 1, "hidden": 8}
    text = f"{name} must be an integer of at least 1; received {size!r}"
    with pytest.raises(ValueError, match=message(text)):
        BERT(**{**sizes, name: size})


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide the width 4; received 3"):
        BERT(5, 4, 4, 3, 1)


@pytest.mark.parametrize("padding", [-1, 5])
def test_padding_is_a_token(padding):
    with pytest.raises(ValueError, match=f"padding must be 0 to 4 or None; received {padding}"):
        BERT(5, 4, 4, 2, 1, padding=padding)


def test_classes_are_a_whole_number(small):
    with pytest.raises(ValueError, match="classes must be an integer of at least 1; received 0"):
        Classifier(small, 0)


@pytest.mark.parametrize(
    ("tokens", "kinds", "text"),
    [
        (np.zeros(4, "int32"), None, "ids must be integers [B, T], none empty; received int32 (4,"),
        (np.zeros((1, 4)), None, "ids must be integers [B, T], none empty; received float"),
        (np.zeros((0, 4), int), None, "ids must be integers [B, T], none empty; received int"),
        (np.zeros((1, 9), int), None, "ids must have at most 8 steps; received 9"),
        (np.ones((1, 4), int), np.zeros((1, 3), int), "segments must be integers (1, 4); received"),
        (np.ones((1, 4), int), np.zeros((1, 4)), "segments must be integers (1, 4); received"),
        (np.ones((1, 4), int), np.zeros(4, int), "segments must be integers (1, 4); received"),
    ],
)
def test_the_model_refuses(small, tokens, kinds, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        small(tokens, kinds)


@pytest.mark.parametrize("padding", [None, 0])
def test_a_mask_must_be_boolean_and_fit(padding):
    model = BERT(11, 8, 6, 2, 1, padding=padding)
    with pytest.raises(ValueError, match="attention_mask must be boolean"):
        model(ids(0, 1, 4), attention_mask=np.ones((4, 4), "float32"))
    with pytest.raises(ValueError, match="attention_mask must broadcast to"):
        model(ids(0, 2, 4), attention_mask=np.ones((2, 3), bool))


def test_a_classifier_hands_the_mask_on(small):
    classifier, ids = randomize(Classifier(small, 3)), np.array([[1, 2, 3, 4]])
    mask = np.array([[[True, True, False, True]]])
    changed = np.array([[1, 2, 5, 4]])
    masked = np.asarray(classifier(ids, attention_mask=mask))
    np.testing.assert_allclose(masked, classifier(changed, attention_mask=mask), atol=1e-5)
    assert np.abs(np.asarray(classifier(ids) - classifier(changed))).max() > 1e-3


def test_rotation_tells_the_order_where_positions_are_alike():
    def swapped(rotary):
        model = randomize(BERT(11, 8, 8, 2, 2, rotary=rotary))
        model.positions.assign(model.positions * 0)
        one, other = (np.asarray(model(np.array([row])))[0, 0] for row in ([1, 2, 3], [1, 3, 2]))
        return np.abs(one - other).max()

    assert swapped(False) < 1e-5
    assert swapped(True) > 1e-3
