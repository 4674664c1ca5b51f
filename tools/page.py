"""The page model: the one parser of pages, used by site, runner, recorder, checks and notebooks."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import markdown
import yaml
from pymdownx.snippets import SnippetMissingError, SnippetPreprocessor

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SNIPPETS = ROOT / "snippets"
RECORDED = DOCS / "recorded"
LANGUAGES = ("en", "zh")

FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
HEADING = re.compile(
    r"^(?P<marks>#{1,6})[ \t]+(?P<text>.*?)(?:[ \t]*\{[^}]*#(?P<id>[\w.-]+)[^}]*\})?[ \t]*$"
)
ADMONITION = re.compile(
    r'^(?P<indent>[ \t]*)(?P<marker>!!!|\?\?\?\+?)[ \t]+(?P<kind>[\w-]+)(?:[ \t]+"(?P<title>[^"]*)")?'
)
ITEM = re.compile(r"^[ \t]*\d+\.[ \t]")
MARKER = re.compile(r"#[ \t]*\((\d+)\)!?[ \t]*$", re.MULTILINE)
IMAGE = re.compile(r'!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]+)(?:[ \t]+"(?P<title>[^"]*)")?\)')
LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<target>[^)\s]+)\)")
CITATION = re.compile(r"\[@(?P<keys>[\w:-]+(?:;[ ]*@[\w:-]+)*)\]")
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
DISPLAY = re.compile(r"\$\$(?P<tex>.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"(?<![\\$])\$(?![\s$])(?P<tex>(?:\\.|[^\\$])+?)(?<!\s)\$")
TOLERANCE = re.compile(r"±\s*(?P<value>\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?P<percent>%?)")
PLACEHOLDER = re.compile(r"^<!-- (glossary|bibliography) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """Something wrong, and where: what every check of the handbook reports."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        """Return `path:line: message`, the path as seen from the repository."""
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path.as_posix()}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Section:
    """A named section of a snippet: its code and the line before its first one."""

    name: str
    code: str
    offset: int


@dataclass(frozen=True)
class Block:
    """One thing on a page, in page order."""

    kind: str  # heading, code, output, figure, diagram, formula, admonition, untested, list
    line: int
    key: str  # what must be the same in the other language
    under: str  # id of the heading above it
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    end: int = 0  # last line, for a fence


@dataclass(frozen=True)
class Mention:
    """An inline formula, link or citation: compared by heading, since word order differs."""

    kind: str
    line: int
    key: str
    under: str
    text: str = ""


@dataclass
class Page:
    """A parsed page of one language."""

    path: Path
    language: str
    name: str
    meta: dict
    body: str
    first_line: int
    blocks: list[Block]
    mentions: list[Mention]
    problems: list[Problem]
    source: str = ""  # the body with whole-file includes put in

    def of(self, *kinds: str) -> list[Block]:
        """Return the blocks of these kinds, in page order."""
        return [block for block in self.blocks if block.kind in kinds]

    @property
    def hash(self) -> str:
        """Twelve hex digits of the text's SHA-256; front matter does not count."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:12]


def paths(language: str) -> list[Path]:
    """Return the pages of a language, sorted by name."""
    return sorted((DOCS / language).glob("*.md"))


def counterpart(path: Path) -> Path:
    """Return the path of the same page in the other language."""
    other = LANGUAGES[1 - LANGUAGES.index(path.parent.name)]
    return path.parents[1] / other / path.name


def sections(name: str) -> list[Section]:
    """Return the sections of `snippets/<name>.py` in file order.

    Raises:
        ValueError: a section is not closed, nested or named twice, or code stands outside.
    """
    path = SNIPPETS / f"{name}.py"
    found: list[Section] = []
    current, start = "", 0
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        marker = SnippetPreprocessor.RE_SNIPPET_SECTION.match(line) if "8<-" in line else None
        if marker is None:
            if not current and line.strip():
                raise ValueError(f"{_place(path, number)}: code outside of a section: {line!r}")
            continue
        kind, section = marker["type"], marker["name"]
        if kind == "start":
            if current:
                raise ValueError(
                    f"{_place(path, number)}: section {section!r} starts inside {current!r}"
                )
            if section in {s.name for s in found}:
                raise ValueError(f"{_place(path, number)}: section {section!r} is there twice")
            current, start = section, number
        else:
            if section != current:
                raise ValueError(
                    f"{_place(path, number)}: section {section!r} ends, but {current!r} is open"
                )
            found.append(Section(section, "\n".join(lines[start : number - 1]) + "\n", start))
            current = ""
    if current:
        raise ValueError(f"{_place(path, start)}: section {current!r} never ends")
    return found


def include(reference: str) -> str:
    """Return the text that pymdownx.snippets puts in place of `--8<-- "reference"`.

    Raises:
        SnippetMissingError: no such file or section.
    """
    return "\n".join(_snippets().run([f'--8<-- "{reference}"']))


@lru_cache(maxsize=1)
def _snippets() -> SnippetPreprocessor:
    options = {
        "base_path": [str(SNIPPETS), str(RECORDED), str(ROOT)],
        "check_paths": True,
        "dedent_subsections": True,
    }
    converter = markdown.Markdown(
        extensions=["pymdownx.snippets"], extension_configs={"pymdownx.snippets": options}
    )
    return converter.preprocessors["snippet"]


def _place(path: Path, line: int) -> str:
    return str(Problem(path, line, "")).removesuffix(": ")


def _attributes(info: str) -> tuple[str, dict[str, str], set[str]]:
    """Split a fence's info string into language, attributes and classes."""
    info = info.strip()
    braced = info.startswith("{")
    language, attributes, classes = "", {}, set()
    for word in shlex.split(info.strip("{}")):
        if "=" in word:
            key, _, value = word.partition("=")
            attributes[key] = value
        elif word.startswith("."):
            language = language or word[1:]
            classes.add(word[1:])
        elif not braced and not language:
            language = word
    return language, attributes, classes


def _one_include(body: str) -> str | None:
    match = re.fullmatch(r'\s*--8<-- "([^"]+)"\s*', body)
    return match[1] if match else None


def split(text: str) -> tuple[dict, str, int]:
    """Return front matter, body and the line number before the body's first line."""
    match = re.match(r"\A---\n(.*?)\n---\n+", text, re.DOTALL)
    if not match:
        return {}, text, 0
    return yaml.safe_load(match[1]) or {}, text[match.end() :], match[0].count("\n")


def load(path: Path) -> Page:
    """Parse a page; whatever is wrong with it alone is in its `problems`."""
    return _load(path, path.read_text("utf-8"))


@lru_cache(maxsize=256)
def _load(path: Path, text: str) -> Page:
    try:
        meta, body, first = split(text)
    except yaml.YAMLError as error:
        meta, body, first = {}, text, 0
        trouble = [Problem(path, 1, f"front matter is not YAML: {error}")]
    else:
        trouble = []
    page = Page(path, path.parent.name, path.stem, meta, body, first, [], [], trouble)
    _Parser(page).run()
    return page


class _Parser:
    """One pass over the lines of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.under = ""
        self.end = 0  # last line of the fence that is being read
        self.prose: list[tuple[int, str]] = []

    def problem(self, line: int, message: str) -> None:
        self.page.problems.append(Problem(self.page.path, line, message))

    def add(self, kind: str, line: int, key: str, text: str = "", **attributes: str) -> None:
        self.page.blocks.append(Block(kind, line, key, self.under, text, attributes, self.end))

    def run(self) -> None:
        for key in ("title", "description"):
            if not self.page.meta.get(key):
                self.problem(1, f"front matter lacks {key!r}")
        lines = list(enumerate(self.page.body.splitlines(), self.page.first_line + 1))
        # A whole-file include outside of fences is prose kept in one place (CONTRIBUTING.md).
        index = 0
        while index < len(lines):
            number, line = lines[index]
            fence = FENCE.match(line)
            if fence:
                index = self.fence(lines, index, fence)
                self.end = 0
                continue
            if (reference := _one_include(line)) is not None:
                try:
                    lines[index : index + 1] = [
                        (number, part) for part in include(reference).splitlines()
                    ]
                except SnippetMissingError as error:
                    self.problem(number, str(error))
                    index += 1
                continue
            self.line(number, line)
            index += 1
        self.flush()
        self.page.source = "\n".join(line for _, line in lines)
        self.annotations()
        self.exercises()

    def line(self, number: int, line: str) -> None:
        if heading := HEADING.match(line):
            self.flush()
            level, text, ident = len(heading["marks"]), heading["text"], heading["id"]
            if not ident:
                self.problem(
                    number, f"heading {text!r} has no explicit id; write it as {{#some-id}}"
                )
            elif ident in {b.key.split()[1] for b in self.page.of("heading")}:
                self.problem(number, f"heading id {ident!r} is there twice")
            self.under = ident or text
            self.add("heading", number, f"{level} {self.under}", text)
        elif admonition := ADMONITION.match(line):
            self.flush()
            kind = admonition["kind"]
            self.add(
                "admonition", number, f"{admonition['marker']} {kind}", admonition["title"] or ""
            )
        else:
            self.prose.append((number, line))

    def fence(self, lines: list[tuple[int, str]], index: int, opening: re.Match) -> int:
        """Classify the fence that opens at `index`; return the index after it."""
        self.flush()
        number = lines[index][0]
        closing = re.compile(rf"^[ \t]*{opening['ticks'][0]}{{{len(opening['ticks'])},}}[ \t]*$")
        end = index + 1
        while end < len(lines) and not closing.match(lines[end][1]):
            end += 1
        if end == len(lines):
            self.problem(number, "this fence never ends")
        self.end = lines[min(end, len(lines) - 1)][0]
        body = "\n".join(line for _, line in lines[index + 1 : end])
        try:
            language, attributes, classes = _attributes(opening["info"])
        except ValueError as error:
            self.problem(number, f"the fence's attributes cannot be read: {error}")
            return end + 1
        reference = _one_include(body)
        if "notest" in attributes:
            if not attributes["notest"].strip():
                self.problem(number, 'notest needs a reason: notest="why this is not run"')
            self.add("untested", number, f"untested {language} {body.strip()}", body)
        elif "output" in classes:
            self.included(number, "output", reference, f"{self.page.name}.txt", attributes)
        elif language == "dot":
            if not attributes.get("alt"):
                self.problem(number, 'a diagram needs alt="what it shows"')
            skeleton = re.sub(r'(x?label)\s*=\s*("(?:\\.|[^"\\])*"|<[^>]*>)', r"\1=…", body)
            self.add("diagram", number, f"diagram {' '.join(skeleton.split())}", body, **attributes)
        elif language == "python":
            self.included(number, "code", reference, f"{self.page.name}.py", attributes)
        else:
            self.problem(
                number,
                f"nothing classifies this fence ({opening['info'].strip() or 'no language'!r}): python with "
                'one include, { .text .output }, { .dot alt="…" }, or notest="reason"',
            )
        return end + 1

    def included(
        self, number: int, kind: str, reference: str | None, file: str, attributes: dict[str, str]
    ) -> None:
        if reference is None:
            what = (
                "code is typed into the page" if kind == "code" else "output is typed into the page"
            )
            self.problem(number, f'{what}; include a section of it: --8<-- "{file}:section"')
            return
        name, _, section = reference.partition(":")
        if name != file or not section:
            self.problem(
                number, f'{kind} of this page is --8<-- "{file}:section", not "{reference}"'
            )
            return
        if kind == "code":
            try:
                text = include(reference)
            except SnippetMissingError as error:
                known = ", ".join(s.name for s in self.known_sections())
                self.problem(number, f"{error}; snippets/{file} has: {known or 'no such file'}")
                return
        else:
            text = ""
        title = attributes.get("title", "")
        if kind == "output" and title and not TOLERANCE.search(title):
            self.problem(
                number, f'an output\'s title is its tolerance, "± 0.02" or "± 5 %"; got {title!r}'
            )
        self.add(
            kind, number, f"{kind} {section} {title}".rstrip(), text, section=section, **attributes
        )

    def known_sections(self) -> list[Section]:
        try:
            return sections(self.page.name)
        except (OSError, ValueError):
            return []

    def flush(self) -> None:
        """Take figures, formulas, links and citations out of the prose so far."""
        prose, self.prose = self.prose, []
        if not prose:
            return
        start = prose[0][0]
        text = "\n".join(line for _, line in prose)
        if self.page.blocks and self.page.blocks[-1].kind == "code":
            items = 0
            for line in text.strip().splitlines():
                if not line.strip():
                    continue
                if ITEM.match(line):
                    items += 1
                elif not line.startswith((" ", "\t")):
                    break
            if items:
                self.add("list", start, f"annotations {items}", str(items))
        text = CODE_SPAN.sub(lambda m: " " * len(m[0]), text)

        def at(match: re.Match) -> int:
            return prose[text.count("\n", 0, match.start())][0]

        blanked = text
        found: list[tuple[int, str, int, str, str, dict[str, str]]] = []
        for match in DISPLAY.finditer(text):
            found.append(
                (match.start(), "formula", at(match), _same_tex(match["tex"]), match["tex"], {})
            )
            blanked = (
                blanked[: match.start()] + re.sub(r"[^\n]", " ", match[0]) + blanked[match.end() :]
            )
        for match in IMAGE.finditer(blanked):
            attributes = {
                "alt": match["alt"],
                "target": match["target"],
                "title": match["title"] or "",
            }
            found.append(
                (match.start(), "figure", at(match), f"figure {match['target']}", "", attributes)
            )
            if not match["alt"].strip():
                self.problem(at(match), f"figure {match['target']} has no alternative text")
            if match["title"] and not TOLERANCE.fullmatch(match["title"]):
                self.problem(
                    at(match),
                    f'a figure\'s title is its tolerance, "± 0.02" or "± 5 %"; got {match["title"]!r}',
                )
        for _, kind, number, key, tex, attributes in sorted(found, key=lambda f: f[0]):
            self.add(kind, number, key, tex, **attributes)
        for kind, pattern, group in (("formula", INLINE, "tex"), ("link", LINK, "target")):
            for match in pattern.finditer(blanked):
                inner = match[group]
                key = _same_tex(inner) if kind == "formula" else inner
                self.page.mentions.append(Mention(kind, at(match), key, self.under, inner))
        for match in CITATION.finditer(blanked):
            for key in re.split(r";\s*", match["keys"]):
                self.page.mentions.append(
                    Mention("citation", at(match), key.lstrip("@"), self.under)
                )

    def annotations(self) -> None:
        """Check that every marker `# (1)` in code has its explanation, and the reverse."""
        blocks = self.page.blocks
        for index, block in enumerate(blocks):
            if block.kind != "code":
                continue
            markers = [int(number) for number in MARKER.findall(block.text)]
            if markers != list(range(1, len(markers) + 1)):
                self.problem(block.line, f"annotation markers are {markers}, not 1, 2, …")
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            items = int(following.text) if following and following.kind == "list" else 0
            if markers and items != len(markers):
                self.problem(
                    block.line,
                    f"{len(markers)} annotation markers in {block.attributes['section']!r}, "
                    f"{items} explanations after it",
                )

    def exercises(self) -> None:
        """Check that each question is followed by its folded solution, and the solution by code."""
        blocks = [b for b in self.page.blocks if b.kind in ("admonition", "code", "heading")]
        for index, block in enumerate(blocks):
            after = [b.key for b in blocks[index + 1 : index + 3]]
            if block.key == "!!! question" and after[:1] != ["??? success"]:
                self.problem(block.line, "an exercise is followed by its solution: ??? success")
            if block.key == "??? success" and not "".join(after[:1]).startswith("code solution-"):
                self.problem(block.line, "a solution includes a section solution-… that is run")


def _same_tex(tex: str) -> str:
    """Return a formula without what a translation may change: blanks, and words in text."""
    return re.sub(r"\s+", "", re.sub(r"\\text\{[^{}]*\}", "…", tex))


def formulas(page: Page) -> Iterator[tuple[int, str, bool]]:
    """Yield line, TeX and whether it is a display, for every formula of a page."""
    for block in page.of("formula"):
        yield block.line, block.text, True
    for mention in page.mentions:
        if mention.kind == "formula":
            yield mention.line, mention.text, False


def outside_code(text: str, replace) -> str:
    """Apply `replace` to the prose of a page, leaving fences and code spans alone."""
    result, closing = [], None
    for line in text.split("\n"):
        fence = FENCE.match(line)
        if closing is None and fence:
            closing = re.compile(rf"^[ \t]*{fence['ticks'][0]}{{{len(fence['ticks'])},}}[ \t]*$")
        elif closing is not None:
            if closing.match(line):
                closing = None
        else:
            parts, last = [], 0
            for span in CODE_SPAN.finditer(line):
                parts += [replace(line[last : span.start()]), span[0]]
                last = span.end()
            result.append("".join([*parts, replace(line[last:])]))
            continue
        result.append(line)
    return "\n".join(result)
