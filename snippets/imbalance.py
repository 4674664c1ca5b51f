# --8<-- [start:by-hand]
import numpy as np

y = np.array([1, 0, 0, 0, 0])
z = np.array([-1.0, -2.0, 0.5, -3.0, -1.0])

p = 1 / (1 + np.exp(-z))
q = np.where(y == 1, p, 1 - p)  # (1)!
loss, slope = -np.log(q), p - y
weights = np.where(y == 1, 4, 1)
for name, factor in (
    ("as it is", np.ones(5)),
    ("weights", weights),
    ("focal loss", (1 - q) ** 2),
):
    share = (factor * loss)[0] / (factor * loss).sum()
    print(f"{name:10} losses {(factor * loss).round(2)}", end="")
    print(f"  {share:.0%} from the positive")

rows = [0, 0, 0, 0, 1, 2, 3, 4]  # (2)!
assert np.isclose((weights * loss).sum(), loss[rows].sum())
assert np.isclose((weights * slope).sum(), slope[rows].sum())
# --8<-- [end:by-hand]

# --8<-- [start:data]
from functools import cache

from aimodels.datasets import fashion_mnist, standardize

train, _ = fashion_mnist()
blocks = train.x.reshape(-1, 14, 2, 14, 2)
ink = blocks.mean(axis=(2, 4)).reshape(-1, 196)  # (1)!
shirts = (train.y == 0).astype(int)


@cache
def draw(seed):
    rng = np.random.default_rng(seed)
    no, yes = (rng.permutation(np.flatnonzero(shirts == k)) for k in (0, 1))
    parts = [
        np.concatenate([yes[:200], no[:9800]]),
        np.concatenate([yes[200:400], no[9800:19600]]),
        np.concatenate([yes[400:800], no[19600:39200]]),
    ]
    tables = standardize(*(ink[rows] for rows in parts))
    return [(x, shirts[rows]) for x, rows in zip(tables, parts, strict=True)]


parts = ("training", "validation", "test")
for name, (_, y) in zip(parts, draw(0), strict=True):
    print(f"{name:10} {len(y):6,} pictures, {y.sum()} T-shirts")
# --8<-- [end:data]

# --8<-- [start:network]
from aimodels import mlp
from aimodels.imbalance import balanced_batches, focal_loss
from aimodels.logistic import sigmoid
from aimodels.metrics import average_precision


def answer(network, x):
    return sigmoid(mlp.forward(x, network)[:, 0])


def fit(x, y, held, seed, *, gamma=0, weights=(1, 1), balanced=False, rate=0.2):
    def loss(z, y):
        value, slope = focal_loss(z[:, 0], y, gamma, weights)
        return value, slope[:, None]

    rng = np.random.default_rng(seed)
    network = mlp.initialize([196, 32, 1], rng)
    best = 0
    for _ in range(18):
        rows = rng.integers(len(x), size=5000)  # (1)!
        if balanced:
            rows = np.concatenate(list(balanced_batches(y, 100, 50, rng)))
        a, b = x[rows], y[rows]
        network, _ = mlp.train(
            a, b, network, rng, rate=rate, epochs=1, batch=100, loss=loss
        )
        score = average_precision(held[1], answer(network, held[0]))
        if score > best:  # (2)!
            best, kept = score, network
    return kept


# --8<-- [end:network]

# --8<-- [start:remedies]
from aimodels.imbalance import class_weights, oversample, smote, undersample
from aimodels.metrics import confusion, precision_recall_f1


def remedies(x, y, seed):  # (1)!
    rng = np.random.default_rng(seed)
    more, less = oversample(y, rng), undersample(y, rng)
    return {
        "as it is": (x, y, {}),
        "weights": (x, y, {"weights": class_weights(y)}),
        "copies": (x[more], y[more], {}),
        "balanced": (x, y, {"balanced": True}),
        "SMOTE": (*smote(x, y, rng), {}),
        "fewer": (x[less], y[less], {}),
        "focal loss": (x, y, {"gamma": 2, "rate": 0.6}),  # (2)!
    }


def show(name, rows, digits=2):  # (3)!
    cells = [
        f"{mean:{digits + 3}.{digits}f} ± {sd:<{digits + 2}.{digits}f}"
        for mean, sd in zip(
            np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1), strict=True
        )
    ]
    print(f"{name:10}", " ".join(cells).rstrip())


truth, said, at_half = {}, {}, {}
for seed in range(5):
    learn, held, test = draw(seed)
    truth[seed] = held[1], test[1]
    for name, (x, y, options) in remedies(*learn, seed).items():
        network = fit(x, y, held, seed, **options)
        said[name, seed] = answer(network, held[0]), answer(network, test[0])
        found = confusion(test[1], said[name, seed][1] >= 0.5, 2)
        scores = precision_recall_f1(found, empty=0)
        at_half.setdefault(name, []).append([part[1] for part in scores])
print("            precision    recall       F1")
for name, rows in at_half.items():
    show(name, rows)
# --8<-- [end:remedies]

# --8<-- [start:ranking]
from aimodels.imbalance import best_threshold
from aimodels.metrics import precision_recall


def f1(y, yes):
    return precision_recall_f1(confusion(y, yes, 2), empty=0).f1[1]


def recall_at(y, p, least):
    precision, recall, _ = precision_recall(y, p)
    return recall[precision >= least].max(initial=0)


names = list(at_half)
print("            average                   recall at    F1, chosen")
print("            precision    gain         precision ½  threshold")
for name in names:
    rows = []
    for seed, (y_held, y) in truth.items():
        p_held, p = said[name, seed]
        threshold, _ = best_threshold(y_held, p_held)  # (1)!
        chosen = f1(y, p >= threshold)
        ranks = average_precision(y, p)
        gain = ranks - average_precision(y, said["as it is", seed][1])
        rows.append([ranks, gain, recall_at(y, p, 0.5), chosen])
    show(name, rows)
# --8<-- [end:ranking]

# --8<-- [start:curves]
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(5.4, 3.8))
levels, y = np.linspace(0.3, 1, 36), truth[0][1]
drawn = ("as it is", "weights", "SMOTE", "fewer", "focal loss")
print("from ½      precision  recall")
for name, mark in zip(drawn, "osD^v", strict=True):
    precision, recall, thresholds = precision_recall(y, said[name, 0][1])
    first = np.searchsorted(recall, levels)  # (1)!
    (line,) = axis.plot(levels, precision[first])
    half = np.flatnonzero(thresholds >= 0.5)[-1]
    point, color = (recall[half], precision[half]), line.get_color()
    axis.plot(*point, mark, color=color, label=name, markersize=8)
    print(f"{name:10}  {precision[half]:.2f}       {recall[half]:.2f}")
axis.set(xlabel="recall", ylabel="precision", ylim=(0, 1))
axis.legend()
# --8<-- [end:curves]

# --8<-- [start:same]
one, other = [], []
for seed, (_, y) in truth.items():
    plain, weighted = (said[name, seed][1] for name in ("as it is", "weights"))
    for rows, yes in ((one, plain >= 0.02), (other, weighted >= 0.5)):  # (1)!
        scores = precision_recall_f1(confusion(y, yes, 2))
        rows.append([scores.precision[1], scores.recall[1]])
print("                     precision    recall")
show("as it is, from 0.02", one)
show("weights, from 0.50 ", other)
# --8<-- [end:same]

# --8<-- [start:calibration]
from aimodels.imbalance import shift_prior, undo_focal
from aimodels.metrics import brier, calibration_error


def corrected(name, p):
    if name == "as it is":
        return p
    return (
        undo_focal(p, 2) if name == "focal loss" else shift_prior(p, 0.5, 0.02)
    )


print("            mean p       Brier, ×100  corrected")
for name in names:
    rows = []
    for seed, (_, y) in truth.items():
        p = said[name, seed][1]
        fair = corrected(name, p)
        rows.append([p.mean(), 100 * brier(y, p), 100 * brier(y, fair)])
    show(name, rows)
# --8<-- [end:calibration]

# --8<-- [start:reliability]
from aimodels.metrics import reliability

everyone = np.concatenate([y for _, y in truth.values()])  # (1)!
figure, axis = plt.subplots(figsize=(4.8, 3.6))
axis.plot([0, 1], [0, 1], ":", color="gray")
print("            calibration error")
for name, label, mark in (
    ("as it is", "as it is", "o-"),
    ("weights", "weights", "s-"),
    ("weights", "corrected", "^--"),
):
    p = np.concatenate([said[name, seed][1] for seed in truth])
    p = p if label == name else corrected(name, p)
    share, seen, _ = reliability(everyone, p)
    axis.plot(share, seen, mark, label=label)
    print(f"{label:10} {calibration_error(everyone, p):8.3f}")
axis.set(xlabel="said", ylabel="share of T-shirts")
axis.legend()
# --8<-- [end:reliability]

# --8<-- [start:costs]
from aimodels.imbalance import bayes_threshold


def cost(y, yes, miss=10):
    return 1000 * np.mean(np.where(y == 1, miss * ~yes, yes))


cheap = bayes_threshold(1, 10)
print(f"threshold for costs 1 and 10: {cheap:.3f}\n")
print("threshold  ½        1/11     1/11, corrected")
for name in ("as it is", "weights", "SMOTE", "focal loss"):
    rows = []
    for seed, (_, y) in truth.items():
        p = said[name, seed][1]
        ways = p >= 0.5, p >= cheap, corrected(name, p) >= cheap
        rows.append([cost(y, yes) for yes in ways])
    show(name, rows, 0)
# --8<-- [end:costs]

# --8<-- [start:prior]
from aimodels.imbalance import estimate_prior

print("T-shirts, in percent             Brier, ×100")
print("true       counted    estimated  as it is   corrected")
for keep in (980, 3600, 19600):  # (1)!
    rows = []
    for seed, (_, y) in truth.items():
        p = said["as it is", seed][1]
        part = np.flatnonzero((y == 1) | (np.cumsum(y == 0) <= keep))
        t, p = y[part], p[part]
        guess = estimate_prior(p, 0.02)
        scores = brier(t, p), brier(t, shift_prior(p, 0.02, guess))
        rows.append(100 * np.array([np.mean(p >= 0.5), guess, *scores]))
    show(f"{100 * t.mean():.1f}", rows, 1)
# --8<-- [end:prior]

# --8<-- [start:peer]
import keras
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight

(x, y), _, _ = draw(0)
state = np.random.RandomState  # (1)!
more, less = oversample(y, state(7)), undersample(y, state(7))
balanced = compute_class_weight("balanced", classes=np.unique(y), y=y)
same = {
    "copies": (x[more], RandomOverSampler(random_state=7)),
    "fewer": (x[less], RandomUnderSampler(random_state=7)),
    "SMOTE": (smote(x, y, state(7))[0], SMOTE(random_state=state(7))),
}
for name, (ours, theirs) in same.items():
    off = np.abs(ours - theirs.fit_resample(x, y)[0]).max()
    print(f"{name:10} {off < 1e-9}")
print(f"{'weights':10} {np.allclose(class_weights(y), balanced, rtol=1e-12)}")

z = np.random.default_rng(0).normal(scale=3, size=y.shape)
for gamma, alpha in ((0, 0.5), (2, 0.25), (0.5, 0.9)):
    theirs = keras.losses.BinaryFocalCrossentropy(
        True, alpha, gamma, from_logits=True
    )
    wanted = float(theirs(y[:, None].astype("float32"), z[:, None]))
    ours, _ = focal_loss(z, y, gamma, (1 - alpha, alpha))
    print(f"focal loss, γ = {gamma:3}  {abs(ours - wanted) < 1e-6}")
# --8<-- [end:peer]

# --8<-- [start:leak]
print("            held-out part             new pictures")
print("            precision    recall       precision    recall")
for name in ("copies", "SMOTE"):
    rows = []
    for seed in range(3):
        (x, y), _, test = draw(seed)
        x, y, _ = remedies(x, y, seed)[name]  # (1)!
        order = np.random.default_rng(seed).permutation(len(y))
        part, rest = order[4000:], order[:4000]
        network = fit(x[part], y[part], (x[rest], y[rest]), seed)
        rows.append([])
        for a, b in ((x[rest], y[rest]), test):
            found = confusion(b, answer(network, a) >= 0.5, 2)
            scores = precision_recall_f1(found)
            rows[-1] += [scores.precision[1], scores.recall[1]]
    show(name, rows)
# --8<-- [end:leak]

# --8<-- [start:optimism]
rng = np.random.default_rng(0)
print("pictures    on these     on the rest  validation's")
for size in (500, 2000, 10000):
    rows = []
    for _ in range(200):
        seed = int(rng.integers(5))
        (y_held, y), (p_held, p) = truth[seed], said["as it is", seed]
        these, rest = np.split(rng.permutation(len(y)), [size])
        others = rng.permutation(len(y_held))[:size]
        own, claimed = best_threshold(y[these], p[these])
        fair, _ = best_threshold(y_held[others], p_held[others])
        later = f1(y[rest], p[rest] >= own)
        rows.append([claimed, later, f1(y[these], p[these] >= fair)])
    show(f"{size:6,}", rows)
# --8<-- [end:optimism]

# --8<-- [start:linear]
from scipy.optimize import minimize


def fit_line(x, y, strength, weights):  # (1)!
    def loss(theta):
        value, slope = focal_loss(x @ theta[:-1] + theta[-1], y, 0, weights)
        w = np.append(theta[:-1], 0)
        slope = np.append(x.T @ slope, slope.sum())
        return value + strength / 2 * w @ w, slope + strength * w

    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, tol=1e-5).x


lines = {"as it is": [], "weights": []}
for seed in range(5):
    (x, y), held, test = draw(seed)
    for name, weights in (("as it is", (1, 1)), ("weights", class_weights(y))):
        scores = []
        for strength in (0.01, 0.1):
            *w, b = fit_line(x, y, strength, weights)
            scores.append(
                [average_precision(t, a @ w + b) for a, t in (held, test)]
            )
        lines[name].append([max(scores)[1]])  # (2)!
print("            average precision")
for name, rows in lines.items():
    show(name, rows)
# --8<-- [end:linear]

# --8<-- [start:solution-batch]
none = 0.98**50
drawn = np.random.default_rng(0).random((20000, 50)) < 0.02
assert abs(np.mean(~drawn.any(axis=1)) - none) < 0.02
size = int(np.ceil(np.log(0.01) / np.log(0.98)))
assert 0.98**size <= 0.01 < 0.98 ** (size - 1)
print(f"without a positive: {none:.0%} of the batches of 50")
print(f"1 % of them from {size} rows on")
# --8<-- [end:solution-batch]

# --8<-- [start:solution-focal]
p = np.linspace(0.001, 0.999, 999)
for share in (0.02, 0.1, 0.5, 0.9):
    one, zero = -((1 - p) ** 2) * np.log(p), -(p**2) * np.log(1 - p)
    least = p[np.argmin(share * one + (1 - share) * zero)]
    back = undo_focal([least], 2)[0]
    assert abs(back - share) < 0.002
    print(f"true {share:.2f}, said {least:.2f}, undone {back:.2f}")
# --8<-- [end:solution-focal]

# --8<-- [start:solution-weights]
share = 10 * 0.02 / (10 * 0.02 + 0.98)  # (1)!
rows = []
for seed, (_, y) in truth.items():
    (x, t), held, (x_new, _) = draw(seed)
    p = said["as it is", seed][1]
    assert np.array_equal(shift_prior(p, 0.02, share) >= 0.5, p >= 1 / 11)
    network = fit(x, t, held, seed, weights=(1, 10))
    rows.append([cost(y, p >= 1 / 11), cost(y, answer(network, x_new) >= 0.5)])
print("           as it is weights")
show("", rows, 0)
# --8<-- [end:solution-weights]
