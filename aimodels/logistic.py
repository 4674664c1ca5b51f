"""Logistic and softmax regression: the logarithm of the odds is a weighted sum.

Axes: B rows (samples), D features, K classes. Logits `z` are scores before sigmoid or softmax.
An infinite logit is a sure one; losses and fits need finite ones.
"""

import numpy as np

from aimodels.linear import predict


def sigmoid(z):
    """Return 1 / (1 + e⁻ᶻ), from 0 to 1; the exponential is only taken of numbers below 0.

    Shape and precision are those of `z`. Infinite logits are sure: 0 or 1. NaN stays NaN.
    """
    z = _real("z", z)
    small = np.exp(-np.abs(z))
    return np.where(z < 0, small, 1) / (1 + small)


def log_sum_exp(z):
    """Return the logarithm of the sum of the exponentials of each row.

    Args:
        z: `[..., K]`, K at least 1.

    Returns:
        `[...]`, from the largest logit of the row to log K above it, without overflow.

    Source: Blanchard, Higham and Higham 2021, <https://doi.org/10.1093/imanum/draa038>.
    """
    z = _finite("z", z)
    if z.ndim == 0 or z.shape[-1] == 0:
        raise ValueError(f"z has shape {z.shape}; allowed is [..., K] with K at least 1")
    top = z.argmax(axis=-1, keepdims=True)
    largest = np.take_along_axis(z, top, axis=-1)
    others = np.exp(z - largest)
    np.put_along_axis(others, top, 0.0, axis=-1)  # its exponential is the 1 in log1p
    return largest[..., 0] + np.log1p(others.sum(axis=-1))


def softmax(z):
    """Return positive numbers with sum 1 in proportion to eᶻ along the last axis.

    Args:
        z: `[..., K]`; -inf gives an entry of 0. Each row needs a finite number, no inf, no NaN.

    Returns:
        `[..., K]` in the precision of `z`; rows sum to 1. A constant added to a row changes
        nothing.
    """
    z = _real("z", z)
    if z.ndim == 0 or z.shape[-1] == 0:
        raise ValueError(f"z has shape {z.shape}; allowed is [..., K] with K at least 1")
    largest = z.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        worst = largest[~np.isfinite(largest)][0]
        raise ValueError(f"z has a row whose largest entry is {worst}; allowed is a finite number")
    with np.errstate(over="ignore"):  # a gap wider than the largest number counts as infinite
        raised = np.exp(z - largest)
    return raised / raised.sum(axis=-1, keepdims=True)


def binary_cross_entropy(z, y):
    """Return the mean of -log of the probability given to the truth.

    Args:
        z: logits `[B]`.
        y: `[B]`, each 0 or 1.

    Returns:
        a number from 0, exact to the last digits however sure the logits are.
    """
    z = _finite("z", z)
    if z.ndim != 1:
        raise ValueError(f"z has shape {z.shape}; allowed is [B]")
    return np.mean(np.logaddexp(0, (1 - 2 * _labels(y, len(z), 2)) * z))


def cross_entropy(z, y):
    """Return the mean of -log softmax(z) of the true class.

    Args:
        z: logits `[B, K]`.
        y: `[B]`, whole numbers from 0 to K - 1.

    Returns:
        a number from 0, exact to the last digits: each row is shifted to make its true logit 0.
    """
    z = _finite("z", z)
    if z.ndim != 2:
        raise ValueError(f"z has shape {z.shape}; allowed is [B, K]")
    return np.mean(log_sum_exp(z - np.take_along_axis(z, _labels(y, *z.shape)[:, None], axis=1)))


def gradient(x, y, weights, bias, strength=0.0):
    """Return the derivatives of the binary loss by the weights and by the bias.

    Args:
        x: `[B, D]`.
        y: `[B]`, each 0 or 1.
        weights: `[D]`.
        bias: a number.
        strength: α of the penalty `α/2B ‖weights‖²`; scikit-learn's C is 1/α.

    Returns:
        `[D]`, `1/B (xᵀ(p - y) + α weights)`, and a number, the mean of p - y.
    """
    x, y = _table(x, y, 2, strength)
    error = sigmoid(_finite("z", predict(x, weights, bias))) - y
    return (x.T @ error + strength * np.asarray(weights)) / len(y), np.mean(error)


def hessian(x, weights, bias, strength=0.0):
    """Return the second derivative of the binary loss, `[D + 1, D + 1]`, the bias last.

    At the minimum the inverse of B times it estimates the covariance of weights and bias.
    """
    p = sigmoid(_finite("z", predict(x, weights, bias)))
    a = np.column_stack([x, np.ones(len(p))])
    ridge = np.diag([float(strength)] * (a.shape[1] - 1) + [0.0])  # none on the bias
    return ((a.T * (p * (1 - p))) @ a + ridge) / len(p)


def fit_logistic(x, y, strength=0.0, steps=30):
    """Return the weights `[D]` and the bias with the smallest binary loss, and the losses.

    The arguments are those of `fit_softmax`, y holding 0 and 1. Its two columns of weights are
    w/2 and -w/2, so the same penalty on w needs twice the strength.
    """
    x, y = _table(x, y, 2, strength)
    weights, bias, losses = fit_softmax(x, y, 2 * strength, steps)
    return weights[:, 1] - weights[:, 0], bias[1] - bias[0], losses


def fit_softmax(x, y, strength=0.0, steps=30):
    """Return the weights and biases of all classes with the smallest loss, by Newton's method.

    Args:
        x: `[B, D]`.
        y: `[B]`, whole numbers from 0 to K - 1, each present, K at least 2.
        strength: α of the penalty `α/2B ‖weights‖²`, 0 or more.
        steps: how many at most; fewer are taken once the gradient is zero.

    Returns:
        `[D, K]` and `[K]`, each row with sum 0, and the losses before the first step and after
        each.

    Raises:
        ValueError: if strength is 0 and columns depend on each other (many minima) or separate
            the classes (no minimum), or if the gradient is not zero after the last step.

    Source: Hastie, Tibshirani and Friedman 2009, section 4.4, <https://doi.org/10.1007/978-0-387-84858-7>.
    """
    x, y = _table(x, y, np.inf, strength)
    classes = np.unique(y).tolist()
    if len(classes) == 1 or classes != list(range(len(classes))):
        raise ValueError(f"y holds {classes}; allowed are two classes or more from 0, no gaps")
    a, truth = np.column_stack([x, np.ones(len(y))]), np.eye(len(classes))[y]
    if strength == 0 and np.linalg.matrix_rank(a) < a.shape[1]:
        raise ValueError("strength is 0 and columns of x depend on each other; allowed is above 0")
    ridge = np.append(np.full(x.shape[1], float(strength)), 0.0)[:, None]  # none on the bias

    def loss(theta):
        z = a @ theta
        if strength == 0 and np.all(z[truth == 1] > np.where(truth, -np.inf, z).max(axis=1)):
            raise ValueError("strength is 0 and x separates the classes; allowed is above 0")
        return cross_entropy(z, y) + (ridge * theta**2).sum() / 2 / len(y)

    theta = np.zeros((a.shape[1], len(classes)))
    losses = [loss(theta)]
    for _ in range(steps):
        slope, curve = _derivatives(a, truth, theta, ridge)
        step = np.linalg.solve(curve, slope.ravel()).reshape(theta.shape)
        if (slope * step).sum() < 1e-22:  # twice what is left to gain
            return theta[:-1], theta[-1], np.array(losses)
        while loss(theta - step) > losses[-1] * (1 + 1e-12):  # more than rounding
            step = step / 2
        theta = theta - step
        losses.append(loss(theta))
    raise ValueError(f"steps is {steps}, not enough; allowed is more, or a larger strength")


def _derivatives(a, truth, theta, ridge):
    """Return the gradient, and the Hessian made invertible by holding each row's sum at 0."""
    p = softmax(a @ theta)
    curve = np.empty(theta.shape + theta.shape)
    for k in range(len(p[0])):
        for j in range(k + 1):
            block = (a.T * (p[:, k] * ((k == j) - p[:, j]))) @ a
            block += (k == j) * np.diag(ridge[:, 0]) + np.eye(len(ridge))
            curve[:, k, :, j] = curve[:, j, :, k] = block
    slope = a.T @ (p - truth) + ridge * theta
    return slope / len(p), curve.reshape(theta.size, theta.size) / len(p)


def _real(name, values):
    """Return `values` as floating-point numbers of the precision that they have."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {values.dtype}; allowed are real numbers")
    return values if values.dtype.kind == "f" else values.astype(float)


def _finite(name, values):
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise ValueError(f"{name} has {bad} values that are not finite; allowed are numbers")
    return values


def _labels(y, rows, classes):
    """Return `y` as whole numbers `[rows]` from 0 to classes - 1, or say what is wrong."""
    y = _finite("y", y)
    if y.shape != (rows,) or rows == 0:
        raise ValueError(f"y has shape {y.shape}; allowed is ({rows},), at least one row")
    wrong = y[(y < 0) | (y >= classes) | (y != np.floor(y))]
    if len(wrong):
        raise ValueError(f"y holds {wrong[0]:g}; allowed are whole numbers from 0 to {classes - 1}")
    return y.astype(int)


def _table(x, y, classes, strength):
    """Return `x` as float `[B, D]` and `y` as whole numbers `[B]`, or say what is wrong."""
    x = _finite("x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x has shape {x.shape}; allowed is [B, D] with B and D at least 1")
    y = _labels(y, len(x), classes)
    if not 0 <= strength < np.inf:
        raise ValueError(f"strength is {strength}; allowed is 0 or more")
    return x, y
