"""Attention: hand-worked numbers, the same numbers as Keras, invariants, masks, edges."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.attention import (
    MultiHeadAttention,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
    update_cache,
)

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Keras warns of a softmax over one key; ours does not.
ONE_KEY = pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def message(text):
    return f"^{re.escape(text)}"


# ---- numbers worked by hand


def test_a_score_of_log_three_reads_three_parts_to_one():
    # F = 1: scores 1·ln 3 and 1·0, exponentials 3 and 1, weights 3/4 and 1/4.
    read, weights = scaled_dot_product_attention(
        np.array([[1.0]]), np.array([[math.log(3)], [0.0]]), np.array([[4.0, 8.0], [0.0, -8.0]])
    )
    close(weights, [[0.75, 0.25]], 1e-12)
    close(read, [[3.0, 4.0]], 1e-12)


def test_scores_are_divided_by_the_root_of_the_width():
    # F = 4: the product 2·ln 3 divided by √4 is ln 3.
    query, key = np.zeros((1, 4)), np.zeros((2, 4))
    query[0, 2], key[0, 2] = 2.0, math.log(3)
    _, weights = scaled_dot_product_attention(query, key, np.zeros((2, 1)))
    close(weights, [[0.75, 0.25]], 1e-12)


def test_three_tokens_of_width_one():
    # Claim 3: scores 4, 5, 6; then 8, 10, 12; then 12, 15, 18.
    column = np.array([[1.0], [2.0], [3.0]])
    read, weights = scaled_dot_product_attention(column, column + 3, column + 6)
    exponentials = np.exp(column * np.array([[0.0, 1.0, 2.0]]))
    close(weights, exponentials / exponentials.sum(-1, keepdims=True), 1e-12)
    close(read, np.asarray(weights) @ (column + 6), 1e-12)


@pytest.mark.parametrize("score", [0.0, -1e4, 1e4])
def test_one_key_has_weight_one_whatever_its_score(score):
    value = np.array([[7.0, 8.0, 9.0]])
    read, weights = scaled_dot_product_attention(np.array([[score]]), np.ones((1, 1)), value)
    assert np.asarray(weights).tolist() == [[1.0]]
    assert np.asarray(read).tolist() == value.tolist()


def test_a_query_of_zeros_reads_the_mean():
    value = normal(0, 5, 3)
    read, _ = scaled_dot_product_attention(np.zeros((1, 4), "float32"), normal(1, 5, 4), value)
    close(read, value.mean(0, keepdims=True))


def test_whole_numbers_are_accepted():
    read, weights = scaled_dot_product_attention(*(np.array([[n]]) for n in (1, 4, 7)))
    assert (float(weights[0, 0]), float(read[0, 0])) == (1.0, 7.0)


def test_heads_side_by_side_attend_on_their_own():
    query, key, value = normal(0, 2, 3, 4, 5), normal(1, 2, 6, 4, 5), normal(2, 2, 6, 4, 7)
    mask = np.random.default_rng(3).random((2, 1, 3, 6)) < 0.7
    read, weights = scaled_dot_product_attention(query, key, value, mask, heads=True)
    for head in range(4):
        parts = (array[:, :, head] for array in (query, key, value))
        one, its = scaled_dot_product_attention(*parts, mask[:, 0])
        close(read[:, :, head], one)
        close(weights[:, head], its)


def test_masks_are_true_where_reading_is_allowed():
    assert np.asarray(causal_mask(3)).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert np.asarray(padding_mask([0, 1, 3], 3)).tolist() == [
        [[False, False, False]],
        [[True, False, False]],
        [[True, True, True]],
    ]
    both = causal_mask(3) & padding_mask(np.array([2]), 3)
    assert np.asarray(both)[0, 2].tolist() == [True, True, False]


# ---- the same numbers as a trusted peer


def keras_twin(ours, width, query, memory):
    """Return Keras' layer with the weights of `ours`."""
    heads, head = ours.heads, width // ours.heads
    theirs = keras.layers.MultiHeadAttention(heads, head, use_bias=ours.bias)
    theirs.build(query.shape, memory.shape)
    weights = []
    for dense in (ours.query, ours.key, ours.value):
        weights.append(ops.reshape(dense.kernel, (-1, heads, head)))
        weights += [ops.reshape(dense.bias, (heads, head))] if ours.bias else []
    weights.append(ops.reshape(ours.merge.kernel, (heads, head, width)))
    weights += [ours.merge.bias] if ours.bias else []
    theirs.set_weights([np.asarray(w) for w in weights])
    return theirs


def randomize(layer, seed):
    """Give every weight, biases too, a random value."""
    layer.set_weights([normal(seed + i, *w.shape) / 3 for i, w in enumerate(layer.weights)])


# B, Q, K, D, C, H, bias
SHAPES = {
    "ordinary": (3, 7, 5, 12, 12, 4, True),
    "another width of the memory": (2, 4, 6, 8, 5, 2, True),
    "one head": (2, 5, 5, 6, 6, 1, True),
    "one sample": (1, 5, 4, 8, 8, 2, True),
    "one query": (2, 1, 9, 8, 8, 4, True),
    "one key": (2, 6, 1, 8, 8, 4, True),
    "one number a head": (2, 3, 4, 6, 6, 6, True),
    "no bias": (2, 5, 7, 8, 8, 2, False),
    "long": (1, 130, 300, 64, 64, 8, True),
}


@ONE_KEY
@pytest.mark.parametrize("mask", ["none", "random", "padding", "causal"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_layer_equals_keras_with_the_same_weights(shape, mask):
    samples, queries, keys, width, memory_width, heads, bias = shape
    query, memory = normal(1, samples, queries, width), normal(2, samples, keys, memory_width)
    lengths = np.arange(samples) % keys + 1
    allowed = {
        "none": None,
        "random": normal(3, samples, queries, keys) > -0.3,
        "padding": np.broadcast_to(padding_mask(lengths, keys), (samples, queries, keys)),
        "causal": np.arange(keys) <= np.arange(queries)[:, None],
    }[mask]
    if mask == "random":
        allowed[..., 0] = True  # where nothing may be read the two differ on purpose
    ours = MultiHeadAttention(heads, bias)
    ours.build(query.shape, memory.shape)
    randomize(ours, 5)
    theirs = keras_twin(ours, width, query, memory)
    output, weights = ours(query, memory, attention_mask=allowed, return_weights=True)
    # Keras wants the mask's batch axis.
    full = None if allowed is None else np.broadcast_to(allowed, (samples, queries, keys))
    expected, scores = theirs(query, memory, attention_mask=full, return_attention_scores=True)
    close(weights, scores)
    close(output, expected)


def test_self_attention_equals_keras_causal():
    x = normal(0, 2, 9, 16)
    ours = MultiHeadAttention(4)
    ours.build(x.shape)
    randomize(ours, 1)
    expected = keras_twin(ours, 16, x, x)(x, x, use_causal_mask=True)
    close(ours(x, attention_mask=causal_mask(9)), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 5, 4, 8), (3, 2, 1, 6, 2)])
def test_the_function_equals_keras_dot_product_attention(shape):
    samples, heads, queries, keys, width = shape
    query = normal(0, samples, heads, queries, width)
    key, value = normal(1, samples, heads, keys, width), normal(2, samples, heads, keys, width)
    mask = normal(3, samples, heads, queries, keys) > 0
    mask[..., 0] = True
    read, _ = scaled_dot_product_attention(query, key, value, mask)
    swapped = (np.swapaxes(x, 1, 2) for x in (query, key, value))
    close(read, np.swapaxes(ops.dot_product_attention(*swapped, mask=mask), 1, 2))


def test_gradients_equal_those_of_keras():
    query, memory = normal(1, 2, 4, 8), normal(2, 2, 6, 8)
    mask = np.asarray(padding_mask([3, 6], 6))
    ours = MultiHeadAttention(2)
    ours.build(query.shape, memory.shape)
    randomize(ours, 5)
    theirs = keras_twin(ours, 8, query, memory)
    full = np.broadcast_to(mask, (2, 4, 6))
    with tf.GradientTape(persistent=True) as tape:
        a = ops.sum(ours(query, memory, attention_mask=mask) ** 3)
        b = ops.sum(theirs(query, memory, attention_mask=full) ** 3)
    for mine, its in zip(
        tape.gradient(a, ours.trainable_variables),
        tape.gradient(b, theirs.trainable_variables),
        strict=True,
    ):
        # The bias of the keys moves all scores of a query alike: its gradient is 0 but for noise.
        assert np.abs(np.ravel(mine) - np.ravel(its)).max() < 1e-4 * (1 + np.abs(its).max())


# ---- what must hold for any input


def test_rows_of_weights_sum_to_one():
    mask = normal(0, 2, 6, 9) > 0
    mask[..., 3] = True
    _, weights = scaled_dot_product_attention(
        normal(1, 2, 6, 4), normal(2, 2, 9, 4), normal(3, 2, 9, 4), mask
    )
    weights = np.asarray(weights)
    close(weights.sum(-1), np.ones((2, 6)), 1e-6)
    assert (weights[~mask] == 0).all()
    assert (weights >= 0).all()


def test_the_order_of_keys_does_not_matter():
    query, key, value = normal(0, 3, 4), normal(1, 8, 4), normal(2, 8, 5)
    mask, order = normal(3, 3, 8) > -1, np.random.default_rng(4).permutation(8)
    before, _ = scaled_dot_product_attention(query, key, value, mask)
    after, _ = scaled_dot_product_attention(query, key[order], value[order], mask[:, order])
    close(after, before, 1e-6)


def test_permuted_steps_give_permuted_outputs():
    x, order = normal(0, 2, 7, 8), np.random.default_rng(1).permutation(7)
    layer = MultiHeadAttention(2)
    close(layer(x[:, order]), np.asarray(layer(x))[:, order])


def test_a_masked_key_is_not_read():
    key, value, query = normal(0, 2, 6, 4), normal(1, 2, 6, 4), normal(2, 2, 3, 4)
    mask = padding_mask([2, 5], 6)
    before, _ = scaled_dot_product_attention(query, key, value, mask)
    hidden = ~np.asarray(mask)[:, 0]
    key[hidden], value[hidden] = 1e4, -1e6
    after, _ = scaled_dot_product_attention(query, key, value, mask)
    assert (np.asarray(before) == np.asarray(after)).all()


def test_causally_masked_steps_do_not_read_the_future():
    x = normal(0, 1, 8, 6)
    layer = MultiHeadAttention(3)
    before = np.asarray(layer(x, attention_mask=causal_mask(8)))
    x[:, 5:] += 100
    after = np.asarray(layer(x, attention_mask=causal_mask(8)))
    assert (before[:, :5] == after[:, :5]).all()
    assert (np.abs(before[:, 5:] - after[:, 5:]) > 1e-3).any(-1).all()


def test_more_padding_changes_nothing():
    x, layer = normal(0, 2, 5, 8), MultiHeadAttention(2)
    short = layer(x, attention_mask=padding_mask([5, 3], 5))
    longer = np.pad(x, [(0, 0), (0, 20), (0, 0)], constant_values=9.0)
    close(layer(longer, attention_mask=padding_mask([5, 3], 25))[:, :5], short, 1e-6)


def test_a_query_that_may_read_nothing_gets_zeros():
    mask = np.array([[True, False], [False, False]])
    query, key, value = normal(0, 2, 3), normal(1, 2, 3), normal(2, 2, 3)
    read, weights = scaled_dot_product_attention(query, key, value, mask)
    assert np.asarray(weights).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert np.asarray(read)[1].tolist() == [0.0, 0.0, 0.0]


def test_in_the_layer_it_gets_the_last_bias():
    layer = MultiHeadAttention(2)
    layer.build((1, 3, 4))
    randomize(layer, 0)
    output = layer(normal(0, 1, 3, 4), attention_mask=padding_mask([0], 3))
    assert (np.asarray(output) == np.asarray(layer.merge.bias)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradients_are_finite_where_all_is_masked(dtype):
    arrays = [tf.Variable(ops.cast(normal(seed, 2, 4, 3), dtype)) for seed in range(3)]
    with tf.GradientTape() as tape:
        read, weights = scaled_dot_product_attention(*arrays, padding_mask([0, 2], 4))
        loss = ops.sum(read * read)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    for gradient in tape.gradient(loss, arrays):
        numbers = np.asarray(gradient, "float64")
        assert np.isfinite(numbers).all()
        assert (numbers[0] == 0).all()


def test_neither_nan_nor_infinity_arises_on_the_way():
    arrays = [tf.constant(normal(seed, 2, 4, 3)) for seed in range(3)]
    tf.debugging.enable_check_numerics()  # raises at the operation that makes one
    try:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            read, _ = scaled_dot_product_attention(*arrays, padding_mask([0, 2], 4))
        tape.gradient(read, arrays)
    finally:
        tf.debugging.disable_check_numerics()


# ---- a cache of keys and values


def empty_cache(steps, dtype="float32"):
    """Return a cache for two samples, two heads of width 4; what is not written yet is large."""
    return (ops.full((2, 2, steps, 4), 1e3, dtype), ops.full((2, 2, steps, 4), -1e3, dtype))


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5, 6), (4, 6), (6,)])
def test_steps_read_with_a_cache_equal_those_read_at_once(cuts):
    layer, x, cache = MultiHeadAttention(2), normal(0, 2, 6, 8), empty_cache(9)
    wanted, weights = layer(x, attention_mask=causal_mask(6), return_weights=True)
    for start, end in zip((0, *cuts), cuts, strict=False):
        output, read, cache = layer(x[:, start:end], cache=cache, index=start, return_weights=True)
        close(output, wanted[:, start:end])
        close(read[..., :6], weights[:, :, start:end])
        assert (np.asarray(read)[..., end:] == 0).all()
    assert (np.asarray(cache[0])[:, :, 6:] == 1e3).all()


def test_a_compiled_index_gives_the_same_numbers_and_nan_where_there_is_no_room():
    layer, x = MultiHeadAttention(2), normal(0, 2, 6, 8)
    wanted = layer(x, attention_mask=causal_mask(6))
    step = tf.function(lambda x, cache, index: layer(x, cache=cache, index=index), jit_compile=True)
    cache = empty_cache(6)
    for index in range(0, 6, 2):
        output, cache = step(x[:, index : index + 2], cache, tf.constant(index))
        close(output, wanted[:, index : index + 2])
    for index in (5, 6, -1):
        assert np.isnan(step(x[:, :2], cache, tf.constant(index))[0]).all()


def test_a_mask_and_a_cache_both_hide():
    layer, x = MultiHeadAttention(2), normal(0, 2, 5, 8)
    left = np.arange(5) >= np.array([[[2]], [[0]]])  # the first sample is padded on the left
    wanted = layer(x, attention_mask=left & np.asarray(causal_mask(5)))
    _, cache = layer(x[:, :3], cache=empty_cache(5), index=0, attention_mask=left)
    output, cache = layer(x[:, 3:], cache=cache, index=3, attention_mask=left)
    close(output, wanted[:, 3:])


def test_half_precision_reads_a_cache():
    layer, x = MultiHeadAttention(2, dtype="mixed_float16"), normal(0, 2, 3, 8)
    output, cache = layer(x, cache=empty_cache(4), index=0)
    assert [a.dtype.name for a in (output, *cache)] == ["float16"] * 3
    close(output, layer(x, attention_mask=causal_mask(3)), 1e-2)


def test_what_rotates_sees_queries_keys_and_their_positions():
    seen = []

    def rotate(x, positions):
        seen.append((tuple(x.shape), np.asarray(positions).tolist()))
        return x

    layer, x = MultiHeadAttention(2), normal(0, 2, 3, 8)
    close(layer(x, rotate=rotate), layer(x))
    layer(x, cache=empty_cache(9), index=5, rotate=rotate)
    assert seen == [((2, 3, 2, 4), [[0], [1], [2]])] * 2 + [((2, 3, 2, 4), [[5], [6], [7]])] * 2


# ---- numeric edges


def test_large_scores_do_not_overflow():
    scores = np.array([[1e4, -1e4, 1e4 - 1]], "float32")
    _, weights = scaled_dot_product_attention(
        np.ones((1, 1), "float32"), scores.T, np.ones((3, 1), "float32")
    )
    close(weights, [[1 / (1 + math.exp(-1)), 0, 1 / (1 + math.e)]], 1e-6)


def test_float16_does_not_overflow_with_the_mask():
    query, key, value = (normal(seed, 2, 40, 64, dtype="float16") * 8 for seed in range(3))
    mask = causal_mask(40) & padding_mask([0, 25], 40)
    half, weights = scaled_dot_product_attention(query, key, value, mask)
    assert (np.isfinite(half).all(), np.isfinite(weights).all()) == (True, True)
    assert (np.asarray(weights)[~np.asarray(mask)] == 0).all()
    exact, _ = scaled_dot_product_attention(
        *(x.astype("float64") for x in (query, key, value)), mask
    )
    assert np.abs(np.asarray(half, "float64") - np.asarray(exact)).max() < 0.5


def test_dividing_first_keeps_float16_scores_finite():
    # 256 · 20 · 20 = 102,400 is beyond float16; divided by √256 first, it is 6,400.
    query = np.full((1, 256), 20, "float16")
    _, weights = scaled_dot_product_attention(
        query, np.repeat(query, 2, 0), np.ones((2, 1), "float16")
    )
    assert np.asarray(weights).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"])
def test_the_layer_follows_its_policy(policy):
    layer = MultiHeadAttention(2, dtype=policy)
    x = normal(0, 2, 6, 8)
    output = layer(x, attention_mask=padding_mask([0, 4], 6))
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    assert layer.query.kernel.dtype == layer.variable_dtype
    exact = MultiHeadAttention(2)
    exact.build(x.shape)
    exact.set_weights([np.asarray(w, "float32") for w in layer.get_weights()])
    wanted = np.asarray(exact(x, attention_mask=padding_mask([0, 4], 6)))
    assert np.abs(np.asarray(output, "float32") - wanted).max() < 0.03


def test_it_compiles_and_trains():
    x, lengths = normal(0, 8, 5, 6), np.arange(8) % 5 + 1
    inputs, allowed = keras.Input((None, 6)), keras.Input((1, None), dtype="bool")
    outputs = MultiHeadAttention(2)(inputs, attention_mask=allowed)
    assert outputs.shape == (None, None, 6)
    model = keras.Model([inputs, allowed], outputs)
    model.compile("adam", "mse", jit_compile=True)
    mask = np.asarray(padding_mask(lengths, 5))
    losses = [model.train_on_batch([x, mask], np.ones_like(x)) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_symbolic_shapes_are_inferred():
    query, memory = keras.Input((7, 8)), keras.Input((4, 6))
    output, weights = MultiHeadAttention(4)(query, memory, return_weights=True)
    assert output.shape == (None, 7, 8)
    assert weights.shape[1:] == (4, 7, 4)
    read, weights = scaled_dot_product_attention(query, keras.Input((4, 8)), memory)
    assert (read.shape, weights.shape) == ((None, 7, 6), (None, 7, 4))


# ---- save and load


@SAVING
def test_a_saved_layer_gives_the_same_numbers(tmp_path):
    query, memory = keras.Input((None, 8)), keras.Input((None, 6))
    allowed = keras.Input((None, None), dtype="bool")
    output = MultiHeadAttention(4, bias=False, name="reads")(query, memory, attention_mask=allowed)
    model = keras.Model([query, memory, allowed], output)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    inputs = normal(0, 2, 3, 8), normal(1, 2, 5, 6), normal(2, 2, 3, 5) > 0
    assert (np.asarray(model(inputs)) == np.asarray(again(inputs))).all()
    assert (again.get_layer("reads").heads, again.get_layer("reads").bias) == (4, False)


def test_the_configuration_makes_the_same_layer():
    layer = MultiHeadAttention(3, bias=False, name="reads")
    again = MultiHeadAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


# ---- bad arguments


ONE = np.zeros((2, 3, 4), "float32")  # [B, T, F]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((ONE[0, 0], ONE, ONE), "query must have rank 2 or more; received (4,)"),
        ((ONE, ONE[0, 0], ONE), "key must have rank 2 or more; received (4,)"),
        ((ONE, ONE, ONE[0, 0]), "value must have rank 2 or more; received (4,)"),
        ((ONE[..., :2], ONE, ONE), "query and key must have the same width F; received 2 and 4"),
        ((ONE, ONE, ONE[:, :2]), "key and value must have the same length K; received 3 and 2"),
        (
            (ONE, ONE, ONE, np.ones((3, 3))),
            "mask must be boolean, True where reading is allowed; received float64",
        ),
        (
            (ONE, ONE, ONE, np.ones((3, 2), bool)),
            "mask must broadcast to (2, 3, 3) (the last two are queries and keys); received (3, 2).",
        ),
        ((ONE, ONE, ONE, np.ones((1, 2, 3, 3), bool)), "mask must broadcast to (2, 3, 3)"),
        ((ONE, ONE[0], ONE, None, True), "key must have rank 3 or more; received (3, 4)"),
        ((ONE, ONE, ONE[:1], None, True), "key and value must have the same length K; received 2"),
    ],
)
def test_the_function_refuses(arguments, text):
    with pytest.raises(ValueError, match=message(text)):
        scaled_dot_product_attention(*arguments)


@pytest.mark.parametrize("heads", [0, -2, 1.5, None])
def test_heads_must_be_a_whole_number(heads):
    text = f"heads must be an integer of at least 1; received {heads!r}"
    with pytest.raises(ValueError, match=message(text)):
        MultiHeadAttention(heads)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide the width 4; received 3"):
        MultiHeadAttention(3).build((2, 3, 4))


def test_the_layer_refuses_other_ranks():
    text = "query must be [batch, steps, width]; received (3, 4)"
    with pytest.raises(ValueError, match=message(text)):
        MultiHeadAttention(2)(ONE[0])
    text = "memory must be [batch, steps, width]; received (3, 4)"
    with pytest.raises(ValueError, match=message(text)):
        MultiHeadAttention(2).build(ONE.shape, ONE.shape[1:])


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.ones((2, 3), bool), "attention_mask must broadcast to (2, 3, 3)"),
        (np.ones((2, 2, 3, 3), bool), "attention_mask must broadcast to (2, 3, 3)"),
        (np.ones((2, 1, 3), "int32"), "attention_mask must be boolean"),
    ],
)
def test_the_layer_refuses_other_masks(mask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        MultiHeadAttention(2)(ONE, attention_mask=mask)


KEY = np.zeros((2, 2, 3, 4), "float32")  # [B, H, Q, F]


@pytest.mark.parametrize(
    ("cache", "index", "text"),
    [
        (
            (KEY[0], KEY),
            0,
            "cache must be two arrays [batch, 2, steps, 4]; received one of (2, 3, 4)",
        ),
        ((KEY, KEY[..., :2]), 0, "cache must be two arrays [batch, 2, steps, 4]; received one of"),
        ((KEY[:, :1], KEY), 0, "cache must be two arrays [batch, 2, steps, 4]; received one of"),
        ((KEY, KEY), 1, "index must be 0 to 0, to write 3 steps; received 1"),
        ((KEY, KEY), -1, "index must be 0 to 0, to write 3 steps; received -1"),
    ],
)
def test_the_cache_refuses(cache, index, text):
    with pytest.raises(ValueError, match=message(text)):
        update_cache(cache, KEY, KEY, index)


def test_a_cache_needs_an_index():
    with pytest.raises(ValueError, match="cache and index must be given together"):
        MultiHeadAttention(2)(ONE, cache=empty_cache(3))


def test_many_large_values_do_not_overflow_in_half_precision():
    query, key = np.zeros((1, 4), "float16"), np.zeros((2048, 4), "float16")
    value = np.full((2048, 3), 60, "float16")
    read, weights = scaled_dot_product_attention(query, key, value)
    np.testing.assert_array_equal(read, np.full((1, 3), 60, "float16"))
    assert np.asarray(weights).dtype == "float16"
