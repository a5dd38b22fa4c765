"""The page and the demo's page for everyone: axe-core at two widths, light and dark, and the keyboard alone.

The screenshots of each state are written to `build/screenshots`.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cir_vectorizer.collections import open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo import page as demo_page
from examples.demo.catalog import SEEN, catalog, draw, pictures, queries
from examples.demo.evaluate import evaluate
from tests.support.page import LOOKS, Tab, check_access, look, searched
from tests.support.serving import Running, serving, tiny

pytestmark = pytest.mark.browser
VIEWS = 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a drawn shop: 24 products, each with three photos."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["image,title,description,style,price"]
    for i in range(24):
        product = SEEN[i * 7 % len(SEEN)]
        name = f"{product.colour} {product.category}"
        for view in range(VIEWS):
            draw(product, random.Random(VIEWS * i + view), 160).save(folder / f"{i:02}-{view}.png")
            rows.append(
                f"{i:02}-{view}.png,{name.title()},A {product.pattern} {name} for every day.,ST-{i:03},{10 + i}"
            )
    (folder / "shop.csv").write_text("\n".join(rows))
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder / "shop.csv"), collection, tiny())
    with serving(collections={"shop": [collection]}) as running:
        yield running


@pytest.fixture(params=LOOKS, ids=lambda each: f"{each[0]}-{each[1]}")
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Tab]:
    made = look(browser, *request.param)
    made.name = "{}-{}".format(*request.param)
    yield made
    made.context.close()


def check(tab: Tab, state: str) -> None:
    check_access(tab.page, f"{state}-{tab.name}", whole=state != "details")


def test_the_page_has_no_serious_finding_in_any_state(service: Running, tab: Tab) -> None:
    page = tab.open(service)
    check(tab, "empty")
    page.locator(".card .go").first.click()
    page.locator("#picture-name:not(:empty)").wait_for()
    searched(page)
    page.fill("#text", "is blue")
    page.fill("#negative", "stripes")
    page.click("#search")
    page.locator(".signals").first.wait_for()
    searched(page)
    check(tab, "results")
    page.click("#why-button")
    page.locator("#why meter").first.wait_for()
    page.click("#code-button")
    page.locator("#code pre").wait_for()
    check(tab, "explained")
    page.select_option("#second", "compodiff")
    page.locator(".there").first.wait_for()
    check(tab, "side-by-side")
    page.select_option("#second", "")
    page.locator(".there").first.wait_for(state="detached")
    page.locator("summary").click()
    page.fill("#group-by", "style")
    page.press("#group-by", "Enter")
    page.locator(".views").first.wait_for()
    check(tab, "advanced-and-grouped")
    page.locator(".card .open").first.click()
    page.locator("#details[open]").wait_for()
    check(tab, "details")
    page.keyboard.press("Escape")
    page.locator("#details").wait_for(state="hidden")
    page.fill("#filter", "price<<5")
    page.press("#filter", "Enter")
    page.get_by_text("filter: at letter 7").wait_for()
    check(tab, "error")
    assert [each for each in tab.errors if "400" not in each] == []


def test_without_a_collection_it_has_no_serious_finding(tab: Tab) -> None:
    with serving() as running:
        tab.page.goto(f"{running.url}/")
        tab.page.get_by_text("No collection is searched here yet").wait_for()
        tab.page.fill("#text", "is blue")
        tab.page.click("#search")
        tab.page.get_by_text("The query vector").wait_for()
        check(tab, "no-collection")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's page, of fewer products."""
    folder = tmp_path_factory.mktemp("demo")
    products = catalog(600)
    drawn = list(pictures(products))
    (folder / "pictures").mkdir()
    for i, each in enumerate(drawn):
        each.save(folder / "pictures" / f"{i:05}.jpg")
    raw = np.concatenate([tiny().embed_images(drawn[at : at + 200]) for at in range(0, len(drawn), 200)])
    validation, test = queries(products, 20, 11), queries(products, 20, 12)
    hits, best = evaluate(tiny(), tiny(), raw, products, validation, test)
    demo_page.write(folder, tiny(), raw, products, test, hits, best, triplets=1234)
    return folder / "index.html"


def test_the_demos_page_has_no_serious_finding(demo: Path, tab: Tab) -> None:
    tab.page.goto(demo.as_uri())
    check(tab, "demo")
    assert tab.page.locator(".hit").first.get_attribute("alt").endswith(", right")


def test_every_control_is_reached_by_the_keyboard_and_seen(service: Running, tab: Tab) -> None:
    """Tab walks through everything that can be used, forwards and out of the page again, and each place shows its focus."""
    page = tab.open(service)
    page.fill("#text", "a blue dress")
    page.press("#text", "Enter")
    searched(page)
    page.locator("summary").click()
    page.focus(".quiet")
    page.keyboard.press("Shift+Tab")
    reached, unseen = [], []
    for _ in range(160):
        place = page.evaluate(
            """() => {
                const at = document.activeElement;
                const { outlineStyle, outlineWidth } = getComputedStyle(at);
                const { width } = at.getBoundingClientRect();
                const shown = outlineStyle !== "none" && parseFloat(outlineWidth) > 1 && width > 1;
                return { name: at.id || at.className || at.tagName, shown: shown || at.id === "file" };
            }"""
        )
        if place["name"] == "BODY":
            break
        reached.append(place["name"])
        unseen += [] if place["shown"] else [place["name"]]
        page.keyboard.press("Tab")
    else:
        pytest.fail(f"the focus never left the page: {reached}")
    wanted = "file text negative must composer second filter group-by diversity strength min-score language hybrid search clear"
    assert [name for name in reached if name in wanted.split()] == wanted.split()
    assert {"go", "like", "unlike", "open", "why-button", "code-button"} <= set(reached)
    assert unseen == [], unseen


def test_a_result_is_told_in_its_own_words_and_gone_on_from(service: Running, tab: Tab) -> None:
    page = tab.open(service)
    opener = page.locator(".card .open").nth(2)
    hit = page.locator(".card").nth(2)
    title, id_ = hit.locator(".what").text_content(), hit.get_attribute("data-id")
    opener.focus()
    page.keyboard.press("Enter")
    page.locator("#details[open]").wait_for()
    assert page.locator("#details-title").text_content() == title
    assert page.locator("#details-words").text_content().startswith("A ")
    assert page.locator("#details-columns dt").all_text_contents()[:2] == ["style", "price"]
    page.keyboard.press("Escape")
    page.locator("#details").wait_for(state="hidden")
    assert opener.evaluate("(each) => document.activeElement === each")
    page.keyboard.press("Enter")
    page.fill("#but", "is green")
    page.keyboard.press("Enter")
    searched(page)
    assert tab.bodies("/v1/search")[-1]["query"] == {"image": {"id": id_}, "text": "is green"}
    assert page.input_value("#text") == "is green"
