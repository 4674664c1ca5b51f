# --8<-- [start:floor]
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.gpt import GPT, next_token_loss, parameter_count
from aimodels.scaling import (
    Law,
    bootstrap,
    fit_law,
    fit_power,
    flops_per_token,
)
from aimodels.training import batches, make_step, train

planted = Law(E=1.2, A=40, alpha=0.35, B=60, beta=0.4)
seen = np.geomspace(1e3, 1e5, 9)
far = np.geomspace(1e3, 1e9, 50)
loss = planted.loss(seen, 1e12)  # (1)!
line = fit_power(seen, loss)
print(f"slope {line.exponent:.3f} ± {line.error:.3f}")
print(f"planted: {-planted.alpha}")

figure, axis = plt.subplots()
axis.loglog(far, planted.loss(far, 1e12), label="planted law")
axis.loglog(far, line.scale * far**line.exponent, "--", label="straight line")
axis.loglog(seen, loss, "o", color="C0", label="runs")
axis.set(xlabel="parameters", ylabel="loss")
axis.set_yticks([1, 2, 4], ["1", "2", "4"])
axis.minorticks_off()
axis.legend()
# --8<-- [end:floor]


# --8<-- [start:by-hand]
def by_hand(parameters, tokens, losses, delta):
    x, y, target = np.log(parameters), np.log(tokens), np.log(losses)

    def cost(theta):
        e, a, alpha, b, beta = theta
        terms = e + 0 * x, a - alpha * x, b - beta * y  # (1)!
        rest = target - np.logaddexp.reduce(terms)
        return scipy.special.huber(delta, rest).sum() * 1e4  # (2)!

    starts = [
        (e, a, alpha, a, beta)
        for e in (-1, 0.5)
        for a in (2, 5)
        for alpha in (0.2, 0.6)
        for beta in (0.2, 0.6)
    ]
    ends = [scipy.optimize.minimize(cost, s, method="L-BFGS-B") for s in starts]
    e, a, alpha, b, beta = min(ends, key=lambda end: end.fun).x
    return Law(np.exp(e), np.exp(a), alpha, np.exp(b), beta)


def grid(parameters, tokens):
    tables = np.meshgrid(parameters, tokens)
    return [table.ravel() for table in tables]


N, D = grid(np.geomspace(1.5e3, 1.2e5, 5), np.geomspace(2e4, 2e5, 4))
rng = np.random.default_rng(0)
noise = np.exp(0.005 * rng.normal(size=len(N)))
losses = planted.loss(N, D) * noise
print("            " + "".join(f"{name:>8}" for name in Law._fields))
for name, law in {
    "planted": planted,
    "by hand": by_hand(N, D, losses, 0.01),
    "module": fit_law(N, D, losses, 0.01),
    "no noise": fit_law(N, D, planted.loss(N, D), 0.01),
}.items():
    print(f"{name:12}" + "".join(f"{value:8.2f}" for value in law))
# --8<-- [end:by-hand]

# --8<-- [start:text]
T, V = 16, 256  # steps of a sequence, bytes
sections = datasets.handbook()
learned, held = datasets.split(len(sections), 26, np.random.default_rng(0))


def sequences(rows):
    text = [t for i in rows for t in (sections[i].en, sections[i].zh)]
    data = np.frombuffer("\n\n".join(text).encode(), np.uint8)
    last = (len(data) - 1) // T * T
    pairs = data[:last], data[1 : last + 1]  # (1)!
    return tuple(p.astype("int32").reshape(-1, T) for p in pairs)


read, unread = sequences(learned), sequences(held)
print("bytes to learn from:", read[0].size, " held out:", unread[0].size)
x, y = (part.ravel() for part in read)
often = np.bincount(y, minlength=V) + 1
often = often / often.sum()
pairs = np.zeros((V, V))
np.add.at(pairs, (x, y), 1)
pairs += 3 * often  # (2)!
pairs /= pairs.sum(1, keepdims=True)
alone, paired = -np.log(often[unread[1]]), -np.log(pairs[unread])
print(f"byte by itself {alone.mean():.2f}, after one other {paired.mean():.2f}")
# --8<-- [end:text]


# --8<-- [start:learner]
class Rise(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self):
        self.peak, self.steps = tf.Variable(0.0), tf.Variable(1.0)

    def __call__(self, step):
        part = (ops.cast(step, "float32") + 1) / self.steps
        fall = (1 + ops.cos(np.pi * part)) / 2
        return self.peak * ops.minimum(1.0, 10 * part) * fall


def learner(width):
    def make():
        return GPT(V, T, width, heads=max(1, width // 16), depth=2)

    model, rate = make(), Rise()
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=0.1, beta_2=0.95, global_clipnorm=1.0
    )
    step = make_step(model, optimizer, next_token_loss, jit_compile=True)

    @tf.function
    def score(x, y):
        return next_token_loss(y, model(x, training=False))

    def learn(steps, seed=0, peak=0.08 / width**0.5, data=read):  # (1)!
        keras.utils.set_random_seed(seed)
        model.set_weights(make().get_weights())
        for variable in optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        rate.peak.assign(peak)
        rate.steps.assign(steps)
        train(step, batches(data, 8, seed), steps)
        return float(score(*unread))

    return learn


def size(width):
    return parameter_count(V, T, width, depth=2)


# --8<-- [end:learner]

# --8<-- [start:sweep]
widths, budgets = (4, 16, 64), (176, 352, 704)
learners = {width: learner(width) for width in widths}
print("       N  D =" + "".join(f"{8 * T * s:8,}" for s in budgets))
table = {}
for width in widths:
    table[width] = [learners[width](steps) for steps in budgets]
    print(f"{size(width):8,}    " + "".join(f"{x:8.2f}" for x in table[width]))
# --8<-- [end:sweep]

# --8<-- [start:slopes]
sizes = np.array([size(width) for width in widths])
tokens = 8 * T * np.array(budgets)
L = np.array([table[width] for width in widths])
for count, column in zip(tokens, L.T, strict=True):
    print(f"D = {count:6}: slope by N {fit_power(sizes, column).exponent:.2f}")
for count, row in zip(sizes, L, strict=True):
    print(f"N = {count:6}: slope by D {fit_power(tokens, row).exponent:.2f}")

N, D = (part.T.ravel() for part in np.meshgrid(sizes, tokens, indexing="ij"))
law = fit_law(N, D, L.T.ravel(), delta=0.01)
draws = bootstrap(law, N, D, L.T.ravel(), np.random.default_rng(0), delta=0.01)
for name in ("alpha", "beta"):
    low, high = np.quantile(getattr(draws, name), [0.05, 0.95])
    print(name, "known to a factor of 2:", bool(high < 2 * low))
# --8<-- [end:slopes]

# --8<-- [start:long-sweep]
if "HANDBOOK_LONG" in os.environ:
    plan = dict.fromkeys((4, 8, 16, 32, 64), 3) | {128: 2}  # (1)!
    steps = (176, 352, 704, 1408)
    runs = {}
    for width, seeds in plan.items():
        learn = learner(width)
        for seed in range(seeds):
            for count in steps:
                runs[width, count, seed] = learn(count, seed)
        means, spreads = (
            [
                f([runs[width, count, s] for s in range(seeds)])
                for count in steps
            ]
            for f in (np.mean, lambda x: np.std(x, ddof=1))
        )
        shown = zip(means, spreads, strict=True)
        shown = "  ".join(f"{m:.2f} ± {s:.2f}" for m, s in shown)
        print(f"{size(width):7,}  {shown}")
    rates = [learn(704, 0, peak) for peak in (0.0035, 0.014)]  # (2)!
    print("the largest at half and twice its rate:", np.round(rates, 2))
# --8<-- [end:long-sweep]

# --8<-- [start:long-fit]
if "HANDBOOK_LONG" in os.environ:
    widths_, counts, _ = np.array(list(runs)).T
    N, D = np.array([size(int(w)) for w in widths_]), counts * 8 * T
    L, small = np.array(list(runs.values())), widths_ < 128
    inner = N - (V + T) * widths_
    choices = {
        "all": (small, N, 0.01),
        "delta 0.001": (small, N, 0.001),
        "least squares": (small, N, np.inf),
        "without D = 22,528": (small & (counts > 176), N, 0.01),
        "without N = 1,584": (small & (widths_ > 4), N, 0.01),
        "N without embeddings": (small, inner, 0.01),
    }

    def span(values, digits=2):
        low, high = np.quantile(values, [0.05, 0.95])
        return f"{low:.{digits}f} to {high:.{digits}f}"

    rng, fits = np.random.default_rng(0), {}
    for name, (rows, n, delta) in choices.items():
        given = n[rows], D[rows], L[rows]
        law = fit_law(*given, delta)
        draws = bootstrap(law, *given, rng, draws=500, delta=delta)
        fits[name] = law, draws
        print(name)
        for part in ("E", "alpha", "beta"):
            value = getattr(law, part)
            print(f"   {part:5} {value:.2f}  {span(getattr(draws, part))}")
# --8<-- [end:long-fit]

# --8<-- [start:long-curves]
if "HANDBOOK_LONG" in os.environ:
    law, draws = fits["all"]
    figure, axes = plt.subplots(1, 2, sharey=True)
    fine = np.geomspace(1.2e3, 6e5, 60)
    for colour, count in enumerate(steps):
        rows = counts == count
        axes[0].semilogx(N[rows], L[rows], ".", color=f"C{colour}")
        axes[0].semilogx(
            fine,
            law.loss(fine, 8 * T * count),
            color=f"C{colour}",
            label=f"{8 * T * count:,}",
        )
    fine = np.geomspace(1.5e4, 2.6e5, 60)
    for colour, width in enumerate(plan):
        rows = widths_ == width
        axes[1].semilogx(D[rows], L[rows], ".", color=f"C{colour}")
        axes[1].semilogx(
            fine,
            law.loss(size(width), fine),
            color=f"C{colour}",
            label=f"{size(width):,}",
        )
    axes[0].set(xlabel="parameters", ylabel="loss")
    axes[1].set(xlabel="tokens")
    axes[1].set_xticks([2e4, 6e4, 2e5], ["20,000", "60,000", "200,000"])
    axes[1].minorticks_off()
    for axis, title in zip(axes, ("tokens", "parameters"), strict=True):
        axis.legend(title=title, fontsize="x-small", title_fontsize="x-small")
# --8<-- [end:long-curves]

# --8<-- [start:long-largest]
if "HANDBOOK_LONG" in os.environ:
    for count in steps:
        found = [runs[128, count, seed] for seed in range(2)]
        predicted = draws.loss(size(128), 8 * T * count)
        print(
            f"D = {8 * T * count:7,}: predicted {span(predicted)},",
            f"measured {np.mean(found):.2f}",
        )
# --8<-- [end:long-largest]

# --8<-- [start:long-compute]
if "HANDBOOK_LONG" in os.environ:
    figure, axis = plt.subplots()
    for colour, width in enumerate(plan):
        mean = [np.mean(L[(widths_ == width) & (counts == c)]) for c in steps]
        compute = 6 * size(width) * 8 * T * np.array(steps)
        axis.semilogx(
            compute, mean, ".-", color=f"C{colour}", label=f"{size(width):,}"
        )
    compute = np.geomspace(1e8, 1e12, 60)
    axis.semilogx(
        compute,
        law.loss(*law.optimum(compute)),
        "--",
        color="gray",
        label="fitted optimum",
    )
    axis.set(xlabel="compute 6 N D", ylabel="loss")
    axis.legend(title="parameters", fontsize="small")

    share = draws.beta / (draws.alpha + draws.beta)
    print("exponent of N by C:", span(share))
    for compute in (1e9, 1e10, 1e11, 1e14):
        n, d = law.optimum(compute)
        print(f"C = {compute:.0e}: N {n:.1e}, D {d:.1e}, D / N {d / n:.1f}")
        n, d = draws.optimum(compute)
        print(f"   D / N {span(d / n, 1)}, loss {span(draws.loss(n, d))}")
# --8<-- [end:long-compute]

# --8<-- [start:work]
models = {f"width {w}": (V, T, w, 2) for w in (4, 16, 64, 128)}
models["GPT-2, 124M"] = 50257, 1024, 768, 12
models["GPT-3, 175B"] = 50257, 2048, 12288, 96
print("                           N  embedded   of 6 N   of 6 N'")
for name, model in models.items():
    vocabulary, steps, width, _ = model
    work, n = flops_per_token(*model), parameter_count(*model)
    outer = (vocabulary + steps) * width
    print(
        f"{name:12}{n:16,}{outer / n:10.0%}",
        f"{work / (6 * n):8.2f}{work / (6 * (n - outer)):9.2f}",
    )
# --8<-- [end:work]

# --8<-- [start:chinchilla]
laws = {
    "as printed": Law(1.69, 406.4, 0.34, 410.7, 0.28),
    "unrounded": Law(1.6934, 406.4, 0.3392, 410.7, 0.2849),
    "fitted again": Law(1.8172, 482.01, 0.3478, 2085.43, 0.3658),
}
made = {
    "GPT-3": (175e9, 300e9),
    "Gopher": (280e9, 300e9),
    "Chinchilla": (70e9, 1.4e12),
}
for name, (n, d) in made.items():
    print(f"{name}: {d / n:.1f} tokens a parameter, 6 N D = {6 * n * d:.2e}")
    for which, law in laws.items():
        best = law.optimum(6 * n * d)
        print(
            f"   {which:12} N {best[0] / 1e9:4.0f}e9, D {best[1] / 1e12:4.2f}e12,"
            f" D / N {best[1] / best[0]:3.0f},"
            f" loss {law.loss(*best) - law.loss(n, d):+.3f}"
        )
# --8<-- [end:chinchilla]

# --8<-- [start:rule]
figure, axis = plt.subplots()
compute = np.geomspace(1e18, 1e26, 50)
for which, law in laws.items():
    n, d = law.optimum(compute)
    print(f"{which:12} exponent of N {law.beta / (law.alpha + law.beta):.2f}")
    axis.loglog(compute, d / n, label=which)
for mark, (name, (n, d)) in zip("osD", made.items(), strict=True):
    axis.loglog(6 * n * d, d / n, mark, label=name)
axis.axhline(20, color="gray", linestyle=":", label="20")
axis.set(xlabel="compute 6 N D", ylabel="tokens per parameter")
axis.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
axis.minorticks_off()
axis.legend(fontsize="small")
# --8<-- [end:rule]

# --8<-- [start:coverage]
N, D = grid(np.geomspace(1.5e3, 1.2e5, 5), np.geomspace(2e4, 2e5, 4))
rng = np.random.default_rng(0)
covered = []
for _ in range(100):
    losses = planted.loss(N, D) * np.exp(0.005 * rng.normal(size=len(N)))
    law = fit_law(N, D, losses, 0.01)
    draws = bootstrap(law, N, D, losses, rng, draws=100, delta=0.01)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    covered.append((low <= planted) & (planted <= high))
for name, share in zip(Law._fields, np.mean(covered, axis=0), strict=True):
    print(f"{name:5} inside its 90 % interval: {share:.2f} of the time")
# --8<-- [end:coverage]

# --8<-- [start:rates]
peaks = 0.01, 0.02, 0.04
print("       N" + "".join(f"{peak:7}" for peak in peaks))
rows = {w: [learners[w](352, peak=p) for p in peaks] for w in (4, 64)}
for width, row in rows.items():
    print(f"{size(width):8,}" + "".join(f"{x:7.2f}" for x in row))

ends = np.log([size(4), size(64)])
for name, pair in {
    "0.01 for both": (rows[4][0], rows[64][0]),
    "0.04 for both": (rows[4][2], rows[64][2]),
    "the best of each": [min(row) for row in rows.values()],
}.items():
    slope = np.diff(np.log(pair))[0] / np.diff(ends)[0]
    print(f"{name:17} slope by N {slope:.3f}")
# --8<-- [end:rates]

# --8<-- [start:repeat]
order = np.random.default_rng((0, 0)).permutation(len(read[0]))  # (1)!
rows = order[: 176 * 8]
few = tuple(part[rows] for part in read)
print(f"{few[0].size:,} tokens once: {table[64][0]:.2f}")
print(f"{few[0].size:,} tokens, 4 times: {learners[64](704, data=few):.2f}")
print(f"{4 * few[0].size:,} tokens once: {table[64][2]:.2f}")
# --8<-- [end:repeat]

# --8<-- [start:solution-optimum]
law, compute = laws["fitted again"], 6 * 70e9 * 1.4e12
best = scipy.optimize.minimize_scalar(
    lambda log_n: law.loss(np.exp(log_n), compute / 6 / np.exp(log_n)),
    bounds=np.log([1e9, 1e12]),
    options={"xatol": 1e-8},
)
n, d = law.optimum(compute)
print(f"by search {np.exp(best.x):.3e}, by the formula {n:.3e}")
print(f"the two parts: {law.A / n**law.alpha:.4f}, {law.B / d**law.beta:.4f}")
ratio = law.B / d**law.beta / (law.A / n**law.alpha)
assert np.isclose(ratio, law.alpha / law.beta)
assert np.isclose(np.exp(best.x), n, rtol=1e-4)
# --8<-- [end:solution-optimum]

# --8<-- [start:solution-smaller]
goal = law.loss(n, d)
for part in (0.75, 0.5, 0.25):
    left = goal - law.E - law.A / (part * n) ** law.alpha
    more = (law.B / left) ** (1 / law.beta)  # (1)!
    print(
        f"{part:.0%} of the parameters: {more / d:.2f} times the tokens,"
        f" {part * more / d:.2f} times the compute"
    )
    assert part * more / d > 1
# --8<-- [end:solution-smaller]

# --8<-- [start:solution-outlier]
N, D = grid(np.geomspace(1.5e3, 1.2e5, 5), np.geomspace(2e4, 2e5, 4))
losses = planted.loss(N, D) * noise
losses[-1] *= 1.3  # (1)!
for delta in (0.001, 0.01, np.inf):
    law = fit_law(N, D, losses, delta)
    print(f"delta {delta}: alpha {law.alpha:.2f}, beta {law.beta:.2f}")
assert abs(fit_law(N, D, losses, 0.001).alpha - planted.alpha) < 0.05
assert abs(law.alpha - planted.alpha) > 0.1
# --8<-- [end:solution-outlier]
