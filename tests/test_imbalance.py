"""Remedies for imbalance equal imbalanced-learn and Keras; their effects are exact where they can be."""

import numpy as np
import pytest

from aimodels.imbalance import (
    balanced_batches,
    bayes_threshold,
    best_threshold,
    class_weights,
    estimate_prior,
    focal_loss,
    oversample,
    shift_prior,
    smote,
    undersample,
    undo_focal,
)
from aimodels.logistic import binary_cross_entropy, sigmoid
from aimodels.metrics import confusion, log_loss, precision_recall_f1

over = pytest.importorskip("imblearn.over_sampling")
under = pytest.importorskip("imblearn.under_sampling")
sklearn_weights = pytest.importorskip("sklearn.utils.class_weight")
sklearn_linear = pytest.importorskip("sklearn.linear_model")

NAN = float("nan")
SIZES = [[7, 30], [30, 7], [7, 8], [9, 9], [6, 200], [7, 40, 12], [20, 6, 6, 30]]


def rng(seed=0):
    return np.random.default_rng(seed)


def table(sizes, width=3, seed=0):
    """Rows of classes of these sizes, in random order."""
    y = rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng(seed + 1).normal(size=(len(y), width)) + y[:, None], y


def odds(p):
    return p / (1 - p)


@pytest.mark.parametrize("sizes", [*SIZES, [1, 1], [1, 50]])
def test_class_weights_are_those_of_scikit_learn_and_make_classes_alike(sizes):
    _, y = table(sizes)
    weights = class_weights(y)
    theirs = sklearn_weights.compute_class_weight("balanced", classes=np.unique(y), y=y)
    np.testing.assert_allclose(weights, theirs, rtol=1e-12)
    np.testing.assert_allclose(weights * sizes, len(y) / len(sizes))
    assert weights[y].mean() == pytest.approx(1)


@pytest.mark.parametrize("sizes", [*SIZES, [1, 1], [1, 50]])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_sampling_draws_the_rows_that_imbalanced_learn_draws(sizes, seed):
    x, y = table(sizes, seed=seed)
    for ours, theirs in (
        (oversample, over.RandomOverSampler(random_state=seed)),
        (undersample, under.RandomUnderSampler(random_state=seed)),
    ):
        rows = ours(y, np.random.RandomState(seed))
        wanted_x, wanted_y = theirs.fit_resample(x, y)
        np.testing.assert_array_equal(x[rows], wanted_x)
        np.testing.assert_array_equal(y[rows], wanted_y)


@pytest.mark.parametrize("sizes", SIZES)
def test_oversampling_keeps_every_row_and_undersampling_repeats_none(sizes):
    _, y = table(sizes)
    more, less = oversample(y, rng()), undersample(y, rng())
    np.testing.assert_array_equal(more[: len(y)], np.arange(len(y)))
    assert len(np.unique(less)) == len(less)
    np.testing.assert_array_equal(np.bincount(y[more]), max(sizes))
    np.testing.assert_array_equal(np.bincount(y[less]), min(sizes))


def test_each_row_of_a_class_is_as_likely_to_be_drawn():
    y = np.array([0] * 8 + [1] * 4)
    more = np.bincount(np.concatenate([oversample(y, rng(s)) for s in range(2000)]))
    less = np.bincount(np.concatenate([undersample(y, rng(s)) for s in range(2000)]))
    np.testing.assert_array_equal(more[:8], 2000)
    np.testing.assert_allclose(more[8:], 4000, rtol=0.06)
    np.testing.assert_allclose(less[:8], 1000, rtol=0.12)
    np.testing.assert_array_equal(less[8:], 2000)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("neighbours", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 3, 40])
def test_smote_makes_the_samples_that_imbalanced_learn_makes(sizes, neighbours, width):
    x, y = table(sizes, width)
    theirs = over.SMOTE(k_neighbors=neighbours, random_state=np.random.RandomState(3))
    new_x, new_y = smote(x, y, np.random.RandomState(3), neighbours)
    wanted_x, wanted_y = theirs.fit_resample(x, y)
    np.testing.assert_allclose(new_x, wanted_x, atol=1e-12)
    np.testing.assert_array_equal(new_y, wanted_y)


def test_a_smote_sample_lies_between_a_sample_and_one_of_its_neighbours():
    x, y = table([40, 8], 2)
    new, _ = smote(x, y, rng(), neighbours=2)
    np.testing.assert_array_equal(new[:48], x)
    own = x[y == 1]
    distance = np.linalg.norm(own[:, None] - own, axis=2)
    nearest = np.argsort(distance, axis=1)[:, 1:3]
    for sample in new[48:]:
        on_a_line = [
            np.linalg.norm(sample - a)
            + np.linalg.norm(sample - own[j])
            - np.linalg.norm(a - own[j])
            for i, a in enumerate(own)
            for j in nearest[i]
        ]
        assert min(on_a_line) < 1e-12


def test_smote_finds_neighbours_far_from_the_origin():
    own = 1e9 + np.array([0.0, 1.0, 5.0, 6.0, 20.0, 21.0])[:, None]
    x, y = np.concatenate([np.zeros((60, 1)), own]), np.repeat([0, 1], [60, 6])
    new = smote(x, y, rng(), neighbours=1)[0][66:, 0] - 1e9
    assert (((new >= 0) & (new <= 1)) | ((new >= 5) & (new <= 6)) | (new >= 20)).all()


def test_smote_of_copies_gives_copies_and_no_sample_is_its_own_neighbour():
    x = np.array([[0.0], [5.0], [5.0], [9.0], [8.0], [7.0], [6.0], [2.0]])
    new, _ = smote(x, np.array([0, 1, 1, 0, 0, 0, 0, 0]), rng(), neighbours=1)
    np.testing.assert_array_equal(new[8:], 5)
    far = np.array([[0.0], [1.0], [2.0], [3.0], [10.0], [20.0]])
    new, _ = smote(far, np.array([0, 0, 0, 0, 1, 1]), rng(), neighbours=1)
    assert ((new[6:] > 10) & (new[6:] < 20)).all()


def test_batches_hold_each_class_alike_and_reach_every_row():
    _, y = table([50, 3, 10])
    batches = list(balanced_batches(y, 12, 200, rng()))
    assert len(batches) == 200
    for rows in batches:
        np.testing.assert_array_equal(np.bincount(y[rows]), 4)
    np.testing.assert_array_equal(np.unique(np.concatenate(batches)), np.arange(63))


def test_weights_are_copies_the_gradient_is_the_same():
    _, y = table([35, 7])
    z = rng().normal(size=42)
    copies = np.concatenate([np.arange(42), *[np.flatnonzero(y == 1)] * 4])  # each positive 5 times
    for gamma in (0, 2):
        loss, slope = focal_loss(z, y, gamma, (1, 5))
        copied, slopes = focal_loss(z[copies], y[copies], gamma)
        assert 42 * loss == pytest.approx(len(copies) * copied, rel=1e-13)
        summed = np.bincount(copies, len(copies) * slopes)
        np.testing.assert_allclose(42 * slope, summed, rtol=1e-12)


def test_oversampling_has_the_gradient_of_class_weights_on_average():
    _, y = table([40, 8])
    z, x = rng().normal(size=48), rng(1).normal(size=(48, 2))
    wanted = x.T @ focal_loss(z, y, 0, class_weights(y))[1]
    drawn = []
    for seed in range(4000):
        rows = oversample(y, rng(seed))
        drawn.append(x[rows].T @ focal_loss(z[rows], y[rows])[1])
    error = np.std(drawn, axis=0) / np.sqrt(4000)
    assert (np.abs(np.mean(drawn, axis=0) - wanted) < 4 * error).all()


def test_focal_loss_by_hand():
    z = np.log([3.0, 1 / 3])  # probabilities 3/4 and 1/4
    loss, slope = focal_loss(z, [1, 1], gamma=2)
    assert loss == pytest.approx((np.log(4 / 3) / 16 + 9 * np.log(4) / 16) / 2)
    assert slope[0] == pytest.approx(-(1 / 16) * (2 * 3 / 4 * np.log(4 / 3) + 1 / 4) / 2)
    np.testing.assert_allclose(focal_loss(-z, [0, 0], gamma=2)[1], -slope)
    assert focal_loss(-z, [0, 0], gamma=2)[0] == pytest.approx(loss)


@pytest.mark.parametrize("size", [1, 2, 50, 1000])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
def test_focal_loss_is_that_of_keras(size, gamma, alpha):
    import keras

    y, z = rng().integers(0, 2, size), rng(1).normal(scale=4, size=size)
    theirs = keras.losses.BinaryFocalCrossentropy(
        alpha is not None, alpha or 0.25, gamma, from_logits=True
    )
    wanted = float(theirs(y[:, None].astype("float32"), z[:, None].astype("float32")))
    weights = (1, 1) if alpha is None else (1 - alpha, alpha)
    assert focal_loss(z, y, gamma, weights)[0] == pytest.approx(wanted, abs=1e-6, rel=1e-5)


def test_gamma_zero_is_the_cross_entropy_and_its_slope():
    y, z = rng().integers(0, 2, 100), rng(1).normal(scale=3, size=100)
    loss, slope = focal_loss(z, y)
    assert loss == pytest.approx(binary_cross_entropy(z, y), rel=1e-14)
    np.testing.assert_allclose(slope, (sigmoid(z) - y) / 100, atol=1e-17)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_the_slope_is_that_of_finite_differences(gamma):
    y, z = rng().integers(0, 2, 30), rng(1).normal(scale=3, size=30)
    _, slope = focal_loss(z, y, gamma, (0.3, 2))
    for i in range(30):
        step = np.eye(30)[i] * 1e-5
        ends = [focal_loss(z + s * step, y, gamma, (0.3, 2))[0] for s in (1, -1)]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-9)


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_sure_logits_lose_no_digits(gamma):
    loss, slope = focal_loss([-800.0, 800.0], [1, 1], gamma)
    assert loss == pytest.approx(400)
    np.testing.assert_allclose(slope, [-0.5, 0], atol=1e-300)
    assert focal_loss([40.0], [1])[0] == pytest.approx(np.exp(-40), rel=1e-12)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.5, 0.9])
def test_undo_focal_gives_the_share_where_the_expected_loss_is_least(gamma, share):
    z = np.linspace(-12, 12, 480_001)
    q = sigmoid(z)
    expected = -share * (1 - q) ** gamma * np.log(q) - (1 - share) * q**gamma * np.log(1 - q)
    least = q[expected.argmin()]
    assert undo_focal([least], gamma)[0] == pytest.approx(share, rel=2e-3)


def test_undo_focal_keeps_order_ends_and_half_and_does_nothing_at_gamma_zero():
    p = np.array([0, 1e-3, 0.01, 0.3, 0.5, 0.9, 1 - 1e-3, 1])
    for gamma in (0.5, 2, 5):
        back = undo_focal(p, gamma)
        assert (np.diff(back) >= 0).all()
        np.testing.assert_allclose(back[[0, 4, 7]], [0, 0.5, 1])
        np.testing.assert_allclose(back + undo_focal(1 - p, gamma), 1, atol=1e-12)
    np.testing.assert_allclose(undo_focal([*p, 1e-9], 0), [*p, 1e-9], rtol=1e-9)


def test_shifting_the_prior_by_hand_and_back():
    np.testing.assert_allclose(shift_prior([0.5, 0.2], 0.5, 0.1), [0.1, 1 / 37])
    p = rng().random(50)
    np.testing.assert_allclose(shift_prior(shift_prior(p, 0.5, 0.02), 0.02, 0.5), p)
    np.testing.assert_allclose(shift_prior(p, 0.3, 0.3), p)
    factor = odds(0.02) / odds(0.4)
    np.testing.assert_allclose(odds(shift_prior(p, 0.4, 0.02)), factor * odds(p))
    np.testing.assert_array_equal(shift_prior([0.0, 1.0], 0.5, 0.02), [0, 1])


def test_where_the_truth_is_known_shifting_is_exact():
    """Two Gaussians: the posterior at one share becomes the posterior at another."""
    x = np.linspace(-4, 6, 41)
    one, zero = np.exp(-((x - 2) ** 2) / 2), np.exp(-(x**2) / 2)

    def posterior(share):
        return share * one / (share * one + (1 - share) * zero)

    np.testing.assert_allclose(shift_prior(posterior(0.5), 0.5, 0.02), posterior(0.02), rtol=1e-12)


def test_weighted_probabilities_are_off_by_the_known_factor():
    """Logistic regression of the right form, with weights: the prior is shifted, and comes back."""
    y = (rng().random(200_000) < 0.05).astype(int)
    x = rng(1).normal(size=len(y)) + 2 * y
    weights = class_weights(y)
    model = sklearn_linear.LogisticRegression(C=1e9, class_weight="balanced", tol=1e-10)
    p = model.fit(x[:, None], y).predict_proba(x[:, None])[:, 1]
    back = shift_prior(p, 0.5, y.mean())
    assert p.mean() > 4 * y.mean()
    assert back.mean() == pytest.approx(y.mean(), rel=0.01)
    plain = sklearn_linear.LogisticRegression(C=1e9, tol=1e-10).fit(x[:, None], y)
    np.testing.assert_allclose(back, plain.predict_proba(x[:, None])[:, 1], atol=0.01)
    losses = [log_loss(y, np.column_stack([1 - q, q])) for q in (p, back)]
    assert losses[1] < losses[0] / 2
    assert weights[1] / weights[0] == pytest.approx(1 / odds(y.mean()))


@pytest.mark.parametrize("new", [0.01, 0.2, 0.7])
def test_the_share_is_found_without_labels(new):
    y = (rng().random(100_000) < new).astype(int)
    x = rng(1).normal(size=len(y)) + 2 * y
    p = sigmoid(2 * x - 2)  # the posterior where half are positive
    found = estimate_prior(p, 0.5)
    assert found == pytest.approx(y.mean(), abs=0.01)
    assert shift_prior(p, 0.5, found).mean() == pytest.approx(found, rel=1e-9)


def test_the_share_found_has_the_largest_likelihood():
    p = rng().random(500) ** 3
    found = estimate_prior(p, 0.3)

    def likelihood(share):
        return np.log(p * share / 0.3 + (1 - p) * (1 - share) / 0.7).sum()

    assert likelihood(found) > max(likelihood(found + 1e-4), likelihood(found - 1e-4))


def test_no_threshold_is_cheaper_than_that_of_bayes():
    p = rng().random(100_000)
    y = rng(1).random(100_000) < p

    def cost(threshold):
        return np.mean(np.where(y, 9 * (p < threshold), p >= threshold))

    assert bayes_threshold(1, 9) == pytest.approx(0.1)
    assert bayes_threshold(3, 3) == 0.5
    assert cost(bayes_threshold(1, 9)) < min(cost(t) for t in (0.02, 0.05, 0.2, 0.5))


def test_weights_as_costs_and_one_half_decide_as_the_threshold_of_bayes():
    p, share = rng().random(1000), 0.02
    weighted = 9 * share / (9 * share + 1 - share)
    says = shift_prior(p, share, weighted) >= 0.5
    np.testing.assert_array_equal(says, p >= bayes_threshold(1, 9))


@pytest.mark.parametrize("size", [1, 2, 10, 200])
@pytest.mark.parametrize("digits", [1, 9])
def test_the_best_threshold_is_found_by_trying_all(size, digits):
    y = np.append(1, rng().integers(0, 2, size))
    scores = (rng(1).normal(size=size + 1) + y).round(digits)
    threshold, f1 = best_threshold(y, scores)
    tried = {t: precision_recall_f1(confusion(y, scores >= t, 2), empty=0).f1[1] for t in scores}
    assert f1 == pytest.approx(max(tried.values()))
    assert threshold == max(t for t in tried if tried[t] > max(tried.values()) - 1e-12)


def test_the_best_threshold_by_hand():
    threshold, f1 = best_threshold([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.2, 0.1])
    assert (threshold, f1) == (0.7, pytest.approx(0.8))
    assert best_threshold([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6]) == (0.9, pytest.approx(2 / 3))


def test_samples_are_left_as_they_were():
    x, y = table([20, 6])
    kept = x.copy(), y.copy()
    new, _ = smote(x, y, rng())
    new += 1
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


TWO = np.array([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_weights([]), r"y has shape \(0,\), dtype float64; allowed are whole"),
        (lambda: class_weights([0.0, 1.0]), "dtype float64; allowed are whole numbers"),
        (lambda: class_weights([[0, 1]]), r"y has shape \(1, 2\)"),
        (lambda: class_weights([0, -1]), "y holds -1; allowed are whole numbers from 0"),
        (lambda: oversample([0, 0], rng()), r"sizes \[2\]; allowed are two or more above 0"),
        (lambda: undersample([0, 2], rng()), r"sizes \[1, 0, 1\]; allowed are two or more"),
        (lambda: smote([[1.0]] * 6, TWO, rng(), 6), "neighbours is 6; allowed is 1 to 5"),
        (lambda: smote([[1.0]] * 6, TWO, rng(), 0), "neighbours is 0; allowed is 1 to 5"),
        (lambda: smote([[1.0]] * 4, [0, 0, 0, 1], rng(), 1), "neighbours is 1; allowed is 1 to 0"),
        (lambda: smote([[1.0]] * 5, TWO, rng()), r"x has shape \(5, 1\).*N = 6"),
        (lambda: smote([1.0] * 6, TWO, rng()), r"x has shape \(6,\).*\[N, D\]"),
        (lambda: smote([[NAN]] * 6, TWO, rng()), "or NaN; allowed are numbers"),
        (
            lambda: next(balanced_batches(TWO, 5, 1, rng())),
            "batch is 5; allowed are multiples of 2",
        ),
        (
            lambda: next(balanced_batches(TWO, 0, 1, rng())),
            "batch is 0; allowed are multiples of 2",
        ),
        (lambda: focal_loss([], []), r"z has shape \(0,\)"),
        (lambda: focal_loss([NAN], [1]), "or NaN or infinity; allowed are numbers"),
        (lambda: focal_loss([[1.0]], [[1]]), r"z has shape \(1, 1\)"),
        (lambda: focal_loss([1.0], [1, 0]), r"y has shape \(2,\).*allowed is \(1,\)"),
        (lambda: focal_loss([1.0], [2]), "or others than 0 and 1"),
        (lambda: focal_loss([1.0], [1], -1), "gamma is -1; allowed is 0 or more"),
        (lambda: focal_loss([1.0], [1], NAN), "gamma is nan; allowed is 0 or more"),
        (lambda: focal_loss([1.0], [1], 0, (1,)), "weights is .*allowed are two numbers"),
        (lambda: focal_loss([1.0], [1], 0, (1, -1)), "weights is .*allowed are two numbers"),
        (lambda: focal_loss([1.0], [1], 0, (1, NAN)), "weights is .*allowed are two numbers"),
        (lambda: undo_focal([0.5], -1), "gamma is -1; allowed is 0 or more"),
        (lambda: undo_focal([1.5], 1), "entries that are no probabilities"),
        (lambda: shift_prior([NAN], 0.5, 0.1), "entries that are no probabilities"),
        (lambda: shift_prior([], 0.5, 0.1), r"p has shape \(0,\)"),
        (lambda: shift_prior([0.5], 0, 0.1), "old is 0; allowed is a number between 0 and 1"),
        (lambda: shift_prior([0.5], 0.5, 1), "new is 1; allowed is a number between 0 and 1"),
        (lambda: estimate_prior([0.5], NAN), "old is nan; allowed is a number between"),
        (lambda: estimate_prior([0.9, 0.8], 0.5), "steps is 10000, not enough.*stands at 1"),
        (lambda: estimate_prior([0.2, 0.9], 0.5, 1), "steps is 1, not enough"),
        (lambda: bayes_threshold(0, 1), "false_alarm is 0; allowed is a number above 0"),
        (lambda: bayes_threshold(1, NAN), "miss is nan; allowed is a number above 0"),
        (lambda: best_threshold([0, 0], [1.0, 2.0]), "y holds only 0"),
        (lambda: best_threshold([0, 1], [1.0, NAN]), "scores holds NaN"),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
