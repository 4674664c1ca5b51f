# --8<-- [start:route]
import math
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
from aimodels.gpt import GPT, next_token_loss
from aimodels.moe import (
    MixtureOfExperts,
    balance_loss,
    by_loop,
    by_slots,
    capacity,
    feed_forward,
    parameter_count,
    places,
    route,
)
from aimodels.tokenizer import BytePairTokenizer
from aimodels.training import batches, make_step, train
from aimodels.transformer import FeedForward

p = np.array(  # (1)!
    [[6, 3, 1], [5, 1, 4], [7, 2, 1], [1, 6, 3], [8, 1, 1], [4, 5, 1]]
)
_, gates, chosen = route(np.log(p / 10), top_k=2)
slots = capacity(tokens=6, experts=3, top_k=2, factor=1.0)
place = np.array(places(chosen, 3, slots))
print("slots of each expert:", slots)
for t in range(6):
    seats = [
        f"expert {m}, gate {g:.2f}, " + (f"slot {s}" if s >= 0 else "dropped")
        for m, g, s in zip(chosen[t], gates[t], place[t], strict=True)
    ]
    print(f"token {t}: {seats[0]:29}{seats[1]}")
# --8<-- [end:route]


# --8<-- [start:by-hand]
counted = Counter()


def times(a, b):
    counted["multiplications"] += a.size * b.shape[-1]
    return a @ b


def by_hand(layer, x, slots):
    router, widen, widen_bias, narrow, narrow_bias = layer.get_weights()
    top_k, served = layer.sizes["top_k"], Counter()
    y = np.zeros_like(x)
    for t, token in enumerate(x):
        logits = times(token, router)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        best = np.argsort(-p)[:top_k]
        scale = p[best].sum() if top_k > 1 else 1.0  # (1)!
        for m in best:
            served[m] += 1
            if served[m] <= slots:  # (2)!
                wide = times(token, widen[m]) + widen_bias[m]
                wide = np.maximum(wide, 0)
                out = times(wide, narrow[m]) + narrow_bias[m]
                y[t] += p[m] / scale * out
    return y


# --8<-- [end:by-hand]


# --8<-- [start:ways]
def all_experts(x, gates, chosen, weights, activation):
    experts = weights[0].shape[0]
    every = feed_forward(
        ops.repeat(x[None], experts, axis=0), weights, activation
    )
    hit = ops.one_hot(chosen, experts)  # [S, K, M]
    return ops.einsum("sk,skm,msd->sd", gates, hit, every)  # (1)!


rng = np.random.default_rng(0)
layer = MixtureOfExperts(8, 128, 2, activation="relu")
layer.build((None, 64))
x = rng.normal(size=(512, 64)).astype("float32")
_, gates, chosen = layer.choose(x)
weights = layer.widen, layer.widen_bias, layer.narrow, layer.narrow_bias
given = x, gates, chosen, weights, layer.activation

counted.clear()
y = by_hand(layer, x, slots=512)
expert = 2 * 64 * 128  # multiplications of one expert on one token
busiest = np.bincount(np.array(chosen).ravel()).max()
roomy = capacity(512, 8, 2, 1.25)
router = 512 * 64 * 8
for name, found, tokens in (
    ("loop over experts", by_loop(*given), 512 * 2),
    (
        f"{busiest} slots, none dropped",
        by_slots(*given, slots=busiest),
        8 * busiest,
    ),
    ("every expert computed", all_experts(*given), 512 * 8),
):
    same = np.abs(found - y).max() < 1e-5
    print(f"{name:24} {tokens * expert + router:11,}   equal: {same}")
print(f"{'counted by hand':24} {counted['multiplications']:11,}")
print(f"{f'{roomy} slots, factor 1.25':24} {8 * roomy * expert + router:11,}")
# --8<-- [end:ways]

# --8<-- [start:equal]
dense = FeedForward(128)
dense.build((None, 64))
same = [np.stack([w] * 8) for w in dense.get_weights()]
for top_k in (1, 2, 8):
    layer = MixtureOfExperts(8, 128, top_k)
    layer.build((None, 64))
    layer.set_weights([layer.get_weights()[0], *same])
    p, _, _ = layer.choose(x)
    scale = np.max(p, axis=1, keepdims=True) if top_k == 1 else 1
    error = np.abs(layer(x) - scale * dense(x)).max()
    print(f"K = {top_k}: equal to the dense layer:", error < 1e-5)
# --8<-- [end:equal]

# --8<-- [start:one-gate]
layer = MixtureOfExperts(4, 16, 1)
layer.build((None, 64))
x = rng.normal(size=(64, 64)).astype("float32")
for renormalize in (True, False):
    with tf.GradientTape() as tape:
        logits = ops.matmul(x, layer.router)
        _, gates, chosen = route(logits, 1, renormalize)
        weights = [w + 0 for w in layer.weights[1:]]
        y = by_slots(x, gates, chosen, weights, layer.activation, slots=64)
        loss = ops.mean((y - x) ** 2)
    slope = np.abs(tape.gradient(loss, layer.router.value)).max()
    print(f"renormalized: {renormalize!s:6} largest slope {slope:.4f}")
# --8<-- [end:one-gate]

# --8<-- [start:text]
sections = datasets.handbook()
learned, held = datasets.split(len(sections), 26, np.random.default_rng(0))
pairs = [(sections[i].en, sections[i].zh) for i in range(len(sections))]
texts = [text for i in learned for text in pairs[i]]
tokenizer = BytePairTokenizer.train(texts, 1024, ["<|end|>"])
end = tokenizer.special["<|end|>"]


def stream(rows):
    ids, language = [end], [0]
    for i in rows:
        for number, text in enumerate(pairs[i]):
            new = [*tokenizer.encode(text), end]
            ids, language = ids + new, language + [number] * len(new)
    return np.array(ids), np.array(language)  # (1)!


def windows(ids, every):
    cut = np.lib.stride_tricks.sliding_window_view(ids, 65)[::every]
    return cut[:, :-1], cut[:, 1:]


heard, _ = stream(learned)
unheard, language = stream(held)
size = len("".join(text for i in held for text in pairs[i]).encode())
print(f"learned: {len(heard)} tokens; held out: {len(unheard)}, {size} bytes")
# --8<-- [end:text]


# --8<-- [start:learn]
def setup(hidden=256, feed=None, jit=True):
    keras.utils.set_random_seed(0)
    model = GPT(len(tokenizer), 64, 64, 4, 2, hidden=hidden, feed_forward=feed)
    optimizer = keras.optimizers.AdamW(
        weight_decay=0.1, beta_2=0.95, global_clipnorm=1.0
    )
    step = make_step(model, optimizer, next_token_loss, jit_compile=jit)

    @tf.function
    def costs(x, y):
        logits = model(x, training=False)
        return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)

    @tf.function
    def routed(ids):
        mask, found = causal_mask(64), []
        x = ops.take(model.tokens, ids, axis=0) + model.positions
        for block in model.blocks:
            read = block.attend(block.norms[0](x), attention_mask=mask)
            z = ops.reshape(block.norms[1](x + read), (-1, 64))
            found.append((z, *block.feed.choose(z)))
            x = block(x, attention_mask=mask)
        return found  # (1)!

    return model, optimizer, step, costs, routed


def learn(model, optimizer, step, steps, *, seed=0, rate=0.005, look=None):
    optimizer.learning_rate = 0.0

    def after(number, loss):
        warm = min(1, number / (steps / 10))
        cool = (1 + np.cos(np.pi * number / steps)) / 2
        optimizer.learning_rate = rate * warm * cool
        if look is not None and number % 10 == 0:
            look()

    pairs = batches(windows(heard, 16), 8, seed)
    return train(step, pairs, steps, after=after)


def score(costs):
    ids = np.pad(unheard, (0, 96))
    x, y = windows(ids, 32)  # (2)!
    place = np.arange(64) + 32 * np.arange(len(x))[:, None]
    new = (np.arange(64) >= 32) | (place < 32)
    new &= place < len(unheard) - 1
    x, y = (np.pad(part, [(0, -len(x) % 8), (0, 0)]) for part in (x, y))
    losses = [costs(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]
    return np.concatenate(losses)[: len(new)][new].sum() / np.log(2) / size


probe = windows(unheard, 64)[0][:32]


def shares(routed):
    counts = [np.bincount(np.ravel(c), minlength=8) for *_, c in routed(probe)]
    return np.array(counts) / (probe.size * 2)


def dropped(routed):
    slots = capacity(512, 8, 2, 1.25)
    lost = [
        np.mean(np.array(places(c[i : i + 512], 8, slots)) < 0)
        for *_, c in routed(probe)
        for i in range(0, probe.size, 512)
    ]
    return np.mean(lost)


def watch(balance, steps):
    experts = MixtureOfExperts(8, 128, 2, balance=balance)
    model, optimizer, step, costs, routed = setup(feed=experts, jit=False)
    seen = [shares(routed)]
    learn(
        model, optimizer, step, steps, look=lambda: seen.append(shares(routed))
    )
    print(f"balance {balance}: {score(costs):.2f} bits per byte,", end=" ")
    print(f"{dropped(routed):.2f} of the choices dropped")
    for block, share in enumerate(np.sort(seen[-1])[:, ::-1]):
        print(f"  block {block}:", *(f"{s:.2f}" for s in share))
    return model, routed, np.array(seen)


_, _, without = watch(0.0, 200)
model, routed, balanced = watch(0.01, 200)
# --8<-- [end:learn]

# --8<-- [start:shares]
figure, axes = plt.subplots(2, 2, sharex=True, sharey=True)
for column, (name, seen) in enumerate(
    {"without balance loss": without, "with it": balanced}.items()
):
    for block in range(2):
        axis = axes[block, column]
        axis.plot(10 * np.arange(len(seen)), seen[:, block])
        axis.axhline(1 / 8, color="grey", linestyle=":")
    axes[0, column].set_title(name)
    axes[1, column].set_xlabel("step")
axes[0, 0].set_ylabel("share, block 0")
axes[1, 0].set_ylabel("share, block 1")
# --8<-- [end:shares]


# --8<-- [start:long-compare]
def again(built, seed):  # (1)!
    model, optimizer, step, costs, routed = built
    keras.utils.set_random_seed(seed)
    model.set_weights(GPT.from_config(model.get_config()).get_weights())
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    largest = []

    def look():
        if model.feed_forward is not None:
            largest.append(shares(routed).max(1))

    learn(model, optimizer, step, 400, seed=seed, look=look)
    return score(costs), np.array(largest)


if "HANDBOOK_LONG" in os.environ:  # (2)!
    sparse = MixtureOfExperts(8, 128, 2)
    free = MixtureOfExperts(8, 128, 2, balance=0.0)
    kinds = {
        "dense, hidden 256": {"hidden": 256},
        "dense, hidden 1024": {"hidden": 1024},
        "experts": {"feed": sparse},
        "experts, no balance": {"feed": free},
    }
    for name, options in kinds.items():
        built = setup(**options)
        runs = [again(built, seed) for seed in range(3)]
        bits = [spent for spent, _ in runs]
        print(f"{name:20} {built[0].count_params():8,} parameters", end=" ")
        print(f"{np.mean(bits):.3f} ± {np.std(bits, ddof=1):.3f} bits per byte")
        for seed, (_, largest) in enumerate(runs):
            if len(largest):
                peak = " ".join(f"{s:.2f}" for s in largest.max(0))
                last = " ".join(f"{s:.2f}" for s in largest[-1])
                print(f"  seed {seed}: busiest expert of each block", end=" ")
                print(f"at most {peak}, at the end {last}")
# --8<-- [end:long-compare]

# --8<-- [start:languages]
spoken = windows(language, 64)[0][:32].ravel()
mixed = np.random.default_rng(0).permutation(spoken)  # (1)!
print(f"Chinese among all tokens: {spoken.mean():.2f}")
for block, (*_, chosen) in enumerate(routed(probe)):
    sent = [np.any(chosen == m, axis=1) for m in range(8)]
    print(f"Chinese among the tokens of each expert, block {block}:")
    for name, tongue in (
        ("languages as they are", spoken),
        ("mixed up", mixed),
    ):
        parts = sorted(np.mean(tongue[to]) for to in sent if to.any())
        print(f"  {name:22}", *(f"{part:.2f}" for part in parts))
# --8<-- [end:languages]


# --8<-- [start:kinds]
def kind(token):
    text = tokenizer.decode([token])
    if any("\u4e00" <= c <= "\u9fff" for c in text):
        return "Chinese"
    if any(c.isalpha() for c in text):
        return "word begins" if text[0] == " " else "letters"
    if any(c.isdigit() for c in text):
        return "digits"
    return "marks, parts"


kinds_of = np.array([kind(token) for token in probe.ravel()])
names = sorted(set(kinds_of))
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(6.4, 2.6))
for block, (*_, chosen) in enumerate(routed(probe)):
    sent = np.array([np.any(chosen == m, axis=1) for m in range(8)])
    table = np.array([sent[:, kinds_of == name].mean(1) for name in names])
    image = axes[block].imshow(table, vmin=0, vmax=1, cmap="viridis")
    axes[block].set_xlabel(f"expert, block {block}")
    axes[block].set_xticks(range(8))
    print(f"block {block}, largest share of each kind:")
    for name, row in zip(names, table, strict=True):
        print(f"  {name:12} {row.max():.2f}")
axes[0].set_yticks(range(len(names)), names)
figure.colorbar(image, ax=axes, label="share of the tokens")
# --8<-- [end:kinds]

# --8<-- [start:published]
attention = 4096 * 128 * (32 + 8 + 8 + 32)  # (1)!
rest = 32 * (attention + 2 * 4096) + 2 * 32000 * 4096 + 4096
total, active = parameter_count(4096, 14336, 8, 2, matrices=3, biases=False)
print(f"Mixtral 8x7B: {(32 * total + rest) / 1e9:.1f} billion,", end=" ")
print(f"{(32 * active + rest) / 1e9:.1f} active")

SWITCH = (  # (2)!
    ("Switch-Base", "7B", 768, 2048, 12, 64 * 12, 128, 3, 12),
    ("Switch-Large", "26B", 1024, 2816, 24, 64 * 16, 128, 3, 24),
    ("Switch-XXL", "395B", 4096, 10240, 24, 64 * 64, 64, 3, 24),
    ("... 128 experts", "395B", 4096, 10240, 24, 64 * 64, 128, 3, 24),
    ("Switch-C", "1571B", 2080, 6144, 15, 64 * 32, 2048, 2, 30),
)
print("                 printed   all 10⁹  experts alone")
for name, printed, width, hidden, depth, heads, experts, n, sparse in SWITCH:
    total, _ = parameter_count(
        width, hidden, experts, 1, matrices=n, biases=False
    )
    other = (2 * depth - sparse) * n * width * hidden  # (3)!
    other += 3 * depth * 4 * width * heads + 32128 * width
    alone = sparse * experts * n * width * hidden
    both = (sparse * total + other) / 1e9
    print(f"{name:16} {printed:>7} {both:9.1f} {alone / 1e9:14.1f}")
# --8<-- [end:published]

# --8<-- [start:long-time]
if "HANDBOOK_LONG" in os.environ:
    layer = MixtureOfExperts(8, 512, 2)
    layer.build((None, 256))
    narrow, wide = FeedForward(1024), FeedForward(4096)
    x = tf.random.normal((2048, 256), seed=0)
    inner = layer.widen, layer.widen_bias, layer.narrow, layer.narrow_bias

    def with_router(way, **more):
        def run(x):
            _, gates, chosen = layer.choose(x)
            return way(x, gates, chosen, inner, layer.activation, **more)

        return run

    ways = {
        "dense, as many active": narrow,
        "dense, as many in all": wide,
        "slots, factor 1.25": with_router(
            by_slots, slots=capacity(2048, 8, 2, 1.25)
        ),
        "loop over experts": with_router(by_loop),
        "every expert computed": with_router(all_experts),
    }
    for name, way in ways.items():
        compiled, spent = tf.function(way), []
        for _ in range(21):
            start = time.perf_counter()
            np.asarray(compiled(x))
            spent.append(time.perf_counter() - start)
        print(f"{name:24} {1000 * np.median(spent[1:]):6.1f} ms")
# --8<-- [end:long-time]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    tokens, width, hidden, experts = rng.integers(1, 12, 4).tolist()
    top_k = int(rng.integers(1, experts + 1))
    factor = rng.choice([0.5, 1.0, 1.25])
    layer = MixtureOfExperts(
        experts, hidden, top_k, evaluation_factor=factor, activation="relu"
    )
    layer.build((None, width))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    x = rng.normal(size=(tokens, width)).astype("float32")
    slots = math.ceil(factor * tokens * top_k / experts)
    y = by_hand(layer, x, slots)
    return np.abs(np.array(layer(x)) - y).max() / max(1, np.abs(y).max())


worst = max(agreement(trial) for trial in range(20))
print("relative difference below 1e-5:", worst < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:company]
for factor in (1.0, None):
    for block in model.blocks:
        block.feed.factors["evaluation_factor"] = factor
    alone = np.array(model(probe[:1]))[0]
    last = np.array(model(probe[7::-1]))[7]  # (1)!
    change = np.abs(alone - last).max(-1)
    print(
        f"factor {factor}: {np.mean(change > 0.01):.2f} of the predictions change"
    )
# --8<-- [end:company]

# --8<-- [start:half]
for block, (z, *_) in enumerate(routed(probe)):
    router = model.blocks[block].feed.router
    half = ops.cast(z, "bfloat16")  # (1)!
    exact = ops.matmul(ops.cast(half, "float32"), router)
    rough = ops.matmul(half, ops.cast(router, "bfloat16"))
    _, _, right = route(exact, 2)
    _, _, wrong = route(rough, 2)
    changed = np.any(np.sort(right) != np.sort(wrong), axis=1)
    print(f"block {block}: {changed.mean():.3f} of the tokens go elsewhere")
# --8<-- [end:half]

# --8<-- [start:memory]
for count in (1, 2, 4, 8, 16, 32, 64):
    met = [
        np.mean(
            [
                len(set(np.ravel(row[:count])))
                for row in np.reshape(c, (32, 64, 2))
            ]
        )
        for *_, c in routed(probe)
    ]
    print(f"{count:3} tokens meet {met[0]:.1f} and {met[1]:.1f} experts of 8")
# --8<-- [end:memory]

# --8<-- [start:solution-below-one]
p = np.array([[0.51, 0.49], [0.51, 0.49], [0.01, 0.99]])
_, _, chosen = route(np.log(p), 1)
value = float(balance_loss(p, chosen))
print(f"balance loss: {value:.3f}")
assert value < 1
# --8<-- [end:solution-below-one]


# --8<-- [start:solution-chance]
def lost_by_chance(tokens, experts, factor):
    slots, share = math.ceil(factor * tokens / experts), 1 / experts
    lost = sum(
        (n - slots)
        * math.comb(tokens, n)
        * share**n
        * (1 - share) ** (tokens - n)
        for n in range(slots + 1, tokens + 1)
    )
    return lost * experts / tokens


for tokens in (64, 128, 512):
    found = [lost_by_chance(tokens, 8, f) for f in (1.0, 1.25, 1.5)]
    print(f"{tokens:4} tokens:", *(f"{f:7.4f}" for f in found))
drawn = np.random.default_rng(0).integers(0, 8, (2000, 512, 1))
seats = [
    np.mean(np.bincount(d[:, 0], minlength=8).clip(64) - 64) for d in drawn
]
assert abs(np.mean(seats) * 8 / 512 - lost_by_chance(512, 8, 1.0)) < 0.002
# --8<-- [end:solution-chance]
