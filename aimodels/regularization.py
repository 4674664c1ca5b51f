"""Overfitting and what is done against it: penalties, dropout, stopping, more data; many networks at once.

Axes: N samples, D columns, B batch, K classes, R networks side by side, U units of a layer,
H height and W width of an image, V views of it. Every loss is a mean over samples, so a strength
means the same whatever N is.
"""

from itertools import pairwise

import keras
import numpy as np
from keras import ops

from aimodels.training import check_whole


def _number(name, value, allowed, right):
    """Raise ValueError unless `right` holds for every number of `value`; NaN never does."""
    if not np.all(right(np.asarray(value, dtype=float))):
        raise ValueError(f"{name} must be {allowed}; received {value!r}")


def _centred(x, y, strength):
    """Return columns and targets less their means, and both means."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
        raise ValueError(
            f"x and y must be [N, D] and [N], not empty; received {x.shape}, {y.shape}"
        )
    for name, array in (("x", x), ("y", y)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must hold finite numbers; received a NaN or an infinity")
    _number("strength", strength, "a finite number from 0", lambda s: (s >= 0) & np.isfinite(s))
    middle, level = x.mean(axis=0), y.mean()
    return x - middle, y - level, middle, level


def ridge(x, y, strength):
    """Minimize `1/2N ‖y - x weights - bias‖² + strength/2 ‖weights‖²`.

    Args:
        x: `[N, D]`, on scales that are comparable: the penalty depends on the units.
        y: `[N]`.
        strength: α, from 0. Where 0 leaves several solutions, the shortest is returned.

    Returns:
        Weights `[D]`, and the bias, which is not punished.

    Raises:
        ValueError: shapes that do not fit, no row, a number that is not finite, a strength below 0.

    Source: Hoerl and Kennard 1970, <https://doi.org/10.1080/00401706.1970.10488634>.
    Differs: there, and in scikit-learn, the errors are summed: its `alpha` is N α.
    """
    x, y, middle, level = _centred(x, y, strength)
    u, size, v = np.linalg.svd(x, full_matrices=False)
    kept = size > size.max() * max(x.shape) * np.finfo(float).eps
    u, size, v = u[:, kept], size[kept], v[kept]
    weights = v.T @ (size / (size**2 + len(x) * strength) * (u.T @ y))
    return weights, level - middle @ weights


def soft_threshold(x, amount):
    """Bring numbers nearer to 0 by `amount`; those within `amount` become 0."""
    return np.sign(x) * np.maximum(np.abs(x) - amount, 0.0)


def lasso(x, y, strength, tolerance=1e-6, rounds=10_000):
    """Minimize `1/2N ‖y - x weights - bias‖² + strength ‖weights‖₁`, one weight after the other.

    Args:
        x: `[N, D]`, on scales that are comparable.
        y: `[N]`.
        strength: α, above 0.
        tolerance: it ends when the loss is proved to be above its minimum by no more than this
            share of the mean square of y; above 0.
        rounds: how often to go through all weights at most.

    Returns:
        Weights `[D]`, many of them exactly 0, and the bias, which is not punished.

    Raises:
        ValueError: as `ridge`; a strength of 0, for which `ridge` is there; a tolerance or a number of
            rounds that is not allowed.
        ArithmeticError: not converged after these rounds.

    Source: Tibshirani 1996, <https://doi.org/10.1111/j.2517-6161.1996.tb02080.x>.
    """
    x, y, middle, level = _centred(x, y, strength)
    _number("strength", strength, "above 0, or use ridge", lambda s: s > 0)
    _number("tolerance", tolerance, "a number above 0", lambda t: t > 0)
    check_whole("rounds", rounds, 1)
    samples, (_, columns) = len(x), x.shape
    weights, rest, square = np.zeros(columns), y.copy(), (x**2).mean(axis=0)
    for _ in range(rounds):
        for d in np.flatnonzero(square):  # a column without variance keeps its weight 0
            slope = x[:, d] @ rest / samples + square[d] * weights[d]
            new = soft_threshold(slope, strength) / square[d]
            rest += x[:, d] * (weights[d] - new)
            weights[d] = new
        # A multiple of the residual is feasible for the dual problem and bounds the loss from below.
        steepest = np.abs(x.T @ rest).max() / samples
        shrunk = rest * (min(1.0, strength / steepest) if steepest else 1.0)
        above = (rest @ rest + shrunk @ shrunk) / 2 - shrunk @ y
        if above / samples + strength * np.abs(weights).sum() <= tolerance * (y @ y) / samples:
            return weights, level - middle @ weights
    raise ArithmeticError(f"not converged after {rounds} rounds; tolerance is {tolerance}")


def dropout(x, rate, draws):
    """Set a share of the numbers to 0 and scale up the others, so that the mean stays.

    Args:
        x: any shape.
        rate: probability of 0, from 0 to below 1; a number, or an array that broadcasts to x.
        draws: of the shape of x, uniform from 0 to 1.

    Returns:
        x / (1 - rate) where a draw is at least the rate, else 0. Mean x, variance
        x² rate / (1 - rate).

    Raises:
        ValueError: a rate that is not allowed, or draws of another shape.

    Source: Srivastava et al. 2014, section 10: there weights are scaled down after training;
    scaling up in training, as here and in Keras, comes to the same.
    """
    _number("rate", rate, "from 0 to below 1", lambda r: (r >= 0) & (r < 1))
    if tuple(draws.shape) != tuple(x.shape):
        raise ValueError(f"draws must have the shape {tuple(x.shape)}; received {draws.shape}")
    rate = ops.cast(rate, x.dtype)
    return ops.where(ops.cast(draws, x.dtype) >= rate, x / (1 - rate), ops.zeros_like(x))


def early_stop(losses, patience, least=0.0):
    """Say when training would have been stopped, and which epoch had been the best by then.

    Args:
        losses: `[E]`, the validation loss after each epoch.
        patience: how many epochs in a row without a new best end it; from 1.
        least: by how much a loss must be lower to be a new best; from 0.

    Returns:
        The best epoch, whose weights are to be kept, and the last, both from 0. If no stop comes,
        the last is E - 1. A NaN is never the best; if all are NaN, the best is None.

    Raises:
        ValueError: no losses, or a number that is not allowed.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 1 or not losses.size:
        raise ValueError(f"losses must be [E], not empty; received shape {losses.shape}")
    check_whole("patience", patience, 1)
    _number("least", least, "a number from 0", lambda a: a >= 0)
    best, lowest, waited = None, np.inf, 0
    for epoch, loss in enumerate(losses):
        waited += 1
        if loss + least < lowest or (best is None and loss == lowest):
            best, lowest, waited = epoch, loss, 0
        if waited >= patience:
            return best, epoch
    return best, len(losses) - 1


def pixel_views(height, width, shift=0, flip=False):
    """Return every shifted, and perhaps mirrored, view of an image as an order of its pixels.

    Args:
        height: H.
        width: W.
        shift: by how many pixels to move at most, in each direction; from 0.
        flip: whether each comes mirrored, left to right, as well.

    Returns:
        `[V, H W]`, V = (2 shift + 1)², twice that with `flip`: which pixel to read for each place.
        The number H W stands for what lies outside; append it to the pixels. View 0 is the image.

    Raises:
        ValueError: a number that is not allowed.
    """
    for name, value, start in (("height", height, 1), ("width", width, 1), ("shift", shift, 0)):
        check_whole(name, value, start)
    pixels = np.pad(np.arange(height * width).reshape(height, width), shift, constant_values=-1)
    pixels[pixels < 0] = height * width
    steps = sorted(range(-shift, shift + 1), key=abs)
    views = [
        pixels[shift + down : shift + down + height, shift + right : shift + right + width]
        for down in steps
        for right in steps
    ]
    views += [view[:, ::-1] for view in views] if flip else []
    return np.stack(views).reshape(len(views), -1)


@keras.saving.register_keras_serializable("aimodels")
class SideBySide(keras.Model):
    """R feedforward networks of one shape, trained in one step and knowing nothing of each other.

    Every number of a network's gradient comes from its own loss. With an optimizer that treats each
    number alone, as Adam does and clipping by a common norm does not, each network learns as
    if it were trained by itself.

    Args:
        widths: columns, hidden units of each layer, classes; at least two numbers.
        seeds: R whole numbers; networks with equal seeds start with equal weights.
        l1: strength of `‖W‖₁` in the loss, a number or R of them. Biases are not punished.
        l2: strength of `½ ‖W‖²`, likewise.
        rate: of dropout behind each hidden layer, likewise.

    Call:
        inputs: `[R, B, D]`.

    Returns:
        Logits `[R, B, K]`. Dropout acts only if `training` is True.

    Raises:
        ValueError: sizes, seeds or strengths that are not allowed; inputs of another shape.
    """

    def __init__(self, widths, seeds, l1=0.0, l2=0.0, rate=0.0, **kwargs):
        """Keep the arguments and make the weights."""
        super().__init__(**kwargs)
        self.widths, self.seeds = list(widths), list(seeds)
        if len(self.widths) < 2 or not self.seeds:
            sizes = f"widths {self.widths}, seeds {self.seeds}"
            raise ValueError(f"widths must be two numbers or more, seeds one; received {sizes}")
        for name, values, lowest in (("widths", self.widths, 1), ("seeds", self.seeds, 0)):
            for value in values:
                check_whole(name, value, lowest)
        self.widths, self.seeds = [int(w) for w in self.widths], [int(s) for s in self.seeds]
        count = len(self.seeds)
        self.options = {"l1": l1, "l2": l2, "rate": rate}
        for name, value in self.options.items():
            if np.shape(value) not in ((), (count,)):
                raise ValueError(f"{name} must be a number or {count}; received {np.shape(value)}")
            top = 1.0 if name == "rate" else np.inf
            _number(name, value, f"from 0 to below {top}", lambda v, t=top: (v >= 0) & (v < t))
            self.options[name] = np.broadcast_to(np.float32(value), count).tolist()
        l1, l2, rate = (
            np.reshape(np.float32(value), (-1, 1, 1)) for value in self.options.values()
        )

        def penalty(weights):
            return ops.sum(l1 * ops.abs(weights) + l2 / 2 * ops.square(weights))

        draw, self.kernels, self.biases = [np.random.default_rng(s) for s in self.seeds], [], []
        for n, (enter, leave) in enumerate(pairwise(self.widths)):
            start = [rng.normal(0, np.sqrt(2 / enter), (enter, leave)) for rng in draw]
            kernel = self.add_weight((count, enter, leave), name=f"kernel_{n}", regularizer=penalty)
            kernel.assign(np.stack(start))
            self.kernels.append(kernel)
            self.biases.append(self.add_weight((count, 1, leave), "zeros", name=f"bias_{n}"))
        self.random, self.rate = keras.random.SeedGenerator(self.seeds[0]), rate
        self.built = True

    def call(self, inputs, training=False):
        """Put the rows of each network through its own layers."""
        return self.compute(inputs, self.kernels, training)

    def compute(self, inputs, kernels, training=False):
        """Return what `call` does, with other kernels of the same shapes in place of the own."""
        wanted = (len(self.seeds), self.widths[0])
        if len(inputs.shape) != 3 or (inputs.shape[0], inputs.shape[2]) != wanted:
            allowed = "[{}, B, {}]".format(*wanted)
            raise ValueError(f"inputs must be {allowed}; received {tuple(inputs.shape)}")
        x = ops.cast(inputs, self.compute_dtype)
        for n, (kernel, bias) in enumerate(zip(kernels, self.biases, strict=True)):
            if n:
                x = ops.relu(x)
                if training and self.rate.any():
                    x = dropout(x, self.rate, keras.random.uniform(ops.shape(x), seed=self.random))
            x = ops.matmul(x, kernel) + bias
        return x

    def get_config(self):
        """Return what `__init__` takes."""
        return {**super().get_config(), "widths": self.widths, "seeds": self.seeds, **self.options}


def summed_cross_entropy(targets, logits):
    """Return the sum over networks of the mean cross-entropy over samples.

    Args:
        targets: `[R, B, K]`, probabilities of the classes.
        logits: `[R, B, K]`.
    """
    each = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
    return ops.sum(ops.mean(each, axis=1))
