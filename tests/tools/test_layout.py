"""The handbook itself has no structural problem, and running English pages stands for both languages."""

from tools import layout
from tools import page as pages


def test_the_handbook_has_no_problems():
    assert layout.problems() == []


def test_both_languages_include_the_same_sections_in_the_same_order():
    checked = 0
    for path in pages.paths("en"):
        english, chinese = pages.load(path), pages.load(pages.counterpart(path))
        kinds = ("code", "output", "figure")
        assert [b.key for b in english.of(*kinds)] == [b.key for b in chinese.of(*kinds)], path
        checked += len(english.of(*kinds))
    assert checked > 0


def test_every_fence_of_every_page_is_classified():
    for language in pages.LANGUAGES:
        for path in pages.paths(language):
            page = pages.load(path)
            text = page.body
            if language == "en" and path.stem == "contributing":  # the page is that file
                text = (pages.ROOT / "CONTRIBUTING.md").read_text("utf-8")
            opened = sum(1 for line in text.splitlines() if pages.FENCE.match(line))
            assert 2 * len(page.of("code", "output", "diagram", "untested")) == opened, path


def test_every_section_of_every_snippet_is_on_its_page():
    for path in sorted(pages.SNIPPETS.glob("*.py")):
        page = pages.load(pages.DOCS / "en" / f"{path.stem}.md")
        shown = [block.attributes["section"] for block in page.of("code")]
        assert shown == [section.name for section in pages.sections(path.stem)]
