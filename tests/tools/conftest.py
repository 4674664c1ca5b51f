"""A copy of the handbook to plant faults in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "aimodels",
    "docs",
    "snippets",
    "tests",
    "tools",
    "CONTRIBUTING.md",
    "mkdocs.yml",
    "mkdocs.zh.yml",
    "package-lock.json",
    "package.json",
    "pyproject.toml",
)


class Handbook:
    """A whole copy, in which commands are run as a contributor runs them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))
        }
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def page(self, name: str = "tiny", *options: str) -> tuple[int, str]:
        """Run a page; return the exit code and what was said."""
        done = self.run("pytest", "-q", "-p", "no:cacheprovider", f"docs/en/{name}.md", *options)
        return done.returncode, done.stdout + done.stderr

    def layout(self) -> list[str]:
        """Return the problems that the structural check prints."""
        done = self.run("tools.layout")
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()[:-1]

    def change(self, file: str, before: str, after: str) -> None:
        """Replace a text that is there exactly once or more; a fault that is not planted proves nothing."""
        path = self.root / file
        text = path.read_text("utf-8")
        assert before in text, f"{before!r} is not in {file}"
        path.write_text(text.replace(before, after, 1), "utf-8")


def _copy(source: Path, target: Path) -> None:
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(
                source / part, target / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(source / part, target / part)


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    """A copy with one more page, `tiny`, made by `nox -s new`, recorded and reviewed."""
    root = tmp_path_factory.mktemp("sound")
    _copy(ROOT, root)
    handbook = Handbook(root)
    for command in (
        ("tools.new", "tiny", "Tiny", "小例", "Foundations"),
        ("tools.record", "tiny"),
        ("tools.layout", "review", "tiny"),
    ):
        done = handbook.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture
def handbook(sound, tmp_path) -> Handbook:
    """A fresh copy of the sound one, for one fault."""
    _copy(sound, tmp_path)
    return Handbook(tmp_path)
