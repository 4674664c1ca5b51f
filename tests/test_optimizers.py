"""Each rule takes Keras' steps, keeps its invariants, and refuses nonsense."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from aimodels.optimizers import adam, adamw, cosine, momentum, rmsprop, sgd, walk

RULES = [sgd, momentum, rmsprop, adam, adamw]
SGD, RMS, ADAM, ADAMW = (
    keras.optimizers.SGD,
    keras.optimizers.RMSprop,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
)
# The rule, its settings, Keras' class, its settings, and how closely they agree: Keras keeps
# some settings in single precision; with values that are exact there, all digits agree.
PAIRS = [
    (sgd, {}, SGD, {}, 1e-14),
    (momentum, {}, SGD, {"momentum": 0.9}, 1e-6),
    (momentum, {"beta": 0.5}, SGD, {"momentum": 0.5}, 1e-14),
    (momentum, {"nesterov": True}, SGD, {"momentum": 0.9, "nesterov": True}, 1e-6),
    (
        momentum,
        {"beta": 0.75, "nesterov": True},
        SGD,
        {"momentum": 0.75, "nesterov": True},
        1e-14,
    ),
    (rmsprop, {}, RMS, {}, 1e-13),
    (rmsprop, {"beta": 0.5, "epsilon": 0.1}, RMS, {"rho": 0.5, "epsilon": 0.1}, 1e-13),
    (rmsprop, {"beta": 0}, RMS, {"rho": 0.0}, 1e-13),
    (adam, {}, ADAM, {}, 1e-4),
    (
        adam,
        {"beta1": 0.5, "beta2": 0.75, "epsilon": 0.1},
        ADAM,
        {"beta_1": 0.5, "beta_2": 0.75, "epsilon": 0.1},
        1e-13,
    ),
    (adam, {"beta1": 0, "beta2": 0.75}, ADAM, {"beta_1": 0.0, "beta_2": 0.75}, 1e-13),
    (adamw, {}, ADAMW, {}, 1e-4),
    (
        adamw,
        {"beta1": 0.5, "beta2": 0.75, "decay": 0.25},
        ADAMW,
        {"beta_1": 0.5, "beta_2": 0.75, "weight_decay": 0.25},
        1e-13,
    ),
]


def keras_path(peer, settings, rate, gradients, start):
    variable = keras.Variable(start, dtype="float64")
    optimizer = peer(learning_rate=rate, **settings)
    path = [start]
    for g in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
        path.append(variable.numpy())
    return np.stack(path)


def our_path(rule, settings, rate, gradients, start):
    given = iter(gradients)
    return walk(rule, lambda _: next(given), start, rate, len(gradients), **settings)


def some(steps=60, width=16, seed=0):
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(1e-4, 1e3, width)
    return rng.normal(size=(steps, width)) * sizes, rng.normal(size=width)


@pytest.mark.parametrize(("rule", "ours", "peer", "theirs", "digits"), PAIRS)
def test_every_step_is_that_of_keras(rule, ours, peer, theirs, digits):
    gradients, start = some()
    path = our_path(rule, ours, 2**-7, gradients, start)
    expected = keras_path(peer, theirs, 2**-7, gradients, start)
    gap = np.abs(path - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert gap.max() < digits
    assert np.all(path[-1] != path[0])


@pytest.mark.parametrize(("rule", "ours", "peer", "theirs", "digits"), PAIRS)
def test_a_changing_rate_moves_as_in_keras(rule, ours, peer, theirs, digits):
    gradients, start = some(steps=12)
    variable = keras.Variable(start, dtype="float64")
    optimizer = peer(learning_rate=0.5, **theirs)
    expected = [start]
    for t, g in enumerate(gradients):
        optimizer.learning_rate.assign(0.5 / 2**t)
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
        expected.append(variable.numpy())
    path = our_path(rule, ours, lambda t: 0.5 / 2**t, gradients, start)
    gap = np.abs(path - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert gap.max() < digits


def test_decay_spares_what_keras_excludes():
    weights = keras.Variable([1.0, 2.0], dtype="float64")
    bias = keras.Variable([3.0], dtype="float64", name="bias")
    optimizer = ADAMW(0.5, weight_decay=0.25, beta_1=0.5, beta_2=0.75)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    g = keras.ops.convert_to_tensor(np.array([1.0, -1.0]))
    optimizer.apply([g, keras.ops.convert_to_tensor(np.array([2.0]))], [weights, bias])
    settings = {"rate": 0.5, "decay": np.array([0.25, 0.25, 0]), "beta1": 0.5, "beta2": 0.75}
    theta, _ = adamw([1.0, 2.0, 3.0], [1.0, -1.0, 2.0], **settings)
    np.testing.assert_allclose(theta, [*weights.numpy(), *bias.numpy()], rtol=1e-13)


@pytest.mark.parametrize("t", [0, 1, 37, 99, 100, 150])
def test_the_cosine_schedule_is_that_of_keras(t):
    theirs = keras.optimizers.schedules.CosineDecay(0.5, 100)
    np.testing.assert_allclose(cosine(0.5, 100)(t), float(theirs(t)), atol=1e-7)


def test_two_steps_by_hand():
    given = [4.0, 4.0]
    assert our_path(sgd, {}, 0.25, given, 1.0).tolist() == [1, 0, -1]
    assert our_path(momentum, {"beta": 0.5}, 0.25, given, 1.0).tolist() == [1, 0, -1.5]
    nesterov = {"beta": 0.5, "nesterov": True}
    assert our_path(momentum, nesterov, 0.25, given, 1.0).tolist() == [1, -0.5, -2.25]
    path = our_path(rmsprop, {"beta": 0.75, "epsilon": 0}, 0.25, given, 1.0)
    np.testing.assert_allclose(np.diff(path), [-0.25 * 4 / 2, -0.25 * 4 / np.sqrt(7)])


def test_three_steps_of_adam_by_hand():
    settings = {"beta1": 0.5, "beta2": 0.75, "epsilon": 0}
    path = our_path(adam, settings, 0.1, [4.0, 4.0, -2.0], 0.0)
    third = -0.1 * (0.5 / 0.875) / np.sqrt(6.25 / (1 - 0.75**3))
    np.testing.assert_allclose(np.diff(path), [-0.1, -0.1, third])


def test_adamw_shrinks_before_it_steps():
    theta, _ = adamw(np.array([10.0]), np.array([3.0]), rate=0.5, decay=0.2, epsilon=0)
    np.testing.assert_allclose(theta, [10 * (1 - 0.5 * 0.2) - 0.5])


@pytest.mark.parametrize("rule", RULES)
def test_arguments_are_left_alone(rule):
    theta, g = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    one, state = rule(theta, g, rate=0.1)
    rule(one, g, state, rate=0.1)
    again, _ = rule(theta, g, rate=0.1)
    assert theta.tolist() == [1, 2]
    assert g.tolist() == [3, 4]
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("rule", RULES)
def test_a_walk_can_be_continued_from_the_state(rule):
    gradients, start = some(steps=6)
    theta, state = start, None
    for g in gradients:
        theta, state = rule(theta, g, state, rate=0.01)
    np.testing.assert_array_equal(our_path(rule, {}, 0.01, gradients, start)[-1], theta)


@pytest.mark.parametrize("rule", RULES)
def test_many_rates_at_once_are_the_same_as_one_by_one(rule):
    gradients, start = some(steps=10)
    rates = np.array([0.001, 0.1, 3.0])
    together = our_path(
        rule, {}, rates[:, None], np.tile(gradients[:, None], (1, 3, 1)), np.tile(start, (3, 1))
    )
    for n, rate in enumerate(rates):
        alone = our_path(rule, {}, rate, gradients, start)
        np.testing.assert_allclose(together[:, n], alone, rtol=1e-13)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_precision_is_kept(rule, kind):
    theta, state = rule(np.ones(3, kind), np.ones(3, kind), rate=0.1)
    theta, _ = rule(theta, np.ones(3, kind), state, rate=0.1)
    assert theta.dtype == kind


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
def test_adams_first_step_has_the_size_of_the_rate(scale):
    g = scale * np.array([1.0, -0.3, 7.0])
    theta, _ = adam(np.zeros(3), g, rate=0.01)
    np.testing.assert_allclose(theta, -0.01 * np.sign(g), rtol=2e-3)


def test_adam_and_rmsprop_do_not_see_the_scale_of_the_gradient():
    gradients, start = some()
    for rule in (adam, rmsprop):
        one = our_path(rule, {"epsilon": 0}, 0.1, gradients, start)
        many = our_path(rule, {"epsilon": 0}, 0.1, 1000 * gradients, start)
        np.testing.assert_allclose(one, many, rtol=1e-10)


def test_momentum_without_memory_is_sgd():
    gradients, start = some()
    plain = our_path(sgd, {}, 0.01, gradients, start)
    for nesterov in (False, True):
        settings = {"beta": 0, "nesterov": nesterov}
        np.testing.assert_allclose(our_path(momentum, settings, 0.01, gradients, start), plain)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"beta": 0}, 2), ({"beta": 0.5}, 3), ({"beta": 0.5, "nesterov": True}, 1.5)],
)
def test_the_largest_rate_is_where_the_formula_puts_it(settings, limit):
    for share, grows in ((0.99, False), (1.01, True)):
        path = walk(momentum, lambda at: 4 * at, 1.0, share * limit / 4, 2000, **settings)
        assert (abs(path[-1]) > 1) == grows


def test_momentum_shrinks_every_direction_by_the_root_of_beta():
    curvature, root = np.array([1.0, 10.0, 400.0]), 20.0
    beta = ((root - 1) / (root + 1)) ** 2
    rate = 4 / (1 + root) ** 2
    path = walk(momentum, lambda at: curvature * at, np.ones(3), rate, 500, beta=beta)
    rates = np.abs(path[500]).max() / np.abs(path[400]).max()
    np.testing.assert_allclose(rates ** (1 / 100), np.sqrt(beta), rtol=0.01)


def test_l2_in_the_gradient_and_decay_are_one_thing_for_sgd_alone():
    theta, g, rate, strength = np.array([2.0, -1.0]), np.array([0.3, 0.5]), 0.1, 0.2
    joined, _ = sgd(theta, g + strength * theta, rate=rate)
    np.testing.assert_allclose(joined, theta * (1 - rate * strength) - rate * g)
    joined, _ = adam(theta, g + strength * theta, rate=rate)
    apart, _ = adamw(theta, g, rate=rate, decay=strength)
    assert np.abs(joined - apart).max() > 0.01


def test_decay_zero_is_adam():
    gradients, start = some()
    decayed = our_path(adamw, {"decay": 0}, 0.01, gradients, start)
    np.testing.assert_array_equal(decayed, our_path(adam, {}, 0.01, gradients, start))


def test_a_walk_of_no_steps_is_its_start():
    assert walk(sgd, lambda at: at, [1.0, 2.0], 0.1, 0).tolist() == [[1, 2]]


def test_the_cosine_falls_from_the_rate_to_zero():
    falling = [cosine(0.2, 50)(t) for t in range(60)]
    assert falling[0] == 0.2
    np.testing.assert_allclose(falling[25], 0.1)
    assert falling[50] == falling[59] == 0
    assert np.all(np.diff(falling[:51]) < 0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rate", [0, -0.1, np.nan])
def test_a_rate_must_be_above_zero(rule, rate):
    with pytest.raises(ValueError, match=f"rate is {rate}; allowed are numbers above 0"):
        rule(np.ones(2), np.ones(2), rate=rate)


def test_every_rate_of_an_array_must_be_above_zero():
    with pytest.raises(ValueError, match=r"rate is \[ ?1. -1.\]; allowed are numbers above 0"):
        sgd(np.ones(2), np.ones(2), rate=np.array([1.0, -1.0]))


@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_must_fit_the_parameters(rule):
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\); allowed is \(2,\)"):
        rule(np.ones(2), np.ones(3), rate=0.1)


@pytest.mark.parametrize("value", [-0.1, 1, np.nan])
@pytest.mark.parametrize(
    ("rule", "name"),
    [(momentum, "beta"), (rmsprop, "beta"), (adam, "beta1"), (adam, "beta2"), (adamw, "beta2")],
)
def test_what_is_kept_is_a_share_below_one(rule, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; allowed are numbers from 0 to below"):
        rule(np.ones(2), np.ones(2), rate=0.1, **{name: value})


@pytest.mark.parametrize("rule", [rmsprop, adam, adamw])
def test_epsilon_may_not_be_negative(rule):
    with pytest.raises(ValueError, match="epsilon is -1e-07; allowed are numbers from 0"):
        rule(np.ones(2), np.ones(2), rate=0.1, epsilon=-1e-7)


def test_decay_may_not_be_negative():
    with pytest.raises(ValueError, match=r"decay is -0\.1; allowed are numbers from 0"):
        adamw(np.ones(2), np.ones(2), rate=0.1, decay=-0.1)


def test_steps_may_not_be_negative():
    with pytest.raises(ValueError, match="steps is -1; allowed is 0 or more"):
        walk(sgd, lambda at: at, 1.0, 0.1, -1)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_cosine_needs_steps(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; allowed is 1 or more"):
        cosine(0.1, steps)


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, aimodels.optimizers;"
        "assert not {'keras', 'tensorflow', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
