"""The pytest plugin that runs pages: Sybil collects them, `tools.runner` runs them.

Pages of both languages include the same sections in the same order (`tools.layout` proves it), so
the English page is run and stands for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from sybil import Document, Region, Sybil
from sybil.example import Example

from tools import layout, record, runner
from tools import page as pages

SLOWEST = 10


class PageDocument(Document):
    """A page and, once the first of its blocks is evaluated, its one run."""

    engine: runner.Runner | None = None

    def __init__(self, text: str, path: str) -> None:
        """Parse the page with the handbook's own model."""
        super().__init__(text, path)
        self.page = pages.load(Path(path))
        self.run: runner.Run | None = None
        self.failures: dict[int, str] = {}

    def verified(self) -> runner.Run:
        """Run the page if it has not been run, and stamp it if nothing is wrong."""
        if self.run is None:
            assert self.engine is not None
            self.run = self.engine.run(self.page.name)
            self.failures = record.failures(self.page, self.run)
            trouble = [*self.page.problems, *record.stale(self.page)]
            if not self.failures and self.run.error is None and not trouble:
                runner.save_stamp(self.run)
        return self.run


def blocks(document: PageDocument) -> Iterable[Region]:
    """Yield a region for the page's structure, then one for each code block, output and figure."""
    yield Region(0, 1, None, structure)
    starts = [0]
    for line in document.text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    for block in document.page.of("code", "output", "figure"):
        start = starts[block.line - 1]
        yield Region(start, starts[block.line] - 1, block, evaluate)


def structure(example: Example) -> str | None:
    """Report what the structural check says of the page in both languages."""
    assert isinstance(example.document, PageDocument)
    return "\n".join(layout.problems([example.document.page.name])) or None


def evaluate(example: Example) -> str | None:
    """Report what the page's run says of one block."""
    document, block = example.document, example.parsed
    assert isinstance(document, PageDocument)
    run = document.verified()
    name = document.page.name
    if block.line in document.failures:
        where = f"docs/en/{name}.md:{block.line}: {block.kind} under #{block.under} (and docs/zh/{name}.md)"
        again = f"run again: nox -s page -- {name}"
        if block.kind != "code":
            again += f"\naccept:    nox -s record -- {name}    (when what it shows now is right)"
        return f"{where}\n{document.failures[block.line]}\n\n{again}"
    if record.is_long(_section(block, name)) and block.kind != "code":
        pytest.skip(f"a longer run recorded it: nox -s long -- {name}")
    if run.error is not None and _after(block, run, document.page):
        pytest.skip(f"blocked by section {run.error.section!r}")
    return None


def _after(block: pages.Block, run: runner.Run, page: pages.Page) -> bool:
    """Whether a block shows a section that the run did not reach, or the one that failed."""
    assert run.error is not None
    done = {result.section for result in run.results if not result.error}
    return _section(block, page.name) not in done


def _section(block: pages.Block, name: str) -> str:
    if "section" in block.attributes:
        return block.attributes["section"]
    match = re.fullmatch(rf"figures/{re.escape(name)}-([\w-]+)\.svg", block.attributes["target"])
    return match[1] if match else block.attributes["target"]


class Pages(Sybil):
    """Sybil with ids that survive edits: heading, section, and what is checked."""

    def identify(self, example: Example) -> str:
        """Return for instance `run-accuracy`, `run-accuracy-output`, `run-accuracy-figure`."""
        block = example.parsed
        if block is None:
            return "structure"
        section = _section(block, Path(example.path).stem)
        return "-".join([block.under, section, *([block.kind] if block.kind != "code" else [])])


_collect = Pages(
    [blocks], path=str(pages.DOCS / "en"), patterns=["*.md"], document_types={".md": PageDocument}
).pytest()


def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    """Collect `docs/en/*.md`."""
    return _collect(file_path, parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--device`."""
    parser.addoption(
        "--device", choices=runner.DEVICES, default="cpu", help="where pages run; never falls back"
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop at once when a GPU is asked for and there is none."""
    device = session.config.getoption("--device")
    if device == "gpu" and not hasattr(session.config, "workerinput"):
        import subprocess
        import sys

        probe = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=False
        )
        if done.stdout.strip() in ("", "0"):
            pytest.exit("--device gpu: TensorFlow sees no GPU; nothing was run", returncode=4)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the one server process from which all pages of this worker are run."""
    documents = {
        item.example.document
        for item in session.items
        if isinstance(getattr(item, "example", None), Example)
    }
    found = {d for d in documents if isinstance(d, PageDocument)}
    if found and not session.config.option.collectonly:
        names = sorted(
            d.page.name for d in found if (pages.SNIPPETS / f"{d.page.name}.py").exists()
        )
        PageDocument.engine = runner.Runner(names, session.config.getoption("--device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Put time and memory of a page into the report, and so into the JUnit file."""
    report = yield
    document = getattr(getattr(item, "example", None), "document", None)
    if report.when == "call" and isinstance(document, PageDocument) and document.run is not None:
        run = document.run
        report.user_properties += [
            ("page", run.name),
            ("page_seconds", run.seconds),
            ("page_mebibytes", round(run.memory / 2**20)),
        ]
    return report


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the slowest pages with their peak memory."""
    seen: dict[str, tuple[float, int]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            known = dict(getattr(report, "user_properties", []))
            if "page" in known:
                seen[known["page"]] = (known["page_seconds"], known["page_mebibytes"])
    if seen:
        terminalreporter.section("slowest pages (seconds, peak MiB)")
        for name, (seconds, mebibytes) in sorted(seen.items(), key=lambda e: -e[1][0])[:SLOWEST]:
            terminalreporter.write_line(f"{seconds:7.1f} s {mebibytes:6d} MiB  {name}")
