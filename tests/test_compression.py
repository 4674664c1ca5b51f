"""Compression: bounds that hold and are reached, Keras' own integers, zeros that stay zeros."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aimodels.compression import (
    Rounded,
    distillation_loss,
    drop_units,
    keep_largest,
    masked_step,
    pack,
    quantize,
    straight_through,
    unpack,
)
from aimodels.regularization import SideBySide, summed_cross_entropy
from aimodels.training import make_step

TINY = np.finfo("float32").smallest_subnormal


def message(text):
    return f"^{re.escape(text)}"


def cases():
    """Arrays on which rounding might go wrong, as name, array."""
    rng = np.random.default_rng(0)
    yield "normal", rng.normal(size=(7, 5))
    yield "one", np.array([[0.3]])
    yield "heavy tails", rng.standard_t(1.5, size=(64, 9))
    yield "outlier", np.where(np.arange(60).reshape(12, 5) == 31, 1e6, rng.normal(size=(12, 5)))
    yield "halves", (np.arange(-127, 128)[:, None] + 0.5).clip(-127, 127) * [1.0, 0.1, 3e-5]
    yield "zero column", rng.normal(size=(4, 3)) * [1, 0, 1]
    yield "all zero", np.zeros((3, 2))
    yield "huge", rng.normal(size=(6, 2)) * 1e38 / 4
    yield "largest", np.array([[np.finfo("float32").max], [1.0]], "float32")
    yield "subnormal", np.array([[1, 2, 40], [-3, 1, 127], [0, 1, 177]]) * float(TINY)
    yield "float16", rng.normal(size=(9, 4)).astype("float16")
    yield "three axes", rng.normal(size=(3, 8, 2))


# ---- quantize


def test_numbers_by_hand():
    integers, steps = quantize([[-1.27, 0.0, 0.634, 0.636]])
    assert integers.tolist() == [[-127, 0, 63, 64]]
    assert integers.dtype == "int8"
    np.testing.assert_allclose(steps, [[0.01]], rtol=1e-6)
    integers, steps = quantize([[1.0, -2.0], [0.4, 0.9]], bits=4, axis=0)
    assert integers.tolist() == [[7, -7], [3, 3]]
    np.testing.assert_allclose(steps, [[1 / 7, 2 / 7]], rtol=1e-6)
    assert quantize([1.0, -0.4, 0.6], bits=2)[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize(("name", "w"), list(cases()))
def test_no_number_moves_by_more_than_half_a_step(bits, axis, name, w):
    integers, steps = quantize(w, bits, axis)
    w, steps = np.asarray(w, float), steps.astype(float)
    assert integers.shape == w.shape
    assert np.abs(integers.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert (np.abs(integers * steps - w) <= steps / 2).all()
    assert (steps >= 0).all()
    assert np.isfinite(steps).all()
    wanted = [1] * w.ndim if axis is None else np.array(w.shape)
    if axis is not None:
        wanted[axis] = 1
    assert list(steps.shape) == list(wanted)


def test_the_bound_is_reached():
    integers, steps = quantize([127.0, 0.5, 1.5, -2.5])
    assert steps[0] == 1
    assert integers.tolist() == [127, 0, 2, -2]


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_step_is_the_smallest_that_cuts_nothing_off(bits):
    for _, w in cases():
        integers, _ = quantize(w, bits)
        if np.any(w):
            assert np.abs(integers.astype(int)).max() == 2 ** (bits - 1) - 1 or w.max() < 1e-40


def test_zeros_stay_zeros_and_signs_stay():
    w = np.random.default_rng(0).normal(size=(30, 4)) * (np.arange(4) != 2)
    w[::3] = 0
    integers, steps = quantize(w, 4, 0)
    assert not integers[w == 0].any()
    assert steps[0, 2] == 0
    assert (integers * w >= 0).all()
    mirrored = quantize(-w, 4, 0)
    np.testing.assert_array_equal(mirrored[0], -integers)
    np.testing.assert_array_equal(mirrored[1], steps)


def test_what_is_rounded_already_is_left_as_it_is():
    w = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
    integers, steps = quantize(w, 8, 0)
    again, _ = quantize(integers * steps.astype(float), 8, 0)
    np.testing.assert_array_equal(again, integers)


def test_groups_are_an_axis_more():
    w = np.random.default_rng(2).normal(size=(12, 3))
    integers, steps = quantize(w.reshape(3, 4, 3), 4, 1)
    for n in range(3):
        alone = quantize(w[4 * n : 4 * n + 4], 4, 0)
        np.testing.assert_array_equal(integers[n], alone[0])
        np.testing.assert_array_equal(steps[n], alone[1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [8, 4])
def test_a_sum_of_products_is_within_its_bound(bits, seed):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(50, 6)), rng.standard_t(2, size=(8, 50))
    integers, steps = quantize(w, bits, 0)
    off = np.abs(x @ (integers * steps.astype(float)) - x @ w)
    assert (off <= steps / 2 * np.abs(x).sum(1, keepdims=True) + 1e-12).all()
    worst = (integers * steps.astype(float) - w)[:, :1].T  # an input that makes all errors add up
    signs = np.sign(worst)
    assert np.isclose((signs @ (integers * steps.astype(float) - w))[0, 0], np.abs(worst).sum())


@pytest.mark.parametrize("axis", [0, 1, -1, None])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (33, 12), (300, 40)])
def test_integers_and_steps_are_those_of_keras(shape, axis):
    for seed in range(5):
        w = np.random.default_rng(seed).normal(size=shape).astype("float32")
        ours, steps = quantize(w, 8, axis)
        theirs, scales = keras.quantizers.abs_max_quantize(w, axis=axis, epsilon=0.0)
        np.testing.assert_allclose(1 / np.array(scales), steps, rtol=1e-6)
        apart = np.abs(ours.astype(int) - np.array(theirs).astype(int))
        edge = np.abs(np.abs(w / steps) % 1 - 0.5) < 1e-4  # float32 may fall to the other side
        assert apart.max() <= 1
        assert not apart[~edge].any()


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_out_of_range(bits):
    with pytest.raises(
        ValueError, match=message(f"bits must be a whole number from 2 to 8; received {bits!r}")
    ):
        quantize([1.0], bits)


@pytest.mark.parametrize("axis", [2, -3, 0.0, (0, 1)])
def test_axis_out_of_range(axis):
    with pytest.raises(
        ValueError, match=message(f"axis must be None or an axis of 2; received {axis!r}")
    ):
        quantize(np.ones((2, 2)), axis=axis)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_float32_does_not_hold_is_refused(value):
    text = "must hold numbers within float32; received NaN, infinity or a larger one"
    with pytest.raises(ValueError, match=message(f"w {text}")):
        quantize([[1.0, value]])
    with pytest.raises(ValueError, match=message(f"arrays {text}")):
        keep_largest([np.ones(2), np.array([value])], 0.5)
    with pytest.raises(ValueError, match=message(f"kernels {text}")):
        drop_units([np.full((2, 2), value), np.ones((2, 2))], [np.ones(2)] * 2, [1])


def test_nothing_is_refused():
    text = "must hold numbers within float32; received an empty array"
    with pytest.raises(ValueError, match=message(f"w {text}")):
        quantize(np.zeros((0, 3)), axis=0)
    with pytest.raises(ValueError, match=message(f"arrays {text}")):
        keep_largest([np.ones(2), np.ones(0)], 0.5)
    with pytest.raises(ValueError, match=message("arrays must hold at least one; received none")):
        keep_largest([], 0.5)


# ---- pack


def test_two_in_a_byte_by_hand():
    assert pack(np.array([-3, 7, 1])).tolist() == [0x7D, 0x01]
    assert unpack(np.array([0x7D, 0x01], "uint8"), 3).tolist() == [-3, 7, 1]


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (5,), (16, 3), (7, 2, 3), (3, 0)])
def test_what_is_packed_comes_back(shape):
    integers = np.random.default_rng(0).integers(-8, 8, shape).astype("int8")
    packed = pack(integers)
    assert packed.dtype == "uint8"
    assert packed.shape == ((shape[0] + 1) // 2, *shape[1:])
    back = unpack(packed, shape[0])
    assert back.dtype == "int8"
    np.testing.assert_array_equal(back, integers)


def test_every_pair_comes_back():
    pairs = np.stack(np.meshgrid(np.arange(-8, 8), np.arange(-8, 8))).reshape(2, -1)
    assert len(set(pack(pairs)[0].tolist())) == 256
    np.testing.assert_array_equal(unpack(pack(pairs), 2), pairs)


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (7, 5)])
def test_bytes_are_those_of_keras(shape):
    integers = np.random.default_rng(1).integers(-8, 8, shape).astype("int8")
    packed, _, rows = keras.quantizers.pack_int4(ops.convert_to_tensor(integers))
    np.testing.assert_array_equal(pack(integers), np.array(packed).view("uint8"))
    np.testing.assert_array_equal(unpack(np.array(packed).view("uint8"), rows), integers)


def test_what_four_bits_do_not_hold_is_refused():
    with pytest.raises(ValueError, match=message("integers must be from -8 to 7; received 0 to 8")):
        pack(np.array([0, 8]))
    with pytest.raises(ValueError, match=message("integers must be from -8 to 7; received -9 to")):
        pack(np.array([0, -9]))
    for wrong in (np.array([0.5]), np.array(3)):
        with pytest.raises(
            ValueError, match=message("integers must be an array of whole numbers; received")
        ):
            pack(wrong)


def test_bytes_that_are_none_are_refused():
    with pytest.raises(ValueError, match=message("packed must be an array of uint8; received")):
        unpack(np.array([1, 2]), 4)
    for rows in (2, 5):
        with pytest.raises(ValueError, match=message("rows must be a whole number from 3 to 4")):
            unpack(np.array([1, 2], "uint8"), rows)


# ---- pruning


def test_the_largest_by_hand():
    arrays = [np.array([[1.0, -5.0], [0.1, 2.0]]), np.array([-3.0, 0.2])]
    assert [m.tolist() for m in keep_largest(arrays, 0.5)] == [
        [[False, True], [False, True]],
        [True, False],
    ]
    assert [m.tolist() for m in keep_largest(arrays, 0.5, together=False)] == [
        [[False, True], [False, True]],
        [True, False],
    ]
    assert keep_largest([np.array([9.0, 8.0]), np.array([1.0, 2.0])], 0.5)[1].sum() == 0


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.999, 1])
@pytest.mark.parametrize("together", [True, False])
def test_as_many_are_kept_as_asked_for(share, together):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(20, 7)), np.zeros((3, 3)), np.ones(50)]
    masks = keep_largest(arrays, share, together)
    assert [m.shape for m in masks] == [a.shape for a in arrays]
    assert all(m.dtype == bool for m in masks)
    counts = [int(m.sum()) for m in masks]
    if together:
        assert sum(counts) == round(share * 199)
        kept = np.concatenate([np.abs(a[m]) for a, m in zip(arrays, masks, strict=True)])
        gone = np.concatenate([np.abs(a[~m]) for a, m in zip(arrays, masks, strict=True)])
        assert min(kept, default=np.inf) >= max(gone, default=0)
    else:
        assert counts == [round(share * a.size) for a in arrays]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=message(f"share must be from 0 to 1; received {share}")):
        keep_largest([np.ones(2)], share)


def learner(seed=0, widths=(6, 5, 3), networks=2):
    model = SideBySide(widths, list(range(seed, seed + networks)))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(networks, 16, widths[0])).astype("float32")
    y = np.eye(widths[-1], dtype="float32")[rng.integers(0, widths[-1], (networks, 16))]
    return model, x, y


@pytest.mark.parametrize("jit", [False, True])
def test_what_is_dropped_stays_zero_in_spite_of_momentum(jit):
    model, x, y = learner()
    optimizer = keras.optimizers.Adam(0.01)
    plain = make_step(model, optimizer, summed_cross_entropy, jit_compile=jit)
    for _ in range(3):
        plain(x, y)  # the optimizer has momentum now
    masks = [keep_largest([kernel], 0.3)[0] for kernel in model.kernels]
    before = [kernel.numpy() for kernel in model.kernels]
    step = masked_step(plain, model.kernels, masks)
    losses = [float(step(x, y)) for _ in range(20)]
    for kernel, mask, old in zip(model.kernels, masks, before, strict=True):
        assert not kernel.numpy()[~mask].any()
        assert (kernel.numpy()[mask] != old[mask]).all()
    assert losses[-1] < losses[0]


def test_a_mask_that_keeps_all_changes_nothing():
    (one, x, y), (other, _, _) = learner(), learner()
    steps = [make_step(m, keras.optimizers.Adam(), summed_cross_entropy) for m in (one, other)]
    masked = masked_step(steps[1], other.kernels, [np.ones(k.shape, bool) for k in other.kernels])
    for _ in range(4):
        assert float(steps[0](x, y)) == float(masked(x, y))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_of_other_shapes_are_refused():
    model, _, _ = learner()
    with pytest.raises(
        ValueError, match=message("masks must have the shapes [(2, 6, 5), (2, 5, 3)]; received")
    ):
        masked_step(None, model.kernels, [np.ones((6, 5), bool)] * 2)
    with pytest.raises(ValueError, match=message("masks must have the shapes")):
        masked_step(None, model.kernels, [np.ones((2, 6, 5), bool)])


def through(x, kernels, biases):
    for n, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        x = (np.maximum(x, 0) if n else x) @ kernel + bias
    return x


def test_units_that_do_nothing_can_go():
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=s) for s in ((4, 6), (6, 5), (5, 3))]
    biases = [rng.normal(size=n) for n in (6, 5, 3)]
    for n, idle in ((0, [1, 4]), (1, [0, 2, 3])):
        kernels[n][:, idle], biases[n][idle] = 0, 0
    small = drop_units(kernels, biases, [4, 2])
    assert [k.shape for k in small[0]] == [(4, 4), (4, 2), (2, 3)]
    assert [b.shape for b in small[1]] == [(4,), (2,), (3,)]
    x = rng.normal(size=(10, 4))
    np.testing.assert_allclose(through(x, *small), through(x, kernels, biases))


def test_the_longest_units_stay_in_their_order():
    kernel = np.array([[2.0, -3.0, 0.0, 4.0], [2.0, 0.0, 0.1, 2.0]])  # 2 + 2 > 3, but √8 < 3
    (first, second), (bias, _) = drop_units([kernel, np.eye(4)], [np.arange(4), np.ones(4)], [2])
    np.testing.assert_array_equal(first, kernel[:, [1, 3]])
    np.testing.assert_array_equal(second, np.eye(4)[[1, 3]])
    assert bias.tolist() == [1, 3]


def test_layers_that_do_not_fit_are_refused():
    kernels, biases = [np.ones((2, 3)), np.ones((3, 1))], [np.ones(3), np.ones(1)]
    for wrong in (
        ([kernels[0], kernels[0]], biases),
        (kernels, biases[::-1]),
        (kernels, biases[:1]),
    ):
        with pytest.raises(ValueError, match=message("kernels and biases must be [D, U] and [U]")):
            drop_units(*wrong, [1])
    with pytest.raises(ValueError, match=message("widths must be 1 numbers; received [1, 1]")):
        drop_units(kernels, biases, [1, 1])
    for width in (0, 4):
        with pytest.raises(ValueError, match=message("widths must be a whole number from 1 to 3")):
            drop_units(kernels, biases, [width])


# ---- training through rounding


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_straight_through_rounds_like_quantize_and_has_the_gradient_of_the_identity(bits):
    rng = np.random.default_rng(bits)
    w = tf.constant(rng.normal(size=(3, 9, 4)).astype("float32"))
    weights = rng.normal(size=w.shape).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(w)
        rounded = straight_through(w, 2 ** (bits - 1) - 1)
        loss = tf.reduce_sum(rounded * weights)
    integers, steps = quantize(w, bits, 1)
    np.testing.assert_allclose(rounded, integers * steps, atol=1e-5)
    np.testing.assert_array_equal(tape.gradient(loss, w), weights)


def test_straight_through_keeps_a_column_of_zeros():
    w = np.ones((4, 2), "float32") * [0, 1]
    np.testing.assert_array_equal(straight_through(ops.cast(w, "float32"), 7), w)


@pytest.mark.parametrize("jit", [False, True])
def test_rounded_networks_compute_with_rounded_and_learn_exact_weights(jit):
    networks, x, y = learner(3)
    model = Rounded(networks, [4, 2])
    kernels = [np.empty(k.shape) for k in networks.kernels]
    for kernel, source in zip(kernels, networks.kernels, strict=True):
        for r, bits in enumerate((4, 2)):
            kernel[r] = np.multiply(*quantize(source.numpy()[r], bits, 0))
    wanted = through(x, kernels, [b.numpy() for b in networks.biases])
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)
    before = networks.kernels[0].numpy()
    step = make_step(model, keras.optimizers.Adam(1e-4), summed_cross_entropy, jit_compile=jit)
    first = float(step(x, y))
    moved = np.abs(networks.kernels[0].numpy() - before)
    assert 0 < moved.max() < 2e-4  # less than any step of rounding
    for _ in range(300):
        last = float(step(x, y))
    assert last < first


def test_bits_of_networks():
    networks, _, _ = learner()
    with pytest.raises(ValueError, match=message("bits must be 2 numbers; received 3")):
        Rounded(networks, [4, 4, 4])
    with pytest.raises(ValueError, match=message("bits must be a whole number from 2 to 8")):
        Rounded(networks, [4, 1])


# ---- distillation


def test_a_loss_by_hand():
    teacher, student = np.log([[3.0, 1.0]]) * 2, np.zeros((1, 2))
    wanted = 4 * (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5))
    np.testing.assert_allclose(distillation_loss(teacher, student, 2.0), [wanted], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("shape", [(1, 2), (8, 10), (5, 3)])
def test_loss_and_gradient_are_those_of_keras(shape, temperature):
    rng = np.random.default_rng(0)
    teacher, student = (tf.constant(rng.normal(size=shape).astype("float32")) for _ in "ab")
    peer = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(student)
        ours = tf.reduce_mean(distillation_loss(teacher, student, temperature))
        theirs = peer.compute_loss(teacher, student)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 + 1e-6 * temperature**2)
    np.testing.assert_allclose(
        tape.gradient(ours, student), tape.gradient(theirs, student), atol=1e-4
    )


def test_the_default_of_keras_is_another_loss():
    """It compares logits as if they were probabilities; mend the page when this changes."""
    teacher, student = (
        np.random.default_rng(n).normal(scale=3, size=(4, 5)).astype("float32") for n in (0, 1)
    )
    peer = keras.distillation.LogitsDistillation(1.0)
    raw = np.mean(keras.losses.kl_divergence(teacher, student))
    np.testing.assert_allclose(peer.compute_loss(teacher, student), raw, rtol=1e-5)
    assert abs(raw - np.mean(distillation_loss(teacher, student, 1.0))) > 1


def test_the_gradient_by_formula_and_none_for_the_teacher():
    rng = np.random.default_rng(1)
    teacher, student = (tf.constant(rng.normal(size=(4, 5)).astype("float32")) for _ in "ab")
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        loss = tf.reduce_sum(distillation_loss(teacher, student, 4.0))
    given, found = tape.gradient(loss, [teacher, student])
    np.testing.assert_allclose(
        found, 4.0 * (tf.nn.softmax(student / 4.0) - tf.nn.softmax(teacher / 4.0)), atol=1e-5
    )
    assert given is None


def test_a_loss_is_zero_only_for_the_teacher_itself():
    logits = np.random.default_rng(2).normal(size=(2, 3, 6)).astype("float32")
    assert distillation_loss(logits, logits, 3.0).shape == (2, 3)
    np.testing.assert_allclose(distillation_loss(logits, logits + 7, 3.0), 0, atol=1e-5)
    assert (np.array(distillation_loss(logits, logits[..., ::-1], 3.0)) > 0).all()


def test_each_network_may_have_its_own_temperature():
    rng = np.random.default_rng(3)
    teacher, student = rng.normal(size=(2, 2, 4, 5)).astype("float32")
    both = distillation_loss(teacher, student, np.float32([[[2]], [[5]]]))
    for n, temperature in enumerate((2.0, 5.0)):
        alone = distillation_loss(teacher[n], student[n], temperature)
        np.testing.assert_allclose(both[n], alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=message("temperature must be finite and above 0")):
        distillation_loss(teacher, student, np.float32([[[2]], [[0]]]))


def test_large_logits_stay_finite():
    far = np.array([[1e4, -1e4, 0.0]], "float32")
    loss = np.array(distillation_loss(far, -far, 1.0))
    assert np.isfinite(loss).all()
    assert loss > 1e4


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_are_none(temperature):
    text = f"temperature must be finite and above 0; received {temperature}"
    with pytest.raises(ValueError, match=message(text)):
        distillation_loss(np.ones((1, 2)), np.ones((1, 2)), temperature)
