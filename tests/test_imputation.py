import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest

from aimodels.datasets import breast_cancer, diabetes, standardize
from aimodels.imputation import (
    complete_rows,
    fill_columns,
    fill_gaussian,
    fill_neighbours,
    fill_regressions,
    gap_chance,
    gap_distances,
    gaussian,
    pool,
    with_gaps,
    with_indicator,
)

pytest.importorskip("sklearn.experimental.enable_iterative_imputer")
impute = pytest.importorskip("sklearn.impute")
metrics = pytest.importorskip("sklearn.metrics.pairwise")
linear_model = pytest.importorskip("sklearn.linear_model")
stats = pytest.importorskip("scipy.stats")

nan = np.nan
SHAPES = [(5, 1), (6, 2), (20, 3), (60, 5), (200, 8), (30, 20)]  # rows, columns


def rng(seed=0):
    return np.random.default_rng(seed)


def some(rows, columns, share, seed=0):
    """Correlated columns in different units, with gaps, and a value in each column."""
    draws = rng(seed)
    x = draws.normal(size=(rows, 2)) @ draws.normal(size=(2, columns))
    x += draws.normal(size=x.shape)
    x = x * draws.uniform(0.5, 3, size=columns) + 10 * draws.normal(size=columns)
    table = with_gaps(x, share, draws)
    table[: 2 + rows // 4] = x[: 2 + rows // 4]
    return draws.permutation(table)


def pairs(rows, columns, seed):
    return some(rows, columns, 0.3, seed), some(rows, columns, 0.4, seed)[::2]


def by_iterative_imputer(train, x, rounds, strength):
    peer = impute.IterativeImputer(
        linear_model.Ridge(alpha=strength), max_iter=rounds, tol=0, keep_empty_features=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return peer.fit(train).transform(x)


# --- How gaps come about ---------------------------------------------------------------------


@pytest.mark.parametrize("slope", [-3.0, 0.0, 0.5, 20.0])
@pytest.mark.parametrize("rate", [0.001, 0.2, 0.5, 0.97])
def test_chances_have_the_rate_as_their_mean_and_the_slope_in_their_log_odds(rate, slope):
    driver = rng().gamma(2, 3, size=500)
    chance = gap_chance(driver, rate, slope)
    np.testing.assert_allclose(chance.mean(), rate, rtol=1e-9)
    inside = (chance > 1e-9) & (chance < 1 - 1e-9)
    odds = np.log(chance[inside] / (1 - chance[inside]))
    u = ((driver - driver.mean()) / driver.std())[inside]
    np.testing.assert_allclose(odds - slope * u, np.mean(odds - slope * u), atol=1e-6)


def test_a_driver_that_is_constant_decides_nothing():
    np.testing.assert_allclose(gap_chance(np.full(4, 7.0), 0.3, 5), 0.3)


def test_gaps_come_at_their_rate_and_leave_the_other_values():
    x = rng().normal(size=(20_000, 3))
    chance = np.stack([np.zeros(20_000), gap_chance(x[:, 0], 0.3, 2), np.ones(20_000)], axis=1)
    table = with_gaps(x, chance, rng(1))
    gap = np.isnan(table)
    np.testing.assert_array_equal(table[~gap], x[~gap])
    assert not gap[:, 0].any()
    assert gap[:, 2].all()
    assert abs(gap[:, 1].mean() - 0.3) < 4 * np.sqrt(0.21 / 20_000)
    for low in np.arange(-2, 2):  # and as often as was said, wherever the driver is
        rows = (x[:, 0] > low) & (x[:, 0] < low + 1)
        error = 4 * np.sqrt(0.25 / rows.sum())
        assert abs(gap[rows, 1].mean() - chance[rows, 1].mean()) < error
    assert not np.isnan(x).any()


def test_gaps_by_another_column_depend_on_the_column_only_through_it():
    draws = rng()
    driver = draws.normal(size=40_000)
    values = driver + draws.normal(size=40_000)
    gap = draws.random(40_000) < gap_chance(driver, 0.4, 2)
    rest = values - driver
    assert abs(rest[gap].mean() - rest[~gap].mean()) < 4 * np.sqrt(1 / 16_000 + 1 / 24_000)
    assert values[gap].mean() - values[~gap].mean() > 0.5


def test_the_bias_of_deletion_is_minus_the_covariance_with_the_chance_by_the_share_kept():
    y = standardize(diabetes().y[:, None])[:, 0]
    chance = gap_chance(y, 0.4, 2)
    weights = 1 - chance  # the expected number of times that a row is kept
    expected = weights @ y / weights.sum() - y.mean()
    np.testing.assert_allclose(expected, -np.cov(chance, y, ddof=0)[0, 1] / 0.6)


# --- Deletion and columns --------------------------------------------------------------------


def test_complete_rows_by_hand():
    np.testing.assert_array_equal(complete_rows([[1, 2], [nan, 2], [3, 4], [5, nan]]), [0, 2])
    np.testing.assert_array_equal(complete_rows([[1, 2]]), [0])


def test_means_and_medians_by_hand():
    table = [[1, nan], [2, 8], [9, 4], [nan, 0]]
    np.testing.assert_array_equal(fill_columns(table), [[1, 4], [2, 8], [9, 4], [4, 0]])
    np.testing.assert_array_equal(fill_columns(table, by="median")[3], [2, 0])
    np.testing.assert_array_equal(fill_columns([[nan, nan]], table), [[4, 4]])


@pytest.mark.parametrize("by", ["mean", "median"])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_columns_are_filled_as_by_simple_imputer(rows, columns, by):
    train, x = pairs(rows, columns, 1)
    peer = impute.SimpleImputer(strategy=by).fit(train)
    np.testing.assert_allclose(fill_columns(x, train, by), peer.transform(x), rtol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_the_indicator_is_that_of_scikit_learn(rows, columns):
    train, x = pairs(rows, columns, 2)
    train[:, 0] = 1.0  # no gap in train: no indicator, even if x has gaps there
    peer = impute.SimpleImputer(add_indicator=True).fit(train)
    ours = with_indicator(fill_columns(x, train), x, train)
    np.testing.assert_allclose(ours, peer.transform(x), rtol=1e-12)


# --- Neighbours ------------------------------------------------------------------------------


def test_distances_by_hand():
    found = gap_distances([[0, 0, nan, 1], [nan, nan, 3, nan]], [[3, 4, 9, nan], [1, nan, nan, 2]])
    np.testing.assert_allclose(found, [[np.sqrt(2 * 25), 2], [12, nan]])


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_distances_are_those_of_scikit_learn(rows, columns):
    train, x = pairs(rows, columns, 3)
    x[0] = nan
    theirs = metrics.nan_euclidean_distances(x, train)
    np.testing.assert_allclose(gap_distances(x, train), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 3, 1000])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_gaps_are_filled_as_by_knn_imputer(rows, columns, neighbours):
    for seed in range(3):
        train, x = pairs(rows, columns, seed)
        x[0] = nan
        peer = impute.KNNImputer(n_neighbors=neighbours).fit(train)
        ours = fill_neighbours(x, train, neighbours)
        np.testing.assert_allclose(ours, peer.transform(x), rtol=1e-9)
        ours = fill_neighbours(train, neighbours=neighbours)
        np.testing.assert_allclose(ours, peer.fit_transform(train), rtol=1e-9)


def test_of_tied_neighbours_the_first_are_taken():
    train = [[0, 5], [0, 1], [0, 9], [7, 100]]
    assert fill_neighbours([[0, nan]], train, 1)[0, 1] == 5
    assert fill_neighbours([[0, nan]], train, 2)[0, 1] == 3
    assert fill_neighbours([[7, nan]], train, 3)[0, 1] == 106 / 3


def test_tied_cells_are_filled_from_rows_that_are_nearest_and_so_does_scikit_learn():
    draws, kinds = rng(), 0
    for _ in range(20):
        train = with_gaps(draws.integers(3, size=(9, 3)), 0.2, draws)
        train[0] = 1
        x = with_gaps(draws.integers(3, size=(6, 3)), 0.4, draws)
        ours = fill_neighbours(x, train, 3)
        theirs = impute.KNNImputer(n_neighbors=3).fit(train).transform(x)
        away = gap_distances(x, train)
        for row, d in np.argwhere(np.isnan(x)):
            donors = np.flatnonzero(~np.isnan(train[:, d]) & ~np.isnan(away[row]))
            if len(donors) < 3:
                continue
            best = np.sort(away[row, donors])[:3].sum()
            allowed = [
                train[list(three), d].mean()
                for three in itertools.combinations(donors, 3)
                if np.isclose(away[row, list(three)].sum(), best)
            ]
            kinds = max(kinds, len(set(allowed)))
            assert np.isclose(allowed, ours[row, d]).any()
            assert np.isclose(allowed, theirs[row, d]).any()
    assert kinds > 3  # there were ties that matter


def test_a_row_that_shares_no_column_with_another_gets_the_mean():
    table = np.array([[1, nan], [nan, 4], [nan, 6], [3, nan]])
    np.testing.assert_array_equal(fill_neighbours(table), [[1, 5], [2, 4], [2, 6], [3, 5]])
    np.testing.assert_array_equal(fill_neighbours(table), impute.KNNImputer().fit_transform(table))


def test_rows_without_a_distance_are_no_neighbours_even_if_others_are_too_few():
    table = np.array([[1, nan, 2], [1, 8, nan], [nan, 100, nan], [5, 9, 2]])
    filled = fill_neighbours(table, neighbours=3)
    assert filled[0, 1] == 8.5
    np.testing.assert_array_equal(filled, impute.KNNImputer(n_neighbors=3).fit_transform(table))


# --- Regressions -----------------------------------------------------------------------------


def test_a_gap_on_a_line_is_filled_from_the_line():
    table = [[1, 3], [2, 5], [3, 7], [4, nan]]
    filled = fill_regressions(table, strength=1e-12)
    np.testing.assert_allclose(filled[3], [4, 9], rtol=1e-9)


@pytest.mark.parametrize(("rounds", "strength"), [(1, 1.0), (3, 0.01), (10, 30.0)])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_rounds_of_ridge_regressions_are_those_of_iterative_imputer(
    rows, columns, rounds, strength
):
    for seed in range(3):
        train, x = pairs(rows, columns, seed)
        ours = fill_regressions(x, train, rounds, strength)
        theirs = by_iterative_imputer(train, x, rounds, strength)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
        ours = fill_regressions(train, rounds=rounds, strength=strength)
        np.testing.assert_allclose(
            ours, by_iterative_imputer(train, train, rounds, strength), rtol=1e-8, atol=1e-8
        )


def test_columns_are_taken_in_the_order_of_their_gaps():
    table = some(40, 3, 0.0)
    table[:20, 0], table[18:23, 1], table[20:30, 2] = nan, nan, nan
    ours = fill_regressions(table, rounds=1)
    np.testing.assert_allclose(ours, by_iterative_imputer(table, table, 1, 1.0), rtol=1e-9)
    swapped = fill_regressions(table[:, [2, 0, 1]], rounds=1)
    np.testing.assert_allclose(ours, swapped[:, [1, 2, 0]], rtol=1e-9)


def test_columns_without_gaps_in_train_are_filled_where_x_has_them():
    train, x = some(30, 3, 0.0), some(8, 3, 0.5, 4)
    theirs = by_iterative_imputer(train, x, 4, 1.0)
    np.testing.assert_allclose(fill_regressions(x, train, 4), theirs, rtol=1e-8)


def test_draws_come_from_the_posterior_distribution():
    """Two columns, known σ-free theory: a new value is t-distributed around the line."""
    draws = rng()
    a = draws.normal(size=12)
    b = 2 * a + draws.normal(size=12)
    train = np.column_stack([a, b])
    x = np.column_stack([np.full(40_000, 3.0), np.full(40_000, nan)])
    drawn = np.array([fill_regressions(x[:1], train, 1, 1e-9, draws)[0, 1] for _ in range(4000)])
    slope, bias = np.polyfit(a, b, 1)
    rest = np.sum((b - bias - slope * a) ** 2) / 10
    spread = np.sqrt(rest * (1 + 1 / 12 + (3 - a.mean()) ** 2 / np.sum((a - a.mean()) ** 2)))
    theory = stats.t(10, loc=bias + 3 * slope, scale=spread)
    assert stats.kstest(drawn, theory.cdf).pvalue > 0.01


class Given:
    """Draws the mean of χ², the given numbers for the weights and for the level, and no noise."""

    def __init__(self, weights, level):
        self.weights, self.level = weights, level

    def chisquare(self, freedom):
        return freedom

    def normal(self, size=None):
        if size is None:
            return self.level
        return np.array(self.weights) if size == len(self.weights) else np.zeros(size)


def test_what_a_draw_adds_to_weights_and_level_by_hand():
    draws = rng()
    a = draws.normal(size=(9, 2)) @ [[1, 0.8], [0, 0.5]]  # two inputs that go together
    y = a @ [1, 2] + draws.normal(size=9)
    train, x = np.column_stack([a, y]), np.array([[3.0, -1, nan]])
    away = a - a.mean(axis=0)
    gram = away.T @ away
    line = np.linalg.lstsq(away, y - y.mean(), rcond=None)[0]
    noise = np.sqrt(np.sum((y - y.mean() - away @ line) ** 2) / 6)
    point = x[0, :2] - a.mean(axis=0)
    middle = y.mean() + point @ line

    def drawn(weights, level):
        return fill_regressions(x, train, 1, 1e-12, Given(weights, level))[0, 2] - middle

    np.testing.assert_allclose(drawn([0, 0], 0), 0, atol=1e-9)
    np.testing.assert_allclose(drawn([0, 0], 1), noise / 3)
    spread = drawn([1, 0], 0) ** 2 + drawn([0, 1], 0) ** 2
    np.testing.assert_allclose(spread, noise**2 * point @ np.linalg.solve(gram, point))


def test_one_call_draws_the_weights_once_and_the_noise_for_each_row():
    draws = rng()
    a = draws.normal(size=50)
    train = np.column_stack([a, a + draws.normal(size=50)])
    x = np.column_stack([np.repeat([-9.0, 9.0], 5000), np.full(10_000, nan)])
    low, high = np.split(fill_regressions(x, train, 1, 1e-9, draws)[:, 1], 2)
    rest = np.std(train[:, 1] - np.polyval(np.polyfit(a, train[:, 1], 1), a))
    for part in (low, high):
        assert 0.7 * rest < part.std() < 1.4 * rest
    assert abs(np.corrcoef(low, high)[0, 1]) < 0.06


# --- The Gaussian ----------------------------------------------------------------------------


def test_without_gaps_the_gaussian_is_mean_and_covariance_and_the_likelihood_is_that_of_scipy():
    x = some(50, 3, 0.0)
    fit = gaussian(x)
    np.testing.assert_allclose(fit.mean, x.mean(axis=0))
    np.testing.assert_allclose(fit.covariance, np.cov(x.T, ddof=0))
    total = stats.multivariate_normal(fit.mean, fit.covariance).logpdf(x).sum()
    np.testing.assert_allclose(fit.likelihoods[-1], total)
    assert fit.settled


def likelihood(x, mean, covariance):
    total = 0.0
    for row in x:
        seen = np.flatnonzero(~np.isnan(row))
        if len(seen):
            part = stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
            total += part.logpdf(row[seen])
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "columns"), [(20, 2), (40, 3), (60, 5)])
def test_the_likelihood_is_that_of_what_is_seen_and_never_falls(rows, columns, seed):
    x = some(rows, columns, 0.4, seed)
    x[0] = nan  # a row without values says nothing
    fit = gaussian(x, tolerance=1e-11)
    np.testing.assert_allclose(fit.likelihoods[-1], likelihood(x, fit.mean, fit.covariance))
    assert np.diff(fit.likelihoods).min() > -1e-9
    assert fit.settled
    assert np.linalg.eigvalsh(fit.covariance).min() > 0


def test_where_em_ends_no_change_of_mean_or_covariance_raises_the_likelihood():
    x = some(40, 3, 0.4, 1)
    fit = gaussian(x, steps=20_000, tolerance=1e-14)
    top = likelihood(x, fit.mean, fit.covariance)
    draws = rng()
    for _ in range(30):
        step = draws.normal(size=3) * np.sqrt(fit.covariance.diagonal())
        assert likelihood(x, fit.mean + 0.01 * step, fit.covariance) < top
        twist = np.eye(3) + 0.01 * draws.normal(size=(3, 3))
        assert likelihood(x, fit.mean, twist @ fit.covariance @ twist.T) < top
    for k in range(3):  # and the slope is zero
        step = 1e-4 * np.eye(3)[k] * np.sqrt(fit.covariance[k, k])
        ends = [likelihood(x, fit.mean + s * step, fit.covariance) for s in (1, -1)]
        assert abs(ends[0] - ends[1]) < 1e-6


def test_gaps_in_one_column_have_a_closed_form():
    """Anderson's factored likelihood: the line from the seen rows, the rest from all."""
    x = some(80, 2, 0.0, 3)
    x[:30, 1] = nan
    fit = gaussian(x, steps=10_000, tolerance=1e-14)
    a, b = x[30:].T
    slope, _ = np.polyfit(a, b, 1)
    moved = x[:, 0].mean() - a.mean()
    np.testing.assert_allclose(fit.mean[1], b.mean() + slope * moved, rtol=1e-6)
    spread = b.var() + slope**2 * (x[:, 0].var() - a.var())
    np.testing.assert_allclose(fit.covariance[1, 1], spread, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance[0, 1], slope * x[:, 0].var(), rtol=1e-5)


def test_a_run_cut_short_says_so():
    fit = gaussian(some(60, 4, 0.4), steps=2, tolerance=0)
    assert len(fit.likelihoods) == 3
    assert not fit.settled


def test_a_gaussian_fills_a_gap_by_its_mean_given_the_row():
    covariance = [[4.0, 2, 0], [2, 9, 1], [0, 1, 1]]
    filled = fill_gaussian([[3, nan, nan], [nan, nan, nan], [3, 5, 7]], [1, 2, 3], covariance)
    np.testing.assert_allclose(filled, [[3, 3, 3], [1, 2, 3], [3, 5, 7]])
    filled = fill_gaussian([[nan, 11, 3]], [1, 2, 3], covariance)[0, 0]
    weights = np.linalg.solve([[9, 1], [1, 1]], [2, 0])
    np.testing.assert_allclose(filled, 1 + weights @ [9, 0])


def test_em_knows_the_truth_where_gaps_depend_on_what_is_seen():
    draws = rng()
    a = draws.normal(size=20_000)
    whole = np.column_stack([a, 3 + 2 * a + draws.normal(size=20_000)])
    chance = np.column_stack([np.zeros(20_000), gap_chance(a, 0.4, 2)])
    fit = gaussian(with_gaps(whole, chance, draws), tolerance=1e-8)
    np.testing.assert_allclose(fit.mean, [0, 3], atol=0.06)
    np.testing.assert_allclose(fit.covariance, [[1, 2], [2, 5]], atol=0.15)
    deleted = whole[complete_rows(with_gaps(whole, chance, draws))]
    assert deleted[:, 1].mean() < 2.2


# --- Rubin's rules ---------------------------------------------------------------------------


def test_pooling_by_hand():
    pooled = pool([1.0, 2, 3], [0.5, 0.5, 2])
    assert (pooled.estimate, pooled.within, pooled.between) == (2, 1, 1)
    np.testing.assert_allclose(pooled.variance, 1 + 4 / 3)
    np.testing.assert_allclose(pooled.freedom, 2 * (1 + 3 / 4) ** 2)


def test_tables_that_agree_leave_the_variance_of_a_complete_table():
    pooled = pool([2.0, 2, 2], [0.5, 0.5, 0.5])
    assert pooled.variance == 0.5
    assert pooled.freedom == np.inf
    assert np.isfinite(stats.t.ppf(0.975, pooled.freedom))


def test_intervals_from_many_draws_cover_and_those_from_one_do_not():
    hits = {1: [], 10: []}
    for seed in range(250):
        draws = rng(seed)
        a = draws.normal(size=60)
        whole = np.column_stack([a, a + draws.normal(size=60)])
        chance = np.column_stack([np.zeros(60), gap_chance(a, 0.5, 1)])
        table = with_gaps(whole, chance, draws)
        drawn = [fill_regressions(table, None, 1, 1e-6, draws)[:, 1] for _ in range(10)]
        means, errors = zip(*((d.mean(), d.var(ddof=1) / 60) for d in drawn), strict=True)
        pooled = pool(means, errors)
        for many, mean, variance, freedom in (
            (1, means[0], errors[0], 59),
            (10, pooled.estimate, pooled.variance, pooled.freedom),
        ):
            reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
            hits[many].append(abs(mean) < reach)
    assert np.mean(hits[10]) > 0.91
    assert np.mean(hits[1]) < 0.85


# --- All of them -----------------------------------------------------------------------------

FILLS = {
    "mean": fill_columns,
    "neighbours": fill_neighbours,
    "regressions": fill_regressions,
    "draws": lambda *tables: fill_regressions(*tables, rng=rng()),
}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_values_stay_and_gaps_go_and_the_arguments_are_not_changed(fill):
    train, x = pairs(60, 5, 1)
    kept, rows = x.copy(), train.copy()
    filled = fill(x, train)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(train, rows)


@pytest.mark.parametrize("fill", [FILLS[name] for name in ("mean", "neighbours", "regressions")])
def test_nothing_is_learned_from_rows_that_are_filled(fill):
    train, x = pairs(60, 5, 1)
    alone = np.vstack([fill(row[None], train) for row in x])
    np.testing.assert_allclose(fill(x, train), alone, rtol=1e-9)


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_a_table_without_gaps_comes_back_and_whole_numbers_are_taken(fill):
    table = rng().integers(9, size=(12, 3))
    np.testing.assert_array_equal(fill(table), table)
    assert fill(table).dtype == float


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_one_column_is_filled(fill):
    filled = fill([[1.0], [3], [nan], [5]])
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[[0, 1, 3], 0], [1, 3, 5])


def test_better_fills_have_smaller_errors_on_breast_cancer():
    whole = standardize(breast_cancer().x)
    table = with_gaps(whole, 0.2, rng())
    gap = np.isnan(table)
    mean, near, line = (
        np.sqrt(np.mean((fill(table) - whole)[gap] ** 2))
        for fill in (fill_columns, fill_neighbours, fill_regressions)
    )
    assert line < 0.7 * near < 0.7 * 0.7 * mean


TABLE = [[1, nan, 4], [2, 3, 5], [nan, 1, 0], [4, 4, 4]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: gap_chance([1, nan], 0.3, 1), "driver has 1 gaps; allowed is none"),
        (lambda t: gap_chance([1, 2], 0, 1), "rate is 0; allowed are numbers above 0 and below 1"),
        (lambda t: gap_chance([1, 2], 1.0, 1), "rate is 1.0; allowed are numbers above 0"),
        (lambda t: gap_chance([1, 2], nan, 1), "rate is nan; allowed are numbers above 0"),
        (lambda t: gap_chance([1, 2], 0.5, np.inf), "slope is inf; allowed are numbers"),
        (lambda t: gap_chance([], 0.5, 1), r"driver has shape \(0, 1\); allowed is two axes"),
        (lambda t: with_gaps(t, 1.5, rng()), "chance holds 1.5 to 1.5; allowed are 0 to 1"),
        (lambda t: with_gaps(t, -0.5, rng()), "chance holds -0.5 to -0.5; allowed are 0 to 1"),
        (lambda t: with_gaps(t, nan, rng()), "chance holds nan to nan; allowed are 0 to 1"),
        (lambda t: complete_rows(t[:1]), "x has no complete row; allowed is at least one"),
        (lambda t: fill_columns(t, by="mode"), "by is 'mode'; allowed are 'mean' and 'median'"),
        (lambda t: fill_columns(t[:1]), r"x has no value in columns \[1\]; allowed is one or more"),
        (lambda t: fill_columns(t, t[:1]), r"train has no value in columns \[1\]; allowed is one"),
        (lambda t: fill_columns(t, [[1.0, 2]]), r"train has shape \(1, 2\); allowed is \[any, 3\]"),
        (lambda t: fill_columns([["a"]]), "x has dtype <U1; allowed are real numbers, NaN for"),
        (lambda t: fill_columns([[None]]), "x has dtype object; allowed are real numbers"),
        (lambda t: fill_columns([[1j]]), "x has dtype complex128; allowed are real numbers"),
        (lambda t: fill_columns([1.0]), r"x has shape \(1,\); allowed is two axes, neither empty"),
        (lambda t: fill_columns(np.ones((0, 2))), r"x has shape \(0, 2\); allowed is two axes"),
        (lambda t: fill_columns([[-np.inf]]), r"x holds -inf; allowed are numbers up to 1e\+140"),
        (lambda t: fill_columns([[1e141]]), r"x holds 1e\+141; allowed are numbers up to 1e\+140"),
        (lambda t: fill_columns(t, [[np.inf] * 3]), "train holds inf; allowed are numbers up to"),
        (lambda t: with_indicator(t, t), "filled has 2 gaps; allowed is none"),
        (
            lambda t: with_indicator([[1.0]], t),
            r"filled has shape \(1, 1\); allowed is .* \(4, 3\)",
        ),
        (lambda t: gap_distances(t, [[1.0]]), r"train has shape \(1, 1\); allowed is \[any, 3\]"),
        (lambda t: fill_neighbours(t, neighbours=0), "neighbours is 0; allowed are whole numbers"),
        (lambda t: fill_neighbours(t, neighbours=2.5), "neighbours is 2.5; allowed are whole"),
        (lambda t: fill_neighbours(t, neighbours=nan), "neighbours is nan; allowed are whole"),
        (lambda t: fill_neighbours(t[:1]), r"x has no value in columns \[1\]; allowed is one"),
        (lambda t: fill_regressions(t, rounds=0), "rounds is 0; allowed are whole numbers from 1"),
        (lambda t: fill_regressions(t, strength=0), "strength is 0; allowed is above 0"),
        (lambda t: fill_regressions(t, strength=nan), "strength is nan; allowed is above 0"),
        (lambda t: fill_regressions(t, rng=rng()), "has 3 values for 3 weights; allowed are 4 or"),
        (lambda t: fill_regressions(t[:1]), r"x has no value in columns \[1\]; allowed is one"),
        (lambda t: gaussian(t, steps=0), "steps is 0; allowed are whole numbers from 1"),
        (lambda t: gaussian(t[:1]), r"x has no value in columns \[1\]; allowed is one or more"),
        (lambda t: gaussian([[1.0, 2], [1, 3]]), "covariance is singular; allowed are columns"),
        (lambda t: gaussian([[1.0, 2], [2, 4], [3, 6]]), "covariance is singular; allowed are"),
        (lambda t: fill_gaussian(t, [0.0], np.eye(3)), r"shapes \(1,\) and \(3, 3\); .* \(3,\)"),
        (lambda t: fill_gaussian(t, [0.0] * 3, np.eye(2)), r"shapes \(3,\) and \(2, 2\)"),
        (lambda t: fill_gaussian(t, [0.0] * 3, -np.eye(3)), "covariance is singular; allowed are"),
        (lambda t: pool([1.0], [1.0]), r"shapes \(1,\) and \(1,\); allowed is \[M\] for both"),
        (lambda t: pool([1.0, 2], [1.0]), r"shapes \(2,\) and \(1,\); allowed is \[M\] for both"),
        (lambda t: pool([1.0, nan], [1.0, 1]), "estimates or variances hold NaN, inf or"),
        (lambda t: pool([1.0, 2], [1.0, 0]), "hold NaN, inf or a variance of 0 or less"),
    ],
)
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(TABLE)


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.imputation;"
        "assert not {'keras', 'tensorflow', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
