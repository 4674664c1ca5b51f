"""Profiling: planted faults are found where they are, sound models are left in peace, counts by hand."""

import re
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aimodels.cnn import lenet
from aimodels.gpt import GPT, next_token_loss
from aimodels.inference import work
from aimodels.lstm import LSTM
from aimodels.profiling import (
    Bad,
    Roof,
    Work,
    check_shapes,
    convolution,
    dependence,
    describe,
    first_bad,
    measure_roof,
    operations,
    pointwise,
    product,
    scalars,
    timings,
    unused,
)
from aimodels.vit import VisionTransformer

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype("float32")
Y = RNG.integers(3, size=5)


def message(text):
    return f"^{re.escape(text)}"


class Function(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Residual(layers.Layer):
    """An inner layer beside a path of its own."""

    def __init__(self, inside=lambda x: x, around=lambda x: x, before=lambda x: x, **kwargs):
        super().__init__(**kwargs)
        self.inner = Function(inside, name="inner")
        self.around, self.before = around, before

    def call(self, x):
        return self.around(x) + self.inner(self.before(x))


def chain(*middle, dropout=0.5):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((4,)), layers.Dense(6, "tanh", name="one"), *middle]
    parts += [layers.BatchNormalization(name="norm"), layers.Dropout(dropout, name="drop")]
    return keras.Sequential([*parts, layers.Dense(3, name="two")], name="chain")


def unit(x):
    length = ops.sqrt(ops.sum(x**2, -1, keepdims=True))
    return ops.where(length > 0, x / length, 0.0)


def zero_row(x):
    return x * np.array([[1.0], [0], [1], [1], [1]], "float32")


# ---- ranges


def test_a_range_by_hand():
    found = describe([[1.0, np.nan], [-np.inf, np.inf], [-3.0, 0]])
    assert found == (-3.0, 1.0, 1, 2, 6)
    assert not found.finite
    assert str(found) == "-3 to 1, 1 NaN, 2 infinite, of 6"


@pytest.mark.parametrize("array", [np.float32(2), tf.constant(2.0, tf.bfloat16), [2]])
def test_a_range_of_one_number(array):
    assert describe(array) == (2, 2, 0, 0, 1)
    assert describe(array).finite


def test_a_range_without_a_finite_number():
    assert str(describe([np.nan])) == "1 NaN, of 1"
    assert str(describe([])) == "none, of 0"
    assert describe([]).finite


# ---- the first bad number

ZERO = {
    "log": (lambda x: ops.log(ops.maximum(x, 0.0)), "forward"),
    "divide": (lambda x: x / ops.sum(x * 0, -1, keepdims=True), "forward"),
    "overflow": (lambda x: ops.exp(1000 * ops.maximum(x, 0.0)), "forward"),
    "half": (
        lambda x: ops.cast(ops.cast(1e5 * (2 + x), "float16"), "float32"),
        "forward",
    ),
    "root": (lambda x: ops.sqrt(ops.abs(zero_row(x))), "backward"),
    "where": (lambda x: unit(zero_row(x)), "backward"),
    "norm": (lambda x: tf.norm(zero_row(x), axis=-1, keepdims=True) + x, "backward"),
}


@pytest.mark.parametrize("name", ZERO)
def test_the_layer_that_makes_the_bad_number_is_named(name):
    function, phase = ZERO[name]
    bad = first_bad(chain(Function(function, name="fault")), X, Y, CROSS_ENTROPY)
    assert (bad.phase, bad.inside) == (phase, "fault")
    assert all(r.finite for r in bad.good.values())
    assert bad.bad
    assert not any(r.finite for r in bad.bad.values())
    names = {"forward": ("fault ←", "fault →"), "backward": ("fault →", "fault ←")}[phase]
    assert (list(bad.good), list(bad.bad)) == ([names[0]], [names[1]])
    assert list(bad.values) == (["fault ←"] if phase == "backward" else [])


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("place", ["inside", "around", "before"])
def test_inner_layer_and_outer_code_are_told_apart(name, place):
    function, phase = ZERO[name]
    bad = first_bad(chain(Residual(**{place: function}, name="outer")), X, Y, CROSS_ENTROPY)
    assert (bad.phase, bad.inside) == (phase, "outer/inner" if place == "inside" else "outer")


def test_a_gradient_that_is_bad_for_a_weight_only():
    class Root(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((), "zeros", name="w")

        def call(self, x):
            return x + ops.sqrt(self.w)

    bad = first_bad(chain(Root(name="root")), X, Y, CROSS_ENTROPY)
    assert (bad.phase, bad.inside) == ("backward", "root")
    assert list(bad.bad) == ["weights chain/root/w"]


def test_a_layer_inside_of_two_layers_is_watched_once():
    class Around(layers.Layer):
        def __init__(self, inner, **kwargs):
            super().__init__(**kwargs)
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    inner = Function(lambda x: ops.log(x - 2), name="inner")
    bad = first_bad(chain(Around(inner, name="a"), Around(inner, name="b")), X, Y, CROSS_ENTROPY)
    assert (bad.phase, bad.inside) == ("forward", "a/inner")


def models():
    keras.utils.set_random_seed(0)
    images = RNG.normal(size=(3, 28, 28, 1)).astype("float32")
    ids = RNG.integers(20, size=(3, 8))
    digits = np.array([1, 2, 0])
    yield lenet(10), images, digits, CROSS_ENTROPY
    yield (
        VisionTransformer(10, (28, 28), 7, width=8, heads=2, depth=1, hidden=16),
        images,
        digits,
        CROSS_ENTROPY,
    )
    yield GPT(20, 8, 8, 2, 1, dropout=0.2), ids, np.roll(ids, 1, 1), next_token_loss
    recurrent = keras.Sequential([keras.Input((8, 3)), LSTM(4), layers.Dense(10)])
    yield recurrent, RNG.normal(size=(3, 8, 3)).astype("float32"), digits, CROSS_ENTROPY
    there = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Embedding(20, 4, mask_zero=True),
            layers.GRU(4),
            layers.Dense(10),
        ]
    )
    yield there, ids, digits, CROSS_ENTROPY
    one, two = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(3)
    yield (
        keras.Model([one, two], layers.Add()([shared(one), shared(two)])),
        [X, X + 1],
        Y,
        CROSS_ENTROPY,
    )
    half = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "relu", dtype="float16"), layers.Dense(3)]
    )
    yield half, X, Y, CROSS_ENTROPY


@pytest.mark.parametrize("number", range(7))
def test_a_sound_model_raises_no_alarm_and_is_left_as_it_was(number):
    model, x, y, loss = list(models())[number]
    out = np.asarray(model(x, training=False))
    before = [np.array(v.value.numpy()) for v in model.variables]
    assert first_bad(model, x, y, loss) is None
    assert all(
        np.array_equal(v.value.numpy(), was) for v, was in zip(model.variables, before, strict=True)
    )
    assert np.array_equal(model(x, training=False), out)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


@pytest.mark.parametrize("number", range(7))
def test_a_bad_weight_is_named_wherever_it_is(number):
    model, x, y, loss = list(models())[number]
    model(x)
    for place, variable in enumerate(model.trainable_variables):
        good = np.array(variable.value.numpy())
        variable.assign(np.where(np.arange(good.shape[-1]) == 0, np.inf, good))
        bad = first_bad(model, x, y, loss)
        variable.assign(good)
        assert bad.phase == "given"
        assert list(bad.bad) == [f"weights {variable.path}"]
        assert bad.inside not in ("the input", "the targets")
        if number == 2 and place > 1:
            assert bad.inside in variable.path


def test_statistics_and_random_numbers_are_those_of_before():
    model = chain()
    before = [np.array(v.value.numpy()) for v in model.variables]
    first_bad(model, X, Y, CROSS_ENTROPY)
    after = [v.value.numpy() for v in model.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_step_that_is_looked_at_is_the_one_that_would_be_taken():
    """Dropout: the fault shows only if the same numbers are dropped."""
    keras.utils.set_random_seed(3)
    fault = Function(lambda x: ops.sqrt(ops.abs(x)), name="fault")
    dense = layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), layers.Dropout(0.5, seed=0), dense, fault])
    shown = []
    for _ in range(12):
        x = np.ones((1, 1), "float32")
        found = first_bad(model, x, x, lambda y, p: ops.mean(p))
        with tf.GradientTape() as tape:
            value = ops.mean(model(x, training=True))
        gradient = tape.gradient(value, model.trainable_variables)
        assert (found is not None) == (not np.isfinite(gradient[0].numpy()).all())
        shown.append(found is not None)
    assert {True, False} == set(shown)


def test_without_training_nothing_is_dropped():
    model = chain(Function(lambda x: x, name="same"), dropout=0.9)
    seen = []
    model.layers[1].function = lambda x: seen.append(x) or x

    def loss(y, p):
        seen.append(p)
        return CROSS_ENTROPY(y, p)

    first_bad(model, X, Y, loss, training=False)
    assert np.allclose(seen[-1], model(X, training=False))


@pytest.mark.parametrize(
    ("value", "y", "phase", "inside"),
    [
        (np.nan, 1.0, "given", "the input"),
        (1.0, np.nan, "given", "the targets"),
    ],
)
def test_bad_input_and_bad_targets(value, y, phase, inside):
    x = np.where(np.arange(4) == 2, value, X).astype("float32")
    bad = first_bad(chain(), x, np.full((5, 3), y, "float32"), lambda y, p: ops.mean((y - p) ** 2))
    assert (bad.phase, bad.inside) == (phase, inside)
    assert sum(r.nan for r in bad.bad.values()) == (5 if inside == "the input" else 15)


@pytest.mark.parametrize(
    ("loss", "phase"),
    [
        (lambda y, p: ops.mean(ops.log(ops.softmax(1e4 * p))), "forward"),
        (lambda y, p: ops.sqrt(ops.sum(p * 0)), "backward"),
    ],
)
def test_the_loss_is_named(loss, phase):
    bad = first_bad(chain(), X, Y, loss)
    assert (bad.phase, bad.inside) == (phase, "loss")


def test_a_gradient_that_no_weight_uses_is_no_fault():
    parts = [keras.Input((4,)), Function(lambda x: unit(zero_row(x))), layers.Dense(3)]
    assert first_bad(keras.Sequential(parts), X, Y, CROSS_ENTROPY) is None


def test_a_gradient_that_only_frozen_weights_would_use_is_no_fault():
    parts = [keras.Input((4,)), layers.Dense(4, name="frozen"), Function(zero_row)]
    model = keras.Sequential([*parts, Function(unit, name="fault"), layers.Dense(3)])
    assert first_bad(model, X, Y, CROSS_ENTROPY).inside == "fault"
    model.get_layer("frozen").trainable = False
    assert first_bad(model, X, Y, CROSS_ENTROPY) is None


def test_what_layers_add_to_the_loss_counts():
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(ops.sqrt(ops.sum(x * 0)))
            return x

    bad = first_bad(chain(Penalty(name="penalty")), X, Y, CROSS_ENTROPY)
    assert (bad.phase, bad.inside) == ("backward", "penalty")


def test_a_mask_reaches_the_layer():
    seen = []

    class Look(layers.Layer):
        supports_masking = True

        def call(self, x, mask=None):
            seen.append(mask)
            return x

    parts = [keras.Input((3,)), layers.Embedding(4, 2, mask_zero=True), Look()]
    model = keras.Sequential([*parts, layers.GlobalAveragePooling1D()])
    assert (
        first_bad(model, np.array([[1, 2, 0]]), np.zeros((1, 2)), lambda y, p: ops.mean(p)) is None
    )
    assert np.array_equal(seen[-1], [[True, True, False]])


def test_a_layer_that_raises_leaves_no_trace():
    def stop(x):
        if not tf.is_symbolic_tensor(x):
            raise RuntimeError("stop")
        return x

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(), Function(lambda x: x)]
    )
    model.layers[-1].function = stop
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="stop"):
        first_bad(model, X, Y, CROSS_ENTROPY)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_what_is_found_reads_well():
    found = Bad(
        "backward",
        "unit",
        {"unit →": describe([1.0])},
        {"unit ←": describe([np.nan])},
        {"unit ←": describe([0.0])},
    )
    assert str(found).splitlines() == [
        "backward: unit",
        "  good  unit →: 1 to 1, of 1",
        "  bad   unit ←: 1 NaN, of 1",
        "  value unit ←: 0 to 0, of 1",
    ]


def test_a_model_must_be_built_and_a_loss_one_number():
    with pytest.raises(
        ValueError, match=message("model bare must be built; start it with an Input")
    ):
        first_bad(keras.Sequential([layers.Dense(2)], name="bare"), X, Y, CROSS_ENTROPY)
    with pytest.raises(
        ValueError, match=message("loss must return one number; received shape (5, 3)")
    ):
        first_bad(chain(), X, Y, lambda y, p: p)


# ---- gradients that do not arrive, and dependence


def test_a_stopped_a_dead_and_an_unconnected_variable_are_named():
    inputs = keras.Input((4,))
    dead = layers.Dense(4, "relu", bias_initializer=keras.initializers.Constant(-1e3), name="dead")
    stopped = Function(ops.stop_gradient)(layers.Dense(4, name="stopped")(inputs))
    alive = layers.Dense(4, name="alive")(inputs)
    model = keras.Model(inputs, layers.Add()([alive, stopped, dead(inputs)]))
    found = unused(model, X, Y, CROSS_ENTROPY)
    assert sorted(found) == ["dead/bias", "dead/kernel", "stopped/bias", "stopped/kernel"]


def test_sound_models_use_every_variable():
    for model, x, y, loss in models():
        assert unused(model, x, y, loss) == []


def test_an_embedding_counts_as_used_if_one_row_is():
    model = keras.Sequential(
        [keras.Input((2,)), layers.Embedding(9, 3), layers.Flatten(), layers.Dense(3)]
    )
    assert unused(model, np.array([[1, 1]]), np.array([0]), CROSS_ENTROPY) == []


def test_what_is_dropped_is_used_all_the_same():
    parts = [keras.Input((4,)), layers.Dense(4), layers.Dropout(0.999), layers.Dense(3)]
    assert unused(keras.Sequential(parts), X, Y, CROSS_ENTROPY) == []


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (4, 1, 3), (1, 6, 2)])
def test_dependence_by_construction(axis, shape):
    x = RNG.normal(size=shape)
    other = x + 1
    size = shape[axis]
    assert np.array_equal(dependence(np.cos, x, other, axis), np.eye(size))
    assert np.array_equal(
        dependence(lambda x: np.cumsum(x, axis), x, other, axis), np.tril(np.ones((size, size)))
    )
    assert dependence(lambda x: x - x.mean(axis, keepdims=True), x, other, axis).all() == (size > 1)
    back = np.eye(size)[::-1]
    assert np.array_equal(dependence(lambda x: np.flip(x, axis), x, other, axis), back)


def test_rows_of_dependence_are_those_of_the_result():
    x = np.arange(4.0)
    found = dependence(lambda x: np.array([x[1], x[2] + x[3]]), x, x + 1)
    assert np.array_equal(found, [[False, True, False, False], [False, False, True, True]])


def test_one_number_that_changes_is_enough():
    x = np.ones((3, 4))
    assert np.array_equal(dependence(lambda x: x * [0, 0, 1, 0], x, x + 1), np.eye(3))


def test_models_with_and_without_a_leak():
    ids = RNG.integers(20, size=(2, 8))
    gpt = list(models())[2][0]
    assert np.array_equal(dependence(gpt, ids, (ids + 3) % 20, axis=1), np.tril(np.ones((8, 8))))
    x = RNG.normal(size=(4, 5)).astype("float32")
    norm = layers.BatchNormalization()
    assert np.array_equal(dependence(norm, x, x + 1), np.eye(4))
    assert dependence(lambda x: norm(x, training=True), x, 2 * x).all()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            (np.cos, np.ones((2, 3)), np.ones((2, 2))),
            "other must have the shape of x, (2, 3); received (2, 2)",
        ),
        (
            (np.cos, np.ones(2), np.zeros(2), 1),
            "axis must be a whole number from 0 to 0; received 1",
        ),
        (
            (np.cos, np.ones(2), np.array([0, 1])),
            "other must differ from x in every part; received part 1 equal",
        ),
        (
            (np.sum, np.ones(2), np.zeros(2)),
            "function must return numbers with an axis 0, none NaN; received ()",
        ),
        (
            (lambda x: x + np.nan, np.ones(2), np.zeros(2)),
            "function must return numbers with an axis 0",
        ),
    ],
)
def test_what_dependence_refuses(given, text):
    with pytest.raises(ValueError, match=message(text)):
        dependence(*given)


# ---- shapes


def test_sizes_are_read_and_returned():
    x, y, one = np.zeros((2, 3, 4)), np.zeros((3, 2)), np.zeros(())
    assert check_shapes(x=(x, "B T D"), y=(y, "T B"), one=(one, "")) == {"B": 2, "T": 3, "D": 4}
    assert check_shapes(x=(x, "2 T 4")) == {"T": 3}


def test_an_unknown_axis_fits():
    x = keras.Input((3,))
    assert check_shapes(x=(x, "B D"), y=(np.zeros((7, 3)), "B D")) == {"B": 7, "D": 3}
    assert check_shapes(y=(np.zeros((7, 3)), "B D"), x=(x, "B D")) == {"B": 7, "D": 3}
    assert check_shapes(x=(x, "9 D")) == {"D": 3}


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": ((2, 3), "B")}, "x must be [B]; received (2, 3)"),
        ({"x": ((2,), "B D")}, "x must be [B, D]; received (2,)"),
        ({"x": ((2, 3), "B 4")}, "x must be [B, 4]; received (2, 3)"),
        ({"x": ((2, 3), "B B")}, "x must be [B, B]; received (2, 3)"),
        (
            {"x": ((2, 3), "B D"), "y": ((3, 1), "D B")},
            "y must be [D, B], D = 3 (x), B = 2 (x); received (3, 1)",
        ),
        ({"x": ((2,), "")}, "x must be []; received (2,)"),
    ],
)
def test_a_wrong_shape_is_said(arrays, text):
    with pytest.raises(ValueError, match=message(text) + "$"):
        check_shapes(**{name: (np.zeros(shape), axes) for name, (shape, axes) in arrays.items()})


def test_shapes_are_checked_while_a_graph_is_traced():
    @tf.function
    def loss(y, p):
        check_shapes(y=(y, "B"), p=(p, "B"))
        return tf.reduce_sum(y - p)

    assert loss(tf.ones(3), tf.zeros(3)) == 3
    with pytest.raises(ValueError, match=r"p must be \[B\], B = 3 \(y\); received \(3, 1\)"):
        loss(tf.ones(3), tf.zeros((3, 1)))


# ---- time


def test_functions_take_turns():
    called = []
    found = timings({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3)
    assert "".join(called) == "abbaabba"
    assert list(found) == ["a", "b"]
    assert found["a"].later.shape == (3,)
    assert all(t.first >= 0 and (t.later >= 0).all() for t in found.values())


def test_the_first_call_stands_apart(monkeypatch):
    clock = iter([0, 9, 10, 11, 20, 23, 30, 32])
    monkeypatch.setattr("aimodels.profiling.time.perf_counter", lambda: next(clock))
    timing = timings({"f": lambda: None}, rounds=3)["f"]
    assert timing.first == 9
    assert timing.later.tolist() == [1, 3, 2]
    assert timing.median == 2


def test_no_round_is_refused():
    with pytest.raises(
        ValueError, match=message("rounds must be a whole number from 1; received 0")
    ):
        timings({}, 0)


# ---- traces


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    def measure(function, *given, repeats=3):
        folder = tmp_path_factory.mktemp("trace")
        function(*given)
        tf.profiler.experimental.start(str(folder))
        for _ in range(repeats):
            function(*given)
        tf.profiler.experimental.stop()
        return operations(folder)

    return measure


def count(trace, kind):
    return sum(o.runs for o in trace if o.kind == kind)


A = tf.random.stateless_normal((200, 200), (0, 0))


def test_kernels_of_a_graph_are_counted(traced):
    @tf.function
    def step(a):
        with tf.name_scope("first"):
            b = tf.cumsum(a @ a)
        return tf.reduce_sum(tf.cumsum(b) @ a)

    trace = traced(step, A)
    assert (count(trace, "MatMul"), count(trace, "Cumsum")) == (6, 6)
    assert {o.name for o in trace if o.kind == "Cumsum"} == {"first/Cumsum", "Cumsum"}
    assert [o.seconds for o in trace] == sorted((o.seconds for o in trace), reverse=True)
    assert all(o.seconds > 0 for o in trace if o.kind in ("MatMul", "Cumsum"))
    assert not any("::" in o.name or o.kind == "Process" for o in trace)


def test_operations_inside_of_xla_are_seen(traced):
    step = tf.function(lambda a: tf.reduce_sum(tf.sin(a @ a) @ a), jit_compile=True)
    trace = traced(step, A)
    assert sum(o.runs for o in trace) >= 6
    assert all(o.runs % 3 == 0 for o in trace)
    assert any("matmul" in o.name.lower() or "dot" in o.name for o in trace)
    assert not any(":" in o.name or "Executor" in o.name or o.name == "step" for o in trace)


def test_seconds_are_those_of_the_clock(traced):
    import time

    big = tf.random.stateless_normal((1500, 1500), (0, 0))
    start = time.perf_counter()
    trace = traced(tf.function(lambda a: tf.reduce_sum(a @ a)), big)
    assert 0 < sum(o.seconds for o in trace if o.kind == "MatMul") < time.perf_counter() - start


def test_the_last_trace_counts_and_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=message("folder must hold a file *.xplane.pb; received")):
        operations(tmp_path)
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for day, name in (("1", "old:Old"), ("2", "new:New")):
        space = xplane_pb2.XSpace()
        plane = space.planes.add(name="/host:CPU")
        plane.event_metadata[1].name = name
        plane.lines.add().events.add(metadata_id=1, duration_ps=3 * 10**12)
        (tmp_path / day).mkdir()
        (tmp_path / day / "vm.xplane.pb").write_bytes(space.SerializeToString())
    assert operations(tmp_path) == [("new", "New", 1, 3.0)]


def test_numbers_of_copies_are_no_part_of_a_kind(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    plane.stat_metadata[7].name = "hlo_op"
    line = plane.lines.add()
    for number, name in enumerate(("dot", "dot.4", "dot_1.23", "loop_dot_fusion.2"), 1):
        plane.event_metadata[number].name = name
        line.events.add(metadata_id=number, duration_ps=10**12).stats.add(metadata_id=7)
    (tmp_path / "vm.xplane.pb").write_bytes(space.SerializeToString())
    found = operations(tmp_path)
    assert [o.name for o in found] == ["dot", "dot.4", "dot_1.23", "loop_dot_fusion.2"]
    assert [o.kind for o in found] == ["dot", "dot", "dot", "loop_dot_fusion"]


# ---- event files


def write(folder, values, start=0, name="loss"):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step, value in enumerate(values, start):
            tf.summary.scalar(name, value, step=step)
            tf.summary.histogram("weights", np.arange(5.0), step=step)
            tf.summary.text("words", "hello", step=step)
    writer.close()


def test_numbers_are_read_as_tensorboard_reads_them(tmp_path):
    values = [*RNG.normal(size=40), np.nan, np.inf]
    write(tmp_path, values)
    found = scalars(tmp_path)
    assert list(found) == ["loss"]
    steps, read = found["loss"]
    assert np.array_equal(steps, np.arange(42))
    assert np.array_equal(read, np.float32(values), equal_nan=True)
    events = EventAccumulator(str(tmp_path), {"tensors": 0}).Reload().Tensors("loss")
    assert [e.step for e in events] == steps.tolist()
    theirs = [float(tf.make_ndarray(e.tensor_proto)) for e in events]
    assert np.array_equal(read, theirs, equal_nan=True)


def test_a_run_that_went_on_counts_from_its_start(tmp_path):
    write(tmp_path, [1.0, 2.0, 3.0])
    (first,) = tmp_path.glob("events.*")
    first.rename(tmp_path / "events.out.tfevents.1000000000.host.1.0.v2")
    write(tmp_path, [20.0, 30.0, 40.0], start=1)
    steps, values = scalars(tmp_path)["loss"]
    assert steps.tolist() == [0, 1, 2, 3]
    assert values.tolist() == [1, 20, 30, 40]
    events = EventAccumulator(str(tmp_path), {"tensors": 0}).Reload().Tensors("loss")
    both = [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events]
    assert both == [(0, 1), (1, 2), (2, 3), (1, 20), (2, 30), (3, 40)]


def test_steps_come_out_in_their_order(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default():
        for step in (5, 3, 4):
            tf.summary.scalar("loss", 10.0 * step, step=step)
    writer.close()
    steps, values = scalars(tmp_path)["loss"]
    assert (steps.tolist(), values.tolist()) == ([3, 4, 5], [30, 40, 50])


def test_simple_values_of_other_writers_are_read(tmp_path):
    event = tf.compat.v1.Event(step=7)
    event.summary.value.add(tag="old", simple_value=1.5)
    with tf.io.TFRecordWriter(str(tmp_path / "events.out.tfevents.1.host")) as file:
        file.write(event.SerializeToString())
    assert scalars(tmp_path)["old"] == ([7], [1.5])


@pytest.mark.parametrize("cut", [1, 9, 100])
def test_a_file_that_breaks_off_is_read_up_to_there(tmp_path, cut):
    write(tmp_path, np.arange(20.0))
    (file,) = tmp_path.glob("events.*")
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2 + cut])
    steps, values = scalars(tmp_path)["loss"]
    assert 5 < len(steps) < 15
    assert np.array_equal(steps, np.arange(len(steps)))
    assert np.array_equal(values, steps)


def test_a_flipped_bit_ends_the_reading_and_is_not_believed(tmp_path):
    write(tmp_path, np.arange(20.0))
    (file,) = tmp_path.glob("events.*")
    raw = bytearray(file.read_bytes())
    place = raw.index(struct.pack("<f", 10.0))
    raw[place + 2] ^= 1
    file.write_bytes(raw)
    steps, values = scalars(tmp_path)["loss"]
    assert np.array_equal(steps, np.arange(10))
    assert np.array_equal(values, steps)


def test_a_folder_without_events_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=message("folder must hold a file events.out.tfevents.*; received")
    ):
        scalars(tmp_path)


# ---- counts and the roof


def flops(function, *shapes):
    """TensorFlow's own count."""
    specs = [tf.TensorSpec(shape) for shape in shapes]
    graph = tf.function(function).get_concrete_function(*specs).graph
    profiler = tf.compat.v1.profiler
    builder = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    return profiler.profile(graph, options=builder.with_empty_output().build()).total_float_ops


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 7, 1), (1, 9, 4, 6), (8, 1, 2, 3)])
def test_a_product_against_tensorflow_and_the_arrays(sizes):
    m, k, n, batch = sizes
    a, b = np.zeros((batch, m, k), "float32"), np.zeros((batch, k, n), "float32")
    size = a.nbytes + b.nbytes + (a @ b).nbytes
    assert product(m, k, n, batch) == (flops(tf.matmul, a.shape, b.shape), size)
    assert product(m, k, n, batch, each=2).bytes == size / 2


@pytest.mark.parametrize(
    ("images", "kernel", "stride", "padding"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), 1, "VALID"),
        ((2, 9, 7, 3), (3, 2, 3, 4), 1, "SAME"),
        ((3, 8, 8, 2), (5, 5, 2, 6), 2, "VALID"),
    ],
)
def test_a_convolution_against_tensorflow_and_the_arrays(images, kernel, stride, padding):
    def run(i, k):
        return tf.nn.conv2d(i, k, stride, padding)

    i, k = np.zeros(images, "float32"), np.zeros(kernel, "float32")
    result = run(i, k).numpy()
    size = i.nbytes + k.nbytes + result.nbytes
    assert convolution(images, kernel, result.shape) == (flops(run, images, kernel), size)
    assert convolution(images, kernel, result.shape, each=2).bytes == size / 2


def test_pointwise_by_hand_and_softmax_against_tensorflow():
    assert pointwise(10, 3) == (30, 80)
    assert pointwise(10, 1, reads=2, each=2) == (10, 60)
    assert pointwise(10, 0).intensity == 0
    assert pointwise(60, 5).operations == flops(tf.nn.softmax, (6, 10))


def test_a_pass_of_gpt_is_the_sum_of_its_products():
    sizes = {"vocabulary": 11, "width": 6, "depth": 3, "hidden": 24}
    rows, total = 2 * 5, 7
    block = [product(rows, 6, 6)] * 4 + [product(rows, 6, 24), product(rows, 24, 6)]
    block += [product(5, 6, total, batch=2), product(5, total, 6, batch=2)]
    expected = 3 * sum(p.operations for p in block) + product(rows, 6, 11).operations
    assert work(sizes, 2, 5, total)[0] == expected


def test_the_roof_by_hand():
    roof = Roof(peak=100.0, bandwidth=10.0)
    assert roof.ridge == 10
    assert roof.seconds(Work(1000, 10)) == 10  # 100 operations a byte: arithmetic
    assert roof.seconds(Work(10, 1000)) == 100  # memory
    assert roof.seconds(Work(100, 10)) == 1  # on the ridge both
    assert Work(10, 4).intensity == 2.5


def test_the_roof_is_of_the_best_round(monkeypatch):
    from aimodels import profiling

    times = {"product": [9.0, 2.0, 4.0], "sum": [9.0, 0.5, 0.25]}
    real = profiling.timings

    def fake(functions, rounds):
        real(functions, 1)
        assert rounds == 2
        return {n: profiling.Timing(t[0], np.array(t[1:])) for n, t in times.items()}

    monkeypatch.setattr(profiling, "timings", fake)
    roof = measure_roof(size=8, numbers=100, rounds=2)
    assert roof == (2 * 8**3 / 2.0, 4 * 3 * 100 / 0.25)


def test_this_machine_has_a_roof():
    roof = measure_roof(size=256, numbers=2**18, rounds=3)
    assert 1e8 < roof.peak < 1e15
    assert 1e7 < roof.bandwidth < 1e14


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: product(0, 1, 1), "m must be a whole number from 1; received 0"),
        (lambda: product(1, 1.5, 1), "k must be a whole number from 1; received 1.5"),
        (lambda: product(1, 1, True), "n must be a whole number from 1; received True"),
        (lambda: product(1, 1, 1, 0), "batch must be a whole number from 1; received 0"),
        (lambda: product(1, 1, 1, each=0), "each must be a whole number from 1; received 0"),
        (lambda: pointwise(0, 1), "numbers must be a whole number from 1; received 0"),
        (lambda: pointwise(1, -1), "operations must be a whole number from 0; received -1"),
        (lambda: pointwise(1, 1, reads=0), "reads must be a whole number from 1; received 0"),
        (lambda: pointwise(1, 1, each=0), "each must be a whole number from 1; received 0"),
        (
            lambda: convolution((1, 2, 3), (1, 1, 3, 1), (1, 2, 3, 1)),
            "images must have four axes; received (1, 2, 3)",
        ),
        (
            lambda: convolution((1, 2, 0, 1), (1, 1, 1, 1), (1, 2, 2, 1)),
            "images must be a whole number from 1; received 0",
        ),
        (
            lambda: convolution((1, 2, 2, 1), (1, 1, 1, 1), (1, 2, 2, 1), each=0),
            "each must be a whole number",
        ),
        (
            lambda: convolution((1, 2, 2, 1), (1, 1, 2, 1), (1, 2, 2, 1)),
            "images, kernel and result must be (B, H, W, C), (U, V, C, F) and (B, H', W', F); received",
        ),
        (
            lambda: convolution((1, 2, 2, 1), (1, 1, 1, 3), (1, 2, 2, 1)),
            "images, kernel and result must be",
        ),
        (
            lambda: convolution((1, 2, 2, 1), (1, 1, 1, 1), (2, 2, 2, 1)),
            "images, kernel and result must be",
        ),
        (lambda: measure_roof(size=0), "size must be a whole number from 1; received 0"),
        (lambda: measure_roof(numbers=0), "numbers must be a whole number from 1; received 0"),
        (lambda: measure_roof(rounds=0), "rounds must be a whole number from 1; received 0"),
    ],
)
def test_a_wrong_size_is_said(call, text):
    with pytest.raises(ValueError, match=message(text)):
        call()
