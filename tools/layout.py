"""Everything about the handbook that can be checked without running a page.

`python -m tools.layout` prints each problem as `path:line: message` and exits 1 if there is one.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools import bibliography, record
from tools import page as pages
from tools.page import DOCS, LANGUAGES, ROOT, SNIPPETS, Page, Problem
from tools.runner import imports

# The headings of every page that teaches an idea, in this order.
HEADINGS = (
    "problem",
    "idea",
    "mathematics",
    "code",
    "run",
    "check",
    "pitfalls",
    "exercises",
    "next",
)
# Anchors on these pages are made from data, not written as headings.
GENERATED = ("glossary", "bibliography")
# The first group of pages, and the one that teaches no idea.
FOUNDATIONS, REFERENCE = "Foundations", "Reference"
# Foundations are NumPy alone, but for the page whose subject is the Keras training loop.
KERAS_IN_FOUNDATIONS = ("training",)


class _Loader(yaml.SafeLoader):
    """Reads a MkDocs configuration; values made by tags (!ENV, !!python/name) do not matter here."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def navigation() -> list[tuple[str, str]]:
    """Return (group, page name) in reading order, from mkdocs.yml; Chinese inherits it."""
    tree = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _Loader).get("nav") or []

    def walk(entries: list, group: str) -> Iterator[tuple[str, str]]:
        for entry in entries:
            if isinstance(entry, str):
                yield group, entry.removesuffix(".md")
                continue
            for title, value in entry.items():
                if isinstance(value, list):
                    yield from walk(value, group or title)
                elif value.endswith(".md"):
                    yield group, value.removesuffix(".md")

    return list(walk(tree, ""))


def _parts() -> dict[str, str]:
    """Return the pages that teach an idea, in reading order, with their group."""
    return {name: group for group, name in navigation() if group not in ("", REFERENCE)}


def files() -> Iterator[Problem]:
    """Yield what is wrong with the set of files: one idea, one name, five files."""
    for name in _parts():
        for path in _five(name):
            if not path.exists():
                yield Problem(
                    path,
                    1,
                    f"missing: {name!r} has a page, a snippet, a module and a test of one name",
                )
    known = {name for _, name in navigation()}
    for path in sorted((ROOT / "aimodels").glob("*.py")):
        if path.stem != "__init__" and path.stem not in known:
            yield Problem(path, 1, "no page of this name is in the navigation")
    for path in sorted(SNIPPETS.glob("*.py")):
        if path.stem not in known:
            yield Problem(path, 1, "no page of this name is in the navigation")
    for language in LANGUAGES:
        for path in pages.paths(language):
            if path.stem not in known:
                yield Problem(path, 1, "this page is not in the navigation")
            if not pages.counterpart(path).exists():
                yield Problem(
                    path,
                    1,
                    f"has no counterpart {pages.counterpart(path).relative_to(ROOT).as_posix()}",
                )
    for path in sorted((ROOT / "aimodels").rglob("*")):
        if path.is_dir() and path.name != "__pycache__":
            yield Problem(path, 1, "aimodels is flat: one module for each page")
        if path.name in ("utils.py", "helpers.py", "common.py"):
            yield Problem(path, 1, "a shared helper belongs to the concept that first needs it")
    yield from _orphans()


def _five(name: str) -> list[Path]:
    return [
        ROOT / "aimodels" / f"{name}.py",
        SNIPPETS / f"{name}.py",
        DOCS / "en" / f"{name}.md",
        DOCS / "zh" / f"{name}.md",
        ROOT / "tests" / f"test_{name}.py",
    ]


def _orphans() -> Iterator[Problem]:
    for path in sorted(pages.RECORDED.iterdir()):
        if not (SNIPPETS / f"{path.stem}.py").exists():
            yield Problem(path, 1, "recorded, but there is no such snippet")
    for language in LANGUAGES:
        shown = {
            block.attributes["target"]
            for path in pages.paths(language)
            for block in pages.load(path).of("figure")
        }
        for path in sorted((DOCS / language / "figures").glob("*")):
            if f"figures/{path.name}" not in shown:
                yield Problem(path, 1, "no page shows this figure")


def arrows() -> Iterator[Problem]:
    """Yield imports that go against docs → snippets → aimodels ← tests, or against reading order."""
    groups = _parts()
    order = [name for name in groups if (ROOT / "aimodels" / f"{name}.py").exists()]
    for name in order:
        path = ROOT / "aimodels" / f"{name}.py"
        later = {m for m in _inner(path) if m in order and order.index(m) >= order.index(name)}
        for module in sorted(later):
            yield Problem(
                path, _line(path, module), f"imports aimodels.{module}, whose page comes later"
            )
        forbidden = {"snippets", "tests", "tools", "matplotlib"}
        if groups[name] == FOUNDATIONS and name not in KERAS_IN_FOUNDATIONS:
            forbidden |= {"keras", "tensorflow"}
        for package in sorted(_top_level(path) & forbidden):
            yield Problem(
                path, _line(path, package), f"aimodels.{name} may not import {package} on import"
            )
    for folder, forbidden in (
        (SNIPPETS, {"snippets", "tests", "tools"}),
        (ROOT / "tests", {"snippets"}),
    ):
        for path in sorted(folder.glob("*.py")):
            for package in sorted({m.partition(".")[0] for m in imports(path)} & forbidden):
                yield Problem(path, _line(path, package), f"may not import {package}")
    for path in sorted(SNIPPETS.glob("*.py")):
        for module in sorted(_inner(path)):
            if (
                path.stem in order
                and module in order
                and order.index(module) > order.index(path.stem)
            ):
                yield Problem(
                    path, _line(path, module), f"imports aimodels.{module}, whose page comes later"
                )
    init = ROOT / "aimodels" / "__init__.py"
    if len(ast.parse(init.read_text("utf-8")).body) != 1:
        yield Problem(init, 1, "holds a docstring and nothing else")


def _inner(path: Path) -> set[str]:
    return {m.split(".")[1] for m in imports(path) if m.startswith("aimodels.")}


def _top_level(path: Path) -> set[str]:
    """Return the packages that importing a module imports; those inside functions do not count."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            head, _, rest = node.module.partition(".")
            found.add(head)
            inner = [rest] if rest else [alias.name for alias in node.names]
            if head == "aimodels":
                for name in inner:
                    found |= _top_level(ROOT / "aimodels" / f"{name.partition('.')[0]}.py")
    return found


def _line(path: Path, word: str) -> int:
    pattern = re.compile(rf"^\s*(from|import)\b.*\b{re.escape(word)}\b")
    lines = path.read_text("utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def content(page: Page) -> Iterator[Problem]:
    """Yield what is wrong with one page."""
    yield from page.problems
    yield from record.stale(page)
    if (SNIPPETS / f"{page.name}.py").exists():
        try:
            wanted = [section.name for section in pages.sections(page.name)]
        except ValueError as error:
            yield Problem(page.path, 1, str(error))
        else:
            shown = [block.attributes["section"] for block in page.of("code")]
            if shown != wanted:
                pair = next(p for p in itertools.zip_longest(shown, wanted) if p[0] != p[1])
                line = next(
                    (b.line for b in page.of("code") if b.attributes["section"] == pair[0]), 1
                )
                yield Problem(
                    page.path,
                    line,
                    f"sections of snippets/{page.name}.py are shown once each, in order: "
                    f"here {pair[0] or 'nothing'}, there {pair[1] or 'nothing'}",
                )
    if page.name in _parts():
        ids = [b.key.split()[1] for b in page.of("heading") if b.key.startswith("2 ")]
        if ids != list(HEADINGS):
            yield Problem(
                page.path,
                1,
                f"second-level headings are {', '.join(ids)}; they must be {', '.join(HEADINGS)}",
            )
    for mention in page.mentions:
        if mention.kind == "link":
            yield from _link(page, mention)


def _link(page: Page, mention: pages.Mention) -> Iterator[Problem]:
    target, _, anchor = mention.key.partition("#")
    if "://" in target or target.startswith(("mailto:", "/")):
        return
    if target and not target.endswith(".md"):
        return
    name = target.removesuffix(".md") or page.name
    path = page.path.parent / f"{name}.md"
    if name.startswith("api/"):
        path = ROOT / "aimodels" / f"{name.removeprefix('api/')}.py"
    if not path.exists():
        yield Problem(page.path, mention.line, f"dead link: {mention.key}")
    elif anchor and name not in GENERATED and path.suffix == ".md":
        known = {block.key.split()[1] for block in pages.load(path).of("heading")}
        if anchor not in known:
            yield Problem(
                page.path,
                mention.line,
                f"dead anchor: {mention.key}; {name}.md has {', '.join(sorted(known))}",
            )


def parity(english: Page, chinese: Page) -> Iterator[Problem]:
    """Yield where the two languages of a page differ in structure, or in what was reviewed."""
    pairs = itertools.zip_longest(english.blocks, chinese.blocks)
    for one, two in pairs:
        if one is None or two is None or (one.kind, one.key) != (two.kind, two.key):
            where = two.line if two else _last(chinese)
            yield Problem(
                chinese.path,
                where,
                f"differs from docs/en/{english.path.name}:{one.line if one else _last(english)}: "
                f"here {_describe(two)}, there {_describe(one)}",
            )
            return
    for kind in ("formula", "link", "citation"):
        for heading in [block.key.split()[1] for block in english.of("heading")]:
            sides = [
                {m.key for m in page.mentions if m.kind == kind and m.under == heading}
                for page in (english, chinese)
            ]
            for page, missing in ((chinese, sides[0] - sides[1]), (english, sides[1] - sides[0])):
                for key in sorted(missing):
                    line = next(b.line for b in page.of("heading") if b.key.split()[1] == heading)
                    yield Problem(
                        page.path,
                        line,
                        f"under #{heading} the {kind} {key!r} of the other language is missing",
                    )
    for page, other in ((english, chinese), (chinese, english)):
        if str(page.meta.get("reviewed", "")) != other.hash:
            yield Problem(
                page.path,
                1,
                f"to be reviewed: docs/{other.language}/{other.path.name} has changed since this page was last "
                f"compared with it; when both say the same, run: nox -s review -- {page.name}",
            )


def _last(page: Page) -> int:
    return page.blocks[-1].line if page.blocks else 1


def _describe(block: pages.Block | None) -> str:
    return (
        "nothing more"
        if block is None
        else f"{block.kind} {block.key.removeprefix(block.kind).strip()[:90]!r}"
    )


def problems(names: list[str] | None = None) -> list[str]:
    """Return every problem, or those of some pages, as `path:line: message`."""
    found: list[Problem] = [] if names else [*files(), *arrows()]
    cited: dict[str, list[str]] = {}
    for path in pages.paths("en"):
        page = pages.load(path)
        if names and page.name not in names:
            continue
        both = [page]
        other = pages.counterpart(path)
        if other.exists():
            both.append(pages.load(other))
            found += parity(*both)
        for one in both:
            found += content(one)
            for mention in one.mentions:
                if mention.kind == "citation":
                    cited.setdefault(mention.key, []).append(
                        str(Problem(one.path, mention.line, "")).removesuffix(": ")
                    )
    return [*map(str, found), *([] if names else bibliography.problems(cited))]


def review(names: list[str]) -> None:
    """Write into both languages of each page the hash of the other: a person has compared them."""
    for name in names:
        both = [pages.load(DOCS / language / f"{name}.md") for language in LANGUAGES]
        for page, other in (both, both[::-1]):
            text = page.path.read_text("utf-8")
            line = f"reviewed: '{other.hash}'"
            if re.search(r"^reviewed:.*$", text, re.MULTILINE):
                text = re.sub(r"^reviewed:.*$", line, text, count=1, flags=re.MULTILINE)
            else:
                text = text.replace("\n---\n", f"\n{line}\n---\n", 1)
            record.runner.write(page.path, text)


def _main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["review"]:
        review(words[1:])
        return 0
    found = problems(words or None)
    for problem in found:
        print(problem)
    print(f"{len(found)} problems" if found else "layout: no problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
