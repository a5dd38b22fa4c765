"""A composer from another package appears correctly at every door, given only its entry point and its `takes`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.cli.serve import _load
from cir_vectorizer.collections import open_collection
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.errors import ModelError, QueryError
from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.service.test_pages import Tab
from tests.support.serving import RED, Running, drawn, serving
from tests.support.stranger import TalkingTint, installed

BLUE = drawn(0x0000FF)
QUERY = {"image": RED, "text": "is blue", "composer": "tint"}
BOX = {"box": [0, 0, 0.5, 1]}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("site-packages"), tint="Tint", talking="TalkingTint"):
        yield


@pytest.fixture(scope="module")
def model(package: None) -> Vectorizer:
    return load("tiny", "cpu")


@pytest.fixture(scope="module")
def service(model: Vectorizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("shop")
    for colour in ("red", "green", "blue", "white"):
        Image.new("RGB", (64, 48), colour).save(folder / f"{colour}.png")
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder), collection, model)
    with serving(vectorizers={"tiny": model}, collections={"shop": [collection]}) as running:
        yield running


def test_models_lists_what_it_takes_and_what_it_costs(service):
    (listed,) = service.client.get("/v1/models").json()["data"]
    (tint,) = [each for each in listed["composers"] if each["name"] == "tint"]
    assert tint["takes"] == {
        "image": "required",
        "text": "required",
        "negative_text": "refused",
        "mask": "optional",
        "template": "refused",
        "language": "refused",
        "most_images": 1,
        "options": ["seed"],
        "units_per_step": 0,
    }
    assert 0 < tint["seconds"] < 10
    assert service.client.get("/meta").json()["composers"].count("tint") == 1


@pytest.mark.parametrize("more", [{}, {"mask": BOX}, {"options": {"seed": 7}}], ids=["plain", "mask", "seed"])
def test_every_door_gives_the_vector_of_the_library(service, model, more):
    query = {**QUERY, **more}
    expected = model.compose([query]).vectors[0]
    one = {"data": query, "data_type": "object", "model": "tint", "options": None}
    answers = [
        service.post("/v1/compose", {"queries": [query]}).json()["vectors"],
        service.post("/v1/compose", {"model": "tint", "queries": [query]}).json()["vectors"],
        service.post("/m/tiny/tint/vectorize", {"texts": [json.dumps(query)]}).json()["textVectors"],
        service.post("/qdrant", {"inputs": [one], "inference": "search"}).json()["embeddings"],
    ]
    for (vector,) in answers:
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"negative_text": "logo"}, "negative_text", "Tint reads no negative text; use composer 'lincir' or"),
        ({"template": "a $ {text}"}, "template", "Tint reads no template; use composer 'lincir', or remove it"),
        ({"text": None}, "text", "Tint needs text; add text"),
        ({"image": [RED, BLUE]}, "image", "Tint takes at most 1, and there are 2; send fewer"),
    ],
)
def test_what_it_does_not_take_is_refused_before_it_is_asked(service, model, more, field, says):
    with pytest.raises(QueryError) as refused:
        model.compose([{**QUERY, **more}])
    assert refused.value.field == field
    answer = service.post("/v1/compose", {"queries": [{**QUERY, **more}]})
    assert answer.status_code == 400
    assert f"{field}: {says}" in answer.json()["error"]


def test_the_api_is_described_for_it(service):
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    schema, masked = schemas["Query.tint"], schemas["MaskedQuery.tint"]
    assert schema["required"] == ["image", "text", "composer"]
    assert set(schema["properties"]) == {"image", "text", "options", "composer"}
    assert schema["properties"]["image"] == {"$ref": "#/components/schemas/Image"}
    assert list(schema["properties"]["options"]["properties"]) == ["seed"]
    assert "mask" in masked["required"]
    named = {each["$ref"].rpartition("/")[2] for each in schemas["Query"]["anyOf"]}
    assert {"Query.tint", "MaskedQuery.tint", "Query.lincir", "Query.sum"} <= named


def test_a_search_asks_it_and_likes_are_plain_pictures_since_it_needs_a_text(service, model):
    body = {"query": QUERY, "like": [BLUE], "limit": 2}
    answer = service.post("/v1/search", body).json()
    assert len(answer["hits"]) == 2
    parts = Search.read(QUERY, like=[BLUE]).parts(model)
    assert parts["like.0"].plain
    collection = next(iter(service.service.collections.values()))._idle.get()
    try:
        found = find(Search.read(QUERY, like=[BLUE], limit=2), collection, model)
    finally:
        next(iter(service.service.collections.values()))._idle.put(collection)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in found.hits]


def test_explain_drops_only_what_it_does_not_need(service):
    answer = service.post("/v1/explain", {"query": QUERY}).json()
    assert answer["composer"] == "tint"
    assert answer["pictures"] == []
    assert [part["word"] for part in answer["parts"]] == ["is", "blue"]
    talking = service.post("/v1/explain", {"query": {**QUERY, "composer": "talking"}}).json()
    assert talking["pictures"] == [[{"word": "tinted", "similarity": 1.0}]]
    assert talking["parts"] == []


def test_it_is_warmed_up_in_a_queue_of_its_own(service):
    queues = {queue.name: queue for queue in service.service.engine.device.queues}
    assert queues["tiny/composer tint"].seconds_per_unit != queues["tiny/composer talking"].seconds_per_unit


def test_serve_compiles_it():
    for compiles in (False, True):
        (served,) = _load(Settings(model=("tiny",), compile=compiles)).values()
        talking = served.composers["talking"]
        assert isinstance(talking, TalkingTint)
        assert talking.compiled is compiles


def test_models_show_prints_what_it_takes():
    shown = json.loads(CliRunner().invoke(main, ["models", "show", "tiny"], catch_exceptions=False).output)
    assert shown["composers"]["tint"]["takes"]["text"] == "required"
    assert shown["composers"]["lincir"]["takes"]["mask"] == "refused"
    assert shown["composers"]["lincir"]["file"].startswith("lincir-")


@pytest.mark.parametrize(("value", "says"), [("NO_COMPOSER", "is no subclass of"), ("missing", "cannot be imported")])
def test_what_is_no_composer_is_named(tmp_path: Path, value: str, says: str):
    with installed(tmp_path, odd=value), pytest.raises(ModelError, match=rf"composer 'odd' .*{says}.*uninstall"):
        load("tiny", "cpu")


@pytest.mark.browser
def test_the_page_shows_the_fields_that_it_takes(service, model, browser):
    with serving(vectorizers={"tiny": model}) as without_collection:
        for running, searches in ((service, True), (without_collection, False)):
            tab = Tab(browser)
            page: Any = tab.page
            page.goto(f"{running.url}/")
            page.select_option("#composer", "lincir")
            assert page.is_visible("#negative")
            page.select_option("#composer", "tint")
            assert page.is_visible("#negative") == searches  # a search scores its results by the words
            assert page.is_visible("#text")
            assert tab.errors == []
