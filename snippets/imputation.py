# --8<-- [start:by-hand]
import numpy as np

x = np.array([1.0, 2, 3, 4, 5])
y = np.array([2.0, 3, 5, np.nan, np.nan])
seen = ~np.isnan(y)
slope, bias = np.polyfit(x[seen], y[seen], 1)
line = bias + slope * x
noise = (y - line)[seen].std(ddof=2)  # (1)!
rng = np.random.default_rng(0)
ways = {
    "deletion": y[seen],
    "mean": np.where(seen, y, y[seen].mean()),
    "line": np.where(seen, y, line),
    "line + noise": np.where(seen, y, line + noise * rng.normal(size=5)),
}
for name, values in ways.items():
    print(f"{name:12}", *(f"{value:4.1f}" for value in values), end="   ")
    print(f"mean {values.mean():.2f} variance {values.var():.2f}")
# --8<-- [end:by-hand]

# --8<-- [start:mechanisms]
import matplotlib.pyplot as plt

from aimodels import datasets
from aimodels.imputation import (
    complete_rows,
    fill_columns,
    fill_gaussian,
    fill_neighbours,
    fill_regressions,
    gap_chance,
    gap_distances,
    gaussian,
    pool,
    with_gaps,
    with_indicator,
)

people = datasets.diabetes()
patients = datasets.standardize(np.column_stack([people.x, people.y]))
BMI, PROGRESS = 2, 10  # columns
MECHANISMS = {"MCAR": (PROGRESS, 0), "MAR": (PROGRESS, 2), "MNAR": (BMI, 2)}


def chances(mechanism):
    driver, slope = MECHANISMS[mechanism]
    chance = np.zeros(patients.shape)
    chance[:, BMI] = gap_chance(patients[:, driver], 0.4, slope)  # (1)!
    return chance


figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.9), sharey=True)
for axis, mechanism in zip(axes, MECHANISMS, strict=True):
    chance = chances(mechanism)[:, BMI]
    table = with_gaps(patients, chances(mechanism), np.random.default_rng(0))
    gap = np.isnan(table[:, BMI])
    formula = -np.cov(chance, patients[:, BMI], ddof=0)[0, 1] / 0.6
    print(f"{mechanism:4} gaps {gap.mean():.2f}", end="  ")
    print(f"mean of the seen {np.nanmean(table[:, BMI]):5.2f}", end="  ")
    print(f"expected {formula:5.2f}")
    for rows, mark, name in ((~gap, "o", "seen"), (gap, "x", "gap")):
        points = patients[rows][:, [PROGRESS, BMI]].T
        axis.plot(*points, mark, ms=3, alpha=0.7, label=name)
    axis.set(title=mechanism, xlabel="disease progression")
axes[0].set_ylabel("body mass index")
axes[0].legend()
# --8<-- [end:mechanisms]


# --8<-- [start:bias]
def statistics(rows):
    mass, progress = rows[:, BMI], rows[:, PROGRESS]
    slope = np.polyfit(mass, progress, 1)[0]
    return [mass.mean(), mass.var(), np.corrcoef(mass, progress)[0, 1], slope]


def fillings(table, rng):
    fit = gaussian(table, tolerance=1e-6)
    return {
        "deletion": table[complete_rows(table)],
        "mean": fill_columns(table),
        "kNN": fill_neighbours(table),
        "regressions": fill_regressions(table),
        "Gaussian": fill_gaussian(table, fit.mean, fit.covariance),
        "draw": fill_regressions(table, rng=rng),
    }


truth = np.array(statistics(patients))
print("truth      ", *(f"{round(number, 2) + 0.0:6.2f}" for number in truth))
biases, spreads = {}, {}
for mechanism in MECHANISMS:
    found = []  # [20, ways, 5]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table = with_gaps(patients, chances(mechanism), rng)
        gap = np.isnan(table)
        found.append([])
        tables = fillings(table, rng)
        for filled in tables.values():
            off = list(np.array(statistics(filled)) - truth)
            whole = len(filled) == len(table)
            square = np.mean((filled - patients)[gap] ** 2) if whole else np.nan
            found[-1].append([*off, np.sqrt(square)])
    biases[mechanism] = np.mean(found, axis=0)
    spreads[mechanism] = np.std(found, axis=0)
    print(f"{mechanism:13}  mean   var.  corr.  slope  cells")
    for name, row in zip(tables, biases[mechanism], strict=True):
        print(f"{name:11}", *(f"{number:6.2f}" for number in row[:4]), end="")
        print("      -" if name == "deletion" else f" {row[4]:6.2f}")

figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.0), sharey=True)
for axis, mechanism in zip(axes, MECHANISMS, strict=True):
    for k, mark, name in ((0, "o", "mean"), (3, "s", "slope")):
        off, width = biases[mechanism][:, k], spreads[mechanism][:, k]
        height = np.arange(6) + (0.12 if k else -0.12)
        axis.errorbar(off, height, xerr=width, fmt=mark, ms=4, label=name)
    axis.axvline(0, color="0.5", lw=1)
    axis.set(title=mechanism, xlabel="bias", xlim=(-0.65, 0.65))
axes[0].set_yticks(range(6), list(tables))
axes[0].invert_yaxis()
axes[0].legend(loc="center left", handlelength=1, borderaxespad=0)
# --8<-- [end:bias]

# --8<-- [start:likelihood]
figure, axis = plt.subplots(figsize=(5.6, 3.0))
for share in (0.1, 0.3, 0.5):
    table = with_gaps(patients, share, np.random.default_rng(0))
    whole = np.count_nonzero(~np.isnan(table).any(axis=1))
    fit = gaussian(table, tolerance=1e-4)
    left = fit.likelihoods[-1] - fit.likelihoods[:-1]
    print(f"gaps {share:.0%}: complete rows {whole:3} of 442", end="  ")
    print(f"steps {len(fit.likelihoods) - 1:3}", end="  ")
    print("ever falls:", bool(np.diff(fit.likelihoods).min() < 0))
    axis.semilogy(left, label=f"{share:.0%}")
axis.set(xlabel="step", ylabel="below the last log-likelihood")
axis.legend()
# --8<-- [end:likelihood]

# --8<-- [start:coverage]
from scipy.stats import t as student

four = patients[:, [BMI, 3, 8, PROGRESS]]  # (1)!
targets = [0.0, truth[3]]


def estimates(rows):
    """Mean and slope, each with its squared standard error."""
    mass, progress = rows[:, 0], rows[:, 3]
    slope, bias = np.polyfit(mass, progress, 1)
    rest = np.sum((progress - bias - slope * mass) ** 2) / (len(rows) - 2)
    errors = mass.var(ddof=1) / len(rows), rest / mass.var() / len(rows)
    return [mass.mean(), slope], errors


hits, widths = {}, {}
for simulation in range(300):
    rng = np.random.default_rng(simulation)
    whole = four[rng.integers(len(four), size=100)]
    chance = np.zeros(whole.shape)
    chance[:, 0] = gap_chance(whole[:, 3], 0.4, 1)
    table = with_gaps(whole, chance, rng)
    drawn = [
        fill_regressions(table, rounds=1, strength=0.01, rng=rng)  # (2)!
        for _ in range(20)
    ]
    single = {
        "no gaps": whole,
        "deletion": table[complete_rows(table)],
        "mean": fill_columns(table),
        "regressions": fill_regressions(table, rounds=1, strength=0.01),
        "1 draw": drawn[0],
    }
    answers = {
        name: [
            (e, v, len(rows) - fitted)
            for fitted, e, v in zip((1, 2), *estimates(rows), strict=True)
        ]
        for name, rows in single.items()
    }
    for many in (2, 5, 20):
        each = np.array([estimates(rows) for rows in drawn[:many]])
        pooled = [pool(each[:, 0, k], each[:, 1, k]) for k in (0, 1)]
        answers[f"{many} draws"] = [
            (p.estimate, p.variance, p.freedom) for p in pooled
        ]
    for name, pair in answers.items():
        for target, answer in zip(targets, pair, strict=True):
            estimate, variance, freedom = answer
            reach = student.ppf(0.975, freedom) * np.sqrt(variance)
            hits.setdefault(name, []).append(abs(estimate - target) < reach)
            widths.setdefault(name, []).append(2 * reach)

print("               mean          slope")
print("             covers width  covers width")
cover = {}
for name, hit in hits.items():
    cover[name] = np.reshape(hit, (300, 2)).mean(axis=0)
    width = np.median(np.reshape(widths[name], (300, 2)), axis=0)
    print(f"{name:11}", end="")
    for c, w in zip(cover[name], width, strict=True):
        print(f"    {c:4.2f}  {w:4.2f}", end="")
    print()

figure, axis = plt.subplots(figsize=(5.6, 3.2))
for k, mark, name in ((0, "o", "mean"), (1, "s", "slope")):
    axis.plot([c[k] for c in cover.values()], range(8), mark, label=name)
axis.axvline(0.95, color="0.5", lw=1)
axis.set_yticks(range(8), list(cover))
axis.invert_yaxis()
axis.set(xlabel="share of intervals that hold the truth", xlim=(0, 1.02))
axis.legend()
# --8<-- [end:coverage]

# --8<-- [start:classifier]
from aimodels.linear import predict
from aimodels.logistic import binary_cross_entropy, fit_logistic

cells = datasets.breast_cancer()
values = datasets.standardize(cells.x)


def judged(train, test, seen, held):
    train, test = datasets.standardize(train, test)
    weights, bias, _ = fit_logistic(train, cells.y[seen], strength=1.0)
    z = predict(test, weights, bias)
    right = np.mean((z > 0) == cells.y[held])
    return right, binary_cross_entropy(z, cells.y[held])


def both(fill, table, seen, held):
    return fill(table[seen]), fill(table[held], table[seen])  # (1)!


fills = {
    "mean": fill_columns,
    "median": lambda *tables: fill_columns(*tables, by="median"),
    "kNN": fill_neighbours,
    "regressions": fill_regressions,
}
scores, rows_left = {}, []
for mechanism, slope in (("MCAR", 0), ("MAR", 2), ("MNAR", 2)):
    first = np.broadcast_to(values[:, :1], values.shape)
    drivers = values if mechanism == "MNAR" else first
    chance = np.stack([gap_chance(d, 0.4, slope) for d in drivers.T], axis=1)
    if mechanism == "MAR":
        chance[:, 0] = 0  # (2)!
    for seed in range(5):
        rng = np.random.default_rng(seed)
        table = with_gaps(values, chance, rng)
        rows_left.append(np.count_nonzero(~np.isnan(table).any(axis=1)))
        seen, held = datasets.split(569, test=171, rng=rng)
        parts = {"no gaps": (values[seen], values[held])}
        for name, fill in fills.items():
            parts[name] = both(fill, table, seen, held)
        for name in ("mean", "regressions"):
            train, test = parts[name]
            parts[f"{name} + gaps"] = (
                with_indicator(train, table[seen]),
                with_indicator(test, table[held], table[seen]),
            )
        for name, (train, test) in parts.items():
            scores.setdefault((name, mechanism), []).append(
                judged(train, test, seen, held)
            )
print("complete rows:", np.reshape(rows_left, (3, 5)).max(axis=1))
print("                   MCAR         MAR          MNAR")
for name in parts:
    print(f"{name:18}", end="")
    for mechanism in MECHANISMS:
        right, loss = np.mean(scores[name, mechanism], axis=0)
        print(f" {right:.2f} ({loss:.2f})", end="")
    print()
# --8<-- [end:classifier]

# --8<-- [start:long-cost]
import os

if "HANDBOOK_LONG" in os.environ:
    import time

    table = with_gaps(values, 0.2, np.random.default_rng(0))

    def fill_em(table):
        fit = gaussian(table, tolerance=1e-3)
        return fill_gaussian(table, fit.mean, fit.covariance)

    for name, fill in {**fills, "Gaussian": fill_em}.items():
        start = time.perf_counter()
        filled = fill(table)
        seconds = time.perf_counter() - start
        error = np.sqrt(np.mean((filled - values)[np.isnan(table)] ** 2))
        print(f"{name:11} {1000 * seconds:8.0f} ms   error {error:.2f}")
# --8<-- [end:long-cost]

# --8<-- [start:peer]
import warnings

from scipy.stats import multivariate_normal
from sklearn import impute
from sklearn.datasets import load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import Ridge

warnings.filterwarnings("ignore", message=".*stopping criterion not reached")
wine = datasets.standardize(load_wine().data)
peers = {
    "median": impute.SimpleImputer(strategy="median"),
    "kNN": impute.KNNImputer(),
    "regressions": impute.IterativeImputer(Ridge(), tol=0),  # (1)!
}
for name, whole in (("cells", values), ("patients", patients), ("wine", wine)):
    table = with_gaps(whole, 0.3, np.random.default_rng(1))
    train, test = table[::2], table[1::2]
    away, tied = gap_distances(test, train), np.zeros(test.shape, bool)
    for row, d in np.argwhere(np.isnan(test)):
        near = np.sort(away[row, ~np.isnan(train[:, d])])
        tied[row, d] = near[5] - near[4] < 1e-12  # (2)!
    print(f"{name:8} tied {tied.sum():2}, others equal:", end="")
    for way, peer in peers.items():
        off = fills[way](test, train) - peer.fit(train).transform(test)
        print(f" {way}", bool(np.abs(off[~tied]).max() < 1e-10), end="")
    print()

two = patients[:, [BMI, PROGRESS]]
fit = gaussian(two)  # (3)!
total = multivariate_normal(fit.mean, fit.covariance).logpdf(two).sum()
print("likelihood as by SciPy:", bool(abs(fit.likelihoods[-1] - total) < 1e-9))
# --8<-- [end:peer]

# --8<-- [start:worlds]
rng = np.random.default_rng(0)
table = with_gaps(patients, chances("MAR"), rng)
gap = np.isnan(table[:, BMI])
second = patients.copy()
second[gap, BMI] += 1  # (1)!
shown = [np.where(np.isnan(table), np.nan, w) for w in (patients, second)]
print("the same table:", np.array_equal(*shown, equal_nan=True))
print("           mean of   weight on the log-odds of a gap")
print("           the mass   progression   mass")
for name, world in (("as it is", patients), ("second", second)):
    pair = world[:, [PROGRESS, BMI]]
    (progress, mass), _, _ = fit_logistic(pair, gap.astype(int))
    mean = world[:, BMI].mean() + 0.0
    print(f"{name:10} {mean:6.2f}  {progress:10.1f}  {mass:10.1f}")
# --8<-- [end:worlds]

# --8<-- [start:shift]
drawn = [fill_regressions(table, rng=rng)[:, BMI] for _ in range(20)]
shifts, answers = np.linspace(-1, 1, 5), []
for shift in shifts:
    moved = [column + shift * gap for column in drawn]
    pooled = pool(
        [column.mean() for column in moved],
        [column.var(ddof=1) / len(column) for column in moved],
    )
    reach = student.ppf(0.975, pooled.freedom) * np.sqrt(pooled.variance)
    answers.append([pooled.estimate, reach])
    low, high = pooled.estimate - reach, pooled.estimate + reach
    print(f"shift {shift:4.1f}: mean {pooled.estimate:5.2f}", end="")
    print(f"   95 % from {low:5.2f} to {high:5.2f}")

figure, axis = plt.subplots(figsize=(5.6, 3.0))
middle, reach = np.transpose(answers)
axis.errorbar(shifts, middle, yerr=reach, fmt="o-", capsize=3)
axis.axhline(0, color="0.5", lw=1)
axis.set(xlabel="shift of the gaps", ylabel="mean of the mass")
# --8<-- [end:shift]

# --8<-- [start:leak]
labels = datasets.standardize(cells.y[:, None])
found = []
for seed in range(20):
    rng = np.random.default_rng(seed)
    table = with_gaps(values, 0.4, rng)
    seen, rest = datasets.split(569, test=529, rng=rng)
    held = rest[:200]
    found.append([])
    for fill in (fill_columns, fill_regressions):
        apart = both(fill, table, seen, held)
        together = np.split(fill(table[[*seen, *held]]), [40])  # (1)!
        found[-1] += [judged(*parts, seen, held) for parts in (apart, together)]
    wide = np.hstack([table, labels])[[*seen, *held]]  # (2)!
    parts = np.split(fill_regressions(wide)[:, :-1], [40])
    found[-1].append(judged(*parts, seen, held))
found = np.array(found)  # [20, ways, accuracy and loss]
ways = ["mean", "mean, all rows", "regressions", "regressions, all rows"]
for k, name in enumerate([*ways, "regressions, all rows and labels"]):
    right, loss = found[:, k].mean(axis=0)
    print(f"{name:33} {right:.3f} ({loss:.3f})")
for k, name in ((0, "mean"), (2, "regressions")):
    gain = found[:, k + 1, 0] - found[:, k, 0]
    error = gain.std(ddof=1) / np.sqrt(20)
    print(f"gain by all rows, {name:11} {gain.mean():.3f} ± {error:.3f}")
# --8<-- [end:leak]

# --8<-- [start:target]
for name, columns in (("with", 11), ("without", 10)):
    slopes = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        filled = with_gaps(patients, chances("MCAR"), rng)
        filled[:, :columns] = fill_regressions(filled[:, :columns], rng=rng)
        slopes.append(statistics(filled)[3] - truth[3])
    error = np.std(slopes, ddof=1) / np.sqrt(20)
    print(f"{name:7} the target: bias of the slope", end="")
    print(f" {np.mean(slopes):5.2f} ± {error:.2f}")
# --8<-- [end:target]

# --8<-- [start:refused]
nan = np.nan
print(fill_neighbours([[1, nan], [nan, 4], [nan, 6]]).tolist())  # (1)!
for call in (
    lambda: complete_rows([[1, nan], [nan, 2]]),
    lambda: fill_columns([[1, nan], [2, nan]]),
    lambda: fill_columns([[1, np.inf], [2, 3]]),
    lambda: fill_columns([["1", "?"]]),
    lambda: gaussian([[1, 2], [2, 4], [3, 6]]),
):
    try:
        call()
    except ValueError as reason:
        print(reason)
# --8<-- [end:refused]

# --8<-- [start:solution-mean]
table = with_gaps(patients, chances("MAR"), np.random.default_rng(0))
rows, filled = table[complete_rows(table)], fill_columns(table)
share = len(rows) / len(table)
inner, outer = (
    np.cov(t[:, BMI], t[:, PROGRESS], ddof=0) for t in (rows, filled)
)
assert np.isclose(outer[0, 0], share * inner[0, 0])
assert np.isclose(outer[0, 1], share * inner[0, 1])
assert np.isclose(statistics(filled)[3], statistics(rows)[3])
# --8<-- [end:solution-mean]

# --8<-- [start:solution-weights]
off = []
for seed in range(20):
    rng = np.random.default_rng(seed)
    table = with_gaps(patients, chances("MAR"), rng)
    gap = np.isnan(table[:, BMI])
    rows = complete_rows(table)
    weights, bias, _ = fit_logistic(table[:, [PROGRESS]], gap.astype(int))
    z = predict(table[:, [PROGRESS]], weights, bias)
    each = 1 + np.exp(z[rows])  # (1)!
    mass = table[rows, BMI]
    off.append([mass.mean(), each @ mass / each.sum()])
(plain, weighted), spread = np.mean(off, axis=0), np.std(off, axis=0)
print(f"plain    bias {plain:5.2f}, spread {spread[0]:.2f}")
print(f"weighted bias {weighted:5.2f}, spread {spread[1]:.2f}")
assert abs(weighted) < abs(plain) / 3
# --8<-- [end:solution-weights]

# --8<-- [start:solution-closed]
pair = with_gaps(patients, chances("MAR"), np.random.default_rng(0))
pair = pair[:, [PROGRESS, BMI]]
seen = ~np.isnan(pair[:, 1])
slope, _ = np.polyfit(*pair[seen].T, 1)
inner, outer = pair[seen].T, pair[:, 0]
mean = inner[1].mean() + slope * (outer.mean() - inner[0].mean())
variance = inner[1].var() + slope**2 * (outer.var() - inner[0].var())

fit = gaussian(pair, tolerance=1e-13)
assert np.isclose(fit.mean[1], mean)
assert np.isclose(fit.covariance[1, 1], variance, rtol=1e-4)
assert np.isclose(fit.covariance[0, 1], slope * outer.var(), rtol=1e-4)
# --8<-- [end:solution-closed]
