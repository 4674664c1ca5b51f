# --8<-- [start:sines]
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels.attention import (
    MultiHeadAttention,
    causal_mask,
    scaled_dot_product_attention,
)
from aimodels.training import batches, make_step, train
from aimodels.transformer import (
    Block,
    FeedForward,
    rotate,
    sinusoidal_positions,
)

table = sinusoidal_positions(100, 32).astype("float64")
shift = 7
angles = shift * 10000.0 ** (-np.arange(0, 32, 2) / 32)
turn = np.zeros((32, 32))
for i, angle in enumerate(angles):
    cos, sin = np.cos(angle), np.sin(angle)
    turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[cos, -sin], [sin, cos]]
away = np.abs(table[:-shift] @ turn - table[shift:]).max()  # (1)!
print("one matrix moves all rows by 7:", away < 1e-5)
print("product of rows 10 and 17:", (table[10] @ table[17]).round(3))
print("product of rows 80 and 87:", (table[80] @ table[87]).round(3))

figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8), layout="constrained")
axes[0].imshow(table[:40].T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
axes[0].set(xlabel="position", ylabel="column")
axes[1].plot(np.arange(-40, 41), table[10:91] @ table[50])
axes[1].set(xlabel="distance", ylabel="product of two rows")
# --8<-- [end:sines]

# --8<-- [start:rotary]
rng = np.random.default_rng(0)
query, key = rng.normal(size=(2, 1, 64)).astype("float32")
places = np.arange(0, 1000, 50)
plain = sinusoidal_positions(1010, 64)
for name in ("sines added", "rotary"):
    scores = []
    for place in places:
        if name == "rotary":
            q, k = rotate(query, [place + 5]), rotate(key, [place])
        else:
            q, k = query + plain[place + 5], key + plain[place]
        scores.append(np.sum(np.array(q) * np.array(k)))
    print(f"{name:11}: {np.min(scores):6.2f} to {np.max(scores):6.2f}")
# --8<-- [end:rotary]


# --8<-- [start:block]
def normalize(x, layer):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    gain, shift = layer.get_weights()
    return gain * (x - mean) / np.sqrt(variance + 1e-5) + shift


def feed(x, layer):
    w1, b1, w2, b2 = layer.get_weights()
    return np.maximum(x @ w1 + b1, 0) @ w2 + b2  # (1)!


x = rng.normal(size=(1, 5, 8)).astype("float32")
pre = Block(heads=2, hidden=32, norm="pre", activation="relu")
post = Block(heads=2, hidden=32, norm="post", activation="relu")
results = pre(x), post(x)

first, second = pre.norms
by_hand = x + np.array(pre.attend(normalize(x, first)))
by_hand = by_hand + feed(normalize(by_hand, second), pre.feed)
print("pre: ", np.allclose(by_hand, results[0], atol=1e-5))

first, second = post.norms
by_hand = normalize(x + np.array(post.attend(x)), first)
by_hand = normalize(by_hand + feed(by_hand, post.feed), second)
print("post:", np.allclose(by_hand, results[1], atol=1e-5))
print("parameters:", pre.count_params(), "=", 12 * 8**2 + 13 * 8)
# --8<-- [end:block]


# --8<-- [start:numerals]
def group(n):
    text, gap = "", False
    for unit, name in [(1000, "千"), (100, "百"), (10, "十"), (1, "")]:
        digit = n // unit % 10
        if digit:
            zero = "零" if gap and text else ""  # (1)!
            text += zero + "零一二三四五六七八九"[digit] + name
        gap = digit == 0
    return text


def numeral(n):
    high, low = divmod(n, 10_000)  # (2)!
    text = group(high) + "万" if high else ""
    if low:
        text += ("零" if high and low < 1000 else "") + group(low)
    return text[1:] if text.startswith("一十") else text  # (3)!


for n in (12, 42, 305, 12_345, 70_020):
    print(n, numeral(n))
# --8<-- [end:numerals]

# --8<-- [start:pairs]
SYMBOLS = "零一二三四五六七八九十百千万"
START, END = 11, 12  # (1)!
READ, WRITE = 9, 6  # (2)!

rng = np.random.default_rng(0)
drawn = rng.integers(0, 10, (20_000, 5))
drawn[rng.random(drawn.shape) < 0.3] = 0  # (3)!
numbers = drawn @ 10 ** np.arange(5)
numbers = rng.permutation(np.unique(numbers[numbers >= 100]))


def encode(numbers):
    source = np.zeros((len(numbers), READ), "int32")
    target = np.zeros((len(numbers), WRITE + 1), "int32")
    for row, n in enumerate(numbers):
        ids = [SYMBOLS.index(symbol) + 1 for symbol in numeral(n)]
        source[row, : len(ids)] = ids
        ids = [START, *(int(digit) + 1 for digit in str(n)), END]
        target[row, : len(ids)] = ids
    return source, target


test, learned = numbers[:3000], np.append(numbers[3000:], np.arange(1, 100))
source, target = encode(learned)
print(len(learned), "to learn,", len(test), "to test")
print(numeral(learned[0]), source[0], target[0])
# --8<-- [end:pairs]


# --8<-- [start:network]
class Translator(keras.Model):
    def __init__(self, width=64):
        super().__init__()
        self.symbols = keras.layers.Embedding(len(SYMBOLS) + 1, width)
        self.digits = keras.layers.Embedding(13, width)
        self.encoder = Block(heads=4, hidden=128)
        self.decoder = Block(heads=4, hidden=128, cross=True)
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]
        self.logits = keras.layers.Dense(13)
        self.places = tf.Variable(sinusoidal_positions(READ, width))
        self.allowed = tf.Variable(causal_mask(WRITE))  # (1)!

    def embed(self, layer, ids, start=0):
        places = self.places[start : start + ids.shape[1]]
        return layer(ids) * 64**0.5 + places  # (2)!

    def read(self, source):
        real = (source > 0)[:, None]
        x = self.embed(self.symbols, source)
        return self.norms[0](self.encoder(x, attention_mask=real)), real

    def call(self, both):
        source, written = both
        memory, real = self.read(source)
        x = self.embed(self.digits, written)
        x = self.decoder(
            x, memory, attention_mask=self.allowed, memory_mask=real
        )
        return self.logits(self.norms[1](x))


def loss(target, logits):
    each = keras.losses.sparse_categorical_crossentropy(
        target, logits, from_logits=True
    )
    real = ops.cast(target > 0, "float32")
    return ops.sum(each * real) / ops.sum(real)


# --8<-- [end:network]


# --8<-- [start:greedy]
def greedy(model, source):
    memory, real = model.read(source)
    cache = [np.zeros((len(source), 4, WRITE, 16), "float32")] * 2  # (1)!
    token = np.full((len(source), 1), START)
    written = []
    for step in range(WRITE):
        x, cache = model.decoder(
            model.embed(model.digits, token, step),
            memory,
            memory_mask=real,
            cache=cache,
            index=step,
        )
        logits = model.logits(model.norms[1](x))
        token = np.array(ops.argmax(logits, axis=-1))
        written.append(token[:, 0])
    return np.stack(written, axis=1)


def as_text(ids):
    digits = "".join("?0123456789^$"[i] for i in ids)
    return digits.split("$")[0]


def exact(model, numbers):
    written = greedy(model, encode(numbers)[0])
    right = [
        as_text(ids) == str(n) for ids, n in zip(written, numbers, strict=True)
    ]
    return np.mean(right)


# --8<-- [end:greedy]

# --8<-- [start:train]
model = Translator()
model((source[:2], target[:2, :-1]))
rate = keras.optimizers.schedules.CosineDecay(
    0.0, 360, warmup_target=5e-3, warmup_steps=40
)
optimizer = keras.optimizers.Adam(rate, beta_2=0.98)
step = make_step(model, optimizer, loss, jit_compile=True)


def run(seed, x, y, steps=400):
    keras.utils.set_random_seed(seed)
    fresh = Translator()
    fresh((source[:2], target[:2, :-1]))
    model.set_weights(fresh.get_weights())  # (1)!
    for variable in optimizer.variables:
        variable.assign(ops.zeros_like(variable))
    return train(step, batches((x, y), 64, seed), steps)


written, wanted = target[:, :-1], target[:, 1:]  # (2)!
print("parameters:", model.count_params())
for seed in range(3):
    losses = run(seed, (source, written), wanted)
    print(
        f"seed {seed}: loss {losses[-20:].mean():.3f},"
        f" exact {exact(model, test):.2%} of {len(test)}"
    )
# --8<-- [end:train]

# --8<-- [start:examples]
for n in test[:4]:
    ids = greedy(model, encode([n])[0])[0]
    print(numeral(n), "→", as_text(ids))
# --8<-- [end:examples]

# --8<-- [start:map]
n = 30_567
x = encode([n])[0]
memory, real = model.read(x)
inner = model.decoder
ids = encode([n])[1][:, :-1]
h = model.embed(model.digits, ids)
h = h + inner.attend(inner.norms[0](h), attention_mask=causal_mask(WRITE))
_, weights = inner.read(
    inner.norms[1](h), memory, attention_mask=real, return_weights=True
)
length = len(numeral(n))
weights = np.array(weights)[0].mean(0)[:, :length]  # (1)!
figure, axis = plt.subplots(figsize=(4.6, 3))
axis.imshow(weights, cmap="Blues", vmin=0)
axis.set(xlabel="symbol read", ylabel="digit written")
axis.set_xticks(range(length), [f"{i}" for i in range(length)])
axis.set_yticks(range(WRITE), [*str(n), "end"])
print(" ".join(f"{i}:{s}" for i, s in enumerate(numeral(n))))
# --8<-- [end:map]

# --8<-- [start:order]
places = model.places.numpy()
model.places.assign(0 * places)  # (1)!
run(0, (source, written), wanted)
print(f"no positions: exact {exact(model, test):.1%}")
model.places.assign(places)

bags = {"".join(sorted(numeral(n))) for n in test}
print(f"one answer for each bag: at most {len(bags) / len(test):.1%}")  # (2)!
# --8<-- [end:order]


# --8<-- [start:deep]
class Deep(keras.Model):
    def __init__(self, depth=6, width=32):
        super().__init__()
        self.symbols = keras.layers.Embedding(len(SYMBOLS) + 1, width)
        self.attends = [MultiHeadAttention(4) for _ in range(depth)]
        self.feeds = [FeedForward(64, "relu") for _ in range(depth)]
        self.norms = [
            keras.layers.LayerNormalization() for _ in range(2 * depth)
        ]
        self.logits = keras.layers.Dense(10)
        self.residual, self.norm = tf.Variable(1.0), tf.Variable(1.0)  # (1)!

    def call(self, source):
        real = (source > 0)[:, None]
        places = sinusoidal_positions(READ, 32)
        x = self.symbols(source) * 32**0.5 + places
        norms = iter(self.norms)

        def normalized(x):
            return ops.where(self.norm > 0, next(norms)(x), x)

        for attend, feed in zip(self.attends, self.feeds, strict=True):
            h = normalized(x)
            x = self.residual * x + attend(h, attention_mask=real)
            x = self.residual * x + feed(normalized(x))
        return self.logits(x)[:, :5]


def digit_loss(digits, logits):
    return ops.mean(
        keras.losses.sparse_categorical_crossentropy(
            digits, logits, from_logits=True
        )
    )


deep = Deep()
deep(source[:2])
deep_optimizer = keras.optimizers.Adam(2e-3)
deep_step = make_step(deep, deep_optimizer, digit_loss)
digits = np.array([[int(d) for d in f"{n:05}"] for n in learned])
# --8<-- [end:deep]

# --8<-- [start:ablation]
names = {
    "residuals and norm": (1.0, 1.0),
    "no norm": (1.0, 0.0),
    "no residuals": (0.0, 1.0),
    "neither": (0.0, 0.0),
}
curves = {}
for seed in range(3):
    keras.utils.set_random_seed(seed)
    fresh = Deep()
    fresh(source[:2])
    for name, (residual, norm) in names.items():
        deep.set_weights(fresh.get_weights())
        for variable in deep_optimizer.variables[2:]:  # (1)!
            variable.assign(ops.zeros_like(variable))
        deep_optimizer.iterations.assign(0)
        deep.residual.assign(residual)
        deep.norm.assign(norm)
        data = batches((source, digits), 32, seed)
        curves[name, seed] = train(deep_step, data, 60)

entropy = np.mean(
    [-(p := np.bincount(d) / len(d)) @ np.log(p) for d in digits.T]
)
print(f"ignoring the input: {entropy:.2f}")  # (2)!
figure, axis = plt.subplots()
for number, name in enumerate(names):
    ends = [curves[name, seed][-20:].mean() for seed in range(3)]
    print(f"{name:18} {min(ends):.2f} to {max(ends):.2f}")
    smooth = [curves[name, seed].reshape(-1, 10).mean(1) for seed in range(3)]
    steps = np.arange(10, 61, 10)
    axis.plot(steps, np.mean(smooth, 0), color=f"C{number}", label=name)
    axis.fill_between(
        steps,
        np.min(smooth, 0),
        np.max(smooth, 0),
        color=f"C{number}",
        alpha=0.3,
    )
axis.set(xlabel="step", ylabel="loss", ylim=(1, 3))
axis.legend()
# --8<-- [end:ablation]

# --8<-- [start:gradients]
depth, norms = 8, {}
for norm in ("pre", "post"):
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        blocks = [Block(4, 128, norm) for _ in range(depth)]
        last = keras.layers.LayerNormalization()
        head = keras.layers.Dense(10)
        with tf.GradientTape() as tape:
            x = model.embed(model.symbols, source[:16])
            for block in blocks:
                x = block(x)
            x = last(x) if norm == "pre" else x
            value = digit_loss(digits[:16], head(x)[:, :5])
        kernels = [block.feed.narrow.kernel for block in blocks]
        norms[norm, seed] = [
            float(ops.norm(g)) for g in tape.gradient(value, kernels)
        ]

figure, axis = plt.subplots()
for norm, mark in [("pre", "o-"), ("post", "s--")]:
    each = np.array([norms[norm, seed] for seed in range(3)])
    axis.semilogy(range(1, depth + 1), each.mean(0), mark, label=norm)
    axis.fill_between(range(1, depth + 1), each.min(0), each.max(0), alpha=0.3)
    ratio = each[:, -1] / each[:, 0]
    print(f"{norm:4}: last block / first block {ratio.mean():.1f}")
axis.set(xlabel="block", ylabel="length of the gradient")
axis.legend()
# --8<-- [end:gradients]


# --8<-- [start:peer]
def keras_block(block, x, memory):
    shapes = x.shape, memory.shape
    width = x.shape[-1]

    def attention(ours, query, other):
        heads = ours.heads
        theirs = keras.layers.MultiHeadAttention(heads, width // heads)
        theirs.build(query.shape, other.shape)
        weights = zip(ours.get_weights(), theirs.weights, strict=True)
        theirs.set_weights([w.reshape(v.shape) for w, v in weights])
        return theirs(query, other)

    def feed(x):
        w1, b1, w2, b2 = block.feed.get_weights()
        return keras.ops.gelu(x @ w1 + b1, approximate=False) @ w2 + b2

    def normal(n, x):
        layer = keras.layers.LayerNormalization(epsilon=1e-5)
        layer.build(shapes[0])
        layer.set_weights(block.norms[n].get_weights())
        return layer(x)

    branches = [
        lambda x: attention(block.attend, x, x),
        lambda x: attention(block.read, x, memory),
        feed,
    ]
    for n, branch in enumerate(branches):
        pre = block.norm == "pre"
        x = x + branch(normal(n, x)) if pre else normal(n, x + branch(x))
    return x


worst = {}
for norm in ("pre", "post"):
    for trial in range(5):
        rng = np.random.default_rng(trial)
        samples, steps, others, heads, head = rng.integers(2, 9, 5).tolist()
        width = heads * head
        block = Block(heads, 3 * width, norm, cross=True)
        x = rng.normal(size=(samples, steps, width)).astype("float32")
        memory = rng.normal(size=(samples, others, 7)).astype("float32")
        block.build(x.shape, memory.shape)
        block.set_weights(
            [rng.normal(size=w.shape) / 3 for w in block.get_weights()]
        )
        a, b = (
            np.array(block(x, memory)),
            np.array(keras_block(block, x, memory)),
        )
        away = np.abs(a - b).max() / np.abs(b).max()
        worst[norm] = max(away, worst.get(norm, 0))
for norm, away in worst.items():
    print(f"{norm}: largest difference below 1e-5:", away < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:cheating]
everything = np.ones((WRITE, WRITE), dtype=bool)
model.allowed.assign(everything)  # (1)!
losses = run(0, (source, written), wanted, steps=200)
print(f"mask forgotten:  loss {losses[-20:].mean():.4f},", end=" ")
print(f"exact {exact(model, test):.1%}")

model.allowed.assign(causal_mask(WRITE))
losses = run(0, (source, wanted), wanted, steps=200)  # (2)!
print(f"targets unshifted: loss {losses[-20:].mean():.4f},", end=" ")
print(f"exact {exact(model, test):.1%}")
# --8<-- [end:cheating]


# --8<-- [start:halves]
def neighbours(x, position):
    angles = position * 10000.0 ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


rng = np.random.default_rng(0)
x = rng.normal(size=(1, 8)).astype("float32")
ours, theirs = np.array(rotate(x, [3])), neighbours(x, 3)
print("same numbers:", np.allclose(ours, theirs, atol=1e-5))
order = [0, 4, 1, 5, 2, 6, 3, 7]  # (1)!
moved = np.array(rotate(x[:, np.argsort(order)], [3]))[:, order]
print("after reordering the columns:", np.allclose(moved, theirs, atol=1e-5))
# --8<-- [end:halves]


# --8<-- [start:solution-base]
def block_parameters(width, hidden, cross):
    attention, norm = 4 * width**2 + 4 * width, 2 * width
    feed = 2 * width * hidden + hidden + width
    return (1 + cross) * (attention + norm) + feed + norm


encoder, decoder = (block_parameters(512, 2048, cross) for cross in (0, 1))
embedding = 37_000 * 512  # (1)!
print("encoder block", encoder, "decoder block", decoder)
print(f"together {(6 * (encoder + decoder) + embedding) / 1e6:.1f} million")
block = Block(heads=8, hidden=2048, norm="post", cross=True)
block.build((None, None, 512), (None, None, 512))
assert block.count_params() == decoder
assert encoder == 12 * 512**2 + 13 * 512
# --8<-- [end:solution-base]

# --8<-- [start:solution-count]
rng = np.random.default_rng(0)
x = np.repeat(rng.normal(size=(1, 1, 8)), 6, axis=1)  # (1)!
zeros = np.zeros((1, 6, 1))
marked = np.concatenate([x, np.eye(6)[None, :, :1]], axis=-1)
read, _ = scaled_dot_product_attention(zeros, zeros, marked, causal_mask(6))
print(np.array(read)[0, :, -1].round(3))
assert np.allclose(np.array(read)[0, :, -1], 1 / np.arange(1, 7))
# --8<-- [end:solution-count]
