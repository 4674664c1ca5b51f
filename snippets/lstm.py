# --8<-- [start:by-hand]
import importlib

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets
from aimodels.lstm import GRU, LSTM, gru_step, lstm_step
from aimodels.rnn import Recurrent
from aimodels.training import batches, make_step, train


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(x, h, c, weights):
    W, R, b = weights
    i = sigmoid(x @ W["i"] + h @ R["i"] + b["i"])
    f = sigmoid(x @ W["f"] + h @ R["f"] + b["f"])
    g = np.tanh(x @ W["g"] + h @ R["g"] + b["g"])
    o = sigmoid(x @ W["o"] + h @ R["o"] + b["o"])
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, c


heard, unheard = datasets.japanese_vowels()
real = heard.x[heard.mask]
mean, scale = real.mean(0), real.std(0)
voice = (real[:20] - mean) / scale  # (1)!

keras.utils.set_random_seed(0)
layer = keras.layers.LSTM(8)
layer.build((None, None, 12))
W, R, b = (
    dict(zip("ifgo", np.split(w, 4, axis=-1), strict=True))
    for w in layer.get_weights()  # (2)!
)
h, c = np.zeros(8), np.zeros(8)
for x in voice:
    h, c = by_hand(x, h, c, (W, R, b))
print("by hand", h[:4].round(3))
print("Keras  ", np.array(layer(voice[None]))[0, :4].round(3))
# --8<-- [end:by-hand]


# --8<-- [start:gru]
def gru_by_hand(x, h, weights):
    W, R, b, d = weights
    z = sigmoid(x @ W["z"] + b["z"] + h @ R["z"] + d["z"])
    r = sigmoid(x @ W["r"] + b["r"] + h @ R["r"] + d["r"])
    n = np.tanh(x @ W["n"] + b["n"] + r * (h @ R["n"] + d["n"]))
    return z * h + (1 - z) * n


layer = keras.layers.GRU(8)
layer.build((None, None, 12))
kernel, recurrent, both = layer.get_weights()
W, R, b, d = (
    dict(zip("zrn", np.split(w, 3, axis=-1), strict=True))
    for w in (kernel, recurrent, *both)
)
paper = keras.layers.GRU(8, reset_after=False)
paper.build((None, None, 12))
paper.set_weights([kernel, recurrent, both[0]])
h, other = np.zeros(8), np.zeros((1, 8), "float32")
for x in voice.astype("float32"):
    h = gru_by_hand(x, h, (W, R, b, d))
    weights = kernel, recurrent, both[0]
    other = gru_step(x[None], other, weights, reset_after=False)  # (1)!
print("by hand   ", h[:4].round(3))
print("Keras     ", np.array(layer(voice[None]))[0, :4].round(3))
print("paper     ", np.array(other)[0, :4].round(3))
print("Keras     ", np.array(paper(voice[None]))[0, :4].round(3))
# --8<-- [end:gru]


# --8<-- [start:memory]
def speech(part, samples, steps, rng):
    voices = [
        (x[real] - mean) / scale
        for x, real in zip(part.x, part.mask, strict=True)
    ]
    x = np.zeros((samples, steps, 12), "float32")
    starts = rng.integers(len(voices), size=samples)
    for row, start in zip(x, starts, strict=True):
        more = rng.integers(len(voices), size=steps // 7)
        pieces = [voices[start][:7], *(voices[i] for i in more)]
        row[:] = np.concatenate(pieces)[:steps]
    return x, part.y[starts]


kinds = {
    "plain": lambda **given: Recurrent(37, **given),
    "LSTM, b = 1": lambda **given: LSTM(16, **given),
    "LSTM, b = 4": lambda **given: LSTM(16, forget_bias=4.0, **given),
    "GRU": lambda **given: GRU(19, **given),
}  # (1)!


def network(classes, kinds):
    x, mask = keras.Input((None, 12)), keras.Input((None,), dtype="bool")
    logits = [
        keras.layers.Dense(classes, name=f"answer{place}")(
            make(name=f"read{place}")(x, mask)
        )
        for place, make in enumerate(kinds)
    ]
    return keras.Model([x, mask], ops.stack(logits, axis=1))


def loss(y, logits):
    y = ops.broadcast_to(y[:, None], ops.shape(logits)[:2])
    return ops.mean(
        keras.losses.sparse_categorical_crossentropy(
            y, logits, from_logits=True
        )
    )


def contest(kinds, data, classes, steps, seeds=3):
    *x, y = data
    model = network(classes, kinds)
    optimizer = keras.optimizers.Adam(0.01, clipnorm=1.0)
    step = make_step(model, optimizer, loss, jit_compile=True)
    blank = [v.value.numpy() for v in optimizer.variables]
    results = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        start = network(classes, kinds).get_weights()
        model.set_weights(start)
        for variable, value in zip(optimizer.variables, blank, strict=True):
            variable.assign(value)  # (2)!
        losses = train(step, batches((tuple(x), y), 54, seed), steps)
        results.append((start, model.get_weights(), losses))
    return model, results


def right(model, results, x, mask, y):
    found = []
    for _, weights, _ in results:
        model.set_weights(weights)
        logits = model.predict([x, mask], batch_size=500, verbose=0)
        found.append((logits.argmax(-1) == y[:, None]).mean(0))
    return np.array(found)


def report(model, names, found):
    for place, name in enumerate(names):
        size = model.get_layer(f"read{place}").count_params()
        low, high = found[:, place].min(), found[:, place].max()
        middle = found[:, place].mean()
        print(f"{name:12} {size} parameters, ", end="")
        print(f"right {middle:.2f} ({low:.2f} to {high:.2f})")


rng = np.random.default_rng(0)
first, y = speech(heard, 2700, 47, rng)
new, truth = speech(unheard, 1000, 47, rng)
all_real = np.ones(first.shape[:2], bool)
memory, trained = contest(
    kinds.values(), (first, all_real, y), classes=9, steps=300
)
found = right(memory, trained, new, all_real[:1000], truth)
report(memory, kinds, found)
# --8<-- [end:memory]

# --8<-- [start:reach]
rng = np.random.default_rng(0)
long = new[:64]
directions = rng.normal(size=(64, 9)).astype("float32")


@tf.function(jit_compile=True)
def gradients():
    x, found = tf.constant(long), []
    for place in range(len(kinds)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = memory([x, tf.constant(all_real[:64])])
            read = tf.reduce_sum(logits[:, place] * directions)
        found.append(tf.norm(tape.gradient(read, x), axis=-1))
    return tf.stack(found)


size = {}
for moment, when in enumerate(["at the start", "after training"]):
    for seed, result in enumerate(trained):
        memory.set_weights(result[moment])
        middle = np.median(gradients(), axis=1)[:, ::-1]
        size[when, seed] = middle / middle[:, :1]  # (1)!

figure, axes = plt.subplots(1, 2, sharey=True)
print("gradient 40 steps away, over that of the last step")
for axis, when in zip(axes, ["at the start", "after training"], strict=True):
    curves = np.array([size[when, seed] for seed in range(3)])
    print(when)
    for place, name in enumerate(kinds):
        three = curves[:, place]
        low, high = three[:, 40].min(), three[:, 40].max()
        print(f"  {name:12} {low:.0e} to {high:.0e}")
        axis.semilogy(np.median(three, axis=0), label=name)
    axis.set(title=when, xlabel="distance in steps", ylim=(1e-10, 10))
axes[0].set_ylabel("size of the gradient")
axes[1].legend()
# --8<-- [end:reach]


# --8<-- [start:two]
def splice(part, rng):
    x = np.where(part.mask[..., None], (part.x - mean) / scale, 0)
    joined, mask = np.zeros_like(x, "float32"), np.zeros_like(part.mask)
    two = rng.integers(0, 2, len(x))
    for i in range(len(x)):
        other = (part.y != part.y[i]) if two[i] else (part.y == part.y[i])
        other[i] = False
        j = rng.choice(np.flatnonzero(other))
        one, more = x[i, part.mask[i]], x[j, part.mask[j]]
        halves = one[: len(one) // 2], more[len(more) // 2 :]
        steps = np.concatenate(halves)
        joined[i, : len(steps)], mask[i, : len(steps)] = steps, True
    return joined, mask, two


rng = np.random.default_rng(0)
parts = [splice(heard, rng) for _ in range(4)]
data = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
parts = [splice(unheard, rng) for _ in range(2)]
tests = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
three = {name: kinds[name] for name in ("plain", "LSTM, b = 1", "GRU")}
judge, judged = contest(three.values(), data, classes=2, steps=300)
found = right(judge, judged, *tests)
report(judge, three, found)
# --8<-- [end:two]


# --8<-- [start:peer]
def agreement(ours, theirs, trial):
    rng = np.random.default_rng(trial)
    samples, steps, width, units = rng.integers(1, 9, 4).tolist()
    x = tf.constant(rng.normal(size=(samples, steps, width)), tf.float32)
    mask = rng.random((samples, steps)) < 0.7
    mask[:, 0] = True  # (1)!
    ours, theirs = ours(units, True), theirs(units, return_sequences=True)
    ours.build(x.shape)
    theirs.build(x.shape)
    ours.set_weights([rng.normal(size=w.shape) / 2 for w in ours.weights])
    theirs.set_weights(ours.get_weights())
    results = []
    for layer, given in [(ours, "step_mask"), (theirs, "mask")]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            hidden = layer(x, **{given: mask})
            cubes = ops.sum(hidden**3)
        watched = [x, *layer.trainable_variables]
        results.append([hidden, *tape.gradient(cubes, watched)])
    return max(
        np.abs(np.array(a) - np.array(b)).max() / (1e-9 + np.abs(b).max())
        for a, b in zip(*results, strict=True)
    )


figure, axis = plt.subplots()
for ours, theirs in [
    (LSTM, keras.layers.LSTM),
    (GRU, keras.layers.GRU),
]:
    found = [agreement(ours, theirs, trial) for trial in range(8)]
    print(ours.__name__, "below 1e-5:", max(found) < 1e-5)
    axis.semilogy(found, "o", label=ours.__name__)
axis.axhline(1e-5, color="C4", label="limit in the tests")
axis.set(xlabel="trial", ylabel="relative difference", ylim=(3e-9, 3e-5))
axis.legend(loc="lower left")
# --8<-- [end:peer]

# --8<-- [start:forget]
for bias in (0, 1, 4):
    kept = sigmoid(bias) ** 40
    print(f"b = {bias}: {sigmoid(bias):.2f} a step, {kept:.0e} in 40")
# --8<-- [end:forget]


# --8<-- [start:relu]
def relu(**given):
    return LSTM(16, activation="relu", forget_bias=4.0, **given)


model, exploded = contest([relu], (first, all_real, y), 9, steps=150)
runs = {
    "tanh": max(4 * losses.max() for _, _, losses in trained),  # (1)!
    "relu": min(losses.max() for _, _, losses in exploded),
}
print("tanh: every loss below 10 in all three runs:", runs["tanh"] < 10)
print("relu: some loss above 10 in all three runs:", runs["relu"] > 10)

model.set_weights(exploded[0][0])
weights = model.get_layer("read0").get_weights()
endless, _ = speech(unheard, 64, 400, np.random.default_rng(0))
for activation in (ops.tanh, ops.relu):
    h = c = np.zeros((64, 16), "float32")
    sizes = []
    for t in range(400):
        h, c = lstm_step(endless[:, t], (h, c), weights, activation)
        sizes.append(float(np.abs(c).max()))
    shown = " ".join(f"{sizes[t]:.0f}" for t in (9, 99, 399))
    name = activation.__name__
    print(f"{name}: largest |c| after 10, 100, 400 steps: {shown}")
# --8<-- [end:relu]

# --8<-- [start:kernel]
library = importlib.import_module("keras.src.backend.tensorflow.rnn")
for name in ("tanh", "relu"):
    layer = keras.layers.LSTM(16, activation=name)
    fits = library._do_lstm_arguments_support_cudnn(
        layer.activation,
        layer.recurrent_activation,
        layer.unroll,
        layer.use_bias,
    )
    print(f"{name}: may use the fused kernel: {fits}")
# --8<-- [end:kernel]

# --8<-- [start:order]
weights = judged[0][1]
judge.set_weights(weights)
places = {"LSTM": (1, "ifgo", "iofg"), "GRU": (2, "zrn", "rzn")}  # (1)!
for name, (place, here, there) in places.items():
    layer = judge.get_layer(f"read{place}")
    kept = layer.get_weights()
    order = [here.index(gate) for gate in there]
    mixed = []
    for w in kept:
        gates = np.split(w, len(here), axis=-1)
        mixed.append(np.concatenate([gates[i] for i in order], axis=-1))
    for text, used in [("its order", kept), ("another", mixed)]:
        layer.set_weights(used)
        logits = judge.predict(tests[:2], batch_size=500, verbose=0)
        share = (logits[:, place].argmax(-1) == tests[2]).mean()
        print(f"{name}, {text}: right {share:.2f}")
    layer.set_weights(kept)
# --8<-- [end:order]

# --8<-- [start:last]
x, mask, two = tests
layer, answer = judge.get_layer("read1"), judge.get_layer("answer1")


def share(h):
    return (np.array(answer(h)).argmax(-1) == two).mean()


h, state = layer(x, mask, return_state=True)
carried = [np.roll(part, 1, axis=0) for part in state]  # (1)!
print(f"last real step: right {share(h):.2f}")
print(f"last step:      right {share(layer(x)):.2f}")
after = layer(x, mask, initial_state=carried)
print(f"state of another utterance: right {share(after):.2f}")
# --8<-- [end:last]

# --8<-- [start:solution-keep]
layer = LSTM(3, forget_bias=40.0)
layer.build((None, None, 12))
kernel, recurrent, bias = layer.get_weights()
bias[:3] = -40  # (1)!
layer.set_weights([0 * kernel, 0 * recurrent, bias])
cell = tf.constant([[0.5, -1.0, 2.0]])
with tf.GradientTape() as tape:
    tape.watch(cell)
    _, (_, last) = layer(
        endless[:1], initial_state=[tf.zeros((1, 3)), cell], return_state=True
    )
    total = ops.sum(last)
print("after 400 steps:", np.array(last)[0])
print("gradient:", np.array(tape.gradient(total, cell))[0])
assert np.array_equal(last, cell)
# --8<-- [end:solution-keep]

# --8<-- [start:solution-update]
layer = GRU(8)
layer.build((None, None, 12))
kernel, recurrent, both = layer.get_weights()
W, R, b, d = (
    dict(zip("zrn", np.split(w, 3, axis=-1), strict=True))
    for w in (kernel, recurrent, *both)
)
for part in (W, R, b, d):
    part["z"] = -part["z"]  # (1)!


def other_way(x, h):
    z = sigmoid(x @ W["z"] + b["z"] + h @ R["z"] + d["z"])
    r = sigmoid(x @ W["r"] + b["r"] + h @ R["r"] + d["r"])
    n = np.tanh(x @ W["n"] + b["n"] + r * (h @ R["n"] + d["n"]))
    return (1 - z) * h + z * n


h = np.zeros(8)
for step in voice:
    h = other_way(step, h)
expected = np.array(layer(voice[None].astype("float32")))[0]
print("the same:", np.allclose(h, expected, atol=1e-6))
assert np.allclose(h, expected, atol=1e-6)
# --8<-- [end:solution-update]
