"""Contrastive learning: the losses by hand, by loops, by Keras, by differences; views; edges."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy.ndimage import map_coordinates
from scipy.spatial.distance import pdist

from aimodels.contrastive import (
    alignment,
    augment,
    encoder,
    info_nce,
    nt_xent,
    resample,
    uniformity,
    with_head,
)


def normal(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def message(text):
    return f"^{re.escape(text)}"


def cosines(a, b):
    a, b = (x.astype("float64") for x in (a, b))
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def nt_xent_by_loops(first, second, temperature):
    """Equation 1 of the paper, a view at a time."""
    views, size = np.concatenate([first, second]), len(first)
    similar = cosines(views, views) / temperature
    losses = []
    for i in range(2 * size):
        partner = (i + size) % (2 * size)
        total = sum(math.exp(similar[i, k]) for k in range(2 * size) if k != i)
        losses.append(-math.log(math.exp(similar[i, partner]) / total))
    return np.mean(losses)


def compiled(function, *arguments, jit=True):
    run = tf.function(function, jit_compile=jit, autograph=False)
    return np.asarray(run(*(tf.constant(argument) for argument in arguments)))


# ---- the losses


def test_two_queries_by_hand():
    queries, keys = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    # Cosines 1, 1 and 0, 0: each query cannot tell its key from the other.
    assert float(info_nce(queries, keys, 0.5)) == pytest.approx(math.log(2))
    keys[1] = [0.0, 5.0]  # cosines 1, 0 and 0, 1
    assert float(info_nce(queries, keys, 0.5)) == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize(("size", "more", "width"), [(1, 1, 1), (2, 0, 1), (5, 0, 3), (4, 7, 9)])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_info_nce_is_the_cross_entropy_of_keras_over_cosines(size, more, width, temperature):
    queries, keys = normal(0, size, width), normal(1, size + more, width)
    labels = np.arange(size)
    logits = cosines(queries, keys) / temperature
    wanted = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(info_nce(queries, keys, temperature), np.mean(wanted), rtol=1e-5)


@pytest.mark.parametrize(("size", "width"), [(2, 1), (2, 5), (3, 2), (9, 4)])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_nt_xent_is_the_loop_of_the_paper(size, width, temperature):
    first, second = normal(2, size, width), normal(3, size, width)
    wanted = nt_xent_by_loops(first, second, temperature)
    np.testing.assert_allclose(nt_xent(first, second, temperature), wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(nt_xent(second, first, temperature), wanted, rtol=1e-5, atol=1e-7)


def test_a_hidden_key_counts_for_nothing_and_the_own_key_cannot_be_hidden():
    queries, keys = normal(4, 3, 4), normal(5, 6, 4)
    mask = np.ones((3, 6), bool)
    mask[:, [4, 5]] = False
    short = float(info_nce(queries, keys[:4], 0.3))
    assert float(info_nce(queries, keys, 0.3, mask)) == pytest.approx(short)
    mask[[0, 1, 2], [0, 1, 2]] = False
    assert float(info_nce(queries, keys, 0.3, mask)) == pytest.approx(short)


@pytest.mark.parametrize("size", [2, 3, 50])
def test_where_all_directions_are_equal_the_loss_is_that_of_chance(size):
    rows = np.ones((size, 3), "float32")
    assert float(info_nce(rows, rows, 0.1)) == pytest.approx(math.log(size))
    assert float(nt_xent(rows, rows, 0.1)) == pytest.approx(math.log(2 * size - 1))


def test_lengths_do_not_count_however_large_or_small():
    first, second = normal(6, 4, 3), normal(7, 4, 3)
    wanted = float(nt_xent(first, second, 0.2))
    for scale in (1e-30, 1e30):
        assert float(nt_xent(first * np.float32(scale), second, 0.2)) == pytest.approx(
            wanted, rel=1e-5
        )
    assert float(nt_xent(first * [[1.0], [2.0], [3.0], [4.0]], second, 0.2)) == pytest.approx(
        wanted, rel=1e-5
    )


def test_a_small_temperature_neither_overflows_nor_rounds_to_zero():
    rows = np.eye(3, dtype="float32")
    assert float(info_nce(rows, rows, 1e-4)) == 0
    assert float(info_nce(rows, rows[[1, 2, 0]], 1e-4)) == pytest.approx(1e4)
    assert float(info_nce(rows, rows, 0.05)) == pytest.approx(2 * math.exp(-20), rel=0.05)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_half_precision_is_computed_in_float32_and_double_stays_double(dtype):
    first, second = (ops.cast(normal(seed, 6, 8) * 200, dtype) for seed in (8, 9))
    loss = nt_xent(first, second, 0.1)
    double = dtype == "float64"
    assert keras.backend.standardize_dtype(loss.dtype) == ("float64" if double else "float32")
    exact = nt_xent_by_loops(*(np.asarray(ops.cast(x, "float64")) for x in (first, second)), 0.1)
    assert float(loss) == pytest.approx(exact, rel=1e-12 if double else 1e-5)
    assert np.isfinite(compiled(lambda a, b: nt_xent(a, b, 0.1), first, second))


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_gradients_are_those_of_finite_differences(loss):
    parts = [normal(seed, 4, 3, dtype="float64") for seed in (10, 11)]
    parts.append(np.array(0.3))
    variables = [tf.Variable(part) for part in parts]
    with tf.GradientTape() as tape:
        value = loss(*variables)
    for place, gradient in enumerate(tape.gradient(value, variables)):
        for index in np.ndindex(parts[place].shape):
            moved = []
            for step in (1e-6, -1e-6):
                changed = [part.copy() for part in parts]
                changed[place][index] += step
                moved.append(float(loss(*changed)))
            found = (moved[0] - moved[1]) / 2e-6
            assert np.asarray(gradient)[index] == pytest.approx(found, abs=1e-7)


def test_the_gradient_of_a_cosine_is_its_share_over_temperature():
    """What pushes a negative away is its softmax; what pulls the positive is their sum."""
    queries, keys, temperature = np.eye(4)[:1], normal(12, 5, 4, dtype="float64"), 0.2
    keys /= np.linalg.norm(keys, axis=1)[:, None]
    variable = tf.Variable(keys)
    with tf.GradientTape() as tape:
        loss = info_nce(queries, variable, temperature)
    gradient = np.asarray(tape.gradient(loss, variable))
    share = np.exp(keys[:, 0] / temperature)
    share /= share.sum()
    share[0] -= 1
    tangent = queries - keys[:, :1] * keys  # the derivative of a cosine by the key
    np.testing.assert_allclose(gradient, share[:, None] / temperature * tangent, atol=1e-12)


@pytest.mark.parametrize("jit", [False, True])
def test_a_compiled_loss_is_the_same(jit):
    first, second = normal(13, 7, 5), normal(14, 7, 5)
    found = compiled(nt_xent, first, second, np.float32(0.2), jit=jit)
    np.testing.assert_allclose(found, nt_xent(first, second, 0.2), rtol=1e-5)


def test_a_batch_of_unknown_size_gives_the_same_loss():
    spec = tf.TensorSpec((None, 5), "float32")
    run = tf.function(lambda a, b: nt_xent(a, b, 0.2), input_signature=[spec, spec])
    for size in (2, 6):
        first, second = normal(15, size, 5), normal(16, size, 5)
        np.testing.assert_allclose(run(first, second), nt_xent(first, second, 0.2), rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(first[:3], second)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("wrong", ["nan", "infinity", "zero", "temperature", "alone"])
def test_in_a_graph_what_is_wrong_becomes_nan(wrong, jit):
    first, second, temperature = normal(17, 3, 4), normal(18, 3, 4), np.float32(0.2)
    if wrong == "temperature":
        for bad in (0.0, -1.0, math.nan):
            assert np.isnan(compiled(nt_xent, first, second, np.float32(bad), jit=jit))
    elif wrong == "alone":
        mask = np.eye(3, dtype=bool)
        assert np.isnan(compiled(info_nce, first, second, temperature, mask, jit=jit))
    else:
        first[1] = {"nan": [1, math.nan, 1, 1], "infinity": math.inf, "zero": 0}[wrong]
        assert np.isnan(compiled(nt_xent, first, second, temperature, jit=jit))
        assert np.isnan(compiled(alignment, first, second, jit=jit))
        assert np.isnan(compiled(uniformity, first, jit=jit))


# ---- alignment and uniformity


@pytest.mark.parametrize(("size", "width"), [(2, 1), (3, 4), (20, 2)])
def test_alignment_and_uniformity_are_those_of_their_authors(size, width):
    first, second = normal(19, size, width), normal(20, size, width)
    a, b = (x / np.linalg.norm(x, axis=1)[:, None] for x in (first, second))
    np.testing.assert_allclose(alignment(first, second), ((a - b) ** 2).sum(1).mean(), rtol=1e-5)
    wanted = np.log(np.exp(-2 * pdist(a.astype("float64"), "sqeuclidean")).mean())
    np.testing.assert_allclose(uniformity(first), wanted, rtol=1e-5, atol=1e-6)


def test_the_ends_of_both_scales():
    rows = normal(21, 5, 3)
    assert float(alignment(rows, 3 * rows)) == pytest.approx(0, abs=1e-6)
    assert float(alignment(rows, -rows)) == pytest.approx(4)
    assert float(uniformity(np.ones((4, 3)))) == pytest.approx(0, abs=1e-6)
    assert float(uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]]))) == pytest.approx(-8)


# ---- views


def test_resampling_is_that_of_scipy():
    images = normal(22, 2, 5, 7, 2)
    rows = np.random.default_rng(23).uniform(-4, 9, (2, 4)).astype("float32")
    columns = np.random.default_rng(24).uniform(-4, 11, (2, 3)).astype("float32")
    found = np.asarray(resample(images, rows, columns))
    assert found.shape == (2, 4, 3, 2)
    for b, c in np.ndindex(2, 2):
        places = np.meshgrid(rows[b], columns[b], indexing="ij")
        wanted = map_coordinates(images[b, :, :, c], places, order=1, mode="nearest")
        np.testing.assert_allclose(found[b, :, :, c], wanted, atol=1e-5)


def test_a_wider_spread_blurs_and_keeps_the_mean():
    image = np.zeros((1, 9, 9, 1), "float32")
    image[0, 4, 4] = 1
    places = np.arange(9, dtype="float32")[None]
    found = np.asarray(resample(image, places, places, 2.0))[0, :, :, 0]
    wanted = np.array([0, 0, 0, 2, 4, 2, 0, 0, 0]) / 16
    np.testing.assert_allclose(found[4], wanted, atol=1e-6)
    assert found.sum() == pytest.approx(1)


OFF = {"crop": 1, "flip": False, "light": 0, "blur": 1, "erase": 0}
SEED = np.array([3, 4], "int32")


def test_with_all_changes_off_a_view_is_the_image():
    images = np.random.default_rng(25).uniform(size=(3, 6, 8, 2)).astype("float32")
    np.testing.assert_allclose(augment(images, SEED, **OFF), images, atol=1e-5)


def test_a_flip_mirrors_about_half_of_the_images():
    images = np.random.default_rng(26).uniform(size=(200, 4, 6, 1)).astype("float32")
    views = np.asarray(augment(images, SEED, **{**OFF, "flip": True}))
    same = np.isclose(views, images, atol=1e-5).all((1, 2, 3))
    mirrored = np.isclose(views, images[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_a_crop_shows_a_part_of_every_size_and_place():
    ramp = np.broadcast_to(np.arange(20, dtype="float32")[:, None], (500, 20, 20))[..., None]
    for images, axis in ((ramp, 1), (ramp.transpose(0, 2, 1, 3), 2)):
        views = np.asarray(augment(images, SEED, **{**OFF, "crop": 0.5}))
        first, last = views.take(0, axis), views.take(-1, axis)
        side = (last - first)[:, 0, 0]
        assert 9 < side.min() < 10.5
        assert 18 < side.max() <= 19
        assert first.min() >= 0
        assert last.max() <= 19
        assert np.ptp(first[side < 12]) > 5  # the part moves
    both = np.concatenate([ramp, ramp.transpose(0, 2, 1, 3)], axis=3)
    middles = np.asarray(augment(both, SEED, **{**OFF, "crop": 0.5})).mean((1, 2))
    assert abs(np.corrcoef(middles.T)[0, 1]) < 0.2  # down and across, apart


def test_light_scales_and_shifts_within_its_bounds():
    images = np.stack([np.zeros((300, 2, 2)), np.ones((300, 2, 2))], axis=-1)
    views = np.asarray(augment(images, SEED, **{**OFF, "light": 0.4}))
    shift, gain = views[:, 0, 0, 0], views[:, 0, 0, 1] - views[:, 0, 0, 0]
    assert -0.2 <= shift.min() < -0.17
    assert 0.17 < shift.max() <= 0.2
    assert 0.6 - 1e-6 <= gain.min() < 0.65
    assert 1.35 < gain.max() <= 1.4 + 1e-6
    assert abs(np.corrcoef(shift, gain)[0, 1]) < 0.2
    assert np.ptp(views, axis=(1, 2)).max() < 1e-6


def test_erasing_zeroes_one_square():
    views = np.asarray(augment(np.ones((300, 10, 10, 2)), SEED, **{**OFF, "erase": 0.3}))
    gone = views == 0
    assert (gone.sum((1, 2)) == 9).all()
    assert (gone.any(1).sum(1) == 3).all()
    assert gone.any(0).all()  # corners as well


def test_blur_lowers_contrast_and_nothing_else():
    images = np.random.default_rng(27).uniform(size=(50, 12, 12, 1)).astype("float32")
    views = np.asarray(augment(images, SEED, **{**OFF, "blur": 3}))
    assert (views.std((1, 2)) < images.std((1, 2)) + 1e-6).all()
    assert np.abs(views.mean((1, 2)) - images.mean((1, 2))).max() < 0.05


@pytest.mark.parametrize("jit", [False, True])
def test_the_seed_decides_the_views(jit):
    images = np.random.default_rng(28).uniform(size=(4, 6, 6, 1)).astype("float32")
    run = tf.function(augment, jit_compile=jit, autograph=False)
    one, again, other, last = (
        np.asarray(run(images, tf.constant(seed))) for seed in ([1, 2], [1, 2], [1, 3], [2, 2])
    )
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, last)
    assert not np.allclose(one[0] - images[0], one[1] - images[1], atol=0.01)


# ---- networks


@pytest.mark.parametrize(
    ("shape", "width", "out"),
    [((28, 28, 1), 16, 4 * 16), ((1, 5, 3), 4, 4), ((17, 40, 2), 8, 2 * 3 * 8)],
)
def test_an_image_of_any_size_becomes_one_row(shape, width, out):
    model = encoder(shape, width)
    assert model(np.zeros((3, *shape))).shape == (3, out)
    first, second, third = (width // 4, width // 2, width)
    kernels = 9 * (shape[2] * first + first * second + second * third)
    assert model.count_params() == kernels + 4 * (first + second + third)


def test_the_head_shares_the_encoder_and_each_weight_learns():
    inner = encoder((8, 8, 1), 16)
    model = with_head(inner, 12, 6)
    images = np.random.default_rng(29).uniform(size=(8, 8, 8, 1)).astype("float32")
    before = np.asarray(inner(images))
    with tf.GradientTape() as tape:
        output = model(images, training=True)
        loss = nt_xent(*ops.split(output, 2), 0.2)
    assert output.shape == (8, 6)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert len(gradients) == 3 * 3 + 2 * 2
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        assert np.abs(gradient).max() > 1e-7, variable.path
        variable.assign_sub(0.1 * gradient)
    assert not np.allclose(before, inner(images))


# ---- bad arguments

GOOD = normal(30, 3, 4)


def changed(row, value):
    rows = GOOD.copy()
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("queries", "keys", "temperature", "text"),
    [
        (GOOD[0], GOOD, 1, "queries must be [B, D], B at least 1; received (4,)"),
        (GOOD[:0], GOOD, 1, "queries must be [B, D], B at least 1; received (0, 4)"),
        (GOOD, GOOD[:, :0], 1, "keys must be [B, D], B at least 2; received (3, 0)"),
        (GOOD[:1], GOOD[:1], 1, "keys must be [B, D], B at least 2; received (1, 4)"),
        (GOOD, GOOD[:2], 1, "keys must be at least 3, one a query; received 2"),
        (GOOD, GOOD[:, :3], 1, "queries and keys must have the same width D; received 4 and 3"),
        (changed(1, math.nan), GOOD, 1, "queries must be finite; received a row with NaN"),
        (GOOD, changed(2, math.inf), 1, "keys must be finite; received a row with NaN or infinity"),
        (GOOD, changed(0, 0), 1, "keys must have a direction; received a row of length zero"),
        (GOOD, GOOD, 0, "temperature must be above 0 and finite; received 0"),
        (GOOD, GOOD, -0.1, "temperature must be above 0 and finite; received -0.1"),
        (GOOD, GOOD, math.nan, "temperature must be above 0 and finite; received nan"),
        (GOOD, GOOD, math.inf, "temperature must be above 0 and finite; received inf"),
        (GOOD, GOOD, [1.0], "temperature must be one number; received shape (1,)"),
    ],
)
def test_info_nce_names_what_is_wrong(queries, keys, temperature, text):
    with pytest.raises(ValueError, match=message(text)):
        info_nce(queries, keys, temperature)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.ones((3, 3)), "mask must be boolean [B, K]; received float64 (3, 3)"),
        (np.ones(3, bool), "mask must be boolean [B, K]; received bool (3,)"),
        (np.ones((3, 4), bool), "mask must be [B, K] = (3, 3); received (3, 4)"),
        (np.eye(3, dtype=bool), "mask must leave each query a key beside its own"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, text):
    with pytest.raises(ValueError, match=message(text)):
        info_nce(GOOD, GOOD, 1, mask)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (GOOD[:1], GOOD[:1], "first must be [B, D], B at least 2; received (1, 4)"),
        (GOOD, GOOD[0], "second must be [B, D], B at least 2; received (4,)"),
        (GOOD, GOOD[:2], "first and second must have one shape; received (3, 4) and (2, 4)"),
        (GOOD, GOOD[:, :3], "first and second must have one shape; received (3, 4) and (3, 3)"),
        (GOOD, changed(0, 0), "second must have a direction; received a row of length zero"),
        (changed(0, math.nan), GOOD, "first must be finite; received a row with NaN"),
    ],
)
def test_nt_xent_names_what_is_wrong(first, second, text):
    with pytest.raises(ValueError, match=message(text)):
        nt_xent(first, second, 0.5)


def test_a_batch_of_one_is_refused_while_the_graph_is_made():
    run = tf.function(lambda a, b: nt_xent(a, b, 0.2), autograph=False)
    with pytest.raises(ValueError, match=message("first must be [B, D], B at least 2")):
        run(tf.constant(GOOD[:1]), tf.constant(GOOD[:1]))


def test_alignment_and_uniformity_name_what_is_wrong():
    with pytest.raises(ValueError, match=message("first and second must have one shape")):
        alignment(GOOD, GOOD[:2])
    with pytest.raises(ValueError, match=message("rows must be [B, D], B at least 2")):
        uniformity(GOOD[:1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crop": 0}, "crop must be from 0.1 to 1; received 0"),
        ({"crop": 1.1}, "crop must be from 0.1 to 1; received 1.1"),
        ({"light": -0.1}, "light must be from 0 to 1; received -0.1"),
        ({"blur": 0.5}, "blur must be from 1 to 8; received 0.5"),
        ({"erase": 1}, "erase must be from 0 to 0.9; received 1"),
        ({"erase": math.nan}, "erase must be from 0 to 0.9; received nan"),
    ],
)
def test_strengths_out_of_bounds_are_refused(options, text):
    with pytest.raises(ValueError, match=message(text)):
        augment(np.zeros((2, 4, 4, 1)), SEED, **options)


@pytest.mark.parametrize("seed", [3, [1, 2, 3]])
def test_a_seed_is_two_numbers(seed):
    text = f"seed must be two whole numbers; received shape {np.shape(seed)}"
    with pytest.raises(ValueError, match=message(text)):
        augment(np.zeros((2, 4, 4, 1)), seed)


@pytest.mark.parametrize(
    ("images", "rows", "columns"),
    [((2, 4, 4), (2, 4), (2, 4)), ((2, 4, 4, 1), (2,), (2, 4)), ((2, 4, 4, 1), (2, 4), (3, 4))],
)
def test_places_that_do_not_belong_to_the_images_are_refused(images, rows, columns):
    text = f"images, rows, columns must be [B, H, W, C], [B, H'], [B, W']; received {[images, rows, columns]}"
    with pytest.raises(ValueError, match=message(text)):
        resample(np.zeros(images), np.zeros(rows), np.zeros(columns))


def test_a_spread_below_one_is_refused():
    with pytest.raises(ValueError, match=message("spread must be at least 1; received 0.5")):
        resample(np.zeros((1, 2, 2, 1)), np.zeros((1, 2)), np.zeros((1, 2)), 0.5)


def test_a_nan_stays_in_its_image():
    images = np.random.default_rng(31).uniform(size=(3, 6, 6, 1)).astype("float32")
    images[1, 3, 3] = math.nan
    views = np.asarray(augment(images, SEED))
    assert np.isnan(views).any((1, 2, 3)).tolist() == [False, True, False]


def test_images_of_another_rank_are_refused():
    with pytest.raises(
        ValueError, match=message("images must be [B, H, W, C]; received (4, 4, 1)")
    ):
        augment(np.zeros((4, 4, 1)), SEED)


@pytest.mark.parametrize("width", [0, 6, 8.0])
def test_an_encoder_that_cannot_be_is_refused(width):
    text = f"width must be a multiple of 4, at least 4; received {width!r}"
    with pytest.raises(ValueError, match=message(text)):
        encoder(width=width)


@pytest.mark.parametrize("shape", [(28, 28), (28, 0, 1)])
def test_images_without_channels_or_pixels_are_refused(shape):
    text = f"shape must be (H, W, C) with no zero; received {shape}"
    with pytest.raises(ValueError, match=message(text)):
        encoder(shape)
