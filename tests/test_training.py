"""Training loops: steps worked by hand, fit's losses, runs that stop and resume, damaged files."""

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from aimodels.training import Checkpoint, batches, make_step, train

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
Y = np.random.default_rng(1).integers(3, size=50)
PAIRS = (X, Y)
TWO = np.array([[2.0]], "float32"), np.array([[1.0]], "float32")  # x = 2, y = 1

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 30)),
    "adamw": lambda: keras.optimizers.AdamW(0.01, clipnorm=1.0),
    "ema": lambda: keras.optimizers.RMSprop(0.01, use_ema=True),
    "accumulating": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def network(seed=0, width=5, dropout=0.4, dtype=None):
    """A network with all kinds of state: dropout, moving means, a penalty."""
    keras.utils.set_random_seed(seed)
    parts = [
        keras.Input((6,)),
        layers.Dense(width, "relu", kernel_regularizer="l2", dtype=dtype),
        layers.BatchNormalization(dtype=dtype),
        layers.Dropout(dropout, dtype=dtype),
        layers.Dense(3, dtype=dtype),
    ]
    return keras.Sequential(parts)


def start(optimizer="adam", **settings):
    model, chosen = network(**settings), OPTIMIZERS[optimizer]()
    return model, chosen, make_step(model, chosen, CROSS_ENTROPY)


def state(*owners):
    return [np.array(v.numpy()) for owner in owners for v in owner.variables]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def one_weight():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[1.0]])
    return model


def squares(y, predictions):
    return ops.mean((predictions - y) ** 2)


# ---- batches


def test_epochs_are_permutations_made_of_seed_and_epoch():
    rows = list(islice(batches(np.arange(7), 3, 5), 4))
    wanted = [np.random.default_rng((5, e)).permutation(7)[:6] for e in (0, 1)]
    assert np.concatenate(rows).tolist() == np.concatenate(wanted).tolist()


@pytest.mark.parametrize(("samples", "size"), [(12, 4), (12, 12), (1, 1), (9, 1), (10, 4)])
def test_an_epoch_has_no_sample_twice_and_full_batches_only(samples, size):
    steps = samples // size
    epoch = list(islice(batches(np.arange(samples), size, 0), steps))
    assert {len(rows) for rows in epoch} == {size}
    assert len(set(np.concatenate(epoch).tolist())) == steps * size


def test_every_epoch_and_every_seed_has_another_order():
    first, second = islice(batches(np.arange(50), 50, 0), 2)
    (other,) = islice(batches(np.arange(50), 50, 1), 1)
    (again,) = islice(batches(np.arange(50), 50, 0), 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 8, 100])
def test_a_later_start_passes_over_what_came_before(at):
    late = list(islice(batches(np.arange(11), 4, 3, start=at), 5))
    assert same(late, list(islice(batches(np.arange(11), 4, 3), at, at + 5)))


def test_rows_of_a_nest_stay_together():
    nest = ({"a": np.arange(9), "b": (np.arange(9) * 2.0,)}, np.arange(18).reshape(9, 2))
    for x, y in islice(batches(nest, 4, 0), 5):
        assert (x["b"][0] == x["a"] * 2).all()
        assert (y[:, 0] == x["a"] * 2).all()
        assert y.shape == (4, 2)


def test_the_orders_do_not_hang_on_the_global_state():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    list(islice(batches(np.arange(9), 2, 0), 9))
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X, 0, 0), "size must be a whole number from 1 to 50; received 0"),
        ((X, 51, 0), "size must be a whole number from 1 to 50; received 51"),
        ((X, 2.0, 0), "size must be a whole number from 1 to 50; received 2.0"),
        ((X, True, 0), "size must be a whole number from 1 to 50; received True"),
        ((X, 2, -1), "seed must be a whole number from 0; received -1"),
        ((X, 2, None), "seed must be a whole number from 0; received None"),
        ((X, 2, 0, -1), "start must be a whole number from 0; received -1"),
        (((X, Y[:3]), 2, 0), "arrays must share one first axis N; received [(3,), (50,)]"),
        ((1.0, 2, 0), "arrays must share one first axis N; received [()]"),
        (((), 2, 0), "arrays must share one first axis N; received []"),
        ((X[:0], 1, 0), "size must be a whole number from 1 to 0; received 1"),
        (
            ((X, [np.r_[Y[:-1], np.nan]]), 2, 0),
            "arrays must hold no NaN; received one in sample 49",
        ),
    ],
)
def test_batches_refuses_at_once(arguments, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        batches(*arguments)


# ---- a step


def test_two_steps_worked_by_hand():
    # loss (2w - 1)², derivative 4 (2w - 1): w is 1, 0.6, 0.52.
    model = one_weight()
    step = make_step(model, keras.optimizers.SGD(0.1), squares)
    losses = train(step, batches(TWO, 1, 0), 2)
    np.testing.assert_allclose(losses, [1, 0.04], atol=1e-6)
    np.testing.assert_allclose(model.get_weights()[0], [[0.52]], atol=1e-6)


def test_penalties_and_added_losses_count_once_a_step():
    class Adds(layers.Layer):
        def call(self, x):
            self.add_loss(ops.full((2,), 5.0))
            return x

    model = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5)),
            Adds(),
        ]
    )
    model.layers[0].kernel.assign([[1.0]])
    step = make_step(model, keras.optimizers.SGD(0.1), squares)
    # 1 + w²/2 + 10, and its derivative 4 + w = 5; then 0 + 1/8 + 10.
    losses = train(step, batches(TWO, 1, 0), 2)
    np.testing.assert_allclose(losses, [11.5, 10.125], atol=1e-5)


def test_the_step_runs_in_training_mode():
    model, _, step = start("sgd")
    before = state(model.layers[1], model.layers[2])
    train(step, batches(PAIRS, 10, 0), 1)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(before, state(model.layers[1], model.layers[2]), strict=True)
    ]
    assert all(moved)  # scale, offset, both moving statistics, and the seeds of dropout


def test_evaluation_changes_no_state():
    model = network()
    before = state(model)
    model(X, training=False)
    assert same(before, state(model))
    model(X, training=True)
    assert not same(before, state(model))


def test_frozen_layers_stay():
    model = network()
    model.layers[0].trainable = False
    step = make_step(model, keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    frozen, free = state(model.layers[0]), state(model.layers[3])
    train(step, batches(PAIRS, 10, 0), 3)
    assert same(frozen, state(model.layers[0]))
    assert not same(free, state(model.layers[3]))


def test_one_graph_serves_all_steps():
    _, _, step = start("sgd")
    train(step, batches(PAIRS, 10, 0), 12)
    assert step.experimental_get_tracing_count() == 1


def test_jit_gives_the_same_numbers():
    runs = []
    for jit in (False, True):
        model = network(dropout=0.0)
        step = make_step(model, keras.optimizers.Adam(0.01), CROSS_ENTROPY, jit_compile=jit)
        runs.append(train(step, batches(PAIRS, 10, 0), 12))
    np.testing.assert_allclose(*runs, rtol=1e-5)
    assert step.experimental_get_compiler_ir(X[:10], Y[:10])().startswith("HloModule")


def test_inputs_may_be_several_of_unknown_length():
    one, two = keras.Input((None, 4)), keras.Input((2,))
    out = layers.Dense(1)(layers.Concatenate()([layers.GlobalAveragePooling1D()(one), two]))
    model = keras.Model([one, two], out)
    step = make_step(model, keras.optimizers.SGD(0.1), squares)
    for steps in (3, 5):
        ones = [np.ones(shape, "float32") for shape in ((8, steps, 4), (8, 2), (8, 1))]
        arrays = (tuple(ones[:2]), ones[2])
        losses = train(step, batches(arrays, 4, 0), 6)
        assert losses[-1] < losses[0] or losses[0] < 1e-3


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_comes_near(dtype):
    runs = []
    for kind in (None, dtype):
        _, _, step = start("scaled", dtype=kind, dropout=0.0)
        runs.append(train(step, batches(PAIRS, 10, 0), 10))
    assert np.isfinite(runs[1]).all()
    assert np.abs(runs[0] - runs[1]).max() < 0.05


def test_a_scaled_loss_is_reported_unscaled_and_steps_the_same():
    runs = []
    for optimizer in (
        keras.optimizers.SGD(0.1),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
        keras.optimizers.SGD(0.1, loss_scale_factor=8.0),
    ):
        step = make_step(network(), optimizer, CROSS_ENTROPY)
        runs.append(train(step, batches(PAIRS, 10, 0), 5))
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-6)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-6)


def test_nan_that_reaches_the_loss_is_returned():
    step = make_step(one_weight(), keras.optimizers.SGD(0.1), squares)
    assert np.isnan(train(step, [(np.full((1, 1), np.nan, "float32"), TWO[1])] * 2, 2)).all()


def test_a_loss_of_several_numbers_is_refused():
    step = make_step(network(), keras.optimizers.SGD(0.1), lambda y, z: ops.sum(z, axis=1))
    with pytest.raises(ValueError, match=re.escape("loss must return one number; received shape")):
        step(X, Y)


def test_an_unbuilt_model_is_refused(tmp_path):
    model = keras.Sequential([layers.Dense(2)], name="raw")
    text = "model raw must be built; start it with an Input or call it once"
    with pytest.raises(ValueError, match=text):
        make_step(model, keras.optimizers.SGD(0.1), squares)
    with pytest.raises(ValueError, match=text):
        Checkpoint(tmp_path / "a.npz", model, keras.optimizers.SGD(0.1))


# ---- many steps


def test_after_gets_each_number_and_loss():
    _, _, step = start("sgd")
    seen = []
    losses = train(step, batches(PAIRS, 10, 0), 4, start=7, after=lambda *pair: seen.append(pair))
    assert seen == list(zip([8, 9, 10, 11], losses.tolist(), strict=True))
    assert (losses.shape, losses.dtype) == ((4,), np.float64)


def test_no_step_takes_no_batch():
    source = batches(PAIRS, 10, 0)
    assert train(None, source, 0).shape == (0,)
    assert same(next(source), next(batches(PAIRS, 10, 0)))


@pytest.mark.parametrize(
    ("source", "settings", "text"),
    [
        ([(X, Y)] * 2, {"steps": 3}, "batches must hold 3; received 2"),
        ([X], {"steps": 1}, "batches must yield pairs (x, y); received ndarray"),
        ([(X, Y, Y)], {"steps": 1}, "batches must yield pairs (x, y); received tuple"),
        ([], {"steps": -1}, "steps must be a whole number from 0; received -1"),
        ([], {"steps": 1.5}, "steps must be a whole number from 0; received 1.5"),
        ([], {"steps": 1, "start": -1}, "start must be a whole number from 0; received -1"),
    ],
)
def test_train_refuses(source, settings, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        train(lambda x, y: 0.0, source, **settings)


# ---- the same losses as fit


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("size", [8, 10])
def test_losses_equal_those_of_fit(optimizer, size):
    _, _, step = start(optimizer)
    ours = train(step, batches(PAIRS, size, 4), 12)
    model = network()
    model.compile(OPTIMIZERS[optimizer](), CROSS_ENTROPY)
    history = model.fit(
        batches(PAIRS, size, 4), steps_per_epoch=1, epochs=12, shuffle=False, verbose=0
    )
    # Dividing by 10 rounds, and fit's graph, whose batch axis is open, rounds elsewhere.
    np.testing.assert_allclose(ours, history.history["loss"], rtol=0 if size == 8 else 1e-5)


def test_fit_without_a_target_raises():
    model = network()
    model.compile("sgd", CROSS_ENTROPY)
    with pytest.raises(ValueError, match="None values not supported"):
        model.fit(X, verbose=0)


def test_the_mean_gradient_of_an_epoch_is_that_of_all_samples():
    model = network(dropout=0.0)

    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = CROSS_ENTROPY(y, model(x, training=False))
        return tape.gradient(loss, model.trainable_variables)

    parts = [gradients(*pair) for pair in islice(batches(PAIRS, 10, 0), 5)]
    for whole, *several in zip(gradients(*PAIRS), *parts, strict=True):
        np.testing.assert_allclose(sum(several) / 5, whole, atol=1e-6)


# ---- stop and resume


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_is_the_unbroken_run(tmp_path, optimizer):
    model, chosen, step = start(optimizer)
    unbroken = train(step, batches(PAIRS, 8, 0), 15)
    end = state(model, chosen)

    model, chosen, step = start(optimizer)
    first = train(step, batches(PAIRS, 8, 0), 8)  # in the middle of an epoch of six steps
    Checkpoint(tmp_path / "a.npz", model, chosen).save(8, first)

    model, chosen, step = start(optimizer, seed=9)
    number, losses = Checkpoint(tmp_path / "a.npz", model, chosen).restore()
    rest = train(step, batches(PAIRS, 8, 0, start=number), 7, start=number)
    assert number == 8
    assert [*losses, *rest] == unbroken.tolist()
    assert same(state(model, chosen), end)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_any_type_come_back(tmp_path, dtype):
    model, optimizer = network(dtype=dtype), keras.optimizers.Adam()
    checkpoint = Checkpoint(tmp_path / "a.npz", model, optimizer)
    checkpoint.save(0, [])
    before = state(model, optimizer)
    for weight in model.weights:
        weight.assign(ops.zeros_like(weight))
    assert checkpoint.restore() == (0, [])
    assert same(state(model, optimizer), before)


CHILD = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_training import *
model, optimizer, step = start("adam")
checkpoint, losses = Checkpoint({path!r}, model, optimizer), []
def after(number, loss):
    losses.append(loss)
    checkpoint.save(number, losses)
    print(number, flush=True)
train(step, batches(PAIRS, 8, 0), 10**6, after=after)
"""


def test_a_killed_process_loses_nothing(tmp_path):
    path, here = tmp_path / "a.npz", Path(__file__).resolve().parent
    code = CHILD.format(root=str(here.parent), tests=str(here), path=str(path))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    seen = 0
    while seen < 40:
        line = child.stdout.readline()
        assert line, "the child ended by itself"
        seen = int(line)
    child.kill()
    child.communicate()

    model, optimizer, step = start("adam", seed=9)
    number, losses = Checkpoint(path, model, optimizer).restore()
    assert number >= seen
    rest = train(step, batches(PAIRS, 8, 0, start=number), 10, start=number)
    _, _, step = start("adam")
    unbroken = train(step, batches(PAIRS, 8, 0), number + 10)
    assert [*losses, *rest] == unbroken.tolist()


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch, call):
    model, optimizer, step = start("adam")
    checkpoint = Checkpoint(tmp_path / "a.npz", model, optimizer)
    checkpoint.save(0, [])
    old, before = checkpoint.path.read_bytes(), state(model, optimizer)
    losses = train(step, batches(PAIRS, 8, 0), 3)

    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, call, stops)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(3, losses)
    assert checkpoint.path.read_bytes() == old
    assert checkpoint.restore() == (0, [])
    assert same(state(model, optimizer), before)
    checkpoint.save(0, [])  # what is left of the interrupted write is in no way
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_damaged_or_cut_off_anywhere_restores_nothing_wrong(tmp_path):
    model, optimizer = one_weight(), keras.optimizers.SGD(0.1)
    checkpoint = Checkpoint(tmp_path / "a.npz", model, optimizer)
    checkpoint.save(2, [0.5, 0.25])
    whole, right = checkpoint.path.read_bytes(), state(model, optimizer)
    model.layers[0].kernel.assign([[7.0]])
    other = state(model, optimizer)
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        for raw in (damaged, *([whole[:place]] if place % 8 == 0 else [])):
            checkpoint.path.write_bytes(raw)
            said = ""
            try:
                answer = checkpoint.restore()
            except ValueError as error:
                said = str(error)
            if said:
                assert "is damaged or no checkpoint" in said
                assert same(state(model, optimizer), other)
                refused += 1
            else:  # a byte that means nothing, such as the time of writing
                assert answer == (2, [0.5, 0.25])
                assert same(state(model, optimizer), right)
                model.layers[0].kernel.assign([[7.0]])
    assert refused > 0.8 * len(whole)


@pytest.mark.parametrize("raw", [b"", b"text", b"\x80\x04N.", b"\x93NUMPY"])
def test_another_file_is_no_checkpoint(tmp_path, raw):
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.npz is damaged or no checkpoint"):
        Checkpoint(tmp_path / "a.npz", one_weight(), keras.optimizers.SGD(0.1)).restore()


def other_optimizer():
    return network(), keras.optimizers.RMSprop(0.1, momentum=0.9)


def other_width():
    return network(width=4), keras.optimizers.Adam(0.1)


def other_depth():
    return one_weight(), keras.optimizers.Adam(0.1)


def other_dtype():
    return network(dtype="float16"), keras.optimizers.Adam(0.1)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (other_width, "must hold 'kernel (6, 4) float32', as the model; received 'kernel (6, 5)"),
        (other_optimizer, "must hold 'RMSprop () int64', as the model; received 'Adam () int64'"),
        (other_depth, "must hold 5 variables, those of model and optimizer; received 23"),
        (other_dtype, "must hold 'kernel (6, 5) float16', as the model; received 'kernel (6, 5) f"),
    ],
)
def test_a_checkpoint_of_another_model_or_optimizer_is_refused(tmp_path, made, text):
    Checkpoint(tmp_path / "a.npz", network(), keras.optimizers.Adam()).save(0, [])
    model, optimizer = made()
    checkpoint = Checkpoint(tmp_path / "a.npz", model, optimizer)
    before = state(model, optimizer)
    with pytest.raises(ValueError, match=re.escape(text)):
        checkpoint.restore()
    assert same(state(model, optimizer), before)


def test_a_missing_file_or_folder_is_named(tmp_path):
    model, optimizer = one_weight(), keras.optimizers.SGD(0.1)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        Checkpoint(tmp_path / "none.npz", model, optimizer).restore()
    with pytest.raises(FileNotFoundError, match="path must be in a folder that exists; received"):
        Checkpoint(tmp_path / "no" / "a.npz", model, optimizer)


@pytest.mark.parametrize(
    ("step", "losses", "text"),
    [
        (-1, [], "step must be a whole number from 0; received -1"),
        (2, [1.0], "losses must have shape (2,), one a step; received (1,)"),
        (1, [[1.0]], "losses must have shape (1,), one a step; received (1, 1)"),
    ],
)
def test_save_refuses(tmp_path, step, losses, text):
    checkpoint = Checkpoint(tmp_path / "a.npz", one_weight(), keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        checkpoint.save(step, losses)
    assert list(tmp_path.iterdir()) == []
