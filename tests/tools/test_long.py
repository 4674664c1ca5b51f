"""A section that takes too long for every run is recorded on request, kept, and known when stale."""

import re

SECTION = """
# --8<-- [start:long-sum]
import os

import matplotlib.pyplot as plt

if "HANDBOOK_LONG" in os.environ:
    print("sum", sum(range(1000)))
    plt.subplots()[1].plot([0, 1], [0, 1])
# --8<-- [end:long-sum]
"""
SHOWN = """\
``` python
--8<-- "tiny.py:long-sum"
```

``` { .text .output }
--8<-- "tiny.txt:long-sum"
```

![%s](figures/tiny-long-sum.svg)

"""


def longer(handbook):
    """Add a long section to the page, before its next heading."""
    path = handbook.root / "snippets" / "tiny.py"
    code = path.read_text("utf-8")
    before = code.index("\n# --8<-- [start:", code.index("# --8<-- [end:"))
    path.write_text(code[:before] + SECTION + code[before:], "utf-8")
    first = re.search(r"\[start:([\w-]+)\]", code)[1]
    for language, alt in (("en", "A line"), ("zh", "一条线")):
        page = handbook.root / "docs" / language / "tiny.md"
        text = page.read_text("utf-8")
        heading = text.index("\n#", text.index(f"tiny.py:{first}")) + 1
        page.write_text(text[:heading] + SHOWN % alt + text[heading:], "utf-8")


def test_a_long_section_is_recorded_kept_and_found_stale(handbook):
    longer(handbook)
    recorded = handbook.root / "docs" / "recorded" / "tiny.txt"
    done = handbook.run("tools.record", "--long", "tiny")
    assert done.returncode == 0, done.stderr
    with_long = recorded.read_text("utf-8")
    assert "sum 499500" in with_long
    assert re.search(r"^long-sum \w{64} \d+ s cpu python ", with_long, re.MULTILINE)
    handbook.run("tools.layout", "review", "tiny")
    code, said = handbook.page("tiny", "-rs")
    assert code == 0, said
    assert "2 skipped" in said
    assert "nox -s long -- tiny" in said

    # A plain recording computes nothing of it and keeps all of it, figure included.
    data = recorded.with_suffix(".json").read_text("utf-8")
    done = handbook.run("tools.record", "tiny")
    assert "nothing changed" in done.stdout, done.stdout + done.stderr
    assert recorded.read_text("utf-8") == with_long
    assert recorded.with_suffix(".json").read_text("utf-8") == data

    handbook.change("snippets/tiny.py", "sum(range(1000))", "sum(range(1001))")
    assert handbook.run("tools.record", "tiny").returncode == 0
    problems = set(handbook.layout())  # said for each language
    assert len(problems) == 1, problems
    problem = problems.pop()
    assert "section 'long-sum' was recorded with other code; run: nox -s long -- tiny" in problem
