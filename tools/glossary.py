"""The terms of the handbook in both languages: `docs/glossary.yml` is their only source.

The same entries make the glossary pages, the tooltips and the check of terminology.
A page that has to *mention* a discouraged word strikes it out: `<del>递归神经网络</del>`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).parents[1] / "docs" / "glossary.yml"
LANGUAGES = ("en", "zh")
_KEYS = {"id", "en", "zh", "definition", "aliases", "avoid", "page"}
_WORDS = {
    "en": {
        "also": "Also {}.",
        "avoid": "Not: {}.",
        "see": "See [{}]({}).",
        "comma": ", ",
        " ": " ",
    },
    "zh": {
        "also": "又称：{}。",
        "avoid": "不用：{}。",
        "see": "参见：[{}]({})。",
        "comma": "、",
        " ": "",
    },
}
_ONE_WORD = {"en": "One word for one thing.", "zh": "全书统一用词。"}
# What is not prose: in these places a word is free. Each alternative is blanked whole.
_NOT_PROSE = re.compile(
    r"\A---\n.*?\n---\n"  # front matter
    r"|^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=indent)(?P=fence)[ \t]*$"
    r"|<!--.*?-->"
    r"|<del>.*?</del>"  # the mark of a word that is mentioned, not used
    r"|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
    r"|\$\$.+?\$\$|\$[^$\n]+\$"
    r"|\]\([^)\n]*\)|<https?:[^>\n]*>|\{[^}\n]*\}",
    re.DOTALL | re.MULTILINE,
)


class GlossaryError(ValueError):
    """The glossary's file has a fault; the message names the entry and what is allowed."""


@dataclass(frozen=True)
class Avoid:
    """A rendering that the handbook does not use, and why."""

    term: str
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """One term; mappings are keyed by language, `en` or `zh`."""

    id: str
    en: str
    zh: str
    definition: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    avoid: Mapping[str, tuple[Avoid, ...]]
    page: str | None = None

    def words(self, language: str) -> tuple[str, ...]:
        """Return the term and its accepted aliases in one language."""
        return (getattr(self, _known(language)), *self.aliases[language])


def load(path: Path = SOURCE) -> tuple[Entry, ...]:
    """Return the entries in the order of the file.

    Raises:
        GlossaryError: if an entry is incomplete, unknown in form, or contradicts another.
    """
    return _parse(path, path.read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def _parse(path: Path, text: str) -> tuple[Entry, ...]:
    raw = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(raw, list):
        raise GlossaryError(f"{path.name}: must be a list of entries, got {type(raw).__name__}")
    entries = tuple(_entry(path, number, item) for number, item in enumerate(raw, start=1))
    for field in ("id", *LANGUAGES):
        seen: dict[str, str] = {}
        for entry in entries:
            value = getattr(entry, field)
            if value.casefold() in seen:
                first = seen[value.casefold()]
                raise GlossaryError(
                    f"{path.name}: entry '{entry.id}': duplicate {field} {value!r}, "
                    f"first used by entry '{first}'"
                )
            seen[value.casefold()] = entry.id
    for language in LANGUAGES:
        accepted = {word: e.id for e in entries for word in e.words(language)}
        for entry in entries:
            for avoided in entry.avoid[language]:
                if avoided.term in accepted:
                    raise GlossaryError(
                        f"{path.name}: entry '{entry.id}': avoid.{language} {avoided.term!r} "
                        f"is accepted by entry '{accepted[avoided.term]}'"
                    )
    return entries


def table(language: str, path: Path = SOURCE) -> str:
    """Return the glossary as a Markdown definition list; the anchor of a term is its id.

    English is in alphabetical order, Chinese in the order of pinyin (which GB 18030 keeps for
    the common characters).
    """
    other = "zh" if _known(language) == "en" else "en"
    words = _WORDS[language]
    blocks = []
    for entry in sorted(load(path), key=lambda e: _order(getattr(e, language), language)):
        head = f"**{getattr(entry, language)}**"
        if entry.en != entry.zh:
            head += f' <span class="other-language" lang="{other}">{getattr(entry, other)}</span>'
        text = [entry.definition[language]]
        if entry.aliases[language]:
            text.append(words["also"].format(words["comma"].join(entry.aliases[language])))
        if avoid := entry.avoid[language]:
            struck = words["comma"].join(f"<del>{a.term}</del>" for a in avoid)
            text += [words["avoid"].format(struck), *(a.why for a in avoid if a.why)]
        if entry.page:
            name, mark, anchor = entry.page.partition("#")
            target = f"{name}.md{mark}{anchor}"
            text.append(words["see"].format(_title(path.parent / language / f"{name}.md"), target))
        blocks.append(f"{head} {{ #{entry.id} }}\n:   {words[' '].join(text)}\n")
    return "\n".join(blocks)


def discouraged(
    text: str, language: str, path: Path = SOURCE
) -> list[tuple[int, int, str, str, str]]:
    """Return each discouraged word in the prose of `text`: line, column, found, instead, why.

    Lines and columns count from 1. Code, formulas, link targets, comments and words struck out
    with `<del>…</del>` are not prose; nor is a discouraged word inside an accepted longer one.
    """
    prose = _NOT_PROSE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    entries = load(path)
    accepted = sorted({w for e in entries for w in e.words(_known(language))}, key=len)
    covered = {(m.start(), m.end()) for word in accepted for m in _pattern(word).finditer(prose)}
    found = []
    for entry in entries:
        for avoided in entry.avoid[language]:
            for match in _pattern(avoided.term).finditer(prose):
                if any(start <= match.start() and match.end() <= end for start, end in covered):
                    continue
                line = prose.count("\n", 0, match.start()) + 1
                column = match.start() - prose.rfind("\n", 0, match.start())
                why = avoided.why or _ONE_WORD[language]
                found.append((line, column, match[0], getattr(entry, language), why))
    return sorted(found)


def _pattern(word: str) -> re.Pattern[str]:
    """Match a word literally, whole in Latin script; a space may be a line break."""
    literal = r"\s+".join(map(re.escape, word.split()))
    start, end = (r"(?<![A-Za-z])" if word[0].isascii() else ""), ""
    if word[-1].isascii():
        end = r"(?:s)?(?![A-Za-z])"
    return re.compile(start + literal + end, re.IGNORECASE)


def _title(page: Path) -> str:
    """Return the title in a page's front matter; the name of a page not yet written."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    match = re.search(r"^title: *(.+)$", text, re.MULTILINE)
    return match[1].strip("\"' ") if match else page.stem


def _order(word: str, language: str) -> bytes:
    return word.casefold().encode("gb18030" if language == "zh" else "utf-8")


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    return language


def _entry(path: Path, number: int, item: Any) -> Entry:
    name = f"'{item['id']}'" if isinstance(item, dict) and "id" in item else f"number {number}"

    def fault(message: str) -> GlossaryError:
        return GlossaryError(f"{path.name}: entry {name}: {message}")

    if not isinstance(item, dict):
        raise fault(f"must be a mapping, got {type(item).__name__}")
    if unknown := sorted(set(item) - _KEYS):
        raise fault(f"unknown key {unknown[0]!r}; allowed: {', '.join(sorted(_KEYS))}")
    for key in ("id", "en", "zh"):
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise fault(f"{key!r} is missing or not text")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", item["id"]):
        raise fault("'id' must be lower-case words joined by hyphens")
    for key in ("definition", "aliases", "avoid"):
        value = item.get(key, {})
        if not isinstance(value, dict) or set(value) - set(LANGUAGES):
            raise fault(f"{key!r} must be a mapping; allowed keys: {', '.join(LANGUAGES)}")
    for language in LANGUAGES:
        if not str(item.get("definition", {}).get(language) or "").strip():
            raise fault(f"definition.{language} is missing")
        for avoided in item.get("avoid", {}).get(language, []):
            if not isinstance(avoided, dict) or not {"term"} <= set(avoided) <= {"term", "why"}:
                raise fault(f"avoid.{language} needs items with the keys: term, why (optional)")
    return Entry(
        id=item["id"],
        en=item["en"],
        zh=item["zh"],
        definition={la: " ".join(item["definition"][la].split()) for la in LANGUAGES},
        aliases={la: tuple(item.get("aliases", {}).get(la, ())) for la in LANGUAGES},
        avoid={
            la: tuple(Avoid(**a) for a in item.get("avoid", {}).get(la, ())) for la in LANGUAGES
        },
        page=item.get("page"),
    )
