"""Why we believe aimodels.monitoring."""

import json
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from scipy import special, stats

from aimodels.monitoring import (
    Registry,
    cusum,
    gain,
    kolmogorov,
    ks_block_test,
    ks_statistic,
    ks_test,
    median_width,
    mmd_squared,
    mmd_test,
    psi,
)

SIZES = [(1, 1), (1, 6), (7, 1), (3, 5), (8, 8), (40, 60), (250, 60), (301, 500)]


def samples(n, m, seed=0, step=None):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(0.3, 1.2, m)
    return (a, b) if step is None else (np.round(a / step), np.round(b / step))


# --- Kolmogorov–Smirnov ------------------------------------------------------------------------


def test_two_samples_by_hand():
    test = ks_test([1, 2], [3, 4, 5])  # apart: 2 of the 10 deals are
    assert test.statistic == 1
    assert test.p == pytest.approx(0.2, abs=1e-15)
    assert ks_statistic([1, 2, 3], [2, 3, 4]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("step", [None, 1.0, 0.2])
def test_gap_and_p_are_those_of_scipy(n, m, step):
    a, b = samples(n, m, n, step)
    theirs = stats.ks_2samp(a, b, method="exact")
    ours = ks_test(a, b, ties=False)
    assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-14)
    assert ks_statistic(a, b) == pytest.approx(theirs.statistic, abs=1e-14)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-10)
    if step is None:
        assert ks_test(a, b) == ours


def test_a_tiny_p_keeps_its_digits():
    a, b = np.arange(200.0), np.arange(200.0) + 150
    theirs = stats.ks_2samp(a, b, method="exact").pvalue
    assert theirs < 1e-50
    assert ks_test(a, b, ties=False).p == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_with_ties_p_counts_all_deals(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, 5), rng.integers(1, 5, 4)
    pooled, found = np.append(a, b), ks_statistic(a, b)
    reach = []
    for deal in combinations(range(9), 5):
        own = np.isin(np.arange(9), deal)
        reach.append(ks_statistic(pooled[own], pooled[~own]) >= found - 1e-12)
    assert ks_test(a, b).p == pytest.approx(np.mean(reach), abs=1e-14)
    assert ks_test(a, b).p <= ks_test(a, b, ties=False).p + 1e-14


def test_equal_samples_have_no_gap_and_p_1():
    for a in (np.arange(5), np.ones(5)):
        assert ks_test(a, a) == pytest.approx((0.0, 1.0), abs=1e-14)
        assert ks_test(a, a).p <= 1


def test_only_the_order_of_values_counts():
    a, b = samples(30, 20)
    assert ks_test(np.exp(a), np.exp(b)) == ks_test(a, b)
    assert ks_test(b, a).p == pytest.approx(ks_test(a, b).p, rel=1e-12)


def test_the_limit_is_that_of_scipy():
    z = np.concatenate([[0, 1e-9, 0.5 - 1e-12, 0.5], np.linspace(0.01, 5, 500)])
    np.testing.assert_allclose(kolmogorov(z), special.kolmogorov(z), rtol=1e-12, atol=1e-15)
    assert kolmogorov(2.0) == pytest.approx(special.kolmogorov(2.0))
    assert kolmogorov(np.zeros((2, 3))).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_limit_is_near_the_exact_p_of_large_samples():
    rng = np.random.default_rng(3)
    test = ks_test(rng.normal(size=800), rng.normal(size=700))
    limit = kolmogorov(test.statistic * np.sqrt(800 * 700 / 1500))
    assert limit == pytest.approx(test.p, rel=0.1)


def test_a_block_test_of_single_values_is_the_exact_test():
    a, b = samples(12, 9, seed=2)
    rng = np.random.default_rng(0)
    ours = ks_block_test(a, b, rng, block=1, shuffles=20000)
    exact = ks_test(a, b)
    assert ours.statistic == pytest.approx(exact.statistic)
    assert ours.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p * (1 - exact.p) / 20000))


def test_a_block_test_with_ties_is_the_exact_test():
    a, b = samples(12, 9, seed=5, step=1.0)
    ours = ks_block_test(a, b, np.random.default_rng(0), block=1, shuffles=20000)
    assert ours.statistic == pytest.approx(ks_statistic(a, b))
    assert ours.p == pytest.approx(ks_test(a, b).p, abs=0.015)


def test_blocks_stay_together():
    # Blocks rise, and the window is the highest: only the highest and the lowest reach its gap.
    a, b = np.arange(50), np.arange(50, 60)
    p = [ks_block_test(a, b, np.random.default_rng(s), 10, 999).p for s in range(3)]
    assert np.mean(p) == pytest.approx(1 / 3, abs=0.03)
    assert ks_block_test(a, b, np.random.default_rng(0), 1, 999).p == pytest.approx(0.001)


# --- Population stability index ----------------------------------------------------------------


def test_the_index_by_hand():
    # Halves of the reference: counts 2, 2; of the window 3, 1; each and a half.
    r, q = np.array([2.5, 2.5]) / 5, np.array([3.5, 1.5]) / 5
    expected = np.sum((q - r) * np.log(q / r))
    assert psi([1, 2, 3, 4], [0, 1, 2, 9], bins=2) == pytest.approx(expected)
    assert psi([1, 2, 3, 4], [0, 1, 2, 2.5], bins=2) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m", "bins"), [(10, 10, 10), (100, 7, 5), (1000, 300, 20)])
def test_the_index_is_two_entropies_of_scipy(n, m, bins):
    a, b = samples(n, m, seed=n)
    edges = np.sort(a)[(np.arange(1, bins) * (n - 1)) // bins]
    r, q = (np.histogram(v, [-np.inf, *(edges + 1e-12), np.inf])[0] + 0.5 for v in (a, b))
    assert psi(a, b, bins) == pytest.approx(stats.entropy(q, r) + stats.entropy(r, q))


def test_equal_samples_have_index_0_and_an_empty_bin_is_finite():
    a = np.arange(40)
    assert psi(a, a) == 0
    assert 0 < psi(a, a + 1000) < np.inf


def test_repeated_values_leave_fewer_bins_but_never_one():
    assert psi([0] + [1] * 99, [0] * 10, bins=10) > 1
    assert psi([0] * 99 + [1], [1] * 10, bins=10) > 1
    assert psi([0, 0, 1, 1], [0, 1], bins=4) == pytest.approx(0, abs=1e-15)


def test_without_drift_the_index_is_as_chi_square_says():
    rng = np.random.default_rng(0)
    n, m, bins = 500, 250, 8
    values = np.array([psi(rng.normal(size=n), rng.normal(size=m), bins) for _ in range(600)])
    scale = 1 / n + 1 / m
    assert values.mean() == pytest.approx((bins - 1) * scale, rel=0.06)
    above = np.mean(values > scale * stats.chi2.ppf(0.95, bins - 1))
    assert above == pytest.approx(0.05, abs=0.025)


# --- Maximum mean discrepancy ------------------------------------------------------------------


def loop(a, b, width):
    def k(u, v):
        return np.exp(-np.sum((u - v) ** 2) / (2 * width**2))

    n, m = len(a), len(b)
    first = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    second = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return first + second - 2 * sum(k(u, v) for u in a for v in b) / (n * m)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (2, 5, 3), (9, 4, 2), (12, 15, 5)])
def test_the_discrepancy_is_that_of_a_loop(n, m, d):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, d)), rng.normal(0.5, 1, (m, d))
    for width in (0.3, 1.0, 4.0):
        assert mmd_squared(a, b, width) == pytest.approx(loop(a, b, width), abs=1e-13)
    assert mmd_test(a, b, rng, 1.0, shuffles=1).statistic == pytest.approx(loop(a, b, 1.0))
    width = median_width(np.concatenate([a, b]))
    assert mmd_test(a, b, rng, shuffles=1).statistic == pytest.approx(loop(a, b, width))


def test_all_deals_give_the_p_of_a_permutation_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 2)), rng.normal(1, 1, (4, 2))
    pooled, found = np.concatenate([a, b]), loop(a, b, 1.0)
    reach = []
    for deal in combinations(range(9), 5):
        own = np.isin(np.arange(9), deal)
        reach.append(loop(pooled[own], pooled[~own], 1.0) >= found - 1e-12)
    p = mmd_test(a, b, rng, 1.0, shuffles=20000).p
    assert p == pytest.approx(np.mean(reach), abs=0.012)


def test_without_drift_the_discrepancy_is_0_on_average_and_p_is_even():
    rng = np.random.default_rng(0)
    found = [mmd_test(*rng.normal(size=(2, 15, 2)), rng, 1.0, shuffles=39) for _ in range(400)]
    statistics, p = np.array(found).T
    assert abs(statistics.mean()) < 4 * statistics.std() / np.sqrt(400)
    assert np.mean(p <= 0.25) == pytest.approx(0.25, abs=0.09)
    assert p.min() >= 1 / 40


def test_the_mirrored_deal_reaches_the_value_in_spite_of_rounding():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)) + 9
        assert mmd_test(a, b, rng, 3.0, shuffles=999).p == pytest.approx(1 / 3, abs=0.07)


def test_moved_blocks_of_the_discrepancy():
    a, b = np.arange(40.0)[:, None] / 40, 5 + np.arange(10.0)[:, None]
    p = [mmd_test(a, b, np.random.default_rng(s), 1.0, block=10, shuffles=999).p for s in range(3)]
    assert np.mean(p) == pytest.approx(0.2, abs=0.03)


def test_the_median_distance():
    assert median_width([[0.0, 0], [3, 4], [0, 1]]) == pytest.approx(np.sqrt(18))
    assert median_width([[0.0]] * 9 + [[2.0]]) == 2  # most distances are 0


# --- Errors over time --------------------------------------------------------------------------


def test_the_sums_by_hand():
    found = cusum([1, 3, 0, 5], mean=1, deviation=2, slack=0.5)
    assert found.tolist() == [0, 0.5, 0, 1.5]


@pytest.mark.parametrize("slack", [0, 0.3, 1])
def test_the_sums_are_those_of_the_recursion(slack):
    values, s = np.random.default_rng(0).normal(size=300), 0.0
    for value, found in zip(values, cusum(values, 0.1, 1.5, slack), strict=True):
        s = max(0.0, s + (value - 0.1) / 1.5 - slack)
        assert found == pytest.approx(s, abs=1e-10)


def test_days_to_a_false_alarm_are_those_of_theory():
    # Siegmund's approximation for normal values, slack 1/2, limit 3.
    b = 3 + 1.166
    expected = 2 * (np.exp(b) - b - 1)
    rng = np.random.default_rng(0)
    waits = [np.argmax(cusum(rng.normal(size=3000), 0, 1) > 3) + 1 for _ in range(1500)]
    assert np.mean(waits) == pytest.approx(expected, rel=0.08)


def test_the_gain_by_hand():
    mean, error = gain([3, 3, 5, 5, 9], [1, 1, 1, 1, 9], block=2)
    assert mean == pytest.approx(12 / 5)
    assert error == pytest.approx(np.std([2, 4], ddof=1) / np.sqrt(2))


# --- Registry ----------------------------------------------------------------------------------


def test_versions_are_kept_promoted_and_rolled_back(tmp_path):
    registry = Registry(tmp_path / "new" / "folder")
    assert registry.versions() == registry.history() == []
    one, two = registry.add(w=np.arange(3)), registry.add(w=np.ones((2, 2)), b=1.5)
    assert (one, two) == (1, 2)
    registry.promote(one)
    registry.promote(two)
    again = Registry(tmp_path / "new" / "folder")
    assert again.history() == [1, 2]
    assert again.roll_back() == 1
    assert registry.history() == [1]
    assert registry.versions() == [1, 2]
    assert registry.load(1)["w"].tolist() == [0, 1, 2]
    assert registry.load(2)["b"] == 1.5
    names = sorted(path.name for path in registry.folder.iterdir())
    assert names == ["000001.npz", "000002.npz", "serving.json"]


def test_no_version_is_overwritten_by_another_program(tmp_path, monkeypatch):
    mine, theirs = Registry(tmp_path), Registry(tmp_path)
    assert mine.add(w=1.0) == 1
    monkeypatch.setattr(mine, "versions", list)  # as if both had looked at the same moment
    assert theirs.add(w=2.0) == 2
    assert mine.add(w=3.0) == 3
    assert [float(theirs.load(v)["w"]) for v in (1, 2, 3)] == [1, 2, 3]


def test_a_version_is_whole_when_it_gets_its_number(tmp_path, monkeypatch):
    registry, link, seen = Registry(tmp_path), os.link, []

    def watched(source, target):
        with np.load(source) as file:
            seen.append(file["w"].tolist())
        link(source, target)

    monkeypatch.setattr(os, "link", watched)
    registry.add(w=[1, 2])
    assert seen == [[1, 2]]


def test_a_stopped_save_leaves_no_version(tmp_path, monkeypatch):
    registry = Registry(tmp_path)
    registry.promote(registry.add(w=1.0))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "link", stop)
        with pytest.raises(KeyboardInterrupt):
            registry.add(w=2.0)
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(1)
    assert registry.versions() == [1]
    assert registry.history() == [1]


def test_version_ten_comes_after_nine(tmp_path):
    registry = Registry(tmp_path)
    assert [registry.add(w=float(i)) for i in range(11)] == list(range(1, 12))
    (tmp_path / "other.part").write_bytes(b"")
    assert registry.versions()[-1] == 11
    registry.promote(np.int64(11))
    assert json.loads((tmp_path / "serving.json").read_text("utf-8")) == [11]


def test_monitoring_imports_no_keras():
    code = "import sys, aimodels.monitoring; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Bad arguments -----------------------------------------------------------------------------

RNG = np.random.default_rng(0)
ROWS = np.arange(12.0).reshape(6, 2)
HOLED = np.array([1.0, np.nan, 2.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ks_statistic([], [1]), r"reference has shape \(0,\); allowed is one axis, not"),
        (lambda: ks_test([1], []), r"window has shape \(0,\); allowed is one axis, not empty"),
        (lambda: ks_test([[1]], [1]), r"reference has shape \(1, 1\); allowed is one axis"),
        (lambda: ks_test(HOLED, [1]), "reference holds other than finite numbers; allowed are fin"),
        (lambda: ks_test([1], [np.inf]), "window holds other than finite numbers"),
        (lambda: ks_test([1], ["a"]), "window holds other than finite numbers"),
        (lambda: ks_block_test([1, 2], HOLED, RNG, 1), "window holds other than finite"),
        (
            lambda: ks_block_test([1, 2, 3], [1, 2], RNG, 2),
            "block is 2; allowed are divisors of bo",
        ),
        (lambda: ks_block_test([1, 2], [1, 2, 3], RNG, 2), "divisors of both 2 and 3 rows"),
        (lambda: ks_block_test([1], [1], RNG, 0), "block is 0; allowed are divisors"),
        (lambda: ks_block_test([1], [1], RNG, 1, 0), "shuffles is 0; allowed is 1 or more"),
        (lambda: kolmogorov(-0.1), r"z holds -0\.1; allowed are numbers from 0"),
        (lambda: kolmogorov([1, np.nan]), "z holds nan; allowed are numbers from 0"),
        (lambda: psi([], [1]), "reference has shape"),
        (lambda: psi([1, 2], []), "window has shape"),
        (lambda: psi(HOLED, [1]), "reference holds other than finite"),
        (lambda: psi([2, 2, 2], [1], 2), r"reference holds only 2\.0; allowed are two different"),
        (lambda: psi([1, 2, 3], [1], 4), "bins is 4; allowed are 2 to 3, the values of reference"),
        (lambda: psi([1, 2, 3], [1], 1), "bins is 1; allowed are 2 to 3"),
        (lambda: psi([1, 2, 3], [1], 2.5), r"bins is 2\.5; allowed are 2 to 3"),
        (lambda: mmd_squared(ROWS, ROWS, 0), "width is 0; allowed are numbers above 0"),
        (lambda: mmd_squared(ROWS, ROWS, np.nan), "width is nan; allowed are numbers above 0"),
        (
            lambda: mmd_squared(ROWS[:1], ROWS, 1),
            r"reference has shape \(1, 2\); allowed is \[N, D",
        ),
        (lambda: mmd_squared(ROWS, ROWS[:, 0], 1), r"window has shape \(6,\); allowed is \[M, 2\]"),
        (
            lambda: mmd_squared(ROWS, ROWS[:, :1], 1),
            r"window has shape \(6, 1\); allowed is \[M, 2",
        ),
        (lambda: mmd_squared(ROWS * np.nan, ROWS, 1), "reference holds other than finite numbers"),
        (lambda: mmd_test(ROWS, ROWS, RNG, block=4), "block is 4; allowed are divisors of both 6 "),
        (lambda: mmd_test(ROWS * 0, ROWS * 0, RNG), "x has 12 rows, all equal; allowed are two or"),
        (lambda: median_width(ROWS[:1]), "x has 1 rows, all equal"),
        (lambda: cusum([], 0, 1), "values has shape"),
        (lambda: cusum([1, np.nan], 0, 1), "values holds other than finite"),
        (lambda: cusum([1], 0, 0), "mean, deviation, slack are 0, 0, 0.5; allowed are finite"),
        (lambda: cusum([1], np.nan, 1), "mean, deviation, slack are nan, 1, 0.5"),
        (lambda: cusum([1], 0, 1, -1), "mean, deviation, slack are 0, 1, -1"),
        (lambda: gain([1, 2], [1], 1), "new has 1 losses; allowed are 2, as many as old"),
        (lambda: gain([1, 2, 3], [1, 2, 3], 2), "block is 2; allowed are 1 to 1, half of the loss"),
        (lambda: gain([1, 2], [1, 2], 0), "block is 0; allowed are 1 to 1"),
        (lambda: gain([1, np.nan], [1, 2], 1), "old holds other than finite"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_registry_names_what_it_refuses(tmp_path):
    registry = Registry(tmp_path)
    with pytest.raises(ValueError, match="arrays is empty; allowed is at least one array"):
        registry.add()
    with pytest.raises(ValueError, match="w holds NaN or infinity; allowed are finite numbers"):
        registry.add(w=[1.0, np.nan])
    registry.promote(registry.add(w=1.0))
    for call in (registry.load, registry.promote):
        with pytest.raises(ValueError, match=r"version is 2; allowed are \[1\]"):
            call(2)
    with pytest.raises(ValueError, match=r"history is \[1\]; allowed are two versions or more"):
        registry.roll_back()
    assert registry.versions() == [1]
