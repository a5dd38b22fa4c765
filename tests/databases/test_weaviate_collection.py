"""Weaviate alone: names, tenants, collections of other programs, the module, and the sentences of errors."""

import json

import httpx
import numpy as np
import pytest
import weaviate as stock
from weaviate.classes.config import Configure, DataType, Property, Tokenization, VectorDistances
from weaviate.classes.data import DataObject, GeoCoordinate
from weaviate.classes.query import Filter

from cir_vectorizer.client import Client
from cir_vectorizer.collections import (
    ANY_VECTOR,
    Ask,
    CreateOptions,
    ModelRecord,
    OpenOptions,
    Point,
    check,
    ensure,
    open_collection,
)
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError, PartialWriteError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import parse_filter
from cir_vectorizer_weaviate import composed
from tests.support import servers
from tests.support.databases import FRONT, MODEL, RECORD, WEAVIATE, every, points, uid, unit
from tests.support.servers import KEY, drawn

COSINE = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)


@pytest.fixture
def client(weaviate_server):
    """The stock client."""
    server = weaviate_server
    with stock.connect_to_local(server.host, server.port, server.grpc_port, skip_init_checks=True) as client:
        yield client


@pytest.fixture(scope="module")
def open_service(tmp_path_factory):
    """A container without keys."""
    with servers.our_service(tmp_path_factory.mktemp("open")) as server:
        yield server


class TestNames:
    def test_a_directory_is_refused(self):
        with pytest.raises(AddressError, match=r"runs as a server alone; write weaviate://HOST:PORT/COLLECTION"):
            open_collection("weaviate:./index/Shop")

    @pytest.mark.parametrize("name", ["my-shop", "9lives", "my%20shop", "%C3%9C"])
    def test_a_name_that_weaviate_refuses_is_told_before_anything_is_sent(self, name):
        with pytest.raises(AddressError, match="take a letter first, then letters, digits and _"):
            open_collection(f"weaviate://localhost/{name}")

    @every(WEAVIATE)
    def test_a_small_first_letter_means_the_same_collection(self, database):
        shop = database.open("shop")
        ensure(shop, MODEL)
        assert check(database.again(shop), MODEL).count == 0


@every(WEAVIATE)
class TestWhatAStockClientSees:
    def test_columns_are_properties_with_their_own_names_and_types(self, database, client):
        shop = database.open()
        ensure(shop, MODEL, CreateOptions(indexed=("price",)))
        payload = {
            "colour": "red",
            "price": 49.5,
            "sold": True,
            "tags": ["new"],
            "brand name": "Ü",
            "maker": {"city": "Oslo"},
        }
        shop.upsert(points([RECORD.join(payload), {"colour": 7, "price": 10}]))
        remote = client.collections.use(shop.address.collection)
        types = {each.name: (each.data_type.value, each.index_range_filters) for each in remote.config.get().properties}
        assert types["colour"] == ("text", False)
        assert types["colour__number"] == ("number", False)
        assert types["price"] == ("number", True)
        assert types["sold"][0] == "boolean"
        assert types["tags"][0] == "text[]"
        assert types["brand_name"][0] == types["maker_city"][0] == "text"
        found = remote.query.near_vector(FRONT.tolist(), filters=Filter.by_property("colour").equal("red")).objects
        assert [str(each.uuid) for each in found] == [uid(0)]
        assert json.loads(found[0].properties["_cir_payload"]) == payload
        assert json.loads(found[0].properties["_cir"])["norm"] == RECORD.norm

    def test_columns_whose_names_fall_together_stay_apart(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        names = [
            "Colour",
            "colour",
            "brand name",
            "brand_name",
            "brand-name",
            "id",
            "vector",
            "_id",
            "ü",
            "9",
            "a" * 300,
        ]
        shop.upsert(points([{name: f"value {i}"} for i, name in enumerate(names)]))
        for i, name in enumerate(names):
            assert [hit.id for hit in shop.search(FRONT, Ask(99, parse_filter(f"'{name}'='value {i}'")))] == [uid(i)]
        assert shop.search(FRONT, Ask(99, parse_filter("colour='value 0'"))) == []

    def test_an_object_is_a_reference_with_its_norm(self, database, client):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({})]))
        remote = client.collections.use(shop.address.collection)
        sent = json.loads(composed(image_id=uid(0), collection=remote, text="is red"))
        assert sent["image"]["norm"] == RECORD.norm
        np.testing.assert_allclose(sent["image"]["vector"], FRONT, atol=1e-6)


@every(WEAVIATE)
class TestTenants:
    def test_each_has_its_own_objects(self, database):
        one = database.open(tenant="one")
        ensure(one, MODEL)
        two = database.again(one, tenant="two")
        assert two.info() is None
        ensure(two, MODEL)
        one.upsert(points([RECORD.join({"whose": "one"})]))
        two.upsert(points([RECORD.join({"whose": "two"}), {"whose": "two", "more": 1}]))
        assert (check(one, MODEL).count, check(two, MODEL).count) == (1, 2)
        assert {hit.payload["whose"] for hit in two.search(FRONT, Ask(9))} == {"two"}
        assert [hit.id for hit in two.search(FRONT, Ask(9, parse_filter("more=1"), text="two"))] == [uid(1)]
        one.replace_payload({uid(0): {"whose": "first"}})
        two.delete([uid(1)])
        assert [one.get([uid(0)])[0].payload, two.count()] == [{"whose": "first"}, 1]
        one.drop()
        assert one.info() is None
        assert two.count() == 1

    def test_one_has_to_be_named_where_there_are_some_and_none_elsewhere(self, database):
        tenant = database.open(tenant="one")
        ensure(tenant, MODEL)
        with pytest.raises(CollectionError, match="is divided among tenants; name one with --tenant"):
            database.again(tenant, tenant=None).info()
        plain = database.open()
        ensure(plain, MODEL)
        with pytest.raises(CollectionError, match="has no tenants; leave out --tenant"):
            database.again(plain, tenant="one").info()

    def test_a_switch_would_reach_the_others_and_is_refused(self, database):
        shop = database.open(tenant="one")
        ensure(shop, MODEL)
        with pytest.raises(CollectionError, match="would switch them all"):
            shop.take_over(shop.beside("Other"))


@every(WEAVIATE)
class TestCollectionsOfOtherPrograms:
    def test_they_are_searched_and_filtered_by_their_own_types(self, database, client):
        shop = database.open(using="photo")
        made = client.collections.create(
            shop.address.collection,
            properties=[
                Property(name="title", data_type=DataType.TEXT),
                Property(name="code", data_type=DataType.TEXT, tokenization=Tokenization.FIELD),
                Property(name="pieces", data_type=DataType.INT),
                Property(name="price", data_type=DataType.NUMBER),
                Property(name="sold", data_type=DataType.BOOL),
                Property(name="made", data_type=DataType.DATE),
                Property(name="key", data_type=DataType.UUID),
                Property(name="tags", data_type=DataType.TEXT_ARRAY, tokenization=Tokenization.FIELD),
                Property(name="place", data_type=DataType.GEO_COORDINATES),
                Property(name="picture", data_type=DataType.BLOB),
                Property(
                    name="maker",
                    data_type=DataType.OBJECT,
                    nested_properties=[Property(name="city", data_type=DataType.TEXT)],
                ),
            ],
            vector_config=[
                Configure.Vectors.self_provided(name="photo", vector_index_config=COSINE),
                Configure.Vectors.self_provided(name="words", vector_index_config=COSINE),
            ],
        )
        for i in range(12):
            made.data.insert(
                {
                    "title": f"red thing number{i}",
                    "code": f"A {i}",
                    "pieces": i,
                    "price": i / 2,
                    "sold": i % 2 == 0,
                    "made": f"2024-01-{i + 1:02}T00:00:00Z",
                    "key": uid(i),
                    "tags": ["new", f"t{i}"],
                    "place": GeoCoordinate(latitude=50, longitude=i),
                    "picture": "AAAA",
                    "maker": {"city": "Oslo"},
                },
                uuid=uid(i),
                vector={"photo": unit(1, i / 10, 0, 0).tolist(), "words": [1.0, 0.0]},
            )
        info = check(shop, MODEL)
        assert (info.using, sorted(info.vectors), info.dim, info.count) == ("photo", ["photo", "words"], 4, 12)
        assert (info.model, info.fingerprint, info.blends_text, info.vectorize) == (None, None, False, "client")
        for text, numbers in {
            "title=number7": [7],
            "code='A 3'": [3],
            "code=A": [],
            "pieces=4": [4],
            "pieces=4.5": [],
            "pieces<2.5": [0, 1, 2],
            "pieces>=9.5": [10, 11],
            "price=1.5": [3],
            "price>=5": [10, 11],
            "sold=true and pieces>7": [8, 10],
            "made=2024-01-03T00:00:00Z": [2],
            f"key={uid(5)}": [5],
            "tags in (t1, t2)": [1, 2],
            "code!='A 3' and pieces<5": [0, 1, 2, 4],
            "nowhere=1": [],
            "nowhere!=1 and pieces<1": [0],
        }.items():
            assert [hit.id for hit in shop.search(FRONT, Ask(20, parse_filter(text)))] == [uid(i) for i in numbers], (
                text
            )
        for text in ("place=50", "maker=x"):
            with pytest.raises(QueryError, match="has a type that filters do not reach"):
                shop.search(FRONT, Ask(3, parse_filter(text)))
        (hit,) = shop.search(FRONT, Ask(1))
        assert hit.payload == {
            "title": "red thing number0",
            "code": "A 0",
            "pieces": 0,
            "price": 0.0,
            "sold": True,
            "made": "2024-01-01T00:00:00+00:00",
            "key": uid(0),
            "tags": ["new", "t0"],
            "place": {"latitude": 50.0, "longitude": 0.0},
        }
        assert hit.score == pytest.approx(1, abs=1e-5)
        assert [hit.id for hit in shop.search(FRONT, Ask(2, text="number7"))] == [uid(7), uid(0)]
        assert [hit.id for hit in shop.search(FRONT, Ask(2, group_by="code", offset=4))] == [uid(4), uid(5)]
        assert len(list(shop.scan())) == 12
        assert shop.records([uid(1)]) == {}
        np.testing.assert_allclose(shop.get([uid(3)])[0].vector, unit(1, 0.3, 0, 0), atol=1e-6)
        with pytest.raises(CollectionError, match="no container that could compose"):
            shop.search(ComposedQuery(text="red"), Ask(3))
        with pytest.raises(CollectionError, match="holds 12 objects that cir-vectorizer did not put there"):
            ensure(shop, MODEL)
        with pytest.raises(CollectionError, match=r"has the vectors .*; name one with --using"):
            database.again(shop, using=None).info()
        assert database.again(shop, using=ANY_VECTOR).info().vectors

    def test_vectors_that_are_longer_than_1_are_read_with_length_1(self, database, client):
        shop = database.open()
        made = client.collections.create(
            shop.address.collection, vector_config=Configure.Vectors.self_provided(vector_index_config=COSINE)
        )
        made.data.insert({}, uuid=uid(0), vector=[3.0, 0.0, 4.0, 0.0])
        np.testing.assert_allclose(shop.get([uid(0)])[0].vector, [0.6, 0, 0.8, 0], atol=1e-6)
        assert shop.search(unit(3, 0, 4, 0), Ask(1))[0].score == pytest.approx(1, abs=1e-6)

    def test_an_empty_one_is_filled(self, database, client):
        shop = database.open()
        client.collections.create(
            shop.address.collection,
            properties=[Property(name="colour", data_type=DataType.TEXT)],
            vector_config=Configure.Vectors.self_provided(name="photo", vector_index_config=COSINE),
        )
        assert ensure(shop, MODEL).dim is None
        shop.upsert(points([RECORD.join({"colour": "red", "n": i}) for i in range(3)]))
        assert check(shop, MODEL).fingerprint == MODEL.fingerprint
        assert [hit.id for hit in shop.search(FRONT, Ask(5, parse_filter("n>0 and colour=red")))] == [uid(1), uid(2)]
        assert shop.search(FRONT, Ask(1, text="red"))[0].payload == RECORD.join({"colour": "red", "n": 0})
        with pytest.raises(BackboneMismatch):
            check(shop, ModelRecord("other", "ff" * 32, 4))

    def test_one_from_before_vectors_had_names_works(self, database):
        shop = database.open()
        url = database.server.url
        definition = {
            "class": shop.address.collection,
            "vectorizer": "none",
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {"distance": "cosine"},
        }
        assert httpx.post(f"{url}/v1/schema", json=definition, trust_env=False).is_success
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({"n": i}) for i in range(3)]))
        info = check(shop, MODEL)
        assert (info.using, info.vectors, info.dim, info.count) == (None, (), 4, 3)
        shop.replace_payload({uid(1): {"n": 11}})
        assert shop.search(unit(1, 0.1, 0, 0), Ask(1))[0].payload == {"n": 11}
        np.testing.assert_allclose(shop.get([uid(0)])[0].vector, FRONT, atol=1e-6)
        with pytest.raises(CollectionError, match=r"has one vector without a name, and not 'photo'; leave out --using"):
            database.again(shop, using="photo").info()

    @pytest.mark.parametrize(("texts", "blends"), [(None, False), (["title"], True)])
    def test_vectors_with_text_blended_in_are_told(self, database, client, texts, blends):
        shop = database.open()
        client.collections.create(
            shop.address.collection,
            properties=[
                Property(name="photo", data_type=DataType.BLOB),
                Property(name="title", data_type=DataType.TEXT),
            ],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"], text_fields=texts),
        )
        info = shop.info()
        assert (info.blends_text, info.vectorize, info.dim) == (blends, "server", None)

    @pytest.mark.parametrize("length", [1.0, 3.0])
    def test_the_dot_product_is_cosine_for_vectors_of_length_1_alone(self, database, client, length):
        shop = database.open()
        index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
        made = client.collections.create(
            shop.address.collection, vector_config=Configure.Vectors.self_provided(vector_index_config=index)
        )
        for i in range(3):
            made.data.insert({"n": i}, vector=(unit(1, i, 0, 0) * np.float32(length)).tolist())
        if length == 1:
            assert check(shop, MODEL).distance == "dot"
            assert [hit.score for hit in shop.search(FRONT, Ask(1))] == pytest.approx([1])
        else:
            with pytest.raises(CollectionError, match="compares by dot vectors of length 3 to 3"):
                check(shop, MODEL)

    def test_another_distance_is_refused(self, database, client):
        shop = database.open()
        index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.L2_SQUARED)
        client.collections.create(
            shop.address.collection, vector_config=Configure.Vectors.self_provided(vector_index_config=index)
        )
        with pytest.raises(CollectionError, match="compares by l2-squared"):
            check(shop, MODEL)

    def test_more_than_can_be_compared_with_each_is_told(self, database, client):
        shop = database.open()
        index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE, flat_search_cutoff=2)
        made = client.collections.create(
            shop.address.collection, vector_config=Configure.Vectors.self_provided(vector_index_config=index)
        )
        made.data.insert_many([DataObject(properties={}, uuid=uid(i), vector=FRONT.tolist()) for i in range(3)])
        with pytest.raises(CollectionError, match=r"holds 3 objects.*raise flat_search_cutoff"):
            shop.search(FRONT, Ask(1, exact=True))
        assert len(shop.search(FRONT, Ask(3))) == 3


@every(WEAVIATE)
class TestTheModule:
    def test_the_server_has_the_container_make_vectors_and_compose_queries(self, database, service, tiny):
        shop = database.open()
        model = ModelRecord("tiny", tiny.fingerprint, tiny.dim)
        ensure(shop, model, CreateOptions(vectorize="server"))
        info = check(shop, model)
        assert (info.vectorize, info.blends_text) == ("server", False)
        pictures = [drawn(i) for i in range(6)]
        shop.upsert(
            [Point(uid(i), None, RECORD.join({"n": i, "title": "a hat"}), each) for i, each in enumerate(pictures)]
        )
        expected = tiny.compose([{"image": each} for each in pictures]).vectors
        for _ in range(2):
            for point in shop.get([uid(i) for i in range(6)]):
                np.testing.assert_allclose(point.vector, expected[point.payload["n"]], atol=1e-5)
            shop.replace_payload({uid(i): {"n": i, "title": "another text"} for i in range(6)})
        with pytest.raises(PartialWriteError, match=r"2 of 4 objects.*give a picture") as caught:
            shop.upsert([Point(uid(10 + i), None, {"n": i}, b"AAA" if i % 2 else pictures[i]) for i in range(4)])
        assert set(caught.value.failed) == {uid(11), uid(13)}
        own = unit(*range(1, tiny.dim + 1))
        shop.upsert([Point(uid(20), own, {"n": 20}), Point(uid(21), None, {"n": 21}, pictures[0])])
        np.testing.assert_allclose(shop.get([uid(20)])[0].vector, own, atol=1e-6)
        query = ComposedQuery.parse({"image": pictures[3], "text": "is red"})
        with Client(service.url, api_key=KEY) as client:
            vector = np.asarray(client.compose([query]).vectors[0], np.float32)
        here, there = shop.search(vector, Ask(5)), shop.search(query, Ask(5))
        assert [hit.score for hit in there] == pytest.approx([hit.score for hit in here], abs=1e-4)
        assert shop.search(query, Ask(2, parse_filter("n<3"), text="text", group_by="n", offset=1))
        assert shop.search(ComposedQuery(text="a red dress"), Ask(1))

    def test_the_collections_own_address_of_the_container_names_the_backbone(
        self, database, client, tiny, open_service
    ):
        shop = database.open()
        model = ModelRecord("tiny", tiny.fingerprint, tiny.dim)
        ensure(shop, model, CreateOptions(vectorize="server", service_url=f"{open_service.url}/"))
        settings = client.collections.use(shop.address.collection).config.get().vector_config["default"].vectorizer
        assert settings.model["inferenceUrl"] == f"{open_service.url}/m/tiny@{tiny.fingerprint[:12]}"
        shop.upsert([Point(uid(0), None, {}, drawn(0))])
        assert shop.search(ComposedQuery.parse({"image": drawn(0)}), Ask(1))[0].score == pytest.approx(1, abs=1e-4)

    def test_a_key_in_the_containers_address_would_be_read_by_all(self, database):
        with pytest.raises(CollectionError, match="holds a key, and everybody who may read the schema would see it"):
            database.open().create(MODEL, CreateOptions(vectorize="server", service_url="http://cir:SECRET@cir:8000"))

    def test_another_backbone_in_the_container_is_told(self, database, tiny, open_service):
        shop = database.open()
        wrong = ModelRecord("tiny", "0" * 64, tiny.dim)
        ensure(shop, wrong, CreateOptions(vectorize="server", service_url=open_service.url))
        with pytest.raises(CollectionError, match=r"'tiny@0000.*' was asked for, but what is served here is 'tiny@"):
            shop.upsert([Point(uid(i), None, {}, drawn(i)) for i in range(3)])

    def test_a_container_that_is_gone_for_long_fails_the_batch(self, database, monkeypatch):
        monkeypatch.setattr("cir_vectorizer.collections.retry.time.sleep", lambda seconds: None)
        shop = database.open()
        url = f"http://127.0.0.1:{servers.free_port()}"
        ensure(shop, MODEL, CreateOptions(vectorize="server", service_url=url))
        with pytest.raises(PartialWriteError, match=r"2 of 3 objects.*connection refused"):
            shop.upsert([Point(uid(i), None, {}, drawn(i)) for i in range(2)] + [Point(uid(9), FRONT, {})])
        assert shop.count() == 1
        with pytest.raises(CollectionError, match="connection refused"):
            shop.search(ComposedQuery(text="red"), Ask(3))

    def test_a_picture_for_a_collection_without_the_module_is_told(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        with pytest.raises(PartialWriteError, match=r"comes without a vector.*--vectorize server"):
            shop.upsert([Point(uid(0), None, {}, drawn(0))])
        with pytest.raises(CollectionError, match=r"was made for vectors that come from outside"):
            ensure(shop, MODEL, CreateOptions(vectorize="server"))


class TestWhenItDoesNotWork:
    def test_no_server_is_a_sentence_with_host_and_remedy(self):
        with pytest.raises(CollectionError, match=r"no Weaviate server answers at 127.0.0.1:9 \(.+\); start it"):
            open_collection("weaviate://127.0.0.1:9/Shop").info()

    @every(WEAVIATE)
    def test_a_wrong_grpc_port_is_a_sentence(self, database):
        options = OpenOptions(grpc_port=servers.free_port())
        with pytest.raises(CollectionError, match=r"answers, but not by gRPC at port \d+; open that port, or correct"):
            open_collection(database.address("Shop"), options=options).info()

    @pytest.mark.live
    def test_another_program_at_the_port_is_told(self, open_service):
        with pytest.raises(CollectionError, match=r"does not speak as Weaviate does"):
            open_collection(f"weaviate://{open_service.host}:{open_service.port}/Shop").info()

    @pytest.mark.live
    def test_a_server_with_a_key_lets_in_who_has_it(self, service, tmp_path, monkeypatch):
        monkeypatch.setenv("AUTHENTICATION_APIKEY_ENABLED", "true")
        monkeypatch.setenv("AUTHENTICATION_APIKEY_ALLOWED_KEYS", "SECRET")
        monkeypatch.setenv("AUTHENTICATION_APIKEY_USERS", "me")
        with servers.weaviate(tmp_path, f"{service.with_key(KEY)}/m/tiny", anonymous=False) as server:
            address, options = f"weaviate://{server.host}:{server.port}/Shop", OpenOptions(grpc_port=server.grpc_port)
            with pytest.raises(CollectionError, match="an API key is needed; set WEAVIATE_API_KEY"):
                open_collection(address, options=options).info()
            with pytest.raises(CollectionError, match="the API key was refused") as caught:
                open_collection(address, "WRONG", options).info()
            assert "WRONG" not in str(caught.value)
            shop = open_collection(address, "SECRET", options)
            ensure(shop, MODEL)
            shop.upsert(points([{}]))
            shop.close()
            monkeypatch.setenv("WEAVIATE_API_KEY", "SECRET")
            again = open_collection(address, options=options)
            assert check(again, MODEL).count == 1
            again.close()

    @pytest.mark.live
    def test_a_server_without_the_module_is_told(self, service, tmp_path):
        with servers.weaviate(tmp_path, f"{service.with_key(KEY)}/m/tiny", modules="") as server:
            options = OpenOptions(grpc_port=server.grpc_port)
            shop = open_collection(f"weaviate://{server.host}:{server.port}/Shop", options=options)
            with pytest.raises(CollectionError, match=r"without the module multi2vec-clip.*ENABLE_MODULES"):
                shop.create(MODEL, CreateOptions(vectorize="server"))
            shop.close()

    @every(WEAVIATE)
    def test_what_is_not_there_is_a_sentence(self, database):
        shop = database.open()
        for call in (
            lambda: shop.search(FRONT, Ask(3)),
            shop.count,
            lambda: shop.upsert(points([{}])),
            lambda: shop.get([uid(0)]),
        ):
            with pytest.raises(CollectionError, match=r"refused this for collection|could not find"):
                call()
        assert shop.info() is None
