"""Turn a page's source into the Markdown that a generator renders.

Citations become links, the list of references, the glossary and the bibliography are filled in, and the
foot says when the page was last verified. Text in, text out: no generator is needed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tools import bibliography, glossary
from tools import page as pages

BRANCH = "notebooks"  # where the publishing workflow puts them for Colab
WORDS = {
    "en": {
        "references": "References",
        "notebook": "Download this page as a notebook",
        "colab": "Open in Colab",
        "review": "The Chinese version has changed since the two were last compared; this page is to be reviewed.",
        "verified": "Verified",
        "code": "Every block, output and figure on this page was run and compared on {date}, commit {commit}: "
        "{device}, Python {python}, TensorFlow {tensorflow}, Keras {keras}, NumPy {numpy}; "
        "{seconds:.1f} s, {memory:.0f} MiB at the peak.",
        "recorded": "This build was not preceded by a run of this page. Its outputs were recorded with {versions} on the {device}.",
    },
    "zh": {
        "references": "参考文献",
        "notebook": "下载本页的 Jupyter 笔记本",
        "colab": "在 Colab 中打开",
        "review": "英文版在上次对照之后有改动，本页有待复核。",
        "verified": "运行核验",
        "code": "本页全部代码、输出与图于 {date} 运行并比对通过，提交 {commit}：{device}，Python {python}，"
        "TensorFlow {tensorflow}，Keras {keras}，NumPy {numpy}；用时 {seconds:.1f} 秒，内存峰值 {memory:.0f} MiB。",
        "recorded": "本次构建之前没有运行本页。页中的输出录自 {versions}，设备为 {device}。",
    },
}


def repository() -> str:
    """Return the repository's address, the one setting that notebooks and edit links follow."""
    return os.environ.get("REPOSITORY_URL", "").rstrip("/")


def render(path: Path) -> str:
    """Return the Markdown of a page, everything filled in."""
    page = pages.load(path)
    words = WORDS[page.language]

    def cite(text: str) -> str:
        return pages.CITATION.sub(lambda match: _citation(match, page), text)

    text = pages.outside_code(page.body, cite)
    text = pages.PLACEHOLDER.sub(
        lambda match: {"glossary": glossary, "bibliography": bibliography}[match[1]].table(
            page.language
        ),
        text,
    )
    if (pages.SNIPPETS / f"{page.name}.py").exists():
        text = _after_title(text, _notebook_links(page, words))
    if _stale(page):
        text = _after_title(text, f'<p class="to-review">{words["review"]}</p>')
    cited = list(dict.fromkeys(m.key for m in page.mentions if m.kind == "citation"))
    known = bibliography.load()
    if cited := [key for key in cited if key in known]:
        text += f"\n\n## {words['references']} {{#references}}\n\n{bibliography.references(cited, page.language)}\n"
    return text + _foot(page, words)


def _citation(match, page: pages.Page) -> str:
    known = bibliography.load()
    keys = [key.strip().lstrip("@") for key in match["keys"].split(";")]
    links = [
        f"[{bibliography.cite(k)}](bibliography.md#{k})" if k in known else f"[@{k}]" for k in keys
    ]
    return ("；" if page.language == "zh" else "; ").join(links)


def _after_title(text: str, addition: str) -> str:
    head, mark, rest = text.partition("\n")
    return f"{head}{mark}\n{addition}\n{rest}" if head.startswith("# ") else text


def _notebook_links(page: pages.Page, words: dict[str, str]) -> str:
    target = f"notebooks/{page.name}.ipynb"
    links = [f"[{words['notebook']}]({target}){{ download }}"]
    if (address := repository()).startswith("https://github.com/"):
        place = address.removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{place}/blob/{BRANCH}/{page.language}/{page.name}.ipynb"
        links.append(f"[{words['colab']}]({colab})")
    return f"{' · '.join(links)}\n{{ .notebook }}"


def _stale(page: pages.Page) -> bool:
    other = pages.counterpart(page.path)
    return other.exists() and str(page.meta.get("reviewed", "")) != pages.load(other).hash


def _foot(page: pages.Page, words: dict[str, str]) -> str:
    """Return what is known of the last run of a page; nothing for a page without code."""
    file = pages.ROOT / "build" / "verified" / f"{page.name}.json"
    recorded = pages.RECORDED / f"{page.name}.txt"
    if file.exists():
        stamp = json.loads(file.read_text("utf-8"))
        line = words["code"].format(
            date=stamp["date"],
            commit=stamp["commit"] or "—",
            device=stamp["device"].upper(),
            seconds=stamp["seconds"],
            memory=stamp["memory"] / 2**20,
            **stamp["versions"],
        )
    elif recorded.exists():
        lines = dict(line.split(" ", 1) for line in recorded.read_text("utf-8").splitlines()[1:4])
        line = words["recorded"].format(versions=lines["versions"], device=lines["device"].upper())
    else:
        return ""
    return f'\n\n<p class="stamp" data-search-exclude><strong>{words["verified"]}</strong> {line}</p>\n'
