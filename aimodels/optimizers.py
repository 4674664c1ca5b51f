"""Gradient descent and its kin: from a gradient and a memory to a step.

Each rule is a pure function: parameters, gradient and state in, parameters and state out. The
state is None before the first step. All arrays have one shape, that of the parameters; `rate`
and `decay` are numbers, or arrays that broadcast to it.
"""

import math

import numpy as np


def sgd(theta, gradient, state=None, *, rate):
    """Return `theta - rate gradient`; there is nothing to remember.

    Args:
        theta: parameters, any shape.
        gradient: of that shape.
        state: None; it is passed on.
        rate: the learning rate, above 0.

    Returns:
        The new parameters and the state.
    """
    theta, gradient = _checked(theta, gradient, rate)
    return theta - rate * gradient, state


def momentum(theta, gradient, state=None, *, rate, beta=0.9, nesterov=False):
    """Move by a velocity that keeps a share `beta` of itself and gains `-rate gradient`.

    Args:
        theta: parameters, any shape.
        gradient: of that shape.
        state: the velocity; None is at rest.
        rate: the learning rate, above 0.
        beta: from 0, which is `sgd`, to below 1.
        nesterov: if True, move by `beta velocity - rate gradient`, one push ahead.

    Returns:
        The new parameters and the new velocity.

    Source: Polyak 1964, <https://doi.org/10.1016/0041-5553(64)90137-5>; Nesterov's form as in
    Bengio et al. 2012, section 3.5, <https://arxiv.org/abs/1212.0901>.
    """
    theta, gradient = _checked(theta, gradient, rate, beta=beta)
    velocity = beta * (0 if state is None else state) - rate * gradient
    return theta + (beta * velocity - rate * gradient if nesterov else velocity), velocity


def rmsprop(theta, gradient, state=None, *, rate, beta=0.9, epsilon=1e-7):
    """Divide each gradient by the root of the running mean of its square.

    Args:
        theta: parameters, any shape.
        gradient: of that shape.
        state: the running mean of squared gradients; None is 0.
        rate: the learning rate, above 0.
        beta: how much of that mean is kept, from 0 to below 1.
        epsilon: added to the mean, under the root; 0 or more.

    Returns:
        The new parameters and the new mean.

    Source: Hinton's lecture of 2012, as told by Ruder 2016, section 4.5,
    <https://arxiv.org/abs/1609.04747>.
    """
    theta, gradient = _checked(theta, gradient, rate, epsilon=epsilon, beta=beta)
    square = beta * (0 if state is None else state) + (1 - beta) * gradient**2
    return theta - rate * gradient / np.sqrt(square + epsilon), square


def adam(theta, gradient, state=None, *, rate, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Divide a running mean of gradients by the root of one of their squares.

    Args:
        theta: parameters, any shape.
        gradient: of that shape.
        state: mean of gradients, mean of their squares, number of steps; None is 0, 0, 0.
        rate: the learning rate, above 0.
        beta1: how much of the first mean is kept, from 0 to below 1.
        beta2: how much of the second.
        epsilon: added to the root, 0 or more.

    Returns:
        The new parameters and the new state.

    Source: Kingma and Ba 2014, end of section 2, <https://arxiv.org/abs/1412.6980>.
    Differs: as in that closing remark and in Keras, both means are corrected by one factor on the
    rate. The paper's algorithm 1 adds epsilon after the correction.
    """
    theta, gradient = _checked(theta, gradient, rate, epsilon=epsilon, beta1=beta1, beta2=beta2)
    mean, square, steps = (0, 0, 0) if state is None else state
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    steps += 1
    corrected = rate * (math.sqrt(1 - beta2**steps) / (1 - beta1**steps))
    return theta - corrected * mean / (np.sqrt(square) + epsilon), (mean, square, steps)


def adamw(theta, gradient, state=None, *, rate, decay=0.004, **settings):
    """Shrink the parameters by `rate decay`, then take Adam's step.

    Args:
        theta: parameters, any shape.
        gradient: of that shape.
        state: as in `adam`.
        rate: the learning rate, above 0.
        decay: 0 or more; as an array, 0 for what is not to shrink, such as biases.
        **settings: beta1, beta2 and epsilon, as in `adam`.

    Returns:
        The new parameters and the new state.

    Source: Loshchilov and Hutter 2017, algorithm 2, <https://arxiv.org/abs/1711.05101>.
    Differs: as in Keras, the rate multiplies the decay; in the paper only a schedule does.
    """
    if not np.all(np.asarray(decay) >= 0):
        raise ValueError(f"decay is {decay}; allowed are numbers from 0")
    shrunk = np.asarray(theta) * (1 - rate * decay)
    return adam(shrunk, gradient, state, rate=rate, **settings)


def walk(rule, gradient, theta, rate, steps, **settings):
    """Return the path of `steps` steps.

    Args:
        rule: one of the functions above.
        gradient: function of the parameters that returns an array of their shape.
        theta: where to start, any shape.
        rate: a number or array, or a function that takes the number of the step, from 0.
        steps: how many, 0 or more.
        **settings: passed to the rule.

    Returns:
        `[steps + 1, ...]`, the start and the parameters after each step.
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}; allowed is 0 or more")
    path, state = [np.asarray(theta, dtype=float)], None
    for t in range(steps):
        now = rate(t) if callable(rate) else rate
        theta, state = rule(path[-1], gradient(path[-1]), state, rate=now, **settings)
        path.append(theta)
    return np.stack(path)


def cosine(rate, steps):
    """Return a function of the step: half a cosine wave from `rate` to 0, and 0 after `steps`.

    Source: Loshchilov and Hutter 2016, section 3, <https://arxiv.org/abs/1608.03983>.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; allowed is 1 or more")
    return lambda t: rate * (1 + math.cos(math.pi * min(t, steps) / steps)) / 2


def _checked(theta, gradient, rate, epsilon=0, **betas):
    """Return both as arrays of one shape, or say what is wrong."""
    theta, gradient = np.asarray(theta), np.asarray(gradient)
    if gradient.shape != theta.shape:
        raise ValueError(f"gradient has shape {gradient.shape}; allowed is {theta.shape}")
    if not np.all(np.asarray(rate) > 0):
        raise ValueError(f"rate is {rate}; allowed are numbers above 0")
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; allowed are numbers from 0")
    for name, beta in betas.items():
        if not 0 <= beta < 1:
            raise ValueError(f"{name} is {beta}; allowed are numbers from 0 to below 1")
    return theta, gradient
