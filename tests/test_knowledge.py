"""Knowledge graphs: scores by hand and by complex numbers, relation patterns, ranks, peers, edges."""

import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras import ops

from aimodels.datasets import knowledge_graph
from aimodels.knowledge import (
    SCORES,
    KnowledgeGraph,
    complex_,
    distmult,
    encode,
    metrics,
    other_answers,
    ranks,
    rotate,
    transe,
)
from aimodels.training import batches, make_step, train

SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def normal(seed, *shape, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(a, b, tolerance=1e-6):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def message(text):
    return f"^{re.escape(text)}"


def vectors(score, seed, width=6):
    """Draw head, relation, tail for 50 triples."""
    columns = width // 2 if score == "rotate" else width
    return normal(seed, 50, width), normal(seed + 1, 50, columns), normal(seed + 2, 50, width)


def imaginary(x):
    half = x.shape[-1] // 2
    return x[..., :half] + 1j * x[..., half:]


def real(z):
    return np.concatenate([z.real, z.imag], axis=-1)


# ---- scores


def test_scores_worked_by_hand():
    h, r, t = np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array([2.0, 5.0])
    assert float(transe(h, r, t)) == -(2 + 4)
    assert float(distmult(h, r, t)) == 1 * 3 * 2 - 2 * 1 * 5
    # (1 + 2i) (3 - i) (2 - 5i) = (5 + 5i) (2 - 5i) = 35 - 15i
    assert float(complex_(h, r, t)) == 35
    # 1 + 2i turned by a quarter is -2 + i; 4 + 4i away from it, √32.
    assert float(rotate(h, np.array([np.pi / 2]), t)) == pytest.approx(-(32**0.5))


@pytest.mark.parametrize("width", [2, 4, 10, 64])
def test_scores_equal_numpys_complex_numbers(width):
    h, r, t = vectors("complex", 0, width)
    close(complex_(h, r, t), (imaginary(h) * imaginary(r) * imaginary(t).conj()).real.sum(-1))
    angles = normal(5, 50, width // 2)
    close(rotate(h, angles, t), -np.abs(imaginary(h) * np.exp(1j * angles) - imaginary(t)).sum(-1))
    close(transe(h, r, t), -np.linalg.norm(h + r - t, ord=1, axis=-1))
    close(distmult(h, r, t), np.einsum("bd,bd,bd->b", h, r, t))


@pytest.mark.parametrize("score", SCORES)
def test_scores_broadcast(score):
    h, r, t = vectors(score, 3)
    one_by_one = SCORES[score](h[:, None], r[:, None], t)
    assert one_by_one.shape == (50, 50)
    close(one_by_one[7, 9], SCORES[score](h[7], r[7], t[9]))


@pytest.mark.parametrize("score", ["transe", "rotate"])
def test_exact_triples_score_highest_and_keep_a_gradient(score):
    relation = tf.constant([0.3, -0.8])
    head = tf.Variable([[1.0, 2.0] * (2 if score == "rotate" else 1)])
    if score == "transe":
        tail = head + relation
    else:
        z = imaginary(head.numpy()) * np.exp(1j * relation.numpy())
        tail = tf.constant(real(z).astype("float32"))
    with tf.GradientTape() as tape:
        value = SCORES[score](head, relation, tail)[0]
    assert -1e-5 < float(value) <= 0
    assert np.isfinite(tape.gradient(value, head)).all()


# ---- what relations can be


def test_distmult_is_exactly_symmetric_even_in_float32():
    h, r, t = (x.astype("float32") for x in vectors("distmult", 0, 64))
    assert (np.asarray(distmult(h, r, t)) == np.asarray(distmult(t, r, h))).all()


def test_transe_pays_for_both_directions_at_least_twice_the_relation():
    h, r, t = vectors("transe", 0)
    both = np.asarray(transe(h, r, t) + transe(t, r, h))
    assert (both <= -2 * np.abs(r).sum(-1) + 1e-9).all()
    close(transe(h, -r, t), transe(t, r, h))  # the inverse


def test_complex_is_symmetric_if_real_antisymmetric_if_imaginary_inverted_by_conjugation():
    h, r, t = vectors("complex", 0)
    r_real, r_imaginary = r.copy(), r.copy()
    r_real[:, 3:] = r_imaginary[:, :3] = 0
    close(complex_(h, r_real, t), complex_(t, r_real, h))
    close(complex_(h, r_imaginary, t), -np.asarray(complex_(t, r_imaginary, h)))
    close(complex_(h, real(imaginary(r).conj()), t), complex_(t, r, h))
    assert np.abs(np.asarray(complex_(h, r, t) - complex_(t, r, h))).min() > 1e-3


def test_rotations_are_symmetric_at_half_turns_inverted_by_the_sign_and_add_up():
    h, r, t = vectors("rotate", 0)
    half = np.pi * (r > 0)
    close(rotate(h, half, t), rotate(t, half, h))
    close(rotate(h, -r, t), rotate(t, r, h))
    middle = real(imaginary(h) * np.exp(1j * r))
    end = real(imaginary(middle) * np.exp(1j * 2 * r))
    assert np.asarray(rotate(h, 3 * r, end)).min() > -1e-5


# ---- the model


def filled(score, seed=0, entities=7, relations=3, width=6, **options):
    model = KnowledgeGraph(entities, relations, width, score, **options)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


TRIPLES = np.array([[0, 2, 6], [3, 0, 3], [6, 1, 0], [5, 2, 1]])


@pytest.mark.parametrize("score", SCORES)
def test_the_model_scores_every_entity_in_both_places(score):
    model = filled(score)
    x, z = (w.astype("float64") for w in model.get_weights())
    scores = np.asarray(model(TRIPLES))
    assert scores.shape == (4, 2, 7)
    for row, (h, r, t) in enumerate(TRIPLES):
        for e in range(7):
            wanted = (SCORES[score](x[h], z[r], x[e]), SCORES[score](x[e], z[r], x[t]))
            np.testing.assert_allclose(scores[row, :, e], np.array(wanted), rtol=1e-4, atol=1e-4)
    moved = TRIPLES.copy()
    moved[:, 2] = (moved[:, 2] + 1) % 7
    assert (np.asarray(model(moved))[:, 0] == scores[:, 0]).all()  # the answer is not read
    moved = TRIPLES.copy()
    moved[:, 0] = (moved[:, 0] + 1) % 7
    assert (np.asarray(model(moved))[:, 1] == scores[:, 1]).all()


def test_a_row_is_what_a_one_hot_vector_picks():
    model = filled("distmult")
    table, one_hot = model.get_weights()[0], np.eye(7, dtype="float32")
    assert (one_hot @ table == table).all()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("jit", [False, True])
def test_numbers_out_of_range_give_nan_and_leave_the_rest_alone(score, jit):
    model = filled(score)
    compiled = tf.function(model, jit_compile=jit, autograph=False)
    right = np.asarray(model(TRIPLES))
    close(compiled(tf.constant(TRIPLES)), right)
    for column, reads in ((0, [True, False]), (1, [True, True]), (2, [False, True])):
        for wrong in (-1, 7, 2**30):
            triples = TRIPLES.copy()
            triples[1, column] = wrong
            scores = np.asarray(compiled(tf.constant(triples)))
            assert np.isnan(scores[1]).all(axis=-1).tolist() == reads
            close(scores[[0, 2, 3]], right[[0, 2, 3]])


@pytest.mark.parametrize("score", SCORES)
def test_it_learns_by_heart_with_the_training_loop(score):
    keras.utils.set_random_seed(0)
    # no two answers to a question, read in either direction: DistMult cannot tell them apart
    triples = np.array([[0, 0, 1], [2, 0, 3], [4, 1, 0], [1, 1, 2]])
    model = KnowledgeGraph(5, 2, 8, score)

    def loss(y, scores):
        losses = keras.losses.sparse_categorical_crossentropy
        return ops.mean(losses(y, scores, from_logits=True))

    step = make_step(model, keras.optimizers.Adam(0.05), loss, jit_compile=True)
    pairs = ((x, x[:, [2, 0]]) for x in batches(triples, 4, 0))
    losses = train(step, pairs, 150)
    assert losses[0] > 1
    assert losses[-1] < 0.3
    places = ranks(np.asarray(model(triples)), triples, other_answers(triples, triples, 5))
    assert metrics(places, hits=(1,))["Hits@1"] == 1


@pytest.mark.parametrize("score", SCORES)
def test_every_number_gets_a_gradient(score):
    model = filled(score)
    every = np.array([[i % 7, i % 3, (i + 2) % 7] for i in range(21)])
    with tf.GradientTape() as tape:
        loss = ops.sum(model(every) ** 2)
    for gradient in tape.gradient(loss, model.trainable_variables):
        assert (np.abs(tf.convert_to_tensor(gradient)) > 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_vectors_start_around_zero_and_angles_everywhere(score):
    keras.utils.set_random_seed(0)
    model = KnowledgeGraph(200, 100, 50, score)
    tables = [np.asarray(table) for table in (model.entities, model.relations)]
    for table in tables[: 1 if score == "rotate" else 2]:
        assert abs(table.mean()) < 0.02
        assert abs(table.std() - 0.5) < 0.02
    if score == "rotate":
        assert np.abs(np.histogram(tables[1], 4, (-np.pi, np.pi))[0] / 2500 - 0.25).max() < 0.03
    else:
        assert abs(np.corrcoef(tables[0][:100].ravel(), tables[1].ravel())[0, 1]) < 0.05


@SAVING
@pytest.mark.parametrize("score", SCORES)
def test_a_saved_model_gives_the_same_numbers(tmp_path, score):
    model = filled(score)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    assert (np.asarray(again(TRIPLES)) == np.asarray(model(TRIPLES))).all()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("policy", ["float16", "mixed_bfloat16"])
def test_half_precision_is_near(score, policy):
    half, full = filled(score, dtype=policy), filled(score)
    scores = half(TRIPLES)
    assert keras.backend.standardize_dtype(scores.dtype) == policy.removeprefix("mixed_")
    close(scores, full(TRIPLES), 0.05)


def test_how_many_are_asked_at_a_time_may_be_unknown():
    assert filled("complex")(keras.Input((3,), dtype="int32")).shape == (None, 2, 7)


def test_complex_and_rotate_store_half_as_many_complex_numbers():
    assert filled("complex").count_params() == filled("transe").count_params() == (7 + 3) * 6
    assert filled("rotate").count_params() == 7 * 6 + 3 * 3


# ---- ranks and metrics


def test_a_ranking_worked_by_hand():
    # Five entities. The right tail is 2, with score 3; 0 is better, 4 is equal, 1 is known and out.
    scores = np.array([[[5.0, 4, 3, 1, 3], [0, 0, 0, 0, 0]]])
    triples = np.array([[3, 0, 2]])
    known = np.array([[3, 0, 2], [3, 0, 1], [1, 0, 2], [3, 1, 4]])
    left_out = other_answers(triples, known, 5)
    assert left_out[0].tolist() == [
        [False, True, False, False, False],
        [False, True, False, False, False],
    ]
    assert ranks(scores, triples, ties="optimistic").tolist() == [[3, 1]]
    assert ranks(scores, triples, ties="pessimistic").tolist() == [[4, 5]]
    assert ranks(scores, triples).tolist() == [[3.5, 3]]
    assert ranks(scores, triples, left_out, "optimistic").tolist() == [[2, 1]]
    assert ranks(scores, triples, left_out, "pessimistic").tolist() == [[3, 4]]
    assert ranks(scores, triples, left_out).tolist() == [[2.5, 2.5]]
    found = metrics([1, 2.5, 3, 20], hits=(1, 2, 3, 10))
    assert found == {
        "MRR": pytest.approx((1 + 0.4 + 1 / 3 + 0.05) / 4),
        "Hits@1": 0.25,
        "Hits@2": 0.25,
        "Hits@3": 0.75,
        "Hits@10": 0.75,
    }


@pytest.mark.parametrize("entities", [1, 2, 5, 40])
def test_ranks_equal_scipys(entities):
    rng = np.random.default_rng(entities)
    scores = rng.integers(0, 6, (30, 2, entities)).astype(float)  # many ties
    triples = rng.integers(0, entities, (30, 3))
    left_out = other_answers(triples, rng.integers(0, entities, (60, 3)), entities)
    methods = {"optimistic": "min", "realistic": "average", "pessimistic": "max"}
    for ties, method in methods.items():
        found = ranks(scores, triples, left_out, ties)
        for row, (h, _, t) in enumerate(triples):
            for side, answer in enumerate((t, h)):
                stay = np.flatnonzero(~left_out[row, side])
                by_scipy = scipy.stats.rankdata(-scores[row, side, stay], method)
                assert found[row, side] == by_scipy[stay == answer][0]


PYKEEN = {  # version 1.11.1, RankBasedEvaluator, filtered: MRR, Hits@1, 3, 10 of both questions
    "optimistic": [0.4366078089958687, 0.2263681592039801, 0.5348258706467661, 0.9601990049751243],
    "realistic": [0.37025636434555054, 0.10696517412935323, 0.4577114427860697, 0.9303482587064676],
    "pessimistic": [0.3386055072622237, 0.1069651741293532, 0.4303482587064677, 0.9228855721393034],
}


def test_the_metrics_are_those_of_pykeen():
    # Whole numbers as scores, so that many are equal.
    graph = knowledge_graph("nations")
    scores = np.random.default_rng(7).integers(0, 9, (len(graph.test), 2, 14)).astype("float32")
    known = np.concatenate([graph.train, graph.valid, graph.test])
    left_out = other_answers(graph.test, known, 14)
    for ties, wanted in PYKEEN.items():
        found = metrics(ranks(scores, graph.test, left_out, ties))
        assert list(found.values()) == pytest.approx(wanted, abs=1e-7)


def test_of_all_zeros_the_rule_for_ties_makes_everything_or_nothing():
    graph = knowledge_graph("nations")
    scores = np.zeros((len(graph.test), 2, 14))
    assert metrics(ranks(scores, graph.test, ties="optimistic"))["MRR"] == 1
    assert (ranks(scores, graph.test) == 7.5).all()
    assert metrics(ranks(scores, graph.test, ties="pessimistic"))["MRR"] == pytest.approx(1 / 14)


def test_infinite_scores_have_ranks():
    scores = np.array([[[-np.inf, 2.0, np.inf], [-np.inf, -np.inf, 0]]])
    assert ranks(scores, np.array([[1, 0, 2]])).tolist() == [[1, 2.5]]


def test_what_is_left_out_is_every_other_known_answer_and_nothing_else():
    graph = knowledge_graph("nations")
    known = np.concatenate([graph.train, graph.valid, graph.test])
    truths = set(map(tuple, known.tolist()))
    left_out = other_answers(graph.test, known, 14)
    for row, (h, r, t) in enumerate(graph.test.tolist()):
        for e in range(14):
            assert left_out[row, 0, e] == (e != t and (h, r, e) in truths)
            assert left_out[row, 1, e] == (e != h and (e, r, t) in truths)


def test_names_become_numbers_and_back():
    graph = knowledge_graph("nations")
    named = [("usa", "embassy", "ussr"), ("china", "treaties", "ussr")]
    for (h, r, t), row in zip(named, encode(named, graph.entities, graph.relations), strict=True):
        assert (graph.entities[row[0]], graph.relations[row[1]]) == (h, r)
        assert graph.entities[row[2]] == t


# ---- bad arguments


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"entities": 0}, "entities must be an integer of at least 1; received 0"),
        ({"relations": 2.0}, "relations must be an integer of at least 1; received 2.0"),
        ({"width": True}, "width must be an integer of at least 1; received True"),
        ({"score": "rescal"}, "score must be one of ('transe', 'distmult', 'complex', 'rotate')"),
        ({"width": 5, "score": "complex"}, "width must be even for complex; received 5"),
        ({"width": 7, "score": "rotate"}, "width must be even for rotate; received 7"),
    ],
)
def test_sizes_that_make_no_model_are_refused(changed, text):
    sizes = {"entities": 3, "relations": 2, "width": 4, "score": "transe"}
    with pytest.raises(ValueError, match=message(text)):
        KnowledgeGraph(**{**sizes, **changed})


@pytest.mark.parametrize(
    ("score", "shapes", "text"),
    [
        ("transe", (4, 4, 3), "head, relation, tail must end in D, D, D; received 4, 4, 3"),
        ("transe", (4, 1, 4), "head, relation, tail must end in D, D, D; received 4, 1, 4"),
        ("distmult", (1, 4, 4), "head, relation, tail must end in D, D, D; received 1, 4, 4"),
        ("complex", (5, 5, 5), "head, relation, tail must end in D, D, D, D even; received 5, 5"),
        ("complex", (4, 2, 4), "head, relation, tail must end in D, D, D, D even; received 4, 2"),
        ("rotate", (4, 4, 4), "head, relation, tail must end in D, D / 2, D, D even; received 4"),
        ("rotate", (3, 1, 3), "head, relation, tail must end in D, D / 2, D, D even; received 3"),
    ],
)
def test_vectors_of_the_wrong_width_are_refused(score, shapes, text):
    with pytest.raises(ValueError, match=message(text)):
        SCORES[score](*(np.ones((2, width)) for width in shapes))


@pytest.mark.parametrize(
    ("triples", "text"),
    [
        (np.zeros((2, 2), int), "triples must be integers [B, 3], B at least 1; received int64 (2"),
        (np.zeros(3, int), "triples must be integers [B, 3], B at least 1; received int64 (3,)"),
        (np.zeros((2, 3), "float32"), "triples must be integers [B, 3], B at least 1; received fl"),
        (np.zeros((0, 3), int), "triples must be integers [B, 3], B at least 1; received int64 (0"),
    ],
)
def test_the_model_refuses(triples, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        filled("transe")(triples)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ([], "named must hold at least one triple; received none"),
        ([("a", "r")], "named must hold triples; received ('a', 'r')"),
        ([("a", "r", "b"), ("a", "r", "c")], "named must use known names; received entity 'c'"),
        ([("z", "r", "b")], "named must use known names; received entity 'z'"),
        ([("a", "s", "b")], "named must use known names; received relation 's'"),
    ],
)
def test_unknown_names_are_named(named, text):
    with pytest.raises(ValueError, match=message(text)):
        encode(named, ("a", "b"), ("r",))


@pytest.mark.parametrize(
    ("triples", "text"),
    [
        (np.zeros((0, 3), int), "must be [N, 3] with N at least 1; received (0, 3)"),
        (np.zeros((2, 4), int), "must be [N, 3] with N at least 1; received (2, 4)"),
        (np.zeros((2, 3)), "must be integers; received float64"),
        (np.array([[0, 0, 5]]), "must have entities 0 to 4; received 5"),
        (np.array([[-1, 0, 0]]), "must have entities 0 to 4; received -1"),
    ],
)
def test_triples_that_are_none_are_refused(triples, text):
    fine = np.array([[0, 0, 1]])
    with pytest.raises(ValueError, match=message(f"triples {text}")):
        other_answers(triples, fine, 5)
    with pytest.raises(ValueError, match=message(f"known {text}")):
        other_answers(fine, triples, 5)
    with pytest.raises(ValueError, match=message(f"triples {text}")):
        ranks(np.zeros((len(triples), 2, 5)), triples)


def test_scores_that_cannot_be_ranked_are_refused():
    triples, scores = np.array([[0, 0, 1]]), np.zeros((1, 2, 3))
    nan = scores.copy()
    nan[0, 1, 2] = np.nan
    all_out = np.ones(scores.shape, bool)
    for arguments, text in (
        ((nan, triples), "scores must not be NaN; received 1 of them"),
        ((scores[0], triples), "scores must be [N, 2, E]; received (2, 3)"),
        ((scores[:, :1], triples), "scores must be [N, 2, E]; received (1, 1, 3)"),
        ((np.zeros((2, 2, 3)), triples), "scores must be [N, 2, E] with N = 1; received N = 2"),
        ((scores, triples, None, "best"), "ties must be one of ('optimistic', 'realistic', 'pes"),
        ((scores, triples, all_out[:, :, :2]), "left_out must be boolean (1, 2, 3); received bool"),
        ((scores, triples, scores), "left_out must be boolean (1, 2, 3); received float64"),
        ((scores, triples, all_out), "left_out must be False for right answers; received True"),
    ):
        with pytest.raises(ValueError, match=message(text)):
            ranks(*arguments)


@pytest.mark.parametrize(
    ("places", "hits", "text"),
    [
        ([], (1,), "places must be ranks of at least 1; received none"),
        ([1, 0.5], (1,), "places must be ranks of at least 1; received 0.5"),
        ([1, np.nan], (1,), "places must be ranks of at least 1; received nan"),
        ([1, 2], (0,), "hits must be integers of at least 1; received 0"),
        ([1, 2], (1, 2.5), "hits must be integers of at least 1; received 2.5"),
        ([1, 2], (True,), "hits must be integers of at least 1; received True"),
    ],
)
def test_metrics_refuse(places, hits, text):
    with pytest.raises(ValueError, match=message(text)):
        metrics(places, hits)
