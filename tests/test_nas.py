"""Architecture search: the space counted, networks side by side as alone and as Keras, searches."""

import itertools
import re
from math import comb

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from aimodels.nas import (
    OPERATIONS,
    Population,
    Supernet,
    edges,
    expected_best,
    function_of,
    make_search_step,
    neighbours,
    regularized_evolution,
    space,
    strongest,
    total_loss,
)
from aimodels.training import batches, make_step, train

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = {"classes": 3, "image_shape": (6, 4, 2), "patch": 2}
NONE, SKIP, CONV1, CONV3, POOL3 = range(5)


def message(text):
    return f"^{re.escape(text)}$"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def close(a, b, error=1e-5):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= error * max(1, np.abs(b).max())


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=v.shape, scale=0.5) for v in model.weights])
    return model


def in_keras(row, nodes, weights):
    """The same network from Keras' own layers."""
    stem, conv1, conv3, head, stem_bias, head_bias = weights
    width = stem.shape[1]
    image = keras.Input((6, 4, 2))
    first = layers.Conv2D(width, 2, strides=2)
    values, load = [first(image)], [(first, stem.reshape(2, 2, 2, width), stem_bias)]
    for j in range(1, nodes):
        total = layers.Rescaling(0.0)(values[0])
        for e, (i, to) in enumerate(edges(nodes)):
            if to != j or OPERATIONS[row[e]] == "none":
                continue
            x, name = values[i], OPERATIONS[row[e]]
            if name == "pool3":
                x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
            if name.startswith("conv"):
                side = int(name[-1])
                layer = layers.Conv2D(width, side, padding="same", use_bias=False)
                x = layer(layers.ReLU()(x))
                load.append(
                    (layer, (conv1 if side == 1 else conv3)[e].reshape(side, side, width, width))
                )
            total = layers.Add()([total, x])
        values.append(total)
    last = layers.Dense(3)
    out = last(layers.GlobalAveragePooling2D()(layers.ReLU()(values[-1])))
    for layer, *arrays in (*load, (last, head, head_bias)):
        layer.set_weights(arrays)
    return keras.Model(image, out)


# ---- the space


def test_edges_by_hand():
    assert edges(2) == [(0, 1)]
    assert edges(4) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ((NONE, NONE, NONE), "0"),
        ((CONV3, NONE, NONE), "0"),
        ((NONE, SKIP, CONV3), "x"),
        ((SKIP, NONE, CONV1), "conv1(x)"),
        ((CONV1, NONE, SKIP), "conv1(x)"),
        ((SKIP, SKIP, SKIP), "x + x"),
        ((CONV3, POOL3, CONV1), "conv1(conv3(x)) + pool3(x)"),
        ((POOL3, CONV1, SKIP), "conv1(x) + pool3(x)"),
    ],
)
def test_functions_by_hand(row, text):
    assert function_of(row) == text


def test_a_sum_below_a_convolution_has_no_order():
    # node 2 is a + b or b + a, node 3 a convolution of it
    one = (CONV1, POOL3, SKIP, NONE, NONE, CONV3)
    other = (POOL3, CONV1, SKIP, NONE, NONE, CONV3)
    assert function_of(one, 4) == function_of(other, 4) == "conv3(conv1(x) + pool3(x))"


def test_a_skip_of_a_sum_adds_its_terms():
    assert function_of((SKIP, CONV1, SKIP, POOL3, NONE, SKIP), 4) == "conv1(x) + pool3(x) + x"


def test_the_space_of_three_nodes_counted_by_hand():
    # out = c(x) + b(a(x)): 5 without b or a; 10 unordered pairs if one is a skip; 9 · 5 others.
    every, distinct, row_of = space(3)
    assert every.shape == (125, 3)
    assert distinct.shape == (5 + 10 + 45, 3)
    assert every[0].tolist() == [0, 0, 0]
    assert every[-1].tolist() == [4, 4, 4]
    assert len(np.unique(every, axis=0)) == 125
    names = [function_of(row) for row in distinct]
    assert len(set(names)) == 60
    assert [names[n] for n in row_of] == [function_of(row) for row in every]
    assert all(
        (every == row).all(1).argmax() == (row_of == n).argmax() for n, row in enumerate(distinct)
    )


def test_two_nodes_have_no_doubles():
    every, distinct, row_of = space(2)
    assert every.tolist() == distinct.tolist() == [[0], [1], [2], [3], [4]]
    assert row_of.tolist() == [0, 1, 2, 3, 4]


def test_doubles_compute_the_same():
    """Each double gets the weights of its class's first, moved to the edge that uses them."""
    images = normal(0, 2, 6, 4, 2)
    groups = {}
    for row in space(3)[0]:
        groups.setdefault(function_of(row), []).append(row)
    chosen = [g for g in groups.values() if len(g) > 1]
    rows = [row for group in chosen for row in group]
    model = randomized(Population(rows, **SMALL, channels=3))
    weights = [w.copy() for w in model.get_weights()]
    for w in weights:  # one kernel for all edges and networks
        w[:] = w[:1]
    weights[1][:] = weights[1][:1, :1]
    weights[2][:] = weights[2][:1, :1]
    model.set_weights(weights)
    logits, start = np.array(model(images)), 0
    for group in chosen:
        part = logits[start : start + len(group)]
        close(part, np.repeat(part[:1], len(group), 0))
        start += len(group)


# ---- networks


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 3)])
def test_neighbours_shift_as_padding_and_slicing(height, width):
    shifts = neighbours(height, width)
    x = normal(0, height, width)
    padded = np.pad(x, 1)
    for s, (i, j) in enumerate(itertools.product(range(3), repeat=2)):
        close(x.reshape(-1) @ shifts[s], padded[i : i + height, j : j + width].reshape(-1))


@pytest.mark.parametrize(
    ("nodes", "row"),
    [
        (2, [CONV3]),
        (2, [POOL3]),
        (3, [CONV3, POOL3, CONV1]),
        (3, [POOL3, SKIP, CONV3]),
        (3, [NONE, NONE, NONE]),
        (4, [CONV1, NONE, CONV3, SKIP, POOL3, CONV3]),
    ],
)
def test_a_network_is_the_same_from_keras_layers(nodes, row):
    model = randomized(Population([row, row], **SMALL, channels=5, nodes=nodes))
    images = normal(1, 3, 6, 4, 2)
    for n, logits in enumerate(np.array(model(images))):
        peer = in_keras(row, nodes, [w[n] for w in model.get_weights()])
        close(logits, peer(images))


def test_networks_side_by_side_are_as_alone_for_every_architecture():
    distinct = space(3)[1]
    model = randomized(Population(distinct, **SMALL, channels=2))
    images = normal(1, 4, 6, 4, 2)
    logits = np.array(model(images))
    one = Supernet(1, **SMALL, channels=2)
    for n, row in enumerate(distinct):
        one.set_weights([w[n : n + 1] for w in model.get_weights()])
        close(one((images, np.eye(5, dtype="float32")[row][None]))[0], logits[n])


def test_a_mix_is_the_sum_of_its_operations():
    model = randomized(Supernet(2, **SMALL, channels=3, nodes=2))
    images, mix = normal(1, 4, 6, 4, 2), normal(2, 2, 1, 5)
    x = normal(3, 2, 4, 6, 3)
    arrays = (tf.constant(x), model.conv1[:, 0], model.conv3[:, 0])
    parts = [np.array(model.operate(name, *arrays)) for name in OPERATIONS]
    by_hand = sum(mix[:, 0, k, None, None, None] * part for k, part in enumerate(parts))
    close(model.edge(0, tf.constant(x), mix), by_hand)
    assert model((images, mix)).shape == (2, 4, 3)


def test_networks_trained_side_by_side_are_as_trained_alone():
    rows = [[CONV3, POOL3, CONV1], [SKIP, CONV3, CONV3], [NONE, SKIP, NONE]]
    model = Population(rows, **SMALL, channels=4)
    start = [w.copy() for w in model.get_weights()]
    x, y = normal(0, 40, 6, 4, 2), np.random.default_rng(0).integers(3, size=40)
    data = lambda: batches((x, y), 8, 0)  # noqa: E731
    train(make_step(model, keras.optimizers.Adam(0.01), total_loss), data(), 12)
    for n, row in enumerate(rows):
        peer = in_keras(row, 3, [w[n] for w in start])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        train(make_step(peer, keras.optimizers.Adam(0.01), loss), data(), 12)
        close(model(x)[n], peer(x), 1e-4)


def test_weights_that_no_architecture_uses_stay_as_they_are():
    model = Population([[SKIP, CONV1, NONE], [CONV3, POOL3, CONV3]], **SMALL)
    before = model.get_weights()
    step = make_step(model, keras.optimizers.Adam(0.1), total_loss)
    step(normal(0, 5, 6, 4, 2), np.array([0, 1, 2, 0, 1]))
    changed = [
        (old != new).reshape(2, 3, -1).any(-1).tolist()
        for old, new in zip(before[1:3], model.get_weights()[1:3], strict=True)
    ]
    assert changed[0] == [[False, True, False], [False] * 3]
    assert changed[1] == [[False] * 3, [True, False, True]]


def test_a_nan_stays_in_its_network_and_its_image():
    model = randomized(Population([[CONV3, POOL3, CONV1], [CONV1, SKIP, CONV3]], **SMALL))
    images = normal(0, 3, 6, 4, 2)
    images[1, 0, 0, 0] = np.nan
    shown = np.isnan(model(images)).any(-1)
    assert shown.tolist() == [[False, True, False]] * 2
    weights = model.get_weights()
    weights[3][0] = np.nan
    model.set_weights(weights)
    assert np.isnan(model(normal(0, 3, 6, 4, 2))).any((1, 2)).tolist() == [True, False]


def test_each_copy_starts_with_weights_of_its_own_and_the_right_size():
    keras.utils.set_random_seed(0)
    model = Supernet(200, 3, (6, 4, 2), 2, channels=6)
    fans = {"stem": 8, "conv1": 6, "conv3": 54, "head": 6}
    for name, fan in fans.items():
        weights = getattr(model, name).numpy()
        assert abs(weights.std() / np.sqrt(2 / fan) - 1) < 0.05
        assert len(np.unique(weights.reshape(200, -1)[:, 0])) == 200


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_it_is_the_same(jit_compile):
    model = randomized(Population([[CONV3, POOL3, CONV1], [NONE, SKIP, CONV3]], **SMALL))
    images = normal(0, 3, 6, 4, 2)
    close(tf.function(model, jit_compile=jit_compile)(images), model(images))


def test_a_batch_of_unknown_size_keeps_its_shapes():
    model = Population([[CONV3, POOL3, CONV1], [NONE, SKIP, CONV3]], **SMALL)
    assert model(keras.Input((6, 4, 2))).shape == (2, None, 3)


def test_it_follows_its_policy():
    row = [[CONV3, POOL3, CONV1]]
    half = randomized(Population(row, **SMALL, dtype="mixed_float16"))
    full = randomized(Population(row, **SMALL))
    images = normal(0, 3, 6, 4, 2)
    assert keras.backend.standardize_dtype(half(images).dtype) == "float16"
    close(np.asarray(half(images), "float32"), full(images), 0.02)


@SAVING
@pytest.mark.parametrize("kind", ["population", "supernet"])
def test_a_saved_model_gives_the_same_numbers(kind, tmp_path):
    images, mix = normal(0, 3, 6, 4, 2), normal(1, 2, 6, 5)
    if kind == "population":
        rows = [[CONV3, POOL3, CONV1, SKIP, NONE, CONV1]] * 2
        model, inputs = Population(rows, **SMALL, channels=3, nodes=4), images
    else:
        model, inputs = Supernet(2, **SMALL, channels=3, nodes=4), (images, mix)
    before = np.array(randomized(model)(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(before, again(inputs))


def test_work_by_hand():
    # 6 positions; stem 8 · 4, head 4 · 3; conv1 16, conv3 144 at each position
    model = Supernet(1, **SMALL, channels=4)
    one_hot = np.eye(5)
    assert model.multiply_adds(one_hot[[CONV3, POOL3, CONV1]]) == 6 * (32 + 144 + 16) + 12
    assert model.multiply_adds(one_hot[[NONE, SKIP, POOL3]]) == 6 * 32 + 12
    assert model.multiply_adds(np.full((3, 5), 0.2)) == 6 * (32 + 3 * 160) + 12


# ---- losses and steps


def test_the_total_loss_sums_networks_and_averages_images():
    logits, y = normal(0, 3, 4, 5), np.array([4, 0, 2, 2])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    by_hand = sum(-np.log(p[a, np.arange(4), y]).mean() for a in range(3))
    close(total_loss(y, logits), by_hand)
    assert np.isnan(total_loss(y, logits * np.nan))
    assert total_loss(y, logits.astype("float16")).dtype == "float32"


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_search_step_is_two_steps_of_descent_choices_first(jit_compile):
    model = randomized(Supernet(2, **SMALL, channels=3))
    alphas = keras.Variable(normal(5, 2, 3, 5))
    a, b = normal(0, 4, 6, 4, 2), normal(1, 5, 6, 4, 2)
    y, z = np.array([0, 1, 2, 0]), np.array([2, 2, 1, 0, 1])
    copy, other = Supernet(2, **SMALL, channels=3), keras.Variable(alphas.numpy())
    copy.set_weights(model.get_weights())

    optimizers = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.3)
    step = make_search_step(model, alphas, optimizers, jit_compile)
    value = step((a, b), (y, z))

    with tf.GradientTape() as tape:
        loss = total_loss(z, copy((b, ops.softmax(other))))
    other.assign_sub(0.3 * tape.gradient(loss, other.value))
    with tf.GradientTape() as tape:
        loss = total_loss(y, copy((a, ops.softmax(other))))
    gradients = tape.gradient(loss, copy.trainable_variables)
    close(value, loss)
    close(alphas, other)
    for new, old, gradient in zip(model.weights, copy.weights, gradients, strict=True):
        close(new, old - 0.1 * gradient, 1e-4)


def test_a_search_finds_the_operation_that_the_task_needs():
    # The class is the sign of the mean: a skip sees it. Only skips reach the output undisturbed.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6, 4, 2)).astype("float32") * 0.1
    y = rng.integers(2, size=400)
    x += (2 * y - 1)[:, None, None, None].astype("float32")
    keras.utils.set_random_seed(0)
    model = Supernet(3, 2, (6, 4, 2), 2, nodes=2)
    alphas = keras.Variable(np.zeros((3, 1, 5), "float32"))
    adams = keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.05)
    step = make_search_step(model, alphas, adams)
    stream = batches((x, y), 32, 0)
    pairs = (((a[0], b[0]), (a[1], b[1])) for a, b in zip(stream, stream, strict=True))
    losses = train(step, pairs, 60)
    assert losses[-1] < 0.5 * losses[0]
    assert (ops.softmax(alphas).numpy()[:, 0, NONE] < 0.1).all()


def test_the_strongest_is_never_none():
    alphas = np.zeros((2, 3, 5))
    alphas[..., NONE] = 9
    alphas[0, 1, CONV3] = 1
    alphas[1, 2, POOL3] = 2
    given = alphas.copy()
    assert strongest(alphas).tolist() == [[1, 3, 1], [1, 1, 4]]
    assert strongest(keras.Variable(alphas)).tolist() == [[1, 3, 1], [1, 1, 4]]
    assert np.array_equal(alphas, given)


# ---- searches


def test_evolution_asks_each_function_once_and_keeps_to_its_budget():
    asked = []

    def score(a):
        asked.append(function_of(a))
        return len(asked)

    for budget in (1, 5, 30, 60):
        asked.clear()
        found = regularized_evolution(score, budget, np.random.default_rng(budget))
        assert len(found) == len(asked) <= budget
        assert [function_of(a) for a in found] == asked
        assert len(set(asked)) == len(asked)
        if budget <= 30:
            assert len(found) == budget


def test_evolution_of_a_population_of_one_is_a_walk_of_single_changes():
    walk = regularized_evolution(
        lambda a: 0, 20, np.random.default_rng(0), population=1, sample=1, nodes=4
    )
    assert len(walk) == 20
    steps = (walk[1:] != walk[:-1]).sum(1)
    assert steps[0] == 1  # the next ones may have passed through known functions
    assert steps.min() >= 1


def test_evolution_climbs():
    def score(a):
        return float((np.array(a) == CONV3).sum())

    best = {
        size: np.mean(
            [
                max(
                    score(a)
                    for a in regularized_evolution(
                        score, 60, np.random.default_rng(s), population=20, sample=size, nodes=4
                    )
                )
                for s in range(15)
            ]
        )
        for size in (1, 10)
    }
    assert best[10] > best[1] + 0.5


def test_evolution_lets_the_oldest_die_however_good():
    # If the first, alone in being good, lived on, only its neighbours would ever be tried.
    _, distinct, row_of = space(3)
    names, doubles = [function_of(row) for row in distinct], np.bincount(row_of)
    tried = 0
    for seed in range(40):
        scores = iter([100.0, *np.zeros(1000)])
        found = regularized_evolution(
            lambda a, scores=scores: next(scores),
            40,
            np.random.default_rng(seed),
            population=4,
            sample=4,
        )
        if doubles[names.index(function_of(found[0]))] == 1:
            tried += 1
            assert len(found) == 40
    assert tried > 3


def test_the_best_of_all_that_are_drawn_has_the_child():
    near = 0
    for seed in range(60):
        found = regularized_evolution(
            lambda a: float(np.dot(a, [1, 5, 25, 125, 625, 3125])),
            5,
            np.random.default_rng(seed),
            population=4,
            sample=4,
            nodes=4,
        )
        best = max(found[:4], key=lambda a: np.dot(a, [1, 5, 25, 125, 625, 3125]))
        near += (found[4] != best).sum() == 1
    assert near >= 48  # a first child whose function is known is passed over


def test_evolution_stops_where_nothing_is_new():
    assert len(regularized_evolution(lambda a: 1.0, 99, np.random.default_rng(0), nodes=2)) == 5


def test_one_seed_searches_the_same():
    runs = [regularized_evolution(sum, 20, np.random.default_rng(s)).tolist() for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_expected_best_by_hand():
    close(expected_best([3, 1, 2], [75, 60, 90]), [75, 80, 75])
    close(expected_best([7], [5]), [5])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [2, 5, 7])
def test_expected_best_is_the_mean_over_all_subsets(count, ties):
    rng = np.random.default_rng(count)
    scores = rng.integers(3, size=count) if ties else rng.permutation(count)
    worth = rng.normal(size=count)
    for n, value in enumerate(expected_best(scores, worth), 1):
        found = []
        for rows in map(list, itertools.combinations(range(count), n)):
            top = scores[rows] == scores[rows].max()
            found.append(worth[rows][top].mean())
        assert len(found) == comb(count, n)
        assert np.isclose(value, np.mean(found))


# ---- bad arguments


@pytest.mark.parametrize("nodes", [1, 2.0, True, "3"])
def test_cells_of_too_few_nodes_are_refused(nodes):
    text = f"nodes must be an integer of at least 2; received {nodes!r}"
    with pytest.raises(ValueError, match=message(text)):
        edges(nodes)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[1, 2]], "must be integers [A, 3], A at least 1; received int64 (1, 2)"),
        ([1, 2, 3], "must be integers [A, 3], A at least 1; received int64 (3,)"),
        ([[1.0, 2.0, 3.0]], "must be integers [A, 3], A at least 1; received float64 (1, 3)"),
        (np.zeros((0, 3), int), "must be integers [A, 3], A at least 1; received int64 (0, 3)"),
        ([[0, 1, 2], [0, 5, 1]], "must hold 0 to 4; received [0, 5, 1]"),
        ([[0, -1, 2]], "must hold 0 to 4; received [0, -1, 2]"),
    ],
)
def test_architectures_that_cannot_be_are_refused(rows, text):
    with pytest.raises(ValueError, match=message(f"architectures {text}")):
        Population(rows, **SMALL)


def test_functions_of_no_architecture_are_refused():
    with pytest.raises(ValueError, match=r"^architectures must be integers"):
        function_of([1, 2, 3], nodes=4)
    with pytest.raises(ValueError, match=r"^architectures must hold 0 to 4"):
        function_of([1, 2, 7])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"copies": 0}, "copies must be an integer of at least 1; received 0"),
        ({"classes": 0}, "classes must be an integer of at least 1; received 0"),
        ({"channels": 1.5}, "channels must be an integer of at least 1; received 1.5"),
        ({"patch": 0}, "patch must be an integer of at least 1; received 0"),
        ({"patch": 4}, "patch must divide 6 and 4; received 4"),
        ({"nodes": 1}, "nodes must be an integer of at least 2; received 1"),
    ],
)
def test_networks_that_cannot_be_are_refused(changed, text):
    with pytest.raises(ValueError, match=message(text)):
        Supernet(**{"copies": 2, **SMALL, **changed})


def test_inputs_of_another_shape_are_refused():
    model, mix = Supernet(2, **SMALL), np.zeros((2, 3, 5), "float32")
    text = "images must be [B, 6, 4, 2]; received (1, 4, 6, 2)"
    with pytest.raises(ValueError, match=re.escape(text)):
        model((np.zeros((1, 4, 6, 2), "float32"), mix))
    text = "mix must be [A, E, O] = (2, 3, 5); received (1, 3, 5)"
    with pytest.raises(ValueError, match=re.escape(text)):
        model((np.zeros((1, 6, 4, 2), "float32"), mix[:1]))
    text = "alphas must be [A, E, O] = (2, 3, 5); received (3, 5)"
    with pytest.raises(ValueError, match=message(text)):
        make_search_step(model, keras.Variable(mix[0]), (None, None))


@pytest.mark.parametrize("alphas", [np.zeros((2, 3, 4)), np.full((1, 3, 5), np.nan)])
def test_alphas_that_choose_nothing_are_refused(alphas):
    text = f"alphas must be [A, E, 5] without NaN; received {alphas.shape}"
    with pytest.raises(ValueError, match=message(text)):
        strongest(alphas)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"budget": 0}, "budget must be an integer of at least 1; received 0"),
        ({"population": 0}, "population must be an integer of at least 1; received 0"),
        ({"sample": 9}, "sample must be an integer from 1 to 8; received 9"),
        ({"sample": 0}, "sample must be an integer from 1 to 8; received 0"),
    ],
)
def test_evolutions_that_cannot_be_are_refused(changed, text):
    with pytest.raises(ValueError, match=message(text)):
        regularized_evolution(sum, **{"budget": 5, "rng": np.random.default_rng(0), **changed})


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(ValueError, match=r"^score must return a number; received nan for "):
        regularized_evolution(lambda a: np.nan, 5, np.random.default_rng(0))


@pytest.mark.parametrize(("scores", "worth"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_scores_of_other_shapes_are_refused(scores, worth):
    shapes = f"{np.shape(scores)} and {np.shape(worth)}"
    text = f"scores and worth must both be [A], A at least 1; received {shapes}"
    with pytest.raises(ValueError, match=message(text)):
        expected_best(scores, worth)


def test_scores_that_are_nan_are_refused():
    for pair in (([1, np.nan], [1, 2]), ([1, 2], [np.nan, 2])):
        with pytest.raises(
            ValueError, match=message("scores and worth must hold no NaN; received one")
        ):
            expected_best(*pair)
