"""`/v1/embeddings` and `/v1/multimodalembeddings` answer what clients of OpenAI, Jina and Voyage send, and compose.

The requests are those of Jina's API (https://docs.langchain.com/oss/python/integrations/text_embedding/jina), of LlamaIndex's
client of it (llama-index-embeddings-jinaai 0.7.0), and of Voyage's (https://docs.voyageai.com/docs/multimodal-embeddings,
voyageai 0.5.0).
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.service.test_doors import fake_internet
from tests.support.serving import RED, Running, drawn, serving, tiny

BLUE = drawn(0x0000FF)
URL = "https://shop.example/dress.jpg"
URI = f"data:image/png;base64,{RED}"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(fake_internet(), allow_urls=True) as running:
        yield running


def embeddings(service: Running, path: str, body: dict[str, Any]) -> list[list[float]]:
    answer = service.post(path, body)
    assert answer.status_code == 200, answer.text
    assert [each["index"] for each in answer.json()["data"]] == list(range(len(answer.json()["data"])))
    return [each["embedding"] for each in answer.json()["data"]]


def composed(*queries: dict[str, Any]) -> Any:
    return tiny().compose(queries).vectors


def test_jinas_objects_are_embedded_and_composed(service):
    inputs = [
        "a red dress",
        {"text": "a red dress"},
        {"image": RED},
        {"image": URI},
        {"image": URL},
        {"image": RED, "text": "is blue"},
        {"image": URI, "text": "is blue", "negative_text": "stripes"},
        {"image": RED, "text": "is blue", "composer": "sum", "options": {"weights": {"text": 0.5}}},
    ]
    body = {"model": "tiny", "normalized": True, "embedding_type": "float", "task": "retrieval.query", "input": inputs}
    found = embeddings(service, "/v1/embeddings", {**body, "dimensions": tiny().dim, "truncate": False})
    assert found[0] == found[1]
    assert found[2] == found[3] != found[4]
    np.testing.assert_allclose(found[1], tiny().embed_texts(["a red dress"])[0], atol=1e-5)
    expected = composed({"image": RED}, *inputs[5:])
    np.testing.assert_allclose([found[2], *found[5:]], expected, atol=1e-5)
    (one,) = embeddings(service, "/v1/embeddings", {"input": inputs[5]})
    np.testing.assert_allclose(one, found[5], atol=1e-5)


def test_an_object_with_one_part_is_no_composed_query_of_the_model_that_is_named(service):
    inputs = [{"image": RED}, {"text": "a red dress"}, {"image": RED, "text": "is blue"}]
    found = embeddings(service, "/v1/embeddings", {"model": "sum", "input": inputs})
    expected = composed(inputs[0], inputs[1], {**inputs[2], "composer": "sum"})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    answer = service.post("/v1/embeddings", {"model": "sum", "input": [{**inputs[2], "composer": "lincir"}]})
    assert (answer.status_code, answer.json()["field"]) == (400, "input.0.composer")


def test_llamaindexs_client_of_jina_is_answered(service):
    body = {"input": [{"bytes": RED}, {"url": URL}], "model": "tiny", "encoding_type": "float", "late_chunking": False}
    found = embeddings(service, "/v1/embeddings", body)
    assert found == embeddings(service, "/v1/embeddings", {"input": [{"image": RED}, {"image": URL}]})


def test_voyages_inputs_are_embedded_and_composed(service):
    text = {"type": "text", "text": "is blue"}
    inputs = [
        {"content": [text]},
        {"content": [{"type": "image_base64", "image_base64": URI}]},
        {"content": [{"type": "image_url", "image_url": URL}]},
        {"content": [{"type": "image_base64", "image_base64": URI}, text]},
        {"content": [text, {"type": "image_url", "image_url": URL}, {"type": "text", "text": "and long"}]},
        {"content": [{"type": "image_base64", "image_base64": each} for each in (RED, BLUE)] + [text]},
        {"content": [{"type": "image_base64", "image_base64": URI}, text], "negative_text": "stripes"},
    ]
    body = {"inputs": inputs, "model": "tiny", "input_type": "query", "truncation": True}
    found = embeddings(service, "/v1/multimodalembeddings", body)
    np.testing.assert_allclose(found[0], tiny().embed_texts(["is blue"])[0], atol=1e-5)
    expected = composed(
        {"image": RED},
        {"image": RED, "text": "is blue"},
        {"image": [RED, BLUE], "text": "is blue"},
        {"image": RED, "text": "is blue", "negative_text": "stripes"},
    )
    np.testing.assert_allclose([found[i] for i in (1, 3, 5, 6)], expected, atol=1e-5)
    same = [{"image": URL}, {"image": URL, "text": "is blue and long"}]
    np.testing.assert_allclose([found[2], found[4]], embeddings(service, "/v1/embeddings", {"input": same}), atol=1e-6)
    np.testing.assert_allclose(embeddings(service, "/v1/embeddings", {"input": inputs}), found, atol=1e-6)


def test_voyages_client_gets_what_it_reads(service):
    """The body and the fields of the answer that voyageai.Client.multimodal_embed uses."""
    body = {
        "inputs": [{"content": [{"type": "text", "text": "a red dress"}]}],
        "model": "tiny", "input_type": None, "truncation": True, "output_dtype": None, "output_dimension": None,
        "encoding_format": "base64",
    }  # fmt: skip
    answer = service.post("/v1/multimodalembeddings", body).json()
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(vector, tiny().embed_texts(["a red dress"])[0], atol=1e-5)
    usage = answer["usage"]
    assert usage["text_tokens"] == usage["total_tokens"] > 0
    assert usage["image_pixels"] == usage["video_pixels"] == 0
    assert answer["model"].startswith("tiny@")


@pytest.mark.parametrize(
    ("path", "body", "field", "sentence"),
    [
        ("", {"input": ["a", 3]}, "input.1", "input[1]: is a number; send a text, a picture's data URI, or an object"),
        ("", {"input": [[1, 2]]}, "input.0", "is a list; send a text"),
        ("", {"input": 3}, "input.0", "is a number; send a text"),
        ("", {}, "input", "input: field required"),
        ("", {"input": ["a", {"image": "zz!"}]}, "input.1.image.0", "input[1]: image.0 holds '!', which base64 never does"),
        ("", {"input": ["a", {"image": RED, "text": "b", "colour": "red"}]}, "input.1.colour", "is not a field"),
        ("", {"input": [{}]}, "input.0", "the query is empty; give at least image or text"),
        ("", {"input": [{"image": {"path": "/etc/passwd"}}]}, "input.0.image.0", "a path is not accepted here"),
        ("", {"input": ["a", {"image": RED, "text": "b", "must_text": "c"}]}, "input.1.must_text", "compares the"),
        ("", {"input": ["a"], "normalized": False}, "normalized", "should be True"),
        ("", {"input": ["a"], "embedding_type": "binary"}, "embedding_type", "should be 'float' or 'base64'"),
        ("", {"input": ["a"], "output_dimension": 3}, "dimensions", "is 3, but vectors of 'tiny' have 128 numbers"),
        ("", {"input": ["a"], "late_chunking": True}, "late_chunking", "should be False"),
        ("", {"input": [{"content": [], "text": "a"}]}, "input.0.text", "stands beside content; put pictures"),
        ("m", {"inputs": 3}, "inputs", "should be a valid list"),
        ("m", {"inputs": [{"content": 3}]}, "inputs.0.content", "content: is a number, not a list; send {'type': 'text'"),
        ("m", {"inputs": [{"content": []}]}, "inputs.0", "the query is empty"),
        ("m", {"inputs": [{"content": ["a"]}]}, "inputs.0.content.0", "content.0: is no text and no picture; send"),
        (
            "m",
            {"inputs": [{"content": [{"type": "text", "text": "a"}]}, {"content": [{"type": "video_url", "video_url": "b"}]}]},
            "inputs.1.content.0",
            "inputs[1]: content.0: is no text and no picture",
        ),
        ("m", {"inputs": [{"content": [{"type": "text", "text": 3}]}]}, "inputs.0.content.0", "is no text"),
        ("m", {"inputs": [{"content": [{"type": "image_base64", "image_base64": "zz!"}]}]}, "inputs.0.image.0", "image.0 holds"),
        (
            "m",
            {"inputs": [{"content": [{"type": "image_base64", "image_base64": {"path": "/etc/passwd"}}]}]},
            "inputs.0.content.0.image.0",
            "a path is not accepted here",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_input(service, path, body, field, sentence):
    answer = service.post("/v1/multimodalembeddings" if path else "/v1/embeddings", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["field"] == field
    assert sentence in answer.json()["error"]


def test_a_text_over_the_operators_limit_is_refused():
    with serving(max_text=100) as running:
        for each in ("a" * 101, {"text": "a" * 101}, {"content": [{"type": "text", "text": "a" * 101}]}):
            answer = running.post("/v1/embeddings", {"input": ["a", each]})
            assert (answer.status_code, answer.json()["field"]) == (400, "input.1.text")
            assert "has 101 characters, over the limit of 100" in answer.json()["error"]


def test_too_many_pictures_of_one_input_are_refused():
    with serving(max_items=3) as running:
        pieces = [{"type": "image_base64", "image_base64": drawn(each)} for each in range(4)]
        answer = running.post(
            "/v1/multimodalembeddings", {"inputs": [{"content": [*pieces, {"type": "text", "text": "a"}]}]}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "items")
        answer = running.post("/v1/embeddings", {"input": ["a"] * 4})
        assert (answer.status_code, answer.json()["code"]) == (413, "items")
