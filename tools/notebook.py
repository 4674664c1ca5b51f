"""Turn a page into a Jupyter notebook that runs as it is."""

from __future__ import annotations

import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import bibliography, expand, record
from tools import page as pages

WORDS = {
    "en": {
        "from": "This notebook is the page [{title}]({address}) of the AI Models Handbook.",
        "install": "# Installs the handbook's package where it is missing, on Colab for instance.",
        "needs": "It needs the handbook's package `aimodels` and its extra `pages`.",
    },
    "zh": {
        "from": "本笔记本即《AI 大模型手册》的页面[{title}]({address})。",
        "install": "# 缺少本书的软件包时（例如在 Colab 上）先安装它。",
        "needs": "运行前需要安装本书的软件包 `aimodels` 及其附加依赖 `pages`。",
    },
}
SETUP = """\
{comment}
import importlib.util

if importlib.util.find_spec("aimodels") is None:
    %pip install -q "aimodels[pages] @ git+{repository}"
"""


def export(page: pages.Page, site: str) -> str:
    """Return a page as notebook JSON.

    Args:
        page: a page with a snippet.
        site: address of the site in the page's language, with a final slash.
    """
    words = WORDS[page.language]
    intro = words["from"].format(
        title=page.meta.get("title", page.name), address=f"{site}{page.name}/"
    )
    repository = expand.repository()
    cells = [new_markdown_cell(intro if repository else f"{intro}\n\n{words['needs']}")]
    if repository:
        cells.append(new_code_cell(SETUP.format(comment=words["install"], repository=repository)))
    cells += _cells(page, site)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook = new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _cells(page: pages.Page, site: str) -> list:
    """Return a cell for each block of code and each stretch of prose between two of them."""
    try:
        _, printed = record.outputs(page.name)
    except ValueError:
        printed = {}
    fences = {block.line: block for block in page.of("code", "output", "diagram", "untested")}
    cells: list = []
    prose: list[str] = []
    skip = 0

    def close() -> None:
        text = _prose("\n".join(prose), page, site).strip()
        prose.clear()
        if text:
            cells.append(new_markdown_cell(text))

    for number, line in enumerate(page.body.splitlines(), page.first_line + 1):
        if number <= skip:
            continue
        block = fences.get(number)
        if block is None:
            prose.append(line)
            continue
        skip = block.end
        if block.kind == "code":
            close()
            section = block.attributes["section"]
            cell = new_code_cell(_code(block.text))
            if section in printed:
                cell["outputs"] = [new_output("stream", name="stdout", text=printed[section])]
            cells.append(cell)
        elif block.kind == "diagram":
            prose.append(f"*{block.attributes['alt']}*")
        elif block.kind == "untested":
            prose += ["```", block.text, "```"]
    close()
    return cells


def _code(text: str) -> str:
    """Keep the number of an annotation as a plain comment."""
    return re.sub(r"#[ \t]*\((\d+)\)!?[ \t]*$", r"# (\1)", text.strip("\n"), flags=re.MULTILINE)


def _prose(text: str, page: pages.Page, site: str) -> str:
    """Rewrite what only the site understands: ids, citations, admonitions, links, figures."""
    known = bibliography.load()

    def cite(match: re.Match) -> str:
        keys = [key.strip().lstrip("@") for key in match["keys"].split(";")]
        return "; ".join(bibliography.cite(key) if key in known else key for key in keys)

    def link(match: re.Match) -> str:
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            return match[0]
        name = target.removesuffix(".md") or page.name
        return f"[{match['text']}]({site}{'' if name == 'index' else f'{name}/'}{f'#{anchor}' if anchor else ''})"

    lines, quoted = [], False
    for line in text.split("\n"):
        if admonition := pages.ADMONITION.match(line):
            quoted = True
            lines.append(f"> **{admonition['title'] or admonition['kind'].capitalize()}**")
        elif quoted and (line.startswith("    ") or not line.strip()):
            lines.append(f"> {line[4:]}".rstrip())
        else:
            quoted = False
            heading = pages.HEADING.match(line)
            lines.append(f"{heading['marks']} {heading['text']}" if heading else line)
    text = pages.IMAGE.sub("", "\n".join(lines))
    return pages.LINK.sub(link, pages.CITATION.sub(cite, text))
