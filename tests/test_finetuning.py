"""Fine-tuning: low-rank updates against Keras' own, merging, freezing, rates by depth, counts."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.finetuning import (
    LayerwiseAdam,
    LoRA,
    adapt,
    captured,
    dense_work,
    depth_factors,
    freeze,
    low_rank_dense,
    merge,
    trainable_count,
    training_bytes,
)
from aimodels.gpt import GPT
from aimodels.training import make_step
from aimodels.transformer import Block
from aimodels.vit import VisionTransformer

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(np.abs(b).max(), 1e-30))


def message(text):
    return f"^{re.escape(text)}"


def dense(inputs, outputs, seed=0, **options):
    """A built dense layer with random weights."""
    layer = keras.layers.Dense(outputs, **options)
    layer.build((None, inputs))
    layer.set_weights([normal(seed + i, *w.shape) for i, w in enumerate(layer.weights)])
    return layer


def vit(**options):
    model = VisionTransformer(3, 4, 2, width=8, heads=2, depth=2, hidden=12, **options)
    model.build((None, 4, 4, 1))
    return model


def numbers(value, dtype=None):
    array = ops.convert_to_tensor(value).numpy()
    return array.astype(dtype or array.dtype)  # a copy


def values(variables):
    return [numbers(v) for v in variables]


def stir(adapters, seed=0):
    """Give B numbers other than zero."""
    for n, adapter in enumerate(adapters):
        adapter.b.assign(normal(seed + n, *adapter.b.shape))


# ---- the function


def test_a_low_rank_update_by_hand():
    # x W = (1, 2) I; x A = 1 + 2 · 3 = 7; times B = (2, -1), times one half
    a, b = np.array([[1.0], [3.0]]), np.array([[2.0, -1.0]])
    y = low_rank_dense(np.array([[1.0, 2.0]]), np.eye(2), a, b, 0.5)
    close(y, [[1 + 7, 2 - 3.5]])


def test_it_is_the_kernel_plus_the_scaled_product():
    x, w, a, b = normal(0, 2, 3, 5), normal(1, 5, 4), normal(2, 5, 2), normal(3, 2, 4)
    close(low_rank_dense(x, w, a, b, 1.5), x @ (w + 1.5 * a @ b))


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (4, 5), (4, 1), (1, 5)),
        ((2, 4), (4, 5), (3, 1), (1, 5)),
        ((2, 4), (4, 5), (4, 2), (1, 5)),
        ((2, 4), (4, 5), (4, 1), (1, 1)),
        ((2, 4), (4,), (4, 1), (1, 5)),
    ],
)
def test_matrices_that_do_not_fit_are_refused(shapes):
    text = f"x, kernel, a and b must be [..., D], [D, E], [D, R] and [R, E]; received {shapes}"
    with pytest.raises(ValueError, match=message(text)):
        low_rank_dense(*(np.zeros(shape) for shape in shapes))


# ---- the layer


@pytest.mark.parametrize(
    ("shape", "rank", "alpha", "lead", "options"),
    [
        ((5, 7), 2, None, (3,), {}),
        ((7, 5), 5, 1, (2, 3), {"activation": "gelu"}),
        ((1, 1), 1, 8, (4,), {"use_bias": False}),
        ((6, 2), 1, 0.5, (2, 1, 3), {"activation": "tanh"}),
        ((3, 9), 3, 16, (1,), {"use_bias": False, "activation": "relu"}),
    ],
)
def test_outputs_and_gradients_equal_those_of_keras(shape, rank, alpha, lead, options):
    inputs, outputs = shape
    theirs = dense(inputs, outputs, **options)
    ours = LoRA(dense(inputs, outputs, **options), rank, alpha)
    theirs.enable_lora(rank, lora_alpha=alpha)
    a, b = normal(5, inputs, rank), normal(6, rank, outputs)
    for mine, other, value in (
        (ours.a, theirs.lora_kernel_a, a),
        (ours.b, theirs.lora_kernel_b, b),
    ):
        mine.assign(value)
        other.assign(value)
    x = tf.constant(normal(7, *lead, inputs))
    found = []
    for layer, variables in (
        (ours, [ours.a, ours.b]),
        (theirs, [theirs.lora_kernel_a, theirs.lora_kernel_b]),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = ops.sum(y * y)
        found.append([y, *tape.gradient(loss, [x, *(v.value for v in variables)])])
    for mine, other in zip(*found, strict=True):
        close(mine, other, 2e-5)


def test_at_first_the_output_is_bit_for_bit_that_of_the_dense_layer():
    layer, x = dense(6, 4, activation="gelu"), normal(9, 5, 6)
    before = numbers(layer(x))
    assert np.array_equal(LoRA(layer, 2, 16)(x), before)


def test_a_starts_away_from_zero_and_b_at_zero():
    adapter = LoRA(dense(6, 4), 2)
    assert np.abs(numbers(adapter.a)).min() > 0
    assert not numbers(adapter.b).any()


def test_without_alpha_the_scale_is_one():
    adapter = LoRA(dense(6, 4), 3)
    stir([adapter])
    close(adapter.update(), numbers(adapter.a) @ numbers(adapter.b))
    adapter = LoRA(dense(6, 4), 2, 3)
    stir([adapter])
    close(adapter.update(), 1.5 * numbers(adapter.a) @ numbers(adapter.b))


def test_only_a_and_b_are_trained_whatever_trainable_is_set_to():
    adapter = LoRA(dense(6, 4), 2)
    assert [v.name for v in adapter.trainable_variables] == ["a", "b"]
    adapter.trainable = False
    assert adapter.trainable_variables == []
    adapter.trainable = True
    assert [v.name for v in adapter.trainable_variables] == ["a", "b"]
    assert trainable_count(adapter) == 2 * (6 + 4)


def test_keras_leaves_the_bias_trainable_and_we_do_not():
    layer = dense(6, 4)
    layer.enable_lora(2)
    assert "bias" in [v.name for v in layer.trainable_variables]


def test_the_update_has_no_more_than_its_rank():
    adapter = LoRA(dense(9, 8), 3)
    stir([adapter])
    assert np.linalg.matrix_rank(numbers(adapter.update())) == 3


def test_merging_keeps_the_output_and_leaves_a_plain_trainable_layer():
    adapter, x = LoRA(dense(6, 4, activation="tanh"), 2, 8), normal(9, 5, 6)
    stir([adapter])
    before = numbers(adapter(x))
    merged = adapter.merge()
    assert type(merged) is keras.layers.Dense
    assert len(merged.trainable_variables) == 2
    close(merged(x), before, 1e-6)
    close(adapter(x), before, 1e-6)
    adapter.merge()  # a second time changes nothing
    close(merged(x), before, 1e-6)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16", "float64"])
def test_it_follows_the_policy_and_a_and_b_keep_at_least_float32(policy):
    adapter, x = LoRA(dense(6, 4, dtype=policy), 2), normal(9, 5, 6)
    stir([adapter])
    wanted = x @ numbers(adapter.dense.kernel.value, "float64")
    wanted = wanted + numbers(adapter.dense.bias.value, "float64")
    wanted = wanted + x @ numbers(adapter.update(), "float64")
    y = adapter(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert adapter.a.dtype == ("float64" if policy == "float64" else "float32")
    y = numbers(ops.cast(y, "float64"))
    assert np.abs(y - wanted).max() < 0.03 * np.abs(wanted).max()
    kernel = adapter.dense.kernel.dtype
    merged = adapter.merge()
    assert merged.kernel.dtype == kernel
    assert np.abs(numbers(ops.cast(merged(x), "float64")) - wanted).max() < 0.03 * abs(wanted).max()


def test_a_step_too_small_for_float16_is_not_lost():
    adapter = LoRA(dense(4, 4, dtype="float16"), 1)
    adapter.a.assign(np.ones((4, 1)))
    adapter.a.assign_add(np.full((4, 1), 1e-4))
    assert (numbers(adapter.a) > 1).all()


def test_compiled_it_gives_the_same_numbers_and_a_nan_stays_in_its_row():
    adapter, x = LoRA(dense(6, 4), 2), normal(9, 5, 6)
    stir([adapter])
    compiled = tf.function(adapter, jit_compile=True, autograph=False)
    close(compiled(tf.constant(x)), adapter(x))
    x[2, 3] = np.nan
    assert np.isnan(adapter(x)).all(axis=1).tolist() == [False, False, True, False, False]
    assert adapter(x[:0]).shape == (0, 4)


def test_an_unknown_batch_keeps_its_shape():
    assert LoRA(dense(6, 4), 2)(keras.Input((None, 6))).shape == (None, None, 4)


@SAVING
def test_a_saved_layer_gives_the_same_numbers(tmp_path):
    adapter = LoRA(dense(6, 4, activation="gelu"), 2, 3)
    stir([adapter])
    inputs = keras.Input((6,))
    model = keras.Model(inputs, adapter(inputs))
    model.save(tmp_path / "model.keras")
    again, x = keras.models.load_model(tmp_path / "model.keras"), normal(9, 5, 6)
    assert np.array_equal(model(x), again(x))
    assert len(again.trainable_variables) == 2


@SAVING
def test_lora_of_keras_comes_back_with_both_matrices_zero_and_ours_does_not(tmp_path):
    theirs, ours = dense(6, 4), LoRA(dense(6, 4), 2)
    theirs.enable_lora(2)
    theirs.lora_kernel_b.assign(np.ones((2, 4)))
    stir([ours])
    for name, layer, zero in (("theirs", theirs, True), ("ours", ours, False)):
        inputs = keras.Input((6,))
        keras.Model(inputs, layer(inputs)).save(tmp_path / f"{name}.keras")
        again = keras.models.load_model(tmp_path / f"{name}.keras").layers[-1]
        pair = (again.lora_kernel_a, again.lora_kernel_b) if zero else (again.a, again.b)
        assert [numbers(v).any() for v in pair] == [not zero, not zero]


def test_the_configuration_makes_the_same_layer():
    config = LoRA(dense(6, 4), 2, 3, name="n").get_config()
    again = LoRA.from_config(config)
    assert again.get_config() == config
    assert again.a.shape == (6, 2)


@pytest.mark.parametrize("rank", [0, -1, 5, 1.0, True])
def test_a_rank_that_the_matrix_cannot_have_is_refused(rank):
    text = f"rank must be a whole number from 1 to 4, for a kernel of (6, 4); received {rank!r}"
    with pytest.raises(ValueError, match=message(text)):
        LoRA(dense(6, 4), rank)
    with pytest.raises(ValueError, match=message(text)):
        dense_work(6, 4, rank)


@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf, "4"])
def test_an_alpha_that_is_not_positive_is_refused(alpha):
    with pytest.raises(
        ValueError, match=message(f"alpha must be a number above 0; received {alpha!r}")
    ):
        LoRA(dense(6, 4), 2, alpha)


@SAVING
def test_layers_that_cannot_be_adapted_are_refused():
    text = "dense must be built, so that its shape is known; d is not"
    with pytest.raises(ValueError, match=message(text)):
        LoRA(keras.layers.Dense(4, name="d"), 2)
    with pytest.raises(ValueError, match=message("dense must be a Dense layer; received Dropout")):
        LoRA(keras.layers.Dropout(0.5), 2)
    with pytest.raises(ValueError, match=message("dense must be a Dense layer; received LoRA")):
        LoRA(LoRA(dense(6, 4), 2), 2)
    text = "dense must be neither quantized nor adapted by enable_lora; d is"
    for change in (lambda d: d.enable_lora(2), lambda d: d.quantize("int8")):
        layer = dense(6, 4, name="d")
        change(layer)
        with pytest.raises(ValueError, match=message(text)):
            LoRA(layer, 2)


# ---- in a model


def test_chosen_layers_are_adapted_and_the_output_stays():
    model, x = vit(), normal(0, 3, 4, 4, 1)
    before, weights = numbers(model(x)), model.count_params()
    adapters = adapt(model, ("query", "value"), 2)
    assert np.array_equal(model(x), before)
    assert model.count_params() - weights == 2 * 2 * 2 * (8 + 8)
    assert [model.blocks[n].attend.query for n in (0, 1)] == adapters[::2]
    assert [model.blocks[n].attend.value for n in (0, 1)] == adapters[1::2]
    assert type(model.blocks[0].attend.key) is keras.layers.Dense
    stir(adapters)
    assert np.abs(numbers(model(x)) - before).max() > 1e-3


def test_every_projection_and_feedforward_layer_of_gpt_can_be_adapted():
    model = GPT(11, 6, width=8, heads=2, depth=2)
    ids = np.arange(6)[None]
    before = numbers(model(ids))
    names = ("query", "key", "value", "merge", "widen", "narrow")
    adapters = adapt(model, names, 1)
    assert len(adapters) == 12
    freeze(model, *adapters)
    assert trainable_count(model) == 2 * (4 * (8 + 8) + 2 * (8 + 32))
    assert np.array_equal(model(ids), before)
    stir(adapters)
    with_lora = numbers(model(ids))
    assert merge(model) == 12
    close(model(ids), with_lora, 1e-5)


def test_adapters_come_in_the_order_of_the_model():
    adapters = adapt(vit(), ("head", "query", "embed"), 2)
    assert [adapter.name for adapter in adapters] == ["embed", "query", "query", "head"]


def test_a_block_alone_can_be_adapted():
    block = Block(2, 12)
    block.build((None, 3, 8))
    assert [a.name for a in adapt(block, "widen", 8)] == ["widen"]


def test_merging_a_model_takes_every_adapter_out_again():
    model, x = vit(), normal(0, 3, 4, 4, 1)
    plain, names = model.count_params(), [v.path for v in model.weights]
    adapters = adapt(model, ("query", "narrow", "head"), 2, 8)
    stir(adapters)
    tuned = numbers(model(x))
    assert merge(model) == 5
    close(model(x), tuned, 1e-5)
    assert model.count_params() == plain
    assert [v.path for v in model.weights] == names
    assert len(model.trainable_variables) == len(names)
    assert merge(model) == 0


def test_setting_the_model_trainable_does_not_thaw_an_adapted_kernel():
    model = vit()
    (adapter, _) = adapt(model, "query", 2)
    model.trainable = False
    model.trainable = True
    trained = {id(v) for v in model.trainable_variables}
    assert id(adapter.dense.kernel) not in trained
    assert id(adapter.dense.bias) not in trained
    assert id(adapter.a) in trained


@SAVING
def test_a_merged_model_is_saved_as_any_other(tmp_path):
    model, x = vit(), normal(0, 3, 4, 4, 1)
    stir(adapt(model, "query", 2))
    merge(model)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def test_names_that_no_layer_has_are_refused_and_nothing_is_changed():
    model = vit()
    known = ["embed", "head", "key", "merge", "narrow", "query", "value", "widen"]
    for names in (("query", "qkv"), (), ("norm",)):
        text = f"names must be of dense layers without LoRA, {known}; received {names}"
        with pytest.raises(ValueError, match=message(text)):
            adapt(model, names, 2)
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 3"):
        adapt(model, ("query", "head"), 4)
    assert merge(model) == 0
    assert len(model.trainable_variables) == len(model.weights)


def test_what_is_adapted_already_is_refused():
    model = vit()
    adapt(model, "query", 2)
    with pytest.raises(ValueError, match="names must be of dense layers without LoRA"):
        adapt(model, "query", 2)
    assert len(adapt(model, "key", 2)) == 2


def test_a_layer_of_two_owners_gets_one_adapter():
    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = Holder(), Holder()
            self.second.inner = self.first.inner
            self.built = True

        def call(self, x):
            return self.second.inner(self.first.inner(x))

    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = dense(4, 4)

    model = Twice()
    adapt(model, "inner", 2)
    assert model.first.inner is model.second.inner
    stir([model.first.inner])
    x = normal(0, 2, 4)
    before = numbers(model(x))
    merge(model)
    assert model.first.inner is model.second.inner
    close(model(x), before)


# ---- freezing


def test_all_but_the_head_is_frozen_and_a_step_leaves_it_alone():
    model = vit()
    freeze(model, model.head)
    assert [v.path for v in model.trainable_variables] == [v.path for v in model.head.variables]
    assert trainable_count(model) == 8 * 3 + 3
    frozen = [v for v in model.variables if not v.trainable]
    before = values(frozen)
    optimizer = keras.optimizers.Adam(0.1)
    step = make_step(model, optimizer, lambda y, z: ops.mean((y - z) ** 2))
    step(normal(0, 2, 4, 4, 1), normal(1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(before, values(frozen), strict=True))
    assert numbers(model.head.bias).any()
    assert sum(v.shape.num_elements() for v in optimizer.variables[2:]) == 2 * (8 * 3 + 3)


def test_a_layer_deep_inside_can_be_kept_and_freezing_again_changes_the_choice():
    model = vit()
    freeze(model, model.blocks[1].feed)
    assert trainable_count(model) == 8 * 12 + 12 + 12 * 8 + 8
    freeze(model, model.head)
    assert trainable_count(model) == 8 * 3 + 3
    freeze(model)
    assert model.trainable_variables == []
    assert model.positions.trainable is False
    freeze(model, model)
    assert trainable_count(model) == model.count_params()
    model.trainable = False
    freeze(model, model.head)
    assert trainable_count(model) == 8 * 3 + 3


def test_keras_skips_an_assignment_that_seems_to_change_nothing():
    model = vit()
    freeze(model, model.head)
    model.trainable = True
    assert trainable_count(model) == 8 * 3 + 3


def test_thawing_a_model_keeps_adapted_kernels_frozen():
    model = vit()
    plain = model.count_params()
    adapters = adapt(model, ("query", "narrow"), 2)
    freeze(model, model.head)
    freeze(model, model)
    frozen = sum(adapter.dense.count_params() for adapter in adapters)
    assert trainable_count(model) == model.count_params() - frozen < plain


def test_statistics_of_a_frozen_normalization_stay_and_of_a_kept_one_are_not_trained():
    layers = keras.layers
    norm, head = layers.BatchNormalization(), layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), norm, head])
    x = 5 + normal(0, 8, 3)
    freeze(model, head)
    model(x, training=True)
    assert not numbers(norm.moving_mean).any()
    freeze(model, norm)
    assert [v.name for v in model.trainable_variables] == ["gamma", "beta"]
    model(x, training=True)
    assert numbers(norm.moving_mean).all()


def test_what_is_not_part_of_the_model_cannot_be_kept():
    model = vit()
    text = f"keep must be layers of {model.name}; received other"
    with pytest.raises(ValueError, match=message(text)):
        freeze(model, dense(8, 3, name="other"))


def test_a_step_made_before_freezing_still_trains_what_is_frozen_now():
    model, data = vit(), (normal(0, 2, 4, 4, 1), normal(1, 2, 3))
    step = make_step(model, keras.optimizers.SGD(0.1), lambda y, z: ops.mean((y - z) ** 2))
    step(*data)
    freeze(model, model.head)
    before = numbers(model.embed.kernel)
    step(*data)
    assert not np.array_equal(numbers(model.embed.kernel), before)


# ---- rates by depth


def test_factors_by_hand():
    low, middle, top = (dense(2, 2, name=name) for name in ("low", "middle", "top"))
    factors = depth_factors([low.weights, middle.weights, top.weights], 2)
    wanted = {"low": 0.25, "middle": 0.5, "top": 1.0}
    assert factors == {f"{k}/{part}": v for k, v in wanted.items() for part in ("kernel", "bias")}
    assert depth_factors([[], low.weights[:1]], 3) == {"low/kernel": 1.0}


@pytest.mark.parametrize("ratio", [0.9, -1, math.nan, math.inf])
def test_a_ratio_below_one_is_refused(ratio):
    with pytest.raises(ValueError, match=message(f"ratio must be at least 1; received {ratio!r}")):
        depth_factors([], ratio)


def test_a_path_that_occurs_twice_is_refused():
    layer = dense(2, 2, name="d")
    with pytest.raises(
        ValueError, match="groups must hold each path once; received d/kernel twice"
    ):
        depth_factors([layer.weights, layer.weights], 2)


def test_every_variable_takes_the_steps_of_adam_with_its_own_rate():
    start, gradients = normal(0, 4), normal(1, 5, 4)
    named = {name: keras.Variable(start, name=name) for name in ("p", "q", "still")}
    factors = {"p": 1.0, "q": 0.25, "still": 0.0}
    optimizer = LayerwiseAdam(0.1, factors)
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g)] * 3, list(named.values()))
    for name, factor in factors.items():
        alone = keras.Variable(start)
        adam = keras.optimizers.Adam(0.1 * factor)
        for g in gradients:
            adam.apply([ops.convert_to_tensor(g)], [alone])
        close(named[name], alone, 1e-6)
    assert np.array_equal(numbers(named["still"]), start)


def test_with_all_factors_one_it_is_adam_compiled_too():
    data, made = (normal(0, 2, 3), normal(1, 2, 2)), []
    for kind in ("ours", "theirs"):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4, "tanh", name="low"), keras.layers.Dense(2, name="top")]
        model = keras.Sequential([keras.Input((3,)), *layers])
        factors = depth_factors([model.trainable_variables], 1)
        ours = kind == "ours"
        optimizer = LayerwiseAdam(0.01, factors) if ours else keras.optimizers.Adam(0.01)
        step = make_step(model, optimizer, lambda y, z: ops.mean((y - z) ** 2), jit_compile=ours)
        made.append([float(step(*data)) for _ in range(4)])
    close(*made, 1e-4)


def test_the_configuration_makes_the_same_optimizer():
    optimizer = LayerwiseAdam(0.1, {"a": 0.5}, beta_1=0.8)
    again = LayerwiseAdam.from_config(optimizer.get_config())
    assert (again.factors, again.beta_1) == ({"a": 0.5}, 0.8)
    assert float(again.learning_rate) == pytest.approx(0.1)


def test_factors_that_are_missing_or_negative_are_refused():
    text = "factors must name every variable; received none for d/bias"
    with pytest.raises(ValueError, match=message(text)):
        LayerwiseAdam(0.1, {"d/kernel": 1.0}).build(dense(2, 2, name="d").weights)
    for factor in (-1.0, math.nan):
        text = f"factors must be numbers from 0; received {factor!r} for a"
        with pytest.raises(ValueError, match=message(text)):
            LayerwiseAdam(0.1, {"a": factor})


# ---- counts


def test_the_budget_of_the_paper_for_gpt_3():
    # Hu et al. 2021, section 7.1: 18 M, R = 8 for one kind of weights or R = 4 for two, 96 layers
    def count(rank, kinds):
        return 96 * kinds * rank * (12288 + 12288)

    assert count(4, 2) == count(8, 1) == 18_874_368
    assert round(count(1, 2) / 1e6, 1) == 4.7  # table 4: 4.7 M and 37.7 M
    assert round(count(8, 2) / 1e6, 1) == 37.7


def test_adapting_counts_as_the_formula_does():
    model = vit()
    freeze(model, *adapt(model, ("query", "value"), 4))
    assert trainable_count(model) == 2 * 2 * 4 * (8 + 8)


def test_bytes_by_hand():
    wanted = {"weights": 400, "gradients": 40, "optimizer": 80}
    assert training_bytes(100, 10) == wanted
    wanted = {"weights": 200, "gradients": 20, "optimizer": 10}
    assert training_bytes(100, 10, slots=0.5, width=2) == wanted
    for trained in (-1, 101):
        text = f"trained must be from 0 to 100; received {trained}"
        with pytest.raises(ValueError, match=message(text)):
            training_bytes(100, trained)


def test_work_by_hand():
    assert dense_work(6, 4) == (24, 48)
    assert dense_work(6, 4, 2) == (24 + 20, 24 + 40)  # A and B: forward, by input, by themselves


def test_shares_by_hand_and_of_a_product():
    close(captured(np.diag([3.0, 0.0, 4.0])), [16 / 25, 1, 1])
    shares = captured(normal(0, 9, 2) @ normal(1, 2, 5))
    assert shares.shape == (5,)
    assert shares[0] < 0.999
    close(shares[1:], np.ones(4))


@pytest.mark.parametrize("update", [np.zeros((2, 3)), np.ones(3), np.full((2, 2), np.nan)])
def test_updates_without_directions_are_refused(update):
    text = f"update must be a finite matrix, not zero; received {update.shape}"
    with pytest.raises(ValueError, match=message(text)):
        captured(update)
