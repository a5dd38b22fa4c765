"""Texts as a second vector of an object, in each database: made, added, kept by every write, and never the default."""

from dataclasses import replace

import numpy as np
import pytest

from cir_vectorizer.collections import TEXT_VECTOR, Ask, CreateOptions, Point, ensure
from cir_vectorizer.collections.stored import resolve
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ComposedQuery
from tests.support.databases import FRONT, MODEL, ONE_OF_EACH, RECORD, every, uid, unit

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
    import httpx

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
