"""Hooks of MkDocs: the site has the repository's paths, so that links which work on GitHub work and are checked here.

MkDocs reads docs/ alone. Here each of its files gets its path in the repository as its name (`docs/filters.md`) and
keeps its place in the site (`filters.html`). The navigation and the documents may then name any file of the repository:
Markdown becomes a page, anything else is copied. README.md is left out, since docs/index.md takes its place.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from reference import GENERATED  # MkDocs puts this folder on the path

ROOT = Path(__file__).parents[1]
ASSETS = {
    "assets/site.css": "website/assets/site.css",
    "assets/iframe-worker.js": "website/assets/iframe-worker.js",
    "assets/icon.svg": "cir_vectorizer/service/page/assets/icon.svg",
}
"""Files of the theme, by their place in the site."""
SHOWN = {".py", ".yaml", ".yml", ".ts", ".js", ".sh", ".toml", ".jsonl", ".csv"}
"""Kinds of files that browsers show as text only if their name ends with .txt."""
_LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Name the files of docs/ by their paths in the repository, and add the files that pages and navigation name."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    docs = [f"docs/{file.src_uri}" for file in files if file.src_dir == config.docs_dir]
    named = [*docs, *_named(config.nav)]
    found = {path: _file(path, config, outside=False) for path in named if (ROOT / path).is_file()}
    waiting = [path for path in found if path.endswith(".md")]
    while waiting:
        page = waiting.pop()
        for path in _links(page):
            if path not in {*found, "README.md"} and (ROOT / path).is_file():
                found[path] = _file(path, config, outside=True)
                waiting += [path] if path.endswith(".md") else []
    assets = [
        File(path, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=place)
        for place, path in ASSETS.items()
    ]
    return Files([*theme, *found.values(), *assets])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the generated parts of the reference in the place of their marks, and write code in tables as MkDocs reads it.

    In a table, GitHub needs a backslash before each "|", also in code, where MkDocs would show it.
    """
    rows = _ROW.sub(lambda row: _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), markdown)
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), rows)


def on_page_content(_: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Write the page's Markdown beside it, which `llms.txt` links to, with its links as they are in the site."""
    here = posixpath.dirname(_beside(page.file))

    def moved(link: re.Match[str]) -> str:
        to = files.get_file_from_path(_resolved(link[1], page.file.src_uri))
        place = link[1] if to is None else posixpath.relpath(_beside(to), here or ".")
        return link[0].replace(link[1], place, 1)

    place = Path(config.site_dir, _beside(page.file))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(_LINK.sub(moved, page.markdown or ""), encoding="utf-8")


def _beside(file: File) -> str:
    """Return the place of a page's Markdown in the site, or that of any other file."""
    if not file.is_documentation_page():
        return file.dest_uri
    return posixpath.join(posixpath.dirname(file.dest_uri), posixpath.basename(file.src_uri))


def _resolved(link: str, page: str) -> str:
    """Return the path in the repository that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _named(entry: object) -> Iterator[str]:
    """Yield the files that the navigation names."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        yield from (path for each in entry.values() for path in _named(each))
    elif isinstance(entry, list):
        yield from (path for each in entry for path in _named(each))


def _links(page: str) -> Iterator[str]:
    """Yield the paths in the repository that a page's links lead to, as far as they are relative."""
    for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = _resolved(link, page)
        if ":" not in link and not path.startswith((".", "/")):
            yield path


def _file(path: str, config: MkDocsConfig, outside: bool) -> File:
    """Return a file of the repository; `outside` the navigation it is no omission."""
    place = path.removeprefix("docs/")
    if path.endswith(".md"):
        place = re.sub(r"(README)?\.md$", lambda end: "index.html" if end[1] else ".html", place)
    elif Path(path).suffix in SHOWN:
        place += ".txt"
    level = InclusionLevel.NOT_IN_NAV if outside else InclusionLevel.UNDEFINED
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=place, inclusion=level)
