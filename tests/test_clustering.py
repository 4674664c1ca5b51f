import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest

from aimodels.clustering import (
    adjusted_rand,
    assign,
    contingency,
    inertia,
    kmeans,
    lloyd,
    means,
    plus_plus,
    random_start,
    silhouette,
    squared_distances,
)
from aimodels.datasets import breast_cancer, digits, standardize

metrics = pytest.importorskip("sklearn.metrics")
cluster = pytest.importorskip("sklearn.cluster")

RECTANGLE = np.array([[0.0, 0], [0, 1], [3, 0], [3, 1]])
SHAPES = [(7, 1, 2), (12, 2, 12), (30, 3, 1), (60, 5, 4), (200, 2, 9), (150, 20, 6)]


def some(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def rng(seed=0):
    return np.random.default_rng(seed)


class Given:
    """Draws the given numbers, one after the other."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self, size=None):
        drawn = [self.numbers.pop(0) for _ in range(size or 1)]
        return drawn[0] if size is None else np.array(drawn)


def peer(x, start, steps=1000):
    model = cluster.KMeans(len(start), init=start, n_init=1, tol=0, max_iter=steps)
    return model.fit(x)


def best_of_all(x, clusters):
    """The partition of the lowest inertia, by trying them all."""
    tried = itertools.product(range(clusters), repeat=len(x))
    full = (np.array(labels) for labels in tried if len(set(labels)) == clusters)
    return min(full, key=lambda labels: inertia(x, labels, means(x, labels, clusters)))


def test_squared_distances_by_hand():
    found = squared_distances([[0, 0], [3, 4]], [[0, 0], [0, 1], [3, 0]])
    np.testing.assert_array_equal(found, [[0, 1, 9], [25, 18, 16]])


def test_rows_go_to_the_nearest_centre_and_ties_to_the_lowest():
    labels, squared = assign([[0.0], [1], [2], [5]], [[4.0], [0], [2]])
    np.testing.assert_array_equal(labels, [1, 1, 2, 0])
    np.testing.assert_array_equal(squared, [0, 1, 0, 1])


def test_means_and_inertia_by_hand():
    centres = means(RECTANGLE, [0, 0, 1, 1], 2)
    np.testing.assert_array_equal(centres, [[0, 0.5], [3, 0.5]])
    assert inertia(RECTANGLE, [0, 0, 1, 1], centres) == 1
    assert inertia(RECTANGLE, [0, 1, 0, 1], [[1.5, 0], [1.5, 1]]) == 9


def test_both_fixed_points_of_a_rectangle_by_hand():
    good, bad = lloyd(RECTANGLE, RECTANGLE[[0, 3]]), lloyd(RECTANGLE, RECTANGLE[[0, 1]])
    np.testing.assert_array_equal(good.labels, [0, 0, 1, 1])
    np.testing.assert_array_equal(good.inertias, [2, 1, 1])
    np.testing.assert_array_equal(bad.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(bad.centres, [[1.5, 0], [1.5, 1]])
    np.testing.assert_array_equal(bad.inertias, [18, 9, 9])
    assert good.settled
    assert bad.settled


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns", "clusters"), SHAPES)
def test_labels_centres_inertia_and_rounds_are_those_of_scikit_learn(rows, columns, clusters, seed):
    x = 3 * some(rows, columns, seed) + 100
    start = random_start(x, clusters, rng(seed))
    ours, theirs = lloyd(x, start), peer(x, start)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-12)
    np.testing.assert_allclose(ours.inertias[-1], theirs.inertia_, rtol=1e-9, atol=1e-9)
    if clusters < rows:  # else the start is the end, and it does not look twice
        assert (len(ours.inertias) + 1) // 2 == theirs.n_iter_
    assert ours.settled


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_cut_short_says_so_and_has_the_centres_of_scikit_learn(steps):
    x = some(300, 3)
    start = random_start(x, 8, rng())
    ours = lloyd(x, start, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says that it has not converged
        theirs = peer(x, start, steps)
    assert not ours.settled
    assert len(ours.inertias) == 2 * steps
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, atol=1e-12)
    np.testing.assert_array_equal(assign(x, ours.centres)[0], theirs.labels_)
    np.testing.assert_allclose(ours.centres, means(x, ours.labels, 8), atol=1e-14)


def test_breast_cancer_is_clustered_as_by_scikit_learn():
    x = standardize(breast_cancer().x)
    for seed in range(3):
        start = plus_plus(x, 6, rng(seed))
        ours, theirs = lloyd(x, start), peer(x, start)
        np.testing.assert_array_equal(ours.labels, theirs.labels_)
        np.testing.assert_allclose(ours.inertias[-1], theirs.inertia_, rtol=1e-12)


@pytest.mark.parametrize("trials", [1, 2, 5])
@pytest.mark.parametrize(("rows", "columns", "clusters"), SHAPES)
def test_the_same_draws_give_the_start_of_scikit_learn(rows, columns, clusters, trials):
    if trials > 1:  # of two rows near each other, either leaves the same: rounding decides
        clusters = max(rows // 6, 1)
    for seed in range(5):
        x = some(rows, columns, seed)
        ours = plus_plus(x, clusters, np.random.RandomState(seed), trials)
        theirs, _ = cluster.kmeans_plusplus(x, clusters, random_state=seed, n_local_trials=trials)
        np.testing.assert_array_equal(ours, theirs)


def test_k_means_plus_plus_with_given_draws_by_hand():
    x = np.array([[0.0], [1], [3], [7]])
    # From row 1 the squared distances are 1, 0, 4, 36: heights 1, 1, 5, 41.
    assert plus_plus(x, 2, Given(0.3, 0.5 / 41)).ravel().tolist() == [1, 0]
    assert plus_plus(x, 2, Given(0.3, 4.9 / 41)).ravel().tolist() == [1, 3]
    assert plus_plus(x, 2, Given(0.3, 5.1 / 41)).ravel().tolist() == [1, 7]
    # Then 1, 0, 4, 0: heights 1, 1, 5, 5.
    assert plus_plus(x, 3, Given(0.3, 0.9, 0.99)).ravel().tolist() == [1, 7, 3]


def test_greedy_keeps_the_draw_that_leaves_least():
    x = np.array([[0.0], [1], [3], [7]])
    # Rows 0, 2 and 3 leave 40, 16 + 1 and 1 + 4.
    assert plus_plus(x, 2, Given(0.3, 0.001, 0.1, 0.99), 3).ravel().tolist() == [1, 7]
    assert plus_plus(x, 2, Given(0.3, 0.001, 0.1), 2).ravel().tolist() == [1, 3]


def test_a_row_on_a_centre_is_never_drawn():
    x = np.array([[0.0], [0], [1], [1], [5]])
    for numbers in itertools.product((0.0, 0.2, 0.5, 1 - 2**-53), repeat=3):
        assert len(np.unique(plus_plus(x, 3, Given(*numbers)))) == 3


def test_rows_are_drawn_in_proportion_to_squared_distance():
    x = np.array([[0.0], [1], [2]])
    counts = np.zeros(3)
    for seed in range(2000):
        first, second = plus_plus(x, 2, rng(seed)).ravel().astype(int)
        if first == 0:
            counts[second] += 1
    assert counts[0] == 0
    share = counts[2] / counts.sum()
    assert abs(share - 4 / 5) < 4 * np.sqrt(0.16 / counts.sum())


def test_a_random_start_is_different_rows():
    x = np.arange(20.0).reshape(10, 2)
    for seed in range(20):
        start = random_start(x, 10, rng(seed))
        np.testing.assert_array_equal(np.sort(start, axis=0), x)
    drawn = [random_start(x, 1, rng(seed))[0, 0] for seed in range(300)]
    assert len(set(drawn)) == 10


@pytest.mark.parametrize(("rows", "columns", "clusters"), SHAPES)
def test_inertia_never_rises_and_the_end_is_a_fixed_point(rows, columns, clusters):
    x = some(rows, columns)
    for seed in range(5):
        run = lloyd(x, random_start(x, clusters, rng(seed)))
        assert np.diff(run.inertias).max(initial=0) <= 1e-12 * run.inertias[0]
        np.testing.assert_array_equal(run.labels, assign(x, run.centres)[0])
        np.testing.assert_allclose(run.centres, means(x, run.labels, clusters), atol=1e-14)
        np.testing.assert_allclose(run.inertias[-1], inertia(x, run.labels, run.centres))
        assert len(run.inertias) % 2 == 1


def test_inertias_are_those_of_the_half_steps():
    x = some(50, 2)
    centres = random_start(x, 4, rng())
    run = lloyd(x, centres)
    for at, value in enumerate(run.inertias):
        if at % 2 == 0:
            labels, squared = assign(x, centres)
            np.testing.assert_allclose(value, squared.sum())
        else:
            centres = means(x, labels, 4)
            np.testing.assert_allclose(value, inertia(x, labels, centres))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_no_run_is_below_the_best_of_all_partitions_and_that_one_stays(clusters, seed):
    x = some(7, 2, seed)
    labels = best_of_all(x, clusters)
    centres = means(x, labels, clusters)
    lowest = inertia(x, labels, centres)
    again = lloyd(x, centres)
    np.testing.assert_array_equal(again.labels, labels)
    assert len(again.inertias) == 3
    assert kmeans(x, clusters, rng()).inertias[-1] >= lowest * (1 - 1e-12)


def test_many_starts_find_groups_that_are_far_apart():
    x = np.concatenate([some(6, 2, k) + 20 * k for k in range(4)])
    np.testing.assert_array_equal(
        contingency(kmeans(x, 4, rng()).labels, np.arange(24) // 6).max(axis=0), 6
    )


def test_more_starts_are_never_worse_and_the_lowest_is_kept():
    x = some(200, 2)
    runs = [lloyd(x, plus_plus(x, 9, draws)).inertias[-1] for draws in [rng()] for _ in range(6)]
    for starts in range(1, 7):
        assert kmeans(x, 9, rng(), starts).inertias[-1] == min(runs[:starts])


def test_the_mean_is_the_best_centre():
    x, labels = some(40, 3), np.arange(40) % 4
    best = means(x, labels, 4)
    for seed in range(20):
        moved = rng(seed).normal(size=(4, 3))
        more = 10 * np.sum(moved**2)
        np.testing.assert_allclose(
            inertia(x, labels, best + moved), inertia(x, labels, best) + more
        )


def test_the_expected_start_keeps_the_guarantee():
    x = np.concatenate([some(20, 2, k) + 30 * np.array([k % 2, k // 2]) for k in range(4)])
    lowest = kmeans(x, 4, rng()).inertias[-1]
    first = [assign(x, plus_plus(x, 4, rng(seed)))[1].sum() for seed in range(200)]
    assert np.mean(first) < 8 * (np.log(4) + 2) * lowest
    uniform = [assign(x, random_start(x, 4, rng(seed)))[1].sum() for seed in range(200)]
    assert np.mean(uniform) > 8 * (np.log(4) + 2) * lowest


def test_an_empty_cluster_is_given_the_farthest_row():
    x = np.array([[0.0], [1], [2], [10]])
    run = lloyd(x, [[0.0], [1], [99]])
    np.testing.assert_array_equal(run.labels, [0, 1, 1, 2])
    np.testing.assert_allclose(run.inertias, [1, 0.5, 0.5])


def test_a_row_that_is_alone_is_not_taken():
    # Row 3 is farthest, but alone in its cluster; row 2 goes to the empty one.
    run = lloyd([[0.0], [1], [3], [30]], [[0.0], [20], [99]], steps=1)
    np.testing.assert_array_equal(run.labels, [0, 0, 2, 1])
    np.testing.assert_array_equal(run.inertias, [101, 0.5])


def test_a_cluster_gives_away_all_rows_but_one():
    # The cluster of 20 and 24 is farthest with both rows, and keeps 20.
    run = lloyd([[0.0], [0.5], [1], [20], [24]], [[0.0], [15], [99], [98]], steps=1)
    np.testing.assert_array_equal(run.labels, [0, 0, 3, 1, 2])


def test_several_empty_clusters_are_filled_farthest_first():
    run = lloyd([[0.0], [1], [4], [6]], [[0.0], [99], [98], [97]])
    np.testing.assert_array_equal(run.labels, [0, 3, 2, 1])
    assert run.inertias[-1] == 0


@pytest.mark.parametrize("seed", range(4))
def test_empty_clusters_are_filled_as_by_scikit_learn(seed):
    x = some(60, 2, seed)
    start = np.concatenate([random_start(x, 3, rng(seed)), [[50.0, 50], [60, 60]]])
    ours, theirs = lloyd(x, start), peer(x, start)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, atol=1e-12)
    assert len(np.unique(ours.labels)) == 5
    assert np.diff(ours.inertias).max() <= 1e-12


def test_equal_centres_are_parted():
    x = some(30, 2)
    run = lloyd(x, np.zeros((4, 2)))
    assert len(np.unique(run.labels)) == 4
    assert np.diff(run.inertias).max() <= 1e-12


def test_as_many_clusters_as_rows_leave_nothing():
    x = some(9, 2)
    run = kmeans(x, 9, rng(), starts=1)
    assert run.inertias[-1] == 0
    np.testing.assert_array_equal(np.sort(run.labels), np.arange(9))


def test_one_cluster_is_the_mean_of_all():
    x = some(9, 2)
    run = lloyd(x, [[5.0, 5]])
    np.testing.assert_allclose(run.centres[0], x.mean(axis=0))
    assert len(run.inertias) == 3


def test_equal_rows_stay_together():
    x = np.repeat(some(5, 2), 3, axis=0)
    run = kmeans(x, 5, rng())
    assert run.inertias[-1] < 1e-25
    for k in range(5):
        assert len(set(run.labels[3 * k : 3 * k + 3])) == 1


@pytest.mark.parametrize("change", [1e-150, 1e-100, 2.0**-40, 2.0**40, 1e100])
def test_another_unit_for_all_columns_changes_no_label(change):
    x = some(40, 3)
    start = plus_plus(x, 5, rng())
    if change < 1e-149:
        np.testing.assert_array_equal(plus_plus(x * change, 5, rng()), start * change)
    np.testing.assert_array_equal(lloyd(x * change, start * change).labels, lloyd(x, start).labels)


def test_far_from_zero_no_digit_is_lost():
    x = np.round(some(60, 2) * 64) / 64
    start = plus_plus(x, 4, rng())
    near, far = lloyd(x, start), lloyd(x + 2.0**40, start + 2.0**40)
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_array_equal(
        squared_distances(x + 2.0**40, start + 2.0**40), squared_distances(x, start)
    )


def test_order_of_columns_and_a_turn_of_space_change_no_label():
    x = some(80, 3)
    start = plus_plus(x, 5, rng())
    turn, _ = np.linalg.qr(some(3, 3, 7))
    labels = lloyd(x, start).labels
    np.testing.assert_array_equal(lloyd(x[:, ::-1], start[:, ::-1]).labels, labels)
    np.testing.assert_array_equal(lloyd(x @ turn, start @ turn).labels, labels)


def test_whole_numbers_lists_and_single_precision_are_taken():
    x = np.array([[0, 0], [0, 1], [9, 9], [9, 8]])
    want = lloyd(x.astype(float), x[[0, 2]].astype(float))
    for kind in (x.tolist(), x.astype("uint8"), x.astype("float32"), np.asfortranarray(x)):
        run = lloyd(kind, np.asarray(kind)[[0, 2]])
        np.testing.assert_array_equal(run.labels, want.labels)
        np.testing.assert_array_equal(run.centres, want.centres)
    bytes_ = np.array([[250], [5], [255]], dtype="uint8")  # differences would wrap
    np.testing.assert_array_equal(assign(bytes_, bytes_[:2])[0], [0, 1, 0])


def test_nothing_given_is_changed():
    x, centres, labels = some(30, 2), np.array([[0.0, 0], [50, 50], [60, 60]]), np.arange(30) % 3
    before = x.copy(), centres.copy(), labels.copy()
    lloyd(x, centres)
    kmeans(x, 3, rng())
    means(x, labels, 3)
    silhouette(x, labels)
    adjusted_rand(labels, labels)
    for now, then in zip((x, centres, labels), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_same_draws_give_the_same_clusters():
    x = some(100, 2)
    one, two = kmeans(x, 6, rng(5)), kmeans(x, 6, rng(5))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert rng(5).random() != rng(6).random()


def test_silhouettes_by_hand():
    found = silhouette([[0.0], [2], [10]], [0, 0, 1])
    np.testing.assert_allclose(found, [(10 - 2) / 10, (8 - 2) / 8, 0])
    np.testing.assert_allclose(silhouette([[0.0], [9], [1]], [4, 4, 7]), [-8 / 9, -1 / 9, 0])


@pytest.mark.parametrize(("rows", "columns", "clusters"), [(6, 1, 2), (50, 3, 5), (200, 8, 12)])
def test_silhouettes_are_those_of_scikit_learn(rows, columns, clusters):
    x, labels = some(rows, columns), rng(1).integers(clusters, size=rows)
    labels[:2] = 0, 1
    np.testing.assert_allclose(
        silhouette(x, labels), metrics.silhouette_samples(x, labels), atol=1e-12
    )
    np.testing.assert_allclose(
        silhouette(x, 3 * labels), metrics.silhouette_samples(x, labels), atol=1e-12
    )


def test_silhouettes_of_equal_rows_are_0():
    np.testing.assert_array_equal(silhouette(np.ones((4, 2)), [0, 0, 1, 1]), np.zeros(4))


def test_pairs_of_two_partitions_by_hand():
    # Pairs in both 1, in the first 2, in the second 3, of 6: (1 - 1) / (2.5 - 1) = 0.
    labels, truth = [0, 0, 1, 1], [0, 0, 0, 1]
    np.testing.assert_array_equal(contingency(labels, truth), [[2, 0], [1, 1]])
    assert adjusted_rand(labels, truth) == 0
    np.testing.assert_allclose(adjusted_rand([0, 0, 1, 1], [0, 1, 0, 1]), -0.5)


@pytest.mark.parametrize(("rows", "ours", "theirs"), [(5, 2, 3), (100, 7, 4), (3000, 10, 10)])
def test_adjusted_rand_is_that_of_scikit_learn(rows, ours, theirs):
    for seed in range(5):
        draws = rng(seed)
        labels, truth = draws.integers(ours, size=rows), draws.integers(theirs, size=rows)
        labels[: rows // 2] = truth[: rows // 2] % ours
        found = adjusted_rand(labels, truth)
        np.testing.assert_allclose(found, metrics.adjusted_rand_score(truth, labels), atol=1e-12)
        assert found == adjusted_rand(truth, labels)
        np.testing.assert_allclose(found, adjusted_rand(ours - 1 - labels, truth), atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0, 1, 1]])
def test_equal_partitions_agree_fully(labels):
    assert adjusted_rand(labels, labels) == 1
    assert adjusted_rand(labels, [4 - k for k in labels]) == 1


def test_chance_is_0_on_average():
    draws = rng()
    found = [
        adjusted_rand(draws.integers(3, size=60), draws.integers(4, size=60)) for _ in range(300)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(300)


def test_clusters_of_digits_are_far_from_chance_and_from_the_classes():
    images = digits()
    found = kmeans(images.x.reshape(-1, 64), 10, rng(), starts=2)
    assert 0.5 < adjusted_rand(found.labels, images.y) < 0.85


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: lloyd(x, x[:0]), r"centres has shape \(0, 2\); allowed is two axes, neither"),
        (lambda x: lloyd(x, x[:2, :1]), r"centres has shape \(2, 1\); allowed is \[K, 2\]"),
        (lambda x: lloyd(x, x[0]), r"centres has shape \(2,\); allowed is two axes"),
        (lambda x: lloyd(x, np.zeros((5, 2))), "clusters is 5; allowed are 1 to 4, the rows of x"),
        (lambda x: lloyd(x, x[:2], 0), "steps is 0; allowed is 1 or more"),
        (lambda x: lloyd(x[0], x[:2]), r"x has shape \(2,\); allowed is two axes"),
        (lambda x: lloyd(x[:0], x[:2]), r"x has shape \(0, 2\); allowed is two axes"),
        (lambda x: lloyd(x[:, :0], x[:2]), r"x has shape \(4, 0\); allowed is two axes"),
        (lambda x: lloyd(x.astype(str), x[:2]), "x has dtype <U32; allowed are real numbers"),
        (lambda x: lloyd(x + 1j, x[:2]), "x has dtype complex128; allowed are real numbers"),
        (lambda x: lloyd(x * np.nan, x[:2]), r"x holds nan; allowed are numbers up to 1e\+140"),
        (lambda x: lloyd(x, np.full((2, 2), np.inf)), "centres holds inf; allowed are numbers"),
        (lambda x: lloyd(-1e141 * (1 + x), x[:2]), r"x holds -1e\+141; allowed are numbers"),
        (lambda x: assign(x, x[:2] * np.nan), "centres holds nan; allowed are numbers"),
        (lambda x: plus_plus(x, 0, rng()), "clusters is 0; allowed are 1 to 4"),
        (lambda x: plus_plus(x, 5, rng()), "clusters is 5; allowed are 1 to 4"),
        (lambda x: plus_plus(x, 2.5, rng()), "clusters is 2.5; allowed are 1 to 4"),
        (lambda x: random_start(x, np.nan, rng()), "clusters is nan; allowed are 1 to 4"),
        (lambda x: plus_plus(x, 2, rng(), 0), "trials is 0; allowed is 1 or more"),
        (lambda x: random_start(x, 5, rng()), "clusters is 5; allowed are 1 to 4"),
        (lambda x: random_start(x, -1, rng()), "clusters is -1; allowed are 1 to 4"),
        (lambda x: kmeans(x, 5, rng()), "clusters is 5; allowed are 1 to 4"),
        (lambda x: kmeans(x, 2, rng(), 0), "starts is 0; allowed is 1 or more"),
        (lambda x: kmeans(x * np.nan, 2, rng()), "x holds nan; allowed are numbers"),
        (lambda x: means(x, [0, 0, 2, 2], 3), r"labels holds \[0, 2\]; allowed are 0 to 2, no"),
        (lambda x: means(x, [0, 0, 1, 2], 2), r"labels holds \[0, 1, 2\]; allowed are 0 to 1"),
        (lambda x: means(x, [0, 1], 2), r"labels has shape \(2,\); allowed is \[4\]"),
        (lambda x: inertia(x, [0, 1, 2, 0], x[:2]), "from 0 to 2; allowed are whole .* 0 to 1"),
        (lambda x: inertia(x, [0, -1, 1, 0], x[:2]), "from -1 to 1; allowed are whole numbers"),
        (lambda x: silhouette(x, [3, 3, 3, 3]), r"labels holds \[3\]; allowed are two clusters"),
        (lambda x: silhouette(x, [0, 1, 0.5, 1]), "labels holds float64 from 0.0 to 1.0"),
        (lambda x: silhouette(x * np.nan, [0, 0, 1, 1]), "x holds nan; allowed are numbers"),
        (lambda x: contingency([0, 1], [0]), r"truth has shape \(1,\); allowed is \[2\]"),
        (lambda x: contingency([], []), r"labels has shape \(0,\); allowed is \[N\], not empty"),
        (lambda x: contingency([[0]], [0]), r"labels has shape \(1, 1\); allowed is \[N\]"),
        (lambda x: contingency([0, 1], [0, -1]), "truth holds int64 from -1 to 0"),
        (lambda x: adjusted_rand([0], [0]), "labels has 1 row; allowed are two or more"),
    ],
)
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(RECTANGLE)


@pytest.mark.parametrize("rows", [[[1.0], [1], [1]], [[1.0], [1], [2]]])
def test_more_clusters_than_rows_that_differ_are_refused(rows):
    words = f"clusters is 3; allowed are as many as rows that differ, {len(np.unique(rows))}"
    with pytest.raises(ValueError, match=words):
        plus_plus(rows, 3, rng())
    with pytest.raises(ValueError, match=words):
        lloyd(rows, [[0.0], [1], [3]])
    with pytest.raises(ValueError, match=words):
        kmeans(rows, 3, rng())


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.clustering;"
        "assert not {'keras', 'tensorflow', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
