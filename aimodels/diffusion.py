"""Diffusion models: schedules of noise, noising in closed form, and the ways back.

Axes: B samples, T steps of noise. A schedule is one array `signal` of shape `[T + 1]`: what share
of the variance is signal after t steps. It begins with 1, no noise, and falls.
"""

from itertools import pairwise

import keras
import numpy as np
from keras import ops

from aimodels.training import check_whole
from aimodels.transformer import sinusoidal_positions


def linear_schedule(steps=1000, first=1e-4, last=0.02):
    """Return the schedule whose steps add a share of noise that grows linearly.

    Args:
        steps: T, from 1.
        first: β of the first step, above 0.
        last: β of the last step, at least `first`, below 1.

    Returns:
        `[T + 1]` float64: the products of 1 - β up to step t; the first is 1.

    Raises:
        ValueError: a number that is not allowed.

    Source: Ho, Jain and Abbeel 2020, section 4, <https://arxiv.org/abs/2006.11239>.
    """
    check_whole("steps", steps, 1)
    if not 0 < first <= last < 1:
        raise ValueError(f"first and last must be 0 < first <= last < 1; received {first}, {last}")
    return np.cumprod([1.0, *(1 - np.linspace(first, last, steps))])


def cosine_schedule(steps=1000, offset=0.008, most=0.999):
    """Return the schedule whose share of signal falls like a squared cosine.

    Args:
        steps: T, from 1.
        offset: keeps the first steps from being too small; from 0.
        most: the largest β; above 0, below 1. It keeps the last share of signal above 0.

    Returns:
        `[T + 1]` float64; the first is 1.

    Raises:
        ValueError: a number that is not allowed.

    Source: Nichol and Dhariwal 2021, section 3.2, <https://arxiv.org/abs/2102.09672>.
    """
    check_whole("steps", steps, 1)
    if not 0 <= offset < np.inf:
        raise ValueError(f"offset must be finite and from 0; received {offset}")
    if not 0 < most < 1:
        raise ValueError(f"most must be above 0 and below 1; received {most}")
    angles = (np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2
    share = np.cos(angles) ** 2
    return np.cumprod([1.0, *np.maximum(share[1:] / share[:-1], 1 - most)])


def noised(x, noise, signal):
    """Return √ᾱ x + √(1 - ᾱ) ε: the sample after all steps of noise up to one, at once.

    Args:
        x: `[B, ...]` samples.
        noise: ε, standard normal, same shape.
        signal: ᾱ, from 0 to 1; one number, or `[B]`, one for each sample.

    Returns:
        Same shape and precision as x; float64 for whole numbers. A NaN stays in its place.

    Raises:
        ValueError: shapes that differ; a share outside of 0 to 1.

    Source: Ho, Jain and Abbeel 2020, equation 4, <https://arxiv.org/abs/2006.11239>.
    """
    x, noise = _pair("noise", x, noise)
    signal = _share("signal", signal, x)
    return _as(x, np.sqrt(signal)) * x + _as(x, np.sqrt(1 - signal)) * noise


def denoised(x, noise, signal):
    """Return (x - √(1 - ᾱ) ε) / √ᾱ, the clean sample that x and its noise imply.

    Args:
        x: `[B, ...]` noisy samples.
        noise: ε, or what a network takes for it, same shape.
        signal: ᾱ, above 0 to 1; one number, or `[B]`.

    Returns:
        As `noised`, whose inverse it is. Where ᾱ is small, errors of the noise grow by 1 / √ᾱ.

    Raises:
        ValueError: shapes that differ; a share of 0 or outside of 0 to 1.

    Source: Ho, Jain and Abbeel 2020, equation 15, <https://arxiv.org/abs/2006.11239>.
    """
    x, noise = _pair("noise", x, noise)
    signal = _share("signal", signal, x)
    if (signal == 0).any():
        raise ValueError("signal must be above 0: without signal nothing can be told; received 0.0")
    return (x - _as(x, np.sqrt(1 - signal)) * noise) / _as(x, np.sqrt(signal))


def posterior(x, clean, signal, before):
    """Return mean and variance of an earlier state, given a later one and the clean sample.

    Args:
        x: `[B, ...]` noisy samples.
        clean: the samples without noise, same shape.
        signal: ᾱ of x, from 0, below 1.
        before: ᾱ of the earlier state, above `signal`, up to 1.

    Returns:
        The mean, as x, and the variance of each of its numbers, from 0; 0 if `before` is 1.

    Raises:
        ValueError: shapes that differ; shares that are not allowed.

    Source: Ho, Jain and Abbeel 2020, equations 6 and 7, <https://arxiv.org/abs/2006.11239>.
    Differs: any two steps; there neighbours.
    """
    x, clean = _pair("clean", x, clean)
    _ordered(signal, before)
    step = signal / before  # 1 - β if the two are neighbours
    of_clean = np.sqrt(before) * (1 - step) / (1 - signal)
    of_x = np.sqrt(step) * (1 - before) / (1 - signal)
    variance = (1 - step) * (1 - before) / (1 - signal)
    return _as(x, of_clean) * clean + _as(x, of_x) * x, float(variance)


def step_back(x, noise, signal, before, *, eta=0.0, fresh=None, bounds=None):
    """Return an earlier state of samples whose noise is known or predicted.

    Args:
        x: `[B, ...]` noisy samples.
        noise: ε, as a network predicts it, same shape.
        signal: ᾱ of x, above 0, below 1.
        before: ᾱ of the earlier state, above `signal`, up to 1.
        eta: η from 0 to 1. 0 is DDIM and uses no random number; 1 draws from the `posterior`, DDPM.
        fresh: new standard normal noise, same shape; not needed if η is 0.
        bounds: (least, most) that clean samples can have, or None. What lies outside is clipped,
            and the noise is taken that fits what is left.

    Returns:
        Same shape and precision as x.

    Raises:
        ValueError: shapes that differ; a number that is not allowed; no fresh noise.

    Source: Song, Meng and Ermon 2020, equations 12 and 16, <https://arxiv.org/abs/2010.02502>.
    """
    _ordered(signal, before)
    _random(eta)
    x, noise = _pair("noise", x, noise)
    clean = denoised(x, noise, signal)
    if bounds is not None:
        clean = np.clip(clean, *_bounds(bounds))
        noise = (x - _as(x, np.sqrt(signal)) * clean) / _as(x, np.sqrt(1 - signal))
    variance = eta**2 * (1 - before) / (1 - signal) * (1 - signal / before)
    rest = max(1 - before - variance, 0.0)  # rounding alone can push it below 0
    x = _as(x, np.sqrt(before)) * clean + _as(x, np.sqrt(rest)) * noise
    if eta == 0:
        return x
    if fresh is None:
        raise ValueError(f"fresh must hold new noise if eta is above 0; received None, {eta}")
    x, fresh = _pair("fresh", x, fresh)
    return x + _as(x, np.sqrt(variance)) * fresh


def sample(predict, x, signal, steps, *, eta=0.0, rng=None, bounds=None):
    """Return samples made of noise, step by step.

    Args:
        predict: function of x `[B, ...]` and t `[B]` (int32) that returns the noise in x.
        x: `[B, ...]` standard normal noise, at least one sample.
        signal: the schedule `[T + 1]` that `predict` knows.
        steps: how many to take, 1 to T; the states between are spread evenly.
        eta: see `step_back`.
        rng: a NumPy generator; not needed if η is 0.
        bounds: see `step_back`.

    Returns:
        Same shape and precision as x. If η is 0, the same x always gives the same.

    Raises:
        ValueError: what is no schedule; no sample; a number that is not allowed; no `rng`.

    Source: Song, Meng and Ermon 2020, section 4.2, <https://arxiv.org/abs/2010.02502>.
    """
    signal, x = _schedule(signal), np.asarray(x)
    check_whole("steps", steps, 1, len(signal) - 1)
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"x must hold at least one sample; received shape {x.shape}")
    _random(eta)
    if eta > 0 and rng is None:
        raise ValueError(f"rng must be a generator if eta is above 0; received None, {eta}")
    states = np.linspace(0, len(signal) - 1, steps + 1).round().astype("int32")[::-1]
    for t, before in pairwise(states):
        noise = np.asarray(predict(x, np.full(len(x), t, "int32")))
        fresh = rng.standard_normal(x.shape).astype(x.dtype) if eta else None
        shares = signal[t], signal[before]
        x = step_back(x, noise, *shares, eta=eta, fresh=fresh, bounds=bounds)
    return x


def noisy_pairs(batches, signal, seed):
    """Yield what a network learns from: noisy samples and their step, and the noise in them.

    Args:
        batches: an iterator of `[B, ...]` clean samples, as `aimodels.training.batches` makes it.
        signal: the schedule `[T + 1]`.
        seed: a whole number from 0; it decides steps and noise.

    Yields:
        `((x, t), noise)`: float32 `[B, ...]`, int32 `[B]` from 1 to T, float32 `[B, ...]`; for
        `aimodels.training.train` and a model of two inputs.

    Raises:
        ValueError: what is no schedule.

    Source: Ho, Jain and Abbeel 2020, algorithm 1, <https://arxiv.org/abs/2006.11239>.
    """
    signal, rng = _schedule(signal), np.random.default_rng(seed)

    def endless():  # apart, so that what is wrong is said at once and not at the first batch
        for x in batches:
            t = rng.integers(1, len(signal), len(x)).astype("int32")
            noise = rng.standard_normal(x.shape, dtype="float32")
            yield (noised(np.asarray(x, "float32"), noise, signal[t]), t), noise

    return endless()


@keras.saving.register_keras_serializable("aimodels")
class Lookup(keras.layers.Layer):
    """What is known of each step before any training: a fixed table, read by the step's number.

    Args:
        rows: `[T + 1, F]`, a row for each step.

    Call:
        t: whole numbers `[B]` from 0 to T.

    Returns:
        `[B, F]`.

    Raises:
        ValueError: rows of another rank, or none.
    """

    def __init__(self, rows, **kwargs):
        """Keep the rows; there are no weights, so that copies and files have them, too."""
        super().__init__(**kwargs)
        self.rows = np.asarray(rows, "float32")
        if self.rows.ndim != len("TF") or 0 in self.rows.shape:
            raise ValueError(f"rows must be [T + 1, F]; received shape {self.rows.shape}")

    def call(self, t):
        """Return the rows of these steps."""
        return ops.take(ops.cast(self.rows, self.compute_dtype), t, axis=0)

    def compute_output_shape(self, shape):
        """Return the shape of the result."""
        return (*shape, self.rows.shape[1])

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "rows": self.rows.tolist()}


def unet(signal, channels=16):
    """Return an untrained network from noisy images and their steps to the noise in them.

    It gives √(1 - ᾱ) x + √ᾱ F(x, t), where F is a small U-net: the first term alone is the best
    guess if each pixel were a standard normal number.

    Args:
        signal: the schedule `[T + 1]`.
        channels: of the feature maps of 14 x 14, from 1; those of 7 x 7 have twice as many.

    Returns:
        A Keras model of images `[B, 28, 28, 1]` and whole numbers t `[B]` from 0 to T, that gives
        `[B, 28, 28, 1]`.

    Raises:
        ValueError: what is no schedule; a number that is not whole or below 1.

    Source: Ho, Jain and Abbeel 2020, appendix B, <https://arxiv.org/abs/2006.11239>; the first term
    as in Salimans and Ho 2022, section 4, <https://arxiv.org/abs/2202.00512>.
    Differs: two sizes of feature maps, no normalization, and dense layers across the whole image
    where they have attention.
    """
    signal = _schedule(signal)
    check_whole("channels", channels, 1)
    layers, wide, middle = keras.layers, 2 * channels, 8 * channels
    image, t = keras.Input((28, 28, 1)), keras.Input((), dtype="int32")

    def spread(row):
        return layers.Reshape((1, 1, row.shape[-1]))(row)

    def halved(x, width):
        return layers.Conv2D(width, 4, strides=2, padding="same")(x)

    def doubled(x):
        return layers.Conv2DTranspose(channels, 4, strides=2, padding="same")(x)

    time = Lookup(sinusoidal_positions(len(signal), 32))(t)
    time = layers.Dense(4 * channels, "silu")(time)

    def block(x):
        width = x.shape[-1]
        inside = layers.Conv2D(width, 3, padding="same")(x)
        inside = layers.Activation("silu")(inside + spread(layers.Dense(width)(time)))
        return x + layers.Conv2D(width, 3, padding="same", activation="silu")(inside)

    fine = block(halved(image, channels))
    x = block(halved(fine, wide))
    whole = layers.Dense(middle)(layers.Flatten()(x)) + layers.Dense(middle)(time)
    whole = layers.Dense(middle, "silu")(layers.Activation("silu")(whole))
    x = block(x + layers.Reshape(x.shape[1:])(layers.Dense(49 * wide)(whole)))
    x = layers.Conv2D(channels, 1)(layers.Concatenate()([doubled(x), fine]))
    x = layers.Activation("silu")(doubled(block(x)))
    x = layers.Conv2D(1, 3, padding="same")(layers.Concatenate()([x, image]))
    noise, rest = (spread(Lookup(np.sqrt(share)[:, None])(t)) for share in (1 - signal, signal))
    return keras.Model([image, t], noise * image + rest * x)


def _schedule(signal):
    signal = np.asarray(signal, float)
    falls = signal.ndim == 1 and len(signal) > 1 and bool((np.diff(signal) < 0).all())
    if not falls or signal[0] != 1 or not signal[-1] > 0:
        raise ValueError(
            f"signal must be [T + 1] shares that fall from 1 and stay above 0; received {signal}"
        )
    return signal


def _pair(name, x, other):
    """Return both as arrays of the precision of x."""
    x, other = np.asarray(x), np.asarray(other)
    if x.shape != other.shape:
        raise ValueError(f"{name} must have the shape {x.shape} of x; received {other.shape}")
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    return x.astype(kind, copy=False), other.astype(kind, copy=False)


def _share(name, share, x):
    """Return a share, or one for each sample, so that it multiplies x."""
    share = np.asarray(share, float)
    if share.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"{name} must be one number or have the shape {x.shape[:1]}; received {share.shape}"
        )
    bad = ~((share >= 0) & (share <= 1))
    if bad.any():
        raise ValueError(f"{name} must be from 0 to 1; received {share[bad][0]}")
    return share.reshape(share.shape + (1,) * (x.ndim - 1)) if share.ndim else share


def _ordered(signal, before):
    if not 0 <= signal < before <= 1:
        raise ValueError(
            f"signal and before must be 0 <= signal < before <= 1; received {signal}, {before}"
        )


def _random(eta):
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be from 0 to 1; received {eta}")


def _bounds(bounds):
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds must be (least, most), least below most; received {bounds}")
    return low, high


def _as(x, number):
    return np.asarray(number).astype(x.dtype)
