"""The literature of the handbook: `docs/bibliography.bib` is its only source.

A page cites with `[@vaswani2017]`; the site shows the label and links to the entry.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import quote

from pybtex.database import Entry, Person, parse_string
from pybtex.richtext import Text

SOURCE = Path(__file__).parents[1] / "docs" / "bibliography.bib"
LANGUAGES = ("en", "zh")
SHOWN_NAMES = 8  # a longer list of authors is cut after one name less
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}")


def load(path: Path = SOURCE) -> Mapping[str, Entry]:
    """Return the entries by key, in the order of the file.

    Raises:
        ValueError: if the file is not BibTeX or has a key twice.
    """
    return _parse(path, path.read_text(encoding="utf-8"))


def cite(key: str, path: Path = SOURCE) -> str:
    """Return the short label of an entry, such as `Vaswani et al. 2017`.

    Labels that would be equal get letters: `Zhang 2019a`, `Zhang 2019b`.

    Raises:
        KeyError: if there is no such entry.
    """
    entries = load(path)
    label = _label(_entry(key, entries))
    same = [k for k, entry in entries.items() if _label(entry) == label]
    return label if len(same) == 1 else label + "abcdefghijklmnopqrstuvwxyz"[same.index(key)]


def format_entry(key: str, language: str = "en", path: Path = SOURCE) -> str:
    """Return one entry as a line of Markdown, with a link to its DOI, arXiv page or ISBN."""
    entry = _entry(key, load(path))
    people = [_name(person) for person in _people(entry)]
    if _others(entry) or len(people) > SHOWN_NAMES:
        people = [*people[: SHOWN_NAMES - 1], "et al." if _known(language) == "en" else "等"]
    parts = [f"{', '.join(people)} ({_field(entry, 'year')})", f"*{_field(entry, 'title')}*"]
    if where := _where(entry):
        parts.append(where)
    text = ". ".join(part.rstrip(".") for part in parts) + "."
    return " ".join([text, *_links(entry)])


def references(keys: Iterable[str], language: str, path: Path = SOURCE) -> str:
    """Return the entries of these keys as a Markdown list, sorted by label, each once."""
    order = sorted(set(keys), key=lambda key: cite(key, path).casefold())
    return "".join(f"- {format_entry(key, language, path)}\n" for key in order)


def table(language: str, path: Path = SOURCE) -> str:
    """Return all entries as a Markdown definition list; the anchor of an entry is its key."""
    order = sorted(load(path), key=lambda key: cite(key, path).casefold())
    return "\n".join(
        f"**{cite(key, path)}** {{ #{key} }}\n:   {format_entry(key, language, path)}\n"
        for key in order
    )


def problems(cited: Mapping[str, Collection[str]], path: Path = SOURCE) -> list[str]:
    """Return what is wrong with the file or the citations, one message each.

    Args:
        cited: for each cited key the places that cite it, as `docs/en/attention.md:12`.
        path: the BibTeX file.
    """
    try:
        entries = load(path)
    except ValueError as error:
        return [str(error)]
    found = []
    for key, places in cited.items():
        if key not in entries:
            near = difflib.get_close_matches(key, entries, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; add it to {path.name}"
            found += [f"{place}: [@{key}] is not in {path.name}{hint}" for place in places]
    for key, entry in entries.items():
        faults = [f"{name!r} is missing" for name in ("title", "year") if name not in entry.fields]
        if not _people(entry):
            faults.append("'author' (or 'editor') is missing")
        faults += _identifier_faults(entry)
        if key not in cited:
            faults.append("no page cites it; cite it or remove it")
        found += [f"{path.name}: {key}: {fault}" for fault in faults]
    return found


@lru_cache(maxsize=4)
def _parse(path: Path, text: str) -> Mapping[str, Entry]:
    try:
        return dict(parse_string(text, "bibtex").entries.items())
    except Exception as error:  # pybtex raises several unrelated kinds
        raise ValueError(f"{path.name}: not valid BibTeX: {error}") from error


def _entry(key: str, entries: Mapping[str, Entry]) -> Entry:
    if key not in entries:
        raise KeyError(f"no entry {key!r} in the bibliography")
    return entries[key]


def _field(entry: Entry, name: str) -> str:
    return _plain(entry.fields.get(name, ""))


@cache  # a label is compared with those of all entries, for every citation
def _plain(latex: str) -> str:
    """Return text without LaTeX commands and braces."""
    return " ".join(str(Text.from_latex(latex)).split())


def _listed(entry: Entry) -> list[Person]:
    return list(entry.persons.get("author") or entry.persons.get("editor") or ())


def _others(entry: Entry) -> bool:
    """Return whether the list ends in "and others", BibTeX's way to cut it."""
    return [str(person) for person in _listed(entry)[1:]][-1:] == ["others"]


def _people(entry: Entry) -> list[Person]:
    return _listed(entry)[: -1 if _others(entry) else None]


def _surname(person: Person) -> str:
    return _plain(" ".join([*person.prelast_names, *person.last_names]))


def _name(person: Person) -> str:
    given = _plain(" ".join([*person.first_names, *person.middle_names]))
    suffix = _plain(" ".join(person.lineage_names))
    return " ".join(part for part in (given, _surname(person), suffix) if part)


def _label(entry: Entry) -> str:
    names = [_surname(person) for person in _people(entry)]
    cut = _others(entry) or len(names) > 2
    who = f"{names[0]} et al." if cut else " and ".join(names)
    return f"{who} {_field(entry, 'year')}".strip()


def _where(entry: Entry) -> str:
    """Return the journal, book or publisher, with edition, volume, number and pages."""
    places = ("journal", "booktitle", "howpublished", "publisher")
    name = next((n for n in places if n in entry.fields), None)
    if name is None:
        return ""
    where = _field(entry, name)
    if edition := _field(entry, "edition"):
        where += f", {edition.lower()} edition"
    if volume := _field(entry, "volume"):
        number = _field(entry, "number")
        where += f" {volume}" + (f"({number})" if number else "")
    if pages := _field(entry, "pages"):
        where += ", " + pages.replace("--", "\u2013")
    return where


def _links(entry: Entry) -> list[str]:
    links = []
    if doi := entry.fields.get("doi"):
        links.append(f"[doi:{doi}](https://doi.org/{quote(doi)})")
    if eprint := entry.fields.get("eprint"):
        links.append(f"[arXiv:{eprint}](https://arxiv.org/abs/{quote(eprint)})")
    if isbn := entry.fields.get("isbn"):
        links.append(f"ISBN {isbn}")
    if not links and (url := entry.fields.get("url")):
        links.append(f"<{url}>")
    return links


def _identifier_faults(entry: Entry) -> list[str]:
    doi, eprint, isbn = (entry.fields.get(name) for name in ("doi", "eprint", "isbn"))
    faults = []
    if not (doi or eprint or isbn):
        faults.append("needs a 'doi', an 'eprint' (arXiv number) or an 'isbn'")
    if doi and not _DOI.fullmatch(doi):
        faults.append(f"'doi' must look like 10.1000/182 (no address), got {doi!r}")
    if eprint and not _ARXIV.fullmatch(eprint):
        faults.append(f"'eprint' must look like 1706.03762 (no version), got {eprint!r}")
    if isbn and not _is_isbn(isbn):
        faults.append(f"'isbn' has a wrong check digit or length, got {isbn!r}")
    return faults


def _is_isbn(text: str) -> bool:
    digits = text.replace("-", "").replace(" ", "")
    if re.fullmatch(r"\d{13}", digits):
        return sum(int(d) * (1 + 2 * (i % 2)) for i, d in enumerate(digits)) % 10 == 0
    if re.fullmatch(r"\d{9}[\dX]", digits):
        return sum((10 - i) * (10 if d == "X" else int(d)) for i, d in enumerate(digits)) % 11 == 0
    return False


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    return language
