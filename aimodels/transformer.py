"""The Transformer: blocks of attention and a feedforward network, with residuals and norms.

Axes: B batch, T steps, K steps of the memory, D width, C width of the memory, E hidden width,
H heads, F width of a head, M steps that a cache holds. A mask is True where reading is allowed.
"""

import math

import keras
import numpy as np
from keras import ops

from aimodels.attention import MultiHeadAttention


def sinusoidal_positions(steps, width):
    """Return one row of sines and cosines for each position, to be added to the input.

    Args:
        steps: T, positions 0 to T - 1.
        width: D, an even number.

    Returns:
        `[T, D]` float32 array: row t holds sin(t ω) and cos(t ω) in columns 2i and 2i + 1,
        where ω = 10000^(-2i / D).

    Raises:
        ValueError: steps below 0; a width that is odd or below 2.

    Source: Vaswani et al. 2017, section 3.5, <https://arxiv.org/abs/1706.03762>.
    """
    if steps < 0:
        raise ValueError(f"steps must be 0 or more; received {steps}")
    if width < 2 or width % 2:
        raise ValueError(f"width must be even and at least 2; received {width}")
    angles = np.arange(steps)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(steps, width).astype("float32")


def rotate(x, positions=None, base=10000.0):
    """Turn pairs of numbers by angles that grow with the position (rotary positions).

    Args:
        x: `[..., T, F]` queries or keys, F even.
        positions: `[T]`, or broadcast to `[..., T]`; 0 to T - 1 if None.
        base: how much slower each pair turns than the one before: ω = base^(-2i / F).

    Returns:
        `[..., T, F]`: entries i and i + F/2 turned by the angle position · ω. Lengths stay, and
        the product of a query and a key depends on their distance alone.

    Raises:
        ValueError: x of rank 1 or of odd width.

    Source: Su et al. 2021, section 3.2, <https://arxiv.org/abs/2104.09864>.
    Differs: they pair neighbours, 2i with 2i + 1; the halves, as most libraries pair them, are
    the same with the columns in another order.
    """
    if len(x.shape) < 2 or x.shape[-1] % 2:
        raise ValueError(f"x must be [..., steps, even width]; received {tuple(x.shape)}")
    half = x.shape[-1] // 2
    positions = ops.arange(ops.shape(x)[-2]) if positions is None else positions
    turns = np.exp(np.arange(half) * (-math.log(base) / half)).astype("float32")
    angles = ops.expand_dims(ops.cast(positions, "float32"), -1) * turns  # [..., T, F/2]
    cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    first, second = x[..., :half], x[..., half:]
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


@keras.saving.register_keras_serializable("aimodels")
class FeedForward(keras.layers.Layer):
    """Two dense layers on each step alone: D → E, activation, E → D.

    Args:
        hidden: E.
        activation: name of a Keras activation, or a function.
        dropout: share of the outputs set to zero in training.

    Call:
        `[..., D]` → `[..., D]`.
    """

    def __init__(self, hidden, activation="gelu", dropout=0.0, **kwargs):
        """Keep the arguments."""
        super().__init__(**kwargs)
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"hidden must be an integer of at least 1; received {hidden!r}")
        self.hidden, self.dropout = hidden, dropout
        self.activation = keras.activations.get(activation)

    def build(self, x_shape):
        """Make both layers."""
        policy = self.dtype_policy
        self.widen = keras.layers.Dense(self.hidden, self.activation, name="widen", dtype=policy)
        self.widen.build(x_shape)
        self.narrow = keras.layers.Dense(x_shape[-1], name="narrow", dtype=policy)
        self.narrow.build((*x_shape[:-1], self.hidden))
        self.drop = keras.layers.Dropout(self.dropout, name="drop", dtype=policy)

    def call(self, x):
        """Widen, bend, narrow, drop."""
        return self.drop(self.narrow(self.widen(x)))

    def get_config(self):
        """Return the arguments that make this layer again."""
        activation = keras.activations.serialize(self.activation)
        config = {"hidden": self.hidden, "activation": activation, "dropout": self.dropout}
        return {**super().get_config(), **config}


def block_parameters(width, hidden):
    """Return how many numbers a `Block` without `cross` learns; the number of heads changes nothing."""
    attention = 4 * width * width + 4 * width
    feed = 2 * width * hidden + hidden + width
    norm = 2 * width
    return attention + feed + 2 * norm


@keras.saving.register_keras_serializable("aimodels")
class Block(keras.layers.Layer):
    """Attention, then a feedforward network, each added to its input and normalized.

    Args:
        heads: H, a divisor of the width D.
        hidden: E, width inside the feedforward network.
        norm: "pre", x + f(norm(x)), or "post", norm(x + f(x)).
        cross: whether to read a memory between the two.
        activation: of the feedforward network.
        dropout: share of each f set to zero in training.
        epsilon: of the normalizations.
        rotary: whether self-attention rotates its queries and keys by their positions.
        feed_forward: a layer `[B, T, D]` → `[B, T, D]` in place of `FeedForward`.

    Call:
        x: `[B, T, D]`.
        memory: `[B, K, C]`, if `cross`.
        attention_mask: boolean, broadcast to `[B, T, T]` (`[B, T, M]` with a cache).
        memory_mask: boolean, broadcast to `[B, T, K]`.
        cache: keys and values of earlier steps, each `[B, H, M, F]`.
        index: whole number, how many steps the cache holds already.
        token_mask: boolean `[B, T]`, handed to a `feed_forward` that takes one.

    Returns:
        `[B, T, D]`; with a cache, that and the new cache. After the last block of a stack with
        norm "pre" a normalization is still due. NaN in gives NaN out.

    Raises:
        ValueError: norm of another name; a memory without `cross` or the other way round; and
            what `MultiHeadAttention` raises.

    Source: Vaswani et al. 2017, section 3, <https://arxiv.org/abs/1706.03762> ("post"); Xiong et
    al. 2020, <https://arxiv.org/abs/2002.04745> ("pre").
    """

    def __init__(
        self,
        heads,
        hidden,
        norm="pre",
        cross=False,
        *,
        activation="gelu",
        dropout=0.0,
        epsilon=1e-5,
        rotary=False,
        feed_forward=None,
        **kwargs,
    ):
        """Keep the arguments and make the layers."""
        super().__init__(**kwargs)
        if norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post'; received {norm!r}")
        self.norm, self.cross, self.rotary = norm, cross, rotary
        self.replaced = feed_forward is not None
        self.options = {"heads": heads, "hidden": hidden, "dropout": dropout, "epsilon": epsilon}
        policy = self.dtype_policy
        self.attend = MultiHeadAttention(heads, name="attend", dtype=policy)
        self.read = MultiHeadAttention(heads, name="read", dtype=policy) if cross else None
        self.feed = feed_forward or FeedForward(
            hidden, activation, dropout, name="feed", dtype=policy
        )
        self.activation = keras.activations.get(activation)
        self.norms = [
            keras.layers.LayerNormalization(epsilon=epsilon, name=f"norm_{n}", dtype=policy)
            for n in range(3 if cross else 2)
        ]
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=policy)

    def build(self, x_shape, memory_shape=None):
        """Build the layers."""
        if self.cross and memory_shape is None:
            raise ValueError("memory must be given where cross is True; received None")
        for layer in (self.attend, self.feed, *self.norms):
            if not layer.built:  # a given feed_forward comes back built when a model is loaded
                layer.build(x_shape)
        if self.read is not None:
            self.read.build(x_shape, memory_shape)

    def enter(self, n, x):
        """Return what branch n receives."""
        return self.norms[n](x) if self.norm == "pre" else x

    def leave(self, n, x, change):
        """Add what branch n returns to its input: the residual connection."""
        return x + change if self.norm == "pre" else self.norms[n](x + change)

    def call(
        self,
        x,
        memory=None,
        *,
        attention_mask=None,
        memory_mask=None,
        cache=None,
        index=None,
        token_mask=None,
    ):
        """Attend, read the memory if there is one, feed forward."""
        if self.cross != (memory is not None):
            wanted = (
                "be given where cross is True" if self.cross else "be None where cross is False"
            )
            raise ValueError(f"memory must {wanted}")
        change = self.attend(
            self.enter(0, x),
            attention_mask=attention_mask,
            cache=cache,
            index=index,
            rotate=rotate if self.rotary else None,
        )
        if cache is not None:
            change, cache = change
        x = self.leave(0, x, self.drop(change))
        if self.read is not None:
            change = self.read(self.enter(1, x), memory, attention_mask=memory_mask)
            x = self.leave(1, x, self.drop(change))
        masks = {} if token_mask is None else {"token_mask": token_mask}
        x = self.leave(-1, x, self.feed(self.enter(-1, x), **masks))
        return x if cache is None else (x, cache)

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {"norm": self.norm, "cross": self.cross, "rotary": self.rotary, **self.options}
        config["activation"] = keras.activations.serialize(self.activation)
        if self.replaced:
            config["feed_forward"] = keras.saving.serialize_keras_object(self.feed)
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        """Return a layer made from `get_config`."""
        given = keras.saving.deserialize_keras_object(config.get("feed_forward"))
        return cls(**{**config, "feed_forward": given})
