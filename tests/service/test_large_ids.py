"""64-bit ids, which JavaScript's numbers confuse, in the service's answers and on its page."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from tests.service.test_pages import Tab, searched
from tests.support.serving import Running, serving, tiny

IDS = {"a": 9007199254740992, "b": 9007199254740993, "c": 215250709085334181, "d": 17}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A collection of another program; two of its ids are neighbours beyond 2**53."""
    folder = tmp_path_factory.mktemp("index")
    colours = ["red", "green", "blue", "white"]
    vectors = np.asarray(tiny().embed_images([Image.new("RGB", (64, 64), colour) for colour in colours]))
    client = QdrantClient(path=str(folder))
    config = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("shop", vectors_config=config)
    rows = zip(IDS.items(), vectors, strict=True)
    client.upsert(
        "shop",
        [models.PointStruct(id=i, vector=v.tolist(), payload={"name": name, "ean": i}) for (name, i), v in rows],
    )
    client.close()
    return f"qdrant:{folder}/shop"


@pytest.fixture
def service(place: str) -> Iterator[Running]:
    with serving(collections={"shop": [open_collection(place)]}) as running:
        yield running


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    made = Tab(browser)
    yield made
    made.context.close()


def test_answers_carry_ids_as_text_and_every_one_finds_its_object(service: Running) -> None:
    hits = service.post("/v1/search", {"query": {"text": "a picture"}, "limit": 4}).json()["hits"]
    assert {hit["payload"]["name"]: hit["id_text"] for hit in hits} == {name: str(id_) for name, id_ in IDS.items()}
    assert {hit["payload"]["name"]: hit["id"] for hit in hits} == {**{k: str(v) for k, v in IDS.items()}, "d": 17}
    for hit in hits:
        for id_ in (hit["id"], hit["id_text"], f" {hit['id_text']} "):
            asked = {"query": {"image": {"id": id_}}, "limit": 1, "include_reference": True}
            found = service.post("/v1/search", asked).json()
            assert found["hits"][0]["payload"]["name"] == hit["payload"]["name"]


def test_a_number_that_lost_its_digits_is_refused_and_a_small_one_taken(service: Running) -> None:
    answer = service.post("/v1/search", {"query": {"image": {"id": 17.0}}, "limit": 1, "include_reference": True})
    assert answer.json()["hits"][0]["payload"]["name"] == "d"
    answer = service.post("/v1/search", {"query": {"image": {"id": float(IDS["a"])}}, "limit": 1})
    assert answer.status_code == 400
    assert "lost its last digits; give it as text" in answer.json()["error"]


def test_the_command_line_prints_and_takes_them(place: str) -> None:
    found = CliRunner().invoke(
        main, ["search", "--in", place, "--id", f"{IDS['b']}.0", "--json"], catch_exceptions=False
    )
    lines = {line["payload"]["name"]: line for line in map(json.loads, found.stdout.splitlines())}
    assert {name: line["id_text"] for name, line in lines.items()}.items() >= {"c": str(IDS["c"]), "d": "17"}.items()
    assert lines["d"]["id"] == 17


@pytest.mark.browser
def test_the_page_goes_on_from_the_object_that_was_clicked(service: Running, tab: Tab) -> None:
    page = tab.open(service)
    for name in ("b", "c"):
        page.goto(f"{service.url}/")
        card = page.locator(".card", has=page.locator(".what", has_text=name))
        card.wait_for()
        assert str(IDS[name]) in card.locator(".columns").text_content()
        card.locator(".go").click()
        searched(page)
        assert tab.bodies("/v1/search")[-1]["query"] == {"image": {"id": str(IDS[name])}}
    page.goto(f"{service.url}/")
    for name in ("a", "b"):
        page.get_by_label(f"More like this: {name}", exact=True).click()
        searched(page)
    assert tab.bodies("/v1/search")[-1]["like"] == [{"id": str(IDS["a"])}, {"id": str(IDS["b"])}]
    assert tab.errors == []
