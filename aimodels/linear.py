"""Linear regression: the line, plane or hyperplane with the smallest mean squared error.

Axes: B rows (samples), D features. One target per row: `y` is `[B]`, `weights` is `[D]`.
"""

import numpy as np


def predict(x, weights, bias):
    """Return `x weights + bias` `[B]` for x `[B, D]`, weights `[D]` and a number as bias."""
    x, weights = np.asarray(x), np.asarray(weights)
    if x.ndim != 2 or weights.shape != x.shape[1:]:
        raise ValueError(
            f"weights has shape {weights.shape} for x of shape {x.shape}; allowed is [D] for [B, D]"
        )
    return x @ weights + bias


def mean_squared_error(predicted, y):
    """Return the mean of the squared errors of `predicted` `[B]` against `y` `[B]`."""
    predicted, y = np.asarray(predicted), np.asarray(y)
    if predicted.shape != y.shape:
        raise ValueError(f"predicted has shape {predicted.shape}; allowed is that of y, {y.shape}")
    return np.mean((predicted - y) ** 2)


def gradient(x, y, weights, bias):
    """Return the derivatives of the mean squared error by the weights and by the bias.

    Args:
        x: `[B, D]`.
        y: `[B]`.
        weights: `[D]`.
        bias: a number.

    Returns:
        `[D]`, `2/B xᵀ(prediction - y)`, and a number, twice the mean error.
    """
    x, y = _table(x, y)
    error = predict(x, weights, bias) - y
    return 2 / len(y) * (x.T @ error), 2 * np.mean(error)


def normal_equations(x, y):
    """Return the weights and the bias at which both derivatives are zero.

    Args:
        x: `[B, D]`; its columns and a column of ones must be linearly independent.
        y: `[B]`.

    Returns:
        `[D]` and a number, the only minimum.

    Raises:
        ValueError: if the columns depend on each other, so that there are many minima.

    Source: Boyd and Vandenberghe 2018, section 12.2, <https://doi.org/10.1017/9781108583664>.
    """
    x, y = _table(x, y)
    a = _with_ones(x)
    rank = np.linalg.matrix_rank(a)
    if rank < a.shape[1]:
        raise ValueError(
            f"x with a column of ones has rank {rank}; allowed is {a.shape[1]}, "
            "independent columns (least_squares takes any)"
        )
    solution = np.linalg.solve(a.T @ a, a.T @ y)
    return solution[:-1], solution[-1]


def least_squares(x, y):
    """Return a minimum of the mean squared error, by a singular value decomposition.

    Args:
        x: `[B, D]`; columns may depend on each other, and B may be smaller than D.
        y: `[B]`.

    Returns:
        `[D]` and a number: of all minima the one with the shortest weights.

    Source: Hastie, Tibshirani and Friedman 2009, section 3.4.1, at strength 0,
    <https://doi.org/10.1007/978-0-387-84858-7>.
    """
    x, y = _table(x, y)
    centre = x.mean(axis=0)
    left, size, right = np.linalg.svd(x - centre, full_matrices=False)
    kept = size > size[0] * max(x.shape) * np.finfo(size.dtype).eps
    inverse = np.divide(1, size, out=np.zeros_like(size), where=kept)
    weights = right.T @ (inverse * (left.T @ (y - y.mean())))
    return weights, y.mean() - centre @ weights


def gradient_descent(x, y, rate, steps, start=None):
    """Walk down the mean squared error in steps against the gradient.

    Args:
        x: `[B, D]`.
        y: `[B]`.
        rate: the learning rate, above 0. The walk converges below `stable_rate(x)`.
        steps: how many steps, 0 or more.
        start: weights `[D]` and bias to start from; zeros if None.

    Returns:
        `[D]` and a number after the last step, and `[steps + 1]` losses, before the first step
        and after each.

    Source: Goh 2017, section "First steps: gradient descent", <https://doi.org/10.23915/distill.00006>.
    """
    x, y = _table(x, y)
    if not rate > 0:
        raise ValueError(f"rate is {rate}; allowed is a number above 0")
    if steps < 0:
        raise ValueError(f"steps is {steps}; allowed is 0 or more")
    weights, bias = (np.zeros(x.shape[1]), 0.0) if start is None else start
    losses = [mean_squared_error(predict(x, weights, bias), y)]
    for _ in range(steps):
        by_weights, by_bias = gradient(x, y, weights, bias)
        weights, bias = weights - rate * by_weights, bias - rate * by_bias
        losses.append(mean_squared_error(predict(x, weights, bias), y))
    return weights, bias, np.array(losses)


def curvatures(x):
    """Return the eigenvalues of the second derivative of the loss, `2/B [x 1]ᵀ[x 1]`.

    Args:
        x: `[B, D]`.

    Returns:
        `[D + 1]`, ascending, never below 0. Largest over smallest is the condition number.
    """
    x, _ = _table(x)
    size = np.linalg.svd(_with_ones(x), compute_uv=False)
    return np.sort(np.pad(2 / len(x) * size**2, (0, x.shape[1] + 1 - len(size))))


def stable_rate(x):
    """Return 2 / (largest curvature): below it gradient descent converges, above it diverges."""
    return 2 / curvatures(x)[-1]


def _with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


def _table(x, y=None):
    """Return `x` as float `[B, D]` and `y` as float `[B]`, or say what is wrong with them."""
    x = np.asarray(x, dtype=float)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; allowed is [B, D] with B and D at least 1")
    if y is not None:
        y = np.asarray(y, dtype=float)
        if y.shape != x.shape[:1]:
            raise ValueError(f"y has shape {y.shape}; allowed is {x.shape[:1]}, one per row of x")
    for name, values in (("x", x), ("y", y)):
        if values is not None and not np.isfinite(values).all():
            bad = np.count_nonzero(~np.isfinite(values))
            raise ValueError(f"{name} has {bad} values that are not finite; allowed are numbers")
    return x, y
