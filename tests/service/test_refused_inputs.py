"""A refusal at Qdrant's door names the input by what its sender can find: the position in the batch is Qdrant's choice."""

import base64
import hashlib
import json

import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from cir_vectorizer_qdrant import refused_points
from tests.support.serving import drawn, serving

DAMAGED = b"\xff\xd8\xff\xe0 no picture at all"


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def door():
    with serving() as running:
        yield lambda *inputs: running.post("/qdrant", {"inputs": [*inputs], "inference": "update"}).json()["error"]


def image(data: object) -> dict[str, object]:
    return {"data": data, "data_type": "image", "model": "tiny", "options": None}


def text(data: str, model: str = "tiny") -> dict[str, object]:
    return {"data": data, "data_type": "text", "model": model, "options": None}


def refused(sentence: str) -> UnexpectedResponse:
    """Return the error that the stock client raises for our sentence."""
    body = json.dumps({"status": {"error": f"Inference request validation failed: {sentence}"}}).encode()
    return UnexpectedResponse(400, "Bad Request", body, None)


def test_a_damaged_picture_is_named_by_the_start_of_its_files_sha256(door):
    said = door(image(drawn(1)), image(drawn(2)), image(base64_of(DAMAGED)))
    digest = hashlib.sha256(DAMAGED).hexdigest()[:12]
    assert said.startswith(f"inputs[2] (model 'tiny'): picture sha256 {digest} (the position is Qdrant's choice): ")
    points = [
        models.PointStruct(id=number, vector=vector)
        for number, vector in {
            7: models.Image(image=drawn(1), model="tiny"),
            8: models.Image(image=base64_of(DAMAGED), model="tiny"),
            9: {"photo": models.Image(image=f"data:image/jpeg;base64,{base64_of(DAMAGED)}", model="tiny")},
            10: [1.0, 2.0],
        }.items()
    ]
    assert refused_points(refused(said), points) == [8, 9]
    assert refused_points(refused("no valid key"), points) == []


def test_texts_urls_and_queries_are_named_too(door):
    fine = text("a red dress")
    unknown = text("a blue hat with a very long story about it and its owner", "none")
    said = door(fine, unknown)
    assert "text 'a blue hat with a very long story about ', sha256 " in said
    points = [models.PointStruct(id=1, vector=models.Document(text=unknown["data"], model="none"))]
    assert refused_points(refused(said), points) == [1]
    said = door(fine, image("https://user:secret@shop.example/1.jpg?signature=secret"))
    assert "picture https://shop.example/1.jpg, sha256 " in said
    assert "secret" not in said
    query = {"text": "is red", "image": drawn(3), "colour": "red"}
    said = door(fine, {"data": query, "data_type": "object", "model": "tiny", "options": None})
    assert "query sha256 " in said
    points = [models.PointStruct(id=2, vector=models.InferenceObject(object=dict(reversed(query.items())), model="t"))]
    assert refused_points(refused(said), points) == [2]


def test_a_single_input_needs_no_name(door):
    assert "sha256" not in door(image(base64_of(DAMAGED)))
