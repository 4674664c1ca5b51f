"""Logistic and softmax regression equal their peers, keep their digits, and refuse nonsense."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from aimodels.datasets import breast_cancer, digits, standardize
from aimodels.logistic import (
    binary_cross_entropy,
    cross_entropy,
    fit_logistic,
    fit_softmax,
    gradient,
    hessian,
    log_sum_exp,
    sigmoid,
    softmax,
)

EXPOSED = np.array([[0.0]] * 4 + [[1.0]] * 4)
ILL = np.array([0, 0, 0, 1, 0, 1, 1, 1])


def some(rows, width, classes, seed=0):
    """Rows whose classes overlap, in columns of different units."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    y = (x @ rng.normal(size=(width, classes)) + 2 * rng.normal(size=(rows, classes))).argmax(1)
    return x * rng.uniform(0.1, 10, width) + 3, y


def penalized(x, y, weights, bias, strength):
    z = x @ weights + bias
    loss = binary_cross_entropy(z, y) if z.ndim == 1 else cross_entropy(z, y)
    return loss + strength / 2 / len(y) * np.sum(np.square(weights))


def peer(x, y, strength):
    """scikit-learn's own Newton method, run until it can do no better."""
    inverse = 1 / strength if strength else np.inf
    return LogisticRegression(C=inverse, tol=1e-13, solver="newton-cholesky").fit(x, y)


def test_the_odds_ratio_of_a_two_by_two_table_by_hand():
    weights, bias, losses = fit_logistic(EXPOSED, ILL)
    np.testing.assert_allclose([weights[0], bias], [np.log(9), -np.log(3)], rtol=1e-12)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose([losses[0], losses[-1]], [np.log(2), entropy], rtol=1e-12)


def test_the_standard_error_of_a_log_odds_ratio_by_hand():
    weights, bias, _ = fit_logistic(EXPOSED, ILL)
    covariance = np.linalg.inv(8 * hessian(EXPOSED, weights, bias))
    np.testing.assert_allclose(covariance[0, 0], 1 / 3 + 1 + 1 + 1 / 3)


def test_three_classes_of_a_table_by_hand():
    y = np.array([0, 0, 1, 2, 0, 1, 1, 2, 2, 2])
    x = np.array([[0.0]] * 4 + [[1.0]] * 6)
    weights, bias, _ = fit_softmax(x, y)
    np.testing.assert_allclose(softmax(bias), [1 / 2, 1 / 4, 1 / 4], rtol=1e-10)
    np.testing.assert_allclose(softmax(weights[0] + bias), [1 / 6, 1 / 3, 1 / 2], rtol=1e-10)


def test_probabilities_by_hand():
    np.testing.assert_allclose(sigmoid([0, np.log(3), -np.log(3)]), [1 / 2, 3 / 4, 1 / 4])
    np.testing.assert_allclose(softmax(np.log([[1, 2, 5]])), [[1 / 8, 2 / 8, 5 / 8]])
    np.testing.assert_allclose(log_sum_exp(np.log([1, 2, 5])), np.log(8))
    assert sigmoid(0) == 0.5


@pytest.mark.parametrize("strength", [0, 0.01, 1, 100])
@pytest.mark.parametrize("shape", [(40, 1), (200, 5), (500, 12)])
def test_two_classes_are_those_of_scikit_learn(shape, strength):
    x, y = some(*shape, 2)
    x = standardize(x)
    weights, bias, _ = fit_logistic(x, y, strength)
    theirs = peer(x, y, strength)
    np.testing.assert_allclose(weights, theirs.coef_[0], atol=1e-9)
    np.testing.assert_allclose(bias, theirs.intercept_[0], atol=1e-9)
    np.testing.assert_allclose(sigmoid(x @ weights + bias), theirs.predict_proba(x)[:, 1])


@pytest.mark.parametrize("strength", [0, 0.1, 10])
@pytest.mark.parametrize(("shape", "classes"), [((100, 2), 3), ((400, 6), 5)])
def test_several_classes_are_those_of_scikit_learn(shape, classes, strength):
    x, y = some(*shape, classes)
    x = standardize(x)
    weights, bias, _ = fit_softmax(x, y, strength)
    theirs = peer(x, y, strength)
    np.testing.assert_allclose(weights.T, theirs.coef_, atol=1e-7)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-7)


def test_breast_cancer_and_digits_are_those_of_scikit_learn():
    table, images = breast_cancer(), digits()
    for fit, x, y in (
        (fit_logistic, standardize(table.x), table.y),
        (fit_softmax, images.x[:400].reshape(400, 64) / 16, images.y[:400]),
    ):
        theirs = peer(x, y, 1)
        weights, bias, _ = fit(x, y, 1)
        np.testing.assert_allclose(np.atleast_2d(weights.T), theirs.coef_, atol=1e-8)
        np.testing.assert_allclose(np.atleast_1d(bias), theirs.intercept_, atol=1e-8)


def test_losses_and_probabilities_are_those_of_keras():
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    z, y = 5 * rng.normal(size=(50, 4)).astype("float32"), rng.integers(4, size=50)
    np.testing.assert_allclose(softmax(z), keras.ops.softmax(z), rtol=1e-5)
    np.testing.assert_allclose(sigmoid(z), keras.ops.sigmoid(z), rtol=1e-5)
    np.testing.assert_allclose(log_sum_exp(z), keras.ops.logsumexp(z, axis=-1), rtol=1e-6)
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, z)
    np.testing.assert_allclose(cross_entropy(z, y), theirs, rtol=1e-6)
    theirs = keras.losses.BinaryCrossentropy(from_logits=True)(y > 1, z[:, 0])
    np.testing.assert_allclose(binary_cross_entropy(z[:, 0], y > 1), theirs, rtol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_gradient_and_hessian_are_those_of_finite_differences(strength):
    x, y = some(12, 3, 2)
    theta = np.array([0.3, -0.1, 0.02, 0.7])
    slope = np.append(*gradient(x, y, theta[:3], theta[3], strength))
    curve = hessian(x, theta[:3], theta[3], strength)
    for which in range(4):
        up, down = (theta + sign * 1e-5 * np.eye(4)[which] for sign in (1, -1))
        change = [penalized(x, y, t[:3], t[3], strength) for t in (up, down)]
        np.testing.assert_allclose((change[0] - change[1]) / 2e-5, slope[which], rtol=1e-6)
        change = [np.append(*gradient(x, y, t[:3], t[3], strength)) for t in (up, down)]
        np.testing.assert_allclose((change[0] - change[1]) / 2e-5, curve[which], rtol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_gradient_is_zero_at_the_fit_and_no_other_weights_do_better(strength):
    x, y = some(80, 3, 2)
    weights, bias, losses = fit_logistic(x, y, strength)
    np.testing.assert_allclose(np.append(*gradient(x, y, weights, bias, strength)), 0, atol=1e-9)
    np.testing.assert_allclose(losses[-1], penalized(x, y, weights, bias, strength), rtol=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = weights + 0.01 * rng.normal(size=3)
        assert penalized(x, y, other, bias + 0.01 * rng.normal(), strength) > losses[-1]


def test_fitted_probabilities_add_up_to_the_counts():
    x, y = some(300, 4, 3)
    weights, bias, _ = fit_softmax(x, y, strength=2.0)
    np.testing.assert_allclose(softmax(x @ weights + bias).sum(axis=0), np.bincount(y))


def test_losses_never_rise_and_the_last_steps_double_the_digits():
    x, y = some(300, 4, 3)
    *_, losses = fit_softmax(x, y, strength=0.01)
    assert np.all(np.diff(losses) <= 1e-12)
    above = losses[:-2] - losses[-1]
    assert above[-1] < 100 * above[-2] ** 2


def test_newton_halves_a_step_that_overshoots():
    # Unhalved, the fifth step would lift the loss from 0.08 to 0.85.
    x = np.array([[0.2, -2.1], [0.5, -1.2], [1.1, 0.8], [-1.2, 6.0], [2.3, 3.5], [-0.6, -29.7]])
    y = np.array([0, 0, 1, 0, 1, 0])
    weights, bias, losses = fit_logistic(x, y, 0.01)
    assert np.all(np.diff(losses) <= 1e-12)
    np.testing.assert_allclose(np.append(*gradient(x, y, weights, bias, 0.01)), 0, atol=1e-9)


def test_predictions_do_not_depend_on_units_without_penalty():
    x, y = some(100, 3, 2)
    mixed = x @ np.array([[2.0, 1, 0], [0, 0.3, 5], [1, 0, 40]]) + [5, -1, 100]
    (w, b, _), (v, c, _) = fit_logistic(x, y), fit_logistic(mixed, y)
    np.testing.assert_allclose(x @ w + b, mixed @ v + c, atol=1e-7)


def test_swapping_the_classes_turns_the_signs():
    x, y = some(100, 3, 2)
    (w, b, _), (v, c, _) = fit_logistic(x, y, 1), fit_logistic(x, 1 - y, 1)
    np.testing.assert_allclose([*w, b], [*-v, -c], atol=1e-9)


def test_two_classes_are_softmax_at_twice_the_strength():
    x, y = some(100, 3, 2)
    w, b, losses = fit_logistic(x, y, 1)
    both, level, theirs = fit_softmax(x, y, 2)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], w)
    np.testing.assert_allclose(level[1] - level[0], b)
    np.testing.assert_allclose(losses, theirs)


@pytest.mark.parametrize("strength", [0, 1])
def test_weights_and_biases_sum_to_zero_over_the_classes(strength):
    weights, bias, _ = fit_softmax(*some(100, 3, 4), strength)
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(bias.sum(), 0, atol=1e-9)


def test_a_shift_of_all_logits_changes_nothing():
    z, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    for shift in (5.0, -700.0, 1e6):
        np.testing.assert_allclose(softmax(z + shift), softmax(z), rtol=1e-9)
        np.testing.assert_allclose(log_sum_exp(z + shift), log_sum_exp(z) + shift, rtol=1e-12)
        np.testing.assert_allclose(cross_entropy(z + shift, y), cross_entropy(z, y), rtol=1e-9)


def test_large_logits_neither_overflow_nor_become_nan():
    z = np.array([-1000.0, 0, 1000])
    np.testing.assert_array_equal(sigmoid(z), [0, 0.5, 1])
    np.testing.assert_array_equal(softmax(z), [0, 0, 1])
    assert log_sum_exp(z) == 1000
    assert log_sum_exp([-1e308, -1e308]) == -1e308
    assert binary_cross_entropy([-1000.0, 1000.0], [1, 0]) == 1000
    assert cross_entropy(np.array([[0.0, 1000, 0]]), [2]) == 1000


@pytest.mark.parametrize("margin", [1, 20, 40, 700])
def test_a_small_loss_keeps_all_its_digits(margin):
    small = Fraction(np.exp(-margin))
    exact = float(small - small**2 / 2 + small**3 / 3) if margin > 1 else np.log1p(np.exp(-1))
    np.testing.assert_allclose(binary_cross_entropy([margin], [1]), exact, rtol=1e-14)
    np.testing.assert_allclose(binary_cross_entropy([-margin], [0]), exact, rtol=1e-14)
    for true in (0, 1):
        z = np.zeros((1, 2))
        z[0, true] = margin
        np.testing.assert_allclose(cross_entropy(z, [true]), exact, rtol=1e-14)


def test_a_small_probability_keeps_its_digits():
    np.testing.assert_allclose(sigmoid(-700), np.exp(-700), rtol=1e-12)


def test_lists_and_truth_values_are_taken():
    weights, bias, _ = fit_logistic(EXPOSED.tolist(), ILL.astype(bool))
    np.testing.assert_allclose(np.exp([weights[0], bias]), [9, 1 / 3])


def test_nothing_given_is_changed():
    x, y = some(50, 3, 3)
    before = x.copy(), y.copy()
    fit_softmax(x, y, 1)
    softmax(x)
    log_sum_exp(x)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_with_a_penalty_separated_and_dependent_columns_are_fitted():
    table = breast_cancer()
    x = standardize(table.x)
    assert np.isfinite(fit_logistic(x, table.y, 1e-3)[0]).all()
    assert fit_logistic([[0.0], [1], [2], [3]], [0, 0, 1, 1], 0.1)[0] > 0
    twice, *_ = fit_logistic(np.repeat(x[:, :2], 2, axis=1), table.y, 1)
    np.testing.assert_allclose(twice[0::2], twice[1::2])


SEPARATED = "strength is 0 and x separates the classes; allowed is above 0"


def test_classes_that_a_plane_separates_are_refused_without_penalty():
    table = breast_cancer()
    with pytest.raises(ValueError, match=SEPARATED):
        fit_logistic(standardize(table.x), table.y)
    with pytest.raises(ValueError, match=SEPARATED):
        fit_softmax([[0.0], [1], [2], [3], [4], [5]], [0, 0, 2, 2, 1, 1])


def test_a_column_that_decides_one_class_alone_does_not_pass_for_converged():
    x, y = [[0.0], [0], [0], [1], [1]], [0, 1, 0, 1, 1]
    with pytest.raises(ValueError, match="steps is 30, not enough; allowed is more, or a larger"):
        fit_logistic(x, y)
    assert np.isfinite(fit_logistic(x, y, 0.1)[0]).all()


def test_too_few_steps_are_named():
    with pytest.raises(ValueError, match="steps is 2, not enough"):
        fit_logistic(EXPOSED, ILL, steps=2)


def test_dependent_columns_are_refused_without_penalty():
    for extra in (EXPOSED, np.ones((8, 1))):
        with pytest.raises(ValueError, match="strength is 0 and columns of x depend on each other"):
            fit_logistic(np.column_stack([EXPOSED, extra]), ILL)


FITS = [
    fit_logistic,
    fit_softmax,
    lambda x, y: gradient(x, y, np.zeros(np.shape(x)[1:]), 0.0),
]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros(3), [0, 1, 0], r"x has shape \(3,\); allowed is \[B, D\]"),
        (np.zeros((3, 2, 1)), [0, 1, 0], r"x has shape \(3, 2, 1\); allowed is \[B, D\]"),
        (np.zeros((0, 2)), [], r"x has shape \(0, 2\); allowed is \[B, D\] with B and D at least"),
        (np.zeros((3, 0)), [0, 1, 0], r"x has shape \(3, 0\); allowed is \[B, D\]"),
        (np.zeros((3, 2)), [0, 1], r"y has shape \(2,\); allowed is \(3,\)"),
        (np.zeros((3, 2)), [[0], [1], [0]], r"y has shape \(3, 1\); allowed is \(3,\)"),
        (np.full((3, 2), np.nan), [0, 1, 0], "x has 6 values that are not finite"),
        (np.zeros((3, 2)), [0, np.nan, 1], "y has 1 values that are not finite"),
        (np.zeros((3, 2)), [0, 0.5, 1], "y holds 0.5; allowed are whole numbers from 0"),
        (np.zeros((3, 2)), [0, -1, 1], "y holds -1; allowed are whole numbers from 0"),
    ],
)
def test_bad_tables_are_refused(fit, x, y, words):
    with pytest.raises(ValueError, match=words):
        fit(x, y)


@pytest.mark.parametrize("fit", [fit_logistic, lambda x, y: gradient(x, y, np.zeros(1), 0.0)])
def test_two_classes_are_0_and_1(fit):
    with pytest.raises(ValueError, match="y holds 2; allowed are whole numbers from 0 to 1"):
        fit(EXPOSED, ILL * 2)


@pytest.mark.parametrize(
    ("fit", "y", "held"),
    [
        (fit_logistic, ILL * 0, r"\[0\]"),
        (fit_logistic, ILL * 0 + 1, r"\[1\]"),
        (fit_softmax, ILL * 0, r"\[0\]"),
        (fit_softmax, ILL * 2, r"\[0, 2\]"),
        (fit_softmax, ILL + 1, r"\[1, 2\]"),
    ],
)
def test_one_class_alone_and_gaps_are_refused(fit, y, held):
    with pytest.raises(ValueError, match=f"y holds {held}; allowed are two classes or more"):
        fit(EXPOSED, y, 1.0)


@pytest.mark.parametrize("strength", [-1, np.nan, np.inf])
def test_a_strength_is_0_or_more(strength):
    for call in (fit_logistic, fit_softmax):
        with pytest.raises(ValueError, match=f"strength is {strength}; allowed is 0 or more"):
            call(EXPOSED, ILL, strength)
    with pytest.raises(ValueError, match=f"strength is {strength}; allowed is 0 or more"):
        gradient(EXPOSED, ILL, np.zeros(1), 0.0, strength)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_sum_exp(3.0), r"z has shape \(\); allowed is \[\.\.\., K\]"),
        (lambda: softmax(np.zeros((2, 0))), r"z has shape \(2, 0\); allowed is \[\.\.\., K\]"),
        (lambda: log_sum_exp([0, np.inf]), "z has 1 values that are not finite"),
        (lambda: softmax([0, np.nan]), "z has a row whose largest entry is nan"),
        (lambda: sigmoid(["a"]), "z has dtype"),
        (lambda: binary_cross_entropy([[0.0]], [1]), r"z has shape \(1, 1\); allowed is \[B\]"),
        (lambda: binary_cross_entropy([], []), r"y has shape \(0,\); .* at least one row"),
        (lambda: binary_cross_entropy([np.nan], [1]), "z has 1 values that are not finite"),
        (lambda: binary_cross_entropy([0.0], [2]), "y holds 2; allowed .* from 0 to 1"),
        (lambda: cross_entropy([0.0, 1.0], [1]), r"z has shape \(2,\); allowed is \[B, K\]"),
        (lambda: cross_entropy([[0.0, 1.0]], [2]), "y holds 2; allowed .* from 0 to 1"),
        (lambda: cross_entropy([[0.0, 1.0]], [[0, 1]]), r"y has shape \(1, 2\); allowed is \(1,\)"),
        (lambda: hessian(EXPOSED, np.zeros(2), 0.0), r"weights has shape \(2,\) for x of shape"),
    ],
)
def test_bad_logits_labels_and_weights_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.logistic;"
        "assert not {'keras', 'tensorflow', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
