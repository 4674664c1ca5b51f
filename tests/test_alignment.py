"""Preferences: DPO's gradient by hand, Bradley–Terry by scikit-learn, the optimum on all answers."""

import itertools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from aimodels.alignment import (
    AnswerLogProb,
    RewardModel,
    advantages,
    best_of_n_kl,
    bradley_terry_loss,
    dpo_loss,
    kl_divergence,
    optimal_policy,
    policy_gradient_loss,
    preference_pairs,
    sequence_log_prob,
)
from aimodels.gpt import GPT
from aimodels.training import make_step

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPES = [(3, 5, 7), (1, 1, 2), (4, 1, 3), (2, 6, 1), (8, 3, 20)]  # B, T, V


def message(text):
    return f"^{re.escape(text)}"


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def case(shape, seed=0, scale=2.0):
    """Random targets, logits, a second set of logits, and a mask with an answer in each row."""
    batch, steps, vocabulary = shape
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, vocabulary, (batch, 2, steps))
    logits = rng.normal(scale=scale, size=(2, batch, 2, steps, vocabulary)).astype("float32")
    mask = rng.random((batch, 2, steps)) < 0.6
    mask[..., rng.integers(steps)] = True
    return targets, *logits, mask


def tiny(seed=0, vocabulary=7, steps=6):
    keras.utils.set_random_seed(seed)
    return GPT(vocabulary, steps, 8, 2, 1)


IDS = np.array([[[1, 2, 3, 4, 0, 0], [1, 2, 5, 0, 0, 0]], [[6, 5, 4, 0, 0, 0], [6, 1, 1, 1, 1, 2]]])
MASK = np.array(
    [[[0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0]], [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1]]], bool
)

# ---- pairs


def test_pairs_by_hand():
    ids, mask = preference_pairs(
        [[1, 2], [6]], [[3, 4], [5, 4]], [[5], np.array([1, 1, 1, 1, 2])], 6
    )
    assert ids.dtype == "int32"
    assert ids.tolist() == IDS.tolist()
    assert mask.tolist() == MASK.tolist()


@pytest.mark.parametrize(
    ("rows", "steps", "text"),
    [
        (
            ([[1]], [[2]], []),
            4,
            "prompts, chosen, rejected must be as many, at least 1; received (1, 1, 0)",
        ),
        (
            ([], [], []),
            4,
            "prompts, chosen, rejected must be as many, at least 1; received (0, 0, 0)",
        ),
        (([[]], [[2]], [[3]]), 4, "prompts must hold integers from 0, none empty; received"),
        (([[1]], [[]], [[3]]), 4, "chosen must hold integers from 0, none empty; received"),
        (([[1]], [[2]], [[]]), 4, "rejected must hold integers from 0, none empty; received"),
        (([[1]], [[2.0]], [[3]]), 4, "chosen must hold integers from 0, none empty; received"),
        (([[1]], [[math.nan]], [[3]]), 4, "chosen must hold integers from 0, none empty; received"),
        (([[1]], [[2]], [[-3]]), 4, "rejected must hold integers from 0, none empty; received"),
        (([[1]], [2], [[3]]), 4, "chosen must hold integers from 0, none empty; received"),
        (
            ([[1], [1]], [[2], [4]], [[3], [4]]),
            4,
            "chosen and rejected must differ; received the same in pair 1",
        ),
        (([[1]], [[2]], [[3, 4, 5, 6]]), 4, "steps must be at least 5 for pair 0; received 4"),
    ],
)
def test_pairs_refuse(rows, steps, text):
    with pytest.raises(ValueError, match=message(text)):
        preference_pairs(*rows, steps)


# ---- log-probabilities and divergence


def test_log_probability_by_hand():
    logits = np.log([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]])
    found = sequence_log_prob(np.array([[1, 2, 0]]), logits, np.array([[True, True, False]]))
    np.testing.assert_allclose(found, [math.log(0.25 * 0.8)], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_log_probability_and_divergence_equal_loops(shape):
    targets, logits, other, mask = case(shape)
    own, theirs = log_softmax(logits.astype(float)), log_softmax(other.astype(float))
    total, far = np.zeros(mask.shape[:2]), np.zeros(mask.shape[:2])
    for b, r, t in zip(*np.nonzero(mask), strict=True):
        total[b, r] += own[b, r, t, targets[b, r, t]]
        for p, q in zip(own[b, r, t], theirs[b, r, t], strict=True):
            far[b, r] += math.exp(p) * (p - q)
    np.testing.assert_allclose(
        sequence_log_prob(targets, logits, mask), total, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(kl_divergence(logits, other, mask), far, rtol=1e-4, atol=1e-5)


def test_what_is_masked_is_not_read():
    targets, logits, other, mask = case((3, 5, 7))
    before = sequence_log_prob(targets, logits, mask), kl_divergence(logits, other, mask)
    targets[~mask], logits[~mask], other[~mask] = -9, np.nan, 1e9
    after = sequence_log_prob(targets, logits, mask), kl_divergence(logits, other, mask)
    np.testing.assert_array_equal(before, after)


def test_an_empty_answer_or_nan_gives_nan():
    targets, logits, other, mask = case((3, 5, 7))
    mask[0, 0], logits[1, 1] = False, np.nan
    for found in (sequence_log_prob(targets, logits, mask), kl_divergence(logits, other, mask)):
        assert np.isnan(found).tolist() == [[True, False], [False, True], [False, False]]


def test_half_precision_is_summed_in_float32():
    logits = np.zeros((1, 900, 1024), "float16")
    found = sequence_log_prob(np.zeros((1, 900), int), logits, np.ones((1, 900), bool))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, [-900 * math.log(1024)], rtol=1e-5)
    far = kl_divergence(
        logits + np.eye(900, 1024, dtype="float16"), logits, np.ones((1, 900), bool)
    )
    p = np.exp([1.0] + [0] * 1023) / (math.e + 1023)
    np.testing.assert_allclose(far, [900 * np.sum(p * np.log(p * 1024))], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"targets": np.zeros((2, 3), int)}, "targets must be int (2, 4); received int64 (2, 3)"),
        ({"targets": np.zeros((2, 4))}, "targets must be int (2, 4); received float64 (2, 4)"),
        ({"mask": np.ones((4,), bool)}, "mask must be bool (2, 4); received bool (4,)"),
        ({"mask": np.ones((2, 4), int)}, "mask must be bool (2, 4); received int64 (2, 4)"),
    ],
)
def test_log_probability_refuses(change, text):
    given = {"targets": np.zeros((2, 4), int), "mask": np.ones((2, 4), bool)} | change
    with pytest.raises(ValueError, match=message(text)):
        sequence_log_prob(logits=np.zeros((2, 4, 3)), **given)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"reference": np.zeros((2, 4, 5))},
            "reference must be float (2, 4, 3); received float64 (2, 4, 5)",
        ),
        ({"mask": np.ones((2, 5), bool)}, "mask must be bool (2, 4); received bool (2, 5)"),
    ],
)
def test_divergence_refuses(change, text):
    given = {"reference": np.zeros((2, 4, 3)), "mask": np.ones((2, 4), bool)} | change
    with pytest.raises(ValueError, match=message(text)):
        kl_divergence(np.zeros((2, 4, 3)), **given)


# ---- Bradley–Terry


@pytest.mark.parametrize(("rows", "columns"), [(40, 1), (60, 3), (200, 5)])
def test_linear_rewards_are_best_where_scikit_learn_finds_them(rows, columns):
    rng = np.random.default_rng(rows)
    gaps = rng.normal(size=(rows, columns))
    won = rng.random(rows) < 1 / (1 + np.exp(-gaps @ rng.normal(size=columns)))
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(gaps, won)
    w = tf.Variable(peer.coef_[0].astype("float32"))
    with tf.GradientTape() as tape:
        first = ops.sum(w * gaps.astype("float32"), -1)
        scores = ops.stack([first, ops.zeros_like(first)], -1)
        loss = bradley_terry_loss(won.astype("float32"), scores)
    np.testing.assert_allclose(tape.gradient(loss, w), 0, atol=2e-5)
    np.testing.assert_allclose(loss, log_loss(won, peer.predict_proba(gaps)), rtol=1e-5)


def test_extremes_do_not_overflow():
    scores = np.array([[3e4, -3e4]], "float32")
    assert float(bradley_terry_loss(1.0, scores)) == 0
    assert float(bradley_terry_loss(0.0, scores)) == 6e4
    assert float(bradley_terry_loss(0.5, scores)) == 3e4
    assert float(bradley_terry_loss(np.ones(1), np.zeros((1, 2), "float16"))) == np.float32(
        math.log(2)
    )
    assert np.isnan(bradley_terry_loss(1.0, np.array([[np.nan, 1]])))


@pytest.mark.parametrize(
    ("probability", "scores", "text"),
    [
        (1.0, np.zeros(2), "scores must be [B, 2]; received (2,)"),
        (1.0, np.zeros((4, 3)), "scores must be [B, 2]; received (4, 3)"),
        (1.5, np.zeros((4, 2)), "probability must be 0 to 1; received 1.5"),
        (-0.1, np.zeros((4, 2)), "probability must be 0 to 1; received -0.1"),
        (np.nan, np.zeros((4, 2)), "probability must be 0 to 1; received nan"),
        (tf.constant([1.0, 2.0]), np.zeros((2, 2)), "probability must be 0 to 1; received [1. 2.]"),
        (np.ones(3), np.zeros((4, 2)), "probability must be a number or [4]; received (3,)"),
    ],
)
def test_bradley_terry_refuses(probability, scores, text):
    with pytest.raises(ValueError, match=message(text)):
        bradley_terry_loss(probability, scores)


# ---- DPO


def by_hand(reference, targets, logits, mask, *, beta, p):
    """DPO's loss and its derivative by each logit, pair by pair and token by token."""
    rows, gradient, loss = log_softmax(logits.astype(float)), np.zeros(logits.shape), 0.0
    for b in range(len(logits)):
        moved = [
            sum(rows[b, r, t, targets[b, r, t]] for t in np.flatnonzero(mask[b, r]))
            - reference[b, r]
            for r in (0, 1)
        ]
        win = 1 / (1 + math.exp(-beta[b] * (moved[0] - moved[1])))
        loss -= (p[b] * math.log(win) + (1 - p[b]) * math.log(1 - win)) / len(logits)
        for r, sign in enumerate((1, -1)):
            for t in np.flatnonzero(mask[b, r]):
                up = -np.exp(rows[b, r, t])
                up[targets[b, r, t]] += 1
                gradient[b, r, t] = sign * beta[b] * (win - p[b]) * up / len(logits)
    return loss, gradient


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sure", [True, False])
def test_the_gradient_of_dpo_is_that_by_hand(shape, sure):
    targets, logits, other, mask = case(shape, scale=1.0)
    rng = np.random.default_rng(1)
    beta = rng.uniform(0.05, 2, len(logits))
    p = np.ones(len(logits)) if sure else rng.random(len(logits))
    reference = np.array(sequence_log_prob(targets, other, mask))
    z = tf.Variable(logits)
    with tf.GradientTape() as tape:
        now = sequence_log_prob(targets, z, mask)
        loss = dpo_loss(reference, now, beta) if sure else dpo_loss(reference, now, beta, p)
    expected, gradient = by_hand(reference, targets, logits, mask, beta=beta, p=p)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, z), gradient, rtol=1e-4, atol=1e-6)


def test_dpo_at_the_start_and_far_away():
    logs = np.array([[-20.0, -300.0], [-1.0, -2.0]], "float32")
    assert float(dpo_loss(logs, logs, 0.1)) == np.float32(math.log(2))
    far = logs + np.array([[4e4, -4e4]], "float32")
    assert float(dpo_loss(logs, far, 1.0)) == 0
    np.testing.assert_allclose(dpo_loss(far, logs, 0.5), 4e4, rtol=1e-6)
    assert np.isnan(dpo_loss(logs, logs * np.nan, 0.1))


@pytest.mark.parametrize("jit", [True, False])
def test_in_compiled_code_a_bad_number_gives_nan(jit):
    logs = tf.zeros((2, 2))
    loss = tf.function(lambda beta, p: dpo_loss(logs, logs, beta, p), jit_compile=jit)
    bad = [(0.0, 1.0), (-1.0, 1.0), (np.inf, 1.0), (np.nan, 1.0), (1.0, 1.1), (1.0, np.nan)]
    for beta, p in bad:
        assert np.isnan(loss(tf.constant(beta), tf.constant(p)))
    assert float(loss(tf.constant([1.0, 2.0]), tf.constant(0.5))) == np.float32(math.log(2))


@pytest.mark.parametrize("beta", [0, -0.1, math.nan, math.inf])
def test_beta_must_be_above_zero(beta):
    with pytest.raises(ValueError, match=message("beta must be above 0, finite; received")):
        dpo_loss(np.zeros((2, 2)), np.zeros((2, 2)), beta)
    with pytest.raises(
        ValueError, match=message(f"beta must be a number above 0; received {beta}")
    ):
        optimal_policy([0.5, 0.5], [0, 1], beta)


def test_dpo_refuses_other_shapes():
    with pytest.raises(
        ValueError, match=message("reference must be float (4, 2); received float64 (3, 2)")
    ):
        dpo_loss(np.zeros((3, 2)), np.zeros((4, 2)), 0.1)
    with pytest.raises(ValueError, match=message("scores must be [B, 2]; received (4, 3)")):
        dpo_loss(np.zeros((4, 3)), np.zeros((4, 3)), 0.1)


# ---- the optimum, on all 64 answers


def test_the_closed_form_is_the_best():
    rng = np.random.default_rng(0)
    reference, rewards, beta = rng.dirichlet(np.ones(64)), rng.normal(size=64), 0.7

    def objective(p):
        return np.sum(p * rewards) - beta * np.sum(p * np.log(p / reference))

    best = optimal_policy(reference, rewards, beta)
    partition = np.sum(reference * np.exp(rewards / beta))
    np.testing.assert_allclose(objective(best), beta * np.log(partition), rtol=1e-12)
    others = [rng.dirichlet(np.ones(64)) for _ in range(50)]
    others += [0.99 * best + 0.01 * p for p in others]
    assert max(map(objective, others)) < objective(best)


def test_the_optimum_at_its_limits():
    reference, rewards = np.array([0.2, 0.8, 0.0]), np.array([1.0, 0.0, 9.0])
    np.testing.assert_allclose(optimal_policy(reference, rewards, 1e9), reference, atol=1e-8)
    assert optimal_policy(reference, rewards, 1e-4).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("reference", "rewards", "text"),
    [
        ([0.5, 0.6], [0, 1], "reference must be probabilities that sum to 1; received"),
        ([1.5, -0.5], [0, 1], "reference must be probabilities that sum to 1; received"),
        ([np.nan, 1], [0, 1], "reference must be probabilities that sum to 1; received"),
        ([0.5, 0.5], [0], "rewards must be finite (2,); received"),
        ([0.5, 0.5], [0, np.nan], "rewards must be finite (2,); received"),
    ],
)
def test_the_optimum_refuses(reference, rewards, text):
    with pytest.raises(ValueError, match=message(text)):
        optimal_policy(reference, rewards, 1.0)


def test_dpo_with_all_pairs_reaches_the_optimum():
    answers = np.array(list(itertools.product(range(4), repeat=3)))
    ids = np.concatenate([np.zeros((64, 1), int), answers], 1)[None]
    mask = np.broadcast_to(np.arange(4) > 0, ids.shape)
    model = AnswerLogProb(GPT(4, 3, 16, 2, 1))
    reference = np.array(model((ids, mask)))[0]
    np.testing.assert_allclose(np.exp(reference).sum(), 1, rtol=1e-5)
    rewards, beta = np.random.default_rng(0).normal(size=64), 0.5
    best = optimal_policy(
        np.exp(reference.astype(float)) / np.exp(reference.astype(float)).sum(), rewards, beta
    )
    two = np.array(list(itertools.combinations(range(64), 2)))
    wins = 1 / (1 + np.exp(rewards[two[:, 1]] - rewards[two[:, 0]])).astype("float32")
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 600))
    step = make_step(
        model, adam, lambda y, own: dpo_loss(reference[two], ops.take(own[0], two), beta, y)
    )
    for _ in range(600):
        step((ids, mask), wins)
    p = np.exp(np.array(model((ids, mask)))[0])
    start = np.abs(np.exp(reference) - best).sum() / 2
    assert np.abs(p - best).sum() / 2 < start / 20


# ---- best of n, policy gradient


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
def test_best_of_n_stays_below_its_bound(n):
    rng = np.random.default_rng(n)
    for size in (1, 2, 5, 400):
        p = rng.dirichlet(np.ones(size))  # in the order of their rewards
        below = np.cumsum(p)
        best = below**n - (below - p) ** n
        far = np.sum(best * np.log(np.maximum(best, 1e-300) / p))
        assert far <= best_of_n_kl(n) + 1e-9
    many = np.linspace(0, 1, 10**5 + 1)
    best = np.diff(many**n)
    exact = np.sum(best * np.log(np.maximum(best, 1e-300) * 10**5))
    np.testing.assert_allclose(exact, best_of_n_kl(n), atol=1e-3)


@pytest.mark.parametrize("n", [0, -1, 2.0, True, math.nan])
def test_best_of_n_refuses(n):
    with pytest.raises(
        ValueError, match=message(f"n must be an integer of at least 1; received {n!r}")
    ):
        best_of_n_kl(n)


def test_advantages_by_hand():
    found = advantages([3, 1, 2], np.array([-2, -3, -1]), np.array([-4, -3, -1]), 0.5)
    totals = np.array([3 - 1, 1, 2.0])  # r - β (own - reference)
    others = [(totals.sum() - x) / 2 for x in totals]
    np.testing.assert_allclose(found, totals - others)
    np.testing.assert_allclose(found.sum(), 0, atol=1e-12)


def test_the_policy_gradient_is_that_of_the_objective_in_the_mean():
    """Summed over all answers with their probabilities, it is the exact gradient."""
    rng = np.random.default_rng(0)
    z, reference = tf.Variable(rng.normal(size=6)), np.log(rng.dirichlet(np.ones(6)))
    rewards, beta = rng.normal(size=6), 0.3
    with tf.GradientTape(persistent=True) as tape:
        logs = tf.nn.log_softmax(z)
        p = tf.exp(logs)
        objective = tf.reduce_sum(p * (rewards - beta * (logs - reference)))
        gain = rewards - beta * (logs.numpy() - reference)
        weights = (6 * p.numpy() * gain)[None]
        loss = policy_gradient_loss(weights, logs[None])
    np.testing.assert_allclose(
        tape.gradient(loss, z), -tape.gradient(objective, z), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rewards": [1.0]}, "rewards must be [B] with B at least 2; received (1,)"),
        ({"rewards": [[1.0, 2]]}, "rewards must be [B] with B at least 2; received (1, 2)"),
        ({"rewards": [1, np.nan]}, "rewards must be finite (2,); received (2,)"),
        ({"log_probs": [1]}, "log_probs must be finite (2,); received (1,)"),
        ({"reference": [-np.inf, 1]}, "reference must be finite (2,); received (2,)"),
        ({"beta": -1}, "beta must be a number from 0; received -1"),
        ({"beta": np.nan}, "beta must be a number from 0; received nan"),
    ],
)
def test_advantages_refuse(change, text):
    given = {"rewards": [1, 2], "log_probs": [-1, -2], "reference": [-1, -1], "beta": 0.1}
    with pytest.raises(ValueError, match=message(text)):
        advantages(**given | change)


def test_the_policy_gradient_refuses_other_shapes():
    with pytest.raises(
        ValueError, match=message("advantages must be float (2, 1); received float64 (2,)")
    ):
        policy_gradient_loss(np.zeros(2), np.zeros((2, 1)))


# ---- models


def test_answers_are_scored_after_their_prompt():
    body = tiny()
    found = np.array(AnswerLogProb(body)((IDS, MASK)))
    for b, r in itertools.product(range(2), range(2)):
        rows = log_softmax(np.array(body(IDS[b, r][None]), float))[0]
        places = np.flatnonzero(MASK[b, r])
        want = sum(rows[t - 1, IDS[b, r, t]] for t in places)
        np.testing.assert_allclose(found[b, r], want, rtol=1e-5)


def test_rewards_read_the_last_token_of_the_answer():
    model = RewardModel(tiny())
    model.head.assign(np.arange(8) - 3.0)
    found = np.array(model((IDS, MASK)))
    for b, r in itertools.product(range(2), range(2)):
        last = np.flatnonzero(MASK[b, r])[-1]
        x = np.array(model.body.read(IDS[b, r][None])[0])[0, last]
        np.testing.assert_allclose(found[b, r], x @ model.head.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
def test_padding_is_not_read(kind):
    model = kind(tiny())
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) / 2 for w in model.weights])
    other = IDS.copy()
    after = np.cumsum(MASK[..., ::-1], -1)[..., ::-1] == 0
    other[after] = 3
    np.testing.assert_array_equal(model((IDS, MASK)), model((other, MASK)))


@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
def test_an_empty_answer_is_nan(kind):
    mask = MASK.copy()
    mask[0, 1] = False
    assert np.isnan(kind(tiny())((IDS, mask))).tolist() == [[False, True], [False, False]]


def test_an_answer_that_begins_at_the_first_token_is_nan():
    mask = MASK.copy()
    mask[1, 0, 0] = True
    assert np.isnan(AnswerLogProb(tiny())((IDS, mask))).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
@pytest.mark.parametrize(
    ("ids", "mask", "text"),
    [
        (IDS[0], MASK[0], "ids must be [B, R, T]; received (2, 6)"),
        (IDS.astype("float32"), MASK, "ids must be int (2, 2, 6); received float32 (2, 2, 6)"),
        (IDS, MASK[..., 1:], "mask must be bool (2, 2, 6); received bool (2, 2, 5)"),
        (IDS, MASK.astype(int), "mask must be bool (2, 2, 6); received int64 (2, 2, 6)"),
    ],
)
def test_models_refuse(kind, ids, mask, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kind(tiny())((ids, mask))


@SAVING
@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
def test_a_model_is_saved_and_loaded(kind, tmp_path):
    model = kind(tiny())
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) / 2 for w in model.weights])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model((IDS, MASK)), again((IDS, MASK)))


@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
def test_mixed_precision_gives_float32(kind):
    full, half = kind(tiny()), kind(GPT(7, 6, 8, 2, 1, dtype="mixed_float16"))
    half.set_weights(full.get_weights())
    found = half((IDS, MASK))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, full((IDS, MASK)), atol=0.03)


@pytest.mark.parametrize("kind", [AnswerLogProb, RewardModel])
def test_any_batch_is_compiled_once(kind):
    model = kind(tiny())
    spec = [tf.TensorSpec((None, 2, 6), kind) for kind in ("int64", "bool")]
    call = tf.function(lambda ids, mask: model((ids, mask)), spec, jit_compile=True)
    for rows in (2, 1):
        found, want = call(IDS[:rows], MASK[:rows]), model((IDS[:rows], MASK[:rows]))
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert call.experimental_get_tracing_count() == 1


def test_a_reward_model_learns_an_order():
    model = RewardModel(tiny())
    step = make_step(model, keras.optimizers.Adam(0.01), bradley_terry_loss)
    losses = [float(step((IDS, MASK), np.array([1, 0], "float32"))) for _ in range(60)]
    assert losses[0] == np.float32(math.log(2))
    assert losses[-1] < 0.1
