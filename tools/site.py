"""Build and serve the two sites: `python -m tools.site build` and `python -m tools.site serve`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import jieba
from click.exceptions import ClickException
from mkdocs.commands.build import build as build_one
from mkdocs.config import load_config
from mkdocs.livereload import LiveReloadServer

from tools import markdown
from tools.page import LANGUAGES, ROOT

CONFIGURATION = {"en": ROOT / "mkdocs.yml", "zh": ROOT / "mkdocs.zh.yml"}
WATCHED = ("docs", "snippets", "aimodels", "tools", "mkdocs.yml", "mkdocs.zh.yml")
log = logging.getLogger("mkdocs.handbook")


def install() -> None:
    """Install the locked Node packages when they are not there or older than the lock."""
    lock = ROOT / "package-lock.json"
    installed = ROOT / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = [
        markdown.executable("npm"),
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"npm ci failed:\n{done.stdout}{done.stderr}")
    installed.touch()


def build(site: Path, draft: bool = False) -> bool:
    """Build both languages and the root page into `site`; return whether nothing was wrong.

    Args:
        site: the folder that is written.
        draft: go on where an include is missing, and do not fail.
    """
    install()
    os.chdir(ROOT)
    good = True
    site.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        config = load_config(
            str(CONFIGURATION[language]), site_dir=str(site / language), strict=not draft
        )
        if draft:
            config.mdx_configs["pymdownx.snippets"]["check_paths"] = False
        try:
            config.plugins.on_startup(command="build", dirty=False)
            build_one(config)
        except ClickException as error:
            log.error("%s: %s", language, error.format_message())
            good = False
        except Exception as error:  # whatever a page makes an extension raise
            where = markdown.Source.path or ""
            log.error("%s: %s: %s: %s", language, where, type(error).__name__, error)
            if os.environ.get("TRACEBACK"):
                raise
            good = False
        finally:
            config.plugins.on_shutdown()
        if (index := site / language / "search" / "search_index.json").exists():
            _lighten_index(index)
        path = urlsplit(config.extra["alternate"][0]["address"]).path.removesuffix("en/")
    for name in ("index.html", "404.html"):
        text = (ROOT / "tools" / "root" / name).read_text("utf-8")
        # A server shows 404.html at any address, so its links cannot be relative.
        (site / name).write_text(text.replace("SITE_PATH", path), "utf-8")
    return good


def _lighten_index(path: Path) -> None:
    """Write the search index in UTF-8, a third of the size, and without code, which is not prose to search."""
    index = json.loads(path.read_text("utf-8"))
    for document in index["docs"]:
        document["text"] = re.sub(r"<pre>.*?</pre>", "", document["text"], flags=re.DOTALL)
    path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), "utf-8")


def serve(port: int) -> None:
    """Serve both languages, build again and reload the page whenever something changes."""
    os.environ["SITE_URL"] = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        server = LiveReloadServer(
            lambda: build(site, draft=True), host="127.0.0.1", port=port, root=folder
        )
        server.error_handler = lambda code: (
            (site / "404.html").read_bytes() if code == 404 else None
        )
        build(site, draft=True)
        for path in WATCHED:
            server.watch(str(ROOT / path))
        try:
            server.serve()
        except KeyboardInterrupt:
            server.shutdown()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build", help="build both languages; any warning fails")
    one.add_argument(
        "--site", type=Path, default=ROOT / "site", help="the folder to write (default: site)"
    )
    one.add_argument("--clean", action="store_true", help="delete that folder first")
    one.add_argument(
        "--draft",
        action="store_true",
        help="go on where an output is not recorded yet, and do not fail",
    )
    commands.add_parser(
        "install", help="install the locked Node packages if they are missing or old"
    )
    two = commands.add_parser("serve", help="build, serve, and build again on every change")
    two.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    jieba.setLogLevel(logging.WARNING)
    logging.getLogger("mkdocs").setLevel(
        logging.INFO if arguments.command == "serve" else logging.WARNING
    )
    if arguments.command == "install":
        install()
        return
    if arguments.command == "serve":
        serve(arguments.port)
        return
    site = arguments.site.resolve()
    if arguments.clean:
        shutil.rmtree(site, ignore_errors=True)
    good = build(site, arguments.draft)
    print(f"{site}: {'built' if good else 'built, with the errors above'}")
    sys.exit(0 if good or arguments.draft else 1)


if __name__ == "__main__":
    main()
