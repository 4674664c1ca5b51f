# --8<-- [start:noising]
import os
import time
from itertools import pairwise

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops
from scipy.special import softmax, xlogy
from scipy.stats import wasserstein_distance

from aimodels import datasets
from aimodels.diffusion import (
    Lookup,
    cosine_schedule,
    denoised,
    linear_schedule,
    noised,
    noisy_pairs,
    posterior,
    sample,
    step_back,
    unet,
)

train_set, test_set = datasets.fashion_mnist()
x, x_test = (
    (part.x[..., None] / 127.5 - 1).astype("float32")  # (1)!
    for part in (train_set, test_set)
)
signal = cosine_schedule()
noise = np.random.default_rng(0).standard_normal(x[:1].shape)

figure, axes = plt.subplots(1, 6, figsize=(6, 1.4))
for axis, t in zip(axes, range(0, 1001, 200), strict=True):
    print(f"after {t:4} steps: share of signal {signal[t]:.3f}")
    axis.imshow(noised(x[:1], noise, signal[t])[0, ..., 0], "gray")
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"t = {t}", fontsize="small")
# --8<-- [end:noising]

# --8<-- [start:by-hand]
pixel = x[:, 14, 14, 0]
mean, variance = pixel.mean(), pixel.var()


def guess(x, t):  # (1)!
    share = signal[t][:, None]
    spread = share * variance + 1 - share
    return np.sqrt(1 - share) * (x - np.sqrt(share) * mean) / spread


def sample_by_hand(predict, x, rng):
    for t in range(1000, 0, -1):
        now, before = signal[t], signal[t - 1]
        beta = 1 - now / before
        noise = predict(x, np.full(len(x), t))
        x = (x - beta / np.sqrt(1 - now) * noise) / np.sqrt(1 - beta)  # (2)!
        if t > 1:
            deviation = np.sqrt((1 - before) / (1 - now) * beta)
            x = x + deviation * rng.standard_normal(x.shape)
    return x


start = np.random.default_rng(1).standard_normal((5000, 1))
ours = sample_by_hand(guess, start, np.random.default_rng(2))
theirs = sample(guess, start, signal, 1000, eta=1, rng=np.random.default_rng(2))
print(f"the pixel:      mean {mean:.2f}, deviation {variance**0.5:.2f}")
print(f"5,000 samples:  mean {ours.mean():.2f}, deviation {ours.std():.2f}")
print("as the module, within 1e-6:", bool(np.allclose(ours, theirs, atol=1e-6)))
# --8<-- [end:by-hand]

# --8<-- [start:forward]
linear, rng = linear_schedule(), np.random.default_rng(0)
chains = np.full(20000, 0.5)
print("step  mean: chain, formula   variance: chain, formula")
for t in range(1, 1001):
    beta = 1 - linear[t] / linear[t - 1]
    fresh = rng.standard_normal(20000)
    chains = np.sqrt(1 - beta) * chains + np.sqrt(beta) * fresh
    if t in (10, 100, 300, 1000):
        print(
            f"{t:4}  {chains.mean():11.2f} {0.5 * np.sqrt(linear[t]):8.2f}"
            f" {chains.var():17.2f} {1 - linear[t]:8.2f}"
        )
# --8<-- [end:forward]

# --8<-- [start:schedules]
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8))
for name, share in (("linear", linear), ("cosine", signal)):
    ratio = share[1:-1] / (1 - share[1:-1])
    axes[0].plot(share, label=name)
    axes[1].semilogy(np.arange(1, 1000), ratio, label=name)
    low = np.sum(ratio < 0.01)
    print(
        f"{name}: signal below a hundredth of the noise in {low} steps of 999"
    )
    print(f"{name}: share of signal that is left at the end {share[-1]:.0e}")
axes[0].set(xlabel="step", ylabel="share of signal")
axes[1].set(xlabel="step", ylabel="signal to noise")
axes[0].legend()
# --8<-- [end:schedules]

# --8<-- [start:exact]
level = (train_set.x.mean((1, 2)) // 4).astype(int)
p = np.bincount(level, minlength=64) / len(level)
u = np.arange(64) - p @ np.arange(64)
u = u / np.sqrt(p @ u**2)  # (1)!


def exact(signal, u=u, q=p):
    def predict(x, t):
        share = signal[t][:, None]
        noises = (x - np.sqrt(share) * u) / np.sqrt(1 - share)  # (2)!
        with np.errstate(divide="ignore"):
            weights = softmax(np.log(q) - noises**2 / 2, axis=1)
        return (weights * noises).sum(1, keepdims=True)

    return predict


def away(samples):
    return wasserstein_distance(samples.ravel(), u, v_weights=p)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


z = normal(0, 4000, 1)
real = u[np.random.default_rng(0).choice(64, 4000, p=p)]
print(f"other brightnesses: {away(real):.3f}")
print(f"normal numbers:     {away(z):.3f}")
print("steps    DDIM    DDPM")
counts, rows = (2, 5, 10, 20, 50, 100), []
for steps in counts:
    rows.append(
        [
            away(sample(exact(signal), z, signal, steps, eta=eta, rng=rng))
            for eta in (0, 1)
        ]
    )
    print(f"{steps:5} {rows[-1][0]:7.3f} {rows[-1][1]:7.3f}")

figure, axis = plt.subplots()
axis.loglog(counts, rows, "o-", label=["DDIM", "DDPM"])
axis.axhline(away(z), color="C2", ls="--", label="normal numbers")
axis.axhline(away(real), color="C3", ls=":", label="other brightnesses")
axis.set(xlabel="steps of the sampler", ylabel="distance to the data")
axis.legend()
# --8<-- [end:exact]

# --8<-- [start:learned]
from aimodels.training import batches, make_step, train
from aimodels.transformer import sinusoidal_positions


def perceptron(first_term):
    number, t = keras.Input((1,)), keras.Input((), dtype="int32")
    waves = Lookup(sinusoidal_positions(1001, 16))(t)  # (1)!
    h = keras.layers.Concatenate()([number, waves])
    for _ in range(3):
        h = keras.layers.Dense(64, "silu")(h)
    h = keras.layers.Dense(1)(h)
    if first_term:  # (2)!
        noise, rest = (
            Lookup(np.sqrt(s)[:, None]) for s in (1 - signal, signal)
        )
        h = noise(t) * number + rest(t) * h
    return keras.Model([number, t], h)


def squared(noise, predicted):
    return ops.mean(ops.square(noise - predicted))


def falling(adam, rate, steps):
    def after(number, loss):
        adam.learning_rate = rate * (1 + np.cos(np.pi * number / steps)) / 2

    after(0, None)
    return after


small, adam = perceptron(True), keras.optimizers.Adam()
learn_small = make_step(small, adam, squared, jit_compile=True)


def renew(seed, optimizers, *models):
    keras.utils.set_random_seed(seed)
    for model in models:
        model.set_weights(keras.models.clone_model(model).get_weights())
    for optimizer in optimizers:
        for variable in optimizer.variables:
            variable.assign(ops.zeros_like(variable))


def asked(model):
    call = tf.function(model, reduce_retracing=True, autograph=False)
    return lambda x, t: call([x.astype("float32"), t]).numpy()


in_small = asked(small)


column = u[level][:, None].astype("float32")
clean, draw = column[:4000], normal(3, 4000, 1)
looks = (1, 50, 200, 500, 800)
excess, ways = [], []
for seed in range(3):
    renew(seed, [adam], small)
    fed = noisy_pairs(batches(column, 512, seed), signal, seed)
    train(learn_small, fed, 1000, after=falling(adam, 0.01, 1000))
    excess.append([])
    for step in looks:
        noisy, at = noised(clean, draw, signal[step]), np.full(4000, step)
        best = exact(signal)(noisy, at)
        excess[-1].append(np.mean((in_small(noisy, at) - best) ** 2))
    ways.append(away(sample(in_small, z, signal, 100)))

print("step  smallest loss  excess of three networks")
for place, step in enumerate(looks):
    noisy, at = noised(clean, draw, signal[step]), np.full(4000, step)
    least = np.mean((draw - exact(signal)(noisy, at)) ** 2)
    row = np.array(excess)[:, place]
    print(f"{step:4} {least:14.3f}  {row.min():.4f} to {row.max():.4f}")
print(f"distance, 100 steps of DDIM: {min(ways):.3f} to {max(ways):.3f}")
# --8<-- [end:learned]

# --8<-- [start:judge]
from aimodels.cnn import lenet
from aimodels.gan import frechet_distance

keras.utils.set_random_seed(0)
classifier, adam = lenet(10), keras.optimizers.Adam(0.002)


def cross_entropy(y, logits):
    return ops.mean(
        ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
    )


labelled = x[:20000], train_set.y[:20000].astype("int32")
train(
    make_step(classifier, adam, cross_entropy),
    batches(labelled, 64, seed=0),
    600,
    after=falling(adam, 0.002, 600),
)
inner = classifier.layers[-2].output
both = keras.Model(classifier.inputs[0], [inner, classifier.outputs[0]])


def look(images):
    parts = [both(images[i : i + 500]) for i in range(0, len(images), 500)]
    features, logits = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return features, logits.argmax(-1)


features, _ = look(x_test)


def judged(images):
    found, classes = look(np.clip(images, -1, 1).astype("float32"))
    share = np.bincount(classes, minlength=10) / len(classes)
    return frechet_distance(found, features), np.exp(-xlogy(share, share).sum())


pixels = x[:20000].reshape(20000, 784)
spread, axes = np.linalg.eigh(np.cov(pixels, rowvar=False))
root = axes * np.sqrt(np.maximum(spread, 0))
gaussian = pixels.mean(0) + normal(0, 1000, 784) @ root.T
gaussian = gaussian.reshape(-1, 28, 28, 1)
print("                        distance  classes")
for name, images in (("other real images", x[-1000:]), ("Gaussian", gaussian)):
    distance, classes = judged(images)
    print(f"{name:22} {distance:9.1f} {classes:8.1f}")
# --8<-- [end:judge]

# --8<-- [start:train]
net = unet(signal)
renew(0, [], net)
adam = keras.optimizers.Adam()
learn = make_step(net, adam, squared)


def teach(seed, steps):
    renew(seed, [adam], net)
    fed = noisy_pairs(batches(x[:20000], 64, seed), signal, seed)
    return train(learn, fed, steps, after=falling(adam, 0.004, steps))


losses = teach(0, 500)
print(f"{net.count_params():,} parameters")
for first in (0, 50, 450):
    part = losses[first : first + 50].mean()
    print(f"steps {first + 1:3} to {first + 50:3}: loss {part:.2f}")
# --8<-- [end:train]

# --8<-- [start:pictures]
forward = tf.function(
    lambda x, t: net([x, t]), reduce_retracing=True, autograph=False
)


def predict(x, t):
    return forward(x, t).numpy()


def drawn(count, steps, **options):
    z = np.random.default_rng(123).standard_normal(
        (count, 28, 28, 1), dtype="float32"
    )
    parts = [
        sample(predict, part, signal, steps, bounds=(-1, 1), **options)  # (1)!
        for part in np.split(z, count // 500)
    ]
    return np.concatenate(parts)


made = drawn(1000, 20)
distance, classes = judged(made)
print(f"1,000 samples: distance {distance:.1f}, classes {classes:.1f}")

figure, axes = plt.subplots(2, 10, figsize=(6, 1.4))
for line, name, images in zip(
    axes, ("real", "generated"), (x_test, made), strict=True
):
    for axis, image in zip(line, images, strict=False):
        axis.imshow(image[..., 0], "gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
# --8<-- [end:pictures]

# --8<-- [start:path]
path = []


def watched(x, t):
    noise = predict(x, t)
    clean = np.clip(denoised(x, noise, signal[t]), -1, 1)
    path.append((t[0], x[0], clean[0]))
    return noise


z28 = np.random.default_rng(123).standard_normal((500, 28, 28, 1), "float32")
sample(watched, z28[:1], signal, 20, bounds=(-1, 1))

figure, axes = plt.subplots(2, 7, figsize=(6, 2))
for column_axes, (t, *images) in zip(axes.T, path[::3], strict=True):
    for axis, image in zip(column_axes, images, strict=True):
        axis.imshow(image[..., 0], "gray")
        axis.set(xticks=[], yticks=[])
    column_axes[0].set_title(f"t = {t}", fontsize="small")
for axis, name in zip(axes[:, 0], ("state", "clean, so far"), strict=True):
    axis.set_ylabel(name, rotation=0, ha="right", va="center")
# --8<-- [end:path]

# --8<-- [start:long-run]
if "HANDBOOK_LONG" in os.environ:
    from aimodels.gan import discriminator, generator, make_gan_step

    short = net.get_weights()
    G, D = generator(), discriminator()
    rivals = [keras.optimizers.Adam(beta_1=0.5) for _ in "GD"]
    play = make_gan_step(G, D, rivals)

    def codes(rng, count):
        return rng.standard_normal((count, 64), dtype="float32")

    def slower(number, loss):
        for rival in rivals:
            rival.learning_rate = 0.001 * (1 - number / 1000)

    def gan(seed):
        renew(seed, rivals, G, D)
        slower(0, None)
        rng, real = np.random.default_rng(seed), batches(x[:20000], 64, seed)
        fed = ((part, codes(rng, 64)) for part in real)
        train(play, fed, 1000, after=slower)
        return lambda: np.array(G(codes(np.random.default_rng(123), 1000)))

    def diffusion(seed):
        teach(seed, 500)
        return lambda: drawn(1000, 20)

    finals = {}
    print("                          seconds")
    print("                       train  draw  distance       classes")
    for name, way in {
        "GAN, 1,000 steps": gan,
        "diffusion, 500 steps": diffusion,
    }.items():
        rows, finals[name] = [], []
        for seed in range(3):
            clock = [time.perf_counter()]
            draw_now = way(seed)
            clock.append(time.perf_counter())
            finals[name].append(draw_now())
            clock.append(time.perf_counter())
            rows.append((*np.diff(clock), *judged(finals[name][-1])))
        low, high = np.min(rows, 0), np.max(rows, 0)
        taken = np.median(rows, 0)
        print(
            f"{name:22} {taken[0]:5.0f} {taken[1]:5.1f}"
            f"  {low[2]:4.1f} to {high[2]:4.1f}"
            f"   {low[3]:.2f} to {high[3]:.2f}"
        )
    net.set_weights(short)
# --8<-- [end:long-run]

# --8<-- [start:long-pictures]
if "HANDBOOK_LONG" in os.environ:
    kinds = {
        "real": x_test,
        "GAN, seed 0": finals["GAN, 1,000 steps"][0],
        "GAN, seed 1": finals["GAN, 1,000 steps"][1],
        "diffusion, seed 0": finals["diffusion, 500 steps"][0],
        "diffusion, seed 1": finals["diffusion, 500 steps"][1],
    }
    figure, axes = plt.subplots(5, 10, figsize=(6, 3.4))
    for line, (name, images) in zip(axes, kinds.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image[..., 0], "gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
# --8<-- [end:long-pictures]

# --8<-- [start:long-steps]
if "HANDBOOK_LONG" in os.environ:
    short = net.get_weights()
    teach(0, 1000)
    print("distance after 1,000 steps of training")
    print("steps    DDIM    DDPM")
    for steps in (5, 10, 20, 50):
        pair = [
            judged(drawn(1000, steps, eta=eta, rng=np.random.default_rng(5)))[0]
            for eta in (0, 1)
        ]
        print(f"{steps:5} {pair[0]:7.1f} {pair[1]:7.1f}")
    net.set_weights(short)
# --8<-- [end:long-steps]

# --8<-- [start:peer]
rng, conditioned = np.random.default_rng(0), []
for share in (linear, signal):
    variance, betas = 4.0, 1 - share[1:] / share[:-1]
    for beta in betas:
        variance = (1 - beta) * variance + beta  # (1)!
    print(
        f"variance 4 after all steps: {variance:.4f}, {3 * share[-1] + 1:.4f}"
    )

    for _ in range(20):
        early, late = np.sort(rng.choice(np.arange(1, 1001), 2, replace=False))
        a, b, step = share[early], share[late], share[late] / share[early]
        clean, noisy = rng.normal(size=(2, 3))
        shared = np.sqrt(step) * (1 - a)  # (2)!
        wanted = np.sqrt(a) * clean
        wanted += shared / (1 - b) * (noisy - np.sqrt(b) * clean)
        found, spread = posterior(noisy, clean, b, a)
        conditioned.append(np.abs(found - wanted).max())
        conditioned.append(abs(spread - (1 - a - shared**2 / (1 - b))))
print("posterior as conditioned by hand, 1e-12:", max(conditioned) < 1e-12)

once, twice = (sample(predict, z28[:4], signal, 10) for _ in range(2))
print("DDIM, twice the same noise, equal:", bool((once == twice).all()))
once, twice = (
    sample(predict, z28[:4], signal, 10, eta=1, rng=rng) for _ in range(2)
)
print("DDPM, twice the same noise, equal:", bool((once == twice).all()))
# --8<-- [end:peer]

# --8<-- [start:end]
raw = (np.arange(64) + 0.5) / 32 - 1
print(f"data:  mean {p @ raw:.2f}")
for steps in (1000, 100):
    share = linear_schedule(steps)
    found = sample(exact(share, raw), z, share, 100)
    print(
        f"beta from 0.0001 to 0.02 in {steps:4} steps: signal left"
        f" {share[-1]:.4f}, mean {found.mean():.2f}"
    )
# --8<-- [end:end]

# --8<-- [start:bounds]
plain, adam = perceptron(False), keras.optimizers.Adam()
learn_plain = make_step(plain, adam, squared, jit_compile=True)
renew(0, [adam], plain)
fed = noisy_pairs(batches(column, 512, seed=0), signal, seed=0)
train(learn_plain, fed, 1000, after=falling(adam, 0.01, 1000))

implied = denoised(z, asked(plain)(z, np.full(4000, 1000)), signal[1000])
print(f"implied by pure noise: up to {np.abs(implied).max():.0f}")
print(f"brightness:            up to {np.abs(u).max():.1f}")
span = u.min(), u.max()
for name, model, bounds in (
    ("plain, no bounds", plain, None),
    ("plain, bounds", plain, span),
    ("first term, no bounds", small, None),
    ("first term, bounds", small, span),
):
    found = away(sample(asked(model), z, signal, 100, bounds=bounds))
    print(f"{name:21}: distance {found:.3f}")
# --8<-- [end:bounds]

# --8<-- [start:loss]
for name, share in (("linear", linear), ("cosine", signal)):
    known = exact(share)
    pairs = noisy_pairs(batches(column, 64, seed=0), share, seed=0)
    losses = [
        np.mean((noise - known(noisy, t)) ** 2)
        for (noisy, t), noise in (next(pairs) for _ in range(200))
    ]
    print(f"{name}: loss of the best predictor {np.mean(losses):.2f}")
# --8<-- [end:loss]

# --8<-- [start:solution-normal]
counts, deviations = (5, 10, 50, 200, 1000), []
for steps in counts:
    factor, t = 1.0, np.linspace(1000, 0, steps + 1).round().astype(int)
    for now, before in pairwise(signal[t]):
        spread = 4 * now + 1 - now
        clean = 4 * np.sqrt(now) / spread  # (1)!
        factor *= (
            np.sqrt(before) * clean + np.sqrt((1 - before) * (1 - now)) / spread
        )
    deviations.append(factor)
    print(f"{steps:4} steps: deviation {factor:.3f}")

drawn_ones = sample(
    lambda x, t: (
        np.sqrt(1 - signal[t][:, None]) * x / (3 * signal[t][:, None] + 1)
    ),
    np.ones((1, 1)),
    signal,
    10,
)
assert np.isclose(drawn_ones[0, 0], deviations[1])
assert abs(deviations[-1] - 2) < 0.01
# --8<-- [end:solution-normal]

# --8<-- [start:solution-guidance]
bags = np.bincount(level[train_set.y == 8], minlength=64)
bags = bags / bags.sum()
with_class, without = exact(signal, q=bags), exact(signal)
centres = []
for w in (0, 1, 3):

    def guided(x, t, w=w):
        return (1 + w) * with_class(x, t) - w * without(x, t)

    found = sample(guided, z, signal, 100)
    centres.append((found.mean(), found.std()))
    print(f"w = {w}: mean {found.mean():.2f}, deviation {found.std():.2f}")
centre = bags @ u
print(
    f"bags:  mean {centre:.2f}, deviation {np.sqrt(bags @ (u - centre) ** 2):.2f}"
)
assert abs(centres[0][0] - centre) < 0.05
assert centres[2][0] > centres[1][0] > centres[0][0]
# --8<-- [end:solution-guidance]

# --8<-- [start:solution-back]
known, errors = exact(signal), []
for steps in (10, 30, 100, 300):
    t = np.linspace(1, 1000, steps + 1).round().astype(int)
    state = real[:1000, None]
    for now, later in pairwise(t):
        noise = known(state, np.full(1000, now))
        clean = denoised(state, noise, signal[now])
        state = noised(clean, noise, signal[later])
    code = state
    for now, before in pairwise(t[::-1]):
        noise = known(state, np.full(1000, now))
        state = step_back(state, noise, signal[now], signal[before])
    errors.append(np.mean(np.abs(state - real[:1000, None])))
    print(
        f"{steps:3} steps: code of deviation {code.std():.2f},"
        f" back with an error of {errors[-1]:.3f}"
    )
assert errors[-1] < errors[0] / 5
# --8<-- [end:solution-back]
