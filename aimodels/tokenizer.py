"""Byte-pair tokenizer: text to token ids and back, without loss, by merges of bytes.

A token is a string of bytes. Its id: 0 to 255 for the bytes in the order of GPT-2, then one for
each merge, then the special tokens.
"""

import heapq
import itertools
import json
import operator
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

# The printable bytes of Latin-1 come first, as in GPT-2, so that ids and ties are the same.
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES += sorted(set(range(256)) - set(BYTES))
BYTE_ID = {byte: number for number, byte in enumerate(BYTES)}
# A contraction; letters, digits or other signs, each with at most one space before; white space.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"
CACHED = 2**16


def split_words(text):
    """Return the pieces that merges never cross, here called words; joined, they are `text`.

    Source: Radford et al. 2019, program `encoder.py`, <https://github.com/openai/gpt-2>.
    Differs: Python's `re` knows no Unicode categories. Numbers that are no decimal digits (² ½ Ⅷ)
    count as letters here, and four control characters (U+001C to U+001F) as white space.
    """
    return re.findall(PATTERN, text)


def learn_merges(words, most):
    """Return the pairs of ids to merge, in this order: the most frequent first.

    Of equally frequent pairs the one with the smaller ids is merged. The k-th merge, from 0, makes
    the token 256 + k. Counts are updated where a merge happens, so time goes with the text's length.

    Args:
        words: a dict from each word to how often it occurs.
        most: the largest number of merges; there are fewer if all words become single tokens.

    Source: Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>, on bytes instead of characters.
    """
    symbols: list[int] = []  # one per byte of each word; -1 once merged away
    weight: list[int] = []
    left: list[int] = []  # the neighbours of a symbol, -1 at the end of its word
    right: list[int] = []
    count: Counter[tuple[int, int]] = Counter()
    where: dict[tuple[int, int], list[int]] = defaultdict(list)
    for word, times in words.items():
        start, end = len(symbols), len(symbols) + len(word.encode())
        symbols += [BYTE_ID[byte] for byte in word.encode()]
        weight += [times] * (end - start)
        left += [-1, *range(start, end - 1)]
        right += [*range(start + 1, end), -1]
        for i in range(start, end - 1):
            count[symbols[i], symbols[i + 1]] += times
            where[symbols[i], symbols[i + 1]].append(i)
    queue = [(-times, pair) for pair, times in count.items()]
    heapq.heapify(queue)
    merges: list[tuple[int, int]] = []
    while queue and len(merges) < most:
        times, pair = heapq.heappop(queue)
        if -times != count[pair]:  # counts fall after they were queued
            if count[pair] > 0:
                heapq.heappush(queue, (-count[pair], pair))
            continue
        a, b = pair
        new = 256 + len(merges)
        merges.append(pair)
        grown = set()
        for i in sorted(where.pop(pair)):
            j = right[i]
            if j < 0 or (symbols[i], symbols[j]) != pair:  # merged since, as the middle of aaa
                continue
            h, k, times = left[i], right[j], weight[i]
            if h >= 0:
                count[symbols[h], a] -= times
                count[symbols[h], new] += times
                where[symbols[h], new].append(h)
                grown.add((symbols[h], new))
            if k >= 0:
                count[b, symbols[k]] -= times
                count[new, symbols[k]] += times
                where[new, symbols[k]].append(i)
                grown.add((new, symbols[k]))
                left[k] = i
            symbols[i], symbols[j], right[i] = new, -1, k
        for pair in grown:
            if count[pair]:  # some were made and merged away in this very pass
                heapq.heappush(queue, (-count[pair], pair))
    return merges


class BytePairTokenizer:
    """Text to token ids and back.

    Attributes:
        tokens: the bytes of each id.
        merges: the pairs of ids that are merged, the first learned first.
        special: a dict from the name of each special token to its id.
    """

    def __init__(self, merges, special=()):
        """Take pairs as `learn_merges` returns them, and names such as `<|end|>`."""
        self.tokens = [bytes([byte]) for byte in BYTES]
        self._rank: dict[tuple[int, int], int] = {}
        self._cache: dict[str, list[int]] = {}
        for rank, pair in enumerate(map(tuple, merges)):
            known = len(pair) == 2 and all(i in range(len(self.tokens)) for i in pair)
            if not known or pair in self._rank:
                raise ValueError(f"merges must be new pairs of ids made before, got {pair}")
            self.tokens.append(self.tokens[pair[0]] + self.tokens[pair[1]])
            self._rank[pair] = rank
        self.merges = list(self._rank)
        names = _different(special)
        self.special = {name: len(self.tokens) + i for i, name in enumerate(names)}
        self.tokens += [name.encode() for name in names]

    @classmethod
    def train(cls, texts, size, special=()):
        """Return a tokenizer whose merges are learned from texts.

        Args:
            texts: strings; no token reaches from one into the next.
            size: how many tokens to have: 256 bytes, merges, special tokens. There are fewer if
                all words of the texts have become single tokens.
            special: different names of special tokens.
        """
        special = _different(special)
        least = 256 + len(special)
        if not hasattr(size, "__index__") or size < least:
            raise ValueError(f"size must be a whole number from {least}, got {size!r}")
        if isinstance(texts, str):
            raise ValueError("texts must be a collection of strings, got one string")
        words: Counter[str] = Counter()
        for text in texts:
            words.update(split_words(_checked(text)))
        return cls(learn_merges(words, size - least), special)

    def __len__(self):
        """Return how many ids there are."""
        return len(self.tokens)

    def encode(self, text, special=False):
        """Return the list of ids of a text; `decode` gives exactly this text back.

        Args:
            text: any string that UTF-8 can write.
            special: True turns the names of special tokens into their ids. Leave it False for text
                that somebody else wrote, who could otherwise end the text or start another.
        """
        parts = [_checked(text)]
        if special and self.special:
            names = sorted(self.special, key=len, reverse=True)
            parts = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
        ids = []
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self.special[part])
            else:
                for word in split_words(part):
                    ids += self._encode_word(word)
        return ids

    def decode(self, ids):
        """Return the text of ids; bytes that are no whole character become U+FFFD."""
        chosen = []
        for i in ids:
            try:
                number = operator.index(i)
            except TypeError:
                number = -1
            if not 0 <= number < len(self):
                raise ValueError(f"ids must be whole numbers from 0 to {len(self) - 1}, got {i!r}")
            chosen.append(self.tokens[number])
        return b"".join(chosen).decode("utf-8", errors="replace")

    def save(self, path):
        """Write the tokenizer as JSON; a file of that name is replaced as a whole or not at all."""
        draft = Path(f"{path}.part")
        content = {"merges": self.merges, "special": list(self.special)}
        draft.write_text(json.dumps(content), encoding="utf-8")
        os.replace(draft, path)

    @classmethod
    def load(cls, path):
        """Return the tokenizer that `save` wrote."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(content["merges"], content["special"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"path must be a file that save wrote, got {path}: {error}") from error

    def _encode_word(self, word):
        """Return the ids of one word: the merge learned first comes first, and leftmost first."""
        if word in self._cache:
            return self._cache[word]
        ids = [BYTE_ID[byte] for byte in word.encode()]
        left, right = [*range(-1, len(ids) - 1)], [*range(1, len(ids)), -1]
        pairs = enumerate(itertools.pairwise(ids))
        queue = [(self._rank[pair], i, pair) for i, pair in pairs if pair in self._rank]
        heapq.heapify(queue)
        while queue:
            rank, i, pair = heapq.heappop(queue)
            j = right[i]
            if j < 0 or (ids[i], ids[j]) != pair:  # one of the two was merged since
                continue
            ids[i], ids[j], right[i] = 256 + rank, -1, right[j]
            if right[i] >= 0:
                left[right[i]] = i
            for first, second in ((left[i], i), (i, right[i])):
                pair = ids[first], ids[second]
                if min(first, second) >= 0 and pair in self._rank:
                    heapq.heappush(queue, (self._rank[pair], first, pair))
        if len(self._cache) >= CACHED:
            self._cache.clear()
        self._cache[word] = [i for i in ids if i >= 0]
        return self._cache[word]


def _checked(text):
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {type(text).__name__}")
    lone = re.search("[\ud800-\udfff]", text)
    if lone:
        raise ValueError(
            f"text must not hold half a surrogate pair, got {lone[0]!r} at {lone.start()}"
        )
    return text


def _different(special):
    names = [""] if isinstance(special, (str, int, float, type(None))) else list(special)
    text = all(isinstance(name, str) and name for name in names)
    if not text or len(set(names)) < len(names):
        raise ValueError(f"special must be different strings, none empty, got {special!r}")
    return [_checked(name) for name in names]
