"""Texts as a second vector of an object, in each database: made, added, kept by every write, and never the default."""

import json
from dataclasses import replace

import httpx
import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse
from weaviate.exceptions import WeaviateBaseError

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.collections import TEXT_VECTOR, Ask, CreateOptions, Point, ensure, open_collection
from cir_vectorizer.collections.note import Note
from cir_vectorizer.collections.stored import resolve
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer_weaviate.schema import description
from tests.support.databases import FRONT, MODEL, ONE_OF_EACH, QDRANT, RECORD, WEAVIATE, every, uid, unit

TEXTS = CreateOptions(text_columns=("title",))
SIDE, UP = unit(0, 1, 0, 0), unit(0, 0, 1, 0)


def with_text(number, vector=FRONT, text=SIDE, **columns):
    return Point(uid(number), vector, RECORD.join(columns), text_vector=text)


def stored(shop, number=0):
    (point,) = shop.get([uid(number)])
    return point


def again(shop, **options):
    """Open the collection again, over the same connection."""
    return shop.beside(shop.address.collection, replace(shop.options, **options))


def assert_same(vector, expected):
    if expected is None:
        assert vector is None
    else:
        np.testing.assert_allclose(vector, expected, atol=1e-6)


@every()
class TestTwoVectors:
    def test_a_new_collection_holds_both_and_notes_the_columns(self, database):
        shop = database.open()
        ensure(shop, MODEL, TEXTS)
        shop.upsert([with_text(0), with_text(1, text=None)])
        info = again(shop).info()
        assert (info.text_columns, info.dim, info.count) == (("title",), 4, 2)
        assert TEXT_VECTOR not in info.vectors
        assert info.using != TEXT_VECTOR
        assert_same(stored(shop).vector, FRONT)
        assert_same(stored(shop).text_vector, SIDE)
        assert_same(stored(shop, 1).text_vector, None)

    @pytest.mark.parametrize("using", [None, "photo"])
    def test_one_is_added_to_a_collection_that_exists(self, database, using):
        shop = database.open(using=using)
        ensure(shop, MODEL)
        shop.upsert([with_text(0, text=None, n=1)])
        shop.add_texts(["title"])
        shop.add_texts(["title", "more"])
        assert stored(shop).text_vector is None
        shop.replace_payload({uid(0): RECORD.join({"n": 2})}, {uid(0): SIDE})
        other = again(shop, using=None)
        assert other.info().text_columns == ("title", "more")
        assert_same(stored(other).text_vector, SIDE)
        assert_same(stored(other).vector, FRONT)
        assert stored(other).payload["n"] == 2
        assert again(shop).info().model == MODEL.name

    def test_searches_and_references_keep_to_the_picture(self, database):
        shop = database.open()
        ensure(shop, MODEL, TEXTS)
        shop.upsert([with_text(0, FRONT, SIDE), with_text(1, SIDE, FRONT)])
        assert [hit.id for hit in shop.search(FRONT, Ask(2))] == [uid(0), uid(1)]
        (reference,) = resolve(ComposedQuery.parse({"image": {"id": uid(0)}}), shop).image
        assert_same(reference.vector, FRONT)

    def test_a_payload_is_replaced_and_the_text_stays_changes_or_leaves(self, database):
        shop = database.open()
        ensure(shop, MODEL, TEXTS)
        shop.upsert([with_text(i, title="red shirt") for i in range(3)])
        payloads = {uid(i): RECORD.join({"title": "blue shirt"} if i else {}) for i in range(3)}
        shop.replace_payload(payloads, {uid(1): UP, uid(2): None, uid(9): UP})
        for i, text in enumerate([SIDE, UP, None]):
            assert_same(stored(shop, i).vector, FRONT)
            assert_same(stored(shop, i).text_vector, text)
            assert stored(shop, i).payload == payloads[uid(i)]

    def test_an_object_is_written_again_without_its_text(self, database):
        shop = database.open()
        ensure(shop, MODEL, TEXTS)
        shop.upsert([with_text(0)])
        shop.upsert([with_text(0, UP, None)])
        assert_same(stored(shop).vector, UP)
        assert stored(shop).text_vector is None

    def test_a_merge_keeps_the_other_vector(self, database):
        shop = database.open()
        ensure(shop, MODEL, TEXTS)
        shop.upsert([with_text(0)])
        shop.merge([Point(uid(0), UP, RECORD.join({}))])
        assert_same(stored(shop).text_vector, SIDE)
        shop.merge([Point(uid(0), None, RECORD.join({}), text_vector=FRONT)])
        assert_same(stored(shop).vector, UP)
        assert_same(stored(shop).text_vector, FRONT)

    def test_the_note_keeps_what_else_it_says(self, database):
        shop = database.open()
        ensure(shop, MODEL, replace(TEXTS, indexed=("title",)))
        shop.weigh_texts(0.25)
        shop.add_texts(["name"])
        info = again(shop).info()
        assert (info.text_columns, info.text_weight, info.fingerprint) == (("name",), 0.25, MODEL.fingerprint)


@every(ONE_OF_EACH)
class TestStorage:
    @pytest.mark.parametrize("quantization", ["scalar", "binary"])
    def test_a_compressed_collection_on_disk_gets_a_second_vector_alike(self, database, quantization):
        shop = database.open()
        ensure(shop, MODEL, CreateOptions(vector_on_disk=True, quantization=quantization))
        shop.add_texts(["title"])
        shop.upsert([with_text(0)])
        assert_same(stored(shop).text_vector, SIDE)
        if database.embedded:
            return
        other = database.open()
        ensure(other, MODEL, CreateOptions(True, quantization, text_columns=("title",)))
        added, made = (configured(each, database) for each in (shop, other))
        assert added == made


def configured(shop, database):
    """Return how the server keeps the vector of the texts."""
    if database.kind == "weaviate":
        found = httpx.get(f"{database.server.url}/v1/schema/{shop._name}").json()
        return found["vectorConfig"][TEXT_VECTOR]
    found = httpx.get(f"{database.server.url}/collections/{shop.address.collection}").json()
    return found["result"]["config"]["params"]["vectors"][TEXT_VECTOR]


@every(ONE_OF_EACH)
def test_the_name_is_not_for_pictures(database):
    shop = database.open(using=TEXT_VECTOR)
    with pytest.raises(CollectionError, match="the texts"):
        ensure(shop, MODEL)


@every(QDRANT)
class TestQdrantsOwnClient:
    @pytest.mark.parametrize("using", [None, "photo"])
    def test_a_search_goes_on_and_an_object_is_a_reference(self, database, using):
        shop = database.open(using=using)
        ensure(shop, MODEL)
        shop.upsert([with_text(0, FRONT, None), with_text(1, SIDE, None)])
        shop.add_texts(["title"])
        shop.upsert([with_text(0, FRONT, SIDE), with_text(1, SIDE, FRONT)])
        client, name = shop._connection.client, shop.address.collection
        found = client.query_points(name, FRONT.tolist(), using=using, limit=1).points
        assert str(found[0].id) == uid(0)
        query = cir_vectorizer_qdrant.composed(image_id=uid(0), client=client, collection=name, text="is red")
        np.testing.assert_allclose(query.object["image"]["vector"], FRONT, atol=1e-6)
        assert ("using='photo'" in shop.about_texts()) == (using is not None)

    def test_another_vector_is_still_ambiguous(self, database):
        shop = database.open(using="photo")
        ensure(shop, MODEL, TEXTS)
        client, name = shop._connection.client, shop.address.collection
        config = models.DenseVectorConfig(size=4, distance=models.Distance.COSINE)
        client.create_vector_name(name, "back", models.DenseVectorNameConfig(dense=config))
        with pytest.raises(CollectionError, match=r"has the vectors (photo, back|back, photo); name one with --using"):
            again(shop, using=None).info()


@every(WEAVIATE)
class TestWeaviatesOwnClient:
    @pytest.mark.parametrize("using", [None, "photo"])
    def test_a_search_and_a_write_must_name_the_vector_and_an_object_is_a_reference(self, database, using):
        named = using or "default"
        shop = database.open(using=using)
        ensure(shop, MODEL)
        shop.upsert([with_text(0, FRONT, None), with_text(1, SIDE, None)])
        client = shop._connection.client.collections.use(shop._name)
        near = FRONT.tolist()
        assert len(client.query.near_vector(near, limit=2).objects) == 2
        shop.add_texts(["title"])
        shop.upsert([with_text(0, FRONT, SIDE), with_text(1, SIDE, FRONT)])
        for refused in (
            lambda: client.query.near_vector(near, limit=1),
            lambda: client.query.hybrid("red", vector=near, limit=1),
            lambda: client.query.near_object(uid(0), limit=1),
            lambda: client.data.insert({}, vector=near),
        ):
            with pytest.raises(WeaviateBaseError):
                refused()
        for search in (
            lambda: client.query.near_vector(near, limit=1, target_vector=named),
            lambda: client.query.hybrid(None, vector=near, alpha=1, limit=1, target_vector=named),
            lambda: client.query.near_object(uid(0), limit=1, target_vector=named),
        ):
            assert [str(each.uuid) for each in search().objects] == [uid(0)]
        client.data.insert({}, vector={named: near})
        query = json.loads(cir_vectorizer_weaviate.composed(image_id=uid(0), collection=client, text="is red"))
        np.testing.assert_allclose(query["image"]["vector"], FRONT, atol=1e-6)
        said = shop.about_texts()
        assert f"target_vector='{named}'" in said
        assert f"vector={{'{named}': …}}" in said

    def test_vectors_without_a_name_take_none_beside_them(self, database):
        shop = database.open()
        note = description(Note.of(MODEL, CreateOptions()))
        schema = {
            "class": shop._name,
            "vectorizer": "none",
            "vectorIndexConfig": {"distance": "cosine"},
            "properties": [{"name": "_cir", "dataType": ["text"], "description": note}],
        }
        httpx.post(f"{database.server.url}/v1/schema", json=schema).raise_for_status()
        ensure(shop, MODEL)
        shop.upsert([with_text(0, FRONT, None)])
        for refused in (shop.about_texts, lambda: shop.add_texts(["title"])):
            with pytest.raises(CollectionError, match="have no name, and Weaviate's client writes no second one"):
                refused()
        assert shop.info().text_columns == ()
        np.testing.assert_allclose(stored(shop).vector, FRONT, atol=1e-6)

    def test_all_tenants_get_the_vector(self, database):
        one = database.open(tenant="one")
        two = again(one, tenant="two")
        for shop in (one, two):
            ensure(shop, MODEL)
            shop.upsert([with_text(0, FRONT, None)])
        assert "for all tenants" in one.about_texts()
        one.add_texts(["title"])
        one.upsert([with_text(0)])
        assert two.info().text_columns == ("title",)
        assert stored(two).text_vector is None
        assert_same(stored(two).vector, FRONT)
        assert_same(stored(one).text_vector, SIDE)


@pytest.mark.parametrize("status", [404, "UNIMPLEMENTED"])
def test_a_qdrant_server_that_adds_no_vector_is_told(tmp_path, monkeypatch, status):
    """A fake refusal, since no such server runs here."""
    shop = open_collection(f"qdrant:{tmp_path}/index/shop")
    ensure(shop, MODEL)

    def refuse(*arguments):
        raise UnexpectedResponse(404, "Not Found", b"", httpx.Headers())

    monkeypatch.setattr(shop._connection.client, "create_vector_name", refuse)
    monkeypatch.setattr("cir_vectorizer_qdrant.collection.status_of", lambda error: status)
    with pytest.raises(CollectionError, match=r"older than 1.18, .* sync into a new collection \(give another --to\)"):
        shop.add_texts(["title"])
    assert shop.info().text_columns == ()
    shop.close()


def test_a_collection_without_a_note_can_keep_no_columns(tmp_path):
    shop = open_collection(f"qdrant:{tmp_path}/index/shop")
    config = models.VectorParams(size=4, distance=models.Distance.COSINE)
    shop._call(lambda client: client.create_collection("shop", vectors_config=config))
    for refused in (shop.about_texts, lambda: shop.add_texts(["title"])):
        with pytest.raises(CollectionError, match="keeps no note of its columns of texts"):
            refused()
    shop.close()
