"""Architecture search: a space of cells, many networks trained side by side, and ways to search.

Axes: A networks, B images, P positions of the grid, C channels, E edges, O operations.
An architecture is E numbers: the operation on each edge, in the order of `edges`.
"""

import itertools
import math
from collections import deque

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from aimodels.vit import patches

OPERATIONS = ("none", "skip", "conv1", "conv3", "pool3")


def _whole(name, value, least, most=None):
    """Raise ValueError unless `value` is an integer within its bounds."""
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {bounds}; received {value!r}")


def edges(nodes):
    """Return the edges of a cell as pairs (i, j), i < j: each node reads all earlier ones.

    Args:
        nodes: from 2, the input among them.

    Returns:
        A list of nodes (nodes - 1) / 2 pairs, sorted by j, then by i.

    Raises:
        ValueError: fewer than two nodes.
    """
    _whole("nodes", nodes, 2)
    return [(i, j) for j in range(1, nodes) for i in range(j)]


def _checked(architectures, nodes):
    """Return `[A, E]` int32, or raise."""
    given, count = np.asarray(architectures), len(edges(nodes))
    if given.ndim != 2 or given.shape[1] != count or not len(given) or given.dtype.kind not in "iu":
        wanted = f"must be integers [A, {count}], A at least 1"
        raise ValueError(f"architectures {wanted}; received {given.dtype} {given.shape}")
    if given.min() < 0 or given.max() >= len(OPERATIONS):
        bad = given[((given < 0) | (given >= len(OPERATIONS))).any(1)][0].tolist()
        raise ValueError(f"architectures must hold 0 to {len(OPERATIONS) - 1}; received {bad}")
    return given.astype("int32")


def function_of(architecture, nodes=3):
    """Return what a cell computes, as text: equal texts compute the same with the same weights.

    What no path crosses is dropped, a skip adds nothing, and the order of a sum does not count.

    Args:
        architecture: E numbers.
        nodes: of the cell.

    Returns:
        Text such as `conv1(x) + conv3(pool3(x))`; `0` for a cell that no path crosses.

    Raises:
        ValueError: another number of edges, or numbers that are no operations.
    """
    (chosen,) = _checked([architecture], nodes).tolist()
    terms = [["x"], *([] for _ in range(nodes - 1))]
    for (i, j), k in zip(edges(nodes), chosen, strict=True):
        if OPERATIONS[k] == "skip":
            terms[j] += terms[i]
        elif OPERATIONS[k] != "none" and terms[i]:
            terms[j].append(f"{OPERATIONS[k]}({' + '.join(sorted(terms[i]))})")
    return " + ".join(sorted(terms[-1])) or "0"


def space(nodes=3):
    """Return every architecture, one for each function, and which function each computes.

    Args:
        nodes: of the cell; the list is `O^E` long, 15,625 for four nodes.

    Returns:
        Three integer arrays: every architecture in the order of counting, `[O^E, E]`; the first of
        each function, `[A, E]`; for every architecture the row of the second array, `[O^E]`.

    Raises:
        ValueError: fewer than two nodes.
    """
    every = np.array(list(itertools.product(range(len(OPERATIONS)), repeat=len(edges(nodes)))))
    found = dict[str, int]()
    rows = np.array([found.setdefault(function_of(a, nodes), len(found)) for a in every])
    return every, every[np.unique(rows, return_index=True)[1]], rows


def neighbours(height, width):
    """Return `[9, P, P]`, the 3 × 3 neighbours of a grid: 1 where p is neighbour s of q, else 0."""
    row, column = np.divmod(np.arange(height * width), width)
    down, right = row[:, None] - row, column[:, None] - column
    steps = itertools.product((-1, 0, 1), repeat=2)
    return np.stack([(down == i) & (right == j) for i, j in steps]).astype("float32")


@keras.saving.register_keras_serializable("aimodels")
class Supernet(keras.Model):
    """A networks side by side, each a mixture of all operations on each edge; they share nothing.

    Patches become C channels at P positions; one cell; ReLU and the mean over positions; a linear
    classifier. Both convolutions apply ReLU first and have no bias: they make 0 of 0.

    Args:
        copies: A.
        classes: of the classifier.
        image_shape: height, width, channels of the images.
        patch: side of a patch, a divisor of height and width.
        channels: C.
        nodes: of the cell.

    Call:
        inputs: pair of images `[B, H, W, channels]` and mix `[A, E, O]`, the weight of each
            operation.

    Returns:
        `[A, B, classes]` logits.

    Raises:
        ValueError: a number that cannot be; images or a mix of another shape.

    Source: Liu, Simonyan and Yang 2019, section 2.2, <https://arxiv.org/abs/1806.09055>.
    """

    def __init__(self, copies, classes, image_shape, patch, *, channels=8, nodes=3, **kwargs):
        """Keep the arguments and make the weights, each with a first axis A."""
        super().__init__(**kwargs)
        sizes = {"copies": copies, "classes": classes, "patch": patch, "channels": channels}
        for name, value in sizes.items():
            _whole(name, value, 1)
        height, width, depth = image_shape
        if height % patch or width % patch:
            raise ValueError(f"patch must divide {height} and {width}; received {patch}")
        self.options = {**sizes, "image_shape": tuple(image_shape), "nodes": nodes}
        self.edges, self.shifts = edges(nodes), neighbours(height // patch, width // patch)
        near = self.shifts.sum(0)
        self.average = near / near.sum(0)
        count, pixels = len(self.edges), patch * patch * depth
        for name, shape, inputs in (
            ("stem", (pixels, channels), pixels),
            ("conv1", (count, channels, channels), channels),
            ("conv3", (count, 9, channels, channels), 9 * channels),
            ("head", (channels, classes), channels),
        ):
            start = keras.initializers.RandomNormal(stddev=math.sqrt(2 / inputs))
            setattr(self, name, self.add_weight((copies, *shape), start, name=name))
        self.stem_bias = self.add_weight((copies, channels), "zeros", name="stem_bias")
        self.head_bias = self.add_weight((copies, classes), "zeros", name="head_bias")
        self.built = True

    def build(self, shapes):
        """Nothing is left to make."""

    def operate(self, name, x, conv1, conv3):
        """Return `[A, B, P, C]`: one operation of each network, on x of the same shape."""
        networks, _, positions, channels = x.shape
        if name == "none":
            return ops.zeros_like(x)
        if name == "skip":
            return x
        if name == "pool3":
            return ops.einsum("abpc,pq->abqc", x, ops.cast(self.average, x.dtype))
        x = ops.relu(x)
        if name == "conv1":
            return ops.einsum("abpi,aio->abpo", x, conv1)
        # One matrix for each network, with a zero for each pair of places that are no neighbours.
        wide = positions * channels
        matrix = ops.einsum("spq,asio->apiqo", ops.cast(self.shifts, x.dtype), conv3)
        rows = ops.reshape(x, (networks, -1, wide))
        rows = ops.matmul(rows, ops.reshape(matrix, (networks, wide, wide)))
        return ops.reshape(rows, (networks, -1, positions, channels))

    def edge(self, e, x, mix):
        """Return `[A, B, P, C]`: what edge e makes of x."""
        weights = self.conv1[:, e], self.conv3[:, e]
        parts = [self.operate(name, x, *weights) for name in OPERATIONS]
        return sum(mix[:, e, k, None, None, None] * part for k, part in enumerate(parts))

    def logits(self, images, mix=None):
        """Return `[A, B, classes]`."""
        shape = self.options["image_shape"]
        if tuple(images.shape[1:]) != shape:
            wanted = f"images must be [B, {', '.join(map(str, shape))}]"
            raise ValueError(f"{wanted}; received {tuple(images.shape)}")
        tokens = patches(images, self.options["patch"])
        nodes = [ops.einsum("bpi,aic->abpc", tokens, self.stem) + self.stem_bias[:, None, None]]
        for j in range(1, self.options["nodes"]):
            into = [(e, i) for e, (i, to) in enumerate(self.edges) if to == j]
            nodes.append(sum(self.edge(e, nodes[i], mix) for e, i in into))
        features = ops.mean(ops.relu(nodes[-1]), axis=2)
        return ops.einsum("abc,aco->abo", features, self.head) + self.head_bias[:, None]

    def call(self, inputs):
        """Check the mix, and go through the networks."""
        images, mix = inputs
        wanted = (self.options["copies"], len(self.edges), len(OPERATIONS))
        if tuple(mix.shape) != wanted:
            raise ValueError(f"mix must be [A, E, O] = {wanted}; received {tuple(mix.shape)}")
        return self.logits(images, mix)

    def multiply_adds(self, mix):
        """Return the multiplications of one image in one network that runs what has a weight.

        Args:
            mix: `[E, O]`; an operation costs if its weight is not 0. A convolution counts as one,
                not as the matrix that it is computed with.
        """
        positions, width = self.shifts.shape[1], self.options["channels"]
        cost = {"conv1": width * width, "conv3": 9 * width * width}
        each = np.array([cost.get(name, 0) for name in OPERATIONS])
        inner = int((each * (np.asarray(mix) != 0)).sum())
        return positions * (self.stem.shape[1] * width + inner) + width * self.options["classes"]

    def get_config(self):
        """Return the arguments that make this model again."""
        return {**super().get_config(), **self.options}


@keras.saving.register_keras_serializable("aimodels")
class Population(Supernet):
    """A networks of different architectures, trained in one step as if each were alone.

    On each edge, the networks with the same operation are computed as one group. The weights are
    shaped as those of a `Supernet`; those of operations that were not chosen stay as they are. If
    no network has a certain convolution, Keras warns that it gets no gradient.

    Args:
        architectures: `[A, E]`.
        classes: as for `Supernet`.
        image_shape: as for `Supernet`.
        patch: as for `Supernet`.
        channels: as for `Supernet`.
        nodes: as for `Supernet`.

    Call:
        images: `[B, H, W, channels]`.

    Returns:
        `[A, B, classes]` logits. What happens in one network has no influence on another.

    Raises:
        ValueError: as `Supernet`; architectures that cannot be.
    """

    def __init__(
        self, architectures, classes, image_shape, patch, *, channels=8, nodes=3, **kwargs
    ):
        """Check the architectures, and make the weights."""
        checked = _checked(architectures, nodes)
        sizes = {"channels": channels, "nodes": nodes}
        super().__init__(len(checked), classes, image_shape, patch, **sizes, **kwargs)
        self.architectures = checked

    def edge(self, e, x, mix):
        """Return `[A, B, P, C]`; there is no mix."""
        arrays, groups, parts = (x, self.conv1[:, e], self.conv3[:, e]), [], []
        for k in np.unique(self.architectures[:, e]):
            rows = np.flatnonzero(self.architectures[:, e] == k)
            chosen = (ops.take(array, rows, axis=0) for array in arrays)
            parts.append(self.operate(OPERATIONS[k], *chosen))
            groups.append(rows)
        back = np.argsort(np.concatenate(groups))
        return ops.take(ops.concatenate(parts), back, axis=0)

    def call(self, images):
        """Go through the networks."""
        return self.logits(images)

    def get_config(self):
        """Return the arguments that make this model again."""
        config = super().get_config()
        del config["copies"]
        return {**config, "architectures": self.architectures.tolist()}


def total_loss(y, logits):
    """Return the sum over networks of each one's mean cross-entropy.

    A sum, so that each network gets the gradient that it would get alone.

    Args:
        y: classes `[B]`, the same for all.
        logits: `[A, B, classes]`.

    Returns:
        One number, float32.
    """
    labels = ops.broadcast_to(ops.cast(y, "int32")[None], logits.shape[:2])
    one_hot = ops.one_hot(labels, logits.shape[-1], dtype="float32")
    chosen = ops.sum(one_hot * ops.log_softmax(ops.cast(logits, "float32")), axis=-1)
    return -ops.sum(ops.mean(chosen, axis=1))


def make_search_step(model, alphas, optimizers, jit_compile=False):
    """Return one step of differentiable search, for `train`: first order, choices first.

    Args:
        model: a `Supernet`.
        alphas: `keras.Variable` `[A, E, O]`; their softmax is the mix.
        optimizers: two, of the weights and of the alphas.
        jit_compile: whether XLA compiles the step.

    Returns:
        `step(x, y)`: x is a pair of images to learn the weights from and others to learn the
        choices from, y the pair of their classes. It returns the loss of the weights, before.

    Raises:
        ValueError: alphas of another shape.

    Source: Liu, Simonyan and Yang 2019, algorithm 1 with ξ = 0, <https://arxiv.org/abs/1806.09055>.
    """
    wanted = (model.options["copies"], len(model.edges), len(OPERATIONS))
    if tuple(alphas.shape) != wanted:
        raise ValueError(f"alphas must be [A, E, O] = {wanted}; received {tuple(alphas.shape)}")
    weights = model.trainable_variables
    for optimizer, variables in zip(optimizers, (weights, [alphas]), strict=True):
        optimizer.build(variables)

    def descend(optimizer, variables, images, y):
        with tf.GradientTape() as tape:
            value = total_loss(y, model((images, ops.softmax(alphas))))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    def step(x, y):
        descend(optimizers[1], [alphas], x[1], y[1])
        return descend(optimizers[0], weights, x[0], y[0])

    return tf.function(step, jit_compile=jit_compile, autograph=False)


def strongest(alphas):
    """Return the architectures `[A, E]` of `[A, E, O]`: the largest on each edge, except "none".

    Raises:
        ValueError: another last axis, or NaN.
    """
    alphas = ops.convert_to_tensor(alphas).numpy().copy()
    if alphas.shape[-1:] != (len(OPERATIONS),) or np.isnan(alphas).any():
        wanted = f"[A, E, {len(OPERATIONS)}] without NaN"
        raise ValueError(f"alphas must be {wanted}; received {alphas.shape}")
    alphas[..., OPERATIONS.index("none")] = -np.inf
    return alphas.argmax(-1)


def regularized_evolution(score, budget, rng, *, population=8, sample=3, nodes=3):
    """Search by mutation: the best of a few has a child, and the oldest of all dies.

    Args:
        score: function of an architecture that returns its quality; higher is better. It is asked
            once for each function.
        budget: how many different functions to score.
        rng: a NumPy generator.
        population: how many are alive; the first ones are random.
        sample: how many of them compete for each child.
        nodes: of the cell.

    Returns:
        The architectures in the order of scoring, `[budget, E]`; fewer if a thousand children in a
        row were known already.

    Raises:
        ValueError: a number that is not allowed; a score that is NaN.

    Source: Real et al. 2019, algorithm 1, <https://arxiv.org/abs/1802.01548>.
    Differs: a child whose function is known costs nothing.
    """
    _whole("budget", budget, 1)
    _whole("population", population, 1)
    _whole("sample", sample, 1, population)
    alive, known, order = deque[tuple](), dict[str, float](), list[np.ndarray]()
    count, idle = len(edges(nodes)), 0
    while len(order) < budget and idle < 1000:
        if len(alive) < population:
            child = rng.integers(len(OPERATIONS), size=count)
        else:
            drawn = rng.choice(population, sample, replace=False)
            child = max((alive[i] for i in drawn), key=lambda one: one[0])[1].copy()
            e = rng.integers(count)
            child[e] = (child[e] + rng.integers(1, len(OPERATIONS))) % len(OPERATIONS)
            alive.popleft()
        name, idle = function_of(child, nodes), idle + 1
        if name not in known:
            known[name], idle = float(score(child)), 0
            order.append(child)
            if np.isnan(known[name]):
                raise ValueError(f"score must return a number; received nan for {name}")
        alive.append((known[name], child))
    return np.array(order)


def expected_best(scores, worth):
    """Return what random search finds on average, exactly: the worth of the best-scored of n.

    Args:
        scores: `[A]`, by which the search chooses.
        worth: `[A]`, by which we judge the choice.

    Returns:
        `[A]`, for n = 1 to A different architectures, all sets of n equally likely; among equal
        scores each is chosen equally often.

    Raises:
        ValueError: other shapes, or NaN.
    """
    scores, worth = np.asarray(scores, float), np.asarray(worth, float)
    if scores.ndim != 1 or not len(scores) or scores.shape != worth.shape:
        shapes = f"{scores.shape} and {worth.shape}"
        raise ValueError(f"scores and worth must both be [A], A at least 1; received {shapes}")
    if np.isnan(scores).any() or np.isnan(worth).any():
        raise ValueError("scores and worth must hold no NaN; received one")
    _, level = np.unique(scores, return_inverse=True)
    shared = (np.bincount(level, worth) / np.bincount(level))[level][np.argsort(scores)]
    count = len(scores)
    chances = [
        [math.comb(worse, n - 1) / math.comb(count, n) for worse in range(count)]
        for n in range(1, count + 1)
    ]
    return np.array(chances) @ shared
