"""Freeze the handbook's own prose, in both languages, as the text that its language models read.

`python -m tools.corpus` writes `aimodels/handbook.jsonl`, one section a line. It is frozen because every
edit of a sentence would otherwise change the results of the pages that train on it: renew it on purpose,
then record those pages again.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tools import layout, page

TARGET = page.ROOT / "aimodels" / "handbook.jsonl"
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_DELETED = re.compile(r"<del>.*?</del>")
_CITED = re.compile(r"[ ]?[(（][\s,，、;；\0]*\0[\s,，、;；\0]*[)）]|[ ]?\0")


def plain(text: str) -> str:
    """Return the sentences of Markdown: no fences, figures, tables, displays, citations or marks."""
    text = page.DISPLAY.sub("", _FENCE.sub("", text))
    text = _CITED.sub("", page.CITATION.sub("\0", page.IMAGE.sub("", text)))
    text = page.LINK.sub(lambda match: match["text"], _DELETED.sub("", text))
    lines = (_sentence(line) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _sentence(line: str) -> str:
    """Return a line without the marks of list, admonition and emphasis; "" for a table's row."""
    if line.lstrip().startswith(("|", "--8<--", "<")):
        return ""
    if admonition := page.ADMONITION.match(line):
        return admonition["title"] or ""
    bare = re.sub(r"^[ \t]*(?:[-*+]|\d+\.)?[ \t]+", "", line)
    bare = re.sub(r"\*\*|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])", "", bare)
    return re.sub(r"(?<=[。：，；、）])[ ]", "", bare.strip())  # after bold Chinese words


def sections(path: Path) -> dict[str, str]:
    """Return the plain text under each heading of a page, the heading's words first."""
    found: dict[str, list[str]] = {}
    under = None
    fenced = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.load(path).body)
    for line in fenced.splitlines():
        if heading := page.HEADING.match(line):
            under = heading["id"]
            found[under] = [heading["text"]]
        elif under:
            found[under].append(line)
    return {ident: plain("\n".join(lines)) for ident, lines in found.items()}


def freeze() -> int:
    """Write all sections of the pages with code, in reading order; return how many."""
    rows = []
    for _, name in layout.navigation():
        if not (page.SNIPPETS / f"{name}.py").exists():
            continue
        english, chinese = (sections(page.DOCS / lang / f"{name}.md") for lang in page.LANGUAGES)
        for ident, text in english.items():
            if ident == "next":  # sentences about works, whose names are gone
                continue
            row = {"page": name, "section": ident, "en": text, "zh": chinese[ident]}
            rows.append(json.dumps(row, ensure_ascii=False))
    part = TARGET.with_suffix(".part")
    part.write_text("\n".join(rows) + "\n", encoding="utf-8")
    os.replace(part, TARGET)
    return len(rows)


if __name__ == "__main__":
    print(f"{TARGET.relative_to(page.ROOT)}: {freeze()} sections")
