"""Cross-modal learning: towers for text, images and sound, whose rows meet in one space.

Axes: B pairs in a batch, K keys, D width of the shared space, V features of a text; T steps and F
bands of a sound; H height, W width, C channels of an image. Row i of one side belongs to row i of
the other.
"""

import math
import re
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from aimodels.contrastive import encoder, info_nce

COLDEST = 0.01  # a learned temperature stays above it, as in CLIP


def symmetric_loss(queries, keys, temperature):
    """Return how surprised each side is, on average, by its partner on the other side.

    Args:
        queries: `[B, D]`, rows of one side, B at least 2.
        keys: `[B, D]`, rows of the other.
        temperature: a number above 0, or a tensor with one, which may be learned.

    Returns:
        The mean of `info_nce` in both directions; log B if all cosines are equal.

    Raises:
        ValueError: the shapes differ; else as `info_nce`.

    Source: Radford et al. 2021, figure 3, <https://arxiv.org/abs/2103.00020>.
    """
    if tuple(queries.shape) != tuple(keys.shape):
        raise ValueError(
            f"queries and keys must have one shape [B, D]; received {tuple(queries.shape)} and"
            f" {tuple(keys.shape)}"
        )
    return (info_nce(queries, keys, temperature) + info_nce(keys, queries, temperature)) / 2


def contrast(*pairs):
    """Return `loss(y, rows)` for a training loop: the mean of `symmetric_loss` over some pairs.

    Args:
        pairs: names of two inputs each, as `("image", "en")`. What is not named is not trained.

    Returns:
        A function of anything, which it does not read, and of what `Towers` returns.

    Raises:
        ValueError: no pair; at the call, a name that the rows do not have.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one; received none")

    def loss(y, rows):
        for name in {name for pair in pairs for name in pair} - set(rows):
            raise ValueError(f"pairs must name some of {sorted(rows)}; received {name!r}")
        losses = [symmetric_loss(rows[a], rows[b], rows["temperature"]) for a, b in pairs]
        return sum(losses) / len(losses)

    return loss


def ranks(queries, keys):
    """Return at which place each query finds its own key, by cosine; 1 is the first.

    Args:
        queries: `[B, D]`.
        keys: `[K, D]`, K at least B; key i belongs to query i, the others to none or to another.

    Returns:
        `[B]` whole numbers from 1 to K. Of equal cosines the own one comes last, so that a network
        that says the same of everything gets the rank K.

    Raises:
        ValueError: other shapes, no query, NaN, infinity, a row of length zero.
    """
    queries, keys = (np.asarray(rows, "float64") for rows in (queries, keys))
    for name, rows in {"queries": queries, "keys": keys}.items():
        if rows.ndim != 2 or not rows.size:
            raise ValueError(f"{name} must be [B, D] with no zero; received {rows.shape}")
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            raise ValueError(f"{name} must be finite, no row zero; received one that is not")
    if queries.shape[1] != keys.shape[1] or len(keys) < len(queries):
        raise ValueError(
            f"keys must be [{len(queries)} or more, {queries.shape[1]}]; received {keys.shape}"
        )
    queries, keys = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (queries, keys))
    cosines = queries @ keys.T
    own = np.diagonal(cosines)[:, None]
    return (cosines >= own - 1e-12).sum(axis=1)  # equal rows differ by rounding


def recall(found, most):
    """Return the share of queries whose own key is among the first `most`.

    Args:
        found: `[B]` ranks from 1, B at least 1.
        most: a whole number from 1.

    Raises:
        ValueError: no ranks, a rank below 1, a `most` below 1.
    """
    found = np.asarray(found)
    if found.ndim != 1 or not found.size or not (found >= 1).all():
        raise ValueError(f"found must be [B] ranks from 1, B at least 1; received {found}")
    if most < 1:
        raise ValueError(f"most must be at least 1; received {most}")
    return float(np.mean(found <= most))


def ngrams(text, longest=4):
    """Return the pieces of a text: runs of 1 to `longest` characters inside its words.

    Args:
        text: of any language. Case and punctuation do not count. A word of ASCII letters and
            digits is put between < and >, so that its ends can be seen; Chinese has no ends.
        longest: a whole number from 1.

    Returns:
        A set of strings; empty if the text has no letter and no digit.

    Raises:
        ValueError: a text that is none, a `longest` below 1.

    Source: Bojanowski et al. 2017, section 3.2, <https://arxiv.org/abs/1607.04606>.
    """
    if not isinstance(text, str):
        raise ValueError(f"text must be a string; received {type(text).__name__}")
    if longest < 1:
        raise ValueError(f"longest must be at least 1; received {longest}")
    words = [f"<{word}>" if word.isascii() else word for word in re.findall(r"\w+", text.lower())]
    lengths = range(1, longest + 1)
    return {word[i : i + n] for word in words for i in range(len(word)) for n in lengths}


class Vocabulary:
    """The n-grams of some texts, one column each; column 0 stands for any text at all.

    Args:
        texts: those to learn from, at least one. Of another text only known n-grams are seen.
        longest: as in `ngrams`.

    Call:
        texts: a sequence of B strings.

    Returns:
        `[B, V]` float32: rows of length 1, equal where an n-gram occurs and 0 elsewhere.

    Raises:
        ValueError: no text, or one string in the place of several.
    """

    def __init__(self, texts, longest=4):
        """Collect the n-grams, in the order of their characters."""
        self.longest = longest
        found = set().union(*(ngrams(text, longest) for text in _several(texts)))
        self.columns = {gram: column for column, gram in enumerate(["", *sorted(found)])}

    def __len__(self):
        """Return V."""
        return len(self.columns)

    def __call__(self, texts):
        """Return the rows of some texts."""
        rows = np.zeros((len(_several(texts)), len(self)), "float32")
        for row, text in zip(rows, texts, strict=True):
            known = [self.columns[g] for g in ngrams(text, self.longest) if g in self.columns]
            row[[0, *known]] = 1 / math.sqrt(1 + len(known))
        return rows


def _several(texts):
    """Return the texts, or say that they are none."""
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts must be a sequence of at least one string; received {texts!r}")
    return texts


def spectrogram(wave, frame=256, hop=200, bands=32):
    """Return how loud a sound is in each band of frequencies, step by step.

    Args:
        wave: `[N]`, N at least `frame`.
        frame: values that a step looks at, an even number.
        hop: values from one step to the next.
        bands: F, a divisor of frame / 2; all have the same width.

    Returns:
        `[T, F]` natural logarithms of the energy plus 0.001, T = 1 + (N - frame) // hop.

    Raises:
        ValueError: a wave that is too short or not finite; bands that do not divide.
    """
    wave = np.asarray(wave, "float64")
    if wave.ndim != 1 or len(wave) < frame or not np.isfinite(wave).all():
        raise ValueError(f"wave must be [{frame} or more], finite; received {wave.shape}")
    if hop < 1 or frame % 2 or bands < 1 or frame // 2 % bands:
        raise ValueError(
            f"hop must be 1 or more and bands divide half the frame; received {hop}, {bands} and"
            f" {frame}"
        )
    steps = np.lib.stride_tricks.sliding_window_view(wave, frame)[::hop]
    energy = np.abs(np.fft.rfft(steps * np.hanning(frame))[:, : frame // 2]) ** 2
    return np.log(energy.reshape(len(steps), bands, -1).sum(axis=2) + 1e-3)


def image_tower(shape=(32, 32, 3), width=128, dropout=0.3):
    """Return the encoder of the page on contrastive learning with one dense layer behind it."""
    layers = keras.layers
    return keras.Sequential([encoder(shape), layers.Dropout(dropout), layers.Dense(width)])


def text_tower(features, width=128, hidden=256, dropout=0.3):
    """Return a network from `[B, V]`, V = `features`, to `[B, D]`: the order of n-grams is lost."""
    layers = keras.layers
    first = layers.Dense(hidden, activation="relu")
    parts = [keras.Input((features,)), first, layers.Dropout(dropout), layers.Dense(width)]
    return keras.Sequential(parts)


def sound_tower(bands=32, width=128):
    """Return a network from `[B, T, F]` to `[B, D]`, T a multiple of 8.

    Convolutions over time, then the largest value of each filter. No layer before the last has a
    bias, so steps of zeros give zeros: behind 32 of them, more change nothing.
    """
    parts = [keras.Input((None, bands))]
    for filters, stride in ((64, 2), (128, 2), (128, 2), (128, 1)):
        options = {"padding": "same", "activation": "relu", "use_bias": False}
        parts.append(keras.layers.Conv1D(filters, 5, strides=stride, **options))
    return keras.Sequential([*parts, keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(width)])


def _above(log):
    """Keep the logarithm of a temperature where it may be."""
    return ops.maximum(log, math.log(COLDEST))


@keras.saving.register_keras_serializable("aimodels")
class Towers(keras.Model):
    """Several towers and one learned temperature.

    Args:
        towers: built models by the name of the input that they read; one model may stand under
            several names.
        temperature: the first one, from 0.01. Learned is its logarithm, so that it stays above 0.
        learned: whether it is.

    Call:
        inputs: some of the inputs by their names.

    Returns:
        `[B, D]` under each of these names, not brought to length 1, and "temperature".

    Raises:
        ValueError: no tower; another temperature; an input that has no tower.

    Source: Radford et al. 2021, section 2.4 and 2.5, <https://arxiv.org/abs/2103.00020>.
    """

    def __init__(self, towers, temperature=0.07, learned=True, **kwargs):
        """Keep the towers and make the temperature."""
        super().__init__(**kwargs)
        if not isinstance(towers, Mapping) or not towers or "temperature" in towers:
            raise ValueError(f"towers must be models by name; received {towers!r}")
        if not COLDEST <= temperature < math.inf:
            raise ValueError(f"temperature must be at least {COLDEST}; received {temperature}")
        self.options = {"temperature": temperature, "learned": learned}
        self.towers = dict(towers)
        start = keras.initializers.Constant(math.log(temperature))
        self.log_temperature = self.add_weight(
            (), start, constraint=_above, trainable=learned, name="log_temperature"
        )
        self.built = True

    def call(self, inputs, training=False):
        """Let each tower read its input."""
        for name in set(inputs) - set(self.towers):
            raise ValueError(f"inputs must be some of {sorted(self.towers)}; received {name!r}")
        rows = {name: self.towers[name](x, training=training) for name, x in inputs.items()}
        return rows | {"temperature": ops.exp(self.log_temperature)}

    def get_config(self):
        """Return the arguments that make this model again, a shared tower once."""
        models = list({id(tower): tower for tower in self.towers.values()}.values())
        places = {
            name: [tower is m for m in models].index(True) for name, tower in self.towers.items()
        }
        written = [keras.saving.serialize_keras_object(model) for model in models]
        return {**super().get_config(), **self.options, "models": written, "places": places}

    @classmethod
    def from_config(cls, config):
        """Make the model again."""
        config = dict(config)
        models = [keras.saving.deserialize_keras_object(one) for one in config.pop("models")]
        towers = {name: models[place] for name, place in config.pop("places").items()}
        return cls(towers, **config)
