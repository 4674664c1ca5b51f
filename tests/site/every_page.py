"""What holds on every page of the built site, seen in a browser.

Each language has a file of its own, because a file of tests stays with one process.
"""


def report(visits: dict, name: str) -> str:
    """Return one line for each page whose visit holds something under `name`."""
    return "\n".join(
        f"{address}: {line}" for address, visit in visits.items() for line in getattr(visit, name)
    )


class EveryPage:
    """The checks; a subclass says of which language."""

    language = ""

    def test_no_page_asks_another_host_for_anything(self, visits):
        assert report(visits, "foreign") == ""

    def test_no_page_complains_in_the_console(self, visits):
        assert report(visits, "complaints") == ""

    def test_every_page_is_accessible_in_both_colour_schemes(self, visits):
        assert report(visits, "violations") == ""

    def test_no_page_scrolls_sideways_on_a_phone(self, visits):
        assert report(visits, "wide") == ""

    def test_no_line_on_a_phone_begins_with_the_punctuation_behind_a_formula(self, visits):
        assert report(visits, "strays") == ""

    def test_the_words_of_diagrams_fit_their_nodes(self, visits):
        assert report(visits, "labels") == ""

    def test_formulas_are_visible_and_have_mathml(self, visits):
        broken = {
            address: visit.formulas
            for address, visit in visits.items()
            if visit.formulas["flat"]
            or visit.formulas["silent"]
            or visit.formulas["raw"]
            or (visit.formulas["shown"] and not visit.formulas["fonts"])
        }
        assert broken == {}
        assert any(visit.formulas["shown"] for visit in visits.values())

    def test_fonts_are_the_site_s_own_and_small(self, visits):
        for address, visit in visits.items():
            for font in visit.formulas["files"]:
                assert "/assets/katex/fonts/" in font, address
                assert font.endswith(".woff2"), address
            assert visit.formulas["files"] or not visit.formulas["shown"], address
