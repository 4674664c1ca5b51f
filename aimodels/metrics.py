"""Evaluation metrics: numbers that say how good answers are, and how sure those numbers are.

Axes: N samples, K classes. Where there are two classes, 1 is the *positive* one, which is looked
for. A metric that is 0/0 is an error here unless a value for it is given.
"""

import math
from collections import Counter
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from aimodels.logistic import softmax


class Scores(NamedTuple):
    """Precision, recall and F1: `[K]` each, or three numbers if averaged."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


class Bleu(NamedTuple):
    """`score` from 0 to 1, the precisions of 1 to M tokens `[M]`, and the brevity penalty."""

    score: float
    precisions: np.ndarray
    brevity: float


def confusion(y, predicted, classes):
    """Return how often a sample of class k was answered l, `[K, K]`; a row is a true class.

    Args:
        y: `[N]`, whole numbers from 0 to K - 1; at least one.
        predicted: `[N]`, likewise.
        classes: K.
    """
    y = _labels("y", y, classes)
    predicted = _labels("predicted", predicted, classes, len(y))
    return np.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes)


def precision_recall_f1(table, average=None, empty=None):
    """Return precision, recall and F1 of each class, or one average of each.

    Args:
        table: `[K, K]` as by `confusion`.
        average: None; "micro", from the counts of all classes together, where all three equal the
            accuracy; "macro", the mean over classes; "weighted", the mean over samples.
        empty: what 0/0 is: 0, 1 or NaN. NaN is left out of averages. None is an error.

    Returns:
        Scores, each number from 0 to 1.

    Differs: where no sample is of a class with a number, the weighted average is NaN;
    scikit-learn then weights classes alike.
    Source: Fawcett 2006, section 2, <https://doi.org/10.1016/j.patrec.2005.10.010>.
    """
    table = np.asarray(table)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.sum() > 0:
        raise ValueError(f"table has shape {table.shape}; allowed is [K, K], with a count above 0")
    if average not in (None, "micro", "macro", "weighted"):
        raise ValueError(f"average is {average!r}; allowed are None, micro, macro, weighted")
    if not (empty is None or empty in (0, 1) or np.isnan(empty)):
        raise ValueError(f"empty is {empty}; allowed are None, 0, 1 and NaN")
    hits, said, true = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    if average == "micro":
        hits, said, true = (np.array([counts.sum()]) for counts in (hits, said, true))
    found = [
        _ratio(f"the {name} of class", top, bottom, empty)
        for name, top, bottom in (
            ("precision", hits, said),
            ("recall", hits, true),
            ("F1", 2 * hits, said + true),
        )
    ]
    if average is None:
        return Scores(*found)
    weights = true if average == "weighted" else np.ones(len(hits))
    return Scores(*(_mean(values, weights) for values in found))


def roc(y, scores):
    """Return the curve of false alarms and hits as the threshold falls.

    Args:
        y: `[N]`, 0 or 1, both present.
        scores: `[N]`, higher for what looks positive; only their order counts.

    Returns:
        share of the negatives `[M]` and of the positives `[M]` at or above the threshold, both
        from 0 to 1, and the thresholds `[M]`: infinity, then each different score once.

    Source: Fawcett 2006, <https://doi.org/10.1016/j.patrec.2005.10.010>.
    """
    thresholds, true, false = _ranking(y, scores)
    if 0 in (true[-1], false[-1]):
        raise ValueError(f"y holds only {int(true[-1] > 0)}; allowed are 0 and 1, both present")
    shares = (np.append(0, counts / counts[-1]) for counts in (false, true))
    return *shares, np.append(np.inf, thresholds)


def roc_auc(y, scores):
    """Return the area under `roc`, from 0 to 1.

    It is the probability that a random positive scores above a random negative, ties counting
    one half (Hanley and McNeil 1982, <https://doi.org/10.1148/radiology.143.1.7063747>).
    """
    false, true, _ = roc(y, scores)
    return np.trapezoid(true, false)


def precision_recall(y, scores):
    """Return precision and recall as the threshold falls, `[M]` each, and the thresholds `[M]`.

    Args:
        y: `[N]`, 0 or 1, a 1 among them.
        scores: as for `roc`.

    Differs: scikit-learn lets the threshold rise, and adds a point, precision 1 at recall 0.
    """
    thresholds, true, false = _ranking(y, scores)
    if true[-1] == 0:
        raise ValueError("y holds only 0; allowed are 0 and 1, a 1 among them")
    return true / (true + false), true / true[-1], thresholds


def average_precision(y, scores):
    """Return the precision averaged over the gains in recall; no line between points is assumed."""
    precision, recall, _ = precision_recall(y, scores)
    return (np.diff(recall, prepend=0) * precision).sum()


def log_loss(y, p):
    """Return the mean of -log of the probability of the true class; infinite if one is 0.

    Args:
        y: `[N]`, whole numbers from 0 to K - 1.
        p: `[N, K]`, rows of probabilities with sum 1.
    """
    p = _probabilities(p, 2)
    if not np.allclose(p.sum(axis=1), 1, atol=1e-5):
        raise ValueError("p has rows whose sum is not 1; allowed are probabilities of all classes")
    y = _labels("y", y, p.shape[1], len(p))
    with np.errstate(divide="ignore"):
        return -np.log(np.take_along_axis(p, y[:, None], axis=1)).mean()


def brier(y, p):
    """Return the mean squared difference of `p` `[N]`, probabilities of 1, and `y` `[N]`, 0 or 1."""
    p = _probabilities(p, 1)
    return ((p - _labels("y", y, 2, len(p))) ** 2).mean()


def brier_parts(y, p):
    """Return reliability, resolution, uncertainty; Brier score = the first - the second + the third.

    Samples with the same `p` form a group, so round `p` first if all are different.

    Source: Murphy 1973, <https://doi.org/10.1175/1520-0450(1973)012%3C0595:ANVPOT%3E2.0.CO;2>.
    """
    p = _probabilities(p, 1)
    y = _labels("y", y, 2, len(p))
    said, group, count = np.unique(p, return_inverse=True, return_counts=True)
    seen, base = np.bincount(group, y) / count, y.mean()
    share = count / len(y)
    return share @ (said - seen) ** 2, share @ (seen - base) ** 2, base * (1 - base)


def reliability(y, p, bins=10):
    """Return mean probability, share of 1 and number of samples of each bin that is not empty.

    Args:
        y: `[N]`, 0 or 1.
        p: `[N]`, probabilities of 1.
        bins: how many, of equal width from 0 to 1; a bin holds its upper edge.

    Returns:
        three arrays of the same length, at most `bins`.
    """
    p = _probabilities(p, 1)
    y = _labels("y", y, 2, len(p))
    if bins < 1:
        raise ValueError(f"bins is {bins}; allowed is 1 or more")
    group = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p)
    count = np.bincount(group, minlength=bins)
    full = count > 0
    sums = (np.bincount(group, values, bins)[full] for values in (p, y))
    said, seen = (total / count[full] for total in sums)
    return said, seen, count[full]


def calibration_error(y, p, bins=10):
    """Return the mean over samples of the gap between the two shares of their bin, from 0 to 1.

    Source: Guo et al. 2017, section 2, <https://arxiv.org/abs/1706.04599>.
    """
    said, seen, count = reliability(y, p, bins)
    return count @ np.abs(said - seen) / count.sum()


def fit_temperature(z, y):
    """Return the number by which logits are to be divided for the lowest log loss.

    Args:
        z: logits `[N, K]`, of samples that the model was not trained on.
        y: `[N]`, whole numbers from 0 to K - 1.

    Raises:
        ValueError: if there is no best one: every row is right, or dividing by more always helps.

    Source: Guo et al. 2017, section 4.2, <https://arxiv.org/abs/1706.04599>.
    """
    z = _finite("z", z, 2)
    true = np.take_along_axis(z, _labels("y", y, z.shape[1], len(z))[:, None], axis=1)[:, 0]

    def slope(factor):  # of the loss by the factor; it never falls
        return ((softmax(factor * z) * z).sum(axis=1) - true).mean()

    if not (slope(0) < 0 and (z.max(axis=1) - true).sum() > 0):
        raise ValueError("z has no best temperature for y; allowed are logits right in part")
    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def bleu(candidates, references, order=4, smooth=True):
    """Return how far translations share runs of tokens with references, over a whole corpus.

    Args:
        candidates: lists of tokens, at least one.
        references: for each candidate a list of one or more lists of tokens.
        order: M, the longest run that counts.
        smooth: True counts the first order without a match as half a match, the next as a
            quarter, …; False lets it make the score 0.

    Returns:
        Bleu. Of several references, the one nearest in length counts for the brevity; runs may
        match any of them. The score is 0 if no token matches, or no candidate is as long as `order`.

    Source: Papineni et al. 2002, section 2, <https://doi.org/10.3115/1073083.1073135>; smoothing:
    Chen and Cherry 2014, method 3, <https://doi.org/10.3115/v1/W14-3346>.
    """
    if len(candidates) != len(references) or len(candidates) == 0 or not all(references):
        raise ValueError(
            f"references has {len(references)} entries for {len(candidates)} candidates; allowed "
            "is one for each, at least one, none empty"
        )
    if order < 1:
        raise ValueError(f"order is {order}; allowed is 1 or more")
    if isinstance(candidates[0], str) or isinstance(references[0][0], str):
        raise ValueError("candidates or references hold strings; allowed are lists of tokens")
    hits, total, length, wanted = np.zeros(order), np.zeros(order), 0, 0
    for candidate, several in zip(candidates, references, strict=True):
        length += len(candidate)
        wanted += min((abs(len(one) - len(candidate)), len(one)) for one in several)[1]
        for n in range(order):
            most: Counter = Counter()
            for one in several:
                most |= _runs(one, n + 1)
            made = _runs(candidate, n + 1)
            hits[n] += (made & most).total()
            total[n] += made.total()
    brevity = 1.0 if length >= wanted else math.exp(1 - wanted / length) if length else 0.0
    if smooth and hits.any():
        hits = np.where(hits == 0, 0.5 ** np.cumsum(hits == 0), hits)
    precisions = np.divide(hits, total, out=np.zeros(order), where=total > 0)
    score = brevity * math.exp(np.log(precisions).mean()) if precisions.all() else 0.0
    return Bleu(score, precisions, brevity)


def perplexity(log_probabilities):
    """Return exp of minus the mean of the logarithms `[T]` of the probabilities of T tokens."""
    return math.exp(-_logarithms(log_probabilities).mean())


def bits_per_byte(log_probabilities, size):
    """Return the bits that a text of `size` bytes needs, by the byte; see `perplexity`."""
    if size < 1:
        raise ValueError(f"size is {size}; allowed is 1 or more")
    return -_logarithms(log_probabilities).sum() / math.log(2) / size


def wilson(successes, trials, level=0.95):
    """Return the lower and the upper end of Wilson's interval for a probability.

    Args:
        successes: how many of the trials succeeded.
        trials: 1 or more, independent.
        level: the share of such intervals that shall hold the probability.

    Source: Wilson 1927, <https://doi.org/10.1080/01621459.1927.10502953>.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"successes is {successes} of {trials}; allowed is 0 to trials, from 1")
    z = NormalDist().inv_cdf((1 + _level(level)) / 2)
    share, widen = successes / trials, z * z / trials
    middle = share + widen / 2
    half = math.sqrt(widen * (share * (1 - share) + widen / 4))
    return max(0.0, (middle - half) / (1 + widen)), min(1.0, (middle + half) / (1 + widen))


def bootstrap(statistic, columns, rng, samples=1000, level=0.95):
    """Return the ends of the percentile interval of a statistic.

    Each time, N rows are drawn with replacement, the same of all columns: answers of two models
    to one sample stay together.

    Args:
        statistic: takes the columns, returns a number.
        columns: arrays of length N.
        rng: a `numpy.random.Generator`.
        samples: how many times.
        level: the share of the values between the ends.

    Raises:
        ValueError: if the statistic has no value for one of the draws.

    Source: Efron and Tibshirani 1993, section 13.3, ISBN 978-0-412-04231-7.
    """
    columns = [np.asarray(column) for column in columns]
    rows = {len(column) for column in columns}
    if len(rows) != 1 or rows == {0}:
        raise ValueError(f"columns have lengths {sorted(rows)}; allowed is one, 1 or more")
    if samples < 1:
        raise ValueError(f"samples is {samples}; allowed is 1 or more")
    values = np.empty(samples)
    for i in range(samples):
        drawn = rng.integers(0, *rows, *rows)
        values[i] = statistic(*(column[drawn] for column in columns))
    if np.isnan(values).any():
        raise ValueError("statistic is NaN for one of the draws; allowed is a number for each")
    edge = (1 - _level(level)) / 2
    return tuple(np.quantile(values, [edge, 1 - edge]))


def _labels(name, values, classes, rows=None):
    """Return `values` as whole numbers `[N]` from 0 to classes - 1, or say what is wrong."""
    values = _finite(name, values, 1)
    if rows not in (None, len(values)):
        raise ValueError(f"{name} has {len(values)} entries; allowed are {rows}")
    wrong = values[(values < 0) | (values >= classes) | (values != np.floor(values))]
    if len(wrong):
        raise ValueError(f"{name} holds {wrong[0]:g}; allowed are whole numbers to {classes - 1}")
    return values.astype(int)


def _finite(name, values, axes):
    values = np.asarray(values, dtype=float)
    if values.ndim != axes or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}; allowed are {axes} axes, none empty")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity; allowed are numbers")
    return values


def _probabilities(p, axes):
    p = _finite("p", p, axes)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p reaches from {p.min():g} to {p.max():g}; allowed is 0 to 1")
    return p


def _logarithms(values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or not (values <= 0).all():
        raise ValueError(
            f"log_probabilities has shape {values.shape} or entries that are NaN or above 0; "
            "allowed is [T] with numbers up to 0"
        )
    return values


def _level(level):
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed is a number between 0 and 1")
    return level


def _ranking(y, scores):
    """Return each different score, falling, and how many 1 and how many 0 have at least it."""
    scores = _finite("scores", scores, 1)
    y = _labels("y", y, 2, len(scores))
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(y) - 1)  # of each run of ties
    true = np.cumsum(y[order])[last]
    return scores[order][last], true, last + 1 - true


def _ratio(name, top, bottom, empty):
    if empty is None and (bottom == 0).any():
        raise ValueError(f"{name} {bottom.argmin()} is 0/0; give empty: 0, 1 or NaN")
    return np.divide(top, bottom, out=np.full(len(top), float(empty or 0)), where=bottom > 0)


def _mean(values, weights):
    known = ~np.isnan(values)
    return np.average(values[known], weights=weights[known]) if weights[known].any() else np.nan


def _runs(tokens, length):
    return Counter(zip(*(tokens[i:] for i in range(length)), strict=False))
