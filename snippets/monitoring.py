# --8<-- [start:by-hand]
from itertools import combinations

import numpy as np

reference, window = [1, 2, 2, 3, 5], [2, 4, 5, 6]


def gap(first, second):
    return max(
        abs(np.mean(np.array(first) <= t) - np.mean(np.array(second) <= t))
        for t in first + second
    )


found = gap(reference, window)
pooled = reference + window
dealt = list(combinations(range(9), 5))  # (1)!
reach = [
    gap([pooled[i] for i in d], [pooled[i] for i in range(9) if i not in d])
    >= found - 1e-12
    for d in dealt
]
print(f"gap {found:.2f}, reached by {sum(reach)} of {len(dealt)} deals")
# --8<-- [end:by-hand]

# --8<-- [start:library]
from aimodels import datasets
from aimodels.clustering import squared_distances
from aimodels.monitoring import (
    Registry,
    cusum,
    gain,
    kolmogorov,
    ks_block_test,
    ks_statistic,
    ks_test,
    median_width,
    mmd_squared,
    mmd_test,
    psi,
)

test = ks_test(reference, window)
print(f"gap {test.statistic:.2f}, p {test.p:.4f} = {test.p * 126:.0f}/126")
# --8<-- [end:library]

# --8<-- [start:series]
import matplotlib.pyplot as plt

prices = datasets.sp500()
_, high, low, _, volume = prices.x.T
nervous = np.log(100 * np.log(high / low))  # (1)!
year = prices.dates.astype("datetime64[Y]").astype(int) + 1970
days = np.arange(22, len(nervous))
x = np.stack(  # (2)!
    [[nervous[t - w : t].mean() for w in (1, 5, 22)] for t in days]
)
y, year_y, dates = nervous[days], year[days], prices.dates[days]
train = np.flatnonzero((year_y >= 2004) & (year_y <= 2006))
print(f"{len(y)} days, {len(train)} of them from 2004 to 2006")

figure, axis = plt.subplots(figsize=(5.6, 2.6))
axis.plot(dates[::5], np.exp(y[::5]), ".", markersize=2)  # (3)!
axis.axvspan(dates[train[0]], dates[train[-1]], alpha=0.2, color="tab:green")
axis.set(yscale="log", ylabel="from low to high, %", yticks=[0.3, 1, 3, 10])
axis.set_yticklabels(["0.3", "1", "3", "10"])
# --8<-- [end:series]

# --8<-- [start:power]
from scipy.stats import chi2

masses = datasets.breast_cancer()
two = datasets.standardize(masses.x[:, [0, 7]])  # (1)!
width = median_width(two)


def drifted(rows, kind, size, rng):
    rows = rows.copy()
    if kind == "mean":
        rows[:, 0] += size
    elif kind == "spread":
        rows[:, 0] *= size
    else:  # (2)!
        taken = rng.random(len(rows)) < size
        rows[taken, 0] = rng.permutation(rows[taken, 0])
    return rows


def alarms(kind, size, rng, n=150, m=75):
    order = rng.permutation(len(two))
    a, b = two[order[:n]], drifted(two[order[n : n + m]], kind, size, rng)
    gaps = np.array([ks_statistic(a[:, d], b[:, d]) for d in (0, 1)])
    likely = kolmogorov(gaps * np.sqrt(n * m / (n + m)))
    highest = max(psi(a[:, d], b[:, d]) for d in (0, 1))
    return (
        2 * likely.min() < 0.05,  # (3)!
        highest > (1 / n + 1 / m) * chi2.ppf(0.975, 9),
        mmd_test(a, b, rng, width, shuffles=99).p <= 0.05,
    )


sizes = {
    "mean": [0, 0.25, 0.5, 0.75],
    "spread": [1, 1.4, 1.8, 2.2],
    "pairing": [0, 0.4, 0.7, 1],
}
figure, axes = plt.subplots(1, 3, figsize=(5.6, 2.5), sharey=True)
for axis, (kind, steps) in zip(axes, sizes.items(), strict=True):
    rng = np.random.default_rng(0)
    shares = np.array(
        [
            np.mean([alarms(kind, s, rng) for _ in range(60)], axis=0)
            for s in steps
        ]
    )
    for name, share, mark in zip(
        ("KS", "PSI", "MMD"), shares.T, ("o-", "s--", "^:"), strict=True
    ):
        print(f"{kind:8}{name:4}", *(f"{p:6.2f}" for p in share))
        axis.plot(steps, share, mark, label=name)
    axis.set_xlabel(kind)
axes[0].set_ylabel("share of alarms")
axes[2].legend()
# --8<-- [end:power]

# --8<-- [start:rule]
rng = np.random.default_rng(0)
print("  N = M bins   mean  expected  >0.1  >0.25")
for size in (50, 200, 1000):
    for bins in (5, 10, 20):
        values = []
        for _ in range(300):
            drawn = rng.permutation(nervous)[: 2 * size]  # (1)!
            values.append(psi(drawn[:size], drawn[size:], bins))
        values = np.array(values)
        print(
            f"{size:7} {bins:4} {values.mean():6.3f}"
            f" {(bins - 1) * 2 / size:9.3f}"
            f" {np.mean(values > 0.1):5.2f} {np.mean(values > 0.25):6.2f}"
        )
# --8<-- [end:rule]

# --8<-- [start:many]
rng = np.random.default_rng(0)
smallest = []
for _ in range(300):
    order = rng.permutation(569)  # (1)!
    a, b = masses.x[order[:400]], masses.x[order[400:]]
    gaps = np.array([ks_statistic(a[:, d], b[:, d]) for d in range(30)])
    smallest.append(kolmogorov(gaps * np.sqrt(400 * 169 / 569)).min())
smallest = np.array(smallest)
print(f"a column below 0.05       {np.mean(smallest < 0.05):.2f}")
print(f"if columns were unrelated {1 - 0.95**30:.2f}")
print(f"a column below 0.05 / 30  {np.mean(smallest < 0.05 / 30):.2f}")
# --8<-- [end:many]


# --8<-- [start:memory]
def memory(rows):  # (1)!
    columns = np.column_stack([x[rows], np.ones(len(rows))])
    weights = np.linalg.lstsq(columns, y[rows])[0]
    return weights, y[rows] - columns @ weights


def stationary(weights, errors, copies, length, rng):
    warm = 300
    made = np.full(
        (length + warm, copies), weights[3] / (1 - weights[:3].sum())
    )
    noise = rng.choice(errors, made.shape)
    for t in range(22, len(made)):
        seen = [made[t - w : t].mean(axis=0) for w in (1, 5, 22)]
        made[t] = weights[:3] @ seen + weights[3] + noise[t]
    return made[warm:].T


n, m = len(train), 60
copies = stationary(*memory(train), 2000, n + m, np.random.default_rng(0))
gaps = np.array([ks_statistic(one[:n], one[n:]) for one in copies])
limits = {"5 %": np.quantile(gaps, 0.95), "1 %": np.quantile(gaps, 0.99)}
print("limits", *(f"{name}: {limit:.2f}" for name, limit in limits.items()))
# --8<-- [end:memory]

# --8<-- [start:false-alarms]
rng = np.random.default_rng(1)
fresh = stationary(*memory(train), 400, n + m, rng)
mixed = rng.permuted(fresh, axis=1)  # (1)!


def p_independent(one):
    gap = ks_statistic(one[:n], one[n:])
    return kolmogorov(gap * np.sqrt(n * m / (n + m)))


blocks = [
    [
        ks_block_test(one[-m - 720 : -m], one[-m:], rng, size, 199).p
        for size in (20, 60)
    ]
    for one in fresh
]
gaps = np.array([ks_statistic(one[:n], one[n:]) for one in fresh])
shares = {
    "days in random order": [p_independent(one) < 0.05 for one in mixed],
    "days in their order": [p_independent(one) < 0.05 for one in fresh],
    "blocks of 20 days": [p[0] <= 0.05 for p in blocks],
    "blocks of 60 days": [p[1] <= 0.05 for p in blocks],
    "limit of this series": gaps > limits["5 %"],
}
for name, share in shares.items():
    print(f"{name:22} false alarms {100 * np.mean(share):3.0f} %")

figure, axis = plt.subplots(figsize=(5.6, 2.6))
edges = np.linspace(0, 0.6, 31)
for name, series in (("random order", mixed), ("their order", fresh)):
    height = [ks_statistic(one[:n], one[n:]) for one in series]
    axis.hist(height, edges, histtype="step", linewidth=1.6, label=name)
axis.axvline(
    1.358 / np.sqrt(n * m / (n + m)), linestyle="--", color="gray"
)  # (2)!
axis.axvline(limits["5 %"], linestyle=":", color="gray")
axis.set(xlabel="gap", ylabel="windows of 400")
axis.legend()
# --8<-- [end:false-alarms]


# --8<-- [start:kinds]
def linear(rows, targets):
    columns = np.column_stack([rows, np.ones(len(rows))])
    weights = np.linalg.lstsq(columns, targets)[0]
    return lambda new: new @ weights[:-1] + weights[-1]


def nearest(rows, targets, k=30):  # (1)!
    def predict(new):
        away = squared_distances(rows, new)
        return targets[np.argpartition(away, k, axis=0)[:k]].mean(axis=0)

    return predict


def compare(name, model, old, new):
    (a, before), (b, after) = old, new
    answer = model(a, before)
    losses = [np.mean((answer(r) - t) ** 2) for r, t in (old, new)]
    test = ks_test(a[:, 0], b[:, 0])
    print(
        f"{name:15}{test.statistic:5.2f} {test.p:8.0e}"
        f"{ks_statistic(before, after):7.2f}",
        *(f"{loss:7.3f}" for loss in losses),
    )


def part(first, last):
    rows = (year_y >= first) & (year_y <= last)
    return x[rows], y[rows]


traded = np.log(volume / 1e9)


def volumes(of):
    return nervous[year == of, None], traded[year == of]


print("                 input  p       label   loss    later")
compare("linear, 2004", linear, part(1999, 2002), part(2004, 2004))
compare("nearest, 2008", nearest, part(2004, 2006), part(2008, 2008))
compare("volume, 2001", linear, volumes(1999), volumes(2001))
# --8<-- [end:kinds]

# --8<-- [start:service]
from tempfile import TemporaryDirectory

models = {"nearest": nearest, "linear": linear}


def serve(folder, kind, delay=21, gate=2, say=False):
    registry = Registry(folder)
    registry.promote(registry.add(x=x[train], y=y[train]))
    losses = np.full(len(y), np.nan)
    last, noise, begun = train[-1] + 1, {}, {}

    def loss(version, rows):
        known = registry.load(version)
        answer = models[kind](known["x"], known["y"])
        return (answer(x[rows]) - y[rows]) ** 2

    for now in range(last + 21, len(y), 21):
        serving = registry.history()[-1]
        rows = np.arange(now - 21, now)
        losses[rows] = loss(serving, rows)
        labelled = now - delay  # (1)!
        start = begun.get(serving, now)
        if start < labelled < start + 250:
            rows = np.arange(start, labelled)
            before = registry.history()[-2]
            worse = loss(serving, rows) - loss(before, rows)  # (2)!
            if cusum(worse, 0, noise[serving], 0.25).max() > 12:
                registry.roll_back()
                last = now
                if say:
                    print(f"{dates[now]}  {serving} rolled back to {before}")
                continue
        reference = registry.load(serving)["x"][:, 0]
        drift = ks_statistic(reference, x[now - 60 : now, 0])
        if drift > limits["1 %"] and now >= last + 63:
            held = np.arange(labelled - 60, labelled)  # (3)!
            recent = np.arange(labelled - 560, labelled - 60)
            new = registry.add(x=x[recent], y=y[recent])
            ours, theirs = loss(serving, held), loss(new, held)
            better, error = gain(ours, theirs, block=5)
            last, verdict = now, "refused"
            if better > gate * error:  # (4)!
                registry.promote(new)
                noise[new], begun[new] = np.std(ours - theirs), now
                verdict = "promoted"
            if say:
                print(
                    f"{dates[now]}  gap {drift:.2f}  {new:2} {verdict:8}"
                    f"  loss {ours.mean():.2f} → {theirs.mean():.2f}"
                )
    return losses


def served(kind, **settings):
    with TemporaryDirectory() as folder:
        return serve(folder, kind, **settings)


maintained = served("nearest", say=True)
# --8<-- [end:service]


# --8<-- [start:cost]
def monthly(kind, rows=750, delay=21, every=21):
    losses = np.full(len(y), np.nan)
    for now in range(train[-1] + 1, len(y) - every, every):
        old = np.arange(now - delay - rows, now - delay)
        new = np.arange(now, now + every)
        answer = models[kind](x[old], y[old])
        losses[new] = (answer(x[new]) - y[new]) ** 2
    return losses


later = np.arange(train[-1] + 1, len(y))
shown = {"nearest, maintained": maintained}
print("                   nearest  linear")
for name, plan in {
    "never": None,
    "alarm and gate": {},
    "labels after 63 days": {"delay": 63},
    "alarm, no gate": {"gate": -np.inf},
    "every 21 days": monthly,
}.items():
    means = []
    for kind, model in models.items():
        if plan is None:
            losses = np.full(len(y), np.nan)
            answer = model(x[train], y[train])
            losses[later] = (answer(x[later]) - y[later]) ** 2
            shown[f"{kind}, never"] = losses
        else:
            losses = plan(kind) if callable(plan) else served(kind, **plan)
        means.append(np.nanmean(losses))
    print(f"{name:20} {means[0]:6.3f} {means[1]:7.3f}")

figure, axis = plt.subplots(figsize=(5.6, 3.0))
for (name, losses), line in zip(shown.items(), ("-", ":", "--"), strict=True):
    halves = losses[later][: len(later) // 126 * 126].reshape(-1, 126)
    axis.plot(
        dates[later[::126][: len(halves)]],
        np.nanmean(halves, axis=1),
        line,
        label=name,
    )
axis.set(ylabel="mean loss of half a year")
axis.legend()
# --8<-- [end:cost]

# --8<-- [start:bad-batch]
now = np.flatnonzero(year_y == 2015)[0]
held, recent = np.arange(now - 60, now), np.arange(now - 560, now - 60)
after = np.arange(now, now + 250)


def halved(rows):  # (1)!
    return x[rows] - np.log(2), y[rows] - np.log(2)


serving = nearest(x[recent - 250], y[recent - 250])
candidates = {
    "clean batch": nearest(x[recent], y[recent]),
    "halved batch": nearest(*halved(recent)),
}
judges = {"clean": (x[held], y[held]), "halved": halved(held)}
for name, model in candidates.items():
    for judge, (rows, targets) in judges.items():
        ours, theirs = (
            (answer(rows) - targets) ** 2 for answer in (serving, model)
        )
        better, error = gain(ours, theirs, block=5)
        word = "promoted" if better > 2 * error else "refused"
        print(f"{name:13} judged on {judge:7} gain {better:5.2f} {word}")
worse = (candidates["halved batch"](x[after]) - y[after]) ** 2
worse -= (serving(x[after]) - y[after]) ** 2
alarm = cusum(worse, 0, np.std(ours - theirs), 0.25) > 12
print(f"rolled back after {alarm.argmax() + 1} labels")
gap_held = ks_statistic(x[recent - 250, 0], judges["halved"][0][:, 0])
print(f"gap between serving rows and halved judge {gap_held:.2f}")
# --8<-- [end:bad-batch]

# --8<-- [start:peer]
from scipy.special import kolmogorov as limit_of_scipy
from scipy.stats import entropy, ks_2samp

rng = np.random.default_rng(0)
worst = {"gap": 0.0, "exact p": 0.0, "limit of p": 0.0, "PSI": 0.0, "MMD": 0.0}


def note(name, ours, theirs):
    worst[name] = max(worst[name], abs(float(ours) - float(theirs)))


for n_a, n_b in ((1, 1), (7, 3), (60, 60), (250, 60), (100, 313)):
    rows = rng.permutation(len(y))[: n_a + n_b]
    a, b = y[rows[:n_a]], y[rows[n_a:]] + 0.1
    theirs = ks_2samp(a, b, method="exact")
    ours = ks_test(a, b, ties=False)
    note("gap", ours.statistic, theirs.statistic)
    note("exact p", ours.p, theirs.pvalue)
    note("limit of p", kolmogorov(n_a / 50), limit_of_scipy(n_a / 50))
    if n_a >= 60:
        edges = np.quantile(a, np.arange(1, 10) / 10, method="lower")
        r, q = (
            np.bincount(np.searchsorted(edges, v), minlength=10) + 0.5
            for v in (a, b)
        )
        note("PSI", psi(a, b), entropy(q, r) + entropy(r, q))
    if n_a == 60:
        a, b = x[rows[:60]], x[rows[60:]]
        pairs = [
            [np.exp(-np.sum((u - v) ** 2) / 2) for u in np.vstack([a, b])]
            for v in np.vstack([a, b])
        ]
        k = np.array(pairs) - np.eye(120)
        by_hand = (k[:60, :60].sum() + k[60:, 60:].sum()) / (60 * 59)
        by_hand -= 2 * k[:60, 60:].mean()
        note("MMD", mmd_squared(a, b, 1.0), by_hand)
for name, value in worst.items():
    print(f"{name:10} differs by less than 1e-12: {value < 1e-12}")
# --8<-- [end:peer]

# --8<-- [start:late]
rng = np.random.default_rng(0)
rows, targets = part(2004, 2006)
real = (linear(rows, targets)(rows) - targets) ** 2
real = (real - real.mean()) / real.std()  # (1)!


def first(values, limit):
    reached = cusum(values, 0, 1) > limit
    return reached.argmax() + 1 if reached.any() else len(values)


print("limit  normal  real   found after")
for limit in (3, 4, 5):
    waits = [
        np.mean([first(draw(8000), limit) for _ in range(200)])
        for draw in (rng.standard_normal, lambda size: rng.choice(real, size))
    ]
    found = np.mean(
        [first(rng.choice(real, 500) + 1, limit) for _ in range(200)]
    )
    print(f"{limit:5} {waits[0]:7.0f} {waits[1]:5.0f} {found:8.0f}")
one, other = nearest(*part(2001, 2002)), nearest(*part(2003, 2004))
rows, targets = part(2005, 2006)
even = (one(rows) - targets) ** 2 - (other(rows) - targets) ** 2
even = (even - even.mean()) / even.std()  # (2)!
trials = [cusum(rng.choice(even, 250), 0, 1, 0.25).max() for _ in range(400)]
print(f"sound version rolled back: {np.mean(np.array(trials) > 12):.2f}")
# --8<-- [end:late]

# --8<-- [start:large]
rng = np.random.default_rng(0)
for size in (100, 1000, 10000):
    a, b = rng.choice(y, size), rng.choice(y, size) + 0.06  # (1)!
    test = ks_test(a, b)
    print(
        f"{size:6} gap {test.statistic:.3f}  p {test.p:.0e}  PSI {psi(a, b):.3f}"
    )
# --8<-- [end:large]


# --8<-- [start:solution-threshold]
def alarm_above(n, m, bins=10, level=0.05):
    return (1 / n + 1 / m) * chi2.ppf(1 - level, bins - 1)


rng = np.random.default_rng(0)
for n_a, n_b in ((200, 200), (755, 60), (2000, 1000)):
    drawn = [rng.permutation(y)[: n_a + n_b] for _ in range(400)]
    false = [psi(d[:n_a], d[n_a:]) > alarm_above(n_a, n_b) for d in drawn]
    print(
        f"{n_a:5} {n_b:5} limit {alarm_above(n_a, n_b):.3f} {np.mean(false):.3f}"
    )
    assert np.mean(false) < 0.1
# --8<-- [end:solution-threshold]


# --8<-- [start:solution-thin]
def share(made, step):
    count = 0
    for one in made:
        a, b = one[:n][::step], one[n:][::step]
        scale = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
        count += kolmogorov(ks_statistic(a, b) * scale) < 0.05
    return count / len(made)


moved = fresh + np.where(np.arange(n + m) < n, 0, 0.4)
found = {step: (share(fresh, step), share(moved, step)) for step in (1, 5, 20)}
for step, (false, true) in found.items():
    print(
        f"every {step:2} days: false alarms {false:.2f}, drift found {true:.2f}"
    )
assert found[20][0] < found[5][0] < found[1][0]
assert found[20][1] < found[1][1]
# --8<-- [end:solution-thin]

# --8<-- [start:solution-atomic]
from pathlib import Path

with TemporaryDirectory() as folder:
    first_one, second_one = Registry(folder), Registry(folder)
    one = first_one.add(w=np.ones(3))
    before = Path(folder, "000001.npz").read_bytes()
    two_ = second_one.add(w=np.zeros(3))  # (1)!
    first_one.promote(one)
    first_one.promote(two_)
    print("serving", second_one.history()[-1])
    print("rolled back to", second_one.roll_back())
    print("files", sorted(path.name for path in Path(folder).iterdir()))
    assert Path(folder, "000001.npz").read_bytes() == before
    assert first_one.load(one)["w"].tolist() == [1, 1, 1]
# --8<-- [end:solution-atomic]
