# --8<-- [start:by-hand]
import numpy as np

x = np.array([[0.0], [1.0], [2.0]])
y = np.array([1.0, 2.0, 4.0])

a = np.column_stack([x, np.ones(3)])  # (1)!
slope, intercept = np.linalg.solve(a.T @ a, a.T @ y)  # (2)!
print(f"slope {slope:.4f}, intercept {intercept:.4f}")
# --8<-- [end:by-hand]

# --8<-- [start:walk]
theta = np.zeros(2)  # (1)!
for step in range(1, 101):
    error = a @ theta - y
    theta = theta - 0.25 * (2 / 3) * (a.T @ error)  # (2)!
    if step in (1, 10, 100):
        print(f"step {step:3}: slope {theta[0]:.4f}, intercept {theta[1]:.4f}")
# --8<-- [end:walk]

# --8<-- [start:line]
import matplotlib.pyplot as plt

from aimodels.datasets import diabetes
from aimodels.linear import mean_squared_error, normal_equations, predict

table = diabetes()
bmi = table.x[:, 2:3]  # (1)!
weights, bias = normal_equations(bmi, table.y)
print(f"progression = {weights[0]:.2f} * bmi {bias:+.2f}")

on_line = predict(bmi, weights, bias)
at_mean = np.full(len(table.y), table.y.mean())
for name, guess in (("mean", at_mean), ("line", on_line)):
    print(f"{name}: root mean squared error", end=" ")
    print(f"{np.sqrt(mean_squared_error(guess, table.y)):.1f}")

figure, axis = plt.subplots(figsize=(5.6, 3.4))
axis.scatter(bmi, table.y, s=9, color="C0", alpha=0.6, label="patient")
shown = np.arange(0, 442, 40)
axis.vlines(bmi[shown, 0], on_line[shown], table.y[shown], color="C3", lw=1)
ends = np.array([[17.0], [43.0]])
axis.plot(ends, predict(ends, weights, bias), color="C1", lw=2, label="line")
axis.axhline(table.y.mean(), color="C2", ls="--", label="mean")
axis.set(xlabel="body mass index (kg/m²)", ylabel="progression")
axis.legend(loc="upper left")
# --8<-- [end:line]

# --8<-- [start:tape]
import tensorflow as tf

from aimodels.datasets import standardize
from aimodels.linear import gradient_descent

scaled = standardize(bmi)  # (1)!
walked, start, _ = gradient_descent(scaled, table.y, rate=0.1, steps=80)

inputs = tf.constant(scaled, tf.float32)
targets = tf.constant(table.y, tf.float32)
w = tf.Variable(tf.zeros(1))
b = tf.Variable(0.0)
for _ in range(80):
    with tf.GradientTape() as tape:  # (2)!
        guess = tf.linalg.matvec(inputs, w) + b
        loss = tf.reduce_mean((guess - targets) ** 2)
    by_w, by_b = tape.gradient(loss, [w, b])
    w.assign_sub(0.1 * by_w)  # (3)!
    b.assign_sub(0.1 * by_b)


def unscale(weight, bias):  # (4)!
    weight = weight / bmi.std()
    return weight, bias - weight * bmi.mean()


for name, (slope, intercept) in {
    "normal equations": (weights[0], bias),
    "gradient descent": unscale(walked[0], start),
    "GradientTape": unscale(w.numpy()[0], b.numpy()),
}.items():
    print(f"{name:17} slope {slope:.3f}  intercept {intercept:.2f}")
# --8<-- [end:tape]

# --8<-- [start:rates]
from aimodels.linear import stable_rate

columns = standardize(table.x)
best = mean_squared_error(
    predict(columns, *normal_equations(columns, table.y)), table.y
)
limit = stable_rate(columns)
print(f"2 / largest curvature: {limit:.4f}")

figure, axis = plt.subplots(figsize=(5.6, 3.2))
for share, words in (
    (0.01, "too small"),
    (0.9, "right"),
    (1.02, "too large"),
):
    *_, losses = gradient_descent(columns, table.y, share * limit, 150)
    print(f"{words:9} {share:4} x: final loss {losses[-1]:.2e}")
    axis.semilogy(losses - best, label=words)
axis.set(xlabel="step", ylabel="loss above the minimum")
axis.legend()
# --8<-- [end:rates]

# --8<-- [start:threshold]
low, high = 0.2, 0.3  # (1)!
for _ in range(16):
    rate = (low + high) / 2
    *_, losses = gradient_descent(columns, table.y, rate, 400)
    low, high = (low, rate) if losses[-1] > losses[-2] else (rate, high)
print(f"measured {low:.3f}, predicted {limit:.3f}")
# --8<-- [end:threshold]

# --8<-- [start:held-out]
from aimodels.datasets import split


def held_out_errors(seed):
    train, test = split(442, test=110, rng=np.random.default_rng(seed))
    x_train, x_test = standardize(table.x[train], table.x[test])
    y_train, y_test = table.y[train], table.y[test]
    guesses = {"mean": np.full(110, y_train.mean())}
    for name, used in (("bmi", [2]), ("all ten", list(range(10)))):
        fitted = normal_equations(x_train[:, used], y_train)
        guesses[name] = predict(x_test[:, used], *fitted)
    errors = {
        name: np.sqrt(mean_squared_error(guess, y_test))
        for name, guess in guesses.items()
    }
    return errors, guesses["all ten"], y_test


errors = [held_out_errors(seed)[0] for seed in range(100)]
for name in ("mean", "bmi", "all ten"):
    values = np.array([error[name] for error in errors])
    print(f"{name:8} {values.mean():.1f} ± {values.std():.1f}")
for better, worse in (("bmi", "mean"), ("all ten", "bmi")):
    wins = sum(error[better] < error[worse] for error in errors)
    print(f"{better} beats {worse} in {wins} of 100 splits")

_, guess, truth = held_out_errors(0)
figure, axis = plt.subplots(figsize=(5.6, 3.4))
axis.scatter(guess, truth, s=12, color="C0", label="held-out patient")
axis.plot([25, 345], [25, 345], color="C1", label="perfect prediction")
axis.set(xlabel="predicted", ylabel="measured")
axis.legend(loc="upper left")
# --8<-- [end:held-out]

# --8<-- [start:peers]
from sklearn.linear_model import LinearRegression

from aimodels.linear import least_squares

rng = np.random.default_rng(0)
worst = 0.0
for rows, width in ((2, 1), (30, 3), (500, 20), (5, 12), (1, 4)):
    for repeated in (False, True):
        x = rng.normal(size=(rows, width))
        if repeated:
            x[:, -1] = x[:, 0]  # (1)!
        y = rng.normal(size=rows)
        ours = predict(x, *least_squares(x, y))
        a = np.column_stack([x, np.ones(rows)])
        numpy_says = a @ np.linalg.lstsq(a, y)[0]
        sklearn_says = LinearRegression().fit(x, y).predict(x)
        worst = max(worst, np.abs(ours - numpy_says).max())
        worst = max(worst, np.abs(ours - sklearn_says).max())
print("largest difference below 1e-10:", worst < 1e-10)
# --8<-- [end:peers]

# --8<-- [start:decay]
a = np.column_stack([columns, np.ones(442)])
curvature, direction = np.linalg.eigh(2 / 442 * a.T @ a)
goal = np.append(*normal_equations(columns, table.y))
rate, counted = 0.9 * limit, np.arange(0, 81, 5)
away = []
for steps in counted:
    *reached, _ = gradient_descent(columns, table.y, rate, steps)
    away.append(np.abs(direction.T @ (np.append(*reached) - goal)))
away = np.array(away)  # (1)!

figure, axis = plt.subplots(figsize=(5.6, 3.2))
worst = 0.0
for k, words in ((0, "smallest"), (1, "second smallest"), (10, "largest")):
    formula = away[0, k] * np.abs(1 - rate * curvature[k]) ** counted
    worst = max(worst, np.abs(formula / away[:, k] - 1).max())
    (drawn,) = axis.semilogy(counted, formula, label=f"{words} curvature")
    axis.plot(counted, away[:, k], "o", ms=4, color=drawn.get_color())
axis.set(xlabel="step", ylabel="distance to the minimum")
axis.legend()
print("formula and walk agree to 6 digits:", worst < 1e-6)
# --8<-- [end:decay]

# --8<-- [start:condition]
from aimodels.linear import curvatures

for name, x in (("as measured", table.x), ("standardized", columns)):
    curved = curvatures(x)
    print(f"{name:12} condition {curved[-1] / curved[0]:.1e}", end="")
    print(f"  rate below {stable_rate(x):.1e}")
# --8<-- [end:condition]

# --8<-- [start:ravine]
figure, axes = plt.subplots(1, 2, figsize=(5.6, 3.1))
for axis, x, name, reach in (
    (axes[0], bmi, "as measured", (13, 160)),
    (axes[1], scaled, "standardized", (180, 180)),
):
    (slope,), level = normal_equations(x, table.y)
    rate, path = 0.45 * stable_rate(x), np.zeros((101, 2))  # (1)!
    for n in range(100):
        start = path[n, :1], path[n, 1]
        *end, _ = gradient_descent(x, table.y, rate, 1, start)
        path[n + 1] = np.append(*end)
    slopes = np.linspace(slope - reach[0], slope + reach[0], 100)
    levels = np.linspace(level - reach[1], level + reach[1], 100)
    losses = [
        [mean_squared_error(predict(x, [w], b), table.y) for w in slopes]
        for b in levels
    ]
    axis.contour(slopes, levels, losses, np.geomspace(5e3, 2e5, 7), colors="C0")
    axis.plot(*path.T, ".-", color="C1", label="100 steps")
    axis.plot(slope, level, "*", ms=10, color="C3", label="minimum")
    axis.set(title=name, xlabel="slope")
    print(f"{name:12} intercept {path[-1, 1]:7.2f}  goal {level:7.2f}")
axes[0].set_ylabel("intercept")
figure.legend(
    *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2
)
# --8<-- [end:ravine]

# --8<-- [start:twin]
stored = np.column_stack([bmi, bmi.astype("float32")])  # (1)!
curved = curvatures(stored)
print(f"condition number {curved[-1] / curved[0]:.0e}")
by_svd, _ = least_squares(stored, table.y)
squared, _ = normal_equations(stored, table.y)
print("weights", [f"{weight:.2e}" for weight in by_svd])
off = np.abs(squared - by_svd).max()
print("normal equations off by a million:", off > 1e6)
# --8<-- [end:twin]

# --8<-- [start:collinear]
print("correlation of s1 and s2:", np.corrcoef(columns.T)[4, 5].round(2))
rng = np.random.default_rng(0)
drawn = rng.integers(442, size=(300, 442))  # (1)!
fits = np.array(
    [normal_equations(columns[rows], table.y[rows])[0] for rows in drawn]
)
low, middle, high = np.percentile(fits, [5, 50, 95], axis=0)
for name, column in (("bmi", 2), ("s1", 4), ("s2", 5)):
    print(f"{name}: {low[column]:.0f} to {high[column]:.0f}")

figure, axis = plt.subplots(figsize=(5.6, 3.2))
axis.hlines(range(10), low, high, lw=4, color="C0")
axis.plot(middle, range(10), "o", color="C1")
axis.axvline(0, ls="--", color="C2")
for row, name in enumerate(table.names):
    axis.text(-88, row, name, va="center")
axis.set(xlabel="weight per standard deviation", xlim=(-90, 55), yticks=[])
axis.invert_yaxis()
# --8<-- [end:collinear]

# --8<-- [start:outlier]
mistyped = bmi.copy()
mistyped[0] = 321.0  # (1)!
print("slope", weights[0].round(2), "becomes", end=" ")
print(normal_equations(mistyped, table.y)[0][0].round(2))
# --8<-- [end:outlier]

# --8<-- [start:solution-ridge]
from sklearn.linear_model import Ridge


def ridge(x, y, strength):
    centre = x.mean(axis=0)
    gram = (x - centre).T @ (x - centre) + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, (x - centre).T @ (y - y.mean()))
    return weights, y.mean() - centre @ weights


for strength in (0.0, 10.0, 1000.0):
    fitted, level = ridge(columns, table.y, strength)
    theirs = Ridge(alpha=strength).fit(columns, table.y)
    assert np.allclose(fitted, theirs.coef_, atol=1e-6)
    assert np.isclose(level, theirs.intercept_)
    print(f"{strength:6}: s1 {fitted[4]:6.1f}  s2 {fitted[5]:6.1f}")
twice = np.repeat(columns, 2, axis=1)  # (1)!
assert np.allclose(*ridge(twice, table.y, 1.0)[0].reshape(10, 2).T)
# --8<-- [end:solution-ridge]

# --8<-- [start:solution-stochastic]
from aimodels.linear import gradient


def stochastic(rate_at, epochs=40, batch=32):
    rng = np.random.default_rng(0)
    weights, bias, step, losses = np.zeros(10), 0.0, 0, []
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(442), 442 // batch):
            by_weights, by_bias = gradient(
                columns[rows], table.y[rows], weights, bias
            )
            weights = weights - rate_at(step) * by_weights
            bias = bias - rate_at(step) * by_bias
            step += 1
        guess = predict(columns, weights, bias)
        losses.append(mean_squared_error(guess, table.y))
    return np.mean(losses[-20:]) / best - 1  # (1)!


constant = stochastic(lambda step: 0.1)
falling = stochastic(lambda step: 0.1 / (1 + step / 100))
print(f"above the minimum: constant {constant:.1%}, falling {falling:.1%}")
assert 0 < falling < constant / 2 < 0.1
# --8<-- [end:solution-stochastic]

# --8<-- [start:solution-singular]
doubled = np.column_stack([bmi, 2 * bmi])
try:
    normal_equations(doubled, table.y)
except ValueError as reason:
    print(reason)
shortest, level = least_squares(doubled, table.y)
moved = shortest + 100 * np.array([2.0, -1.0])  # (1)!
same = predict(doubled, moved, level)
assert np.allclose(same, predict(doubled, shortest, level))
assert np.allclose(same, on_line)
assert np.linalg.norm(shortest) < np.linalg.norm(moved)
print(shortest.round(3), moved.round(3))
# --8<-- [end:solution-singular]
