"""Keys: every way to send one, rotation, and that none is ever logged."""

import base64
import hmac
import logging
import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from cir_vectorizer.errors import CirError
from cir_vectorizer.service import run
from cir_vectorizer.service.http import auth
from cir_vectorizer.service.http.auth import Keys, secrets_of
from cir_vectorizer.service.logs import JsonLines
from tests.service.test_doors import as_we_take_it, recorded
from tests.support.serving import Running, serving, tiny

SECRET, OLD, TOKEN = "SECRET", "old-secret-4711", "server-token"
TEXTS = {"texts": ["red"]}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def asked(token: str | None) -> dict:
    one = {"data": "red", "data_type": "text", "model": "tiny", "options": None}
    return {"inputs": [one], "inference": "search", "token": token}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(api_keys=f"shop:{SECRET}, {OLD} qdrant:{TOKEN} seen:sekrit uni:schlüssel") as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        basic("cir", SECRET),
        basic("anybody", OLD),
        basic(SECRET, ""),
        {"Authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer  {OLD}"},
        {"cir-api-key": SECRET},
        {"my-shop-api-key": SECRET},
        {"Api-Key": OLD},
        {"cir-api-key": "wrong", "Authorization": f"Bearer {SECRET}"},
        {"cir-api-key": "schlüssel".encode()},
    ],
)
def test_a_key_is_taken_from_every_place_it_can_be_put(service, headers):
    for path, body in (("/vectorize", TEXTS), ("/v1/embed", TEXTS), ("/qdrant", asked(None))):
        assert service.post(path, body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("cir", "wrong"),
        basic(SECRET, "wrong"),
        {"Authorization": "Basic ???"},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Digest {SECRET}"},
        {"cir-api-key": SECRET + "x"},
        {"cir-api-key": SECRET[:-1]},
        {"cir-api-key": ""},
        {"x-secret": SECRET},
        {"cookie": f"cir-api-key={SECRET}"},
    ],
)
def test_anything_else_is_refused_with_a_sentence(service, headers):
    for path, body in (
        ("/vectorize", TEXTS),
        ("//m/tiny//vectorize", TEXTS),
        ("/v1/embed", TEXTS),
        ("/qdrant", asked(None)),
        ("/qdrant", asked("wrong")),
        ("/qdrant", asked("")),
    ):
        answer = service.client.post(service.url + path, json=body, headers=headers)
        assert answer.status_code == 401
        assert "key" in answer.json()["error"]
        assert answer.headers["www-authenticate"].startswith("Basic")
    for path in ("/meta", "/metrics", "/docs", "/openapi.json", "/v1/models", "/nothing"):
        assert service.client.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/vectorize", "CLIP_INFERENCE_API, so set that to http://cir:KEY@HOST:PORT and start Weaviate again"),
        ("/m/tiny/meta", "CLIP_INFERENCE_API"),
        (
            "/qdrant",
            "QDRANT__INFERENCE__ADDRESS, so set that to http://cir:KEY@HOST:PORT/qdrant and start Qdrant again",
        ),
        ("/v1/embed", "as Bearer, Basic or api-key header"),
    ],
)
def test_a_missing_key_is_told_with_the_place_to_set_it(service, path, place):
    answer = service.client.request("GET" if path.endswith("meta") else "POST", service.url + path, json=asked("wrong"))
    assert answer.status_code == 401
    assert place in answer.json()["error"]


def test_qdrants_token_is_a_key_and_another_token_does_no_harm(service):
    assert service.post("/qdrant", asked(TOKEN)).status_code == 200
    assert service.post("/qdrant", asked("alice"), headers=basic("cir", SECRET)).status_code == 200
    assert service.post("/vectorize", {**TEXTS, "token": TOKEN}).status_code == 401


def test_probes_need_no_key(service):
    for path in ("/.well-known/live", "/.well-known/ready", "/m/tiny/.well-known/ready", "//.well-known/ready"):
        assert service.client.get(service.url + path).status_code == 204


def test_names_of_models_are_told_only_to_who_has_a_key(service):
    known = ("tiny", "lincir", tiny().fingerprint[:12])
    for name in ("other", "tiny@00000000", "tiny/other"):
        path = f"/m/{name}/qdrant"
        for body in (asked(None), asked("wrong")):
            answer = service.post(path, body)
            assert answer.status_code == 401
            assert not any(word in answer.text for word in known)
        assert any(word in service.post(path, asked(TOKEN)).json()["error"] for word in known)
        ready = service.client.get(f"/m/{name}/.well-known/ready")
        assert ready.status_code == 400
        assert "send a key" in ready.json()["error"]
        assert not any(word in ready.text for word in known)
        with_key = service.client.get(f"/m/{name}/.well-known/ready", headers=basic("cir", SECRET))
        assert any(word in with_key.json()["error"] for word in known)


def test_recorded_requests_with_a_key_pass(service):
    lines = [line for file in ("weaviate.jsonl", "qdrant.jsonl") for line in recorded(file)]
    keyed = [line for line in lines if {"authorization", "cir-api-key"} & line["headers"].keys()]
    assert len(keyed) >= 6
    for line in keyed:
        path, body = as_we_take_it(line)
        headers = {name: value for name, value in line["headers"].items() if name != "content-length"}
        answer = service.client.request(line["method"], service.url + path, headers=headers, json=body)
        assert answer.status_code == line["status"], (line["path"], answer.text)


def test_logs_and_metrics_tell_the_id_and_never_the_key(service):
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG)
    try:
        for headers in (basic("cir", SECRET), {"cir-api-key": OLD}, basic("cir", "wrong-secret"), {}):
            service.post("/vectorize", TEXTS, headers=headers)
            service.post("/qdrant", asked(TOKEN), headers=headers)
        service.client.get(f"/m/{SECRET}/meta?api-key={SECRET}", headers=basic("cir", SECRET))
        text = service.client.get("/metrics", headers=basic("cir", SECRET)).text
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    ours = [line for line in stream.getvalue().splitlines() if '"logger": "cir_vectorizer' in line]
    assert any('"key": "shop"' in line for line in ours)
    assert any('"key": "key-2"' in line for line in ours)
    assert any('"key": "qdrant"' in line for line in ours)
    assert any('"status": 401' in line for line in ours)
    assert 'key="shop"' in text
    for secret in (SECRET, OLD, TOKEN, "wrong-secret", base64.b64encode(f"cir:{SECRET}".encode()).decode()):
        assert not any(secret in line for line in ours)
        assert secret not in text


def test_keys_are_replaced_without_a_gap(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(auth, "RECHECK_SECONDS", 0.0)
    file = tmp_path / "keys"
    file.write_text("# keys of the shop\nold:first\n\n")
    keys = Keys(file=file)
    assert keys.configured
    assert (keys.who(["first"]), keys.who(["second"])) == ("old", None)

    def replaced(text: str, turn: int) -> None:
        file.write_text(text)
        os.utime(file, (turn, turn))

    replaced("old:first\nnew:second\n", 1)
    assert (keys.who(["first"]), keys.who(["second"])) == ("old", "new")
    replaced("new:second\n", 2)
    assert (keys.who(["first"]), keys.who(["second"])) == (None, "new")
    replaced("", 3)  # a half-written file locks nobody out and lets nobody in
    assert (keys.who(["first"]), keys.who(["second"])) == (None, "new")
    file.unlink()
    assert (keys.who(["first"]), keys.who(["second"]), keys.who([])) == (None, "new", None)


def test_keys_that_cannot_be_read_stop_the_start(tmp_path: Path):
    with pytest.raises(CirError, match="cannot be read"):
        Keys(file=tmp_path / "missing")
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    with pytest.raises(CirError, match="holds no key"):
        Keys(file=empty)
    assert not Keys("  ").configured


def test_every_key_is_compared_however_early_one_fits(monkeypatch):
    keys = Keys("a:1 b:2 c:3")
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b))
    assert keys.who(["1"]) == "a"
    assert len(compared) == 3


def test_odd_headers_hold_no_secret():
    assert secrets_of([(b"authorization", b"Basic \xff\xfe"), (b"authorization", b"")]) == []
    assert Keys("a:1").who(secrets_of([(b"x-api-key", b"\xff\xfe")])) is None


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("127.0.0.1", "INFO"),
        ("localhost", "INFO"),
        ("::1", "INFO"),
        ("0.0.0.0", "WARNING"),
        ("shop.example", "WARNING"),
    ],
)
def test_an_open_service_says_so_loudly(host, level, caplog):
    with caplog.at_level(logging.INFO):
        run._warn(host)
    assert [record.levelname for record in caplog.records] == [level]
    assert ("NO KEY IS CONFIGURED" in caplog.text) == (level == "WARNING")
