"""What the site adds to a page: citations, references, glossary, stamp, the note that it needs review."""

import json

import pytest

from tools import expand
from tools import page as pages


def _render(name, language):
    return expand.render(pages.DOCS / language / f"{name}.md")


@pytest.mark.parametrize("language", pages.LANGUAGES)
def test_citations_become_links_and_a_list_of_references(language):
    text = _render("attention", language)
    assert "[Vaswani et al. 2017](bibliography.md#vaswani2017)" in text
    assert "[@" not in text
    heading = {"en": "## References {#references}", "zh": "## 参考文献 {#references}"}[language]
    assert "Attention Is All You Need" in text.partition(heading)[2]


def test_placeholders_are_filled_in():
    assert "{ #vaswani2017 }" in _render("bibliography", "en")
    assert "循环神经网络" in _render("glossary", "zh")


def test_a_stamp_says_only_what_a_run_has_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert "not preceded by a run" in _render("linear", "en")
    folder = tmp_path / "build" / "verified"
    folder.mkdir(parents=True)
    stamp = {
        "device": "cpu",
        "versions": {"python": "3.11.7", "numpy": "2.4", "keras": "3.15", "tensorflow": "2.21"},
        "seconds": 4.25,
        "memory": 300 * 2**20,
        "date": "2026-01-02",
        "commit": "0123456789ab",
    }
    (folder / "linear.json").write_text(json.dumps(stamp), "utf-8")
    text = _render("linear", "en")
    for part in ("2026-01-02", "0123456789ab", "CPU", "TensorFlow 2.21", "4.2 s", "300 MiB"):
        assert part in text
    assert "核验" in _render("linear", "zh")


def test_a_page_whose_counterpart_changed_says_so(tmp_path, monkeypatch):
    for language in pages.LANGUAGES:
        source = (pages.DOCS / language / "linear.md").read_text("utf-8")
        target = tmp_path / language / "linear.md"
        target.parent.mkdir()
        target.write_text(source, "utf-8")
    assert "to-review" not in expand.render(tmp_path / "zh" / "linear.md")
    english = tmp_path / "en" / "linear.md"
    english.write_text(english.read_text("utf-8") + "\nOne more sentence.\n", "utf-8")
    assert '<p class="to-review">' in expand.render(tmp_path / "zh" / "linear.md")
    assert "to-review" not in expand.render(english)


def test_edit_and_colab_links_follow_one_setting(monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "")
    assert "colab" not in _render("linear", "en")
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/someone/handbook")
    expected = (
        "https://colab.research.google.com/github/someone/handbook/blob/notebooks/zh/linear.ipynb"
    )
    assert expected in _render("linear", "zh")
