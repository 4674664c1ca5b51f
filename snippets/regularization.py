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
draws = [
    np.random.default_rng((1, k)).choice(pool, 100, replace=False)
    for k in range(50)
]


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
    print(
        "{:8}{:10.0f}{:8.0f}{:14.0f}{:10.0f}".format(
            strength, *errors(strength)
        )
    )

strengths = np.logspace(-2, 2, 9)
curves = np.array([errors(strength) for strength in strengths]).T
figure, axis = plt.subplots(figsize=(6, 3.2))
words = ("training", "test", "of the mean prediction", "variance")
for curve, word, style in zip(
    curves, words, ("--", "-", "-.", ":"), strict=True
):
    axis.loglog(strengths, curve, style, label=word)
axis.set(xlabel="strength of the penalty", ylabel="mean squared error")
axis.legend()
# --8<-- [end:spread]

# --8<-- [start:paths]
from aimodels.regularization import lasso

strengths = np.logspace(-1, 2, 25)
paths = {
    fit.__name__: np.array(
        [fit(scaled, table.y, strength)[0] for strength in strengths]
    )
    for fit in (ridge, lasso)
}
for name, path in paths.items():
    print(
        f"{name}: weights of 0 along the path:",
        (path == 0).sum(1)[::4].tolist(),
    )
chosen = paths["lasso"][np.argmin(np.abs(strengths - 10))] != 0
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
    print(f"patience {patience}: stop after {last}, keep the weights of {best}")
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
print(len(views), "views; the last one begins with pixels", views[-1, :5])

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
    print(f"training={training}: class 0 has {one:.3f} and {other:.3f}")
# --8<-- [end:networks]

# --8<-- [start:kinds]
GENTLE = {"l2": 0.003, "rate": 0.3, "views": 9}
KINDS = {
    "nothing": {},
    "L1": {"l1": 0.001},
    "L2": {"l2": 0.01},
    "dropout": {"rate": 0.5},
    "shifts": {"views": 9},
    "stopped": {"images": 160},  # (1)!
    "L2+dropout": {"l2": 0.01, "rate": 0.5},
    "all, strong": {"l2": 0.01, "rate": 0.5, "views": 9},
    "all, gentle": GENTLE,
    "all, stopped": {**GENTLE, "images": 160},
    "2 x data": {"images": 400},
    "4 x data": {"images": 800},
    "8 x data": {"images": 1600},
    "8 x, all": {**GENTLE, "images": 1600},
}
spoilt = (
    "nothing",
    "L2",
    "dropout",
    "L2+dropout",
    "stopped",
    "8 x data",
)  # (2)!
NAMES = list(KINDS) + [f"* {name}" for name in spoilt]
KINDS.update({f"* {name}": {**KINDS[name], "labels": 1} for name in spoilt})
SEEDS = range(5)
runs = [(name, seed) for name in NAMES for seed in SEEDS]


def option(name, default):
    return np.array([KINDS[kind].get(name, default) for kind, _ in runs])


strengths = {name: option(name, 0.0) for name in ("l1", "l2", "rate")}
model = SideBySide((196, 64, 10), [seed for _, seed in runs], **strengths)
print(len(runs), "networks,", model.count_params(), "parameters")
# --8<-- [end:kinds]

# --8<-- [start:train]
orders = [
    np.random.default_rng(seed).permutation(60_000)[:1840] for seed in SEEDS
]
bank = np.concatenate([small(flat[rows][:, views]) for rows in orders])  # (1)!
true = np.concatenate([train_set.y[rows] for rows in orders])
draw = np.random.default_rng(6)
drawn = np.where(
    draw.random(true.size) < 0.3, draw.integers(0, 10, true.size), true
)
both = np.stack([true, drawn])  # (2)!
labels = option("labels", 0)[:, None]
start = np.array([1840 * seed for _, seed in runs])[:, None]
images, targets = tf.constant(bank.reshape(-1, 196)), tf.one_hot(both, 10)
update = make_step(model, keras.optimizers.Adam(0.003), summed_cross_entropy)


def step(where, what):
    return update(tf.gather(images, where), tf.gather_nd(targets, what))


def feed():
    sources = [
        batches(np.arange(count), 40, seed)
        for count, (_, seed) in zip(option("images", 200), runs, strict=True)
    ]
    choose, most = np.random.default_rng(7), option("views", 1)[:, None]
    while True:
        rows = start + np.stack([next(source) for source in sources])  # (3)!
        what = np.stack([np.broadcast_to(labels, rows.shape), rows], axis=-1)
        yield 9 * rows + choose.integers(0, most, rows.shape), what


held = start + np.r_[160:200, 1640:1840]  # (4)!
held_targets = np.hstack([both[labels, held[:, :40]], true[held[:, 40:]]])


def held_losses():
    logits = model(tf.gather(images, 9 * held))
    return keras.losses.sparse_categorical_crossentropy(
        held_targets, logits, from_logits=True
    )


source, curves = feed(), []
best = [weight.numpy() for weight in model.trainable_variables]
lowest = np.full(len(runs), np.inf)
for _ in range(40):
    train(step, source, 20)
    losses = held_losses().numpy()
    curves.append(losses[:, 40:].mean(1))
    better = losses[:, :40].mean(1) < lowest
    lowest[better] = losses[better, :40].mean(1)
    for kept, weight in zip(best, model.trainable_variables, strict=True):
        kept[better] = weight.numpy()[better]
curves = np.array(curves).reshape(40, len(NAMES), 5)
stopped = option("images", 200) == 160
for kept, weight in zip(best, model.trainable_variables, strict=True):
    weight.assign(np.where(stopped[:, None, None], kept, weight))  # (5)!
# --8<-- [end:train]

# --8<-- [start:curves]
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
steps = np.arange(20, 801, 20)
styles = {
    "nothing": "-",
    "L2": "--",
    "dropout": "-.",
    "8 x data": ":",
    "8 x, all": "-",
}
for axis, mark in zip(axes, ("", "* "), strict=True):
    for name, style in styles.items():
        if mark + name in NAMES:
            curve = curves[:, NAMES.index(mark + name)].mean(1)
            axis.plot(steps, curve, style, label=name)
    axis.set(xlabel="step", ylim=(0, 2.5))
axes[0].set(title="true labels", ylabel="validation loss")
axes[1].set_title("some labels drawn by lot")
axes[0].legend(loc="upper right", fontsize="small")
# --8<-- [end:curves]

# --8<-- [start:table]
unseen = np.pad(test_set.x[2000:].reshape(-1, 784), ((0, 0), (0, 1)))  # (1)!
moves = pixel_views(28, 28, shift=2)[
    np.random.default_rng(8).integers(0, 25, 8000)
]  # (2)!
pairs = (small(unseen[:, :784]), small(np.take_along_axis(unseen, moves, 1)))
answers = test_set.y[2000:]


def judge(pixels, training=False):
    results = []
    for part in np.split(np.arange(8000), 4):
        same = tf.broadcast_to(pixels[part], (len(runs), 2000, 196))
        logits = model(same, training=training)
        truth = tf.broadcast_to(answers[part], (len(runs), 2000))
        losses = keras.losses.sparse_categorical_crossentropy(
            truth, logits, from_logits=True
        )
        right = np.argmax(logits, axis=2) == answers[part]
        results.append((right.mean(1), losses.numpy().mean(1)))
    return np.mean(results, axis=0).reshape(2, len(NAMES), 5)


(accuracy, loss), (moved, _) = judge(pairs[0]), judge(pairs[1])
print(f"{'accuracy':>23}   against nothing    moved")
for i, name in enumerate(NAMES):
    reference = accuracy[
        NAMES.index("* nothing" if name[0] == "*" else "nothing")
    ]
    gain = accuracy[i] - reference  # (3)!
    print(f"{name:14}{accuracy[i].mean():9.3f}", end="")
    print(
        f"{gain.mean():+10.3f} ± {gain.std(ddof=1):.3f}{moved[i].mean():9.3f}"
    )
# --8<-- [end:table]

# --8<-- [start:losses]
ladder = [NAMES.index(name) for name in ("nothing", *NAMES[10:13])]


def worth(numbers, i):  # (1)!
    return 2 ** np.interp(numbers[i].mean(), numbers[ladder].mean(1), range(4))


print("                 loss        worth, by loss   by accuracy")
for i, name in enumerate(NAMES[:10]):
    print(f"{name:14}{loss[i].mean():5.2f} ± {loss[i].std(ddof=1):.2f}", end="")
    print(f"{worth(-loss, i):14.1f} x{worth(accuracy, i):12.1f} x")
# --8<-- [end:losses]

# --8<-- [start:descent]
known_x, known_y = small(flat[:, :784][::20]), train_set.y[::20]  # (1)!
test_x, test_y = pairs[0][:2000], answers[:2000]


def features(images, count, seed):
    weights = np.random.default_rng((seed, 5)).normal(size=(196, count)) / 3.5
    return np.tanh((images - known_x.mean()) @ weights)


def fits(table, targets, strengths):  # (2)!
    u, size, v = np.linalg.svd(table, full_matrices=False)
    ours = u.T @ targets
    return [
        v.T @ (ours * (size / (size**2 + len(table) * s))[:, None])
        for s in strengths
    ]


one_hot = np.eye(10)
sizes = (20, 50, 100, 200, 260, 300, 340, 500, 1200)
error = np.empty((3, len(sizes), 2))
for seed in range(3):
    rows = np.random.default_rng(seed).choice(3000, 300, replace=False)
    for i, count in enumerate(sizes):
        known = features(known_x[rows], count, seed)
        unknown = features(test_x[:1000], count, seed)
        for j, weights in enumerate(
            fits(known, one_hot[known_y[rows]], (0.0, 0.01))
        ):
            misses = unknown @ weights - one_hot[test_y[:1000]]
            error[seed, i, j] = np.mean(np.sum(misses**2, axis=1))
middle = np.median(error, axis=0)
print("features   no penalty   strength 0.01")
for count, (bare, calm) in zip(sizes, middle, strict=True):
    print(f"{count:8}{bare:13.2f}{calm:16.2f}")

figure, axis = plt.subplots(figsize=(6, 3))
for j, word in enumerate(("no penalty", "strength 0.01")):
    axis.loglog(sizes, middle[:, j], ("-", "--")[j], label=word)
    axis.fill_between(
        sizes, error[..., j].min(0), error[..., j].max(0), alpha=0.2
    )
axis.set(xlabel="random features", ylabel="squared error on test images")
axis.legend()
# --8<-- [end:descent]

# --8<-- [start:peer]
from sklearn.linear_model import Lasso, Ridge

rng = np.random.default_rng(0)
gaps = {"ridge": [], "lasso": []}
for rows_count, columns_count in ((30, 5), (20, 20), (10, 40)):
    x = rng.normal(size=(rows_count, columns_count))
    y = x[:, :3].sum(1) + rng.normal(size=rows_count)
    theirs = Ridge(alpha=0.1 * rows_count).fit(x, y)  # (1)!
    gaps["ridge"].append(np.abs(ridge(x, y, 0.1)[0] - theirs.coef_).max())
    theirs = Lasso(alpha=0.1, tol=1e-10, max_iter=100_000).fit(x, y)
    gaps["lasso"].append(
        np.abs(lasso(x, y, 0.1, tolerance=1e-10)[0] - theirs.coef_).max()
    )
print({name: bool(max(gap) < 1e-3) for name, gap in gaps.items()})

equal = 0
for _ in range(100):
    curve = 1 + (np.arange(30) / 15 - 1) ** 2 + rng.normal(0, 0.2, 30)
    callback = keras.callbacks.EarlyStopping(
        patience=3, restore_best_weights=True
    )
    callback.set_model(two)
    callback.on_train_begin()
    two.stop_training = False
    for epoch, value in enumerate(curve):
        callback.on_epoch_end(epoch, {"val_loss": value})
        if two.stop_training:
            break
    equal += early_stop(curve, 3) == (callback.best_epoch, epoch)
print("the same epochs as EarlyStopping on", equal, "of 100 curves")
# --8<-- [end:peer]

# --8<-- [start:units]
other = table.x.copy()
other[:, 3] /= 1000  # (1)!
for strength in (0.0, 0.5):
    said = []
    for columns_in in (table.x, other):
        weights, bias = ridge(columns_in, table.y, strength)
        said.append(columns_in @ weights + bias)
    apart = np.ptp(said, axis=0).max()
    print(f"strength {strength}: a prediction changes by up to {apart:.1f}")
# --8<-- [end:units]

# --8<-- [start:left-on]
left_on = judge(pairs[0], training=True)[0].mean(1)
for name in ("dropout", "L2+dropout", "all, gentle"):
    i = NAMES.index(name)
    print(f"{name:12} off {accuracy[i].mean():.3f}  left on {left_on[i]:.3f}")
# --8<-- [end:left-on]

# --8<-- [start:choice]
rows = np.random.default_rng(0).choice(3000, 300, replace=False)
right = []
for seed in range(50):
    known, unknown = (
        features(known_x[rows], 100, seed),
        features(test_x, 100, seed),
    )
    (weights,) = fits(known, one_hot[known_y[rows]], (0.01,))
    right.append((unknown @ weights).argmax(1) == test_y)
right = np.array(right)  # (1)!
rng = np.random.default_rng(1)
print("tried   best on 100 images   the same on 1,900 others")
for tried in (1, 10, 50):
    found = []
    for _ in range(200):
        some = right[rng.permutation(50)[:tried]][:, rng.permutation(2000)]
        best = some[:, :100].mean(1).argmax()
        found.append((some[best, :100].mean(), some[best, 100:].mean()))
    print("{:5}{:21.3f}{:27.3f}".format(tried, *np.mean(found, 0)))
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
        said = [
            (columns[test] - known_mean) @ w + target_mean
            for w in (weights, by_ridge)
        ]
        found[t] = [np.mean((s - table.y[test]) ** 2) for s in said]
        print(f"{t:5} steps {found[t][0]:6.0f}  ", end="")
        print(f"ridge of strength {1 / (rate * t):5.2f}: {found[t][1]:.0f}")
assert found[20][0] < min(found[2][0], found[2000][0])
# --8<-- [end:solution-stop]

# --8<-- [start:solution-mixup]
mixed = SideBySide((196, 64, 10), [0, 1, 2, 0, 1, 2])
update = make_step(mixed, keras.optimizers.Adam(0.003), summed_cross_entropy)
sources = [batches(np.arange(200), 40, seed) for seed in (0, 1, 2)]
rng = np.random.default_rng(0)
for _ in range(800):
    rows = np.stack(
        [1840 * seed + next(source) for seed, source in enumerate(sources)]
    )
    x, y = bank[rows, 0], np.eye(10, dtype="float32")[true[rows]]
    share = rng.beta(0.4, 0.4, (3, 40, 1)).astype("float32")
    other = rng.permutation(40)
    blend = [share * z + (1 - share) * z[:, other] for z in (x, y)]
    update(np.concatenate([x, blend[0]]), np.concatenate([y, blend[1]]))
logits = mixed(np.broadcast_to(test_x, (6, 2000, 196)))
truth = np.broadcast_to(test_y, (6, 2000))
losses = keras.losses.sparse_categorical_crossentropy(
    truth, logits, from_logits=True
)
right = np.argmax(logits, axis=2) == truth
for name, numbers in (("accuracy", right), ("loss", losses.numpy())):
    print(
        f"{name:9} plain {numbers[:3].mean():.2f}  mixup {numbers[3:].mean():.2f}"
    )
assert losses.numpy()[3:].mean() < losses.numpy()[:3].mean()
# --8<-- [end:solution-mixup]
