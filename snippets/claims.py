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

# --8<-- [start:lookup]
from aimodels.knowledge import KnowledgeGraph

x = np.array([1, 0])
print("one row, W x:", np.array([[0.1, 0.9]]) @ x)

table = np.array([[0.1, 0.9], [0.4, 0.6]])  # two entities, two coordinates
print("x W:", x @ table, "row 0:", table[0])
print("W x:", table @ x, "column 0:", table[:, 0])

model = KnowledgeGraph(entities=2, relations=1, width=2, score="distmult")
model.entities.assign(table)
scores = np.array(model(np.array([[0, 0, 1]])))[0, 0]  # (1)!
by_row = (model.get_weights()[1][0] * table[0]) @ table.T
print("scores from row 0:", np.allclose(scores, by_row))
# --8<-- [end:lookup]

# --8<-- [start:one-probability]
from aimodels.gan import discriminator, optimal_discriminator

judge = discriminator(channels=4)
three = np.random.default_rng(0).normal(size=(3, 28, 28, 1))
four = np.insert(three, 1, 0.0, axis=0)
alone, together = np.array(judge(three)), np.array(judge(four))
print("answers for three images:", alone.shape)
print(
    "the same beside a fourth:",
    np.allclose(alone, together[[0, 2, 3]], atol=1e-5),
)

p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
print("best answers at three points:", optimal_discriminator(p, q).round(2))
# --8<-- [end:one-probability]

# --8<-- [start:pushed-noise]
from scipy.stats import norm

from aimodels.datasets import diabetes

table = diabetes()
age = table.x[:, table.names.index("age")]
z = np.random.default_rng(0).standard_normal(10000)
made = np.quantile(age, norm.cdf(z))  # (1)!
for name, numbers in (("z", z), ("G(z)", made), ("data", age)):
    mean, deviation = numbers.mean(), numbers.std()
    print(f"{name:4}: mean {mean:4.1f}, standard deviation {deviation:4.1f}")
# --8<-- [end:pushed-noise]

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

# --8<-- [start:bare-stack]
import keras
import tensorflow as tf

from aimodels.attention import MultiHeadAttention

keras.utils.set_random_seed(0)
tokens = tf.random.normal((8, 16, 32))


def pass_through(residual, norm, blocks=24):
    with tf.GradientTape() as tape:
        tape.watch(tokens)
        x = tokens
        for _ in range(blocks):
            for branch in (
                MultiHeadAttention(4),
                keras.layers.Dense(32, "relu"),
            ):
                normal = keras.layers.LayerNormalization()
                change = branch(normal(x) if norm else x)
                x = x + change if residual else change  # (1)!
        one = tf.reduce_mean(x[..., 0])
    return tf.math.reduce_std(x), tf.norm(tape.gradient(one, tokens))


for name, parts in {
    "bare": (False, False),
    "residuals": (True, False),
    "residuals and norms": (True, True),
}.items():
    powers = np.log10(pass_through(*parts))
    print(f"{name:20} signal 1e{powers[0]:+.0f}  gradient 1e{powers[1]:+.0f}")
# --8<-- [end:bare-stack]

# --8<-- [start:far]
from aimodels.lstm import LSTM
from aimodels.rnn import Recurrent

noise = tf.random.normal((32, 100, 16))
for kind in (Recurrent, LSTM):
    layer = kind(64, return_sequences=True)
    with tf.GradientTape() as tape:
        tape.watch(noise)
        last = tf.reduce_sum(layer(noise)[:, -1])
    norms = tf.norm(tape.gradient(last, noise), axis=(0, 2)).numpy()
    kept = [np.log10(norms[-1 - d] / norms[-1]) for d in (1, 10, 50, 99)]
    print(f"{kind.__name__:10}", *(f"1e{power:+.0f}" for power in kept))
# --8<-- [end:far]


# --8<-- [start:tree]
def combine(a, b):
    return np.tanh(2 * a - b)


def recurrent(numbers):
    state = 0.0
    for number in numbers:
        state = combine(state, number)
    return state


def recursive(tree):
    if isinstance(tree, tuple):
        return combine(*(recursive(branch) for branch in tree))
    return tree


print("sequence:", recurrent([0.1, 0.2, 0.3, 0.4]).round(3))
print("one tree:", recursive(((0.1, 0.2), (0.3, 0.4))).round(3))
print("another: ", recursive((((0.1, 0.2), 0.3), 0.4)).round(3))
# --8<-- [end:tree]

# --8<-- [start:unbounded]
ones = tf.ones((1, 200, 1))
for activation in ("tanh", "relu"):
    layer = keras.layers.LSTM(
        1,
        activation=activation,
        return_sequences=True,
        kernel_initializer="ones",
        recurrent_initializer="ones",
    )
    shown = layer(ones)[0, :, 0].numpy()
    print(activation, *(f"{shown[t - 1]:.2g}" for t in (1, 10, 50, 200)))
# --8<-- [end:unbounded]

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

# --8<-- [start:no-target]
x = tf.random.normal((64, 3))
y = tf.random.uniform((64,), 0, 2, tf.int32)


def classifier():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


try:
    classifier().fit(x, verbose=0)
except ValueError as error:
    print("fit(x):", error)

once, twice = classifier(), classifier()
once.fit(x, y, shuffle=False, epochs=6, verbose=0)
for _ in ("pre-training", "fine-tuning"):
    twice.fit(x, y, shuffle=False, epochs=3, verbose=0)
pairs = zip(once.get_weights(), twice.get_weights(), strict=True)
print("same weights:", all(np.array_equal(a, b) for a, b in pairs))
# --8<-- [end:no-target]

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

# --8<-- [start:text-and-code]
from aimodels.activations import sigmoid

rng = np.random.default_rng(0)
w1, w2 = rng.normal(size=(3, 4)), rng.normal(size=(4, 1))


def code(x):
    z2 = np.tanh(x @ w1) @ w2
    return z2


def text(x):
    return sigmoid(code(x))


x = rng.normal(size=(1000, 3))
for network in (code, text):
    output = network(x)
    inside = bool(((output > 0) & (output < 1)).all())
    print(f"{network.__name__}: between 0 and 1: {inside}")
# --8<-- [end:text-and-code]

# --8<-- [start:both-unknown]
from aimodels import datasets
from aimodels.clustering import assign, inertia, lloyd, means

x = datasets.digits().x.reshape(1797, 64)
partition = np.arange(1797) % 10  # (1)!
centres = means(x, partition, 10)
print(f"its means        {inertia(x, partition, centres):10,.0f}")
moved = centres + 1 / 8  # 64 columns: each centre by a length of 1
print(f"centres moved    {inertia(x, partition, moved):10,.0f}")
print(f"rows reassigned  {assign(x, centres)[1].sum():10,.0f}")
print(f"both, in turn    {lloyd(x, centres).inertias[-1]:10,.0f}")
# --8<-- [end:both-unknown]

# --8<-- [start:peek]
from aimodels.attention import causal_mask

sentence = tf.random.normal((1, 6, 8))
other = tf.concat([sentence[:, :5], tf.ones((1, 1, 8))], axis=1)
layer = MultiHeadAttention(2)
for name, mask in {"BERT": None, "GPT": causal_mask(6)}.items():
    before = layer(sentence, attention_mask=mask)
    moved = np.abs(layer(other, attention_mask=mask) - before)[0].max(axis=1)
    print(f"{name:4} outputs that move:", np.flatnonzero(moved > 1e-6))
# --8<-- [end:peek]

# --8<-- [start:count]
from aimodels import cnn, gpt

pooler = 768 * 768 + 768
bert = gpt.parameter_count(30_522, 512, 768, 12) + 2 * 768 + pooler  # (1)!
for name, count in {
    "logistic regression, 30 columns": 30 + 1,
    "LeNet, for 28 × 28 pixels": cnn.lenet(10).count_params(),
    "BERT-base": bert,
    "GPT-2": gpt.parameter_count(50_257, 1024, 768, 12),
    "GPT-3": gpt.parameter_count(50_257, 2048, 12_288, 96),
}.items():
    print(f"{name:32}{count:16,}")
# --8<-- [end:count]

# --8<-- [start:largest]
gpt3 = gpt.parameter_count(50_257, 2048, 12_288, 96)
later = gpt.parameter_count(50_257, 2048, 20_480, 105)
print(f"GPT-3, May 2020            {gpt3 / 1e9:4.0f} billion")
print(f"MT-NLG, January 2022       {later / 1e9:4.0f} billion")
# --8<-- [end:largest]

# --8<-- [start:deleted-rows]
from aimodels.imputation import complete_rows, gap_chance, with_gaps

mass, progress = datasets.diabetes().x[:, 2], datasets.diabetes().y
pairs = np.column_stack([mass, progress])


def answers(rows):
    return [rows[:, 0].mean(), np.polyfit(*rows.T, 1)[0]]  # (1)!


print("all rows         mean {:.2f}  slope {:.1f}".format(*answers(pairs)))
for name, decides in (("by lot", 0), ("by progression", 2)):
    chance = np.zeros(pairs.shape)
    chance[:, 0] = gap_chance(progress, 0.4, decides)
    found = []
    for seed in range(20):
        holes = with_gaps(pairs, chance, np.random.default_rng(seed))
        found.append(answers(holes[complete_rows(holes)]))
    low, high = np.min(found, axis=0), np.max(found, axis=0)
    print(f"gaps {name:14}", end="")
    print(f" {low[0]:.2f} to {high[0]:.2f}  {low[1]:.1f} to {high[1]:.1f}")
# --8<-- [end:deleted-rows]

# --8<-- [start:always-no]
from aimodels import mlp
from aimodels.logistic import softmax
from aimodels.metrics import confusion, precision_recall_f1

train, test = datasets.fashion_mnist()
shirts, others = (np.flatnonzero(m) for m in (test.y == 6, test.y != 6))
rare = np.append(others, shirts[:91])  # (1)!


def blocks(images):
    means = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    return means.reshape(-1, 196) / 255


rng = np.random.default_rng(0)
layers, _ = mlp.train(
    blocks(train.x[:3000]),
    (train.y[:3000] == 6).astype(int),
    mlp.initialize([196, 64, 2], rng),
    rng,
    rate=0.2,
    epochs=30,
    batch=50,
)
chance = softmax(mlp.forward(blocks(test.x[rare]), layers))[:, 1]
for name, answer in (("no", chance > 1), ("shirt from 0.1", chance > 0.1)):
    table = confusion(test.y[rare] == 6, answer, 2)
    right = np.trace(table) / table.sum()
    recall = precision_recall_f1(table, empty=0).recall[1]
    print(f"{name:15} accuracy {right:.3f}  shirts found {recall:.2f}")
# --8<-- [end:always-no]

# --8<-- [start:noise-labels]
from aimodels.datasets import split

digits, _ = datasets.digits()
ink = digits.reshape(-1, 64) / 16
for seed in range(3):
    rng = np.random.default_rng(seed)
    lots = rng.integers(0, 10, len(ink))  # (1)!
    seen, held = split(len(ink), test=len(ink) - 600, rng=rng)
    layers = mlp.initialize([64, 256, 10], rng)
    layers, _ = mlp.train(
        ink[seen], lots[seen], layers, rng, rate=0.2, epochs=300, batch=32
    )
    answers = mlp.forward(ink, layers).argmax(axis=1)
    right = [np.mean(answers[rows] == lots[rows]) for rows in (seen, held)]
    print("training {:.2f}  test {:.2f}".format(*right))
# --8<-- [end:noise-labels]

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

# --8<-- [start:hidden-gradient]
hidden, label = np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 0.0]])
output = np.array([[0.0, 1.0], [1.0, -1.0], [2.0, 0.0]])
for weights in (output, output[:, ::-1]):
    error = softmax(hidden @ weights) - label
    print((error @ weights.T).round(3))
# --8<-- [end:hidden-gradient]
