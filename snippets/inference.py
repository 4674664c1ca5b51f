# --8<-- [start:count]
import os
import time
from collections import Counter

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.attention import causal_mask
from aimodels.gpt import GPT, generate, next_token_loss
from aimodels.inference import (
    LookupDraft,
    ModelDraft,
    Reader,
    accept,
    bucket,
    cache_bytes,
    expected_tokens,
    generate_together,
    schedule,
    speculate,
    work,
)
from aimodels.tokenizer import BytePairTokenizer
from aimodels.training import batches, make_step, train

gpt3 = {"vocabulary": 50257, "width": 12288, "depth": 96, "hidden": 49152}
print("GPT-3 in float16     10¹² oper.     GB   per byte")
for name, batch, new in (
    ("a prompt, 2,048", 1, 2048),
    ("one token", 1, 1),
    ("8 texts, one each", 8, 1),
    ("64 texts, one each", 64, 1),
):
    done, read = work(gpt3, batch, new, 2048, each=2)  # (1)!
    print(
        f"{name:20} {done / 1e12:10.2f} {read / 1e9:6.0f} {done / read:10.1f}"
    )
# --8<-- [end:count]

# --8<-- [start:memory]
small = GPT(1024, 128, 128, 4, 2)
arrays = [array.numpy() for pair in small.empty_cache(8) for array in pair]
bytes_there = sum(array.nbytes for array in arrays)
print("formula = arrays:", cache_bytes(2, 4, 32, 128, batch=8) == bytes_there)

for name, *size in (
    ("GPT-3, 2,048 steps", 96, 96, 128, 2048),
    ("Llama 2 70B, 4,096", 80, 8, 128, 4096),
    ("  with all 64 heads", 80, 64, 128, 4096),
):
    print(f"{name:20} {cache_bytes(*size, each=2) / 1e9:6.2f} GB a text")
# --8<-- [end:memory]

# --8<-- [start:rule]
p = np.array([0.50, 0.30, 0.20, 0.00])  # target
q = np.array([0.20, 0.10, 0.30, 0.40])  # draft
kept = q * np.minimum(1, p / q)
excess = np.maximum(p - q, 0)
redrawn = (1 - kept.sum()) * excess / excess.sum()
rows = {"drafted": q, "kept": kept, "redrawn": redrawn, "sum": kept + redrawn}
for name, row in rows.items():
    print(f"{name:8}", "  ".join(f"{value:.2f}" for value in row))
# --8<-- [end:rule]

# --8<-- [start:learn]
sections = datasets.handbook()
learned, held = datasets.split(len(sections), 26, np.random.default_rng(0))
texts = [text for i in learned for text in (sections[i].en, sections[i].zh)]
tokenizer = BytePairTokenizer.train(texts, 1024, ["<|end|>"])
end = tokenizer.special["<|end|>"]
stream = [end]
for text in texts:
    stream += [*tokenizer.encode(text), end]
windows = np.lib.stride_tricks.sliding_window_view(stream, 129)[::16]
pairs = windows[:, :-1], windows[:, 1:]


def learn(width, heads, depth, steps, rate):
    keras.utils.set_random_seed(1)
    model = GPT(len(tokenizer), 128, width, heads, depth)
    rates = keras.optimizers.schedules.CosineDecay(
        0.0, steps * 9 // 10, warmup_target=rate, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(
        rates, weight_decay=0.1, beta_2=0.95, global_clipnorm=1.0
    )
    step = make_step(model, optimizer, next_token_loss, jit_compile=True)
    losses = train(step, batches(pairs, 4, seed=0), steps)
    print(f"{model.count_params()} parameters: loss {losses[-25:].mean():.1f}")
    return model


target = learn(128, 4, 2, 250, 0.005)
draft = learn(64, 2, 1, 250, 0.01)
starts = [sections[i].en for i in held[:3]] + [sections[i].zh for i in held[:3]]
prompts = np.array([[end, *tokenizer.encode(text)][:16] for text in starts])
# --8<-- [end:learn]

# --8<-- [start:compile]
ids, empty = prompts[:, :1].astype("int32"), target.empty_cache(6)
index = np.array(5)
ways = {
    "eager": target,
    "graph": tf.function(
        lambda i, c, n: target(i, cache=c, index=n), autograph=False
    ),
    "XLA": target.step,
}


def seconds(function, *given, repeat=15):
    function(*given)  # (1)!
    spent = []
    for _ in range(repeat):
        clock = time.perf_counter()
        np.asarray(function(*given)[0])
        spent.append(time.perf_counter() - clock)
    return np.median(spent)


logits = {
    name: np.array(way(ids, empty, index)[0]) for name, way in ways.items()
}
took = {name: seconds(way, ids, empty, index) for name, way in ways.items()}
for name in ("graph", "XLA"):
    apart = np.abs(logits[name] - logits["eager"]).max()
    print(f"{name:5} as eager to 1e-4: {apart < 1e-4}", end=", ")
    print("in under half the time:", took[name] < took["eager"] / 2)

whole = np.resize(ids, (6, 128))
pass_of_all = seconds(target.step, whole, empty, np.array(0))
print("one step, cached, under half of 128:", took["XLA"] < pass_of_all / 2)
one, many = (
    seconds(target.step, ids, target.empty_cache(len(ids)), index)
    for ids in (np.zeros((rows, 1), "int32") for rows in (1, 64))
)
print("64 texts in under 20 times the time of one:", many < 20 * one)
# --8<-- [end:compile]

# --8<-- [start:speculate]
plain = [generate(target, prompt[None], 64)[0] for prompt in prompts]
drafts = {
    "model": lambda: ModelDraft(draft),
    "lookup": lambda: LookupDraft(len(tokenizer)),
}


def tally(rounds):
    drafted, kept = rounds.mean(0)
    refused = (rounds[:, 1] < rounds[:, 0]).mean()
    return drafted, kept / (kept + refused), kept + 1  # (1)!


found = {}
print("draft   gamma  same  drafted    α   a pass  formula")
for name, gamma in (*[("model", g) for g in (2, 4, 8)], ("lookup", 4)):
    written = [
        speculate(target, drafts[name](), prompt, 64, gamma)
        for prompt in prompts
    ]
    same = all(
        np.array_equal(text, alone)
        for (text, _), alone in zip(written, plain, strict=True)
    )
    drafted, alpha, tokens = tally(np.concatenate([r for _, r in written]))
    found[name, gamma] = alpha, tokens
    print(f"{name:6} {gamma:5}   {same} {drafted:7.1f}  {alpha:.2f}", end="")
    print(f" {tokens:7.2f} {expected_tokens(alpha, gamma):8.2f}")
# --8<-- [end:speculate]

# --8<-- [start:rounds]
figure, axis = plt.subplots()
gammas = np.arange(9)
for alpha, style, label in (
    (0.8, "C1--", "formula, α = 0.8"),
    (0.6, "C2--", "formula, α = 0.6"),
    (found["model", 4][0], "C0-", "formula, measured α"),
):
    curve = [expected_tokens(alpha, gamma) for gamma in gammas.tolist()]
    axis.plot(gammas, curve, style, label=label)
measured = [(gamma, found["model", gamma][1]) for gamma in (2, 4, 8)]
axis.plot(*np.transpose(measured), "o", color="0.5", label="measured, greedy")
axis.set(xlabel="drafted tokens", ylabel="tokens a pass", ylim=(0.9, 5))
axis.legend()
# --8<-- [end:rounds]

# --8<-- [start:drawn]
rng = np.random.default_rng(0)
for name in drafts:
    rounds = [
        speculate(target, drafts[name](), prompt, 64, 4, rng=rng)[1]
        for prompt in prompts
    ]
    _, alpha, tokens = tally(np.concatenate(rounds))
    print(f"{name:6} α {alpha:.2f}, {tokens:.2f} tokens a pass", end=", ")
    print(f"formula {expected_tokens(alpha, 4):.2f}")
# --8<-- [end:drawn]

# --8<-- [start:batch]
lengths = [len(tokenizer.encode(sections[i].en)) for i in held[:24]]
served = {
    "static": schedule(lengths, 6, continuous=False),
    "sorted": schedule(sorted(lengths), 6, continuous=False),
    "continuous": schedule(lengths, 6),
}
print(f"24 texts, {min(lengths)} to {max(lengths)}, {sum(lengths)} tokens")
for name, steps in served.items():
    last = [np.nonzero((steps == r).any(-1))[0][-1] + 1 for r in range(24)]
    print(
        f"{name:10} {len(steps):5} steps, busy {(steps >= 0).mean():.2f}",
        end="",
    )
    print(f", a text ends at {np.mean(last):.0f} on average")
# --8<-- [end:batch]

# --8<-- [start:slots]
figure, axes = plt.subplots(2, 1, sharex=True)
for axis, name in zip(axes, ("static", "continuous"), strict=True):
    for request, length in enumerate(lengths):
        first, slot = np.argwhere(served[name] == request)[0]
        axis.barh(slot + 1, length, left=first, color=f"C{request % 8}")
    axis.set(title=name, ylabel="slot", yticks=range(1, 7))
axes[1].set_xlabel("step")
# --8<-- [end:slots]

# --8<-- [start:long-times]
if "HANDBOOK_LONG" in os.environ:  # (1)!
    ids, cache = np.zeros((1, 1), "int32"), target.empty_cache(1)
    for name, way in ways.items():
        print(
            f"{name:5} {1e3 * seconds(way, ids, cache, index):6.2f} ms a token"
        )

    wide = GPT(1024, 256, 512, 8, 6)  # (2)!
    print(f"{wide.count_params() / 1e6:.0f} million parameters, ms a token:")
    ids, cache = np.zeros((1, 256), "int32"), wide.empty_cache(1)
    for length in (32, 128, 256):
        again = seconds(
            wide.step, ids[:, :length], cache, np.array(0), repeat=5
        )
        step = seconds(wide.step, ids[:, :1], cache, np.array(length - 1))
        print(f"token {length:3}: all again {1e3 * again:6.1f}", end="")
        print(f", with a cache {1e3 * step:6.1f}")

    for rows in (1, 4, 16, 64):
        cache = wide.empty_cache(rows)
        step = seconds(wide.step, np.zeros((rows, 1), "int32"), cache, index)
        print(f"batch {rows:2}: {1e3 * step:6.1f} ms a step", end="")
        print(f", {rows / step:6.0f} tokens a second")

    cache = wide.empty_cache(1)
    spans = {
        s: seconds(wide.step, np.zeros((1, s), "int32"), cache, index)
        for s in (1, 3, 5, 9)
    }
    thin = seconds(
        draft.step, np.zeros((1, 1), "int32"), draft.empty_cache(1), index
    )
    print("in passes over one token: of the draft", end="")
    print(f" {thin / spans[1]:.2f}; over 3, 5, 9 tokens", end="")
    print("".join(f" {spans[s] / spans[1]:.1f}" for s in (3, 5, 9)))

    for name, gamma in (("none", 0), ("model", 2), ("model", 4), ("lookup", 4)):
        kind = drafts.get(name, drafts["lookup"])
        clock = time.perf_counter()
        for prompt in prompts:
            speculate(target, kind(), prompt, 64, gamma)
        spent = (time.perf_counter() - clock) / (64 * len(prompts))
        print(f"draft {name:6} {gamma}: {1e3 * spent:5.2f} ms a token")
# --8<-- [end:long-times]

# --8<-- [start:exact]
rng = np.random.default_rng(0)
p, q = rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3), 3)  # (1)!
count = Counter()
for _ in range(4000):
    text = [0]
    while len(text) < 3:
        guess = []
        for _ in range(2):
            guess.append(int(rng.choice(3, p=q[[0, *text, *guess][-1]])))
        past = [text[-1], *guess]
        text += accept(p[past], q[past[:-1]], guess, rng)
    count[tuple(text[1:3])] += 1

print("text  target  speculative  draft")
for a in range(3):
    for b in range(3):
        share = count[a, b] / 4000
        print(f"{a}, {b} {p[0, a] * p[a, b]:7.3f} {share:10.3f}", end="")
        print(f" {q[0, a] * q[a, b]:9.3f}")
expected = 4000 * p[0, :, None] * p
written = np.array([[count[a, b] for b in range(3)] for a in range(3)])
print(f"chi-squared: {((written - expected) ** 2 / expected).sum():.1f}")
# --8<-- [end:exact]

# --8<-- [start:wrong]
p = np.array([0.50, 0.30, 0.20, 0.00])
q = np.array([0.20, 0.10, 0.30, 0.40])
kept = np.minimum(p, q)
print("target:               ", p)
print("redrawn from p itself:", (kept + (1 - kept.sum()) * p).round(2))
# --8<-- [end:wrong]

# --8<-- [start:ties]
largest, gaps, halves = 0.0, [], Counter()
for text in plain:
    ones, fives = Reader(target, 1), Reader(target, 5)
    for reader in (ones, fives):
        reader(text[:16])
    single, several = (reader(text[:-1], 63) for reader in (ones, fives))
    largest = max(largest, np.abs(single - several).max())
    best = np.sort(single)[:, -2:]
    gaps.extend(best[:, 1] - best[:, 0])
    for name in ("float16", "bfloat16"):
        rounded = tf.cast(single, name).numpy().astype("float32")
        tied = (rounded == rounded.max(-1, keepdims=True)).sum(-1) > 1
        halves[name] += tied.sum()
print(
    "one token or five at once, largest difference below 1e-4:", largest < 1e-4
)
print("every lead of the best token above twice that:", min(gaps) > 2 * largest)
for name, ties in halves.items():
    print(f"rounded to {name}: {ties / len(gaps):.3f} of the steps tied")
# --8<-- [end:ties]

# --8<-- [start:left]
long, short = prompts[0], prompts[1][:9]
padded = np.array([end] * 7 + short.tolist())


def read(ids, hidden, positions):
    seen = causal_mask(len(ids)) & (np.arange(len(ids)) >= hidden)
    x = ops.take(target.tokens, ids, 0) + ops.take(
        target.positions, positions, 0
    )
    x = x[None]
    for block in target.blocks:
        x = block(x, attention_mask=seen)
    scores = ops.matmul(target.norm(x), ops.transpose(target.tokens))
    return np.array(scores)[0, -1]


alone = np.array(target(short[None]))[0, -1]
steps = np.arange(16)
for name, got in {
    "padding on the left": read(padded, 0, steps),
    "with a mask": read(padded, 7, steps),
    "with a mask and its own positions": read(
        padded, 7, np.maximum(steps - 7, 0)
    ),
}.items():
    print(f"{name:34} same scores: {np.abs(got - alone).max() < 1e-4}")
# --8<-- [end:left]

# --8<-- [start:together]
given = [prompt[: 4 + 2 * n].tolist() for n, prompt in enumerate(prompts)]
rows = generate_together(target, given, 32)
alone = [generate(target, [prompt], 32)[0] for prompt in given]
same = [np.array_equal(a, b) for a, b in zip(rows, alone, strict=True)]
print("prompts of", [len(prompt) for prompt in given], "tokens")
print("in one batch as each alone:", all(same))
# --8<-- [end:together]

# --8<-- [start:traces]
call = tf.function(lambda i: draft(i, training=False), autograph=False)
texts = [np.array([stream[:length]]) for length in range(5, 61, 8)]
exact = [np.array(call(ids))[0, -1] for ids in texts]
print(len(texts), "lengths:", call.experimental_get_tracing_count(), "graphs")

call = tf.function(lambda i: draft(i, training=False), autograph=False)
apart = 0.0
for ids, wanted in zip(texts, exact, strict=True):
    length = ids.shape[1]
    room = bucket(length, [16, 32, 64])
    got = call(np.pad(ids, [(0, 0), (0, room - length)]))
    apart = max(apart, np.abs(np.array(got)[0, length - 1] - wanted).max())
print(
    "in three buckets:", call.experimental_get_tracing_count(), "graphs", end=""
)
print(", same to 1e-4:", apart < 1e-4)

for kind in (int, np.array):
    call = tf.function(
        lambda i, c, n: draft(i, cache=c, index=n)[0], autograph=False
    )
    for place in range(4):
        call(texts[0][:, :1], draft.empty_cache(1), kind(place))
    print(f"index by {kind.__name__}:", call.experimental_get_tracing_count())
# --8<-- [end:traces]


# --8<-- [start:solution-pays]
def gain(alpha, gamma, cost):
    return expected_tokens(alpha, gamma) / (gamma * cost + 1)


print("  ρ      α = 0.3   α = 0.5   α = 0.7   α = 0.9")
for cost in (0.02, 0.1, 0.5):
    shown = []
    for alpha in (0.3, 0.5, 0.7, 0.9):
        best = max(range(40), key=lambda g, a=alpha: gain(a, g, cost))
        assert (best > 0) == (alpha > cost)
        shown.append(f"{best:2} ({gain(alpha, best, cost):.1f})")
    print(f"{cost:.2f}    ", "   ".join(shown))
# --8<-- [end:solution-pays]

# --8<-- [start:solution-pages]
steps = 1024
for block in (steps, 64, 16, 1):
    pages = [-(-length // block) for length in lengths]
    reserved = block * sum(pages)
    print(f"blocks of {block:4}: {sum(lengths) / reserved:.2f} used")
    assert reserved - sum(lengths) <= len(lengths) * (block - 1)
# --8<-- [end:solution-pages]
