"""`cir-vectorizer doctor`: every fault it knows has a line of its own, and it leaves nothing behind."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.collections import ModelRecord, OpenOptions, Point, SyncRecord, open_collection
from cir_vectorizer.doctor import examine, worst
from cir_vectorizer.errors import CollectionError
from cir_vectorizer_qdrant import QdrantCollection
from tests.support import servers
from tests.support.databases import SERVERS, every, uid
from tests.support.indexing import run
from tests.support.serving import serving


def findings(address, model, **options):
    """Run doctor on a fresh connection and return its findings by check."""
    collection = open_collection(address)
    try:
        return {finding.check: finding for finding in examine(collection, model, **options)}
    finally:
        collection.close()


def problems(found):
    return sorted(check for check, finding in found.items() if finding.level == "problem")


@pytest.fixture
def model(tiny):
    return ModelRecord("tiny", tiny.fingerprint, tiny.dim)


@pytest.fixture
def filled(photos, shop, tiny):
    """Address of an embedded collection of five pictures."""
    run(photos, shop, tiny)
    shop.close()
    return str(shop.address)


def names(address):
    """Return the names of an embedded database's collections."""
    client = QdrantClient(path=str(open_collection(address).address.path))
    try:
        return sorted(each.name for each in client.get_collections().collections)
    finally:
        client.close()


class TestAnEmbeddedCollection:
    def test_that_sync_made_is_in_order_and_stays_as_it_was(self, filled, model):
        found = findings(filled, model)
        assert worst(found.values()) == "ok", found
        assert set(found) == {
            "connection", "collection", "vector size", "distance", "backbone", "norms", "round trip"
        }  # fmt: skip
        assert names(filled) == ["shop"]

    def test_that_is_not_there_yet_is_a_warning_and_is_not_made(self, tmp_path, model):
        found = findings(f"qdrant:{tmp_path}/none/shop", model)
        assert found["collection"].level == worst(found.values()) == "warning"
        assert "sync makes it" in found["collection"].sentence
        assert not (tmp_path / "none").exists()

    def test_of_the_wrong_width_and_distance(self, tmp_path, model):
        client = QdrantClient(path=str(tmp_path / "index"))
        client.create_collection("shop", models.VectorParams(size=7, distance=models.Distance.DOT))
        client.close()
        found = findings(f"qdrant:{tmp_path}/index/shop", model)
        assert problems(found) == ["distance", "vector size"]
        assert "7 numbers" in found["vector size"].sentence
        assert "compares by dot" in found["distance"].sentence

    def test_of_another_backbone(self, filled, model):
        found = findings(filled, ModelRecord("other", "f" * 64, model.dim))
        assert problems(found) == ["backbone"]
        assert "sync --reembed" in found["backbone"].sentence

    def test_that_another_program_filled_has_no_norms(self, tmp_path, model):
        client = QdrantClient(path=str(tmp_path / "index"))
        client.create_collection("shop", models.VectorParams(size=model.dim, distance=models.Distance.COSINE))
        client.upsert("shop", [models.PointStruct(id=1, vector=[1.0] * model.dim, payload={})])
        client.close()
        found = findings(f"qdrant:{tmp_path}/index/shop", model)
        assert {check for check, each in found.items() if each.level == "warning"} == {"backbone", "norms"}
        assert "1 of 1 objects have none" in found["norms"].sentence
        assert not problems(found)

    @pytest.mark.parametrize(
        ("norm", "level", "word"), [(80.0, "warning", "mean is 80.00"), (-1.0, "problem", "not a positive number")]
    )
    def test_with_norms_that_are_not_the_models(self, shop, model, norm, level, word):
        shop.create(model)
        record = SyncRecord("/a.jpg", 1, 1, "00", norm, model.fingerprint, "")
        shop.upsert([Point(uid(1), np.eye(1, model.dim, dtype=np.float32)[0], record.join({}))])
        shop.close()
        found = findings(shop.address, model, mean_norm=8.0)
        assert (found["norms"].level, worst(found.values())) == (level, level)
        assert word in found["norms"].sentence

    def test_with_objects_of_another_backbone_among_its_own(self, shop, model):
        shop.create(model)
        record = SyncRecord("/a.jpg", 1, 1, "00", 8.0, "e" * 64, "")
        shop.upsert([Point(uid(1), np.eye(1, model.dim, dtype=np.float32)[0], record.join({}))])
        shop.close()
        assert problems(findings(shop.address, model)) == ["records"]

    def test_that_fails_half_way_has_nothing_left_behind(self, filled, model, monkeypatch):
        def refuse(*arguments, **options):
            raise CollectionError("the disk is full; make room")

        monkeypatch.setattr(QdrantCollection, "search", refuse)
        found = findings(filled, model)
        assert problems(found) == ["round trip"]
        assert "the disk is full" in found["round trip"].sentence
        assert names(filled) == ["shop"]


class TestTheContainer:
    def test_that_is_dead(self, filled, model):
        found = findings(filled, model, service_url=f"http://127.0.0.1:{servers.free_port()}")
        assert problems(found) == ["service"]
        assert "no container answers at http://127.0.0.1" in found["service"].sentence

    def test_that_wants_another_key_and_then_serves_the_model(self, filled, model):
        with serving(api_keys="me:right") as running:
            wrong = findings(filled, model, service_url=running.url, service_key="wrong")
            right = findings(filled, model, service_url=running.url, service_key="right")
            other = findings(
                filled, ModelRecord("mine", "f" * 64, model.dim), service_url=running.url, service_key="right"
            )
        assert problems(wrong) == ["service key"]
        sentence = wrong["service key"].sentence
        assert sentence.endswith("it got no valid key; give one with --service-key or CIR_API_KEY")
        assert worst(right.values()) == "ok"
        assert right["service model"].sentence.startswith("serves tiny@")
        assert problems(other) == ["backbone", "service model"]
        assert "have it serve mine" in other["service model"].sentence

    def test_whose_address_is_none(self, filled, model):
        assert problems(findings(filled, model, service_url="localhost")) == ["service"]


@contextlib.contextmanager
def fake_old_server(version):
    """A fake server that reports an old version as Qdrant and Weaviate do, and answers nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path in ("/", "/v1/meta")
            self.send_response(200 if known else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"version": version} if known else {"status": {"error": "not found"}}).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "version", "needed", "missing"),
    [("qdrant", "1.7.4", "1.16", "no search works"), ("weaviate", "1.19.0", "1.37", "nothing works")],
)
def test_an_old_server_is_told_by_its_version_and_what_it_lacks(scheme, version, needed, missing, model):
    with fake_old_server(version) as place:
        found = findings(f"{scheme}://{place}/Shop", model)
    assert problems(found) == ["version"]
    sentence = found["version"].sentence
    assert version in sentence
    assert missing in sentence
    assert f"update the server to {needed}" in sentence


def test_a_server_that_is_not_there(model):
    found = findings(f"qdrant://127.0.0.1:{servers.free_port()}/shop", model)
    assert problems(found) == list(found) == ["connection"]
    assert "start it" in found["connection"].sentence


class TestTheCommand:
    def doctor(self, *arguments):
        return CliRunner().invoke(main, ["doctor", *map(str, arguments)])

    def test_a_healthy_collection_gives_status_0(self, filled):
        result = self.doctor("--to", filled)
        assert result.exit_code == 0, result.output
        assert "ok       round trip: " in result.output

    def test_warnings_alone_give_status_3_and_json_has_the_same_findings(self, tmp_path):
        result = self.doctor("--to", f"qdrant:{tmp_path}/none/shop", "--json")
        assert result.exit_code == 3
        answer = json.loads(result.stdout)
        assert answer["level"] == "warning"
        assert [each["level"] for each in answer["findings"]] == ["ok", "warning"]

    def test_a_problem_gives_status_1(self, filled):
        result = self.doctor("--to", filled, "--service", f"http://127.0.0.1:{servers.free_port()}")
        assert result.exit_code == 1
        assert "problem  service: no container answers" in result.output


@every(SERVERS)
def test_a_wired_server_is_in_order_and_nothing_stays(database, service, model):
    collection = database.open()
    collection.create(model)
    before = _listed(collection)
    found = {each.check: each for each in examine(collection, model, service_url=service.url, service_key=servers.KEY)}
    assert worst(found.values()) == "ok", found
    assert found["version"].level == "ok"
    assert "gets the vectors that --service gives" in found["wiring"].sentence
    assert _listed(collection) == before


def _listed(collection):
    client = collection._connection.client
    if hasattr(client, "get_collections"):
        return sorted(each.name for each in client.get_collections().collections)
    return sorted(client.collections.list_all())


@pytest.mark.live
def test_qdrant_that_cannot_use_its_container_or_wants_a_key(service, model, tmp_path, monkeypatch):
    monkeypatch.setenv("QDRANT__SERVICE__API_KEY", "database-key")
    said = {}
    for case, inference in {
        "dead": f"http://127.0.0.1:{servers.free_port()}/qdrant",
        "wrong key": f"{service.with_key('wrong')}/qdrant",
    }.items():
        folder = tmp_path / case
        folder.mkdir()
        with servers.qdrant(folder, inference) as server:
            address = f"qdrant://{server.host}:{server.port}/shop"
            monkeypatch.delenv("QDRANT_API_KEY", raising=False)
            refused = findings(address, model)
            assert problems(refused) == ["collection"]
            assert "API key" in refused["collection"].sentence
            collection = open_collection(address, "database-key", OpenOptions())
            found = {
                each.check: each
                for each in examine(collection, model, service_url=service.url, service_key=servers.KEY)
            }
            assert problems(found) == ["wiring"]
            said[case] = found["wiring"].sentence
            assert _listed(collection) == []
            collection.close()
    assert "the container refuses the key" in said["wrong key"]
    assert all("does not get vectors from the container" in sentence for sentence in said.values())
