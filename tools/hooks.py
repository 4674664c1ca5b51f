"""What MkDocs calls: all that knows of MkDocs besides its settings, and the commands of tools/site.py."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from urllib.parse import urljoin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools import expand, layout, markdown, notebook
from tools import page as pages
from tools.page import ROOT

KATEX = ROOT / "node_modules" / "katex" / "dist"
# What does not suit us in Material's script, what stands there instead, and why. A new version of Material that
# does not have one of them (once) stops the build.
MATERIAL = {
    # The copy button's box is announced as one more navigation of the page.
    'x("nav",{class:"md-code__nav"})': 'x("div",{class:"md-code__nav"})',
    # The marker of an annotation is a link without a name.
    'class:"md-annotation__index",tabIndex:-1},x("span",{"data-md-annotation-id":e})))}else': 'class:"md-annotation__index",'
    'tabIndex:-1,"aria-label":`(${e})`},x("span",{"data-md-annotation-id":e})))}else',
    # The index of all pages is fetched with every page; now when the search is opened first.
    '$(location.protocol!=="file:"),': "$(!1),",
    # Chinese chosen with the mouse, or by hand or voice, raises no key.
    'h(e,"keyup")': 'h(e,"input")',
}
API = {
    "en": {
        "title": "API reference",
        "about": "The modules of aimodels, the teaching code of this handbook, in reading order.",
        "module": "What aimodels.{name} offers: functions, arguments, shapes and errors.",
        "explained": "[The page that explains it](../{name}.md).",
    },
    "zh": {
        "title": "API 参考",
        "about": "本书教学代码 aimodels 的各个模块，按阅读顺序排列。",
        "module": "模块 aimodels.{name} 的函数、参数、形状与错误。",
        "explained": "[讲解这个模块的页面](../{name}.md)。说明文字取自代码，只有英文。",
    },
}


log = logging.getLogger("mkdocs.handbook")


def on_config(config: MkDocsConfig) -> None:
    """Give each language its addresses, its group names, and the pages of the API."""
    language = config.theme["language"]
    root = config.site_url
    config.site_url = urljoin(root, f"{language}/")
    for alternate in config.extra["alternate"]:
        alternate["address"] = urljoin(root, f"{alternate['lang']}/")
    if not config.repo_url:
        config.edit_uri = None
    config.nav = _navigation(config.nav, config.extra.get("groups", {}))


def _navigation(items: list, groups: dict[str, str]) -> list:
    result: list = []
    for item in items:
        if not isinstance(item, dict):
            result.append(item)
            continue
        [(title, content)] = item.items()
        if content == "api":
            content = ["api.md", *(f"api/{name}.md" for name in modules())]
        elif isinstance(content, list):
            content = _navigation(content, groups)
        result.append({groups.get(title, title): content})
    return result


def modules() -> list[str]:
    """Return the modules of `aimodels`, in reading order where the navigation has a page."""
    names = {path.stem for path in (ROOT / "aimodels").glob("*.py")} - {"__init__"}
    order = [name for _, name in layout.navigation()]
    return sorted(
        names, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is not in `docs`: a page for each module, KaTeX's style and fonts."""
    language = config.theme["language"]
    for path in pages.paths(language):
        if (pages.SNIPPETS / path.name).with_suffix(".py").exists():
            text = notebook.export(pages.load(path), config.site_url)
            files.append(File.generated(config, f"notebooks/{path.stem}.ipynb", content=text))
    files.append(File.generated(config, "api.md", content=_api_overview(language)))
    for name in modules():
        files.append(File.generated(config, f"api/{name}.md", content=_api_page(name, language)))
    _mend_script(files, config)
    _join_styles(files, config)
    for font in sorted((KATEX / "fonts").glob("*.woff2")):
        files.append(
            File.generated(config, f"assets/katex/fonts/{font.name}", abs_src_path=str(font))
        )


def on_page_markdown(text: str, *, page: Page, config: MkDocsConfig, files: Files) -> str | None:
    """Hand a page's text to the page model, and tell the extensions which page it is."""
    markdown.Source.path = None
    if page.file.generated_by:
        return None
    path = Path(page.file.abs_src_path)
    markdown.Source.path = path
    # The page that explains something comes before those that mention it.
    if not (ROOT / "aimodels" / f"{path.stem}.py").exists():
        page.meta.setdefault("search", {"boost": 0.5})
    return expand.render(path)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep out of the search what stands at the head of every page."""
    return re.sub(r'<p class="(?:notebook|to-review)"', r"\g<0> data-search-exclude", html)


def _mend_script(files: Files, config: MkDocsConfig) -> None:
    script = _asset(files, r"assets/javascripts/bundle\.\w+\.min\.js")
    text = Path(script.abs_src_path).read_text("utf-8")
    for old, new in MATERIAL.items():
        if text.count(old) != 1:
            log.error("Material's script has changed; mend MATERIAL in tools/hooks.py: %s", old)
        text = text.replace(old, new)
    files.remove(script)
    files.append(File.generated(config, script.src_uri, content=text))


def _join_styles(files: Files, config: MkDocsConfig) -> None:
    """Make one style of Material's two, KaTeX's and ours: a page waits for every one of them."""
    katex = (KATEX / "katex.min.css").read_text("utf-8")
    # Every browser that reads this site reads woff2; the other two formats are for older ones.
    katex = re.sub(r",url\([^)]*\.(?:woff|ttf)\) format\(\"\w+\"\)", "", katex)
    ours = _asset(files, r"assets/handbook\.css")
    material = [
        _asset(files, rf"assets/stylesheets/{name}\.\w+\.min\.css") for name in ("main", "palette")
    ]
    texts = [Path(file.abs_src_path).read_text("utf-8") for file in (*material, ours)]
    texts.insert(2, katex.replace("url(fonts/", "url(katex/fonts/"))
    for file in (*material, ours):
        files.remove(file)
    style = "\n".join(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL) for text in texts)
    # A rule for every element: with it, Material's script restyles the whole page twice as it starts.
    style, found = re.subn(r"\[data-md-color-switching\] \*[^}]*\}", "", style)
    if found != 1:
        log.error("Material's style has changed; mend _join_styles in tools/hooks.py")
    style = re.sub(r"@charset \"[^\"]*\";", "", style)
    files.append(File.generated(config, ours.src_uri, content=style))
    # What mkdocstrings adds is for the pages of the API (theme/main.html).
    config.extra_css[:] = [path for path in config.extra_css if "_mkdocstrings" not in str(path)]


def _asset(files: Files, pattern: str) -> File:
    [file] = [file for file in files if re.fullmatch(pattern, file.src_uri)]
    return file


def _api_page(name: str, language: str) -> str:
    words = API[language]
    page = ROOT / "docs" / language / f"{name}.md"
    return "\n".join(
        [
            f"---\ntitle: aimodels.{name}\ndescription: {words['module'].format(name=name)!r}",
            "search:\n  exclude: true\n---\n",
            f"# `aimodels.{name}` {{#{name}}}\n",
            words["explained"].format(name=name) + "\n" if page.exists() else "",
            f"::: aimodels.{name}\n",
        ]
    )


def _api_overview(language: str) -> str:
    words = API[language]
    parts = [
        f"---\ntitle: {words['title']}\ndescription: {words['about']!r}\nsearch:\n  boost: 0.3\n---\n"
    ]
    parts.append(f"# {words['title']} {{#api}}\n\n{words['about']}\n")
    for name in modules():
        tree = ast.parse((ROOT / "aimodels" / f"{name}.py").read_text("utf-8"))
        summary = (ast.get_docstring(tree) or "").split("\n\n")[0]
        parts.append(f"## [`aimodels.{name}`](api/{name}.md) {{#{name}}}\n\n{summary}\n")
    return "\n".join(parts)
