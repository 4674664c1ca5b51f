"""Byte-pair tokenizer: hand-worked merges, the `tokenizers` library, invariants, files, errors."""

import json
import os
import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from aimodels import datasets
from aimodels.tokenizer import BYTE_ID, BYTES, BytePairTokenizer, learn_merges, split_words

LETTER, SPACE = r"\p{L}\p{Nl}\p{No}", r"\s\x1c-\x1f"
# The pattern of aimodels.tokenizer in the syntax of the library.
THEIRS = (
    rf"'(?:[sdmt]|ll|ve|re)| ?[{LETTER}]+| ?\p{{Nd}}+| ?[^{SPACE}\p{{L}}\p{{N}}]+"
    rf"|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]+"
)


@pytest.fixture(scope="module")
def texts():
    sections = datasets.handbook()[::3]
    return [section.en for section in sections] + [section.zh for section in sections]


@pytest.fixture(scope="module")
def learned(texts):
    return BytePairTokenizer.train(texts, 1500, special=["<|end|>", "<|end|>!", "<|user|>"])


def message(text):
    return f"^{re.escape(text)}"


def library(texts, size):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(THEIRS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


def merges_of(theirs):
    model = json.loads(theirs.to_str())["model"]
    return [tuple(model["vocab"][side] for side in pair) for pair in model["merges"]]


def count_anew(words, most):
    """Train as slowly and plainly as one can: all pairs counted anew after each merge."""
    split = {word: [BYTE_ID[byte] for byte in word.encode()] for word in words}
    tokens, merges = [bytes([byte]) for byte in BYTES], []
    while len(merges) < most:
        counts = Counter()
        for word, times in words.items():
            for pair in pairwise(split[word]):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        token = tokens[best[0]] + tokens[best[1]]
        assert token not in tokens  # no token is made twice
        tokens.append(token)
        merges.append(best)
        for symbols in split.values():
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = [tokens.index(token)]
                i += 1
    return merges


def few_letters(seed):
    rng = random.Random(seed)
    alphabet = rng.choice(["ab", "abc", "啊吧", "a b", "aé"])
    return rng, [
        "".join(rng.choices(alphabet, k=rng.randrange(1, 150))) for _ in range(rng.randrange(1, 6))
    ]


# ---- worked by hand


def test_the_most_frequent_pair_is_merged_first_and_ties_go_to_the_smaller_ids():
    # an 10 times; then c+an and p+an 5 times each; then a+k, c+a, k+e and pan+c twice each.
    merges = learn_merges({"can": 5, "pan": 3, "pancake": 2}, 4)
    tokens = [bytes([byte]) for byte in BYTES]
    for a, b in merges:
        tokens.append(tokens[a] + tokens[b])
    assert tokens[256:] == [b"an", b"can", b"pan", b"ak"]


def test_words_weigh_as_often_as_they_occur():
    assert learn_merges({"xy": 1, "ab": 2}, 1) == [(BYTE_ID[ord("a")], BYTE_ID[ord("b")])]


def test_three_equal_letters_are_merged_from_the_left():
    tokenizer = BytePairTokenizer([(BYTE_ID[97], BYTE_ID[97])])
    assert tokenizer.encode("aaa") == [256, BYTE_ID[97]]
    assert tokenizer.encode("aaaa") == [256, 256]


def test_the_merge_learned_first_comes_first_when_encoding():
    a, b, c = (BYTE_ID[ord(letter)] for letter in "abc")
    assert BytePairTokenizer([(b, c), (a, b)]).encode("abc") == [a, 256]
    assert BytePairTokenizer([(a, b), (b, c)]).encode("abc") == [256, c]


def test_the_ids_of_bytes_are_those_of_gpt2():
    # encoder.json of GPT-2 begins with "!": 0, ends its bytes with "Ġ", a space: 220.
    assert [BYTE_ID[ord(sign)] for sign in "!0Aa~ \n"] == [0, 15, 32, 64, 93, 220, 198]
    assert sorted(BYTES) == list(range(256))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the cat, 12", ["the", " cat", ",", " 12"]),
        ("it's we'll", ["it", "'s", " we", "'ll"]),
        ("a  b", ["a", " ", " b"]),
        ("a\n\n b \n", ["a", "\n\n", " b", " \n"]),
        ("注意力，机制 2a", ["注意力", "，", "机制", " 2", "a"]),
        ("snake_case", ["snake", "_", "case"]),
        ("x² ½", ["x²", " ½"]),
        ("", []),
    ],
)
def test_words_are_cut_where_the_pattern_says(text, words):
    assert split_words(text) == words


# ---- the library, and plain counting


@pytest.mark.parametrize("size", [256, 257, 700, 3000])
def test_merges_and_ids_are_those_of_the_library(texts, size):
    ours, theirs = BytePairTokenizer.train(texts, size), library(texts, size)
    assert ours.merges == merges_of(theirs)
    assert len(ours) == size
    assert [ours.encode(text) for text in texts] == [theirs.encode(text).ids for text in texts]


def test_strings_from_all_of_unicode_have_the_ids_of_the_library(texts):
    import unicodedata

    ours, theirs = BytePairTokenizer.train(texts, 2000), library(texts, 2000)
    rng = random.Random(1)
    signs = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    signs = [sign for sign in signs if unicodedata.category(sign) != "Cn"]
    common = sorted(set("".join(texts))) + list("  \n\t'\u3000")
    for _ in range(500):
        text = "".join(rng.choices(rng.choice([signs, common]), k=rng.randrange(80)))
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)


@pytest.mark.parametrize("seed", range(60))
def test_ties_and_overlaps_are_handled_as_by_the_library(seed):
    rng, some = few_letters(seed)
    size = 256 + rng.randrange(1, 150)
    ours, theirs = BytePairTokenizer.train(some, size), library(some, size)
    assert ours.merges == merges_of(theirs)
    for _ in range(20):
        text = "".join(rng.choices("ab 啊é", k=rng.randrange(60)))
        assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("seed", range(60, 75))
def test_the_updated_counts_are_those_of_counting_anew(seed):
    _, some = few_letters(seed)
    words = Counter(word for text in some for word in split_words(text))
    assert learn_merges(words, 84) == count_anew(words, 84)


# ---- invariants


def test_every_code_point_comes_back(learned):
    signs = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    for start in range(0, len(signs), 4096):
        part = signs[start : start + 4096]
        assert "".join(split_words(part)) == part
        assert learned.decode(learned.encode(part[::9])) == part[::9]


@pytest.mark.parametrize("special", [False, True])
def test_every_string_comes_back(learned, special):
    rng = random.Random(2)
    parts = [
        "the ",
        "注意力",
        " ",
        "\n",
        "😀",
        "\x00",
        "<|end|>",
        "!",
        "<|user|>",
        "é",
        "\r\n",
        "１",
    ]
    for _ in range(300):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        assert learned.decode(learned.encode(text, special=special)) == text


def test_any_ids_decode_to_text(learned):
    rng = np.random.default_rng(3)
    for _ in range(200):
        ids = rng.integers(0, len(learned), rng.integers(0, 20))
        learned.decode(ids).encode()
    assert learned.decode([BYTE_ID[0xE6]]) == "\ufffd"
    assert learned.decode([]) == ""


def test_a_training_text_is_encoded_as_training_left_it(texts):
    # Encoding repeats the merges, so a word that became one token in training is one token.
    tokenizer = BytePairTokenizer.train(["attention 注意力"], 300)
    assert len(tokenizer.encode("attention 注意力")) == len(split_words("attention 注意力")) == 2


def test_training_stops_when_nothing_is_left_to_merge():
    tokenizer = BytePairTokenizer.train(["ab"], 1000, special=["<|end|>"])
    assert len(tokenizer) == 258
    assert tokenizer.special == {"<|end|>": 257}


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_texts_without_pairs_leave_the_bytes(texts):
    assert len(BytePairTokenizer.train(texts, 300)) == 256


def test_the_order_of_texts_makes_no_difference(texts):
    assert (
        BytePairTokenizer.train(texts, 600).merges
        == BytePairTokenizer.train(texts[::-1], 600).merges
    )


def test_generators_will_do(texts):
    once = BytePairTokenizer.train((text for text in texts[:9]), 300, (name for name in ["<a>"]))
    assert once.merges == BytePairTokenizer.train(texts[:9], 300, ["<a>"]).merges
    assert once.special == {"<a>": 299}


def test_a_result_that_is_changed_does_not_change_the_next(learned):
    first = learned.encode("attention")
    first.append(0)
    assert learned.encode("attention") == first[:-1]
    assert learned.encode("") == []


def test_a_full_cache_is_emptied_and_nothing_else(learned, monkeypatch):
    monkeypatch.setattr("aimodels.tokenizer.CACHED", 3)
    fresh = BytePairTokenizer(learned.merges)
    text = "one two three four five six 一 二 三"
    assert fresh.encode(text) == BytePairTokenizer(learned.merges).encode(text)
    assert len(fresh._cache) <= 3


def test_a_word_of_a_million_letters_is_encoded(learned):
    assert learned.decode(learned.encode("a" * 10**6)) == "a" * 10**6


# ---- special tokens


def test_special_tokens_are_text_unless_allowed(learned):
    ids = learned.encode("a<|end|>b")
    assert not set(ids) & set(learned.special.values())
    assert learned.encode("a<|end|>b", special=True) == [
        *learned.encode("a"),
        learned.special["<|end|>"],
        *learned.encode("b"),
    ]


def test_the_longest_special_token_is_taken(learned):
    assert learned.encode("<|end|>!", special=True) == [learned.special["<|end|>!"]]


def test_special_tokens_have_the_last_ids(learned):
    assert len(learned) == 1500
    assert learned.special == {"<|end|>": 1497, "<|end|>!": 1498, "<|user|>": 1499}


# ---- files


def test_saved_and_loaded_it_is_the_same(learned, texts, tmp_path):
    path = tmp_path / "tokenizer.json"
    learned.save(path)
    again = BytePairTokenizer.load(path)
    assert again.tokens == learned.tokens
    assert again.special == learned.special
    assert again.encode(texts[3]) == learned.encode(texts[3])
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(learned, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("old")

    def fail(source, target):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        learned.save(path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2]",
        "{}",
        '{"merges": [[1, 2]]}',
        '{"merges": [[1, 2, 3]], "special": []}',
        '{"merges": [[1, 256]], "special": []}',
        '{"merges": [[1, 2], [1, 2]], "special": []}',
        '{"merges": [[1.0, 2]], "special": []}',
        '{"merges": [["a", "b"]], "special": []}',
        '{"merges": [1], "special": []}',
        '{"merges": [], "special": ["a", "a"]}',
        '{"merges": [], "special": "end"}',
        '{"merges": [], "special": 3}',
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(content, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=message(f"path must be a file that save wrote, got {path}")
    ):
        BytePairTokenizer.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        BytePairTokenizer.load(tmp_path / "none.json")


# ---- wrong input


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "ab\ud83d"])
def test_half_a_surrogate_pair_is_named(learned, text):
    place = next(i for i, sign in enumerate(text) if "\ud800" <= sign <= "\udfff")
    expected = f"text must not hold half a surrogate pair, got {text[place]!r} at {place}"
    for call in (learned.encode, lambda text: BytePairTokenizer.train([text], 300)):
        with pytest.raises(ValueError, match=message(expected)):
            call(text)


@pytest.mark.parametrize(("text", "name"), [(b"a", "bytes"), (None, "NoneType"), (["a"], "list")])
def test_what_is_no_string_is_named(learned, text, name):
    with pytest.raises(ValueError, match=message(f"text must be a string, got {name}")):
        learned.encode(text)
    with pytest.raises(ValueError, match=message(f"text must be a string, got {name}")):
        BytePairTokenizer.train([text], 300)


@pytest.mark.parametrize("wrong", [-1, 1500, 2.0, "a", None, [1, 2], np.float32(3)])
def test_an_id_out_of_range_is_named(learned, wrong):
    expected = f"ids must be whole numbers from 0 to 1499, got {wrong!r}"
    with pytest.raises(ValueError, match=message(expected)):
        learned.decode([5, wrong])


def test_one_string_is_no_collection_of_texts():
    with pytest.raises(
        ValueError, match=message("texts must be a collection of strings, got one string")
    ):
        BytePairTokenizer.train("the cat", 300)


@pytest.mark.parametrize("size", [255, 0, 257.0, "300", None])
def test_a_size_that_is_too_small_or_no_number_is_named(size):
    with pytest.raises(
        ValueError, match=message(f"size must be a whole number from 256, got {size!r}")
    ):
        BytePairTokenizer.train(["a"], size)
    with pytest.raises(ValueError, match=message("size must be a whole number from 258, got 257")):
        BytePairTokenizer.train(["a"], 257, special=["<a>", "<b>"])


@pytest.mark.parametrize("special", ["end", [""], ["a", "a"], [1], 3])
def test_wrong_special_tokens_are_named(special):
    expected = f"special must be different strings, none empty, got {special!r}"
    with pytest.raises(ValueError, match=message(expected)):
        BytePairTokenizer.train(["a"], 300, special=special)
    with pytest.raises(ValueError, match=message(expected)):
        BytePairTokenizer([], special=special)


@pytest.mark.parametrize(
    "merges", [[(0, 256)], [(-1, 0)], [(0, 1), (0, 1)], [(0, 1, 2)], [(0, None)]]
)
def test_merges_of_unknown_ids_are_named(merges):
    expected = f"merges must be new pairs of ids made before, got {merges[-1]}"
    with pytest.raises(ValueError, match=message(expected)):
        BytePairTokenizer(merges)
