# --8<-- [start:edges]
import matplotlib.pyplot as plt
import numpy as np

from aimodels.cnn import correlate2d
from aimodels.datasets import photograph

grey = photograph("china")[40:361, 60:360].mean(axis=2) / 255
mean = np.full((3, 3), 1 / 9)
grey = correlate2d(grey, mean, stride=3)  # (1)!
upright = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # (2)!
level = upright.T
maps = [correlate2d(grey, upright), correlate2d(grey, level)]
print("photograph", grey.shape, " edges", maps[0].shape)

figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.6))
crisp = {"interpolation": "none"}
axes[0].imshow(grey, "gray", **crisp)
for ax, edges in zip(axes[1:], maps, strict=True):
    ax.imshow(edges, "RdBu", vmin=-2, vmax=2, **crisp)  # (3)!
titles = "photograph", "upright edges", "level edges"
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title)
    ax.axis("off")
# --8<-- [end:edges]

# --8<-- [start:by-hand]
image = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
kernel = image.copy()
bias = 1

padded = np.pad(image, 1)  # (1)!
sums = np.zeros((3, 3), dtype=int)
for i in range(3):
    for j in range(3):
        window = padded[i : i + 3, j : j + 3]  # (2)!
        sums[i, j] = (window * kernel).sum()

print("valid:", max(0, (image * kernel).sum() + bias))  # (3)!
print("same:")
print(np.maximum(0, sums + bias))
assert (sums == correlate2d(image, kernel, padding="same")).all()
# --8<-- [end:by-hand]

# --8<-- [start:slide]
parts = {
    "image and zeros": (padded, (0, 0), 3),
    "kernel": (kernel, (0, 0), 3),
    "sums": (sums, (0, 0), 1),
}
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.4), width_ratios=(5, 3, 3))
for ax, (title, part) in zip(axes, parts.items(), strict=True):
    numbers, corner, side = part
    rows, columns = numbers.shape
    for (i, j), number in np.ndenumerate(numbers):
        ax.text(j + 0.5, i + 0.5, number, ha="center", va="center")
    ax.add_patch(plt.Rectangle(corner, side, side, alpha=0.3))  # (1)!
    ax.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", title=title)
    ax.set(xticks=range(columns + 1), yticks=range(rows + 1))
    ax.grid(visible=True)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)
# --8<-- [end:slide]

# --8<-- [start:flip]
import keras

from aimodels.cnn import convolve2d

point = np.zeros((5, 5))
point[2, 2] = 1
digits = np.arange(1.0, 10).reshape(3, 3)


def keras_conv(image, kernel):
    image = image[None, :, :, None].astype("float32")  # (1)!
    kernel = kernel[:, :, None, None].astype("float32")
    return np.array(keras.ops.conv(image, kernel))[0, :, :, 0]


print("kernel:     ", *digits.astype(int))
for name, apply in (
    ("correlate2d:", correlate2d),
    ("convolve2d: ", convolve2d),
    ("keras:      ", keras_conv),
):
    print(name, *apply(point, digits).astype(int))
# --8<-- [end:flip]

# --8<-- [start:sizes]
from aimodels.cnn import output_size, same_padding

for size, length, stride, padding in (
    (28, 5, 1, "valid"),
    (28, 5, 1, "same"),
    (28, 2, 2, "valid"),
    (28, 3, 2, "same"),
    (8, 3, 2, "valid"),  # (1)!
):
    out = output_size(size, length, stride, padding)
    print(f"{size:2}, kernel {length}, stride {stride}, {padding}: {out}")
print("28, kernel 3, stride 2, zeros:", same_padding(28, 3, 2))
# --8<-- [end:sizes]

# --8<-- [start:layer]
from aimodels.cnn import conv2d, windows

rng = np.random.default_rng(0)
photos = rng.normal(size=(2, 28, 28, 3))  # (1)!
kernels = rng.normal(size=(5, 5, 3, 6))
biases = rng.normal(size=6)

view = windows(photos, (5, 5))  # (2)!
layer = np.einsum("bijcuv,uvcf->bijf", view, kernels) + biases
print("windows", view.shape)
print("layer  ", layer.shape)
assert np.allclose(layer, conv2d(photos, kernels, biases))
# --8<-- [end:layer]

# --8<-- [start:pooling]
from aimodels.cnn import max_pool2d

grid = np.array([[1, 2, 5, 0], [3, 4, 1, 1], [0, 0, 9, 8], [0, 7, 6, 5]])
print(max_pool2d(grid).astype(int))
# --8<-- [end:pooling]

# --8<-- [start:matrix]
from aimodels.cnn import convolution_matrix

M = convolution_matrix(digits, (6, 6))
flat = rng.normal(size=(6, 6))
same = np.allclose(flat.ravel() @ M, correlate2d(flat, digits).ravel())
print("M:", M.shape, "  same numbers:", same)
print("entries:", M.size, "  not zero:", np.count_nonzero(M))
print("different weights:", len(np.unique(M[M != 0])))

figure, ax = plt.subplots(figsize=(6.4, 3.2))
seen = np.ma.masked_equal(M.T, 0)  # (1)!
drawn = ax.imshow(seen, cmap="turbo", vmin=0, vmax=10)
figure.colorbar(drawn, label="weight", shrink=0.7)
ax.set(xlabel="pixel of the image", ylabel="place in the result")
# --8<-- [end:matrix]

# --8<-- [start:data]
from aimodels.datasets import fashion_mnist

(images, labels), (test_images, test_labels) = fashion_mnist()  # (1)!
names = ["T-shirt", "trouser", "pullover", "dress", "coat"]
names += ["sandal", "shirt", "sneaker", "bag", "boot"]


def scaled(images):
    return images[..., None].astype("float32") / 255  # (2)!


x, y = scaled(images[:10000]), labels[:10000]
x_valid, y_valid = scaled(images[10000:12000]), labels[10000:12000]
x_test, y_test = scaled(test_images), test_labels
print("train     ", x.shape)
print("validation", x_valid.shape)
print("test      ", x_test.shape)

figure, axes = plt.subplots(2, 5, figsize=(6.4, 3.0))
for label, ax in enumerate(axes.flat):
    ax.imshow(images[np.argmax(labels == label)], cmap="gray")
    ax.set_title(names[label])
    ax.axis("off")
# --8<-- [end:data]

# --8<-- [start:parameters]
from aimodels.cnn import lenet

in_1998 = {
    "C1": 6 * (5 * 5 + 1),
    "S2": 6 * 2,  # (1)!
    "C3": 6 * (3 * 25 + 1) + 9 * (4 * 25 + 1) + (6 * 25 + 1),  # (2)!
    "S4": 16 * 2,
    "C5": 120 * (16 * 25 + 1),
    "F6": 84 * (120 + 1),
}
for layer in lenet(10).layers:
    shape = tuple(layer.output.shape[1:])
    print(f"{type(layer).__name__:13}{shape!s:12}", end="")
    print(f"{layer.count_params():7,}")
print(f"ours {lenet(10).count_params():,}", end="")
print(f"   in 1998 {sum(in_1998.values()):,}")
outputs = 28 * 28 * 6
print(f"first layer, dense: {(28 * 28 + 1) * outputs:,}")  # (3)!
large = lenet(10, shape=(224, 224, 3)).layers[5]
print(f"Dense(120) at 224 pixels: {large.count_params():,}")
# --8<-- [end:parameters]

# --8<-- [start:train]
order = rng.permutation(28 * 28)  # (1)!


def shuffled(x):
    return x.reshape(-1, 28 * 28)[:, order].reshape(x.shape)


def dense(*widths):
    hidden = [keras.layers.Dense(w, activation="relu") for w in widths]
    ends = keras.layers.Flatten(), keras.layers.Dense(10)
    layers = [keras.Input((28, 28, 1)), ends[0], *hidden, ends[1]]
    return keras.Sequential(layers)


def train(build, view=lambda x: x):
    keras.utils.set_random_seed(0)
    model = build()
    steps = 5 * 157  # five epochs of 157 batches
    rate = keras.optimizers.schedules.CosineDecay(0.004, steps)  # (2)!
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=10,  # (3)!
    )
    past = model.fit(
        view(x),
        y,
        batch_size=64,
        epochs=5,
        validation_data=(view(x_valid), y_valid),
        verbose=0,
    ).history
    score = model.evaluate(view(x_test), y_test, batch_size=500, verbose=0)
    return model, past, score[1]


runs = {
    "softmax regression": train(dense),
    "one hidden layer": train(lambda: dense(77)),  # (4)!
    "LeNet": train(lambda: lenet(10)),
    "LeNet, pixels shuffled": train(lambda: lenet(10), shuffled),
}
print(f"{'':22}  test parameters")
for name, (model, _, accuracy) in runs.items():
    print(f"{name:22} {accuracy:.3f}  {model.count_params():6,}")

figure, ax = plt.subplots(figsize=(6.4, 3.2))
epochs = range(1, 6)
for name, (_, past, _) in runs.items():
    (line,) = ax.plot(epochs, past["val_accuracy"], label=name)
    if name == "LeNet":
        color = line.get_color()
        label = "LeNet, training images"
        ax.plot(epochs, past["accuracy"], "--", color=color, label=label)
ax.set(xlabel="epoch", ylabel="accuracy", ylim=(0.65, 0.92), xticks=epochs)
ax.legend(fontsize="small", ncols=2)
# --8<-- [end:train]

# --8<-- [start:filters]
model = runs["LeNet"][0]
weights, bias = model.layers[0].get_weights()
boot = x_test[:1]
responses = np.maximum(conv2d(boot, weights, bias, padding="same"), 0)
print("weights  ", weights.shape)
print("responses", responses.shape)

figure, axes = plt.subplots(2, 7, figsize=(6.4, 2.4))
axes[0, 0].imshow(boot[0, :, :, 0], cmap="gray")
axes[0, 0].set_title("image")
limit = np.abs(weights).max()
for f in range(6):
    top, bottom = axes[:, f + 1]
    top.imshow(weights[:, :, 0, f], "RdBu", vmin=-limit, vmax=limit)
    bottom.imshow(responses[0, :, :, f], "viridis")
    top.set_title(f"{f}")
for ax in axes.flat:
    ax.axis("off")
# --8<-- [end:filters]

# --8<-- [start:confusion]
logits = np.vstack([model(part) for part in np.split(x_test, 10)])
answers = logits.argmax(axis=1)
shares = np.zeros((10, 10))
np.add.at(shares, (y_test, answers), 1 / 1000)  # (1)!
print("found among 1,000:")
for label in ("trouser", "bag", "coat", "shirt"):
    row = names.index(label)
    print(f"{label:8}{shares[row, row]:.2f}")
print("shirts taken for")
for label in ("T-shirt", "pullover", "coat", "sandal"):
    print(f"{label:9}{shares[6, names.index(label)]:.2f}")

figure, ax = plt.subplots(figsize=(6.4, 3.6))
drawn = ax.imshow(shares, cmap="viridis", vmin=0, vmax=1)
figure.colorbar(drawn, label="share of the true class")
ax.set(xticks=range(10), yticks=range(10), xlabel="predicted class")
ax.set_title("true class", loc="left", x=-0.3)
for row, name in enumerate(names):
    ax.text(-1.5, row, name, ha="right", va="center")
# --8<-- [end:confusion]

# --8<-- [start:agreement]
import scipy.signal

worst = dict.fromkeys(("keras conv", "keras max_pool", "scipy"), 0.0)


def error(ours, peer):
    return np.abs(ours - peer).max() / np.abs(peer).max()


def compare(name, ours, peer):
    worst[name] = max(worst[name], error(ours, np.array(peer)))


for _ in range(40):
    rows, columns = rng.integers(1, 5, 2).tolist()
    channels, filters, stride = rng.integers(1, 4, 3).tolist()
    a = rng.normal(size=(2, *rng.integers(5, 12, 2), channels))
    k = rng.normal(size=(rows, columns, channels, filters))
    single = a.astype("float32"), k.astype("float32")
    for padding in ("valid", "same"):
        peer = keras.ops.conv(*single, stride, padding)
        compare("keras conv", conv2d(a, k, 0, stride, padding), peer)
        peer = keras.ops.max_pool(single[0], rows, stride, padding)
        ours = max_pool2d(single[0], rows, stride, padding)
        compare("keras max_pool", ours, peer)
    plane, small = a[0, :, :, 0], k[:, :, 0, 0]
    peer = scipy.signal.correlate2d(plane, small, "valid")
    compare("scipy", correlate2d(plane, small), peer)
    peer = scipy.signal.convolve2d(plane, small, "valid")
    compare("scipy", convolve2d(plane, small), peer)
for name, found in worst.items():
    print(f"{name:15}{found:.0e}")
# --8<-- [end:agreement]

# --8<-- [start:lenet-by-hand]
batch = x_test[:200]
conv1, conv2, *full = [p.get_weights() for p in model.layers if p.weights]
hidden = np.maximum(conv2d(batch, *conv1, padding="same"), 0)
hidden = max_pool2d(hidden)
hidden = max_pool2d(np.maximum(conv2d(hidden, *conv2), 0))
hidden = hidden.reshape(200, -1)
for weights, bias in full[:-1]:
    hidden = np.maximum(hidden @ weights + bias, 0)
weights, bias = full[-1]
ours = hidden @ weights + bias
print(f"largest relative error: {error(ours, logits[:200]):.0e}")
print("same answers:", (ours.argmax(axis=1) == answers[:200]).all())
# --8<-- [end:lenet-by-hand]

# --8<-- [start:channels]
series = np.zeros((8, 64), dtype="float32")
conv = keras.layers.Conv1D(4, 3, name="conv")
try:
    conv(series)
except ValueError as refused:
    print(*str(refused).split(": ", 1)[1].split(". "), sep="\n")
print("with a channel axis:", tuple(conv(series[:, :, None]).shape))
# --8<-- [end:channels]

# --8<-- [start:asymmetric]
row = np.arange(1.0, 9)[None, :]
ones = np.ones((1, 3))
ours = correlate2d(row, ones, stride=2, padding="same")
both = correlate2d(np.pad(row, ((0, 0), (1, 1))), ones, stride=2)
print("TensorFlow, zeros (0, 1):", ours[0].astype(int))
print("PyTorch, zeros (1, 1):   ", both[0].astype(int))
# --8<-- [end:asymmetric]


# --8<-- [start:shift]
def moved(x, pixels):
    result = np.zeros_like(x)
    result[:, :, pixels:] = x[:, :, : x.shape[2] - pixels]
    return result


def accuracy(model, pixels):
    logits = np.array(model(moved(x_test[:2000], pixels)))
    return (logits.argmax(axis=1) == y_test[:2000]).mean()


figure, ax = plt.subplots(figsize=(6.4, 3.2))
for name in ("softmax regression", "one hidden layer", "LeNet"):
    curve = [accuracy(runs[name][0], pixels) for pixels in range(7)]
    ax.plot(range(7), curve, marker="o", label=name)
    print(f"{name:18}", *(f"{share:.2f}" for share in curve[:4]))
ax.set(xlabel="pixels to the right", ylabel="accuracy", ylim=(0, 1))
ax.legend()
# --8<-- [end:shift]

# --8<-- [start:solution-im2col]
columns = windows(photos, (5, 5)).reshape(2 * 24 * 24, 3 * 5 * 5)
table = kernels.transpose(2, 0, 1, 3).reshape(3 * 5 * 5, 6)
product = (columns @ table).reshape(2, 24, 24, 6)
assert np.allclose(product, conv2d(photos, kernels))
print("numbers:", photos.size, " in the table:", columns.size)
# --8<-- [end:solution-im2col]

# --8<-- [start:solution-transpose]
M = convolution_matrix(digits, (7, 7), stride=2)  # (1)!
small = rng.normal(size=(3, 3))
large = (small.ravel() @ M.T).reshape(7, 7)
peer = keras.ops.conv_transpose(
    small[None, :, :, None].astype("float32"),
    digits[:, :, None, None].astype("float32"),
    strides=2,
    padding="valid",
)
assert error(large, np.array(peer)[0, :, :, 0]) < 1e-6
back = correlate2d(large, digits, stride=2)
print("shape back:", back.shape, "  same:", np.allclose(back, small))
# --8<-- [end:solution-transpose]

# --8<-- [start:solution-field]
field, step = 1, 1
for length, stride in ((5, 1), (2, 2), (5, 1), (2, 2)):
    field, step = field + (length - 1) * step, step * stride
    print(f"window {length}, stride {stride}: {field} pixels")

reached = []
for column in range(28):
    strip = np.ones((1, 28, 28, 1))
    strip[0, :, column] = np.nan  # (1)!
    maps = max_pool2d(conv2d(strip, np.ones((5, 5, 1, 1)), padding="same"))
    maps = max_pool2d(conv2d(maps, np.ones((5, 5, 1, 1))))
    reached.append(np.isnan(maps[0, 2, 2, 0]))
assert sum(reached) == field
# --8<-- [end:solution-field]
