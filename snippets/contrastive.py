# --8<-- [start:views]
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.contrastive import augment

train_set, test_set = datasets.fashion_mnist()
x = (train_set.x[..., None] / 255).astype("float32")
x_test = (test_set.x[..., None] / 255).astype("float32")
y, y_test = train_set.y, test_set.y

CHANGES = {"crop": 0.75, "flip": True, "light": 0.4, "blur": 2.0}
shown = np.array([np.flatnonzero(y == label)[0] for label in range(10)])
rows = [x[shown]]
rows += [np.array(augment(x[shown], (7, n), **CHANGES)) for n in (1, 2)]  # (1)!

figure, axes = plt.subplots(3, 10, figsize=(7, 2.2))
for axis, image in zip(axes.flat, np.concatenate(rows), strict=True):
    axis.imshow(image[:, :, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
# --8<-- [end:views]


# --8<-- [start:by-hand]
def loss_by_hand(first, second, temperature):
    views = np.concatenate([first, second])
    views = views / np.linalg.norm(views, axis=1, keepdims=True)
    logits = views @ views.T / temperature
    np.fill_diagonal(logits, -np.inf)  # (1)!
    partner = np.roll(np.arange(len(views)), len(first))
    right = logits[np.arange(len(views)), partner]
    return np.mean(np.log(np.exp(logits).sum(1)) - right)


first = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
second = np.array([[2.0, 0.1], [0.1, 1.0], [1.0, 1.0]])
mixed = second[[1, 2, 0]]
print(f"views that agree:   {loss_by_hand(first, second, 0.5):.3f}")
print(f"views of others:    {loss_by_hand(first, mixed, 0.5):.3f}")
print(f"nothing to see:     {loss_by_hand(first**0, first**0, 0.5):.3f}")
print(f"log(2B - 1):        {np.log(5):.3f}")
# --8<-- [end:by-hand]

# --8<-- [start:module]
from aimodels.contrastive import info_nce, nt_xent

print(f"{nt_xent(first, second, 0.5):.3f}")
print(f"{nt_xent(first, mixed, 0.5):.3f}")
print(f"one direction, B keys: {info_nce(first, second, 0.5):.3f}")
# --8<-- [end:module]

# --8<-- [start:networks]
from aimodels.contrastive import encoder, with_head

keras.utils.set_random_seed(0)
body = encoder()
model = with_head(body)
print("image         ", body.input_shape[1:])
print("representation", body.output_shape[1:])
print("behind head   ", model.output_shape[1:])
print(f"parameters: {body.count_params():,} and the head", end=" ")
print(f"{model.count_params() - body.count_params():,}")
# --8<-- [end:networks]

# --8<-- [start:train]
from aimodels.contrastive import alignment, uniformity
from aimodels.training import batches, make_step, train

SIZE, TEMPERATURE, UNLABELLED = 128, 0.2, 50_000


def pairs(seed, changes=CHANGES):
    @tf.function(jit_compile=True, autograph=False)
    def two_views(images, number):  # (1)!
        return augment(tf.tile(images, (2, 1, 1, 1)), number, **changes)

    source = batches((np.arange(UNLABELLED),), SIZE, seed)
    for number, (rows,) in enumerate(source):
        yield two_views(x[rows], tf.constant([seed, number])), rows


def contrast(rows, z):  # (2)!
    return nt_xent(*ops.split(z, 2), TEMPERATURE)


def pretrain(seed, steps, changes=CHANGES, loss=contrast):
    keras.utils.set_random_seed(seed)
    body = encoder()
    model = with_head(body)
    fall = keras.optimizers.schedules.CosineDecay(0.002, steps)
    step = make_step(model, keras.optimizers.Adam(fall), loss)
    return body, model, train(step, pairs(seed, changes), steps)


def outputs(model, images):
    parts = [images[i : i + 1000] for i in range(0, len(images), 1000)]
    return np.concatenate([np.array(model(part)) for part in parts])


views = [np.array(augment(x[-2000:], (9, n), **CHANGES)) for n in (1, 2)]


def report(model):  # (3)!
    a, b = (outputs(model, part) for part in views)
    return f"alignment {alignment(a, b):.2f}, uniformity {uniformity(a):.2f}"


untrained = body
print("untrained:", report(model))
body, model, losses = pretrain(seed=0, steps=250)
print("trained:  ", report(model))
print(f"chance:    loss {np.log(2 * SIZE - 1):.2f}")
for begin, end in ((1, 1), (41, 60), (231, 250)):
    print(f"steps {begin:3} to {end:3}: loss", end=" ")
    print(f"{losses[begin - 1 : end].mean():.2f}")
# --8<-- [end:train]

# --8<-- [start:probe]
from sklearn.linear_model import LogisticRegression


def few(seed, each):  # (1)!
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(y[:UNLABELLED] == label) for label in range(10)]
    return np.concatenate([rng.choice(rows, each, False) for rows in classes])


def probe(known, labels, other, strength=0.1):
    fit = LogisticRegression(C=strength, tol=0.01, max_iter=200)
    return fit.fit(known, labels).predict(other)


def rotated(known, other):
    known, other = datasets.standardize(known, other)
    _, _, axes = np.linalg.svd(known, full_matrices=False)  # (2)!
    return known @ axes.T, other @ axes.T


def pixels(images):
    return images.reshape(len(images), -1)


def score(read, each, seeds=(0, 1, 2)):
    other, found = read(x_test[:4000]), []
    for rows in (few(seed, each) for seed in seeds):
        known, unknown = rotated(read(x[rows]), other)
        answer = probe(known, y[rows], unknown)
        found.append(np.mean(answer == y_test[:4000]))
    return f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


readers = {
    "pixels": pixels,
    "untrained": lambda images: outputs(untrained, images),
    "trained": lambda images: outputs(body, images),
}
for each in (10, 30):
    print(f"{each} labels of each class")
    for name, read in readers.items():
        print(f"  {name:10}{score(read, each)}")
# --8<-- [end:probe]

# --8<-- [start:long-probe]
import functools
import os

from sklearn.decomposition import PCA

if "HANDBOOK_LONG" in os.environ:
    STEPS, SEEDS, EACH = 400, (0, 1, 2), (10, 30, 100)
    held = np.arange(50_000, 52_000)

    def supervised(rows, seed):  # (1)!
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([encoder(), keras.layers.Dense(10)])
        fall = keras.optimizers.schedules.CosineDecay(0.002, STEPS)

        def cross_entropy(labels, z):
            losses = keras.losses.sparse_categorical_crossentropy
            return ops.mean(losses(labels, z, from_logits=True))

        def source():
            view = tf.function(lambda im, n: augment(im, n, **CHANGES))
            many = np.tile(rows, -(-2 * SIZE // len(rows)))
            for n, (now,) in enumerate(batches((many,), 2 * SIZE, seed)):
                yield view(x[now], tf.constant([seed, n])), y[now]

        step = make_step(model, keras.optimizers.Adam(fall), cross_entropy)
        train(step, source(), STEPS)
        return np.mean(outputs(model, x_test).argmax(1) == y_test)

    def strongest(read, each, seed):  # (2)!
        rows, tried = few(seed, each), {}
        unknown = read(np.concatenate([x[held], x_test]))
        known, unknown = rotated(read(x[rows]), unknown)
        truth = np.concatenate([y[held], y_test])
        for strength in (0.01, 0.1, 1):
            right = probe(known, y[rows], unknown, strength) == truth
            on_held, on_test = np.split(right, [len(held)])
            tried[strength] = on_held.mean(), on_test.mean()
        return max(tried.values(), key=lambda pair: pair[0])[1]

    fits = PCA(64).fit(pixels(x[:10_000]))
    scores, bodies, plain = {}, {}, {}
    for seed in SEEDS:
        bodies[seed], _, losses = pretrain(seed, STEPS)
        print(f"seed {seed}: last losses {losses[-20:].mean():.2f}")
        keras.utils.set_random_seed(100 + seed)
        plain[seed] = encoder()
    for each in EACH:
        for seed in SEEDS:
            found = {
                "pixels": pixels,
                "PCA": lambda images: fits.transform(pixels(images)),
                "untrained": functools.partial(outputs, plain[seed]),
                "SimCLR": functools.partial(outputs, bodies[seed]),
            }
            for name, read in found.items():
                one = strongest(read, each, seed)
                scores.setdefault((name, each), []).append(one)
            if each != 30:  # (3)!
                one = supervised(few(seed, each), seed)
                scores.setdefault(("supervised", each), []).append(one)
    names = ("pixels", "PCA", "untrained", "supervised", "SimCLR")
    for each in EACH:
        print(f"{each} labels of each class")
        for name in names:
            found = scores.get((name, each), [])
            if not found:
                continue
            seeds = " ".join(f"{one:.3f}" for one in found)
            print(f"  {name:11}{np.mean(found):.3f}  ({seeds})")

    figure, axis = plt.subplots()
    for name in names:
        seen = [each for each in EACH if (name, each) in scores]
        means = [np.mean(scores[name, each]) for each in seen]
        (line,) = axis.semilogx(seen, means, "o-", label=name)
        for each in seen:
            ends = scores[name, each]
            axis.plot([each] * 3, ends, "_", color=line.get_color())
    axis.set_xticks(EACH, [str(each) for each in EACH])
    axis.minorticks_off()
    axis.set(xlabel="labels of each class", ylabel="test accuracy")
    axis.legend()
# --8<-- [end:long-probe]

# --8<-- [start:long-changes]
if "HANDBOOK_LONG" in os.environ:
    variants = {
        "all": {},
        "no crop": {"crop": 1},
        "no light": {"light": 0},
    }
    for name, changed in variants.items():
        found = []
        for seed in SEEDS:
            altered, _, losses = pretrain(seed, 100, {**CHANGES, **changed})
            read = functools.partial(outputs, altered)
            found.append(strongest(read, 30, seed))
        seeds = " ".join(f"{one:.3f}" for one in found)
        print(f"{name:10}{np.mean(found):.3f}  ({seeds})", end="")
        print(f"  last loss {losses[-20:].mean():.2f}")
# --8<-- [end:long-changes]

# --8<-- [start:neighbours]
searched = slice(0, 10_000)


def nearest(read, images, count=5):
    known, images = datasets.standardize(read(x[searched]), read(images))
    known, images = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (known, images)
    )
    return np.argsort(-images @ known.T, axis=1)[:, :count]


asked = [0, 1, 2, 7, 8, 11]
found = []
for name, read in readers.items():
    rows = nearest(read, x_test[:2000])
    found.append(rows)
    share = np.mean(y[rows] == y_test[:2000, None])
    print(f"{name:10}{share:.2f} of the five nearest are of the same class")

figure, axes = plt.subplots(6, 12, figsize=(7, 3.6))
for line, number in zip(axes, asked, strict=True):
    by_pixels, _, by_network = (x[rows[number]] for rows in found)
    images = [x_test[number], *by_pixels, None, *by_network]
    for axis, image in zip(line, images, strict=True):
        axis.set_axis_off()
        if image is not None:
            axis.imshow(image[:, :, 0], cmap="gray")
axes[0, 3].set_title("by pixels", fontsize=9)
axes[0, 9].set_title("by the network", fontsize=9)
# --8<-- [end:neighbours]

# --8<-- [start:temperature]
z = outputs(model, np.concatenate([part[:SIZE] for part in views]))
z /= np.linalg.norm(z, axis=1, keepdims=True)
labels = np.tile(y[-2000:][:SIZE], 2)
number = np.arange(2 * SIZE)
negative = (number[:, None] - number) % SIZE != 0  # (1)!
friends = negative & (labels[:, None] == labels)
print(f"negatives of the same class: {friends.sum() / negative.sum():.2f}")

print("temperature  ten hardest of 254  same class")
for temperature in (0.05, 0.1, 0.2, 0.5, 1, 100):
    push = np.exp(z @ z.T / temperature) * negative
    push /= push.sum(1, keepdims=True)
    hardest = np.sort(push, axis=1)[:, -10:].sum(1).mean()
    of_friends = (push * friends).sum(1).mean()
    print(f"{temperature:11}{hardest:20.2f}{of_friends:12.2f}")
# --8<-- [end:temperature]


# --8<-- [start:collapse]
def only_pull(rows, z):
    return alignment(*ops.split(z, 2))


fallen_body, fallen, pulled = pretrain(seed=0, steps=100, loss=only_pull)
print(f"loss, first and last step: {pulled[0]:.3f}, {pulled[-1]:.3f}")
print("without negatives:", report(fallen))
z = outputs(fallen, x[-2000:])
z /= np.linalg.norm(z, axis=1, keepdims=True)
print(f"length of the mean direction: {np.linalg.norm(z.mean(0)):.3f}")
# --8<-- [end:collapse]

# --8<-- [start:peer]
worst = 0
for trial in range(20):
    rng = np.random.default_rng(trial)
    size, width = rng.integers(2, 40, 2)
    temperature = rng.uniform(0.05, 2)
    a, b = rng.normal(size=(2, size, width)).astype("float32")
    queries, keys = (keras.utils.normalize(r, axis=1) for r in (a, b))
    of_keras = keras.losses.sparse_categorical_crossentropy(
        np.arange(size), queries @ keys.T / temperature, from_logits=True
    )
    errors = [
        info_nce(a, b, temperature) / np.mean(of_keras) - 1,
        nt_xent(a, b, temperature) / loss_by_hand(a, b, temperature) - 1,
    ]
    worst = max(worst, *np.abs(errors))
print("largest relative difference below 1e-5:", worst < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:one]
for size, temperature in ((1, 0.2), (3, 0)):
    try:
        nt_xent(first[:size], second[:size], temperature)
    except ValueError as error:
        print(error)
# --8<-- [end:one]

# --8<-- [start:layer]
print("before the head:", score(readers["trained"], 30))
print("after it:       ", score(lambda images: outputs(model, images), 30))
# --8<-- [end:layer]

# --8<-- [start:solution-queue]
queries, own = (outputs(model, part[:SIZE]) for part in views)
queue = outputs(model, x[:8192])  # (1)!
print("keys  chance   loss  bound")
surprise = []
for more in (0, 128, 896, 8064):
    keys = np.concatenate([own, queue[:more]])
    chance = np.log(len(keys))
    loss = float(info_nce(queries, keys, TEMPERATURE))
    surprise.append(loss)
    print(f"{len(keys):4}{chance:8.2f}{loss:7.2f}{chance - loss:7.2f}")
assert surprise == sorted(surprise)
# --8<-- [end:solution-queue]

# --8<-- [start:solution-bound]
from aimodels.logistic import cross_entropy

rng = np.random.default_rng(0)
width, correlation = 10, 0.9
truth = -width / 2 * np.log(1 - correlation**2)
print(f"mutual information {truth:.2f}")
for size in (4, 32, 256, 1024):
    a = rng.normal(size=(size, width))
    noise = rng.normal(size=(size, width))
    b = correlation * a + np.sqrt(1 - correlation**2) * noise
    distance = ((b - correlation * a[:, None]) ** 2).sum(-1)
    logits = -distance / 2 / (1 - correlation**2) + (b**2).sum(-1) / 2  # (1)!
    bound = np.log(size) - cross_entropy(logits, np.arange(size))
    print(f"K {size:5}  log K {np.log(size):.2f}  bound {bound:.2f}")
    assert bound <= np.log(size)
# --8<-- [end:solution-bound]
