# --8<-- [start:ring]
import inspect
import os
import tempfile
import textwrap
from functools import partial
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from tensorflow.experimental import dtensor

from aimodels import datasets
from aimodels.distributed import (
    collect,
    devices,
    launch,
    make_parallel_step,
    memory,
    mirrored,
    place,
    ring_all_reduce,
    shares,
    split_network,
)
from aimodels.training import batches, train

held = np.array([[1, 2, 3], [10, 20, 30], [100, 200, 300]])
n = len(held)
print("start:", *held)
for step in range(2 * (n - 1)):
    before = held.copy()
    for worker in range(n):
        piece, right = (worker - step) % n, (worker + 1) % n
        if step < n - 1:
            held[right, piece] += before[worker, piece]
        else:
            held[right, piece] = before[worker, piece]  # (1)!
    print(f"step {step + 1}:", *held)
# --8<-- [end:ring]

# --8<-- [start:order]
rng = np.random.default_rng(0)
gradients = rng.normal(size=(8, 100_000)).astype("float32")
everywhere, sent = ring_all_reduce(gradients)
exact = gradients.astype("float64").sum(0)
inward = gradients.sum(0)
print("all workers hold the same bits:", (everywhere == everywhere[0]).all())
print("sent by each, in vectors:", sent[0] / gradients.shape[1])
print("unlike the sum from worker 0 to 7:", (everywhere[0] != inward).any())
for name, total in (("ring", everywhere[0]), ("in order", inward)):
    print(f"{name:8} off by up to 1e-5: {abs(total - exact).max() < 1e-5}")
# --8<-- [end:order]

# --8<-- [start:memory]
print("GB on each of     1      8     64")
for stage, name in enumerate(
    ("all copied", "+ optimizer", "+ gradients", "+ parameters")
):
    row = [memory(7_500_000_000, n, stage) / 1e9 for n in (1, 8, 64)]
    print(f"{name:13}", *(f"{gigabytes:6.1f}" for gigabytes in row))
# --8<-- [end:memory]


# --8<-- [start:learn]
def learn(strategy, path, steps=120, dies_after=None):
    import os
    import signal

    import keras

    from aimodels import datasets
    from aimodels.distributed import make_parallel_step
    from aimodels.training import Checkpoint, batches, train

    digits = datasets.digits()
    x = (digits.x.reshape(-1, 64) / 16).astype("float32")
    with strategy.scope():  # (1)!
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)

    def loss(y, z):  # (2)!
        return keras.losses.sparse_categorical_crossentropy(
            y, z, from_logits=True
        )

    step = make_parallel_step(strategy, model, optimizer, loss)
    checkpoint = Checkpoint(path, model, optimizer)
    start, losses = checkpoint.restore() if path.exists() else (0, [])
    cluster = strategy.cluster_resolver
    me = cluster.task_id if cluster else 0

    def after(number, value):
        losses.append(value)
        if me == 0 and number == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)  # (3)!
        if me == 0 and number % 20 == 0:
            checkpoint.save(number, losses)

    source = batches((x, digits.y), 64, seed=0, start=start)
    train(step, source, steps - start, start, after)
    return model, losses


# --8<-- [end:learn]

# --8<-- [start:replicas]
names = devices(4)  # (1)!
tf.get_logger().setLevel("ERROR")  # (2)!
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)


def read(model):
    return [keras.ops.convert_to_tensor(v).numpy() for v in model.weights]


def close(one, other):
    return np.abs(one - other).max() < 1e-5


one, alone = learn(tf.distribute.get_strategy(), folder / "one.npz")
print(f"one device:   loss {alone[0]:.4f} to {alone[-1]:.4f}")
for count in (2, 4):
    parallel, losses = learn(mirrored(names[:count]), folder / f"{count}.npz")
    print(
        f"{count} replicas:   loss {losses[0]:.4f} to {losses[-1]:.4f}", end=""
    )
    same = all(map(close, read(parallel), read(one)))
    print(", weights as on one device to 1e-5:", same)
# --8<-- [end:replicas]

# --8<-- [start:split]
rng = np.random.default_rng(0)
x = rng.normal(size=(32, 64))
w1, b1, w2 = (rng.normal(size=s) for s in ((64, 256), (256,), (256, 64)))
whole = np.maximum(x @ w1 + b1, 0) @ w2
for n in (2, 4):
    parts = split_network(x, w1, b1, w2, n)
    same = np.allclose(parts.sum(0), whole, rtol=1e-12, atol=1e-10)
    print(f"{n} devices, each {256 // n} hidden units: sum = whole: {same}")
# --8<-- [end:split]


# --8<-- [start:worker]
def work(path, dies_after):
    import os

    import tensorflow as tf

    from aimodels.distributed import job_config

    if "TF_CONFIG" not in os.environ:  # (1)!
        os.environ["TF_CONFIG"] = job_config(os.environ)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # (2)!
    learn(strategy, path, dies_after=dies_after)


program = folder / "worker.py"
program.write_text(
    "import sys\nfrom pathlib import Path\n\n"
    + inspect.getsource(learn)  # (3)!
    + inspect.getsource(work)
    + "work(Path(sys.argv[1]), int(sys.argv[2]))\n"
)


def start_two(path, dies_after=0):
    for index, end in enumerate(launch(program, 2, path, dies_after)):
        state = {0: "done", -9: "killed"}.get(end.code, "failed by itself")
        print(f"worker {index}: {'hung' if end.killed else state}")
    with np.load(path) as file:
        return file["losses"]


# --8<-- [end:worker]

# --8<-- [start:two]
two = start_two(folder / "two.npz")
print(f"loss {two[0]:.4f} to {two[-1]:.4f}", end=", ")
print("as on one device to 1e-5:", np.abs(two - alone).max() < 1e-5)
# --8<-- [end:two]

# --8<-- [start:killed]
saved = start_two(folder / "killed.npz", dies_after=50)
print("in the checkpoint:", len(saved), "steps")
resumed = start_two(folder / "killed.npz")  # (1)!
print(f"{len(resumed)} steps, final loss {resumed[-1]:.4f}", end=", ")
print("as undisturbed to 1e-6:", np.abs(resumed - two).max() < 1e-6)
# --8<-- [end:killed]

# --8<-- [start:resumed]
figure, axis = plt.subplots()
steps = np.arange(1, 121)
axis.semilogy(steps, alone, "C7-", linewidth=6, alpha=0.4, label="one device")
axis.semilogy(steps[:50], two[:50], "C1-", label="two workers, then a kill")
axis.semilogy(steps[40:], resumed[40:], "C0--", label="resumed after step 40")
axis.axvline(50, color="C1", linestyle=":")
axis.axvline(40, color="C0", linestyle=":")
axis.set(xlabel="step", ylabel="loss")
axis.legend()
# --8<-- [end:resumed]


# --8<-- [start:tensor]
def network_loss(x, y, weights):
    w1, b1, w2, b2 = weights
    z = tf.nn.relu(x @ w1 + b1) @ w2 + b2
    return -tf.reduce_mean(tf.reduce_sum(y * tf.nn.log_softmax(z), -1))


def update(x, y, weights):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        value = network_loss(x, y, weights)
    gradients = tape.gradient(value, weights)
    moved = [w - 0.2 * g for w, g in zip(weights, gradients, strict=True)]
    return value, gradients, moved


digits = datasets.digits()
x = (digits.x.reshape(-1, 64) / 16).astype("float32")[:1024]
y = np.eye(10, dtype="float32")[digits.y[:1024]]
fresh = np.random.default_rng(0)
begin = [
    (fresh.normal(size=(64, 128)) / 8).astype("float32"),
    np.zeros(128, "float32"),
    (fresh.normal(size=(128, 10)) / 11).astype("float32"),
    np.zeros(10, "float32"),
]


def spread(rows, columns):
    mesh = dtensor.create_mesh(
        [("batch", rows), ("model", columns)], devices=names
    )
    cuts = ((None, "model"), ("model",), ("model", None), (None,))  # (1)!
    data = place(x, mesh, "batch", None), place(y, mesh, "batch", None)
    weights = [place(w, mesh, *c) for w, c in zip(begin, cuts, strict=True)]
    return *data, weights


def descend(x, y, weights):
    step = tf.function(update, autograph=False)
    for _ in range(100):
        value, _, weights = step(x, y, weights)
    return value


final = float(descend(x, y, [tf.constant(w) for w in begin]))
print(f"one device:   loss {final:.4f} after 100 steps")
for shape in ((1, 4), (2, 2), (4, 1)):
    spread_x, _, weights = arrays = spread(*shape)
    piece = dtensor.unpack(weights[0])[0].shape
    value = float(collect(descend(*arrays)))
    print(f"mesh {shape}:  loss {value:.4f}", end=", ")
    print(f"a device holds {tuple(piece)} of w1", end=", ")
    print(f"{dtensor.unpack(spread_x)[0].shape[0]} rows")
# --8<-- [end:tensor]

# --8<-- [start:long-speed]
if "HANDBOOK_LONG" in os.environ:  # (1)!

    def clock(strategy, count=12):
        import time

        import keras
        import numpy as np

        from aimodels.distributed import make_parallel_step

        with strategy.scope():
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((2048,))])
            for _ in range(2):
                model.add(keras.layers.Dense(2048, activation="relu"))
            optimizer = keras.optimizers.SGD(0.01)
        step = make_parallel_step(
            strategy,
            model,
            optimizer,
            lambda y, z: keras.ops.mean(keras.ops.square(z - y), -1),
        )
        found = {}
        for rows in (32, 1024, 4096):  # (2)!
            x = np.ones((rows, 2048), "float32")
            spent = []
            for _ in range(count):
                began = time.perf_counter()
                float(step(x, x))
                spent.append(time.perf_counter() - began)
            found[rows] = np.median(spent[2:]), max(spent[2:])
        return found

    timer = folder / "timer.py"
    timer.write_text(
        "import tensorflow as tf\n\n"
        "tf.config.threading.set_intra_op_parallelism_threads(1)\n"
        "tf.config.threading.set_inter_op_parallelism_threads(1)\n"
        "strategy = tf.distribute.MultiWorkerMirroredStrategy()\n"
        + textwrap.dedent(inspect.getsource(clock))
        + "for median, slowest in clock(strategy).values():\n"
        "    print('seconds', median, slowest)\n"
    )
    print("rows:                              32       1,024       4,096")
    table = {"one device, two threads": clock(tf.distribute.get_strategy())}
    for count in (2, 4):
        name = f"{count} devices, two threads"
        table[name] = clock(mirrored(names[:count]))
    for count in (1, 2):
        said = launch(timer, count)[0].said
        lines = [t for t in said.splitlines() if t.startswith("seconds ")]
        name = f"{count} process{'es' * (count > 1)}, one thread each"
        table[name] = {t: map(float, t.split()[1:]) for t in lines}
    for name, found in table.items():
        cells = (f"{1e3 * m:6.0f}{1e3 * s:6.0f}" for m, s in found.values())
        print(f"{name:28}", *cells)
# --8<-- [end:long-speed]

# --8<-- [start:gradients]
x, y = x[:64], y[:64]
_, wanted, _ = update(x, y, [tf.constant(w) for w in begin])


def report(name, found):
    apart = max(
        np.abs(np.array(f) - w.numpy()).max()
        for f, w in zip(found, wanted, strict=True)
    )
    print(f"{name:24} largest difference below 1e-6: {apart < 1e-6}")


parts = []
for rows in shares(64, 3):  # (1)!
    _, gradient, _ = update(x[rows], y[rows], [tf.constant(w) for w in begin])
    share = len(x[rows]) / 64
    parts.append(np.concatenate([share * np.ravel(g) for g in gradient]))
total = ring_all_reduce(parts)[0][2]
pieces = np.split(total, np.cumsum([w.size for w in begin])[:-1])
shaped = [p.reshape(w.shape) for p, w in zip(pieces, begin, strict=True)]
report("by hand, ring of 3", shaped)

for count in (2, 3, 4):
    strategy = mirrored(names[:count])
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        model.set_weights(begin)
        optimizer = keras.optimizers.SGD(1.0)  # (2)!
    make_parallel_step(
        strategy,
        model,
        optimizer,
        lambda y, z: keras.losses.categorical_crossentropy(
            y, z, from_logits=True
        ),
    )(x, y)
    moved = zip(begin, read(model), strict=True)
    report(f"MirroredStrategy, {count}", [old - new for old, new in moved])

for shape in ((1, 4), (2, 2), (4, 1)):
    _, gradient, _ = tf.function(update, autograph=False)(*spread(*shape))
    report(f"DTensor, mesh {shape}", [collect(g) for g in gradient])
# --8<-- [end:gradients]


# --8<-- [start:wrong]
def cross_entropy(y, z):
    return keras.losses.categorical_crossentropy(y, z, from_logits=True)


def first_update(optimizer, mistake, count=4, rows=64):
    strategy = mirrored(names[:count])
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        model.set_weights(begin)
        optimizer = optimizer()
        optimizer.build(model.trainable_variables)
    own = shares(rows, count)

    def give(array):
        return strategy.experimental_distribute_values_from_function(
            lambda c: tf.constant(array[own[c.replica_id_in_sync_group]])
        )

    def replica_step(x, y):
        with tf.GradientTape() as tape:
            each = cross_entropy(y, model(x))
            value = tf.reduce_sum(each) / rows
            if mistake == "mean of each part":
                value = tf.reduce_mean(each)
            if mistake == "mean of means":
                value = tf.reduce_mean(each) / count
        gradients = tape.gradient(value, model.trainable_variables)
        if mistake == "added twice":
            here = tf.distribute.get_replica_context()
            gradients = here.all_reduce("sum", gradients)
        optimizer.apply(gradients, model.trainable_variables)

    run = tf.function(lambda *pair: strategy.run(replica_step, pair))
    run(give(x), give(y))
    pairs = zip(begin, read(model), strict=True)
    return np.concatenate([(new - old).ravel() for old, new in pairs])


def compare(name, optimizer, mistake, rows=64):
    right = first_update(optimizer, None, 1, rows)
    found = first_update(optimizer, mistake, 4, rows)
    longer = np.linalg.norm(found) / np.linalg.norm(right)
    apart = np.linalg.norm(found - right) / np.linalg.norm(right)
    print(f"{name:38} {longer:6.2f} {apart:6.2f}")


print("first update beside one device's       length   apart")
sgd, adam = partial(keras.optimizers.SGD, 0.1), keras.optimizers.Adam
clipped = partial(sgd, global_clipnorm=0.1)
for mistake in (None, "mean of each part", "added twice"):
    compare(f"SGD, {mistake or 'right'}", sgd, mistake)
    compare(f"Adam, {mistake or 'right'}", adam, mistake)
compare("SGD, mean of means, 64 rows", sgd, "mean of means")
compare("SGD, mean of means, 5 rows", sgd, "mean of means", 5)
compare("SGD that clips to 0.1, otherwise right", clipped, None)
# --8<-- [end:wrong]


# --8<-- [start:batch-norm]
def with_norm(strategy, synchronized):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, use_bias=False),
                keras.layers.BatchNormalization(synchronized=synchronized),
                keras.layers.Activation("relu"),
                keras.layers.Dense(10),
            ]
        )
        optimizer = keras.optimizers.SGD(0.1)
    step = make_parallel_step(strategy, model, optimizer, cross_entropy)
    images = (digits.x.reshape(-1, 64) / 16).astype("float32")
    targets = np.eye(10, dtype="float32")[digits.y]
    return train(step, batches((images, targets), 32, seed=0), 60)


base = with_norm(tf.distribute.get_strategy(), False)
print(f"one device             loss {base[0]:.3f} to {base[-10:].mean():.3f}")
for synchronized in (False, True):
    losses = with_norm(mirrored(names), synchronized)
    print(f"4 replicas, sync {synchronized!s:5} ", end="")
    print(f"loss {losses[0]:.3f} to {losses[-10:].mean():.3f}")
# --8<-- [end:batch-norm]


# --8<-- [start:solution-stale]
def settles(rate, delay, curvature=1.0):
    path = [1.0] * (delay + 1)
    for _ in range(20_000):
        path.append(path[-1] - rate * curvature * path[-1 - delay])
        if abs(path[-1]) > 1e6:
            return False
    return abs(path[-1]) < 1e-6


print("delay   largest rate   2 sin(π / (4d + 2))")
for delay in range(5):
    low, high = 0.0, 3.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if settles(middle, delay) else (low, middle)
    formula = 2 * np.sin(np.pi / (4 * delay + 2))
    print(f"{delay:5} {low:14.2f} {formula:16.2f}")
    assert abs(low - formula) < 0.01
# --8<-- [end:solution-stale]


# --8<-- [start:solution-pipeline]
def pipeline(stages, parts):
    ends = np.zeros((stages, parts), int)
    for stage in range(stages):
        for part in range(parts):
            ready = ends[stage - 1, part] if stage else 0
            free = ends[stage, part - 1] if part else 0
            ends[stage, part] = max(ready, free) + 1
    return ends


for stages, parts in ((4, 1), (4, 4), (4, 16), (16, 16), (16, 64)):
    total = int(pipeline(stages, parts).max())
    idle = 1 - parts / total
    print(
        f"{stages:2} stages, {parts:2} parts: {total:2} ticks, idle {idle:.2f}"
    )
    assert np.isclose(idle, (stages - 1) / (parts + stages - 1))
# --8<-- [end:solution-pipeline]

# --8<-- [start:solution-accumulate]
summed = [np.zeros_like(w) for w in begin]
for rows in shares(64, 4):
    _, gradient, _ = update(x[rows], y[rows], [tf.constant(w) for w in begin])
    share = len(x[rows]) / 64
    summed = [
        s + share * g.numpy() for s, g in zip(summed, gradient, strict=True)
    ]
assert all(
    np.allclose(s, w, atol=1e-6) for s, w in zip(summed, wanted, strict=True)
)
# --8<-- [end:solution-accumulate]
