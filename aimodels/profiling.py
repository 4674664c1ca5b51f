"""Debugging and profiling: the first bad number, shapes, leaks, event files, traces, the roofline.

Axes: B batch, T steps, D width, R rounds; a product takes `[M, K]` by `[K, N]`.
"""

import contextlib
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from aimodels.training import check_whole

GIVEN = ("the input", "the targets")  # what a step starts from


class Range(NamedTuple):
    """What an array holds: least and largest finite number, and how many are not finite."""

    least: float
    most: float
    nan: int
    infinite: int
    size: int

    @property
    def finite(self):
        """Whether every number is finite."""
        return not self.nan and not self.infinite

    def __str__(self):
        """Return one line."""
        parts = [f"{self.least:.2g} to {self.most:.2g}"] if self.least <= self.most else []
        parts += [f"{self.nan} NaN"] * (self.nan > 0)
        parts += [f"{self.infinite} infinite"] * (self.infinite > 0)
        return ", ".join(parts or ["none"]) + f", of {self.size}"


def describe(array):
    """Return the `Range` of an array of any shape; without a finite number, least is above most."""
    values = tf.cast(array, "float64").numpy()
    good = values[np.isfinite(values)]
    nan = int(np.isnan(values).sum())
    least, most = good.min(initial=np.inf), good.max(initial=-np.inf)
    return Range(float(least), float(most), nan, values.size - good.size - nan, values.size)


class Bad(NamedTuple):
    """Where the first number that is not finite comes from.

    phase: "given", "forward" or "backward". inside: the layer whose own code made it; "loss" for
    the loss, and for what layers add to it. good: ranges by name on the near side of that code.
    bad: ranges on its far side, where not finite. In the phase "backward" both are of gradients,
    and `values` has the numbers that entered this code.
    """

    phase: str
    inside: str
    good: dict[str, Range]
    bad: dict[str, Range]
    values: dict[str, Range]

    def __str__(self):
        """Return a line for the place, and one for each range."""
        lines = [f"{self.phase}: {self.inside}"]
        for title, ranges in (("good", self.good), ("bad", self.bad), ("value", self.values)):
            lines += [f"  {title:5} {name}: {found}" for name, found in ranges.items()]
        return "\n".join(lines)


def first_bad(model, x, y, loss, training=True):
    """Return where the first NaN or infinity of a step comes from; None if there is none.

    The step is computed operation by operation, and nothing is updated: weights, statistics and
    states of random numbers are as before. What enters and leaves each layer is looked at in the
    order of computing, then the loss, then the gradients from the loss back to the first layer
    with trainable weights; before it none is used. A layer is blamed only for what happens outside
    of its inner layers. An infinity that is meant to be there, as in a mask of -inf that is handed
    to a layer, is reported too.

    Args:
        model: a built Keras model.
        x: its input.
        y: targets.
        loss: function of the targets and the model's outputs that returns one number.
        training: as for the model's call.

    Returns:
        A `Bad`, or None.

    Raises:
        ValueError: the model is not built; a loss that is not one number.
    """
    if not model.built:
        raise ValueError(
            f"model {model.name} must be built; start it with an Input or call it once"
        )
    kept = [(v, np.array(v.value.numpy())) for v in model.variables if not v.trainable]
    try:
        tape = tf.GradientTape(watch_accessed_variables=False)  # else frozen ones count, too
        with tape, _watched(model) as (note, events):
            tape.watch([v.value for v in model.trainable_variables])
            y = keras.tree.map_structure(tf.convert_to_tensor, y)
            note("targets", GIVEN[1], y)
            value = ops.convert_to_tensor(loss(y, model(x, training=training)))
            if len(value.shape):
                raise ValueError(f"loss must return one number; received shape {value.shape}")
            value = value + sum(ops.cast(ops.sum(part), value.dtype) for part in model.losses)
            value = note("loss →", "loss", value)
    finally:
        for variable, before in kept:
            variable.assign(before)

    tensors = [tensors for _, _, tensors in events]
    values = [{name: describe(t) for name, t in each.items()} for each in tensors]
    found = _first(values)
    if found is not None:
        name, inside, _ = events[found]
        bad = {tensor: r for tensor, r in values[found].items() if not r.finite}
        if any(tensor.startswith("weights ") for tensor in bad):
            return Bad("given", name.removesuffix(" ←"), values[found - 1], bad, {})
        if inside in GIVEN:
            return Bad("given", inside, {}, bad, {})
        return Bad("forward", inside, values[found - 1], bad, {})
    gradients = tape.gradient(value, tensors)
    slopes = [
        {name: describe(tf.convert_to_tensor(g)) for name, g in each.items() if g is not None}
        for each in gradients
    ]
    found = _first(slopes[::-1])
    if not found:  # the last one is that of the loss by itself
        return None
    place = len(slopes) - 1 - found
    bad = {name: r for name, r in slopes[place].items() if not r.finite}
    return Bad("backward", events[place + 1][1], slopes[place + 1], bad, values[place])


def _first(events):
    """Return the number of the first event with a range that is not finite, or None."""
    bad = (n for n, ranges in enumerate(events) if not all(r.finite for r in ranges.values()))
    return next(bad, None)


@contextlib.contextmanager
def _watched(model):
    """Let each layer note what enters and leaves it, as copies that a tape can tell apart.

    Yields a function to note more, and the list of events: name, layer whose own code ran since
    the event before, tensors by name.
    """
    events, running = list[tuple[str, str, dict]](), [GIVEN[0]]

    def note(name, inside, nest, weights=()):
        kept = {f"weights {v.path}": v.value for v in weights if _real(v.value)}

        def copy(leaf):
            if not _real(leaf):
                return leaf
            leaf = tf.identity(leaf)
            kept[f"{name} {len(kept) - count}" if len(kept) > count else name] = leaf
            return leaf

        count = len(kept)
        nest = keras.tree.map_structure(copy, nest)
        events.append((name, inside, kept))
        return nest

    def watch(layer):
        call = layer.call
        inner = {
            id(v) for part in layer._flatten_layers(include_self=False) for v in part.variables
        }
        own = [v for v in layer.variables if id(v) not in inner]

        def noted(*args, **kwargs):
            outer = running[-1]
            nested = outer not in (*GIVEN, model.name)
            path = f"{outer}/{layer.name}" if nested else layer.name
            args, kwargs = note(f"{path} ←", outer, (args, kwargs), own)
            running.append(path)
            try:
                return note(f"{path} →", path, call(*args, **kwargs))
            finally:
                running.pop()

        layer.call = noted

    layers = model._flatten_layers()  # each once
    try:
        for layer in layers:
            watch(layer)
        yield note, events
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _real(leaf):
    return tf.is_tensor(leaf) and leaf.dtype.is_floating and not tf.is_symbolic_tensor(leaf)


def unused(model, x, y, loss):
    """Return the paths of trainable variables that no gradient reaches: it is missing, or all 0.

    A variable may be without a gradient on one batch only, as a row of an embedding whose tokens
    are all absent is; so give a batch of many samples.
    """
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=False))
    variables = model.trainable_variables
    gradients = tape.gradient(value, [v.value for v in variables])
    return [
        variable.path
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is None or not np.any(tf.convert_to_tensor(gradient).numpy())
    ]


def dependence(function, x, other, axis=0):
    """Return which parts of a result depend on which parts of the input, by changing one at a time.

    Args:
        function: `[..., T, ...]` → `[..., T', ...]`; without anything random.
        x: the input, along whose `axis` the T parts lie: samples of a batch, steps of a text.
        other: another input of the same shape, different from `x` in every part.
        axis: of x and of the result, from 0.

    Returns:
        `[T', T]` boolean; True where part t' of the result changes with part t of the input. A
        batch of independent samples gives a diagonal, a causal model a lower triangle. False says
        that this change made no difference, not that none could.

    Raises:
        ValueError: shapes that differ, an axis that is not there, a part that is equal in both; a
            result that has no such axis, or NaN.
    """
    x, other = np.asarray(x), np.asarray(other)
    if x.shape != other.shape:
        raise ValueError(f"other must have the shape of x, {x.shape}; received {other.shape}")
    check_whole("axis", axis, 0, x.ndim - 1)
    base = np.asarray(function(x))
    if base.ndim <= axis or np.isnan(base).any():
        raise ValueError(
            f"function must return numbers with an axis {axis}, none NaN; received {base.shape}"
        )
    across = tuple(a for a in range(base.ndim) if a != axis)
    columns = []
    for part in range(x.shape[axis]):
        changed, here = x.copy(), (slice(None),) * axis + (part,)
        if np.array_equal(x[here], other[here]):
            raise ValueError(f"other must differ from x in every part; received part {part} equal")
        changed[here] = other[here]
        columns.append((np.asarray(function(changed)) != base).any(across))
    return np.array(columns).T


def check_shapes(**arrays):
    """Raise ValueError unless all arrays have the axes that letters say; return the sizes.

    Args:
        **arrays: name = (array, axes); axes are letters or numbers, as "B T D" or "B 10", and ""
            for a single number. A letter is one size in all arrays. An axis of unknown size, None,
            fits everything.

    Returns:
        The size of each letter, where it is known.
    """
    sizes, seen = dict[str, int](), dict[str, str]()
    for name, (array, text) in arrays.items():
        axes, shape = text.split(), tuple(array.shape)
        for axis, size in zip(axes, shape, strict=False):
            if not axis.isdigit() and size is not None and axis not in sizes:
                sizes[axis], seen[axis] = size, name
        wanted = [int(axis) if axis.isdigit() else sizes.get(axis) for axis in axes]
        pairs = zip(wanted, shape, strict=False)
        if len(axes) != len(shape) or any(
            None not in pair and len(set(pair)) > 1 for pair in pairs
        ):
            known = ", ".join(
                f"{a} = {sizes[a]} ({seen[a]})" for a in axes if seen.get(a, name) != name
            )
            raise ValueError(
                f"{name} must be [{', '.join(axes)}]{f', {known}' if known else ''}; received {shape}"
            )
    return sizes


class Timing(NamedTuple):
    """Seconds of the first call, which may trace and compile, and `[R]` of the later ones."""

    first: float
    later: np.ndarray

    @property
    def median(self):
        """Of the later calls."""
        return float(np.median(self.later))


def timings(functions, rounds=15):
    """Time functions side by side: each round calls each one, forth and back in turn.

    Args:
        functions: name = function without arguments; it must return only when its work is done,
            so on a GPU it fetches a number of the result.
        rounds: R, from 1.

    Returns:
        name = `Timing`.
    """
    check_whole("rounds", rounds, 1)
    spent = defaultdict(list)
    for number in range(rounds + 1):
        for name in list(functions)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            functions[name]()
            spent[name].append(time.perf_counter() - start)
    return {name: Timing(spent[name][0], np.array(spent[name][1:])) for name in functions}


class Operation(NamedTuple):
    """An operation of a trace: its name in the graph, its kind, how often it ran, its seconds."""

    name: str
    kind: str
    runs: int
    seconds: float


def operations(folder):
    """Return the operations in the last trace that `tf.profiler.experimental` wrote into a folder.

    Args:
        folder: what was given to `start`.

    Returns:
        A list of `Operation`, the longest first: kernels of TensorFlow, and inside of what XLA
        compiled those of XLA. Both rewrite and fuse operations, so names may be others than in the
        code. Seconds are summed over threads, so the sum may exceed the time that passed.

    Raises:
        ValueError: no trace in the folder.
    """
    files = sorted(Path(folder).rglob("*.xplane.pb"))
    if not files:
        raise ValueError(f"folder must hold a file *.xplane.pb; received {folder}")
    space = xplane_pb2.XSpace.FromString(files[-1].read_bytes())
    found = defaultdict(list)
    for plane in space.planes:
        kinds = {i: _kind(event.name) for i, event in plane.event_metadata.items()}
        compiled = {i for i, stat in plane.stat_metadata.items() if stat.name == "hlo_op"}
        for event in (event for line in plane.lines for event in line.events):
            name = plane.event_metadata[event.metadata_id].name
            if any(stat.metadata_id in compiled for stat in event.stats):
                found[name, re.sub(r"[._\d]+$", "", name)].append(event.duration_ps)
            elif kinds[event.metadata_id]:
                found[name.rpartition(":")[0], kinds[event.metadata_id]].append(event.duration_ps)
    listed = [Operation(*key, len(spent), sum(spent) / 1e12) for key, spent in found.items()]
    return sorted(listed, key=lambda operation: -operation.seconds)


def _kind(name):
    """Return the kind of a kernel that is named name:Kind, without the marks of its library."""
    match = re.fullmatch(r"(?!\w+::)[^:]+:(?:_Mkl|_)?([A-Z]\w*)", name)
    return match[1] if match else ""


def scalars(folder):
    """Return the numbers in the event files of a folder, which TensorBoard draws as curves.

    Args:
        folder: what was given to `tf.summary.create_file_writer`; folders in it are not read.

    Returns:
        name = (`[S]` steps, rising, `[S]` values). Where two files, as those of a run that went
        on, have the same step, the later file counts. A file that breaks off is read up to there.

    Differs: of such a step TensorBoard draws both numbers.

    Raises:
        ValueError: no event file in the folder.
    """
    files = sorted(Path(folder).glob("events.out.tfevents.*"))
    if not files:
        raise ValueError(f"folder must hold a file events.out.tfevents.*; received {folder}")
    found = defaultdict[str, dict[int, float]](dict)
    for file in files:
        with contextlib.suppress(tf.errors.DataLossError):  # the last record was not finished
            for raw in tf.data.TFRecordDataset(str(file)):
                event = tf.compat.v1.Event.FromString(raw.numpy())
                for value in event.summary.value:
                    if value.HasField("simple_value"):  # as other libraries write it
                        found[value.tag][event.step] = value.simple_value
                    elif value.metadata.plugin_data.plugin_name == "scalars":
                        found[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    rising = {tag: sorted(by_step.items()) for tag, by_step in found.items()}
    return {
        tag: (np.array([step for step, _ in pairs]), np.array([value for _, value in pairs]))
        for tag, pairs in rising.items()
    }


class Work(NamedTuple):
    """Operations, and bytes that must at least be read and written."""

    operations: int
    bytes: int

    @property
    def intensity(self):
        """Operations a byte."""
        return self.operations / self.bytes


def product(m, k, n, batch=1, each=4):
    """Return the `Work` of `batch` products of `[M, K]` by `[K, N]`, `each` bytes a number."""
    _sizes(m=m, k=k, n=n, batch=batch, each=each)
    return Work(2 * batch * m * k * n, each * batch * (m * k + k * n + m * n))


def convolution(images, kernel, result, each=4):
    """Return the `Work` of a convolution, from three shapes.

    Args:
        images: (B, H, W, C).
        kernel: (U, V, C, F).
        result: (B, H', W', F); padding counts as multiplied.
        each: bytes of a number.

    Raises:
        ValueError: shapes that do not fit; a size that is not whole or below 1.
    """
    for name, shape in {"images": images, "kernel": kernel, "result": result}.items():
        if len(shape) != 4:
            raise ValueError(f"{name} must have four axes; received {shape}")
        for size in shape:
            check_whole(name, size, 1)
    _sizes(each=each)
    if (images[0], *kernel[2:]) != (result[0], images[3], result[3]):
        raise ValueError(
            "images, kernel and result must be (B, H, W, C), (U, V, C, F) and (B, H', W', F);"
            f" received {images}, {kernel} and {result}"
        )
    sizes = [int(np.prod(shape)) for shape in (images, kernel, result)]
    return Work(2 * sizes[2] * int(np.prod(kernel[:3])), each * sum(sizes))


def pointwise(numbers, operations, reads=1, each=4):
    """Return the `Work` of `operations` for each number, with `reads` arrays read and one written."""
    _sizes(numbers=numbers, reads=reads, each=each)
    check_whole("operations", operations, 0)
    return Work(operations * numbers, each * (reads + 1) * numbers)


def _sizes(**sizes):
    for name, size in sizes.items():
        check_whole(name, size, 1)


class Roof(NamedTuple):
    """Operations and bytes a second that a machine reaches at best.

    Source: Williams, Waterman and Patterson 2009, <https://doi.org/10.1145/1498765.1498785>.
    """

    peak: float
    bandwidth: float

    @property
    def ridge(self):
        """Operations a byte from which on the peak is the bound."""
        return self.peak / self.bandwidth

    def seconds(self, work):
        """Return the least time for a `Work` whose bytes come from memory."""
        return max(work.operations / self.peak, work.bytes / self.bandwidth)


def measure_roof(size=2048, numbers=2**26, rounds=7):
    """Measure this machine in float32: a product of two `[size, size]`, and a sum of two arrays.

    Args:
        size: of the product.
        numbers: of each array; their bytes should exceed the caches several times.
        rounds: of which the best counts.
    """
    _sizes(size=size, numbers=numbers)
    a = tf.random.stateless_normal((size, size), (0, 0))
    total, addend = tf.Variable(tf.zeros(numbers)), tf.ones(numbers)

    def multiply():
        return tf.matmul(a, a)[0, 0].numpy()

    def add():
        return total.assign_add(addend)[0].numpy()

    measured = timings({"product": multiply, "sum": add}, rounds)
    best = {name: timing.later.min() for name, timing in measured.items()}
    work = product(size, size, size), pointwise(numbers, 1, reads=2)
    return Roof(float(work[0].operations / best["product"]), float(work[1].bytes / best["sum"]))
