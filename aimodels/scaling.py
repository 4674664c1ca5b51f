"""Scaling laws: how the loss falls with parameters and data, fitted with errors and turned into plans.

A run is one trained model. Its numbers are N parameters, D training tokens, the loss L that it
reached, and C operations of compute. Axes: R runs.
"""

from typing import NamedTuple

import numpy as np

NUMBERS = 5  # that a law has
STEPS = 300  # of a fit at most: costs settle within 1e-4 where delta is a thirtieth of the noise


class Law(NamedTuple):
    """L = E + A / N^alpha + B / D^beta; numbers, or arrays of one shape for several laws.

    `E` is what is left with endless parameters and data, `A` and `B` are sizes, `alpha` and `beta`
    the exponents. All are above 0; an `E` of about 1e-9 of the losses means that none was found.

    Source: Hoffmann et al. 2022, section 3.3, <https://arxiv.org/abs/2203.15556>.
    """

    E: np.ndarray
    A: np.ndarray
    alpha: np.ndarray
    B: np.ndarray
    beta: np.ndarray

    def loss(self, parameters, tokens):
        """Return the loss of N parameters after D tokens; the shapes are broadcast.

        Raises:
            ValueError: a number that is not above 0.
        """
        n, d = _positive("parameters", parameters), _positive("tokens", tokens)
        return self.E + self.A / n**self.alpha + self.B / d**self.beta

    def optimum(self, compute):
        """Return the N and the D with the lowest loss among those with 6 N D = `compute`.

        Raises:
            ValueError: a compute that is not above 0.

        Source: Hoffmann et al. 2022, section 3.3, <https://arxiv.org/abs/2203.15556>.
        """
        half = _positive("compute", compute) / 6
        both = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        n = ratio * half ** (self.beta / both)
        return n, half / n


class Power(NamedTuple):
    """y = scale · x^exponent, and the standard error of the exponent."""

    scale: float
    exponent: float
    error: float


def flops_per_token(vocabulary, steps, width, depth, hidden=None):
    """Return the operations that training a `GPT` spends on a token: six a multiplication.

    Counted are the matrix products over full sequences: projections and feedforward networks,
    scores and reading of attention (also of what the mask hides), comparison with all V tokens.
    A product is a multiplication and an addition; the way back takes two products for each one on
    the way forward.

    Args:
        vocabulary: V.
        steps: T, the length of the sequences.
        width: of a token's vector.
        depth: how many blocks.
        hidden: width inside the feedforward networks; 4 times the width if None.

    Raises:
        ValueError: a number that is not whole or below 1.

    Source: Kaplan et al. 2020, section 2.1, <https://arxiv.org/abs/2001.08361>.
    Differs: they leave out the comparison with the vocabulary.
    """
    sizes = {"vocabulary": vocabulary, "steps": steps, "width": width, "depth": depth}
    sizes["hidden"] = hidden = 4 * width if hidden is None else hidden
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a whole number from 1; received {size!r}")
    block = 4 * width * width + 2 * width * hidden + 2 * steps * width
    return 6 * (depth * block + vocabulary * width)


def fit_power(x, y):
    """Fit a straight line to log y against log x by least squares.

    It has no floor: where y ends above 0, the exponent is too close to 0, and the standard error,
    which knows nothing but the scatter about the line, does not say so.

    Args:
        x: `[R]`, above 0, at least two values.
        y: `[R]`, above 0; R is at least 3.

    Returns:
        A `Power`.

    Raises:
        ValueError: too few numbers, shapes that differ, a number that is not above 0.
    """
    x, y = _positive("x", x), _positive("y", y)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(f"x and y must be [R] with R from 3; received {x.shape} and {y.shape}")
    if len(np.unique(x)) < 2:
        raise ValueError(f"x must hold two values or more; received only {x[0]}")
    u, v = np.log(x), np.log(y)
    spread = np.sum((u - u.mean()) ** 2)
    slope = np.sum((u - u.mean()) * v) / spread
    rest = v - v.mean() - slope * (u - u.mean())
    error = np.sqrt(np.sum(rest**2) / (len(x) - 2) / spread)
    return Power(float(np.exp(v.mean() - slope * u.mean())), float(slope), float(error))


def huber(residuals, delta):
    """Return r² / 2 where |r| is up to delta, and delta (|r| - delta / 2) beyond."""
    size = np.abs(residuals)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def fit_law(parameters, tokens, losses, delta=1e-3, start=None):
    """Fit a `Law`: the smallest sum of the Huber losses of log L measured - log L predicted.

    Args:
        parameters: `[R]`, N of each run, at least three values.
        tokens: `[R]`, D of each run, at least three values.
        losses: `[..., R]`, above 0; one law for each row. R is at least 5.
        delta: residuals beyond it count in proportion, not squared. `np.inf` is least squares.
        start: a `Law` to begin with; if None, 18 starts, of which the best end counts.

    Returns:
        A `Law` of numbers `[...]`.

    Raises:
        ValueError: too few runs or values, shapes that do not fit, a number that is not above 0.

    Source: Hoffmann et al. 2022, section 3.3, for the loss.
    Differs: they use L-BFGS; here damped Gauss-Newton steps, weighted so that each lowers the
    Huber loss, for all rows and starts at once.
    """
    losses = _positive("losses", losses)
    parameters, tokens = _runs(parameters, tokens, losses, NUMBERS)
    if not (np.ndim(delta) == 0 and delta > 0):
        raise ValueError(f"delta must be a number above 0; received {delta!r}")
    x, y, target = np.log(parameters), np.log(tokens), np.log(losses)
    middle = x.mean(), y.mean()
    theta = _starts(losses) if start is None else _pack(start, middle, losses.shape[:-1])
    theta, cost = _descend(theta, x - middle[0], y - middle[1], target, delta)
    best = np.take_along_axis(theta, cost.argmin(0)[None, ..., None], 0)[0]
    e, a, alpha, b, beta = np.moveaxis(best, -1, 0)
    return Law(np.exp(e), np.exp(a + alpha * middle[0]), alpha, np.exp(b + beta * middle[1]), beta)


def bootstrap(law, parameters, tokens, losses, rng, *, draws=200, delta=1e-3):
    """Return the laws that other noise of the same size would have given.

    Each draw takes the law's predictions, multiplies them by the exponentials of residuals drawn
    with replacement, and fits again. Residuals are stretched by √(R / (R - 5)), since the fit has
    bent five numbers towards them. It holds for noise of equal relative size at all runs, and for
    a law that is true; what the law's form gets wrong, it does not see.

    Args:
        law: what `fit_law` returned for one row of losses.
        parameters: `[R]`.
        tokens: `[R]`.
        losses: `[R]`, R at least 6.
        rng: a `numpy.random.Generator`.
        draws: how many.
        delta: as in `fit_law`.

    Returns:
        A `Law` of arrays `[draws]`; quantiles of them are intervals.

    Raises:
        ValueError: too few runs, losses of another shape, draws below 1; and as `fit_law`.

    Source: Efron 1979, <https://doi.org/10.1214/aos/1176344552>.
    Differs: residuals are stretched, and drawn for logarithms.
    """
    losses = _positive("losses", losses)
    if losses.ndim != 1 or len(losses) <= NUMBERS:
        raise ValueError(f"losses must be [R], R from {NUMBERS + 1}; received {losses.shape}")
    if not isinstance(draws, int | np.integer) or draws < 1:
        raise ValueError(f"draws must be a whole number from 1; received {draws!r}")
    parameters, tokens = _runs(parameters, tokens, losses, NUMBERS + 1)
    predicted = np.log(law.loss(parameters, tokens))
    rest = (np.log(losses) - predicted) * np.sqrt(len(losses) / (len(losses) - NUMBERS))
    noise = rng.choice(rest, (draws, len(losses)))
    return fit_law(parameters, tokens, np.exp(predicted + noise), delta, start=law)


def _starts(losses):
    """Return `[starts, ..., 5]` points to begin with: floors and exponents of a small grid."""
    lowest, mean = losses.min(-1), losses.mean(-1)
    theta = []
    for share in (0.2, 0.8):
        half = np.log((mean - share * lowest) / 2)  # the rest, in equal parts
        for alpha in (0.1, 0.4, 1.2):
            for beta in (0.1, 0.4, 1.2):
                first = np.log(share * lowest)
                theta.append(np.stack(np.broadcast_arrays(first, half, alpha, half, beta), -1))
    return np.array(theta)


def _pack(law, middle, shape):
    """Return `[1, ..., 5]`, the logarithms of E, A and B seen from the middle of the runs."""
    e, a, b = np.log(law.E), np.log(law.A), np.log(law.B)
    parts = e, a - law.alpha * middle[0], law.alpha, b - law.beta * middle[1], law.beta
    return np.stack([np.broadcast_to(part, shape) for part in parts], -1)[None]


def _model(theta, x, y):
    """Return log L `[..., R]` and its derivatives by theta `[..., R, 5]`."""
    e, a, alpha, b, beta = np.moveaxis(theta[..., None, :], -1, 0)
    terms = np.stack(np.broadcast_arrays(e, a - alpha * x, b - beta * y), -1)
    peak = terms.max(-1, keepdims=True)
    share = np.exp(terms - peak)
    total = share.sum(-1, keepdims=True)
    p, q, r = np.moveaxis(share / total, -1, 0)
    return (peak + np.log(total))[..., 0], np.stack([p, q, -q * x, r, -r * y], -1)


def _descend(theta, x, y, target, delta):
    """Return where Levenberg-Marquardt steps end, and the Huber loss there, `[starts, ...]`."""
    damping = np.full(theta.shape[:-1], 1e-2)
    value, slopes = _model(theta, x, y)
    cost = huber(target - value, delta).sum(-1)
    for _ in range(STEPS):
        rest = target - value
        weight = np.minimum(1, delta / np.maximum(np.abs(rest), 1e-300))
        bent = slopes * weight[..., None]
        square = np.einsum("...ri,...rj->...ij", bent, slopes)
        pull = np.einsum("...ri,...r->...i", bent, rest)
        diagonal = np.einsum("...ii->...i", square)
        diagonal += damping[..., None] * diagonal + 1e-15  # a view: this changes `square`
        step = np.linalg.solve(square, pull[..., None])[..., 0]
        trial = theta + np.clip(step, -1, 1)
        trial[..., [2, 4]] = np.maximum(trial[..., [2, 4]], 1e-6)
        new_value, new_slopes = _model(trial, x, y)
        new_cost = huber(target - new_value, delta).sum(-1)
        better = new_cost < cost
        gain = np.where(better, cost - new_cost, 0)
        theta = np.where(better[..., None], trial, theta)
        value = np.where(better[..., None], new_value, value)
        slopes = np.where(better[..., None, None], new_slopes, slopes)
        settled = (gain <= 1e-12 * cost) & (better | (damping > 1e6))
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-12, 1e9)
        if settled.all():
            break
    return theta, cost


def _runs(parameters, tokens, losses, least):
    """Return N and D of each run as floats, or say why no law can be fitted."""
    parameters, tokens = _positive("parameters", parameters), _positive("tokens", tokens)
    for name, values in (("parameters", parameters), ("tokens", tokens)):
        if values.shape != losses.shape[-1:] or len(values) < least:
            raise ValueError(
                f"{name} must be [R], R from {least} as in losses; received {values.shape},"
                f" losses {losses.shape}"
            )
        different = np.unique(values)
        if len(different) < 3:
            raise ValueError(f"{name} must hold three values or more; received only {different}")
    return parameters, tokens


def _positive(name, values):
    """Return `values` as floats, or say which one is not above 0."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or 0 in values.shape:
        raise ValueError(f"{name} must be numbers; received {values.dtype} {values.shape}")
    values = values.astype(float)
    good = (values > 0) & (values < np.inf)
    if not good.all():
        raise ValueError(f"{name} must be above 0 and finite; received {values[~good][0]}")
    return values
