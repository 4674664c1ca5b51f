# --8<-- [start:cut]
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from aimodels import datasets
from aimodels.vit import (
    VisionTransformer,
    assemble,
    multiply_adds,
    parameter_count,
    patches,
    resize_positions,
)

photo = datasets.photograph("flower")[:384, 128:512]
photo = photo.reshape(1, 128, 3, 128, 3, 3).mean((2, 4)) / 255  # (1)!
tokens = np.array(patches(photo, 32))
print("image  ", photo.shape)
print("patches", tokens.shape)

figure, axes = plt.subplots(4, 4, figsize=(3.6, 3.6))
for t, axis in enumerate(axes.flat):
    axis.imshow(tokens[0, t].reshape(32, 32, 3))
    axis.set_axis_off()
    axis.text(2, 8, f"{t}", color="white")
# --8<-- [end:cut]


# --8<-- [start:by-hand]
def cut(images, size):
    batch, height, width, channels = images.shape
    down, across = height // size, width // size
    x = images.reshape(batch, down, size, across, size, channels)  # (1)!
    x = x.transpose(0, 1, 3, 2, 4, 5)  # (2)!
    return x.reshape(batch, down * across, size * size * channels)


tiny = np.arange(16).reshape(1, 4, 4, 1)
print(tiny[0, :, :, 0])
print(cut(tiny, 2)[0])
print("as in the module:", np.array_equal(cut(photo, 32), tokens))
back = assemble(tokens, 128, 32)
print("assembled again: ", np.array_equal(back, photo))
# --8<-- [end:by-hand]

# --8<-- [start:convolution]
rng = np.random.default_rng(0)
images = rng.normal(size=(2, 28, 28, 3)).astype("float32")
kernel = rng.normal(size=(7, 7, 3, 32)).astype("float32")
bias = rng.normal(size=32).astype("float32")

dense = np.array(patches(images, 7)) @ kernel.reshape(147, 32) + bias
slid = np.array(ops.conv(images, kernel, strides=7)) + bias  # (1)!
error = np.abs(dense - slid.reshape(2, 16, 32)).max() / np.abs(slid).max()
print("patches times weights:", dense.shape)
print("convolution, stride 7:", slid.shape)
print("relative difference below 1e-5:", error < 1e-5)
# --8<-- [end:convolution]


# --8<-- [start:order]
SMALL = {"width": 32, "depth": 2, "hidden": 96}


def vit(shape=SMALL, **options):
    model = VisionTransformer(10, 28, 7, heads=4, **shape, **options)
    model.build((None, 28, 28, 1))
    return model


train_set, test_set = datasets.fashion_mnist()


def scaled(images):
    return ((images[..., None] / 255 - 0.286) / 0.353).astype("float32")  # (1)!


x, y = scaled(train_set.x[:8000]), train_set.y[:8000].astype("int32")
x_test, y_test = scaled(test_set.x[:5000]), test_set.y[:5000]


def reordered(images, order):
    return assemble(np.array(patches(images, 7))[:, order], 28, 7)


keras.utils.set_random_seed(0)
order = np.random.default_rng(0).permutation(16)
for positions in (False, True):
    model = vit(positions=positions)
    one, other = model(x[:100]), model(reordered(x[:100], order))
    change = np.abs(one - other).max() / np.abs(one).max()
    print("positions" if positions else "none     ", end=": ")
    print("same" if change < 1e-5 else "different")
# --8<-- [end:order]

# --8<-- [start:published]
base = {"width": 768, "depth": 12, "hidden": 3072}
large = {"width": 1024, "depth": 24, "hidden": 4096}
huge = {"width": 1280, "depth": 32, "hidden": 5120}
table = (
    ("B/16", 16, base, 86),
    ("L/16", 16, large, 307),
    ("L/32", 32, large, 307),
    ("H/14", 14, huge, 632),
)
print("        no head   with head  paper")
for name, patch, shape, paper in table:
    bare, full = (parameter_count(n, 224, patch, **shape) for n in (0, 1000))
    print(f"{name}{bare:12,}{full:12,}{paper:5} M")

with keras.StatelessScope(initialize_variables=False):  # (1)!
    model = VisionTransformer(1000, 224, 16, heads=12, **base)
    model.build((None, 224, 224, 3))
print(f"B/16 built: {model.count_params():,}")
# --8<-- [end:published]

# --8<-- [start:budget]
from aimodels.cnn import lenet


def work(model):  # (1)!
    total = 0
    for layer in model.layers:
        if layer.weights:
            places = np.prod(layer.output.shape[1:-1], dtype=int)
            total += places * np.prod(layer.kernel.shape)
    return total


WIDER = {"width": 48, "depth": 3, "hidden": 96}
builds = {
    "LeNet": lambda: lenet(10),
    "ViT": vit,
    "wider ViT": lambda: vit(WIDER),
}
products = {
    "LeNet": work(lenet(10)),
    "ViT": multiply_adds(10, 28, 7, **SMALL, channels=1),
    "wider ViT": multiply_adds(10, 28, 7, **WIDER, channels=1),
}
print("           parameters  multiply-adds")
for name, build in builds.items():
    print(f"{name:9}{build().count_params():12,}{products[name]:15,}")
# --8<-- [end:budget]

# --8<-- [start:train]
from aimodels.training import batches, make_step, train


def cross_entropy(y, logits):
    losses = keras.losses.sparse_categorical_crossentropy
    return ops.mean(losses(y, logits, from_logits=True))


def accuracy(model, images, labels=y_test):
    logits = np.array(model(images))
    return (logits.argmax(-1) == labels[: len(images)]).mean()


class Racer:
    def __init__(self, build, jit=True):
        self.build, self.model = build, build()
        self.optimizer = keras.optimizers.Adam()
        self.step = make_step(
            self.model, self.optimizer, cross_entropy, jit_compile=jit
        )
        self.zero = [v.numpy() for v in self.optimizer.variables]

    def run(self, data, rate, seed=0, steps=400, change=None):
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self.build().get_weights())  # (1)!
        for v, value in zip(self.optimizer.variables, self.zero, strict=True):
            v.assign(value)

        def cool(number, loss):  # (2)!
            now = rate * (1 + np.cos(np.pi * number / steps)) / 2
            self.optimizer.learning_rate = now

        cool(0, None)
        source = batches(data, 32, seed)
        if change:
            source = ((change(images), labels) for images, labels in source)
        train(self.step, source, steps, after=cool)
        return accuracy(self.model, x_test)


race_cnn, race_vit = Racer(builds["LeNet"], jit=False), Racer(vit)
print(f"LeNet {race_cnn.run((x, y), 0.004):.2f}")
print(f"ViT   {race_vit.run((x, y), 0.004):.2f}")
# --8<-- [end:train]

# --8<-- [start:long-contest]
import os

if "HANDBOOK_LONG" in os.environ:
    STEPS, sizes = 800, (400, 3200, 25600)  # (1)!
    X, Y = scaled(train_set.x), train_set.y.astype("int32")

    def draw(samples, seed):
        rows = np.random.default_rng(seed).permutation(50000)[:samples]
        return X[rows], Y[rows]

    racers = {name: Racer(builds[name], name != "LeNet") for name in builds}
    rates, scores = {}, {}
    for name, racer in racers.items():
        tried = {}
        for rate in (0.001, 0.002, 0.004):
            racer.run(draw(3200, 9), rate, seed=9, steps=STEPS)
            tried[rate] = accuracy(racer.model, X[50000:], Y[50000:])  # (2)!
        rates[name] = max(tried, key=tried.get)
        print(f"{name}, rate {rates[name]}")
        for n in sizes:
            scores[name, n] = [
                racer.run(draw(n, seed), rates[name], seed, STEPS)
                for seed in range(3)
            ]
            each = " ".join(f"{share:.3f}" for share in scores[name, n])
            print(f"{n:8,}: {np.mean(scores[name, n]):.3f}  ({each})")

    figure, axis = plt.subplots()
    for name in racers:
        means = [np.mean(scores[name, n]) for n in sizes]
        (line,) = axis.semilogx(sizes, means, "o-", label=name)
        for n in sizes:
            axis.plot([n] * 3, scores[name, n], "_", color=line.get_color())
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set(xlabel="training images", ylabel="test accuracy")
    axis.legend()
# --8<-- [end:long-contest]

# --8<-- [start:long-variants]
if "HANDBOOK_LONG" in os.environ:
    rng = np.random.default_rng(0)

    def shifted(images):  # (1)!
        corners = rng.integers(0, 5, (len(images), 2))
        wide = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], "edge")
        pairs = zip(wide, corners, strict=True)
        return np.stack([w[i : i + 28, j : j + 28] for w, (i, j) in pairs])

    variants = {
        "mean over the patches": (Racer(lambda: vit(pool="mean")), 3200, None),
        "no positions": (Racer(lambda: vit(positions=False)), 3200, None),
        "400, shifted": (racers["ViT"], 400, shifted),
        "LeNet, 400, shifted": (racers["LeNet"], 400, shifted),
    }
    for name, (racer, n, change) in variants.items():
        rate = rates["LeNet" if "LeNet" in name else "ViT"]
        found = [
            racer.run(draw(n, seed), rate, seed, STEPS, change)
            for seed in range(3)
        ]
        each = " ".join(f"{share:.3f}" for share in found)
        print(f"{name:22}{np.mean(found):.3f}  ({each})")
# --8<-- [end:long-variants]

# --8<-- [start:similarity]
model = race_vit.model
learned = model.positions.numpy()[1:]
learned -= learned.mean(0)  # (1)!
unit = learned / np.linalg.norm(learned, axis=1, keepdims=True)
alike = unit @ unit.T

place = np.stack(np.divmod(np.arange(16), 4), 1)
apart = np.abs(place[:, None] - place).sum(-1)
for steps in (1, 2, 3, 4):
    print(f"{steps} apart: similarity {alike[apart == steps].mean():.2f}")

figure, axes = plt.subplots(4, 4, figsize=(4.4, 3.6))
for t, axis in enumerate(axes.flat):
    drawn = axis.imshow(alike[t].reshape(4, 4), vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_axis_off()
figure.colorbar(drawn, ax=axes, label="similarity")
# --8<-- [end:similarity]


# --8<-- [start:map]
def last_weights(model, images):
    x = model.tokens(images)
    for block in model.blocks[:-1]:
        x = block(x)
    last = model.blocks[-1]
    normed = last.norms[0](x)
    _, weights = last.attend(normed, return_weights=True)  # (1)!
    return np.array(weights)


read = last_weights(model, x_test[:1000]).mean(1)[:, 0]  # (2)!
print(f"read from itself: {read[:, 0].mean():.2f}")
print(f"patches: {read[:, 1:].min():.2f} to {read[:, 1:].max():.2f}")

figure, axes = plt.subplots(2, 5, figsize=(6.4, 2.8))
for column, label in enumerate((1, 3, 5, 8, 9)):
    shown = np.flatnonzero(y_test == label)[0]
    top, bottom = axes[:, column]
    top.imshow(x_test[shown, :, :, 0], cmap="gray")
    bottom.imshow(read[shown, 1:].reshape(4, 4), cmap="viridis", vmin=0)
    top.set_axis_off()
    bottom.set_axis_off()
# --8<-- [end:map]

# --8<-- [start:peer]
layers = keras.layers


class AddPlaces(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight((1, 1, shape[-1]))
        self.places = self.add_weight((shape[1] + 1, shape[-1]))

    def call(self, x):
        token = ops.repeat(self.token, ops.shape(x)[0], axis=0)
        return ops.concatenate([token, x], axis=1) + self.places


def by_keras(shape, classes, inner):
    width, heads = inner["width"], inner["heads"]
    images = keras.Input(shape)
    x = layers.Conv2D(width, inner["patch"], strides=inner["patch"])(images)
    x = AddPlaces()(layers.Reshape((-1, width))(x))
    for _ in range(inner["depth"]):
        z = layers.LayerNormalization(epsilon=1e-6)(x)
        x += layers.MultiHeadAttention(heads, width // heads)(z, z)
        z = layers.LayerNormalization(epsilon=1e-6)(x)
        z = layers.Dense(inner["hidden"], activation="gelu")(z)
        x += layers.Dense(width)(z)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(images, layers.Dense(classes)(x[:, 0]))


def ours_in_order(model):  # (1)!
    parts = [model.embed, model.token, model.positions]
    for block in model.blocks:
        parts += [block.norms[0], block.attend, block.norms[1], block.feed]
    for part in (*parts, model.norm, model.head):
        yield from getattr(part, "weights", [part])


largest = 0
for trial in range(4):
    rng = np.random.default_rng(trial)
    down, across, patch, channels, heads = rng.integers(1, 5, 5).tolist()
    width = heads * int(rng.integers(1, 9))
    shape = (down * patch, across * patch, channels)
    inner = {"patch": patch, "width": width, "heads": heads}
    inner |= {"depth": trial % 3 + 1, "hidden": 2 * width}
    ours = VisionTransformer(5, shape[:2], **inner)
    ours.build((None, *shape))
    ours.set_weights([rng.normal(size=w.shape) / 3 for w in ours.get_weights()])
    theirs = by_keras(shape, 5, inner)
    for mine, other in zip(ours_in_order(ours), theirs.weights, strict=True):
        other.assign(ops.reshape(mine, other.shape))
    images = rng.normal(size=(3, *shape)).astype("float32")
    a, b = np.array(ours(images)), np.array(theirs(images))
    largest = max(largest, np.abs(a - b).max() / np.abs(b).max())
print("largest relative difference below 1e-5:", largest < 1e-5)
# --8<-- [end:peer]

# --8<-- [start:divisible]
try:
    patches(np.zeros((1, 28, 28, 1)), 8)
except ValueError as error:
    print(error)
# --8<-- [end:divisible]

# --8<-- [start:resized]
some = x_test[:1000]
larger = np.array(ops.image.resize(some, (42, 42)))  # (1)!
at_42 = VisionTransformer(10, 42, 7, heads=4, **SMALL)
at_42.build((None, 42, 42, 1))
stretched = resize_positions(model.positions.numpy(), (4, 4), (6, 6))
kept = np.zeros((37, 32), "float32")
kept[:17] = model.positions.numpy()

print(f"28 pixels, 4 x 4 patches:  {accuracy(model, some):.2f}")
for name, positions in [("stretched", stretched), ("first rows", kept)]:
    for new, old in zip(at_42.weights, model.weights, strict=True):
        new.assign(positions if old is model.positions else old)
    print(f"42 pixels, {name:14}  {accuracy(at_42, larger):.2f}")
# --8<-- [end:resized]

# --8<-- [start:columns]
by_columns = np.arange(16).reshape(4, 4).T.ravel()
moved = reordered(some, by_columns)
raw = test_set.x[:1000, ..., None]
print(f"as trained:         {accuracy(model, some):.2f}")
print(f"column by column:   {accuracy(model, moved):.2f}")
print(f"pixels 0 to 255:    {accuracy(model, raw):.2f}")
# --8<-- [end:columns]

# --8<-- [start:solution-patch]
print("patch  tokens  parameters  multiply-adds  for pairs")
for patch in (32, 16, 8, 4):
    tokens = (224 // patch) ** 2 + 1
    count = parameter_count(1000, 224, patch, **base)
    total = multiply_adds(1000, 224, patch, **base)
    pairs = 12 * 2 * tokens**2 * 768
    print(
        f"{patch:5}{tokens:8,}{count / 1e6:10.1f} M"
        f"{total / 1e9:13.1f} G{pairs / total:11.2f}"
    )
assert 78e9 < multiply_adds(1000, 224, 8, **base) < 79e9
# --8<-- [end:solution-patch]

# --8<-- [start:solution-blind]
rng = np.random.default_rng(1)
tiles, pixels = rng.permutation(16), rng.permutation(49)
cut_up = np.array(patches(some, 7))[:, tiles][:, :, pixels]
scrambled = assemble(cut_up, 28, 7)

twin = vit()
twin.set_weights(model.get_weights())
kernel, bias = model.embed.get_weights()
twin.embed.set_weights([kernel[pixels], bias])
twin.positions.assign(ops.take(model.positions, [0, *(tiles + 1)], axis=0))
one, other = np.array(model(some)), np.array(twin(scrambled))
assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()
print(f"scrambled images, old weights: {accuracy(model, scrambled):.2f}")
print(f"scrambled images, new weights: {accuracy(twin, scrambled):.2f}")
# --8<-- [end:solution-blind]
