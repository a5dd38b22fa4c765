"""Addresses, and the contract of a collection, on an embedded Qdrant."""

import json
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from cir_vectorizer.collections import (
    Address,
    ModelRecord,
    Point,
    SyncRecord,
    check,
    ensure,
    open_collection,
    parse_address,
)
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError

MODEL = ModelRecord("my-model", "a1" * 32, 4)
RECORD = SyncRecord("/photos/a.jpg", 10, 1_700_000_000_123_456_789, "00ff", 9.5, MODEL.fingerprint, "ab")


def unit(*numbers):
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def shop(tmp_path):
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    yield collection
    collection.close()


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("qdrant://localhost/shop", Address("qdrant", "shop", "localhost")),
            ("qdrant://db.example.com:7333/shop", Address("qdrant", "shop", "db.example.com", 7333)),
            ("qdrants://db.example.com/shop/", Address("qdrants", "shop", "db.example.com")),
            ("qdrant://[::1]:6333/shop", Address("qdrant", "shop", "::1", 6333)),
            ("qdrant://KEY@host/shop", Address("qdrant", "shop", "host", api_key="KEY")),
            ("qdrant://me:K%40Y@host/my%20shop", Address("qdrant", "my shop", "host", api_key="K@Y")),
            ("weaviate://host:8080/Shop", Address("weaviate", "Shop", "host", 8080)),
            ("qdrant:./x/y/shop", Address("qdrant", "shop", path=Path("x/y"))),
            ("qdrant:x/shop", Address("qdrant", "shop", path=Path("x"))),
            ("qdrant:/abs/dir/shop", Address("qdrant", "shop", path=Path("/abs/dir"))),
            ("qdrant:~/index/shop", Address("qdrant", "shop", path=Path.home() / "index")),
        ],
    )
    def test_each_form_is_read(self, text, address):
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "which database"),
            ("shop", "which database"),
            ("./index/shop", "which database"),
            ("C:\\index\\shop", "which database"),
            ("http://host:6333/shop", "write qdrant://"),
            ("https://host:6333/shop", "write qdrants://"),
            ("qdrant:", "no directory"),
            ("qdrant:shop", "no directory"),
            ("qdrant:/shop", "no directory"),
            ("qdrant:./index/", "ends in a slash"),
            ("qdrant://", "no host"),
            ("qdrant:///shop", "no host"),
            ("qdrant://host", "no collection"),
            ("qdrant://host/", "no collection"),
            ("qdrant://host/a/b", "more than a collection"),
            ("qdrant://host:port/shop", "wrong host or port"),
            ("qdrant://host:99999/shop", "wrong host or port"),
            ("qdrant://[::1/shop", "wrong host or port"),
            ("qdrant://host/shop?tls=1", "? or #"),
            ("qdrant:./index/..", "databases refuse"),
            ("qdrant://host/a:b", "databases refuse"),
            (f"qdrant://host/{'x' * 256}", "databases refuse"),
            ("qdrant:~nobody-here/index/shop", "unknown user"),
        ],
    )
    def test_a_malformed_one_is_refused_with_cause_and_remedy(self, text, problem):
        with pytest.raises(AddressError, match=problem.replace("?", r"\?")):
            parse_address(text)

    @pytest.mark.parametrize("text", ["qdrant://SECRET@host:6333/shop", "qdrant://me:SECRET@[::1]/shop"])
    def test_a_key_is_kept_but_never_printed(self, text):
        address = parse_address(text)
        assert address.api_key == "SECRET"
        assert "SECRET" not in f"{address} {address!r}"
        assert parse_address(str(address)) == Address("qdrant", "shop", address.host, address.port)

    def test_a_key_is_not_repeated_by_an_error(self):
        with pytest.raises(AddressError) as caught:
            parse_address("qdrant://SECRET@host:port/shop")
        assert "SECRET" not in str(caught.value)

    def test_an_unknown_database_is_refused_with_those_installed(self):
        with pytest.raises(AddressError, match=r"no plugin is installed for milvus: addresses, only for .*qdrant"):
            open_collection("milvus://host/shop")

    def test_tls_makes_no_sense_for_an_embedded_collection(self):
        with pytest.raises(AddressError, match="write qdrant:"):
            open_collection("qdrants:./index/shop")


class TestTheContract:
    def test_opening_and_asking_creates_nothing(self, shop, tmp_path):
        assert shop.info() is None
        with pytest.raises(CollectionError, match="there is no collection"):
            check(shop, MODEL)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_made_remembers_its_model(self, shop):
        ensure(shop, MODEL)
        ensure(shop, MODEL)
        info = check(shop, MODEL)
        assert (info.dim, info.distance, info.count) == (4, "cosine", 0)
        assert (info.model, info.fingerprint) == (MODEL.name, MODEL.fingerprint)

    def test_objects_are_written_read_searched_and_removed(self, shop):
        ensure(shop, MODEL)
        ids = ["6d4b2f3e-1f7c-5a55-8c88-000000000001", "6d4b2f3e-1f7c-5a55-8c88-000000000002", 7]
        vectors = [unit(1, 0, 0, 0), unit(1, 1, 0, 0), unit(0, 0, 1, 0)]
        payloads = [RECORD.join({"colour": "red"}), RECORD.join({}), {"colour": "blue"}]
        shop.upsert([Point(*each) for each in zip(ids, vectors, payloads, strict=True)])
        assert shop.count() == 3
        assert shop.records([*ids, 99]) == {ids[0]: RECORD, ids[1]: RECORD}
        assert dict(shop.scan()) == {ids[0]: RECORD, ids[1]: RECORD, 7: None}
        (point,) = shop.get([ids[1]])
        assert point.payload == payloads[1]
        np.testing.assert_allclose(point.vector, vectors[1], atol=1e-6)
        hits = shop.search(unit(1, 0.1, 0, 0), 2)
        assert [hit.id for hit in hits] == ids[:2]
        assert hits[0].score == pytest.approx(0.995, abs=1e-3)
        shop.replace_payload({ids[0]: {"size": 3}})
        assert shop.get([ids[0]])[0].payload == {"size": 3}
        shop.delete([ids[0], 99])
        assert {id_ for id_, _ in shop.scan()} == {ids[1], 7}

    def test_what_is_written_survives_closing(self, shop):
        ensure(shop, MODEL)
        shop.upsert([Point(1, unit(1, 2, 3, 4), RECORD.join({"a": [1, 2.5, None, {"b": "ü"}]}))])
        shop.close()
        shop.close()
        again = open_collection(shop.address)
        assert again.get([1])[0].payload == RECORD.join({"a": [1, 2.5, None, {"b": "ü"}]})
        assert check(again, MODEL).count == 1
        again.close()

    def test_the_embedded_mode_does_not_wait_for_the_disk_on_every_object(self, shop):
        ensure(shop, MODEL)
        shop.upsert([Point(1, unit(1, 2, 3, 4), {})])
        with sqlite3.connect(shop.address.path / "collection" / "shop" / "storage.sqlite") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


class TestTheGuard:
    def test_another_width_is_refused_with_both(self, shop):
        ensure(shop, MODEL)
        with pytest.raises(BackboneMismatch, match=r"4 numbers \(made by my-model@a1a1.*\), and other@ffff.* makes 8"):
            ensure(shop, ModelRecord("other", "ff" * 32, 8))

    def test_another_backbone_is_refused_with_both_names(self, shop):
        ensure(shop, MODEL)
        for guard in (ensure, check):
            with pytest.raises(BackboneMismatch, match=r"made by my-model@a1a1.* at hand is other@ffff"):
                guard(shop, ModelRecord("other", "ff" * 32, 4))

    def test_another_distance_is_refused(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.EUCLID))
        with pytest.raises(CollectionError, match="compares by euclid"):
            check(shop, MODEL)

    def test_named_vectors_are_refused_by_name(self, shop):
        foreign(shop.address, {"front": models.VectorParams(size=4, distance=models.Distance.COSINE)})
        with pytest.raises(CollectionError, match=r"named vectors \(front\)"):
            check(shop, MODEL)

    def test_a_catalog_that_others_filled_is_searched_but_not_written_to(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.COSINE), objects=3)
        assert check(shop, MODEL).fingerprint is None
        assert len(shop.search(unit(1, 0, 0, 0), 10)) == 3
        with pytest.raises(CollectionError, match="holds 3 objects that cir-vectorizer did not put there"):
            ensure(shop, MODEL)

    def test_objects_tell_the_backbone_where_the_server_keeps_no_metadata(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.COSINE))
        shop.upsert([Point(1, unit(1, 0, 0, 0), RECORD.join({}))])
        assert check(shop, MODEL).fingerprint == MODEL.fingerprint
        with pytest.raises(BackboneMismatch):
            check(shop, ModelRecord("other", "ff" * 32, 4))


def foreign(address, vectors, objects=0):
    """A collection as another program makes it."""
    client = QdrantClient(path=str(address.path))
    client.create_collection(address.collection, vectors_config=vectors)
    if objects:
        points = [models.PointStruct(id=i, vector=[1, i, 0, 0], payload={"n": i}) for i in range(objects)]
        client.upsert(address.collection, points)
    client.close()


class TestWhenItDoesNotWork:
    def test_an_embedded_collection_in_use_elsewhere_says_so(self, shop):
        ensure(shop, MODEL)
        script = f"from cir_vectorizer.collections import open_collection; open_collection('{shop.address}').info()"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "CollectionError" in other.stderr
        assert "is in use by another process" in other.stderr
        assert "run a Qdrant server" in other.stderr

    def test_a_directory_that_cannot_be_made_is_a_sentence(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CollectionError, match="cannot be read or written"):
            ensure(open_collection(f"qdrant:{tmp_path}/file/inner/shop"), MODEL)

    def test_a_damaged_directory_is_a_sentence(self, tmp_path):
        (tmp_path / "meta.json").write_text("{")
        with pytest.raises(CollectionError, match="cannot do this"):
            open_collection(f"qdrant:{tmp_path}/shop").info()

    def test_no_server_is_a_sentence_with_host_and_remedy(self):
        with pytest.raises(CollectionError, match=r"no Qdrant server answers at 127.0.0.1:9 \(.+\); start it"):
            open_collection("qdrant://127.0.0.1:9/shop").info()

    @pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
    def test_a_wrong_key_is_a_sentence_without_the_key(self, fake_qdrant):
        fake_qdrant.answers = [(403, {"status": {"error": "forbidden"}})]
        with pytest.raises(CollectionError, match="the API key was refused; give --api-key") as caught:
            open_collection(fake_qdrant.address, "SECRET").info()
        assert "SECRET" not in str(caught.value)
        assert fake_qdrant.seen[0] == ("GET", "/collections/shop/exists", "SECRET")

    def test_another_program_at_the_port_is_told(self, fake_qdrant):
        fake_qdrant.answers = [(200, {"hello": "world", "result": "no"})]
        with pytest.raises(CollectionError, match="does not speak as Qdrant does"):
            open_collection(fake_qdrant.address).info()

    def test_what_the_server_says_is_passed_on(self, fake_qdrant):
        fake_qdrant.answers = [(400, {"status": {"error": "Wrong input: odd vector"}})]
        with pytest.raises(CollectionError, match="answered 400 for collection 'shop': Wrong input: odd vector"):
            open_collection(fake_qdrant.address).upsert([Point(1, unit(1, 2, 3, 4), {})])

    def test_a_busy_server_is_asked_again(self, fake_qdrant, monkeypatch):
        waits = []
        monkeypatch.setattr("time.sleep", waits.append)
        done = (200, {"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0.1})
        fake_qdrant.answers = [done, (503, {}), (429, {}), (500, {"status": {"error": "restarting"}}), done]
        collection = open_collection(fake_qdrant.address)
        collection.upsert([Point(1, unit(1, 2, 3, 4), {})])
        collection.upsert([Point(2, unit(1, 2, 3, 4), {})])
        assert len(fake_qdrant.seen) == 5
        assert len(waits) == 3
        assert waits == sorted(waits)
        collection.close()


class FakeQdrant(HTTPServer):
    """A fake of a Qdrant server, for errors that a real one does not give on demand: canned answers in turn."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Canned)
        self.answers, self.seen = [], []
        self.address = f"qdrant://127.0.0.1:{self.server_port}/shop"


class _Canned(BaseHTTPRequestHandler):
    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers.get("api-key")))
        status, body = self.server.answers[min(len(self.server.seen), len(self.server.answers)) - 1]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *args):
        pass


@pytest.fixture
def fake_qdrant():
    server = FakeQdrant()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
