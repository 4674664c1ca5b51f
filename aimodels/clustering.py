"""Clustering: k-means puts each row to the nearest of K centres, each the mean of its rows.

Axes: N rows (samples), D features, K clusters. Inertia is the sum of the squared distances of all
rows to the centres of their clusters.
"""

from typing import NamedTuple

import numpy as np

LARGEST = 1e140  # sums of squares of larger numbers may overflow


class Clusters(NamedTuple):
    """Where k-means ended.

    `labels` `[N]` are the clusters of the rows, `centres` `[K, D]` the means of their rows.
    `inertias` `[R]` holds the inertia after each half step: rows assigned, means taken, rows
    assigned, … It never rises but by rounding. `settled` is True if the last assignment changed
    no label; every row is then at its nearest centre.
    """

    labels: np.ndarray
    centres: np.ndarray
    inertias: np.ndarray
    settled: bool


def squared_distances(x, centres):
    """Return the squared distance of each row to each centre.

    Args:
        x: `[N, D]`.
        centres: `[K, D]`.

    Returns:
        `[N, K]`, each 0 or more.

    Differs: ‖x‖² - 2 x·c + ‖c‖² takes one matrix product, but loses all digits where rows are far
    from 0 and close to each other. Here differences are squared.
    """
    x, centres = _table("x", x), _table("centres", centres)
    if x.shape[1] != centres.shape[1]:
        raise ValueError(f"centres has shape {centres.shape}; allowed is [K, {x.shape[1]}]")
    found, away = np.empty((len(x), len(centres))), np.empty_like(x)
    for k, centre in enumerate(centres):
        np.subtract(x, centre, out=away)
        found[:, k] = np.einsum("nd,nd->n", away, away)
    return found


def assign(x, centres):
    """Return the number of the nearest centre of each row, and its squared distance.

    Args:
        x: `[N, D]`.
        centres: `[K, D]`.

    Returns:
        `[N]` whole numbers from 0 to K - 1, the lowest where several are nearest, and `[N]`.
    """
    distances = squared_distances(x, centres)
    labels = distances.argmin(axis=1)
    return labels, np.take_along_axis(distances, labels[:, None], axis=1)[:, 0]


def means(x, labels, clusters):
    """Return the mean of the rows of each cluster, `[K, D]`.

    Args:
        x: `[N, D]`.
        labels: `[N]`, whole numbers from 0 to K - 1, each present.
        clusters: K.
    """
    x = _table("x", x)
    labels = _labels("labels", labels, len(x))
    present = np.unique(labels)
    if not np.array_equal(present, np.arange(clusters)):
        raise ValueError(
            f"labels holds {present.tolist()}; allowed are 0 to {clusters - 1}, no gaps"
        )
    return np.stack([x[labels == k].mean(axis=0) for k in range(clusters)])


def random_start(x, clusters, rng):
    """Return K of the N rows as centres, `[K, D]`, none twice, all choices equally likely."""
    x, clusters = _table("x", x), _clusters(clusters, x)
    return x[rng.choice(len(x), clusters, replace=False)]


def plus_plus(x, clusters, rng, trials=1):
    """Return K rows as centres, far from each other: k-means++.

    The first is any row. Each further one is a row drawn with a probability in proportion to its
    squared distance to the nearest centre so far.

    Args:
        x: `[N, D]`.
        clusters: K.
        rng: draws by `rng.random`, as `numpy.random.Generator` does.
        trials: how many rows are drawn for each further centre; the one that leaves the lowest
            inertia is kept. The guarantee below is for 1.

    Returns:
        `[K, D]`. For one trial the expected inertia is at most 8 (ln K + 2) times the lowest.

    Source: Arthur and Vassilvitskii 2007, section 2.2, theorem 3.1, ISBN 978-0-89871-624-5.
    Differs: scikit-learn draws 2 + ⌊ln K⌋ rows for each centre unless told otherwise.
    """
    x, clusters = _table("x", x), _clusters(clusters, x)
    if trials < 1:
        raise ValueError(f"trials is {trials}; allowed is 1 or more")
    chosen = [int(rng.random() * len(x))]
    nearest = squared_distances(x, x[chosen])[:, 0]
    while len(chosen) < clusters:
        heights = np.cumsum(nearest)
        if heights[-1] == 0:
            raise _too_many(clusters, len(chosen))
        drawn = np.searchsorted(heights, rng.random(trials) * heights[-1], side="right")
        left = np.minimum(nearest[:, None], squared_distances(x, x[drawn]))  # [N, trials]
        best = left.sum(axis=0).argmin()
        chosen.append(int(drawn[best]))
        nearest = left[:, best]
    return x[chosen]


def lloyd(x, centres, steps=1000):
    """Alternate two steps, assign rows and take means, until no label changes.

    A cluster that loses all its rows is given the row farthest from its centre, among those that
    are not alone in their cluster; so there are always K clusters, and the inertia falls.

    Args:
        x: `[N, D]`.
        centres: `[K, D]` to start from, K from 1 to N.
        steps: how often the means are taken at most.

    Returns:
        Clusters.

    Raises:
        ValueError: if fewer than K rows of x differ from each other.

    Source: Lloyd 1982, <https://doi.org/10.1109/TIT.1982.1056489>.
    Differs: scikit-learn may take the farthest row from a cluster where it is alone.
    """
    x, centres = _table("x", x), _table("centres", centres)
    _clusters(len(centres), x)
    labels, inertias = None, []
    for _ in range(steps):
        before, (labels, distances) = labels, assign(x, centres)
        _fill(labels, distances, len(centres))
        inertias.append(distances.sum())
        if np.array_equal(labels, before):
            return Clusters(labels, centres, np.array(inertias), True)
        centres = means(x, labels, len(centres))
        inertias.append(inertia(x, labels, centres))
    if labels is None:
        raise ValueError(f"steps is {steps}; allowed is 1 or more")
    return Clusters(labels, centres, np.array(inertias), False)


def kmeans(x, clusters, rng, starts=10):
    """Return the Clusters of the lowest inertia of several runs from k-means++.

    Args:
        x: `[N, D]`.
        clusters: K, from 1 to the number of rows that differ.
        rng: a `numpy.random.Generator`.
        starts: how many runs, at least 1.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}; allowed is 1 or more")
    runs = (lloyd(x, plus_plus(x, clusters, rng)) for _ in range(starts))
    return min(runs, key=lambda run: run.inertias[-1])


def inertia(x, labels, centres):
    """Return the sum of the squared distances of the rows `[N, D]` to `centres[labels]`."""
    x, centres = _table("x", x), _table("centres", centres)
    return np.sum((x - centres[_labels("labels", labels, len(x), len(centres))]) ** 2)


def silhouette(x, labels):
    """Return for each row how much nearer its own cluster is than the next one.

    Args:
        x: `[N, D]`.
        labels: `[N]` whole numbers from 0, at least two different ones.

    Returns:
        `[N]`, (b - a) / max(a, b) from -1 to 1: a is the mean distance to the other rows of the
        cluster, b the lowest mean distance to another cluster. 0 where a row is alone, or a = b.

    Source: Rousseeuw 1987, section 2, <https://doi.org/10.1016/0377-0427(87)90125-7>.
    """
    x = _table("x", x)
    labels = _labels("labels", labels, len(x))
    present, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(present) == 1:
        raise ValueError(f"labels holds {present.tolist()}; allowed are two clusters or more")
    distances = np.sqrt(squared_distances(x, x))
    sums = np.stack([distances[:, own == k].sum(axis=1) for k in range(len(present))], axis=1)
    rows, others = np.arange(len(x)), np.maximum(counts[own] - 1, 1)
    a, averages = sums[rows, own] / others, sums / counts
    averages[rows, own] = np.inf
    b = averages.min(axis=1)
    larger = np.maximum(a, b)
    defined = (counts[own] > 1) & (larger > 0)
    return np.where(defined, (b - a) / np.where(defined, larger, 1), 0.0)


def contingency(labels, truth):
    """Return how many rows of each cluster have each class, `[K, classes]`.

    Args:
        labels: `[N]`, whole numbers from 0.
        truth: `[N]`, whole numbers from 0.
    """
    labels = _labels("labels", labels)
    truth = _labels("truth", truth, len(labels))
    table = np.zeros((labels.max() + 1, truth.max() + 1), dtype=int)
    np.add.at(table, (labels, truth), 1)
    return table


def adjusted_rand(labels, truth):
    """Return how far two partitions agree on pairs: 1 if the same, about 0 by chance.

    The names of clusters and classes do not matter. Arguments are those of `contingency`, at
    least two rows.

    Source: Hubert and Arabie 1985, <https://doi.org/10.1007/BF01908075>.
    """
    table = contingency(labels, truth)
    both, ours, theirs, every = (
        float(np.sum(n * (n - 1)) / 2)
        for n in (table, table.sum(axis=1), table.sum(axis=0), table.sum())
    )
    if every == 0:
        raise ValueError("labels has 1 row; allowed are two or more, since pairs are counted")
    expected, most = ours * theirs / every, (ours + theirs) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _fill(labels, distances, clusters):
    """Give each empty cluster the farthest row of a cluster of several; changes both arrays."""
    counts = np.bincount(labels, minlength=clusters)
    for empty in np.flatnonzero(counts == 0):
        far = np.where(counts[labels] > 1, distances, 0.0).argmax()
        if distances[far] == 0:
            raise _too_many(clusters, np.count_nonzero(counts))
        counts[labels[far]] -= 1
        counts[empty], labels[far], distances[far] = 1, empty, 0.0


def _too_many(clusters, rows):
    return ValueError(f"clusters is {clusters}; allowed are as many as rows that differ, {rows}")


def _table(name, values):
    """Return `values` as float `[rows, columns]`, or say what is wrong."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {values.dtype}; allowed are real numbers")
    values = values.astype(float, copy=False)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} has shape {values.shape}; allowed is two axes, neither empty")
    if not np.abs(values).max() <= LARGEST:  # NaN is not
        bad = values[~(np.abs(values) <= LARGEST)][0]
        raise ValueError(f"{name} holds {bad}; allowed are numbers up to {LARGEST}")
    return values


def _labels(name, values, rows=None, clusters=np.inf):
    """Return `values` as whole numbers from 0, or say what is wrong."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0 or len(values) != (rows or len(values)):
        raise ValueError(f"{name} has shape {values.shape}; allowed is [{rows or 'N'}], not empty")
    if values.dtype.kind not in "iub" or values.min() < 0 or values.max() >= clusters:
        raise ValueError(
            f"{name} holds {values.dtype} from {values.min()} to {values.max()}; "
            f"allowed are whole numbers from 0 to {clusters - 1}"
        )
    return values.astype(int, copy=False)


def _clusters(clusters, x):
    """Return K, a whole number from 1 to the number of rows, or say what is wrong."""
    if not 1 <= clusters <= len(x) or int(clusters) != clusters:
        raise ValueError(f"clusters is {clusters}; allowed are 1 to {len(x)}, the rows of x")
    return int(clusters)
