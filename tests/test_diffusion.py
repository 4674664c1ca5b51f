"""Diffusion: noising against its chain, ways back against conditioned normals, samples of known data."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from aimodels.diffusion import (
    Lookup,
    cosine_schedule,
    denoised,
    linear_schedule,
    noised,
    noisy_pairs,
    posterior,
    sample,
    step_back,
    unet,
)
from aimodels.training import batches, make_step, train

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCHEDULES = {
    "linear": linear_schedule(),
    "cosine": cosine_schedule(),
    "short": cosine_schedule(7),
    "one": linear_schedule(1, 0.5, 0.5),
}
FLOATS = ["float16", "float32", "float64"]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def of_normal_data(signal, mean, variance):
    """The best predictor if data are normal: linear in x."""

    def predict(x, t):
        share = signal[t].reshape((-1,) + (1,) * (x.ndim - 1))
        return np.sqrt(1 - share) * (x - np.sqrt(share) * mean) / (share * variance + 1 - share)

    return predict


# ---- schedules


def test_schedules_worked_by_hand():
    np.testing.assert_allclose(linear_schedule(3, 0.1, 0.3), [1, 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])
    # cos² of 0, 45 and 90 degrees; the last step keeps a tenth instead of nothing.
    np.testing.assert_allclose(cosine_schedule(2, 0, 0.9), [1, 0.5, 0.05])
    # With an offset of 1 the angle runs from 45 to 90 degrees: cos² 67.5° / cos² 45°.
    wanted = (1 - np.sqrt(0.5)) / 2 / 0.5
    np.testing.assert_allclose(cosine_schedule(2, 1.0), [1, wanted, wanted * 0.001], rtol=1e-9)


def test_schedules_are_those_of_the_papers():
    linear, cosine = linear_schedule(), cosine_schedule()
    betas = 1 - linear[1:] / linear[:-1]
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), atol=1e-12)
    assert 1 - cosine[-1] / cosine[-2] == pytest.approx(0.999)
    t = np.arange(1000) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine[:-1], f / f[0], rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 10, 4000])
def test_a_schedule_falls_from_1_and_stays_above_0(steps):
    for signal in (linear_schedule(steps), cosine_schedule(steps)):
        assert signal.shape == (steps + 1,)
        assert signal[0] == 1
        assert (np.diff(signal) < 0).all()
        assert signal[-1] > 0


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None])
def test_a_number_of_steps_that_makes_no_schedule_is_refused(bad):
    text = f"steps must be a whole number from 1; received {bad!r}"
    for schedule in (linear_schedule, cosine_schedule):
        with pytest.raises(ValueError, match=re.escape(text)):
            schedule(bad)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: linear_schedule(9, 0, 0.1), "0 < first <= last < 1; received 0, 0.1"),
        (lambda: linear_schedule(9, 0.2, 0.1), "0 < first <= last < 1; received 0.2, 0.1"),
        (lambda: linear_schedule(9, 0.2, 1), "0 < first <= last < 1; received 0.2, 1"),
        (lambda: linear_schedule(9, np.nan, 1), "0 < first <= last < 1; received nan, 1"),
        (lambda: cosine_schedule(9, -0.1), "offset must be finite and from 0; received -0.1"),
        (lambda: cosine_schedule(9, np.inf), "offset must be finite and from 0; received inf"),
        (lambda: cosine_schedule(9, np.nan), "offset must be finite and from 0; received nan"),
        (lambda: cosine_schedule(9, 0.1, 1), "most must be above 0 and below 1; received 1"),
        (lambda: cosine_schedule(9, 0.1, 0), "most must be above 0 and below 1; received 0"),
    ],
)
def test_bad_numbers_of_schedules_are_refused(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call()


# ---- forward


def test_noising_by_hand_one_share_for_all_or_one_for_each():
    x, noise = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, -1], [2, 0]])
    np.testing.assert_allclose(noised(x, noise, 0.36), 0.6 * x + 0.8 * noise)
    np.testing.assert_allclose(noised(x, noise, [1, 0]), [[1, 2], [2, 0]])
    np.testing.assert_allclose(denoised(0.6 * x + 0.8 * noise, noise, 0.36), x)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_closed_form_is_the_chain_of_steps(name):
    # Mean and variance, carried along the chain, of data of mean 3 and variance 4.
    signal, mean, variance = SCHEDULES[name], 3.0, 4.0
    for t in range(1, len(signal)):
        beta = 1 - signal[t] / signal[t - 1]
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert mean == pytest.approx(3 * np.sqrt(signal[t]), rel=1e-9)
        assert variance == pytest.approx(4 * signal[t] + 1 - signal[t], rel=1e-9)


def test_data_of_variance_1_keep_it():
    x, noise = normal(0, 200000, 1), normal(1, 200000, 1)
    for share in (0.9, 0.5, 0.1):
        noisy = noised(x, noise, share)
        assert noisy.var() == pytest.approx(1, abs=0.01)
        assert np.mean(noisy * x) == pytest.approx(np.sqrt(share), abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_denoising_undoes_noising(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, rng.integers(1, 5)))
    x, noise, share = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(0.01, 1, shape[0])
    np.testing.assert_allclose(denoised(noised(x, noise, share), noise, share), x, atol=1e-12)


@pytest.mark.parametrize("kind", FLOATS)
def test_precision_stays_and_whole_numbers_become_float64(kind):
    x, noise = normal(0, 3, 2).astype(kind), normal(1, 3, 2)
    assert noised(x, noise, [0.5, 1, 0]).dtype == kind
    assert denoised(x, noise, 0.5).dtype == kind
    assert posterior(x, x, 0.5, 0.6)[0].dtype == kind
    assert step_back(x, noise, 0.5, 0.6, eta=0.5, fresh=noise, bounds=(-1, 1)).dtype == kind
    assert noised(np.array([[3]]), [[1.0]], 0.5).dtype == float


def test_a_nan_stays_in_its_place_and_no_sample_is_allowed():
    x = np.array([[1.0, np.nan], [2, 3]])
    for found in (noised(x, np.ones((2, 2)), 0.5), denoised(x, np.ones((2, 2)), 0.5)):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    assert noised(np.ones((0, 3)), np.ones((0, 3)), 0.5).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: noised(np.ones((2, 3)), np.ones((2, 1)), 0.5),
            "noise must have the shape (2, 3) of x; received (2, 1)",
        ),
        (
            lambda: noised(np.ones((2, 3)), np.ones((2, 3)), [0.5] * 3),
            "signal must be one number or have the shape (2,); received (3,)",
        ),
        (
            lambda: noised(np.ones(2), np.ones(2), 1.01),
            "signal must be from 0 to 1; received 1.01",
        ),
        (
            lambda: noised(np.ones(2), np.ones(2), [0.1, np.nan]),
            "signal must be from 0 to 1; received nan",
        ),
        (
            lambda: denoised(np.ones(2), np.ones(2), [-0.1, 1]),
            "signal must be from 0 to 1; received -0.1",
        ),
        (lambda: denoised(np.ones(2), np.ones(2), [0.1, 0]), "signal must be above 0"),
        (
            lambda: posterior(np.ones(2), np.ones(3), 0.5, 0.6),
            "clean must have the shape (2,) of x; received (3,)",
        ),
        (
            lambda: posterior(np.ones(2), np.ones(2), 0.5, 0.5),
            "must be 0 <= signal < before <= 1; received 0.5, 0.5",
        ),
        (
            lambda: posterior(np.ones(2), np.ones(2), np.nan, 0.5),
            "must be 0 <= signal < before <= 1; received nan, 0.5",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.5, 1.1),
            "must be 0 <= signal < before <= 1; received 0.5, 1.1",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.0, 0.5),
            "signal must be above 0: without signal nothing can be told; received 0.0",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.4, 0.5, eta=1.1),
            "eta must be from 0 to 1; received 1.1",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.4, 0.5, eta=np.nan),
            "eta must be from 0 to 1; received nan",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.4, 0.5, eta=0.5),
            "fresh must hold new noise if eta is above 0; received None, 0.5",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.4, 0.5, eta=1, fresh=np.ones(1)),
            "fresh must have the shape (2,) of x; received (1,)",
        ),
        (
            lambda: step_back(np.ones(2), np.ones(2), 0.4, 0.5, bounds=(1, 1)),
            "bounds must be (least, most), least below most; received (1, 1)",
        ),
    ],
)
def test_what_fits_no_step_is_refused(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call()


# ---- back


@pytest.mark.parametrize("seed", range(10))
def test_the_posterior_is_that_of_a_joint_normal_distribution(seed):
    # Given x_0, the states at s and t are normal; condition the first on the second.
    rng = np.random.default_rng(seed)
    signal = SCHEDULES[("linear", "cosine")[seed % 2]]
    s, t = np.sort(rng.choice(1001, 2, replace=False))
    before, share = signal[s], signal[t]
    clean, noisy = rng.normal(size=(2, 3, 2))
    covariance = np.sqrt(share / before) * (1 - before)
    wanted = np.sqrt(before) * clean
    wanted = wanted + covariance / (1 - share) * (noisy - np.sqrt(share) * clean)
    mean, variance = posterior(noisy, clean, share, before)
    np.testing.assert_allclose(mean, wanted, atol=1e-12)
    assert variance == pytest.approx(1 - before - covariance**2 / (1 - share), abs=1e-12)


def test_the_posterior_at_its_ends():
    x, clean = normal(0, 2, 3), normal(1, 2, 3)
    mean, variance = posterior(x, clean, 0.3, 1)
    np.testing.assert_allclose(mean, clean)
    assert variance == 0
    mean, variance = posterior(x, clean, 0.0, 0.3)  # pure noise tells nothing of the earlier noise
    np.testing.assert_allclose(mean, np.sqrt(0.3) * clean)
    assert variance == pytest.approx(0.7)


def test_the_posterior_of_neighbours_as_the_paper_writes_it():
    # Ho et al. 2020, equation 11: x less a share of the noise.
    signal, x, noise = SCHEDULES["linear"], normal(0, 5), normal(1, 5)
    for t in (1, 2, 500, 1000):
        beta = 1 - signal[t] / signal[t - 1]
        wanted = (x - beta / np.sqrt(1 - signal[t]) * noise) / np.sqrt(1 - beta)
        clean = denoised(x, noise, signal[t])
        found, _ = posterior(x, clean, signal[t], signal[t - 1])
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("bounds", [None, (-0.5, 0.5)])
def test_a_step_with_eta_1_draws_from_the_posterior(bounds):
    x, noise, fresh = normal(0, 4), normal(1, 4), normal(2, 4)
    clean = denoised(x, noise, 0.4)
    if bounds:
        clean = np.clip(clean, *bounds)
    mean, variance = posterior(x, clean, 0.4, 0.7)
    found = step_back(x, noise, 0.4, 0.7, eta=1, fresh=fresh, bounds=bounds)
    np.testing.assert_allclose(found, mean + np.sqrt(variance) * fresh, atol=1e-12)


def test_a_step_with_eta_0_keeps_the_noise():
    x, noise = normal(0, 4), normal(1, 4)
    for before in (0.5, 0.9, 1):
        found = step_back(noised(x, noise, 0.2), noise, 0.2, before)
        np.testing.assert_allclose(found, noised(x, noise, before), atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_every_eta_leaves_the_right_variance(eta):
    # x_0 fixed: the state after the step has the variance 1 - before, whatever eta.
    many = normal(0, 200000), normal(1, 200000)
    found = step_back(
        noised(np.full(200000, 2.0), many[0], 0.3), many[0], 0.3, 0.6, eta=eta, fresh=many[1]
    )
    assert found.mean() == pytest.approx(2 * np.sqrt(0.6), abs=0.01)
    assert found.var() == pytest.approx(0.4, abs=0.01)


def test_new_noise_enters_in_proportion_to_eta():
    x, noise, fresh = normal(0, 4), normal(1, 4), normal(2, 4)
    _, variance = posterior(x, x, 0.4, 0.7)
    for eta in (0.3, 1.0):
        ends = [step_back(x, noise, 0.4, 0.7, eta=eta, fresh=n) for n in (fresh, 0 * fresh)]
        np.testing.assert_allclose(ends[0] - ends[1], eta * np.sqrt(variance) * fresh)


def test_bounds_hold_at_the_last_step():
    found = step_back(10 * normal(0, 50), normal(1, 50), 0.2, 1, bounds=(-1, 2))
    assert found.min() == -1
    assert found.max() == 2


# ---- samples


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_normal_data_come_back(name, eta):
    signal = SCHEDULES[name]
    predict = of_normal_data(signal, 3.0, 4.0)
    found = sample(predict, normal(0, 20000, 1), signal, 200, eta=eta, rng=np.random.default_rng(1))
    assert found.mean() == pytest.approx(3, abs=0.06)
    assert found.std() == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_a_known_sample_is_reached_in_any_number_of_steps(steps):
    signal, clean = SCHEDULES["short"], normal(5, 2, 3)

    def predict(x, t):
        share = signal[t][:, None]
        return (x - np.sqrt(share) * clean) / np.sqrt(1 - share)

    for eta in (0, 1):
        found = sample(
            predict, normal(0, 2, 3), signal, steps, eta=eta, rng=np.random.default_rng(0)
        )
        np.testing.assert_allclose(found, clean, atol=1e-9)


def test_the_states_run_from_the_last_to_the_first():
    seen = []

    def predict(x, t):
        assert t.dtype == "int32"
        assert t.shape == (2,)
        seen.append(int(t[0]))
        return np.zeros_like(x)

    for steps, wanted in ((1, [1000]), (4, [1000, 750, 500, 250]), (1000, [*range(1000, 0, -1)])):
        seen.clear()
        sample(predict, np.ones((2, 1)), SCHEDULES["linear"], steps)
        assert seen == wanted


def test_without_fresh_noise_a_sampler_is_deterministic():
    signal = SCHEDULES["cosine"]
    predict, z = of_normal_data(signal, 0.0, 2.0), normal(0, 3, 2, 2)
    once = sample(predict, z, signal, 20)
    again = sample(predict, z, signal, 20, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(once, again)
    one, other = (
        sample(predict, z, signal, 20, eta=1, rng=np.random.default_rng(seed)) for seed in (0, 1)
    )
    assert np.abs(one - other).max() > 0.1


def test_samples_keep_the_precision_of_the_noise_and_the_noise_itself():
    signal, z = SCHEDULES["short"], normal(0, 2, 3).astype("float32")
    before = z.copy()
    found = sample(of_normal_data(signal, 0, 1), z, signal, 7, eta=1, rng=np.random.default_rng(0))
    assert found.dtype == "float32"
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 8}, "steps must be a whole number from 1 to 7; received 8"),
        ({"steps": 0}, "steps must be a whole number from 1 to 7; received 0"),
        ({"x": np.ones((0, 2))}, "x must hold at least one sample; received shape (0, 2)"),
        ({"x": 1.0}, "x must hold at least one sample; received shape ()"),
        ({"eta": 1}, "rng must be a generator if eta is above 0; received None, 1"),
        ({"eta": -1}, "eta must be from 0 to 1; received -1"),
        ({"signal": [0.9, 0.5]}, "signal must be [T + 1] shares that fall from 1"),
        ({"signal": [1.0, 0.5, 0.5]}, "signal must be [T + 1] shares that fall from 1"),
        ({"signal": [1.0, 0.5, 0.0]}, "signal must be [T + 1] shares that fall from 1"),
        ({"signal": [1.0, np.nan]}, "signal must be [T + 1] shares that fall from 1"),
        ({"signal": [1.0]}, "signal must be [T + 1] shares that fall from 1"),
        ({"signal": 1.0}, "signal must be [T + 1] shares that fall from 1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(change, text):
    given = {"x": np.ones((1, 2)), "signal": SCHEDULES["short"], "steps": 2} | change
    with pytest.raises(ValueError, match=re.escape(text)):
        sample(lambda x, t: x, **given)


def test_a_predictor_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=re.escape("noise must have the shape (2, 3) of x")):
        sample(lambda x, t: x[:, :1], np.ones((2, 3)), SCHEDULES["short"], 2)


# ---- training


def test_pairs_are_the_batches_noised():
    data, signal = normal(0, 40, 3).astype("float32"), SCHEDULES["short"]
    clean = batches(data, 8, 0)
    pairs = noisy_pairs(batches(data, 8, 0), signal, 5)
    times = []
    for _ in range(60):
        (noisy, t), noise = next(pairs)
        assert (noisy.dtype, t.dtype, noise.dtype) == ("float32", "int32", "float32")
        assert noise.shape == (8, 3)
        np.testing.assert_allclose(noisy, noised(next(clean), noise, signal[t]), atol=1e-6)
        times.append(t)
    counted = np.bincount(np.concatenate(times), minlength=9)
    assert counted[0] == counted[8] == 0
    assert counted[1:8].min() > 40  # of about 69
    first, again, other = (next(noisy_pairs(batches(data, 8, 0), signal, s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()


def test_pairs_end_with_their_batches_and_need_a_schedule():
    assert len(list(noisy_pairs([np.ones((2, 1))] * 3, SCHEDULES["short"], 0))) == 3
    with pytest.raises(ValueError, match=re.escape("signal must be [T + 1] shares")):
        noisy_pairs([], [1, 2], 0)


def test_the_loop_of_the_handbook_learns_the_linear_predictor():
    # Normal data: the best predictor is linear in x at each step.
    signal = linear_schedule(4, 0.2, 0.8)
    keras.utils.set_random_seed(0)
    x, t = keras.Input((1,)), keras.Input((), dtype="int32")
    slope = keras.layers.Embedding(5, 1)(t)
    model = keras.Model([x, t], slope * x)
    step = make_step(model, keras.optimizers.Adam(0.05), lambda y, p: ops.mean(ops.square(y - p)))
    data = 2 * normal(0, 4000, 1).astype("float32")
    train(step, noisy_pairs(batches(data, 500, 0), signal, 0), 300)
    found = np.asarray(model([np.ones((4, 1)), np.arange(1, 5)]))
    wanted = of_normal_data(signal, 0, 4)(np.ones((4, 1)), np.arange(1, 5))
    np.testing.assert_allclose(found, wanted, atol=0.05)


# ---- the network


def test_the_network_reads_images_and_steps():
    keras.utils.set_random_seed(0)
    signal = cosine_schedule(50)
    net = unet(signal, 4)
    x, t = normal(0, 3, 28, 28, 1).astype("float32"), np.array([1, 20, 50], "int32")
    found = np.asarray(net([x, t]))
    assert found.shape == (3, 28, 28, 1)
    alone = np.concatenate([net([x[i : i + 1], t[i : i + 1]]) for i in range(3)])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.abs(found - np.asarray(net([x, t[::-1]]))).max() > 0.01
    assert net([keras.Input((28, 28, 1)), keras.Input((), dtype="int32")]).shape == (
        None,
        28,
        28,
        1,
    )


@pytest.mark.parametrize("c", [1, 3, 16])
def test_every_part_of_the_network_is_there(c):
    def block(width):  # two convolutions, and what it is told of the step
        return 2 * (9 * width + 1) * width + (4 * c + 1) * width

    parts = [
        33 * 4 * c,  # the step
        17 * c + (16 * c + 1) * 2 * c,  # halved twice
        2 * block(c) + 2 * block(2 * c),
        (98 * c + 4 * c + 8 * c + 3) * 8 * c + (8 * c + 1) * 98 * c,  # across the whole image
        (32 * c + 1) * c + (2 * c + 1) * c + (16 * c + 1) * c,  # doubled twice, joined between
        9 * (c + 1) + 1,  # joined with the image
    ]
    assert unet(cosine_schedule(9), c).count_params() == sum(parts)


def test_with_no_weights_it_is_the_guess_for_standard_normal_pixels():
    signal = cosine_schedule(50)
    net = unet(signal, 2)
    for weight in net.trainable_weights:
        weight.assign(ops.zeros_like(weight))
    x, t = normal(0, 3, 28, 28, 1).astype("float32"), np.array([0, 20, 50])
    wanted = np.sqrt(1 - signal[t])[:, None, None, None] * x
    np.testing.assert_allclose(np.asarray(net([x, t])), wanted, atol=1e-6)
    # The other term: 1 from the last bias, times √ᾱ.
    bias = next(w for w in reversed(net.trainable_weights) if w.shape == (1,))
    bias.assign([1.0])
    wanted = wanted + np.sqrt(signal[t])[:, None, None, None]
    np.testing.assert_allclose(np.asarray(net([x, t])), wanted, atol=1e-6)


def test_every_weight_moves():
    keras.utils.set_random_seed(0)
    net = unet(cosine_schedule(50), 2)
    before = [w.numpy() for w in net.weights]
    data = normal(0, 16, 28, 28, 1).astype("float32")
    step = make_step(net, keras.optimizers.SGD(0.1), lambda y, p: ops.mean(ops.square(y - p)))
    train(step, noisy_pairs(batches(data, 8, 0), cosine_schedule(50), 0), 2)
    for weight, old in zip(net.weights, before, strict=True):
        assert (weight.numpy() != old).any()


def test_a_table_is_read_by_step_and_copied_with_its_layer():
    layer = Lookup([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(np.asarray(layer(np.array([2, 0]))), [[5, 6], [1, 2]])
    again = Lookup.from_config(layer.get_config())
    np.testing.assert_array_equal(again.rows, layer.rows)
    assert layer(keras.Input((), dtype="int32")).shape == (None, 2)
    assert Lookup([[1.0]], dtype="float16")(np.array([0])).dtype == "float16"
    for bad in ([1, 2], np.ones((0, 2)), np.ones((2, 0))):
        text = f"rows must be [T + 1, F]; received shape {np.shape(bad)}"
        with pytest.raises(ValueError, match=re.escape(text)):
            Lookup(bad)


def test_a_copy_with_the_same_weights_predicts_the_same():
    net = unet(cosine_schedule(9), 2)
    again = keras.models.clone_model(net)
    again.set_weights(net.get_weights())
    given = [normal(0, 2, 28, 28, 1).astype("float32"), np.array([1, 9])]
    np.testing.assert_array_equal(np.asarray(net(given)), np.asarray(again(given)))


@SAVING
def test_a_saved_network_predicts_the_same(tmp_path):
    net = unet(cosine_schedule(9), 2)
    net.save(tmp_path / "net.keras")
    given = [normal(0, 2, 28, 28, 1).astype("float32"), np.array([1, 9])]
    again = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(np.asarray(net(given)), np.asarray(again(given)))


def test_compiled_by_xla_a_step_does_the_same():
    losses = []
    for compiled in (False, True):
        keras.utils.set_random_seed(0)
        net, signal = unet(cosine_schedule(9), 2), cosine_schedule(9)
        step = make_step(
            net,
            keras.optimizers.SGD(0.1),
            lambda y, p: ops.mean(ops.square(y - p)),
            jit_compile=compiled,
        )
        data = normal(0, 8, 28, 28, 1).astype("float32")
        losses.append(train(step, noisy_pairs(batches(data, 4, 0), signal, 0), 3))
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None])
def test_channels_that_make_no_network_are_refused(bad):
    text = f"channels must be a whole number from 1; received {bad!r}"
    with pytest.raises(ValueError, match=re.escape(text)):
        unet(cosine_schedule(9), bad)


def test_a_network_needs_a_schedule():
    with pytest.raises(ValueError, match=re.escape("signal must be [T + 1] shares")):
        unet([0.5, 0.1])
