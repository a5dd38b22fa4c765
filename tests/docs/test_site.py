"""The site of the documents: it builds strictly, needs no outside address, and its reference misses nothing."""

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from cir_vectorizer import errors
from cir_vectorizer.cli import main
from cir_vectorizer.query import ComposedQuery, Options
from cir_vectorizer.service.settings import Settings, variable
from tests.support.browser import Tab

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built site, and what the build said; with warnings too, the whole site is written."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return folder, done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(built):
    return built[0]


def test_links_and_anchors_lead_somewhere_and_the_navigation_has_every_page(built):
    _, status, said = built
    assert (status, said) == (0, "")


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


def ids(page):
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def commands(command, context):
    """Yield each visible command with its path."""
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if not below.hidden:
                yield from commands(below, click.Context(below, context, name))


def test_the_reference_has_every_command_and_option(site):
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h\d id="([^"]+)">(.*?)(?=<h\d id=|</article>)', text, re.DOTALL))
    found = list(commands(main, click.Context(main, info_name="cir-vectorizer")))
    assert len(found) > 15
    for path, command, context in found[1:]:
        section = html.unescape(re.sub("<[^>]+>", "", sections[path.replace(" ", "-")]))
        assert inspect.cleandoc(command.help).split("\n")[0] in section
        for option in command.get_params(context):
            if isinstance(option, click.Option) and not option.hidden:
                for name in (*option.opts, *option.secondary_opts):
                    assert re.search(rf"(?<![\w-]){name}(?![\w-])", section), f"{path} {name}"


def test_the_reference_has_every_setting_of_the_service(site):
    text = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        assert f"<code>{variable(name)}</code>" in text
        assert f"<code>--{name.replace('_', '-')}</code>" in text


def test_the_reference_has_every_field_and_option_of_a_query(site):
    text = (site / "reference" / "query.html").read_text(encoding="utf-8")
    described = {name for name, field in ComposedQuery.model_fields.items() if field.description}
    assert described | {"options"} == set(ComposedQuery.model_fields)
    for name in (*described, *Options.model_fields, "fusion.a", "image.base64", "mask.box"):
        assert f"<code>{name}</code>" in text


PUBLIC = (
    "cir_vectorizer",
    "cir_vectorizer.backbones",
    "cir_vectorizer.client",
    "cir_vectorizer.collections",
    "cir_vectorizer.composers",
    "cir_vectorizer.errors",
    "cir_vectorizer.models",
    "cir_vectorizer.query",
    "cir_vectorizer.sources",
    "cir_vectorizer.sync",
    "cir_vectorizer_langchain",
    "cir_vectorizer_llamaindex",
    "cir_vectorizer_qdrant",
    "cir_vectorizer_weaviate",
)


def test_the_reference_has_every_exported_name(site):
    """A name may stand under another module that exports the same thing, or under the one that defines it."""
    found = set().union(*map(ids, (site / "reference").glob("*.html")))
    rooms = {module: importlib.import_module(module) for module in PUBLIC}
    for room in rooms.values():
        for name in getattr(room, "__all__", ()):
            value = getattr(room, name)
            homes = {f"{module}.{name}" for module, other in rooms.items() if getattr(other, name, None) is value}
            homes.add(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}")
            assert homes & found, f"{room.__name__}.{name} is missing in docs/reference"


def test_the_reference_has_every_error(site):
    found = ids(site / "reference" / "errors.html")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.CirError):
            assert f"cir_vectorizer.errors.{name}" in found


def test_lists_and_blocks_are_rendered_as_such(site):
    """GitHub also takes lists without a blank line before them, and blocks that a list's item indents by two."""
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            assert not re.search(r"^\s*(```|[-*] |1\. |\|)", paragraph, re.MULTILINE), (
                f"{page.name}: put a blank line before this list, and indent what belongs to an item by four: {paragraph}"
            )


def test_code_in_tables_has_no_backslash_for_github(site):
    text = (site / "commands.html").read_text(encoding="utf-8")
    assert "<code>--model NAME|DIR</code>" in text
    assert "\\|" not in "".join(re.findall(r"<td>.*?</td>", text, re.DOTALL))


def test_the_home_has_the_numbers_of_the_readme():
    """README has shares and names each row; the home has the same in per cent."""
    readme, home = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md"))
    shares = re.findall(r"^\|[^|\n]+\|[ *]*(0\.\d+)[ *]*\|[ *]*(0\.\d+)[ *]*\|", readme, re.MULTILINE)
    wanted = {tuple(f"{100 * float(share):.1f}" for share in row) for row in shares}
    found = re.findall(r"\| ([\d.]+) % \| ([\d.]+) % \|$", home, re.MULTILINE)
    assert len(found) == 3
    assert set(found) <= wanted


# llms.txt

LINK = re.compile(r"^- \[([^]]+)\]\(([^)]+)\): .+$")


def navigation():
    """Return the sections of the navigation with their pages, those of a section's parts included."""

    def pages(entry):
        return [entry] if isinstance(entry, str) else [page for each in entry for page in pages(*each.values())]

    nav = yaml.load(Path(ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["nav"]
    return {name: pages(entry) for section in nav for name, entry in section.items()}


def test_llms_txt_follows_the_navigation(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert re.match(r"# [^\n]+\n\n(> [^\n]+\n)+\n", head)
    listed = {}
    for section in sections:
        name, _, body = section.partition("\n")
        lines = body.strip().split("\n")
        links = [LINK.fullmatch(line) for line in lines]
        assert all(links), lines
        listed["Project" if name == "Optional" else name] = [link[2] for link in links]
    wanted = {name: pages for name, pages in navigation().items() if name != "Home"}
    assert list(listed) == list(wanted)
    for name, pages in wanted.items():
        assert [link.replace(".html", ".md") for link in listed[name]] == [page.removeprefix("docs/") for page in pages]
        assert [link for link in listed[name] if not (site / link).is_file()] == []


def test_links_of_the_markdown_beside_the_pages_lead_to_files(site):
    copies = list(site.rglob("*.md"))
    assert len(copies) > 15
    for copy in copies:
        prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", copy.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", prose):
            assert ":" in link or (copy.parent / link).is_file(), f"{copy.name}: {link}"


# In a browser without a network


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_home_is_read_and_searched_without_a_network(width, site, browser):
    tab = Tab(browser, viewport={"width": width, "height": 900}, offline=True)
    page = tab.page
    page.goto((site / "index.html").as_uri())
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.screenshot(path=SCREENSHOTS / f"docs-home-{width}.png")
    page.emulate_media(color_scheme="dark")
    page.locator("body[data-md-color-scheme=slate]").wait_for()
    page.screenshot(path=SCREENSHOTS / f"docs-home-{width}-dark.png", full_page=True)
    if width < 960:
        page.locator(".md-header__button[for=__search]").click()
    page.locator("input[name=query]").press_sequentially("unwanted words")
    found = page.locator(".md-search-result__link")
    found.first.wait_for()
    page.screenshot(path=SCREENSHOTS / f"docs-search-{width}.png")
    found.first.click()
    page.wait_for_url(re.compile("signals|query|commands|drawn-catalog"))
    page.goto((site / "commands.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [request.url for request in tab.asked if not request.url.startswith(("file:", "blob:", "data:"))] == []
    assert tab.errors == []


@pytest.mark.browser
def test_no_page_is_wider_than_a_phone_and_every_picture_is_there(site, browser):
    page = Tab(browser, viewport={"width": 390, "height": 844}, offline=True).page
    pictures = "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":  # a server shows it at any depth, so its addresses begin with /
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert page.evaluate(pictures) == [], path
