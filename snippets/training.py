# --8<-- [start:by-hand]
import keras
import tensorflow as tf

model = keras.Sequential(
    [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
)
model.layers[0].kernel.assign([[1.0]])  # (1)!
optimizer = keras.optimizers.SGD(0.1)
x, y = tf.constant([[2.0]]), tf.constant([[1.0]])

for number in (1, 2):
    with tf.GradientTape() as tape:
        prediction = model(x, training=True)  # (2)!
        loss = keras.ops.mean((prediction - y) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)  # (3)!
    gradient, weight = gradients[0].numpy()[0, 0], model.get_weights()[0][0, 0]
    print(f"step {number}: loss {loss:.2f}, gradient {gradient:.1f}", end="")
    print(f", new weight {weight:.2f}")
# --8<-- [end:by-hand]

# --8<-- [start:batches]
from itertools import islice

import numpy as np

from aimodels.training import batches

rows = np.arange(10)
names = np.array(list("abcdefghij"))
for number, (x, y) in enumerate(islice(batches((rows, names), 4, 7), 4), 1):
    print(number, x, "".join(y))
later = next(batches((rows, names), 4, seed=7, start=3))  # (1)!
print("start=3:", later[0], "".join(later[1]))
# --8<-- [end:batches]

# --8<-- [start:make]
from aimodels.training import make_step, train

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(init=0, dropout=0, rate=0.3, optimizer=None, jit_compile=False):
    keras.utils.set_random_seed(init)  # (1)!
    layers = [keras.Input((784,)), keras.layers.Dense(64, "relu")]
    if rate:
        layers += [keras.layers.Dropout(rate, seed=dropout)]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    optimizer = optimizer or keras.optimizers.Adam(0.002)
    step = make_step(model, optimizer, cross_entropy, jit_compile)
    return model, optimizer, step


model, optimizer, step = make()
print("state of the model:    ", len(model.variables), "variables")
print("state of the optimizer:", len(optimizer.variables), "variables")
# --8<-- [end:make]

# --8<-- [start:data]
from aimodels.datasets import fashion_mnist

train_images, test_images = fashion_mnist()
pixels = train_images.x.reshape(-1, 784).astype("float32") / 255
data = pixels[:4000], train_images.y[:4000]
valid_x, valid_y = pixels[-2000:], train_images.y[-2000:]
test_x = test_images.x.reshape(-1, 784).astype("float32") / 255
print(data[0].shape, valid_x.shape, test_x.shape)
print("steps in an epoch:", 4000 // 64, "and", 4000 % 64, "samples left over")
# --8<-- [end:data]

# --8<-- [start:loop]
import io
import re
from contextlib import redirect_stdout


def evaluate(model, x=valid_x, y=valid_y):
    logits = model(x, training=False)  # (1)!
    right = np.argmax(logits, axis=1) == y
    return float(cross_entropy(y, logits)), right.mean()


steps, seen = 620, []
bar = keras.utils.Progbar(steps, stateful_metrics=["loss"])


def after(number, loss):
    bar.update(number, [("loss", loss)])
    if number % 62 == 0:  # (2)!
        seen.append(evaluate(model))


screen = io.StringIO()
with redirect_stdout(screen):  # (3)!
    losses = train(step, batches(data, 64, seed=0), steps, after=after)

last = screen.getvalue().splitlines()[-1]
plain = re.sub(r"\x1b\[\d+m", "", last)
print(re.sub(r" [\d.]+[mu]?s(/step)?", "", plain).strip())
for epoch in (1, 2, 5, 10):
    loss, right = seen[epoch - 1]
    mean = losses[62 * epoch - 62 : 62 * epoch].mean()
    print(f"epoch {epoch:2}: training {mean:.2f},", end=" ")
    print(f"validation {loss:.2f}, right {right:.2f}")
trained = model
print(f"test, once: right {evaluate(model, test_x, test_images.y)[1]:.2f}")
# --8<-- [end:loop]

# --8<-- [start:curve]
import matplotlib.pyplot as plt

figure, axis = plt.subplots()
epochs = np.arange(62, steps + 1, 62)
axis.plot(losses, color="C7", lw=0.7, label="training, each batch")
axis.plot(epochs, [loss for loss, _ in seen], "o-", label="validation")
axis.set(xlabel="step", ylabel="loss", ylim=(0, 1.5))
axis.legend()
# --8<-- [end:curve]


# --8<-- [start:seeds]
def run(init=0, order=0, dropout=0, steps=186):
    model, _, step = make(init, dropout)
    losses = train(step, batches(data, 64, seed=order), steps)
    return losses, evaluate(model)[1]


base_run = run()
base, again = base_run[0], run()[0]
print("same seeds     ", (again == base).sum(), "of 186 equal")
for name in ("init", "order", "dropout"):
    runs = [base_run, *(run(**{name: seed}) for seed in range(1, 5))]  # (1)!
    equal = (runs[1][0] == base).sum()
    rights = np.array([right for _, right in runs])
    print(f"another {name:7} {equal:3} of 186 equal; right", end=" ")
    print(f"{rights.mean():.3f} ± {rights.std(ddof=1):.3f}")
# --8<-- [end:seeds]

# --8<-- [start:graph]
from time import perf_counter


def timed(step, steps=60):
    source = batches(data, 64, seed=0)
    start = perf_counter()
    first = train(step, source, 1)
    middle = perf_counter()
    rest = train(step, source, steps - 1, start=1)
    times = middle - start, perf_counter() - middle
    return np.append(first, rest), *times


def equal(first, second):
    return np.allclose(first[0], second[0], rtol=0, atol=1e-6)


graph = timed(make()[2])
tf.config.run_functions_eagerly(True)  # (1)!
eager = timed(make()[2])
tf.config.run_functions_eagerly(False)
jit = timed(make(jit_compile=True)[2])
calm = [timed(make(rate=0, jit_compile=xla)[2]) for xla in (False, True)]
print("same losses, eager and graph:          ", equal(eager, graph))
print("same losses, graph and jit:            ", equal(graph, jit))
print("same losses, graph and jit, no dropout:", equal(*calm))
print("a graph step in under half the time:   ", 2 * graph[2] < eager[2])
print("first jit step longer than 59 more:    ", jit[1] > jit[2])
print("60 steps in less time with jit:        ", sum(jit[1:]) < sum(graph[1:]))
# --8<-- [end:graph]

# --8<-- [start:resume]
import tempfile
from pathlib import Path

from aimodels.training import Checkpoint

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "run.npz"

model, optimizer, step = make()
first = train(step, batches(data, 64, seed=0), 100)
Checkpoint(path, model, optimizer).save(100, first)

model, optimizer, step = make(init=1, dropout=1)  # (1)!
number, before = Checkpoint(path, model, optimizer).restore()
rest = batches(data, 64, seed=0, start=number)  # (2)!
resumed = train(step, rest, 186 - number, start=number)
print(number, "steps restored, in epoch", number // 62 + 1)
whole = np.append(before, resumed)
print("losses equal to the unbroken run:", (whole == base).sum(), "of 186")
# --8<-- [end:resume]


# --8<-- [start:forgotten]
def forget(what):
    model, optimizer, step = make(dropout=1 if what == "dropout" else 0)
    fresh = [v.numpy() for v in optimizer.variables]
    seed = model.layers[1].seed_generator.state  # (1)!
    drawn = seed.numpy()
    Checkpoint(path, model, optimizer).restore()
    if what == "optimizer":
        for variable, value in zip(optimizer.variables, fresh, strict=True):
            variable.assign(value)
    if what == "dropout":
        seed.assign(drawn)
    start = 0 if what == "order" else 100
    return train(step, batches(data, 64, seed=0, start=start), 86)


away = {}
for what in ("nothing", "optimizer", "order", "dropout"):
    away[what] = np.abs(forget(what) - base[100:])
    print(f"forgotten: {what:9}  first loss off by {away[what][0]:.3f}", end="")
    print(f", mean {away[what].mean():.3f}")
# --8<-- [end:forgotten]

# --8<-- [start:drift]
figure, axis = plt.subplots()
names = {
    "optimizer": "without the optimizer",
    "order": "data from the start",
    "dropout": "other dropout",
}
for what, name in names.items():
    mean = np.convolve(away[what], np.ones(9) / 9, mode="valid")
    axis.plot(np.arange(105, 183), mean, label=name)
axis.axhline(0, color="C7", label="all restored")
axis.set(xlabel="step", ylabel="distance in loss", ylim=(-0.01, 0.3))
axis.legend(ncols=2)
# --8<-- [end:drift]

# --8<-- [start:damaged]
raw = bytearray(path.read_bytes())
raw[len(raw) // 2] ^= 1  # (1)!
path.write_bytes(raw)
try:
    Checkpoint(path, model, optimizer).restore()
except ValueError as error:
    print(str(error).replace(folder.name, "…"))
folder.cleanup()
# --8<-- [end:damaged]

# --8<-- [start:fit]
optimizers = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.002),
}
for name, build in optimizers.items():
    _, _, step = make(optimizer=build())
    ours = train(step, batches(data, 64, seed=0), 62)
    model, optimizer, _ = make(optimizer=build())
    model.compile(optimizer, cross_entropy)
    history = model.fit(  # (1)!
        batches(data, 64, seed=0),
        steps_per_epoch=1,
        epochs=62,
        shuffle=False,
        verbose=0,
    )
    theirs = np.array(history.history["loss"])
    equal, gap = (ours == theirs).sum(), np.abs(ours - theirs).max()
    print(f"{name:9} {equal} of 62 losses equal, largest gap {gap:.0e}")
# --8<-- [end:fit]

# --8<-- [start:target]
model, optimizer, _ = make()
model.compile(optimizer, cross_entropy)
try:
    model.fit(data[0], verbose=0)
except ValueError as error:
    print("ValueError:", error)
# --8<-- [end:target]


# --8<-- [start:twice]
def fit(model, steps, start):
    pairs = batches(data, 64, seed=0, start=start)
    model.fit(pairs, steps_per_epoch=steps, shuffle=False, verbose=0)


answers = []
for parts in ([(93, 0), (93, 93)], [(186, 0)]):
    model, optimizer, _ = make()
    model.compile(optimizer, cross_entropy)
    for steps, start in parts:
        fit(model, steps, start)
    answers.append(model.predict(valid_x, verbose=0))
print("largest difference:", np.abs(answers[0] - answers[1]).max())
# --8<-- [end:twice]

# --8<-- [start:mode]
random_state = trained.layers[1].seed_generator.state
for training in (False, True):
    before, rights = random_state.numpy(), []
    for _ in range(4):
        answers = np.argmax(trained(valid_x, training=training), axis=1)
        rights.append(np.mean(answers == valid_y))
    kept = np.array_equal(before, random_state.numpy())
    shares = " ".join(f"{right:.3f}" for right in rights)
    print(f"training={training!s:5}: right {shares}, state kept {kept}")
# --8<-- [end:mode]

# --8<-- [start:missing]
broken = data[0].copy()
broken[3, 300] = np.nan  # (1)!
plain = [(broken[i : i + 64], data[1][i : i + 64]) for i in range(0, 1280, 64)]
model, _, step = make()
values = train(step, plain, 20)
print("losses:", *(f"{value:.1f}" for value in values[[0, 1, 9, 19]]))
print("weights of that pixel:", model.get_weights()[0][300, :3])
print("logits, eager:", model(valid_x[:1]).numpy()[0, :3])
try:
    batches((broken, data[1]), 64, seed=0)
except ValueError as error:
    print("ValueError:", error)
# --8<-- [end:missing]

# --8<-- [start:sums]
total = keras.losses.SparseCategoricalCrossentropy(True, reduction="sum")
for name in ("SGD", "Adam"):
    for words, loss in (("mean", cross_entropy), ("sum", total)):
        model, optimizer, _ = make(rate=0, optimizer=optimizers[name]())
        train(make_step(model, optimizer, loss), batches(data, 64, 0), 186)
        value, right = evaluate(model)
        print(f"{name:4} {words:4}: validation {value:4.2f}, right {right:.2f}")
# --8<-- [end:sums]


# --8<-- [start:late]
def late(seed):
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    keras.utils.set_random_seed(seed)  # (1)!
    return model.get_weights()[0]


def early(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    return model.get_weights()[0]


print("seed after building: equal", np.array_equal(late(3), late(3)))
print("seed before building: equal", np.array_equal(early(3), early(3)))
# --8<-- [end:late]


# --8<-- [start:retrace]
def shrink(weights, rate):
    return weights * (1 - rate)


weights = tf.ones(3)
numbers = tf.function(shrink, autograph=False)
tensors = tf.function(shrink, autograph=False)
for t in range(20):
    numbers(weights, 0.1 / (t + 1))
    tensors(weights, tf.constant(0.1 / (t + 1)))  # (1)!
shapes = tf.function(shrink, autograph=False)
for size in range(1, 21):
    shapes(tf.ones(size), tf.constant(0.1))
print("Python numbers:", numbers.experimental_get_tracing_count(), "graphs")
print("new shapes:    ", shapes.experimental_get_tracing_count(), "graphs")
print("tensors:       ", tensors.experimental_get_tracing_count(), "graph")
# --8<-- [end:retrace]

# --8<-- [start:solution-accumulate]
model, optimizer, _ = make(rate=0)
x, y = next(batches(data, 64, seed=0))


def gradients(x, y):
    with tf.GradientTape() as tape:
        loss = cross_entropy(y, model(x, training=True))
    return tape.gradient(loss, model.trainable_variables)


whole = gradients(x, y)
parts = [gradients(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
for one, *several in zip(whole, *parts, strict=True):
    np.testing.assert_allclose(one, sum(several) / 4, atol=1e-6)

uneven = [gradients(x[:48], y[:48]), gradients(x[48:], y[48:])]  # (1)!
wrong = (uneven[0][0] + uneven[1][0]) / 2
assert np.abs(wrong - whole[0]).max() > 1e-3
right = (48 * uneven[0][0] + 16 * uneven[1][0]) / 64
np.testing.assert_allclose(right, whole[0], atol=1e-6)
# --8<-- [end:solution-accumulate]

# --8<-- [start:solution-best]
few = data[0][:500], data[1][:500]
with tempfile.TemporaryDirectory() as folder:
    model, optimizer, step = make(rate=0)
    best = Checkpoint(Path(folder) / "best.npz", model, optimizer)
    values, so_far = [], []

    def keep_best(number, loss):
        so_far.append(loss)
        if number % 25 == 0:
            values.append(evaluate(model)[0])
            if values[-1] == min(values):
                best.save(number, so_far)

    train(step, batches(few, 50, seed=0), 400, after=keep_best)
    number, _ = best.restore()
print(f"last: validation {values[-1]:.2f} at step 400")
print(f"best: validation {min(values):.2f} at step {number}")
assert evaluate(model)[0] == min(values) < values[-1]
# --8<-- [end:solution-best]
