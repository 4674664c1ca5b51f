# --8<-- [start:by-hand]
beta1, beta2, rate = 0.5, 0.75, 0.1
m = v = 0.0
for t, g in enumerate([4.0, 4.0, -2.0], start=1):
    m = beta1 * m + (1 - beta1) * g  # (1)!
    v = beta2 * v + (1 - beta2) * g**2
    mean = m / (1 - beta1**t)  # (2)!
    size = (v / (1 - beta2**t)) ** 0.5
    step = -rate * mean / size
    print(f"{t}: mean {mean:.2f}  size {size:.2f}  step {step:.3f}")
# --8<-- [end:by-hand]

# --8<-- [start:rules]
import numpy as np

from aimodels.optimizers import adam, adamw, momentum, rmsprop, sgd, walk

rules = {
    "SGD": (sgd, {}),
    "momentum": (momentum, {}),
    "Nesterov": (momentum, {"nesterov": True}),
    "RMSProp": (rmsprop, {}),
    "Adam": (adam, {}),
    "AdamW": (adamw, {}),
}


def replay(gradients):
    given = iter(gradients)
    return lambda theta: next(given)  # (1)!


for name, (rule, settings) in rules.items():
    print(f"{name:9}", end="")
    for gradients in ([1.0, 1.0, -0.5], [100.0, 100.0, -50.0]):
        path = walk(rule, replay(gradients), 0.0, 0.1, 3, **settings)
        print("".join(f"{step:8.2f}" for step in np.diff(path)), end="  ")
    print()
# --8<-- [end:rules]

# --8<-- [start:paths]
import matplotlib.pyplot as plt

from aimodels.datasets import diabetes, standardize

table = diabetes()
columns = standardize(table.x)
progression = table.y - table.y.mean()  # (1)!


def bowl(x):
    curved = 2 / len(x) * x.T @ x
    goal = np.linalg.solve(x.T @ x, x.T @ progression)
    curvature, direction = np.linalg.eigh(curved)
    return {
        "own columns": (curved, goal),
        "turned": (np.diag(curvature), direction.T @ goal),  # (2)!
    }


def downhill(curved, goal):
    return lambda theta: (theta - goal) @ curved


def above(path, curved, goal):
    return ((path - goal) @ curved * (path - goal)).sum(axis=-1) / 2


figure, axes = plt.subplots(1, 2, figsize=(5.6, 3.7), sharey=True)
line = np.linspace(-26, 26, 80)
grid = np.stack(np.meshgrid(line, line), axis=-1)
shown = {"SGD": 0.45, "momentum": 0.05, "RMSProp": 1.0, "Adam": 2.0}
frames = bowl(columns[:, 4:6])
for axis, (frame, (curved, goal)) in zip(axes, frames.items(), strict=True):
    heights = above(grid, curved, 0)
    levels = np.geomspace(3, 3e3, 8)
    axis.contour(line, line, heights, levels, colors="C7", linewidths=0.8)
    for name, rate in shown.items():
        rule, settings = rules[name]
        path = walk(rule, downhill(curved, goal), np.zeros(2), rate, 25)
        axis.plot(*(path - goal).T, ".-", ms=5, lw=1.2, label=name)
        left = above(path[-1], curved, goal)
        print(f"{frame:11} {name:9} {left:5.2f} above the minimum")
    axis.plot(0, 0, "*", ms=11, color="C4", label="minimum")
    axis.set(title=frame, aspect="equal")
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
)
# --8<-- [end:paths]

# --8<-- [start:turned]
from aimodels.optimizers import cosine

rates = np.geomspace(0.01, 100, 41)


def best(rule, curved, goal, steps=100, **settings):
    start = np.zeros((41, 10))  # (1)!
    falling = cosine(rates[:, None], steps)
    slope = downhill(curved, goal)
    with np.errstate(over="ignore", invalid="ignore"):
        *_, end = walk(rule, slope, start, falling, steps, **settings)
        left = above(end, curved, goal) / above(0, curved, goal)
    return max(np.nanmin(left), 1e-9)  # (2)!


frames = bowl(columns)
for name in ("SGD", "momentum", "Nesterov", "RMSProp", "Adam"):
    rule, settings = rules[name]
    ours, turned = (best(rule, *frame, **settings) for frame in frames.values())
    print(f"{name:9} own columns {ours:.0e}  turned {turned:.0e}")
# --8<-- [end:turned]

# --8<-- [start:rates]
curved, goal = frames["own columns"]
steepest = np.linalg.eigvalsh(curved)[-1]


def losses(rule, rate, steps, **settings):
    slope = downhill(curved, goal)
    path = walk(rule, slope, np.zeros(10), rate, steps, **settings)
    return above(path, curved, goal)


figure, axis = plt.subplots(figsize=(5.6, 3.2))
for share, words in (
    (0.002, "too small"),
    (0.2, "right"),
    (1.005, "too large"),
):
    rate = share * 2 * (1 + 0.9) / steepest
    axis.semilogy(losses(momentum, rate, 100), label=words)
axis.set(xlabel="step", ylabel="loss above the minimum", ylim=(0.1, 1e8))
axis.legend()

for name, limit in (
    ("SGD", 2),
    ("momentum", 2 * (1 + 0.9)),
    ("Nesterov", 2 * (1 + 0.9) / (1 + 2 * 0.9)),
):
    rule, settings = rules[name]
    low, high = 1.0, 5.0
    for _ in range(12):  # (1)!
        middle = (low + high) / 2
        with np.errstate(over="ignore", invalid="ignore"):
            loss = losses(rule, middle / steepest, 600, **settings)
        low, high = (middle, high) if loss[-1] < loss[0] else (low, middle)
    print(f"{name:9} measured {low:.2f}, predicted {limit:.2f}")
# --8<-- [end:rates]

# --8<-- [start:kappa]
conditions = np.array([10, 30, 100, 300, 1000])
needed = {"SGD": [], "momentum": []}
for condition in conditions:
    slope = downhill(np.diag([1, condition]), 0)
    root = np.sqrt(condition)
    beta = ((root - 1) / (root + 1)) ** 2
    for name, rule, rate, settings in (
        ("SGD", sgd, 2 / (1 + condition), {}),
        ("momentum", momentum, 4 / (1 + root) ** 2, {"beta": beta}),
    ):
        path = walk(rule, slope, np.ones(2), rate, 4000, **settings)
        far = np.linalg.norm(path, axis=1) > 0.001 * np.sqrt(2)
        needed[name].append(np.argmin(far))

figure, axis = plt.subplots(figsize=(5.6, 3.2))
for name, counts in needed.items():
    axis.loglog(conditions, counts, "o-", label=name)
    exponent = np.polyfit(np.log(conditions), np.log(counts), 1)[0]
    print(
        f"{name:8} {counts[0]} to {counts[-1]} steps, exponent {exponent:.2f}"
    )
axis.set(xlabel="condition number", ylabel="steps to a thousandth")
axis.legend()
# --8<-- [end:kappa]

# --8<-- [start:digits]
from aimodels.datasets import digits

data = digits()
x = np.column_stack([data.x.reshape(-1, 64) / 16, np.ones(1797)])  # (1)!
y = np.eye(10)[data.y]


def log_probabilities(x, theta):
    scores = x @ theta
    scores = scores - scores.max(axis=-1, keepdims=True)  # (2)!
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def loss(x, y, theta):
    return -(y * log_probabilities(x, theta)).sum(axis=-1).mean(axis=-1)


def gradient(x, y, theta):
    return x.T @ (np.exp(log_probabilities(x, theta)) - y) / len(x)


first = gradient(x, y, np.zeros((65, 10)))
inked = np.abs(first) > 1e-7  # (3)!
for name in ("SGD", "Adam"):
    end, _ = rules[name][0](np.zeros((65, 10)), first, rate=0.01)
    low, high = np.percentile(np.abs(end[inked]), [5, 95])
    print(f"{name:4} nine of ten first steps from {low:.0e} to {high:.0e}")
# --8<-- [end:digits]

# --8<-- [start:valley]
rates = np.geomspace(0.001, 100, 11)


def train(rule, seed, settings, start=0.0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(1797)
    train, test = order[450:], order[:450]

    def noisy(theta):
        rows = rng.choice(train, 64)
        return gradient(x[rows], y[rows], theta)

    begin = np.zeros((11, 65, 10)) + start  # (1)!
    *_, end = walk(rule, noisy, begin, rates[:, None, None], 210, **settings)
    right = (x[test] @ end).argmax(axis=-1) == data.y[test]
    return loss(x[train], y[train], end), right.mean(axis=-1)


figure, axis = plt.subplots(figsize=(5.6, 3.8))
valley = {}
for name in ("SGD", "momentum", "RMSProp", "Adam", "AdamW"):
    runs = [train(rules[name][0], seed, {}) for seed in range(5)]
    ended, right = np.array(runs).swapaxes(0, 1)
    middle, good = ended.mean(axis=0), np.all(ended < 0.2, axis=0)
    at = middle.argmin()
    past = ~good & (rates > rates[at])  # (2)!
    valley[name] = np.where(past, np.nan, middle)
    axis.loglog(rates, np.where(past, 4, middle), "o-", ms=4, label=name)
    low, high = ended.min(axis=0), ended.max(axis=0)
    axis.fill_between(rates, low, high, where=~past, alpha=0.3)
    print(f"{name:8} rate {rates[at]:5.2f}: loss {middle[at]:.3f}", end="")
    print(f" ± {ended[:, at].std():.3f}, held out", end=" ")
    print(f"{right[:, at].mean():.3f} ± {right[:, at].std():.3f}", end="; ")
    print(f"{good.sum()} good rates")
axis.axhline(0.2, ls="--", color="C7")
axis.set(xlabel="learning rate", ylabel="training loss")
figure.legend(loc="outside lower center", ncols=5, handlelength=1)
# --8<-- [end:valley]

# --8<-- [start:noise]
a = np.column_stack([columns, np.ones(442)])
lowest = np.linalg.lstsq(a, table.y)[1][0] / 442


def noisy_walk(rule, rate, steps=800, seed=0, **settings):
    rng = np.random.default_rng(seed)

    def noisy(theta):
        rows = rng.integers(442, size=32)
        return 2 / 32 * a[rows].T @ (a[rows] @ theta - table.y[rows])

    return walk(rule, noisy, np.zeros(11), rate, steps, **settings)


figure, axis = plt.subplots(figsize=(5.6, 3.2))
for words, rate in (
    ("constant 0.1", 0.1),
    ("constant 0.025", 0.025),
    ("falling from 0.1", cosine(0.1, 800)),
):
    paths = np.stack([noisy_walk(sgd, rate, seed=seed) for seed in range(5)])
    over = np.mean((paths @ a.T - table.y) ** 2, axis=2) - lowest
    axis.semilogy(over.mean(axis=0), label=words)
    last = over[:, -100:].mean(axis=1)
    print(f"{words:16} {last.mean():4.0f} ± {last.std():.0f}")
axis.set(xlabel="step", ylabel="loss above the minimum")
axis.legend()
# --8<-- [end:noise]

# --8<-- [start:decay]
rng = np.random.default_rng(0)
theta, state = np.zeros((65, 10)), None
for _ in range(50):
    theta, state = adam(theta, gradient(x, y, theta), state, rate=0.1)
kept = []
for _ in range(200):
    rows = rng.choice(1797, 64)
    kept.append(gradient(x[rows], y[rows], theta))  # (1)!
size = np.sqrt(np.mean(np.square(kept), axis=0))
used = size > 1e-5


def end_of(rule, penalty=0.0, **settings):
    given = replay(kept)

    def joined(theta):
        return given(theta) + penalty * theta  # (2)!

    return walk(rule, joined, np.ones((65, 10)), 0.001, 200, **settings)[-1]


figure, axis = plt.subplots(figsize=(5.6, 3.2))
for name, plain, shrunk, mark in (
    ("SGD, L2", end_of(sgd), end_of(sgd, 1e-6), "o"),
    ("Adam, L2", end_of(adam), end_of(adam, 1e-6), "."),
    ("AdamW", end_of(adam), end_of(adamw, decay=1e-6), "."),
):
    lost = (plain - shrunk)[used] / (200 * 0.001 * 1e-6)  # (3)!
    axis.loglog(size[used], lost, mark, label=name)
    low, high = np.percentile(lost, [5, 95])
    exponent = np.polyfit(np.log(size[used]), np.log(lost), 1)[0]
    print(f"{name:8} {low:3.0f} to {high:5.0f}, exponent {exponent:5.2f}")
axis.set(xlabel="size of the gradient", ylabel="shrinkage, in units of ηα")
axis.legend()
# --8<-- [end:decay]

# --8<-- [start:keras]
from keras import Variable, ops
from keras.optimizers import SGD, Adam, AdamW, RMSprop

eta = 2**-7  # (1)!
pairs = (
    (sgd, {}, SGD(eta)),
    (momentum, {}, SGD(eta, 0.9)),
    (momentum, {"beta": 0.75, "nesterov": True}, SGD(eta, 0.75, True)),
    (rmsprop, {}, RMSprop(eta)),
    (rmsprop, {"beta": 0.75, "epsilon": 0.1}, RMSprop(eta, 0.75, epsilon=0.1)),
    (adam, {}, Adam(eta)),
    (adam, {"beta1": 0.5, "beta2": 0.75}, Adam(eta, 0.5, 0.75)),
    (adamw, {}, AdamW(eta)),
    (
        adamw,
        {"beta1": 0.5, "beta2": 0.75, "decay": 0.25},
        AdamW(eta, 0.25, 0.5, 0.75),
    ),
)
rng = np.random.default_rng(0)
given = rng.normal(size=(100, 20)) * np.geomspace(1e-4, 1e3, 20)  # (2)!
start = rng.normal(size=20)
for rule, settings, optimizer in pairs:
    variable = Variable(start, dtype="float64")
    theirs = [start]
    for g in given:
        optimizer.apply([ops.convert_to_tensor(g)], [variable])
        theirs.append(variable.numpy())
    path = walk(rule, replay(given), start, eta, 100, **settings)
    gap = np.abs(path - theirs).max(axis=0) / np.abs(path).max(axis=0)
    words = ", ".join(f"{k} {v}" for k, v in settings.items()) or "defaults"
    bound = next(b for b in (1e-14, 1e-12, 1e-6, 1e-4, 1) if gap.max() < b)
    print(f"{rule.__name__:8} gap below {bound:.0e}  {words}")
# --8<-- [end:keras]

# --8<-- [start:epsilon]
for g in (1e-3, 1e-5, 1e-7):
    theirs, _ = adam(0.0, g, rate=1.0)
    paper, _ = adam(0.0, g, rate=1.0, epsilon=1e-7 * (1 - 0.999) ** 0.5)  # (1)!
    print(f"gradient {g:.0e}: Keras {-theirs:.3f}, algorithm 1 {-paper:.3f}")
# --8<-- [end:epsilon]

# --8<-- [start:foreign]
print("rate     " + "".join(f"{rate:8g}" for rate in rates[::2]))
for name, middle in valley.items():
    print(f"{name:9}" + "".join(f"{value:8.2f}" for value in middle[::2]))
# --8<-- [end:foreign]

# --8<-- [start:chaos]
here, _ = train(adam, 0, {})
there, _ = train(adam, 0, {}, start=1e-12 * np.eye(65, 10))  # (1)!
for at in (3, 5, 7, 9):
    same = np.abs(there[at] / here[at] - 1) < 1e-6
    print(f"rate {rates[at]:6.2f}: same loss to six digits: {same}")
# --8<-- [end:chaos]

# --8<-- [start:half]
from keras.mixed_precision import Policy

print("gradient  float64, 1e-7  float16, 1e-7  float16, 1e-8")
for g in (1.0, 1e-2, 1e-3, 1e-4, 0.0):
    print(f"{g:8g}", end="")
    for kind, epsilon in ((float, 1e-7), ("float16", 1e-7), ("float16", 1e-8)):
        theta = np.zeros(1, kind)
        with np.errstate(divide="ignore", invalid="ignore"):
            end, _ = adam(theta, theta + g, rate=0.01, epsilon=epsilon)
        print(f"{np.abs(end[0]):15.3f}", end="")
    print()
print(f"smallest: {np.finfo('float16').smallest_subnormal:.0e};", end="")
print(f" mixed_float16 keeps {Policy('mixed_float16').variable_dtype}")
# --8<-- [end:half]

# --8<-- [start:biases]
spared = np.append(np.full(10, 0.004), 0)  # (1)!
for words, decay in (
    ("no decay", 0),
    ("decay on all", 0.004),
    ("decay on weights", spared),
):
    path = noisy_walk(adamw, cosine(1.0, 2000), 2000, decay=decay)
    guess = a @ path[-1]
    error = np.mean((guess - table.y) ** 2) ** 0.5
    print(f"{words:16} mean guess {guess.mean():.0f}, error {error:.1f}")
print(f"mean progression {table.y.mean():.0f}")
# --8<-- [end:biases]

# --8<-- [start:solution-nesterov]
slope = downhill(*bowl(columns)["own columns"])
theta, velocity, ahead = np.zeros(10), np.zeros(10), [np.zeros(10)]
for _ in range(50):
    velocity = 0.9 * velocity - 0.1 * slope(theta + 0.9 * velocity)  # (1)!
    theta = theta + velocity
    ahead.append(theta + 0.9 * velocity)
path = walk(momentum, slope, np.zeros(10), 0.1, 50, nesterov=True)
assert np.allclose(path, ahead, rtol=1e-10)
# --8<-- [end:solution-nesterov]

# --8<-- [start:solution-outside]


def outside(rate, steps=40):
    theta, velocity, path = np.zeros(10), np.zeros(10), [np.zeros(10)]
    for t in range(steps):
        velocity = 0.9 * velocity + slope(theta)
        theta = theta - rate(t) * velocity
        path.append(theta)
    return np.array(path)


def constant(t):
    return 0.1


def falling(t):
    return 0.1 if t < 20 else 0.001


inside = walk(momentum, slope, np.zeros(10), constant, 40)
assert np.allclose(outside(constant), inside)
inside = walk(momentum, slope, np.zeros(10), falling, 40)
for words, path in (("inside", inside), ("outside", outside(falling))):
    size = np.linalg.norm(np.diff(path, axis=0), axis=1)
    print(f"{words:7} step before {size[19]:.2f}, after {size[20]:.2f}")
    assert (size[20] < size[19] / 50) == (words == "outside")
# --8<-- [end:solution-outside]

# --8<-- [start:solution-correction]
t = np.arange(1, 5001)
plain = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)  # (1)!
path = walk(adam, lambda _: np.ones(()), 0.0, 1.0, 30)
assert np.allclose(np.diff(path), -1, rtol=1e-5)
assert np.isclose(plain[0], 0.1 / np.sqrt(0.001))
print(f"first {plain[0]:.2f}, largest {plain.max():.2f}", end=" ")
print(f"at {t[plain.argmax()]}, below 1.1 from {t[plain > 1.1][-1] + 1}")
# --8<-- [end:solution-correction]
