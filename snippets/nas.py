# --8<-- [start:space]
import keras
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
import tensorflow as tf
from keras import layers, ops

from aimodels import datasets
from aimodels.nas import (
    OPERATIONS,
    Population,
    Supernet,
    edges,
    expected_best,
    function_of,
    make_search_step,
    regularized_evolution,
    space,
    strongest,
    total_loss,
)
from aimodels.training import batches, make_step, train

every, distinct, row_of = space(nodes=3)
A, E = distinct.shape
print("edges:", edges(3))
print("operations:", ", ".join(OPERATIONS))
print(f"{len(every)} architectures, {A} different functions")
for row in (every[93], every[17], every[92]):
    names = ", ".join(OPERATIONS[k] for k in row)
    print(f"{names:20} {function_of(row)}")
# --8<-- [end:space]

# --8<-- [start:together]
images = np.random.default_rng(0).normal(size=(4, 28, 28, 1))
keras.utils.set_random_seed(0)
few = Population([[3, 0, 3], [2, 4, 1], [0, 0, 0]], 10, (28, 28, 1), 7)
together = np.array(few(images))
print("logits of networks, images, classes:", together.shape)
for n, row in enumerate(few.architectures):
    one = Population([row], 10, (28, 28, 1), 7)
    one.set_weights([w[n : n + 1] for w in few.get_weights()])  # (1)!
    same = np.allclose(one(images)[0], together[n], atol=1e-5)
    print(f"{function_of(row):19} the same alone:", same)
with tf.GradientTape() as tape:
    loss = total_loss(np.array([0, 1, 2, 3]), few(images)[:1])  # (2)!
gradient = np.array(tape.gradient(loss, few.head))
print("slopes of each network:", np.abs(gradient).sum((1, 2)).round(2))
# --8<-- [end:together]

# --8<-- [start:by-hand]
print(expected_best(scores=[1, 2, 3], worth=[60, 90, 75]))
print((60 + 90 + 75) / 3, (90 + 75 + 75) / 3, 75)
# --8<-- [end:by-hand]

# --8<-- [start:table]
STEPS, SEEDS = 250, 4
fashion, test = datasets.fashion_mnist()
mean, deviation = fashion.x.mean() / 255, fashion.x.std() / 255


def scaled(x):
    return ((x / 255 - mean) / deviation).astype("float32")[..., None]


x, y = scaled(fashion.x[:25000]), fashion.y[:25000].astype("int32")
x_train, y_train, x_valid, y_valid = x[:20000], y[:20000], x[20000:], y[20000:]
x_test, y_test = scaled(test.x[:5000]), test.y[:5000].astype("int32")

network = {"classes": 10, "image_shape": (28, 28, 1), "patch": 7}
population = Population(distinct, **network)
rate = keras.optimizers.schedules.CosineDecay(0.01, STEPS)
optimizer = keras.optimizers.Adam(rate)
step = make_step(population, optimizer, total_loss, jit_compile=True)
blank = [v.numpy() for v in optimizer.variables]
logits = tf.function(population, jit_compile=True)


def restart(seed):
    keras.utils.set_random_seed(seed)
    population.set_weights(Population(distinct, **network).get_weights())
    for variable, value in zip(optimizer.variables, blank, strict=True):
        variable.assign(value)


def accuracy(x, y):  # (1)!
    parts = [
        np.array(logits(part)).argmax(-1)
        for part in x.reshape(-1, 500, 28, 28, 1)
    ]
    return (np.concatenate(parts, axis=1) == y).mean(axis=1)


valid, tested = np.zeros((SEEDS, A)), np.zeros((SEEDS, A))
for seed in range(SEEDS):
    restart(seed)
    train(step, batches((x_train, y_train), 64, seed), STEPS)
    valid[seed] = accuracy(x_valid, y_valid)
    tested[seed] = accuracy(x_test, y_test)

row_named = {function_of(a): n for n, a in enumerate(distinct)}
for name in (
    "conv3(conv3(x)) + conv3(x)",
    "conv3(conv3(x)) + x",
    "conv3(conv3(x))",
    "conv3(x)",
    "conv1(conv1(x))",
    "pool3(x)",
    "x",
    "0",
):
    runs = tested[:, row_named[name]]
    seen = " ".join(f"{run:.2f}" for run in runs)
    print(f"{runs.mean():.2f} ({seen})  {name}")
# --8<-- [end:table]


# --8<-- [start:noise]
def agreement(rows):
    pairs = [(a, b) for a in range(SEEDS) for b in range(a)]
    return np.mean(
        [
            scipy.stats.spearmanr(tested[a, rows], tested[b, rows])[0]
            for a, b in pairs
        ]
    )


order = np.argsort(-tested.mean(0))
seeds = tested.var(axis=0, ddof=1).mean() ** 0.5
alive = order[:-1]
print(f"spread of one network over seeds:  {seeds:.3f}")
print(
    f"spread of means over networks:     {tested[:, alive].mean(0).std():.3f}"
)
print(f"rank correlation of two seeds, all {A}: {agreement(order):.2f}")
for most in (30, 15):
    print(f"of the best {most}: {agreement(order[:most]):.2f}")

figure, axis = plt.subplots(figsize=(6.4, 3.2))
place = np.arange(1, A + 1)
axis.vlines(place, tested[:, order].min(0), tested[:, order].max(0), lw=1)
axis.plot(place, tested[:, order].mean(0), "o", ms=3)
axis.set(xlabel="place by mean", ylabel="test accuracy", ylim=(0.4, 0.85))
# --8<-- [end:noise]

# --8<-- [start:random]
BUDGET = 40
others = (tested.sum(0) - tested) / (SEEDS - 1)  # (1)!


def found(rows, seed):  # (2)!
    best = [
        rows[valid[seed, rows[:n]].argmax()] for n in range(1, len(rows) + 1)
    ]
    return others[seed, best]


rng = np.random.default_rng(0)
random = [
    found(rng.permutation(A)[:BUDGET], seed)
    for seed in range(SEEDS)
    for _ in range(250)
]
exact = np.mean(
    [expected_best(valid[s], others[s]) for s in range(SEEDS)], axis=0
)
for n in (1, 5, 10, 20, 40):
    drawn = [row[n - 1] for row in random]
    error = np.std(drawn) / len(drawn) ** 0.5
    near = abs(np.mean(drawn) - exact[n - 1]) < 4 * error
    print(f"{n:2} trained: {exact[n - 1]:.3f}, simulation agrees: {near}")
print(f"all {A} trained: {exact[-1]:.3f}, best mean {tested.mean(0).max():.3f}")
# --8<-- [end:random]

# --8<-- [start:evolution]
evolved, rng = [], np.random.default_rng(1)
for seed in range(SEEDS):
    for _ in range(50):
        asked = regularized_evolution(
            lambda a, seed=seed: valid[seed, row_named[function_of(a)]],
            BUDGET,
            rng,
        )
        evolved.append(found([row_named[function_of(a)] for a in asked], seed))
print("searches that found", BUDGET, "functions:", end=" ")
print(sum(len(row) == BUDGET for row in evolved), "of", len(evolved))
evolved = np.array([row for row in evolved if len(row) == BUDGET])
for n in (5, 10, 20, 40):
    spread = evolved[:, n - 1].std()
    print(f"{n:2} trained: {evolved[:, n - 1].mean():.3f} ± {spread:.3f}")
# --8<-- [end:evolution]

# --8<-- [start:budget]
COPIES = 4
supernet = Supernet(COPIES, **network)
one_hot = np.eye(len(OPERATIONS))
costs = [supernet.multiply_adds(one_hot[a]) for a in distinct]
mixed = supernet.multiply_adds(np.ones((E, len(OPERATIONS))))
average = np.mean(costs)
print(f"one image: average network {average:,.0f}, supernet {mixed:,}")
budgets = (5, 10)
per_step = mixed / average / STEPS  # (1)!
search_steps = [int((n - 1) / per_step / 2) for n in budgets]  # (2)!
shared_steps = [int((n - 1) / per_step) for n in budgets]
print("for a budget of", *budgets, "trained networks:")
print("steps of differentiable search:", *search_steps)
print("steps with shared weights:     ", *shared_steps)
# --8<-- [end:budget]

# --8<-- [start:darts]
shape = (COPIES, E, len(OPERATIONS))
alphas = keras.Variable(np.zeros(shape, "float32"), name="alphas")
adams = [keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01, beta_1=0.5)]
search = make_search_step(supernet, alphas, adams, jit_compile=True)
pairs = zip(
    batches((x_train, y_train), 64, 0),
    batches((x_valid, y_valid), 64, 1),
    strict=True,
)
history = []
train(
    search,
    (((a[0], b[0]), (a[1], b[1])) for a, b in pairs),  # (1)!
    search_steps[-1],
    after=lambda number, loss: history.append(ops.softmax(alphas).numpy()),
)
history = np.array(history)
print("none, skip, conv1, conv3, pool3")
for e, pair in enumerate(edges(3)):
    print(pair, " ".join(f"{p:.2f}" for p in history[-1].mean(0)[e]))


def judged(architectures):  # (2)!
    rows = [row_named[function_of(a)] for a in architectures]
    return tested[:, rows].mean(0)


gradient = {}
for n, steps in zip(budgets, search_steps, strict=True):
    picked = strongest(history[steps - 1])
    gradient[n] = judged(picked)
    print(f"budget {n:2}: {gradient[n].mean():.2f}, searches:", end=" ")
    print(" ".join(f"{value:.2f}" for value in gradient[n]))
# --8<-- [end:darts]

# --8<-- [start:shared]
single = Supernet(COPIES, **network)
path_step = make_step(
    single, keras.optimizers.Adam(0.01), total_loss, jit_compile=True
)
rng = np.random.default_rng(2)


def paths():
    for images, labels in batches((x_train, y_train), 64, 3):
        chosen = distinct[rng.integers(A, size=COPIES)]  # (1)!
        yield (images, one_hot[chosen].astype("float32")), labels


inherited, kept = {}, population.get_weights()


def rank(number, loss):
    if number in shared_steps:
        scores = []
        for copy in range(COPIES):
            weights = [w[copy : copy + 1] for w in single.get_weights()]
            population.set_weights(
                [np.repeat(w, A, 0) for w in weights]
            )  # (2)!
            scores.append(accuracy(x_valid, y_valid))
        inherited[budgets[shared_steps.index(number)]] = np.array(scores)


train(path_step, paths(), shared_steps[-1], after=rank)
population.set_weights(kept)
shared = {}
for n, scores in inherited.items():
    rho = [scipy.stats.spearmanr(s, tested.mean(0))[0] for s in scores]
    shared[n] = tested.mean(0)[scores.argmax(1)]
    print(f"budget {n:2}: {shared[n].mean():.2f}, searches:", end=" ")
    print(" ".join(f"{value:.2f}" for value in shared[n]), end=", ")
    print(f"rank correlation {np.mean(rho):.2f}")
# --8<-- [end:shared]

# --8<-- [start:compare]
largest = int(np.argmax(costs))
rank_of_size = scipy.stats.spearmanr(costs, tested.mean(0))[0]
print("most multiplications:", function_of(distinct[largest]), end=", ")
print(f"accuracy {tested[:, largest].mean():.2f}")
print(f"rank correlation of size and accuracy: {rank_of_size:.2f}")
figure, axis = plt.subplots(figsize=(6.4, 3.6))
n = np.arange(1, BUDGET + 1)
axis.plot(n, exact[:BUDGET], label="random search")
axis.plot(n, evolved.mean(0), "--", label="regularized evolution")
axis.plot(budgets, [gradient[n].mean() for n in budgets], "s", label="gradient")
axis.plot(
    budgets, [shared[n].mean() for n in budgets], "^", label="shared weights"
)
axis.axhline(tested[:, largest].mean(), color="gray", lw=1, label="the largest")
axis.set(xlabel="budget in trained networks", ylabel="test accuracy")
axis.set(ylim=(0.58, 0.78))
axis.legend(loc="lower right")
# --8<-- [end:compare]


# --8<-- [start:peer]
def in_layers(row, weights):  # (1)!
    stem, conv1, conv3, head, stem_bias, head_bias = weights
    image = keras.Input((28, 28, 1))
    first = layers.Conv2D(8, 7, strides=7)
    nodes, load = [first(image)], [(first, stem.reshape(7, 7, 1, 8), stem_bias)]
    for j in (1, 2):
        terms = []
        for e, (i, to) in enumerate(edges(3)):
            if to != j or OPERATIONS[row[e]] == "none":
                continue
            x, name = nodes[i], OPERATIONS[row[e]]
            if name == "pool3":
                x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
            if name.startswith("conv"):
                side = int(name[-1])
                kernel = conv1[e] if side == 1 else conv3[e]
                layer = layers.Conv2D(8, side, padding="same", use_bias=False)
                x = layer(layers.ReLU()(x))
                load.append((layer, kernel.reshape(side, side, 8, 8)))
            terms.append(x)
        nodes.append(terms[0] if len(terms) == 1 else layers.Add()(terms))
    last = layers.Dense(10)
    out = last(layers.GlobalAveragePooling2D()(layers.ReLU()(nodes[2])))
    for layer, *arrays in (*load, (last, head, head_bias)):
        layer.set_weights(arrays)
    return keras.Model(image, out)


def cross_entropy(y, out):
    return ops.mean(
        keras.losses.sparse_categorical_crossentropy(y, out, from_logits=True)
    )


restart(0)
chosen = [row_named[f] for f in ("conv3(conv3(x)) + x", "conv1(x) + pool3(x)")]
peers = [
    in_layers(distinct[i], [w[i] for w in population.get_weights()])
    for i in chosen
]
train(step, batches((x_train, y_train), 64, 0), 20)
ours = np.array(population(x_test[:500]))
for i, peer in zip(chosen, peers, strict=True):
    alone = make_step(peer, keras.optimizers.Adam(rate), cross_entropy)
    train(alone, batches((x_train, y_train), 64, 0), 20)
    gap = np.abs(np.array(peer(x_test[:500])) - ours[i]).max()
    near = gap < 1e-3 * np.abs(ours[i]).max()
    print(f"{function_of(distinct[i]):20} equal after 20 steps:", near)
# --8<-- [end:peer]

# --8<-- [start:winner]
top = valid.argmax(axis=1)
first = valid[np.arange(SEEDS), top]
again = [np.delete(valid[:, i], s).mean() for s, i in enumerate(top)]
print(f"best of {A} by one seed: {first.mean():.3f}")
print(f"the same networks, other seeds: {np.mean(again):.3f}")
# --8<-- [end:winner]

# --8<-- [start:long-collapse]
import os

if "HANDBOOK_LONG" in os.environ:
    keras.utils.set_random_seed(7)
    model = Supernet(COPIES, **network)
    alphas = keras.Variable(np.zeros(shape, "float32"))
    adams = [
        keras.optimizers.Adam(0.01),
        keras.optimizers.Adam(0.01, beta_1=0.5),
    ]
    search = make_search_step(model, alphas, adams, jit_compile=True)
    sources = (
        batches((x_train, y_train), 64, 5),
        batches((x_valid, y_valid), 64, 6),
    )
    pairs = (
        ((a[0], b[0]), (a[1], b[1])) for a, b in zip(*sources, strict=True)
    )
    taken = 0
    for steps in (425, 2000, 10000):
        train(search, pairs, steps - taken)
        taken = steps
        mix = ops.softmax(alphas).numpy().mean((0, 1))
        means = judged(strongest(alphas))
        shares = " ".join(f"{p:.2f}" for p in mix)
        print(f"{steps:5} steps: mean share {shares}", end=", ")
        print(
            f"accuracy {means.mean():.2f} ({means.min():.2f} to {means.max():.2f})"
        )
# --8<-- [end:long-collapse]

# --8<-- [start:refused]
for task in (
    lambda: function_of([1, 2, 5]),
    lambda: Population([[1, 2]], **network),
    lambda: regularized_evolution(lambda a: float("nan"), 5, rng),
):
    try:
        task()
    except ValueError as error:
        print(error)
# --8<-- [end:refused]


# --8<-- [start:solution-doubles]
def as_text(row, spelling, nodes=4):  # (1)!
    names = ["0"]
    for j in range(1, nodes):
        terms = []
        for (i, to), k in zip(edges(nodes), row, strict=True):
            if to == j:
                dead = OPERATIONS[k] == "none" or names[i] == "#"
                skip = OPERATIONS[k] == "skip"
                name = names[i] if skip else spelling(OPERATIONS[k], names[i])
                terms.append("#" if dead else name)
        names.append("+".join(sorted(terms)))
    return names[-1]


larger, functions, _ = space(nodes=4)
print(
    f"{len(larger):,} architectures, {len(functions):,} functions by our rule"
)
counts = [
    len({as_text(row, spelling) for row in larger})
    for spelling in (
        lambda name, inside: f"({inside})@{name}",  # (2)!
        lambda name, inside: f"{name}({inside})",
    )
]
print(f"by theirs: {counts[0]:,}, or spelled otherwise {counts[1]:,}")
assert len(larger) == 5**6
assert counts[0] == 6466
# --8<-- [end:solution-doubles]

# --8<-- [start:solution-draws]
doubles = np.bincount(row_of)
mean_accuracy = tested.mean(0)
print("largest classes of doubles:")
for i in np.argsort(-doubles, kind="stable")[:3]:
    print(f"{doubles[i]:3} of {len(every)}  {function_of(distinct[i])}")
print(f"a function at random:      {mean_accuracy.mean():.2f}")
print(f"an architecture at random: {mean_accuracy[row_of].mean():.2f}")
n = 40
different = (1 - (1 - doubles / len(every)) ** n).sum()
print(f"of {n} architectures drawn, different functions: {different:.1f}")
rng = np.random.default_rng(3)
drawn = rng.integers(len(every), size=(2000, n))
counted = np.mean([len(set(row_of[row])) for row in drawn])
assert abs(counted - different) < 0.3
assert doubles.sum() == len(every)
# --8<-- [end:solution-draws]

# --8<-- [start:solution-limit]
costs = np.array(costs)
allowed = np.flatnonzero(costs <= average)
best = allowed[mean_accuracy[allowed].argmax()]
rho = scipy.stats.spearmanr(costs[allowed], mean_accuracy[allowed])[0]
print(f"{len(allowed)} networks cost no more than the average")
print(f"rank correlation of size and accuracy among them: {rho:.2f}")
print(f"best of them: {mean_accuracy[best]:.2f}")
largest = allowed[costs[allowed].argmax()]
print(
    f"largest: {function_of(distinct[largest])}, {mean_accuracy[largest]:.2f}"
)
within = np.mean(
    [
        expected_best(valid[s, allowed], others[s, allowed])
        for s in range(SEEDS)
    ],
    axis=0,
)
print(f"random search, 5 and 10 trained: {within[4]:.2f}, {within[9]:.2f}")
assert (np.diff(within) > -0.01).all()
assert within[9] <= mean_accuracy[best] + 0.01
# --8<-- [end:solution-limit]
