# --8<-- [start:element-wise]
import numpy as np

from aimodels.cnn import correlate2d

x = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def relu(numbers):
    return np.maximum(numbers, 0)


print("product + 1:", (x * x + 1).tolist())  # (1)!
print("valid:", relu(correlate2d(x, x) + 1).astype(int).tolist())
same = correlate2d(x, x, padding="same")
print("same:", relu(same + 1).astype(int).tolist())
# --8<-- [end:element-wise]

# --8<-- [start:sigmoid-of-three]
from aimodels.activations import sigmoid, tanh

x, weight, bias = np.array([1.0, 2.0, 3.0]), 1, 0
print("sigmoid:", sigmoid(weight * x + bias).round(3))
print("1 - 2^-x:", 1 - 2.0**-x)  # (1)!

hidden = np.array([0.5, 0.5])
try:
    x + hidden
except ValueError as reason:
    print("x + hidden:", reason)
w, u = np.ones((3, 2)), np.ones((2, 2))
print("x w + hidden u has shape", (x @ w + hidden @ u).shape)
print("the new state, too:", tanh(x @ w + hidden @ u).shape)
# --8<-- [end:sigmoid-of-three]

# --8<-- [start:three-readings]
from aimodels.attention import scaled_dot_product_attention


def attend(query, key, value):
    arrays = (np.array(a, dtype="float64") for a in (query, key, value))
    read, weights = scaled_dot_product_attention(*arrays)
    return np.array(read), np.array(weights)


claimed = np.array([0.4, 0.3, 0.3])
print("each entry by its weight:", claimed * [7, 8, 9])
print("their sum:", (claimed @ [7, 8, 9]).round(1))

read, weights = attend([[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]])
print("one token of width 3:", weights.tolist(), read.tolist())

tokens = [[1], [2], [3]], [[4], [5], [6]], [[7], [8], [9]]
read, weights = attend(*tokens)
print("three tokens of width 1, weights:")
print(weights.round(3))
print("read:", read.round(3).tolist())
# --8<-- [end:three-readings]

# --8<-- [start:one-key]
read, weights = attend([[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]])
print("score 0:", weights.tolist(), read.tolist())
read, weights = attend([[9, 0, 0]], [[9, 1, 0]], [[0, 0, 1]])
print("score 47:", weights.tolist(), read.tolist())
# --8<-- [end:one-key]

# --8<-- [start:flip]
import keras
import scipy.signal

from aimodels.cnn import convolve2d

image = np.arange(16.0).reshape(4, 4)
kernel = np.array([[1.0, 2.0], [3.0, 4.0]])


def keras_conv(image, kernel):
    images, kernels = image[None, :, :, None], kernel[:, :, None, None]
    return np.array(keras.ops.conv(images, kernels))[0, :, :, 0]


layer = keras_conv(image, kernel)
summed = scipy.signal.convolve2d(image, kernel, "valid")
print("Keras:", layer[0].astype(int))
print("Σ x[m, n] w[i − m, j − n]:", summed[0].astype(int))
ours = correlate2d(image, kernel)
print("Keras is our correlate2d:", np.array_equal(layer, ours))
flipped = keras_conv(image, kernel[::-1, ::-1])
print("flipped, it is that sum:", np.array_equal(flipped, summed))
print("and our convolve2d:", np.array_equal(convolve2d(image, kernel), summed))
# --8<-- [end:flip]

# --8<-- [start:window-ahead]
from aimodels.cnn import max_pool2d

image = np.arange(16.0).reshape(4, 4)
behind = [
    [max(image[i - m, j - n] for m in (0, 1) for n in (0, 1)) for j in range(4)]
    for i in range(4)
]
ahead = keras.ops.max_pool(image[None, :, :, None], 2, 2)
print("window behind:", np.array(behind).astype(int).tolist())
print("Keras:", np.array(ahead)[0, :, :, 0].astype(int).tolist())
print("window ahead:", max_pool2d(image, 2).astype(int).tolist())
# --8<-- [end:window-ahead]

# --8<-- [start:rows-or-columns]
rng = np.random.default_rng(0)
x = rng.normal(size=(3, 4))  # 3 tokens, width 4
w_query, w_key, w_value = rng.normal(size=(3, 4, 2))

rows, weights = attend(x @ w_query, x @ w_key, x @ w_value)

columns = (w_value.T @ x.T) @ weights.T  # (1)!
print("columns are rows turned:", np.allclose(columns, rows.T))

value = x @ w_value
try:
    value @ weights.T
except ValueError:
    print("mixed:", value.shape, "@", weights.T.shape, "does not fit")

value = rng.normal(size=(3, 3))  # as many columns as tokens
mixed, right = value @ weights.T, weights @ value
print("square, it runs; right:", np.allclose(mixed, right))
# --8<-- [end:rows-or-columns]

# --8<-- [start:removed-names]
from operator import attrgetter

import tensorflow as tf

for name in (
    "Session",
    "placeholder",
    "layers",
    "train.GradientDescentOptimizer",
):
    try:
        attrgetter(name)(tf)
    except AttributeError:
        print(f"tf.{name}: AttributeError")

w = tf.Variable(1.0)  # no placeholder, no session
optimizer = keras.optimizers.SGD(learning_rate=0.1)
for _ in range(50):
    with tf.GradientTape() as tape:
        loss = (w - 3.0) ** 2
    optimizer.apply([tape.gradient(loss, w)], [w])
print("w:", round(float(w), 3))
# --8<-- [end:removed-names]

# --8<-- [start:softmax-twice]
import matplotlib.pyplot as plt

classes = 10
target = tf.one_hot(0, classes)


def train(last_layer):
    scores = tf.Variable(tf.zeros(classes))
    losses = []
    for _ in range(200):
        with tf.GradientTape() as tape:
            loss = tf.nn.softmax_cross_entropy_with_logits(
                target, last_layer(scores)
            )
        scores.assign_sub(5.0 * tape.gradient(loss, scores))
        losses.append(float(loss))
    return losses


once, twice = train(tf.identity), train(tf.nn.softmax)
floor = np.log(np.e + classes - 1) - 1
print(f"scores: {once[-1]:.3f}")
print(f"probabilities: {twice[-1]:.3f}, floor {floor:.3f}")

figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.plot(twice, label="softmax twice")
axes.plot(once, label="softmax once")
axes.axhline(floor, linestyle="--", color="C0")
axes.set(xlabel="training step", ylabel="loss", ylim=(0, None))
axes.legend()
# --8<-- [end:softmax-twice]

# --8<-- [start:audio]
import io

import scipy.io.wavfile

print("plt.load exists:", hasattr(plt, "load"))

time = np.arange(64) / 8000  # seconds
tone = np.round(9999 * np.sin(2 * np.pi * 440 * time)).astype("int16")
file = io.BytesIO()
scipy.io.wavfile.write(file, 8000, tone)
rate, wave = scipy.io.wavfile.read(file)
print("read back:", rate, "per second, shape", wave.shape)

try:
    keras.layers.Conv1D(4, 3)(keras.Input((64,)))
except ValueError as error:
    print("Conv1D:", str(error).split(": ")[1].split(".")[0])

waves = wave[None, :, None].astype("float32")  # (1)!
print(waves.shape, "→", tuple(keras.layers.Conv1D(4, 3)(waves).shape))
# --8<-- [end:audio]

# --8<-- [start:one-matrix]
from aimodels.cnn import convolution_matrix

image = np.arange(36.0).reshape(6, 6)
kernel = np.arange(1.0, 10.0).reshape(3, 3)
matrix = convolution_matrix(kernel, image.shape)

by_matrix = image.ravel() @ matrix
by_window = correlate2d(image, kernel).ravel()
print("same result:", np.allclose(by_matrix, by_window))
print("shape:", matrix.shape, "entries:", matrix.size)
print("not zero:", np.count_nonzero(matrix))
print("different weights:", len(np.unique(matrix[matrix != 0])))

figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.imshow(matrix.T)
axes.set(xlabel="pixel", ylabel="output")
# --8<-- [end:one-matrix]
