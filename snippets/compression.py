# --8<-- [start:by-hand]
import numpy as np

from aimodels.compression import pack, quantize, unpack

w = np.array([0.814, -0.297, 0.051, -1.27])
for bits in (8, 4):
    integers, steps = quantize(w, bits)
    back = integers * steps
    print(f"int{bits}: step {steps[0]:.4f}", integers, back.round(3))
    print("  farthest, in steps:", (np.abs(back - w) / steps).max().round(2))

packed = pack(integers)  # (1)!
print("packed:", [f"{byte:08b}" for byte in packed])
print("unpacked:", unpack(packed, 4))
# --8<-- [end:by-hand]

# --8<-- [start:storage]
print("bits a number  dense  indices  a bit each  entropy")
for share in (0.5, 0.2, 0.1, 0.02):
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    indices, mask, least = share * 64, share * 32 + 1, share * 32 + entropy
    print(f"{share:11.0%}{32:9}{indices:9.1f}{mask:12.1f}{least:9.1f}")
# --8<-- [end:storage]

# --8<-- [start:soften]
from aimodels.logistic import softmax

logits = np.array([[9.0, 6.0, 2.0, 1.0]])
student = np.array([[4.0, 3.0, 0.0, 1.0]])
for temperature in (1, 4, 20):
    soft = softmax(logits / temperature)
    push = temperature * (softmax(student / temperature) - soft)  # (1)!
    print(
        f"T = {temperature:2}:", soft[0].round(2), "gradient", push[0].round(2)
    )
apart = student - logits
limit = (apart - apart.mean()) / 4
print("limit of the gradient for large T:", limit[0].round(2))
# --8<-- [end:soften]

# --8<-- [start:data]
from aimodels import datasets


def smaller(images):
    blocks = images.x.reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
    return ((blocks - 0.286) / 0.353).reshape(-1, 196).astype("float32")


train_set, test_set = datasets.fashion_mnist()
x, x_test = smaller(train_set), smaller(test_set)
y, y_test = np.eye(10, dtype="float32")[train_set.y], test_set.y
KNOWN, OTHER = 20_000, slice(20_000, 25_000)  # (1)!
SEEDS = 4
print(x[:KNOWN].shape, x[OTHER].shape, x_test.shape)
# --8<-- [end:data]

# --8<-- [start:networks]
import keras
from keras import ops

from aimodels.regularization import SideBySide, summed_cross_entropy
from aimodels.training import batches, make_step, train

LARGE, SMALL = [196, 256, 128, 10], [196, 32, 16, 10]


def feed(networks, targets, first=0, known=KNOWN):  # (1)!
    known = np.broadcast_to(known, networks)
    orders = [
        batches(np.arange(count), 64, first + r % SEEDS)
        for r, count in enumerate(known)
    ]
    while True:
        rows = np.stack([next(order) for order in orders])
        yield x[rows], targets(rows)


def labels(rows):
    return y[rows]


def learn(model, data, loss, steps, *, masks=None, rate=2e-3):
    falling = keras.optimizers.schedules.CosineDecay(rate, steps)
    step = make_step(model, keras.optimizers.Adam(falling), loss, True)
    if masks is not None:
        step = masked_step(step, model.kernels, masks)
    train(step, data, steps)


def scores(model, networks, images):
    parts = np.array_split(images, 5)
    shown = [model(np.broadcast_to(p, (networks, *p.shape))) for p in parts]
    return np.concatenate([np.array(z) for z in shown], axis=1)


def accuracy(model, networks):
    right = scores(model, networks, x_test).argmax(-1) == y_test
    return right.mean(1).reshape(-1, SEEDS)


large = SideBySide(LARGE, range(SEEDS))
learn(large, feed(SEEDS, labels), summed_cross_entropy, 1600)
full = accuracy(large, SEEDS)[0]
exact = [kernel.numpy() for kernel in large.kernels]
biases = [bias.numpy() for bias in large.biases]
print("weights:", sum(kernel[0].size for kernel in exact))
print("test accuracy:", full.round(3))
# --8<-- [end:networks]


# --8<-- [start:bits]
def start(model, kernels, biases):
    variables = [*model.kernels, *model.biases]
    for variable, array in zip(variables, [*kernels, *biases], strict=True):
        copies = variable.shape[0] // len(array)
        variable.assign(np.concatenate([array] * copies))  # (1)!


def show(name, found):
    gap = found - full
    spread = gap.std(ddof=1)
    print(f"{name:22}{found.mean():.3f}  {gap.mean():+.3f} ± {spread:.3f}")


def rounded(layers, bits, parts=1):  # (2)!
    done = []
    for kernel, bias in layers:
        shape = (parts, -1, kernel.shape[1]) if parts else (1, -1, 1)
        integers, steps = quantize(kernel.reshape(shape), bits, axis=1)
        done.append(((integers * steps).reshape(kernel.shape), bias))
    return done


def answer(layers, images):
    for n, (kernel, bias) in enumerate(layers):
        images = (np.maximum(images, 0) if n else images) @ kernel + bias
    return images.argmax(-1)


def right(layers, images=x_test):
    return (answer(layers, images) == y_test).mean()


def layers_of(model, r):
    pairs = zip(model.kernels, model.biases, strict=True)
    return [(kernel.numpy()[r], bias.numpy()[r, 0]) for kernel, bias in pairs]


own = [layers_of(large, r) for r in range(SEEDS)]
simply = {
    (bits, parts): np.array([right(rounded(o, bits, parts)) for o in own])
    for bits in (8, 4, 3, 2)
    for parts in (0, 1)
}
print("                   accuracy   against float32")
for bits in (8, 4, 3):
    show(f"int{bits}, a step a matrix", simply[bits, 0])
    show(f"int{bits}, a step a column", simply[bits, 1])
# --8<-- [end:bits]

# --8<-- [start:through]
from aimodels.compression import Rounded

LEVELS = (4, 3, 2)
latent = SideBySide(LARGE, [*range(SEEDS)] * 3)
start(latent, exact, biases)
through = Rounded(latent, np.repeat(LEVELS, SEEDS).tolist())
after = feed(len(latent.seeds), labels, first=100)
learn(through, after, summed_cross_entropy, 300, rate=1e-3)
trained = accuracy(through, len(latent.seeds))
for bits, better in zip(LEVELS, trained, strict=True):
    show(f"int{bits}, trained on", better)
# --8<-- [end:through]

# --8<-- [start:cut]
from aimodels.compression import keep_largest, masked_step

SHARES = (1.0, 0.5, 0.2, 0.1)
pruned = SideBySide(LARGE, [*range(SEEDS)] * len(SHARES))


def masks_of(together):
    chosen = [
        keep_largest([kernel[r] for kernel in exact], share, together)
        for share in SHARES
        for r in range(SEEDS)
    ]
    return [np.stack(layer) for layer in zip(*chosen, strict=True)]


cut = {}
for together in (False, True):
    masks = masks_of(together)
    start(pruned, exact, biases)
    for kernel, mask in zip(pruned.kernels, masks, strict=True):
        kernel.assign(kernel * mask)
    cut[together] = accuracy(pruned, len(pruned.seeds))
print("kept  each layer  together    difference")
for share, apart, joint in zip(SHARES, cut[False], cut[True], strict=True):
    gap = joint - apart
    print(f"{share:4.0%}{apart.mean():12.2f}{joint.mean():10.2f}", end="")
    print(f"  {gap.mean():+.2f} ± {gap.std(ddof=1):.2f}")
# --8<-- [end:cut]

# --8<-- [start:sparsity]
after = feed(len(pruned.seeds), labels, first=100)
learn(pruned, after, summed_cross_entropy, 300, masks=masks)
retrained = accuracy(pruned, len(pruned.seeds))
print("kept               accuracy   against float32")
for share, better in zip(SHARES, retrained, strict=True):
    show(f"{share:.0%}", better)
kept = [(k.numpy()[2 * SEEDS :][:SEEDS] != 0).mean() for k in pruned.kernels]
print("20 % of all, in each layer:", np.round(kept, 2))
# --8<-- [end:sparsity]

# --8<-- [start:curves]
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
for parts, style, word in (
    (0, ":", "a step a matrix"),
    (1, "--", "a step a column"),
):
    means = [simply[bits, parts].mean() for bits in (8, 4, 3, 2)]
    axes[0].plot((8, 4, 3, 2), means, style, marker=".", label=word)
axes[0].plot(LEVELS, trained.mean(1), marker="o", label="trained on")
axes[0].set(xlabel="bits of a weight", ylabel="test accuracy")
axes[1].plot(SHARES, cut[True].mean(1), "--", marker=".", label="cut")
axes[1].plot(SHARES, retrained.mean(1), marker="o", label="trained on")
axes[1].set(xscale="log", xlabel="share of the weights kept")
axes[1].set_xticks(SHARES, [f"{share:.0%}" for share in SHARES], minor=False)
axes[1].minorticks_off()
for axis in axes:
    axis.legend()
# --8<-- [end:curves]

# --8<-- [start:students]
from aimodels.compression import distillation_loss, drop_units

FEW = 600
KINDS = [  # name, share of the teacher, temperature, images
    ("labels", 0.0, 1, KNOWN),
    ("taught, T = 1", 0.9, 1, KNOWN),
    ("taught, T = 4", 0.9, 4, KNOWN),
    ("cut out, labels", 0.0, 1, KNOWN),
    ("labels, 600", 0.0, 1, FEW),
    ("taught, 600, T = 1", 0.9, 1, FEW),
    ("taught, 600, T = 4", 0.9, 4, FEW),
]
teacher = scores(large, SEEDS, x[:KNOWN])
names, mix, temperature, known = zip(*KINDS, strict=True)
count = len(KINDS) * SEEDS
mix = np.repeat(np.float32(mix), SEEDS)[:, None]
temperature = np.repeat(np.float32(temperature), SEEDS)[:, None, None]


def both(rows):  # (1)!
    own_teacher = np.arange(len(rows))[:, None] % SEEDS
    return np.concatenate([y[rows], teacher[own_teacher, rows]], axis=-1)


def taught(mix, temperature):
    def loss(targets, z):
        soft = distillation_loss(targets[..., 10:], z, temperature)
        hard = keras.losses.categorical_crossentropy(
            targets[..., :10], z, from_logits=True
        )
        return ops.sum(ops.mean(mix * soft + (1 - mix) * hard, axis=1))

    return loss


students = SideBySide(SMALL, [*range(SEEDS)] * len(KINDS))
first = names.index("cut out, labels") * SEEDS
place = slice(first, first + SEEDS)
thin = [
    drop_units([k for k, _ in layers], [b for _, b in layers], SMALL[1:-1])
    for layers in own
]
for n in range(3):
    kernel, bias = students.kernels[n].numpy(), students.biases[n].numpy()
    kernel[place] = [kernels[n] for kernels, _ in thin]
    bias[place, 0] = [biases[n] for _, biases in thin]
    students.kernels[n].assign(kernel)
    students.biases[n].assign(bias)
data = feed(count, both, 0, np.repeat(known, SEEDS))
learn(students, data, taught(mix, temperature), 1200)

found = accuracy(students, count)
watched = scores(students, count, x[OTHER]).argmax(-1) == train_set.y[OTHER]
watched = watched.mean(1).reshape(-1, SEEDS)
print("                     test   against labels    other images")
for n, name in enumerate(names):
    base = 0 if known[n] == KNOWN else names.index("labels, 600")
    gap = found[n] - found[base]
    print(
        f"{name:20}{found[n].mean():.3f}"
        f"  {gap.mean():+.3f} ± {gap.std(ddof=1):.3f}"
        f"{watched[n].mean():15.3f}"
    )
# --8<-- [end:students]

# --8<-- [start:files]
import tempfile
from pathlib import Path

home = tempfile.TemporaryDirectory()
folder = Path(home.name)


def write(path, layers, bits=32, save=np.savez):
    arrays = {}
    for n, (kernel, bias) in enumerate(layers):
        arrays[f"bias{n}"] = bias
        stored = kernel
        if bits < 32:
            stored, arrays[f"steps{n}"] = quantize(kernel, bits, axis=0)
        arrays[f"kernel{n}"] = pack(stored) if bits == 4 else stored
    save(path, **arrays)
    return path.stat().st_size / 1000


def read(path, rows=196):
    layers = []
    with np.load(path) as file:
        while (n := len(layers)) < 3:
            kernel, bias = file[f"kernel{n}"], file[f"bias{n}"]
            if kernel.dtype == "uint8":
                kernel = unpack(kernel, rows)
            steps = file.get(f"steps{n}", 1)
            layers.append(((kernel * steps).astype("float32"), bias))
            rows = len(bias)
    return layers


# --8<-- [end:files]

# --8<-- [start:table]
good = names.index("taught, T = 1")  # (1)!
finer = SideBySide(SMALL, range(SEEDS))
place = slice(good * SEEDS, (good + 1) * SEEDS)
kernels = [kernel.numpy()[place] for kernel in students.kernels]
half = [keep_largest([k[r] for k in kernels], 0.5) for r in range(SEEDS)]
half = [np.stack(layer) for layer in zip(*half, strict=True)]
kernels = [k * m for k, m in zip(kernels, half, strict=True)]
start(finer, kernels, [bias.numpy()[place] for bias in students.biases])
loss = taught(mix[place], temperature[place])
learn(finer, feed(SEEDS, both, 100), loss, 300, masks=half)

ROWS = {  # name: networks, the first of them, bits
    "float32": (large, 0, 32),
    "int8": (large, 0, 8),
    "int4": (large, 0, 4),
    "int4, trained on": (latent, 0, 4),
    "pruned to 20 %": (pruned, 2 * SEEDS, 32),
    "pruned, int8": (pruned, 2 * SEEDS, 8),
    "pruned, int4": (pruned, 2 * SEEDS, 4),
    "to 10 %, int4": (pruned, 3 * SEEDS, 4),
    "small, labels": (students, 0, 32),
    "small, cut out": (students, first, 32),
    "small, taught": (students, good * SEEDS, 32),
    "taught, int8": (students, good * SEEDS, 8),
    "taught, pruned, int8": (finer, 0, 8),
}
table = {}
print("                  kB plain  deflated  right, %  against float32")
for name, (model, place, bits) in ROWS.items():
    answers = []
    for r in range(SEEDS):
        layers, path = layers_of(model, place + r), folder / f"{name} {r}.npz"
        deflated = write(path, layers, bits, np.savez_compressed)
        plain = write(path, layers, bits)
        answers.append(100 * right(read(path)))
    table[name] = plain, deflated, np.array(answers)
    gap = table[name][2] - 100 * full
    print(
        f"{name:21}{plain:5.1f}{deflated:10.1f}{np.mean(answers):10.1f}"
        f"  {gap.mean():+.1f} ± {gap.std(ddof=1):.1f}"
    )
# --8<-- [end:table]

# --8<-- [start:frontier]
figure, axis = plt.subplots(figsize=(6, 3))
for word, marker, models in (
    ("large, rounded", "o", (large, latent)),
    ("large, pruned", "s", (pruned,)),
    ("small", "^", (students, finer)),
):
    rows = [name for name, row in ROWS.items() if row[0] in models]
    sizes = [table[name][1] for name in rows]
    shares = [table[name][2].mean() for name in rows]
    axis.plot(sizes, shares, marker, label=word)
axis.set(xscale="log", xlabel="kB, deflated", ylabel="right answers, %")
axis.legend()
# --8<-- [end:frontier]

# --8<-- [start:speed]
import time
import warnings
from itertools import pairwise

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


for known in ("Layer InputLayer does not", "__array__ implementation"):  # (1)!
    warnings.filterwarnings("ignore", known)


def dense(layers):
    model = keras.Sequential([keras.Input((len(layers[0][0]),))])
    for n, (_, bias) in enumerate(layers):
        hidden = "relu" if n < len(layers) - 1 else None
        model.add(keras.layers.Dense(len(bias), hidden))
    model.set_weights([array for layer in layers for array in layer])
    return model


def litert(layers, bits=32, batch=1):
    options = (
        {} if bits == 32 else {"optimizations": [tf.lite.Optimize.DEFAULT]}
    )
    path = folder / "model.tflite"
    dense(layers).export(path, format="litert", verbose=False, **options)
    engine = Interpreter(model_content=path.read_bytes(), num_threads=1)
    given, said = engine.get_input_details()[0], engine.get_output_details()[0]
    engine.resize_tensor_input(given["index"], (batch, len(layers[0][0])))
    engine.allocate_tensors()

    def run(images):
        engine.set_tensor(given["index"], images)
        engine.invoke()
        return engine.get_tensor(said["index"])

    return run


def in_turns(runs, images, repeat=30):  # (2)!
    medians = {name: [] for name in runs}
    for _ in range(10):
        for name, run in runs.items():
            run(images)
            clock = [time.perf_counter()]
            for _ in range(repeat):
                run(images)
                clock.append(time.perf_counter())
            medians[name].append(np.median(np.diff(clock)))
    return medians


layers = own[0]
engine = litert(layers, 8, batch=len(x_test))
same = engine(x_test).argmax(-1) == answer(read(folder / "int8 0.npz"), x_test)
print("LiteRT and our int8 agree on more than 99 %:", same.mean() > 0.99)

rng = np.random.default_rng(0)
sizes = [512, 2048, 2048, 10]
wide = [
    (rng.normal(0, d**-0.5, (d, u)).astype("float32"), np.zeros(u, "float32"))
    for d, u in pairwise(sizes)
]
zeros = [(k * (rng.random(k.shape) < 0.1), b) for k, b in wide]
image = rng.normal(size=(1, 512)).astype("float32")
engines = {
    "float32": litert(wide),
    "zeros": litert(zeros),
    "int8": litert(wide, 8),
}
took = {name: min(rounds) for name, rounds in in_turns(engines, image).items()}
print(
    "nine zeros in ten, under 2/3 of the time:",
    took["zeros"] < took["float32"] / 1.5,
)
print("int8, under 3/4 of the time:", took["int8"] < 0.75 * took["float32"])
# --8<-- [end:speed]

# --8<-- [start:long-table]
import os

if "HANDBOOK_LONG" in os.environ:  # (1)!

    def in_keras(layers, bits):
        model = dense(layers)
        if bits < 32:
            model.quantize(f"int{bits}")
        return tf.function(model, autograph=False)

    def both_ways(nets, images):
        runs = {}
        for name, (layers, bits) in nets.items():
            inside = 8 if bits == 8 else 32  # (2)!
            runs[name, "LiteRT"] = litert(layers, inside, len(images))
            runs[name, "Keras"] = in_keras(layers, bits)
        rounds = in_turns(runs, images)
        took = {key: 1e6 * min(each) for key, each in rounds.items()}
        apart = np.median([max(each) / min(each) for each in rounds.values()])
        print(f"slowest round by fastest, in the middle: {apart:.1f}")
        return {
            name: f"{took[name, 'LiteRT']:9.1f}{'* '[bits != 4]}"
            f"{took[name, 'Keras']:7.0f}"
            for name, (_, bits) in nets.items()
        }

    nets = {
        name: (read(folder / f"{name} 0.npz"), bits)
        for name, (_, _, bits) in ROWS.items()
    }
    print("one image; * computed in float32")
    spent = both_ways(nets, x_test[:1])
    print("                          kB               µs")
    print("                     plain deflated   LiteRT   Keras  right, %")
    for name, times in spent.items():
        plain, deflated, share = table[name]
        print(f"{name:20}{plain:6.1f}{deflated:9.1f}{times}", end="")
        print(f"{share.mean():7.1f} ± {share.std(ddof=1):.1f}")
    for name in ("int8", "taught, int8"):
        litert(nets[name][0], 8)
        found = Interpreter(str(folder / "model.tflite")).get_tensor_details()
        shapes = [d["shape"].tolist() for d in found if d["dtype"] == np.int8]
        print(f"{name}, in LiteRT in int8:", *shapes)

    thin = [(k[:512, :512], b[:512]) for k, b in wide]  # (3)!
    nets = {
        "float32": (wide, 32),
        "nine zeros in ten": (zeros, 32),
        "int8": (wide, 8),
        "int4": (wide, 4),
        "a quarter of units": (thin, 32),
    }
    for batch in (1, 64):
        images = rng.normal(size=(batch, 512)).astype("float32")
        print(f"5 million weights, batch {batch}, µs, LiteRT and Keras")
        for name, times in both_ways(nets, images).items():
            print(f"{name:20}{times}")
# --8<-- [end:long-table]

# --8<-- [start:keras]
kernel, bias = layers[0]
theirs, scales = keras.quantizers.abs_max_quantize(kernel, axis=0)
ours, steps = quantize(kernel, axis=0)
apart = np.abs(np.array(theirs).astype(int) - ours)  # (1)!
print("integers agree, but 1 in 1,000 by 1 at most:", apart.max() <= 1, end=" ")
print(apart.mean() < 1e-3)
print("steps agree:", np.allclose(1 / np.array(scales), steps, rtol=1e-4))

teacher_z, student_z = scores(large, SEEDS, x_test[:500])[:2]
peer = keras.distillation.LogitsDistillation(3.0, keras.losses.KLDivergence())
theirs = peer.compute_loss(teacher_z, student_z)
ours = np.mean(distillation_loss(teacher_z, student_z, 3.0))
print("losses agree:", np.allclose(theirs, ours, rtol=1e-3))

for mode in (None, "int8", "int4"):
    model = dense(layers)
    if mode:
        model.quantize(mode)
    model.save(folder / "model.keras")
    size = (folder / "model.keras").stat().st_size / 1000
    share = (np.argmax(model(x_test), axis=-1) == y_test).mean()
    print(f"{mode or 'float32':8}{size:6.1f} kB, accuracy {share:.3f}")
# --8<-- [end:keras]


# --8<-- [start:outlier]
def scaled_unit(layers):
    (k0, b0), (k1, b1), last = layers
    factors = np.where(np.arange(len(b0)) == 7, np.float32(20), np.float32(1))
    return [(k0 * factors, b0 * factors), (k1 / factors[:, None], b1), last]


def scaled_pixel(layers):
    (k0, b0), *rest = layers
    factors = np.where(np.arange(len(k0)) == 100, np.float32(20), np.float32(1))
    return [(k0 * factors[:, None], b0), *rest]


dim = x_test.copy()
dim[:, 100] /= 20
WAYS = {"a matrix": 0, "a column": 1, "a quarter column": 4}
print("int4, a step          ", *WAYS)
for name, change, shown in (
    ("as trained", list, x_test),
    ("one unit times 20", scaled_unit, x_test),
    ("one pixel by 20", scaled_pixel, dim),
):
    model = change(layers)
    assert (
        answer(model, shown) == answer(layers, x_test)
    ).mean() > 0.999  # (1)!
    shares = [right(rounded(model, 4, parts), shown) for parts in WAYS.values()]
    print(f"{name:20}", "".join(f"{share:10.2f}" for share in shares))
# --8<-- [end:outlier]

# --8<-- [start:revived]
model = SideBySide(LARGE, [0])
optimizer = keras.optimizers.Adam()
step = make_step(model, optimizer, summed_cross_entropy)
train(step, feed(1, labels), 20)
for kernel in model.kernels:
    kernel.assign(kernel * keep_largest([kernel], 0.1)[0])
optimizer.apply([ops.zeros_like(v) for v in model.trainable_variables])
alive = [np.mean(kernel.numpy() != 0) for kernel in model.kernels]
print("not 0 after an update with gradient 0:", np.round(alive, 2))
# --8<-- [end:revived]

# --8<-- [start:silent]
from aimodels.cnn import lenet

model = lenet(10)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    model.quantize("int8")
for layer in model.layers:
    if layer.weights:
        print(type(layer).__name__, sorted({w.dtype for w in layer.weights}))
passed = [w for w in heard if "`quantize` method" in str(w.message)]
print("warnings of layers passed over:", len(passed))
# --8<-- [end:silent]

# --8<-- [start:default]
z = np.array([[3.0, 1.0, 0.0]], "float32")
for name, loss in (
    ("the default", keras.distillation.LogitsDistillation(2.0)),
    (
        "KLDivergence()",
        keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence()),
    ),
):
    found = [float(loss.compute_loss(z, other)) for other in (z, z + 5, 2 * z)]
    print(f"{name:15}", np.round(found, 2))
# --8<-- [end:default]


# --8<-- [start:solution-activations]
def both_rounded(layers, z):
    for n, (kernel, bias) in enumerate(layers):
        z = np.maximum(z, 0) if n else z
        integers, steps = quantize(z, 8, axis=1)
        weights, sizes = quantize(kernel, 8, axis=0)
        sums = integers.astype("int32") @ weights.astype("int32")
        z = sums * steps * sizes + bias
    return z.argmax(-1)


share = (both_rounded(layers, x_test) == y_test).mean()
print(f"both in int8: {share:.3f}, float32: {right(layers):.3f}")
assert abs(share - right(layers)) < 0.01

x0, kernel = x_test[:1000], layers[0][0]
integers, steps = quantize(x0, 8, axis=1)
weights, sizes = quantize(kernel, 8, axis=0)
off = np.abs((integers * steps) @ (weights * sizes) - x0 @ kernel)
bound = sizes / 2 * np.abs(x0).sum(1, keepdims=True)
bound = bound + steps / 2 * np.abs(weights * sizes).sum(0)
print(f"largest error as a share of the bound: {(off / bound).max():.2f}")
assert (off <= bound).all()
# --8<-- [end:solution-activations]

# --8<-- [start:solution-groups]
columns = sum(kernel.shape[1] for kernel, _ in layers)
weights = sum(kernel.size for kernel, _ in layers)
errors = []
for parts in (1, 2, 4):
    better = np.array([right(rounded(o, 4, parts)) for o in own])
    new = rounded(layers, 4, parts)[0][0]
    errors.append(np.sqrt(np.mean((new - layers[0][0]) ** 2)))
    bits = 4 + 32 * parts * columns / weights
    print(f"{bits:.2f} bits a weight, error {errors[-1]:.4f}", end="")
    print(f", accuracy {better.mean() - full.mean():+.3f}")
assert errors == sorted(errors, reverse=True)
# --8<-- [end:solution-groups]

# --8<-- [start:solution-stages]
gradual = SideBySide(LARGE, range(SEEDS))
start(gradual, exact, biases)
falling = keras.optimizers.schedules.CosineDecayRestarts(2e-3, 100, 1.0)  # (1)!
optimizer = keras.optimizers.Adam(falling)
step = make_step(gradual, optimizer, summed_cross_entropy, True)
after = feed(SEEDS, labels, first=100)
for share in (0.5, 0.2, 0.1):
    chosen = [
        keep_largest([k.numpy()[r] for k in gradual.kernels], share)
        for r in range(SEEDS)
    ]
    masks = [np.stack(layer) for layer in zip(*chosen, strict=True)]
    train(masked_step(step, gradual.kernels, masks), after, 100)
gap = accuracy(gradual, SEEDS)[0] - retrained[3]
print(f"three stages against one: {gap.mean():+.3f} ± {gap.std(ddof=1):.3f}")
assert all((k.numpy() != 0).mean() < 0.3 for k in gradual.kernels)
# --8<-- [end:solution-stages]
