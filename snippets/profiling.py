# --8<-- [start:guard]
import tensorflow as tf

x = tf.constant([[0.0, 0.0], [3.0, 4.0]])


def unit(x):
    length = tf.sqrt(tf.reduce_sum(x**2, -1, keepdims=True))
    return tf.where(length > 0, x / length, 0.0)


def safe_unit(x):
    square = tf.reduce_sum(x**2, -1, keepdims=True)
    length = tf.sqrt(tf.where(square > 0, square, 1.0))  # (1)!
    return tf.where(square > 0, x / length, 0.0)


for function in (unit, safe_unit):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        total = tf.reduce_sum(y)
    slope = tape.gradient(total, x)
    print(f"{function.__name__}, values and gradients by row:")
    for row, gradient in zip(y.numpy(), slope.numpy(), strict=True):
        print("  ", row.round(2), gradient.round(3) + 0.0)
# --8<-- [end:guard]

# --8<-- [start:count]
from aimodels.inference import work
from aimodels.profiling import Work, convolution, pointwise, product

gpt3 = {"vocabulary": 50257, "width": 12288, "depth": 96, "hidden": 49152}
numbers = 2**26
counted = {
    "product, 64": product(64, 64, 64),
    "product, 2,048": product(2048, 2048, 2048),
    "1 row × weights": product(1, 8192, 16384),
    "64 rows × weights": product(64, 8192, 16384),
    "3 × 3 convolution": convolution(
        (32, 56, 56, 64), (3, 3, 64, 64), (32, 56, 56, 64)
    ),
    "layer norm": pointwise(numbers, 7),  # (1)!
    "softmax": pointwise(numbers, 5),
    "lookup": pointwise(numbers, 0),
    "GPT-3, one token": Work(*work(gpt3, 1, 1, 2048, each=2)),
}
print("                   10⁹ oper.      MB   per byte")
for name, done in counted.items():
    print(
        f"{name:18} {done.operations / 1e9:9.4f} {done.bytes / 1e6:9.1f}",
        end="",
    )
    print(f" {done.intensity:9.2f}")
# --8<-- [end:count]

# --8<-- [start:shapes]
import numpy as np

from aimodels.profiling import check_shapes

scores = np.zeros((64, 10))
print(check_shapes(scores=(scores, "B K"), labels=(np.zeros(64), "B")))
try:
    check_shapes(scores=(scores, "B K"), labels=(np.zeros(32), "B"))
except ValueError as error:
    print(error)
# --8<-- [end:shapes]

# --8<-- [start:reach]
import keras
from keras import ops

from aimodels.gpt import GPT
from aimodels.profiling import dependence

keras.utils.set_random_seed(0)
layers = keras.layers
forth = layers.GRU(8, return_sequences=True)
both = layers.Bidirectional(layers.GRU(8, return_sequences=True))
small = GPT(50, 6, 16, 2, 1)
embed = layers.Embedding(50, 16)
ids = np.arange(12).reshape(2, 6)  # (1)!
other = ids + 20

for name, model in {
    "GPT": small,
    "GRU": lambda i: forth(embed(i)),
    "GRU both ways": lambda i: both(embed(i)),
}.items():
    steps = dependence(model, ids, other, axis=1)
    rows = dependence(model, ids, other)
    causal = not np.triu(steps, 1).any()
    print(f"{name:14} rows apart: {np.array_equal(rows, np.eye(2))}", end="")
    print(f", reads the past only: {causal}")
# --8<-- [end:reach]

# --8<-- [start:data]
from aimodels.datasets import fashion_mnist

train_set, test_set = fashion_mnist()
clothes = (train_set.x[:4000, ..., None] / 255).astype("float32")
labels = train_set.y[:4000].astype("int32")
new_clothes = (test_set.x[:1000, ..., None] / 255).astype("float32")
new_labels = test_set.y[:1000]
covered = clothes.copy()
covered[1234] = 0  # (1)!
print(len(covered), "pictures,", len(labels), "labels")
# --8<-- [end:data]

# --8<-- [start:network]
from aimodels.training import Checkpoint, batches, make_step, train

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Function(layers.Layer):
    """A layer without weights that applies a function."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def network(function):
    keras.utils.set_random_seed(0)
    plain = {"strides": 2, "activation": "relu", "use_bias": False}
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, name="edges", **plain),
            layers.Conv2D(16, 5, name="parts", **plain),
            layers.Flatten(name="flat"),
            Function(function, name="unit"),
            layers.Dense(10, name="scores"),
        ],
        name="clothes",
    )
    optimizer = keras.optimizers.Adam(0.003)
    return model, optimizer, make_step(model, optimizer, cross_entropy)


# --8<-- [end:network]

# --8<-- [start:dies]
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
model, optimizer, step = network(unit)
checkpoint = Checkpoint(folder / "run.npz", model, optimizer)
writer = tf.summary.create_file_writer(str(folder))
losses = []


def finite():
    return all(np.isfinite(w).all() for w in model.get_weights())


def after(number, loss):
    losses.append(loss)
    with writer.as_default(number):  # (1)!
        tf.summary.scalar("loss", loss)
        tf.summary.scalar("finite", float(finite()))
        if number % 10 == 0 and finite():
            tf.summary.histogram("edges", model.layers[0].kernel)
    if number % 25 == 0 and finite():  # (2)!
        checkpoint.save(number, losses)


train(step, batches((covered, labels), 64, seed=0), 100, after=after)
writer.close()
before, late = np.mean(losses[29:39]), np.mean(losses[90:])
print(f"loss of steps 30 to 39: {before:.1f}, of the last ten: {late:.1f}")
# --8<-- [end:dies]

# --8<-- [start:events]
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from aimodels.profiling import scalars

read = scalars(folder)
numbers, values = read["loss"]
print("steps read back:", len(numbers), "as written:", end=" ")
print(np.array_equal(values, np.float32(losses), equal_nan=True))
theirs = EventAccumulator(str(folder), {"tensors": 0}).Reload()  # (1)!
same = [tf.make_ndarray(e.tensor_proto) for e in theirs.Tensors("loss")]
print("as TensorBoard reads:", np.array_equal(values, same, equal_nan=True))
numbers, values = read["finite"]
print("weights last finite after step", numbers[values == 1].max())
# --8<-- [end:events]

# --8<-- [start:replay]
done, _ = checkpoint.restore()
print("checkpoint after step", done)
for x, y in batches((covered, labels), 64, seed=0, start=done):
    loss = float(step(x, y))
    if not finite():
        break
    done += 1
print(f"step {done + 1}: loss finite {np.isfinite(loss)}, weights not")

start, _ = checkpoint.restore()  # (1)!
again = batches((covered, labels), 64, seed=0, start=start)
train(step, again, done - start, start=start)
x, y = next(again)
print("before it all finite:", finite())
# --8<-- [end:replay]

# --8<-- [start:found]
from aimodels.profiling import first_bad

found = first_bad(model, x, y, cross_entropy)
print(found)
alone = [
    first_bad(model, x[row : row + 1], y[row : row + 1], cross_entropy)
    for row in range(len(x))
]
(row,) = [n for n, bad in enumerate(alone) if bad]
sample = int(np.argmax([np.array_equal(x[row], image) for image in covered]))
print("row", row, "of the batch alone; sample", sample, end="")
print(", largest pixel", covered[sample].max())
# --8<-- [end:found]

# --8<-- [start:repaired]
model, optimizer, step = network(safe_unit)
source = batches((covered, labels), 64, seed=0)
repaired = train(step, source, 100)
print("weights finite:", finite(), end="")
print(f", loss of the last ten: {repaired[90:].mean():.1f}")
print("first bad:", first_bad(model, x, y, cross_entropy))
# --8<-- [end:repaired]

# --8<-- [start:losses]
import matplotlib.pyplot as plt

figure, axis = plt.subplots()
axis.plot(range(1, 101), losses, "C1", label="with the fault")
axis.plot(range(1, 101), repaired, "C0--", label="repaired")
axis.axhline(np.log(10), color="C2", ls=":", label="guessing")
axis.set(xlabel="step", ylabel="loss")
axis.legend()
# --8<-- [end:losses]

# --8<-- [start:causes]
rng = np.random.default_rng(0)


def by_hand(y, z):
    p = ops.softmax(z)
    return -ops.mean(ops.log(ops.take_along_axis(p, y[:, None], -1)))


def half(x):
    exp = ops.exp(ops.cast(x / 0.03, "float16"))  # (1)!
    return ops.cast(exp / ops.sum(exp, -1, keepdims=True), "float32")


images, digits = clothes[:64], labels[:64]
for name, function, loss, factor in (
    ("large scores", lambda x: x, by_hand, 1e4),
    ("softmax in float16", half, cross_entropy, 1.0),
    ("log of 0", ops.log, cross_entropy, 1.0),
    ("NaN among the weights", lambda x: x, cross_entropy, np.nan),
):
    model, *_ = network(function)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * factor)
    bad = first_bad(model, images, digits, loss)
    print(f"{name:22} {bad.phase:8} {bad.inside:8} {', '.join(bad.bad)}")
# --8<-- [end:causes]

# --8<-- [start:planted]
import itertools
import warnings

from aimodels.profiling import unused

warnings.filterwarnings("ignore", "Gradients do not exist")  # (1)!


def probabilities(z):
    exp = ops.exp(z - ops.max(z, -1, keepdims=True))
    return exp / ops.sum(exp, -1, keepdims=True)


def centred(x):
    return (x - ops.mean(x, 0)) / (ops.std(x, 0) + 0.1)


def build(middle=None, last=None):
    keras.utils.set_random_seed(0)
    parts = [
        keras.Input((28, 28, 1)),
        layers.Conv2D(8, 5, strides=2, activation="relu"),
        layers.Conv2D(16, 5, strides=2, activation="relu"),
        layers.Flatten(),
        *([Function(middle)] if middle else []),
        layers.Dense(64, "relu"),
        layers.Dense(10),
        *([Function(last)] if last else []),
    ]
    return keras.Sequential(parts)


mixed = labels[np.random.default_rng(1).permutation(len(labels))]
faults = {  # (2)!
    "none": (build, 1, labels),
    "pixels from 0 to 255": (build, 255, labels),
    "softmax twice": (lambda: build(last=probabilities), 1, labels),
    "gradient stopped": (lambda: build(ops.stop_gradient), 1, labels),
    "mean over the batch": (lambda: build(centred), 1, labels),
    "labels of other rows": (build, 1, mixed),
}
print("                      start  one batch  unused  rows apart  accuracy")
for name, (make, scale, y) in faults.items():
    x, model = clothes * scale, make()
    start = float(cross_entropy(y[:1000], model(x[:1000])))
    idle = len(unused(model, x[:256], y[:256], cross_entropy))
    apart = np.array_equal(dependence(model, x[:6], x[6:12]), np.eye(6))
    step = make_step(model, keras.optimizers.Adam(0.003), cross_entropy)
    fresh = model.get_weights()
    one = train(step, itertools.repeat((x[:64], y[:64])), 100)[-1]
    model.set_weights(fresh)  # (3)!
    train(step, batches((x, y), 64, seed=0), 124)
    answers = np.asarray(model(new_clothes * scale)).argmax(-1)
    right = (answers == new_labels).mean()
    print(f"{name:20} {start:6.1f} {one:10.1f} {idle:7} {apart!s:>11}", end="")
    print(f" {right:9.1f}")
# --8<-- [end:planted]

# --8<-- [start:characters]
from aimodels.datasets import handbook

text = "".join(section.zh for section in handbook())
alphabet, codes = np.unique(list(text), return_inverse=True)
V = len(alphabet)
windows = np.lib.stride_tricks.sliding_window_view(codes[:20000], 17)
read, follows = windows[:, :16].astype("int32"), windows[:, 16].astype("int32")


class OneHot(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight((V, 64), "random_normal", name="table")

    def call(self, ids):
        return ops.matmul(ops.one_hot(ids, V), self.table)


class LookUp(OneHot):
    def call(self, ids):
        return ops.take(self.table, ids, axis=0)


def language_model(embedding):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,), dtype="int32"),
            embedding(name="embed"),
            layers.Flatten(name="flat"),
            layers.Dense(128, "relu", name="hidden"),
            layers.Dense(V, name="scores"),
        ]
    )
    return make_step(model, keras.optimizers.SGD(0.5), cross_entropy)


print(len(text), "characters,", V, "different ones")
# --8<-- [end:characters]

# --8<-- [start:trace]
from aimodels.profiling import operations


def traced(step, batch, repeats=5):
    with tempfile.TemporaryDirectory() as folder:
        step(*batch).numpy()  # (1)!
        tf.profiler.experimental.start(folder)
        for _ in range(repeats):
            step(*batch).numpy()
        tf.profiler.experimental.stop()
        return operations(folder)


def share(trace, part):
    inside = sum(o.seconds for o in trace if part in o.name)
    return inside / sum(o.seconds for o in trace)


steps = {kind.__name__: language_model(kind) for kind in (OneHot, LookUp)}
batch = next(batches((read, follows), 256, seed=0))
traces = {name: traced(step, batch) for name, step in steps.items()}
longest = traces["OneHot"][0]
print("longest of OneHot:", longest.kind, "of embed:", "embed" in longest.name)
for name, trace in traces.items():
    third = share(trace, "/embed") > 1 / 3
    print(f"{name}: more than a third of the time in embed: {third}")
# --8<-- [end:trace]

# --8<-- [start:gain]
from aimodels.profiling import timings

taken = timings(
    {name: lambda s=step: s(*batch).numpy() for name, step in steps.items()}
)
faster = taken["OneHot"].median / taken["LookUp"].median
print("LookUp faster by more than half:", faster > 1.5)
losses = {
    kind.__name__: train(
        language_model(kind), batches((read, follows), 256, seed=0), 20
    )
    for kind in (OneHot, LookUp)
}
apart = np.abs(losses["OneHot"] - losses["LookUp"]).max()
print("losses of 20 steps the same to 1e-5:", apart < 1e-5)
rows = 256 * 16
print(
    f"operations of the product: {product(rows, V, 64).operations / 1e9:.2f}",
    end="",
)
print(f" · 10⁹, of which useful: 1 in {V}")
# --8<-- [end:gain]

# --8<-- [start:long-steps]
import os

if "HANDBOOK_LONG" in os.environ:
    from aimodels.gpt import next_token_loss

    for name, trace in traces.items():
        total = sum(o.seconds for o in trace) / 5
        print(
            f"{name}: median {1e3 * taken[name].median:.1f} ms, operations",
            end="",
        )
        print(
            f" {1e3 * total:.1f} ms, of which embed {share(trace, '/embed'):.2f}"
        )

    ids = np.random.default_rng(0).integers(0, 1000, (16, 128)).astype("int32")
    ways = {}
    for name, jit in (("graph", False), ("XLA", True)):
        keras.utils.set_random_seed(0)
        gpt = GPT(1000, 128, 128, 4, 4)
        adam = keras.optimizers.Adam(0.001)
        ways[name] = make_step(gpt, adam, next_token_loss, jit)
    calls = {n: lambda s=s: s(ids, ids).numpy() for n, s in ways.items()}
    for name, timing in timings(calls, 9).items():
        kinds = {}
        for o in traced(ways[name], (ids, ids)):
            kinds[o.kind] = kinds.get(o.kind, 0) + o.seconds
        total = sum(kinds.values())
        print(f"GPT by {name}: first {timing.first:.1f} s", end="")
        print(f", then {1e3 * timing.median:.0f} ms; of all operations", end="")
        most = sorted(kinds, key=kinds.get)[:-5:-1]
        print("".join(f"\n   {kinds[k] / total:.2f} {k}" for k in most))
# --8<-- [end:long-steps]

# --8<-- [start:roof]
from aimodels.profiling import measure_roof

roof = measure_roof()
print("ridge from 1 to 100 operations a byte:", 1 < roof.ridge < 100)
for name in ("product, 2,048", "1 row × weights", "layer norm"):
    done = counted[name]
    arithmetic = done.operations / roof.peak > done.bytes / roof.bandwidth
    print(f"{name:16} bound by {'arithmetic' if arithmetic else 'memory'}")
# --8<-- [end:roof]

# --8<-- [start:long-roof]
placed = {}
if "HANDBOOK_LONG" in os.environ:  # (1)!
    roof = measure_roof(rounds=15)
    print(f"peak {roof.peak / 1e9:.0f} · 10⁹ operations a second", end="")
    print(f", memory {roof.bandwidth / 1e9:.1f} GB a second", end="")
    print(f", ridge {roof.ridge:.1f}")

    def normal(*shape):
        return tf.random.stateless_normal(shape, (0, 0))

    weights, wide = normal(8192, 16384), normal(2**17, 512)
    images, kernel = normal(32, 56, 56, 64), normal(3, 3, 64, 64)
    chosen = tf.random.stateless_uniform((2**17,), (0, 0), 0, 2**17, tf.int32)

    def norm(x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, 0.1, 1.1, 1e-5)

    norm = tf.function(norm, jit_compile=True, autograph=False)
    queue = {
        "product, 64": (tf.matmul, normal(64, 64), normal(64, 64)),
        "product, 2,048": (tf.matmul, normal(2048, 2048), normal(2048, 2048)),
        "1 row × weights": (tf.matmul, normal(1, 8192), weights),
        "64 rows × weights": (tf.matmul, normal(64, 8192), weights),
        "3 × 3 convolution": (
            lambda i, k: tf.nn.conv2d(i, k, 1, "SAME"),
            images,
            kernel,
        ),
        "layer norm": (norm, wide),
        "softmax": (tf.nn.softmax, wide),
        "lookup": (tf.gather, wide, chosen),
        "sum, 17 MB": (tf.Variable(normal(2**22)).assign_add, normal(2**22)),
    }
    counted["sum, 17 MB"] = pointwise(2**22, 1, reads=2)
    print("                    per byte   at least ms    best ms    ratio")
    for name, (function, *given) in queue.items():
        timing = timings({name: lambda f=function, g=given: f(*g)}, 30)[name]
        done, least = counted[name], timing.later.min()
        bound = roof.seconds(done)
        placed[name] = done.intensity, done.operations / least / 1e9
        print(f"{name:18} {done.intensity:9.2f} {1e3 * bound:13.3f}", end="")
        print(f" {1e3 * least:10.3f} {least / bound:8.1f}")
# --8<-- [end:long-roof]

# --8<-- [start:long-drawn]
if placed:
    figure, axis = plt.subplots()
    intensity = np.logspace(-2, 3, 200)
    height = np.minimum(roof.peak, roof.bandwidth * intensity) / 1e9
    axis.loglog(intensity, height, "0.5", label="roof")
    points = {name: at for name, at in placed.items() if at[0] > 0}
    for number, (name, at) in enumerate(points.items()):
        axis.loglog(*at, "osD^v<>P"[number], color=f"C{number}", label=name)
    axis.set(xlabel="operations a byte", ylabel="10⁹ operations a second")
    axis.legend(fontsize="small")
# --8<-- [end:long-drawn]

# --8<-- [start:flops]
count = tf.compat.v1.profiler


def theirs(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    graph = tf.function(function).get_concrete_function(*specs).graph
    chosen = count.ProfileOptionBuilder(
        count.ProfileOptionBuilder.float_operation()
    )
    options = chosen.with_empty_output().build()
    return count.profile(graph, options=options).total_float_ops


images, kernel, maps = (2, 9, 9, 3), (3, 3, 3, 4), (2, 9, 9, 4)
for name, function, shapes, ours in (
    ("product", tf.matmul, [(3, 5), (5, 7)], product(3, 5, 7)),
    ("batch", tf.matmul, [(2, 3, 5), (2, 5, 7)], product(3, 5, 7, batch=2)),
    (
        "convolution",
        lambda i, k: tf.nn.conv2d(i, k, 1, "SAME"),
        [images, kernel],
        convolution(images, kernel, maps),
    ),
    ("softmax", tf.nn.softmax, [(6, 10)], pointwise(60, 5)),
):
    print(f"{name:12} {ours.operations:6} {theirs(function, *shapes):6}")
# --8<-- [end:flops]

# --8<-- [start:broadcast]
from aimodels.datasets import diabetes, split, standardize

table = diabetes()
kept, held = split(len(table.x), 100, np.random.default_rng(0))
x, new_x = (
    part.astype("float32") for part in standardize(table.x[kept], table.x[held])
)
scale = table.y[kept].mean(), table.y[kept].std()
y, new_y = (
    ((table.y[rows] - scale[0]) / scale[1]).astype("float32")
    for rows in (kept, held)
)


def squared(y, p):
    return ops.mean((y - p) ** 2)


def checked(y, p):
    check_shapes(targets=(y, "B"), predictions=(p, "B"))
    return squared(y, p)


for name, loss in (
    ("[B] - [B, 1]", squared),
    ("[B] - [B]", lambda y, p: checked(y, p[:, 0])),
):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    step = make_step(model, keras.optimizers.Adam(0.01), loss)
    values = train(step, batches((x, y), 32, seed=0), 300)
    error = ((np.asarray(model(new_x))[:, 0] - new_y) ** 2).mean()
    print(
        f"{name:12} loss from {values[0]:.1f} to {values[-50:].mean():.1f}",
        end="",
    )
    print(f", R² on new rows {1 - error / new_y.var():.1f}")
try:
    checked(y, model(x))
except ValueError as error:
    print(error)
# --8<-- [end:broadcast]

# --8<-- [start:reshape]
x = rng.normal(size=(2, 6, 12))  # B T D
other = rng.normal(size=x.shape)


def cut(x):  # (1)!
    return np.swapaxes(np.reshape(x, (2, 3, 6, 4)), 1, 2)


def heads(x):
    return np.reshape(x, (2, 6, 3, 4))


for function in (cut, heads):
    reads = dependence(function, x, other, axis=1)
    print(f"{function.__name__:6} {function(x).shape}, step by step:", end="")
    print(f" {np.array_equal(reads, np.eye(6))}")
# --8<-- [end:reshape]

# --8<-- [start:message]
import re

model, *_ = network(safe_unit)
try:
    model(clothes[:2, :20])
except ValueError as error:
    (line,) = [part for part in str(error).splitlines() if "expected" in part]
    print(re.sub(r"\x1b\[\d+m", "", line).replace(": ", ":\n  "))
# --8<-- [end:message]

# --8<-- [start:numerics]
model, *_ = network(unit)
x, y = covered[1230:1240], labels[1230:1240]
tf.debugging.enable_check_numerics()
try:
    step = make_step(model, keras.optimizers.Adam(0.003), cross_entropy)
    step(x, y)
except tf.errors.InvalidArgumentError as error:
    text = str(error)
    print("stopped at RealDiv:", "RealDiv" in text)
compiled = make_step(
    model, keras.optimizers.Adam(0.003), cross_entropy, jit_compile=True
)
try:
    compiled(x, y)
except tf.errors.InvalidArgumentError as error:
    print("XLA refuses:", "unsupported operations" in str(error))
tf.debugging.disable_check_numerics()  # (1)!
# --8<-- [end:numerics]


# --8<-- [start:first]
@tf.function
def smooth(x):
    return tf.reduce_sum(tf.nn.gelu(x))


big = tf.constant(rng.normal(size=(256, 256)), tf.float32)
timing = timings({"smooth": lambda: smooth(big).numpy()})["smooth"]
print(
    "first call takes more than 5 later ones:", timing.first > 5 * timing.median
)
for rows in range(1, 9):
    smooth(big[:rows])
print("graphs after 8 more shapes:", smooth.experimental_get_tracing_count())


@tf.function(input_signature=[tf.TensorSpec([None, 256])])
def once(x):
    return tf.reduce_sum(tf.nn.gelu(x))


for rows in range(1, 9):
    once(big[:rows])
print("with a signature:", once.experimental_get_tracing_count())
# --8<-- [end:first]

# --8<-- [start:long-noise]
if "HANDBOOK_LONG" in os.environ:
    same = steps["LookUp"]
    calls = {name: lambda: same(*batch).numpy() for name in "ab"}
    a, b = (timing.later for timing in timings(calls, 600).values())
    print(f"milliseconds: least {1e3 * a.min():.2f}, median", end="")
    print(f" {1e3 * np.median(a):.2f}, most {1e3 * a.max():.2f}")
    groups = (np.median(part.reshape(40, 15), 1) for part in (a, b))
    for name, ratio in (
        ("single calls", a / b),
        ("medians of 15 in turn", np.divide(*groups)),
        ("medians of all", np.array([np.median(a) / np.median(b)])),
    ):
        low, high = np.quantile(ratio, (0.05, 0.95))
        print(f"{name:22} a / b from {low:.2f} to {high:.2f}")
# --8<-- [end:long-noise]

# --8<-- [start:torn]
(file,) = folder.glob("events.*")
raw = file.read_bytes()
for kept in (len(raw), len(raw) // 2, len(raw) // 2 + 7):
    file.write_bytes(raw[:kept])
    steps, values = scalars(folder)["loss"]
    print(
        f"{kept / len(raw):.1f} of the file: steps 1 to {steps.max()}", end=""
    )
    print(", none missing:", len(steps) == steps.max())
# --8<-- [end:torn]


# --8<-- [start:solution-masked]
from aimodels.attention import scaled_dot_product_attention
from aimodels.datasets import japanese_vowels

spoken, _ = japanese_vowels()
x, y = spoken.x[:8].astype("float32"), spoken.y[:8]
x[5] = 0  # (1)!


class Pool(layers.Layer):
    """The mean of the steps that are real, weighted by learned scores."""

    def build(self, shape):
        self.query = self.add_weight((1, shape[-1]), name="query")

    def weigh(self, x, real):
        z = ops.matmul(x, ops.transpose(self.query))[..., 0]
        return ops.softmax(ops.where(real, z, -np.inf))

    def call(self, x):
        real = ops.any(x != 0, -1)
        return ops.einsum("bt,btd->bd", self.weigh(x, real), x)


class SafePool(Pool):
    def weigh(self, x, real):
        return scaled_dot_product_attention(self.query, x, x, real[:, None, :])[
            1
        ][:, 0]


def pooled(kind):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((29, 12)), kind(name="pool"), layers.Dense(9)]
    return keras.Sequential(parts)


bad = first_bad(pooled(Pool), x, y, cross_entropy)
print(bad)
assert (bad.phase, bad.inside) == ("forward", "pool")
alone = [
    first_bad(pooled(Pool), x[[n]], y[[n]], cross_entropy) for n in range(8)
]
assert [bad is not None for bad in alone] == [n == 5 for n in range(8)]
assert first_bad(pooled(SafePool), x, y, cross_entropy) is None
# --8<-- [end:solution-masked]

# --8<-- [start:solution-batch]
from aimodels.profiling import Roof


def smallest(roof, width, each):
    for rows in itertools.count(1):
        if product(rows, width, width, each=each).intensity >= roof.ridge:
            return rows


example = Roof(peak=2e11, bandwidth=2e10)
for width, each in ((512, 4), (4096, 4), (4096, 2)):
    rows = smallest(example, width, each)
    print(f"width {width:5}, {each} bytes: {rows} rows")
    ridge = example.ridge
    assert rows == np.ceil(ridge * each / 2 / (1 - ridge * each / width))
# --8<-- [end:solution-batch]
