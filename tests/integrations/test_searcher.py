"""Parts that the integrations share: a searcher that keeps its model and collection, and queries as frameworks write them."""

import json
import threading

import pytest
from qdrant_client import QdrantClient, models

import cir_vectorizer
from cir_vectorizer.client import Client, ServedModel
from cir_vectorizer.collections import OpenOptions, open_collection
from cir_vectorizer.errors import AddressError, QueryError
from cir_vectorizer.searcher import Searcher, as_query, embedder
from tests.support.servers import KEY


@pytest.fixture
def dress(drawn_shop):
    return drawn_shop.photo("red", "dress")


def test_local_and_served_models_find_the_same(drawn_shop, dress, tiny, service, monkeypatch):
    monkeypatch.setenv("CIR_API_KEY", KEY)
    query = {"image": dress, "text": "is blue"}
    expected = [hit.id for hit in cir_vectorizer.search(drawn_shop.collection, query, model=tiny, limit=3)]
    client = Client(service.url, api_key=KEY)
    for searcher in (
        Searcher(drawn_shop.collection, tiny),
        Searcher(drawn_shop.collection),
        Searcher(drawn_shop.collection, "lincir", service.url),
        Searcher(drawn_shop.collection, None, service.url, KEY),
        Searcher(drawn_shop.collection, ServedModel(client)),
    ):
        assert [hit.id for hit in searcher.search(query, limit=3)] == expected
        searcher.close()
    client.close()
    assert drawn_shop.collection.count() == 12  # a given collection stays open


def test_many_threads_may_search(drawn_shop, tiny):
    searcher = Searcher(drawn_shop.collection, tiny)
    found: list[list[object]] = []
    threads = [
        threading.Thread(target=lambda: found.append([hit.id for hit in searcher.search({"text": "a red dress"})]))
        for _ in range(6)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 6
    assert all(each == found[0] for each in found)


def test_the_place_of_a_picture_is_recorded_or_in_a_column(drawn_shop, dress, tiny, tmp_path):
    searcher = Searcher(drawn_shop.collection, tiny)
    assert searcher.place(searcher.search({"text": "a red dress"}, limit=1)[0].payload) == str(dress)
    client = QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("shop", models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE))
    vector = tiny.embed_texts(["a hat"])[0].tolist()
    client.upsert("shop", [models.PointStruct(id=7, vector=vector, payload={"photo": "https://shop.example/a.jpg"})])
    client.close()
    collection = open_collection(f"qdrant:{tmp_path}/index/shop", options=OpenOptions(picture_column="photo"))
    other = Searcher(collection, tiny)
    (hit,) = other.search({"text": "a hat"})
    assert other.place(hit.payload) == "https://shop.example/a.jpg"
    collection.close()


def test_a_wrong_address_is_told_at_once():
    with pytest.raises(AddressError):
        Searcher("nothing")


@pytest.mark.parametrize(
    ("given", "image", "expected"),
    [
        ("is blue", None, {"text": "is blue"}),
        ("is blue", ["a", b"b"], {"text": "is blue", "image": ["a", b"b"]}),
        ('{"text": "is blue"}', None, {"text": "is blue"}),
        (' {"negative_text": "lace"}', b"a", {"negative_text": "lace", "image": [b"a"]}),
        ({"text": "is blue"}, b"a", {"text": "is blue", "image": [b"a"]}),
        ({"image": b"a"}, None, {"image": b"a"}),
    ],
)
def test_a_query_is_a_text_json_or_a_dict_with_or_without_a_picture(given, image, expected):
    assert as_query(given, image) == expected


def test_a_text_beside_the_query_may_name_a_file_and_one_inside_it_may_not(dress):
    assert as_query("is blue", str(dress))["image"] == [dress]
    assert as_query(json.dumps({"image": str(dress)}))["image"] == str(dress)
    query = cir_vectorizer.ComposedQuery.parse({"text": "is blue", "options": {"keep": 0.5}})
    assert cir_vectorizer.ComposedQuery.parse(as_query(query, dress)).options.keep == 0.5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('{"text": ', "begins as a JSON object does, but is no valid JSON"),
        ('{"a":' * 100_000, "is no valid JSON"),
        ('{"image": "a"}', "image: is given beside a query that has one already"),
    ],
)
def test_a_query_that_is_none_is_a_sentence(given, says):
    with pytest.raises(QueryError, match=says):
        as_query(given, b"a")


def test_a_model_or_a_client_that_is_given_is_used_as_it_is(tiny):
    assert embedder(tiny, "http://localhost:1", None) is tiny
    client = Client("http://localhost:1")
    assert embedder(client, None, None) is client
