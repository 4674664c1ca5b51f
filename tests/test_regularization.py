"""Overfitting: penalties against scikit-learn, dropout and stopping against Keras, networks alone."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from aimodels.regularization import (
    SideBySide,
    dropout,
    early_stop,
    lasso,
    pixel_views,
    ridge,
    soft_threshold,
    summed_cross_entropy,
)
from aimodels.training import make_step, train

SHAPES = [(2, 1), (7, 3), (30, 10), (5, 9), (1, 4), (40, 40)]


def message(text):
    return f"^{re.escape(text)}"


def table(samples, columns, seed=0):
    rng = np.random.default_rng((seed, samples, columns))
    x = rng.normal(3.0, 2.0, size=(samples, columns))
    return x, x @ rng.normal(size=columns) + rng.normal(5.0, 1.0, size=samples)


# ---- ridge


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [1e-3, 0.5, 100.0])
def test_ridge_equals_scikit_learn_with_n_times_the_strength(shape, strength):
    x, y = table(*shape)
    weights, bias = ridge(x, y, strength)
    theirs = Ridge(alpha=strength * len(x), solver="svd").fit(x, y)
    np.testing.assert_allclose(weights, theirs.coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_of_strength_0_is_the_shortest_least_squares(shape):
    x, y = table(*shape)
    weights, bias = ridge(x, y, 0)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(weights, np.linalg.pinv(centred) @ (y - y.mean()), atol=1e-7)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(x @ weights + bias, theirs.predict(x), atol=1e-7)


def test_ridge_of_one_column_by_hand():
    # centred x: -1, 1; centred y: -3, 3; x'x / 2 = 1, x'y / 2 = 3
    weights, bias = ridge([[1.0], [3.0]], [4.0, 10.0], 2.0)
    np.testing.assert_allclose(weights, [1.0])
    np.testing.assert_allclose(bias, 7.0 - 2.0 * 1.0)


def test_a_constant_column_gets_no_weight_and_the_bias_is_not_punished():
    x = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    for fit in (ridge, lasso):
        weights, bias = fit(x, [100.0, 100.0, 100.0], 1e6)
        np.testing.assert_allclose(weights, 0, atol=1e-9)
        np.testing.assert_allclose(bias, 100.0)
    assert ridge(x, [1.0, 2.0, 4.0], 0)[0][1] == 0


def test_the_same_column_twice_shares_the_weight_of_ridge():
    x, y = table(20, 1)
    weights, _ = ridge(np.repeat(x, 2, axis=1), y, 0.3)
    np.testing.assert_allclose(*weights)


# ---- lasso


@pytest.mark.parametrize("shape", [*SHAPES, (50, 20)])
@pytest.mark.parametrize("strength", [0.01, 0.3, 2.0])
def test_lasso_equals_scikit_learn(shape, strength):
    x, y = table(*shape)
    weights, bias = lasso(x, y, strength, tolerance=1e-12)
    theirs = Lasso(alpha=strength, tol=1e-13, max_iter=1_000_000).fit(x, y)
    np.testing.assert_allclose(weights, theirs.coef_, atol=2e-4)
    np.testing.assert_allclose(x @ weights + bias, theirs.predict(x), atol=2e-4)
    if shape[0] > shape[1]:
        assert ((weights == 0) == (theirs.coef_ == 0)).all()


def test_lasso_of_orthogonal_columns_is_the_soft_threshold():
    x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
    y = x @ [3.0, -0.4]
    weights, _ = lasso(x, y, 0.5)
    np.testing.assert_allclose(weights, [2.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(soft_threshold(np.array([3.0, -0.4, -2.0]), 0.5), [2.5, 0, -1.5])


def test_lasso_fulfils_its_conditions():
    x, y = table(60, 15)
    weights, bias = lasso(x, y, 0.4, tolerance=1e-13)
    slopes = x.T @ (y - x @ weights - bias) / len(x)
    chosen = weights != 0
    assert 0 < chosen.sum() < 15
    np.testing.assert_allclose(slopes[chosen], 0.4 * np.sign(weights[chosen]), atol=1e-4)
    assert (np.abs(slopes[~chosen]) <= 0.4 + 1e-4).all()


def test_from_the_largest_slope_on_every_weight_is_0():
    x, y = table(30, 6)
    limit = np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / 30
    assert not lasso(x, y, limit * 1.001)[0].any()
    assert lasso(x, y, limit * 0.99)[0].any()


def test_lasso_ends_when_its_loss_is_proved_to_be_within_the_tolerance():
    x, y = table(40, 12)
    x = x + x.mean(axis=1, keepdims=True)  # correlated columns converge slowly

    def loss(weights, bias):
        return ((y - x @ weights - bias) ** 2).mean() / 2 + 0.1 * np.abs(weights).sum()

    best = loss(*lasso(x, y, 0.1, tolerance=1e-14))
    for tolerance in (0.1, 1e-2, 1e-4):
        above = loss(*lasso(x, y, 0.1, tolerance=tolerance)) - best
        assert -1e-9 <= above <= tolerance * y.var()
    assert loss(*lasso(x, y, 0.1, tolerance=0.1)) - best > 1e-6 * y.var()
    with pytest.raises(ArithmeticError, match=message("not converged after 2 rounds")):
        lasso(x, y, 0.1, tolerance=1e-14, rounds=2)


# ---- dropout


def test_dropout_zeroes_small_draws_and_scales_up_the_rest():
    x, draws = np.array([[1.0, 2.0, -4.0]]), np.array([[0.1, 0.5, 0.9]])
    np.testing.assert_allclose(dropout(x, 0.5, draws), [[0.0, 4.0, -8.0]])
    np.testing.assert_allclose(dropout(x, 0.0, draws * 0), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean_and_has_the_stated_variance(rate):
    draws = np.random.default_rng(0).random(200_000)
    kept = np.asarray(dropout(np.full(200_000, 3.0), rate, draws))
    assert abs(kept.mean() - 3.0) < 5 * np.sqrt(9 * rate / (1 - rate) / 200_000)
    np.testing.assert_allclose(kept.var(), 9 * rate / (1 - rate), rtol=0.03)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_keras_zeroes_as_many_and_scales_the_rest_alike(rate):
    x = np.random.default_rng(0).normal(1.0, 1.0, size=(200, 500)).astype("float32")
    layer = keras.layers.Dropout(rate, seed=1)
    theirs = np.asarray(layer(x, training=True))
    ours = np.asarray(dropout(x, rate, np.random.default_rng(1).random(x.shape)))
    for result in (ours, theirs):
        assert abs((result == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
        kept = result != 0
        np.testing.assert_allclose(result[kept], x[kept] / (1 - rate), rtol=1e-5)
    assert np.array_equal(layer(x, training=False), x)


def test_dropout_takes_one_rate_a_network_tensors_and_half_precision():
    x = tf.ones((2, 3, 4), "float16")
    rates = np.array([0.0, 0.75]).reshape(2, 1, 1)
    result = dropout(x, rates, tf.fill((2, 3, 4), 0.8))
    assert result.dtype == tf.float16
    np.testing.assert_array_equal(result[0], 1.0)
    np.testing.assert_array_equal(result[1], 4.0)
    assert np.isnan(dropout(np.array([np.nan]), 0.5, np.array([0.9]))).all()


# ---- early stopping


def by_keras(losses, patience, least):
    """Return best and last epoch of Keras' callback, fed with the losses."""
    callback = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        patience=patience,
        min_delta=least,
        mode="min",
        restore_best_weights=True,
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    return callback.best_epoch, epoch


@pytest.mark.parametrize("patience", [1, 2, 3, 10])
@pytest.mark.parametrize("least", [0.0, 0.05, 0.3])
def test_stopping_equals_keras_on_many_curves(patience, least):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        epochs = int(rng.integers(1, 40))
        losses = (1 + (np.arange(epochs) / 15 - 1) ** 2 + rng.normal(0, 0.2, epochs)).round(2)
        assert early_stop(losses, patience, least) == by_keras(losses, patience, least)


def test_stopping_by_hand():
    losses = [3.0, 2.0, 2.5, 1.9, 2.0, 2.1, 1.0]
    assert early_stop(losses, 1) == (1, 2)
    assert early_stop(losses, 2) == (3, 5)
    assert early_stop(losses, 3) == (6, 6)
    assert early_stop(losses, 2, least=0.2) == (1, 3)
    assert early_stop([2.0, 2.0, 2.0], 2) == (0, 2)
    assert early_stop([1.0], 1) == (0, 0)


def test_a_nan_is_never_the_best_and_counts_as_no_improvement():
    nan = np.nan
    assert early_stop([nan, 2.0, nan, nan], 2) == (1, 3)
    assert early_stop([nan, nan, nan], 2) == (None, 1)
    assert early_stop([np.inf, np.inf, 1.0], 2) == (2, 2) == by_keras([np.inf, np.inf, 1.0], 2, 0)


# ---- views


def test_views_of_a_row_of_two_pixels():
    assert pixel_views(1, 2).tolist() == [[0, 1]]
    assert pixel_views(1, 2, flip=True).tolist() == [[0, 1], [1, 0]]
    one = pixel_views(1, 2, shift=1)
    assert one.shape == (9, 2)
    assert one[0].tolist() == [0, 1]
    rows = {tuple(row) for row in one.tolist()}
    assert rows == {(0, 1), (2, 0), (1, 2), (2, 2)}  # stay, right, left, moved out of the image


@pytest.mark.parametrize(("height", "width", "shift"), [(3, 5, 1), (4, 4, 2), (1, 1, 0), (2, 3, 3)])
@pytest.mark.parametrize("flip", [False, True])
def test_views_are_the_rolled_and_mirrored_images(height, width, shift, flip):
    image = np.arange(1.0, height * width + 1).reshape(height, width)
    wide = np.pad(image, shift)
    wanted = [
        wide[a : a + height, b : b + width]
        for a in range(2 * shift + 1)
        for b in range(2 * shift + 1)
    ]
    wanted += [view[:, ::-1] for view in wanted] if flip else []
    views = pixel_views(height, width, shift, flip)
    seen = np.append(image.ravel(), 0.0)[views]
    assert np.array_equal(seen[0], image.ravel())
    assert sorted(map(tuple, seen)) == sorted(tuple(view.ravel()) for view in wanted)
    half = len(views) // 2
    if flip:
        mirrored = seen[half].reshape(height, width)
        assert np.array_equal(mirrored, image[:, ::-1])


# ---- networks side by side

NETWORKS = {"widths": (4, 6, 3), "seeds": (0, 1, 0), "l1": [0, 0.1, 0.2], "l2": [0.3, 0, 0.1]}


def samples(networks, batch=8, columns=4, classes=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(networks, batch, columns)).astype("float32")
    return x, np.eye(classes, dtype="float32")[rng.integers(0, classes, (networks, batch))]


def test_each_network_is_the_keras_stack_with_its_weights():
    model = SideBySide((4, 6, 5, 3), seeds=(0, 1))
    for bias in model.biases:
        bias.assign(np.random.default_rng(2).normal(size=bias.shape))
    x, _ = samples(2)
    for r in range(2):
        layers = [keras.layers.Dense(units, activation="relu") for units in (6, 5)]
        stack = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3)])
        pairs = zip(model.kernels, model.biases, strict=True)
        stack.set_weights([w for k, b in pairs for w in (np.array(k[r]), np.array(b[r, 0]))])
        np.testing.assert_allclose(model(x)[r], stack(x[r]), rtol=1e-5, atol=1e-5)


def test_equal_seeds_start_equal_and_the_size_of_the_weights_is_that_of_he():
    model = SideBySide((200, 100, 50), seeds=(7, 8, 7))
    first = model.kernels[0].numpy()
    assert np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_allclose(first.std(), np.sqrt(2 / 200), rtol=0.02)
    np.testing.assert_allclose(model.kernels[1].numpy().std(), np.sqrt(2 / 100), rtol=0.05)


def test_the_penalties_are_those_of_each_network_by_hand():
    model = SideBySide(**NETWORKS)
    wanted = 0
    for kernel in (kernel.numpy() for kernel in model.kernels):
        for r in range(3):
            wanted += NETWORKS["l1"][r] * np.abs(kernel[r]).sum()
            wanted += NETWORKS["l2"][r] / 2 * (kernel[r] ** 2).sum()
    for bias in model.biases:
        bias.assign(np.ones(bias.shape))  # not punished
    found = float(sum(ops.sum(loss) for loss in model.losses))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_network_learns_side_by_side_what_it_learns_alone(jit_compile):
    x, y = samples(3)

    def trained(rows):
        options = {key: np.asarray(NETWORKS[key])[rows] for key in ("seeds", "l1", "l2")}
        model = SideBySide(NETWORKS["widths"], **options)
        step = make_step(
            model, keras.optimizers.Adam(0.01), summed_cross_entropy, jit_compile=jit_compile
        )
        losses = train(step, [(x[rows], y[rows])] * 20, 20)
        return model, losses

    together, losses = trained([0, 1, 2])
    sums = 0
    for r in range(3):
        alone, mine = trained([r])
        sums = sums + mine
        for ours, its in zip(together.weights[:4], alone.weights[:4], strict=True):
            np.testing.assert_allclose(ours[r], its[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(losses, sums, rtol=1e-4)
    assert losses[-1] < losses[0]


def test_the_loss_is_the_sum_of_the_mean_cross_entropies():
    x, y = samples(3)
    logits = np.asarray(SideBySide(**NETWORKS)(x))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = -(y * np.log(p)).sum(-1).mean(1).sum()
    np.testing.assert_allclose(summed_cross_entropy(y, logits), wanted, rtol=1e-5)


def test_dropout_acts_in_training_alone_and_by_the_rate_of_each_network():
    model = SideBySide((4, 400, 3), seeds=(0, 0), rate=[0.0, 0.5])
    x = np.repeat(samples(1)[0], 2, axis=0)
    calm, first, second = np.array(model(x)), *(np.array(model(x, training=True)) for _ in "ab")
    assert np.array_equal(calm[0], calm[1])
    assert np.allclose(first[0], calm[0], atol=1e-5)
    assert not np.allclose(first[1], calm[1], atol=1e-2)
    assert not np.allclose(first[1], second[1], atol=1e-2)
    many = np.mean([np.array(model(x, training=True))[1] for _ in range(300)], axis=0)
    assert np.abs(many - calm[1]).max() < 0.2  # on average what it says without dropout


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_it_can_be_saved_and_loaded(tmp_path):
    model = SideBySide(**NETWORKS, rate=0.5)
    x, _ = samples(3)
    before = np.array(model(x))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(x), before)
    assert again.get_config() == model.get_config()
    assert float(sum(again.losses)) == float(sum(model.losses))


def test_half_precision_and_compiled_without_training():
    model = SideBySide(**NETWORKS, rate=0.5, dtype="mixed_float16")
    full = SideBySide(**NETWORKS, rate=0.5)
    x, y = samples(3)
    assert model(x, training=True).dtype == "float16"
    np.testing.assert_allclose(ops.cast(model(x), "float32"), full(x), atol=0.02)
    assert np.isfinite(float(summed_cross_entropy(y, ops.cast(model(x), "float32"))))
    compiled = tf.function(full, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(x), full(x), atol=1e-5)


def test_a_nan_stays_in_its_sample():
    model = SideBySide(**NETWORKS)
    x, _ = samples(3)
    x[1, 2, 0] = np.nan
    bad = np.isnan(model(x)).any(axis=2)
    assert bad[1, 2]
    assert bad.sum() == 1


def test_symbolic_shapes_one_layer_and_no_sample():
    model = SideBySide((4, 3), seeds=(0, 1))
    assert model(np.zeros((2, 0, 4), "float32")).shape == (2, 0, 3)
    call = tf.function(model, input_signature=[tf.TensorSpec((2, None, 4))])
    assert call(tf.zeros((2, 5, 4))).shape == (2, 5, 3)


# ---- what is not allowed


@pytest.mark.parametrize("fit", [ridge, lasso])
@pytest.mark.parametrize(
    ("x", "y", "strength", "text"),
    [
        ([1.0], [1.0], 1, "x and y must be [N, D] and [N], not empty; received (1,), (1,)"),
        (
            [[1.0]],
            [1.0, 2.0],
            1,
            "x and y must be [N, D] and [N], not empty; received (1, 1), (2,)",
        ),
        (
            np.ones((0, 2)),
            [],
            1,
            "x and y must be [N, D] and [N], not empty; received (0, 2), (0,)",
        ),
        (np.ones((2, 0)), [1, 2], 1, "x and y must be [N, D] and [N], not empty; received (2, 0)"),
        ([[np.nan]], [1.0], 1, "x must hold finite numbers; received a NaN or an infinity"),
        ([[1.0]], [np.inf], 1, "y must hold finite numbers; received a NaN or an infinity"),
        ([[1.0]], [1.0], -1, "strength must be a finite number from 0; received -1"),
        ([[1.0]], [1.0], np.nan, "strength must be a finite number from 0; received nan"),
        ([[1.0]], [1.0], np.inf, "strength must be a finite number from 0; received inf"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_named(fit, x, y, strength, text):
    with pytest.raises(ValueError, match=message(text)):
        fit(x, y, strength)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: lasso([[1.0]], [1.0], 0), "strength must be above 0, or use ridge; received 0"),
        (lambda: lasso([[1.0]], [1.0], 1, 0), "tolerance must be a number above 0; received 0"),
        (lambda: lasso([[1.0]], [1.0], 1, rounds=0), "rounds must be a whole number from 1"),
        (
            lambda: dropout(np.ones(2), 1.0, np.ones(2)),
            "rate must be from 0 to below 1; received 1",
        ),
        (lambda: dropout(np.ones(2), -0.1, np.ones(2)), "rate must be from 0 to below 1"),
        (lambda: dropout(np.ones(2), np.nan, np.ones(2)), "rate must be from 0 to below 1"),
        (
            lambda: dropout(np.ones(2), 0.5, np.ones(3)),
            "draws must have the shape (2,); received (3",
        ),
        (lambda: early_stop([], 1), "losses must be [E], not empty; received shape (0,)"),
        (lambda: early_stop([[1.0]], 1), "losses must be [E], not empty; received shape (1, 1)"),
        (lambda: early_stop([1.0], 0), "patience must be a whole number from 1; received 0"),
        (lambda: early_stop([1.0], 1.5), "patience must be a whole number from 1; received 1.5"),
        (lambda: early_stop([1.0], True), "patience must be a whole number from 1; received True"),
        (lambda: early_stop([1.0], 1, -1), "least must be a number from 0; received -1"),
        (lambda: pixel_views(0, 2), "height must be a whole number from 1; received 0"),
        (lambda: pixel_views(2, 0), "width must be a whole number from 1; received 0"),
        (lambda: pixel_views(2, 2, -1), "shift must be a whole number from 0; received -1"),
        (lambda: SideBySide((3,), (0,)), "widths must be two numbers or more, seeds one; received"),
        (lambda: SideBySide((3, 2), ()), "widths must be two numbers or more, seeds one; received"),
        (lambda: SideBySide((3, 0), (0,)), "widths must be a whole number from 1; received 0"),
        (lambda: SideBySide((3, 2), (-1,)), "seeds must be a whole number from 0; received -1"),
        (lambda: SideBySide((3, 2), (0,), l1=-1), "l1 must be from 0 to below inf; received -1"),
        (lambda: SideBySide((3, 2), (0,), l2=[1, 2]), "l2 must be a number or 1; received (2,)"),
        (lambda: SideBySide((3, 2), (0,), rate=1), "rate must be from 0 to below 1.0; received 1"),
    ],
)
def test_what_is_not_allowed_is_named(call, text):
    with pytest.raises(ValueError, match=message(text)):
        call()


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4), (3, 5, 3)])
def test_inputs_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=re.escape("inputs must be [3, B, 4]; received")):
        SideBySide(**NETWORKS)(np.zeros(shape, "float32"))
