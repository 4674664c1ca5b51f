"""The page model reads a page as the site renders it."""

import markdown
import pytest

from tools import page as pages

SOURCE = """---
title: T
description: D
---

# Title {#title}

Inline $a_b$ but `$not_this$`, \\$5 and \\$6, a [link](cnn.md#run) and [@key2020; @other2021].

$$
x = y
$$

!!! question "Exercise 1: why"
    Because.

??? success "Solution"
    ``` python
    --8<-- "claims.py:SECTION"
    ```

``` { .bash notest="shell" }
pip install x  # $not_math$
```

![What is seen](figures/x.svg "caption ± 0.1")
"""


@pytest.fixture
def page(tmp_path):
    section = pages.sections("claims")[0].name
    path = tmp_path / "en" / "claims.md"
    path.parent.mkdir()
    path.write_text(SOURCE.replace("SECTION", section), "utf-8")
    return pages.load(path)


def test_blocks_come_in_page_order_with_their_lines(page):
    assert [(b.kind, b.line) for b in page.blocks] == [
        ("heading", 6), ("formula", 10), ("admonition", 14), ("admonition", 17), ("code", 18),
        ("untested", 22), ("figure", 26),
    ]  # fmt: skip


def test_mentions_are_found_outside_of_code_and_under_their_heading(page):
    assert [(m.kind, m.key, m.under) for m in page.mentions] == [
        ("formula", "a_b", "title"), ("link", "cnn.md#run", "title"),
        ("citation", "key2020", "title"), ("citation", "other2021", "title"),
    ]  # fmt: skip


def test_a_figures_caption_and_text_are_kept(page):
    (figure,) = page.of("figure")
    assert figure.attributes == {
        "alt": "What is seen",
        "target": "figures/x.svg",
        "title": "caption ± 0.1",
    }


def test_front_matter_does_not_count_for_the_hash(page):
    before = page.hash
    page.path.write_text(page.path.read_text("utf-8").replace("title: T", "title: U"), "utf-8")
    assert pages.load(page.path).hash == before
    page.path.write_text(page.path.read_text("utf-8").replace("Because.", "Therefore."), "utf-8")
    assert pages.load(page.path).hash != before


def test_front_matter_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "en" / "x.md"
    path.parent.mkdir()
    path.write_text("---\ntitle: [\n---\n\n# X {#x}\n", "utf-8")
    assert "front matter is not YAML" in str(pages.load(path).problems[0])


@pytest.mark.parametrize("name", [path.stem for path in sorted(pages.SNIPPETS.glob("*.py"))])
def test_sections_are_what_the_site_includes(name):
    """Code that is run and code that is shown come from one file by two ways: they must agree."""
    found = pages.sections(name)
    assert found
    for section in found:
        assert pages.include(f"{name}.py:{section.name}").strip("\n") == section.code.strip("\n")
        lines = (pages.SNIPPETS / f"{name}.py").read_text("utf-8").splitlines()
        assert lines[section.offset] == section.code.split("\n")[0]


@pytest.mark.parametrize(("info", "language", "attributes"), [
    ("python", "python", {}),
    ('{ .text .output title="± 0.02" }', "text", {"title": "± 0.02"}),
    ('bash notest="a b"', "bash", {"notest": "a b"}),
])  # fmt: skip
def test_attributes_of_fences(info, language, attributes):
    found, given, _ = pages._attributes(info)
    assert (found, given) == (language, attributes)


def test_inline_formulas_are_those_that_the_site_renders():
    text = "a $x+y$ b \\$5 and $z$; price $5 and $6 $ no $."
    mine = [m["tex"] for m in pages.INLINE.finditer(text)]
    html = markdown.markdown(
        text,
        extensions=["pymdownx.arithmatex"],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )
    theirs = [part.split("\\)")[0] for part in html.split("\\(")[1:]]
    assert mine == theirs
