# --8<-- [start:sizes]
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels import datasets, gpt
from aimodels.finetuning import (
    LayerwiseAdam,
    LoRA,
    adapt,
    captured,
    dense_work,
    depth_factors,
    freeze,
    merge,
    trainable_count,
    training_bytes,
)
from aimodels.training import batches, make_step, train
from aimodels.vit import VisionTransformer

print("width    the matrix    rank 8   share")
for width in (32, 768, 12_288):
    low = 8 * (width + width)
    print(f"{width:6,}{width**2:13,}{low:10,}{low / width**2:8.2%}")
# --8<-- [end:sizes]

# --8<-- [start:by-hand]
rng = np.random.default_rng(0)
x, kernel = rng.normal(size=(2, 6)), rng.normal(size=(6, 4))
a, b, alpha, rank = rng.normal(size=(6, 2)), np.zeros((2, 4)), 4, 2

start = x @ kernel + alpha / rank * (x @ a) @ b  # (1)!
print("at first exactly x W:", np.array_equal(start, x @ kernel))

b = rng.normal(size=(2, 4))  # (2)!
beside = x @ kernel + alpha / rank * (x @ a) @ b
merged = x @ (kernel + alpha / rank * a @ b)
print("beside W or merged into it:", np.allclose(beside, merged))
update = kernel + alpha / rank * a @ b - kernel
print("rank of the update:", np.linalg.matrix_rank(update))
# --8<-- [end:by-hand]

# --8<-- [start:model]
PARTS = ("query", "key", "value", "merge", "widen", "narrow")


def vit():
    body = VisionTransformer(0, 28, 7, width=32, heads=4, depth=2, hidden=96)
    body.build((None, 28, 28, 1))
    return body


keras.utils.set_random_seed(0)
body, images = vit(), np.ones((1, 28, 28, 1), "float32")
before = np.array(body(images))
print(f"plain          {trainable_count(body):7,} trained")
adapters = adapt(body, PARTS, rank=4)  # (1)!
freeze(body, *adapters)  # (2)!
print(f"{len(adapters)} with LoRA   {trainable_count(body):7,} trained")
print("same output:", np.array_equal(body(images), before))

adapters[0].b.assign(adapters[0].b + 1)  # (3)!
tuned = np.array(body(images))
count = merge(body)
gap = np.abs(body(images) - tuned).max() / np.abs(tuned).max()
print(f"{count} merged, relative difference below 1e-5:", gap < 1e-5)
print(f"numbers in the model: {body.count_params():,}")
# --8<-- [end:model]

# --8<-- [start:published]
layers, width = 96, 12_288
everything = gpt.parameter_count(50_257, 2048, width, layers)
print(f"GPT-3: {everything:,}")
for rank, kinds in ((1, 2), (4, 2), (8, 1), (8, 2)):
    low = layers * kinds * rank * (width + width)
    share = everything / low
    print(f"R = {rank}, {kinds} matrices a layer: {low:10,}  1 : {share:,.0f}")

low = layers * 2 * 4 * (width + width)
print("gigabytes     weights  gradients  Adam  together")
for name, weights, trained in (
    ("full", everything, everything),
    ("LoRA, R = 4", everything + low, low),
):
    kept = training_bytes(weights, trained)
    each = [size / 1e9 for size in kept.values()]
    w, g, o = (f"{size:,.1f}" for size in each)
    print(f"{name:13}{w:>8}{g:>11}{o:>8}{sum(each):9,.0f}")
# --8<-- [end:published]

# --8<-- [start:work]
print("multiplications for one token and one matrix, in millions")
for name, rank in (("full", None), ("LoRA, R = 4", 4), ("LoRA, R = 64", 64)):
    forward, backward = (n / 1e6 for n in dense_work(4096, 4096, rank))
    total = forward + backward
    print(f"{name:13}{forward:6.1f} + {backward:4.1f} = {total:4.1f}")
# --8<-- [end:work]

# --8<-- [start:task]
train_set, test_set = datasets.fashion_mnist()


def some(images, classes):  # (1)!
    rows = np.isin(images.y, classes)
    x = (images.x[rows][..., None] / 255 - 0.286) / 0.353
    y = np.searchsorted(classes, images.y[rows])
    return x.astype("float32"), y.astype("int32")


OLD, NEW = (0, 1, 4, 5, 8), (2, 3, 6, 7, 9)  # (2)!
old, old_test = some(train_set, OLD), [p[:1000] for p in some(test_set, OLD)]
new, new_test = some(train_set, NEW), [p[:2000] for p in some(test_set, NEW)]
choose = [part[-1000:] for part in new]  # (3)!


def few(seed, data=new, labels=100):
    rows = np.random.default_rng(seed).permutation(20000)[:labels]
    return data[0][rows], data[1][rows]


figure, axes = plt.subplots(2, 5, figsize=(6.4, 2.8))
for (images, labels), row in ((old, axes[0]), (new, axes[1])):
    for label, axis in enumerate(row):
        axis.imshow(images[labels == label][0, ..., 0], cmap="gray")
        axis.set_axis_off()
print("old task:", len(old[0]), "images; new task:", len(few(0)[0]))
# --8<-- [end:task]


# --8<-- [start:tuner]
def cross_entropy(y, logits):
    losses = keras.losses.sparse_categorical_crossentropy
    return ops.mean(losses(y, logits, from_logits=True))


def right(model, images, labels):
    return float((np.array(model(images)).argmax(-1) == labels).mean())


class Tuner:
    def __init__(self, kind, rank=None):
        self.body, self.head = vit(), keras.layers.Dense(5)
        layers = [keras.Input((28, 28, 1)), self.body, self.head]
        self.model = keras.Sequential(layers)
        self.weights, self.adapters = list(self.body.variables), []
        self.optimizer = keras.optimizers.Adam()
        if kind == "LoRA":
            self.adapters = adapt(self.body, PARTS, rank)
        if kind in ("head", "LoRA"):
            freeze(self.model, self.head, *self.adapters)
        if kind == "layer-wise":
            low = [*self.body.embed.variables, self.body.token]
            groups = [[*low, self.body.positions]]
            groups += [block.variables for block in self.body.blocks]
            groups += [[*self.body.norm.variables, *self.head.variables]]
            factors = depth_factors(groups, 2.6)  # (1)!
            self.optimizer = LayerwiseAdam(factors=factors)
        self.step = make_step(
            self.model, self.optimizer, cross_entropy, jit_compile=True
        )
        self.zero = [v.numpy() for v in self.optimizer.variables]

    def begin(self, weights, seed):  # (2)!
        keras.utils.set_random_seed(seed)
        fresh = [v.numpy() for v in vit().variables]
        for v, new in zip(self.weights, weights or fresh, strict=True):
            v.assign(new)
        for adapter in self.adapters:
            adapter.a.assign(keras.initializers.HeUniform()(adapter.a.shape))
            adapter.b.assign(ops.zeros_like(adapter.b))
        kernel, bias = self.head.variables
        kernel.assign(keras.initializers.GlorotUniform()(kernel.shape))
        bias.assign(ops.zeros_like(bias))
        for v, new in zip(self.optimizer.variables, self.zero, strict=True):
            v.assign(new)

    def run(self, data, rate, weights=None, *, seed=0, steps=100, size=32):
        self.begin(weights, seed)

        def cool(number, loss):
            now = rate * (1 + np.cos(np.pi * number / steps)) / 2
            self.optimizer.learning_rate = now

        cool(0, None)
        train(self.step, batches(data, size, seed), steps, after=cool)
        return self


# --8<-- [end:tuner]

# --8<-- [start:pretrain]
full = Tuner("full")
full.run(old, 0.003, steps=300, size=64)
learned = [v.numpy() for v in full.weights]
old_head = [v.numpy() for v in full.head.variables]


def remembered(tuner, head=old_head):  # (1)!
    return right(lambda x: tuner.body(x) @ head[0] + head[1], *old_test)


print(f"old task: {remembered(full):.2f}")
# --8<-- [end:pretrain]

# --8<-- [start:methods]
lora, head = Tuner("LoRA", rank=4), Tuner("head")
print("              trained   new    old")
for name, tuner, rate, weights in (
    ("from scratch", full, 0.003, None),
    ("head alone", head, 0.03, learned),
    ("LoRA, R = 4", lora, 0.01, learned),
    ("full", full, 0.003, learned),
):
    tuner.run(few(0), rate, weights)
    shown = f"{right(tuner.model, *new_test):.2f}"
    if weights:
        shown += f"   {remembered(tuner):.2f}"
    print(f"{name:13}{trainable_count(tuner.model):8,}   {shown}")
# --8<-- [end:methods]

# --8<-- [start:long-table]
import os

if "HANDBOOK_LONG" in os.environ:
    rates = (0.001, 0.003, 0.01, 0.03)
    bodies = []
    for seed in range(3):  # (1)!
        full.run(old, 0.003, seed=seed, steps=300, size=64)
        kept = [[v.numpy() for v in full.weights]]
        kept.append([v.numpy() for v in full.head.variables])
        bodies.append(kept)
    tuners = {"from scratch": full, "head alone": head}
    tuners |= {f"LoRA, R = {r}": Tuner("LoRA", r) for r in (1, 2, 4, 8)}
    tuners |= {"layer-wise": Tuner("layer-wise"), "full": full}
    scores, chosen = {}, {}  # scores: [rates, seeds, (choose, new, old)]
    print("              trained    rate    new  (seeds)                old")
    for name, tuner in tuners.items():
        table = np.zeros((len(rates), 3, 3))
        for i, rate in enumerate(rates):
            for seed, (weights, old_top) in enumerate(bodies):
                start = None if name == "from scratch" else weights
                tuner.run(few(seed), rate, start, seed=seed)
                table[i, seed] = (
                    right(tuner.model, *choose),
                    right(tuner.model, *new_test),
                    remembered(tuner, old_top),
                )
        scores[name] = table
        best = table[:, :, 0].mean(1).argmax()  # (2)!
        chosen[name] = rates[best]
        learnt, kept = table[best, :, 1], table[best, :, 2]
        each = " ".join(f"{share:.3f}" for share in learnt)
        line = f"{name:13}{trainable_count(tuner.model):8,}{rates[best]:8}"
        line += f"  {learnt.mean():.3f}  ({each})"
        print(line + (f"  {kept.mean():.2f}" if start else ""))

    figure, (left, side) = plt.subplots(1, 2, figsize=(8, 3.6))
    for name in ("head alone", "LoRA, R = 1", "LoRA, R = 8", "full"):
        (line,) = left.semilogx(rates, scores[name][:, :, 1].mean(1), "o-")
        line.set_label(name)
        learnt, kept = scores[name][:, :, 1:].mean(1).T
        side.plot(learnt, kept, "o", color=line.get_color())
    left.set(xlabel="learning rate", ylabel="accuracy, new task")
    side.set(xlabel="accuracy, new task", ylabel="accuracy, old task")
    left.legend()
# --8<-- [end:long-table]

# --8<-- [start:long-unrelated]
if "HANDBOOK_LONG" in os.environ:
    tops, shoes = (some(train_set, np.arange(5) + n) for n in (0, 5))
    x, y = (part[:2000] for part in some(test_set, np.arange(5, 10)))
    found = {"from scratch": [], "full": []}
    for seed in range(3):
        full.run(tops, 0.003, seed=seed, steps=300, size=64)
        weights = [v.numpy() for v in full.weights]
        for name, start in (("from scratch", None), ("full", weights)):
            full.run(few(seed, shoes), chosen[name], start, seed=seed)
            found[name].append(right(full.model, x, y))
    for name, shares in found.items():
        each = " ".join(f"{share:.3f}" for share in shares)
        print(f"{name:13}{np.mean(shares):.3f}  ({each})")
# --8<-- [end:long-unrelated]

# --8<-- [start:rank]
full.run(few(0), 0.003, learned)
kernels = [  # (1)!
    n for n, v in enumerate(full.weights) if "block" in v.path and v.ndim == 2
]
updates = [full.weights[n].numpy() - learned[n] for n in kernels]
shares = np.mean([captured(u)[:32] for u in updates], axis=0)
rng = np.random.default_rng(0)
noise = [captured(rng.normal(size=u.shape))[:32] for u in updates]
chance = np.mean(noise, axis=0)

ranks, found = (1, 2, 4, 8, 16, 32), []
tuned = [v.numpy() for v in full.weights]
print("rank  share  of noise  accuracy")
for rank in ranks:
    for n, update in zip(kernels, updates, strict=True):
        u, s, v = np.linalg.svd(update, full_matrices=False)
        full.weights[n].assign(learned[n] + (u * s)[:, :rank] @ v[:rank])
    found.append(right(full.model, *new_test))
    share = f"{shares[rank - 1]:.2f}      {chance[rank - 1]:.2f}"
    print(f"{rank:4}   {share}    {found[-1]:.2f}")
for n, value in enumerate(tuned):
    full.weights[n].assign(value)

figure, axis = plt.subplots()
axis.plot(range(1, 33), shares, label="update")
axis.plot(range(1, 33), chance, "--", label="noise")
axis.set(xlabel="rank", ylabel="share of the squares", ylim=(0, 1.02))
axis.legend()
# --8<-- [end:rank]

# --8<-- [start:long-cost]
if "HANDBOOK_LONG" in os.environ:
    import ctypes
    import time
    from pathlib import Path

    def megabytes(field):
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(s.split()[1]) for s in lines if s[:5] == field) / 1e3

    sizes = {"width": 512, "heads": 8, "depth": 4, "hidden": 2048}
    big = VisionTransformer(5, 28, 7, **sizes)
    big.build((None, 28, 28, 1))
    print(f"{big.count_params():,} parameters")
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # (1)!
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # (2)!
    begin = megabytes("VmRSS")
    print("                trained   counted      peak     step")
    for name in ("head alone", "LoRA, R = 4", "full"):
        if name == "head alone":
            freeze(big, big.head)
        elif name == "full":
            merge(big)
            freeze(big, big)
        else:
            freeze(big, big.head, *adapt(big, PARTS, 4))
        step = make_step(big, keras.optimizers.Adam(), cross_entropy)
        times = []
        for _ in range(20):
            clock = time.perf_counter()
            float(step(old[0][:32], old[1][:32]))
            times.append(time.perf_counter() - clock)
        trained = trainable_count(big)
        kept = training_bytes(big.count_params(), trained)
        counted = (kept["gradients"] + kept["optimizer"]) / 1e6
        peak = megabytes("VmHWM") - begin
        line = f"{name:13}{trained:11,}{counted:7.1f} MB{peak:7.0f} MB"
        print(line + f"{min(times) * 1e3:6.0f} ms")
        del step
# --8<-- [end:long-cost]

# --8<-- [start:peer]
largest = 0
for trial in range(8):
    rng = np.random.default_rng(trial)
    inputs, outputs = rng.integers(1, 20, 2).tolist()
    rank = int(rng.integers(1, min(inputs, outputs) + 1))
    alpha = float(rng.integers(1, 33))
    pair = [keras.layers.Dense(outputs, "gelu") for _ in range(2)]
    x = tf.constant(rng.normal(size=(2, 3, inputs)).astype("float32"))
    for layer in pair:
        layer.build(x.shape)
    pair[1].set_weights(pair[0].get_weights())
    ours, theirs = LoRA(pair[0], rank, alpha), pair[1]
    theirs.enable_lora(rank, lora_alpha=alpha)
    variables = [ours.a, ours.b], [theirs.lora_kernel_a, theirs.lora_kernel_b]
    for mine, other in zip(*variables, strict=True):
        mine.assign(rng.normal(size=mine.shape))
        other.assign(mine)
    both = []
    for layer, inner in zip((ours, theirs), variables, strict=True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = ops.sum(y * y)
        asked = [x, *(v.value for v in inner)]
        both.append([y, *tape.gradient(loss, asked)])
    for mine, other in zip(*both, strict=True):
        gap = np.abs(mine - other).max() / np.abs(other).max()
        largest = max(largest, gap)
print("outputs and gradients, relative difference below 1e-5:", largest < 1e-5)
trained = ("A, B", "A, B, bias")
same = trainable_count(theirs) - trainable_count(ours) == outputs
print(f"trained: ours {trained[0]}; Keras {trained[1]}:", same)
# --8<-- [end:peer]

# --8<-- [start:stale]
freeze(full.model, full.head)  # (1)!
before = full.body.embed.kernel.numpy()
full.optimizer.learning_rate = 0.001
full.step(*(part[:32] for part in few(0)))
moved = not np.array_equal(before, full.body.embed.kernel.numpy())
print("old step, frozen body moves:", moved)

step = make_step(full.model, keras.optimizers.Adam(0.001), cross_entropy)
before = full.body.embed.kernel.numpy()
step(*(part[:32] for part in few(0)))
moved = not np.array_equal(before, full.body.embed.kernel.numpy())
print("new step, frozen body moves:", moved)
# --8<-- [end:stale]

# --8<-- [start:nothing-left]
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
model.add(keras.layers.Dense(2))
model.trainable = False
model.layers[-1].trainable = True  # (1)!
print("trained, the model frozen first:", trainable_count(model))
freeze(model, model.layers[-1])
print("trained, after freeze:          ", trainable_count(model))
model.trainable = True  # (2)!
print("trained, the model thawed:      ", trainable_count(model))
freeze(model, model)
print("trained, really:                ", trainable_count(model))
# --8<-- [end:nothing-left]

# --8<-- [start:statistics]
norm = keras.layers.BatchNormalization()
model = keras.Sequential([keras.Input((8,)), norm, keras.layers.Dense(2)])
batch = 5 + np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
for v in norm.trainable_variables:
    v.trainable = False  # (1)!
model(batch, training=True)
print(f"variables frozen: mean {norm.moving_mean.numpy().mean():.2f}")
norm.moving_mean.assign(ops.zeros_like(norm.moving_mean))
freeze(model, model.layers[-1])
model(batch, training=True)
print(f"layer frozen:     mean {norm.moving_mean.numpy().mean():.2f}")
# --8<-- [end:statistics]

# --8<-- [start:scaled-gradient]
for kind in (keras.optimizers.SGD, keras.optimizers.Adam):
    moves = []
    for factor in (1.0, 0.1):
        v = keras.Variable([1.0])
        kind(0.1).apply([ops.array([2.0 * factor])], [v])
        moves.append(float(1 - v[0]))
    name = kind.__name__
    print(f"{name:4} moves {moves[0]:.2f}; for a tenth, {moves[1]:.2f}")
# --8<-- [end:scaled-gradient]

# --8<-- [start:solution-break-even]
for inputs, outputs in ((32, 32), (32, 96), (768, 3072)):
    size = inputs * outputs
    ranks = range(1, min(inputs, outputs) + 1)
    most = max(r for r in ranks if r * (inputs + outputs) < size)
    print(f"{inputs} x {outputs}: fewer numbers up to rank {most}")
    assert most == int(np.ceil(size / (inputs + outputs))) - 1
# --8<-- [end:solution-break-even]

# --8<-- [start:solution-swap]
saved = [(a.a.numpy(), a.b.numpy()) for a in lora.adapters]
before = right(lora.model, *new_test)
for adapter in lora.adapters:
    adapter.b.assign(ops.zeros_like(adapter.b))
at_zero = remembered(lora)
for adapter, (a, b) in zip(lora.adapters, saved, strict=True):
    adapter.a.assign(a)
    adapter.b.assign(b)
kept = sum(a.size + b.size for a, b in saved) + lora.head.count_params()
after = right(lora.model, *new_test)
print(f"old task, adapters at zero: {at_zero:.2f}")
print(f"new task, adapters back:    {after:.2f}")
print(f"kept for it: {kept:,} of {lora.model.count_params():,} numbers")
assert after == before
# --8<-- [end:solution-swap]
