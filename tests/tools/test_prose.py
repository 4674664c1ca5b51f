"""The lint of prose: what it finds, and where it says that it is."""

import re
import shutil
from pathlib import Path

import pytest

from tools import prose

FRONT = "---\ntitle: T\ndescription: D\n---\n\n# T {#t}\n\n"


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes a handbook of one page in each language."""

    def _tree(english: str, chinese: str) -> Path:
        for name in ("README.md", "CONTRIBUTING.md"):
            (tmp_path / name).write_text("# T\n", encoding="utf-8")
        for language, text in (("en", english), ("zh", chinese)):
            folder = tmp_path / "docs" / language
            folder.mkdir(parents=True)
            (folder / "x.md").write_text(FRONT + text, encoding="utf-8")
        return tmp_path

    return _tree


@pytest.fixture(autouse=True)
def _only_the_tree(monkeypatch):
    monkeypatch.setattr(prose, "SPELLED", ())


def test_a_discouraged_term_is_reported_with_its_line_and_the_better_one():
    text = FRONT + "用令牌表示。\n"
    assert prose.terms(text, "zh") == [
        (8, "write '词元' instead of '令牌': “令牌”是身份认证中的 token。")
    ]


def test_a_tool_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="rumdl is not installed; run: nox -s lint"):
        prose.markdown([])


def test_a_clean_page_has_no_problems(tree):
    root = tree("Plain words.\n", "用 `x` 表示 $y$，见[词元](y.md)。\n")
    assert prose.problems(root) == []


@pytest.mark.parametrize(
    ("english", "chinese", "expected"),
    [
        ("This is teh one.\n", "", r"docs/en/x\.md:8: spelling: teh ==> the"),
        ("## Two {#two}\nText.\n", "", r"docs/en/x\.md:8:\d+: \[MD022\]"),
        ("With max-pooling.\n", "", r"docs/en/x\.md:8: write 'max pooling' instead of 'max-pool"),
        ("", "用Keras写。\n", r"docs/zh/x\.md:8: write '用 Keras 写。', not '用Keras写。'"),
        ("", "第一,第二。\n", r"docs/zh/x\.md:8: write '第一，第二。', not"),
        ("", "用`x`表示。\n", r"docs/zh/x\.md:8: a space between Chinese and `x`"),
        ("", '!!! note "注"\n    用Keras写。\n', r"docs/zh/x\.md:9: write '用 Keras 写。', not"),
        ("", "升高 5 %。\n", r"docs/zh/x\.md:8: no space before the percent sign: '5 %'"),
        ("", "用 $x$ 或$y$表示。\n", r"docs/zh/x\.md:8: write .*\$y\$ 表示"),
        (
            "",
            "递归神经网络。\n",
            r"docs/zh/x\.md:8: write '循环神经网络' instead of '递归神经网络'",
        ),
    ],
)
def test_each_fault_is_found_at_its_line(tree, english, chinese, expected):
    found = prose.problems(tree(english or "Plain.\n", chinese or "平常。\n"))
    assert len(found) == 1, found
    assert re.search(expected, found[0])


def test_code_and_formulas_are_left_alone(tree):
    text = (
        '``` { .text notest="why" }\n用Keras写,令牌\n```\n\n'
        "$$\nx,y\n$$\n\n见 `用Keras写` 与 <del>令牌</del>。\n"
    )
    assert prose.problems(tree("Plain.\n", text)) == []


def test_the_handbooks_own_prose_has_no_problems(monkeypatch):
    monkeypatch.undo()
    assert prose.problems() == []


# --- What the guides say of the tools must be true of the tools -----------------------------------

GUIDES = ("README.md", "CONTRIBUTING.md", "docs/zh/contributing.md")


def text_of(name: str) -> str:
    return (prose.ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_nox_session_that_a_guide_names_exists(guide):
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)", text_of("noxfile.py"), re.MULTILINE))
    named = set(re.findall(r"nox -s (\w+)", text_of(guide))) - {"NAME"}
    assert len(named) > 5
    assert named - sessions == set()


@pytest.mark.parametrize("guide", GUIDES[1:])
def test_every_message_that_a_guide_explains_is_one_of_the_tools(guide):
    sources = " ".join(path.read_text("utf-8") for path in (prose.ROOT / "tools").glob("*.py"))
    section = text_of(guide).split("{#failures}")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    for message in re.findall(r"`([^`]+)`", " ".join(rows)):
        pieces = re.split(r"…|NAME|'[^']*'|:12|\.py|\[@key\]|bibliography\.bib", message)
        for piece in (piece.strip() for piece in pieces if len(piece.strip()) > 3):
            assert piece in sources, message


@pytest.mark.parametrize("guide", GUIDES)
def test_every_path_that_a_guide_names_exists(guide):
    paths = re.findall(r"`((?:docs|tools|snippets|aimodels|tests)/[\w/.-]+)`", text_of(guide))
    for path in (path for path in paths if "NAME" not in path):
        assert (prose.ROOT / path).exists(), path
