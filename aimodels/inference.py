"""Efficient inference: what a token costs, batches of requests, and speculative decoding.

Axes: B batch, T steps of a text, M the most steps of a model, V vocabulary, G drafted tokens,
S steps of a schedule.
"""

import numpy as np

from aimodels.bert import check_size
from aimodels.gpt import parameter_count, probabilities


def work(sizes, batch, new, total, each=4):
    """Return the operations and the bytes of one pass of a `GPT` over `new` steps of each text.

    Args:
        sizes: as `GPT.sizes`, of which vocabulary, width, depth and hidden count.
        batch: B.
        new: how many steps of each text are computed.
        total: how many steps each text has then, the new ones included.
        each: bytes of a number; 4 for float32.

    Returns:
        Multiplications and additions of the matrix products, where a query is compared with all
        `total` keys; and the bytes that must be read: every parameter once but those of the
        positions, and the keys and values of every text.

    Raises:
        ValueError: a number that is not whole or below 1; new above total.
    """
    for name, number in {"batch": batch, "new": new, "total": total, "each": each}.items():
        check_size(name, number)
    if new > total:
        raise ValueError(f"new must be at most total, {total}; received {new}")
    vocabulary, width, depth, hidden = (
        sizes[name] for name in ("vocabulary", "width", "depth", "hidden")
    )
    block = 4 * width**2 + 2 * width * hidden + 2 * total * width
    operations = 2 * batch * new * (depth * block + vocabulary * width)
    weights = parameter_count(vocabulary, 0, width, depth, hidden)
    return operations, each * (weights + 2 * batch * depth * total * width)


def cache_bytes(depth, heads, head_width, steps, *, batch=1, each=4):
    """Return the bytes of a KV cache: a key and a value for each block, head and step.

    Args:
        depth: how many blocks.
        heads: how many heads have keys and values of their own; with grouped queries fewer than
            there are queries.
        head_width: F.
        steps: how many steps there is room for.
        batch: B.
        each: bytes of a number.

    Raises:
        ValueError: a number that is not whole or below 1.

    Source: Pope et al. 2022, <https://arxiv.org/abs/2211.05102>; Ainslie et al. 2023,
    section 2.2, <https://arxiv.org/abs/2305.13245> (groups).
    """
    given = {"depth": depth, "heads": heads, "head_width": head_width}
    given |= {"steps": steps, "batch": batch, "each": each}
    for name, number in given.items():
        check_size(name, number)
    return 2 * depth * heads * head_width * steps * batch * each


def bucket(length, sizes):
    """Return the smallest of `sizes` that holds `length` steps.

    Raises:
        ValueError: none does; a length that is not whole or below 1.
    """
    check_size("length", length)
    fits = [size for size in sizes if size >= length]
    if not fits:
        raise ValueError(f"length must be at most {max(sizes, default=0)}; received {length}")
    return min(fits)


def schedule(lengths, slots, continuous=True):
    """Serve requests, first come, first served; each step gives each running request one token.

    Args:
        lengths: how many tokens each request asks for, at least 1.
        slots: how many requests run at once.
        continuous: whether a request that ends makes room at once; if not, all slots are filled
            when all are empty.

    Returns:
        `[S, slots]` integers: the request that each slot serves at each step, -1 for none.

    Raises:
        ValueError: slots or a length that is not whole or below 1.

    Source: Yu et al. 2022, "iteration-level scheduling".
    """
    check_size("slots", slots)
    for length in lengths:
        check_size("lengths", length)
    left, waiting = list(lengths), list(range(len(lengths)))
    running, steps = [-1] * slots, []
    while waiting or max(running) >= 0:
        if continuous or max(running) < 0:
            for slot, request in enumerate(running):
                if request < 0 and waiting:
                    running[slot] = waiting.pop(0)
        steps.append(list(running))
        for slot, request in enumerate(running):
            if request >= 0:
                left[request] -= 1
                running[slot] = request if left[request] else -1
    return np.array(steps, dtype=int).reshape(-1, slots)


def generate_together(model, prompts, count):
    """Continue texts of different lengths in one batch, greedily, without padding on the left.

    All rows go through the same positions. Where a row still has a token of its own prompt, that
    token is taken and not the predicted one.

    Args:
        model: a `GPT`.
        prompts: B lists of token ids, none empty.
        count: how many tokens to add to each; the longest prompt plus count is at most M.

    Returns:
        B arrays, each as `generate` returns it for this prompt alone.

    Raises:
        ValueError: no prompt, an id or a length out of range.

    Source: the rule of <https://github.com/meta-llama/llama>, `generation.py`.
    """
    vocabulary, steps = model.sizes["vocabulary"], model.sizes["steps"]
    prompts = [check_ids("prompts", prompt, vocabulary, 1, steps) for prompt in prompts]
    if not prompts:
        raise ValueError("prompts must hold at least one; received none")
    lengths = np.array([len(prompt) for prompt in prompts])
    check_count("count", count, 0, steps - lengths.max())
    text = np.zeros((len(prompts), steps), "int32")
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = prompt
    cache = model.empty_cache(len(prompts))
    for place in range(lengths.min(), lengths.max() + count):
        first = 0 if place == lengths.min() else place - 1
        read = text if first == 0 else text[:, first:place]
        logits, cache = model.step(read, cache, np.array(first))
        guess = np.asarray(logits)[:, place - 1 - first].argmax(-1)
        text[:, place] = np.where(place < lengths, text[:, place], guess)
    return [row[: length + count] for row, length in zip(text, lengths, strict=True)]


class Reader:
    """A `GPT` that scores one text, which may grow or be cut back between calls.

    The cache needs no repair when a text is cut back: what stands after the text is hidden by the
    causal mask and is written over later.

    Args:
        model: a `GPT`.
        span: how many steps a pass computes; the first pass computes all M.

    Call:
        text: T integers, T from 1 to M.
        count: how many rows of scores are wanted, 1 to T.

    Returns:
        `[count, V]` logits: those after each of the last `count` tokens. The attribute `calls`
        counts the passes.

    Raises:
        ValueError: span, text or count out of range.
    """

    def __init__(self, model, span=1):
        """Keep the arguments."""
        check_count("span", span, 1, model.sizes["steps"])
        self.model, self.span, self.calls = model, span, 0
        self.held, self.cache = np.zeros(0, int), None

    def __call__(self, text, count=1):
        """Read what is new."""
        steps = self.model.sizes["steps"]
        text = check_ids("text", text, self.model.sizes["vocabulary"], 1, steps)
        length = len(text)
        check_count("count", count, 1, length)
        padded = np.zeros((1, steps), "int32")
        padded[0, :length] = text
        shared = min(len(self.held), length)
        equal = self.held[:shared] == padded[0, :shared]
        place = min(shared if equal.all() else equal.argmin(), length - count)
        span = self.span
        if self.cache is None:
            self.cache, span = self.model.empty_cache(1), steps
        rows = []
        while place < length:
            first = min(place, steps - span)  # at the end, older steps are read again
            logits, self.cache = self.model.step(
                padded[:, first : first + span], self.cache, np.array(first)
            )
            rows.append(np.asarray(logits)[0, place - first : length - first])
            place, self.calls = first + span, self.calls + 1
        self.held = padded[0, :length]
        return np.concatenate(rows)[-count:]


class ModelDraft:
    """Drafts by a smaller `GPT` with the same vocabulary.

    Call:
        text: T integers.
        count: how many tokens are wanted.
        rng: a `numpy.random.Generator`.
        **choice: `temperature`, `top_k`, `top_p` of `probabilities`.

    Returns:
        G tokens, at most `count`, fewer where the steps of the model end; and `[G, V]`, the
        distribution that each was drawn from.
    """

    def __init__(self, model):
        """Keep the model; `reader.calls` counts its passes."""
        self.model, self.reader = model, Reader(model)

    def __call__(self, text, count, rng, **choice):
        """Draw token by token."""
        tokens: list[int] = []
        rows = np.zeros((0, self.model.sizes["vocabulary"]))
        for _ in range(min(count, self.model.sizes["steps"] - len(text) + 1)):
            p = probabilities(self.reader([*text, *tokens]), **choice)
            tokens.append(int(rng.choice(p.shape[1], p=p[0])))
            rows = np.concatenate([rows, p])
        return tokens, rows


class LookupDraft:
    """Drafts without a model: find the last tokens earlier in the text, propose what followed.

    Args:
        vocabulary: V.
        longest: how many tokens must agree at best; if they are not found, fewer, down to 1.

    Call and returns as `ModelDraft`; the distribution is 1 at the token.

    Source: Yang et al. 2023, <https://arxiv.org/abs/2304.04487>, copy from a reference;
    here the text itself is the reference.
    """

    def __init__(self, vocabulary, longest=3):
        """Keep the arguments."""
        check_size("vocabulary", vocabulary)
        check_size("longest", longest)
        self.vocabulary, self.longest = vocabulary, longest

    def __call__(self, text, count, rng=None, **choice):
        """Search from the longest run of tokens to the shortest, from the end to the start."""
        text = np.asarray(text)
        tokens = text[:0]
        for size in range(min(self.longest, len(text) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], size)
            found = np.flatnonzero((windows == text[-size:]).all(-1))
            if len(found):
                after = found + size
                full = after[after + count <= len(text)]  # the latest that is followed by enough
                tokens = text[full[-1] if len(full) else after[0] :][:count]
                break
        certain = np.zeros((len(tokens), self.vocabulary))
        certain[np.arange(len(tokens)), tokens] = 1
        return tokens.tolist(), certain


def accept(target, draft, drafted, rng):
    """Keep drafted tokens so that what is kept is distributed as the target alone would write.

    Token x, drawn from the draft's q, is kept with probability min(1, p(x) / q(x)). At the first
    one that is not, a token is drawn in its place from what p has in excess of q, and the rest is
    dropped. If all are kept, one more is drawn from the target.

    Args:
        target: `[G + 1, V]`, the target's distributions at the drafted places and after them.
        draft: `[G, V]`, the distributions from which the tokens were drawn.
        drafted: G integers.
        rng: a `numpy.random.Generator`.

    Returns:
        List of 1 to G + 1 tokens. All but the last are drafted ones.

    Raises:
        ValueError: shapes that do not fit; rows that are no distributions; a token that its draft
            cannot have drawn.

    Source: Leviathan et al. 2023, algorithm 1, <https://arxiv.org/abs/2211.17192>; Chen et al.
    2023, algorithm 2, <https://arxiv.org/abs/2302.01318>.
    """
    target, draft = np.asarray(target, float), np.asarray(draft, float)
    if target.ndim != 2 or draft.shape != (len(target) - 1, target.shape[1]):
        raise ValueError(
            f"target and draft must be [G + 1, V] and [G, V];"
            f" received {target.shape} and {draft.shape}"
        )
    for name, rows in {"target": target, "draft": draft}.items():
        wrong = ~((rows >= 0).all(-1) & np.isclose(rows.sum(-1), 1))
        if wrong.any():
            raise ValueError(
                f"{name} must hold rows of probabilities that sum to 1; received {rows[wrong][0]}"
            )
    drafted = check_ids("drafted", drafted, target.shape[1], len(draft), len(draft))
    never = draft[np.arange(len(draft)), drafted] == 0
    if never.any():
        raise ValueError(
            "drafted must hold tokens that the draft gives a probability above 0;"
            f" received {drafted[never][0]}"
        )
    kept = []
    for token, p, q in zip(drafted.tolist(), target, draft, strict=False):
        if rng.random() * q[token] < p[token]:
            kept.append(token)
            continue
        excess = np.maximum(p - q, 0)
        excess = excess if excess.any() else p  # p and q differ by rounding alone
        return [*kept, int(rng.choice(len(p), p=excess / excess.sum()))]
    return [*kept, int(rng.choice(target.shape[1], p=target[-1] / target[-1].sum()))]


def speculate(model, draft, ids, count, gamma, *, rng=None, end=None, **choice):
    """Continue one text: a draft proposes tokens, the model checks them all in one pass.

    Args:
        model: a `GPT`, the target.
        draft: called as `ModelDraft`.
        ids: `[T]` integers.
        count: how many tokens to add, 0 to M - T.
        gamma: how many tokens the draft proposes in a round, 0 to M - 1; with 0 the model writes
            alone.
        rng: a `numpy.random.Generator`; if None, the most probable token is taken.
        end: the token after which nothing more is written, if any.
        **choice: `temperature`, `top_k`, `top_p` of `probabilities`, for both.

    Returns:
        The text, at most T + count integers; and `[R, 2]`, the tokens proposed and those kept in
        each of R rounds, each of which is one pass of the model.

    Raises:
        ValueError: ids, count, gamma or end out of range; a choice without rng; a draft of more
            tokens than asked for; and what `accept` raises.

    Source: as `accept`.
    """
    steps, vocabulary = model.sizes["steps"], model.sizes["vocabulary"]
    text = check_ids("ids", ids, vocabulary, 1, steps).tolist()
    check_count("count", count, 0, steps - len(text))
    check_count("gamma", gamma, 0, steps - 1)
    if end is not None:
        check_count("end", end, 0, vocabulary - 1)
    if rng is None:
        if choice:
            raise ValueError(f"rng must be given to draw with {', '.join(choice)}; received None")
        rng, choice = np.random.default_rng(0), {"temperature": 0}
    reader, last, rounds = Reader(model, gamma + 1), len(text) + count, []
    while len(text) < last:
        room = min(gamma, last - len(text) - 1)
        guess, q = draft(text, room, rng, **choice)
        if len(guess) > room:
            raise ValueError(f"draft must propose at most {room} tokens; received {len(guess)}")
        p = probabilities(reader([*text, *guess], len(guess) + 1), **choice)
        new = accept(p, q, guess, rng)
        rounds.append((len(guess), len(new) - 1))
        text += new[: new.index(end) + 1] if end in new else new
        if end in new:
            break
    return np.array(text), np.array(rounds, int).reshape(-1, 2)


def expected_tokens(alpha, gamma):
    """Return 1 + α + … + α^γ, the mean number of tokens of a round.

    Args:
        alpha: probability that a drafted token is kept, each independent of the others.
        gamma: how many are drafted.

    Raises:
        ValueError: alpha out of 0 to 1; gamma below 0.

    Source: Leviathan et al. 2023, equation 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be 0 to 1; received {alpha!r}")
    if not isinstance(gamma, int) or gamma < 0:
        raise ValueError(f"gamma must be an integer of at least 0; received {gamma!r}")
    return float((float(alpha) ** np.arange(gamma + 1)).sum())


def check_ids(name, ids, vocabulary, least, most):
    """Return ids as an array `[T]` of integers in range, or raise ValueError."""
    array = np.asarray(ids)
    array = array.astype(int) if array.shape == (0,) else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not least <= len(array) <= most:
        raise ValueError(
            f"{name} must be {least} to {most} integers in a row; received {array.dtype}"
            f" {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() >= vocabulary):
        raise ValueError(
            f"{name} must be 0 to {vocabulary - 1}; received {array.min()} to {array.max()}"
        )
    return array


def check_count(name, count, least, most):
    """Raise ValueError unless `count` is whole and in its bounds."""
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or not least <= count <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}; received {count!r}")
