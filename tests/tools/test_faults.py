"""The handbook must fail when it should: each fault is planted in a copy and must be named, with its place."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tools import page as pages

EN, ZH, SNIPPET, MODULE = (
    "docs/en/tiny.md",
    "docs/zh/tiny.md",
    "snippets/tiny.py",
    "aimodels/tiny.py",
)


def test_a_new_page_has_no_problems_once_recorded_and_reviewed(handbook):
    assert [p for p in handbook.layout() if "tiny" in p] == []
    code, said = handbook.page()
    assert code == 0, said
    assert "slowest pages" in said


# What the structural check must say. Each: file, text there, text planted, what is said, with place.
STRUCTURE = {
    "a changed snippet with stale output": (SNIPPET, "10.0]", "11.0]", "docs/recorded/tiny.txt:2: made by another snippets/tiny.py"),
    "a misspelt section": (EN, "tiny.py:center", "tiny.py:centre", f"{EN}:31: Snippet section 'centre' could not be located"),
    "a missing file": (EN, "tiny.py:center", "tinny.py:center", f"{EN}:31: code of this page is --8<-- \"tiny.py:section\""),
    "code typed into a page": (EN, '--8<-- "tiny.py:center"', "print(1)", f"{EN}:31: code is typed into the page"),
    "a fence that nothing classifies": (EN, "## In code", "``` pyhton\nx = 1\n```\n\n## In code", f"{EN}:29: nothing classifies this fence ('pyhton')"),
    "an untested fence without a reason": (EN, "## In code", '``` { .bash notest="" }\nls\n```\n\n## In code', f"{EN}:29: notest needs a reason"),
    "a fence that never ends": (EN, "Back to", "``` python\nBack to", f"{EN}:77: this fence never ends"),
    "a block missing in one language": (ZH, '``` python\n--8<-- "tiny.py:picture"\n```\n', "", f"{ZH}:46: differs from {EN}:43"),
    "a block added in one language": (ZH, "## 常见问题", '!!! note "注意"\n    多出的一块。\n\n## 常见问题', f"{ZH}:61: differs from {EN}:59: here admonition '!!! note'"),
    "an id that differs": (ZH, "{#pitfalls}", "{#traps}", f"{ZH}:61: differs from {EN}:59: here heading '2 traps'"),
    "a heading without an id": (ZH, "## 常见问题 {#pitfalls}", "## 常见问题", f"{ZH}:61: heading '常见问题' has no explicit id"),
    "a display formula that differs": (ZH, "X_{bd} - ", "X_{bd} + ", f"{ZH}:27: differs from {EN}:25: here formula"),
    "an inline formula that differs": (ZH, "$B$ 是", "$N$ 是", f"{ZH}:23: under #mathematics the formula 'B' of the other language is missing"),
    "a figure that differs": (ZH, "figures/tiny-picture.svg", "figures/tiny-center.svg", f"{ZH}:49: differs from {EN}:47: here figure"),
    "a figure without a text": (ZH, "![两个点连成一条线。]", "![]", f"{ZH}:49: figure figures/tiny-picture.svg has no alternative text"),
    "a figure with another title": (ZH, "figures/tiny-picture.svg)", 'figures/tiny-picture.svg "图 1")', f"{ZH}:49: a figure's title is its tolerance"),
    "a diagram that differs": (ZH, "table -> centred", "centred -> table", f"{ZH}:19: differs from {EN}:17: here diagram"),
    "an annotation too few": (ZH, "1.  说明标记处做了什么。\n", "", f"{ZH}:33: 1 annotation markers in 'center', 0 explanations after it"),
    "an exercise without its solution": (ZH, '??? success "解答"', '??? note "解答"', f"{ZH}:67: an exercise is followed by its solution"),
    "a tolerance that differs": (ZH, "{ .text .output }", '{ .text .output title="± 1" }', f"{ZH}:39: differs from {EN}:37: here output"),
    "a dead link": (EN, "index.md", "nowhere.md", f"{EN}:77: dead link: nowhere.md"),
    "a dead anchor": (EN, "index.md", "index.md#nowhere", f"{EN}:77: dead anchor: index.md#nowhere"),
    "an unknown citation": (EN, "The idea in words", "[@nobody1900]: the idea in words", f"{EN}:15: [@nobody1900] is not in bibliography.bib"),
    "an unused key": ("docs/bibliography.bib", "@", "@misc{unused1900, title={T}, author={A, B}, year={1900}, doi={10.1000/1}}\n@", "bibliography.bib: unused1900: no page cites it"),
    "a counterpart that changed": (EN, "What problem", "Which problem", f"{ZH}:1: to be reviewed: docs/en/tiny.md has changed"),
    "a module importing a later one": (MODULE, "import numpy as np", "import numpy as np\n\nfrom aimodels.attention import causal_mask", f"{MODULE}:8: imports aimodels.attention, whose page comes later"),
    "Keras from a NumPy module": (MODULE, "import numpy as np", "import keras\nimport numpy as np", f"{MODULE}:6: aimodels.tiny may not import keras"),
    "a test that imports a snippet": ("tests/test_tiny.py", "import pytest", "import pytest\nimport snippets.tiny", "tests/test_tiny.py:3: may not import snippets"),
    "a section shown out of order": (SNIPPET, "[start:check]", "[start:chuck]", "docs/en/tiny.md:1: snippets/tiny.py:21: section 'check' ends, but 'chuck' is open"),
    "an untranslated word in a figure": (ZH, "first column: 第一列", "second column: 第二列", f"{ZH}:1: figure_words lacks 'first column'"),
    "a figure edited by hand": ("docs/zh/figures/tiny-picture.svg", "第一列", "第二列", "docs/zh/figures/tiny-picture.svg:1: not the file that was recorded"),
    "a page without a test": ("mkdocs.yml", "      - tiny.md", "      - tiny.md\n      - alone.md", "tests/test_alone.py:1: missing: 'alone'"),
    "a front matter without a title": (EN, "title: Tiny", "titel: Tiny", f"{EN}:1: front matter lacks 'title'"),
    "a nine-section order that is broken": (EN, "{#problem}", "{#why}", f"{EN}:1: second-level headings are why, idea"),
}  # fmt: skip


@pytest.mark.parametrize("fault", STRUCTURE)
def test_the_structural_check_names_the_fault(handbook, fault):
    file, before, after, message = STRUCTURE[fault]
    handbook.change(file, before, after)
    problems = handbook.layout()
    about = [p for p in problems if "tiny" in p]
    assert any(p.startswith(message) for p in problems), "\n".join([message, *about])


PLOT = 'axes.plot(*center(x).T, "o-")'
# What running the page must say: planted in place of a line of the snippet's second section.
RUNS = {
    "a name of another page": ("import matplotlib.pyplot as plt", "attention_weights", "NameError: name 'attention_weights' is not defined"),
    "an endless loop": (PLOT, "while True: pass", "snippets/tiny.py:14: still running after 3 s, the page's limit"),
    "a 10 GB allocation": (PLOT, "np.ones(10 * 2**27)", "snippets/tiny.py:14: numpy._core._exceptions._ArrayMemoryError"),
    "a file written into the tree": (PLOT, 'open(np.__file__.split("/")[0] + "TREE/snippets/x.py", "w")', "a page may not write into the tree"),
    "the network": (PLOT, 'import urllib.request; urllib.request.urlopen("http://example.org")', "a page may not open the network: example.org"),
    "two figures": (PLOT, "plt.subplots()", "section 'picture' leaves 2 figures open"),
    "other figure data": (PLOT, 'axes.plot(*(1.1 * center(x)).T, "o-")', "section 'picture', draws something else: figure[0], lines[0][0][0]: recorded -1.0, drawn now -1.1"),
    "an output the page does not show": (PLOT, 'print("hello")', "section 'picture' prints, but the page shows no output of it"),
    "a killed process": (PLOT, "import os; os.kill(os.getpid(), 9)", "the process ended with exit code -9"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RUNS)
def test_running_the_page_names_the_fault(handbook, fault):
    before, after, message = RUNS[fault]
    handbook.change(SNIPPET, before, after.replace("TREE", str(handbook.root)))
    handbook.change(EN, "reviewed:", "timeout: 3\nreviewed:")
    code, said = handbook.page()
    assert code == 1, said
    assert message in said
    assert "run again: nox -s page -- tiny" in said


def test_a_digit_changed_in_a_recorded_output_is_shown_as_a_difference(handbook):
    handbook.change("docs/recorded/tiny.txt", "10.", "12.")
    code, said = handbook.page()
    assert code == 1
    assert "docs/en/tiny.md:37: output under #code" in said
    assert "accept:    nox -s record -- tiny" in said
    assert "-[[ -1. -12.]" in said
    assert "+[[ -1. -10.]" in said


def test_sections_after_an_error_are_blocked_and_not_failures(handbook):
    handbook.change(SNIPPET, "x = np.array", "x = np.arrray")
    code, said = handbook.page("tiny", "-rs")
    assert code == 1
    assert "2 failed" in said  # the section, and the structure: the recorded output is stale
    assert "blocked by section 'center'" in said
    assert "snippets/tiny.py:6: AttributeError" in said


def test_a_gpu_that_is_not_there_stops_the_run(handbook):
    code, said = handbook.page("tiny", "--device", "gpu")
    assert code == 4
    assert "--device gpu: TensorFlow sees no GPU; nothing was run" in said


def test_a_failing_snippet_leaves_the_recorded_files_as_they_were(handbook):
    recorded = handbook.root / "docs/recorded/tiny.txt"
    before = recorded.read_bytes()
    handbook.change(SNIPPET, "axes.set_xlabel", "axes.set_xlable")
    done = handbook.run("tools.record", "tiny")
    assert done.returncode == 1
    assert "its recorded files stay as they were" in done.stderr
    assert recorded.read_bytes() == before


def test_interrupting_record_leaves_the_old_files_whole(handbook):
    handbook.change(SNIPPET, PLOT, f"{PLOT}\nimport time; open('reached', 'w'); time.sleep(60)")
    docs, scratch = handbook.root / "docs", handbook.root / "scratch"
    files = [*(docs / "recorded").glob("tiny.*"), *docs.glob("*/figures/tiny-*")]
    before = {path: path.read_bytes() for path in files}
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.record", "tiny"],
        cwd=handbook.root,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not [*scratch.glob("page-tiny-*/reached")]:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert {path: path.read_bytes() for path in files} == before
    assert [path.name for path in docs.rglob(".*") if path.is_file()] == []


def test_new_overwrites_nothing(handbook):
    before = (handbook.root / EN).read_bytes()
    done = handbook.run("tools.new", "tiny", "Tiny", "小例")
    assert done.returncode == 2
    assert "already there, nothing was written: aimodels/tiny.py" in done.stderr
    assert (handbook.root / EN).read_bytes() == before


@pytest.mark.parametrize(("words", "message"), [
    (("Bad-Name", "T", "标"), "lower-case letters, digits, underscores; got 'Bad-Name'"),
    (("lambda", "T", "标"), "got 'lambda'"),
    (("fresh", "", "标"), "both titles are needed"),
    (("fresh", "T", "标", "Elsewhere"), "group is one of Foundations, Architectures, Ways of learning, Engineering; got 'Elsewhere'"),
])  # fmt: skip
def test_new_names_what_it_cannot_take(handbook, words, message):
    done = handbook.run("tools.new", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_stamp_is_written_only_for_a_page_that_passed(handbook):
    stamp = handbook.root / "build/verified/tiny.json"
    handbook.page()
    assert set(json.loads(stamp.read_text())) == {
        "device",
        "versions",
        "seconds",
        "memory",
        "date",
        "commit",
    }
    stamp.unlink()
    handbook.change("docs/recorded/tiny.txt", "10.", "12.")
    handbook.page()
    assert not stamp.exists()


def test_bad_tex_and_a_bad_diagram_fail_the_build_and_are_named(handbook):
    (handbook.root / "node_modules").symlink_to(pages.ROOT / "node_modules")
    handbook.change(ZH, r"\sum_{i=1}^{B} X_{id}", r"\summ_{i=1}^{B} X_{id}")
    handbook.change(EN, "table -> centred", "table -> -> centred")
    done = handbook.run("tools.site", "build", "--site", "built")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"{ZH}:28: KaTeX" in said
    assert "\\summ" in said
    assert f"{EN}:18: Graphviz" in said
