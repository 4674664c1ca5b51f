"""Lint the prose: Markdown, English spelling, Chinese typography, terms of the glossary.

`python -m tools.prose` prints each problem as `path:line: message` and exits 1 if there is one.
The tools do the work: rumdl (`.rumdl.toml`), codespell (`.codespellrc`), autocorrect
(`.autocorrectrc`); this file runs them on the right files and fills three gaps of the last one.
"""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import glossary

ROOT = Path(__file__).resolve().parents[1]
# English is checked in code and comments too.
SPELLED = ("aimodels", "snippets", "tests", "tools", "noxfile.py", "docs/glossary.yml")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?P<before>[\u4e00-\u9fff])?(?P<code>(`+)(?!`)[^\n]*?(?<!`)\3(?!`))")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_PERCENT = re.compile(r"(?<!± )(?<![\d.])[\d.]+ %")  # in a title, ± 5 % is a tolerance


def markdown(paths: list[Path]) -> list[str]:
    """Return what rumdl finds: form of headings, lists, tables, blank lines."""
    flags = ["--no-cache", "--quiet", "--output-format", "concise", "--config", ".rumdl.toml"]
    return _run("rumdl", "check", *flags, *paths)


def spelling(paths: list[Path]) -> list[str]:
    """Return misspelt English words, each with what codespell takes it for."""
    return [re.sub(r":(\d+): ", r":\1: spelling: ", line) for line in _run("codespell", *paths)]


def typography(text: str) -> list[tuple[int, str]]:
    """Return line and message for spaces and punctuation of Chinese text.

    Autocorrect takes indented text (admonitions, lists) for code and does not look around code
    spans, so it is given the text without indentation and fences, and code spans are seen to here.
    """
    autocorrect_py = importlib.import_module("autocorrect_py")  # only the lint session has it
    autocorrect_py.load_config((ROOT / ".autocorrectrc").read_text(encoding="utf-8"))
    text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    text = re.sub(r"^[ \t]+", "", text, flags=re.MULTILINE)
    found = [
        (line.line, f"write {line.new.strip()!r}, not {line.old.strip()!r}")
        for line in autocorrect_py.lint_for(text, "markdown").lines
    ]
    for number, line in enumerate(text.splitlines(), 1):
        for match in _CODE.finditer(line):
            after = line[match.end() : match.end() + 1]
            if match["before"] or _HAN.match(after):
                found.append((number, f"a space between Chinese and {match['code']}"))
        for match in _PERCENT.finditer(_CODE.sub("", line)):
            found.append((number, f"no space before the percent sign: {match[0]!r}"))
    return sorted(found)


def terms(text: str, language: str) -> list[tuple[int, str]]:
    """Return line and message for each word that the glossary discourages."""
    return [
        (line, f"write {instead!r} instead of {found!r}: {why}")
        for line, _, found, instead, why in glossary.discouraged(text, language)
    ]


def problems(root: Path = ROOT) -> list[str]:
    """Return everything that is wrong with the prose of the handbook."""
    both = [root / "README.md", root / "CONTRIBUTING.md"]
    english, chinese = (
        sorted((root / "docs" / language).glob("*.md")) for language in ("en", "zh")
    )
    found = markdown([*both, *english, *chinese])
    found += spelling([*both, *english, *(root / name for name in SPELLED)])
    for path in [root / "README.md", *chinese]:
        text = path.read_text(encoding="utf-8")
        found += [_place(path, root, *problem) for problem in typography(text)]
        found += [_place(path, root, *problem) for problem in terms(text, "zh")]
    for path in [*both, *english]:
        text = path.read_text(encoding="utf-8")
        found += [_place(path, root, *problem) for problem in terms(text, "en")]
    return found


def _place(path: Path, root: Path, line: int, message: str) -> str:
    return f"{path.relative_to(root).as_posix()}:{line}: {message}"


def _run(tool: str, *arguments: str | Path) -> list[str]:
    """Run a tool of this environment and return its lines; fail if it does anything but lint."""
    program = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if program is None:
        raise SystemExit(f"{tool} is not installed; run: nox -s lint")
    words = [program, *(str(argument) for argument in arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line.replace(f"{ROOT}/", "") for line in done.stdout.splitlines() if line.strip()]
    if done.returncode and not lines:
        raise SystemExit(f"{tool} failed ({done.returncode}): {done.stderr.strip()}")
    return lines


def main() -> int:
    """Print every problem; return the exit status."""
    found = problems()
    print("\n".join([*found, f"prose: {len(found)} problems" if found else "prose: no problems"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
