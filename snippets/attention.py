# --8<-- [start:lookup]
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from aimodels import datasets
from aimodels.attention import (
    MultiHeadAttention,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
)

images, digits = datasets.digits()
pixels = images.reshape(-1, 64)
length = np.linalg.norm(pixels, axis=-1, keepdims=True)
pixels = 24 * pixels / length  # (1)!

read, weights = scaled_dot_product_attention(
    query=pixels[1500:],
    key=pixels[:1500],
    value=np.eye(10)[digits[:1500]],  # (2)!
)
read, weights = np.array(read), np.array(weights)
right = read.argmax(-1) == digits[1500:]
print(f"right, without training: {right.mean():.3f}")

shown = 82  # (3)!
print("read:", read[shown].round(2))
best = weights[shown].argsort()[::-1][:5]
figure, axes = plt.subplots(1, 6, figsize=(6.4, 1.6))
for axis, place in zip(axes, [1500 + shown, *best], strict=True):
    axis.imshow(images[place], cmap="Blues")
    axis.set_axis_off()
axes[0].set_title("query")
for axis, place in zip(axes[1:], best, strict=True):
    axis.set_title(f"{weights[shown, place]:.2f}")
# --8<-- [end:lookup]


# --8<-- [start:by-hand]
def attend(query, key, value):
    scores = query @ key.T / np.sqrt(query.shape[-1])  # (1)!
    weights = np.exp(scores - scores.max(-1, keepdims=True))  # (2)!
    weights /= weights.sum(-1, keepdims=True)  # (3)!
    return weights @ value, weights


query, key, value = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])

read, weights = attend(query[:, None], key[:, None], value[:, None])
print("three tokens of width 1")
print(weights.round(3))
print("read:", read[:, 0].round(3))

read, weights = attend(query[None], key[None], value[None])
print("one token of width 3")
print("weights:", weights, "read:", read)
# --8<-- [end:by-hand]

# --8<-- [start:masks]
causal = causal_mask(4)
padding = padding_mask([4, 2], steps=4)
allowed = causal & padding  # (1)!
print(causal.shape, padding.shape, allowed.shape)
print(np.array(allowed[1]).astype(int))

undecided = np.zeros((2, 4, 1))  # (2)!
_, weights = scaled_dot_product_attention(
    undecided, undecided, undecided, allowed
)
print(np.array(weights[0]).round(2))

_, weights = scaled_dot_product_attention(
    undecided, undecided, undecided, padding_mask([4, 0], steps=4)
)
print("nothing to read:", np.array(weights[1, 0]))  # (3)!
# --8<-- [end:masks]

# --8<-- [start:scale]
rng = np.random.default_rng(0)
widths = 4 ** np.arange(6)
variance, slope, ranked = {}, {}, {}
for width in widths:
    queries = rng.normal(size=(500, 1, width))
    keys = rng.normal(size=(500, 16, width))  # (1)!
    products = (queries * keys).sum(-1)
    scaled = products / np.sqrt(width)
    for name, scores in [("q·k", products), ("q·k / √F", scaled)]:
        weights = np.array(ops.softmax(scores, axis=-1))
        variance[name, width] = scores.var()
        slope[name, width] = 1 - (weights**2).sum(-1).mean()  # (2)!
        ranked[name, width] = -np.sort(-weights).mean(0)
print("   F  score      variance  slope")
for width in (1, 64, 1024):
    for name in ("q·k", "q·k / √F"):
        numbers = variance[name, width], slope[name, width]
        print(f"{width:4}  {name:9}", "{:9.1f}  {:5.2f}".format(*numbers))

figure, axes = plt.subplots(1, 2)
for name in ("q·k", "q·k / √F"):
    axes[0].loglog(
        widths, [variance[name, w] for w in widths], "o-", label=name
    )
    axes[1].semilogx(widths, [slope[name, w] for w in widths], "o-")
axes[0].set(xlabel="width F", ylabel="variance of the scores")
axes[1].set(xlabel="width F", ylabel="slope of softmax", ylim=(0, 1))
axes[0].legend()
# --8<-- [end:scale]

# --8<-- [start:saturation]
figure, axes = plt.subplots(1, 2, sharey=True)
for axis, name in zip(axes, ("q·k", "q·k / √F"), strict=True):
    for width in (4, 64, 1024):
        weights, label = ranked[name, width], f"F = {width}"
        axis.plot(range(1, 17), weights, "o-", label=label)
    axis.set(title=name, xlabel="rank of the key")
axes[0].set_ylabel("mean weight")
axes[1].legend()
# --8<-- [end:saturation]

# --8<-- [start:heads]
layer = MultiHeadAttention(heads=2)
x = rng.normal(size=(1, 5, 8)).astype("float32")
output, weights = layer(x, return_weights=True)
print("output", output.shape, "weights", weights.shape)

projected = [
    np.array(dense(x[0])) for dense in (layer.query, layer.key, layer.value)
]
narrow = [
    attend(*(array[:, 4 * h : 4 * h + 4] for array in projected))[0]
    for h in range(2)
]  # (1)!
by_hand = layer.merge(np.concatenate(narrow, axis=-1))  # (2)!
print("the same by hand:", np.allclose(by_hand, output[0], atol=1e-6))
print("parameters:", layer.count_params(), "=", 4 * 8 * 8 + 4 * 8)
# --8<-- [end:heads]

# --8<-- [start:data]
train, test = datasets.japanese_vowels()
real = train.x[train.mask]


def standardize(part):
    x = (part.x - real.mean(0)) / real.std(0)
    return np.where(part.mask[..., None], x, 0).astype("float32")  # (1)!


voices = standardize(train), train.mask, train.y
unheard = standardize(test), test.mask, test.y
print("train", voices[0].shape, "test", unheard[0].shape)
print("steps:", train.mask.sum(1).min(), "to", train.mask.sum(1).max())
print(f"padding: {1 - train.mask.mean():.0%} of all steps")
# --8<-- [end:data]


# --8<-- [start:network]
def network(attends, classes):
    steps = keras.Input((None, 12))
    mask = keras.Input((1, None), dtype="bool")
    x = keras.layers.Dense(16, name="embed")(steps)
    if attends:
        x += MultiHeadAttention(4, name="read")(x, attention_mask=mask)
    else:
        hidden = keras.layers.Dense(32, activation="relu")(x)
        x += keras.layers.Dense(16)(hidden)  # (1)!
    x = keras.layers.Dense(32, activation="relu")(x)
    nothing = ops.zeros_like(x[:, :1])
    mean, _ = scaled_dot_product_attention(nothing, x, x, mask)  # (2)!
    logits = keras.layers.Dense(classes)(mean[:, 0])
    return keras.Model([steps, mask], logits)


# --8<-- [end:network]


# --8<-- [start:contest]
def contest(data, classes, epochs):
    keras.utils.set_random_seed(0)
    both = [network(a, classes) for a in (False, True) for _ in range(3)]
    inputs = both[0].inputs
    logits = [one(inputs) for one in both]
    model = keras.Model(inputs, ops.stack(logits, axis=1))  # (1)!
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=20,
    )
    x, mask, y = data
    model.fit(
        [x, mask[:, None]],
        np.tile(y[:, None], 6),
        batch_size=54,
        epochs=epochs,
        verbose=0,
    )
    return both


def answers(one, x, mask):
    return np.array(one([x, mask[:, None]])).argmax(-1)


def report(both, data):
    x, mask, y = data
    right = [(answers(one, x, mask) == y).mean() for one in both]
    for name, three in [("each step alone", 0), ("attention", 3)]:
        scores = right[three : three + 3]
        print(f"{name}, {both[three].count_params()} parameters:")
        low, mean, high = min(scores), np.mean(scores), max(scores)
        print(f"  right {mean:.3f} ({low:.3f} to {high:.3f})")


# --8<-- [end:contest]

# --8<-- [start:who]
speakers = contest(voices, classes=9, epochs=20)
report(speakers, unheard)
# --8<-- [end:who]


# --8<-- [start:splice]
def splice(x, mask, y, rng):
    joined, allowed = np.zeros_like(x), np.zeros_like(mask)
    two = rng.integers(0, 2, len(y))
    for i in range(len(y)):
        other = (y != y[i]) if two[i] else (y == y[i])
        other[i] = False
        j = rng.choice(np.flatnonzero(other))
        first, second = x[i, mask[i]], x[j, mask[j]]
        steps = np.concatenate(
            [first[: len(first) // 2], second[len(second) // 2 :]]
        )
        joined[i, : len(steps)] = steps
        allowed[i, : len(steps)] = True
    return joined, allowed, two


rng = np.random.default_rng(0)
parts = [splice(*voices, rng) for _ in range(4)]
spliced = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
parts = [splice(*unheard, rng) for _ in range(2)]
unheard_spliced = [
    np.concatenate(arrays) for arrays in zip(*parts, strict=True)
]
pairs = contest(spliced, classes=2, epochs=15)
report(pairs, unheard_spliced)
# --8<-- [end:splice]

# --8<-- [start:map]
judge = pairs[3]
embed = keras.Model(judge.inputs, judge.get_layer("embed").output)
x, mask, two = unheard_spliced
_, weights = judge.get_layer("read")(
    embed([x, mask[:, None]]),
    attention_mask=mask[:, None],
    return_weights=True,
)
weights = np.array(weights)  # (1)!
seams = np.tile(unheard[1].sum(-1) // 2, 2)  # (2)!
across = [
    weights[i, :, :seam, seam:].sum(-1).mean() for i, seam in enumerate(seams)
]
print("share read across the seam")
for name, rows in [("two voices", two == 1), ("one voice", two == 0)]:
    print(f"  {name}: {np.array(across)[rows].mean():.2f}")

shown = np.flatnonzero(two)[0]
steps, seam = mask[shown].sum(), seams[shown]
figure, axes = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(5.6, 5))
for head, axis in enumerate(axes.flat):
    drawn = axis.imshow(
        weights[shown, head, :steps, :steps], vmin=0, vmax=1, cmap="Blues"
    )
    axis.axvline(seam - 0.5, color="C4")
    axis.axhline(seam - 0.5, color="C4")
    axis.set(title=f"head {head + 1}", yticks=[0, 5, 10])
figure.supxlabel("key")
figure.supylabel("query")
figure.colorbar(drawn, ax=axes, shrink=0.6)
# --8<-- [end:map]


# --8<-- [start:forgotten]
def padded(x, mask, steps):
    more = steps - x.shape[1]
    return (
        np.pad(x, [(0, 0), (0, more), (0, 0)]),
        np.pad(mask, [(0, 0), (0, more)]),
    )


x, mask, y = unheard
for steps in (29, 60, 120):
    longer, real = padded(x, mask, steps)
    all_true = np.ones_like(real)
    for name, used in [("mask", real), ("no mask", all_true)]:
        given = [answers(one, longer, used) for one in speakers[3:]]
        right = np.mean([a == y for a in given])
        print(f"padded to {steps:3}, {name:7}: right {right:.3f}")
# --8<-- [end:forgotten]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    samples, queries, keys, heads, head = rng.integers(2, 17, 5).tolist()
    width = heads * head
    query = rng.normal(size=(samples, queries, width)).astype("float32")
    memory = rng.normal(size=(samples, keys, width)).astype("float32")
    mask = rng.random((samples, queries, keys)) < 0.7
    mask[..., 0] = True  # (1)!
    ours = MultiHeadAttention(heads)
    ours.build(query.shape, memory.shape)
    theirs = keras.layers.MultiHeadAttention(heads, head)
    theirs.build(query.shape, memory.shape)
    weights = [
        rng.normal(size=w.shape) / np.sqrt(width) for w in theirs.weights
    ]
    theirs.set_weights(weights)
    shapes = [w.shape for w in ours.weights]
    ours.set_weights(
        [w.reshape(s) for w, s in zip(weights, shapes, strict=True)]
    )  # (2)!
    a = np.array(ours(query, memory, attention_mask=mask))
    b = np.array(theirs(query, memory, attention_mask=mask))
    return width, np.abs(a - b).max() / np.abs(b).max()


found = np.array([agreement(trial) for trial in range(20)])
print("largest difference below 1e-5:", found[:, 1].max() < 1e-5)

figure, axis = plt.subplots()
axis.semilogy(found[:, 0], found[:, 1], "o", label="20 random layers")
axis.axhline(1e-5, color="C4", label="limit in the tests")
axis.axhline(2**-23, color="C1", label="one step of float32")
axis.set(xlabel="width D", ylabel="relative difference", ylim=(3e-8, 3e-5))
axis.legend(loc="center right")
# --8<-- [end:peer]

# --8<-- [start:invariants]
rng = np.random.default_rng(0)
query, key, value = rng.normal(size=(3, 6, 4))
mask = np.arange(6) < 4
read, weights = scaled_dot_product_attention(query, key, value, mask)

changed_key, changed_value = key.copy(), value.copy()
changed_key[4:], changed_value[4:] = 99, -99
same, _ = scaled_dot_product_attention(query, changed_key, changed_value, mask)
order = rng.permutation(6)
shuffled, _ = scaled_dot_product_attention(query[order], key, value, mask)
print("rows sum to 1:", np.allclose(ops.sum(weights, -1), 1))
print("hidden keys are not read:", np.array_equal(read, same))
print("queries do not meet:", np.allclose(shuffled, np.array(read)[order]))
# --8<-- [end:invariants]


# --8<-- [start:half]
def softmax(scores):
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


mask = np.array([[True, True, False], [False, False, False]])
for dtype in ("float32", "float16"):
    scores = np.array([[1, 2, 3], [1, 2, 3]], dtype)
    with np.errstate(all="ignore"):
        hide = (1 - mask.astype(dtype)) * np.array(-1e9, dtype)  # (1)!
        print(dtype, "with -1e9:")
        print(softmax(scores + hide).round(2))

query = np.ones((2, 1), "float16")
key = np.array([[1], [2], [3]], "float16")
_, weights = scaled_dot_product_attention(query, key, key, mask)
print("float16, as on this page:")
print(np.array(weights).round(2))
# --8<-- [end:half]

# --8<-- [start:axes]
scores = np.array([[2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
print("over keys:", softmax(scores).sum(-1).round(2))
wrong = softmax(scores.T).T  # (1)!
print("over queries:", wrong.sum(-1).round(2))

for samples in (2, 5):
    x = np.zeros((samples, 5, 4))
    real = np.ones((samples, 5), dtype=bool)  # (2)!
    try:
        scaled_dot_product_attention(x, x, x, real)
        print(samples, "samples: accepted")
    except ValueError as error:
        print(samples, "samples:", str(error)[:33], "...")
# --8<-- [end:axes]

# --8<-- [start:cost]
heads = 16
print(" steps            weights     float16")
for steps in (512, 4096, 32768, 262144):
    weights = heads * steps * steps
    print(f"{steps:6} {weights:18,} {2 * weights / 2**30:7.2f} GiB")
# --8<-- [end:cost]

# --8<-- [start:solution-causal]
rng = np.random.default_rng(1)
layer = MultiHeadAttention(heads=2)
x = rng.normal(size=(1, 6, 8)).astype("float32")
before = np.array(layer(x, attention_mask=causal_mask(6)))
influence = np.zeros((6, 6), dtype=bool)
for step in range(6):
    moved = x.copy()
    moved[:, step] += 1
    after = np.array(layer(moved, attention_mask=causal_mask(6)))
    influence[:, step] = np.abs(after - before).max(axis=(0, 2)) > 0
print(influence.astype(int))
assert np.array_equal(influence, np.tril(np.ones((6, 6))))
# --8<-- [end:solution-causal]

# --8<-- [start:solution-kernel]
query, key = pixels[1500:], pixels[:1500]
_, weights = scaled_dot_product_attention(query, key, key)

lengths = (query**2).sum(-1)[:, None] + (key**2).sum(-1)
squared = lengths - 2 * query @ key.T
bandwidth = 64**0.25  # (1)!
kernel = np.exp(-squared / (2 * bandwidth**2))
kernel /= kernel.sum(-1, keepdims=True)
assert np.allclose(weights, kernel)

longer = key * np.linspace(1, 2, 1500)[:, None]
_, weights = scaled_dot_product_attention(query, longer, longer)
place = np.array(weights) @ np.arange(1500)
print(f"mean place read: {place.mean():.1f} of 1499")
assert (np.array(weights).argmax(-1) > 1000).all()  # (2)!
# --8<-- [end:solution-kernel]

# --8<-- [start:solution-cross]
rng = np.random.default_rng(2)
layer = MultiHeadAttention(heads=2)
query = rng.normal(size=(1, 4, 8)).astype("float32")
memory = rng.normal(size=(1, 7, 6)).astype("float32")
read = np.array(layer(query, memory))

new = rng.permutation(7)
assert np.allclose(layer(query, memory[:, new]), read, atol=1e-6)
new = rng.permutation(4)
assert np.allclose(layer(query[:, new], memory), read[:, new], atol=1e-6)

place = np.arange(7, dtype="float32")[:, None]
told = np.array(layer(query, memory + place))
shuffled = np.array(layer(query, memory[:, ::-1] + place))
print("told apart:", not np.allclose(told, shuffled, atol=1e-3))
assert not np.allclose(told, shuffled, atol=1e-3)
# --8<-- [end:solution-cross]
