"""The site of the documents: it builds strictly, needs no outside address, and its reference misses nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; broken links, missing anchors and pages outside the navigation fail here."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\s(?:src|srcset)=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|modulepreload)\b[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|@import\s+(?:url\()?["']?((?:https?:)?//[^"')\s;]+)"""
    r"""|url\(\s*["']?((?:https?:)?//[^"')]+)""",
)
IN_SCRIPTS = re.compile(r"""["'`]((?:https?:)?//[\w.-]+\.[a-z]{2,}[^"'`\s]*)["'`]""")
NEVER_LOADED = {
    "https://unpkg.com/resize-observer-polyfill",  # only by browsers without ResizeObserver
    "https://unpkg.com/mermaid@11/dist/mermaid.min.js",  # only for diagrams, of which we have none
    "https://api.github.com/repos/${e}/${t}",  # only with `repo_url` in mkdocs.yml
    "https://api.github.com/users/${e}",
}


def test_nothing_is_loaded_from_outside(site):
    found = set()
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            found |= {(path.name, "".join(each)) for each in LOADED.findall(text)}
        elif path.suffix == ".js" and path.name != "search_index.js":
            text = path.read_text(encoding="utf-8")
            found |= {(path.name, each) for each in IN_SCRIPTS.findall(text)}
    assert {each for each in found if each[1] not in NEVER_LOADED} == set()


def test_no_page_has_a_diagram_that_would_be_drawn_by_a_fetched_script(site):
    assert [path.name for path in site.rglob("*.html") if 'class="mermaid"' in path.read_text(encoding="utf-8")] == []
