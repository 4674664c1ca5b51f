"""Recurrent networks: one step, applied to each element of a sequence in turn.

Axes: B batch, T steps, D width of the input, U units, the width of the hidden state.
Weights are (W, R, b): kernel `[D, U]`, recurrent kernel `[U, U]`, bias `[U]`.
A mask is True where a step is real; the state passes through the other steps unchanged.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops


def _fits(name, axes, received, allowed):
    """Raise ValueError unless the shapes are equal, None being unknown and equal to anything."""
    received, allowed = tuple(received), tuple(allowed)
    pairs = zip(received, allowed, strict=False)
    if len(received) != len(allowed) or any(None not in (a, b) and a != b for a, b in pairs):
        raise ValueError(f"{name} must be {axes} = {allowed}; received {received}")


def _check(x, mask=None):
    """Raise ValueError unless `x` is `[B, T, D]`, none of them 0, and `mask` boolean `[B, T]`."""
    shape = tuple(x.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"x must be [batch, steps, width], each at least 1; received {shape}")
    if mask is None:
        return
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool":
        raise ValueError(f"mask must be boolean, True where real; received {dtype}")
    _fits("mask", "[batch, steps]", mask.shape, shape[:2])


def _arrays(weights, width):
    """Return W, R and b as float arrays; raise ValueError unless their shapes fit."""
    kernel, recurrent, bias = (np.asarray(w, float) for w in weights)
    units = len(recurrent)
    _fits("kernel", "[width, units]", kernel.shape, (width, units))
    _fits("recurrent", "[units, units]", recurrent.shape, (units, units))
    _fits("bias", "[units]", bias.shape, (units,))
    return kernel, recurrent, bias


class Gradients(NamedTuple):
    """Derivatives of a loss by kernel, recurrent kernel, bias, input and every hidden state."""

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    x: np.ndarray
    hidden: np.ndarray


def unroll(x, weights, mask=None, state=None):
    """Return every hidden state, h_t = tanh(x_t W + h_{t-1} R + b), in NumPy.

    Args:
        x: `[B, T, D]`. What stands in padded steps is not read.
        weights: (W, R, b).
        mask: boolean `[B, T]`, True where a step is real; all real if None.
        state: `[B, U]`, the state before the first step; zeros if None.

    Returns:
        `[B, T + 1, U]`: the state before the first step, then the state after each step.

    Raises:
        ValueError: another shape of x, weights, mask or state; a mask that is not boolean; a
            real step that is not finite.

    Source: Elman 1990, <https://doi.org/10.1207/s15516709cog1402_1>.
    """
    x = np.asarray(x, float)
    _check(x, mask)
    kernel, recurrent, bias = _arrays(weights, x.shape[-1])
    real = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    if not np.isfinite(x[real]).all():
        raise ValueError("x must be finite where it is real; received NaN or infinity")
    state = np.zeros((len(x), len(recurrent))) if state is None else np.asarray(state, float)
    _fits("state", "[batch, units]", state.shape, (len(x), len(recurrent)))
    hidden = [state]
    for t in range(x.shape[1]):
        z = np.where(real[:, t, None], x[:, t], 0) @ kernel + hidden[-1] @ recurrent + bias
        hidden.append(np.where(real[:, t, None], np.tanh(z), hidden[-1]))
    return np.stack(hidden, axis=1)


def backward(x, hidden, upstream, weights, mask=None, *, window=None):
    """Return the gradients of a loss by backpropagation through time, in NumPy.

    Args:
        x: `[B, T, D]`, as given to `unroll`.
        hidden: `[B, T + 1, U]`, as returned by `unroll`.
        upstream: `[B, T, U]`, how the loss changes with the state after each step where it reads
            that state itself; zeros where it does not.
        weights: (W, R, b), as given to `unroll`.
        mask: boolean `[B, T]`, as given to `unroll`.
        window: cut the sequence into pieces of so many steps, and let no gradient pass from one
            piece to the one before (truncated backpropagation); never cut if None.

    Returns:
        Gradients: `kernel`, `recurrent` and `bias` as the weights, `x` `[B, T, D]`, and `hidden`
        `[B, T + 1, U]`, the derivative by each state through everything that follows.

    Raises:
        ValueError: an array of another shape; a window below 1.

    Source: Werbos 1990, <https://doi.org/10.1109/5.58337>.
    """
    x, hidden, upstream = (np.asarray(array, float) for array in (x, hidden, upstream))
    _check(x, mask)
    batch, steps, width = x.shape
    kernel, recurrent, _ = _arrays(weights, width)
    units = len(recurrent)
    _fits("hidden", "[batch, steps + 1, units]", hidden.shape, (batch, steps + 1, units))
    _fits("upstream", "[batch, steps, units]", upstream.shape, (batch, steps, units))
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ValueError(f"window must be an integer of at least 1 or None; received {window!r}")
    real = np.ones((batch, steps, 1), bool) if mask is None else np.asarray(mask)[..., None]
    x = np.where(real, x, 0)
    z, by_hidden = np.zeros_like(upstream), np.zeros_like(hidden)  # z: the derivative by z_t
    for t in reversed(range(steps)):
        by_hidden[:, t + 1] += upstream[:, t]
        slope = 1 - hidden[:, t + 1] ** 2
        z[:, t] = np.where(real[:, t], by_hidden[:, t + 1] * slope, 0)
        passed = np.where(real[:, t], z[:, t] @ recurrent.T, by_hidden[:, t + 1])
        if not (window and t and t % window == 0):
            by_hidden[:, t] = passed
    return Gradients(
        kernel=np.einsum("btd,btu->du", x, z),
        recurrent=np.einsum("btu,btv->uv", hidden[:, :-1], z),
        bias=z.sum((0, 1)),
        x=z @ kernel.T,
        hidden=by_hidden,
    )


def rnn_step(x, state, weights, activation=ops.tanh):
    """Return the next state, φ(x W + h R + b), `[B, U]`, from `x` `[B, D]` and h `[B, U]`."""
    kernel, recurrent, bias = weights
    return activation(ops.matmul(x, kernel) + ops.matmul(state, recurrent) + bias)


def rnn(step, x, state, mask=None):
    """Apply `step` to each element of the sequences in turn and return the state after each.

    Args:
        step: a function of `x_t` `[B, D]` and the state that returns the next state.
        x: `[B, T, D]`. What stands in padded steps is not read.
        state: the state before the first step: `[B, U]`, or a tuple of such.
        mask: boolean `[B, T]`, True where a step is real; all real if None.

    Returns:
        `[B, T, U]`, or a tuple of such: the state after each step. After a padded step it is the
        state before it. NaN in a real step of a sequence makes that sequence NaN from there on.

    Raises:
        ValueError: `x` is not `[B, T, D]`; a mask that is not boolean or not `[B, T]`.

    Differs: `keras.ops.scan` has no gradient under `jit_compile=True`; `tf.scan` has.
    """
    _check(x, mask)
    if mask is None:
        states = tf.scan(lambda h, x: step(x, h), ops.swapaxes(x, 0, 1), state)
    else:

        def keep(h, elements):
            x, real = elements
            new = step(x, h)
            return tf.nest.map_structure(lambda a, b: ops.where(real, a, b), new, h)

        real = ops.swapaxes(mask, 0, 1)[..., None]
        x = ops.where(real, ops.swapaxes(x, 0, 1), 0)  # NaN in padding would reach the gradient
        states = tf.scan(keep, (x, real), state)
    return tf.nest.map_structure(lambda s: ops.swapaxes(s, 0, 1), states)


@keras.saving.register_keras_serializable("aimodels")
class Recurrent(keras.layers.Layer):
    """A layer of U recurrent units.

    Args:
        units: U, the width of the hidden state.
        activation: φ, the name of one or a function.
        return_sequences: whether to return the state after each step, or only the last.
        recurrent_initializer: how R starts.

    Call:
        x: `[B, T, D]`.
        step_mask: boolean `[B, T]`, True where a step is real.
        initial_state: `[B, U]`; zeros if None.

    Returns:
        `[B, U]`, the state after the last real step, or `[B, T, U]`, after each step.

    Raises:
        ValueError: units below 1; x, mask or state of another shape.

    Source: Elman 1990, <https://doi.org/10.1207/s15516709cog1402_1>.
    Differs: where the first steps are padding, `keras.layers.SimpleRNN` returns zeros for them;
        here it is the initial state.
    """

    def __init__(
        self,
        units,
        activation="tanh",
        return_sequences=False,
        recurrent_initializer="orthogonal",
        **kwargs,
    ):
        """Keep the arguments."""
        super().__init__(**kwargs)
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be an integer of at least 1; received {units!r}")
        self.units, self.return_sequences = units, return_sequences
        self.activation = keras.activations.get(activation)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)

    def build(self, shape):
        """Make W, R and b."""
        if len(shape) != 3:
            raise ValueError(f"x must be [batch, steps, width]; received {tuple(shape)}")
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(
            shape=(self.units, self.units), initializer=self.recurrent_initializer, name="recurrent"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x, step_mask=None, initial_state=None):
        """Run the step over the sequences."""
        if initial_state is None:
            initial_state = ops.zeros((ops.shape(x)[0], self.units), self.compute_dtype)
        _fits("initial_state", "[batch, units]", initial_state.shape, (x.shape[0], self.units))
        weights = [ops.cast(w, x.dtype) for w in (self.kernel, self.recurrent, self.bias)]
        states = rnn(
            lambda x, h: rnn_step(x, h, weights, self.activation), x, initial_state, step_mask
        )
        return states if self.return_sequences else states[:, -1]

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "return_sequences": self.return_sequences,
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
        }
