"""GANs: losses by hand, as Keras and as differences; a step taken apart; the distance as SciPy."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from scipy.linalg import sqrtm

from aimodels.gan import (
    discriminator,
    discriminator_loss,
    frechet_distance,
    generator,
    generator_loss,
    make_gan_step,
    optimal_discriminator,
)
from aimodels.training import batches, train

ENTROPY = keras.losses.BinaryCrossentropy(from_logits=True)
SHAPES = [(1,), (7, 1), (3, 2, 4), ()]
SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FLOATS = ["float16", "bfloat16", "float32", "float64"]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def number(value):
    value = ops.convert_to_tensor(value)
    assert value.shape == ()
    return float(value)


def small(seed=0):
    """A generator with a batch normalization, and a discriminator, of vectors of two numbers."""
    keras.utils.set_random_seed(seed)
    body = [layers.Dense(5), layers.BatchNormalization(), layers.ReLU(), layers.Dense(2)]
    g = keras.Sequential([keras.Input((3,)), *body])
    d = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, "tanh"),
            layers.Dense(1),
        ]
    )
    return g, d


def values(*models):
    return [v.numpy() for model in models for v in model.variables]


def sgd(rate=0.1):
    return keras.optimizers.SGD(rate), keras.optimizers.SGD(rate)


# ---- losses


def test_losses_worked_by_hand():
    # D says 1/2 of one real sample, 3/4 of another, and 1/4 of a generated one: logits 0, ± log 3.
    real, fake = [0.0, np.log(3)], [-np.log(3)]
    wanted = -(np.log(1 / 2) + np.log(3 / 4)) / 2 - np.log(3 / 4)
    assert number(discriminator_loss(real, fake)) == pytest.approx(wanted, abs=1e-6)
    assert number(generator_loss(fake)) == pytest.approx(np.log(4), abs=1e-6)
    assert number(generator_loss(fake, saturating=True)) == pytest.approx(np.log(3 / 4), abs=1e-6)
    assert number(discriminator_loss([0], [0, 0])) == pytest.approx(2 * np.log(2), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_losses_as_keras_computes_them(shape, seed):
    a, b = 5 * normal(seed, 2, *shape)
    one, zero = np.ones(shape), np.zeros(shape)
    if shape == ():
        a, b, one, zero = (np.reshape(v, (1,)) for v in (a, b, one, zero))
    pairs = [
        (discriminator_loss(a, b), ENTROPY(one, a) + ENTROPY(zero, b)),
        (generator_loss(b), ENTROPY(one, b)),
        (generator_loss(b, saturating=True), -ENTROPY(zero, b)),
    ]
    for ours, theirs in pairs:
        assert number(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_real_and_generated_may_differ_in_number():
    a, b = normal(0, 3), normal(1, 8)
    wanted = np.log1p(np.exp(-a)).mean() + np.log1p(np.exp(b)).mean()
    assert number(discriminator_loss(a, b)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("size", [30.0, 1000.0, 60000.0])
def test_large_logits_give_finite_losses_and_slopes(kind, size):
    size = float(tf.cast(size, kind))
    logits = tf.constant([[size], [-size]], kind)
    for loss, wanted, slope in (
        (lambda s: discriminator_loss(s, s), size, [[0.5], [-0.5]]),
        (generator_loss, size / 2, [[0], [-0.5]]),
        (lambda s: generator_loss(s, saturating=True), -size / 2, [[-0.5], [0]]),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits)
        assert number(value) == pytest.approx(wanted, rel=1e-6)
        found = tape.gradient(value, logits)
        assert found.dtype == kind
        np.testing.assert_allclose(np.asarray(found, "float64"), slope, atol=1e-3)


def test_many_half_precision_logits_do_not_overflow():
    logits = tf.fill((4096,), tf.constant(1000, "float16"))
    assert number(discriminator_loss(-logits, logits)) == pytest.approx(2000)
    assert discriminator_loss(logits, logits).dtype == "float32"
    assert discriminator_loss(normal(0, 2), normal(0, 2)).dtype == "float64"


def test_real_and_generated_may_differ_in_precision():
    half, double = tf.constant([1.0], "float16"), tf.constant([2.0], "float64")
    wanted = np.log1p(np.exp(-1)) + np.log1p(np.exp(2))
    assert number(discriminator_loss(half, double)) == pytest.approx(wanted, rel=1e-6)


def test_slopes_are_minus_d_and_d_minus_1():
    logits = tf.constant(3 * normal(0, 9))
    for saturating in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = generator_loss(logits, saturating)
        d = 1 / (1 + np.exp(-logits.numpy()))
        wanted = (-d if saturating else d - 1) / 9
        np.testing.assert_allclose(tape.gradient(value, logits), wanted, atol=1e-12)


def test_slopes_are_those_of_finite_differences():
    real, fake, h = normal(0, 4), normal(1, 5), 1e-6
    with tf.GradientTape() as tape:
        a, b = tf.constant(real), tf.constant(fake)
        tape.watch([a, b])
        value = discriminator_loss(a, b)
    for given, found in zip((real, fake), tape.gradient(value, [a, b]), strict=True):
        for i in range(len(given)):
            ends = []
            for sign in (1, -1):
                given[i] += sign * h
                ends.append(number(discriminator_loss(real, fake)))
                given[i] -= sign * h
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(found[i]), abs=1e-8)


def test_a_nan_logit_shows():
    for loss in (
        discriminator_loss([np.nan, 0], [0.0]),
        discriminator_loss([0.0], [np.nan, 0]),
        generator_loss([np.nan, 1]),
        generator_loss([np.nan, 1], saturating=True),
    ):
        assert np.isnan(number(loss))


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_no_logits_are_refused(shape):
    none, one = np.zeros(shape), np.zeros(1)
    for name, call in (
        ("real", lambda: discriminator_loss(none, one)),
        ("fake", lambda: discriminator_loss(one, none)),
        ("fake", lambda: generator_loss(none)),
    ):
        text = f"{name} must hold at least one logit; received {shape}"
        with pytest.raises(ValueError, match=re.escape(text)):
            call()


# ---- the best discriminator


def test_the_best_discriminator_by_hand():
    found = optimal_discriminator([0.3, 0.0, 0.2, 0.0], [0.1, 0.5, 0.2, 0.0])
    np.testing.assert_allclose(found, [0.75, 0, 0.5, np.nan])
    assert optimal_discriminator(2, 6) == 0.25
    assert optimal_discriminator([], []).shape == (0,)
    whole = optimal_discriminator(np.array([3], "int8"), np.array([125], "int8"))
    assert whole[0] == pytest.approx(3 / 128)


def test_tiny_and_huge_densities_keep_their_ratio():
    np.testing.assert_allclose(optimal_discriminator([3e-310, 1e308], [1e-310, 1e308]), [0.75, 0.5])


def test_no_other_answer_has_a_larger_value():
    p, q = np.abs(normal(0, 2, 40))
    d = optimal_discriminator(p, q)

    def value(d):
        return np.sum(p * np.log(d) + q * np.log(1 - d))

    for i in range(20):
        other = np.clip(d + 0.05 * normal(i + 1, 40), 1e-3, 1 - 1e-3)
        assert value(other) < value(d)


def test_the_value_at_the_optimum_is_minus_log_4_plus_twice_the_divergence():
    p, q = (v / v.sum() for v in np.abs(normal(3, 2, 30)))
    d, m = optimal_discriminator(p, q), (p + q) / 2
    js = (np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2
    value = np.sum(p * np.log(d) + q * np.log(1 - d))
    assert value == pytest.approx(-np.log(4) + 2 * js, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "q", "text"),
    [
        ([1, 2], [1], "q must have the shape (2,) of p; received (1,)"),
        ([1, -0.5], [1, 1], "p must be finite and from 0; received -0.5"),
        ([1, 1], [1, np.nan], "q must be finite and from 0; received nan"),
        ([np.inf], [1], "p must be finite and from 0; received inf"),
    ],
)
def test_what_is_no_density_is_refused(p, q, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        optimal_discriminator(p, q)


# ---- a step


@pytest.mark.parametrize("saturating", [False, True])
def test_a_step_is_the_update_of_one_network_then_of_the_other(saturating):
    x, z = normal(0, 6, 2).astype("float32"), normal(1, 6, 3).astype("float32")
    g, d = small()
    with tf.GradientTape() as tape:
        loss = discriminator_loss(d(x), d(g(z, training=True)))
    slopes = tape.gradient(loss, d.trainable_variables)
    for w, slope in zip(d.trainable_variables, slopes, strict=True):
        w.assign_sub(0.1 * slope)
    h, _ = small()  # statistics must move once, not twice
    with tf.GradientTape() as tape:
        wanted = generator_loss(d(h(z, training=True)), saturating)
    slopes = tape.gradient(wanted, h.trainable_variables)
    for w, slope in zip(h.trainable_variables, slopes, strict=True):
        w.assign_sub(0.1 * slope)

    ours = small()
    found = make_gan_step(*ours, sgd(), saturating)(x, z)
    assert number(found) == pytest.approx(float(loss), rel=1e-6)
    for a, b in zip(values(*ours), values(h, d), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_each_optimizer_moves_its_own_network_alone():
    x, z = normal(0, 6, 2).astype("float32"), normal(1, 6, 3).astype("float32")
    for rates, moved in (((0.0, 0.1), [False, True]), ((0.1, 0.0), [True, False])):
        g, d = small()
        before = [w.numpy() for w in g.trainable_variables], values(d)
        make_gan_step(g, d, [keras.optimizers.SGD(rate) for rate in rates])(x, z)
        after = [w.numpy() for w in g.trainable_variables], values(d)
        changed = [
            any((a != b).any() for a, b in zip(*pair, strict=True))
            for pair in zip(before, after, strict=True)
        ]
        assert changed == moved


def test_compiled_by_xla_a_step_does_the_same():
    x, z = normal(0, 6, 2).astype("float32"), normal(1, 6, 3).astype("float32")
    plain, compiled = small(), small()
    a = make_gan_step(*plain, sgd())(x, z)
    b = make_gan_step(*compiled, sgd(), jit_compile=True)(x, z)
    assert number(a) == pytest.approx(float(b), rel=1e-5)
    for one, other in zip(values(*plain), values(*compiled), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_one_shape_makes_one_graph_and_frozen_layers_stay():
    g, d = small()
    d.layers[0].trainable = False
    before = d.layers[0].get_weights()
    step = make_gan_step(g, d, sgd())
    for seed in range(3):
        step(normal(seed, 4, 2).astype("float32"), normal(seed, 4, 3).astype("float32"))
    assert step.experimental_get_tracing_count() == 1
    for a, b in zip(before, d.layers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scaled_losses_give_the_same_step():
    x, z = normal(0, 6, 2).astype("float32"), normal(1, 6, 3).astype("float32")
    plain, scaled = small(), small()
    make_gan_step(*plain, sgd())(x, z)
    wrapped = [keras.optimizers.LossScaleOptimizer(o, initial_scale=256.0) for o in sgd()]
    make_gan_step(*scaled, wrapped)(x, z)
    for one, other in zip(values(*plain), values(*scaled), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_loop_of_the_handbook_runs_the_game():
    # Data around (3, -2): after the game the generator's mean has come close.
    data = (normal(0, 400, 2) * 0.5 + [3, -2]).astype("float32")
    g, d = small()
    adam = [keras.optimizers.Adam(0.01, beta_1=0.5) for _ in "GD"]
    rng = np.random.default_rng(0)
    pairs = ((x, rng.standard_normal((50, 3), dtype="float32")) for x in batches(data, 50, 0))
    before = np.asarray(g(normal(5, 500, 3))).mean(0)
    losses = train(make_gan_step(g, d, adam), pairs, 400)
    after = np.asarray(g(normal(5, 500, 3))).mean(0)
    assert losses.shape == (400,)
    assert np.isfinite(losses).all()
    assert np.linalg.norm(after - [3, -2]) < 0.3 * np.linalg.norm(before - [3, -2])


def test_bad_arguments_of_a_step_are_refused():
    g, d = small()
    one = keras.optimizers.SGD()
    text = "optimizers must be two, of the generator and of the discriminator; received"
    for given in ([one], [one, one], [*sgd(), one]):
        with pytest.raises(ValueError, match=re.escape(f"{text} {['SGD'] * len(given)}")):
            make_gan_step(g, d, given)
    raw = keras.Sequential([layers.Dense(1)])
    for name, models in (("generator", (raw, d)), ("discriminator", (g, raw))):
        with pytest.raises(ValueError, match=f"{name} must be built"):
            make_gan_step(*models, sgd())


# ---- the distance


def test_the_distance_in_one_dimension_by_hand():
    # Means 1 and 4; variances 2 and 8 (of two numbers each): 9 + 2 + 8 - 2 · √16.
    assert frechet_distance([[0], [2]], [[2], [6]]) == pytest.approx(9 + 2)


@pytest.mark.parametrize("seed", range(8))
def test_the_distance_as_scipy_computes_it(seed):
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 9))
    mix = rng.normal(size=(2, width, width))
    a = rng.normal(size=(width + 1 + rng.integers(1, 40), width)) @ mix[0]
    b = rng.normal(size=(width + 1 + rng.integers(1, 40), width)) @ mix[1] + rng.normal(size=width)
    ca, cb = (np.cov(part, rowvar=False).reshape(width, width) for part in (a, b))
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2)
    wanted += np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-7)


def test_covariances_without_full_rank_are_right():
    # Both lie on the first axis of three: as in one dimension.
    a, b = normal(0, 5, 1), 2 * normal(1, 9, 1) + 1
    flat = [np.pad(part, ((0, 0), (0, 2))) for part in (a, b)]
    assert frechet_distance(*flat) == pytest.approx(frechet_distance(a, b), abs=1e-12)
    # On axes at right angles nothing is shared: the variances add up.
    across = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 0), (1, 0)))
    wanted = a.mean() ** 2 + b.mean() ** 2 + a.var(ddof=1) + b.var(ddof=1)
    assert frechet_distance(*across) == pytest.approx(wanted)
    # Two equal rows have no spread at all.
    assert frechet_distance([[1, 2], [1, 2]], [[1, 5], [1, 5]]) == pytest.approx(9)


@pytest.mark.parametrize("shape", [(2, 3), (5, 84), (300, 84)])
def test_a_set_is_at_no_distance_from_itself(shape):
    x = 30 * normal(0, *shape)
    assert frechet_distance(x, x[::-1]) < 1e-9 * (x**2).sum()
    assert frechet_distance(x, x) >= 0


def test_the_distance_is_symmetric_and_does_not_see_rotations_and_shifts():
    a, b = normal(0, 30, 4), 2 * normal(1, 50, 4) + 1
    turn, _ = np.linalg.qr(normal(2, 4, 4))
    wanted = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(wanted)
    assert frechet_distance(a @ turn + 7, b @ turn + 7) == pytest.approx(wanted)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * wanted)


def test_a_shift_alone_costs_its_square():
    a = normal(0, 30, 3)
    assert frechet_distance(a, a + np.array([1, 2, 2])) == pytest.approx(9)


def test_half_precision_features_are_summed_in_float64():
    a, b = ((1000 + normal(seed, 300, 2)).astype("float16") for seed in range(2))
    wanted = frechet_distance(a.astype(float), b.astype(float))
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)


def test_few_samples_make_it_larger():
    mean = [
        np.mean([frechet_distance(normal(s, n, 10), normal(s + 99, 2000, 10)) for s in range(20)])
        for n in (20, 80, 320)
    ]
    assert mean[0] > 2 * mean[1] > 4 * mean[2] > 0


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.ones(3), np.ones((2, 1)), "features_a must be [N, F], N at least 2; received [3]"),
        (
            np.ones((2, 1)),
            np.ones((1, 1)),
            "features_b must be [N, F], N at least 2; received [1, 1]",
        ),
        (
            np.ones((2, 0)),
            np.ones((2, 1)),
            "features_a must be [N, F], N at least 2; received [2, 0]",
        ),
        (
            np.ones((2, 3)),
            np.ones((2, 4)),
            "features_b must have the width 3 of features_a; received 4",
        ),
        ([[1], [np.nan]], [[1], [2]], "features_a must be finite; received nan in row 1"),
        ([[1], [2]], [[np.inf], [2]], "features_b must be finite; received inf in row 0"),
    ],
)
def test_what_are_no_features_is_refused(a, b, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        frechet_distance(a, b)


# ---- the two networks


@pytest.mark.parametrize(("noise", "channels"), [(1, 1), (64, 16), (5, 3)])
def test_the_networks_fit_together(noise, channels):
    g, d = generator(noise, channels), discriminator(channels)
    images = np.asarray(g(normal(0, 3, noise)))
    assert images.shape == (3, 28, 28, 1)
    assert -1 <= images.min() < 0 < images.max() <= 1
    assert d(images).shape == (3, 1)
    assert g(keras.Input((noise,))).shape == (None, 28, 28, 1)
    # Dense and its norm, 16 c · 2 c + c and its norm, 16 c + 1; norms have 4 numbers a channel.
    wide = 49 * 2 * channels
    kernel = 16 * 2 * channels * channels + channels
    assert g.count_params() == wide * (noise + 1 + 4) + kernel + 4 * channels + 16 * channels + 1
    assert d.count_params() == 17 * channels + kernel + channels + wide + 1


def test_the_activations_are_those_of_dcgan():
    slopes = [x.negative_slope for x in discriminator().layers if isinstance(x, layers.LeakyReLU)]
    np.testing.assert_allclose(slopes, [0.2, 0.2])
    assert sum(isinstance(x, layers.ReLU) for x in generator().layers) == 2


@SAVING
def test_a_saved_generator_makes_the_same_images(tmp_path):
    g = generator(4, 2)
    g.save(tmp_path / "g.keras")
    z = normal(0, 3, 4)
    again = keras.models.load_model(tmp_path / "g.keras")
    np.testing.assert_array_equal(np.asarray(g(z)), np.asarray(again(z)))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None])
def test_sizes_that_make_no_network_are_refused(bad):
    for name, make in (
        ("noise", lambda: generator(noise=bad)),
        ("channels", lambda: generator(channels=bad)),
        ("channels", lambda: discriminator(bad)),
    ):
        text = f"{name} must be a whole number from 1; received {bad!r}"
        with pytest.raises(ValueError, match=re.escape(text)):
            make()
