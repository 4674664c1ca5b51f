"""BERT: a Transformer that reads both sides, and learns by filling in tokens that were hidden.

Axes: B batch, T steps, M the most steps (the positions learned), V vocabulary, D width, E hidden
width, S kinds of segments, C classes.
"""

import keras
import numpy as np
from keras import ops

from aimodels.attention import check_mask
from aimodels.transformer import Block, block_parameters


def mask_tokens(ids, rng, vocabulary, mask, special=(), *, rate=0.15):
    """Choose tokens to be predicted, and hide most of them.

    Each token is chosen with the probability `rate`. Of those chosen, 80 % become the mask token,
    10 % any token, 10 % stay as they are.

    Args:
        ids: `[...]` integers from 0 to V - 1.
        rng: a `numpy.random.Generator`; it alone decides.
        vocabulary: V.
        mask: id of the mask token.
        special: ids that are neither chosen nor put in, as those of padding and separators. The
            mask token is always one of them.
        rate: from 0 to 1.

    Returns:
        `[...]` ids to be read, and `[...]` booleans, True where a token was chosen.

    Raises:
        ValueError: ids that are no integers or out of range; a vocabulary with nothing to put in;
            a mask or special id out of range; a rate that is none.

    Source: Devlin et al. 2018, section 3.1 and appendix A.1, <https://arxiv.org/abs/1810.04805>.
    Differs: there 15 % of each sequence are chosen, so that their number is fixed, and the random
    tokens may be special ones.
    """
    ids = np.asarray(ids)
    special = sorted({mask, *special})
    check_size("vocabulary", vocabulary)
    for name, numbers in (("ids", ids), ("special", np.asarray(special))):
        if numbers.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers; received {numbers.dtype}")
        if numbers.size and (numbers.min() < 0 or numbers.max() >= vocabulary):
            raise ValueError(
                f"{name} must be 0 to {vocabulary - 1}; received {numbers.min()} to {numbers.max()}"
            )
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be 0 to 1; received {rate!r}")
    ordinary = np.setdiff1d(np.arange(vocabulary), special)
    if not len(ordinary):
        raise ValueError(
            f"vocabulary must hold ordinary tokens; received {vocabulary}, all special"
        )
    chosen = (rng.random(ids.shape) < rate) & ~np.isin(ids, special)
    fate = rng.random(ids.shape)
    read = np.where(chosen & (fate < 0.8), mask, ids)
    random = rng.choice(ordinary, ids.shape)
    return np.where(chosen & (fate >= 0.9), random, read).astype(ids.dtype), chosen


def look_up(table, ids):
    """Return rows of a table, NaN where there is none; compiled code would take another row."""
    there = (ids >= 0) & (ids < table.shape[0])
    rows = ops.take(table, ops.where(there, ids, 0), axis=0)
    return ops.where(there[..., None], rows, float("nan"))


def token_loss(targets, logits, mask=None):
    """Return the mean cross-entropy in nats: -log of the probability of each target.

    Args:
        targets: `[B, T]` integers from 0 to V - 1.
        logits: `[B, T, V]`.
        mask: boolean `[B, T]`, True where a target counts; the others may be any integer.

    Returns:
        One float32 number, at least 0; NaN where no target counts. A target out of range is an
        error of TensorFlow, or NaN in code compiled by XLA.

    Raises:
        ValueError: targets or a mask of another shape or type.
    """
    shape = tuple(logits.shape[:-1])
    for name, array, kind in (("targets", targets, "int"), ("mask", mask, "bool")):
        if array is None:
            continue
        dtype = keras.backend.standardize_dtype(array.dtype)
        sizes = zip(array.shape, shape, strict=False)
        fits = all(None in pair or pair[0] == pair[1] for pair in sizes)
        if len(array.shape) != len(shape) or not fits or kind not in dtype:
            raise ValueError(
                f"{name} must be {kind} {shape}; received {dtype} {tuple(array.shape)}"
            )
    if mask is not None:
        targets = ops.where(mask, targets, 0)
    logits = ops.cast(logits, "float32")
    losses = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    if mask is None:
        return ops.mean(losses)
    return ops.sum(ops.where(mask, losses, 0.0)) / ops.sum(ops.cast(mask, "float32"))


def parameter_count(vocabulary, steps, width, depth, hidden=None, *, segments=2):
    """Return how many numbers a `BERT` learns, without any head.

    Source: Devlin et al. 2018, section 3, <https://arxiv.org/abs/1810.04805>, gives the sizes.
    """
    hidden = 4 * width if hidden is None else hidden
    norm = 2 * width
    return (vocabulary + steps + segments) * width + norm + depth * block_parameters(width, hidden)


@keras.saving.register_keras_serializable("aimodels")
class BERT(keras.Model):
    """Embedded tokens, positions and segments, and blocks in which every step reads every step.

    Args:
        vocabulary: V, how many tokens there are.
        steps: M, the longest sequence.
        width: D.
        heads: a divisor of the width.
        depth: how many blocks.
        hidden: E, width inside the feedforward networks; 4 D if None.
        segments: S, how many kinds of segments.
        padding: id that fills up short sequences, never read; None if there is none.
        rotary: whether the blocks rotate queries and keys by their positions as well.
        dropout: share of the embeddings and of each block's branches set to zero in training.

    Call:
        ids: `[B, T]` integers from 0 to V - 1, T at most M.
        segments: `[B, T]` integers from 0 to S - 1; all 0 if None.
        attention_mask: boolean, broadcast to `[B, T, T]`; it hides more than the padding does.

    Returns:
        `[B, T, D]`; the rows of padding mean nothing. An id, a segment or a position out of range
        gives NaN in every row that reads it.

    Raises:
        ValueError: a size that is no whole number from 1; a padding out of range; ids or segments
            that are no integers or of another shape; a mask that is not boolean or does not
            broadcast to `[B, T, T]`; and what `Block` raises.

    Source: Devlin et al. 2018, section 3, <https://arxiv.org/abs/1810.04805>.
    Differs: token vectors start with standard deviation 1 / √D and matrices as Glorot's, not all
    with 0.02, so that a small model begins to learn at once. Weights of attention are not dropped.
    """

    def __init__(
        self,
        vocabulary,
        steps,
        width,
        heads,
        depth,
        *,
        hidden=None,
        segments=2,
        padding=None,
        rotary=False,
        dropout=0.0,
        **kwargs,
    ):
        """Make and build all layers."""
        super().__init__(**kwargs)
        self.sizes = {"vocabulary": vocabulary, "steps": steps, "width": width, "heads": heads}
        self.sizes |= {"depth": depth, "segments": segments}
        self.sizes["hidden"] = 4 * width if hidden is None else hidden
        for name, size in self.sizes.items():
            check_size(name, size)
        if padding is not None and padding not in range(vocabulary):
            raise ValueError(f"padding must be 0 to {vocabulary - 1} or None; received {padding!r}")
        self.options = {"padding": padding, "rotary": rotary, "dropout": dropout}
        policy = self.dtype_policy
        start = keras.initializers.RandomNormal(stddev=width**-0.5)
        self.tokens = self.add_weight((vocabulary, width), start.clone(), name="tokens")
        self.positions = self.add_weight((steps, width), start.clone(), name="positions")
        self.kinds = self.add_weight((segments, width), start.clone(), name="kinds")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-12, name="norm", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)
        options = {"dropout": dropout, "epsilon": 1e-12, "rotary": rotary, "dtype": policy}
        self.blocks = [
            Block(heads, self.sizes["hidden"], "post", name=f"block_{n}", **options)
            for n in range(depth)
        ]
        for layer in (self.norm, *self.blocks):
            layer.build((None, None, width))
        self.built = True

    def call(self, ids, segments=None, attention_mask=None):
        """Embed, normalize, let every step read every step that is no padding."""
        _check("ids", ids, self.sizes["steps"])
        x = look_up(self.tokens, ids) + look_up(self.positions, ops.arange(ops.shape(ids)[1]))
        if segments is None:
            x = x + self.kinds[0]
        else:
            _check("segments", segments, self.sizes["steps"], ids.shape)
            x = x + look_up(self.kinds, segments)
        x = self.drop(self.norm(x))
        if attention_mask is not None:
            check_mask("attention_mask", attention_mask, (*ids.shape, ids.shape[1]))
        if self.options["padding"] is not None:
            real = ops.not_equal(ids, self.options["padding"])[:, None, :]
            attention_mask = real if attention_mask is None else real & attention_mask
        for block in self.blocks:
            x = block(x, attention_mask=attention_mask)
        return x

    def get_config(self):
        """Return the arguments that make this model again."""
        return {**keras.Layer.get_config(self), **self.sizes, **self.options}


class _Head(keras.Model):
    """A `BERT` and what reads its output; the call takes what `BERT` takes."""

    def __init__(self, encoder, **kwargs):
        """Keep the encoder; several heads may share one."""
        kwargs.setdefault("dtype", encoder.dtype_policy)
        super().__init__(**kwargs)
        self.encoder = encoder

    def get_config(self):
        """Return the arguments that make this model again."""
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**keras.Layer.get_config(self), "encoder": encoder}

    @classmethod
    def from_config(cls, config):
        """Return a model made from `get_config`."""
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


@keras.saving.register_keras_serializable("aimodels")
class MaskedLanguageModel(_Head):
    """Scores of every token at every step: a dense layer, a norm, comparison with all tokens.

    Args:
        encoder: a `BERT`, whose token vectors serve here as well.

    Call:
        As `BERT`.

    Returns:
        `[B, T, V]` logits.

    Source: Devlin et al. 2018, section 3.1, and its code, <https://github.com/google-research/bert>.
    Differs: GELU is exact, not its tanh form; every step is scored, not only those chosen.
    """

    def __init__(self, encoder, **kwargs):
        """Make and build the layers."""
        super().__init__(encoder, **kwargs)
        width, policy = encoder.sizes["width"], self.dtype_policy
        self.dense = keras.layers.Dense(width, "gelu", name="dense", dtype=policy)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-12, name="norm", dtype=policy)
        for layer in (self.dense, self.norm):
            layer.build((None, None, width))
        self.bias = self.add_weight((encoder.sizes["vocabulary"],), "zeros", name="bias")
        self.built = True

    def call(self, ids, segments=None, attention_mask=None):
        """Read, turn, compare with every token's vector."""
        x = self.norm(self.dense(self.encoder(ids, segments, attention_mask)))
        return ops.matmul(x, ops.transpose(ops.cast(self.encoder.tokens, x.dtype))) + self.bias


@keras.saving.register_keras_serializable("aimodels")
class Classifier(_Head):
    """Scores of classes from the first step alone: dense layer with tanh (pooler), dense layer.

    Args:
        encoder: a `BERT`.
        classes: C.
        dropout: share of what the last layer reads set to zero in training.

    Call:
        As `BERT`; the first step must be no padding.

    Returns:
        `[B, C]` logits.

    Raises:
        ValueError: classes that are no whole number from 1.

    Source: Devlin et al. 2018, section 4.1, <https://arxiv.org/abs/1810.04805>.
    """

    def __init__(self, encoder, classes, dropout=0.0, **kwargs):
        """Make and build the layers."""
        super().__init__(encoder, **kwargs)
        check_size("classes", classes)
        width, policy = encoder.sizes["width"], self.dtype_policy
        self.classes, self.dropout = classes, dropout
        self.pooler = keras.layers.Dense(width, "tanh", name="pooler", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)
        self.last = keras.layers.Dense(classes, name="last", dtype=policy)
        for layer in (self.pooler, self.last):
            layer.build((None, width))
        self.built = True

    def call(self, ids, segments=None, attention_mask=None):
        """Read, pool the first step, decide."""
        read = self.encoder(ids, segments, attention_mask)
        return self.last(self.drop(self.pooler(read[:, 0])))

    def get_config(self):
        """Return the arguments that make this model again."""
        return {**super().get_config(), "classes": self.classes, "dropout": self.dropout}


def check_size(name, size):
    """Raise ValueError unless `size` is a whole number from 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{name} must be an integer of at least 1; received {size!r}")


def _check(name, ids, steps, shape=(None, None)):
    """Raise ValueError unless `ids` are integers of a shape, not empty, at most `steps` long."""
    dtype, received = keras.backend.standardize_dtype(ids.dtype), tuple(ids.shape)
    sizes = zip(received, shape, strict=False)
    fits = len(received) == 2 and all(None in pair or pair[0] == pair[1] for pair in sizes)
    if not fits or 0 in received or "int" not in dtype:
        wanted = "[B, T], none empty" if None in tuple(shape) else f"{tuple(shape)}"
        raise ValueError(f"{name} must be integers {wanted}; received {dtype} {received}")
    if (received[1] or 0) > steps:
        raise ValueError(f"{name} must have at most {steps} steps; received {received[1]}")
