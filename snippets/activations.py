# --8<-- [start:by-hand]
import numpy as np


def sigmoid(z):
    small = np.exp(-np.abs(z))  # (1)!
    return np.where(z < 0, small, 1) / (1 + small)


z = np.array([1.0, 2.0, 3.0])
print("sigmoid:", sigmoid(z).round(3))
print("slope:  ", (sigmoid(z) * sigmoid(-z)).round(3))  # (2)!
print("at ±10000:", sigmoid(np.array([-1e4, 1e4])))
# --8<-- [end:by-hand]

# --8<-- [start:jacobian]
from aimodels.activations import softmax, softmax_jacobian, softmax_product

print(
    "softmax:", softmax(z).round(3), " plus 10000:", softmax(z + 1e4).round(3)
)
jacobian = softmax_jacobian(z)
print(jacobian.round(3))
print("sums of its rows:", np.abs(jacobian.sum(axis=1)).round(12))
v = np.array([1.0, -2.0, 0.5])
same = np.allclose(jacobian @ v, softmax_product(z, v), rtol=0, atol=1e-15)
print("times v, without building it, is the same:", same)
# --8<-- [end:jacobian]

# --8<-- [start:why]
from aimodels.activations import relu
from aimodels.datasets import digits, standardize

data = digits()
images = standardize(data.x.reshape(1797, 64))
rng = np.random.default_rng(0)
first = rng.normal(size=(64, 32)) / 8
second = rng.normal(size=(32, 10)) / np.sqrt(32)

two, one = images @ first @ second, images @ (first @ second)
print("two linear layers are one:", np.allclose(two, one))
for name, output in (
    ("two linear layers", two),
    ("ReLU between them", relu(images @ first) @ second),
):
    columns = np.column_stack([images, np.ones(1797)])
    fitted = columns @ np.linalg.lstsq(columns, output)[0]  # (1)!
    left = np.var(output - fitted) / np.var(output)
    print(f"{name}: one linear layer leaves {left:.0%} unexplained")
# --8<-- [end:why]

# --8<-- [start:curves]
import matplotlib.pyplot as plt

from aimodels import activations

CURVES = {
    name: (
        getattr(activations, function),
        getattr(activations, f"{function}_derivative"),
    )
    for name, function in {
        "sigmoid": "sigmoid",
        "tanh": "tanh",
        "ReLU": "relu",
        "leaky ReLU": "leaky_relu",
        "GELU": "gelu",
        "SiLU": "silu",
    }.items()
}
z = np.linspace(-5, 5, 501)
figure, axes = plt.subplots(2, 3, figsize=(6.4, 4.4), sharex=True, sharey=True)
print("slope       largest    at -5     at 5")
for place, (name, (curve, slope)) in enumerate(CURVES.items()):
    axis = axes.flat[place]
    axis.plot(z, curve(z), label="function")
    axis.plot(z, slope(z), "--", label="derivative")
    axis.set(title=name, xlim=(-5, 5), ylim=(-1.2, 3))
    at = slope(z)
    print(f"{name:10} {at.max():8.3f} {at[0]:8.4f} {at[-1]:8.4f}")
figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2
)
# --8<-- [end:curves]


# --8<-- [start:deep]
def passed_back(curve, slope, scale, seed, layers=30):
    rng = np.random.default_rng(seed)
    h, weights, sums = images[:32], [], []
    for _ in range(layers):
        w = rng.normal(size=(64, 64)) * np.sqrt(scale / 64)  # (1)!
        z = h @ w
        h = curve(z)
        weights.append(w)
        sums.append(z)
    g, sizes = rng.normal(size=h.shape) * slope(z), []  # (2)!
    for n in range(layers - 1, -1, -1):
        sizes.append(np.sqrt(np.mean(g**2)))
        g = (g @ weights[n].T) * slope(sums[n - 1]) if n else None  # (3)!
    return np.array(sizes[::-1]) / sizes[0]


DEEP = ("sigmoid", "tanh", "ReLU", "GELU")
SCALES, measured = (1, 2, 4, 16, 100), {}
print("power of ten      1/D      2/D      4/D     16/D    100/D")
for name in DEEP:
    for scale in SCALES:
        measured[name, scale] = np.array(
            [passed_back(*CURVES[name], scale, seed) for seed in range(10)]
        )
    middles = [np.median(measured[name, s][:, 0]) for s in SCALES]
    powers = np.log10(middles).round(1) + 0.0
    print(f"{name:12}", *(f"{power:8.1f}" for power in powers))
# --8<-- [end:deep]

# --8<-- [start:variance]
draws = np.linspace(-8, 8, 2001)  # (1)!
density = np.exp(-(draws**2) / 2)
density /= density.sum()


def predicted(curve, slope, scale, layers=30):
    square, factors = scale * np.mean(images[:32] ** 2), []
    for _ in range(layers):
        z = np.sqrt(square) * draws
        factors.append(scale * density @ slope(z) ** 2)
        square = scale * density @ curve(z) ** 2
    back = np.cumprod(factors[-2::-1])[::-1]
    return np.sqrt(np.append(back, 1))


figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.6), sharey=True)
for axis, scale, rule in (
    (axes[0], 1, "Glorot: 1/D"),
    (axes[1], 2, "He: 2/D"),
):
    for name in DEEP:
        formula = predicted(*CURVES[name], scale)
        (line,) = axis.semilogy(range(1, 31), formula, label=name)
        middle = np.median(measured[name, scale], axis=0)
        axis.plot(range(1, 31), middle, "o", ms=3, color=line.get_color())
        powers = np.log10([formula[0], *np.sort(measured[name, scale][:, 0])])
        said, low, *_, high = powers.round(1) + 0.0
        print(f"{rule:11} {name:8} predicted {said:6.1f}", end="")
        print(f"  ten seeds {low:6.1f} to {high:5.1f}")
    axis.set(title=rule, xlabel="layer")
axes[0].set_ylabel("gradient, last layer = 1")
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)
# --8<-- [end:variance]

# --8<-- [start:forms]
from aimodels.activations import gelu, gelu_derivative

z = np.linspace(-6, 6, 12001)
for name, curve in (("value", gelu), ("slope", gelu_derivative)):
    apart = np.abs(curve(z) - curve(z, approximate=True))
    place = np.abs(z[apart.argmax()])
    print(f"{name}: at most {apart.max():.5f} apart, near ±{place:.1f}")
# --8<-- [end:forms]

# --8<-- [start:cost]
import math

count = {}


class Counted(float):
    pass


def counting(operation, kind):
    def run(*numbers):
        count[kind] += 1
        return Counted(operation(*(float(number) for number in numbers)))

    return run


for name in ("mul", "rmul", "truediv", "rtruediv"):
    method = f"__{name}__"
    setattr(Counted, method, counting(getattr(float, method), "products"))
for name in ("add", "radd", "neg"):
    method = f"__{name}__"
    setattr(Counted, method, counting(getattr(float, method), "sums"))
exp, tanh, erf = (
    counting(f, "special") for f in (math.exp, math.tanh, math.erf)
)

FORMULAS = {
    "ReLU": lambda z: max(z, 0),
    "leaky ReLU": lambda z: z if z > 0 else 0.2 * z,
    "sigmoid": lambda z: 1 / (1 + exp(-z)),
    "tanh": tanh,
    "SiLU": lambda z: z / (1 + exp(-z)),
    "GELU": lambda z: 0.5 * z * (1 + erf(0.7071 * z)),
    "GELU by tanh": lambda z: (
        0.5 * z * (1 + tanh(z * (0.7979 + 0.0357 * z * z)))
    ),
}
for name, formula in FORMULAS.items():
    count.update(products=0, sums=0, special=0)
    formula(Counted(-0.3))
    counts = "  ".join(f"{number} {kind}" for kind, number in count.items())
    print(f"{name:13} {counts}")
# --8<-- [end:cost]

# --8<-- [start:peers]
import keras
import tensorflow as tf
from scipy.special import ndtr

EVERY = CURVES | {
    "GELU by tanh": tuple(
        lambda x, f=f: f(x, approximate=True) for f in (gelu, gelu_derivative)
    )
}
theirs = {
    "sigmoid": keras.activations.sigmoid,
    "tanh": keras.activations.tanh,
    "ReLU": keras.activations.relu,
    "leaky ReLU": keras.activations.leaky_relu,
    "GELU": lambda x: keras.activations.gelu(x, approximate=False),
    "GELU by tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "SiLU": keras.activations.silu,
}
grid = np.append(np.linspace(-40, 40, 8001), [-1e4, 1e4])
for kind, limit in (("float32", 1e-5), ("float64", 1e-14)):
    x, apart = grid.astype(kind), {}
    for name, (curve, slope) in EVERY.items():
        entry = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(entry)
            value = theirs[name](entry)
        taped = tape.gradient(value, entry).numpy()
        peers = (curve(x), value.numpy()), (slope(x), taped)
        apart[name] = max(
            np.max(np.abs(ours - peer) / np.maximum(1, np.abs(peer)))  # (1)!
            for ours, peer in peers
        )
    rows = x[:8000].reshape(80, 100)
    by_keras = keras.activations.softmax(tf.constant(rows)).numpy()
    apart["softmax"] = np.abs(softmax(rows) - by_keras).max()
    beyond = [name for name, most in apart.items() if most > limit]
    names = ", ".join(beyond) or "none"
    print(f"{kind}: apart by more than {limit}: {names}")

x = tf.constant([-40.0], "float64")
print("leaky ReLU of -40, ours ", activations.leaky_relu([-40.0])[0])
print("                   Keras", theirs["leaky ReLU"](x).numpy()[0])
off = np.abs(gelu(grid) - grid * ndtr(grid)).max()
print("GELU is SciPy's to 1e-14:", off < 1e-14)

far = grid[(np.abs(grid) > 0.001) & (np.abs(grid) < 50)]  # (2)!
worst = 0.0
for curve, slope in EVERY.values():
    differences = (curve(far + 1e-5) - curve(far - 1e-5)) / 2e-5
    worst = max(worst, np.abs(slope(far) - differences).max())
print("slopes are finite differences to 1e-9:", worst < 1e-9)
# --8<-- [end:peers]

# --8<-- [start:dead]
from aimodels.activations import leaky_relu, leaky_relu_derivative
from aimodels.activations import relu_derivative
from aimodels.datasets import split

pixels, classes = data.x.reshape(1797, 64) / 16, np.eye(10)[data.y]
seen, held_out = split(1797, test=397, rng=np.random.default_rng(0))


def train(curve, slope, rate):
    rng = np.random.default_rng(1)
    w1 = rng.normal(size=(5, 64, 32)) * np.sqrt(2 / 64)  # (1)!
    w2 = rng.normal(size=(5, 32, 10)) * np.sqrt(2 / 32)
    b1, b2, off = np.zeros((5, 1, 32)), np.zeros((5, 1, 10)), []
    for speed, epochs in ((rate, 2), (0.1, 10)):  # (2)!
        for _ in range(epochs):
            for rows in rng.permutation(seen).reshape(28, 50):
                x = pixels[rows]
                z = x @ w1 + b1
                h = curve(z)
                g2 = (softmax(h @ w2 + b2) - classes[rows]) / 50  # (3)!
                g1 = g2 @ w2.swapaxes(1, 2) * slope(z)
                w2 = w2 - speed * h.swapaxes(1, 2) @ g2
                b2 = b2 - speed * g2.sum(axis=1, keepdims=True)
                w1 = w1 - speed * x.T @ g1
                b1 = b1 - speed * g1.sum(axis=1, keepdims=True)
        off.append((pixels[seen] @ w1 + b1 <= 0).all(axis=1))  # (4)!
    scores = curve(pixels[held_out] @ w1 + b1) @ w2 + b2
    right = scores.argmax(axis=2) == data.y[held_out]
    return off[0], off[0] & ~off[1], right.mean(axis=1)


print("              rate   off   back   right  (lowest to highest)")
for name, rule in (
    ("ReLU", (relu, relu_derivative)),
    ("leaky ReLU", (leaky_relu, leaky_relu_derivative)),
):
    for rate in (0.1, 1.0, 1.5, 2.0):
        off, back, right = train(*rule, rate)
        counts = f"{off.sum() / 5:5.1f} {back.sum() / 5:6.1f}"
        low, *_, high = 100 * np.sort(right)
        middle = 100 * np.median(right)
        print(f"{name:12} {rate:5} {counts}", end="")
        print(f" {middle:7.1f} %  ({low:.1f} to {high:.1f})")
        assert not back.any() or name == "leaky ReLU"
# --8<-- [end:dead]

# --8<-- [start:overflow]
with np.errstate(over="ignore", invalid="ignore"):  # (1)!
    raised = np.exp(np.array([1.0, 2.0, 1000.0]))
    print("naive softmax:", raised / raised.sum())
print("shifted softmax:", softmax([1.0, 2.0, 1000.0]))
rounded = activations.sigmoid(np.float32(17))
print("float32, 1 - sigmoid(17):", 1 - rounded)
print(f"float32, sigmoid(-17): {activations.sigmoid(np.float32(-17)):.2e}")
# --8<-- [end:overflow]

# --8<-- [start:solution-tanh]
rng = np.random.default_rng(0)
w1, w2 = rng.normal(size=(64, 32)) / 8, rng.normal(size=(32, 5)) / 4
by_tanh = activations.tanh(images @ w1) @ w2
hidden = activations.sigmoid(images @ (2 * w1))  # (1)!
by_sigmoid = hidden @ (2 * w2) - w2.sum(axis=0)
assert np.allclose(by_tanh, by_sigmoid, rtol=0, atol=1e-12)
# --8<-- [end:solution-tanh]

# --8<-- [start:solution-leaky]
proper = 2 / (1 + 0.2**2)
for scale in (2, proper):
    sizes = [
        passed_back(*CURVES["leaky ReLU"], scale, seed)[0] for seed in range(10)
    ]
    expected = (scale / proper) ** (29 / 2)
    assert np.isclose(np.median(sizes), expected, rtol=0.4)
    print(f"{scale:.3f}/D: expected {expected:.2f}", end="")
    print(f", median of ten seeds {np.median(sizes):.1f}")
# --8<-- [end:solution-leaky]


# --8<-- [start:solution-promise]
def network(x):
    """Two layers; the output layer is a sigmoid."""
    z2 = relu(x @ w1) @ w2
    return z2


def mended(x):
    """Two layers; the output layer is a sigmoid."""
    return activations.sigmoid(network(x))


def keeps_its_word(model):
    output = model(images)
    return bool(np.all((output > 0) & (output < 1)))


print("as found:", keeps_its_word(network), " mended:", keeps_its_word(mended))
assert not keeps_its_word(network)
assert keeps_its_word(mended)
layer = keras.layers.Dense(5, activation="sigmoid")
assert layer.activation is keras.activations.sigmoid  # (1)!
# --8<-- [end:solution-promise]
