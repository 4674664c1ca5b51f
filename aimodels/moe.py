"""Mixture of experts: a router sends each token to few of many feedforward networks.

Axes: B batch, T steps, S tokens that a layer sees at once (B T), D width, E hidden width of an
expert, M experts, K experts that a token goes to, C slots of an expert (its capacity). A mask is
True where a token is real.
"""

import math
from fractions import Fraction

import keras
from keras import ops

from aimodels.bert import check_size


def _check(experts, top_k):
    """Raise ValueError unless a token can choose K of M experts."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= experts:
        raise ValueError(f"top_k must be an integer from 1 to {experts}; received {top_k!r}")


def _check_factor(name, factor):
    """Raise ValueError unless a capacity factor gives at least one slot, or is None."""
    if factor is not None and not 0.01 <= factor < math.inf:
        raise ValueError(f"{name} must be at least 0.01 or None; received {factor!r}")


def parameter_count(width, hidden, experts, top_k, *, matrices=2, biases=True):
    """Return how many numbers a layer holds, and how many of them one token meets.

    Args:
        width: D.
        hidden: E.
        experts: M.
        top_k: K.
        matrices: of an expert, 2, or 3 if a product of two replaces the activation.
        biases: whether its dense layers add one; for two matrices.

    Returns:
        Total and active; the router's D M are in both.

    Raises:
        ValueError: top_k out of range.
    """
    _check(experts, top_k)
    expert = matrices * width * hidden + (hidden + width if biases else 0)
    return width * experts + experts * expert, width * experts + top_k * expert


def route(logits, top_k, renormalize=True):
    """Choose the experts with the largest probabilities.

    Args:
        logits: `[S, M]`.
        top_k: K, from 1 to M.
        renormalize: whether the gates of a token are scaled to sum to 1. With K = 1 a gate would
            then be 1 whatever the logits, and the router would learn nothing from the output.

    Returns:
        `[S, M]` float32 probabilities, rows sum to 1; `[S, K]` gates, falling; `[S, K]` integers,
        the experts chosen, all different. Of equal experts the first is taken. NaN or +∞ in
        a row makes its gates NaN.

    Raises:
        ValueError: top_k out of range; logits of another rank.

    Source: Shazeer et al. 2017, section 2.1, <https://arxiv.org/abs/1701.06538>; Fedus et al. 2021,
    section 2.1, <https://arxiv.org/abs/2101.03961> (K = 1, not renormalized).
    Differs: no noise; softmax before the choice, which with renormalized gates is the same.
    """
    if len(logits.shape) != 2:
        raise ValueError(f"logits must be [S, M]; received {tuple(logits.shape)}")
    _check(logits.shape[1], top_k)
    logits = ops.cast(logits, "float32")  # Keras' own softmax warns of a single expert
    p = ops.exp(logits - ops.logsumexp(logits, axis=-1, keepdims=True))
    nan = ops.any(
        ops.isnan(p), axis=-1, keepdims=True
    )  # an infinite logit gives one and zeros beside it
    p = ops.where(nan, float("nan"), p)
    _, chosen = ops.top_k(ops.where(nan, 0.0, p), top_k)  # NaN has no order
    gates = ops.take_along_axis(p, chosen, axis=-1)
    if renormalize:
        gates = gates / ops.sum(gates, axis=-1, keepdims=True)
    return p, gates, chosen


def balance_loss(p, chosen, mask=None):
    """Return M Σ f P: 1 where experts share evenly, up to M / K where K of them get everything.

    Args:
        p: `[S, M]` probabilities of the router.
        chosen: `[S, K]` integers, before any token is dropped.
        mask: boolean `[S]`; padding does not count.

    Returns:
        One float32 number, 0 without a real token. f, the share of choices, is counted and has no
        gradient; P, the mean probability, has one.

    Source: Fedus et al. 2021, section 2.2, equations 4 to 6, <https://arxiv.org/abs/2101.03961>.
    Differs: f counts all K choices, not the first alone.
    """
    p, experts = ops.cast(p, "float32"), p.shape[1]
    sent = ops.sum(ops.one_hot(chosen, experts, dtype="float32"), axis=1)  # [S, M]
    real = ops.ones_like(p[:, :1]) if mask is None else ops.cast(mask[:, None], "float32")
    tokens = ops.maximum(ops.sum(real), 1.0)
    share = ops.sum(sent * real, axis=0) / (tokens * chosen.shape[1])
    mean = ops.sum(ops.where(real > 0, p, 0.0), axis=0) / tokens
    return experts * ops.sum(share * mean)


def capacity(tokens, experts, top_k, factor):
    """Return C, how many slots each expert has: factor K S / M rounded up, at most S.

    Args:
        tokens: S, an integer or an integer tensor.
        experts: M.
        top_k: K.
        factor: 1 is just enough if experts share evenly, to two decimals; None means S.

    Raises:
        ValueError: factor below 0.01.

    Source: Fedus et al. 2021, section 2.2, equation 3, <https://arxiv.org/abs/2101.03961>.
    """
    _check_factor("factor", factor)
    if factor is None:
        return tokens
    exact = Fraction(factor).limit_denominator(100)
    slots = -(-tokens * top_k * exact.numerator // (experts * exact.denominator))
    return min(tokens, slots) if isinstance(tokens, int) else ops.minimum(tokens, slots)


def places(chosen, experts, slots, mask=None):
    """Return which slot of its expert each choice gets: first come, first served.

    Args:
        chosen: `[S, K]` integers from 0 to M - 1.
        experts: M.
        slots: C.
        mask: boolean `[S]`; padding takes no slot.

    Returns:
        `[S, K]` integers from 0 to C - 1, -1 where the expert is full or the token is padding. A
        token comes before all later ones, so its slots do not depend on them.

    Differs: Lepikhin et al. 2020, <https://arxiv.org/abs/2006.16668>, seat the first choices of all
    tokens before any second one; then an earlier token depends on later ones.
    """
    asked = ops.one_hot(ops.reshape(chosen, (-1,)), experts, dtype="int32")  # [S K, M]
    if mask is not None:
        asked = asked * ops.cast(ops.repeat(mask, chosen.shape[1])[:, None], "int32")
    order = ops.sum(ops.cumsum(asked, axis=0) * asked, axis=1) - 1  # padding: -1
    return ops.reshape(ops.where(order < slots, order, -1), ops.shape(chosen))


def feed_forward(x, weights, activation):
    """Apply expert m to row m of x.

    Args:
        x: `[M, C, D]`.
        weights: `[M, D, E]`, `[M, E]`, `[M, E, D]`, `[M, D]`.
        activation: a function.

    Returns:
        `[M, C, D]`.
    """
    widen, widen_bias, narrow, narrow_bias = weights
    hidden = activation(ops.matmul(x, widen) + widen_bias[:, None])
    return ops.matmul(hidden, narrow) + narrow_bias[:, None]


def by_slots(x, gates, chosen, weights, activation, *, slots, mask=None):
    """Gather the tokens of each expert into its slots, apply all experts at once, put back.

    Args:
        x: `[S, D]`.
        gates: `[S, K]`.
        chosen: `[S, K]` integers.
        weights: as in `feed_forward`.
        activation: a function.
        slots: C; what finds no slot adds nothing.
        mask: boolean `[S]`.

    Returns:
        `[S, D]`; zero for padding. It costs M C tokens, however many there are.
    """
    experts, width = weights[0].shape[:2]
    place = places(chosen, experts, slots, mask)
    nowhere = experts * slots  # one slot more, for all that is dropped
    slot = ops.where(place < 0, nowhere, chosen * slots + place)
    rows = ops.repeat(ops.arange(ops.shape(x)[0]), chosen.shape[1])
    token = ops.scatter(ops.reshape(slot, (-1, 1)), rows + 1, (nowhere + 1,))[:-1]
    padded = ops.concatenate([ops.zeros((1, width), x.dtype), x])  # row 0 fills the empty slots
    sent = ops.reshape(ops.take(padded, token, axis=0), (experts, slots, width))
    done = ops.reshape(feed_forward(sent, weights, activation), (nowhere, width))
    back = ops.take(
        ops.concatenate([done, ops.zeros((1, width), x.dtype)]), slot, axis=0
    )  # [S, K, D]
    y = ops.sum(ops.cast(gates, x.dtype)[..., None] * back, axis=1)
    return y if mask is None else ops.where(mask[:, None], y, ops.zeros_like(y))


def by_loop(x, gates, chosen, weights, activation, *, mask=None):
    """Apply one expert after the other to the tokens that chose it; nothing is dropped.

    Args and result are those of `by_slots`. It costs K S tokens, but the numbers of tokens are known
    only when it runs: XLA does not compile it.
    """
    y = ops.zeros_like(x)
    for m in range(weights[0].shape[0]):
        hit = chosen == m if mask is None else (chosen == m) & mask[:, None]
        (rows,) = ops.nonzero(ops.any(hit, axis=1))
        gate = ops.sum(ops.where(hit, ops.cast(gates, x.dtype), 0), axis=1, keepdims=True)
        one = [part[m : m + 1] for part in weights]
        done = feed_forward(ops.take(x, rows, axis=0)[None], one, activation)[0]
        y = y + ops.scatter(rows[:, None], ops.take(gate, rows, axis=0) * done, ops.shape(x))
    return y


@keras.saving.register_keras_serializable("aimodels")
class MixtureOfExperts(keras.layers.Layer):
    """A router and M feedforward networks, of which each token meets K.

    Args:
        experts: M.
        hidden: E of each expert.
        top_k: K, from 1 to M. Gates are renormalized where K is above 1.
        capacity_factor: of `capacity`, in training; None drops nothing.
        evaluation_factor: the same outside training.
        balance: weight of the `balance_loss` that is added to the loss in training.
        activation: name of a Keras activation, or a function.
        dropout: share of the outputs set to zero in training.

    Call:
        x: `[..., D]`; the tokens of one call share the slots.
        token_mask: boolean `[...]`, True where a token is real.

    Returns:
        `[..., D]`; zero for padding and for tokens that every expert dropped. NaN in a real token
        gives NaN for this token.

    Raises:
        ValueError: a number out of its range; x without a known width; a mask of another rank or
            type.

    Source: Fedus et al. 2021, section 2, <https://arxiv.org/abs/2101.03961>; the router computes
    in float32 whatever the policy, section 2.4.
    Differs: no noise on the router's input; weights start as Glorot's.
    """

    def __init__(
        self,
        experts,
        hidden,
        top_k=2,
        *,
        capacity_factor=1.25,
        evaluation_factor=None,
        balance=0.01,
        activation="gelu",
        dropout=0.0,
        **kwargs,
    ):
        """Keep the arguments."""
        super().__init__(**kwargs)
        self.sizes = {"experts": experts, "hidden": hidden, "top_k": top_k}
        for name, size in self.sizes.items():
            check_size(name, size)
        _check(experts, top_k)
        self.factors = {
            "capacity_factor": capacity_factor,
            "evaluation_factor": evaluation_factor,
        }
        for name, factor in self.factors.items():
            _check_factor(name, factor)
        if not 0 <= balance < math.inf:
            raise ValueError(f"balance must be a number from 0; received {balance!r}")
        self.balance, self.dropout = balance, dropout
        self.activation = keras.activations.get(activation)
        self.drop = keras.layers.Dropout(dropout, name="drop", dtype=self.dtype_policy)

    def build(self, x_shape):
        """Make the weights, those of all experts in one array."""
        width, experts, hidden = x_shape[-1], self.sizes["experts"], self.sizes["hidden"]
        if width is None:
            raise ValueError(f"x must have a known width; received shape {tuple(x_shape)}")
        # Glorot's rule for one expert; Keras would take the first axis for a window.
        start = keras.initializers.RandomUniform(
            -((6 / (width + hidden)) ** 0.5), (6 / (width + hidden)) ** 0.5
        )
        self.router = self.add_weight(
            (width, experts), "glorot_uniform", dtype="float32", autocast=False, name="router"
        )
        self.widen = self.add_weight((experts, width, hidden), start.clone(), name="widen")
        self.widen_bias = self.add_weight((experts, hidden), "zeros", name="widen_bias")
        self.narrow = self.add_weight((experts, hidden, width), start.clone(), name="narrow")
        self.narrow_bias = self.add_weight((experts, width), "zeros", name="narrow_bias")

    def choose(self, x):
        """Return what `route` returns for tokens `[S, D]`."""
        logits = ops.matmul(ops.cast(x, "float32"), self.router)
        return route(logits, self.sizes["top_k"], self.sizes["top_k"] > 1)

    def call(self, x, token_mask=None, training=None):
        """Route, seat the tokens, apply the experts, add what they say."""
        rows = ops.reshape(x, (-1, x.shape[-1]))
        if token_mask is not None:
            dtype = keras.backend.standardize_dtype(token_mask.dtype)
            if len(token_mask.shape) != len(x.shape) - 1 or dtype != "bool":
                raise ValueError(
                    f"token_mask must be bool of rank {len(x.shape) - 1};"
                    f" received {dtype} {tuple(token_mask.shape)}"
                )
            token_mask = ops.reshape(token_mask, (-1,))
            rows = ops.where(token_mask[:, None], rows, 0)  # padding may hold anything
        p, gates, chosen = self.choose(rows)
        if training and self.balance:
            self.add_loss(self.balance * balance_loss(p, chosen, token_mask))
        factor = self.factors["capacity_factor" if training else "evaluation_factor"]
        sizes = ops.shape(rows)[0], self.sizes["experts"], self.sizes["top_k"]
        slots = capacity(*sizes, factor)
        weights = self.widen, self.widen_bias, self.narrow, self.narrow_bias
        given = rows, gates, chosen, weights, self.activation
        y = by_slots(*given, slots=slots, mask=token_mask)
        return self.drop(ops.reshape(y, ops.shape(x)))

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {**self.sizes, **self.factors, "balance": self.balance, "dropout": self.dropout}
        config["activation"] = keras.activations.serialize(self.activation)
        return {**super().get_config(), **config}
