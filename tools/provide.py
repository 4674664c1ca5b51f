"""Bring what pip cannot: the Fashion-MNIST files for Keras' cache, and a browser for the tests.

`python -m tools.provide data browser`. Nothing is done for what is there already.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FASHION = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
DEBIAN_FASHION = Path("usr/share/datasets/fashion-mnist")


def _run(command: Sequence[str], **options) -> bool:
    print("$", " ".join(command), flush=True)
    try:
        return subprocess.run(command, check=False, **options).returncode == 0
    except FileNotFoundError:
        return False


def _apt(*words: str) -> bool:
    """Run apt-get as root, or through sudo where that asks for no password."""
    if not shutil.which("apt-get"):
        return False
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not shutil.which("sudo"):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return _run([*sudo, "apt-get", "-qq", *words], env=environment)


def _install(*packages: str) -> bool:
    return _apt("update") and _apt("install", "--yes", "--no-install-recommends", *packages)


def fashion_mnist() -> None:
    """Put Fashion-MNIST where `keras.datasets.fashion_mnist.load_data()` looks for it.

    The files come from Debian's package dataset-fashion-mnist (31 MB, MIT licence); elsewhere Keras' own
    download is used.
    """
    target = (
        Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets" / "fashion-mnist"
    )
    if all((target / name).exists() for name in FASHION):
        return
    source = Path("/") / DEBIAN_FASHION
    if not source.exists():
        _install("dataset-fashion-mnist")
    with tempfile.TemporaryDirectory() as folder:
        # Without root a package can still be fetched and unpacked.
        if not source.exists() and _run(
            ["apt-get", "download", "dataset-fashion-mnist"], cwd=folder
        ):
            for package in Path(folder).glob("dataset-fashion-mnist_*.deb"):
                _run(["dpkg-deb", "--extract", str(package), folder])
            source = Path(folder) / DEBIAN_FASHION
        if source.exists():
            target.mkdir(parents=True, exist_ok=True)
            for name in FASHION:
                shutil.copyfile(source / name, target / f".{name}")
                os.replace(target / f".{name}", target / name)
            return
    print("dataset-fashion-mnist cannot be had from Debian here; Keras downloads it", flush=True)
    import keras

    keras.datasets.fashion_mnist.load_data()


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found:
        return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as driver:
        path = driver.chromium.executable_path
    return path if path and Path(path).exists() else None


def browser() -> None:
    """Install a browser where there is none: Debian's Chromium, else Playwright's own."""
    if find_browser():
        return
    debian = (
        platform.freedesktop_os_release().get("ID") == "debian"
        if Path("/etc/os-release").exists()
        else False
    )
    if debian and _install("chromium", "fonts-noto-cjk") and find_browser():
        return
    _run([sys.executable, "-m", "playwright", "install", "chromium"])
    if not find_browser():
        raise SystemExit(
            "no browser: install chromium, or run `python -m playwright install chromium`"
        )


THINGS = {"data": fashion_mnist, "browser": browser}


def _main() -> None:
    unknown = [word for word in sys.argv[1:] if word not in THINGS]
    if unknown or not sys.argv[1:]:
        raise SystemExit(
            f"say what to provide: {', '.join(THINGS)}; got {' '.join(unknown) or 'nothing'}"
        )
    for word in sys.argv[1:]:
        THINGS[word]()


if __name__ == "__main__":
    _main()
