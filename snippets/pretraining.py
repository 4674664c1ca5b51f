# --8<-- [start:hide]
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.pretraining import (
    MaskedAutoencoder,
    hidden_loss,
    readable,
    transfer,
    visible_patches,
)
from aimodels.vit import VisionTransformer, assemble, multiply_adds, patches

train_set, test_set = datasets.fashion_mnist()


def scaled(images):
    return (images[..., None] / 255).astype("float32")  # (1)!


pixels = scaled(train_set.x[:50000])  # (2)!
labels = train_set.y[:50000].astype("int32")
x_test, y_test = scaled(test_set.x[:4000]), test_set.y[:4000]


def draw_masks(samples, seed, share=0.75):
    rng = np.random.default_rng(seed)
    return visible_patches(samples, 16, share, rng)


def shown(rows):
    return np.clip(np.array(assemble(rows, 28, 7))[..., 0], 0, 1)


some = x_test[[0, 1, 2, 10, 19, 23]]
rows, visible = np.array(patches(some, 7)), draw_masks(6, seed=0)
print("patches", rows.shape)
print("visible", visible.shape)
print(visible[:2])

allowed = np.array(readable(visible, 16))[..., None]
holes = shown(np.where(allowed, rows, 0.286))  # (3)!
figure, axes = plt.subplots(2, 6, figsize=(6.4, 2.3))
for column, pair in enumerate(zip(shown(rows), holes, strict=True)):
    for axis, picture in zip(axes[:, column], pair, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
# --8<-- [end:hide]

# --8<-- [start:by-hand]
drawn = np.zeros_like(rows)  # (1)!
total, count = 0.0, 0
for image in range(6):
    for patch in range(16):
        if patch not in visible[image]:
            error = rows[image, patch] - drawn[image, patch]
            total, count = total + (error**2).sum(), count + error.size
print("hidden pixels", count, "=", 6 * 12 * 49)
print(f"by hand       {total / count:.4f}")
print(f"hidden_loss   {float(hidden_loss((rows, visible), drawn)):.4f}")
# --8<-- [end:by-hand]

# --8<-- [start:model]
SIZES = {"width": 32, "depth": 2, "hidden": 64}


def vit(classes):
    model = VisionTransformer(classes, 28, 7, heads=4, **SIZES, pool="mean")
    model.build((None, 28, 28, 1))
    return model


def autoencoder():
    model = MaskedAutoencoder(vit(0), width=24, heads=4)  # (1)!
    model.build(((None, 28, 28, 1), (None, 4)))
    return model


model, classifier = autoencoder(), vit(10)
once = multiply_adds(10, 28, 7, **SIZES, channels=1, pool="mean")
print(f"body        {model.body.count_params():7,} parameters")
print(f"decoder     {model.count_params() - model.body.count_params():7,}")
print(f"classifier  {once:9,} multiplications for one image")
print(f"autoencoder {model.multiply_adds(4):9,}")
# --8<-- [end:model]

# --8<-- [start:blind]
images = tf.constant(some)
with tf.GradientTape(persistent=True) as tape:
    tape.watch(images)
    drawn = model((images, visible))
    tape.watch(drawn)
    loss = hidden_loss((rows, visible), drawn)  # (1)!
    everything = ops.sum(drawn**2)


def touched(gradient):
    return (np.abs(np.array(gradient)).max(-1) > 0).sum(1)


by_drawn = tape.gradient(loss, drawn)
by_pixels = patches(tape.gradient(everything, images), 7)
print("patches that the loss looks at:", touched(by_drawn))
print("patches that the model reads:  ", touched(by_pixels))
# --8<-- [end:blind]

# --8<-- [start:pretrain]
from aimodels.training import batches, make_step, train


class Run:
    def __init__(self, model, loss):
        self.model, self.optimizer = model, keras.optimizers.Adam()
        self.step = make_step(model, self.optimizer, loss, jit_compile=True)
        self.zero = [v.numpy() for v in self.optimizer.variables]

    def __call__(self, source, steps, rate=0.004):
        for v, value in zip(self.optimizer.variables, self.zero, strict=True):
            v.assign(value)  # (1)!

        def cool(number, loss):  # (2)!
            now = rate * (1 + np.cos(np.pi * number / steps)) / 2
            self.optimizer.learning_rate = now * min(1, (number + 1) / 50)

        cool(0, None)
        return train(self.step, source, steps, after=cool)


def masked(images, seed, share=0.75):
    rng = np.random.default_rng((seed, 1))
    for (x,) in batches((images,), 64, seed):
        visible = visible_patches(64, 16, share, rng)
        yield (x, visible), (patches(x, 7), visible)  # (3)!


hide = Run(model, hidden_loss)
keras.utils.set_random_seed(0)
model.set_weights(autoencoder().get_weights())
losses = hide(masked(pixels, seed=0), 600)

target = np.array(patches(x_test[:1000], 7)), draw_masks(1000, seed=1)
mean = np.array(patches(pixels.mean(0, keepdims=True), 7))
guess = np.repeat(mean, 1000, 0)
drawn = np.array(model((x_test[:1000], target[1])))
print(f"mean picture     {float(hidden_loss(target, guess)):.3f}")
print(f"first 50 steps   {losses[:50].mean():.3f}")
print(f"last 50 steps    {losses[-50:].mean():.3f}")
print(f"on test pictures {float(hidden_loss(target, drawn)):.3f}")
# --8<-- [end:pretrain]

# --8<-- [start:redrawn]
drawn = np.array(model((some, visible)))
filled = shown(np.where(allowed, rows, drawn))  # (1)!
figure, axes = plt.subplots(3, 6, figsize=(6.4, 3.4))
table = zip(holes, filled, shown(rows), strict=True)
for column, pictures in enumerate(table):
    for axis, picture in zip(axes[:, column], pictures, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
# --8<-- [end:redrawn]

# --8<-- [start:transfer]
before = classifier.head.get_weights()
transfer(model.body, classifier)
body = [w for w in classifier.weights if "head" not in w.path]
pairs = list(zip(body, model.body.weights, strict=True))
same = [np.array_equal(new, old) for new, old in pairs]
after = classifier.head.get_weights()
print(f"body: {sum(same)} of {len(same)} arrays equal, bit by bit")
print("head as it was:", np.array_equal(before[0], after[0]))
# --8<-- [end:transfer]

# --8<-- [start:tune]
import functools


def cross_entropy(y, logits):
    losses = keras.losses.sparse_categorical_crossentropy
    return ops.mean(losses(y, logits, from_logits=True))


def accuracy(images=x_test, truth=y_test):
    return (np.array(classifier(images)).argmax(-1) == truth).mean()


def drawn_rows(count, seed):
    return np.random.default_rng(seed).permutation(50000)[:count]


tune = Run(classifier, cross_entropy)


@functools.cache
def fresh(seed):
    keras.utils.set_random_seed(seed)
    return vit(10).get_weights()


def begin(seed, body=None, blocks=None):
    classifier.set_weights(fresh(seed))  # (1)!
    if body is not None:
        transfer(body, classifier, blocks)


def tuned(count, seed, body=None, steps=200, rate=0.004):
    begin(seed, body)
    chosen = drawn_rows(count, seed)
    tune(batches((pixels[chosen], labels[chosen]), 50, seed), steps, rate)


tuned(100, seed=0)
print(f"100 labels, from scratch {accuracy():.2f}")
tuned(100, seed=0, body=model.body)
print(f"100 labels, pre-trained  {accuracy():.2f}")
# --8<-- [end:tune]

# --8<-- [start:twice]
print("      once  twice")
for seed in range(3):
    found = []
    chosen = drawn_rows(100, seed)
    data = pixels[chosen], labels[chosen]
    for times in (1, 2):
        begin(seed)
        for n in range(times):
            tune(batches(data, 50, seed + 10 * n), 200 // times)  # (1)!
        found.append(accuracy())
    print(f"seed {seed}{found[0]:5.2f}{found[1]:7.2f}")
# --8<-- [end:twice]

# --8<-- [start:long-curve]
import os
import time

if "HANDBOOK_LONG" in os.environ:
    began, STEPS, PRE = time.time(), 200, 800
    held = scaled(train_set.x[50000:54000]), train_set.y[50000:54000]
    first = model.get_weights()
    ratio = 64 * model.multiply_adds(4) / (50 * once)
    extra = round(PRE * ratio)  # (1)!

    def pre_train(seed, steps=PRE, images=pixels, share=0.75):
        keras.utils.set_random_seed(seed)
        model.set_weights(autoencoder().get_weights())
        hide(masked(images, seed, share), steps)
        body = vit(0)
        body.set_weights(model.body.get_weights())
        return body

    def report(name, found):
        each = " ".join(f"{one:.3f}" for one in found)
        print(f"{name:24}{np.mean(found):.3f}  ({each})")

    bodies = [pre_train(seed) for seed in range(3)]
    print(f"pre-training, three seeds: {time.time() - began:.0f} s")
    rates = {}
    for name, body in (("pre-trained", bodies[0]), ("from scratch", None)):
        tried = {}
        for rate in (0.004, 0.008, 0.016):
            tuned(1000, 9, body, rate=rate)
            tried[rate] = accuracy(*held)  # (2)!
        rates[name] = max(tried, key=tried.get)
        print(f"{name}: rate {rates[name]}")

    ways = {
        "pre-trained": (bodies, STEPS),
        "from scratch": ([None] * 3, STEPS),
        "equal compute": ([None] * 3, STEPS + extra),
    }
    figure, axis = plt.subplots()
    for name, (starts, steps) in ways.items():
        rate = rates.get(name, rates["from scratch"])
        scores = []
        for n in (100, 1000, 10000):
            for seed in range(3):
                tuned(n, seed, starts[seed], steps, rate=rate)
                scores.append(accuracy())
            report(f"{name}, {n:,}", scores[-3:])
        means = np.reshape(scores, (3, 3)).mean(1)
        (line,) = axis.semilogx((100, 1000, 10000), means, "o-", label=name)
        axis.semilogx(
            np.repeat((100, 1000, 10000), 3),
            scores,
            "_",
            color=line.get_color(),
        )
    print(f"steps: {STEPS}, for equal compute {STEPS + extra}")
    print(f"in all {time.time() - began:.0f} s")
    axis.set_xticks((100, 1000, 10000), ("100", "1,000", "10,000"))
    axis.minorticks_off()
    axis.set(xlabel="labelled images", ylabel="test accuracy")
    axis.legend()
# --8<-- [end:long-curve]

# --8<-- [start:long-parts]
from aimodels.logistic import fit_softmax

if "HANDBOOK_LONG" in os.environ:

    def probe(body, seed):  # (1)!
        chosen = drawn_rows(100, seed)
        x, x_new = np.array(body(pixels[chosen])), np.array(body(x_test))
        mean, deviation = x.mean(0), x.std(0)
        x, x_new = (x - mean) / deviation, (x_new - mean) / deviation
        weights, bias, _ = fit_softmax(x, labels[chosen], strength=1.0)
        return ((x_new @ weights + bias).argmax(-1) == y_test).mean()

    rate = rates["pre-trained"]
    for blocks in (0, 1, 2):
        found = []
        for seed in range(3):
            begin(seed, bodies[seed], blocks)
            chosen = drawn_rows(100, seed)
            data = pixels[chosen], labels[chosen]
            tune(batches(data, 50, seed), STEPS, rate)
            found.append(accuracy())
        report(f"tuned, {blocks} blocks", found)
    found = [probe(bodies[seed], seed) for seed in range(3)]
    report("frozen, linear probe", found)
    keras.utils.set_random_seed(0)
    report("untrained, linear probe", [probe(vit(0), n) for n in range(3)])
# --8<-- [end:long-parts]

# --8<-- [start:long-share]
if "HANDBOOK_LONG" in os.environ:
    for share in (0.25, 0.75, 0.9):
        hidden = 16 - draw_masks(1, 0, share).shape[1]
        found = []
        for seed in range(3):
            body = pre_train(seed, 250, share=share)
            tuned(100, seed, body, rate=rate)
            found.append(accuracy())
        report(f"{hidden} of 16 hidden", found)
# --8<-- [end:long-share]

# --8<-- [start:long-classes]
if "HANDBOOK_LONG" in os.environ:
    ours, test = (np.isin(y, (0, 2, 4, 6, 8)) for y in (labels, y_test))  # (1)!
    scores = {"from scratch": [], "hidden patches": [], "other classes": []}
    for seed in range(3):
        begin(seed)
        tune(batches((pixels[~ours], labels[~ours]), 50, seed), extra)  # (2)!
        taught = transfer(classifier, vit(0))
        chosen = np.random.default_rng(seed).permutation(np.flatnonzero(ours))
        data = pixels[chosen[:50]], labels[chosen[:50]]
        starts = (None, bodies[seed], taught)
        for name, body in zip(scores, starts, strict=True):
            begin(seed, body)
            tune(batches(data, 50, seed), 200, rates.get(name, rate))
            scores[name].append(accuracy(x_test[test], y_test[test]))
    for name, found in scores.items():
        report(name, found)
# --8<-- [end:long-classes]

# --8<-- [start:peer]
largest = 0
for trial in range(4):
    rng = np.random.default_rng(trial)
    down, across, patch, channels, heads = rng.integers(1, 5, 5).tolist()
    total, width = down * across + 1, 4 * heads  # at least two patches
    shape = (patch, total * patch, channels)
    inner = {"width": width, "heads": heads, "depth": 2, "hidden": width}
    body = VisionTransformer(0, shape[:2], patch, **inner, pool="mean")
    ours = MaskedAutoencoder(body, width=8, heads=2)
    read = visible_patches(3, total, 0.5, rng)
    images = rng.normal(size=(3, *shape)).astype("float32")
    ours((images, read))
    ours.set_weights([rng.normal(size=w.shape) / 3 for w in ours.get_weights()])

    x, may = body.tokens(images), np.array(readable(read, total))
    for block in body.blocks:
        x = block(x, attention_mask=may[:, None, :])  # (1)!
    x = np.array(ours.enter(body.norm(x)))
    x = np.where(may[..., None], x, ours.gap.numpy())  # (2)!
    for block in ours.blocks:
        x = block(ops.convert_to_tensor(x + ours.positions.numpy()))
    a, b = np.array(ours((images, read))), np.array(ours.draw(ours.norm(x)))
    largest = max(largest, np.abs(a - b).max() / np.abs(b).max())
print("largest relative difference below 1e-5:", largest < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:long-scale]
if "HANDBOOK_LONG" in os.environ:
    for name, own in rates.items():
        found = []
        for seed in range(3):
            begin(seed, bodies[seed] if name == "pre-trained" else None)
            chosen = drawn_rows(100, seed)
            data = (pixels[chosen] - 0.286) / 0.353, labels[chosen]  # (1)!
            tune(batches(data, 50, seed), STEPS, own)
            found.append(accuracy((x_test - 0.286) / 0.353))
        report(name, found)
# --8<-- [end:long-scale]

# --8<-- [start:long-leak]
if "HANDBOOK_LONG" in os.environ:
    for name, images in (("train", pixels[:4000]), ("test", x_test)):
        found, losses = [], []
        for seed in range(3):
            body = pre_train(seed, 250, images=images)
            target = np.array(patches(x_test, 7)), draw_masks(4000, seed)
            seen = np.array(model((x_test, target[1])))
            losses.append(float(hidden_loss(target, seen)))
            tuned(100, seed, body, rate=rate)
            found.append(accuracy())
        report(f"pre-trained on {name}", found)
        print(f"   loss on test pictures {np.mean(losses):.4f}")
    model.set_weights(first)
# --8<-- [end:long-leak]

# --8<-- [start:solution-work]
print("hidden  read  multiplications  against 75 %")
reference = model.multiply_adds(4)
for share in (0.25, 0.5, 0.75, 0.9):
    read = draw_masks(1, 0, share).shape[1]
    needed = model.multiply_adds(read)
    print(f"{share:6.0%}{read:6}{needed:17,}{needed / reference:14.2f}")
assert model.multiply_adds(16) > once  # with a decoder, nothing is saved
# --8<-- [end:solution-work]

# --8<-- [start:solution-places]
places = model.positions.numpy()
model.positions.assign(np.zeros_like(places))
blind = np.array(model((some[:1], visible[:1])))[0]
model.positions.assign(places)
sighted = np.array(model((some[:1], visible[:1])))[0]
gaps = ~np.array(readable(visible[:1], 16))[0]
for name, drawn in (("without", blind), ("with", sighted)):
    print(f"{name:8}{np.ptp(drawn[gaps], axis=0).max():.2f}")
assert np.ptp(blind[gaps], axis=0).max() < 1e-4
assert np.ptp(sighted[gaps], axis=0).max() > 0.05
# --8<-- [end:solution-places]
