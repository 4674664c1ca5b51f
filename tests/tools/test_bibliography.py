"""The BibTeX file, its labels and the messages about citations."""

from pathlib import Path

import pytest

from tools import bibliography

GOOD = r"""
@article{lecun1998,
  title = {Gradient-Based Learning {A}pplied},
  author = {LeCun, Yann and Bottou, L{\'e}on and Bengio, Yoshua},
  journal = {Proceedings of the IEEE}, volume = {86}, number = {11}, pages = {2278--2324},
  year = {1998}, doi = {10.1109/5.726791}
}
@misc{vaswani2017,
  title = {Attention Is All You Need},
  author = {Vaswani, Ashish and Shazeer, Noam},
  year = {2017}, eprint = {1706.03762}, archiveprefix = {arXiv}
}
@book{strang2019,
  title = {Linear Algebra and Learning from Data}, author = {Strang, Gilbert},
  publisher = {Wellesley}, year = {2019}, isbn = {978-0-692-19638-0}
}
"""
CITED = {key: ["docs/en/x.md:1"] for key in ("lecun1998", "vaswani2017", "strang2019")}


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "bibliography.bib"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_handbooks_own_file_has_an_identifier_for_every_entry():
    cited = dict.fromkeys(bibliography.load(), ("here",))
    assert bibliography.problems(cited) == []


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("strang2019", "Strang 2019"),
        ("vaswani2017", "Vaswani and Shazeer 2017"),
        ("lecun1998", "LeCun et al. 1998"),
    ],
)
def test_a_label_names_one_two_or_more_authors(write, key, label):
    assert bibliography.cite(key, write(GOOD)) == label


def test_equal_labels_get_letters(write):
    twin = GOOD.replace("{strang2019,", "{strang2019b,")[GOOD.index("@book") :]
    path = write(GOOD + twin)
    assert bibliography.cite("strang2019", path) == "Strang 2019a"
    assert bibliography.cite("strang2019b", path) == "Strang 2019b"


def test_an_entry_shows_names_title_place_and_a_link(write):
    assert bibliography.format_entry("lecun1998", path=write(GOOD)) == (
        "Yann LeCun, Léon Bottou, Yoshua Bengio (1998). *Gradient-Based Learning Applied*. "
        "Proceedings of the IEEE 86(11), 2278\u20132324. "
        "[doi:10.1109/5.726791](https://doi.org/10.1109/5.726791)"
    )


def test_a_long_list_of_authors_is_cut(write):
    many = " and ".join(f"{letter}, X." for letter in "ABCDEFGHI")
    path = write(GOOD.replace("Strang, Gilbert", many))
    assert "X. G, et al. (2019)" in bibliography.format_entry("strang2019", "en", path)
    assert "X. G, 等 (2019)" in bibliography.format_entry("strang2019", "zh", path)


def test_a_list_that_ends_in_others_names_none_of_them(write):
    path = write(GOOD.replace("Strang, Gilbert", "A, X. and B, Y. and others"))
    assert bibliography.cite("strang2019", path) == "A et al. 2019"
    assert bibliography.format_entry("strang2019", "en", path).startswith(
        "X. A, Y. B, et al. (2019)"
    )
    path = write(GOOD.replace("Strang, Gilbert", "A, X. and others"))
    assert bibliography.cite("strang2019", path) == "A et al. 2019"


def test_references_are_sorted_by_label_and_listed_once(write):
    text = bibliography.references(["vaswani2017", "lecun1998", "lecun1998"], "en", write(GOOD))
    lecun, vaswani = text.splitlines()
    assert lecun.startswith("- Yann LeCun")
    assert vaswani.startswith("- Ashish Vaswani")


def test_the_table_has_the_key_as_anchor(write):
    assert "\n**Strang 2019** { #strang2019 }\n:   Gilbert" in bibliography.table("zh", write(GOOD))


def test_an_unknown_key_is_reported_where_it_is_cited_with_the_nearest_key(write):
    cited = CITED | {"vaswani2018": ["docs/en/x.md:3", "docs/zh/x.md:4"]}
    message = "[@vaswani2018] is not in bibliography.bib; did you mean vaswani2017?"
    assert bibliography.problems(cited, write(GOOD)) == [
        f"docs/en/x.md:3: {message}",
        f"docs/zh/x.md:4: {message}",
    ]


def test_a_complete_file_has_no_problems(write):
    assert bibliography.problems(CITED, write(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("eprint = {1706.03762},", ""), "vaswani2017: needs a 'doi', an 'eprint'"),
        (("10.1109/5.726791", "https://doi.org/10.1109/5.726791"), "'doi' must look like"),
        (("{1706.03762}", "{arXiv:1706.03762v7}"), "'eprint' must look like 1706.03762"),
        (("978-0-692-19638-0", "978-0-692-19638-1"), "'isbn' has a wrong check digit"),
        (("year = {2019},", ""), "strang2019: 'year' is missing"),
        (("author = {Strang, Gilbert},", ""), "strang2019: 'author' (or 'editor') is missing"),
        (("@book{strang2019", "@book{vaswani2017"), "not valid BibTeX: repeated"),
        (("year = {2019},", "year = {2019"), "not valid BibTeX: syntax error"),
    ],
)
def test_each_fault_of_the_file_is_named(write, change, message):
    found = bibliography.problems(CITED, write(GOOD.replace(*change)))
    assert any(message in problem for problem in found), found


def test_an_entry_that_no_page_cites_is_a_problem(write):
    cited = {key: places for key, places in CITED.items() if key != "strang2019"}
    assert bibliography.problems(cited, write(GOOD)) == [
        "bibliography.bib: strang2019: no page cites it; cite it or remove it"
    ]


def test_citing_an_unknown_key_raises(write):
    with pytest.raises(KeyError, match="no entry 'nobody' in the bibliography"):
        bibliography.cite("nobody", write(GOOD))
