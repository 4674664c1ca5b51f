"""Activation functions, each with its derivative, safe for inputs of any size.

Axes: D entries of a row. All but softmax act on each number alone and keep shape and precision.
Past 1000 in size every curve is flat or straight to the last bit, so exponents are cut there.
Sigmoid and softmax are those of logistic regression; here are their derivatives.
"""

import math

import numpy as np

from aimodels.logistic import sigmoid, softmax

CUT = 1000.0
CUBIC = 0.044715  # of GELU's tanh form
_erfc = np.frompyfunc(math.erfc, 1, 1)  # NumPy has no error function


def sigmoid_derivative(x):
    """Return sigmoid(x) sigmoid(-x), from 0 to 1/4, which loses no digits where it is small."""
    x = _real(x)
    return sigmoid(x) * sigmoid(-x)


def tanh(x):
    """Return (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ) = 2 sigmoid(2x) - 1, from -1 to 1."""
    return np.tanh(_real(x))


def tanh_derivative(x):
    """Return 1 - tanh(x)², from 0 to 1, written so that it loses no digits where it is small."""
    return 4 * sigmoid_derivative(2 * np.clip(_real(x), -CUT, CUT))


def relu(x):
    """Return max(x, 0)."""
    return np.maximum(_real(x), 0)


def relu_derivative(x):
    """Return 1 above 0, else 0; at 0 itself, where there is no derivative, 0 as in TensorFlow."""
    x = _real(x)
    return np.where(np.isnan(x), x, x > 0).astype(x.dtype)


def leaky_relu(x, slope=0.2):
    """Return x above 0, else `slope` times x, with `slope` between 0 and 1."""
    x = _real(x)
    return np.where(x > 0, x, _slope(slope) * x)


def leaky_relu_derivative(x, slope=0.2):
    """Return 1 above 0, else `slope`, with `slope` between 0 and 1."""
    x = _real(x)
    return np.where(np.isnan(x), x, np.where(x > 0, 1, _slope(slope))).astype(x.dtype)


def gelu(x, approximate=False):
    """Return x P(Z ≤ x) for a standard normal Z.

    Args:
        x: any shape.
        approximate: True replaces the probability by a sigmoid, the "tanh form".

    Returns:
        As `x`, never below -0.18.

    Source: Hendrycks and Gimpel 2016, section 2, <https://arxiv.org/abs/1606.08415>.
    Differs: written with erfc and sigmoid, equal to 1 + erf and 1 + tanh, for exact small values.
    """
    x = _real(x)
    return np.maximum(x, -CUT) * _normal(x, approximate)[0]


def gelu_derivative(x, approximate=False):
    """Return the derivative of `gelu`, P(Z ≤ x) + x p(x) with the density p, or of its tanh form."""
    below, density = _normal(_real(x), approximate)
    return below + np.clip(_real(x), -CUT, CUT) * density


def silu(x):
    """Return x sigmoid(x), also called swish, never below -0.28.

    Source: Elfwing, Uchibe and Doya 2018, section 2.1, <https://doi.org/10.1016/j.neunet.2017.12.012>.
    """
    x = _real(x)
    return np.maximum(x, -CUT) * sigmoid(x)


def silu_derivative(x):
    """Return the derivative of `silu`, sigmoid(x) (1 + x sigmoid(-x))."""
    x = np.clip(_real(x), -CUT, CUT)
    return sigmoid(x) * (1 + x * sigmoid(-x))


def softmax_jacobian(z):
    """Return the derivative of softmax entry j by input l, `[..., K, K]`; rows sum to 0."""
    p = softmax(z)
    return p[..., :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])


def softmax_product(z, v):
    """Return the Jacobian of softmax at z times v, both `[..., K]`, without building it.

    The Jacobian is symmetric, so this is also v times the Jacobian, as backpropagation needs it.
    """
    p, v = softmax(z), _real(v)
    if v.shape != p.shape:
        raise ValueError(f"v has shape {v.shape}; allowed is that of z, {p.shape}")
    return p * (v - (p * v).sum(axis=-1, keepdims=True))


def _normal(x, approximate):
    """Return the probability below x and its derivative, exact or in the tanh form."""
    x = np.clip(x, -CUT, CUT)
    if approximate:
        scale = 2 * math.sqrt(2 / math.pi)
        inner = scale * (x + CUBIC * x**3)
        return sigmoid(inner), sigmoid_derivative(inner) * scale * (1 + 3 * CUBIC * x**2)
    below = np.asarray(_erfc(-x / math.sqrt(2)), dtype=x.dtype) / 2
    return below, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _slope(slope):
    if not 0 < slope < 1:
        raise ValueError(f"slope is {slope}; allowed is a number between 0 and 1")
    return slope


def _real(x):
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"x has dtype {x.dtype}; allowed are real numbers")
    return x if x.dtype.kind == "f" else x.astype(float)
