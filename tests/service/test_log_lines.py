"""Log lines of requests: a refusal's sentence, and what was cut from a text; databases pass neither on."""

import json
import logging
from collections.abc import Iterator
from io import StringIO

import httpx
import pytest

from cir_vectorizer.service.logs import JsonLines
from tests.support.serving import RED, Running, serving, wait_for

LONG = "word " * 500


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture
def lines() -> Iterator[StringIO]:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger("cir_vectorizer")
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def logged(service: Running, lines: StringIO, path: str, body: object) -> tuple[httpx.Response, dict]:
    """The answer to a request, and its log line, which is written after the answer is sent."""
    before = len(lines.getvalue().splitlines())
    answer = service.post(path, body)
    wait_for(lambda: len(lines.getvalue().splitlines()) > before, 20)
    return answer, json.loads(lines.getvalue().splitlines()[-1])


def test_a_refused_requests_line_holds_the_sentence(service, lines):
    for path, body in (
        ("/v1/compose", {"queries": [{"text": "red", "options": {"steps": 0}}]}),
        ("/m/nothing/vectorize", {"texts": ["red"]}),
        ("/qdrant", {"inputs": "red"}),
    ):
        refused, line = logged(service, lines, path, body)
        assert refused.status_code == 400
        assert line["error"] == refused.json()["error"]


def cut(service: Running, door: str) -> float:
    name = f'cir_cut_texts_total{{door="{door}"}} '
    text = service.client.get("/metrics").text
    return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)


def test_a_text_that_is_too_long_is_counted_and_logged_at_each_door(service, lines):
    query = {"image": RED, "text": LONG}
    inputs = [
        {"data": LONG, "data_type": "text", "model": "tiny"},
        {"data": query, "data_type": "object", "model": "tiny"},
    ]
    for door, path, body, count in (
        ("weaviate", "/vectorize", {"texts": [LONG, "red"]}, 1),
        ("weaviate", "/vectorize", {"texts": [json.dumps(query)]}, 1),
        ("qdrant", "/qdrant", {"inputs": inputs, "inference": "search"}, 2),
        ("rest", "/v1/compose", {"queries": [query, {"text": "red"}]}, 1),
        ("rest", "/v1/embed", {"texts": ["red", LONG]}, 1),
        ("rest", "/v1/embeddings", {"input": [LONG, LONG]}, 2),
        ("rest", "/v1/explain", {"query": query}, 1),
    ):
        before = cut(service, door)
        answer, line = logged(service, lines, path, body)
        assert answer.status_code == 200
        assert len(line["notes"]) == count
        assert all("its end was left out" in note for note in line["notes"])
        assert cut(service, door) == before + count
    _, line = logged(service, lines, "/vectorize", {"texts": ["red"]})
    assert "notes" not in line
