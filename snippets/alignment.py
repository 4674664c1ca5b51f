# --8<-- [start:by-hand]
import itertools
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
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
from aimodels.gpt import GPT, generate, next_token_loss
from aimodels.logistic import fit_logistic, log_sum_exp, sigmoid
from aimodels.tokenizer import BytePairTokenizer
from aimodels.training import batches, make_step, train


def dpo_by_hand(reference, targets, logits, mask, beta):
    rows = logits - log_sum_exp(logits)[..., None]
    own = np.take_along_axis(rows, targets[..., None], -1)[..., 0]
    moved = (own * mask).sum(-1) - reference  # (1)!
    margin = beta * (moved[:, 0] - moved[:, 1])
    wrong = sigmoid(-margin)  # (2)!
    push = beta * wrong[:, None] * [-1, 1] / len(margin)
    onehot = np.eye(logits.shape[-1])[targets]
    gradient = (push[..., None] * mask)[..., None] * (onehot - np.exp(rows))
    return np.logaddexp(0, -margin).mean(), gradient


# --8<-- [end:by-hand]

# --8<-- [start:base]
V, STEPS, PROMPT, ROOM = 1024, 32, 6, 18
sections = datasets.handbook()
learned, held = datasets.split(len(sections), 26, np.random.default_rng(0))


def paragraphs(rows):
    pages = [(sections[i].en, sections[i].zh) for i in rows]
    return [
        line for pair in pages for text in pair for line in text.split("\n")
    ]


tokenizer = BytePairTokenizer.train(paragraphs(learned), V, ["<|end|>"])
end = tokenizer.special["<|end|>"]


def windows(rows, every):
    each = [[*tokenizer.encode(line), end] for line in paragraphs(rows)]
    ids = np.array([end, *itertools.chain(*each)])
    return np.lib.stride_tricks.sliding_window_view(ids, STEPS + 1)[::every]


def schedule(optimizer, rate, steps):
    def after(number, loss):
        cool = (1 + np.cos(np.pi * number / steps)) / 2
        optimizer.learning_rate = rate * min(1, number / (steps / 10)) * cool

    return after


keras.utils.set_random_seed(1)
model, reference, body = (GPT(V, STEPS, 64, 4, 2) for _ in range(3))
adam = keras.optimizers.AdamW(0.0, beta_2=0.95, global_clipnorm=1.0)
step = make_step(model, adam, next_token_loss, jit_compile=True)
text = windows(learned, 8)
source = batches((text[:, :-1], text[:, 1:]), 16, seed=0)
train(step, source, 700, after=schedule(adam, 0.01, 700))
base = model.get_weights()
reference.set_weights(base)  # (1)!

unheard = windows(held, STEPS)
size = len("\n".join(paragraphs(held)).encode())


def bits_per_byte():
    loss = next_token_loss(unheard[:, 1:], model(unheard[:, :-1]))
    return float(loss) * unheard[:, 1:].size / np.log(2) / size


print(f"parameters: {model.count_params()}")
print(f"held-out text: {bits_per_byte():.2f} bits per byte")
# --8<-- [end:base]


# --8<-- [start:judge]
def prompts(rows):
    lines = [[end, *tokenizer.encode(line)] for line in paragraphs(rows)]
    return np.array([ids[:PROMPT] for ids in lines if len(ids) > PROMPT + 2])


def write(starts, seed, size=256):
    rng, missing = np.random.default_rng(seed), -len(starts) % size
    full = np.concatenate([starts, np.repeat(starts[:1], missing, 0)])
    parts = np.split(full, len(full) // size)
    ids = [generate(model, p, ROOM, rng, temperature=1.0) for p in parts]
    return np.concatenate(ids)[: len(starts)]


def answer_mask(ids):
    ends = ids[..., PROMPT:] == end
    mask = np.cumsum(ends, -1) - ends == 0  # (1)!
    return np.concatenate([np.zeros((*ids.shape[:-1], PROMPT), bool), mask], -1)


SIGNS = set("$\\`^_{}[]|=+*/<>#~&%@0123456789")


def look(ids):
    found = []
    for row, mask in zip(ids, answer_mask(ids), strict=True):
        answer = row[mask]
        ended = answer[-1] == end
        words = tokenizer.decode(answer[:-1] if ended else answer)
        signs = sum(sign in SIGNS for sign in words)
        plain = 1 - signs / len(words) if words else 0
        found.append((plain, ended, len(answer)))
    return np.array(found)


RULE = np.array([10, 2, 0])  # (2)!
starts, asked = prompts(learned), prompts(held)
starts = np.random.default_rng(0).permutation(starts)[:1536]
pool = np.stack([write(starts, seed) for seed in (10, 11)], 1)
first = np.stack([write(asked, seed) for seed in (20, 21)], 1)
seen = look(pool[:, 0]).mean(0)
print(f"prompts: {len(starts)} to learn from, {len(asked)} held out")
print(f"plain characters {seen[0]:.2f}, ended {seen[1]:.2f}", end="")
print(f", tokens {seen[2]:.1f}")
# --8<-- [end:judge]


# --8<-- [start:pairs]
def ask(seed, rule=RULE):
    rows = np.arange(512 * seed, 512 * seed + 512)  # (1)!
    given, rng = pool[rows], np.random.default_rng(seed)
    points = np.stack([look(given[:, k]) for k in (0, 1)], 1)
    gap = (points[:, 0] - points[:, 1]) @ rule
    second = rng.random(512) > sigmoid(gap)  # (2)!
    order = np.stack([second, ~second], 1).astype(int)[..., None]
    given = np.take_along_axis(given, order, 1)
    points = np.take_along_axis(points, order, 1)
    mask = answer_mask(given)
    texts = [
        [row[m] for row, m in zip(*two, strict=True)]
        for two in zip(given, mask, strict=True)
    ]
    new = [not np.array_equal(*two) for two in texts]  # (3)!
    chosen, rejected = zip(*itertools.compress(texts, new), strict=True)
    pairs = preference_pairs(given[new, 0, :PROMPT], chosen, rejected, 24)
    return pairs, (points[:, 0] - points[:, 1])[new]


people = [ask(seed) for seed in range(3)]
for (ids, _), gaps in people:
    right = np.sign(gaps @ RULE)
    print(
        f"different {len(ids) / 512:.2f}, ties {np.mean(right == 0):.2f},"
        f" rule and people agree on {np.mean(right[right != 0] > 0):.2f}"
    )
# --8<-- [end:pairs]


# --8<-- [start:recover]
def linear(gaps):
    both = np.concatenate([gaps, -gaps])  # (1)!
    answers = np.repeat([1, 0], len(gaps))
    return fit_logistic(both, answers)[0]


everybody = np.concatenate([gaps for _, gaps in people])
weights = linear(everybody)
print("points for plain, ended, a token:", weights.round(1))
# --8<-- [end:recover]


# --8<-- [start:reward]
def in_parts(function, ids, mask, size=128):
    missing = [(0, -len(ids) % size), *[(0, 0)] * (ids.ndim - 1)]
    ids, full = np.pad(ids, missing, "edge"), np.pad(mask, missing, "edge")
    starts = range(0, len(ids), size)
    parts = [function(ids[i : i + size], full[i : i + size]) for i in starts]
    return np.concatenate(parts)[: len(mask)]


def restart(one, optimizer):
    one.set_weights(base)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape))


rewards = RewardModel(body)
judge_adam = keras.optimizers.Adam(0.0, beta_2=0.95, global_clipnorm=1.0)
judge_step = make_step(rewards, judge_adam, bradley_terry_loss)
rate_answers = tf.function(
    lambda ids, mask: rewards((ids, mask)), autograph=False
)


def learn_rewards(pairs, seed, steps=64):
    restart(body, judge_adam)
    rewards.head.assign(np.zeros(rewards.head.shape))
    source = batches((pairs, np.ones(len(pairs[0]), "float32")), 16, seed)
    train(judge_step, source, steps, after=schedule(judge_adam, 0.001, steps))


tested = look(first[:, 0]) - look(first[:, 1])
right = np.sign(tested @ RULE)
many = np.stack([write(asked, seed) for seed in range(30, 38)], 1)
points = np.stack([look(many[:, k]) for k in range(8)], 1)
beside = np.stack([look(first[:, k]) @ RULE for k in (0, 1)], 1)


def win_rate(points):  # (1)!
    ours = (points @ RULE)[:, None]
    return np.mean((ours > beside) + 0.5 * (ours == beside))


table, choices = [], {}
for seed, (pairs, gaps) in enumerate(people):
    learn_rewards(pairs, seed)
    r = in_parts(rate_answers, first, answer_mask(first))
    simple = tested @ linear(gaps)
    agree = [
        np.mean((guess * right > 0)[right != 0])
        for guess in (simple, r[:, 0] - r[:, 1])
    ]
    table.append(agree)
    r = in_parts(rate_answers, many, answer_mask(many))
    choices[seed] = [r[:, :n].argmax(1) for n in (1, 2, 4, 8)]
for name, column in zip(
    ("three numbers", "GPT"), np.transpose(table), strict=True
):
    spread = np.std(column, ddof=1)
    print(f"{name:13} right on {column.mean():.2f} ± {spread:.2f} of new pairs")
# --8<-- [end:reward]

# --8<-- [start:best]
every = np.arange(len(asked))
best = np.array(
    [
        [win_rate(points[every, pick]) for pick in picks]
        for picks in choices.values()
    ]
)
for n, column in zip((1, 2, 4, 8), best.T, strict=True):
    print(
        f"best of {n}: win rate {column.mean():.2f} ± {column.std(ddof=1):.2f},"
        f" KL at most {best_of_n_kl(n):.2f}"
    )
# --8<-- [end:best]

# --8<-- [start:dpo]
scorer = AnswerLogProb(model)
policy_adam = keras.optimizers.Adam(0.0, beta_2=0.95, global_clipnorm=1.0)
dpo_step = make_step(
    scorer,
    policy_adam,
    lambda y, log_probs: dpo_loss(y[0], log_probs, y[1]),
    jit_compile=True,
)
before = tf.function(AnswerLogProb(reference).call, autograph=False)
prior = [in_parts(lambda *x: before(x), *pairs) for pairs, _ in people]


@tf.function(autograph=False)
def compare(ids, mask):
    ours, theirs = (m(ids[:, :-1]) for m in (model, reference))
    return [
        *(
            sequence_log_prob(ids[:, 1:], z, mask[:, 1:])
            for z in (ours, theirs)
        ),
        kl_divergence(ours, theirs, mask[:, 1:]),
    ]


def evaluate(seed):
    ids = write(asked, 100 + seed)
    own, theirs, kl = (np.array(x) for x in compare(ids, answer_mask(ids)))
    found = look(ids)
    return [
        win_rate(found),
        kl.mean(),
        np.mean(own - theirs),
        *found.mean(0),
    ]


def align(step, pairs, seed, beta=1.0, *, steps=64, looks=0):
    restart(model, policy_adam)
    prices = np.full(len(prior[seed]), beta, "float32")
    source = batches((pairs, (prior[seed], prices)), 16, seed)
    cool, curve = schedule(policy_adam, 0.0007, steps), []

    def after(number, loss):
        cool(number, loss)
        if looks and number % looks == 0 and number < steps:
            curve.append([number, *evaluate(seed)])

    losses = train(step, source, steps, after=after)
    moved = in_parts(lambda *x: compiled_scores(x), *pairs) - prior[seed]
    row = evaluate(seed)
    curve.append([steps, *row])
    return [*row, bits_per_byte()], losses, moved, curve


compiled_scores = tf.function(scorer.call, autograph=False)
results, curves, moves = {}, [], {}
for beta in (1.0, 0.3, 0.1):
    for seed, (pairs, _) in enumerate(people):
        looks = 16 if beta == 0.1 else 0
        row, losses, moved, curve = align(
            dpo_step, pairs, seed, beta, looks=looks
        )
        results.setdefault(f"DPO, β = {beta}", []).append(row)
        fell = np.mean(moved[:, 0] < 0)
        end_loss = losses[-16:].mean()
        moves.setdefault(beta, []).append([*moved.mean(0), fell, end_loss])
        curves += [curve] if looks else []
# --8<-- [end:dpo]

# --8<-- [start:sft]
sft_step = make_step(
    scorer,
    policy_adam,
    lambda y, log_probs: -ops.mean(log_probs[:, 0]) / ROOM,  # (1)!
    jit_compile=True,
)
for seed, (pairs, _) in enumerate(people):
    row = align(sft_step, pairs, seed)[0]
    results.setdefault("chosen answers only", []).append(row)
# --8<-- [end:sft]

# --8<-- [start:table]
model.set_weights(base)
results["reference"] = [[*evaluate(s), bits_per_byte()] for s in range(3)]
print(f"{'':20} win rate        KL  by samples  ended  length  bits")
for name, rows in results.items():
    win, kl, sampled, plain, ended, tokens, bits = np.mean(rows, 0)
    spread = np.std(rows, 0, ddof=1)[0]
    print(
        f"{name:20} {win:.2f} ± {spread:.2f} {kl:5.2f} {sampled:8.2f}"
        f" {ended:8.2f} {tokens / ROOM:7.2f} {bits:6.2f}"  # (1)!
    )
# --8<-- [end:table]

# --8<-- [start:frontier]
figure, axis = plt.subplots()
for number, (name, rows) in enumerate(results.items()):
    win, kl = np.transpose(rows)[:2]
    axis.plot(kl, win, "osD^v"[number], color=f"C{number}", label=name)
bounds = [best_of_n_kl(n) for n in (1, 2, 4, 8)]
axis.plot(bounds, best.mean(0), "C5.-", label="best of n")
axis.set(xlabel="KL to the reference, nats", ylabel="win rate")
axis.legend()
# --8<-- [end:frontier]

# --8<-- [start:track]
number, win, kl = np.transpose(curves, (2, 0, 1))[:3]
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
for axis, rows, what in zip(axes, (win, kl), ("win rate", "KL"), strict=True):
    axis.plot(number[0], rows.mean(0), "o-")
    axis.fill_between(number[0], rows.min(0), rows.max(0), alpha=0.2)
    axis.set(xlabel="step", ylabel=what)
# --8<-- [end:track]

# --8<-- [start:long-samples]
if "HANDBOOK_LONG" in os.environ:  # (1)!
    align(dpo_step, people[0][0], 0, beta=0.1)
    after = write(asked, 100)
    for row in (5, 30, 100, 120):
        start = tokenizer.decode(asked[row, 1:])
        for name, ids in (("before", first[:, 0]), ("after ", after)):
            mask = answer_mask(ids[row : row + 1])[0]
            said = tokenizer.decode(ids[row][mask]).replace("<|end|>", " ■")
            print(f"{name}: {start!r} → {said!r}")
# --8<-- [end:long-samples]

# --8<-- [start:long-run]
if "HANDBOOK_LONG" in os.environ:
    policy_step = make_step(
        scorer, policy_adam, policy_gradient_loss, jit_compile=True
    )
    for beta in (0.3, 0.1, 0.0):
        rows = []
        for seed, (pairs, _) in enumerate(people):
            learn_rewards(pairs, seed)
            restart(model, policy_adam)
            cool = schedule(policy_adam, 0.0007, 100)
            for number in range(100):
                rng = np.random.default_rng((seed, number))
                some = starts[rng.choice(len(starts), 128, replace=False)]
                ids = write(some, (seed, number), 128)
                mask = answer_mask(ids)
                own, known, _ = (np.array(x) for x in compare(ids, mask))
                r = np.array(rate_answers(ids[:, None], mask[:, None]))[:, 0]
                gain = advantages(r, own, known, beta)[:, None]
                step = (ids[:, None], mask[:, None]), gain.astype("float32")
                train(policy_step, [step], 1)  # (1)!
                cool(number + 1, 0)
            rows.append([*evaluate(seed), bits_per_byte()])
        win, kl, _, plain, ended, tokens, bits = np.mean(rows, 0)
        spread = np.std(rows, 0, ddof=1)[0]
        print(
            f"β = {beta}: win rate {win:.2f} ± {spread:.2f}, KL {kl:.2f},"
            f" plain {plain:.2f}, ended {ended:.2f},"
            f" tokens {tokens:.1f}, bits {bits:.2f}"
        )
# --8<-- [end:long-run]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    B, T, size = rng.integers(1, 12, 3)
    targets = rng.integers(0, size, (B, 2, T))
    mask = rng.random((B, 2, T)) < 0.7
    mask[..., 0] = True
    logits = tf.Variable(rng.normal(size=(B, 2, T, size)).astype("float32"))
    known = rng.normal(-5, 2, (B, 2)).astype("float32")
    with tf.GradientTape() as tape:
        own = sequence_log_prob(targets, logits, mask)
        loss = dpo_loss(known, own, 0.5)
    slope = tape.gradient(loss, logits).numpy()
    z = logits.numpy().astype(float)
    hand, by_hand = dpo_by_hand(known, targets, z, mask, 0.5)
    return abs(loss - hand), np.abs(slope - by_hand).max()


found = np.max([agreement(trial) for trial in range(20)], axis=0)
print("loss and gradient, difference below 1e-5:", *(found < 1e-5))
# --8<-- [end:peer]

# --8<-- [start:sklearn]
from sklearn.linear_model import LogisticRegression

peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-9)
both = np.concatenate([everybody, -everybody])
peer.fit(both, np.repeat([1, 0], len(everybody)))
print("as scikit-learn:", np.allclose(peer.coef_[0], weights, rtol=1e-3))
# --8<-- [end:sklearn]

# --8<-- [start:toy]
keras.utils.set_random_seed(2)
everything = np.array(list(itertools.product(range(4), repeat=3)))
ids = np.pad(everything, [(0, 0), (1, 0)])[None]  # (1)!
mask = np.pad(np.ones((1, 64, 3), bool), [(0, 0), (0, 0), (1, 0)])
toy = AnswerLogProb(GPT(4, 3, 16, 2, 1))
known = toy((ids, mask)).numpy()[0]
true, beta = np.random.default_rng(0).normal(size=64), 0.5
start = np.exp(known.astype(float))
best_policy = optimal_policy(start / start.sum(), true, beta)

two = np.array(list(itertools.combinations(range(64), 2)))
wins = sigmoid(true[two[:, 0]] - true[two[:, 1]]).astype("float32")
adam = keras.optimizers.Adam(0.0)
step = make_step(
    toy,
    adam,
    lambda y, own: dpo_loss(known[two], ops.take(own[0], two), beta, y),  # (2)!
)


def apart(p):
    return np.abs(p - best_policy).sum() / 2


def objective(p):
    return np.sum(p * true) - beta * np.sum(p * np.log(p / start))


print(f"all {len(start)} answers, {len(two)} pairs")
print(f"before: distance {apart(start):.2f}, objective {objective(start):.3f}")
source = itertools.repeat(((ids, mask), wins))
train(step, source, 400, after=schedule(adam, 0.01, 400))
p = np.exp(toy((ids, mask)).numpy()[0].astype(float))
print(f"after:  distance below 0.001: {apart(p) < 0.001}", end="")
print(f", objective {objective(p):.3f}")
partition = np.sum(start * np.exp(true / beta))
print(f"β log Z: {beta * np.log(partition):.3f}")
# --8<-- [end:toy]

# --8<-- [start:hacking]
LONG = np.array([10, 2, 0.5])  # (1)!
misled = [ask(seed, LONG) for seed in range(3)]
gaps = np.concatenate([g for _, g in misled])
print("points for ended, a token:", linear(gaps)[1:].round(1))
hacked = []
for seed, (pairs, _) in enumerate(misled):
    learn_rewards(pairs, seed)
    r = in_parts(rate_answers, many, answer_mask(many))
    r = (r - r.mean()) / r.std()
    for n in (1, 2, 4, 8):
        pick = r[:, :n].argmax(1)
        seen = points[every, pick]
        proxy = r[every, pick].mean()
        hacked.append([proxy, win_rate(seen), *seen.mean(0)[1:]])
hacked = np.reshape(hacked, (3, 4, 4))
print("best of  proxy      win rate  ended  tokens")
for n, line in zip((1, 2, 4, 8), hacked.swapaxes(0, 1), strict=True):
    proxy, win, ended, tokens = line.mean(0)
    print(
        f"{n:7} {proxy:6.2f}   {win:.2f} ± {line[:, 1].std(ddof=1):.2f}"
        f" {ended:6.2f} {tokens:7.1f}"
    )
# --8<-- [end:hacking]

# --8<-- [start:falling]
print("           chosen  rejected  chosen fell   loss")
for beta, move in moves.items():
    chosen, rejected, fell, loss = np.mean(move, 0)
    print(
        f"β = {beta:3}: {chosen:8.1f} {rejected:9.1f} {fell:12.2f} {loss:6.2f}"
    )
# --8<-- [end:falling]

# --8<-- [start:equal]
try:
    preference_pairs([[5, 6]], [[7, 8]], [[7, 8]], steps=8)
except ValueError as error:
    print(error)
# --8<-- [end:equal]

# --8<-- [start:solution-tie]
now, known = tf.Variable([[-9.0, -12.0]]), np.array([[-10.0, -10.0]], "float32")
for p in (1.0, 0.5):
    with tf.GradientTape() as tape:
        loss = dpo_loss(known, now, 0.5, p)
    slope = tape.gradient(loss, now).numpy()[0]
    by_formula = 0.5 * (sigmoid(0.5 * 3.0) - p)
    print(f"p = {p}: derivative by log π(chosen) {slope[0]:.3f}")
    assert np.allclose(slope, [by_formula, -by_formula], atol=1e-6)
# --8<-- [end:solution-tie]

# --8<-- [start:solution-best]
order = np.argsort(true)
p = start[order] / start.sum()
below = np.cumsum(p)
for n in (2, 8, 64):
    best_n = below**n - (below - p) ** n  # (1)!
    far = np.sum(best_n * np.log(np.maximum(best_n, 1e-300) / p))
    print(f"n = {n:2}: KL {far:.2f}, bound {best_of_n_kl(n):.2f}")
    assert far <= best_of_n_kl(n)
# --8<-- [end:solution-best]

# --8<-- [start:solution-samples]
align(dpo_step, people[0][0], 0, beta=0.1)
sets = [write(asked, seed) for seed in (200, 201, 202)]
found = [compare(ids, answer_mask(ids)) for ids in sets]
own, theirs, exact = np.concatenate(found, axis=1).astype(float)
ratio = theirs - own
never_negative = np.expm1(ratio) - ratio  # (1)!
estimates = [-ratio, never_negative, exact]
names = ["log ratio", "never negative", "token by token"]
for name, one in zip(names, estimates, strict=True):
    error = one.std(ddof=1) / len(one) ** 0.5
    print(f"{name:15} {one.mean():.1f} ± {error:.1f}")
share = np.sort(never_negative)[-6:].sum() / never_negative.sum()
print(f"six of {len(ratio)} answers make {share:.1f} of the second")
assert never_negative.min() >= 0
assert exact.std() < ratio.std()
# --8<-- [end:solution-samples]
