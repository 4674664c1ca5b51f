"""What holds on every page of the built site, seen in a browser."""


def report(visits: dict, name: str) -> str:
    """Return one line for each page whose visit holds something under `name`."""
    return "\n".join(
        f"{address}: {line}" for address, visit in visits.items() for line in getattr(visit, name)
    )


def test_no_page_asks_another_host_for_anything(visits):
    assert report(visits, "foreign") == ""


def test_no_page_complains_in_the_console(visits):
    assert report(visits, "complaints") == ""


def test_every_page_is_accessible_in_both_colour_schemes(visits):
    assert report(visits, "violations") == ""


def test_no_page_scrolls_sideways_on_a_phone(visits):
    assert report(visits, "wide") == ""


def test_formulas_are_visible_and_have_mathml(visits):
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


def test_fonts_come_from_the_site_and_only_where_there_are_formulas(visits):
    for address, visit in visits.items():
        fonts = [url for url in visit.requests if url.endswith((".woff2", ".woff", ".ttf"))]
        assert all("/assets/katex/fonts/" in url and url.endswith(".woff2") for url in fonts), (
            address
        )
        assert bool(fonts) == bool(visit.formulas["shown"]), address
