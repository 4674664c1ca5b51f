"""Formulas, diagrams, figures and terms as Markdown extensions, without a generator."""

from __future__ import annotations

import logging
from pathlib import Path

import markdown
import pytest

from tools import markdown as handbook
from tools import site

EXTENSIONS = ["attr_list", "pymdownx.arithmatex", "pymdownx.superfences", "tools.markdown"]
SVG = '<?xml version="1.0"?><svg width="9pt" viewBox="0 0 90 30"><style>*{fill:red}</style><g id="a"/><use href="#a"/></svg>'


@pytest.fixture(scope="module", autouse=True)
def _node():
    site.install()


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Return a function that converts the text of a page `page.md` in its own folder."""

    def convert(text: str, language: str = "en", name: str = "page.md") -> str:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        monkeypatch.setattr(handbook.Source, "path", path)
        fences = [{"name": "dot", "class": "diagram", "format": handbook.diagram}]
        options = {
            "pymdownx.arithmatex": {"generic": True},
            "pymdownx.superfences": {"custom_fences": fences},
            "tools.markdown": {"language": language},
        }
        return markdown.markdown(text, extensions=EXTENSIONS, extension_configs=options)

    return convert


def test_a_formula_becomes_html_and_mathml(convert):
    html = convert("So $x_1 < y$ holds.\n\n$$\n\\sum_{i=1}^{N} x_i\n$$\n")
    assert html.count('class="katex-mathml"') == html.count('class="katex-html"') == 2
    assert html.count('class="katex-display"') == 1
    assert "x_1 &lt; y</annotation>" in html


def test_punctuation_stands_in_room_that_the_formula_before_it_keeps(convert):
    html = convert("设 $x$ 为数，$y$，$z$。\n", "zh")
    assert html.count('style="margin-right: 1.05em"') == 2
    assert '<span style="margin-left: -1.05em">，</span><var' in html
    assert '<span style="margin-left: -1.05em">。</span></p>' in html
    assert "margin-right: 0.80em" in convert("A list (of $x$), in words.\n")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# T\n\nA bad $\\frac{1}{$ one.", 3, "in formula '\\\\frac{1}{'"),
        ("# T\n\n$$\n\\nonsense x\n$$", 4, "Undefined control sequence: \\nonsense"),
        (
            '# T\n\n``` { .dot alt="A" }\ndigraph { a -> }\n```',
            4,
            "syntax error in line 1 near '}'",
        ),
        ("# T\n\n``` { .dot }\ndigraph { a }\n```", 4, 'a diagram needs alt="what it shows"'),
        (
            "# T\n\n![Seen](figures/none.svg)",
            3,
            "figure figures/none.svg: there is no such file; record it",
        ),
    ],
)
def test_a_fault_is_an_error_with_file_and_line(convert, caplog, text, line, message):
    html = convert(text)
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert f"page.md:{line}: " in record.getMessage()
    assert message in record.getMessage()
    assert 'class="broken"' in html or "needs alt" in message


def test_a_diagram_is_inline_in_the_page_s_colour_with_its_text(convert):
    html = convert('``` { .dot alt="a leads to b" }\ndigraph { a -> b }\n```')
    assert 'role="img" aria-label="a leads to b"' in html
    assert "currentColor" in html
    assert "black" not in html
    assert "<title>" not in html
    assert "font-family" not in html


def test_nodes_make_room_for_chinese_whether_quoted_or_not(convert):
    for label in ("查询向量与键向量集合", '"查询向量与键向量集合"'):
        html = convert(f'``` {{ .dot alt="图" }}\ndigraph {{ {label} }}\n```', "zh")
        width = float(html.split('viewBox="')[1].split()[2])
        assert width > 10 * 14
        assert ">查询向量与键向量集合<" in html


def test_a_figure_is_inline_with_its_own_ids_and_without_its_own_style(convert, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.svg").write_text(SVG, "utf-8")
    html = convert("![A red box](figures/one.svg)")
    assert html.startswith('<figure class="figure"')
    assert 'aria-label="A red box"' in html
    assert 'id="one-a"' in html
    assert 'href="#one-a"' in html
    assert "<style" not in html
    assert "<?xml" not in html
    assert "figcaption" not in html
    assert "<figcaption>Caption</figcaption>" in convert('![A](figures/one.svg "Caption")')


@pytest.fixture
def glossary(tmp_path: Path) -> None:
    """Put a glossary page beside the page, to which terms are linked."""
    (tmp_path / "glossary.md").write_text("# Glossary", "utf-8")


@pytest.mark.usefixtures("glossary")
def test_a_term_is_linked_once_where_it_first_stands_in_prose(convert):
    html = convert(
        "# Gradient\n\nThe `gradient`, [gradient](x.md): gradients point up. A gradient."
    )
    assert html.count('class="term"') == 1
    assert '<a class="term" href="glossary.md#gradient" title="' in html
    assert ">gradients</a> point up" in html
    assert "<h1>Gradient</h1>" in html


@pytest.mark.usefixtures("glossary")
def test_the_longest_chinese_term_wins_without_spaces(convert):
    html = convert("这里用卷积神经网络处理图像。", "zh")
    assert ">卷积神经网络</a>处理" in html
    assert html.count('class="term"') == 1


@pytest.mark.usefixtures("glossary")
def test_words_of_every_day_are_not_terms(convert):
    assert "term" not in convert("The key value is in your head.")
    assert "term" not in convert("平均值在头上。", "zh")


def test_every_fault_of_the_scripts_is_told_apart(convert, caplog):
    convert("Two: $\\a$ and $\\b{$.")
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2
