"""What can be read off the built files without a browser: links, ids, order, what a page says of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

HERE = "http://site.invalid/"


@dataclass
class Html(HTMLParser):
    """The parts of a page that other pages, search engines and readers depend on."""

    links: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    head: dict[str, str] = field(default_factory=dict)
    alternates: dict[str, str] = field(default_factory=dict)
    drawing: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what matters of a tag."""
        values = {key: value or "" for key, value in attrs}
        self.drawing = self.drawing or tag == "svg"
        if "id" in values:
            (self.drawn if self.drawing else self.ids).append(values["id"])
        if tag == "meta" and (name := values.get("name") or values.get("property")):
            self.head[name] = values["content"]
        if tag == "link":
            relation = values["rel"].strip()
            self.head[relation] = values["href"]
            if relation == "alternate":
                self.alternates[values["hreflang"]] = values["href"]
        if tag in ("a", "script", "img") or (
            tag == "link" and values["rel"] in ("stylesheet", "icon", "prev", "next")
        ):
            target = values.get("href") or values.get("src")
            if target is not None:
                self.links.append(target)

    def handle_endtag(self, tag: str) -> None:
        """Leave a drawing."""
        self.drawing = self.drawing and tag != "svg"


@pytest.fixture(scope="module")
def files(site: Path) -> dict[str, Html]:
    """Return every HTML file by its address, `en/attention/` and so on."""
    result = {}
    for path in sorted(site.rglob("*.html")):
        parsed = Html()
        parsed.feed(path.read_text("utf-8"))
        result[path.relative_to(site).as_posix().removesuffix("index.html")] = parsed
    return result


def test_every_link_and_anchor_leads_somewhere(files, site):
    broken = []
    for address, html in files.items():
        for link in html.links:
            target = urlsplit(urljoin(HERE + address, link))
            if target.netloc != urlsplit(HERE).netloc or target.scheme == "javascript":
                continue
            path, anchor = unquote(target.path.lstrip("/")), unquote(target.fragment)
            if path not in files and not (site / (path or ".")).is_file():
                broken.append(f"{address}: {link}: there is no such page")
            elif (
                anchor
                and path in files
                and anchor not in files[path].ids
                and not anchor.startswith("__")
            ):
                broken.append(f"{address}: {link}: there is no such section")
    assert not broken, "\n".join(broken)


def test_both_languages_have_the_same_pages_and_sections(files):
    def sections(language):
        # Sorted, since the glossary is in alphabetical order in each language.
        return {
            address.removeprefix(language): sorted(i for i in html.ids if not i.startswith("_"))
            for address, html in files.items()
            if address.startswith(language)
        }

    assert sections("en/") == sections("zh/")


def test_no_id_is_there_twice(files):
    twice = {
        address: [i for i, n in Counter(html.ids + html.drawn).items() if n > 1]
        for address, html in files.items()
    }
    assert {address: ids for address, ids in twice.items() if ids} == {}


def test_a_page_says_what_it_is(files, pages):
    for address in pages:
        head, language = files[address].head, address[:2]
        for name in (
            "description",
            "og:title",
            "og:description",
            "og:url",
            "twitter:card",
            "canonical",
        ):
            assert head.get(name), f"{address}: {name}"
        assert head["og:locale"] == {"en": "en_US", "zh": "zh_CN"}[language]
        assert head["canonical"].endswith("/" + address)
        assert files[address].alternates["en"].endswith("/en/" + address[3:])
        assert files[address].alternates["zh"].endswith("/zh/" + address[3:])
        twin = files[("zh/" if language == "en" else "en/") + address[3:]].head
        assert head["description"] != twin["description"], (
            f"{address}: the description is not translated"
        )


def test_reading_order_is_a_chain_and_the_same_in_both_languages(files, pages):
    chains = {}
    for language in ("en", "zh"):
        here, chain = f"{language}/", []
        while here:
            chain.append(here[3:])
            following = files[here].head.get("next")
            there = urlsplit(urljoin(HERE + here, following)).path.lstrip("/") if following else ""
            if there:
                assert (
                    urlsplit(urljoin(HERE + there, files[there].head["prev"])).path.lstrip("/")
                    == here
                )
            here = there
        chains[language] = chain
        assert sorted(chain) == sorted(p[3:] for p in pages if p.startswith(language))
    assert chains["en"] == chains["zh"]
