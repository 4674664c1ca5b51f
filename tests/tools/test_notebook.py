"""Notebooks: one runs as it is, and all are valid and hold the page's code."""

import nbformat
import pytest
from nbclient import NotebookClient

from tools import compare, notebook, record
from tools import page as pages

NAMES = [path.stem for path in sorted(pages.SNIPPETS.glob("*.py"))]
SITE = "https://example.org/en/"


def _export(name, language="en"):
    page = pages.load(pages.DOCS / language / f"{name}.md")
    return nbformat.reads(notebook.export(page, SITE), as_version=4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", pages.LANGUAGES)
def test_a_notebook_holds_the_snippet_and_nothing_that_only_the_site_reads(name, language):
    exported = _export(name, language)
    nbformat.validate(exported)
    code = [cell.source for cell in exported.cells if cell.cell_type == "code"]
    for cell, section in zip(code, pages.sections(name), strict=True):
        compile(cell, name, "exec")
        assert cell.count("\n") == section.code.strip("\n").count("\n")
    prose = "\n".join(cell.source for cell in exported.cells if cell.cell_type == "markdown")
    for mark in ("--8<--", "{#", "!!!", "???", "[@", ".md)", "<!--"):
        assert mark not in prose


def test_links_lead_to_the_site(monkeypatch):
    text = notebook._prose(
        "see [padding](cnn.md#padding)", pages.load(pages.DOCS / "en" / "linear.md"), SITE
    )
    assert text == "see [padding](https://example.org/en/cnn/#padding)"


def test_the_repository_is_installed_from_where_one_is_set(monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/someone/handbook/")
    assert 'git+https://github.com/someone/handbook"' in _export("linear").cells[1].source
    monkeypatch.setenv("REPOSITORY_URL", "")
    assert not any("%pip" in cell.source for cell in _export("linear").cells)


def test_a_notebook_runs_as_it_is_and_prints_what_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pages.ROOT))
    exported = _export("linear")
    expected = {
        cell.source: "".join(output.text for output in cell.outputs)
        for cell in exported.cells
        if cell.cell_type == "code" and cell.outputs
    }
    assert expected
    NotebookClient(
        exported,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    titles = {
        record.outputs("linear")[1][b.attributes["section"]]: b.attributes.get("title", "")
        for b in pages.load(pages.DOCS / "en" / "linear.md").of("output")
    }
    for cell in exported.cells:
        if cell.get("source") in expected:
            printed = "".join(
                o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"
            )
            before = expected[cell.source]
            assert compare.texts(before, printed, titles[before]) == ""
