# --8<-- [start:game]
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops
from scipy.linalg import sqrtm
from scipy.special import rel_entr, xlogy
from scipy.stats import norm

from aimodels import datasets
from aimodels.gan import (
    discriminator,
    discriminator_loss,
    frechet_distance,
    generator,
    generator_loss,
    make_gan_step,
    optimal_discriminator,
)

keras.utils.set_random_seed(0)
train_set, test_set = datasets.fashion_mnist()
x, x_test = (
    (part.x[..., None] / 127.5 - 1).astype("float32")  # (1)!
    for part in (train_set, test_set)
)
G, D = generator(), discriminator()
z = np.random.default_rng(0).standard_normal((5, 64), dtype="float32")
print("noise      ", z.shape)
print("G(noise)   ", G(z).shape, f"{G.count_params():,} parameters")
print("D(G(noise))", D(G(z)).shape, f"{D.count_params():,} parameters")
print("probability of being real:", np.round(ops.sigmoid(D(x[:3]))[:, 0], 1))
# --8<-- [end:game]


# --8<-- [start:by-hand]
def by_hand(G, D, x, z, rate):
    d_weights, g_weights = D.trainable_variables, G.trainable_variables
    with tf.GradientTape() as tape:
        real, fake = ops.sigmoid(D(x)), ops.sigmoid(D(G(z, training=True)))
        value = ops.mean(ops.log(real)) + ops.mean(ops.log(1 - fake))
    for w, slope in zip(
        d_weights, tape.gradient(value, d_weights), strict=True
    ):
        w.assign_add(rate * slope)  # (1)!

    with tf.GradientTape() as tape:
        fooled = ops.mean(ops.log(ops.sigmoid(D(G(z, training=True)))))
    for w, slope in zip(
        g_weights, tape.gradient(fooled, g_weights), strict=True
    ):
        w.assign_add(rate * slope)  # (2)!
    return -value


start = G.get_weights(), D.get_weights()
ours = float(by_hand(G, D, x[:5], z, 0.01))
after = [w.numpy() for w in G.trainable_variables + D.trainable_variables]

G.set_weights(start[0])
D.set_weights(start[1])
step = make_gan_step(G, D, [keras.optimizers.SGD(0.01) for _ in "GD"])
loss = float(step(x[:5], z))
again = [w.numpy() for w in G.trainable_variables + D.trainable_variables]
far = max(np.abs(a - b).max() for a, b in zip(after, again, strict=True))
print(f"loss: {ours:.4f} by hand, {loss:.4f} by the module")
print("all weights after the step differ by less than 1e-6:", far < 1e-6)
# --8<-- [end:by-hand]

# --8<-- [start:closed-form]
level = (train_set.x.mean((1, 2)) // 4).astype(int)  # (1)!
centre, width = level.mean() + 0.5, level.std()
p = np.bincount(level, minlength=64) / len(level)
q = np.diff(norm.cdf(np.arange(65), centre, width))
q /= q.sum()  # (2)!


def value(d):
    return np.sum(xlogy(p, d) + xlogy(q, 1 - d))


def divergence(p, q):
    middle = (p + q) / 2
    return np.sum(rel_entr(p, middle) + rel_entr(q, middle)) / 2


best = optimal_discriminator(p, q)
print(f"value with D* = p / (p + q):  {value(best):.6f}")
print(f"-log 4 + 2 JS(p, q):          {-np.log(4) + 2 * divergence(p, q):.6f}")
rng = np.random.default_rng(0)
others = [np.clip(best + rng.normal(0, s, 64), 0.01, 0.99) for s in (0.01, 0.1)]
print("value a little beside D*:    ", *(f"{value(d):.6f}" for d in others))
print(f"value if D answers 1/2:       {value(np.full(64, 0.5)):.6f}")
# --8<-- [end:closed-form]

# --8<-- [start:learned]
from aimodels.training import batches, make_step, train


def column(levels):
    return ((levels + 0.5 - centre) / width).astype("float32")[:, None]


def parted(_, logits):
    return discriminator_loss(logits[:1024], logits[1024:])  # (1)!


hidden = [keras.layers.Dense(32, "tanh") for _ in range(2)]
judge = keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])
adam = keras.optimizers.Adam(0.01)
learn_judge = make_step(judge, adam, parted, jit_compile=True)


def renew(seed, optimizers, *models):
    keras.utils.set_random_seed(seed)
    for model in models:
        model.set_weights(keras.models.clone_model(model).get_weights())  # (2)!
    for optimizer in optimizers:
        for variable in optimizer.variables:
            variable.assign(ops.zeros_like(variable))


def learn(seed, steps=1000):
    renew(seed, [adam], judge)
    rng = np.random.default_rng(seed)
    fed = (
        (column(np.concatenate([real, rng.choice(64, 1024, p=q)])), 0)
        for real in batches(level, 1024, seed)
    )

    def slower(number, loss):
        adam.learning_rate = 0.01 * (1 - number / steps)

    slower(0, None)
    train(learn_judge, fed, steps, after=slower)
    d = ops.sigmoid(judge(column(np.arange(64))))
    return np.array(d, "float64")[:, 0]


often = p + q > 0.01
learned = [learn(seed) for seed in range(3)]
for seed, d in enumerate(learned):
    error = np.abs(d - best)[often]
    print(
        f"seed {seed}: error {error.mean():.3f} on average,"
        f" {error.max():.3f} at most; value {value(d):.4f}"
    )

figure, axis = plt.subplots()
axis.bar(np.arange(64), 10 * p, 1.0, alpha=0.4, label="10 p, data")
axis.plot(10 * q, "C1", label="10 q, Gaussian")
axis.plot(best, "C2.", label="p / (p + q)")
for d in learned:
    axis.plot(d, "C3", lw=0.8, label="trained" if d is learned[0] else None)
axis.set(xlabel="brightness of an image", ylim=(0, 1))
axis.legend()
# --8<-- [end:learned]

# --8<-- [start:vanish]
norms = {}
adam = keras.optimizers.Adam(0.001, beta_1=0.5)
learn_d = make_step(D, adam, lambda _, s: discriminator_loss(s[:64], s[64:]))


@tf.function(autograph=False)
def slopes(z):
    with tf.GradientTape(persistent=True) as tape:
        fake = D(G(z, training=True))
        losses = generator_loss(fake, saturating=True), generator_loss(fake)
    weights = G.trainable_variables
    return [
        tf.linalg.global_norm(tape.gradient(loss, weights)) for loss in losses
    ]


def noise(rng, rows=64):
    return rng.standard_normal((rows, 64), dtype="float32")


for seed in range(3):
    renew(seed, [adam], G, D)
    adam.learning_rate = 0.001
    rng = np.random.default_rng(seed)
    made = np.array(G(noise(rng, 2000), training=True))
    fed = (
        (np.concatenate(pair), 0)
        for pair in zip(
            batches(x, 64, seed), batches(made, 64, seed), strict=False
        )
    )
    z = noise(rng)
    norms[seed] = [[float(n) for n in slopes(z)]]
    for _ in range(4):
        train(learn_d, fed, 25)
        norms[seed].append([float(n) for n in slopes(z)])

norms = np.array([norms[seed] for seed in range(3)])  # (1)!
print("steps of D   saturating             non-saturating")
for row, number in enumerate(range(0, 101, 25)):
    low, high = norms[:, row].min(0), norms[:, row].max(0)
    spans = [f"{a:.1e} to {b:.1e}" for a, b in zip(low, high, strict=True)]
    print(f"{number:10}   {spans[0]:22} {spans[1]}")

figure, axis = plt.subplots()
for way, style in enumerate(("s--", "o-")):
    name = ("saturating", "non-saturating")[way]
    for seed in range(3):
        label = name if seed == 0 else None
        axis.semilogy(
            range(0, 101, 25),
            norms[seed, :, way],
            f"C{way}{style}",
            label=label,
        )
axis.set(xlabel="steps that D is ahead", ylabel="length of the gradient of G")
axis.legend()
# --8<-- [end:vanish]

# --8<-- [start:features]
from aimodels.cnn import lenet

keras.utils.set_random_seed(0)
classifier = lenet(10)
adam = keras.optimizers.Adam(0.002)


def cross_entropy(y, logits):
    return ops.mean(
        ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
    )


def slower(number, loss):
    adam.learning_rate = 0.001 * (1 + np.cos(np.pi * number / 600))


labelled = x[:20000], train_set.y[:20000].astype("int32")
fed = batches(labelled, 64, seed=0)
train(make_step(classifier, adam, cross_entropy), fed, 600, after=slower)

inner = classifier.layers[-2].output  # (1)!
both = keras.Model(classifier.inputs[0], [inner, classifier.outputs[0]])


def look(images):
    parts = [both(images[i : i + 500]) for i in range(0, len(images), 500)]
    features, logits = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return features, logits.argmax(-1)


real, seen = look(x_test)
print("features:", real.shape)
print(f"test accuracy of the classifier: {np.mean(seen == test_set.y):.2f}")
# --8<-- [end:features]


# --8<-- [start:baselines]
def spread_of(classes):
    share = np.bincount(classes, minlength=10) / len(classes)
    return np.exp(-np.sum(xlogy(share, share)))  # (1)!


def judged(images):
    features, classes = look(np.clip(images, -1, 1).astype("float32"))
    return frechet_distance(features, real), spread_of(classes)


rng = np.random.default_rng(0)
pixels = x[:20000].reshape(20000, 784)
mean, deviation = pixels.mean(0), pixels.std(0)
variance, axes = np.linalg.eigh(np.cov(pixels, rowvar=False))
scale = np.sqrt(np.maximum(variance, 0))
uniform = rng.uniform(-1, 1, (5000, 28, 28, 1))
single = (mean + deviation * rng.standard_normal((5000, 784))).reshape(
    uniform.shape
)
gaussian = mean + (rng.standard_normal((5000, 784)) * scale) @ axes.T  # (2)!
gaussian = gaussian.reshape(uniform.shape)
candidates = {
    "other real images": x[-5000:],
    "Gaussian of all pixels": gaussian,
    "Gaussian, each pixel alone": single,
    "even noise": uniform,
}
print("                            distance  classes")
for name, images in candidates.items():
    distance, classes = judged(images)
    print(f"{name:26} {distance:9.2f} {classes:8.1f}")
# --8<-- [end:baselines]


# --8<-- [start:train]
def adams(beta):
    return [keras.optimizers.Adam(0.001, beta_1=beta) for _ in "GD"]


def sample(count=5000):
    rng = np.random.default_rng(123)
    return np.concatenate([G(noise(rng, 500)) for _ in range(count // 500)])


def play(step, optimizers, D, seed, steps, *, rate=0.001, looks=()):
    renew(seed, optimizers, G, D)
    rng, table = np.random.default_rng(seed), []
    fed = ((real, noise(rng)) for real in batches(x[:20000], 64, seed))

    def after(number, loss):
        for optimizer in optimizers:
            optimizer.learning_rate = rate * (1 - number / steps)
        if number in looks:
            table.append((number, loss, *judged(sample())))

    for optimizer in optimizers:
        optimizer.learning_rate = rate
    train(step, fed, steps, after=after)
    return table


usual = adams(0.5)
step = make_gan_step(G, D, usual)
for number, loss, distance, classes in play(
    step, usual, D, 0, 500, looks=(50, 250, 500)
):
    print(
        f"step {number:3}: loss of D {loss:.2f}, distance {distance:.1f},"
        f" classes {classes:.1f}"
    )
short = G.get_weights(), D.get_weights()
# --8<-- [end:train]

# --8<-- [start:long-run]
if "HANDBOOK_LONG" in os.environ:
    looks, rows, finals = (500, 1000, 2000), [], []
    for seed in range(3):
        rows.append(play(step, usual, D, seed, 2000, looks=looks))
        finals.append(sample())
    rows = np.array(rows)  # [seeds, looks, 4]
    print("step      loss of D      distance       classes")
    for place, number in enumerate(looks):
        spans = [
            f"{a.min():.2f} to {a.max():.2f}" for a in rows[:, place, 1:].T
        ]
        print(f"{number:4}  {spans[0]:>12}  {spans[1]:>14}  {spans[2]:>12}")
# --8<-- [end:long-run]

# --8<-- [start:long-pictures]
if "HANDBOOK_LONG" in os.environ:
    kinds = {
        "real": x_test,
        "Gaussian": gaussian,
        "GAN, seed 0": finals[0],
        "GAN, seed 1": finals[1],
        "GAN, seed 2": finals[2],
    }
    figure, axes = plt.subplots(5, 10, figsize=(6, 3.4))
    for line, (name, images) in zip(axes, kinds.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image[..., 0], "gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
# --8<-- [end:long-pictures]


# --8<-- [start:frozen]
def apart(images):
    one, other = images[:1000].reshape(2, 500, 784)
    return np.mean(np.linalg.norm(one - other, axis=1))


G.set_weights(short[0])
D.set_weights(short[1])
print(f"short game: samples {apart(sample(1000)):.1f} apart")
print(f"real images: {apart(x_test):.1f} apart")

D.trainable = False  # (1)!
adam = keras.optimizers.Adam(0.001, beta_1=0.5)
chain = keras.Sequential([G, D])
alone = make_step(chain, adam, lambda _, s: generator_loss(s))
figure, axes = plt.subplots(3, 10, figsize=(6, 2))
for seed, line in enumerate(axes):
    renew(seed, [adam], G)
    adam.learning_rate = 0.001
    rng = np.random.default_rng(seed)
    train(alone, ((noise(rng), 0) for _ in range(100)), 100)
    made = sample(1000)
    classes = look(made)[1]
    largest = np.bincount(classes).max() / 1000
    print(
        f"seed {seed}: samples {apart(made):.1f} apart,"
        f" largest class {largest:.2f}, classes {spread_of(classes):.1f}"
    )
    for axis, image in zip(line, made, strict=False):
        axis.imshow(image[..., 0], "gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
D.trainable = True
# --8<-- [end:frozen]


# --8<-- [start:long-collapse]
class Spread(keras.layers.Layer):
    def call(self, x):
        spread = ops.mean(ops.sqrt(ops.var(x, axis=0) + 1e-8))  # (1)!
        return ops.concatenate([x, ops.ones_like(x[:, :1]) * spread], axis=1)


if "HANDBOOK_LONG" in os.environ:
    body = [*discriminator().layers[:-1], Spread(), keras.layers.Dense(1)]
    D_spread = keras.Sequential([keras.Input((28, 28, 1)), *body])
    settings = {
        "β₁ 0.9": (0.9, 0.001, False, D),
        "β₁ 0.9, spread": (0.9, 0.001, False, D_spread),
        "β₁ 0.9, rate / 5": (0.9, 0.0002, False, D),
        "β₁ 0.5": (0.5, 0.001, False, D),
        "β₁ 0.5, saturating": (0.5, 0.001, True, D),
    }
    print("                    distance          classes        above 1 %")
    for name, (beta, rate, saturating, rival) in settings.items():
        optimizers, rows = adams(beta), []
        other = make_gan_step(G, rival, optimizers, saturating)
        for seed in range(3):
            play(other, optimizers, rival, seed, 600, rate=rate)
            features, classes = look(sample())
            share = np.bincount(classes, minlength=10) / len(classes)
            distance = frechet_distance(features, real)
            rows.append((distance, spread_of(classes), np.sum(share > 0.01)))
        low, high = np.min(rows, axis=0), np.max(rows, axis=0)
        print(
            f"{name:18} {low[0]:5.1f} to {high[0]:5.1f} {low[1]:8.1f} to {high[1]:4.1f}"
            f" {low[2]:8.0f} to {high[2]:2.0f}"
        )
# --8<-- [end:long-collapse]

# --8<-- [start:peer]
entropy = keras.losses.BinaryCrossentropy(from_logits=True)
rng, losses, distances = np.random.default_rng(0), [], []
for _ in range(6):
    shape = (2 * rng.integers(1, 9), rng.integers(1, 4))
    a, b = rng.normal(0, 5, (2, *shape)).astype("float32")
    one, zero = np.ones(shape), np.zeros(shape)
    ours = (
        discriminator_loss(a, b),
        generator_loss(b),
        generator_loss(b, saturating=True),
    )
    theirs = (
        entropy(one, a) + entropy(zero, b),
        entropy(one, b),
        -entropy(zero, b),
    )
    losses += [abs(m - k) / abs(k) for m, k in zip(ours, theirs, strict=True)]

    rows, columns = rng.integers(20, 50), rng.integers(2, 9)
    u = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))
    v = rng.normal(size=(rows + 7, columns)) + 1
    cu, cv = np.cov(u, rowvar=False), np.cov(v, rowvar=False)
    theirs = np.sum((u.mean(0) - v.mean(0)) ** 2)
    theirs += np.trace(cu + cv - 2 * sqrtm(cu @ cv).real)
    distances.append(abs(frechet_distance(u, v) - theirs) / theirs)
print("losses, relative difference below 1e-5:", bool(max(losses) < 1e-5))
print("distance, relative difference below 1e-9:", max(distances) < 1e-9)
print(f"at logits of ±10,000: {float(discriminator_loss([-1e4], [1e4])):.0f}")
# --8<-- [end:peer]

# --8<-- [start:few]
others, _ = look(x[-10000:])
counts, means = (50, 100, 300, 1000, 3000), []
for count in counts:
    draws = [
        frechet_distance(others[i : i + count], real)
        for i in range(0, min(10000 - count + 1, 10 * count), count)
    ]
    means.append(np.mean(draws))
    print(
        f"{count:5} images: {means[-1]:.2f} ({min(draws):.2f} to {max(draws):.2f})"
    )
# --8<-- [end:few]


# --8<-- [start:copies]
def nearest(images, known):
    a, b = (part.reshape(len(part), -1) for part in (images, known))
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.median(np.sqrt(np.maximum(squares.min(1), 0)))


G.set_weights(short[0])
made = sample()
for name, images in {
    "training images themselves": x[:5000],
    "50 of them, 100 times each": np.repeat(x[:50], 100, axis=0),
    "test images": x_test[5000:],
    "generated images": made,
}.items():
    distance, away = judged(images)[0], nearest(images[::25], x[:20000])
    print(
        f"{name:26}: distance {distance:5.2f}, nearest training image {away:4.1f} away"
    )
# --8<-- [end:copies]

# --8<-- [start:solution-share]
share, grid = 0.8, np.linspace(0.001, 0.999, 999)
gain = xlogy(share * p[:, None], grid) + xlogy(
    (1 - share) * q[:, None], 1 - grid
)
found = grid[gain.argmax(1)]
answer = optimal_discriminator(share * p, (1 - share) * q)
inside = (answer > 0.001) & (answer < 0.999)
print(f"largest difference: {np.abs(found - answer)[inside].max():.4f}")
assert np.abs(found - answer)[inside].max() < 0.001

odds, shifted = (d[inside] / (1 - d[inside]) for d in (best, answer))
assert np.allclose(shifted, odds * share / (1 - share))
# --8<-- [end:solution-share]

# --8<-- [start:solution-slopes]
for s in (-10.0, 0.0, 10.0):
    h = 1e-3
    row = []
    for saturating in (True, False):
        up, down = (
            float(generator_loss(np.array([s + d]), saturating))
            for d in (h, -h)
        )
        row.append((up - down) / (2 * h))
    d = 1 / (1 + np.exp(-s))
    assert np.allclose(row, [-d, d - 1], atol=1e-6)
    print(
        f"logit {s:3.0f}: saturating {row[0]:.5f}, non-saturating {row[1]:.5f}"
    )
# --8<-- [end:solution-slopes]

# --8<-- [start:solution-limit]
slope, limit = np.polyfit(1 / np.array(counts[2:]), means[2:], 1)
print(f"with endless images of one side: {limit:.2f}")
assert abs(limit) < means[-1]
# --8<-- [end:solution-limit]
