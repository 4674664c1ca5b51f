"""A real browser on the built site: one build, one visit of each page; a server and a Chromium a process."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Playwright,
    sync_playwright,
)

from tools import site as builder

pytest.register_assert_rewrite("tests.site.every_page")

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The rules whose result the colour scheme can change.
COLOURS = ["color-contrast", "link-in-text-block"]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a site that is built already be tested."""
    parser.addoption(
        "--site", type=Path, help="a built site to test; without it the site is built first"
    )


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site; several processes build it once."""
    given = request.config.getoption("--site", None)
    if given:
        return given.resolve()
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    folder, report = shared / "site", shared / "site.txt"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 300
        while not report.exists() and time.monotonic() < deadline:
            time.sleep(0.5)
    else:
        command = [sys.executable, "-m", "tools.site", "build", "--site", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        (shared / "site.part").write_text(done.stderr if done.returncode else "", "utf-8")
        (shared / "site.part").rename(report)
    if not report.exists() or report.read_text("utf-8"):
        why = (
            report.read_text("utf-8")
            if report.exists()
            else "no process has finished it in five minutes"
        )
        pytest.fail(f"the site does not build:\n{why}", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> list[str]:
    """Return the addresses of all pages below the root, `en/attention/` and so on."""
    return sorted(
        path.parent.relative_to(site).as_posix() + "/"
        for path in site.rglob("index.html")
        if path.parent != site
    )


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve files as the static hosts do: a missing one is 404.html with status 404."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the page for a missing file."""
        body = (Path(self.directory) / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="session")
def base(site: Path) -> Iterator[str]:
    """Serve the site on a free port; return its address, which ends in a slash."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(site))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def chromium(playwright: Playwright) -> str:
    """Return the path of an installed Chromium, or fail with what to do."""
    own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.fail(
        "no Chromium: install one with `python -m playwright install chromium` or `apt-get install chromium`",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """A context of the browser, and what it saw."""

    context: BrowserContext
    base: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """Return the requests to other hosts."""
        return [url for url in self.requests if not url.startswith((self.base, "data:", "blob:"))]


def watched(browser: Browser, base: str, **options: object) -> Watch:
    """Open a context that records requests and complaints."""
    context = browser.new_context(**{"viewport": DESK, "locale": "en-GB", **options})
    context.set_default_timeout(20_000)
    watch = Watch(context, base)
    context.on("request", lambda request: watch.requests.append(request.url))
    context.on("weberror", lambda error: watch.complaints.append(str(error.error)))

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watch.complaints.append(message.text)

    context.on("console", listen)
    return watch


@pytest.fixture
def watching(browser: Browser, base: str) -> Iterator[Callable[..., Watch]]:
    """Return a function that opens a fresh context with the options given."""
    opened = []

    def open_one(**options: object) -> Watch:
        opened.append(watched(browser, base, **options))
        return opened[-1]

    yield open_one
    for watch in opened:
        watch.context.close()


@pytest.fixture
def watch(watching: Callable[..., Watch]) -> Watch:
    """Open a fresh context for one test."""
    return watching()


@dataclass
class Visit:
    """What one page showed, on a desk in both colour schemes and on a phone."""

    foreign: list[str]
    complaints: list[str]
    violations: list[str]
    wide: list[str]
    formulas: dict
    labels: list[str]
    strays: list[str]


# A page is measured at rest, not on its way between two colours.
STILL = "*, ::before, ::after { transition: none !important; }"
# What reaches past the right edge of a phone's screen, unless it can be scrolled in its own box.
WIDE = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  const names = [];
  for (const e of document.querySelectorAll("main *")) {
    if (e.getBoundingClientRect().right > room + 1 && names.length < 4) names.push(`${e.tagName}.${e.className}`);
  }
  return [`${document.documentElement.scrollWidth} px`, ...names];
}"""
# The words of a diagram's nodes that reach over the line around them.
LABELS = """() => [...document.querySelectorAll(".diagram .node")].flatMap((node) => {
  const box = node.querySelector("path, polygon, ellipse").getBBox();
  return [...node.querySelectorAll("text")].filter((t) => t.getBBox().width > box.width - 4).map((t) => t.textContent);
})"""
# Punctuation behind a formula that begins a line.
STRAYS = """() => [...document.querySelectorAll("var.math")].flatMap((formula) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  walker.currentNode = [...formula.querySelectorAll("*")].pop() || formula;
  let text = walker.nextNode();
  while (text && formula.contains(text)) text = walker.nextNode();
  if (!text || !/^[,.;:)，。；：、）]/.test(text.data) || !formula.checkVisibility()) return [];
  const range = document.createRange();
  range.setStart(text, 0);
  range.setEnd(text, 1);
  const last = [...formula.querySelectorAll(".base")].pop() || formula;
  const stray = range.getBoundingClientRect().top > last.getBoundingClientRect().bottom - 2;
  return stray ? [formula.querySelector("annotation").textContent + text.data.slice(0, 12)] : [];
})"""
FORMULAS = """async () => {
  await document.fonts.ready;
  const box = (e) => { const { width, height } = e.getBoundingClientRect(); return width > 0 && height > 0; };
  const shown = [...document.querySelectorAll(".katex")].filter((e) => e.checkVisibility());
  return {
    shown: shown.length,
    flat: shown.filter((e) => !box(e.querySelector(".katex-html"))).length,
    silent: shown.filter((e) => !e.querySelector(".katex-mathml math annotation")).length,
    fonts: [...document.fonts].filter((f) => f.family.startsWith("KaTeX") && f.status === "loaded").length,
    files: performance.getEntriesByType("resource").map((e) => e.name).filter((name) => /\\.(woff2?|ttf)$/.test(name)),
    raw: [...document.querySelectorAll(".arithmatex, .katex-error, .broken")].map((e) => e.textContent),
  };
}"""
# What KaTeX draws is hidden from readers of the MathML beside it, inherits its colour, and is half of some pages.
CHECK = """async (only) => (await axe.run({exclude: [[".katex-html"]]}, {runOnly: only, preload: false, resultTypes: ["violations"]})).violations.map(
  (v) => `${v.id} (${v.nodes.length}): ` + v.nodes.slice(0, 3).map((n) => n.target.join(" ") + " "
    + [...n.any, ...n.all, ...n.none].map((c) => c.message).join("; ").slice(0, 160)).join(" | "))"""


@pytest.fixture(scope="class")
def visits(
    request: pytest.FixtureRequest, browser: Browser, base: str, pages: list[str]
) -> dict[str, Visit]:
    """Visit every page of the language of the class, and what is shown for a missing page."""
    language = request.cls.language
    own = [page for page in pages if page.startswith(f"{language}/")]
    assert own, f"no page of {language!r}"
    result = {}
    builder.install()
    watch = watched(browser, base)
    axe = AXE.read_text("utf-8")
    tab = watch.context.new_page()
    for address in [*own, f"{language}/404.html", "404.html"]:
        watch.complaints, watch.requests = [], []
        tab.set_viewport_size(DESK)
        tab.emulate_media(color_scheme="light")
        tab.goto(base + address)
        tab.add_style_tag(content=STILL)
        formulas = tab.evaluate(FORMULAS)
        labels = tab.evaluate(LABELS)
        tab.evaluate(axe)
        violations = tab.evaluate(CHECK, RULES)
        tab.emulate_media(color_scheme="dark")
        violations += [f"dark: {line}" for line in tab.evaluate(CHECK, COLOURS)]
        tab.set_viewport_size(PHONE)
        wide, strays = tab.evaluate(WIDE), tab.evaluate(STRAYS)
        result[address] = Visit(
            watch.foreign, watch.complaints, violations, wide, formulas, labels, strays
        )
    watch.context.close()
    return result
