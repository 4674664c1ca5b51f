"""Feedforward networks: dense layers one after the other, and their gradients for training.

Axes: B samples, D features that go into a layer, D' features that come out, C classes.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from aimodels.activations import relu, sigmoid

# Each activation, and its derivative computed from its output h.
ACTIVATIONS = {
    "linear": (lambda z: z, np.ones_like),
    "relu": (relu, lambda h: (h > 0).astype(float)),
    "tanh": (np.tanh, lambda h: 1 - h**2),
    "sigmoid": (sigmoid, lambda h: h * (1 - h)),
}


class Layer(NamedTuple):
    """A dense layer: `weights` `[D, D']`, `bias` `[D']`, and a name of `ACTIVATIONS`."""

    weights: np.ndarray
    bias: np.ndarray
    activation: str = "linear"


def dense(x, weights, bias, activation="linear"):
    """Return `activation(x weights + bias)`.

    Args:
        x: `[B, D]`.
        weights: `[D, D']`.
        bias: `[D']`.
        activation: "linear", "relu", "tanh" or "sigmoid", applied to each number.

    Returns:
        `[B, D']`.
    """
    x, weights, bias = np.asarray(x), np.asarray(weights), np.asarray(bias)
    if x.ndim != 2 or weights.ndim != 2 or x.shape[1] != len(weights):
        raise ValueError(
            f"weights has shape {weights.shape} for x of shape {x.shape}; "
            "allowed is [D, D'] for [B, D]"
        )
    if bias.shape != weights.shape[1:]:
        raise ValueError(f"bias has shape {bias.shape}; allowed is {weights.shape[1:]}")
    return _activation(activation)[0](x @ weights + bias)


def forward(x, layers):
    """Return what the last of the layers puts out, each fed with the one before; x if none.

    Args:
        x: `[B, D]`.
        layers: a sequence of `Layer`; each takes as many features as the one before gives.

    Returns:
        `[B, D']` of the last layer. `layers[:n]` gives what the n-th layer puts out.
    """
    for layer in layers:
        x = dense(x, *layer)
    return x


def initialize(widths, rng, activation="relu"):
    """Draw the layers of a network: normal weights, zero biases, a linear last layer.

    Args:
        widths: `[D, ..., C]`, features, then units of each hidden layer, then outputs.
        rng: a `numpy.random.Generator`.
        activation: that of the hidden layers.

    Returns:
        A list of `Layer`. Weights behind "relu" have variance 2/D, others 2/(D + D').

    Source: He et al. 2015, section 2.2, <https://doi.org/10.1109/ICCV.2015.123>, for 2/D; Glorot
    and Bengio 2010, section 4.2, <https://proceedings.mlr.press/v9/glorot10a.html>, for 2/(D + D').
    Differs: Glorot and Bengio draw uniformly; Keras' HeNormal cuts off beyond two deviations.
    """
    widths, _ = _widths(widths), _activation(activation)
    names = [activation] * (len(widths) - 2) + ["linear"]
    layers = []
    for (inputs, outputs), name in zip(pairwise(widths), names, strict=True):
        variance = 2 / inputs if name == "relu" else 2 / (inputs + outputs)
        weights = np.sqrt(variance) * rng.normal(size=(inputs, outputs))
        layers.append(Layer(weights, np.zeros(outputs), name))
    return layers


def parameter_count(widths):
    """Return how many weights and biases a network of these widths has, `(D + 1) D'` a layer."""
    widths = _widths(widths)
    return sum((d + 1) * e for d, e in pairwise(widths))


def softmax_loss(logits, labels):
    """Return the mean softmax cross-entropy and its derivative by the logits `[B, C]`.

    Args:
        logits: `[B, C]`.
        labels: `[B]` whole numbers, 0 to C - 1.
    """
    labels, rows, classes = np.asarray(labels), np.arange(len(logits)), logits.shape[1]
    if labels.shape != rows.shape or labels.size == 0:
        raise ValueError(f"labels has shape {labels.shape}; allowed is [B], here {rows.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}, one per row of x")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = np.mean(log_sum[:, 0] - shifted[rows, labels])
    back = np.exp(shifted - log_sum)  # softmax, minus 1 at the label, over B
    back[rows, labels] -= 1
    return loss, back / len(rows)


def loss_and_gradients(x, labels, layers, loss=softmax_loss):
    """Return the loss and its derivatives by all weights and biases.

    Args:
        x: `[B, D]`.
        labels: `[B]`, what the loss takes; for the softmax cross-entropy whole numbers, 0 to C - 1.
        layers: a sequence of `Layer`; the output of the last are logits `[B, C]`.
        loss: takes logits and labels, returns a number and its derivative by the logits `[B, C]`.

    Returns:
        A number, and for each layer a pair `[D, D']`, `[D']`.

    Source: Goodfellow, Bengio and Courville 2016, section 6.5.4, ISBN 978-0-262-03561-3.
    """
    outputs = [np.asarray(x, dtype=float)]
    for layer in layers:
        outputs.append(dense(outputs[-1], *layer))
    value, back = loss(outputs[-1], labels)
    if np.shape(back) != outputs[-1].shape:
        raise ValueError(
            f"loss returns a derivative of shape {np.shape(back)}; allowed is that of the logits, "
            f"{outputs[-1].shape}"
        )
    gradients = []
    for k in reversed(range(len(layers))):
        back = back * ACTIVATIONS[layers[k].activation][1](outputs[k + 1])
        gradients.append((outputs[k].T @ back, back.sum(axis=0)))
        if k:
            back = back @ layers[k].weights.T
    return value, gradients[::-1]


def train(x, labels, layers, rng, *, rate, epochs, batch=None, loss=softmax_loss):
    """Return the layers after gradient descent in batches, and the loss of every step.

    Args:
        x: `[N, D]`.
        labels: `[N]`, what the loss takes.
        layers: where to start, as from `initialize`; left unchanged.
        rng: a `numpy.random.Generator` that shuffles the rows before each pass.
        rate: the learning rate, above 0.
        epochs: how many passes through the rows, 0 or more.
        batch: rows in a step, the last of a pass may have fewer; all if None.
        loss: as for `loss_and_gradients`.

    Returns:
        A list of `Layer`, and `[steps]` losses, each of its batch before the step.
    """
    batch = len(x) if batch is None else batch
    if not rate > 0:
        raise ValueError(f"rate is {rate}; allowed is a number above 0")
    for name, value, least in (("epochs", epochs, 0), ("batch", batch, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}; allowed is {least} or more")
    layers, losses = list(layers), []
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for rows in (order[start : start + batch] for start in range(0, len(x), batch)):
            value, gradients = loss_and_gradients(x[rows], labels[rows], layers, loss)
            losses.append(value)
            layers = [
                Layer(layer.weights - rate * by_weights, layer.bias - rate * by_bias, layer[2])
                for layer, (by_weights, by_bias) in zip(layers, gradients, strict=True)
            ]
    return layers, np.array(losses)


def _activation(name):
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; allowed are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _widths(widths):
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}; allowed are two or more numbers, each above 0")
    return list(widths)
