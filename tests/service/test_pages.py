"""The service's pages: they load everything from the service itself, and work in a real browser."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from cir_vectorizer.collections import CreateOptions, open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.page import Tab, searched, until
from tests.support.serving import Running, serving, tiny

OUTSIDE = re.compile(r"""(?:src|href|action)\s*=\s*["']?\s*(?:[a-z]+:)?//|url\(\s*["']?(?:[a-z]+:)?//""", re.I)
COLOURS = ["red", "green", "blue", "white", "black", "orange", "purple"]
HOSTILE = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a collection of 28 drawn pictures."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for i in range(28):
        picture = Image.new("RGB", (200, 120), "lightgray")
        colour = COLOURS[i % len(COLOURS)]
        ImageDraw.Draw(picture).ellipse((10 + 2 * i, 10, 110 + i, 110), fill=colour)
        picture.save(folder / f"{i:02}.png")
        title = HOSTILE if i == 0 else f"{colour} {i}"
        rows.append({"image": f"{i:02}.png", "title": title, "price": i, "colour": colour, "description": HOSTILE})
    (folder / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder / "shop.jsonl"), collection, tiny())
    with serving(collections={"shop": [collection]}) as running:
        yield running


@pytest.fixture(scope="module")
def told(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a collection whose objects have texts."""
    folder = tmp_path_factory.mktemp("told")
    rows = ["image,title"]
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (64, 48), colour).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{colour} hat" if i else f"{i}.png,")
    (folder / "shop.csv").write_text("\n".join(rows))
    collection = open_collection(f"qdrant:{folder}/index/told")
    sync(open_source(folder / "shop.csv"), collection, tiny(), create=CreateOptions(text_columns=("title",)))
    with serving(collections={"told": [collection]}) as running:
        yield running


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    made = Tab(browser)
    yield made
    made.context.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    made = Image.new("RGB", (200, 120), "lightgray")
    ImageDraw.Draw(made).ellipse((20, 10, 120, 110), fill="green")
    made.save(tmp_path / "mine.png")
    return tmp_path / "mine.png"


class TestFiles:
    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_pages_name_no_address_outside(self, service, path):
        answer = service.client.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert not OUTSIDE.search(answer.text)
        assert "default-src 'none'" in answer.headers["content-security-policy"]

    @pytest.mark.parametrize("path", ["/", "/docs"])
    def test_what_they_load_comes_from_the_service(self, service, path):
        loaded = re.findall(r'<(?:link|script|img)\b[^>]*?(?:src|href)="([^"]+)"', service.client.get(path).text)
        assert len(loaded) >= 3
        for address in loaded:
            answer = service.client.get(f"/{address}")
            assert answer.status_code == 200, address
            if answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript") and path == "/":
                assert not OUTSIDE.search(answer.text), address
            again = service.client.get(f"/{address}", headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304

    @pytest.mark.parametrize(
        "path",
        ["/page/pages.py", "/page/__init__.py", "/page/../pages.py", "/page/%2e%2e/pages.py", "/page//etc/passwd", "/docs/assets/..%2fcore.py", "/page/", "/page/x"],
    )  # fmt: skip
    def test_they_lead_to_no_other_file(self, service, path):
        answer = service.client.get(path)
        assert answer.status_code == 404
        assert list(answer.json())[:2] == ["error", "code"]


@pytest.mark.browser
def test_the_documentation_asks_nobody_else(service, tab):
    tab.page.goto(f"{service.url}/docs")
    tab.page.get_by_text("/v1/compose").first.wait_for()
    assert (tab.errors, tab.hosts()) == ([], {f"127.0.0.1:{service.port}"})


@pytest.mark.browser
class TestPage:
    def test_words_are_searched_for(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a green hat")
        page.press("#text", "Enter")
        searched(page)
        assert tab.bodies("/v1/search")[-1] == {"collection": "shop", "limit": 24, "query": {"text": "a green hat"}}
        hits = service.post("/v1/search", {"query": {"text": "a green hat"}, "limit": 24}).json()["hits"]
        scores = page.locator(".card .score").all_text_contents()
        assert scores == [f"{hit['score']:.3f}" for hit in hits]
        page.locator(".card img").last.scroll_into_view_if_needed()
        until(page, "[...document.querySelectorAll('.card img')].every((each) => each.naturalWidth > 0)")
        assert (tab.errors, tab.hosts()) == ([], {f"127.0.0.1:{service.port}"})

    def test_more_results_are_added(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a green hat")
        page.click("#search")
        searched(page)
        page.click("#more")
        page.locator(".card").nth(27).wait_for()
        assert tab.bodies("/v1/search")[-1]["offset"] == 24
        assert page.locator("#more").is_hidden()

    def test_more_results_that_come_after_another_search_are_left_out(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a green hat")
        page.click("#search")
        searched(page)
        late = []
        is_more = lambda request: "offset" in (request.post_data_json or {})  # noqa: E731
        page.route("**/v1/search", lambda route: late.append(route) if is_more(route.request) else route.continue_())
        with page.expect_request(is_more):
            page.click("#more")
        page.fill("#text", "a blue dress")
        page.click("#search")
        page.locator("#trail li").nth(1).wait_for()
        searched(page)
        before = page.locator("#grid").inner_html()
        late.pop().continue_()
        page.locator("#more:enabled").wait_for()
        assert page.locator("#grid").inner_html() == before
        page.click("#more")
        page.locator("#more:disabled").wait_for()
        late.pop().continue_()
        page.locator(".card").nth(27).wait_for()
        assert tab.bodies("/v1/search")[-1]["query"] == {"text": "a blue dress"}

    def test_a_picture_with_words_is_composed(self, service, tab, picture):
        page = tab.open(service)
        page.set_input_files("#file", picture)
        searched(page)
        page.fill("#text", "is blue")
        page.fill("#negative", "stripes")
        page.locator("#keep").fill("0.7")
        page.click("#search")
        searched(page)
        query = tab.bodies("/v1/search")[-1]["query"]
        assert base64.b64decode(query.pop("image")) == picture.read_bytes()
        assert query == {"text": "is blue", "negative_text": "stripes", "options": {"keep": 0.7}}

    def test_results_must_or_must_not_show_several_things_each(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.fill("#negative", "red, , white with dots ")
        page.fill("#must", "green")
        page.press("#must", "Enter")
        searched(page)
        query = {"text": "a hat", "negative_text": ["red", "white with dots"], "must_text": "green"}
        assert tab.bodies("/v1/search")[-1]["query"] == query
        hit = service.post("/v1/search", {"query": query, "limit": 24}).json()["hits"][0]
        gave = [f"{name} {value:.2f}" for name, value in hit["signals"].items()]
        assert [each.split()[0] for each in gave] == ["picture", "unwanted", "wanted"]
        assert page.locator(".card").first.locator(".signals span").all_text_contents() == gave
        assert f", {gave[1]}, {gave[2]}" in page.locator(".card .go").first.get_attribute("aria-label")
        page.click("#why-button")
        page.locator("#why meter").nth(3).wait_for()
        assert page.locator("#why .parts span").all_text_contents()[2:] == ["not red", "not white with dots"]
        assert tab.errors == []

    def test_what_should_not_be_there_is_searched_for_whatever_the_composer_reads(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.fill("#negative", "red")
        page.select_option("#composer", "text")
        searched(page)
        assert tab.bodies("/v1/search")[-1]["query"] == {"text": "a hat", "negative_text": "red", "composer": "text"}
        page.click("#why-button")
        page.locator("#why meter").first.wait_for()
        assert tab.errors == []

    def test_texts_count_as_much_as_is_asked_for(self, told, tab):
        page = tab.open(told)
        page.fill("#text", "a hat")
        page.press("#text", "Enter")
        searched(page)
        assert "text_weight" not in tab.bodies("/v1/search")[-1]
        assert page.locator(".signals", has_text="text").count() == len(COLOURS) - 1
        page.locator("summary").click()
        assert page.input_value("#text-weight") == "0.3"
        page.locator("#text-weight").fill("0")
        searched(page)
        assert tab.bodies("/v1/search")[-1]["text_weight"] == 0
        assert page.locator("#text-weight-value").text_content() == "0"
        page.locator(".signals").first.wait_for(state="detached")
        assert tab.errors == []

    def test_results_differ_as_much_as_is_asked_for(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.locator("summary").click()
        assert page.locator("#text-weight").is_hidden()
        page.locator("#diversity").fill("0.5")
        searched(page)
        assert tab.bodies("/v1/search")[-1]["diversity"] == 0.5
        page.fill("#negative", "red")
        page.press("#negative", "Enter")
        page.get_by_text("diversity: is chosen by the database, which knows nothing of negative_text").wait_for()

    def test_further_options_go_with_the_search(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.locator("summary").click()
        page.locator("#strength").fill("4")
        searched(page)
        assert "strength" not in tab.bodies("/v1/search")[-1]  # there are no words that it is for
        page.fill("#negative", "red")
        page.fill("#language", "en")
        page.fill("#min-score", "-0.5")
        page.press("#min-score", "Enter")
        page.locator(".signals").first.wait_for()
        body = tab.bodies("/v1/search")[-1]
        assert (body["strength"], body["min_score"], body["query"]["language"]) == (4, -0.5, "en")
        page.select_option("#composer", "compodiff")
        searched(page)
        assert page.locator("#language").is_hidden()
        assert "language" not in tab.bodies("/v1/search")[-1]["query"]

    def test_two_composers_stand_side_by_side(self, service, tab, picture):
        page = tab.open(service)
        page.set_input_files("#file", picture)
        searched(page)
        page.fill("#text", "is blue")
        page.select_option("#second", "sum")
        page.locator(".there").nth(40).wait_for()
        panes = page.locator(".pane")
        assert panes.locator(".composer").all_text_contents() == ["lincir", "sum"]
        lists = []
        for composer in (None, "sum"):
            asked = {"collection": "shop", **tab.bodies("/v1/search")[-1]}
            query = {key: value for key, value in asked["query"].items() if key != "composer"}
            asked["query"] = {**query, "composer": composer} if composer else query
            lists.append([hit["id_text"] for hit in service.post("/v1/search", asked).json()["hits"]])
        assert lists[0] != lists[1]
        for i, other in ((0, 1), (1, 0)):
            cards = panes.nth(i).locator(".card")
            ids = cards.evaluate_all("(all) => all.map((each) => each.dataset.id)")
            assert ids == lists[i]
            said = cards.locator(".there .unseen").all_text_contents()
            place = {id_: f"number {k + 1} there" for k, id_ in enumerate(lists[other])}
            assert said == [place.get(id_, "only here") for id_ in ids]
        both = len(set(lists[0]) & set(lists[1]))
        page.get_by_text(f"{both} of the first 24 are found by both").wait_for()
        common = next(id_ for id_ in lists[1] if id_ in lists[0])
        page.locator(f'.pane >> nth=1 >> .card[data-id="{common}"] .go').focus()
        assert page.locator(".twin").count() == 2
        page.click("#why-button")
        page.locator(".pane >> nth=1 >> .why meter").first.wait_for()
        panes.nth(1).locator(".more").click()
        panes.nth(1).locator(".card").nth(27).wait_for()
        assert panes.nth(0).get_by_text("only here").count() == 0
        page.select_option("#second", "")
        page.get_by_text("The nearest").wait_for()
        assert panes.count() == 1
        assert page.locator(".there").count() == 0
        assert tab.errors == []

    def test_a_composer_that_refuses_leaves_the_other_ones_results(self, service, tab):
        def refused(route: Any) -> None:
            if route.request.post_data_json["query"].get("composer") != "sum":
                route.continue_()
                return
            route.fulfill(status=400, json={"error": "sum: does not do this", "code": "query"})

        page = tab.open(service)
        page.route("**/v1/search", refused)
        page.fill("#text", "a hat")
        page.select_option("#second", "sum")
        page.locator(".pane >> nth=1").get_by_text("sum: does not do this").wait_for()
        assert page.locator(".pane >> nth=0 >> .card").count() == 24
        assert page.locator("#problem").is_hidden()

    def test_groups_show_their_best_photo_and_the_others_small(self, service, tab):
        page = tab.open(service)
        page.locator("summary").click()
        page.fill("#group-by", "colour")
        page.fill("#text", "a green hat")
        page.press("#text", "Enter")
        page.locator(".views").first.wait_for()
        hits = service.post("/v1/search", tab.bodies("/v1/search")[-1]).json()["hits"]
        assert len(hits) == page.locator(".card").count() == len(COLOURS)
        assert page.locator(".views").first.locator("button").count() == 3
        page.locator(".views button").nth(1).click()
        page.locator("#trail li").nth(1).wait_for()
        assert tab.bodies("/v1/search")[-1]["query"] == {"image": {"id": hits[0]["others"][1]["id"]}}

    def test_several_photos_are_one_query(self, service, tab, picture, tmp_path):
        Image.new("RGB", (80, 80), "blue").save(tmp_path / "side.png")
        page = tab.open(service)
        page.set_input_files("#file", [picture, tmp_path / "side.png"])
        page.locator("#others .chip").wait_for()
        searched(page)
        sent = [base64.b64decode(each) for each in tab.bodies("/v1/search")[-1]["query"]["image"]]
        assert sent == [picture.read_bytes(), (tmp_path / "side.png").read_bytes()]
        with page.expect_file_chooser() as chooser:
            page.click("#add")
        chooser.value.set_files(tmp_path / "side.png")
        page.locator("#others .chip").nth(1).wait_for()
        searched(page)
        assert len(tab.bodies("/v1/search")[-1]["query"]["image"]) == 3
        page.click("#why-button")
        page.locator("#why .parts").get_by_text("photo 3").wait_for()
        for left in (1, 0):
            page.locator("#others .chip").first.press("Enter")
            page.locator("#others .chip").nth(left).wait_for(state="detached")
        searched(page)
        assert base64.b64decode(tab.bodies("/v1/search")[-1]["query"]["image"]) == picture.read_bytes()
        assert page.evaluate("document.activeElement.id") == "text"
        assert tab.errors == []

    def test_a_large_picture_is_made_smaller_before_it_is_sent(self, service, tab, tmp_path):
        Image.new("RGB", (4000, 2000), "green").save(tmp_path / "large.png")
        page = tab.open(service)
        page.set_input_files("#file", tmp_path / "large.png")
        searched(page)
        (tmp_path / "sent").write_bytes(base64.b64decode(tab.bodies("/v1/search")[-1]["query"]["image"]))
        assert Image.open(tmp_path / "sent").size == (1024, 512)

    def test_a_picture_may_be_dropped_anywhere(self, service, tab, picture):
        page = tab.open(service)
        page.evaluate(
            """(data) => {
                const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
            }""",
            base64.b64encode(picture.read_bytes()).decode(),
        )
        searched(page)
        assert page.locator("#picture-name").text_content() == "dropped.png"

    def test_a_result_is_gone_on_from(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a green hat")
        page.click("#search")
        searched(page)
        first = service.post("/v1/search", {"query": {"text": "a green hat"}}).json()["hits"][0]
        page.locator(".card .go").first.click()
        page.locator("#trail li").nth(1).wait_for()
        assert tab.bodies("/v1/search")[-1]["query"] == {"image": {"id": first["id"]}}
        assert page.input_value("#text") == ""
        page.go_back()
        until(page, "document.querySelector('#text').value == 'a green hat'")
        searched(page)
        assert tab.bodies("/v1/search")[-1]["query"] == {"text": "a green hat"}

    def test_results_refine_the_search(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.click("#search")
        searched(page)
        hits = service.post("/v1/search", {"query": {"text": "a hat"}}).json()["hits"]
        page.get_by_role("button", name="More like this").nth(1).click()
        page.locator("#like .chip").wait_for()
        searched(page)
        page.get_by_role("button", name=re.compile("Less like this")).nth(3).click()
        page.locator("#unlike .chip").wait_for()
        searched(page)
        body = tab.bodies("/v1/search")[-1]
        assert body["like"] == [{"id": hits[1]["id"]}]
        assert len(body["unlike"]) == 1
        page.locator("#like .chip").click()
        page.locator("#like .chip").wait_for(state="detached")
        searched(page)
        assert "like" not in tab.bodies("/v1/search")[-1]

    def test_options_go_with_the_search_and_a_mistake_in_them_is_told(self, service, tab):
        page = tab.open(service)
        page.locator("summary").click()
        page.fill("#filter", "price<5")
        page.fill("#text", "a hat")
        page.check("#hybrid")
        searched(page)
        assert page.locator(".card").count() == 5
        assert tab.bodies("/v1/search")[-1]["hybrid"] is True
        page.fill("#filter", "price<<5")
        page.press("#filter", "Enter")
        page.get_by_text("filter: at letter 7").wait_for()
        page.fill("#filter", "")
        page.press("#filter", "Enter")
        searched(page)
        assert page.locator("#problem").is_hidden()

    def test_why_shows_words_and_parts(self, service, tab):
        page = tab.open(service)
        page.locator(".card .go").first.click()
        searched(page)
        page.fill("#text", "is very blue")
        page.press("#text", "Enter")
        page.locator("#trail li").nth(1).wait_for()
        searched(page)
        page.click("#why-button")
        page.locator("#why meter").nth(3).wait_for()
        assert tab.bodies("/v1/explain")[-1]["model"] == f"tiny@{tiny().fingerprint[:12]}"
        assert page.locator("#why .words li").count() == 12
        assert page.locator("#why .parts span").all_text_contents() == ["the picture", "is", "very", "blue"]

    def test_a_part_is_marked_with_the_pointer_and_moved_with_the_keyboard(self, service, tab, picture):
        page = tab.open(service)
        page.set_input_files("#file", picture)
        searched(page)
        page.click("#mark")
        searched(page)
        assert page.input_value("#composer") == "compodiff"
        frame = page.locator("#frame").bounding_box()
        page.mouse.move(frame["x"] + 0.1 * frame["width"], frame["y"] + 0.2 * frame["height"])
        page.mouse.down()
        page.mouse.move(frame["x"] + 0.6 * frame["width"], frame["y"] + 0.7 * frame["height"], steps=4)
        page.mouse.up()
        searched(page)
        query = tab.bodies("/v1/search")[-1]["query"]
        assert query["mask"]["box"] == pytest.approx([0.1, 0.2, 0.6, 0.7], abs=0.02)
        assert query["composer"] == "compodiff"
        before = query["mask"]["box"]
        page.locator("#box").press("ArrowRight")
        page.locator("#box").press("Shift+ArrowUp")
        searched(page)
        moved = [before[0] + 0.02, before[1], before[2] + 0.02, before[3] - 0.02]
        assert tab.bodies("/v1/search")[-1]["query"]["mask"]["box"] == pytest.approx(moved, abs=1e-6)
        page.locator("#box").press("Delete")
        searched(page)
        assert "mask" not in tab.bodies("/v1/search")[-1]["query"]
        assert tab.errors == []

    def test_a_masked_object_is_sent_as_its_picture(self, service, tab):
        page = tab.open(service)
        page.locator(".card .go").first.click()
        searched(page)
        page.click("#mark")
        page.locator("#box").wait_for()
        searched(page)
        query = tab.bodies("/v1/search")[-1]["query"]
        assert base64.b64decode(query["image"])[:2] == b"\xff\xd8"
        assert query["mask"] == {"box": [0.25, 0.25, 0.75, 0.75]}

    def test_no_part_of_an_object_without_a_picture_is_marked(self, service, tab):
        def without_thumbnails(route: Any) -> None:
            answer = route.fetch()
            content = answer.json()
            for hit in content["hits"]:
                hit["thumbnail"] = None
            route.fulfill(response=answer, json=content)

        page = tab.page
        page.route("**/v1/search", without_thumbnails)
        tab.open(service)
        assert page.locator("#mark").evaluate("(each) => each.hidden") is False
        page.locator(".card .go").first.click()
        searched(page)
        assert page.locator("#another").is_visible()
        assert page.locator("#mark").is_hidden()
        assert tab.errors == []

    def test_it_is_used_with_the_keyboard_alone(self, service, tab):
        page = tab.open(service)
        reached = []
        for _ in range(16):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        wanted = ["skip", "quiet", "file", "text", "negative", "must", "composer", "second", "search", "clear", "go"]
        assert [name for name in reached if name in wanted][: len(wanted)] == wanted
        page.focus("#text")
        page.keyboard.type("a green hat")
        page.keyboard.press("Enter")
        searched(page)
        page.locator(".card .go").first.focus()
        page.keyboard.press("Enter")
        page.locator("#trail li").nth(1).wait_for()
        assert page.evaluate("document.activeElement.id") == "text"

    def test_what_a_payload_says_is_shown_as_text(self, service, tab):
        page = tab.open(service)
        page.fill("#text", "a hat")
        page.click("#search")
        searched(page)
        page.click("#more")
        page.locator(".what", has_text=HOSTILE).wait_for()
        page.locator(".card", has=page.locator(".what", has_text=HOSTILE)).locator(".open").click()
        page.locator("#details-title", has_text=HOSTILE).wait_for()
        page.keyboard.press("Escape")
        page.locator(".card .open").first.click()
        page.locator("#details-words", has_text=HOSTILE).wait_for()
        assert "broken" not in page.title()
        assert tab.errors == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_is_light_or_dark_as_the_system_is(self, service, browser, scheme):
        tab = Tab(browser, color_scheme=scheme)
        page = tab.open(service)
        red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (red + green + blue > 600) == (scheme == "light")
        tab.context.close()

    def test_it_fits_on_a_phone(self, service, browser):
        tab = Tab(browser, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
        page = tab.open(service)
        page.locator(".card .go").first.tap()
        searched(page)
        page.fill("#text", "is blue")
        page.fill("#negative", "red, white, black")
        page.fill("#must", "green")
        page.tap("#search")
        searched(page)
        page.locator(".signals").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator(".tools").first.evaluate("(each) => getComputedStyle(each).opacity") == "1"
        tab.context.close()

    def test_without_a_collection_it_composes_and_says_what_is_missing(self, tab, picture):
        with serving() as running:
            tab.page.goto(f"{running.url}/")
            tab.page.get_by_text("No collection is searched here yet").wait_for()
            tab.page.get_by_text("serve --collection").wait_for()
            assert tab.page.locator("#must").is_hidden()
            tab.page.set_input_files("#file", picture)
            tab.page.fill("#text", "is blue")
            tab.page.click("#search")
            tab.page.get_by_text("The query vector, 128 numbers").wait_for()
            assert tab.page.locator("#why .words li").count() == 12
            assert tab.bodies("/v1/compose")[-1]["queries"][0]["text"] == "is blue"
            assert tab.errors == []

    def test_the_vector_is_copied_over_plain_http_too(self, tab):
        tab.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        with serving() as running:
            tab.page.goto(f"{running.url}/")
            tab.page.get_by_text("No collection is searched here yet").wait_for()
            tab.page.fill("#text", "is blue")
            tab.page.click("#search")
            tab.page.get_by_role("button", name="Copy all").click()
            tab.page.get_by_role("button", name="Copied").wait_for()
            tab.page.fill("#text", "")
            tab.page.press("#text", "Control+V")
            assert len(json.loads(tab.page.input_value("#text"))) == 128
            assert tab.errors == []

    def test_where_vectors_blend_text_a_result_is_sent_as_its_picture(self, tab, tmp_path, monkeypatch):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        sync(open_source(tmp_path), collection, tiny())
        blending = replace(collection.info(), blends_text=True)
        monkeypatch.setattr(collection, "info", lambda: blending)
        with serving(collections={"shop": [collection]}) as running:
            page = tab.open(running)
            assert page.get_by_role("button", name="More like this").count() == 0
            page.locator(".card .go").first.click()
            searched(page)
            assert base64.b64decode(tab.bodies("/v1/search")[-1]["query"]["image"])[:2] == b"\xff\xd8"
            assert page.locator("#problem").is_hidden()
            assert tab.errors == []

    def test_a_collection_that_cannot_be_searched_is_said(self, tab):
        with serving(collections={"far": [open_collection("qdrant://127.0.0.1:9/shop")]}) as running:
            tab.page.goto(f"{running.url}/")
            tab.page.get_by_text("Collection far cannot be searched now").wait_for()
            tab.page.get_by_text("no Qdrant server answers").wait_for()

    def test_a_key_that_the_browser_was_given_opens_all_of_it(self, service, browser, tmp_path):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        sync(open_source(tmp_path), collection, tiny())
        with serving(collections={"shop": [collection]}, api_keys="me:secret") as running:
            tab = Tab(browser, http_credentials={"username": "me", "password": "secret"})
            page = tab.open(running)
            page.fill("#text", "a hat")
            page.click("#search")
            searched(page)
            until(page, "document.querySelector('.card img').naturalWidth > 0")
            tab.context.close()
