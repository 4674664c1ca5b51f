"""Linear regression equals its peers, walks where the formula says, and refuses nonsense."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from aimodels.datasets import diabetes, standardize
from aimodels.linear import (
    curvatures,
    gradient,
    gradient_descent,
    least_squares,
    mean_squared_error,
    normal_equations,
    predict,
    stable_rate,
)

SHAPES = [(2, 1), (3, 2), (10, 1), (30, 7), (442, 10), (1000, 40)]


def some(rows, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) * rng.uniform(0.1, 10, width) + 3, rng.normal(size=rows)


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


def loss_at(x, y, fit):
    return mean_squared_error(predict(x, *fit), y)


@pytest.mark.parametrize("solve", [normal_equations, least_squares])
def test_three_points_by_hand(solve):
    weights, bias = solve(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose([weights[0], bias], [3 / 2, 5 / 6], rtol=1e-12)


def test_one_step_by_hand():
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 2.0, 4.0])
    weights, bias, losses = gradient_descent(x, y, rate=0.25, steps=1)
    np.testing.assert_allclose([weights[0], bias], [5 / 3, 7 / 6])
    np.testing.assert_allclose(losses[0], (1 + 4 + 16) / 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solve", [normal_equations, least_squares])
def test_solution_is_that_of_numpy_and_scikit_learn(solve, shape):
    x, y = some(*shape)
    weights, bias = solve(x, y)
    numpy_says = np.linalg.lstsq(with_ones(x), y)[0]
    np.testing.assert_allclose([*weights, bias], numpy_says, rtol=1e-7, atol=1e-9)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(weights, theirs.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 9), (5, 5), (20, 30)])
def test_with_more_columns_than_rows_weights_are_those_of_scikit_learn(shape):
    x, y = some(*shape)
    weights, bias = least_squares(x, y)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(weights, theirs.coef_, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-7)
    np.testing.assert_allclose(predict(x, weights, bias), y, atol=1e-9)


def test_dependent_columns_give_the_predictions_of_numpy_and_the_shortest_weights():
    x, y = some(50, 4)
    x = np.column_stack([x, x[:, 0] - 2 * x[:, 1], np.full(50, 7.0)])
    weights, bias = least_squares(x, y)
    a = with_ones(x)
    np.testing.assert_allclose(predict(x, weights, bias), a @ np.linalg.lstsq(a, y)[0], atol=1e-9)
    np.testing.assert_allclose(weights, LinearRegression().fit(x, y).coef_, atol=1e-9)
    null = np.array([1.0, -2.0, 0, 0, -1.0, 0])
    np.testing.assert_allclose(weights @ null, 0, atol=1e-9)
    assert np.abs(weights[-1]) < 1e-9


def test_one_row_is_its_own_mean():
    weights, bias = least_squares([[2.0, 5.0]], [3.0])
    np.testing.assert_array_equal(weights, [0.0, 0.0])
    assert bias == 3


def test_lists_and_whole_numbers_are_taken():
    weights, bias = normal_equations([[0], [1], [2]], [5, 7, 9])
    np.testing.assert_allclose([weights[0], bias], [2, 5])


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_orthogonal_to_every_column_and_add_up_to_zero(shape):
    x, y = some(*shape)
    error = predict(x, *normal_equations(x, y)) - y
    np.testing.assert_allclose(with_ones(x).T @ error, 0, atol=1e-8 * shape[0])


def test_no_other_weights_do_better():
    x, y = some(40, 3)
    weights, bias = normal_equations(x, y)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = weights + 0.01 * rng.normal(size=3), bias + 0.01 * rng.normal()
        assert loss_at(x, y, other) > loss_at(x, y, (weights, bias))


def test_predictions_do_not_depend_on_units():
    x, y = some(40, 3)
    mixed = x @ np.array([[2.0, 1, 0], [0, 0.3, 5], [1, 0, 40]]) + [5, -1, 100]
    np.testing.assert_allclose(
        predict(x, *normal_equations(x, y)), predict(mixed, *normal_equations(mixed, y)), atol=1e-9
    )


def test_the_gradient_is_that_of_finite_differences():
    x, y = some(12, 3)
    weights, bias = np.array([0.3, -1.0, 2.0]), 0.7
    by_weights, by_bias = gradient(x, y, weights, bias)
    for which in range(4):
        nudge = 1e-5 * np.eye(4)[which]
        up = loss_at(x, y, (weights + nudge[:3], bias + nudge[3]))
        down = loss_at(x, y, (weights - nudge[:3], bias - nudge[3]))
        slope = [*by_weights, by_bias][which]
        np.testing.assert_allclose((up - down) / 2e-5, slope, rtol=1e-6)


def test_the_gradient_is_zero_at_the_solution():
    x, y = some(40, 3)
    by_weights, by_bias = gradient(x, y, *normal_equations(x, y))
    np.testing.assert_allclose([*by_weights, by_bias], 0, atol=1e-10)


def test_gradient_descent_reaches_the_normal_equations():
    table = diabetes()
    x = standardize(table.x)
    weights, bias, losses = gradient_descent(x, table.y, 0.9 * stable_rate(x), steps=6000)
    exact = normal_equations(x, table.y)
    np.testing.assert_allclose([*weights, bias], [*exact[0], exact[1]], atol=1e-6)
    assert losses.shape == (6001,)
    np.testing.assert_allclose(losses[-1], loss_at(x, table.y, exact))


def test_gradient_descent_from_zero_finds_the_shortest_of_many_solutions():
    x, y = some(5, 8)
    x = standardize(x)
    weights, bias, losses = gradient_descent(x, y, 0.9 * stable_rate(x), steps=3000)
    expected = np.linalg.lstsq(with_ones(x), y)[0]
    np.testing.assert_allclose([*weights, bias], expected, atol=1e-8)
    assert losses[-1] < 1e-15


def test_a_walk_can_be_continued():
    x, y = some(20, 2)
    rate = 0.5 * stable_rate(x)
    *half, first = gradient_descent(x, y, rate, 5)
    *end, second = gradient_descent(x, y, rate, 5, start=half)
    *whole, losses = gradient_descent(x, y, rate, 10)
    np.testing.assert_array_equal([*end[0], end[1]], [*whole[0], whole[1]])
    np.testing.assert_array_equal(np.append(first, second[1:]), losses)


def test_no_steps_change_nothing():
    x, y = some(20, 2)
    weights, bias, losses = gradient_descent(x, y, 0.1, 0, start=(np.ones(2), 2.0))
    assert (*weights, bias) == (1, 1, 2)
    assert len(losses) == 1


@pytest.mark.parametrize("shape", [(10, 1), (30, 7), (442, 10)])
def test_losses_fall_below_the_stable_rate_and_rise_above(shape):
    x, y = some(*shape)
    *_, below = gradient_descent(x, y, 0.99 * stable_rate(x), 400)
    assert np.all(np.diff(below) <= 1e-9 * below[0])
    *_, above = gradient_descent(x, y, 1.02 * stable_rate(x), 400)
    assert above[-1] > above[-2] > below[-1]


def test_one_standardized_column_takes_a_single_step():
    table = diabetes()
    x = standardize(table.x[:, 2:3])
    np.testing.assert_allclose(curvatures(x), [2, 2])
    weights, bias, _ = gradient_descent(x, table.y, rate=0.5, steps=1)
    exact = normal_equations(x, table.y)
    np.testing.assert_allclose([weights[0], bias], [exact[0][0], exact[1]])


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (50, 4)])
def test_curvatures_are_the_eigenvalues_of_the_second_derivative(shape):
    x, _ = some(*shape)
    a = with_ones(x)
    expected = np.linalg.eigvalsh(2 / len(x) * a.T @ a)
    np.testing.assert_allclose(curvatures(x), expected, atol=1e-11 * expected[-1])
    assert np.all(curvatures(x) >= 0)


def test_least_squares_keeps_digits_that_the_normal_equations_lose():
    bmi = diabetes().x[:, 2:3]
    x = np.column_stack([bmi, bmi + 1e-7 * np.random.default_rng(0).normal(size=bmi.shape)])
    truth = predict(x, np.array([3.0, 2.0]), 1.0)
    weights, _ = least_squares(x, truth)
    np.testing.assert_allclose(weights, [3, 2], atol=1e-4)
    squared, _ = normal_equations(x, truth)
    assert np.abs(squared - [3, 2]).max() > 1e-2


@pytest.mark.parametrize(
    ("x", "rank", "allowed"),
    [
        (np.column_stack([np.arange(9.0), 2 * np.arange(9.0)]), 2, 3),
        (np.column_stack([np.arange(9.0), np.ones(9)]), 2, 3),
        (np.ones((1, 1)), 1, 2),
        (np.arange(6.0).reshape(2, 3), 2, 4),
    ],
)
def test_normal_equations_refuse_dependent_columns(x, rank, allowed):
    with pytest.raises(ValueError, match=f"has rank {rank}; allowed is {allowed}"):
        normal_equations(x, np.ones(len(x)))


SOLVERS = [
    normal_equations,
    least_squares,
    lambda x, y: gradient_descent(x, y, 0.1, 1),
    lambda x, y: gradient(x, y, np.zeros(2), 0.0),
]


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros(3), np.zeros(3), r"x has shape \(3,\); allowed is \[B, D\]"),
        (np.zeros((3, 2, 1)), np.zeros(3), r"x has shape \(3, 2, 1\); allowed is \[B, D\]"),
        (np.zeros((0, 2)), np.zeros(0), r"x has shape \(0, 2\); allowed is \[B, D\]"),
        (np.zeros((3, 0)), np.zeros(3), r"x has shape \(3, 0\); allowed is \[B, D\]"),
        (np.zeros((3, 2)), np.zeros(4), r"y has shape \(4,\); allowed is \(3,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1)), r"y has shape \(3, 1\); allowed is \(3,\)"),
        (np.full((3, 2), np.nan), np.zeros(3), "x has 6 values that are not finite"),
        (np.zeros((3, 2)), np.array([0, np.inf, 0]), "y has 1 values that are not finite"),
    ],
)
def test_bad_tables_are_refused(solve, x, y, words):
    with pytest.raises(ValueError, match=words):
        solve(x, y)


@pytest.mark.parametrize("rate", [0, -0.1, np.nan])
def test_a_rate_must_be_above_zero(rate):
    with pytest.raises(ValueError, match=f"rate is {rate}; allowed is a number above 0"):
        gradient_descent(np.zeros((3, 2)), np.zeros(3), rate, 1)


def test_steps_may_not_be_negative():
    with pytest.raises(ValueError, match="steps is -1; allowed is 0 or more"):
        gradient_descent(np.zeros((3, 2)), np.zeros(3), 0.1, -1)


def test_weights_must_fit_the_table():
    with pytest.raises(ValueError, match=r"weights has shape \(3,\) for x of shape \(4, 2\)"):
        predict(np.zeros((4, 2)), np.zeros(3), 0.0)


def test_predictions_and_targets_must_have_one_shape():
    with pytest.raises(ValueError, match=r"predicted has shape \(3, 1\); allowed is .*\(3,\)"):
        mean_squared_error(np.zeros((3, 1)), np.zeros(3))


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.linear;"
        "assert not {'keras', 'tensorflow', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
