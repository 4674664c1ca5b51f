"""Inference: counts against the arrays themselves, schedules by hand, outputs unchanged."""

import functools
import itertools
import re

import keras
import numpy as np
import pytest

from aimodels.gpt import GPT, generate, parameter_count, probabilities
from aimodels.inference import (
    LookupDraft,
    ModelDraft,
    Reader,
    accept,
    bucket,
    cache_bytes,
    expected_tokens,
    generate_together,
    schedule,
    speculate,
    work,
)

V, M = 7, 16


def message(text):
    return f"^{re.escape(text)}"


def make(seed, *, steps=M, width=6, heads=2, depth=2, vocabulary=V):
    model = GPT(vocabulary, steps, width, heads, depth)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=0.4, size=w.shape) for w in model.weights])
    return model


@pytest.fixture(scope="module")
def target():
    return make(0)


@pytest.fixture(scope="module")
def small():
    return make(1, width=4, depth=1)


@functools.cache
def following(model, text):
    """Return the most probable token, and see that rounding cannot make it another one."""
    scores = np.array(model(np.array([text])))[0, -1]
    first, second = np.sort(scores)[[-1, -2]]
    assert first - second > 1e-4
    return int(scores.argmax())


def greedy(model, text, count, end=None):
    """Write without a cache, token by token."""
    text, start = list(text), len(text)
    while len(text) < start + count and (end is None or end not in text[start:]):
        text.append(following(model, tuple(text)))
    return text


# ---- counts


@pytest.mark.parametrize(("batch", "new", "total"), [(1, 1, 1), (2, 3, 7), (5, 1, 16), (1, 16, 16)])
def test_the_work_of_a_pass_is_that_of_the_matrices(target, batch, new, total):
    operations = 2 * batch * new * V * 6  # logits
    for block in target.blocks:
        attend, feed = block.attend, block.feed
        for dense in (
            attend.query,
            attend.key,
            attend.value,
            attend.merge,
            feed.widen,
            feed.narrow,
        ):
            operations += 2 * batch * new * int(np.prod(dense.kernel.shape))
        operations += 2 * 2 * batch * new * total * 6  # scores, and what is read
    read = sum(w.nbytes for w in target.get_weights()) - target.positions.numpy().nbytes
    cache = sum(k.numpy().nbytes + v.numpy().nbytes for k, v in target.empty_cache(batch))
    assert work(target.sizes, batch, new, total) == (operations, read + cache * total // M)


def test_half_precision_halves_the_bytes_alone(target):
    operations, size = work(target.sizes, 3, 2, 9)
    assert work(target.sizes, 3, 2, 9, each=2) == (operations, size // 2)


def test_hidden_counts():
    sizes = {"vocabulary": 5, "width": 4, "depth": 1, "hidden": 3}
    assert work(sizes, 1, 1, 1)[0] == 2 * (4 * 16 + 2 * 12 + 2 * 4 + 20)
    assert work(sizes, 1, 1, 1, each=1)[1] == parameter_count(5, 0, 4, 1, 3) + 8


@pytest.mark.parametrize("batch", [1, 3])
def test_the_bytes_of_a_cache_are_those_of_its_arrays(target, batch):
    arrays = [array.numpy() for pair in target.empty_cache(batch) for array in pair]
    assert cache_bytes(2, 2, 3, M, batch=batch) == sum(array.nbytes for array in arrays)


def test_published_caches():
    assert cache_bytes(96, 96, 128, 2048, each=2) == 9_663_676_416
    assert cache_bytes(80, 64, 128, 4096, each=2) == 8 * cache_bytes(80, 8, 128, 4096, each=2)


@pytest.mark.parametrize(("length", "size"), [(1, 4), (4, 4), (5, 16), (16, 16)])
def test_the_smallest_bucket_that_fits(length, size):
    assert bucket(length, [16, 4, 32]) == size


# ---- schedules


def test_a_schedule_by_hand():
    lengths = [3, 1, 2, 1]
    assert schedule(lengths, 2, continuous=False).tolist() == [
        [0, 1],
        [0, -1],
        [0, -1],
        [2, 3],
        [2, -1],
    ]
    assert schedule(lengths, 2).tolist() == [[0, 1], [0, 2], [0, 2], [3, -1]]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("slots", [1, 3, 8])
def test_each_request_gets_its_tokens_in_one_slot_without_a_gap(continuous, slots):
    lengths = np.random.default_rng(slots).integers(1, 20, 15).tolist()
    steps = schedule(lengths, slots, continuous)
    for request, length in enumerate(lengths):
        at, slot = np.nonzero(steps == request)
        assert len(at) == length
        assert len(set(slot)) == 1
        assert at.tolist() == list(range(at[0], at[0] + length))
    assert (steps >= 0).any(-1).all()
    if continuous:  # a slot is empty only when nobody waits
        begun = [np.nonzero((steps == r).any(-1))[0][0] for r in range(15)]
        assert (steps[: max(begun)] >= 0).all()
        assert begun == sorted(begun)
    else:
        groups = [max(lengths[i : i + slots]) for i in range(0, 15, slots)]
        assert len(steps) == sum(groups)


def test_no_request_needs_no_step():
    assert schedule([], 3).shape == (0, 3)


# ---- batches of different lengths


@pytest.mark.parametrize("lengths", [(3, 3), (1, 5, 2), (4,), (9, 1)])
def test_rows_are_written_as_each_alone(target, lengths):
    rng = np.random.default_rng(sum(lengths))
    prompts = [rng.integers(0, V, length).tolist() for length in lengths]
    together = generate_together(target, prompts, 6)
    for prompt, row in zip(prompts, together, strict=True):
        assert row.tolist() == greedy(target, prompt, 6)
        assert row.tolist() == generate(target, [prompt], 6)[0].tolist()


def test_together_to_the_last_step_and_not_at_all(target):
    prompts = [[1, 2, 3], [4]]
    rows = generate_together(target, prompts, M - 3)
    assert [len(row) for row in rows] == [M, M - 2]
    assert rows[1].tolist() == greedy(target, [4], M - 3)
    assert [row.tolist() for row in generate_together(target, prompts, 0)] == prompts


# ---- a reader


@pytest.mark.parametrize("span", [1, 3, M])
def test_scores_of_a_text_that_grows_and_is_cut_back(target, span):
    reader, rng = Reader(target, span), np.random.default_rng(span)
    text = rng.integers(0, V, 5).tolist()
    for length in (5, 6, 9, 7, 7, 16, 15, 2, 16):
        text = [*text[: length - 1], *rng.integers(0, V, M).tolist()][:length]
        count = int(rng.integers(1, min(length, 4) + 1))
        scores = reader(text, count)
        expected = np.array(target(np.array([text])))[0, -count:]
        assert scores.shape == (count, V)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("changed", range(6))
def test_a_token_changed_in_the_middle_is_read_again(target, changed):
    reader, text = Reader(target, 2), [1, 2, 3, 4, 5, 6]
    reader(text)
    text[changed] = 0
    expected = np.array(target(np.array([text])))[0, -1:]
    np.testing.assert_allclose(reader(text), expected, atol=1e-5)


def test_a_reader_reads_only_what_is_new(target):
    reader = Reader(target, 3)
    passes = []
    for text, count in (([1, 2], 1), ([1, 2, 3, 4, 5], 3), ([1, 2, 3, 6], 1), ([1, 2, 3, 6], 1)):
        before = reader.calls
        reader(text, count)
        passes.append(reader.calls - before)
    assert passes == [1, 1, 1, 1]
    reader([1, 2, 3, 6, 1, 1, 1, 1], 1)  # four new tokens, three a pass
    assert reader.calls == 6


# ---- accepting


def one_step(p, q):
    """Return the distribution of the first token, by enumeration."""
    kept = q * np.minimum(1, np.divide(p, q, out=np.zeros_like(p), where=q > 0))
    excess = np.maximum(p - q, 0)
    return kept + (1 - kept.sum()) * excess / max(excess.sum(), 1e-300)


class Scripted:
    """A generator whose uniform numbers are given, and whose choices are remembered."""

    def __init__(self, uniform):
        self.uniform, self.asked = list(uniform), []

    def random(self):
        return self.uniform.pop(0)

    def choice(self, size, p):
        self.asked.append(np.array(p))
        return int(np.argmax(p))


def test_the_rule_by_hand():
    p, q = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), np.array([[0.2, 0.2, 0.6]])
    rng = Scripted([0.33])  # kept with probability 0.2 / 0.6
    assert accept(p, q, [2], rng) == [2, 2]
    np.testing.assert_allclose(rng.asked, [[0.1, 0.1, 0.8]])
    rng = Scripted([0.34])
    assert accept(p, q, [2], rng) == [0]
    np.testing.assert_allclose(rng.asked, [[0.75, 0.25, 0]])
    assert accept(p, q, [0], Scripted([0.999999])) == [0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_token_is_distributed_as_the_target(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(6, 0.5)), rng.dirichlet(np.full(6, 0.5))
    np.testing.assert_allclose(one_step(p, q), p, atol=1e-12)
    draws = 4000
    counts = np.zeros(6)
    for _ in range(draws):
        counts[accept([p, p], [q], [rng.choice(6, p=q)], rng)[0]] += 1
    spread = np.sqrt(p * (1 - p) / draws)
    assert (np.abs(counts / draws - p) < 5 * spread + 1e-3).all()


def test_texts_are_distributed_as_the_target_writes_them():
    """Tables in place of models: the next token depends on the last one; three tokens, V = 3."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3), 3)
    draws, found = 5_000, np.zeros((3, 3, 3))
    for _ in range(draws):
        text = [0]
        while len(text) < 4:
            guess = []
            for _ in range(2):
                guess.append(int(rng.choice(3, p=q[(text + guess)[-1]])))
            past = [text[-1], *guess]
            text += accept(p[past], q[past[:-1]], guess, rng)
        found[tuple(text[1:4])] += 1
    expected = np.einsum("a,ab,bc->abc", p[0], p, p)
    statistic = ((found - draws * expected) ** 2 / (draws * expected)).sum()
    assert statistic < 60  # 26 degrees of freedom: above 60 once in 6,000


def test_equal_distributions_keep_everything():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 4)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        guess = [int(rng.choice(5, p=row)) for row in p[:3]]
        assert accept(p, p[:3], guess, rng)[:3] == guess


def test_a_difference_by_rounding_is_no_error():
    p = np.array([[0.3, 0.7], [0.5, 0.5]])
    q = np.array([[np.nextafter(0.3, 1), 0.7]])
    assert accept(p, q, [0], Scripted([1 - 2**-53])) == [1]


def test_greedy_is_the_case_of_one_certain_token():
    p, rng = np.eye(4)[[2, 1, 3]], np.random.default_rng(0)
    assert accept(p, np.eye(4)[[2, 1]], [2, 1], rng) == [2, 1, 3]
    assert accept(p, np.eye(4)[[2, 0]], [2, 0], rng) == [2, 1]
    assert accept(p, np.full((2, 4), 0.25), [0, 1], rng) == [2]
    assert accept(p[:1], np.zeros((0, 4)), [], rng) == [2]


# ---- speculative decoding


def always(model):
    """A draft that knows what the model will write."""

    def draft(text, count, rng, **choice):
        tokens = greedy(model, text, count)[len(text) :]
        return tokens, np.eye(V)[tokens]

    return draft


def never(model):
    def draft(text, count, rng, **choice):
        tokens = [(token + 1) % V for token in greedy(model, text, count)[len(text) :]]
        return tokens, np.eye(V)[tokens]

    return draft


DRAFTS = {
    "model": lambda target, small: ModelDraft(small),
    "itself": lambda target, small: ModelDraft(target),
    "lookup": lambda target, small: LookupDraft(V),
    "always": lambda target, small: always(target),
    "never": lambda target, small: never(target),
    "none": lambda target, small: lambda text, count, rng, **choice: ([], np.zeros((0, V))),
}


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("size", [(1, 15), (4, 7), (5, 1), (3, 0), (16, 0)])
@pytest.mark.parametrize("gamma", [0, 1, 4])
def test_the_greedy_text_is_the_targets(target, small, name, size, gamma):
    length, count = size
    prompt = np.random.default_rng(length).integers(0, V, length)
    text, rounds = speculate(target, DRAFTS[name](target, small), prompt, count, gamma)
    assert text.tolist() == greedy(target, prompt, count)
    assert (text == generate(target, prompt[None], count)[0]).all()
    assert rounds.shape[1] == 2
    assert (rounds[:, 1] <= rounds[:, 0]).all()
    assert (rounds[:, 0] <= gamma).all()
    assert (rounds[:, 1] + 1).sum() == count


@pytest.mark.parametrize(("seed", "gamma"), [(0, 2), (1, M - 1), (2, 5)])
def test_the_greedy_text_of_random_models(seed, gamma):
    target, small = make(10 + seed, width=8, depth=1), make(20 + seed, width=2, heads=1, depth=1)
    prompt = np.random.default_rng(seed).integers(0, V, 3)
    for draft in (ModelDraft(small), LookupDraft(V, 1), always(target)):
        text, _ = speculate(target, draft, prompt, 13, gamma)
        assert text.tolist() == greedy(target, prompt, 13)


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("gamma", [0, 3])
def test_nothing_is_written_after_the_end(target, small, name, gamma):
    for prompt in ([1, 2], [3], [0, 5, 6]):
        for end in range(V):
            text, _ = speculate(target, DRAFTS[name](target, small), prompt, 10, gamma, end=end)
            assert text.tolist() == greedy(target, prompt, 10, end)


def test_passes_are_saved_when_the_draft_is_right_and_none_when_it_never_is(target):
    _, rounds = speculate(target, always(target), [1], 15, 4)
    assert rounds.tolist() == [[4, 4]] * 3
    _, rounds = speculate(target, never(target), [1], 15, 4)
    assert len(rounds) == 15
    assert rounds[:, 1].sum() == 0


def test_a_draft_with_fewer_steps_falls_silent(target):
    short = make(3, steps=6, width=4, depth=1)
    text, rounds = speculate(target, ModelDraft(short), [1, 2, 3], 13, 4)
    assert text.tolist() == greedy(target, [1, 2, 3], 13)
    assert rounds[0].tolist()[0] == 4
    assert rounds[-1].tolist() == [0, 0]


@pytest.mark.parametrize("right", [False, True])
def test_a_drafting_model_computes_each_token_once(target, small, right):
    draft = ModelDraft(target if right else small)
    _, rounds = speculate(target, draft, [1, 2, 3], 12, 3)
    whole = rounds[:-1, 1] == rounds[:-1, 0]  # the draft has not read its own last token
    assert whole.any() == right
    assert draft.reader.calls == rounds[:, 0].sum() + whole[rounds[1:, 0] > 0].sum()


@pytest.mark.parametrize("choice", [{}, {"temperature": 0.5, "top_k": 3}])
def test_the_first_drawn_tokens_are_distributed_as_the_targets(target, small, choice):
    """Two tokens after a prompt, enumerated; V² = 49 texts."""
    first = probabilities(np.array(target(np.array([[1, 2]])))[0, -1], **choice)
    texts = np.array([[1, 2, v] for v in range(V)])
    second = probabilities(np.array(target(texts))[:, -1], **choice)
    expected = first[:, None] * second
    draft, rng, found = ModelDraft(small), np.random.default_rng(0), np.zeros((V, V))
    draws = 500
    for _ in range(draws):
        text, _ = speculate(target, draft, [1, 2], 2, 1, rng=rng, **choice)
        found[text[2], text[3]] += 1
    assert (found[expected == 0] == 0).all()
    seen = expected > 0
    statistic = ((found - draws * expected)[seen] ** 2 / (draws * expected[seen])).sum()
    freedom = seen.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 5


def test_the_seed_decides(target, small):
    texts = [
        speculate(target, ModelDraft(small), [1], 12, 3, rng=np.random.default_rng(seed))[
            0
        ].tolist()
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_two_shapes_are_traced(small):
    model = make(5)
    for prompt in ([1], [2, 3, 4], [5] * 8):
        speculate(model, ModelDraft(small), prompt, 8, 3)
    assert model.step.experimental_get_tracing_count() == 2


def test_half_precision_writes_finite_text():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make(0)
        text, _ = speculate(model, LookupDraft(V), [1, 2], 10, 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(text) == 12


def test_nan_in_the_weights_is_no_text():
    model = make(0)
    model.set_weights([np.full(w.shape, np.nan) for w in model.weights])
    with pytest.raises(ValueError, match="logits must hold a largest number"):
        speculate(model, LookupDraft(V), [1, 2], 4, 2)


# ---- looking up


@pytest.mark.parametrize(
    ("text", "count", "longest", "tokens"),
    [
        ([1, 2, 3, 4, 1, 2], 3, 3, [3, 4, 1]),
        ([1, 2, 3, 1, 4, 1], 2, 3, [4, 1]),  # the latest
        ([1, 2, 3, 1, 4, 1], 4, 3, [2, 3, 1, 4]),  # the latest that is followed by enough
        ([1, 2, 3, 0, 2, 5, 1, 2], 1, 3, [3]),  # two tokens agree before one does
        ([1, 2, 3, 0, 2, 5, 1, 2], 1, 1, [5]),
        ([4, 4, 4], 5, 3, [4]),
        ([1, 2, 3], 2, 3, []),
        ([1], 2, 3, []),
        ([1, 1], 0, 3, []),
    ],
)
def test_what_is_looked_up(text, count, longest, tokens):
    found, rows = LookupDraft(V, longest)(text, count)
    assert found == tokens
    np.testing.assert_array_equal(rows, np.eye(V)[tokens].reshape(-1, V))


# ---- expectations


@pytest.mark.parametrize("gamma", [0, 1, 5])
@pytest.mark.parametrize("alpha", [0, 0.3, 0.9, 1])
def test_the_expected_tokens_of_a_round_by_enumeration(alpha, gamma):
    mean = 0
    for kept in itertools.product([0, 1], repeat=gamma):
        probability = np.prod([alpha if one else 1 - alpha for one in kept])
        mean += probability * (1 + sum(np.cumprod(kept)))
    assert expected_tokens(alpha, gamma) == pytest.approx(mean)
    if alpha < 1:
        assert expected_tokens(alpha, gamma) == pytest.approx(
            (1 - alpha ** (gamma + 1)) / (1 - alpha)
        )


# ---- errors

TABLE = np.full((2, V), 1 / V)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: work(m.sizes, 0, 1, 1), "batch must be an integer of at least 1; received 0"),
        (lambda m: work(m.sizes, 1, 3, 2), "new must be at most total, 2; received 3"),
        (lambda m: work(m.sizes, 1, 1, 1, each=0.5), "each must be an integer of at least 1"),
        (lambda m: cache_bytes(1, 1, 0, 1), "head_width must be an integer of at least 1"),
        (lambda m: cache_bytes(1, 1, 1, 1, batch=True), "batch must be an integer of at least 1"),
        (lambda m: bucket(33, [16, 32]), "length must be at most 32; received 33"),
        (lambda m: bucket(1, []), "length must be at most 0; received 1"),
        (lambda m: bucket(0, [4]), "length must be an integer of at least 1; received 0"),
        (lambda m: schedule([1], 0), "slots must be an integer of at least 1; received 0"),
        (lambda m: schedule([2, 0], 1), "lengths must be an integer of at least 1; received 0"),
        (lambda m: generate_together(m, [], 1), "prompts must hold at least one; received none"),
        (lambda m: generate_together(m, [[1], []], 1), "prompts must be 1 to 16 integers in a row"),
        (lambda m: generate_together(m, [[1], [V]], 1), "prompts must be 0 to 6; received 7 to 7"),
        (
            lambda m: generate_together(m, [[1], [1] * 5], 12),
            "count must be an integer from 0 to 11; received 12",
        ),
        (lambda m: Reader(m, 0), "span must be an integer from 1 to 16; received 0"),
        (lambda m: Reader(m, 17), "span must be an integer from 1 to 16; received 17"),
        (lambda m: Reader(m)([]), "text must be 1 to 16 integers in a row; received"),
        (lambda m: Reader(m)([1] * 17), "text must be 1 to 16 integers in a row; received"),
        (lambda m: Reader(m)([1, -1]), "text must be 0 to 6; received -1 to 1"),
        (lambda m: Reader(m)([1, 2], 3), "count must be an integer from 1 to 2; received 3"),
        (lambda m: LookupDraft(0), "vocabulary must be an integer of at least 1; received 0"),
        (lambda m: LookupDraft(V, 0), "longest must be an integer of at least 1; received 0"),
        (
            lambda m: accept(TABLE, TABLE, [1, 1], None),
            "target and draft must be [G + 1, V] and [G, V]; received (2, 7) and (2, 7)",
        ),
        (
            lambda m: accept(TABLE, 2 * TABLE[:1], [1], None),
            "draft must hold rows of probabilities that sum to 1; received [0.28",
        ),
        (
            lambda m: accept(TABLE * np.nan, TABLE[:1], [1], None),
            "target must hold rows of probabilities that sum to 1",
        ),
        (
            lambda m: accept([[1.5, -0.5]] * 2, [[0.5, 0.5]], [1], None),
            "target must hold rows of probabilities that sum to 1",
        ),
        (
            lambda m: accept(TABLE, TABLE[:1], [1, 2], None),
            "drafted must be 1 to 1 integers in a row; received int64 (2,)",
        ),
        (lambda m: accept(TABLE, TABLE[:1], [V], None), "drafted must be 0 to 6; received 7 to 7"),
        (
            lambda m: accept(TABLE, np.eye(V)[[3]], [1], None),
            "drafted must hold tokens that the draft gives a probability above 0; received 1",
        ),
        (
            lambda m: speculate(m, None, [[1]], 1, 1),
            "ids must be 1 to 16 integers in a row; received int64 (1, 1)",
        ),
        (lambda m: speculate(m, None, [0.5], 1, 1), "ids must be 1 to 16 integers in a row"),
        (lambda m: speculate(m, None, [1, 2], 15, 1), "count must be an integer from 0 to 14"),
        (lambda m: speculate(m, None, [1], True, 1), "count must be an integer from 0 to 15"),
        (lambda m: speculate(m, None, [1], 1, 16), "gamma must be an integer from 0 to 15"),
        (lambda m: speculate(m, None, [1], 1, -1), "gamma must be an integer from 0 to 15"),
        (lambda m: speculate(m, None, [1], 1, 1, end=V), "end must be an integer from 0 to 6"),
        (
            lambda m: speculate(m, None, [1], 1, 1, top_k=2),
            "rng must be given to draw with top_k; received None",
        ),
        (
            lambda m: speculate(m, LookupDraft(V + 1), [1], 2, 1),
            "target and draft must be [G + 1, V] and [G, V]; received (1, 7) and (0, 8)",
        ),
        (
            lambda m: speculate(m, lambda *_, **__: ([1, 2], TABLE), [1], 2, 4),
            "draft must propose at most 1 tokens; received 2",
        ),
        (lambda m: expected_tokens(1.1, 2), "alpha must be 0 to 1; received 1.1"),
        (lambda m: expected_tokens(np.nan, 2), "alpha must be 0 to 1; received nan"),
        (lambda m: expected_tokens(0.5, -1), "gamma must be an integer of at least 0; received -1"),
    ],
)
def test_each_error_says_what_is_allowed(target, call, text):
    with pytest.raises(ValueError, match=message(text)):
        call(target)
