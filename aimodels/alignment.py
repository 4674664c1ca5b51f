"""Learning from preferences: a reward model, DPO, and how far a model has moved from where it was.

Axes: B prompts, R answers to each, T steps, V vocabulary, D width, A all possible answers. A mask
is True at the tokens of an answer, so False at the prompt and at padding.
"""

import math

import keras
import numpy as np
from keras import ops

from aimodels.logistic import softmax


def preference_pairs(prompts, chosen, rejected, steps):
    """Write prompts with two answers each as arrays that models read.

    Args:
        prompts: N sequences of integers from 0, none empty.
        chosen: N sequences, the answers that were preferred.
        rejected: N sequences, the others.
        steps: T, room for a prompt and an answer.

    Returns:
        `[N, 2, T]` int32 ids, the chosen answer first, zeros behind it; `[N, 2, T]` mask.

    Raises:
        ValueError: not the same number of each; ids that are no integers from 0; a prompt or an
            answer that is empty; both together too long; two answers that are the same.
    """
    counts = len(prompts), len(chosen), len(rejected)
    if min(counts) != max(counts) or not counts[0]:
        raise ValueError(
            f"prompts, chosen, rejected must be as many, at least 1; received {counts}"
        )
    ids = np.zeros((counts[0], 2, steps), "int32")
    mask = np.zeros(ids.shape, bool)
    for n, row in enumerate(zip(prompts, chosen, rejected, strict=True)):
        texts = [np.asarray(text) for text in row]
        for name, text in zip(("prompts", "chosen", "rejected"), texts, strict=True):
            whole = text.ndim == 1 and text.size and text.dtype.kind in "iu" and text.min() >= 0
            if not whole:
                raise ValueError(
                    f"{name} must hold integers from 0, none empty; received {row} in pair {n}"
                )
        if np.array_equal(texts[1], texts[2]):
            raise ValueError(f"chosen and rejected must differ; received the same in pair {n}")
        start = len(texts[0])
        for r, answer in enumerate(texts[1:]):
            stop = start + len(answer)
            if stop > steps:
                raise ValueError(f"steps must be at least {stop} for pair {n}; received {steps}")
            ids[n, r, :stop] = np.concatenate([texts[0], answer])
            mask[n, r, start:stop] = True
    return ids, mask


def _over_answer(values, mask):
    """Sum `[..., T]` over the tokens of an answer; NaN where there is none."""
    some = ops.any(mask, axis=-1)
    return ops.where(some, ops.sum(ops.where(mask, values, 0.0), axis=-1), float("nan"))


def sequence_log_prob(targets, logits, mask):
    """Return the log-probability of each answer: the sum over its tokens.

    Args:
        targets: `[..., T]` integers from 0 to V - 1, the tokens that came next.
        logits: `[..., T, V]`.
        mask: boolean `[..., T]`, True at targets of the answer; the others may be any integer.

    Returns:
        `[...]` float32, at most 0; NaN where the answer is empty, as it is where a logit is NaN.

    Raises:
        ValueError: targets or a mask of another shape or type.
    """
    _like("targets", targets, logits.shape[:-1], "int")
    _like("mask", mask, logits.shape[:-1], "bool")
    logits = ops.cast(logits, "float32")
    targets = ops.where(mask, targets, 0)
    losses = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    return _over_answer(-losses, mask)


def kl_divergence(logits, reference, mask):
    """Return, for each answer, the sum over its tokens of KL(model ‖ reference) of the next token.

    Its mean over answers drawn from the model is the divergence of whole answers.

    Args:
        logits: `[..., T, V]` of the model.
        reference: `[..., T, V]` logits of the reference.
        mask: boolean `[..., T]`, True where the token that comes next is one of the answer.

    Returns:
        `[...]` float32, from 0; NaN where the answer is empty.

    Raises:
        ValueError: a reference or a mask of another shape or type.
    """
    _like("reference", reference, logits.shape, "float")
    _like("mask", mask, logits.shape[:-1], "bool")
    ours, theirs = (ops.log_softmax(ops.cast(x, "float32")) for x in (logits, reference))
    return _over_answer(ops.sum(ops.exp(ours) * (ours - theirs), axis=-1), mask)


def bradley_terry_loss(probability, scores):
    """Return the mean cross-entropy in nats of preferences that follow from scores.

    Args:
        probability: `[B]`, or one number: how probable it is that the first answer is preferred,
            0 to 1. 1 where it was; 1/2 where neither was.
        scores: `[B, 2]`; the first wins with probability σ(first - second).

    Returns:
        One float32 number, at least 0; NaN if a score or a probability is, or is out of range.

    Raises:
        ValueError: other shapes; a probability out of range, where its value is known.

    Source: Bradley and Terry 1952, <https://doi.org/10.1093/biomet/39.3-4.324>; Christiano et al.
    2017, section 2.2.3, <https://arxiv.org/abs/1706.03741>.
    """
    if len(scores.shape) != len("B2") or scores.shape[-1] != 2:
        raise ValueError(f"scores must be [B, 2]; received {tuple(scores.shape)}")
    p = _numbers(
        "probability", probability, scores.shape[0], "0 to 1", lambda x: (x >= 0) & (x <= 1)
    )
    scores = ops.cast(scores, "float32")
    margin = scores[:, 0] - scores[:, 1]
    return ops.mean(p * ops.softplus(-margin) + (1 - p) * ops.softplus(margin))


def dpo_loss(reference, log_probs, beta, probability=1.0):
    """Return the loss of direct preference optimization.

    Args:
        reference: `[B, 2]` log-probabilities of the chosen and the rejected answer before training.
        log_probs: `[B, 2]` log-probabilities now.
        beta: β above 0, one number or `[B]`: the price of moving away from the reference.
        probability: as in `bradley_terry_loss`.

    Returns:
        One float32 number; log 2 where nothing has moved.

    Raises:
        ValueError: other shapes; a beta that is not above 0 and finite, where its value is known.

    Source: Rafailov et al. 2023, equation 7, <https://arxiv.org/abs/2305.18290>.
    Differs: `probability` other than 1, for ties and for noise that is known.
    """
    _like("reference", reference, log_probs.shape, "float")
    beta = _numbers(
        "beta", beta, log_probs.shape[0], "above 0, finite", lambda x: (x > 0) & (x < np.inf)
    )
    moved = ops.cast(log_probs, "float32") - ops.cast(reference, "float32")
    return bradley_terry_loss(probability, ops.reshape(beta, (-1, 1)) * moved)


def policy_gradient_loss(advantages, log_probs):
    """Return a number whose gradient is that of the mean advantage, turned round (REINFORCE).

    Args:
        advantages: `[B, R]`, constants, as `advantages` returns them.
        log_probs: `[B, R]` of answers drawn from the model as it is.

    Source: Williams 1992, <https://doi.org/10.1007/BF00992696>.
    """
    _like("advantages", advantages, log_probs.shape, "float")
    return -ops.mean(ops.cast(advantages, "float32") * ops.cast(log_probs, "float32"))


def advantages(rewards, log_probs, reference, beta):
    """Return reward less the price of moving, compared with the other answers of the batch.

    Args:
        rewards: `[B]`, B at least 2.
        log_probs: `[B]` of the answers, by the model that drew them.
        reference: `[B]`, by the reference.
        beta: β, a number from 0.

    Returns:
        `[B]` float64 with mean 0: of each total r - β log(π / π_ref) the mean of the others is taken off.

    Raises:
        ValueError: other shapes, fewer than 2, a number that is not finite, a beta below 0.
    """
    shape = np.shape(rewards)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"rewards must be [B] with B at least 2; received {shape}")
    if not (np.ndim(beta) == 0 and 0 <= beta < np.inf):
        raise ValueError(f"beta must be a number from 0; received {beta!r}")
    arrays = {"rewards": rewards, "log_probs": log_probs, "reference": reference}
    arrays = {name: np.asarray(array, float) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite {shape}; received {array.shape}, {array}")
    rewards, log_probs, reference = arrays.values()
    total = rewards - beta * (log_probs - reference)
    return (total - total.mean()) * len(total) / (len(total) - 1)


def optimal_policy(reference, rewards, beta):
    """Return the distribution that maximizes mean reward - β KL to the reference.

    Args:
        reference: `[..., A]` probabilities.
        rewards: `[..., A]`.
        beta: β, a number above 0.

    Returns:
        `[..., A]` in proportion to reference · exp(reward / β).

    Raises:
        ValueError: probabilities that are below 0 or do not sum to 1; rewards of another shape or
            not finite; a beta that is not above 0 and finite.

    Source: Rafailov et al. 2023, equation 4, <https://arxiv.org/abs/2305.18290>.
    """
    reference, rewards = np.asarray(reference, float), np.asarray(rewards, float)
    if not (reference >= 0).all() or not np.allclose(reference.sum(-1), 1):
        raise ValueError(f"reference must be probabilities that sum to 1; received {reference}")
    if rewards.shape != reference.shape or not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite {reference.shape}; received {rewards}")
    if not (np.ndim(beta) == 0 and 0 < beta < np.inf):
        raise ValueError(f"beta must be a number above 0; received {beta!r}")
    with np.errstate(divide="ignore"):  # what the reference never writes stays at 0
        return softmax(np.log(reference) + rewards / beta)


def best_of_n_kl(n):
    """Return log n - (n - 1) / n: the best of n samples is at most so far from one sample, in nats.

    Source: Beirami et al. 2024, <https://arxiv.org/abs/2401.01879>, who show that it is a bound;
    before, it was used as the value.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n must be an integer of at least 1; received {n!r}")
    return math.log(n) - (n - 1) / n


class _OnAnswers(keras.Model):
    """What both models share: a body that reads `[B, R, T]` ids, and how it is saved."""

    def __init__(self, body, **kwargs):
        super().__init__(**kwargs)
        self.body = body
        self.built = True

    def rows(self, inputs):
        """Return ids and mask as `[B R, T]`, and the shape of the result."""
        ids, mask = inputs
        _like("ids", ids, ids.shape, "int")
        if len(ids.shape) != len("BRT"):
            raise ValueError(f"ids must be [B, R, T]; received {tuple(ids.shape)}")
        _like("mask", mask, ids.shape, "bool")
        steps = ids.shape[-1]
        shape = (-1, ids.shape[1])
        return ops.reshape(ids, (-1, steps)), ops.reshape(mask, (-1, steps)), shape

    def get_config(self):
        body = keras.saving.serialize_keras_object(self.body)
        return {**keras.Layer.get_config(self), "body": body}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "body": keras.saving.deserialize_keras_object(config["body"])})


@keras.saving.register_keras_serializable("aimodels")
class AnswerLogProb(_OnAnswers):
    """Log-probabilities of answers.

    Args:
        body: a `GPT`.

    Call:
        ids, mask: a pair of `[B, R, T]`, as `preference_pairs` makes them.

    Returns:
        `[B, R]` float32; NaN for an empty answer, and for one that begins at step 0, before which
        nothing predicts.
    """

    def call(self, inputs):
        """Read all answers at once and sum over the tokens of each."""
        ids, mask, shape = self.rows(inputs)
        found = sequence_log_prob(ids[:, 1:], self.body(ids[:, :-1]), mask[:, 1:])
        return ops.reshape(ops.where(mask[:, 0], float("nan"), found), shape)


@keras.saving.register_keras_serializable("aimodels")
class RewardModel(_OnAnswers):
    """One number for each answer: what the body has read up to its last token, times a vector.

    Args:
        body: a `GPT`.

    Call:
        ids, mask: a pair of `[B, R, T]`, as `preference_pairs` makes them.

    Returns:
        `[B, R]` float32; NaN for an empty answer. Only differences mean something, so there is no
        bias.

    Source: Ouyang et al. 2022, section 3.5, <https://arxiv.org/abs/2203.02155>.
    """

    def __init__(self, body, **kwargs):
        """Add the vector, zeros at first."""
        super().__init__(body, **kwargs)
        self.head = self.add_weight((body.sizes["width"],), "zeros", name="head")

    def call(self, inputs):
        """Read all answers at once and take what was read at the last token of each."""
        ids, mask, shape = self.rows(inputs)
        x, _ = self.body.read(ids)
        last = ops.max(ops.where(mask, ops.arange(mask.shape[-1]), -1), axis=-1)
        there = ops.one_hot(last, mask.shape[-1], dtype="float32")
        x = ops.einsum("bt,btd->bd", there, ops.cast(x, "float32"))
        rewards = ops.matmul(x, ops.cast(self.head, "float32"))
        return ops.reshape(ops.where(last >= 0, rewards, float("nan")), shape)


def _like(name, array, shape, kind):
    """Raise ValueError unless `array` has this shape, as far as it is known, and this kind."""
    dtype, shape = keras.backend.standardize_dtype(array.dtype), tuple(shape)
    sizes = zip(array.shape, shape, strict=False)
    fits = all(None in pair or pair[0] == pair[1] for pair in sizes)
    if len(array.shape) != len(shape) or not fits or kind not in dtype:
        raise ValueError(f"{name} must be {kind} {shape}; received {dtype} {tuple(array.shape)}")


def _numbers(name, value, rows, allowed, inside):
    """Return one number or `[B]` as float32; out of range: ValueError if it is known, else NaN."""
    if not keras.ops.is_tensor(value) or hasattr(value, "numpy"):
        known = np.asarray(value, "float32")
        if not inside(known).all():
            raise ValueError(f"{name} must be {allowed}; received {known}")
    value = ops.convert_to_tensor(value, "float32")
    if tuple(value.shape) not in ((), (rows,)):
        raise ValueError(f"{name} must be a number or [{rows}]; received {tuple(value.shape)}")
    return ops.where(inside(value), value, float("nan"))
