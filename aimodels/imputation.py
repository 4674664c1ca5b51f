"""Missing values: how gaps come about, how to fill them, and what a fill leaves uncertain.

Axes: N rows (samples), D features, M fillings of one table. A gap is NaN.
"""

from typing import NamedTuple

import numpy as np

from aimodels.logistic import sigmoid

LARGEST = 1e140  # sums of squares of larger numbers may overflow


class Gaussian(NamedTuple):
    """The normal distribution under which what is seen of a table is most likely.

    `mean` `[D]`, `covariance` `[D, D]`. `likelihoods` `[steps + 1]` holds the logarithm of the
    likelihood before the first step and after each; it never falls but by rounding. `settled` is
    True if the last step gained no more than the tolerance.
    """

    mean: np.ndarray
    covariance: np.ndarray
    likelihoods: np.ndarray
    settled: bool


class Pooled(NamedTuple):
    """An estimate from M filled tables.

    `variance` is `within` + (1 + 1/M) `between`: what a complete table leaves uncertain, and what
    the gaps add. `freedom` are the degrees of freedom of the t distribution, infinite if the
    tables agree.
    """

    estimate: float
    variance: float
    within: float
    between: float
    freedom: float


def gap_chance(driver, rate, slope):
    """Return for each row the probability of a gap, sigmoid(a + slope u).

    Args:
        driver: `[N]`, what decides; u is it with mean 0 and standard deviation 1.
        rate: the mean of the probabilities, above 0 and below 1; it sets a.
        slope: 0 for gaps that depend on nothing.

    Returns:
        `[N]`, each from 0 to 1.
    """
    u = _filled("driver", np.reshape(driver, (-1, 1)))[:, 0]
    if not 0 < rate < 1:
        raise ValueError(f"rate is {rate}; allowed are numbers above 0 and below 1")
    if not np.isfinite(slope):
        raise ValueError(f"slope is {slope}; allowed are numbers")
    u = slope * (u - u.mean()) / (u.std() or 1.0)
    reach = np.abs(u).max() + 40  # sigmoid(-40) and sigmoid(40) are 0 and 1 to all digits
    low, high = -reach, reach
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(middle + u).mean() < rate else (low, middle)
    return sigmoid(high + u)


def with_gaps(x, chance, rng):
    """Return a copy of x `[N, D]` with NaN in place of each value with its chance.

    Args:
        x: `[N, D]`.
        chance: numbers from 0 to 1, broadcast to `[N, D]`.
        rng: a `numpy.random.Generator`.
    """
    x, chance = _table("x", x), np.asarray(chance, dtype=float)
    if not ((chance >= 0) & (chance <= 1)).all():
        raise ValueError(f"chance holds {chance.min()} to {chance.max()}; allowed are 0 to 1")
    return np.where(rng.random(x.shape) < chance, np.nan, x)


def complete_rows(x):
    """Return the numbers of the rows of x `[N, D]` without a gap; at least one must be.

    To keep these and no others is to delete the rest.
    """
    rows = np.flatnonzero(~np.isnan(_table("x", x)).any(axis=1))
    if len(rows) == 0:
        raise ValueError("x has no complete row; allowed is at least one")
    return rows


def fill_columns(x, train=None, by="mean"):
    """Return x with each gap filled by the mean or median of its column.

    Args:
        x: `[N, D]`; NaN is a gap.
        train: `[any, D]`, rows to learn from, each column with a value; x itself if None.
        by: "mean" or "median".

    Returns:
        `[N, D]`; what was no gap is as it was.
    """
    x, train = _tables(x, train)
    if by not in ("mean", "median"):
        raise ValueError(f"by is {by!r}; allowed are 'mean' and 'median'")
    return np.where(np.isnan(x), getattr(np, f"nan{by}")(train, axis=0), x)


def with_indicator(filled, x, train=None):
    """Return `filled` and, beside it, a column of 0 and 1 for each column with gaps in train.

    Args:
        filled: `[N, D]`, x with its gaps filled.
        x: `[N, D]`.
        train: `[any, D]`; x itself if None.

    Returns:
        `[N, D + columns]`; 1 where x has a gap.
    """
    x, train = _tables(x, train)
    filled = _filled("filled", filled)
    if filled.shape != x.shape:
        raise ValueError(f"filled has shape {filled.shape}; allowed is that of x, {x.shape}")
    return np.hstack([filled, np.isnan(x)[:, np.isnan(train).any(axis=0)]])


def gap_distances(x, train):
    """Return the distance of each row to each row of train over the columns that both have.

    Args:
        x: `[N, D]`; NaN is a gap.
        train: `[R, D]`.

    Returns:
        `[N, R]`, √(D / shared · sum of the squared differences); NaN if no column is shared.
    """
    x, train = _tables(x, train)
    total = np.zeros((len(x), len(train)))
    shared = np.zeros_like(total)
    for ours, theirs in zip(x.T, train.T, strict=True):
        away = (ours[:, None] - theirs) ** 2
        shared += ~np.isnan(away)
        total += np.nan_to_num(away)
    return np.sqrt(
        np.divide(total * x.shape[1], shared, np.full_like(total, np.nan), where=shared > 0)
    )


def fill_neighbours(x, train=None, neighbours=5):
    """Return x with each gap filled by the mean of the nearest rows that have the value.

    Args:
        x: `[N, D]`; NaN is a gap.
        train: `[any, D]`, rows to learn from, each column with a value; x itself if None.
        neighbours: how many rows, at least 1; all that have the value if they are fewer. Of rows
            at the same distance the first are taken.

    Returns:
        `[N, D]`. A row that shares no column with any row that has the value gets the mean.

    Source: Troyanskaya et al. 2001, <https://doi.org/10.1093/bioinformatics/17.6.520>.
    Differs: as in scikit-learn all neighbours count alike; which of tied rows count is left open
    there.
    """
    x, train = _tables(x, train)
    _whole("neighbours", neighbours)
    filled, away = fill_columns(x, train), gap_distances(x, train)
    for d in range(x.shape[1]):
        gaps = np.flatnonzero(np.isnan(x[:, d]))
        donors = np.flatnonzero(~np.isnan(train[:, d]))
        for row in gaps:
            order = donors[away[row, donors].argsort(kind="stable")[:neighbours]]  # NaN is last
            order = order[~np.isnan(away[row, order])]
            if len(order):
                filled[row, d] = train[order, d].mean()
    return filled


def fill_regressions(x, train=None, rounds=10, strength=1.0, rng=None):
    """Return x with each gap predicted from the other columns, column after column, in rounds.

    Gaps start at the means. Then each column in turn, those with fewest gaps first, is regressed
    on all others, over the rows of train that have it, and its gaps are predicted anew.

    Args:
        x: `[N, D]`; NaN is a gap.
        train: `[any, D]`, rows to learn from, each column with a value; x itself if None.
        rounds: how often, at least 1.
        strength: α above 0, the ridge penalty on the weights; scikit-learn's `Ridge(alpha)`.
        rng: a `numpy.random.Generator`, to draw a gap from what the regression knows, instead of
            its most likely value: weights, bias and variance of the noise from their posterior
            distribution, and then the noise.

    Returns:
        `[N, D]`.

    Source: van Buuren and Groothuis-Oudshoorn 2011, <https://doi.org/10.18637/jss.v045.i03>.
    Differs: ridge regression for every column; mice takes one model per column.
    """
    x, train = _tables(x, train)
    _whole("rounds", rounds)
    if not 0 < strength < np.inf:
        raise ValueError(f"strength is {strength}; allowed is above 0")
    gaps = np.isnan(np.vstack([train, x]))
    filled = fill_columns(np.vstack([train, x]), train)
    known = ~gaps[: len(train)]
    order = (~known).sum(axis=0).argsort(kind="stable")
    for _ in range(rounds):
        for d in order[gaps.any(axis=0)[order]]:
            others, rows = np.delete(filled, d, axis=1), np.flatnonzero(known[:, d])
            weights, bias, noise = _regress(others[rows], filled[rows, d], strength, rng)
            values = others @ weights + bias
            if rng is not None:
                values += noise * rng.normal(size=len(values))
            filled[gaps[:, d], d] = values[gaps[:, d]]
    return filled[len(train) :]


def gaussian(x, steps=1000, tolerance=1e-9):
    """Return the Gaussian under which what is seen of x is most likely, by the EM algorithm.

    Args:
        x: `[N, D]`; NaN is a gap. Each column needs two values that differ.
        steps: how many at most.
        tolerance: the gain in log-likelihood per row below which it ends.

    Returns:
        Gaussian.

    Raises:
        ValueError: if a column is a weighted sum of others, so that the covariance is singular.

    Source: Dempster, Laird and Rubin 1977, section 4.1, <https://doi.org/10.2307/2984875>.
    """
    x, _ = _tables(x, None)
    _whole("steps", steps)
    mean, covariance = np.nanmean(x, axis=0), np.diag(np.nanvar(x, axis=0))
    filled, spread, likelihood = _expect(x, mean, covariance)
    likelihoods = [likelihood]
    for _ in range(steps):
        mean = filled.mean(axis=0)
        away = filled - mean
        covariance = (away.T @ away + spread) / len(x)
        filled, spread, likelihood = _expect(x, mean, covariance)
        likelihoods.append(likelihood)
        if likelihoods[-1] - likelihoods[-2] <= tolerance * len(x):
            return Gaussian(mean, covariance, np.array(likelihoods), True)
    return Gaussian(mean, covariance, np.array(likelihoods), False)


def fill_gaussian(x, mean, covariance):
    """Return x with each gap filled by its mean given the values of its row.

    Args:
        x: `[N, D]`; NaN is a gap.
        mean: `[D]`.
        covariance: `[D, D]`, positive definite.
    """
    x = _table("x", x)
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    columns = x.shape[1]
    if mean.shape != (columns,) or covariance.shape != (columns, columns):
        raise ValueError(
            f"mean and covariance have shapes {mean.shape} and {covariance.shape}; "
            f"allowed are ({columns},) and ({columns}, {columns})"
        )
    return _expect(x, mean, covariance)[0]


def pool(estimates, variances):
    """Return one estimate from those of M filled tables, by Rubin's rules.

    Args:
        estimates: `[M]`, M at least 2.
        variances: `[M]`, the squared standard error of each, as if its table had had no gaps.

    Returns:
        Pooled.

    Source: Rubin 1987, chapter 3, <https://doi.org/10.1002/9780470316696>.
    """
    estimates, variances = np.asarray(estimates, float), np.asarray(variances, float)
    if estimates.ndim != 1 or len(estimates) < 2 or variances.shape != estimates.shape:
        raise ValueError(
            f"estimates and variances have shapes {estimates.shape} and {variances.shape}; "
            "allowed is [M] for both, M at least 2"
        )
    if not (
        np.isfinite(estimates).all() and (variances > 0).all() and np.isfinite(variances).all()
    ):
        raise ValueError("estimates or variances hold NaN, inf or a variance of 0 or less")
    tables = len(estimates)
    within, between = variances.mean(), estimates.var(ddof=1)
    added = (1 + 1 / tables) * between
    freedom = (tables - 1) * (1 + within / added) ** 2 if added > 0 else np.inf
    return Pooled(estimates.mean(), within + added, within, between, freedom)


def _regress(a, y, strength, rng):
    """Return weights, bias and standard deviation of the noise, the most likely or a draw."""
    centre, level = a.mean(axis=0), y.mean()
    a, y = a - centre, y - level
    gram = a.T @ a + strength * np.eye(a.shape[1])
    weights = np.linalg.solve(gram, a.T @ y)
    noise = 0.0
    if rng is not None:
        freedom = len(y) - a.shape[1] - 1
        if freedom < 1:
            raise ValueError(
                f"rng needs more rows: a column has {len(y)} values for {a.shape[1] + 1} weights; "
                f"allowed are {a.shape[1] + 2} or more"
            )
        noise = np.sqrt(np.sum((y - a @ weights) ** 2) / rng.chisquare(freedom))
        root = np.linalg.cholesky(gram).T
        weights = weights + noise * np.linalg.solve(root, rng.normal(size=len(weights)))
        level += noise * rng.normal() / np.sqrt(len(y))
    return weights, level - centre @ weights, noise


def _expect(x, mean, covariance):
    """Return gaps filled by conditional means, the sum of their covariances, the likelihood."""
    filled, spread, likelihood = x.copy(), np.zeros_like(covariance), 0.0
    patterns, which = np.unique(np.isnan(x), axis=0, return_inverse=True)
    for k, gap in enumerate(patterns):
        rows, seen = np.flatnonzero(which == k), ~gap
        root = _root(covariance[np.ix_(seen, seen)])
        away = np.linalg.solve(root, (x[rows][:, seen] - mean[seen]).T)  # [seen, rows]
        across = np.linalg.solve(root, covariance[np.ix_(seen, gap)])  # [seen, gap]
        filled[np.ix_(rows, gap)] = mean[gap] + away.T @ across
        spread[np.ix_(gap, gap)] += len(rows) * (covariance[np.ix_(gap, gap)] - across.T @ across)
        scale = np.log(2 * np.pi) * seen.sum() + 2 * np.log(root.diagonal()).sum()
        likelihood -= (len(rows) * scale + np.sum(away**2)) / 2
    return filled, spread, likelihood


def _root(covariance):
    """Return the lower triangle whose square is the covariance; refuse one without an inverse."""
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        root = np.zeros_like(covariance)
    # What a column varies beyond those before it; less than this is rounding.
    if np.any(root.diagonal() ** 2 <= 1e-12 * np.abs(covariance.diagonal())):
        raise ValueError(
            "covariance is singular; allowed are columns that vary and none the sum of others"
        )
    return root


def _table(name, values):
    """Return `values` as float `[rows, columns]`, NaN allowed, or say what is wrong."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} has dtype {values.dtype}; allowed are real numbers, NaN for a gap"
        )
    values = values.astype(float)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} has shape {values.shape}; allowed is two axes, neither empty")
    wrong = values[np.abs(values) > LARGEST]
    if len(wrong):
        raise ValueError(f"{name} holds {wrong[0]}; allowed are numbers up to {LARGEST}, and NaN")
    return values


def _filled(name, values):
    values = _table(name, values)
    if np.isnan(values).any():
        raise ValueError(f"{name} has {np.isnan(values).sum()} gaps; allowed is none")
    return values


def _tables(x, train):
    """Return both as tables of equal width, each column of train with a value."""
    x = _table("x", x)
    name, train = ("x", x) if train is None else ("train", _table("train", train))
    if train.shape[1] != x.shape[1]:
        raise ValueError(f"train has shape {train.shape}; allowed is [any, {x.shape[1]}]")
    empty = np.flatnonzero(np.isnan(train).all(axis=0))
    if len(empty):
        raise ValueError(f"{name} has no value in columns {empty.tolist()}; allowed is one or more")
    return x, train


def _whole(name, count):
    if not count >= 1 or int(count) != count:
        raise ValueError(f"{name} is {count}; allowed are whole numbers from 1")
