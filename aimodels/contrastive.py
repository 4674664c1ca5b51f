"""Contrastive learning: of many keys, find the one that belongs to the query.

Axes: B samples or queries, K keys, D width of a representation; H height, W width, C channels of an
image. Key i is the positive of query i; every other key is a negative. Losses compare directions:
rows are brought to length 1, in float32 at least, so that half precision does no harm.

Outside of a compiled graph, bad numbers raise a ValueError. Inside, where nobody can look at them,
a NaN, a row of length zero or a temperature that is not above 0 makes the result NaN.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

HIDDEN = -1e30  # finite: -inf - -inf is NaN


def _values(array):
    """Return the numbers of an array, or None inside a graph, where they are not known yet."""
    if isinstance(array, np.ndarray):
        return array
    return ops.convert_to_tensor(array).numpy() if tf.executing_eagerly() else None


def _unit(name, rows, least):
    """Return the rows `[B, D]` with length 1, or say what is wrong with them."""
    shape = tuple(rows.shape)
    if len(shape) != 2 or shape[1] == 0 or (shape[0] is not None and shape[0] < least):
        raise ValueError(f"{name} must be [B, D], B at least {least}; received {shape}")
    values = _values(rows)
    if values is not None:
        if not np.isfinite(values := values.astype("float64")).all():
            raise ValueError(f"{name} must be finite; received a row with NaN or infinity")
        if not values.any(axis=1).all():
            raise ValueError(f"{name} must have a direction; received a row of length zero")
    double = keras.backend.standardize_dtype(rows.dtype) == "float64"
    rows = ops.cast(rows, "float64" if double else "float32")
    scale = ops.max(ops.abs(rows), axis=1, keepdims=True)  # no square over- or underflows
    rows = rows / ops.stop_gradient(scale)
    return rows / ops.sqrt(ops.sum(rows * rows, axis=1, keepdims=True))


def _matched(a, b):
    """Return both in the wider of their types."""
    dtype = keras.backend.result_type(a.dtype, b.dtype)
    return ops.cast(a, dtype), ops.cast(b, dtype)


def _temperature(temperature, dtype):
    """Return the temperature as a tensor, or say what is wrong with it."""
    if not hasattr(temperature, "dtype"):
        temperature = np.asarray(temperature, "float64")
    if len(temperature.shape):
        raise ValueError(
            f"temperature must be one number; received shape {tuple(temperature.shape)}"
        )
    value = _values(temperature)
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"temperature must be above 0 and finite; received {value}")
    temperature = ops.cast(temperature, dtype)
    return ops.where(temperature > 0, temperature, math.nan)


def info_nce(queries, keys, temperature, mask=None):
    """Return how surprised each query is, on average, by the key that belongs to it.

    It is the cross-entropy of picking key i for query i, with the cosines of the angles between
    the query and all keys, divided by the temperature, as logits. Two sides, as images and their
    texts, are trained in both directions: `(info_nce(a, b, t) + info_nce(b, a, t)) / 2`.

    Args:
        queries: `[B, D]`.
        keys: `[K, D]`, K at least B and at least 2; keys B to K - 1 belong to no query.
        temperature: a number above 0, or a tensor with one, which may be learned.
        mask: boolean `[B, K]`; True lets a query see a key. It always sees its own. None: all.

    Returns:
        A number from 0, float32 or float64; log K if all cosines are equal and no key is hidden.

    Raises:
        ValueError: other shapes; where they are known: NaN, infinity, a row of length zero, a
            temperature not above 0, a query that sees no key beside its own.

    Source: van den Oord, Li and Vinyals 2018, section 2.3, <https://arxiv.org/abs/1807.03748>.
    Differs: there the logits are a bilinear form; cosines and a temperature came with Wu et al.
        2018, <https://arxiv.org/abs/1805.01978>.
    """
    a, b = _matched(_unit("queries", queries, 1), _unit("keys", keys, 2))
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"queries and keys must have the same width D; received {a.shape[1]} and {b.shape[1]}"
        )
    if None not in (a.shape[0], b.shape[0]) and b.shape[0] < a.shape[0]:
        raise ValueError(f"keys must be at least {a.shape[0]}, one a query; received {b.shape[0]}")
    cosines = ops.matmul(a, ops.transpose(b)) - ops.sum(a * b[: ops.shape(a)[0]], 1, keepdims=True)
    logits = cosines / _temperature(temperature, a.dtype)  # that of the own key is 0
    own = ops.arange(ops.shape(a)[0])[:, None] == ops.arange(ops.shape(b)[0])
    others = ops.logical_not(own)
    if mask is not None:
        _check_mask(mask, logits.shape)
        others = ops.logical_and(others, mask)
    # log(1 + sum of exp(logits) of the others), exact where it is small
    losses = ops.softplus(ops.logsumexp(ops.where(others, logits, HIDDEN), axis=1))
    return ops.mean(ops.where(ops.any(others, axis=1), losses, math.nan))


def _check_mask(mask, shape):
    """Raise ValueError unless the mask is boolean, fits, and leaves each query a negative."""
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool" or len(mask.shape) != 2:
        raise ValueError(f"mask must be boolean [B, K]; received {dtype} {tuple(mask.shape)}")
    for received, allowed in zip(mask.shape, shape, strict=True):
        if None not in (received, allowed) and received != allowed:
            raise ValueError(f"mask must be [B, K] = {tuple(shape)}; received {tuple(mask.shape)}")
    seen = _values(mask)
    if seen is not None and not (seen & ~np.eye(*seen.shape, dtype=bool)).any(axis=1).all():
        raise ValueError("mask must leave each query a key beside its own; received a row without")


def nt_xent(first, second, temperature):
    """Return the loss of SimCLR: each of the 2B views looks for the other view of its sample.

    Args:
        first: `[B, D]`, one view of each sample, B at least 2.
        second: `[B, D]`, the other view.
        temperature: as in `info_nce`.

    Returns:
        A number from 0; log(2B - 1) if all cosines are equal. It is the mean of two `info_nce`,
        each with both views as keys and the query itself hidden.

    Raises:
        ValueError: as `info_nce`, and if the shapes differ.

    Source: Chen et al. 2020, equation 1, <https://arxiv.org/abs/2002.05709>.
    """
    for name, rows in {"first": first, "second": second}.items():
        _unit(name, rows, 2)
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(
            f"first and second must have one shape; received {tuple(first.shape)} and"
            f" {tuple(second.shape)}"
        )
    itself = ops.eye(ops.shape(first)[0], dtype="bool")
    mask = ops.logical_not(ops.concatenate([ops.zeros_like(itself), itself], axis=1))
    one = info_nce(first, ops.concatenate([second, first]), temperature, mask)
    other = info_nce(second, ops.concatenate([first, second]), temperature, mask)
    return (one + other) / 2


def alignment(first, second):
    """Return the mean squared distance of two views of a sample, on the unit sphere.

    Args:
        first: `[B, D]`.
        second: `[B, D]`.

    Returns:
        A number from 0, all views agree, to 4.

    Source: Wang and Isola 2020, section 4.1, with α = 2, <https://arxiv.org/abs/2005.10242>.
    """
    a, b = _matched(_unit("first", first, 1), _unit("second", second, 1))
    if a.shape != b.shape:
        raise ValueError(f"first and second must have one shape; received {a.shape} and {b.shape}")
    return ops.mean(ops.sum((a - b) ** 2, axis=1))


def uniformity(rows):
    """Return how crowded the unit sphere is: log of the mean of exp(-2 d²) over all pairs.

    Args:
        rows: `[B, D]`, B at least 2.

    Returns:
        A number up to 0, which says that all rows are equal. Far down, they are spread evenly.

    Source: Wang and Isola 2020, section 4.1, with t = 2, <https://arxiv.org/abs/2005.10242>.
    """
    a = _unit("rows", rows, 2)
    count = ops.cast(ops.shape(a)[0], a.dtype)
    squares = 2 - 2 * ops.matmul(a, ops.transpose(a))
    exponents = ops.where(ops.eye(ops.shape(a)[0], dtype="bool"), HIDDEN, -2 * squares)
    return ops.logsumexp(exponents) - ops.log(count * (count - 1))


def resample(images, rows, columns, spread=1.0):
    """Read images at new places: one product of matrices for the rows, one for the columns.

    Args:
        images: `[B, H, W, C]`.
        rows: `[B, H']`, where to read, in pixels from the centre of the first one; each image has
            its own. Outside, the border is read.
        columns: `[B, W']`.
        spread: half the width of the triangle that weighs the pixels around a place, at least 1; a
            number or `[B]`. 1 is bilinear interpolation, more blurs.

    Returns:
        `[B, H', W', C]`.

    Raises:
        ValueError: a shape that does not fit; a spread below 1, where its value is known.
    """
    shapes = [tuple(array.shape) for array in (images, rows, columns)]
    if [len(shape) for shape in shapes] != [4, 2, 2] or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"images, rows, columns must be [B, H, W, C], [B, H'], [B, W']; received {shapes}"
        )
    known = _values(spread)
    if known is not None and not np.all(known >= 1):
        raise ValueError(f"spread must be at least 1; received {np.min(known)}")

    def weights(places, size):
        places = ops.clip(places, 0.0, size - 1.0)[:, :, None]
        reach = ops.reshape(ops.cast(spread, "float32"), (-1, 1, 1))
        near = ops.relu(reach - ops.abs(places - ops.arange(size, dtype="float32")))
        return near / ops.sum(near, axis=2, keepdims=True)

    images = ops.cast(images, "float32")
    down, across = weights(rows, images.shape[1]), weights(columns, images.shape[2])
    return ops.einsum("bih,bhwc,bjw->bijc", down, images, across)


def augment(images, seed, *, crop=0.75, flip=True, light=0.4, blur=2.0, erase=0.0):
    """Return a random view of each image; each of the five changes can be turned off.

    Args:
        images: `[B, H, W, C]`, scaled to 0 to 1.
        seed: two whole numbers, for instance seed of the run and number of the step. They alone
            decide all draws; compiled by XLA, other ones than without it.
        crop: smallest side of the part that is kept, as a share; the part is scaled up to
            H and W. 1 keeps all.
        flip: whether half of the images are mirrored.
        light: images are multiplied by 1 - light to 1 + light, and -light/2 to light/2 is added.
        blur: largest `spread` of `resample`; 1 for none.
        erase: side of a square that is set to zero, as a share; 0 for none.

    Returns:
        `[B, H, W, C]`, float32. A NaN makes NaN of the view of its image, and of no other.

    Raises:
        ValueError: images of another rank, not two seeds, or a strength that is not allowed.
    """
    if len(images.shape) != len("BHWC"):
        raise ValueError(f"images must be [B, H, W, C]; received {tuple(images.shape)}")
    for name, value, low, high in (
        ("crop", crop, 0.1, 1),
        ("light", light, 0, 1),
        ("blur", blur, 1, 8),
        ("erase", erase, 0, 0.9),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}; received {value}")
    if np.shape(seed) != (2,):
        raise ValueError(f"seed must be two whole numbers; received shape {np.shape(seed)}")
    count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
    draw = tf.random.stateless_uniform((9, count, 1), seed)
    side = crop + (1 - crop) * draw[0]

    def places(size, start, mirrored):  # centres of the pixels of the part, from left to right
        centres = (ops.arange(size, dtype="float32") + 0.5) / size
        centres = ops.where(mirrored, 1 - centres, centres)
        return (start * (1 - side) + side * centres) * size - 0.5

    rows = places(height, draw[1], False)
    columns = places(width, draw[2], ops.logical_and(flip, draw[3] < 0.5))
    views = resample(images, rows, columns, 1 + (blur - 1) * draw[4])
    gain, shift = 1 + light * (2 * draw[5] - 1), light * (draw[6] - 0.5)
    views = views * gain[:, :, None, None] + shift[:, :, None, None]

    def inside(size, start):  # rows or columns that the square covers
        side = round(erase * size)
        place = ops.arange(size, dtype="float32") - ops.floor(start * (size - side + 1))
        return ops.logical_and(place >= 0, place < side)

    erased = ops.logical_and(inside(height, draw[7])[:, :, None], inside(width, draw[8])[:, None])
    return ops.where(erased[..., None], 0.0, views)


def encoder(shape=(28, 28, 1), width=128):
    """Return a small convolutional network: three times half the height and width, then averages.

    Each convolution has stride 2, a batch normalization and ReLU; at the end blocks of 2 by 2
    places are averaged. Of 28 by 28 pixels 2 by 2 places are left, with `width` numbers each.

    Args:
        shape: (H, W, C) of an image.
        width: filters of the last convolution, a multiple of 4; those before have 1/4 and 1/2.

    Returns:
        An untrained `keras.Sequential` from `[B, H, W, C]` to `[B, D]`.
    """
    if not isinstance(width, int) or width < 4 or width % 4:
        raise ValueError(f"width must be a multiple of 4, at least 4; received {width!r}")
    if len(shape) != len("HWC") or min(shape) < 1:
        raise ValueError(f"shape must be (H, W, C) with no zero; received {tuple(shape)}")
    layers = [keras.Input(shape)]
    for filters in (width // 4, width // 2, width):
        options = {"strides": 2, "padding": "same", "use_bias": False}
        layers.append(keras.layers.Conv2D(filters, 3, **options))
        layers.append(keras.layers.BatchNormalization(momentum=0.9))  # runs here are short
        layers.append(keras.layers.ReLU())
    layers += [keras.layers.AveragePooling2D(2, padding="same"), keras.layers.Flatten()]
    return keras.Sequential(layers, name="encoder")


def with_head(body, hidden=128, width=32):
    """Return the encoder with a projection head: two dense layers, dropped after training.

    Args:
        body: an encoder, a built model with output `[B, D]`; it is shared, not copied.
        hidden: units of the first layer.
        width: of the rows that the loss compares.

    Source: Chen et al. 2020, section 4.2, <https://arxiv.org/abs/2002.05709>.
    """
    dense = keras.layers.Dense
    return keras.Sequential([body, dense(hidden, activation="relu"), dense(width)])
