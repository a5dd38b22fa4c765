"""A model with an adapter of the text tower at every door: the same vector for the same query, with it and without."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.adapters import learnt, with_adapter
from tests.support.serving import RED, Running, at_every_door, serving, tiny


@pytest.fixture(scope="module")
def adapted():
    return with_adapter(tiny(), learnt(tiny().backbone.text))


@pytest.fixture(scope="module")
def service(adapted) -> Iterator[Running]:
    with serving(vectorizers={"tiny": adapted}) as running:
        yield running


@pytest.mark.parametrize("options", [{}, {"adapter": False}, {"adapter": True}])
@pytest.mark.parametrize("more", [{}, {"negative_text": "striped"}])
def test_every_door_gives_the_vector_of_the_library(service, adapted, options, more):
    query = {"image": RED, "text": "is blue", "composer": "lincir", "options": options, **more}
    model = tiny() if options.get("adapter") is False else adapted
    expected = model.compose([{**query, "options": {}}]).vectors[0]
    for vector in at_every_door(service, query):
        np.testing.assert_allclose(vector, expected, atol=2e-5)


def test_the_option_is_a_yes_or_no(service):
    query = {"image": RED, "text": "is blue", "composer": "lincir", "options": {"adapter": "no"}}
    answer = service.post("/v1/compose", {"queries": [query]})
    assert answer.status_code == 400
    assert "options.adapter" in answer.json()["error"]


def test_the_service_tells_that_the_composer_reads_it(service):
    composers = service.client.get("/v1/models").json()["data"][0]["composers"]
    (lincir,) = [each for each in composers if each["name"] == "lincir"]
    assert "adapter" in lincir["takes"]["options"]
