"""Helpers for applications: a composed query as Qdrant's InferenceObject and as Weaviate's concept string."""

import asyncio
import base64
import json
from io import BytesIO
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from qdrant_client import AsyncQdrantClient, QdrantClient, models

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.errors import CollectionError, ImageError, QueryError
from cir_vectorizer.query import ComposedQuery, read_text
from tests.support.indexing import run
from tests.support.servers import base64_of, drawn

PICTURE = drawn(0)


def in_qdrant(**parts):
    return cir_vectorizer_qdrant.composed(**parts).object


def in_weaviate(**parts):
    return json.loads(cir_vectorizer_weaviate.composed(**parts))


BOTH = pytest.mark.parametrize("composed", [in_qdrant, in_weaviate], ids=["qdrant", "weaviate"])


@BOTH
def test_pictures_may_be_given_in_every_way(composed, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    bare = base64_of(PICTURE)
    for given, sent in [
        (path, bare),
        (PICTURE, bare),
        (bare, bare),
        (f"data:image/png;base64,{bare}", f"data:image/png;base64,{bare}"),
        ("https://shop.example/a.jpg", "https://shop.example/a.jpg"),
        ([0.5, -0.5], {"vector": [0.5, -0.5]}),
        (np.array([0.5, -0.5], np.float32), {"vector": [0.5, -0.5]}),
        ({"vector": np.array([0.5, -0.5]), "norm": 9.5}, {"vector": [0.5, -0.5], "norm": 9.5}),
        ([path, PICTURE], [bare, bare]),
    ]:
        assert composed(image=given, text="is red") == {"image": sent, "text": "is red"}
    opened = Image.open(path)
    sent = Image.open(BytesIO(base64.b64decode(composed(image=opened, text="is red")["image"])))
    assert np.array_equal(np.asarray(sent), np.asarray(opened))


@BOTH
def test_every_field_arrives_and_reads_back(composed):
    sent = composed(
        image=PICTURE,
        text="is red",
        negative_text="stripes",
        mask=PICTURE,
        template="a photo of $ that {text}",
        language="de-AT",
        composer="lincir",
        options={"guidance": [1.5, 7.5], "weights": {"negative": 0.3}},
    )
    query = ComposedQuery.parse(json.dumps(sent))
    assert query.options.guidance == (1.5, 7.5)
    assert (query.negative_text, query.template, query.composer) == ("stripes", "a photo of $ that {text}", "lincir")
    assert query.language == "de-AT"
    assert query.mask.base64 == query.image[0].base64


@BOTH
@pytest.mark.parametrize(
    ("parts", "error", "sentence"),
    [
        ({"image": PICTURE, "options": {"stepz": 3}}, QueryError, "options.stepz: is not a field"),
        ({"negative_text": "stripes"}, QueryError, "add text or an image"),
        ({}, QueryError, "the query is empty"),
        ({"image": "dress.jpg", "text": "is red"}, ImageError, "pathlib.Path"),
        ({"image": np.zeros((8, 8, 3))}, QueryError, "PIL image"),
        ({"image_id": 7, "text": "is red"}, QueryError, "collection"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(composed, parts, error, sentence):
    with pytest.raises(error, match=sentence):
        composed(**parts)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg cannot be read"):
        in_qdrant(image=tmp_path / "gone.jpg", text="is red")


def test_for_weaviate_words_alone_stay_words():
    assert cir_vectorizer_weaviate.composed(text="a red dress") == "a red dress"
    typed_by_a_shopper = '{"image": "oops"}'
    query = read_text(cir_vectorizer_weaviate.composed(text=typed_by_a_shopper))
    assert isinstance(query, ComposedQuery)
    assert (query.text, query.composer, query.image) == (typed_by_a_shopper, "text", ())


def test_for_weaviate_every_composed_query_is_recognised():
    for parts in ({"image": PICTURE}, {"text": "a", "negative_text": "b"}, {"text": "a", "composer": "sum"}):
        assert isinstance(read_text(cir_vectorizer_weaviate.composed(**parts)), ComposedQuery)


def test_in_qdrant_an_id_becomes_its_vector_norm_and_fingerprint(photos, shop, tiny):
    run(photos, shop, tiny)
    client = shop._connection.client
    ids = [id_ for id_, _ in shop.scan()][:2]
    inference = cir_vectorizer_qdrant.composed(image_id=ids, client=client, collection="shop", text="is red")
    assert inference.model == f"lincir@{tiny.fingerprint[:12]}"
    stored = {point.id: point for point in shop.get(ids)}
    for id_, sent in zip(ids, inference.object["image"], strict=True):
        assert np.allclose(sent["vector"], stored[id_].vector)
        assert sent["norm"] == stored[id_].payload["_cir"]["norm"]
    named = cir_vectorizer_qdrant.composed(
        image_id=ids[0], client=client, collection="shop", text="is red", model="tiny@12345678"
    )
    assert named.model == "tiny@12345678"


def test_in_qdrant_named_vectors_and_missing_objects():
    client = QdrantClient(":memory:")
    sizes = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("named", vectors_config={"photo": sizes, "words": sizes})
    client.upsert("named", [models.PointStruct(id=1, vector={"photo": [3.0, 4.0], "words": [1.0, 0.0]})])
    where = {"client": client, "collection": "named", "text": "is red"}
    inference = cir_vectorizer_qdrant.composed(image_id=1, using="photo", image=PICTURE, **where)
    assert inference.object["image"][1] == {"vector": [3.0, 4.0]}
    assert inference.model == "lincir"
    with pytest.raises(CollectionError, match="it has photo, words, so name one by using"):
        cir_vectorizer_qdrant.composed(image_id=1, **where)
    with pytest.raises(CollectionError, match="no object 2"):
        cir_vectorizer_qdrant.composed(image_id=2, using="photo", **where)


class _FakeCollection:
    """A fake Weaviate collection with a norm and named vectors, which come from outside; the live tests use a real one."""

    name = "Shop"
    vectorizer_config = None

    def __init__(self, vector, properties):
        self._found = type("Found", (), {"vector": vector, "properties": properties})
        self.query = self.config = self
        own = SimpleNamespace(vectorizer=SimpleNamespace(vectorizer="none", model={}))
        self.vector_config = dict.fromkeys(vector, own)

    def get(self):
        return self

    def fetch_object_by_id(self, uuid, include_vector):
        return None if uuid == "gone" else self._found


@pytest.mark.parametrize("record", [{"norm": 9.5}, '{"norm": 9.5}'])
def test_in_weaviate_an_id_becomes_its_vector_and_norm(record):
    only = _FakeCollection({"photo": [0.6, 0.8]}, {"_cir": record})
    collection = _FakeCollection({"photo": [0.6, 0.8], "words": [1.0, 0.0]}, {"_cir": record})
    for place, using in ((collection, "photo"), (only, None)):
        sent = in_weaviate(image_id=uuid4(), collection=place, using=using, text="is red")
        assert sent["image"] == {"vector": [0.6, 0.8], "norm": 9.5}
    with pytest.raises(CollectionError, match="it has photo, words, so name one by using"):
        in_weaviate(image_id=uuid4(), collection=collection, text="is red")
    with pytest.raises(CollectionError, match="no object gone"):
        in_weaviate(image_id="gone", collection=collection, text="is red")


def test_in_qdrant_the_only_dense_vector_needs_no_name():
    client = QdrantClient(":memory:")
    client.create_collection("one", vectors_config={"photo": models.VectorParams(size=2, distance=models.Distance.DOT)})
    client.upsert("one", [models.PointStruct(id=1, vector={"photo": [3.0, 4.0]})])
    inference = cir_vectorizer_qdrant.composed(image_id=1, client=client, collection="one", text="is red")
    assert inference.object["image"] == {"vector": [3.0, 4.0]}


def test_in_qdrant_an_async_client_gives_the_same_query():
    async def asked() -> None:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection("one", models.VectorParams(size=2, distance=models.Distance.DOT))
        await client.upsert("one", [models.PointStruct(id=1, vector=[3.0, 4.0])])
        where = {"client": client, "collection": "one", "text": "is red"}
        inference = await cir_vectorizer_qdrant.composed(image_id=1, **where)
        assert inference.object == {"image": {"vector": [3.0, 4.0]}, "text": "is red"}
        assert (await cir_vectorizer_qdrant.composed(**where)).object == {"text": "is red"}
        with pytest.raises(CollectionError, match="no object 2"):
            await cir_vectorizer_qdrant.composed(image_id=2, **where)
        with pytest.raises(CollectionError, match=r"objects of collection 'gone' cannot be read: .*; correct"):
            await cir_vectorizer_qdrant.composed(image_id=2, **{**where, "collection": "gone"})

    asyncio.run(asked())
