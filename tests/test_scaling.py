"""Scaling laws: planted laws are found, peers agree, intervals cover, operations are those of the graph."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import least_squares, minimize
from scipy.special import huber as scipy_huber
from scipy.stats import linregress

from aimodels.gpt import GPT, next_token_loss, parameter_count
from aimodels.scaling import (
    Law,
    bootstrap,
    fit_law,
    fit_power,
    flops_per_token,
    huber,
)
from aimodels.training import make_step

TRUTH = Law(1.2, 40.0, 0.35, 60.0, 0.4)
LAWS = [
    TRUTH,
    Law(1.69, 406.4, 0.34, 410.7, 0.28),
    Law(0.2, 3.0, 0.9, 5.0, 0.15),
    Law(30.0, 900.0, 0.25, 700.0, 0.3),
]


def message(text):
    return f"^{re.escape(text)}"


def grid(rows=5, columns=5, low=(1.5e3, 1e4), high=(1.5e5, 2e5)):
    n = np.geomspace(low[0], high[0], rows)
    d = np.geomspace(low[1], high[1], columns)
    return [table.ravel() for table in np.meshgrid(n, d)]


def noisy(law, n, d, sigma, *, seed=0, rows=()):
    noise = np.random.default_rng(seed).normal(size=(*rows, len(n)))
    return law.loss(n, d) * np.exp(sigma * noise)


def logarithms(theta, n, d):
    """log L, written apart: theta holds log E, log A, alpha, log B, beta."""
    e, a, alpha, b, beta = theta
    return np.logaddexp(e, np.logaddexp(a - alpha * np.log(n), b - beta * np.log(d)))


def theta(law):
    return [np.log(law.E), np.log(law.A), law.alpha, np.log(law.B), law.beta]


# ---- a law


def test_a_loss_worked_by_hand():
    assert Law(1, 6, 1, 8, 2).loss(3, 2) == 5
    assert Law(1, 6, 1, 8, 2).loss([[3], [6]], [1, 2]).tolist() == [[11, 5], [10, 4]]


def test_an_optimum_worked_by_hand():
    n, d = Law(5.0, 8.0, 1.0, 2.0, 1.0).optimum(600)  # A / N = B / D there, and N D = 100
    assert (n, d) == (pytest.approx(20), pytest.approx(5))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("compute", [1e3, 1e12, 1e24])
def test_no_other_split_of_the_compute_has_a_lower_loss(law, compute):
    n, d = law.optimum(compute)
    assert 6 * n * d == pytest.approx(compute)
    share = np.geomspace(0.1, 10, 201)
    losses = law.loss(n * share, d / share)
    assert losses.argmin() == 100
    assert law.alpha * law.A / n**law.alpha == pytest.approx(law.beta * law.B / d**law.beta)


def test_several_laws_at_once():
    laws = Law(*(np.array(column) for column in zip(*LAWS, strict=True)))
    n, d = laws.optimum(1e20)
    for row, law in enumerate(LAWS):
        assert (n[row], d[row]) == pytest.approx(law.optimum(1e20))
        assert laws.loss(1e6, 1e8)[row] == pytest.approx(law.loss(1e6, 1e8))


@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.inf, [1.0, 0.0]])
def test_a_law_refuses_what_is_not_above_zero(bad):
    shown = np.asarray(bad, float).ravel()[-1]
    for name, call in (
        ("parameters", lambda: TRUTH.loss(bad, 1)),
        ("tokens", lambda: TRUTH.loss(1, bad)),
        ("compute", lambda: TRUTH.optimum(bad)),
    ):
        text = f"{name} must be above 0 and finite; received {shown}"
        with pytest.raises(ValueError, match=message(text)):
            call()


@pytest.mark.parametrize("bad", ["many", True, [], None])
def test_a_law_refuses_what_is_no_number(bad):
    with pytest.raises(ValueError, match=message("parameters must be numbers; received")):
        TRUTH.loss(bad, 1)


# ---- operations


def test_operations_worked_by_hand():
    # One block of width 2, hidden width 8: 4·4 + 2·2·8 = 48, and 2·3·2 = 12; 5 tokens: 10.
    assert flops_per_token(5, 3, 2, 1) == 6 * (48 + 12 + 10)
    assert flops_per_token(5, 3, 2, 2, hidden=1) == 6 * (2 * (16 + 4 + 12) + 10)


def products(graph):
    """Multiplications of all matrix products in a graph, read off their shapes."""
    total = 0
    for op in graph.get_operations():
        if op.type not in ("MatMul", "BatchMatMulV2", "Einsum"):
            continue
        a, b = (part.shape for part in op.inputs[:2])
        if op.type == "Einsum":
            sizes = {}
            letters = op.get_attr("equation").decode().split("->")[0].split(",")
            for names, shape in zip(letters, (a, b), strict=True):
                batch = len(shape) - len(names.removeprefix("..."))
                axes = [*range(batch), *names.removeprefix("...")]
                sizes |= dict(zip(axes, shape, strict=True))
            total += np.prod(list(sizes.values()))
        else:
            turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            total += np.prod(op.outputs[0].shape) * a[-2 if turned else -1]
    return total


@pytest.mark.parametrize(
    "size", [(20, 5, 8, 2, 1, None), (256, 16, 16, 1, 2, None), (7, 1, 12, 3, 3, 5)]
)
def test_operations_are_those_in_the_graph_of_a_step(size):
    vocabulary, steps, width, heads, depth, hidden = size
    model = GPT(vocabulary, steps, width, heads, depth, hidden=hidden)
    step = make_step(model, keras.optimizers.SGD(), next_token_loss)
    batch = tf.TensorSpec((4, steps), "int32")
    counted = products(step.get_concrete_function(batch, batch).graph)
    assert 2 * counted == 4 * steps * flops_per_token(vocabulary, steps, width, depth, hidden)


def test_gpt3_has_about_six_operations_a_parameter():
    size = (50257, 2048, 12288, 96)
    assert flops_per_token(*size) / parameter_count(*size) / 6 == pytest.approx(1.03, abs=0.005)


@pytest.mark.parametrize("name", ["vocabulary", "steps", "width", "depth", "hidden"])
@pytest.mark.parametrize("size", [0, -2, 1.5, True, "4"])
def test_sizes_are_whole_numbers(name, size):
    sizes = {"vocabulary": 5, "steps": 3, "width": 2, "depth": 1, "hidden": 8}
    text = f"{name} must be a whole number from 1; received {size!r}"
    with pytest.raises(ValueError, match=message(text)):
        flops_per_token(**{**sizes, name: size})


# ---- a line through logarithms


@pytest.mark.parametrize(("exponent", "scale"), [(-0.35, 40.0), (0.0, 2.0), (2.0, 1e-9)])
def test_a_planted_power_is_found(exponent, scale):
    x = np.geomspace(1e2, 1e9, 7)
    found = fit_power(x, scale * x**exponent)
    assert found.exponent == pytest.approx(exponent, abs=1e-12)
    assert found.scale == pytest.approx(scale)
    assert found.error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [3, 4, 50])
def test_a_line_equals_scipy(count):
    rng = np.random.default_rng(count)
    x, y = np.exp(rng.normal(size=(2, count)))
    peer = linregress(np.log(x), np.log(y))
    found = fit_power(x, y)
    np.testing.assert_allclose(
        [np.log(found.scale), found.exponent, found.error],
        [peer.intercept, peer.slope, peer.stderr],
        rtol=1e-9,
    )


def test_a_floor_bends_the_line_and_its_error_does_not_tell():
    n = np.geomspace(1e3, 1e5, 9)
    found = fit_power(n, 1.2 + 40 * n**-0.35)
    assert found.exponent > -0.25
    assert found.exponent - 10 * found.error > -0.35


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        ([1, 2], [1, 2], "x and y must be [R] with R from 3; received (2,) and (2,)"),
        ([1, 2, 3], [1, 2, 3, 4], "x and y must be [R] with R from 3; received (3,) and (4,)"),
        ([[1, 2, 3]], [[1, 2, 3]], "x and y must be [R] with R from 3; received (1, 3)"),
        ([2, 2, 2], [1, 2, 3], "x must hold two values or more; received only 2.0"),
        ([1, 2, 0], [1, 2, 3], "x must be above 0 and finite; received 0.0"),
        ([1, 2, 3], [1, np.nan, 3], "y must be above 0 and finite; received nan"),
    ],
)
def test_a_line_refuses(x, y, text):
    with pytest.raises(ValueError, match=message(text)):
        fit_power(x, y)


# ---- fitting


def test_huber_by_hand_and_as_scipy():
    assert huber(np.array([0.0, 1, -2, 4]), 2).tolist() == [0, 0.5, 2, 6]
    assert huber(3.0, np.inf) == 4.5
    residuals = np.random.default_rng(0).normal(size=(3, 5))
    for delta in (0.1, 1.0, 9.0):
        np.testing.assert_allclose(huber(residuals, delta), scipy_huber(delta, residuals))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(3, 3), (5, 4), (3, 9), (12, 3)])
@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_planted_exponents_are_found(law, shape, delta):
    n, d = grid(*shape)
    found = fit_law(n, d, law.loss(n, d), delta)
    np.testing.assert_allclose(found, law, rtol=1e-4)


def test_the_range_of_large_models():
    n, d = grid(5, 5, (7e7, 5e9), (1.6e10, 5e11))
    for law in LAWS[:2]:
        np.testing.assert_allclose(fit_law(n, d, law.loss(n, d)), law, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (6, 6)])
def test_least_squares_as_scipy(seed, shape):
    n, d = grid(*shape)
    losses = noisy(TRUTH, n, d, 0.003, seed=seed)
    found = fit_law(n, d, losses, np.inf)
    peer = least_squares(
        lambda t: np.log(losses) - logarithms(t, n, d),
        theta(TRUTH),
        x_scale="jac",
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    np.testing.assert_allclose(theta(found), peer.x, rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_no_other_optimizer_finds_a_lower_huber_loss(seed, delta):
    n, d = grid()
    losses = noisy(TRUTH, n, d, 0.01, seed=seed)

    def cost(t):
        return scipy_huber(delta, np.log(losses) - logarithms(t, n, d)).sum()

    found = cost(theta(fit_law(n, d, losses, delta)))
    start = theta(TRUTH)
    peer = minimize(lambda t: 1e4 * cost(t), start, method="L-BFGS-B", options={"maxiter": 5000})
    again = minimize(cost, theta(fit_law(n, d, losses, delta)), method="Nelder-Mead")
    assert found <= peer.fun / 1e4 * (1 + 1e-6)
    assert found <= again.fun * (1 + 1e-5)


def test_several_rows_are_fitted_as_one_by_one():
    n, d = grid(4, 4)
    losses = noisy(TRUTH, n, d, 0.003, rows=(2, 3))
    together = fit_law(n, d, losses, np.inf)
    assert together.E.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        alone = fit_law(n, d, losses[i, j], np.inf)
        np.testing.assert_allclose([x[i, j] for x in together], alone, rtol=1e-4)


def test_order_of_the_runs_and_units_do_not_matter():
    n, d = grid(4, 5)
    losses = noisy(TRUTH, n, d, 0.003)
    law = fit_law(n, d, losses, np.inf)
    order = np.random.default_rng(1).permutation(len(n))
    np.testing.assert_allclose(fit_law(n[order], d[order], losses[order], np.inf), law, rtol=1e-5)
    other = fit_law(n * 1e6, d / 10, losses * 3, np.inf)
    wanted = (3 * law.E, 3 * law.A * 1e6**law.alpha, law.alpha)
    np.testing.assert_allclose(other[:3], wanted, rtol=1e-4)
    np.testing.assert_allclose(other[3:], (3 * law.B / 10**law.beta, law.beta), rtol=1e-4)


def test_a_start_gives_the_same_end():
    n, d = grid()
    losses = noisy(TRUTH, n, d, 0.003)
    for start in (TRUTH, Law(0.5, 10.0, 0.2, 10.0, 0.2)):
        warm = fit_law(n, d, losses, np.inf, start=start)
        np.testing.assert_allclose(warm, fit_law(n, d, losses, np.inf), rtol=1e-4)


def test_a_fit_begins_where_it_is_told(monkeypatch):
    n, d = grid()
    monkeypatch.setattr("aimodels.scaling.STEPS", 1)
    for law in LAWS:
        np.testing.assert_allclose(fit_law(n, d, law.loss(n, d), start=law), law, rtol=1e-6)


def test_one_failed_run_moves_squares_and_not_huber():
    n, d = grid()
    losses = noisy(TRUTH, n, d, 0.001)
    losses[-1] *= 1.5
    assert fit_law(n, d, losses).alpha == pytest.approx(0.35, abs=0.01)
    assert abs(fit_law(n, d, losses, np.inf).alpha - 0.35) > 0.05


def test_without_a_floor_none_is_found():
    n, d = grid()
    found = fit_law(n, d, 40 * n**-0.35 + 60 * d**-0.4, np.inf)
    assert found.E < 1e-3
    assert (found.alpha, found.beta) == pytest.approx((0.35, 0.4), rel=1e-3)


N, D = grid(3, 3)
LOSSES = TRUTH.loss(N, D)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"losses": LOSSES[:-1]}, "parameters must be [R], R from 5 as in losses; received (9,)"),
        (
            {"tokens": D[:-1]},
            "tokens must be [R], R from 5 as in losses; received (8,), losses (9,",
        ),
        ({"parameters": 3.0}, "parameters must be [R], R from 5 as in losses; received ()"),
        ({"parameters": N[:4], "losses": LOSSES[:4]}, "parameters must be [R], R from 5"),
        ({"parameters": N.clip(None, N.min())}, "parameters must hold three values or more"),
        ({"tokens": np.where(D > 3e4, 2.0, 1.0)}, "tokens must hold three values or more"),
        ({"losses": -LOSSES}, "losses must be above 0 and finite; received -"),
        ({"losses": LOSSES * np.nan}, "losses must be above 0 and finite; received nan"),
        ({"losses": []}, "losses must be numbers; received float64 (0,)"),
        ({"parameters": N * 0}, "parameters must be above 0 and finite; received 0.0"),
        ({"tokens": D * np.inf}, "tokens must be above 0 and finite; received inf"),
        ({"delta": 0}, "delta must be a number above 0; received 0"),
        ({"delta": np.nan}, "delta must be a number above 0; received nan"),
        ({"delta": [1, 2]}, "delta must be a number above 0; received [1, 2]"),
    ],
)
def test_a_fit_refuses(change, text):
    given = {"parameters": N, "tokens": D, "losses": LOSSES} | change
    with pytest.raises(ValueError, match=message(text)):
        fit_law(**given)


# ---- intervals


def test_draws_spread_as_the_standard_errors_of_least_squares():
    n, d = grid(4, 3)
    losses = noisy(TRUTH, n, d, 1e-4, seed=3)
    law = fit_law(n, d, losses, np.inf)
    peer = least_squares(lambda t: logarithms(t, n, d) - np.log(losses), theta(law))
    errors = np.sqrt(np.diag(np.linalg.inv(peer.jac.T @ peer.jac)) * 2 * peer.cost / (12 - 5))
    draws = bootstrap(law, n, d, losses, np.random.default_rng(0), draws=1500, delta=np.inf)
    for name, place in (("alpha", 2), ("beta", 4)):
        values = getattr(draws, name)
        assert values.shape == (1500,)
        assert values.std() == pytest.approx(errors[place], rel=0.08)
        assert values.mean() == pytest.approx(getattr(law, name), abs=errors[place] / 4)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    n, d = grid(5, 4)
    rng = np.random.default_rng(0)
    covered = []
    for losses in noisy(TRUTH, n, d, 0.005, rows=(150,)):
        law = fit_law(n, d, losses, np.inf, start=TRUTH)
        draws = bootstrap(law, n, d, losses, rng, draws=100, delta=np.inf)
        low, high = np.quantile(draws, [0.05, 0.95], axis=1)
        covered.append((low <= TRUTH) & (high >= TRUTH))
    assert (np.abs(np.mean(covered, axis=0) - 0.9) < 0.08).all()


def test_the_same_seed_gives_the_same_draws():
    losses = noisy(TRUTH, N, D, 0.005)
    law = fit_law(N, D, losses)
    a, b, c = (
        bootstrap(law, N, D, losses, np.random.default_rng(seed), draws=5).alpha
        for seed in (0, 0, 1)
    )
    assert a.tolist() == b.tolist() != c.tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"losses": LOSSES[:5]}, "losses must be [R], R from 6; received (5,)"),
        ({"losses": LOSSES[None]}, "losses must be [R], R from 6; received (1, 9)"),
        ({"draws": 0}, "draws must be a whole number from 1; received 0"),
        ({"draws": 2.5}, "draws must be a whole number from 1; received 2.5"),
        ({"losses": LOSSES * np.inf}, "losses must be above 0 and finite; received inf"),
        ({"delta": -1}, "delta must be a number above 0; received -1"),
        ({"tokens": D[:-1]}, "tokens must be [R], R from 6 as in losses; received (8,)"),
        (
            {"parameters": N[:, None]},
            "parameters must be [R], R from 6 as in losses; received (9, 1)",
        ),
    ],
)
def test_draws_refuse(change, text):
    given = {"parameters": N, "tokens": D, "losses": LOSSES} | change
    with pytest.raises(ValueError, match=message(text)):
        bootstrap(TRUTH, rng=np.random.default_rng(0), **given)
