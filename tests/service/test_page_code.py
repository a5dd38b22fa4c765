"""The page's "Copy as code": what is copied runs as it is, and finds what the page shows."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from cir_vectorizer.collections import Collection, CreateOptions, OpenOptions, open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.page import Tab, searched
from tests.support.servers import KEY, Server
from tests.support.serving import Running, serving, tiny

pytestmark = pytest.mark.browser
COLOURS = ("red", "green", "blue", "white", "black", "orange", "purple", "gray")
SHAPES = ("ellipse", "rectangle", "line")
DATABASES = [
    pytest.param(name, id=name, marks=pytest.mark.live)
    for name in ("qdrant", "qdrant-inside", "weaviate", "weaviate-inside")
]
DOUBTFUL = 'it\'s $HOME `date` \\ "quoted" 赤い'


def make_folder(folder: Path) -> Path:
    """Draw a shop of 24 pictures with a table; each style has three of them."""
    rows = ["image,title,colour,price,style"]
    for i, (colour, shape) in enumerate(itertools.product(COLOURS, SHAPES)):
        picture = Image.new("RGB", (96, 96), "lightgray")
        getattr(ImageDraw.Draw(picture), shape)((10 + i, 12, 80, 84), fill=colour)
        picture.save(folder / f"{i:02}.png")
        rows.append(f"{i:02}.png,{colour} {shape},{colour},{i},S{i // 3}")
    (folder / "shop.csv").write_text("\n".join(rows))
    return folder / "shop.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def embedded(table: Path) -> Iterator[Running]:
    """A service with a key, whose collection is embedded."""
    collection = open_collection(f"qdrant:{table.parent}/index/shop")
    sync(open_source(table), collection, tiny())
    with serving(collections={"shop": [collection]}, api_keys=f"me:{KEY}") as running:
        yield running


@pytest.fixture(scope="module")
def served(table: Path, qdrant_server: Server, weaviate_server: Server) -> Iterator[Running]:
    """A service with collections on both servers; the server of the ones "inside" asks the container itself."""
    opened: dict[str, list[Collection]] = {}
    for server, scheme in ((qdrant_server, "qdrant"), (weaviate_server, "weaviate")):
        for name, vectorize in ((scheme, "client"), (f"{scheme}-inside", "server")):
            address = f"{scheme}://{server.host}:{server.port}/CirCode{os.getpid()}{vectorize}"
            collection = open_collection(address, options=OpenOptions(grpc_port=server.grpc_port))
            sync(open_source(table), collection, tiny(), create=CreateOptions(vectorize=vectorize))
            opened[name] = [collection]
    with serving(collections=opened, api_keys=f"me:{KEY}") as running:
        yield running
        for (collection,) in opened.values():
            collection.drop()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    made = Tab(browser, http_credentials={"username": "me", "password": KEY})
    made.context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield made
    made.context.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the picture that the page searches from, under a name that a shell and Python must quote."""
    picture = Image.new("RGB", (96, 96), "lightgray")
    ImageDraw.Draw(picture).ellipse((20, 10, 80, 84), fill="green")
    picture.save(tmp_path / "my dress's.png")
    return tmp_path


def copied(page: Any, kind: str) -> str:
    """Copy the search on screen; return what is in the browser's clipboard."""
    if page.locator("#code").is_hidden():
        page.click("#code-button")
    page.locator("#code").get_by_role("button", name=kind, exact=True).click()
    page.locator("#code [aria-pressed=true]", has_text=kind).wait_for()
    page.locator("#code").get_by_role("button", name="Copy", exact=True).click()
    page.locator("#code").get_by_role("button", name="Copied").wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in text
    assert text == page.locator("#code pre").text_content()
    return text


def ids_of(tab: Tab) -> list[str]:
    """Return the ids of the results on screen."""
    tools = tab.page.locator(".card .open")
    return [tools.nth(i).evaluate("(each) => each.closest('.card').dataset.id") for i in range(tools.count())]


def run(command: list[str], folder: Path, text: str = "") -> str:
    """Run a program in a folder; return what it prints."""
    variables = {**os.environ, "CIR_API_KEY": KEY, "NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(
        command, input=text, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_curl(code: str, folder: Path) -> list[str]:
    return [hit["id_text"] for hit in json.loads(run(["bash", "-s"], folder, code))["hits"]]


def run_python(code: str, folder: Path, server: Server, scheme: str) -> list[str]:
    """Run code with a server's ports in place of the usual ones."""
    usual, real = {
        "qdrant": ('"http://localhost:6333"', f'"{server.url}"'),
        "weaviate": ("connect_to_local()", f"connect_to_local({server.host!r}, {server.port}, {server.grpc_port})"),
    }[scheme]
    assert usual in code
    (folder / "search.py").write_text(code.replace(usual, real))
    return [line.split()[0] for line in run([sys.executable, "search.py"], folder).splitlines()]


def words(page: Any, here: Path) -> None:
    page.fill("#text", "a hat")
    page.press("#text", "Enter")
    searched(page)


def filtered(page: Any, here: Path) -> None:
    page.locator("summary").click()
    page.fill("#filter", 'price<20 and price!=3 and colour in (red, green, "blue", white, black, orange)')
    page.fill("#text", DOUBTFUL)
    page.press("#text", "Enter")
    searched(page)


def composed(page: Any, here: Path) -> None:
    page.set_input_files("#file", here / "my dress's.png")
    searched(page)
    page.fill("#text", "is blue")
    page.fill("#negative", "stripes, dots")
    page.locator("#keep").fill("0.7")
    page.locator("summary").click()
    page.locator("#strength").fill("0")
    page.select_option("#composer", "lincir")
    page.press("#text", "Enter")
    searched(page)


def gone_on(page: Any, here: Path) -> None:
    page.locator(".card .go").nth(2).click()
    page.locator("#picture-name", has_text=re.compile(".")).wait_for()
    searched(page)
    page.fill("#text", "in black")
    page.press("#text", "Enter")
    page.locator("#trail li").nth(1).wait_for()
    searched(page)


def several(page: Any, here: Path) -> None:
    page.locator(".card .go").nth(2).click()
    searched(page)
    page.click("#add")
    page.set_input_files("#file", here / "my dress's.png")
    page.locator("#others .chip").wait_for()
    searched(page)


def grouped(page: Any, here: Path) -> None:
    page.locator("summary").click()
    page.fill("#group-by", "style")
    page.fill("#text", "a red hat")
    page.press("#text", "Enter")
    searched(page)


SEARCHES = [words, filtered, composed, gone_on, several, grouped]
Search = Callable[[Any, Path], None]


@pytest.mark.parametrize("search", SEARCHES)
def test_curl_finds_the_same(embedded: Running, tab: Tab, here: Path, search: Search) -> None:
    page = tab.open(embedded)
    search(page, here)
    ids = ids_of(tab)
    assert len(ids) > 5
    assert run_curl(copied(page, "curl"), here) == ids
    assert tab.errors == []


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", DATABASES)
def test_the_databases_own_client_finds_the_same(
    served: Running, tab: Tab, here: Path, name: str, search: Search, request: pytest.FixtureRequest
) -> None:
    scheme = name.partition("-")[0]
    page = tab.open(served)
    page.select_option("#collection", name)
    page.locator("#status", has_text=f"objects of {name}:").wait_for()
    search(page, here)
    ids = ids_of(tab)
    assert len(ids) > 5
    code = copied(page, f"Python for {scheme.title()}")
    assert ("/v1/compose" in code) == (not name.endswith("inside"))
    assert run_python(code, here, request.getfixturevalue(f"{scheme}_server"), scheme) == ids
    assert page.locator("#code .left-out").is_hidden()
    assert tab.errors == []


def test_what_a_client_cannot_do_is_said(embedded: Running, tab: Tab, here: Path) -> None:
    page = tab.open(embedded)
    page.fill("#text", "a hat")
    page.fill("#negative", "red")
    page.fill("#must", "blue")
    page.press("#must", "Enter")
    searched(page)
    page.click("#code-button")
    left = page.locator("#code .left-out")
    left.get_by_text("what every result should show, the second score by what should not be there").wait_for()
    assert run_curl(copied(page, "curl"), here) == ids_of(tab)
    assert left.is_hidden()


def test_a_search_without_a_query_of_its_own_is_for_curl_alone(embedded: Running, tab: Tab, here: Path) -> None:
    page = tab.open(embedded)
    page.get_by_role("button", name="More like this").first.click()
    searched(page)
    page.click("#code-button")
    page.get_by_text("a search without words or a picture of its own").wait_for()
    assert page.locator("#code").get_by_role("button", name="Copy", exact=True).is_hidden()
    assert run_curl(copied(page, "curl"), here) == ids_of(tab)


def test_without_a_collection_the_vector_is_asked_for(tab: Tab, here: Path) -> None:
    with serving(api_keys=f"me:{KEY}") as running:
        tab.page.goto(f"{running.url}/")
        tab.page.fill("#text", "is blue")
        tab.page.click("#search")
        tab.page.get_by_text("Composed by").wait_for()
        assert '"vectors"' in run(["bash", "-s"], here, copied(tab.page, "curl"))
