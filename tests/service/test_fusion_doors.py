"""Fusion and a model's default options at every door: the same vector as the library's, alone and in batches."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from cir_vectorizer.client import Client
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query import Options
from tests.support.serving import RED, Running, at_every_door, serving, tiny

DEFAULTS = {"lincir": {"fusion": {"a": 1.2, "b": 0.8, "c": 1.0}}, "sum": {"weights": {"image": 0.2, "text": 0.8}}}


@pytest.fixture(scope="module")
def model() -> Vectorizer:
    defaults = {name: Options.model_validate(options) for name, options in DEFAULTS.items()}
    return Vectorizer("tiny", tiny().backbone, tiny().composers, "lincir", defaults=defaults)


@pytest.fixture(scope="module")
def service(model) -> Iterator[Running]:
    with serving(vectorizers={"tiny": model}) as running:
        yield running


@pytest.mark.parametrize("composer", ["lincir", "sum", "compodiff"])
@pytest.mark.parametrize(
    "options", [{}, {"fusion": {"b": 0.5, "a": 0.6}}, {"keep": 0.8}, {"fusion": {"b": 0.3}, "keep": 0.3}]
)
def test_every_door_gives_the_vector_of_the_library(service, model, composer, options):
    query = {"image": RED, "text": "is blue", "composer": composer, "options": options}
    expected = model.compose([query]).vectors[0]
    given = DEFAULTS.get(composer, {}) | {"fusion": options["fusion"]} if "fusion" in options else None
    if given and "keep" not in options:
        np.testing.assert_allclose(tiny().compose([{**query, "options": given}]).vectors[0], expected, atol=1e-6)
    for vector in at_every_door(service, query):
        np.testing.assert_allclose(vector, expected, atol=2e-5)


def test_a_batch_may_mix_queries_with_fusion_and_without(service, model):
    queries = [
        {"image": RED, "text": text, "composer": composer, "options": options}
        for text in ("is blue", "is green")
        for composer in ("lincir", "sum")
        for options in ({}, {"fusion": {}}, {"fusion": {"b": 0.4}}, {"keep": 0.1})
    ] + [{"text": "a red dress"}, {"image": RED}]
    with Client(service.url) as client:
        vectors = client.compose(queries).vectors
    alone = np.concatenate([model.compose([query]).vectors for query in queries])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_wrong_numbers_are_named_at_the_doors(service):
    query = {"image": RED, "text": "is blue", "options": {"fusion": {"b": 1.5}}}
    answer = service.post("/v1/compose", {"queries": [query]})
    assert (answer.status_code, answer.json()["field"]) == (400, "queries.0.options.fusion.b")
    answer = service.post("/m/tiny/vectorize", {"texts": [json.dumps(query)]})
    assert (answer.status_code, answer.json()["field"]) == (400, "texts.0.options.fusion.b")


def test_the_service_lists_the_option_and_the_defaults(service):
    composers = service.client.get("/v1/models").json()["data"][0]["composers"]
    for each in composers:
        fuses = each["name"] in ("lincir", "sum", "compodiff")
        assert ("fusion.b" in each["takes"]["options"]) is fuses
        assert each["defaults"] == DEFAULTS.get(each["name"], {})
