# --8<-- [start:by-hand]
import numpy as np

x = np.array([[1.0, 2.0], [2.0, 1.0]])
truth = np.array([[1.0, 0.0], [0.0, 1.0]])  # (1)!
w1, b1 = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]), np.array([0, 1.0, -3])
w2, b2 = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), np.log([3.0, 1.0])


def forward(x, w1, b1, w2, b2):
    z1 = x @ w1 + b1
    h1 = np.maximum(z1, 0)
    z2 = h1 @ w2 + b2
    return z1, h1, z2


def softmax(z):
    raised = np.exp(z - z.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def cross_entropy(z, truth):
    return -np.mean(np.log((softmax(z) * truth).sum(axis=1)))


def backward(x, truth, kept, w2):
    z1, h1, z2 = kept
    g2 = (softmax(z2) - truth) / len(x)  # (2)!
    by_w2 = h1.T @ g2
    by_b2 = g2.sum(axis=0)
    by_h1 = g2 @ w2.T
    g1 = by_h1 * (z1 > 0)  # (3)!
    by_w1 = x.T @ g1
    by_b1 = g1.sum(axis=0)
    return g2, by_w2, by_b2, by_h1, g1, by_w1, by_b1


kept = z1, h1, z2 = forward(x, w1, b1, w2, b2)
for name, found in (("z1", z1), ("h1", h1), ("p", softmax(z2).round(9))):
    print(f"{name:5}", *found)
print(f"loss  {cross_entropy(z2, truth):.3f}")
print("in eighths:")
names = ("G2", "by W2", "by b2", "by h1", "G1", "by W1", "by b1")
by_hand = backward(x, truth, kept, w2)
for name, gradient in zip(names, by_hand, strict=True):
    print(f"{name:5}", *(8 * np.atleast_2d(gradient)).round(9) + 0)
# --8<-- [end:by-hand]

# --8<-- [start:hidden-loss]
swapped = w2[:, ::-1]
for last in (w2, swapped):
    by_h1 = backward(x, truth, (z1, h1, h1 @ last + b2), last)[3]
    print("by h1", *(8 * by_h1).round(9) + 0)
# --8<-- [end:hidden-loss]

# --8<-- [start:scalar]
from aimodels.backprop import Scalar

a, b = Scalar(3), Scalar(2)
u = a * b
v = u + a
f = u * v
f.backward()
for name, node in zip("abuvf", (a, b, u, v, f), strict=True):
    print(f"{name}  value {node.value:2.0f}  gradient {node.gradient:2.0f}")
# --8<-- [end:scalar]

# --8<-- [start:engine]
import inspect

print(inspect.getsource(Scalar.__mul__))
print(inspect.getsource(Scalar.backward))
# --8<-- [end:engine]

# --8<-- [start:arrays]
to_scalars = np.vectorize(Scalar, otypes=[object])
gradient_of = np.vectorize(lambda node: node.gradient, otypes=[float])


def scalar_loss(x, truth, parts, bend=np.tanh):
    w1, b1, w2, b2 = parts
    z = bend(x @ w1 + b1) @ w2 + b2  # (1)!
    losses = np.log(np.exp(z).sum(axis=1)) - (truth * z).sum(axis=1)
    return losses.sum() / len(x)


relu = np.frompyfunc(Scalar.relu, 1, 1)
nodes = [to_scalars(part) for part in (w1, b1, w2, b2)]
loss = scalar_loss(x, truth, nodes, relu)
loss.backward()
print(f"loss {loss.value:.6f}, graph of {len(loss.graph())} scalars")
ours = [gradient_of(part) for part in nodes]
print("by W1, in eighths", *(8 * ours[0]).round(9))
# --8<-- [end:arrays]

# --8<-- [start:digits]
from aimodels import mlp
from aimodels.datasets import breast_cancer, digits, split, standardize

table = digits()
pixels, one_hot = table.x.reshape(1797, 64) / 16, np.eye(10)[table.y]


def learn(seed, rate=0.2, mean=True):
    rng = np.random.default_rng(seed)
    rows, held = split(1797, test=500, rng=rng)
    (w1, b1, _), (w2, b2, _) = mlp.initialize([64, 64, 10], rng)
    for _ in range(30):
        order = rng.permutation(rows)
        for first in range(0, len(rows), 32):
            part = order[first : first + 32]
            x, truth = pixels[part], one_hot[part]
            kept = forward(x, w1, b1, w2, b2)
            found = backward(x, truth, kept, w2)
            if not mean:
                found = [len(x) * gradient for gradient in found]
            _, by_w2, by_b2, _, _, by_w1, by_b1 = found
            w1, b1 = w1 - rate * by_w1, b1 - rate * by_b1
            w2, b2 = w2 - rate * by_w2, b2 - rate * by_b2
    answers = forward(pixels[held], w1, b1, w2, b2)[2].argmax(axis=1)
    return 100 * np.mean(answers == table.y[held]), w1


runs = [learn(seed) for seed in range(5)]
tests = [accuracy for accuracy, _ in runs]
print(f"test accuracy {np.mean(tests):.1f} ± {np.std(tests):.1f}")

rng = np.random.default_rng(0)
rows, _ = split(1797, test=500, rng=rng)
start = mlp.initialize([64, 64, 10], rng)
trained, _ = mlp.train(
    pixels[rows], table.y[rows], start, rng, rate=0.2, epochs=30, batch=32
)
off = np.abs(trained[0].weights - runs[0][1]).max()
print("same weights as mlp.train:", off < 1e-9)
# --8<-- [end:digits]

# --8<-- [start:masses]
masses = breast_cancer()
two = [masses.names.index(name) for name in ("worst radius", "worst texture")]
rng = np.random.default_rng(0)
rows, held = split(569, test=169, rng=rng)
seen, unseen = standardize(masses.x[rows][:, two], masses.x[held][:, two])
labels, answers = masses.y[rows], masses.y[held]
start = mlp.initialize([2, 4, 2], rng, "tanh")
parts = [part for layer in start for part in layer[:2]]
worst = 0.0
for _ in range(100):
    batch = rng.choice(400, size=16, replace=False)
    nodes = [to_scalars(part) for part in parts]
    loss = scalar_loss(seen[batch], np.eye(2)[labels[batch]], nodes)
    loss.backward()
    slopes = [gradient_of(part) for part in nodes]
    network = [mlp.Layer(*parts[:2], "tanh"), mlp.Layer(*parts[2:])]
    _, pairs = mlp.loss_and_gradients(seen[batch], labels[batch], network)
    for ours, theirs in zip(slopes, [g for p in pairs for g in p], strict=True):
        worst = max(worst, np.abs(ours - theirs).max())
    parts = [p - 0.5 * g for p, g in zip(parts, slopes, strict=True)]
count = sum(part.size for part in parts)
print(f"{count} parameters, {len(loss.graph())} scalars")
print("100 steps, difference to NumPy below 1e-14:", worst < 1e-14)
network = [mlp.Layer(*parts[:2], "tanh"), mlp.Layer(*parts[2:])]
right = mlp.forward(unseen, network).argmax(axis=1) == answers
print(f"held-out masses right: {right.sum()} of 169,", end=" ")
print(f"all benign: {np.sum(answers == 0)}")
# --8<-- [end:masses]

# --8<-- [start:cost]
from collections import Counter

products = Counter()


def times(a, b, way):
    products[way] += a.shape[0] * a.shape[1] * b.shape[1]
    return a @ b


x, truth = pixels[:32], one_hot[:32]
print("layers  forward  back/forward  kept  parameters")
for depth in (1, 2, 4, 8, 16):
    widths = [64] * depth + [10]
    layers = mlp.initialize(widths, np.random.default_rng(0))
    products.clear()
    kept = [x]
    for weights, bias, name in layers:
        z = times(kept[-1], weights, "forward") + bias
        kept.append(np.maximum(z, 0) if name == "relu" else z)
    g = (softmax(kept[-1]) - truth) / len(x)
    for k in reversed(range(depth)):
        by_weights = times(kept[k].T, g, "back")
        if k:
            g = times(g, layers[k].weights.T, "back") * (kept[k] > 0)
    _, pairs = mlp.loss_and_gradients(x, table.y[:32], layers)
    assert np.allclose(by_weights, pairs[0][0])
    ratio = products["back"] / products["forward"]
    numbers = sum(h.size for h in kept[1:])
    print(f"{depth:6} {products['forward']:8,} {ratio:13.2f}", end="")
    print(f" {numbers:6,} {mlp.parameter_count(widths):10,}")
# --8<-- [end:cost]


# --8<-- [start:modes]
def sweep_forward(order, start):
    change = dict.fromkeys(order, 0.0)
    change[start] = 1.0
    for node in order:
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            change[node] += slope * change[parent]
    return change[order[-1]]


row, one = seen[:1], np.eye(2)[labels[:1]]
print("parameters  products: one sweep back  all sweeps forward")
for units in (1, 4, 16, 64):
    layers = mlp.initialize([2, units, 2], np.random.default_rng(0), "tanh")
    nodes = [to_scalars(part) for layer in layers for part in layer[:2]]
    loss = scalar_loss(row, one, nodes)
    loss.backward()
    order = loss.graph()
    edges = sum(len(node.parents) for node in order)
    inputs = [node for part in nodes for node in part.flat]
    for node in inputs:
        assert np.isclose(sweep_forward(order, node), node.gradient)
    print(f"{len(inputs):10} {edges:25,} {edges * len(inputs):19,}")
# --8<-- [end:modes]


# --8<-- [start:differences]
def central_differences(loss, part, step=1e-5):
    slopes = np.empty_like(part)
    for place in np.ndindex(part.shape):
        ends = []
        for nudge in (step, -step):
            moved = part.copy()
            moved[place] += nudge
            ends.append(loss(moved))
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def by_differences(x, truth, parts):
    found = []
    for n, part in enumerate(parts):

        def loss(moved, n=n):
            changed = [*parts[:n], moved, *parts[n + 1 :]]
            return cross_entropy(forward(x, *changed)[2], truth)

        found.append(central_differences(loss, part))
    return found


# --8<-- [end:differences]

# --8<-- [start:agreement]
import tensorflow as tf

rng = np.random.default_rng(0)
worst = Counter()
for _ in range(12):
    batch, *widths = rng.integers(1, 7, size=4).tolist()  # (1)!
    d, h, c = widths
    shapes = ((d, h), (h,), (h, c), (c,))
    parts = [rng.normal(size=shape) for shape in shapes]
    x = rng.normal(size=(batch, d))
    truth = np.eye(c)[rng.integers(c, size=batch)]
    found = backward(x, truth, forward(x, *parts), parts[2])
    ours = [found[n] for n in (5, 6, 1, 2)]

    variables = [tf.Variable(part) for part in parts]
    with tf.GradientTape() as tape:
        hidden = tf.nn.relu(x @ variables[0] + variables[1])
        logits = hidden @ variables[2] + variables[3]
        losses = tf.nn.softmax_cross_entropy_with_logits(truth, logits)
        loss = tf.reduce_mean(losses)
    others = {"tape": [g.numpy() for g in tape.gradient(loss, variables)]}

    nodes = [to_scalars(part) for part in parts]
    scalar_loss(x, truth, nodes, relu).backward()
    others["scalars"] = [gradient_of(part) for part in nodes]
    others["differences"] = by_differences(x, truth, parts)
    for name, theirs in others.items():
        for a, b in zip(ours, theirs, strict=True):
            worst[name] = max(worst[name], np.abs(a - b).max())
for name, limit in (("tape", 1e-14), ("scalars", 1e-14), ("differences", 1e-9)):
    print(f"{name:11} largest difference below {limit}: {worst[name] < limit}")
# --8<-- [end:agreement]

# --8<-- [start:nearby]
layers = mlp.initialize([64, 16, 10], np.random.default_rng(0), "tanh")
batch = pixels[:32]
loss, pairs = mlp.loss_and_gradients(batch, table.y[:32], layers)
exact = pairs[0][1]


def loss_at(b1):
    x, w1, w2 = (
        part.astype(b1.dtype)
        for part in (batch, layers[0].weights, layers[1].weights)
    )
    z = np.tanh(x @ w1 + b1) @ w2
    z = z - z.real.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[range(32), table.y[:32]])


def one_sided(b, step):
    units = step * np.eye(16)
    return np.array([(loss_at(b + unit) - loss_at(b)) / step for unit in units])


def complex_step(b, step):
    units = 1j * step * np.eye(16)
    return np.array([loss_at(b + unit).imag / step for unit in units])


# --8<-- [end:nearby]

# --8<-- [start:steps]
import matplotlib.pyplot as plt

b1 = np.zeros(16)
steps = 10.0 ** np.arange(-15, 0.5, 0.5)
ways = {
    "one-sided": lambda step: one_sided(b1, step),
    "central": lambda step: central_differences(loss_at, b1, step),
    "central, float32": lambda step: central_differences(
        loss_at, b1.astype("float32"), step
    ),
    "complex": lambda step: complex_step(b1, step),
}
size = np.linalg.norm(exact)
print(f"loss {loss:.2f}, slopes of size {size / 4:.2f}")
figure, axis = plt.subplots(figsize=(5.6, 3.4))
for name, way in ways.items():
    errors = [np.linalg.norm(way(step) - exact) / size for step in steps]
    powers = np.log10(np.maximum(errors, 1e-15))  # (1)!
    best = np.argmin(powers)
    axis.semilogx(steps, powers, "o-", ms=3, label=name)
    print(f"{name:16}  best step 1e{np.log10(steps[best]):+.1f}", end="  ")
    print(f"error 1e{powers[best]:+.1f}")
axis.set(xlabel="step", ylabel="error, power of ten", ylim=(-16, 2))
axis.set_yticks([-15, -10, -5, 0])
axis.legend(loc="lower left", bbox_to_anchor=(0, 0.08))
# --8<-- [end:steps]


# --8<-- [start:assign]
def careless(result):
    order = result.graph()
    for node in order:
        node.gradient = 0.0
    result.gradient = 1.0
    for node in reversed(order):
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            parent.gradient = node.gradient * slope  # (1)!


a, b = Scalar(3), Scalar(2)
u = a * b
f = u * (u + a)
careless(f)
print("by a", a.gradient, "instead of 36; by b", b.gradient, "instead of 45")
# --8<-- [end:assign]

# --8<-- [start:mean]
runs = {"mean, rate 0.2": tests}
for name, rate in (("sum, rate 0.2", 0.2), ("sum, rate 0.2/32", 0.2 / 32)):
    runs[name] = [learn(seed, rate, mean=False)[0] for seed in range(5)]
for name, found in runs.items():
    mean, spread = np.mean(found), np.std(found)
    print(f"{name:16}  test accuracy {mean:4.1f} ± {spread:.1f}")
# --8<-- [end:mean]

# --8<-- [start:bias]
truth = one_hot[:32]
for name in ("summed", "not summed"):
    bias = np.zeros(10)
    for _ in range(300):
        g = (softmax(np.zeros((32, 10)) + bias) - truth) / 32  # (1)!
        bias = bias - 2 * (g.sum(axis=0) if name == "summed" else g)
    loss = cross_entropy(np.zeros((32, 10)) + bias, truth)
    print(f"{name:10}  bias {bias.shape}  loss {loss:.2f}")
try:
    pixels[:500] @ np.zeros((64, 10)) + bias
except ValueError as error:
    print(error)
# --8<-- [end:bias]

# --8<-- [start:kink]
x = Scalar(0)
y = x.relu() - (-x).relu()
y.backward()
variable = tf.Variable(0.0, dtype="float64")
with tf.GradientTape() as tape:
    same = tf.nn.relu(variable) - tf.nn.relu(-variable)
print("scalar", x.gradient, " tape", tape.gradient(same, variable).numpy())

zero = np.array(0.0)
print("differences of relu", central_differences(lambda x: max(x, 0), zero))
z = pixels @ trained[0].weights + trained[0].bias
print(f"z exactly 0: {np.sum(z == 0)} of {z.size:,}")
# --8<-- [end:kink]

# --8<-- [start:solution-squares]
rng = np.random.default_rng(1)
x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
parts = [rng.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,))]


def squares(w1, b1=parts[1], w2=parts[2], b2=parts[3]):
    return np.sum((forward(x, w1, b1, w2, b2)[2] - y) ** 2) / 5


z1, h1, z2 = forward(x, *parts)
g2 = 2 * (z2 - y) / 5  # (1)!
by_w1 = x.T @ (g2 @ parts[2].T * (z1 > 0))
assert np.allclose(by_w1, central_differences(squares, parts[0]), atol=1e-8)
# --8<-- [end:solution-squares]

# --8<-- [start:solution-tied]
w, (_, b1, _, _) = rng.normal(size=(3, 4)), parts


def rebuilt(w):
    return np.sum((forward(x, w, b1, w.T, 0)[2] - x) ** 2) / 5


z1, h1, z2 = forward(x, w, b1, w.T, 0)
g2 = 2 * (z2 - x) / 5
g1 = g2 @ w * (z1 > 0)
by_w = x.T @ g1 + g2.T @ h1  # (1)!
assert np.allclose(by_w, central_differences(rebuilt, w), atol=1e-8)
# --8<-- [end:solution-tied]

# --8<-- [start:solution-order]
a, b = Scalar(3), Scalar(2)
u = a * b
f = u * (u + a)
order = [f]
for node in order:
    order += [parent for parent in node.parents if parent not in order]
for node in order:
    node.gradient = float(node is f)
for node in order:  # (1)!
    for parent, slope in zip(node.parents, node.slopes, strict=True):
        parent.gradient += node.gradient * slope
print("by a", a.gradient, " by u", u.gradient)
assert u.gradient == 15
assert a.gradient != 36
# --8<-- [end:solution-order]
