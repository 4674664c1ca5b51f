"""Knowledge-graph embedding: scores of triples, the two questions of a triple, ranks of answers.

Axes: B triples of a batch, N triples, E entities, R relations, D width. A triple is three integers
(head, relation, tail); entities count from 0 to E - 1, relations from 0 to R - 1.
"""

import collections
import math

import keras
import numpy as np
from keras import ops

from aimodels.bert import check_size, look_up

START = 0.5  # standard deviation of the vectors before training
TIES = ("optimistic", "realistic", "pessimistic")


def _widths(head, relation, tail, pairs=False, angles=False):
    """Raise ValueError unless the vectors fit together."""
    width, middle, last = (x.shape[-1] for x in (head, relation, tail))
    if last != width or middle != (width // 2 if angles else width) or (pairs and width % 2):
        wanted = f"D, {'D / 2' if angles else 'D'}, D{', D even' if pairs else ''}"
        raise ValueError(
            f"head, relation, tail must end in {wanted}; received {width}, {middle}, {last}"
        )


def _halves(x):
    """Return real and imaginary parts: the first half of the last axis, and the second."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def transe(head, relation, tail):
    """Return -‖h + r - t‖, the length being a sum of absolute values.

    Args:
        head: `[..., D]`; this and the next two broadcast.
        relation: `[..., D]`.
        tail: `[..., D]`.

    Returns:
        `[...]`, at most 0; 0 where the relation leads exactly from head to tail.

    Raises:
        ValueError: vectors of different width.

    Source: Bordes et al. 2013, section 2. Differs: vectors of entities are not set to length 1.
    """
    _widths(head, relation, tail)
    return -ops.sum(ops.abs(head + relation - tail), axis=-1)


def distmult(head, relation, tail):
    """Return Σ h t r, the same whichever of head and tail comes first.

    Args, Returns and Raises as in `transe`, but the score may be any number.

    Source: Yang et al. 2015, section 3, <https://arxiv.org/abs/1412.6575>.
    """
    _widths(head, relation, tail)
    return ops.sum((head * tail) * relation, axis=-1)  # head and tail first: exactly symmetric


def complex_(head, relation, tail):
    """Return Re Σ h r t̄ of complex vectors, each stored as its real, then its imaginary parts.

    Args, Returns and Raises as in `distmult`; D is even, for D / 2 complex numbers.

    Source: Trouillon et al. 2016, section 3, <https://arxiv.org/abs/1606.06357>.
    """
    _widths(head, relation, tail, pairs=True)
    (h, hi), (r, ri), (t, ti) = _halves(head), _halves(relation), _halves(tail)
    return ops.sum((h * r - hi * ri) * t + (h * ri + hi * r) * ti, axis=-1)


def rotate(head, relation, tail):
    """Return -Σ |h e^(iθ) - t| of complex vectors, stored as in `complex_`.

    Args:
        head: `[..., D]`, D even.
        relation: `[..., D / 2]` angles θ in radians.
        tail: `[..., D]`.

    Returns:
        `[...]`, at most 0; 0, up to rounding, where turning the head gives the tail.

    Raises:
        ValueError: widths that do not fit, or are odd.

    Source: Sun et al. 2019, section 3, <https://arxiv.org/abs/1902.10197>.
    """
    _widths(head, relation, tail, pairs=True, angles=True)
    (h, hi), (t, ti) = _halves(head), _halves(tail)
    cos, sin = ops.cos(relation), ops.sin(relation)
    squares = ops.square(h * cos - hi * sin - t) + ops.square(h * sin + hi * cos - ti)
    tiny = 1e-12 if keras.backend.standardize_dtype(squares.dtype) != "float16" else 6e-8
    return -ops.sum(ops.sqrt(ops.maximum(squares, tiny)), axis=-1)  # √ has no slope at 0


SCORES = {"transe": transe, "distmult": distmult, "complex": complex_, "rotate": rotate}


@keras.saving.register_keras_serializable("aimodels")
class KnowledgeGraph(keras.Model):
    """A vector for each entity and each relation, and the scores of all answers to a triple.

    Args:
        entities: E.
        relations: R.
        width: D, numbers for each entity; even for complex and rotate.
        score: "transe", "distmult", "complex" or "rotate".

    Call:
        triples: `[B, 3]` integers.

    Returns:
        `[B, 2, E]`: row 0 scores every entity as tail of (head, relation, ?), without reading the
        tail; row 1 as head of (?, relation, tail), without reading the head. An integer out of
        range gives NaN.

    Raises:
        ValueError: a size that is not allowed, an unknown score; triples of another shape or type.
    """

    def __init__(self, entities, relations, width, score, **kwargs):
        """Make both tables."""
        super().__init__(**kwargs)
        self.options = {"entities": entities, "relations": relations, "width": width}
        for name, size in self.options.items():
            check_size(name, size)
        if score not in SCORES:
            raise ValueError(f"score must be one of {tuple(SCORES)}; received {score!r}")
        if score in ("complex", "rotate") and width % 2:
            raise ValueError(f"width must be even for {score}; received {width}")
        self.options["score"] = score
        draw = keras.initializers
        if score == "rotate":
            shape, start = (relations, width // 2), draw.RandomUniform(-math.pi, math.pi)
        else:
            shape, start = (relations, width), draw.RandomNormal(stddev=START)
        vectors = draw.RandomNormal(stddev=START)  # with a seed of its own
        self.entities = self.add_weight((entities, width), vectors, name="entities")
        self.relations = self.add_weight(shape, start, name="relations")
        self.built = True

    def call(self, triples):
        """Look up three rows, score every entity in the place of the tail and of the head."""
        dtype = keras.backend.standardize_dtype(triples.dtype)
        shape = tuple(triples.shape)
        if len(shape) != 2 or shape[1] != 3 or shape[0] == 0 or "int" not in dtype:
            raise ValueError(
                f"triples must be integers [B, 3], B at least 1; received {dtype} {shape}"
            )
        score, table = SCORES[self.options["score"]], ops.convert_to_tensor(self.entities)
        head = look_up(table, triples[:, 0])[:, None]
        relation = look_up(ops.convert_to_tensor(self.relations), triples[:, 1])[:, None]
        tail = look_up(table, triples[:, 2])[:, None]
        return ops.stack([score(head, relation, table), score(table, relation, tail)], axis=1)

    def get_config(self):
        """Return the arguments that make this model again."""
        return {**keras.Layer.get_config(self), **self.options}


def encode(named, entities, relations):
    """Turn triples of names into integers.

    Args:
        named: sequence of (head, relation, tail), each a name.
        entities: names of the entities, in the order of their numbers.
        relations: names of the relations, likewise.

    Returns:
        `[N, 3]` integers.

    Raises:
        ValueError: no triples; a name that is not among the entities or relations.
    """
    of_entity = {name: number for number, name in enumerate(entities)}
    of_relation = {name: number for number, name in enumerate(relations)}
    if len(named) == 0:
        raise ValueError("named must hold at least one triple; received none")
    rows = np.zeros((len(named), 3), int)
    for row, triple in zip(rows, named, strict=True):
        if len(triple) != 3:
            raise ValueError(f"named must hold triples; received {triple!r}")
        for place, name in enumerate(triple):
            kind, numbers = ("relation", of_relation) if place == 1 else ("entity", of_entity)
            if name not in numbers:
                raise ValueError(f"named must use known names; received {kind} {name!r}")
            row[place] = numbers[name]
    return rows


def _check(name, triples, entities):
    """Return triples as an array, or raise ValueError."""
    triples = np.asarray(triples)
    if triples.ndim != 2 or triples.shape[1:] != (3,) or len(triples) == 0:
        raise ValueError(f"{name} must be [N, 3] with N at least 1; received {triples.shape}")
    if triples.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers; received {triples.dtype}")
    ends = triples[:, ::2]
    if ends.min() < 0 or ends.max() >= entities:
        wrong = ends[(ends < 0) | (ends >= entities)][0]
        raise ValueError(f"{name} must have entities 0 to {entities - 1}; received {wrong}")
    return triples


def other_answers(triples, known, entities):
    """Mark the answers that are right as well, so that a ranking can leave them out.

    Args:
        triples: `[N, 3]` integers, the questions.
        known: `[M, 3]` integers, all triples known to be true.
        entities: E.

    Returns:
        `[N, 2, E]` boolean: in row 0 True for a tail, in row 1 for a head, other than that of the
        triple itself, with which it is a known triple.

    Raises:
        ValueError: no triples, another shape or type, an entity out of range.

    Source: Bordes et al. 2013, section 4.2, where rankings without them are called "filtered".
    """
    triples, known = _check("triples", triples, entities), _check("known", known, entities)
    tails, heads = collections.defaultdict(list), collections.defaultdict(list)
    for head, relation, tail in known.tolist():
        tails[head, relation].append(tail)
        heads[relation, tail].append(head)
    marked = np.zeros((len(triples), 2, entities), bool)
    for row, (head, relation, tail) in zip(marked, triples.tolist(), strict=True):
        row[0, tails[head, relation]] = True
        row[1, heads[relation, tail]] = True
        row[0, tail] = row[1, head] = False
    return marked


def ranks(scores, triples, left_out=None, ties="realistic"):
    """Return at which place the right answer stands when entities are sorted by score.

    Args:
        scores: `[N, 2, E]`, as `KnowledgeGraph` returns them; larger is better.
        triples: `[N, 3]` integers, which hold the right answers.
        left_out: boolean `[N, 2, E]`, True for an entity that does not take part; or None.
        ties: what equal scores count. "optimistic": as if the right answer came first of them;
            "pessimistic": as if it came last; "realistic": the mean of both places.

    Returns:
        `[N, 2]` float64: the places of the tail and of the head, from 1.

    Raises:
        ValueError: arrays of another shape or type; NaN; an entity out of range; a right answer
            that is left out; an unknown rule for ties.

    Source: Berrendorf et al. 2020, section 3, <https://arxiv.org/abs/2002.06914> (the rules).
    """
    scores = np.asarray(scores)
    if scores.ndim != 3 or scores.shape[1] != 2:
        raise ValueError(f"scores must be [N, 2, E]; received {scores.shape}")
    triples = _check("triples", triples, scores.shape[2])
    if len(triples) != len(scores):
        raise ValueError(
            f"scores must be [N, 2, E] with N = {len(triples)}; received N = {len(scores)}"
        )
    if np.isnan(scores).any():  # no comparison with NaN holds, so it would count as the best
        raise ValueError(f"scores must not be NaN; received {np.isnan(scores).sum()} of them")
    if ties not in TIES:
        raise ValueError(f"ties must be one of {TIES}; received {ties!r}")
    left_out = np.zeros(scores.shape, bool) if left_out is None else np.asarray(left_out)
    if left_out.shape != scores.shape or left_out.dtype != bool:
        raise ValueError(
            f"left_out must be boolean {scores.shape}; received {left_out.dtype} {left_out.shape}"
        )
    answers = triples[:, [2, 0], None]  # the tail for row 0, the head for row 1
    if np.take_along_axis(left_out, answers, axis=2).any():
        raise ValueError("left_out must be False for right answers; received True")
    right = np.take_along_axis(scores, answers, axis=2)
    best = 1 + ((scores > right) & ~left_out).sum(axis=2)
    worst = ((scores >= right) & ~left_out).sum(axis=2)
    weight = TIES.index(ties) / 2
    return (1 - weight) * best + weight * worst


def metrics(places, hits=(1, 3, 10)):
    """Return the mean reciprocal rank and the shares of answers among the first k.

    Args:
        places: array of ranks, each at least 1.
        hits: the numbers k.

    Returns:
        Dictionary: "MRR", the mean of 1 / rank, above 0 to 1; "Hits@k" for each k, from 0 to 1.

    Raises:
        ValueError: no ranks, NaN, or one below 1; a k that is no integer from 1.
    """
    places = np.asarray(places, float)
    if places.size == 0 or not (places >= 1).all():
        received = places.min() if places.size else "none"
        raise ValueError(f"places must be ranks of at least 1; received {received}")
    for k in hits:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"hits must be integers of at least 1; received {k!r}")
    return {"MRR": (1 / places).mean()} | {f"Hits@{k}": (places <= k).mean() for k in hits}
