"""The glossary's file, its pages and the check of terminology."""

from pathlib import Path

import pytest

from tools import glossary

GOOD = """
- id: token
  en: token
  zh: 词元
  definition: {en: A unit of text., zh: 文本的单位。}
  aliases: {zh: [词元序列]}
  avoid:
    en: [{term: lexeme, why: Linguistics uses it.}]
    zh: [{term: 令牌}, {term: 元}]
  page: attention#mathematics
- id: zebra
  en: zebra crossing
  zh: 斑马线
  definition: {en: Stripes., zh: 条纹。}
"""


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "glossary.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_handbooks_own_glossary_is_valid_and_bilingual():
    entries = glossary.load()
    assert len(entries) > 60
    assert all(set(entry.definition) == {"en", "zh"} for entry in entries)


def test_every_page_that_a_term_names_exists_in_both_languages():
    docs = glossary.SOURCE.parent
    named = {entry.page.partition("#")[0] for entry in glossary.load() if entry.page}
    missing = [f"{la}/{n}.md" for n in named for la in ("en", "zh")
               if not (docs / la / f"{n}.md").exists()]  # fmt: skip
    assert missing == []


def test_no_definition_uses_a_discouraged_word():
    for entry in glossary.load():
        for language, text in entry.definition.items():
            assert glossary.discouraged(text, language) == [], entry.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("id: zebra", "id: token"), "entry 'token': duplicate id 'token', first used by"),
        (("en: zebra crossing", "en: Token"), "entry 'zebra': duplicate en 'Token', first used by"),
        (("  zh: 斑马线\n", ""), "entry 'zebra': 'zh' is missing"),
        (("{en: Stripes., ", "{"), "entry 'zebra': definition.en is missing"),
        (("  page:", "  link:"), "entry 'token': unknown key 'link'; allowed: aliases, avoid"),
        (("zh: [词元序列]", "fr: [jeton]"), "entry 'token': 'aliases' must be a mapping; allowed"),
        (
            ("{term: 令牌}", "{word: 令牌}"),
            "entry 'token': avoid.zh needs items with the keys: term",
        ),
        (("{term: 令牌}", "{term: 斑马线}"), "avoid.zh '斑马线' is accepted by entry 'zebra'"),
        (("id: zebra", "id: Zebra!"), "entry 'Zebra!': 'id' must be lower-case words"),
        (("- id: zebra", "- zebra\n- id: zebra"), "entry number 2: must be a mapping, got str"),
    ],
)
def test_a_fault_in_the_file_names_the_entry_and_what_is_allowed(write, change, message):
    with pytest.raises(glossary.GlossaryError, match=r"^glossary\.yml: ") as caught:
        glossary.load(write(GOOD.replace(*change)))
    assert message in str(caught.value)


def test_a_file_that_is_not_a_list_is_refused(write):
    with pytest.raises(glossary.GlossaryError, match="must be a list of entries, got dict"):
        glossary.load(write("token: 词元"))


def test_the_table_has_an_anchor_both_languages_and_the_page(write):
    text = glossary.table("en", write(GOOD))
    head, body, *_ = text.splitlines()
    assert head == '**token** <span class="other-language" lang="zh">词元</span> { #token }'
    assert body == (
        ":   A unit of text. Not: <del>lexeme</del>. Linguistics uses it. "
        "See [attention](attention.md#mathematics)."
    )


def test_the_chinese_table_is_in_the_order_of_pinyin(write):
    heads = [line for line in glossary.table("zh", write(GOOD)).splitlines() if "{ #" in line]
    assert [head.split()[0] for head in heads] == ["**斑马线**", "**词元**"]  # banmaxian, ciyuan


def test_a_discouraged_word_is_found_with_line_column_and_the_better_word(write):
    found = glossary.discouraged("一行。\n用令牌表示。", "zh", write(GOOD))
    assert found == [(2, 2, "令牌", "词元", "全书统一用词。")]


def test_english_words_are_found_whole_in_any_case_and_number(write):
    path = write(GOOD)
    assert [f[2] for f in glossary.discouraged("Lexemes, a lexeme", "en", path)] == [
        "Lexemes",
        "lexeme",
    ]
    assert glossary.discouraged("lexemic prolexeme", "en", path) == []


@pytest.mark.parametrize(
    "text",
    [
        "`令牌`",
        "``` text\n令牌\n```",
        "    ``` text\n    令牌\n    ```",
        "$\\text{令牌}$",
        "$$\n令牌\n$$",
        "<!-- 令牌 -->",
        "常误译为<del>令牌</del>。",
        "[词元](token.md#令牌)",
        '``` { .dot alt="令牌" }\nx\n```',
        "---\ntitle: 令牌\n---\n",
        "词元",
    ],
)
def test_code_formulas_targets_struck_words_and_longer_terms_are_free(write, text):
    assert glossary.discouraged(text, "zh", write(GOOD)) == []


def test_prose_after_a_fence_is_not_free(write):
    text = "``` text\n令牌\n```\n令牌\n\n``` text\nx\n```\n"
    assert [f[0] for f in glossary.discouraged(text, "zh", write(GOOD))] == [4]


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="language must be one of en, zh, got 'fr'"):
        glossary.table("fr")
