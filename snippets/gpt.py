# --8<-- [start:shift]
import bz2
import lzma
import os
from collections import Counter, defaultdict

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.activations import gelu
from aimodels.gpt import (
    GPT,
    generate,
    next_token_loss,
    parameter_count,
    probabilities,
)
from aimodels.tokenizer import BytePairTokenizer
from aimodels.training import batches, make_step, train

sections = datasets.handbook()
learned, held = datasets.split(len(sections), 26, np.random.default_rng(0))
texts = [text for i in learned for text in (sections[i].en, sections[i].zh)]
tokenizer = BytePairTokenizer.train(texts, 1024, ["<|end|>"])  # (1)!
end = tokenizer.special["<|end|>"]

for text in ("The loss is a number.", "损失是一个数。"):
    ids = [end, *tokenizer.encode(text), end]
    words = [tokenizer.decode([i]) for i in ids]
    print("reads   ", words[:-1])
    print("predicts", words[1:])  # (2)!
# --8<-- [end:shift]


# --8<-- [start:by-hand]
counted = Counter()


def times(a, b):
    counted["multiplications"] += a.size * b.shape[-1]  # (1)!
    return a @ b


def norm(x, gain, bias):
    x = x - x.mean(-1, keepdims=True)
    return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) + bias


def dense(x, layer):
    kernel, bias = layer.get_weights()
    return times(x, kernel) + bias


def by_hand(model, ids, cache=None):
    heads, new = model.sizes["heads"], []
    tokens = model.tokens.numpy()
    first = 0 if cache is None else cache[0][0].shape[1]
    x = tokens[ids] + model.positions.numpy()[first : first + len(ids)]
    for n, block in enumerate(model.blocks):
        read = norm(x, *block.norms[0].get_weights())
        q, k, v = (
            dense(read, layer).reshape(len(ids), heads, -1).swapaxes(0, 1)
            for layer in (
                block.attend.query,
                block.attend.key,
                block.attend.value,
            )
        )  # (2)!
        if cache is not None:
            k = np.concatenate([cache[n][0], k], axis=1)
            v = np.concatenate([cache[n][1], v], axis=1)
        new.append((k, v))
        scores = times(q, k.swapaxes(1, 2)) / np.sqrt(q.shape[-1])
        step = np.arange(k.shape[1])
        scores[:, step > step[first:, None]] = -np.inf  # (3)!
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        read = times(weights, v).swapaxes(0, 1).reshape(x.shape)
        x = x + dense(read, block.attend.merge)
        wide = dense(norm(x, *block.norms[1].get_weights()), block.feed.widen)
        x = x + dense(gelu(wide), block.feed.narrow)
    x = norm(x, *model.norm.get_weights())
    return times(x, tokens.T), new  # (4)!


# --8<-- [end:by-hand]


# --8<-- [start:text]
def stream(rows):
    ids = [end]
    for i in rows:
        for text in (sections[i].en, sections[i].zh):
            ids += [*tokenizer.encode(text), end]
    return np.array(ids)


def sequences(rows, steps=64, every=16):  # (1)!
    windows = np.lib.stride_tricks.sliding_window_view(stream(rows), steps + 1)
    return windows[::every, :-1], windows[::every, 1:]


heard = stream(learned)
unheard = {
    "en": [sections[i].en for i in held],
    "zh": [sections[i].zh for i in held],
}
size = {name: len("".join(t).encode()) for name, t in unheard.items()}
print(f"learned: {len(learned)} sections, {len(heard)} tokens")
for name, some in unheard.items():
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in some)
    print(f"held out, {name}: {tokens} tokens, {size[name]} bytes")
# --8<-- [end:text]


# --8<-- [start:baselines]
def ngram(ids, order, discount=0.75):
    tables = []
    grams = [tuple(ids[i : i + order]) for i in range(len(ids) - order + 1)]
    while grams[0]:
        table = defaultdict(Counter)
        for *past, token in grams:
            table[tuple(past)][token] += 1
        tables.insert(0, table)
        grams = [gram[1:] for gram in set(grams)]  # (1)!

    def probability(past, token):
        p = 1 / len(tokenizer)
        for n, table in enumerate(tables):
            seen = table.get(tuple(past[len(past) - n :]))
            if seen is not None:
                left = max(seen[token] - discount, 0)
                p = (left + discount * len(seen) * p) / seen.total()
        return p

    return probability


def bits(probability, text):
    ids = [end, *tokenizer.encode(text), end]
    return sum(
        -np.log2(probability(ids[max(0, i - 2) : i], ids[i]))
        for i in range(1, len(ids))
    )


def compressed(data):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    raw = lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)
    return np.array([len(raw), len(bz2.compress(data))])


table = {}
for order, name in enumerate(("unigram", "bigram", "trigram"), 1):
    model = ngram(heard.tolist(), order)
    table[name] = {
        language: np.array([bits(model, text) for text in some])
        for language, some in unheard.items()
    }
known = "".join(texts).encode()
for language, some in unheard.items():
    both = compressed(known + "".join(some).encode())
    more = 8 * (both - compressed(known))  # (2)!
    for name, value in zip(("xz", "bzip2"), more, strict=True):
        table.setdefault(name, {})[language] = value
for name, row in table.items():
    shown = [f"{lang} {np.sum(row[lang]) / size[lang]:.2f}" for lang in size]
    print(f"{name:8}", "   ".join(shown))
# --8<-- [end:baselines]


# --8<-- [start:learn]
def setup(width, depth, dropout=0.0):
    keras.utils.set_random_seed(1)
    model = GPT(len(tokenizer), 64, width, 4, depth, dropout=dropout)
    optimizer = keras.optimizers.AdamW(
        weight_decay=0.1, beta_2=0.95, global_clipnorm=1.0
    )
    step = make_step(model, optimizer, next_token_loss, jit_compile=True)

    @tf.function
    def costs(x, y):
        logits = model(x, training=False)
        return ops.sparse_categorical_crossentropy(y, logits, from_logits=True)

    return model, model.get_weights(), optimizer, step, costs


model, untrained, optimizer, step, costs = setup(width=128, depth=2)


def text_bits(text):
    ids = np.array([end, *tokenizer.encode(text), end])
    x, y, count = [], [], []
    for start in range(0, len(ids) - 1, 32):
        piece = ids[max(0, start - 32) : start + 33]  # (1)!
        padded = np.pad(piece, (0, 65 - len(piece)))
        x, y = [*x, padded[:-1]], [*y, padded[1:]]
        place = np.arange(64) + max(0, start - 32)
        last = min(start + 32, len(ids) - 1)
        count.append((place >= start) & (place < last))
    rows = -len(x) % 8  # (2)!
    x, y = (np.pad(part, [(0, rows), (0, 0)]) for part in (x, y))
    losses = [costs(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]
    losses = np.concatenate(losses)[: len(count)]
    return losses[np.array(count)].sum() / np.log(2)


def score(rows):
    given = [(sections[i].en, sections[i].zh) for i in rows]
    spent = sum(text_bits(text) for pair in given for text in pair)
    return spent / len("".join(map("".join, given)).encode())


def restart(rate):
    model.set_weights(untrained)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    optimizer.learning_rate = rate


def learn(rows, steps, rate=0.005, every=16, looks=5):
    restart(0.0)
    pairs, curve = sequences(rows, every=every), []

    def after(number, loss):
        warm = min(1, number / (steps / 10))
        cool = (1 + np.cos(np.pi * number / steps)) / 2
        optimizer.learning_rate = rate * warm * cool  # (3)!
        if number % (steps // looks) == 0:
            curve.append((number, score(rows[:13]), score(held)))

    train(step, batches(pairs, 8, seed=0), steps, after=after)
    return np.array(curve)


curve = learn(learned, 800)
print("parameters:", model.count_params())
for number, seen, unseen in curve:
    print(f"step {number:4.0f}: learned {seen:.2f}, held out {unseen:.2f}")
# --8<-- [end:learn]

# --8<-- [start:curve]
figure, axis = plt.subplots()
axis.plot(curve[:, 0], curve[:, 2], "o-", label="held out")
axis.plot(curve[:, 0], curve[:, 1], "s--", label="learned")
for name, colour in (("bigram", "C2"), ("trigram", "C3")):
    level = sum(table[name][lang].sum() for lang in size) / sum(size.values())
    axis.axhline(level, color=colour, label=name)
axis.set(xlabel="step", ylabel="bits per byte", ylim=(1.5, None))
axis.legend()
# --8<-- [end:curve]

# --8<-- [start:score]
for language, some in unheard.items():
    ours = np.array([text_bits(text) for text in some])
    gain = table["bigram"][language] - ours
    share = 1 / size[language]
    spread = gain.std(ddof=1) * len(gain) ** 0.5  # (1)!
    print(
        f"{language}: {ours.sum() * share:.2f} bits per byte,"
        f" {gain.sum() * share:.2f} ± {spread * share:.2f} below the bigram"
    )
# --8<-- [end:score]

# --8<-- [start:long-run]
if "HANDBOOK_LONG" in os.environ:  # (1)!
    short = model, untrained, optimizer, step, costs
    model, untrained, optimizer, step, costs = setup(256, 4, dropout=0.2)
    print("parameters:", model.count_params())
    for number, seen, unseen in learn(learned, 6000, 0.002, looks=6):
        print(f"step {number:4.0f}: learned {seen:.2f}, held out {unseen:.2f}")
    for language, some in unheard.items():
        spent = sum(text_bits(text) for text in some)
        print(f"{language}: {spent / size[language]:.2f} bits per byte")
    for start in ("The loss", "When the mask", "每一步", "训练时，"):
        ids = np.array([[end, *tokenizer.encode(start)]])
        for top_p in (0.5, 0.9):
            rng = np.random.default_rng(0)
            ids_out = generate(model, ids, 30, rng, top_p=top_p)[0, 1:]
            text = tokenizer.decode(ids_out.tolist())
            print(f"top-p {top_p}:", text.split("<|end|>")[0])
    model, untrained, optimizer, step, costs = short
# --8<-- [end:long-run]

# --8<-- [start:choose]
prompt = [end, *tokenizer.encode("The loss is")]
logits = np.array(model(np.array([prompt])))[0, -1]
choices = {
    "as it is": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 2": {"temperature": 2.0},
    "top-k 5": {"top_k": 5},
    "top-p 0.5": {"top_p": 0.5},
}
figure, axis = plt.subplots()
for name, choice in choices.items():
    p = np.sort(probabilities(logits, **choice))[::-1]
    p = p[p > 0]
    axis.loglog(1 + np.arange(len(p)), p, ".-", label=name)
axis.set(xlabel="rank of the token", ylabel="probability", ylim=(1e-6, 2))
axis.legend()
# --8<-- [end:choose]

# --8<-- [start:samples]
starts = [sections[i].en for i in held[:8]] + [sections[i].zh for i in held[:8]]
starts = np.array([[end, *tokenizer.encode(text)][:8] for text in starts])
known_three = set(zip(heard, heard[1:], heard[2:], strict=False))
print("                 different  new triples")
for name, choice in {"temperature 0": {"temperature": 0}, **choices}.items():
    rng = np.random.default_rng(0)
    written = generate(model, starts, 40, rng, **choice)[:, 8:]
    different = np.mean([len(set(row)) / 40 for row in written])
    triples = [t for r in written for t in zip(r, r[1:], r[2:], strict=False)]
    new = np.mean([t not in known_three for t in triples])
    print(f"{name:15} {different:10.2f} {new:12.2f}")
# --8<-- [end:samples]

# --8<-- [start:cache]
rng, again = np.random.default_rng(0), np.random.default_rng(0)
quick = generate(model, starts, 50, rng, top_k=20)
slow = generate(model, starts, 50, again, top_k=20, cache=False)
print("the same tokens:", np.array_equal(quick, slow))

ids, spent = quick[0], {}
for way in ("without", "with"):
    counted.clear()
    cache = None
    for place in range(len(ids)):
        if way == "without":
            by_hand(model, ids[: place + 1])
        else:
            _, cache = by_hand(model, ids[place : place + 1], cache)
    spent[way] = counted["multiplications"]
    print(f"{way:8} a cache: {spent[way]:13,} multiplications")
print(f"saved: a factor of {spent['without'] / spent['with']:.1f}")
# --8<-- [end:cache]

# --8<-- [start:sizes]
GPT2 = {"117M": (12, 768), "345M": (24, 1024), "762M": (36, 1280)}
GPT2["1542M"] = (48, 1600)
print("GPT-2, as printed       computed   with 40,478 tokens")
for printed, (depth, width) in GPT2.items():
    real = parameter_count(50257, 1024, width, depth)
    other = parameter_count(40478, 1024, width, depth)  # (1)!
    print(f"{printed:>8} {real:24,} {other:20,}")

GPT3 = {
    "125M": (12, 768),
    "350M": (24, 1024),
    "760M": (24, 1536),
    "1.3B": (24, 2048),
    "2.7B": (32, 2560),
    "6.7B": (32, 4096),
    "13.0B": (40, 5140),
    "175.0B": (96, 12288),
}
print("GPT-3, as printed       computed")
for printed, (depth, width) in GPT3.items():
    print(f"{printed:>8} {parameter_count(50257, 2048, width, depth):24,}")
# --8<-- [end:sizes]

# --8<-- [start:thousands]
lenet = [6 * 26, 6 * 2, 1516, 16 * 2, 120 * (16 * 25 + 1), 84 * 121]  # (1)!
bert = parameter_count(30522, 512 + 2, 768, 12) + 768 * 768 + 768  # (2)!
counts = {
    "logistic regression, 30 columns": 30 + 1,
    "softmax regression, digits": 10 * (64 + 1),
    "LeNet-5, 1998": sum(lenet),
    "BERT-base, 2018": bert,
    "GPT-2, 2019": parameter_count(50257, 1024, 1600, 48),
    "GPT-3, 2020": parameter_count(50257, 2048, 12288, 96),
}
for name, count in counts.items():
    print(f"{name:32} {count:15,}")
# --8<-- [end:thousands]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    vocabulary, steps, heads, head, depth = rng.integers(2, 12, 5).tolist()
    model = GPT(vocabulary, steps, heads * head, heads, depth)
    model.set_weights([rng.normal(size=w.shape) / 3 for w in model.weights])
    ids = rng.integers(0, vocabulary, steps)
    ours = np.array(model(ids[None]))[0]
    theirs, _ = by_hand(model, ids)
    first, cache = by_hand(model, ids[: steps // 2])
    rest, _ = by_hand(model, ids[steps // 2 :], cache)
    split = np.concatenate([first, rest])
    largest = np.abs(theirs).max()
    return [np.abs(x - theirs).max() / largest for x in (ours, split)]


found = np.max([agreement(trial) for trial in range(6)], axis=0)
print("our class, relative difference below 1e-5:", found[0] < 1e-5)
print("by hand with a cache, the same:", found[1] < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:invariants]
ids = stream(held)[None, :64]
before = np.array(model(ids))
ids[0, 40] = end
after = np.array(model(ids))
print("steps that changed:", np.flatnonzero((before != after).any(-1))[:3])

far = stream(held)[None, :64]
far[0, 63] = len(tokenizer)  # (1)!
print("an id that does not exist:", np.array(model(far))[0, 63, :2])
# --8<-- [end:invariants]

# --8<-- [start:memory]
few = [i for i in learned if 300 < len(sections[i].en) < 500][:4]
for number, seen, unseen in learn(few, 240, every=1, looks=4):
    print(f"step {number:3.0f}: learned {seen:.2f}, held out {unseen:.2f}")

given = []
for text in [t for i in few for t in (sections[i].en, sections[i].zh)]:
    ids = [end, *tokenizer.encode(text)]
    given += [ids[:48], ids[40:88]]  # (1)!
given = np.array(given)
written = generate(model, given[:, :24], 24)
print(f"word for word: {np.mean((written == given)[:, 24:]):.2f}")
for row in (1, 3):
    print("given:  ", repr(tokenizer.decode(given[row, 12:24])))
    print("written:", repr(tokenizer.decode(written[row, 24:40])))
# --8<-- [end:memory]

# --8<-- [start:unshifted]
restart(0.003)
x, _ = sequences(learned)
losses = train(step, batches((x, x), 8, seed=0), 50)  # (1)!
print(f"loss {losses[0]:.1f}, after 50 steps {losses[-1]:.1f}")
answer = np.array(model(np.array([prompt])))[0].argmax(-1)
print("reads:  ", repr(tokenizer.decode(prompt)))
print("answers:", repr(tokenizer.decode(answer)))
# --8<-- [end:unshifted]


# --8<-- [start:cost]
def products(new, read, width=128, depth=2, vocabulary=1024):
    block = 12 * width**2 + 2 * read * width
    return new * (depth * block + vocabulary * width)


counted.clear()
by_hand(model, quick[0])
length = len(quick[0])
same = counted["multiplications"] == products(length, length)
print("as counted:", same)
print(
    "as counted with a cache:",
    spent["with"] == sum(products(1, read + 1) for read in range(length)),
)

print("batch  steps  width    10⁹ operations a step")
for batch, steps, width in (
    (8, 64, 128),
    (16, 64, 128),
    (8, 128, 128),
    (8, 1024, 128),
    (8, 64, 256),
):
    cost = 3 * 2 * batch * products(steps, steps, width)  # (1)!
    first = 3 * 2 * 8 * products(64, 64)
    ratio = cost / first
    print(f"{batch:5} {steps:6} {width:6} {cost / 1e9:10.2f}   × {ratio:.2f}")
# --8<-- [end:cost]

# --8<-- [start:solution-perplexity]
V = len(tokenizer)
even = next_token_loss(np.zeros((1, 9), int), np.zeros((1, 9, V)))
print(f"even guess: {np.exp(even):.1f} tokens to choose from")
assert np.isclose(np.exp(even), V, rtol=1e-5)

per_token = table["trigram"]["en"].sum() / sum(
    len(tokenizer.encode(text)) + 1 for text in unheard["en"]
)
print(f"trigram, English: {2**per_token:.0f} tokens to choose from")
assert 2**per_token < V / 10
# --8<-- [end:solution-perplexity]


# --8<-- [start:solution-entropy]
def entropy(logits, temperature):
    p = probabilities(logits, temperature)
    p = p[p > 0]
    return -np.sum(p * np.log(p))


for temperature in (0.3, 0.7, 1.0, 1.5):
    p = probabilities(logits, temperature)
    mean = np.sum(p * logits)
    variance = np.sum(p * (logits - mean) ** 2)
    small = 1e-4
    up = entropy(logits, temperature + small)
    slope = (up - entropy(logits, temperature - small)) / (2 * small)
    assert np.isclose(slope, variance / temperature**3, rtol=1e-3)
print("the slope is the variance of the logits, divided by τ³")
# --8<-- [end:solution-entropy]
