"""Attention: a weighted mean whose weights come from the data.

Axes: B batch, Q queries, K keys, T steps, D width of the model, C width of the memory,
H heads, F width of a head (D = H F), M steps that a cache holds. Rows are positions.
A mask is True where reading is allowed.
"""

import math

import keras
from keras import ops


def check_mask(name, mask, shape):
    """Raise ValueError unless `mask` is boolean and broadcasts to `shape`, which may hold None."""
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool":
        raise ValueError(f"{name} must be boolean, True where reading is allowed; received {dtype}")
    received, allowed = tuple(mask.shape), tuple(shape)
    sizes = zip(reversed(received), reversed(allowed), strict=False)
    fits = all(1 in {size} or None in {size, full} or size == full for size, full in sizes)
    if len(received) > len(allowed) or not fits:
        raise ValueError(
            f"{name} must broadcast to {allowed} (the last two are queries and keys);"
            f" received {received}. A padding mask needs an axis for the queries: [B, 1, K]"
        )


def scaled_dot_product_attention(query, key, value, mask=None, heads=False):
    """Return softmax(query keyᵀ / √F) value, and the weights.

    Args:
        query: `[..., Q, F]`.
        key: `[..., K, F]`.
        value: `[..., K, V]`; V, its own width, is often F.
        mask: boolean, broadcast to the shape of the weights; True lets a query read a key.
        heads: whether each step holds H heads side by side: `[..., Q, H, F]`, `[..., K, H, F]`
            and `[..., K, H, V]`. Each head attends on its own.

    Returns:
        `[..., Q, V]` read, and `[..., Q, K]` weights whose rows sum to 1; with heads
        `[..., Q, H, V]` and `[..., H, Q, K]`. Where the mask hides every key from a query, its
        row of weights and what it reads are zeros, never NaN.

    Raises:
        ValueError: a rank below 2, with heads 3; widths of query and key, or lengths of key and
            value, that differ; a mask that is not boolean or does not broadcast.

    Source: Vaswani et al. 2017, section 3.2.1, <https://arxiv.org/abs/1706.03762>.
    Differs: the query is divided by √F before the product, so float16 overflows later.
    """
    h, axis = ("h", -3) if heads else ("", -2)
    for name, array in {"query": query, "key": key, "value": value}.items():
        if len(array.shape) < -axis:
            raise ValueError(
                f"{name} must have rank {-axis} or more; received {tuple(array.shape)}"
            )
    for names, sizes in {
        "query and key must have the same width F": (query.shape[-1], key.shape[-1]),
        "key and value must have the same length K": (key.shape[axis], value.shape[axis]),
    }.items():
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(f"{names}; received {sizes[0]} and {sizes[1]}")
    query = ops.divide(query, math.sqrt(query.shape[-1]))
    scores = ops.einsum(f"...q{h}f,...k{h}f->...{h}qk", query, key)
    if mask is not None:
        check_mask("mask", mask, scores.shape)
        half = keras.backend.standardize_dtype(scores.dtype) == "float16"
        scores = ops.where(mask, scores, -6e4 if half else -1e30)  # finite: -inf - -inf is NaN
    peak = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True, initial=-math.inf))
    weights = ops.exp(scores - peak)  # at most 1, so that nothing overflows
    if mask is not None:
        weights = ops.where(mask, weights, 0.0)
    total = ops.sum(weights, axis=-1, keepdims=True)  # at least 1, or 0 if all is hidden
    weights = weights / ops.where(total > 0, total, 1.0)
    return ops.einsum(f"...{h}qk,...k{h}v->...q{h}v", weights, value), weights


def causal_mask(steps):
    """Return `[T, T]`, True where step t may read step s: s ≤ t."""
    step = ops.arange(steps)
    return step[None, :] <= step[:, None]


def padding_mask(lengths, steps):
    """Return `[B, 1, T]`, True at the first `lengths[b]` steps, for every query alike.

    Args:
        lengths: `[B]` integers, the number of real steps of each sequence.
        steps: T, the padded length.
    """
    lengths = ops.convert_to_tensor(lengths)
    return ops.arange(steps, dtype=lengths.dtype)[None, None, :] < lengths[:, None, None]


def update_cache(cache, key, value, index):
    """Write new keys and values behind those of earlier steps.

    Args:
        cache: two tensors, keys and values, each `[B, H, M, F]`.
        key: `[B, H, Q, F]`, of the steps `index` to `index + Q - 1`.
        value: as `key`.
        index: whole number, how many steps the cache holds already; it may be a tensor.

    Returns:
        The new cache, and a mask `[Q, M]` that lets each step read itself and those before it.
        Where a compiled `index` leaves no room for Q steps, the new values are NaN.

    Raises:
        ValueError: a cache of another shape; an `index` known beforehand that leaves no room.
    """
    steps, size = key.shape[-2], cache[0].shape[-2]
    for array in cache:
        if len(array.shape) != 4 or (array.shape[1], array.shape[3]) != (
            key.shape[1],
            key.shape[3],
        ):
            raise ValueError(
                f"cache must be two arrays [batch, {key.shape[1]}, steps, {key.shape[3]}];"
                f" received one of {tuple(array.shape)}"
            )
    if isinstance(index, int) and not 0 <= index <= size - steps:
        raise ValueError(
            f"index must be 0 to {size - steps}, to write {steps} steps; received {index}"
        )
    index = ops.cast(index, "int32")
    fits = (index >= 0) & (index + steps <= size)  # writing clips the index without a word
    value = ops.where(fits, value, float("nan"))
    cache = tuple(
        ops.slice_update(old, (0, 0, index, 0), ops.cast(new, old.dtype))
        for old, new in zip(cache, (key, value), strict=True)
    )
    return cache, ops.arange(size) <= index + ops.arange(steps)[:, None]


@keras.saving.register_keras_serializable("aimodels")
class MultiHeadAttention(keras.layers.Layer):
    """H attentions side by side, each on its own projection of width F = D / H.

    Args:
        heads: H, a divisor of the width D of the query.
        bias: whether the four projections add a bias.

    Call:
        query: `[B, Q, D]`, the sequence that reads.
        memory: `[B, K, C]`, the sequence that is read; the query itself if None.
        attention_mask: boolean, broadcast to `[B, Q, K]`; True lets a query read a key.
        return_weights: whether to return the weights `[B, H, Q, K]` as well.
        cache: keys and values of earlier steps, see `update_cache`; then K is M, and each step
            reads those before it and itself.
        index: where in the cache the steps of `query` stand.
        rotate: a function of `[B, T, H, F]` and positions `[T, 1]`, applied to queries and keys.

    Returns:
        `[B, Q, D]`; then the weights if asked for, then the new cache if one was given. A query
        that may read nothing gets the bias of the last projection.

    Raises:
        ValueError: heads below 1 or not dividing D; a query or memory whose rank is not 3; a
            mask that is not boolean or does not broadcast.

    Source: Vaswani et al. 2017, section 3.2.2, <https://arxiv.org/abs/1706.03762>.
    """

    def __init__(self, heads, bias=True, **kwargs):
        """Keep the arguments."""
        super().__init__(**kwargs)
        if not isinstance(heads, int) or heads < 1:
            raise ValueError(f"heads must be an integer of at least 1; received {heads!r}")
        self.heads, self.bias = heads, bias

    def build(self, query_shape, memory_shape=None):
        """Make the four projections."""
        memory_shape = query_shape if memory_shape is None else memory_shape
        for name, shape in {"query": query_shape, "memory": memory_shape}.items():
            if len(shape) != 3:
                raise ValueError(f"{name} must be [batch, steps, width]; received {tuple(shape)}")
        width = query_shape[-1]
        if width % self.heads:
            raise ValueError(f"heads must divide the width {width}; received {self.heads}")

        def projection(name, shape):
            dense = keras.layers.Dense(
                width, use_bias=self.bias, name=name, dtype=self.dtype_policy
            )
            dense.build(shape)
            return dense

        self.query = projection("query", query_shape)
        self.key = projection("key", memory_shape)
        self.value = projection("value", memory_shape)
        self.merge = projection("merge", query_shape)

    def split(self, x):
        """`[B, T, D]` → `[B, T, H, F]`: head h takes columns h F to (h + 1) F."""
        return ops.reshape(x, (*ops.shape(x)[:2], self.heads, x.shape[-1] // self.heads))

    def call(
        self,
        query,
        memory=None,
        attention_mask=None,
        return_weights=False,
        *,
        cache=None,
        index=None,
        rotate=None,
    ):
        """Project, attend in every head, put the heads side by side, project."""
        memory = query if memory is None else memory
        if (cache is None) != (index is None):
            raise ValueError("cache and index must be given together; received one of them")
        queries = self.split(self.query(query))
        keys, values = self.split(self.key(memory)), self.split(self.value(memory))
        if rotate is not None:
            positions = ops.arange(ops.shape(query)[1]) + (0 if index is None else index)
            queries, keys = (rotate(x, positions[:, None]) for x in (queries, keys))
        if cache is not None:  # it keeps heads before steps, so that no step copies it to read it
            queries, keys, values = (ops.swapaxes(x, 1, 2) for x in (queries, keys, values))
            cache, earlier = update_cache(cache, keys, values, index)
            keys, values = cache
        if attention_mask is not None:
            shape = (query.shape[0], query.shape[1], keys.shape[1 if cache is None else 2])
            check_mask("attention_mask", attention_mask, shape)
        if cache is not None:
            attention_mask = earlier if attention_mask is None else attention_mask & earlier
        if attention_mask is not None:
            attention_mask = ops.expand_dims(attention_mask, -3)  # the same for every head
        read, weights = scaled_dot_product_attention(
            queries, keys, values, attention_mask, heads=cache is None
        )
        if cache is not None:
            read = ops.swapaxes(read, 1, 2)
        output = self.merge(ops.reshape(read, ops.shape(query)))
        results = [output]  # [B, Q, D]; read is [B, Q, H, F], weights [B, H, Q, K]
        results += [weights] if return_weights else []
        results += [cache] if cache is not None else []
        return tuple(results) if len(results) > 1 else output

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "heads": self.heads, "bias": self.bias}
