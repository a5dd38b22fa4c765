"""Qdrant alone: the embedded mode, collections of other programs, options of servers, and the sentences of errors."""

import json
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from cir_vectorizer.client import Client
from cir_vectorizer.collections import (
    Ask,
    CreateOptions,
    ModelRecord,
    OpenOptions,
    Point,
    check,
    ensure,
    open_collection,
)
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError, PartialWriteError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import parse_filter
from tests.support import servers
from tests.support.databases import FRONT, MODEL, QDRANT, RECORD, every, points, uid, unit
from tests.support.servers import KEY, drawn


@pytest.fixture
def shop(tmp_path):
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    yield collection
    collection.close()


class TestEmbedded:
    def test_opening_and_asking_writes_nothing(self, shop, tmp_path):
        assert shop.info() is None
        shop.drop()
        assert list(tmp_path.iterdir()) == []

    def test_it_does_not_wait_for_the_disk_on_every_object(self, shop):
        ensure(shop, MODEL)
        shop.upsert([Point(1, unit(1, 2, 3, 4), {})])
        with sqlite3.connect(shop.address.path / "collection" / "shop" / "storage.sqlite") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_ids_may_be_numbers(self, shop):
        ensure(shop, MODEL)
        shop.upsert([Point(7, FRONT, RECORD.join({}))])
        assert list(shop.records([7, 8])) == [7]
        assert [hit.id for hit in shop.search(FRONT, Ask(3))] == [7]

    def test_what_needs_a_server_says_so(self, shop):
        with pytest.raises(CollectionError, match=r"no server that could ask a container.*run a Qdrant server"):
            shop.create(MODEL, CreateOptions(vectorize="server"))
        ensure(shop, MODEL)
        with pytest.raises(CollectionError, match="no server that could ask a container; compose the query here"):
            shop.search(ComposedQuery(text="red"), Ask(3))
        with pytest.raises(PartialWriteError, match=r"comes without a vector.*--vectorize server"):
            shop.upsert([Point(uid(0), None, {}, b"picture")])

    def test_there_are_no_tenants(self, shop):
        with pytest.raises(CollectionError, match="has no tenants; leave out --tenant"):
            open_collection(shop.address, options=OpenOptions(tenant="a"))

    def test_there_is_no_tls(self):
        with pytest.raises(AddressError, match="write qdrant:"):
            open_collection("qdrants:./index/shop")


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

    @pytest.mark.parametrize("length", [1.0, 3.0])
    def test_the_dot_product_is_cosine_for_vectors_of_length_1_alone(self, shop, length):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.DOT), 3, length)
        if length == 1:
            assert check(shop, MODEL).distance == "dot"
            assert [hit.score for hit in shop.search(unit(1, 0, 0, 0), Ask(1))] == pytest.approx([1])
        else:
            with pytest.raises(CollectionError, match="compares by dot vectors of length 3 to 3, and my-model"):
                check(shop, MODEL)

    def test_another_distance_is_refused(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.EUCLID))
        with pytest.raises(CollectionError, match="compares by euclid"):
            check(shop, MODEL)

    def test_one_of_several_vectors_has_to_be_named(self, shop):
        sizes = models.VectorParams(size=4, distance=models.Distance.COSINE)
        foreign(shop.address, {"front": sizes, "back": sizes})
        with pytest.raises(CollectionError, match=r"has the vectors front, back; name one with --using"):
            check(shop, MODEL)
        shop.close()
        named = open_collection(shop.address, options=OpenOptions(using="back"))
        info = check(named, MODEL)
        assert (info.using, info.vectors) == ("back", ("front", "back"))
        named.close()

    def test_the_only_vector_needs_no_name(self, shop):
        foreign(shop.address, {"front": models.VectorParams(size=4, distance=models.Distance.COSINE)})
        assert check(shop, MODEL).using == "front"

    def test_a_vector_that_has_no_name_is_not_found_by_one(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.COSINE))
        named = open_collection(shop.address, options=OpenOptions(using="front"))
        with pytest.raises(CollectionError, match=r"has one vector without a name, and not 'front'; leave out --using"):
            named.info()
        named.close()

    def test_a_catalog_that_others_filled_is_searched_but_not_written_to(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.COSINE), objects=3)
        assert check(shop, MODEL).fingerprint is None
        assert len(shop.search(unit(1, 0, 0, 0), Ask(10))) == 3
        with pytest.raises(CollectionError, match="holds 3 objects that cir-vectorizer did not put there"):
            ensure(shop, MODEL)

    def test_objects_tell_the_backbone_where_the_server_keeps_no_metadata(self, shop):
        foreign(shop.address, models.VectorParams(size=4, distance=models.Distance.COSINE))
        shop.upsert([Point(1, unit(1, 0, 0, 0), RECORD.join({}))])
        assert check(shop, MODEL).fingerprint == MODEL.fingerprint
        with pytest.raises(BackboneMismatch):
            check(shop, ModelRecord("other", "ff" * 32, 4))


def foreign(address, vectors, objects=0, length=None):
    """A collection that another program made; its vectors have the given length, or each another one."""
    client = QdrantClient(path=str(address.path))
    client.create_collection(address.collection, vectors_config=vectors)
    if objects:
        stored = [[1.0, i, 0, 0] if length is None else (length * unit(1, i, 0, 0)).tolist() for i in range(objects)]
        points = [models.PointStruct(id=i, vector=vector, payload={"n": i}) for i, vector in enumerate(stored)]
        client.upsert(address.collection, points)
    client.close()


class TestServers:
    @every(QDRANT[1:])
    def test_options_reach_the_server(self, database):
        shop = database.open(using="front")
        options = CreateOptions(vector_on_disk=True, quantization="scalar", indexed=("colour", "maker.city", "n"))
        ensure(shop, MODEL, options)
        vector = raw(database).get_collection(shop.address.collection).config.params.vectors["front"]
        assert (vector.on_disk, vector.quantization_config.scalar.type) == (True, models.ScalarType.INT8)
        shop.upsert(points([{"colour": ["red"], "n": 1}, {"maker": {"city": "Oslo"}, "n": "x"}]))
        indexes = raw(database).get_collection(shop.address.collection).payload_schema
        keyword, number = models.PayloadSchemaType.KEYWORD, models.PayloadSchemaType.FLOAT
        assert {key: index.data_type for key, index in indexes.items()} == {
            "colour": keyword,
            "n": number,
            "maker.city": keyword,
        }

    @every(QDRANT[1:])
    def test_a_catalog_that_others_filled_is_searched(self, database):
        shop = database.open(using="front")
        client, name = raw(database), shop.address.collection
        sizes = models.VectorParams(size=4, distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config={"front": sizes, "back": sizes})
        both = [{"front": [1, i / 10, 0, 0], "back": [0, 1, 0, 0]} for i in range(20)]
        client.upsert(
            name,
            [
                models.PointStruct(id=i, vector=each, payload={"n": i, "title": f"thing number{i}"})
                for i, each in enumerate(both)
            ],
        )
        info = check(shop, MODEL)
        assert (info.using, sorted(info.vectors), info.fingerprint) == ("front", ["back", "front"], None)
        assert [hit.id for hit in shop.search(FRONT, Ask(2, parse_filter("n>=5")))] == [5, 6]
        assert [hit.id for hit in shop.search(FRONT, Ask(3, group_by="title"))] == [0, 1, 2]
        np.testing.assert_allclose(shop.get([3])[0].vector, unit(1, 0.3, 0, 0), atol=1e-6)
        with pytest.raises(CollectionError, match="neither keywords nor a column with a full-text index"):
            shop.search(FRONT, Ask(3, text="number7"))
        client.create_payload_index(name, "title", models.PayloadSchemaType.TEXT, wait=True)
        shop.close()
        assert shop.search(FRONT, Ask(3, text="Number7 number3"))[0].id == 3
        assert {hit.id for hit in shop.search(FRONT, Ask(3, parse_filter("n>3"), text="number7 number3"))} == {4, 5, 7}
        with pytest.raises(CollectionError, match="holds 20 objects that cir-vectorizer did not put there"):
            ensure(shop, MODEL)

    @every(QDRANT[1:2])
    def test_a_payload_that_is_refused_is_named_and_the_others_are_written(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({"n": i}) for i in range(4)]))
        deep = 1
        for _ in range(200):
            deep = [deep]
        changed = {uid(i): RECORD.join({"n": deep if i == 2 else 10 + i}) for i in range(4)}
        with pytest.raises(PartialWriteError) as caught:
            shop.replace_payload(changed)
        assert set(caught.value.failed) == {uid(2)}
        assert sorted(point.payload["n"] for point in shop.get([uid(i) for i in range(4)])) == [2, 10, 11, 13]

    @every(QDRANT[1:])
    def test_the_server_has_the_container_make_vectors_and_compose_queries(self, database, service, tiny):
        shop = database.open()
        model = ModelRecord("tiny", tiny.fingerprint, tiny.dim)
        ensure(shop, model, CreateOptions(vectorize="server"))
        assert check(shop, model).vectorize == "server"
        pictures = [drawn(i) for i in range(6)]
        shop.upsert([Point(uid(i), None, RECORD.join({"n": i}), each) for i, each in enumerate(pictures)])
        expected = tiny.compose([{"image": each} for each in pictures]).vectors
        for point in shop.get([uid(i) for i in range(6)]):
            np.testing.assert_allclose(point.vector, expected[point.payload["n"]], atol=1e-5)
        with pytest.raises(PartialWriteError, match=r"2 of 4 objects.*give a picture") as caught:
            shop.upsert([Point(uid(10 + i), None, {"n": i}, b"AAA" if i % 2 else pictures[i]) for i in range(4)])
        assert set(caught.value.failed) == {uid(11), uid(13)}
        assert shop.count() == 8
        query = ComposedQuery.parse({"image": pictures[3], "text": "is red"})
        with Client(service.url, api_key=KEY) as client:
            composed = client.compose([query]).vectors[0]
        here = shop.search(np.asarray(composed, np.float32), Ask(5))
        there = shop.search(query, Ask(5))
        assert [hit.score for hit in there] == pytest.approx([hit.score for hit in here], abs=1e-4)
        assert shop.search(query, Ask(2, parse_filter("n<3"), text="x", group_by="n", offset=1))
        with pytest.raises(CollectionError, match="nobody"):
            shop.search(query, Ask(5, model="nobody"))

    @pytest.mark.live
    def test_a_server_without_a_container_says_how_to_wire_one(self, tmp_path):
        with servers.qdrant(tmp_path, "") as server:
            for grpc in (False, True):
                options = OpenOptions(grpc=grpc, grpc_port=server.grpc_port)
                shop = open_collection(f"qdrant://{server.host}:{server.port}/shop", options=options)
                ensure(shop, MODEL)
                with pytest.raises(CollectionError, match=r"knows no container.*QDRANT__INFERENCE__ADDRESS"):
                    shop.search(ComposedQuery(text="red"), Ask(3))
                shop.close()

    def test_the_containers_address_is_the_servers_own_business(self):
        shop = open_collection("qdrant://localhost/shop")
        with pytest.raises(CollectionError, match="QDRANT__INFERENCE__ADDRESS=http://cir:8000"):
            shop.create(MODEL, CreateOptions(vectorize="server", service_url="http://cir:8000/qdrant"))

    @pytest.mark.live
    @pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
    @pytest.mark.parametrize("grpc", [False, True])
    def test_a_server_with_a_key_lets_in_who_has_it(self, grpc, tmp_path, monkeypatch):
        monkeypatch.setenv("QDRANT__SERVICE__API_KEY", "SECRET")
        with servers.qdrant(tmp_path, "") as server:
            address = f"qdrant://{server.host}:{server.port}/shop"
            options = OpenOptions(grpc=grpc, grpc_port=server.grpc_port)
            with pytest.raises(CollectionError, match="an API key is needed; set QDRANT_API_KEY"):
                open_collection(address, options=options).info()
            with pytest.raises(CollectionError, match="the API key was refused") as caught:
                open_collection(address, "WRONG", options).info()
            assert "WRONG" not in str(caught.value)
            ensure(open_collection(address, "SECRET", options), MODEL)
            monkeypatch.setenv("QDRANT_API_KEY", "SECRET")
            assert check(open_collection(address, options=options), MODEL)

    @every(QDRANT[1:2])
    def test_a_wrong_grpc_port_is_a_sentence(self, database):
        options = OpenOptions(grpc=True, grpc_port=servers.free_port())
        with pytest.raises(CollectionError, match=r"no Qdrant server answers by gRPC at 127.0.0.1, port"):
            open_collection(database.address("Shop"), options=options).info()


def raw(database):
    """A stock client of the database's server."""
    return QdrantClient(host=database.server.host, port=database.server.port, check_compatibility=False)


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
        with pytest.raises(
            CollectionError, match="the API key was refused; correct QDRANT_API_KEY, or the key given"
        ) as caught:
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
        collection.delete([1])
        collection.delete([2])
        assert len(fake_qdrant.seen) == 5
        assert len(waits) == 3
        assert waits == sorted(waits)
        collection.close()


class FakeQdrant(HTTPServer):
    """A fake Qdrant server that gives canned answers in turn, for errors that a real one does not give on demand."""

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
