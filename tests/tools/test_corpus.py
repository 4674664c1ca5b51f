"""The text that language models read holds sentences, and nothing of their markup."""

import json

import pytest

from tools import corpus, page

MARKDOWN = """\
# Title {#title}

A **bold** claim, *checked* ([@vaswani2017]), with [a link](other.md#part) and `f(x)[0]`.

``` python
--8<-- "linear.py:data"
```

1.  A remark on $x_1 * x_2 * x_3$.

$$
y = x
$$

| a | b |
|---|---|

![A figure](figures/a.svg)

!!! question "Exercise 1: count"
    Count <del>令牌</del> `load()` twice.

- 数据（[@kudo1999]；[@xiao2017]）。 后面
"""


def test_only_sentences_are_left():
    text = corpus.plain(MARKDOWN.split("\n", 1)[1])
    assert text.splitlines() == [
        "A bold claim, checked, with a link and `f(x)[0]`.",
        "A remark on $x_1 * x_2 * x_3$.",
        "Exercise 1: count",
        "Count  `load()` twice.",
        "数据。后面",
    ]


def test_text_is_sorted_by_heading(tmp_path):
    path = tmp_path / "en" / "sample.md"
    path.parent.mkdir()
    path.write_text(MARKDOWN + "\n## Next {#next}\n\nMore.\n", encoding="utf-8")
    sections = corpus.sections(path)
    assert list(sections) == ["title", "next"]
    assert sections["title"].startswith("Title\nA bold claim")
    assert sections["next"] == "Next\nMore."


def test_a_half_written_text_never_replaces_the_whole_one(tmp_path, monkeypatch):
    target = tmp_path / "handbook.jsonl"
    target.write_text("old", encoding="utf-8")
    monkeypatch.setattr(corpus, "TARGET", target)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        corpus.freeze()
    assert target.read_text(encoding="utf-8") == "old"


def test_every_page_with_code_has_text_in_both_languages(tmp_path, monkeypatch):
    target = tmp_path / "handbook.jsonl"
    monkeypatch.setattr(corpus, "TARGET", target)
    count = corpus.freeze()
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    assert all(row["en"] and row["zh"] for row in rows)
    assert {row["page"] for row in rows} == {path.stem for path in page.SNIPPETS.glob("*.py")}
