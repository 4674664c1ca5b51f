"""GPT: a Transformer that reads only the past and predicts the next token.

Axes: B batch, T steps, M the most steps (the positions learned), V vocabulary, D width, E hidden
width, H heads, F width of a head.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels.attention import causal_mask
from aimodels.bert import check_size, look_up, token_loss
from aimodels.logistic import softmax
from aimodels.transformer import Block, block_parameters

START = 0.3  # standard deviation of embeddings before training


def parameter_count(vocabulary, steps, width, depth, hidden=None):
    """Return how many numbers a `GPT` learns; the number of heads does not matter.

    Source: Radford et al. 2019, table 2, and Brown et al. 2020, table 2.1,
    <https://arxiv.org/abs/2005.14165>, give the sizes.
    """
    hidden = 4 * width if hidden is None else hidden
    norm = 2 * width
    return (vocabulary + steps) * width + depth * block_parameters(width, hidden) + norm


@keras.saving.register_keras_serializable("aimodels")
class GPT(keras.Model):
    """Embedded tokens and positions, blocks that read the past, scores of every next token.

    Args:
        vocabulary: V, how many tokens there are.
        steps: M, the longest sequence.
        width: D.
        heads: H, a divisor of the width.
        depth: how many blocks.
        hidden: E, width inside the feedforward networks; 4 D if None.
        dropout: share of the embeddings and of each block's branches set to zero in training.
        feed_forward: a layer `[B, T, D]` → `[B, T, D]`; each block gets its own one, made from this
            one's configuration, in place of `FeedForward`.

    Call:
        ids: `[B, T]` integers from 0 to V - 1, T at most M.
        cache: what `empty_cache` or an earlier call returned; then `index` as well.
        index: how many steps the cache holds already.

    Returns:
        `[B, T, V]` logits: row t scores the token after ids 0 to t. With a cache, that and the
        new cache. An id or a position out of range gives NaN in every row that reads it.

    Raises:
        ValueError: a size that is no whole number from 1; a feed_forward that is no layer; ids that
            are no integers, not of rank 2, or more than M; and what `Block` raises.

    Source: Radford et al. 2019, section 2.3, and its code, <https://github.com/openai/gpt-2>.
    Differs: GELU is exact, not its tanh form. Embeddings start with standard deviation 0.3 and
    matrices as Glorot's, not all with 0.02; the gain of the last norm makes up for it.
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
        dropout=0.0,
        feed_forward=None,
        **kwargs,
    ):
        """Make and build all layers."""
        super().__init__(**kwargs)
        self.sizes = {"vocabulary": vocabulary, "steps": steps, "width": width}
        self.sizes |= {"heads": heads, "depth": depth}
        self.sizes["hidden"] = 4 * width if hidden is None else hidden
        for name, size in self.sizes.items():
            check_size(name, size)
        self.dropout, policy = dropout, self.dtype_policy
        start = keras.initializers.RandomNormal(stddev=START)
        self.tokens = self.add_weight((vocabulary, width), start.clone(), name="tokens")
        self.positions = self.add_weight((steps, width), start.clone(), name="positions")
        self.drop = keras.layers.Dropout(dropout, dtype=policy)
        if feed_forward is not None and not isinstance(feed_forward, keras.Layer):
            raise ValueError(f"feed_forward must be a layer or None; received {feed_forward!r}")
        self.feed_forward = keras.saving.serialize_keras_object(feed_forward)
        self.blocks = [
            Block(
                heads,
                self.sizes["hidden"],
                dropout=dropout,
                feed_forward=keras.saving.deserialize_keras_object(self.feed_forward),
                name=f"block_{n}",
                dtype=policy,
            )
            for n in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-5,
            gamma_initializer=keras.initializers.Constant(
                width**-0.5 / START
            ),  # logits: variance 1
            name="norm",
            dtype=policy,
        )
        for layer in (*self.blocks, self.norm):
            layer.build((None, None, width))
        self.built = True

    def call(self, ids, cache=None, index=None):
        """Embed, read the past in every block, compare with every token's vector."""
        x, cache = self.read(ids, cache, index)
        logits = ops.matmul(x, ops.transpose(self.tokens))
        return logits if cache is None else (logits, cache)

    def read(self, ids, cache=None, index=None):
        """Return the normalized vectors `[B, T, D]` that `call` compares, and the new cache."""
        dtype = keras.backend.standardize_dtype(ids.dtype)
        if len(ids.shape) != 2 or 0 in ids.shape or "int" not in dtype:
            raise ValueError(
                f"ids must be integers [B, T], none empty; received {dtype} {tuple(ids.shape)}"
            )
        if (ids.shape[1] or 0) > self.sizes["steps"]:
            raise ValueError(
                f"ids must have at most {self.sizes['steps']} steps; received {ids.shape[1]}"
            )
        steps = ops.shape(ids)[1]
        first = 0 if index is None else ops.cast(index, "int32")
        positions = ops.arange(steps) + first
        x = self.drop(look_up(self.tokens, ids) + look_up(self.positions, positions))
        mask = causal_mask(steps) if cache is None else None  # a cache brings its own
        new = []
        for n, block in enumerate(self.blocks):
            if cache is None:
                x = block(x, attention_mask=mask)
            else:
                x, kept = block(x, cache=cache[n], index=index)
                new.append(kept)
        return self.norm(x), None if cache is None else new

    def empty_cache(self, batch):
        """Return room for the keys and values of M steps: a pair `[B, H, M, F]` for each block."""
        heads, width = self.sizes["heads"], self.sizes["width"]
        shape = (batch, heads, self.sizes["steps"], width // heads)
        empty = ops.zeros(shape, self.compute_dtype)
        return [(empty, empty) for _ in self.blocks]

    @functools.cached_property
    def step(self):
        """The call with a cache, compiled once for each shape: (ids, cache, index) → both."""
        return tf.function(
            lambda ids, cache, index: self(ids, cache=cache, index=index, training=False),
            jit_compile=True,
            autograph=False,
        )

    def get_config(self):
        """Return the arguments that make this model again."""
        config = {"dropout": self.dropout, "feed_forward": self.feed_forward}
        return {**keras.Layer.get_config(self), **self.sizes, **config}

    @classmethod
    def from_config(cls, config):
        """Return a model made from `get_config`."""
        given = keras.saving.deserialize_keras_object(config.get("feed_forward"))
        return cls(**{**config, "feed_forward": given})


def next_token_loss(targets, logits, mask=None):
    """Return `token_loss`: each target is the token that came next."""
    return token_loss(targets, logits, mask)


def probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """Return the distribution from which `sample` draws.

    Args:
        logits: `[..., V]`; -inf for a token that must not come.
        temperature: divides the logits; 0 gives everything to the largest.
        top_k: keep this many of the most probable tokens, 1 to V.
        top_p: of what is left, keep the fewest most probable tokens that together have this
            probability, above 0 to 1.

    Returns:
        `[..., V]` float64; rows sum to 1. Of equal tokens the smaller id comes first.

    Raises:
        ValueError: a number out of its range; logits of which none is finite, or one is NaN.

    Source: Fan et al. 2018, section 5.1, <https://arxiv.org/abs/1805.04833> (top-k); Holtzman et
    al. 2020, section 3.1, <https://arxiv.org/abs/1904.09751> (top-p).
    """
    logits = np.asarray(logits, dtype=float)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be [..., V] with V at least 1; received {logits.shape}")
    size = logits.shape[-1]
    if not (np.ndim(temperature) == 0 and 0 <= temperature < np.inf):
        raise ValueError(f"temperature must be a number from 0; received {temperature!r}")
    if top_k is not None and not (isinstance(top_k, int) and 1 <= top_k <= size):
        raise ValueError(f"top_k must be an integer from 1 to {size}; received {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1; received {top_p!r}")
    if temperature == 0:
        temperature, top_k = 1.0, 1
    top_k = size if top_k is None else top_k
    peak = logits.max(-1)
    if not np.isfinite(peak).all():
        worst = peak[~np.isfinite(peak)].flat[0]
        raise ValueError(f"logits must hold a largest number in each row; received {worst}")
    with np.errstate(over="ignore"):  # a gap too wide to be divided is infinite
        p = softmax((logits - peak[..., None]) / temperature)
    if top_k == size and top_p is None:
        return p  # nothing is cut off, so nothing need be sorted
    order = np.argsort(-p, axis=-1, kind="stable")
    falling = np.take_along_axis(p, order, -1)
    falling[..., top_k:] = 0
    falling /= falling.sum(-1, keepdims=True)
    if top_p is not None:
        before = np.insert(np.cumsum(falling, -1)[..., :-1], 0, 0.0, axis=-1)
        falling[before >= top_p] = 0  # the first always stays: nothing comes before it
        falling /= falling.sum(-1, keepdims=True)
    np.put_along_axis(p, order, falling, -1)
    return p


def sample(logits, rng, temperature=1.0, top_k=None, top_p=None):
    """Draw a token for each row of logits.

    Args:
        logits: `[..., V]`; this and the rest as in `probabilities`, which says what is refused.
        rng: a `numpy.random.Generator`; one number is drawn for each row.
        temperature: 0 takes the most probable token.
        top_k: draw among so many.
        top_p: draw among those that have this probability.

    Returns:
        `[...]` integers from 0 to V - 1.
    """
    p = probabilities(logits, temperature, top_k, top_p)
    reached = np.cumsum(p, -1)
    drawn = rng.random((*p.shape[:-1], 1)) * reached[..., -1:]
    return (reached > drawn).argmax(-1)


def generate(model, ids, count, rng=None, cache=True, **choice):
    """Continue sequences token by token.

    Args:
        model: a `GPT`.
        ids: `[B, T]` integers, T at least 1.
        count: how many tokens to add; T + count at most M.
        rng: a `numpy.random.Generator`; if None, the most probable token is taken.
        cache: whether to keep keys and values; if not, all M steps are computed for each token.
        **choice: `temperature`, `top_k`, `top_p` of `sample`.

    Returns:
        `[B, T + count]` integers, the given ones first. Two shapes are compiled for each B.

    Raises:
        ValueError: ids of another shape or out of range; too long a text; a choice without rng.
    """
    ids, sizes = np.asarray(ids), model.sizes
    if ids.ndim != 2 or 0 in ids.shape or ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be integers [B, T], none empty; received {ids.shape}")
    if ids.min() < 0 or ids.max() >= sizes["vocabulary"]:
        raise ValueError(
            f"ids must be 0 to {sizes['vocabulary'] - 1}; received {ids.min()} to {ids.max()}"
        )
    batch, start = ids.shape
    if not isinstance(count, int) or not 0 <= count <= sizes["steps"] - start:
        raise ValueError(
            f"count must be an integer from 0 to {sizes['steps'] - start}, as the model has"
            f" {sizes['steps']} steps; received {count!r}"
        )
    if rng is None:
        if choice:
            raise ValueError(f"rng must be given to draw with {', '.join(choice)}; received None")
        rng, choice = np.random.default_rng(0), {"temperature": 0}
    text = np.zeros((batch, sizes["steps"]), "int32")
    text[:, :start] = ids
    kept = empty = model.empty_cache(batch)
    for place in range(start, start + count):
        if cache and place > start:
            logits, kept = model.step(text[:, place - 1 : place], kept, np.array(place - 1))
            scores = np.asarray(logits)[:, 0]
        else:  # what stands after the text is not read, and overwritten later
            logits, kept = model.step(text, empty, np.array(0))
            scores = np.asarray(logits)[:, place - 1]
        text[:, place] = sample(scores, rng, **choice)
    return text[:, : start + count]
