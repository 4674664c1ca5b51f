# --8<-- [start:by-hand]
import numpy as np

x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
xor = np.array([0, 1, 1, 0])

w1, b1 = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([0.0, -1.0])  # (1)!
w2, b2 = np.array([[1.0], [-2.0]]), np.array([0.0])

z = x @ w1 + b1
h = np.maximum(z, 0)  # (2)!
y = h @ w2 + b2
for row in range(4):
    print(f"x {x[row]}  z {z[row]}  h {h[row]}  y {y[row]}  is {xor[row]}")
# --8<-- [end:by-hand]

# --8<-- [start:layers]
from aimodels.mlp import Layer, forward, initialize, parameter_count

hand = [Layer(w1, b1, "relu"), Layer(w2, b2, "linear")]
print("output", forward(x, hand)[:, 0])
print("parameters", parameter_count([2, 2, 1]))

drawn = initialize([64, 32, 10], np.random.default_rng(0))  # (1)!
for layer in drawn:
    print(layer.weights.shape, layer.bias.shape, layer.activation, end="  ")
    print(f"deviation {layer.weights.std():.2f}")
print("parameters", parameter_count([64, 32, 10]))
# --8<-- [end:layers]

# --8<-- [start:one-layer]
from aimodels.mlp import train

rng = np.random.default_rng(0)
start = initialize([2, 2], rng)  # (1)!
line, losses = train(x, xor, start, rng, rate=0.5, epochs=2000)
logits = forward(x, line)
chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
print("probability of 1:", chance[:, 1].round(3))
print(f"loss {losses[-1]:.4f}, log 2 is {np.log(2):.4f}")

lines = rng.normal(size=(3, 100_000))
answers = x @ lines[:2] + lines[2] > 0  # (2)!
right = (answers == xor[:, None]).sum(axis=0)
print("best of 100,000 random lines:", right.max(), "of 4 right")
# --8<-- [end:one-layer]

# --8<-- [start:fold]
import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

TWO = ListedColormap(["#2b7bd6", "#d9730d"])
side = np.linspace(-0.5, 1.5, 81)
plane = np.array([[p, q] for q in side for p in side])
box = (-0.5, 1.5, -0.5, 1.5)


def draw_regions(axis, answer, hidden):
    axis.imshow(
        answer.reshape(81, 81), TWO, extent=box, origin="lower", alpha=0.3
    )
    ends = np.array([-0.5, 1.5])
    corners = np.array([[p, q] for q in ends for p in ends])
    bends = corners @ hidden.weights + hidden.bias
    for unit in bends.T:  # (1)!
        axis.contour(ends, ends, unit.reshape(2, 2), [0], colors="C7")
    axis.scatter(*x.T, c=xor, cmap=TWO, s=60, zorder=3)
    axis.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 1], yticks=[0, 1])


figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.9))
draw_regions(axes[0], forward(plane, hand)[:, 0] > 0.5, hand[0])
axes[0].set_title("input")
axes[1].scatter(*h.T, c=xor, cmap=TWO, s=60)  # (2)!
axes[1].plot([0.2, 2.5], [-0.15, 1.0], color="C7")
for place, name in (
    ((0.1, 0.1), "(0, 0)"),
    ((1.1, -0.1), "(0, 1), (1, 0)"),
    ((1.75, 1.1), "(1, 1)"),
):
    axes[1].text(*place, name)
axes[1].set(title="hidden units", xlabel="$h_1$", ylabel="$h_2$")
axes[1].set(xlim=(-0.3, 2.6), ylim=(-0.3, 1.4), xticks=[0, 1, 2], yticks=[0, 1])
# --8<-- [end:fold]

# --8<-- [start:learned]
from collections import Counter


def learn_xor(units, seed, activation="relu"):
    rng = np.random.default_rng(seed)
    start = initialize([2, units, 2], rng, activation)
    layers, losses = train(x, xor, start, rng, rate=1.0, epochs=200)
    solved = np.array_equal(forward(x, layers).argmax(axis=1), xor)
    return layers, losses[-1], solved


runs = {}
for units in (2, 3, 4, 8):
    runs[units] = [learn_xor(units, seed) for seed in range(20)]
    stuck = Counter(
        f"{loss:.2f}" for _, loss, solved in runs[units] if not solved
    )
    smooth = [learn_xor(units, seed, "tanh")[2] for seed in range(20)]
    print(f"{units} units: {20 - stuck.total():2} of 20", end="")
    print(f", with tanh {sum(smooth):2}", end="")
    print("; stuck", end=" ")
    print(", ".join(f"{n} at {loss}" for loss, n in sorted(stuck.items())))

pair, odd = np.log(2), -(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3  # (1)!
print(f"2 points alike {pair / 2:.2f}, 3 {odd * 3 / 4:.2f}, 4 {pair:.2f}")
# --8<-- [end:learned]

# --8<-- [start:regions]
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.6), sharey=True)
for axis, units, seed, words in (
    (axes[0], 2, 4, "2 units, stuck"),
    (axes[1], 2, 6, "2 units, solved"),
    (axes[2], 8, 0, "8 units, solved"),
):
    layers, _, _ = runs[units][seed]
    draw_regions(axis, forward(plane, layers).argmax(axis=1), layers[0])
    axis.set_title(words)
    axis.label_outer()
# --8<-- [end:regions]

# --8<-- [start:digits]
from aimodels.datasets import digits, split

table = digits()
pixels = table.x.reshape(1797, 64) / 16  # (1)!


def accuracy(rows, layers, inputs=pixels, labels=table.y):
    answers = forward(inputs[rows], layers).argmax(axis=1)
    return np.mean(answers == labels[rows])


def measure(hidden, seed, inputs=pixels, activation="relu", rate=0.2):
    rng = np.random.default_rng(seed)
    rows, held = split(1797, test=500, rng=rng)
    start = initialize([64, *hidden, 10], rng, activation)
    x_train, y_train = inputs[rows], table.y[rows]
    layers, _ = train(
        x_train, y_train, start, rng, rate=rate, epochs=30, batch=32
    )
    return accuracy(rows, layers, inputs), accuracy(held, layers, inputs)


def report(hidden, **options):
    found = np.array([measure(hidden, seed, **options) for seed in range(5)])
    mean, spread = 100 * found.mean(axis=0), 100 * found.std(axis=0)
    name = f"{len(hidden)} × {hidden[0]}" if hidden else "none"
    print(f"{name:7} {parameter_count([64, *hidden, 10]):5} parameters", end="")
    for part, m, s in zip(("train", "test"), mean, spread, strict=True):
        print(f"  {part} {m:4.1f} ± {s:.1f}", end="")
    print("", *(f" {options[key]}" for key in options if key != "inputs"))
    return mean, spread


widths = (4, 8, 16, 32, 64)
none = report([])
report([], rate=1.0)  # (2)!
wide = np.array([report([width]) for width in widths])

figure, axis = plt.subplots(figsize=(5.6, 3.2))
for part, name in enumerate(("train", "test")):
    axis.errorbar(
        widths, wide[:, 0, part], wide[:, 1, part], fmt="o-", label=name
    )
    axis.axhline(none[0][part], ls="--", color=f"C{part}")
axis.set_xscale("log", base=2)
axis.set_xticks(widths, map(str, widths))
axis.set(xlabel="hidden units", ylabel="accuracy (%)", ylim=(78, 101))
axis.legend(loc="lower right")
# --8<-- [end:digits]

# --8<-- [start:depth]
for depth, width in ((2, 42), (4, 30)):
    report([width] * depth)

tests = [measure([19] * 10, seed)[1] for seed in range(3)]  # (1)!
count = parameter_count([64] + [19] * 10 + [10])
reached = sum(100 * test >= none[0][1] for test in tests)
print(f"10 × 19  {count} parameters", end="")
print("  seeds of 3 that reach softmax regression:", reached)
# --8<-- [end:depth]

# --8<-- [start:filters]
rng = np.random.default_rng(0)
rows, held = split(1797, test=500, rng=rng)
start = initialize([64, 16, 10], rng)
x_train, y_train = pixels[rows], table.y[rows]
small, _ = train(x_train, y_train, start, rng, rate=0.2, epochs=30, batch=32)
limit = np.abs(small[0].weights).max()
figure, axes = plt.subplots(2, 8, figsize=(6.4, 1.9))
for axis, weights in zip(axes.flat, small[0].weights.T, strict=True):
    axis.imshow(weights.reshape(8, 8), "RdBu", vmin=-limit, vmax=limit)
    axis.set_axis_off()
moved = small[0].weights - start[0].weights
print(f"size of the change: {np.sqrt(np.mean(moved**2)):.2f}", end="")
print(f"  of the draw: {start[0].weights.std():.2f}")
# --8<-- [end:filters]

# --8<-- [start:peers]
from itertools import pairwise

import keras

rng = np.random.default_rng(0)
names = ("linear", "relu", "tanh", "sigmoid")
worst = {"float64": 0.0, "float32": 0.0}
for _ in range(8):
    sizes = rng.integers(1, 65, size=rng.integers(2, 7)).tolist()  # (1)!
    chosen = rng.choice(names, len(sizes) - 1)
    layers = [
        Layer(rng.normal(size=(d, e)) / np.sqrt(d), rng.normal(size=e), name)
        for (d, e), name in zip(pairwise(sizes), chosen, strict=True)
    ]
    inputs = rng.normal(size=(rng.integers(1, 200), sizes[0]))
    ours = forward(inputs, layers)
    for precision, before in worst.items():
        stack = keras.Sequential(
            [keras.Input((sizes[0],), dtype=precision)]
            + [
                keras.layers.Dense(e, activation=str(name), dtype=precision)
                for e, (_, _, name) in zip(sizes[1:], layers, strict=True)
            ]
        )
        stack.set_weights([part for layer in layers for part in layer[:2]])
        off = np.abs(stack(inputs) - ours).max() / np.abs(ours).max()
        worst[precision] = max(before, off)
        assert stack.count_params() == parameter_count(sizes)
print("float64, difference below 1e-14:", worst["float64"] < 1e-14)
print("float32, difference below 1e-5: ", worst["float32"] < 1e-5)
# --8<-- [end:peers]

# --8<-- [start:zeros]
rng = np.random.default_rng(0)
for size in (0.0, 0.1):
    equal = [
        Layer(np.full((d, e), size), np.zeros(e), name)
        for d, e, name in ((64, 64, "relu"), (64, 10, "linear"))
    ]
    layers, _ = train(
        x_train, y_train, equal, rng, rate=0.2, epochs=30, batch=32
    )
    kinds = np.unique(layers[0].weights.round(9), axis=1).shape[1]
    print(f"all {size}: kinds of hidden unit {kinds},", end=" ")
    print(f"test accuracy {100 * accuracy(held, layers):.1f}")
# --8<-- [end:zeros]

# --8<-- [start:scale]
for factor in (1 / 256, 1):
    print(f"0 to {16 * factor:6}: ", end="")
    report([64], inputs=table.x.reshape(1797, 64) * factor)
# --8<-- [end:scale]

# --8<-- [start:linear]
report([64, 64], activation="linear")
chain = initialize([64, 64, 64, 10], rng, "linear")
product = chain[0].weights @ chain[1].weights @ chain[2].weights
off = np.abs(forward(pixels, chain) - pixels @ product).max()
print("three layers equal one matrix:", off < 1e-12)
# --8<-- [end:linear]

# --8<-- [start:leak]
tossed = np.random.default_rng(1).integers(10, size=400)  # (1)!
for copies in (1, 2):
    shown, labels = np.tile(pixels[:400], (copies, 1)), np.tile(tossed, copies)
    rng = np.random.default_rng(0)
    rows, held = split(400 * copies, test=100 * copies, rng=rng)
    start = initialize([64, 128, 10], rng)
    layers, _ = train(
        shown[rows], labels[rows], start, rng, rate=0.2, epochs=150, batch=32
    )
    print(f"{copies} of each image:", end="")
    for name, part in (("train", rows), ("test", held)):
        share = accuracy(part, layers, shown, labels)
        print(f"  {name} {100 * share:.1f}", end="")
    print()
# --8<-- [end:leak]

# --8<-- [start:solution-bias]
ends = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[1.0], [1.0]])
hidden = np.maximum(x @ ends[0], 0)  # (1)!
print("hidden", *hidden, " output", (hidden @ ends[1])[:, 0])
assert np.array_equal((hidden @ ends[1])[:, 0], xor)
assert not any(learn_xor(1, seed)[2] for seed in range(20))
# --8<-- [end:solution-bias]


# --8<-- [start:solution-bends]
def by_bends(curve, bends):
    at = np.linspace(0, 2 * np.pi, bends + 1)
    slopes = np.diff(curve(at)) / np.diff(at)
    changes = np.diff(slopes, prepend=0)  # (1)!
    first = Layer(np.ones((1, bends)), -at[:-1], "relu")
    return [first, Layer(changes[:, None], curve(at[:1]), "linear")]


fine = np.linspace(0, 2 * np.pi, 10_001)[:, None]
errors = {}
for bends in (4, 8, 16, 32, 64):
    guess = forward(fine, by_bends(np.sin, bends))
    errors[bends] = np.abs(guess - np.sin(fine)).max()
    print(f"{bends:2} units: largest error {errors[bends]:.4f}")
assert 3.8 < errors[32] / errors[64] < 4.2
outside = forward(np.array([[10.0]]), by_bends(np.sin, 64))[0, 0]
print(f"at 10: {outside:.2f}, sine {np.sin(10):.2f}")
# --8<-- [end:solution-bends]

# --8<-- [start:solution-twins]
import math

first, last = small
order = np.random.default_rng(0).permutation(16)
scale = np.linspace(0.5, 3, 16)
twin = [
    Layer(
        (first.weights * scale)[:, order], (first.bias * scale)[order], "relu"
    ),
    Layer((last.weights / scale[:, None])[order], last.bias, "linear"),
]
assert np.allclose(forward(pixels, twin), forward(pixels, small))
assert not np.allclose(twin[0].weights, first.weights)
print(f"16 units can be ordered in {math.factorial(16):.1e} ways")
# --8<-- [end:solution-twins]
