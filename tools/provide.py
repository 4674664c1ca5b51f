"""Bring what pip cannot: data of Debian's packages for Keras' cache, and a browser for the tests.

`python -m tools.provide data browser`. Nothing is done for what is there already.
"""

from __future__ import annotations

import hashlib
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
# Package, folder in it, folder in Keras' cache.
FONT = ("fonts-noto-color-emoji", "usr/share/fonts/truetype/noto", "noto-color-emoji")
SOUNDS = (
    "asterisk-core-sounds-en-wav",
    "usr/share/asterisk/sounds/en_US_f_Allison",
    "asterisk-sounds",
)
# Of the files that the pages were recorded with; another version of the font draws other pictures.
SHA256 = {
    "NotoColorEmoji.ttf": "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec",
    "letters/a.wav": "8ca6ea9d0f3a12ef1f70f37392da1c45546b8c460a05aebebb69286152a511e1",
}


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


def _cache(name: str) -> Path:
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets" / name


def _fetch(package: str, folder: Path) -> bool:
    """Unpack a Debian package into a folder without installing it; that needs no root."""
    if not _run(["apt-get", "download", package], cwd=folder):
        return False
    found = list(folder.glob(f"{package}_*.deb"))
    return all(_run(["dpkg-deb", "--extract", str(deb), str(folder)]) for deb in found)


def packaged(package: str, inside: str, name: str, known: str) -> None:
    """Put a folder of a Debian package into Keras' cache, where `aimodels.datasets` looks first.

    The package is not installed: a font, for one, would change how pages look here. Where apt is
    missing, the loaders say what to install, and the pages that read it fail with that sentence.
    """
    target = _cache(name)
    if not (target / known).exists():
        with tempfile.TemporaryDirectory() as temporary:
            source = Path("/") / inside
            if not (source / known).exists():
                folder = Path(temporary)
                # The second try is for a machine that has no list of packages yet.
                if not _fetch(package, folder) and _apt("update"):
                    _fetch(package, folder)
                source = folder / inside
            if not (source / known).exists():
                print(f"{package} cannot be had from Debian here; pages that need it say so")
                return
            shutil.copytree(source, target, dirs_exist_ok=True)
    if hashlib.sha256((target / known).read_bytes()).hexdigest() != SHA256[known]:
        print(f"{package} is of another version than the recorded pages; numbers may differ")


def data() -> None:
    """Bring all data that pip cannot."""
    fashion_mnist()
    packaged(*FONT, "NotoColorEmoji.ttf")
    packaged(*SOUNDS, "letters/a.wav")


def fashion_mnist() -> None:
    """Put Fashion-MNIST where `keras.datasets.fashion_mnist.load_data()` looks for it.

    The files come from Debian's package dataset-fashion-mnist (31 MB, MIT licence); elsewhere Keras' own
    download is used.
    """
    target = _cache("fashion-mnist")
    if all((target / name).exists() for name in FASHION):
        return
    source = Path("/") / DEBIAN_FASHION
    if not source.exists():
        _install("dataset-fashion-mnist")
    with tempfile.TemporaryDirectory() as folder:
        # Without root a package can still be fetched and unpacked.
        if not source.exists() and _fetch("dataset-fashion-mnist", Path(folder)):
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


THINGS = {"data": data, "browser": browser}


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
