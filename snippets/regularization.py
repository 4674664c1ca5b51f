# --8<-- [start:spread]
import matplotlib.pyplot as plt
import numpy as np

from aimodels import datasets
from aimodels.regularization import ridge

table = datasets.diabetes()
scaled = (table.x - table.x.mean(0)) / table.x.std(0)
first, second = np.triu_indices(10)
columns = np.hstack([scaled, scaled[:, first] * scaled[:, second]])  # (1)!
columns = (columns - columns.mean(0)) / columns.std(0)

order = np.random.default_rng(0).permutation(442)
test, pool = order[:142], order[142:]
draws = [np.random.default_rng((1, k)).choice(pool, 100, replace=False) for k in range(100)]


def errors(strength):
    fits = [ridge(columns[rows], table.y[rows], strength) for rows in draws]
    known = [
        np.mean((columns[rows] @ w + b - table.y[rows]) ** 2)
        for rows, (w, b) in zip(draws, fits, strict=True)
    ]
    said = np.array([columns[test] @ w + b for w, b in fits])  # (2)!
    unknown = np.mean((said - table.y[test]) ** 2)
    middle = np.mean((said.mean(0) - table.y[test]) ** 2)
    return np.mean(known), unknown, middle, said.var(0).mean()


print("strength  training    test   of the mean  variance")
for strength in (0.0, 0.1, 1.0, 10.0):
    print("{:8}{:10.0f}{:8.0f}{:14.0f}{:10.0f}".format(strength, *errors(strength)))

strengths = np.logspace(-2, 2, 17)
curves = np.array([errors(strength) for strength in strengths]).T
figure, axis = plt.subplots(figsize=(6, 3.2))
words = ("training", "test", "of the mean prediction", "variance")
for curve, word, style in zip(curves, words, ("--", "-", "-.", ":"), strict=True):
    axis.loglog(strengths, curve, style, label=word)
axis.set(xlabel="strength of the penalty", ylabel="mean squared error")
axis.legend()
# --8<-- [end:spread]

# --8<-- [start:paths]
from aimodels.regularization import lasso

strengths = np.logspace(-1, 2, 25)
paths = {
    fit.__name__: np.array([fit(scaled, table.y, strength)[0] for strength in strengths])
    for fit in (ridge, lasso)
}
for name, path in paths.items():
    print(f"{name}: weights of 0 along the path:", (path == 0).sum(1)[::4].tolist())
chosen = paths["lasso"][strengths > 10][0] != 0  # (1)!
print("lasso, strength 10, keeps:", *np.array(table.names)[chosen])

figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
for axis, (name, path) in zip(axes, paths.items(), strict=True):
    axis.semilogx(strengths, path)
    axis.set(title=name, xlabel="strength of the penalty")
axes[0].set_ylabel("weights")
# --8<-- [end:paths]

# --8<-- [start:dropout]
x = np.array([1.0, 2.0, 3.0, 4.0])
rate = 0.25
kept = np.random.default_rng(0).random((200_000, 4)) >= rate
noisy = x * kept / (1 - rate)  # (1)!
print(noisy[:3].round(2))
print("mean:    ", noisy.mean(0).round(1))
print("variance:", noisy.var(0).round(1))
print("formula: ", (x**2 * rate / (1 - rate)).round(1))
# --8<-- [end:dropout]

# --8<-- [start:stop]
from aimodels.regularization import early_stop

curve = [0.92, 0.71, 0.65, 0.63, 0.64, 0.62, 0.63, 0.66, 0.65, 0.61, 0.70]
for patience in (1, 3, 5):
    best, last = early_stop(curve, patience)
    print(f"patience {patience}: stopped after epoch {last}, weights of epoch {best}")
# --8<-- [end:stop]

# --8<-- [start:views]
from aimodels.regularization import pixel_views

train_set, test_set = datasets.fashion_mnist()


def small(images):
    blocks = images.reshape(*images.shape[:-1], 14, 2, 14, 2)  # (1)!
    pixels = (blocks.mean((-3, -1)) / 255).astype("float32")
    return pixels.reshape(*images.shape[:-1], 196)


views = pixel_views(28, 28, shift=1)
flat = np.pad(train_set.x.reshape(-1, 784), ((0, 0), (0, 1)))  # (2)!
print("views:", len(views), " first pixels of the last one:", views[-1, :5], views[-1, 28:33])

figure, axes = plt.subplots(1, 9, figsize=(7, 1))
for axis, image in zip(axes, small(flat[0][views]), strict=True):
    axis.imshow(image.reshape(14, 14), cmap="gray")
    axis.set_axis_off()
# --8<-- [end:views]

# --8<-- [start:networks]
import keras
import tensorflow as tf
from keras import ops

from aimodels.regularization import SideBySide, summed_cross_entropy
from aimodels.training import batches, make_step, train

two = SideBySide((196, 64, 10), seeds=[0, 0], l2=[0.0, 0.01], rate=[0.0, 0.5])
print("weights:", [tuple(kernel.shape) for kernel in two.kernels])
picture = np.repeat(small(flat[:1, :784])[None], 2, axis=0)  # (1)!
for training in (False, True):
    one, other = ops.softmax(two(picture, training=training))[:, 0, 0]
    print(f"training {training}: probability of class 0: {one:.3f}, {other:.3f}")
# --8<-- [end:networks]

# --8<-- [start:train]
PENALTIES = {"l1": 0.001, "l2": 0.01}
KINDS = {
    "nothing": {},
    "L1": {"l1": 0.001},
    "L2": {"l2": 0.01},
    "dropout": {"rate": 0.5},
    "shifted": {"views": 9},
    "stopped": {"images": 160},
    "L2, dropout": {"l2": 0.01, "rate": 0.5},
    "all": {"l2": 0.01, "rate": 0.5, "views": 9, "images": 160},
    "2 x data": {"images": 400},
    "4 x data": {"images": 800},
    "8 x data": {"images": 1600},
}
SEEDS, STEPS = range(5), 800
runs = [(kind, seed) for kind in KINDS for seed in SEEDS]


def option(name, default):
    return [KINDS[kind].get(name, default) for kind, _ in runs]


strengths = {name: option(name, 0.0) for name in ("l1", "l2", "rate")}
model = SideBySide((196, 64, 10), [seed for _, seed in runs], **strengths)
orders = [np.random.default_rng(seed).permutation(60_000)[:1840] for seed in SEEDS]
bank = np.stack([small(flat[rows][:, views]) for rows in orders])  # (1)!
names = np.stack([train_set.y[rows] for rows in orders])
print(bank.shape)
# --8<-- [end:train]

# --8<-- [start:descent]
def features(images, count, seed):
    weights = np.random.default_rng((seed, 5)).normal(size=(196, count)) / 14
    return np.tanh((images - pixels.mean()) @ (4 * weights))


def shortest(table, targets, strength):  # (1)!
    u, size, v = np.linalg.svd(table, full_matrices=False)
    return v.T @ ((size / (size**2 + len(table) * strength))[:, None] * (u.T @ targets))


one_hot = np.eye(10)
sizes = (20, 50, 100, 200, 250, 280, 300, 320, 360, 450, 700, 1200)
error = np.empty((5, len(sizes), 2))
for seed in range(5):
    rows = np.random.default_rng(seed).choice(60_000, 300, replace=False)
    for i, count in enumerate(sizes):
        known = features(pixels[rows], count, seed)
        unknown = features(pixels_test[:1000], count, seed)
        for j, strength in enumerate((0.0, 0.01)):
            fitted = shortest(known, one_hot[labels[rows]], strength)
            misses = unknown @ fitted - one_hot[labels_test[:1000]]
            error[seed, i, j] = np.mean(np.sum(misses**2, axis=1))
middle = np.median(error, axis=0)
print("features   no penalty   strength 0.01")
for count, (bare, calm) in zip(sizes, middle, strict=True):
    if count in (20, 100, 280, 300, 320, 1200):
        print(f"{count:8}{bare:13.2f}{calm:16.2f}")

figure, axis = plt.subplots(figsize=(6, 3))
for j, word in enumerate(("no penalty", "strength 0.01")):
    axis.loglog(sizes, middle[:, j], "o-"[j:] , label=word)
    axis.fill_between(sizes, error[..., j].min(0), error[..., j].max(0), alpha=0.2)
axis.set(xlabel="random features", ylabel="squared error on test images")
axis.legend()
# --8<-- [end:descent]

# --8<-- [start:units]
other = table.x.copy()
other[:, 3] *= 100  # (1)!
for strength in (0.0, 0.5):
    said = []
    for columns_in in (table.x, other):
        weights, bias = ridge(columns_in, table.y, strength)
        said.append(columns_in @ weights + bias)
    print(f"strength {strength}: a prediction changes by up to {np.ptp(said, 0).max():.1f}")
# --8<-- [end:units]

# --8<-- [start:choice]
rows = np.random.default_rng(0).choice(60_000, 300, replace=False)
right = []
for seed in range(100):
    fitted = shortest(features(pixels[rows], 100, seed), one_hot[labels[rows]], 0.01)
    right.append((features(pixels_test, 100, seed) @ fitted).argmax(1) == labels_test)
right = np.array(right)  # (1)!
rng = np.random.default_rng(1)
print("tried  best on 100 images  the same on 4,000 others")
for tried in (1, 10, 100):
    found = []
    for _ in range(300):
        some = right[rng.permutation(100)[:tried]][:, rng.permutation(5000)]
        best = some[:, :100].mean(1).argmax()
        found.append((some[best, :100].mean(), some[best, 1000:].mean()))
    print("{:5}{:20.3f}{:26.3f}".format(tried, *np.mean(found, 0)))
# --8<-- [end:choice]

# --8<-- [start:solution-dropout]
rng = np.random.default_rng(0)
copies = np.tile(scaled, (500, 1))
noisy = copies * (rng.random(copies.shape) >= 0.2) / 0.8
by_dropout, _ = ridge(noisy, np.tile(table.y, 500), 0.0)
by_penalty, _ = ridge(scaled, table.y, 0.2 / 0.8)
print("dropout:", by_dropout.round(1))
print("ridge:  ", by_penalty.round(1))
assert np.abs(by_dropout - by_penalty).max() < 0.6
# --8<-- [end:solution-dropout]

# --8<-- [start:solution-stop]
known, target = columns[draws[0]], table.y[draws[0]]
known_mean, target_mean = known.mean(0), target.mean()
weights, rate, found = np.zeros(65), 0.05, {}
for t in range(1, 2001):
    rest = known - known_mean
    slope = rest.T @ (rest @ weights - target + target_mean) / 100
    weights = weights - rate * slope
    if t in (2, 20, 200, 2000):
        by_ridge, _ = ridge(known, target, 1 / (rate * t))
        said = [(columns[test] - known_mean) @ w + target_mean for w in (weights, by_ridge)]
        found[t] = [np.mean((s - table.y[test]) ** 2) for s in said]
        print(f"{t:5} steps: error {found[t][0]:.0f}, ridge of strength {1 / (rate * t):.2f}: {found[t][1]:.0f}")
assert found[20][0] < min(found[2][0], found[2000][0])
# --8<-- [end:solution-stop]
