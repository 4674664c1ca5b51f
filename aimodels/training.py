"""The training loop: batches, one compiled step, many steps, and a checkpoint to go on from.

Axes: N samples, B batch. A step is numbered by how many have been taken, it included: from 1.
"""

import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops


def batches(arrays, size, seed, start=0):
    """Yield batches without end, each epoch in an order of its own, always full ones.

    Epoch e takes the samples in the order `np.random.default_rng((seed, e)).permutation(N)` and
    drops what is left over after the last full batch. Nothing but `seed` decides the orders, so
    `start` lets a run that was stopped go on with the batch that would have come next.

    Args:
        arrays: `[N, ...]`, or a nest (tuple, list, dict) of such arrays, as `(x, y)`.
        size: B, from 1 to N.
        seed: a whole number from 0.
        start: how many batches to pass over, 0 or more.

    Yields:
        The same nest with `[B, ...]`; the rows of all its arrays stay together.

    Raises:
        ValueError: no array, arrays of different lengths, NaN, or a number that is not allowed.
    """
    arrays = keras.tree.map_structure(np.asarray, arrays)
    lengths = {array.shape[:1] for array in keras.tree.flatten(arrays)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"arrays must share one first axis N; received {sorted(lengths)}")
    for array in keras.tree.flatten(arrays):
        if array.dtype.kind == "f" and np.isnan(array).any():
            row = np.argwhere(np.isnan(array))[0][0]
            raise ValueError(f"arrays must hold no NaN; received one in sample {row}")
    ((samples,),) = lengths
    check_whole("size", size, 1, samples)
    check_whole("seed", seed)
    check_whole("start", start)

    def endless():  # apart, so that what is wrong is said at once and not at the first batch
        epoch, skipped = divmod(start, samples // size)
        while True:
            order = np.random.default_rng((seed, epoch)).permutation(samples)
            for first in range(skipped * size, samples - size + 1, size):
                rows = order[first : first + size]
                yield keras.tree.map_structure(lambda array, rows=rows: array[rows], arrays)
            epoch, skipped = epoch + 1, 0

    return endless()


def make_step(model, optimizer, loss, jit_compile=False):
    """Return `step(x, y)`: loss, gradients and update as one compiled graph.

    Args:
        model: a built Keras model. Freeze its layers before; a step keeps the variables it found.
        optimizer: a Keras optimizer. For mixed_float16 put it into a `LossScaleOptimizer`, which
            `fit` does by itself.
        loss: function of the targets and the model's outputs that returns one number.
        jit_compile: whether XLA compiles the graph further.

    Returns:
        A `tf.function`. It returns the loss before the update: `loss`, plus what the layers add
        (penalties, `add_loss`). Each new shape, type or Python number in x or y makes a new graph.
        A NaN may not show in the loss: on a CPU, ReLU fused with a product makes 0 of it.

    Raises:
        ValueError: the model is not built; at the first step, a loss that is not one number.
    """
    _build(model, optimizer)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = ops.convert_to_tensor(loss(y, model(x, training=True)))
            if len(value.shape):
                raise ValueError(f"loss must return one number; received shape {value.shape}")
            for extra in model.losses:
                value = value + ops.cast(ops.sum(extra), value.dtype)
            scaled = optimizer.scale_loss(value)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return value

    return tf.function(step, jit_compile=jit_compile, autograph=False)


def train(step, batches, steps, start=0, after=None):
    """Take `steps` steps.

    Args:
        step: function of x and y that returns the loss, as `make_step` makes it.
        batches: an iterator of pairs (x, y), of which the first is for step `start` + 1.
        steps: how many to take now, 0 or more.
        start: how many were taken before, 0 or more.
        after: called as `after(number, loss)` after each step, from number `start` + 1; for a
            progress bar, an evaluation, a checkpoint.

    Returns:
        `[steps]` losses, float64, each from before its update.

    Raises:
        ValueError: a batch that is not a pair, or too few of them; a number that is not allowed.
    """
    check_whole("steps", steps)
    check_whole("start", start)
    source, values = iter(batches), list[tf.Tensor]()
    for number in range(start + 1, start + steps + 1):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"batches must hold {steps}; received {len(values)}")
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(f"batches must yield pairs (x, y); received {type(batch).__name__}")
        values.append(step(*batch))
        if after is not None:
            after(number, float(values[-1]))
    return np.array([float(value) for value in values])  # asked for once, at the end


class Checkpoint:
    """All that a run needs to go on as if it had not been stopped, in one file.

    It holds every variable of model and optimizer, the states of random numbers (dropout) among
    them, the number of steps and the losses. It does not hold the data and their order, which
    `batches` makes again from its seed, nor numbers that no variable of a layer keeps.

    Args:
        path: the file; its folder must exist.
        model: a built Keras model.
        optimizer: its optimizer.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the model is not built.
    """

    def __init__(self, path, model, optimizer):
        """Keep the arguments."""
        self.path, self.model, self.optimizer = Path(path), model, optimizer
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"path must be in a folder that exists; received {path}")
        _build(model, optimizer)

    def _contents(self):
        """Return all variables, each once, and a description of each."""
        owners = [(v, v.name) for v in self.model.variables]
        owners += [(v, type(self.optimizer).__name__) for v in self.optimizer.variables]
        once = {id(v): (v, f"{owner} {tuple(v.shape)} {v.dtype}") for v, owner in owners}
        return zip(*once.values(), strict=True)

    def save(self, step, losses):
        """Write the state after `step` steps; a reader finds the old file or the new one whole.

        Args:
            step: how many steps have been taken.
            losses: `[step]`.

        Raises:
            ValueError: not one loss for each step.
        """
        check_whole("step", step)
        losses = np.asarray(losses, dtype=float)
        if losses.shape != (step,):
            raise ValueError(
                f"losses must have shape ({step},), one a step; received {losses.shape}"
            )
        variables, described = self._contents()
        arrays = [ops.convert_to_tensor(variable).numpy() for variable in variables]
        # NumPy's files have no bfloat16; float32 holds its values exactly.
        arrays = [array.astype("float32") if array.dtype.kind == "V" else array for array in arrays]
        named = {str(i): array for i, array in enumerate(arrays)}
        part = self.path.with_name(f"{self.path.name}.part")
        with part.open("wb") as file:
            np.savez(file, variables=json.dumps(described), losses=losses, **named)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)  # all or nothing

    def restore(self):
        """Bring model and optimizer back to what was saved, or leave them as they are and raise.

        Returns:
            The number of steps taken, and their losses as a list.

        Raises:
            FileNotFoundError: no file.
            ValueError: a file that is damaged or not a checkpoint; one of another model or optimizer.
        """
        raw = self.path.read_bytes()
        variables, described = self._contents()
        try:  # whatever goes wrong here, the bytes are not those that were written
            with np.load(io.BytesIO(raw)) as file:
                found, losses = json.loads(str(file["variables"])), file["losses"].tolist()
                arrays = [file[str(i)] for i in range(len(found))]
        except Exception as error:
            raise ValueError(f"{self.path} is damaged or no checkpoint: {error!r}") from error
        if len(found) != len(described):
            raise ValueError(
                f"{self.path} must hold {len(described)} variables, those of model and optimizer;"
                f" received {len(found)}"
            )
        for here, there in zip(described, found, strict=True):
            if here != there:
                raise ValueError(
                    f"{self.path} must hold {here!r}, as the model; received {there!r}"
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return len(losses), losses


def _build(model, optimizer):
    """Make the optimizer's variables, for which those of the model must be there."""
    if not model.built:
        raise ValueError(
            f"model {model.name} must be built; start it with an Input or call it once"
        )
    if not optimizer.built:
        optimizer.build(model.trainable_variables)


def check_whole(name, number, least=0, most=None):
    """Raise ValueError unless `number` is whole and within its bounds."""
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or number < least or (most is not None and number > most):
        bounds = f"from {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {bounds}; received {number!r}")
