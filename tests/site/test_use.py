"""What a reader does: switch language, search, copy code, print, get lost."""

import pytest

from tools import page as model

HITS = 3
QUERIES = [
    ("zh", "卷积", "cnn/"),
    ("zh", "卷积神经网络", "cnn/"),
    ("zh", "注意力", "attention/"),
    ("zh", "梯度下降", "optimizers/"),
    ("en", "attention", "attention/"),
    ("en", "convolution", "cnn/"),
    ("en", "gradient descent", "optimizers/"),
]


@pytest.mark.parametrize(("here", "there"), [("en", "zh"), ("zh", "en")])
def test_switching_the_language_keeps_page_and_section(watch, base, here, there):
    tab = watch.context.new_page()
    tab.goto(f"{base}{here}/attention/#mathematics")
    tab.locator(".handbook-language").click()
    tab.wait_for_url(f"{base}{there}/attention/#mathematics")
    assert tab.locator("html").get_attribute("lang") == there
    assert tab.locator("#mathematics").is_visible()


def test_the_section_that_was_scrolled_to_is_kept_too(watch, base):
    tab = watch.context.new_page()
    tab.goto(f"{base}en/attention/")
    tab.wait_for_timeout(
        500
    )  # what scrolls in the first quarter of a second is taken for the browser's doing
    tab.locator("#pitfalls").evaluate("e => scrollTo(0, e.getBoundingClientRect().top + scrollY)")
    tab.wait_for_function("location.hash")
    section = tab.evaluate("location.hash")
    tab.locator(".handbook-language").click()
    tab.wait_for_url(f"{base}zh/attention/{section}")


@pytest.mark.parametrize(("language", "query", "expected"), QUERIES)
def test_search_finds_the_page(watch, base, language, query, expected):
    tab = watch.context.new_page()
    tab.goto(f"{base}{language}/")
    tab.locator(".md-search__input").click()
    for letter in query:
        tab.keyboard.type(letter)
    hits = tab.locator(".md-search-result__item > .md-search-result__link")
    hits.first.wait_for()
    tab.wait_for_timeout(300)
    found = [hit.get_attribute("href").split("?")[0] for hit in hits.all()[:HITS]]
    assert any(f"/{language}/{expected}" in address for address in found), found


# A button comes with the sight of its code, so each block is scrolled to first.
COPY = """async () => {
  const copied = [];
  for (const block of document.querySelectorAll(".language-python.highlight")) {
    block.closest("details")?.setAttribute("open", "");
    block.scrollIntoView({block: "center", behavior: "instant"});
    let button;
    for (let wait = 0; wait < 200 && !(button = block.querySelector(".md-code__button")); wait++) {
      await new Promise((resume) => setTimeout(resume, 10));
    }
    await navigator.clipboard.writeText("");
    button?.click();
    let text = "";
    for (let wait = 0; wait < 200 && !(text = await navigator.clipboard.readText()); wait++) {
      await new Promise((resume) => setTimeout(resume, 10));
    }
    copied.push(text);
  }
  return copied;
}"""


def test_copied_code_is_the_snippet_without_marks(watch, base, pages):
    watch.context.grant_permissions(["clipboard-read", "clipboard-write"])
    wrong, copied = [], 0
    tab = watch.context.new_page()
    for address in pages:
        language, name = address.split("/")[:2]
        path = model.DOCS / language / f"{name}.md"
        # Both languages include the same code (tools/layout.py), so one page of Chinese is enough.
        if not path.exists() or (language == "zh" and name != "attention"):
            continue
        want = [lines(model.MARKER.sub("", b.text)) for b in model.load(path).of("code")]
        if not want:
            continue
        tab.goto(base + address)
        got = tab.evaluate(COPY)
        for code in got:
            compile(code, address, "exec")
        copied += len(got)
        if [lines(code) for code in got] != want:
            first = next(
                (
                    f"{g}\n… instead of …\n{w}"
                    for g, w in zip(got, want, strict=False)
                    if lines(g) != w
                ),
                "",
            )
            wrong.append(f"{address}: {len(got)} blocks for {len(want)} in the source; {first}")
    assert not wrong, "\n".join(wrong)
    assert copied


def lines(code):
    """Return the lines without white space at their ends, as it stands before a mark."""
    return [line.rstrip() for line in code.strip().splitlines()]


def test_a_note_opens_at_its_mark_in_the_code(watch, base):
    tab = watch.context.new_page()
    tab.goto(f"{base}en/attention/")
    notes = tab.locator(".language-python + ol").first
    text = notes.locator("li").first.text_content().strip()
    assert not notes.is_visible()
    notes.evaluate("e => e.previousElementSibling.scrollIntoView()")
    mark = tab.locator(".md-annotation").first
    mark.click()
    assert mark.locator(".md-tooltip").text_content().strip() == text
    assert mark.locator(".md-tooltip").is_visible()


def test_notes_and_folded_solutions_can_be_read_without_script(watching, base):
    tab = watching(java_script_enabled=False).context.new_page()
    tab.goto(f"{base}en/attention/")
    assert tab.locator(".language-python + ol").first.is_visible()
    tab.locator("details summary").first.click()
    assert tab.locator("details .highlight").first.is_visible()


def test_print_shows_the_text_alone(watch, base):
    tab = watch.context.new_page()
    tab.goto(f"{base}en/attention/")
    tab.emulate_media(media="print")
    for part in (".md-header", ".md-sidebar", ".md-footer", ".md-code__nav", ".headerlink"):
        assert not any(e.is_visible() for e in tab.locator(part).all()), part
    assert tab.locator("h1").is_visible()
    assert all(e.is_visible() for e in tab.locator("details > :is(p, .highlight)").all())


@pytest.mark.parametrize(
    ("locale", "expected"),
    [("zh-CN", "zh/"), ("zh-Hant-TW", "zh/"), ("en-GB", "en/"), ("fr-FR", "en/")],
)
def test_the_root_page_chooses_the_language(watching, base, locale, expected):
    watch = watching(locale=locale)
    tab = watch.context.new_page()
    tab.goto(base)
    tab.wait_for_url(base + expected)
    assert not watch.foreign


def test_the_root_page_works_without_script(watching, base):
    watch = watching(java_script_enabled=False)
    tab = watch.context.new_page()
    tab.goto(base)
    assert [link.get_attribute("href") for link in tab.locator("main a").all()] == ["en/", "zh/"]


def test_a_missing_page_leads_home_in_both_languages(watch, base):
    tab = watch.context.new_page()
    assert tab.goto(f"{base}no/such/page/").status == 404
    for language in ("en", "zh"):
        tab.goto(f"{base}no/such/page/")
        tab.locator(f"main a[hreflang={language}]").click()
        tab.wait_for_url(f"{base}{language}/")
        tab.goto(f"{base}{language}/404.html")
        tab.locator("article a").click()
        tab.wait_for_url(f"{base}{language}/")
