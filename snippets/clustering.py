# --8<-- [start:by-hand]
import numpy as np

x = np.array([[0, 0], [0, 1], [3, 0], [3, 1]], float)


def run(centres):
    labels = None
    while True:
        away = ((x[:, None] - centres) ** 2).sum(axis=2)  # (1)!
        if np.array_equal(labels, away.argmin(axis=1)):
            return labels
        labels = away.argmin(axis=1)
        print(labels, "inertia", away.min(axis=1).sum(), end=" → ")
        centres = np.stack([x[labels == k].mean(axis=0) for k in (0, 1)])
        print(((x - centres[labels]) ** 2).sum())


for start in ([0, 3], [0, 1]):
    print("start from rows", start)
    run(x[start])
# --8<-- [end:by-hand]

# --8<-- [start:digits]
import matplotlib.pyplot as plt
from scipy.optimize import linear_sum_assignment

from aimodels import datasets
from aimodels.clustering import (
    adjusted_rand,
    assign,
    contingency,
    kmeans,
    lloyd,
    plus_plus,
    random_start,
    silhouette,
    squared_distances,
)

images = datasets.digits()
ink = images.x.reshape(1797, 64)
found = kmeans(ink, 10, np.random.default_rng(0))
table = contingency(found.labels, images.y)
_, digit = linear_sum_assignment(-table)  # (1)!
order = digit.argsort()
table = table[order]

figure, axes = plt.subplots(2, 5, figsize=(5.6, 2.7))
for axis, centre, row in zip(
    axes.flat, found.centres[order], table, strict=True
):
    axis.imshow(centre.reshape(8, 8), cmap="gray_r")
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{row.argmax()}: {100 * row.max() / row.sum():.0f} %")
# --8<-- [end:digits]

# --8<-- [start:confusion]
print("        ", *(f"{d:4}" for d in range(10)))
for k, row in enumerate(table):
    print(f"cluster {k}", *(f"{n:4}" for n in row))
print(f"matched one to one {np.trace(table) / 1797:.2f}")
print(f"purity             {table.max(axis=1).sum() / 1797:.2f}")
print(f"adjusted Rand      {adjusted_rand(found.labels, images.y):.2f}")
# --8<-- [end:confusion]

# --8<-- [start:falls]
one = lloyd(ink, plus_plus(ink, 10, np.random.default_rng(3)))
rises = np.diff(one.inertias).max() / one.inertias[-1]
rounds = (len(one.inertias) + 1) // 2
print("rounds", rounds, "settled", one.settled)
print("rises by more than rounding:", bool(rises > 1e-14))
print(f"differences squared per round {ink.size * 10:,}")
print(f"partitions of the rows: about 10^{1797 - 7}")  # (1)!

figure, axis = plt.subplots(figsize=(5.6, 3.0))
half = np.arange(1, len(one.inertias) + 1)
for first, mark, name in ((0, "o", "rows assigned"), (1, "s", "means taken")):
    axis.plot(half[first::2], one.inertias[first::2] / 1e6, mark, label=name)
axis.set(xlabel="half step", ylabel="inertia in millions")
axis.legend()
# --8<-- [end:falls]

# --8<-- [start:colours]
photo = datasets.photograph("flower")
pixels = photo.reshape(-1, 3).astype(float)
rng = np.random.default_rng(0)
sample = pixels[rng.choice(len(pixels), 4000, replace=False)]  # (1)!


def repaint(palette):
    palette = palette.round()
    nearest, squared = assign(pixels, palette)
    bits = len(pixels) * np.log2(len(palette)) + 24 * len(palette)
    error = np.sqrt(squared.mean() / 3)
    print(f"{bits / 8000:10.0f} kB   error {error:5.1f}")
    return palette[nearest].reshape(photo.shape) / 255


print(f"as it is  {24 * len(pixels) / 8000:10.0f} kB")
shown = {"as it is": photo / 255}
for colours in (2, 4, 8, 16, 64):
    print(f"k-means {colours:2}", end="")
    best = kmeans(sample, colours, rng, starts=3)
    shown[str(colours)] = repaint(best.centres)
for levels in (2, 4):  # (2)!
    middle = (np.arange(levels) + 0.5) * 256 / levels
    grid = np.stack(np.meshgrid(middle, middle, middle), axis=-1)
    print(f"grid    {levels**3:2}", end="")
    repaint(grid.reshape(-1, 3))

figure, axes = plt.subplots(2, 2, figsize=(5.6, 4.2))
for axis, name in zip(axes.flat, ("as it is", "2", "4", "16"), strict=True):
    axis.imshow(shown[name][::4, ::4])
    axis.set_title(name)
    axis.set_axis_off()
# --8<-- [end:colours]

# --8<-- [start:starts]
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.0), sharey=True)
tasks = {"flower, 16 colours": (sample, 16), "digits, 10 clusters": (ink, 10)}
for axis, (task, (rows, k)) in zip(axes, tasks.items(), strict=True):
    runs = {
        name: [
            lloyd(rows, s(rows, k, np.random.default_rng(n))) for n in range(25)
        ]
        for name, s in (("random", random_start), ("k-means++", plus_plus))
    }
    lowest = min(r.inertias[-1] for many in runs.values() for r in many)
    print(task)
    for at, (name, many) in enumerate(runs.items()):
        first, last = (
            np.array([r.inertias[i] for r in many]) / lowest for i in (0, -1)
        )
        low, mid, high = np.quantile(last, [0, 0.5, 1])
        print(f"  {name:9} start {first.mean():.1f}, end ", end="")
        print(f"{mid:.2f} ({low:.2f} to {high:.2f})")
        jitter = at + 0.3 * np.linspace(-1, 1, 25)
        axis.plot(jitter, last, "o", ms=4, alpha=0.7)
    axis.set(xlim=(-0.6, 1.6), title=task)
    axis.set_xticks([0, 1], list(runs))
axes[0].set_ylabel("inertia by the lowest found")
# --8<-- [end:starts]

# --8<-- [start:peer]
from sklearn import metrics
from sklearn.cluster import KMeans, kmeans_plusplus

cells = datasets.breast_cancer()
scaled = datasets.standardize(cells.x)
people = datasets.standardize(datasets.diabetes().x)
for name, rows, k in (("cells", scaled, 5), ("patients", people, 16)):
    same, drawn, gap = 0, 0, 0.0
    for seed in range(10):
        start = plus_plus(rows, k, np.random.RandomState(seed))  # (1)!
        theirs, _ = kmeans_plusplus(
            rows, k, random_state=seed, n_local_trials=1
        )
        drawn += np.array_equal(start, theirs)
        ours = lloyd(rows, start)
        peer = KMeans(k, init=start, n_init=1, tol=0, max_iter=1000).fit(rows)
        rounds = (len(ours.inertias) + 1) // 2
        same += rounds == peer.n_iter_ and np.array_equal(
            ours.labels, peer.labels_
        )
        apart = np.abs(ours.centres - peer.cluster_centers_).max()
        change = abs(ours.inertias[-1] / peer.inertia_ - 1)
        gap = max(gap, apart / np.abs(rows).max(), change)
    print(f"{name:8} same start {drawn}, labels and rounds {same} of 10")
    print("         centres and inertia within 1e-12:", bool(gap < 1e-12))

tied = 0
for seed in range(10):
    start = plus_plus(ink, 10, np.random.default_rng(seed))
    away = np.sort(squared_distances(ink, start), axis=1)
    tied += bool((away[:, 0] == away[:, 1]).any())  # (2)!
print("digits: starts where rows are tied:", tied, "of 10")

theirs = metrics.silhouette_samples(ink, found.labels)
gap = np.abs(silhouette(ink, found.labels) - theirs).max()
print("silhouettes within 1e-12:", bool(gap < 1e-12))
theirs = metrics.adjusted_rand_score(images.y, found.labels)
gap = abs(adjusted_rand(found.labels, images.y) - theirs)
print("adjusted Rand within 1e-12:", bool(gap < 1e-12))
# --8<-- [end:peer]

# --8<-- [start:how-many]
many = [2, 4, 6, 8, 9, 10, 12, 16, 20]
left, fit, agree = [], [], []
for k in many:
    best = kmeans(ink, k, np.random.default_rng(1), starts=3)
    left.append(best.inertias[-1] / ((ink - ink.mean(axis=0)) ** 2).sum())
    fit.append(silhouette(ink, best.labels).mean())
    agree.append(adjusted_rand(best.labels, images.y))
    print(f"{k:2}  inertia {left[-1]:.2f}", end="")
    print(f"  silhouette {fit[-1]:.2f}  adjusted Rand {agree[-1]:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8))
axes[0].plot(many, left, "o-")
axes[0].set(xlabel="clusters", ylabel="inertia by that of one", ylim=(0, 1))
axes[1].plot(many, fit, "s-", color="C1")
axes[1].set(xlabel="clusters", ylabel="mean silhouette", ylim=(0, 0.25))
# --8<-- [end:how-many]

# --8<-- [start:units]
variance = cells.x.var(axis=0)
largest = variance.argmax()
share = variance[largest] / variance.sum()
print(f"{cells.names[largest]}: {share:.0%} of the variance of 30 columns")
for name, rows in (("as measured", cells.x), ("standardized", scaled)):
    two = kmeans(rows, 2, np.random.default_rng(0))
    rand = adjusted_rand(two.labels, cells.y)
    height = silhouette(rows, two.labels).mean()
    print(f"{name:13} adjusted Rand {rand:.2f}  silhouette {height:.2f}")
alone = kmeans(cells.x[:, [largest]], 2, np.random.default_rng(0))
measured = kmeans(cells.x, 2, np.random.default_rng(0))
rand = adjusted_rand(alone.labels, measured.labels)
print(f"{cells.names[largest]} alone against all 30: {rand:.2f}")
# --8<-- [end:units]

# --8<-- [start:shape]
from sklearn.mixture import GaussianMixture

pair = scaled[:, [0, 9]]
ball = kmeans(pair, 2, np.random.default_rng(0)).labels
mixture = GaussianMixture(2, n_init=5, random_state=0).fit_predict(pair)
figure, axes = plt.subplots(1, 3, figsize=(6.8, 2.9), sharey=True)
parts = {"diagnosis": cells.y, "k-means": ball, "mixture": mixture}
for axis, (name, part) in zip(axes, parts.items(), strict=True):
    alike = contingency(part, cells.y).trace() > 284  # (1)!
    for k, mark in ((0, "o"), (1, "^")):
        axis.plot(*pair[(part == k) == alike].T, mark, ms=2.5, alpha=0.7)
    axis.set(title=name, xlabel=cells.names[0])
    if name != "diagnosis":
        print(f"{name}: adjusted Rand {adjusted_rand(part, cells.y):.2f}")
axes[0].set_ylabel(cells.names[9])
# --8<-- [end:shape]

# --8<-- [start:digits-lost]
near = np.random.default_rng(0).permutation(sample)[:500] / 255
start = near[:4]
for offset in (0, 1e4, 1e8):
    rows, centres = near + offset, start + offset
    product = (rows**2).sum(axis=1)[:, None] - 2 * rows @ centres.T
    product += (centres**2).sum(axis=1)
    exact = squared_distances(near, start)
    shares = [
        np.mean(d.argmin(axis=1) == exact.argmin(axis=1))
        for d in (product, squared_distances(rows, centres))
    ]
    print(f"offset {offset:5.0e}: by product {shares[0]:4.0%}", end="")
    print(f", by differences {shares[1]:4.0%}")
# --8<-- [end:digits-lost]

# --8<-- [start:refused]
line = np.array([[0.0], [1], [2], [10]])
far = lloyd(line, [[0.0], [1], [99]])  # (1)!
print("labels", far.labels, "centres", far.centres.ravel())
bad = np.array([[1.0], [np.nan], [2]])
for call in (
    lambda: lloyd([[1.0], [1.0], [2.0]], [[1.0], [2.0], [3.0]]),
    lambda: plus_plus(line, 5, np.random.default_rng(0)),
    lambda: kmeans(bad, 2, np.random.default_rng(0)),
):
    try:
        call()
    except ValueError as reason:
        print(reason)
# --8<-- [end:refused]

# --8<-- [start:solution-mean]
rows = ink[images.y == 3]
middle, other = rows.mean(axis=0), ink[0]
around, apart = (((rows - c) ** 2).sum() for c in (middle, other))
moved = len(rows) * ((middle - other) ** 2).sum()
assert np.isclose(apart, around + moved)

bars = np.array([0.0, 0.0, 9.0])
grid = np.linspace(0, 9, 91)
lengths = [np.abs(bars - c).sum() for c in grid]
assert grid[np.argmin(lengths)] == np.median(bars) == 0  # (1)!
# --8<-- [end:solution-mean]


# --8<-- [start:solution-batches]
def in_batches(x, centres, rng, steps=100, size=100):
    centres, seen = centres.copy(), np.zeros(len(centres))
    for _ in range(steps):
        batch = x[rng.choice(len(x), size)]
        labels, _ = assign(batch, centres)
        for k in np.unique(labels):
            rows = batch[labels == k]
            seen[k] += len(rows)
            centres[k] += (rows - centres[k]).sum(axis=0) / seen[k]  # (1)!
    return centres


ratios, assigned = [], []
for seed in range(10):
    rng = np.random.default_rng(seed)
    start = plus_plus(sample, 16, rng)
    full = lloyd(sample, start)
    _, quick = assign(sample, in_batches(sample, start, rng))
    ratios.append(quick.sum() / full.inertias[-1])
    assigned.append(4000 * (len(full.inertias) + 1) // 2)
low, mid, high = np.quantile(ratios, [0, 0.5, 1])
print(f"inertia by that of all rows: {mid:.2f} ({low:.2f} to {high:.2f})")
print(f"rows assigned: 10,000 against {np.median(assigned):,.0f}")
assert 1 < mid < 1.2
# --8<-- [end:solution-batches]

# --8<-- [start:solution-soft]
from aimodels.logistic import log_sum_exp, softmax


def soft(x, centres, variance, steps=200):
    for _ in range(steps):
        scores = -squared_distances(x, centres) / (2 * variance)
        shares = softmax(scores)  # (1)!
        centres = shares.T @ x / shares.sum(axis=0)[:, None]
        yield centres, shares, log_sum_exp(scores).sum()


start = plus_plus(pair, 3, np.random.default_rng(0))
hard = lloyd(pair, start)
for variance in (1, 0.3, 0.1, 0.01, 0.001):
    *_, (centres, shares, _) = soft(pair, start, variance)
    gap = np.abs(centres - hard.centres).max()
    sure = np.mean(shares.max(axis=1) > 0.99)
    print(f"variance {variance:5}: {sure:4.0%} sure, gap {gap:.3f}")
assert gap < 0.01
likelihoods = [value for *_, value in soft(pair, start, 0.3)]
assert np.diff(likelihoods).min() > -1e-9
# --8<-- [end:solution-soft]
