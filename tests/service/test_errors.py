"""Hostile requests: each gets a sentence and no 5xx, reveals nothing, and the next good request is answered."""

import ast
import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cir_vectorizer.errors import (
    BackboneMismatch,
    CollectionError,
    DeviceError,
    ImageError,
    ModelError,
    OverloadError,
    QueryError,
)
from cir_vectorizer.service.app import create_app
from cir_vectorizer.service.run import make_server
from cir_vectorizer.service.settings import Settings
from tests.support.hostile import hostile_pictures
from tests.support.serving import RED, Running, serving, tiny, wait_for

SECRET = "hostile-test-secret-8815"
KEY = {"Authorization": f"Bearer {SECRET}"}
LEAKS = (
    SECRET,
    "Traceback",
    'File "',
    ".py",
    "/work",
    "/root",
    "/home",
    "/tmp",
    "site-packages",
    "safetensors",
    "0x7f",
)
DEEP = 100_000
HUGE = "9" * 5000
DIM = 128
GOOD = {"image": RED, "text": "is blue"}

# A body is raw bytes, or a value that is sent as JSON.
WEAVIATE: list[Any] = [
    b"", b" ", b"null", b"[]", b"3", b'"texts"', b"true", b"{", b'{"texts": ["a"', b'{"texts": ["a"]}{', b"\xff\xfe{}",
    b'{"texts": [NaN]}', b'{"texts": [Infinity]}', b'{"texts": [' + b"9" * 500 + b"]}", b"{'texts': ['a']}", b'{"texts": ["\xed\xa0\x80"]}', b'{"texts": ["\\ud800"]}',
    b"[" * DEEP, b'{"texts":' * DEEP, b'{"texts": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"texts": ["a"], "images": [1e999]}',
    b"\x00" * 100, b"\x1f\x8b\x08\x00" + b"\x00" * 50, b"<xml/>", b"texts=a&images=b",
    {"texts": "a red dress"}, {"texts": {"0": "a"}}, {"texts": 3}, {"texts": True}, {"texts": [None]}, {"texts": [3]},
    {"texts": [["a"]]}, {"texts": [{"image": RED}]}, {"texts": ["a", 3.5, "b"]}, {"images": RED}, {"images": [None]},
    {"images": [""]}, {"images": ["  "]}, {"images": ["a.jpg"]}, {"images": ["/etc/passwd"]}, {"images": ["file:///etc/passwd"]},
    {"images": ["../../secret.png"]}, {"images": ["http://127.0.0.1/a.png"]}, {"images": ["é"]}, {"images": ["\u202e"]},
    {"images": ["AAAA"]}, {"images": ["A"]}, {"images": [RED[:40]]}, {"images": [RED[:-9] + "!" + RED[-8:]]},
    {"images": ["data:image/png;base64,"]}, {"images": ["data:image/png," + RED]}, {"images": ["data:,x"]}, {"images": ["data:"]},
    {"images": [base64.b64encode(b"not a picture").decode()]}, {"images": [base64.b64encode(b"x" * 100_000).decode()]},
    {"images": [base64.b64encode(base64.b64decode(RED)[:30]).decode()]}, {"images": [RED, "zz!"]}, {"images": ["="]},
    {"texts": ["a"] * 3000}, {"images": [RED] * 3000}, {"texts": ["x" * (9 * 2**20)]}, {"texts": ["x" * (10 * 2**20)] * 2},
]  # fmt: skip

QUERIES: list[Any] = [
    {}, {"image": None}, {"image": []}, {"image": ""}, {"image": 3}, {"image": True}, {"image": {}}, {"image": [[]]},
    {"image": [[[1.0]]]}, {"image": ["a", 3]}, {"image": "zz!"}, {"image": "a.jpg"}, {"image": {"path": "/etc/passwd"}},
    {"image": {"path": 3}}, {"image": {"data": "x"}}, {"image": {"id": 7}}, {"image": {"id": "x"}}, {"image": {"id": None}},
    {"image": {"url": "http://127.0.0.1:1/"}}, {"image": {"url": "http://169.254.169.254/latest/meta-data"}}, {"image": {"url": ""}},
    {"image": "http://localhost/a.png"}, {"image": "ftp://shop.example/a"}, {"image": {"base64": RED, "url": "http://a"}},
    {"image": {"base64": 3}}, {"image": {"base64": ""}}, {"image": {"vector": []}}, {"image": {"vector": [1.0]}},
    {"image": {"vector": [0.0] * DIM}}, {"image": {"vector": [1e308] * DIM}}, {"image": {"vector": [5e-324] * DIM}},
    {"image": {"vector": ["a"] * DIM}}, {"image": {"vector": [1.0] * (DIM + 1)}}, {"image": {"vector": [True] * DIM}},
    {"image": {"vector": [1.0] * DIM, "norm": 0}}, {"image": {"vector": [1.0] * DIM, "norm": -1}}, {"image": {"norm": 3}},
    {"image": {"vector": [1.0] * DIM, "norm": "x"}}, {"image": [10**300] * DIM}, {"image": [RED] * 17}, {"image": [RED, "zz!"]},
    {"image": [RED] * 16, "text": "a", "template": "$1"}, {"image": RED, "text": 3}, {"image": RED, "text": ["a"]},
    {"image": RED, "text": {"a": 1}}, {"text": ""}, {"text": "\t\n "}, {"text": None}, {"negative_text": "logo"},
    {"image": RED, "negative_text": 3}, {"image": RED, "mask": RED, "text": "a"}, {"mask": RED}, {"image": RED, "mask": "zz!"},
    {"image": RED, "mask": {"path": "/etc/shadow"}}, {"image": RED, "text": "a", "template": "no marker"},
    {"image": RED, "text": "a", "template": "$2 {text}"}, {"image": RED, "text": "a", "template": "$"}, {"text": "a", "template": "$"},
    {"image": RED, "template": "$ {text}"}, {"image": RED, "text": "a", "template": "word " * 200 + "$ {text}"},
    {"image": RED, "text": "a", "template": "$" * 5000}, {"image": RED, "text": "a", "template": "$" + HUGE + " {text}"},
    {"image": RED, "text": "a", "template": 3}, {"image": RED, "text": "a", "composer": "nothing"},
    {"image": RED, "text": "a", "composer": "../../etc"}, {"image": RED, "text": "a", "composer": 3},
    {"text": "a", "composer": "image"}, {"image": RED, "composer": "text"}, {"image": RED, "text": "a", "colour": "red"},
    {"image": RED, "text": "a", "x" * 2000: 1}, {"image": RED, "text": "a", "options": []}, {"image": RED, "text": "a", "options": 3},
    {"image": RED, "text": "a", "options": {"steps": 0}}, {"image": RED, "text": "a", "options": {"steps": 10**9}},
    {"image": RED, "text": "a", "options": {"steps": 1.5}}, {"image": RED, "text": "a", "options": {"steps": "3"}},
    {"image": RED, "text": "a", "options": {"seed": -1}}, {"image": RED, "text": "a", "options": {"seed": 2**63}},
    {"image": RED, "text": "a", "options": {"guidance": [1]}}, {"image": RED, "text": "a", "options": {"guidance": "x"}},
    {"image": RED, "text": "a", "options": {"frobnicate": 1}}, {"image": RED, "text": "a", "options": {"weights": {"x": 1}}},
    {"image": RED, "text": "a", "options": {"weights": 3}}, {"image": RED, "text": "a", "options": {"weights": {"image": 1.0}}},
    {"image": RED, "text": "a", "composer": "sum", "options": {"weights": {"image": 0.0, "text": 0.0}}},
    {"image": RED, "text": "a", "composer": "sum", "options": {"weights": {"image": 1e300, "text": 1e300}}},
    {"image": RED, "text": "a", "negative_text": "b", "options": {"weights": {"negative": 1e308}}},
    {"image": RED, "text": "a", "negative_text": "b", "options": {"weights": {"negative": -1e38}}},
    {"image": RED, "text": "a", "options": {"source_weight": 2}},
]  # fmt: skip

QDRANT: list[Any] = [
    {}, {"inputs": None}, {"inputs": {}}, {"inputs": "a"}, {"inputs": [None]}, {"inputs": [3]}, {"inputs": [[]]}, {"inputs": [{}]},
    {"inputs": [{"data": "a", "data_type": "text", "model": 3}]}, {"inputs": [{"data": "a", "data_type": "text", "model": None}]},
    {"inputs": [{"data": "a", "data_type": "text", "model": "none"}]}, {"inputs": [{"data": "a", "data_type": "text", "model": "x" * 9999}]},
    {"inputs": [{"data": "a", "data_type": "text", "model": "tiny/none"}]},
    {"inputs": [{"data": "a", "data_type": "text", "model": "tiny@zz"}]}, {"inputs": [{"data": "a", "data_type": "text", "model": "/"}]},
    {"inputs": [{"data": "a", "data_type": "text", "model": "../tiny"}]}, {"inputs": [{"data": "a", "data_type": "sound", "model": "tiny"}]},
    {"inputs": [{"data": "a", "data_type": None, "model": "tiny"}]}, {"inputs": [{"data": "a", "data_type": ["text"], "model": "tiny"}]},
    {"inputs": [{"data": 3, "data_type": "text", "model": "tiny"}]}, {"inputs": [{"data": {}, "data_type": "text", "model": "tiny"}]},
    {"inputs": [{"data": None, "data_type": "image", "model": "tiny"}]}, {"inputs": [{"data": [], "data_type": "image", "model": "tiny"}]},
    {"inputs": [{"data": [RED, RED], "data_type": "image", "model": "tiny"}]}, {"inputs": [{"data": {"path": "/etc/passwd"}, "data_type": "image", "model": "tiny"}]},
    {"inputs": [{"data": "http://10.0.0.1/a", "data_type": "image", "model": "tiny"}]}, {"inputs": [{"data": "x", "data_type": "object", "model": "tiny"}]},
    {"inputs": [{"data": [], "data_type": "object", "model": "tiny"}]}, {"inputs": [{"data": None, "data_type": "object", "model": "tiny"}]},
    {"inputs": [{"data": GOOD, "data_type": "object", "model": "tiny", "options": []}, {"data": GOOD, "data_type": "object", "model": "tiny", "options": [1]}]},
    {"inputs": [{"data": GOOD, "data_type": "object", "model": "tiny", "options": {"frob": 1}}]}, {"inputs": [{"data": {**GOOD, "composer": "sum"}, "data_type": "object", "model": "lincir"}]},
    {"inputs": [{"data": {**GOOD, "options": 3}, "data_type": "object", "model": "tiny", "options": {"steps": 3}}]},
    {"inputs": [], "inference": "guess"}, {"inputs": [], "inference": 3}, {"inputs": [], "inference": ["search"]}, {"inputs": [{"data": "a", "data_type": "text", "model": "tiny"}] * 3000},
    b'{"inputs": [{"data": {"image": "x", "options": {"steps": NaN}}, "data_type": "object", "model": "tiny"}]}',
]  # fmt: skip

REST: list[tuple[str, Any]] = [
    ("/v1/compose", {}), ("/v1/compose", {"queries": GOOD}), ("/v1/compose", {"queries": [3]}), ("/v1/compose", {"query": GOOD}),
    ("/v1/compose", {"queries": [GOOD], "model": 3}), ("/v1/compose", {"queries": [GOOD], "model": "none"}), ("/v1/compose", {"queries": [GOOD], "extra": 1}),
    ("/v1/compose", {"queries": [GOOD] * 3000}), ("/v1/embed", {"texts": "a"}), ("/v1/embed", {"images": [3]}), ("/v1/embed", {"images": [[]]}),
    ("/v1/embed", {"images": [{"path": "/etc/passwd"}]}), ("/v1/embed", {"images": [{"id": 3}]}), ("/v1/embed", {"texts": None}), ("/v1/embeddings", {}),
    ("/v1/embeddings", {"input": 3}), ("/v1/embeddings", {"input": [[1, 2]]}), ("/v1/embeddings", {"input": "a", "dimensions": 3}),
    ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}), ("/v1/embeddings", {"input": "data:image/png;base64,zz!"}), ("/v1/explain", {}),
    ("/v1/explain", {"query": {}}), ("/v1/explain", {"query": GOOD, "words": 0}), ("/v1/explain", {"query": GOOD, "words": 10**9}), ("/v1/explain", {"query": GOOD, "words": "x"}),
]  # fmt: skip

ADDRESSES = [
    ("PUT", "/"), ("GET", "/nothing"), ("GET", "/vectorize"), ("PUT", "/vectorize"), ("DELETE", "/qdrant"), ("PATCH", "/v1/compose"), ("POST", "/meta"),
    ("POST", "/m/none/vectorize"), ("GET", "/m/none/meta"), ("GET", "/m/none/.well-known/ready"), ("POST", "/m//vectorize"), ("POST", "/m/tiny@0000/vectorize"),
    ("POST", "/m/..%2f..%2fetc%2fpasswd/vectorize"), ("GET", "/../../etc/passwd"), ("GET", "/m/%00/meta"), ("GET", "/m/%ff/meta"), ("GET", f"/m/{'x' * 5000}/meta"),
    ("POST", "/m/tiny/none/vectorize"), ("POST", "/m/plain/plain/plain/vectorize"), ("POST", "/v1/none"), ("GET", "/v1/compose"), ("OPTIONS", "/vectorize"), ("FROB", "/vectorize"),
]  # fmt: skip

RAW = [
    b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"POST /vectorize HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: -5\r\n\r\n{}", b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
    b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\nx-request-timeout: soon\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /vectorize HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: 70000000\r\n\r\n{}",
    b"GET /meta HTTP/1.1\r\nhost: x\r\n%b\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n",
]  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(api_keys=f"shop:{SECRET}", body_timeout=1) as running:
        running.expected = running.post("/v1/compose", {"queries": [GOOD]}, headers=KEY).json()["vectors"][0]
        yield running


def send(service: Running, method: str, path: str, body: Any = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    return service.client.request(method, service.url + path, content=content, headers=KEY)


def check(service: Running, answer: httpx.Response, may_pass: bool = False) -> None:
    assert 400 <= answer.status_code < 500 or (may_pass and answer.status_code == 200), (
        answer.status_code,
        answer.text[:500],
    )
    if answer.status_code != 200:
        content = answer.json()
        assert list(content)[:2] == ["error", "code"]
        sentence = content["error"]
        assert 10 < len(sentence) <= 600
        assert not any(leak in answer.text for leak in LEAKS), answer.text
    assert not any(leak in str(answer.headers) for leak in LEAKS)
    good = service.post("/v1/compose", {"queries": [GOOD]}, headers=KEY)
    assert good.status_code == 200
    assert good.json()["vectors"][0] == pytest.approx(service.expected, abs=1e-4)


def test_there_are_enough_of_them():
    assert len(WEAVIATE) + 2 * len(QUERIES) + len(QDRANT) + len(REST) + len(ADDRESSES) + len(RAW) > 250


@pytest.mark.parametrize("number", range(len(WEAVIATE)))
def test_weaviates_door(service, number):
    check(service, send(service, "POST", ("/vectorize", "/m/tiny//vectorize")[number % 2], WEAVIATE[number]))


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_queries_through_rest_and_qdrant(service, number):
    query = QUERIES[number]
    check(service, send(service, "POST", "/v1/compose", {"queries": [GOOD, query]}))
    fine = {"data": "red", "data_type": "text", "model": "tiny"}
    bad = {"data": query, "data_type": "object", "model": "tiny", "options": None}
    answer = send(service, "POST", "/qdrant", {"inputs": [fine, bad], "inference": "update", "token": "alice"})
    check(service, answer)
    assert answer.json()["error"].startswith("inputs[1] (model 'tiny'): ")


@pytest.mark.parametrize(
    "number", [i for i, query in enumerate(QUERIES) if {"image", "mask", "negative_text", "composer"} & query.keys()]
)
def test_queries_through_weaviate(service, number):
    answer = send(service, "POST", "/vectorize", {"texts": ["red", json.dumps(QUERIES[number])]})
    check(service, answer)
    assert answer.json()["error"].startswith("texts[1]: ")


@pytest.mark.parametrize("number", range(len(QDRANT)))
def test_qdrants_door(service, number):
    check(service, send(service, "POST", "/qdrant", QDRANT[number]))


@pytest.mark.parametrize("number", range(len(REST)))
def test_rest(service, number):
    check(service, send(service, "POST", *REST[number]))


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_addresses_and_methods(service, method, path):
    check(service, send(service, method, path, {"texts": ["a"]} if method == "POST" else None))


def test_a_form_with_files_is_refused_with_a_sentence(service):
    answer = service.client.post(f"{service.url}/v1/embed", files={"image": b"..."}, headers=KEY)
    assert answer.status_code == 415
    assert answer.json()["error"].startswith("the body is a form with files (multipart); send a JSON object")


@pytest.mark.parametrize("number", range(len(RAW)))
def test_what_is_hardly_http(service, number):
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(RAW[number].replace(b"%b", f"authorization: Bearer {SECRET}".encode()))
        answer = connection.recv(65536)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), answer
        assert (b"error" in answer and b"code" in answer) or b"200 OK" in answer
        assert not any(leak.encode() in answer for leak in LEAKS)
    assert service.post("/vectorize", {"texts": ["red"]}, headers=KEY).status_code == 200


def test_half_sent_bodies_are_given_up(service):
    connections = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=10)
        head = f"POST /vectorize HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\ncontent-length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"texts": ["a')
        connections.append(connection)
    connections[0].close()
    assert service.post("/vectorize", {"texts": ["red"]}, headers=KEY).status_code == 200
    for connection in connections[1:]:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'{"error":"the body did not arrive within 1 s' in answer
        connection.close()
    assert service.service.bodies.held == 0


def test_bodies_that_do_not_come_take_no_room(service):
    head = b"POST /qdrant HTTP/1.1\r\nhost: x\r\ncontent-length: 67108864\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", service.port), timeout=10) for _ in range(8)]
    for connection in connections:
        connection.sendall(head)
    good = {"queries": [GOOD]}
    assert [service.post("/v1/compose", good, headers=KEY).status_code for _ in range(3)] == [200] * 3
    for connection in connections:
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")
        connection.close()


def test_bodies_that_came_take_room_until_they_are_answered():
    with serving(max_bodies_mib=1, max_body_mib=2) as running:
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        connection.sendall(b"POST /qdrant HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n" + b" " * 2**20)
        wait_for(lambda: running.service.bodies.held == 2**20, 10)
        assert running.post("/v1/compose", {"queries": [GOOD]}).status_code == 429
        connection.close()
        wait_for(lambda: running.service.bodies.held == 0, 10)
        assert running.post("/v1/compose", {"queries": [GOOD]}).status_code == 200


def test_hostile_pictures_are_refused_by_every_door(service, tmp_path: Path):
    reasons = hostile_pictures(tmp_path)
    for number, name in enumerate(sorted(reasons)):
        picture = base64.b64encode((tmp_path / name).read_bytes()).decode()
        one = {"data": picture, "data_type": "image", "model": "tiny"}
        path, body = (
            ("/vectorize", {"images": [picture]}),
            ("/qdrant", {"inputs": [one], "inference": "update"}),
            ("/v1/compose", {"queries": [{"image": picture, "text": "is blue"}]}),
        )[number % 3]
        answer = send(service, "POST", path, body)
        assert answer.status_code == 400, (name, answer.text[:200])
        assert name not in answer.text
        check(service, answer)


def test_long_prompts_and_deep_texts_are_plain_text(service):
    for text in (
        "a word " * 500_000,
        "[" * 100_000,
        '{"a":' * 5_000,
        "{" * 50_000,
        "\u0000\ud7ff\uffff",
        "<|endoftext|>" * 50,
    ):
        answer = send(service, "POST", "/vectorize", {"texts": [text]})
        assert answer.status_code == 200, answer.text
    check(service, answer, may_pass=True)


BAD = {"image": RED, "text": "a", "options": {"steps": 0}}
ONE = {"data": "red", "data_type": "text", "model": "tiny"}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/compose", {"queries": [GOOD, BAD]}, (400, "query", "queries.1.options.steps", 1)),
        ("/v1/compose", {"queries": [GOOD, 3]}, (400, "query", "queries.1", 1)),
        ("/v1/compose", {"queries": 3}, (400, "query", "queries", None)),
        ("/v1/compose", {"queries": [GOOD, {"image": "zz!"}]}, (400, "image", "queries.1.image.0", 1)),
        ("/v1/compose", {"queries": [GOOD], "model": "none"}, (400, "model", None, None)),
        ("/v1/compose", {"queries": [GOOD], "model": "tiny@0000"}, (400, "backbone-mismatch", None, None)),
        ("/v1/compose", b"{", (400, "json", None, None)),
        ("/v1/compose", {"queries": [GOOD] * 3000}, (413, "items", None, None)),
        ("/v1/embed", {"texts": ["a"], "images": [RED, "zz!"]}, (400, "image", "images.1", 1)),
        ("/v1/embed", {"texts": ["a", 3]}, (400, "query", "texts.1", 1)),
        ("/v1/embeddings", {"input": ["a", "data:image/png;base64,zz!"]}, (400, "image", "input.1", 1)),
        ("/v1/explain", {"query": {}}, (400, "query", "query", None)),
        ("/v1/explain", {"query": BAD}, (400, "query", "query.options.steps", None)),
        ("/v1/search", {"like": [RED, {}]}, (400, "query", "like.1", 1)),
        ("/v1/search", {"query": GOOD}, (400, "query", "collection", None)),
        ("/vectorize", {"texts": ["red", json.dumps(BAD)]}, (400, "query", "texts.1.options.steps", 1)),
        ("/vectorize", {"texts": ["red"], "images": [RED, "zz!"]}, (400, "image", "images.1", 1)),
        ("/vectorize", {"images": [RED, RED, 3]}, (400, "query", "images.2", 2)),
        ("/m/none/vectorize", {"texts": ["red"]}, (400, "model", None, None)),
        ("/qdrant", {"inputs": [ONE, {**ONE, "data": BAD, "data_type": "object"}]}, (400, "query", "inputs.1.options.steps", 1)),
        ("/qdrant", {"inputs": [ONE, ONE, 3]}, (400, "query", "inputs.2", 2)),
        ("/qdrant", {"inputs": [{**ONE, "model": "none"}]}, (400, "model", "inputs.0", 0)),
        ("/v1/none", {}, (404, "address", None, None)),
        ("/meta", {}, (405, "address", None, None)),
    ],
)  # fmt: skip
def test_a_refusal_carries_data_at_every_door(service, path, body, expected):
    answer = send(service, "POST", path, body)
    content = answer.json()
    assert (answer.status_code, content["code"], content.get("field"), content.get("index")) == expected
    place, _, rest = content["error"].partition(": ")
    item = rest.partition("the position is Qdrant's choice): ")[2] or rest
    assert content.get("item_error") == (item if f"[{expected[3]}]" in place else None)
    described = service.client.get("/openapi.json", headers=KEY).json()["components"]["schemas"]["Refusal"]
    assert set(described["required"]) <= set(content) <= set(described["properties"])


def test_the_documents_list_every_code_of_the_service():
    root = Path(__file__).parents[2]
    table = (root / "docs/container.md").read_text(encoding="utf-8")
    calls = [
        node
        for path in (root / "cir_vectorizer/service").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RefusedError"
    ]
    codes = {each.value for call in calls for each in call.args[1:2] if isinstance(each, ast.Constant)}
    assert len(codes) > 10
    errors = (QueryError, ImageError, ModelError, BackboneMismatch, CollectionError, OverloadError, DeviceError)
    assert {code for code in codes | {kind.code for kind in errors} if f"`{code}`" not in table} == set()


def test_a_refusal_without_a_key_carries_data(service):
    for path in ("/v1/compose", "/vectorize", "/qdrant", "/meta"):
        answer = service.post(path, {})
        assert (answer.status_code, answer.json()["code"]) == (401, "key")
        assert list(answer.json()) == ["error", "code"]


def test_a_crash_is_a_sentence_with_a_request_id(service, monkeypatch):
    monkeypatch.setattr(service.service.engine.vectorizers["tiny"], "plan_text", lambda *_: 1 / 0)
    answer = service.post("/vectorize", {"texts": ["red"]}, headers={**KEY, "x-request-id": "mine-1"})
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("something went wrong")
    assert answer.json()["code"] == "internal"
    assert answer.headers["x-request-id"] == "mine-1"
    assert not any(leak in answer.text for leak in LEAKS)


def test_too_much_is_429_at_once_for_qdrant_and_rest_and_weaviate_waits():
    with serving(max_search_wait=1e-6, max_update_wait=1e-6, import_wait=0.5) as running:
        engine = running.service.engine
        (queue,) = [queue for queue in engine.device.queues if queue.name == "tiny/text"]
        for lane in (0, 1):
            queue.promise(lane, 10)
        one = {"data": "red", "data_type": "text", "model": "tiny"}
        for path, body in (
            ("/v1/embed", {"texts": ["red"]}),
            ("/qdrant", {"inputs": [one], "inference": "search"}),
            ("/qdrant", {"inputs": [one], "inference": "update"}),
        ):
            answer = running.post(path, body)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.elapsed.total_seconds() < 0.4
            assert "try again in 1 s" in answer.json()["error"]
            assert answer.json()["code"] == "overload"
        answer = running.post("/vectorize", {"texts": ["red"], "images": [RED]})
        assert answer.status_code == 429
        assert answer.elapsed.total_seconds() > 0.4
        for lane in (0, 1):
            queue.promise(lane, -10)
        assert running.post("/vectorize", {"texts": ["red"], "images": [RED]}).status_code == 200
        text = running.client.get("/metrics").text
        assert 'cir_rejected_total{reason="overload"} 4.0' in text


def test_deadlines_and_clients_that_go_cost_nothing():
    with serving() as running:
        engine = running.service.engine
        hold = threading.Event()
        (queue,) = [queue for queue in engine.device.queues if queue.name == "tiny/text"]
        working, held = queue.run, threading.Event()

        def run(payloads):
            held.set()
            hold.wait(20)
            return working(payloads)

        queue.run = run
        blocked = threading.Thread(target=running.post, args=("/v1/embed", {"texts": ["blocked"]}))
        blocked.start()
        assert held.wait(20)
        answer = running.post("/v1/embed", {"texts": ["late"]}, headers={"x-request-timeout": "0.3"})
        assert answer.status_code == 503
        assert "no answer within 0.3 s" in answer.json()["error"]
        with pytest.raises(httpx.ReadTimeout):
            running.post("/v1/embed", {"texts": ["gone"]}, timeout=0.3)
        wait_for(lambda: 'cir_rejected_total{reason="gone"} 1.0' in running.client.get("/metrics").text, 20)
        hold.set()
        blocked.join()
        assert running.post("/v1/embed", {"texts": ["red"]}).status_code == 200
        wait_for(lambda: "cir_dropped_total 2.0" in running.client.get("/metrics").text, 20)
        text = running.client.get("/metrics").text
        assert 'cir_rejected_total{reason="deadline"} 1.0' in text


def test_models_that_are_not_loaded_yet_are_said_so():
    loaded = threading.Event()
    settings = Settings(port=0)
    app = create_app(lambda: loaded.wait(20) and {"tiny": tiny()}, settings)
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, 20)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with httpx.Client(base_url=url) as client:
        assert client.get("/.well-known/live").status_code == 204
        for answer in (
            client.get("/.well-known/ready"),
            client.post("/vectorize", json={"texts": ["red"]}),
            client.get("/meta"),
        ):
            assert answer.status_code == 503
            assert "being loaded" in answer.json()["error"]
        loaded.set()
        wait_for(lambda: client.get("/.well-known/ready").status_code == 204, 60)
        assert client.post("/vectorize", json={"texts": ["red"]}).status_code == 200
    server.should_exit = True
    thread.join(20)
