"""CompoDiff at every door: the same vector for the same query, and clear refusals."""

import base64
import json
from collections.abc import Iterator

import numpy as np
import pytest

from cir_vectorizer.query import ComposedQuery
from tests.support.serving import RED, Running, drawn, serving, tiny

BLUE = drawn(0x0000FF)
BOX = {"box": [0, 0, 0.5, 1]}
QUERIES = {
    "picture and text": {"image": RED, "text": "is blue"},
    "negative text": {"image": RED, "text": "is blue", "negative_text": "striped"},
    "box": {"image": RED, "text": "is blue", "mask": BOX},
    "mask as a picture": {"image": RED, "text": "is blue", "mask": BLUE},
    "several pictures": {"image": [RED, BLUE], "text": "is green"},
    "text alone": {"text": "a red dress"},
    "picture alone": {"image": RED},
    "options": {
        "image": RED,
        "text": "is blue",
        "options": {"steps": 3, "seed": 5, "guidance": [1.0, 4.0], "keep": 0.7},
    },
}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving() as running:
        yield running


def qdrant(service, query):
    one = {"data": query, "data_type": "object", "model": "compodiff", "options": None}
    return service.post("/qdrant", {"inputs": [one], "inference": "search"})


@pytest.mark.parametrize("name", QUERIES)
def test_every_door_gives_the_vector_of_the_library(service, name):
    query = {**QUERIES[name], "composer": "compodiff"}
    expected = tiny().compose([query]).vectors[0]
    by_text = service.post("/m/tiny/vectorize", {"texts": [json.dumps(query)]})
    by_object = qdrant(service, query)
    by_rest = service.post("/v1/compose", {"queries": [query]})
    for answer, vector in (
        (by_text, lambda body: body["textVectors"][0]),
        (by_object, lambda body: body["embeddings"][0]),
        (by_rest, lambda body: body["vectors"][0]),
    ):
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(vector(answer.json()), expected, atol=2e-5)


def test_a_picture_that_ends_as_a_mask_reads_does_not_stand_for_the_masked_one(service):
    """The cache key keeps picture and mask apart instead of joining their bytes."""
    red = base64.b64decode(RED)
    with serving() as other:
        engine = other.service.engine
        masked = {"image": RED, "text": "is blue", "mask": BOX, "composer": "compodiff"}
        (picture,) = engine.vectorizers["tiny"].plan(ComposedQuery.parse(masked)).pictures
        poison = base64.b64encode(red + picture.mask.content).decode()
        assert other.post("/v1/compose", {"queries": [{"image": poison}]}).status_code == 200
        after = other.post("/v1/compose", {"queries": [masked]}).json()
    assert after == service.post("/v1/compose", {"queries": [masked]}).json()


def test_a_mask_changes_what_is_cached_for_a_picture(service):
    ask = {"image": RED, "text": "is blue", "composer": "compodiff"}
    asked = [ask, {**ask, "mask": BOX}, ask, {**ask, "mask": {"box": [0.5, 0, 1, 1]}}]
    vectors = [service.post("/v1/compose", {"queries": [query]}).json()["vectors"][0] for query in asked]
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)
    assert np.abs(np.subtract(vectors[0], vectors[1])).max() > 1e-3
    np.testing.assert_allclose(tiny().compose([asked[3]]).vectors[0], vectors[3], atol=2e-5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"image": RED, "text": "x", "options": {"strength": 1}}, "options.strength"),
        ({"text": "x", "mask": BOX}, "mask"),
        ({"image": RED, "text": "x", "mask": {"box": [0.5, 0, 0.5, 1]}}, "mask"),
        ({"image": [1.0] * 128, "text": "x", "mask": BOX}, "mask"),
        ({"image": RED, "text": "x", "mask": "bm90IGEgcGljdHVyZQ=="}, "mask"),
        ({"image": RED, "text": "x", "options": {"steps": 0}}, "options.steps"),
        ({"image": RED, "text": "x", "options": {"steps": 10_000}}, "options.steps"),
        ({"image": RED, "text": "x", "options": {"keep": 1.5}}, "options.keep"),
    ],
)
def test_a_wrong_query_is_refused_by_name_at_every_door(service, query, field):
    query = {**query, "composer": "compodiff"}
    answers = [
        service.post("/m/tiny/vectorize", {"texts": [json.dumps(query)]}),
        qdrant(service, query),
        service.post("/v1/compose", {"queries": [query]}),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert field in answer.json()["error"]


def test_guidance_that_is_no_number_is_refused(service):
    query = {"image": RED, "text": "x", "composer": "compodiff", "options": {"guidance": [1.5, float("nan")]}}
    text = json.dumps(query)
    answer = service.post("/vectorize", {"texts": [text]})
    assert answer.status_code == 400
    assert "NaN" in answer.json()["error"]


def test_its_cost_is_told(service):
    models = service.client.get(service.url + "/v1/models").json()
    composers = {each["name"]: each["seconds"] for each in models["data"][0]["composers"]}
    assert composers["compodiff"] > composers["lincir"] > 0
