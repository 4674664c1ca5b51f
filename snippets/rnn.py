# --8<-- [start:by-hand]
import numpy as np

W, R, b = np.array([[0.5]]), np.array([[2.0]]), np.array([0.0])
x = np.array([[1.0], [0.0], [0.0]])  # (1)!

h = np.zeros(1)
for step in x:
    h = np.tanh(step @ W + h @ R + b)  # (2)!
    print(h.round(3))
# --8<-- [end:by-hand]


# --8<-- [start:recursive]
def combine(left, right):
    return np.tanh(right @ W + left @ R + b)


def recursive(tree):
    if isinstance(tree, tuple):
        return combine(*(recursive(branch) for branch in tree))
    return tree


zero = np.zeros(1)
one, two, three = x
leaning = recursive((((zero, one), two), three))  # (1)!
print("as the loop above:", np.array_equal(leaning, h))
other = recursive(((zero, one), (two, three)))
print("another tree, another answer:", leaning.round(3), other.round(3))
# --8<-- [end:recursive]

# --8<-- [start:gradients]
import keras
import matplotlib.pyplot as plt
import tensorflow as tf
from keras import ops

from aimodels import datasets, training
from aimodels.rnn import Recurrent, backward, rnn, rnn_step, unroll

rng = np.random.default_rng(0)
x = rng.normal(size=(4, 9, 3))
weights = [rng.normal(size=s) / 2 for s in [(3, 5), (5, 5), (5,)]]
target = rng.normal(size=(4, 9, 5))

hidden = unroll(x, weights)  # (1)!
upstream = hidden[:, 1:] - target  # (2)!
ours = backward(x, hidden, upstream, weights)

variables = [tf.Variable(w) for w in weights]
with tf.GradientTape() as tape:
    states = rnn(
        lambda x, h: rnn_step(x, h, variables),
        tf.constant(x),
        tf.zeros((4, 5), tf.float64),
    )
    loss = ops.sum((states - target) ** 2) / 2
theirs = tape.gradient(loss, variables)
for name, a, b in zip("WRb", ours[:3], theirs, strict=True):
    off = np.abs(a - b).max() / np.abs(b).max()
    print(f"{name}: differs by less than 1e-12: {off < 1e-12}")
# --8<-- [end:gradients]

# --8<-- [start:mask]
keras.utils.set_random_seed(0)
layer = Recurrent(4, return_sequences=True)
x = rng.normal(size=(2, 5, 3)).astype("float32")
mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]) == 1
states = layer(x, step_mask=mask)
print(np.array(states[1]).round(2))
short = layer(x[1:, :2])[0, -1]
print("as if cut:", np.allclose(states[1, -1], short, atol=1e-6))
# --8<-- [end:mask]

# --8<-- [start:distance]
train, test = datasets.japanese_vowels()
mean = train.x[train.mask].mean(0)
scale = train.x[train.mask].std(0)


def speech(part, samples, steps, rng):
    voices = [
        (x[real] - mean) / scale
        for x, real in zip(part.x, part.mask, strict=True)
    ]
    first = rng.integers(len(voices), size=samples)
    x = np.zeros((samples, steps, 12), "float32")
    for row, start in zip(x, first, strict=True):
        more = rng.integers(len(voices), size=steps // 7)
        pieces = [voices[start][:7], *(voices[i] for i in more)]
        row[:] = np.concatenate(pieces)[:steps]
    return x, part.y[first]


def reach(x, weights, rng):
    hidden = unroll(x, weights)
    upstream = np.zeros_like(hidden[:, 1:])
    upstream[:, -1] = rng.normal(size=upstream[:, -1].shape)
    gradient = backward(x, hidden, upstream, weights).hidden
    size = np.linalg.norm(gradient, axis=-1)
    return np.median(size / size[:, -1:], axis=0)[::-1]  # (1)!


units, steps, radii = 64, 100, (0.5, 0.8, 1.0, 1.2, 1.5, 2.0)
stream, _ = speech(train, 16, steps, np.random.default_rng(0))
inputs = {"silence": np.zeros_like(stream), "speech": stream}
found = {}
for seed in range(5):
    rng = np.random.default_rng(seed)
    limit = np.sqrt(6 / (12 + units))
    W = rng.uniform(-limit, limit, (12, units))
    random = rng.normal(size=(units, units))
    for start, R in [
        ("orthogonal", np.linalg.qr(random)[0]),
        ("random", random),
    ]:
        unit = R / np.abs(np.linalg.eigvals(R)).max()  # (2)!
        for radius in radii:
            weights = W, radius * unit, np.zeros(units)
            for name, x in inputs.items():
                key = name, start, radius
                found.setdefault(key, []).append(reach(x, weights, rng))

print("20 steps away    silence     speech (least to most of 5)")
for start in ("orthogonal", "random"):
    print(start)
    for radius in radii:
        quiet, loud = (
            np.array([c[20] for c in found[name, start, radius]])
            for name in inputs
        )
        spread = f"{loud.min():.0e} to {loud.max():.0e}"
        middle = f"{np.median(quiet):.0e}      {np.median(loud):.0e}"
        print(f"  radius {radius:3}     {middle} ({spread})")

figure, axes = plt.subplots(1, 2, sharey=True, figsize=(6.8, 3.6))
for axis, name in zip(axes, inputs, strict=True):
    for colour, radius in enumerate(radii):
        for start, line in [("orthogonal", "-"), ("random", ":")]:
            curve = np.median(found[name, start, radius], axis=0)
            label = f"{radius}" if line == "-" else None
            axis.semilogy(curve, line, color=f"C{colour}", label=label)
    axis.set(title=name, xlabel="distance in steps", ylim=(1e-12, 1e4))
axes[0].set_ylabel("size of the gradient")
axes[1].legend(title="radius", ncols=2, fontsize="small")
# --8<-- [end:distance]


# --8<-- [start:network]
longest = 47


def network(kind):
    x, mask = keras.Input((longest, 12)), keras.Input((longest,), dtype="bool")
    if kind == "mean":
        h = keras.layers.Dense(32, activation="tanh")(x)
        real = ops.cast(mask, h.dtype)[..., None]
        h = ops.sum(h * real, axis=1) / ops.sum(real, axis=1)
    else:
        h = Recurrent(32, name="read")(x, step_mask=mask)
    return keras.Model([x, mask], keras.layers.Dense(9, name="answer")(h))


entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
models, optimizers, fresh, compiled = {}, {}, {}, {}
for kind in ("mean", "recurrent"):
    models[kind] = network(kind)
    optimizers[kind] = keras.optimizers.Adam(0.005, global_clipnorm=3.0)
    compiled[kind] = training.make_step(
        models[kind], optimizers[kind], entropy, jit_compile=True
    )
    fresh[kind] = [v + 0 for v in optimizers[kind].variables]


def learn(kind, seed, x, mask, y, *, steps):
    keras.utils.set_random_seed(seed)
    start = network(kind).get_weights()
    models[kind].set_weights(start)  # (1)!
    for variable, value in zip(
        optimizers[kind].variables, fresh[kind], strict=True
    ):
        variable.assign(value)
    batches = training.batches(((x, mask), y), size=54, seed=seed)
    training.train(compiled[kind], batches, steps)
    return start, models[kind].get_weights()


def answers(kind, weights, x, mask):
    models[kind].set_weights(weights)
    return np.array(models[kind]([x, mask])).argmax(-1)


# --8<-- [end:network]


# --8<-- [start:who]
def prepare(part):
    x = np.where(part.mask[..., None], (part.x - mean) / scale, 0)
    more = longest - x.shape[1]
    x = np.pad(x.astype("float32"), [(0, 0), (0, more), (0, 0)])
    return x, np.pad(part.mask, [(0, 0), (0, more)])


def shuffle(x, mask, rng):
    order = np.where(mask, rng.random(mask.shape), 2).argsort(axis=1)  # (1)!
    return np.take_along_axis(x, order[..., None], axis=1)


rng = np.random.default_rng(0)
(voices, real), (unheard, heard) = prepare(train), prepare(test)
kept = []
for name, kind, x, new in [
    ("mean over steps", "mean", voices, unheard),
    ("recurrent", "recurrent", voices, unheard),
    (
        "recurrent, shuffled",
        "recurrent",
        shuffle(voices, real, rng),
        shuffle(unheard, heard, rng),
    ),
]:
    right = []
    for seed in range(3):
        _, weights = learn(kind, seed, x, real, train.y, steps=100)
        right.append((answers(kind, weights, new, heard) == test.y).mean())
        kept += [weights] if name == "recurrent" else []
    spread = f"({min(right):.2f} to {max(right):.2f})"
    print(f"{name:20} {np.mean(right):.2f} {spread}")
# --8<-- [end:who]

# --8<-- [start:first]
distances, rng = (0, 10, 20, 40), np.random.default_rng(0)
x, y = speech(train, 2700, longest, rng)
new, truth = speech(test, 1000, longest, rng)
scores, before, after = {}, {}, {}
for distance in distances:
    shown = np.arange(longest) < 7 + distance  # (1)!
    for kind in models:
        right = []
        for seed in range(3):
            mask = np.tile(shown, (len(x), 1))
            start, weights = learn(kind, seed, x, mask, y, steps=300)
            guess = answers(kind, weights, new, mask[: len(new)])
            right.append((guess == truth).mean())
            before[distance, seed], after[distance, seed] = start, weights
        scores[kind, distance] = np.array(right)

print("distance  mean over steps       recurrent")
for distance in distances:
    line = f"{distance:8}"
    for kind in models:
        three = scores[kind, distance]
        spread = f"({three.min():.2f} to {three.max():.2f})"
        line += f"  {three.mean():.2f} {spread}"
    print(line)

figure, axis = plt.subplots()
for kind, name in [("recurrent", "recurrent"), ("mean", "mean over steps")]:
    three = np.array([scores[kind, distance] for distance in distances])
    axis.plot(distances, three.mean(1), "o-", label=name)
    axis.fill_between(distances, three.min(1), three.max(1), alpha=0.25)
axis.axhline(1 / 9, color="C4", label="guessing")
axis.set(xlabel="distance in steps", ylabel="right", ylim=(0, 1))
axis.legend()
# --8<-- [end:first]

# --8<-- [start:trained]
figure, axis = plt.subplots()
print("distance  right  gradient at the start  after training")
for colour, distance in enumerate(distances[1:]):
    for seed in range(3):
        curves = [
            reach(new[:200], one[distance, seed][:3], np.random.default_rng(0))
            for one in (before, after)
        ]
        right = scores["recurrent", distance][seed]
        there = [np.log10(curve[distance]) for curve in curves]
        print(
            f"{distance:8}   {right:.2f}", "{:22.1f}  {:14.1f}".format(*there)
        )
        label = f"trained at distance {distance}" if seed == 0 else None
        axis.plot(np.log10(curves[1]), color=f"C{colour}", label=label)
axis.plot(np.log10(curves[0]), "--", color="C4", label="at the start")
axis.set(xlabel="distance in steps", ylabel="gradient, power of ten")
axis.legend(fontsize="small")
# --8<-- [end:trained]


# --8<-- [start:peer]
def agreement(trial):
    rng = np.random.default_rng(trial)
    samples, steps, width, units = rng.integers(1, 17, 4).tolist()
    x = rng.normal(size=(samples, steps, width)).astype("float32")
    mask = rng.random((samples, steps)) < 0.7
    wanted = rng.normal(size=(samples, units)).astype("float32")
    results = []
    for kind, name in [
        (Recurrent, "step_mask"),
        (keras.layers.SimpleRNN, "mask"),
    ]:
        layer = kind(units)
        layer.build(x.shape)
        draw = np.random.default_rng(trial)
        layer.set_weights(
            [draw.normal(size=w.shape) / 2 for w in layer.weights]
        )
        with tf.GradientTape() as tape:
            state = layer(x, **{name: mask})
            loss = ops.sum(state * wanted)
        gradients = tape.gradient(loss, layer.trainable_variables)
        results.append([np.array(a) for a in (state, *gradients)])
    return max(
        np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
        for a, b in zip(*results, strict=True)
    )


worst = max(agreement(trial) for trial in range(20))
print("states and gradients differ by less than 1e-5:", worst < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:invariants]
layer = Recurrent(8, return_sequences=True)
x, real = unheard[:6, :29], heard[:6, :29]
states = np.array(layer(x, step_mask=real))
changed = np.where(real[..., None], x, np.nan)
same = layer(changed, step_mask=real)
print("padding is not read:", np.array_equal(states, same))
changed = x.copy()
changed[:, 5:] += 1
early = layer(changed, step_mask=real)[:, :5]
print("the future is not read:", np.array_equal(states[:, :5], early))
later = layer(x[:, 5:], step_mask=real[:, 5:], initial_state=states[:, 4])
print("may be cut anywhere:", np.allclose(later, states[:, 5:], atol=1e-6))
# --8<-- [end:invariants]


# --8<-- [start:padding]
def right(mask, weights=kept):
    guesses = [answers("recurrent", one, unheard, mask) for one in weights]
    return np.mean([guess == test.y for guess in guesses])


print(f"with the mask: {right(heard):.2f}")
for steps in (29, 38, 47):
    everything = np.tile(np.arange(longest) < steps, (len(heard), 1))
    print(f"no mask, padded to {steps}: {right(everything):.2f}")
# --8<-- [end:padding]

# --8<-- [start:stateful]
model = models["recurrent"]
recurrent, decide = model.get_layer("read"), model.get_layer("answer")
reset, carried = [], []
for weights in kept:
    model.set_weights(weights)
    last = recurrent(unheard, step_mask=heard)
    state = np.roll(last, 185, axis=0)  # (1)!
    dirty = recurrent(unheard, step_mask=heard, initial_state=state)
    for scores, states in [(reset, last), (carried, dirty)]:
        scores.append((np.array(decide(states)).argmax(-1) == test.y).mean())
print(f"state reset:   {np.mean(reset):.2f}")
print(f"state carried: {np.mean(carried):.2f}")
# --8<-- [end:stateful]

# --8<-- [start:axes]
layer = Recurrent(8)
x = unheard[:6, :29].swapaxes(0, 1)  # (1)!
print(x.shape, "gives", layer(x).shape)
changed = x.copy()
changed[:, 0] += 1
moved = np.abs(layer(changed) - layer(x)).max(axis=-1) > 0
print(f"answers that another speaker changes: {moved.mean():.0%}")
# --8<-- [end:axes]

# --8<-- [start:truncated]
weights = before[40, 0][:3]
x = new[:200]
hidden = unroll(x, weights)
states, following = hidden[:, 1:-1], x[:, 1:]
out = np.linalg.lstsq(states.reshape(-1, 32), following.reshape(-1, 12))[0]
upstream = np.zeros_like(hidden[:, 1:])
upstream[:, :-1] = (states @ out - following) @ out.T
whole = backward(x, hidden, upstream, weights).recurrent
print("window  length  direction")
for window in (1, 2, 5, 10, 20):
    part = backward(x, hidden, upstream, weights, window=window).recurrent
    length = np.linalg.norm(part) / np.linalg.norm(whole)
    product = np.sum(part * whole) / np.linalg.norm(part)
    print(f"{window:6}  {length:6.2f}  {product / np.linalg.norm(whole):9.2f}")
# --8<-- [end:truncated]


# --8<-- [start:explode]
def descend(activation, clip):
    keras.utils.set_random_seed(0)
    layer = Recurrent(32, activation, recurrent_initializer="identity")
    model = keras.Sequential([layer, keras.layers.Dense(9)])
    model.build((None, 47, 12))
    variables = model.trainable_variables
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=clip)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses, norms = [], []

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, tf.linalg.global_norm(gradients)

    optimizer.build(variables)
    for number in range(20):
        batch = slice(50 * number, 50 * number + 50)
        loss, norm = step(new[batch], truth[batch])
        losses.append(float(loss))
        norms.append(float(norm))
    return losses, norms


print("      gradient,    loss   after 20 steps   clipped at 1")
for activation in ("tanh", "relu"):
    losses, norms = descend(activation, None)
    first = f"{norms[0]:8.0e}, {losses[0]:7.0e}"
    clipped, _ = descend(activation, 1.0)
    ends = f"{losses[-1]:12.0e}   {clipped[-1]:12.0e}"
    print(f"{activation}  {first}   {ends}")
# --8<-- [end:explode]

# --8<-- [start:solution-delay]
layer = Recurrent(3, activation="linear", return_sequences=True)
layer.build((None, None, 1))
shift = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])  # (1)!
layer.set_weights([np.array([[1, 0, 0]]), shift, np.zeros(3)])
x = np.arange(1, 7, dtype="float32").reshape(1, 6, 1)
states = np.array(layer(x))
print(states[0].astype(int))
assert np.array_equal(states[0, 2:, 2], x[0, :-2, 0])
assert not np.linalg.eigvals(shift).any()  # (2)!
# --8<-- [end:solution-delay]

# --8<-- [start:solution-backwards]
layer = Recurrent(8)
x, real = unheard[:6, :29], heard[:6, :29]
turned = layer(x[:, ::-1], step_mask=real[:, ::-1])  # (1)!
for sample in range(6):
    alone = x[sample : sample + 1, real[sample]][:, ::-1]
    assert np.allclose(layer(alone)[0], turned[sample], atol=1e-6)
wrong = layer(x[:, ::-1], step_mask=real)  # (2)!
off = np.abs(np.array(wrong) - np.array(turned)).max(axis=-1)
print("wrong:", (off > 1e-3).sum(), "of 6")
both = ops.concatenate([layer(x, step_mask=real), turned], axis=-1)
assert both.shape == (6, 16)
# --8<-- [end:solution-backwards]
