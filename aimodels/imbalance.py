"""Class imbalance: what to do when the class that is looked for is rare, and what each remedy does.

Axes: N samples, D features, K classes. Where there are two classes, 1 is the positive one, usually
the rare one. Random numbers come from a `numpy.random.Generator`, `rng`.
"""

import numpy as np

from aimodels.logistic import sigmoid
from aimodels.metrics import precision_recall


def class_weights(y):
    """Return N / (K Nₖ) for each class, `[K]`: every class weighs alike, and the mean weight is 1.

    Args:
        y: `[N]`, whole numbers from 0 to K - 1, each present.
    """
    counts = _counts(y)
    return counts.sum() / (len(counts) * counts)


def oversample(y, rng):
    """Return row numbers: each row once, then random copies, until all classes are as large.

    Args:
        y: `[N]`, whole numbers from 0 to K - 1, each present.
        rng: draws the copies.

    Returns:
        `[K M]` integers, M the size of the largest class.
    """
    counts, rows = _counts(y), [np.arange(len(y))]
    for k, count in enumerate(counts):
        members = np.flatnonzero(np.asarray(y) == k)
        rows.append(members[rng.choice(count, counts.max() - count, replace=True)])
    return np.concatenate(rows)


def undersample(y, rng):
    """Return the row numbers of a random part, of which each class has as many, `[K M]`.

    M is the size of the smallest class; no row is drawn twice. Arguments as for `oversample`.
    """
    counts, rows = _counts(y), []
    for k, count in enumerate(counts):
        members = np.flatnonzero(np.asarray(y) == k)
        if k != counts.argmin():
            members = members[rng.choice(count, counts.min(), replace=False)]
        rows.append(members)
    return np.concatenate(rows)


def smote(x, y, rng, neighbours=5):
    """Return the samples and, after them, new ones, until all classes are as large.

    A new sample lies at a random place between a sample and one of its nearest neighbours of the
    same class.

    Args:
        x: `[N, D]`.
        y: `[N]`, whole numbers from 0 to K - 1, each present.
        rng: draws the pairs and the places.
        neighbours: how many of them are eligible; every class but the largest needs more rows.

    Returns:
        `[K M, D]` and `[K M]`, M the size of the largest class.

    Source: Chawla et al. 2002, section 4.2, <https://doi.org/10.1613/jair.953>.
    """
    x, counts = _table(x, len(y)), _counts(y)
    needy = np.flatnonzero(counts < counts.max())
    if not 1 <= neighbours < counts[needy].min(initial=len(x)):
        raise ValueError(
            f"neighbours is {neighbours}; allowed is 1 to {counts[needy].min(initial=len(x)) - 1}, "
            "fewer than the smallest class has rows"
        )
    new_x, new_y = [x], [np.asarray(y).astype(int)]
    for k in needy:
        own = x[np.asarray(y) == k]
        near = own - own.mean(axis=0)  # far from the origin, squares would lose the distances
        square = (near**2).sum(axis=1)
        distance = square[:, None] - 2 * near @ near.T + square
        nearest = np.argsort(distance, axis=1)[:, 1 : neighbours + 1]  # the first is itself
        need = counts.max() - counts[k]
        pair, place = rng.choice(nearest.size, need), rng.random(need)[:, None]
        start = own[pair // neighbours]
        new_x.append(start + place * (own[nearest.ravel()[pair]] - start))
        new_y.append(np.full(need, k))
    return np.concatenate(new_x), np.concatenate(new_y)


def balanced_batches(y, batch, steps, rng):
    """Yield row numbers `[batch]`, `steps` times: from each class as many, drawn with replacement.

    Args:
        y: `[N]`, whole numbers from 0 to K - 1, each present.
        batch: rows in a step, a multiple of K.
        steps: how many batches.
        rng: draws the rows.
    """
    counts = _counts(y)
    if batch < 1 or batch % len(counts):
        raise ValueError(f"batch is {batch}; allowed are multiples of {len(counts)}, the classes")
    members = [np.flatnonzero(np.asarray(y) == k) for k in range(len(counts))]
    for _ in range(steps):
        yield np.concatenate([rng.choice(own, batch // len(counts)) for own in members])


def focal_loss(z, y, gamma=0.0, weights=(1.0, 1.0)):
    """Return the mean of `-w (1 - q)^γ log q`, q the probability given to the truth, and its slope.

    Args:
        z: logits `[N]`.
        y: `[N]`, each 0 or 1.
        gamma: γ, 0 or more; 0 is the cross-entropy.
        weights: w of class 0 and of class 1, 0 or more.

    Returns:
        a number from 0, and the derivative by each logit, `[N]`.

    Source: Lin et al. 2017, equation 5, <https://arxiv.org/abs/1708.02002>.
    Differs: there weights are 1 - α and α.
    """
    z, y = np.asarray(z, dtype=float), np.asarray(y)
    if z.ndim != 1 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"z has shape {z.shape}, or NaN or infinity; allowed are numbers [N]")
    if y.shape != z.shape or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y has shape {y.shape}, or others than 0 and 1; allowed is {z.shape}")
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma is {gamma}; allowed is 0 or more")
    if np.shape(weights) != (2,) or not (np.isfinite(weights).all() and min(weights) >= 0):
        raise ValueError(f"weights is {weights}; allowed are two numbers, 0 or more")
    sign = np.where(y == 1, 1.0, -1.0)
    q, wrong, log_q = sigmoid(sign * z), sigmoid(-sign * z), -np.logaddexp(0, -sign * z)
    scale = np.where(y == 1, weights[1], weights[0]) * wrong**gamma / len(z)
    return -(scale * log_q).sum(), sign * scale * (gamma * q * log_q - wrong)


def undo_focal(p, gamma):
    """Return the true probability of 1 where the expected focal loss is least at `p`, `[N]`.

    Args:
        p: `[N]`, what a model trained by the focal loss says, 0 to 1.
        gamma: its γ, 0 or more.

    Source: Charoenphakdee et al. 2020, <https://arxiv.org/abs/2011.09172>.
    """
    p = _probabilities(p)
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma is {gamma}; allowed is 0 or more")
    inner = np.clip(p, 1e-300, 1 - 1e-16)  # 0 and 1 are answered below

    def pull(q, rest, log_q):  # minus the slope of (1 - q)^γ (-log q), times q (1 - q)
        return rest ** (gamma + 1) - gamma * q * rest**gamma * log_q

    up = pull(inner, 1 - inner, np.log(inner))
    down = pull(1 - inner, inner, np.log1p(-inner))
    return np.where((p == 0) | (p == 1), p, down / (up + down))


def shift_prior(p, old, new):
    """Return probabilities of 1 for a share `new` of positives, where `p` was learned at `old`.

    Odds are multiplied by the odds of `new` over those of `old`. Within each class, samples must
    look as before. Weights w change the share π to w₁π / (w₁π + w₀(1 - π)).

    Args:
        p: `[N]`, 0 to 1.
        old: the share of ones among the (weighted) training samples, between 0 and 1.
        new: the share where the probabilities are used, between 0 and 1.

    Source: Saerens, Latinne and Decaestecker 2002,
    <https://doi.org/10.1162/089976602753284446>.
    """
    p = _probabilities(p)
    for name, share in (("old", old), ("new", new)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is {share}; allowed is a number between 0 and 1")
    one, zero = p * (new / old), (1 - p) * ((1 - new) / (1 - old))
    return one / (one + zero)


def estimate_prior(p, old, steps=10_000):
    """Return the share of positives among samples without labels, from their probabilities.

    Args:
        p: `[N]`, probabilities of 1 by a model that learned at the share `old`.
        old: between 0 and 1.
        steps: rounds of expectation and maximization at most.

    Raises:
        ValueError: if the share has not settled after the last step.

    Source: Saerens, Latinne and Decaestecker 2002,
    <https://doi.org/10.1162/089976602753284446>.
    """
    share = old
    for _ in range(steps):
        before, share = share, shift_prior(p, old, share).mean()
        if abs(share - before) <= 1e-12 * min(share, 1 - share):
            return share
        if not 0 < share < 1:
            break
    raise ValueError(
        f"steps is {steps}, not enough: the share stands at {share:g}; allowed are more, "
        "or probabilities that do not all point to one class"
    )


def bayes_threshold(false_alarm, miss):
    """Return the probability from which saying 1 is cheaper, `false_alarm / (false_alarm + miss)`.

    Args:
        false_alarm: cost of saying 1 to a negative, above 0; right answers cost nothing.
        miss: cost of saying 0 to a positive, above 0.
    """
    for name, cost in (("false_alarm", false_alarm), ("miss", miss)):
        if not 0 < cost < np.inf:
            raise ValueError(f"{name} is {cost}; allowed is a number above 0")
    return false_alarm / (false_alarm + miss)


def best_threshold(y, scores):
    """Return the threshold with the largest F1 on these samples, and that F1.

    Use samples that the model has not seen, and judge it on others again. Of equals, the highest.

    Args:
        y: `[N]`, 0 or 1, a 1 among them.
        scores: `[N]`; from the threshold on, the answer is 1.
    """
    precision, recall, thresholds = precision_recall(y, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = f1.argmax()
    return thresholds[best], f1[best]


def _counts(y):
    """Return how many samples each class has, or say what is wrong with `y`."""
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or y.dtype.kind not in "iub":
        raise ValueError(f"y has shape {y.shape}, dtype {y.dtype}; allowed are whole numbers [N]")
    if y.min() < 0:
        raise ValueError(f"y holds {y.min()}; allowed are whole numbers from 0")
    counts = np.bincount(y)
    if not counts.all() or len(counts) < 2:
        raise ValueError(
            f"y has classes of sizes {counts.tolist()}; allowed are two or more above 0"
        )
    return counts


def _table(x, rows):
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or len(x) != rows or not np.isfinite(x).all():
        raise ValueError(f"x has shape {x.shape}, or NaN; allowed are numbers [N, D], N = {rows}")
    return x


def _probabilities(p):
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p has shape {p.shape}, or entries that are no probabilities; give [N]")
    return p
