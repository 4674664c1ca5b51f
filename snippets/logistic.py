# --8<-- [start:by-hand]
import numpy as np

exposed = np.array([0, 0, 0, 0, 1, 1, 1, 1])
ill = np.array([0, 0, 0, 1, 0, 1, 1, 1])

a = np.column_stack([exposed, np.ones(8)])
theta = np.zeros(2)  # (1)!
for step in range(1, 6):
    p = 1 / (1 + np.exp(-(a @ theta)))
    slope = a.T @ (p - ill) / 8
    curvature = (a.T * (p * (1 - p))) @ a / 8  # (2)!
    theta = theta - np.linalg.solve(curvature, slope)
    print(f"step {step}: odds ratio {np.exp(theta[0]):.4f}")
# --8<-- [end:by-hand]

# --8<-- [start:shift]
from aimodels.logistic import sigmoid, softmax

print(softmax([1, 2, 3]).round(4))
print(softmax([1001, 1002, 1003]).round(4))  # (1)!
print(softmax([0, 2]).round(4), sigmoid(2).round(4))  # (2)!
# --8<-- [end:shift]

# --8<-- [start:curve]
import matplotlib.pyplot as plt

from aimodels.datasets import breast_cancer
from aimodels.linear import normal_equations, predict
from aimodels.logistic import fit_logistic

table = breast_cancer()
radius = table.x[:, :1]
weights, bias, _ = fit_logistic(radius, table.y)
print(f"log-odds = {weights[0]:.2f} * radius {bias:+.1f}")
print(f"odds per unit of radius: times {np.exp(weights[0]):.2f}")
print(f"even odds at radius {-bias / weights[0]:.1f}")

edges = np.quantile(radius, np.linspace(0, 1, 13))
group = np.digitize(radius[:, 0], edges[1:-1])
shown = np.linspace(6, 29, 200)[:, None]
figure, axis = plt.subplots(figsize=(5.6, 3.2))
axis.plot(
    [radius[group == g].mean() for g in range(12)],
    [table.y[group == g].mean() for g in range(12)],
    "o",
    color="C0",
    label="share malignant, 12 groups",
)
axis.plot(shown, sigmoid(predict(shown, weights, bias)), "C1", label="logistic")
line = predict(shown, *normal_equations(radius, table.y))
axis.plot(shown, line, "C2--", label="linear")
axis.set(xlabel="mean radius", ylabel="probability", ylim=(-0.3, 1.6))
axis.legend(loc="upper left")
# --8<-- [end:curve]

# --8<-- [start:odds]
from aimodels.datasets import standardize
from aimodels.logistic import hessian

used = [0, 1, 4, 7]
four = standardize(table.x[:, used])
weights, bias, _ = fit_logistic(four, table.y)
error = np.sqrt(np.diag(np.linalg.inv(569 * hessian(four, weights, bias))))
figure, axis = plt.subplots(figsize=(5.6, 2.8))
for row, column in enumerate(used):
    name = table.names[column].removeprefix("mean ")
    alone, level, _ = fit_logistic(four[:, [row]], table.y)
    curved = 569 * hessian(four[:, [row]], alone, level)
    spread = np.sqrt(np.linalg.inv(curved)[0, 0])
    low, high = np.exp(weights[row] + np.array([-1.96, 1.96]) * error[row])
    print(f"{name:14} alone {np.exp(alone[0]):5.1f}", end="   together ")
    print(f"{np.exp(weights[row]):4.1f} ({low:.1f} to {high:.1f})")
    ends = np.exp(alone[0] + np.array([-1.96, 1.96]) * spread)  # (1)!
    axis.hlines(row - 0.15, *ends, color="C0", lw=4, label="alone")
    axis.hlines(row + 0.15, low, high, color="C1", lw=4, label="together")
    axis.text(0.14, row, name, va="center")
axis.axvline(1, ls="--", color="C2")
axis.set(
    xlabel="odds ratio per standard deviation", yticks=[], xlim=(0.12, 200)
)
axis.set(xscale="log", ylim=(3.5, -0.5))
handles, words = axis.get_legend_handles_labels()
figure.legend(handles[:2], words[:2], loc="outside lower center", ncols=2)
# --8<-- [end:odds]

# --8<-- [start:walks]
from aimodels.linear import stable_rate
from aimodels.logistic import binary_cross_entropy, gradient

*_, newton = fit_logistic(four, table.y)
rate = 8 * stable_rate(four)  # (1)!
w, b, descent = np.zeros(4), 0.0, []
for _ in range(1000):
    descent.append(binary_cross_entropy(predict(four, w, b), table.y))
    by_w, by_b = gradient(four, table.y, w, b)
    w, b = w - rate * by_w, b - rate * by_b
for name, losses in (("Newton", newton), ("gradient descent", descent)):
    above = np.array(losses) - newton[-1]
    print(f"{name}: within a millionth after {np.argmax(above < 1e-6)} steps")

figure, axis = plt.subplots(figsize=(5.6, 3.0))
axis.loglog(np.arange(1, 1001), descent - newton[-1], label="gradient descent")
axis.loglog(np.arange(1, 9), newton[:8] - newton[-1], "o-", label="Newton")
axis.set(xlabel="step + 1", ylabel="loss above the minimum", ylim=(1e-13, 2))
axis.legend()
# --8<-- [end:walks]


# --8<-- [start:held-out]
def held_out(strength):  # (1)!
    order = np.random.default_rng(0).permutation(569)
    z = np.empty(569)
    for test in np.array_split(order, 10):
        train = np.setdiff1d(order, test)
        seen, unseen = standardize(table.x[train], table.x[test])
        fitted = fit_logistic(seen, table.y[train], strength)
        z[test] = predict(unseen, *fitted[:2])
    return z


logits = {strength: held_out(strength) for strength in (0.01, 1, 100)}
for threshold in (0.5, 0.2, 0.05):
    alarm = sigmoid(logits[1]) >= threshold
    missed = np.sum(~alarm & (table.y == 1))
    false = np.sum(alarm & (table.y == 0))
    print(f"from {threshold:4}: {missed} of 212 missed, {false:2} false alarms")
# --8<-- [end:held-out]

# --8<-- [start:calibration]
figure, axis = plt.subplots(figsize=(5.6, 3.6))
axis.plot([0, 1], [0, 1], "--", color="C3", label="calibrated")
for (strength, z), mark in zip(logits.items(), "o^s", strict=True):
    p = sigmoid(z)
    group = np.digitize(p, [0.05, 0.3, 0.7, 0.95])
    said = [p[group == g].mean() for g in range(5)]
    seen = [table.y[group == g].mean() for g in range(5)]
    axis.plot(said, seen, mark + "-", label=f"strength {strength}")
    print(f"strength {strength:4}: ", end="")
    print(f"held-out loss {binary_cross_entropy(z, table.y):.2f}, ", end="")
    (slope,), *_ = fit_logistic(z[:, None], table.y)  # (1)!
    print(f"slope {slope:.2f}")
axis.set(xlabel="predicted probability", ylabel="share malignant")
axis.legend()
# --8<-- [end:calibration]

# --8<-- [start:digits]
from aimodels.datasets import digits, split
from aimodels.logistic import fit_softmax

images = digits()
pixels = images.x.reshape(1797, 64) / 16
train, test = split(1797, test=450, rng=np.random.default_rng(0))
fitted = fit_softmax(pixels[train], images.y[train], strength=10)
digit_weights, digit_bias, losses = fitted
print(digit_weights.shape, digit_bias.shape, "Newton steps:", len(losses) - 1)
for name, rows in (("train", train), ("test", test)):
    z = pixels[rows] @ digit_weights + digit_bias
    print(f"{name}: accuracy {np.mean(z.argmax(axis=1) == images.y[rows]):.3f}")

figure, axes = plt.subplots(2, 5, figsize=(5.6, 2.6))
top = np.abs(digit_weights).max()
for digit, axis in enumerate(axes.flat):
    shape = digit_weights[:, digit].reshape(8, 8)
    axis.imshow(shape, cmap="RdBu_r", vmin=-top, vmax=top)
    axis.set_title(digit)
    axis.axis("off")
# --8<-- [end:digits]

# --8<-- [start:peers]
from sklearn.linear_model import LogisticRegression

columns = standardize(table.x)
small = pixels[:300], images.y[:300]
worst = 0.0
for x, y, strength, fit in (
    (four, table.y, 0, fit_logistic),
    (columns, table.y, 1, fit_logistic),
    (*small, 1, fit_softmax),
):
    inverse = 1 / strength if strength else np.inf  # (1)!
    theirs = LogisticRegression(
        C=inverse, tol=1e-12, solver="newton-cholesky"
    ).fit(x, y)
    ours, bias, _ = fit(x, y, strength)
    worst = max(worst, np.abs(ours.T - theirs.coef_).max())
    worst = max(worst, np.abs(bias - theirs.intercept_).max())
print("largest difference below 1e-8:", worst < 1e-8)

exact, *_ = fit_logistic(columns, table.y, 1)
tolerances = 10.0 ** np.arange(-1, -9, -1)
away = []
for tol in tolerances:
    theirs = LogisticRegression(tol=tol, max_iter=10_000).fit(columns, table.y)
    away.append(np.abs(theirs.coef_[0] - exact).max())
print(f"at scikit-learn's default tolerance: {away[3]:.2f}")
figure, axis = plt.subplots(figsize=(5.6, 2.8))
axis.loglog(tolerances, away, "o-", label="weights")
axis.axvline(1e-4, ls="--", color="C1", label="default")
axis.set(xlabel="tolerance of scikit-learn", ylabel="largest difference")
axis.invert_xaxis()
axis.legend()
# --8<-- [end:peers]

# --8<-- [start:digits-lost]
import keras

print("margin     naive     Keras     naive    stable")  # (1)!
print("         float32   float32   float64   float64")
for margin in (5.0, 20.0, 40.0, -20.0, -100.0, -1000.0):
    row = []
    for kind in (np.float32, np.float64):
        with np.errstate(over="ignore", divide="ignore"):
            p = 1 / (1 + np.exp(-kind(margin)))
            row.append(-np.log(p))
    p = keras.ops.convert_to_numpy(keras.ops.sigmoid([margin]))
    capped = keras.losses.binary_crossentropy([1.0], p)  # (2)!
    row.insert(1, float(capped))
    row.append(binary_cross_entropy([margin], [1]))
    print(f"{margin:6.0f}", *(f"{loss + 0:9.2e}" for loss in row))
exact = keras.losses.binary_crossentropy([1.0], [-100.0], from_logits=True)
print("Keras from logits:", float(exact))
# --8<-- [end:digits-lost]

# --8<-- [start:separable]
w, b = np.zeros(30), 0.0
for step in range(1, 10001):
    by_w, by_b = gradient(columns, table.y, w, b)
    w, b = w - by_w, b - by_b
    if step in (100, 1000, 10000):
        loss = binary_cross_entropy(predict(columns, w, b), table.y)
        print(f"step {step:5}: length {np.linalg.norm(w):4.1f}", end="  ")
        print(f"loss {loss:.3f}")
try:
    fit_logistic(columns, table.y)
except ValueError as reason:
    print(reason)
# --8<-- [end:separable]

# --8<-- [start:default]
ours, *_ = fit_logistic(four, table.y)
default = LogisticRegression(tol=1e-9).fit(four, table.y).coef_[0]
raw = LogisticRegression(tol=1e-9, max_iter=10_000)
raw = raw.fit(table.x[:, used], table.y).coef_[0] * table.x[:, used].std(axis=0)
print("odds ratios of", [table.names[c].removeprefix("mean ") for c in used])
print("likelihood alone     ", np.exp(ours).round(1))
print("C = 1, standardized  ", np.exp(default).round(1))
print("C = 1, as measured   ", np.exp(raw).round(1))
# --8<-- [end:default]

# --8<-- [start:solution-two-classes]
w, b, _ = fit_logistic(four, table.y, strength=1)
both, level, _ = fit_softmax(four, table.y, strength=2)
assert np.allclose(both[:, 1] - both[:, 0], w)
assert np.allclose(level[1] - level[0], b)
assert np.allclose(both.sum(axis=1), 0)  # (1)!
slope = np.append(*gradient(four, table.y, w, b, strength=1))
assert np.allclose(slope, 0)
# --8<-- [end:solution-two-classes]

# --8<-- [start:solution-prevalence]
benign = np.flatnonzero(table.y == 0)
rows = np.concatenate([np.arange(569), np.repeat(benign, 9)])  # (1)!
rare, low, _ = fit_logistic(four[rows], table.y[rows])
weights, bias, _ = fit_logistic(four, table.y)
print("weights", weights.round(1), "become", rare.round(1))
z = predict(four, weights, bias)
for name, logit in (
    ("as fitted", z),
    ("minus log 10", z - np.log(10)),
    ("fitted anew", predict(four, rare, low)),
):
    loss = binary_cross_entropy(logit[rows], table.y[rows])
    print(f"{name:12}: mean {sigmoid(logit[rows]).mean():.3f}", end="  ")
    print(f"loss {loss:.3f}")
assert np.isclose(bias - low, np.log(10), rtol=0.05)
# --8<-- [end:solution-prevalence]

# --8<-- [start:solution-squares]
z = np.array([-10.0, -2.0, 0.0, 2.0])
p = sigmoid(z)
by_entropy = p - 1
by_square = 2 * (p - 1) * p * (1 - p)
nudge = 1e-6
squares = ((sigmoid(z + nudge) - 1) ** 2 - (sigmoid(z - nudge) - 1) ** 2) / 2e-6
assert np.allclose(by_square, squares, atol=1e-9)
for row in zip(z, by_entropy, by_square, strict=True):
    print("logit {:5.1f}  cross-entropy {:.4f}  squares {:.4f}".format(*row))
# --8<-- [end:solution-squares]
