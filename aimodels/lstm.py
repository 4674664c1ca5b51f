"""LSTM and GRU: recurrent networks whose gates decide what to keep.

Axes: B batch, T steps, D width of the input, U units, G columns of all gates side by side:
G = 4 U for LSTM, in the order input, forget, candidate, output; G = 3 U for GRU, in the order
update, reset, candidate. Both orders are those of Keras.
A mask is True where a step is real; the state passes through the other steps unchanged.
"""

import keras
import tensorflow as tf
from keras import ops

from aimodels.rnn import _check, _fits


def lstm_gates(z, cell, activation=ops.tanh):
    """Return the next (h, c), each `[B, U]`, from `z` `[B, 4 U]`, before the gates, and `cell`."""
    i, f, g, o = ops.split(z, 4, axis=-1)
    cell = ops.sigmoid(f) * cell + ops.sigmoid(i) * activation(g)
    return ops.sigmoid(o) * activation(cell), cell


def lstm_step(x, state, weights, activation=ops.tanh):
    """Return the state (h, c) after one more step.

    Args:
        x: `[B, D]`.
        state: (h, c), each `[B, U]`.
        weights: kernel `[D, 4 U]`, recurrent kernel `[U, 4 U]`, bias `[4 U]`.
        activation: of the candidate and of the cell that is shown.

    Source: Gers, Schmidhuber and Cummins 2000, <https://doi.org/10.1162/089976600300015015>.
    """
    kernel, recurrent, bias = weights
    z = ops.matmul(x, kernel) + ops.matmul(state[0], recurrent) + bias
    return lstm_gates(z, state[1], activation)


def gru_gates(z, inner, hidden):
    """Return the next h, `[B, U]`; `z` comes from the input and `inner` from h, `[B, 3 U]`."""
    update, reset, candidate = ops.split(z, 3, axis=-1)
    by_update, by_reset, by_candidate = ops.split(inner, 3, axis=-1)
    update, reset = ops.sigmoid(update + by_update), ops.sigmoid(reset + by_reset)
    candidate = ops.tanh(candidate + reset * by_candidate)
    return update * hidden + (1 - update) * candidate


def gru_step(x, hidden, weights, reset_after=True):
    """Return the state h after one more step, `[B, U]`.

    Args:
        x: `[B, D]`.
        hidden: `[B, U]`.
        weights: kernel `[D, 3 U]`, recurrent kernel `[U, 3 U]`, and bias: `[2, 3 U]`, for the
            input and for h, or `[3 U]` if the gate resets before the product.
        reset_after: whether the gate resets the product of h with the recurrent kernel, as in
            Keras, PyTorch and cuDNN, or h itself, as in the paper.

    Source: Cho et al. 2014, section 2.3, <https://arxiv.org/abs/1406.1078>.
    """
    kernel, recurrent, bias = weights
    if reset_after:
        inner = ops.matmul(hidden, recurrent) + bias[1]
        return gru_gates(ops.matmul(x, kernel) + bias[0], inner, hidden)
    z, units = ops.matmul(x, kernel) + bias, hidden.shape[-1]
    gates = ops.sigmoid(z[:, : 2 * units] + ops.matmul(hidden, recurrent[:, : 2 * units]))
    update, reset = ops.split(gates, 2, axis=-1)
    candidate = ops.tanh(z[:, 2 * units :] + ops.matmul(reset * hidden, recurrent[:, 2 * units :]))
    return update * hidden + (1 - update) * candidate


def recur(gates, z, recurrent, bias, state, *, real=None):
    """Run gates over a sequence, with the backward pass written out, for speed.

    Forwards, one product h R a step remains in the loop. Backwards, too: how the loss changes
    with R is one product over all steps, after the loop.

    Args:
        gates: function of `z[t]`, `h R + b` (each `[B, G]`) and the state, a tuple, that returns
            the next state; it holds no variables.
        z: `[T, B, G]`, the input times its kernel.
        recurrent: R, `[U, G]`.
        bias: b, `[G]`.
        state: before the first step, a tuple of `[B, U]`; h is the first.
        real: boolean `[T, B, 1]`; all real if None.

    Returns:
        `[T, B, U]`, h after each step, and the state after the last step.
    """

    def forward(t, z, inner, old):
        new = gates(z, inner, old)
        return (
            new
            if real is None
            else [tf.where(real[t], a, b) for a, b in zip(new, old, strict=True)]
        )

    @tf.custom_gradient
    def run(z, recurrent, bias, *state):
        steps = tf.shape(z)[0]

        def arrays(*like):
            return [tf.TensorArray(a.dtype, steps, element_shape=a.shape) for a in like]

        def body(t, state, inners, olds):
            inner = tf.matmul(state[0], recurrent) + bias
            olds = [array.write(t, old) for array, old in zip(olds, state, strict=True)]
            return t + 1, list(forward(t, z[t], inner, state)), inners.write(t, inner), olds

        _, last, inners, olds = tf.while_loop(
            lambda t, *_: t < steps,
            body,
            (0, list(state), arrays(z[0])[0], arrays(*state)),
            maximum_iterations=steps,
        )
        inners, olds = inners.stack(), [array.stack() for array in olds]

        def backward(shown, *by_state):
            def body(t, by_state, by_z, by_inner):
                by_state = [by_state[0] + shown[t], *by_state[1:]]
                sources = [z[t], inners[t], [array[t] for array in olds]]
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    new = forward(t, *sources)
                one, two, by_old = tape.gradient(new, sources, by_state, "zero")
                by_old[0] += tf.matmul(two, recurrent, transpose_b=True)
                return t - 1, by_old, by_z.write(t, one), by_inner.write(t, two)

            _, by_first, by_z, by_inner = tf.while_loop(
                lambda t, *_: t >= 0,
                body,
                (steps - 1, list(by_state), *arrays(z[0], z[0])),
                maximum_iterations=steps,
            )
            by_inner = by_inner.stack()
            by_recurrent = tf.einsum("tbu,tbg->ug", olds[0], by_inner)
            return by_z.stack(), by_recurrent, tf.reduce_sum(by_inner, (0, 1)), *by_first

        return (tf.concat([olds[0][1:], last[0][None]], 0), *last), backward

    hidden, *last = run(z, recurrent, bias, *state)
    return hidden, last


class _Gated(keras.layers.Layer):
    """What the layers share: weights of all gates in one piece, mask and state."""

    columns, states = 0, 0

    def __init__(self, units, return_sequences=False, **kwargs):
        """Keep the arguments."""
        super().__init__(**kwargs)
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"units must be an integer of at least 1; received {units!r}")
        self.units, self.return_sequences = units, return_sequences

    def build(self, shape):
        """Make W, R and b."""
        if len(shape) != 3:
            raise ValueError(f"x must be [batch, steps, width]; received {tuple(shape)}")
        wide = self.columns * self.units
        self.kernel = self.add_weight(shape=(shape[-1], wide), name="kernel")
        self.recurrent = self.add_weight(
            shape=(self.units, wide), initializer="orthogonal", name="recurrent"
        )
        self.bias = self.add_weight(
            shape=self.bias_shape(), initializer=self.first_bias, name="bias"
        )

    def first_bias(self, shape, dtype=None):
        """Return the bias before training."""
        return ops.zeros(shape, dtype)

    def call(self, x, step_mask=None, initial_state=None, return_state=False):
        """Multiply the inputs of all steps at once, then go from step to step."""
        _check(x, step_mask)
        if initial_state is None:
            initial_state = [ops.zeros((ops.shape(x)[0], self.units), x.dtype)] * self.states
        if len(initial_state) != self.states:
            text = f"initial_state must hold {self.states} arrays; received {len(initial_state)}"
            raise ValueError(text)
        for part in initial_state:
            _fits("initial_state", "[batch, units]", part.shape, (x.shape[0], self.units))
        real = None
        if step_mask is not None:
            real = ops.transpose(step_mask)[..., None]
            x = ops.where(step_mask[..., None], x, 0)  # NaN in padding would reach the gradient
        weights = [ops.cast(w, x.dtype) for w in (self.kernel, self.recurrent, self.bias)]
        state = [ops.cast(part, x.dtype) for part in initial_state]
        hidden, state = self.go(ops.swapaxes(x, 0, 1), weights, state, real)
        output = ops.swapaxes(hidden, 0, 1) if self.return_sequences else state[0]
        return (output, state) if return_state else output

    def get_config(self):
        """Return the arguments that make this layer again."""
        own = {"units": self.units, "return_sequences": self.return_sequences}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("aimodels")
class LSTM(_Gated):
    """A layer of U units with input, forget and output gates.

    Args:
        units: U, the width of h and of the cell c.
        return_sequences: whether to return h after each step, or only the last.
        activation: of candidate and shown cell, the name of one or a function.
        forget_bias: where the bias of the forget gate starts.

    Call:
        x: `[B, T, D]`.
        step_mask: boolean `[B, T]`, True where a step is real.
        initial_state: list of h and c, `[B, U]` each; zeros if None.
        return_state: whether to return h and c after the last real step as well.

    Returns:
        `[B, U]`, h after the last real step, or `[B, T, U]`, after each step; and the list of
        last states if asked for. NaN in a real step makes its sequence NaN from there on.

    Raises:
        ValueError: units below 1; x, mask or state of another shape.

    Source: Gers, Schmidhuber and Cummins 2000, <https://doi.org/10.1162/089976600300015015>.
    Differs: where the first steps are padding, Keras returns zeros for them; here it is the
        initial state. Without peephole connections, as in Keras.
    """

    columns, states = 4, 2

    def __init__(self, units, return_sequences=False, activation="tanh", forget_bias=1.0, **kwargs):
        """Keep the arguments."""
        super().__init__(units, return_sequences, **kwargs)
        self.activation, self.forget_bias = keras.activations.get(activation), forget_bias

    def bias_shape(self):
        """`[4 U]`."""
        return (4 * self.units,)

    def first_bias(self, shape, dtype=None):
        """Zeros, but `forget_bias` for the forget gate."""
        place = ops.arange(shape[0]) // self.units
        return ops.where(place == 1, ops.cast(self.forget_bias, dtype), 0)

    def go(self, x, weights, state, real):
        """Run the gates over `x` `[T, B, D]`."""
        kernel, recurrent, bias = weights

        def gates(z, inner, state):
            return lstm_gates(z + inner, state[1], self.activation)

        return recur(gates, ops.matmul(x, kernel), recurrent, bias, state, real=real)

    def get_config(self):
        """Return the arguments that make this layer again."""
        activation = keras.activations.serialize(self.activation)
        own = {"activation": activation, "forget_bias": self.forget_bias}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("aimodels")
class GRU(_Gated):
    """A layer of U units with update and reset gates; the reset comes after the product.

    Args:
        units: U, the width of h.
        return_sequences: whether to return h after each step, or only the last.

    Call, returns, raises: as `LSTM`, with h as the only state.

    Source: Cho et al. 2014, section 2.3, <https://arxiv.org/abs/1406.1078>.
    Differs: the reset gate acts on h R + b, not on h, as in Keras, PyTorch and cuDNN.
    """

    columns, states = 3, 1

    def bias_shape(self):
        """`[2, 3 U]`: one bias for the input, one for h."""
        return (2, 3 * self.units)

    def go(self, x, weights, state, real):
        """Run the gates over `x` `[T, B, D]`."""
        kernel, recurrent, bias = weights

        def gates(z, inner, state):
            return [gru_gates(z, inner, state[0])]

        return recur(gates, ops.matmul(x, kernel) + bias[0], recurrent, bias[1], state, real=real)
