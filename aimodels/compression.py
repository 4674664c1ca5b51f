"""Smaller networks: fewer bits for a number, fewer numbers, and a small network taught by a large one.

Axes: D inputs of a layer, U units of it, B batch, K classes, R networks side by side.
A kernel is `[D, U]`, or `[R, D, U]`; a channel is one unit, a column of the kernel.
"""

from itertools import pairwise

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels.training import check_whole


def quantize(w, bits=8, axis=None):
    """Round numbers to whole multiples of a step, alike above and below 0.

    The step is the smallest with which the largest number is at most 2^(bits - 1) - 1 steps, so
    nothing is cut off and no number moves by more than half a step.

    Args:
        w: finite numbers of any shape.
        bits: of an integer, 2 to 8.
        axis: along which numbers share a step: None all of them, 0 those of each column of a kernel
            `[D, U]`. For groups of G inputs, reshape to `[D / G, G, U]` and take axis 1.

    Returns:
        int8 integers of the shape of w, and float32 steps, which broadcast to it; `integers * steps`
        is w again, up to half a step. Where all numbers are 0, the step is 0.

    Raises:
        ValueError: no number, one that float32 does not hold, bits or an axis that are not allowed.

    Source: Jacob et al. 2018, section 2.1, <https://arxiv.org/abs/1712.05877>. Differs: 0 in the middle,
    as they have it for weights, so there is no zero point.
    """
    check_whole("bits", bits, 2, 8)
    w = _finite("w", w)
    if axis is not None and not (isinstance(axis, int) and -w.ndim <= axis < w.ndim):
        raise ValueError(f"axis must be None or an axis of {w.ndim}; received {axis!r}")
    top = 2 ** (bits - 1) - 1
    largest = np.abs(w).max(axis=axis, keepdims=True)
    steps = (largest / top).astype("float32")
    short = top * steps.astype(float) < largest  # rounded down; the largest would be cut off
    np.nextafter(steps, np.float32(np.inf), out=steps, where=short)
    integers = np.rint(w / np.where(steps > 0, steps, 1).astype(float))
    return integers.astype("int8"), steps


def pack(integers):
    """Put two 4-bit integers into each byte, along the first axis.

    Args:
        integers: `[D, ...]` whole numbers from -8 to 7.

    Returns:
        `[⌈D / 2⌉, ...]` uint8: row 0 in the lower half of a byte, row 1 in the upper, and so on.

    Raises:
        ValueError: not whole numbers, or out of range.
    """
    integers = np.asarray(integers)
    if integers.dtype.kind not in "iu" or integers.ndim == 0:
        raise ValueError(f"integers must be an array of whole numbers; received {integers.dtype}")
    if integers.size and not (integers.min() >= -8 and integers.max() <= 7):
        raise ValueError(
            f"integers must be from -8 to 7; received {integers.min()} to {integers.max()}"
        )
    even = np.zeros((-(-len(integers) // 2) * 2, *integers.shape[1:]), "uint8")
    even[: len(integers)] = integers.astype("int8").view("uint8") & 15
    return even[::2] | even[1::2] << 4


def unpack(packed, rows):
    """Return the int8 integers `[rows, ...]` that `pack` was given.

    Raises:
        ValueError: not bytes, or a number of rows that they do not have.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim == 0:
        raise ValueError(f"packed must be an array of uint8; received {packed.dtype}")
    check_whole("rows", rows, max(2 * len(packed) - 1, 0), 2 * len(packed))
    halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(
        2 * len(packed), *packed.shape[1:]
    )
    return ((halves ^ 8).astype("int8") - 8)[:rows]  # 8 to 15 stand for -8 to -1


def keep_largest(arrays, share, together=True):
    """Mark the numbers that are largest in magnitude.

    Args:
        arrays: list of arrays of finite numbers.
        share: of the numbers to keep, from 0 to 1.
        together: whether all compete with all; if not, each array keeps this share of its own.

    Returns:
        List of boolean masks, True where kept. `round(share * n)` of n numbers are.

    Raises:
        ValueError: no array, no number in one, NaN or infinity, a share that is not allowed.

    Source: Han et al. 2015, <https://arxiv.org/abs/1506.02626>, one threshold for each layer.
    """
    arrays = [_finite("arrays", array) for array in arrays]
    if not arrays:
        raise ValueError("arrays must hold at least one; received none")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1; received {share!r}")
    if not together:
        return [keep_largest([array], share)[0] for array in arrays]
    sizes = np.abs(np.concatenate([array.ravel() for array in arrays]))
    kept = np.zeros(len(sizes), bool)
    kept[np.argsort(-sizes, kind="stable")[: round(share * len(sizes))]] = True
    ends = np.cumsum([array.size for array in arrays])[:-1]
    return [
        mask.reshape(array.shape) for mask, array in zip(np.split(kept, ends), arrays, strict=True)
    ]


def masked_step(step, kernels, masks):
    """Return a step that sets what a mask drops to 0 again after each update.

    That is done to the weights and not to the gradients, as momentum moves a weight whose gradient
    is 0.

    Args:
        step: function of x and y, as `make_step` makes it.
        kernels: variables.
        masks: as many boolean arrays, of their shapes.

    Raises:
        ValueError: another number of masks, or another shape.
    """
    if [tuple(k.shape) for k in kernels] != [np.shape(mask) for mask in masks]:
        raise ValueError(
            f"masks must have the shapes {[tuple(k.shape) for k in kernels]};"
            f" received {[np.shape(mask) for mask in masks]}"
        )
    pairs = [(k, tf.constant(mask, k.dtype)) for k, mask in zip(kernels, masks, strict=True)]

    def sparse_step(x, y):
        value = step(x, y)
        for kernel, mask in pairs:
            kernel.assign(kernel * mask)
        return value

    return tf.function(sparse_step, autograph=False)


def drop_units(kernels, biases, widths):
    """Make the hidden layers of a feedforward network narrower by leaving out whole units.

    Those stay whose incoming weights are longest.

    Args:
        kernels: `[D, U]` of each layer, so that each reads the units of the one before.
        biases: `[U]` of each layer.
        widths: how many units to keep in each hidden layer, in their order.

    Returns:
        Kernels and biases of the smaller network.

    Raises:
        ValueError: layers that do not fit together, a width that is not allowed.

    Source: Li et al. 2016, <https://arxiv.org/abs/1608.08710>, where the units are filters and
    lengths are sums of magnitudes.
    """
    kernels, biases = [_finite("kernels", k) for k in kernels], [np.asarray(b) for b in biases]
    fit = all(a.shape[-1:] == b.shape[:1] for a, b in pairwise(kernels))
    if not fit or [k.shape[1:] for k in kernels] != [b.shape for b in biases]:
        shapes = [k.shape for k in kernels], [b.shape for b in biases]
        raise ValueError(f"kernels and biases must be [D, U] and [U] in a chain; received {shapes}")
    if len(widths) != len(kernels) - 1:
        raise ValueError(f"widths must be {len(kernels) - 1} numbers; received {widths}")
    for n, width in enumerate(widths):
        check_whole("widths", width, 1, kernels[n].shape[1])
        lengths = np.linalg.norm(kernels[n], axis=0)
        kept = np.sort(np.argsort(-lengths, kind="stable")[:width])
        kernels[n], biases[n] = kernels[n][:, kept], biases[n][kept]
        kernels[n + 1] = kernels[n + 1][kept]
    return kernels, biases


def straight_through(w, tops):
    """Round as `quantize` does with one step a column, and let the gradient pass as if not rounded.

    Args:
        w: kernels `[..., D, U]`.
        tops: 2^(bits - 1) - 1, a number or an array that broadcasts to w.

    Returns:
        Whole multiples of the steps, of the shape of w; their derivative by w counts as 1.

    Source: Bengio et al. 2013, <https://arxiv.org/abs/1308.3432>; Jacob et al. 2018, section 3.
    """
    steps = ops.max(ops.abs(w), axis=-2, keepdims=True) / tops
    steps = ops.where(steps > 0, steps, ops.ones_like(steps))
    return w + ops.stop_gradient(ops.round(w / steps) * steps - w)


class Rounded(keras.Model):
    """Networks side by side that compute with rounded weights and learn through exact ones.

    Args:
        networks: a `SideBySide` without dropout, whose weights are read rounded and trained exactly.
        bits: R whole numbers, the bits of each network.

    Call:
        inputs: `[R, B, D]`.

    Returns:
        Logits `[R, B, K]`.

    Raises:
        ValueError: bits that are not allowed, or not one number for each network.
    """

    def __init__(self, networks, bits, **kwargs):
        """Keep the networks."""
        super().__init__(**kwargs)
        if len(bits) != len(networks.seeds):
            raise ValueError(f"bits must be {len(networks.seeds)} numbers; received {len(bits)}")
        for number in bits:
            check_whole("bits", number, 2, 8)
        self.networks = networks
        self.tops = np.float32([[[2 ** (number - 1) - 1]] for number in bits])
        self.built = True

    def call(self, inputs):
        """Put the rows of each network through its rounded layers."""
        rounded = [straight_through(kernel, self.tops) for kernel in self.networks.kernels]
        return self.networks.compute(inputs, rounded)


def distillation_loss(teacher, student, temperature):
    """Return `T² KL(softmax(teacher / T) ‖ softmax(student / T))`, one number for each row.

    Args:
        teacher: logits `[..., K]`; no gradient goes to them.
        student: logits `[..., K]`.
        temperature: T, above 0: a number, or an array that broadcasts to the logits.

    Returns:
        `[...]` numbers from 0. The factor T² keeps gradients about as large whatever T is.

    Raises:
        ValueError: a temperature that is not above 0 and finite.

    Source: Hinton et al. 2015, section 2, <https://arxiv.org/abs/1503.02531>.
    """
    if not np.all((np.asarray(temperature) > 0) & np.isfinite(temperature)):
        raise ValueError(f"temperature must be finite and above 0; received {temperature!r}")
    target = ops.stop_gradient(ops.log_softmax(teacher / temperature))
    said = ops.log_softmax(student / temperature)
    return ops.sum(temperature**2 * ops.exp(target) * (target - said), axis=-1)


def _finite(name, value):
    """Return `value` in float64, if it holds finite numbers within the range of float32."""
    array = np.asarray(value, dtype=float)
    if not array.size or not (np.abs(array) <= np.finfo("float32").max).all():
        what = "an empty array" if not array.size else "NaN, infinity or a larger one"
        raise ValueError(f"{name} must hold numbers within float32; received {what}")
    return array
