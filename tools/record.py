"""Recorded outputs and figures: what they hold, how they are written, what they must equal.

`python -m tools.record NAME …` runs the snippets and accepts what they print and plot.
Sections named `long-…` compute only with `--long`; else what is recorded of them stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from tools import compare, runner
from tools import page as pages

HEADER = """\
Recorded by `nox -s record -- {name}`; never edited by hand.
snippet {snippet}
versions {versions}
device {device}
"""


def is_long(section: str) -> bool:
    """Whether a section takes too long for every test run: its name begins with `long-`."""
    return section.startswith("long-")


def _section_hash(name: str, section: str) -> str:
    """Return the SHA-256 of a section's code, without the lines of other sections."""
    code = next((s.code for s in pages.sections(name) if s.name == section), "")
    return _sha(code)


def snippet_hash(name: str) -> str:
    """Return the SHA-256 of a snippet file."""
    return hashlib.sha256((pages.SNIPPETS / f"{name}.py").read_bytes()).hexdigest()


def text_path(name: str) -> Path:
    """Return the file that holds a page's recorded outputs."""
    return pages.RECORDED / f"{name}.txt"


def data_path(name: str) -> Path:
    """Return the file that holds the data of a page's figures."""
    return pages.RECORDED / f"{name}.json"


def figure_path(language: str, name: str, section: str) -> Path:
    """Return the SVG of a figure in a language."""
    return pages.DOCS / language / "figures" / f"{name}-{section}.svg"


def outputs(name: str) -> tuple[str, dict[str, str]]:
    """Return the snippet hash that a recorded file states, and its sections.

    Raises:
        ValueError: there is no such file.
    """
    path = text_path(name)
    if not path.exists():
        raise ValueError(f"{_relative(path)} does not exist; make it: nox -s record -- {name}")
    text = path.read_text("utf-8")
    stated = re.search(r"^snippet (\w+)$", text, re.MULTILINE)
    found = re.findall(
        r"^--8<-- \[start:([\w-]+)\]\n(.*?)^--8<-- \[end:\1\]$", text, re.MULTILINE | re.DOTALL
    )
    return stated[1] if stated else "", dict(found)


def figures(name: str) -> dict[str, Any]:
    """Return what is recorded of a page's figures: hash of the snippet, figures by section."""
    path = data_path(name)
    return json.loads(path.read_text("utf-8")) if path.exists() else {"snippet": "", "figures": {}}


def _relative(path: Path) -> str:
    return path.relative_to(pages.ROOT).as_posix()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def long_runs(name: str) -> dict[str, str]:
    """Return the line of the recorded file that says of each long section what made it."""
    path = text_path(name)
    text = path.read_text("utf-8") if path.exists() else ""
    return {match[1]: match[0] for match in re.finditer(r"^(long-[\w-]+) .*$", text, re.MULTILINE)}


def files(run: runner.Run, long: bool = False) -> dict[Path, str]:
    """Return the files that record a run, with their contents.

    Args:
        run: what ran without an error.
        long: whether its long sections computed; if not, what is recorded of them is kept.
    """
    printed = {r.section: r.printed for r in run.results}
    lines, kept = {}, {}
    if long:
        versions = " ".join(f"{key} {value}" for key, value in run.versions.items())
        lines = {
            r.section: f"{r.section} {_section_hash(run.name, r.section)} {r.seconds:.0f} s "
            f"{run.device} {versions}"
            for r in run.results
            if is_long(r.section)
        }
    elif text_path(run.name).exists():
        names = {r.section for r in run.results}
        lines = {key: line for key, line in long_runs(run.name).items() if key in names}
        printed |= {key: outputs(run.name)[1].get(key, "") for key in lines}
        kept = {key: f for key, f in figures(run.name)["figures"].items() if key in lines}
    head = HEADER.format(
        name=run.name,
        snippet=snippet_hash(run.name),
        versions=", ".join(f"{key} {value}" for key, value in run.versions.items()),
        device=run.device,
    )
    head += "".join(f"{line}\n" for line in lines.values())
    parts = [
        f"--8<-- [start:{section}]\n{text.rstrip()}\n--8<-- [end:{section}]\n"
        for section, text in printed.items()
        if text.strip()
    ]
    result = {text_path(run.name): "\n".join([head, *parts])}
    for section in kept:
        for path in (figure_path(language, run.name, section) for language in pages.LANGUAGES):
            result[path] = path.read_text("utf-8")
    drawn = [r for r in run.results if r.figure is not None]
    for entry in drawn:
        for language, svg in entry.svg.items():
            result[figure_path(language, run.name, entry.section)] = svg
    fresh = {
        r.section: {
            "words": r.words,
            "svg": {language: _sha(svg) for language, svg in r.svg.items()},
            "axes": r.figure,
        }
        for r in drawn
    }
    if found := fresh | kept:
        recorded = {
            "snippet": snippet_hash(run.name),
            "versions": run.versions,
            "device": run.device,
            "figures": {r.section: found[r.section] for r in run.results if r.section in found},
        }
        result[data_path(run.name)] = _compact(recorded)
    return result


def _compact(recorded: dict[str, Any]) -> str:
    """Return JSON with each list of numbers on one line, so that a change shows as a line."""
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    flat = re.compile(r"\[\s*([^\[\]{}]*?)\s*\]")
    return flat.sub(lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text) + "\n"


def stale(page: pages.Page) -> list[pages.Problem]:
    """Return what is out of date or edited in the recorded files of a page, without running it."""
    name, found = page.name, []
    if not (pages.SNIPPETS / f"{name}.py").exists():
        return []
    now = snippet_hash(name)
    again = f"run: nox -s record -- {name}"
    try:
        stated, recorded = outputs(name)
    except ValueError as error:
        return [pages.Problem(page.path, 1, str(error))]
    if stated != now:
        found.append(
            pages.Problem(text_path(name), 2, f"made by another snippets/{name}.py; {again}")
        )
    for block in page.of("output"):
        section = block.attributes["section"]
        if section not in recorded:
            found.append(
                pages.Problem(page.path, block.line, f"no recorded output {section!r}; {again}")
            )
    for section, line in long_runs(name).items():
        if line.split()[1] != _section_hash(name, section):
            found.append(
                pages.Problem(
                    text_path(name),
                    1,
                    f"section {section!r} was recorded with other code; run: nox -s long -- {name}",
                )
            )
    drawn = figures(name)
    if drawn["figures"] and drawn["snippet"] != now:
        found.append(
            pages.Problem(data_path(name), 2, f"made by another snippets/{name}.py; {again}")
        )
    for section, figure in drawn["figures"].items():
        path = figure_path(page.language, name, section)
        if not path.exists():
            found.append(pages.Problem(path, 1, f"the figure's file is missing; {again}"))
        elif _sha(path.read_text("utf-8")) != figure["svg"][page.language]:
            found.append(pages.Problem(path, 1, f"not the file that was recorded; {again}"))
        if page.language == "zh":
            known = page.meta.get("figure_words") or {}
            missing = [word for word in figure["words"] if word not in known]
            if missing:
                found.append(
                    pages.Problem(
                        page.path,
                        1,
                        f"figure_words lacks {', '.join(map(repr, missing))}; then {again}",
                    )
                )
            elif path.exists():
                svg = _unescaped(path.read_text("utf-8"))
                absent = [
                    w
                    for w in figure["words"]
                    if not all(part in svg for part in str(known[w]).split("\n"))
                ]
                if absent:
                    found.append(
                        pages.Problem(
                            path,
                            1,
                            f"lacks the translation of {', '.join(map(repr, absent))}; {again}",
                        )
                    )
    return found


def _unescaped(svg: str) -> str:
    return svg.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def failures(page: pages.Page, run: runner.Run) -> dict[int, str]:
    """Compare a run with the page and its recorded files.

    Returns:
        What is wrong, by the line of the page's block. A block after the first error is not
        in it: it is blocked, not wrong.
    """
    wrong: dict[int, str] = {}
    try:
        _, recorded = outputs(page.name)
    except ValueError as error:
        return {page.blocks[0].line if page.blocks else 1: str(error)}
    plotted = figures(page.name)["figures"]
    results = {result.section: result for result in run.results}
    for block in page.of("code"):
        section = block.attributes["section"]
        result = results.get(section)
        if result is None:
            continue
        if result.error:
            wrong[block.line] = result.error
            continue
        shown = [b for b in page.of("output") if b.attributes["section"] == section]
        if result.printed.strip() and not shown:
            wrong[block.line] = f"section {section!r} prints, but the page shows no output of it"
        if result.figure is not None:
            target = f"figures/{page.name}-{section}.svg"
            if target not in {b.attributes["target"] for b in page.of("figure")}:
                wrong[block.line] = (
                    f"section {section!r} draws a figure, but the page does not show {target}"
                )
    for block in page.of("output"):
        result = results.get(block.attributes["section"])
        if result is None or result.error or is_long(result.section):
            continue
        before = recorded.get(block.attributes["section"], "")
        if difference := compare.texts(before, result.printed, block.attributes.get("title", "")):
            wrong[block.line] = (
                f"snippets/{page.name}.py, section {result.section!r}, prints something else:\n{difference}"
            )
    for block in page.of("figure"):
        match = re.fullmatch(
            rf"figures/{re.escape(page.name)}-([\w-]+)\.svg", block.attributes["target"]
        )
        if not match or is_long(match[1]):
            continue
        result = results.get(match[1])
        if result is None:
            if run.error is None:
                wrong[block.line] = f"no section {match[1]!r} draws this figure"
        elif not result.error:
            before = plotted.get(match[1], {}).get("axes")
            if difference := compare.plots(before, result.figure, block.attributes["title"]):
                wrong[block.line] = (
                    f"snippets/{page.name}.py, section {match[1]!r}, draws something else: {difference}"
                )
    return wrong


def replace(contents: dict[Path, str], unwanted: list[Path]) -> None:
    """Write files so that an interruption leaves either all old or all new ones."""
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        for path, text in contents.items():
            runner.write(path, text)
        for path in unwanted:
            path.unlink(missing_ok=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def record(names: list[str], device: str = "cpu", long: bool = False) -> int:
    """Run pages and accept what they print and plot; write nothing of a page that fails."""
    engine = runner.Runner(names, device)
    failed = 0
    for name in names:
        run = engine.run(name, draw=True, long=long)
        if run.error is not None:
            print(
                f"{name}: section {run.error.section!r} failed; its recorded files stay as they were\n{run.error.error}\n",
                file=sys.stderr,
            )
            failed += 1
            continue
        contents = files(run, long)
        before = [data_path(name)]
        before += [
            p
            for language in pages.LANGUAGES
            for p in (pages.DOCS / language / "figures").glob(f"{name}-*.svg")
        ]
        changed = [
            path
            for path, text in contents.items()
            if not path.exists() or path.read_text("utf-8") != text
        ]
        replace(contents, [path for path in before if path not in contents])
        listed = ", ".join(_relative(path) for path in changed) or "nothing changed"
        print(f"{name}: {run.seconds:.1f} s, {run.memory / 2**20:.0f} MiB; {listed}")
    return 1 if failed else 0


def _main() -> int:
    parser = argparse.ArgumentParser(description="Record the outputs and figures of pages.")
    known = sorted(path.stem for path in pages.SNIPPETS.glob("*.py"))
    parser.add_argument("names", nargs="+", help="page names")
    parser.add_argument("--device", choices=runner.DEVICES, default="cpu")
    parser.add_argument("--long", action="store_true", help="run the sections `long-…` too")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no snippet for {', '.join(unknown)}; there are: {', '.join(known)}")
    return record(options.names, options.device, options.long)


if __name__ == "__main__":
    sys.exit(_main())
