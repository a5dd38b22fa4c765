"""`composed(image_id=…)` with every stock client of a real server: blocking and asynchronous, over REST and gRPC."""

import asyncio
import os
from collections.abc import Iterator
from uuid import UUID

import pytest
import weaviate
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from weaviate.classes.config import Configure, DataType, Property

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.errors import CollectionError, QueryError
from tests.support.servers import Server, base64_of, drawn, free_port
from tests.support.serving import tiny

pytestmark = pytest.mark.live
NAME = f"CirClients{os.getpid()}"
MIXED = f"{NAME}Mixed"
FIRST, MISSING = UUID(int=1), UUID(int=99)


def arguments(server: Server, grpc: bool) -> dict[str, object]:
    return {
        "host": server.host,
        "port": server.port,
        "grpc_port": server.grpc_port,
        "prefer_grpc": grpc,
        "cloud_inference": True,
        "timeout": 30,
        "check_compatibility": False,
    }


@pytest.fixture(scope="module")
def qdrant_shop(qdrant_server) -> Iterator[Server]:
    """A server with a collection of three pictures that its container vectorised."""
    client = QdrantClient(**arguments(qdrant_server, False))
    client.create_collection(NAME, models.VectorParams(size=tiny().dim, distance=models.Distance.COSINE))
    pictures = [models.Image(image=base64_of(drawn(i)), model="tiny") for i in range(3)]
    client.upsert(NAME, [models.PointStruct(id=i, vector=each) for i, each in enumerate(pictures)])
    yield qdrant_server
    client.delete_collection(NAME)
    client.close()


@pytest.fixture(scope="module")
def weaviate_shop(weaviate_server) -> Iterator[Server]:
    """A server with a collection of pictures, and one whose vectors blend pictures and texts."""
    server = weaviate_server
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        for name, more in ((NAME, {}), (MIXED, {"text_fields": ["title"]})):
            shop = client.collections.create(
                name,
                properties=[
                    Property(name="photo", data_type=DataType.BLOB),
                    Property(name="title", data_type=DataType.TEXT),
                ],
                vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"], **more),
            )
            for i in range(3):
                shop.data.insert({"photo": base64_of(drawn(i)), "title": f"number {i}"}, uuid=UUID(int=i + 1))
        yield server
        for name in (NAME, MIXED):
            client.collections.delete(name)


def in_qdrant(server: Server, grpc: bool, later: bool, **asked: object) -> list[models.ScoredPoint]:
    """The composed search of one client."""
    asked = {"collection": NAME, "text": "is red", **asked}
    if not later:
        client = QdrantClient(**arguments(server, grpc))
        query = cir_vectorizer_qdrant.composed(client=client, **asked)
        return client.query_points(NAME, query=query).points

    async def search() -> list[models.ScoredPoint]:
        client = AsyncQdrantClient(**arguments(server, grpc))
        query = await cir_vectorizer_qdrant.composed(client=client, **asked)
        return (await client.query_points(NAME, query=query)).points

    return asyncio.run(search())


CLIENTS = pytest.mark.parametrize("later", [False, True], ids=["blocking", "async"])
PROTOCOLS = pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])


@CLIENTS
@PROTOCOLS
class TestQdrant:
    def test_an_id_is_a_reference(self, qdrant_shop, grpc, later):
        usual = in_qdrant(qdrant_shop, False, False, image_id=[1, 2])
        found = in_qdrant(qdrant_shop, grpc, later, image_id=[1, 2])
        assert [each.id for each in found] == [each.id for each in usual]
        assert [each.score for each in found] == pytest.approx([each.score for each in usual], abs=1e-5)

    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"image_id": 99}, "^collection .* has no object 99; correct image_id$"),
            ({"image_id": 1, "collection": "none"}, r"^the Qdrant server has no collection 'none' \(.*\); correct"),
            ({"image_id": 1, "using": "photo"}, "^objects of collection .* cannot be read: .*; correct image_id"),
        ],
    )
    def test_a_failed_read_is_a_sentence(self, qdrant_shop, grpc, later, asked, sentence):
        with pytest.raises(CollectionError, match=sentence):
            in_qdrant(qdrant_shop, grpc, later, **asked)

    def test_a_server_that_is_down_is_a_sentence(self, grpc, later):
        nowhere = Server("127.0.0.1", free_port(), free_port())
        with pytest.raises(CollectionError, match=r"^no Qdrant server answers this client \(.*\); start it"):
            in_qdrant(nowhere, grpc, later, image_id=1)


def in_weaviate(server: Server, later: bool, name: str = NAME, **asked: object) -> list[UUID]:
    """The composed search of one client."""
    if not later:
        with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
            shop = client.collections.use(name)
            query = cir_vectorizer_weaviate.composed(collection=shop, text="is red", **asked)
            return [each.uuid for each in shop.query.near_text(query, limit=3).objects]

    async def search() -> list[UUID]:
        async with weaviate.use_async_with_local(server.host, server.port, server.grpc_port) as client:
            shop = client.collections.use(name)
            query = await cir_vectorizer_weaviate.composed(collection=shop, text="is red", **asked)
            return [each.uuid for each in (await shop.query.near_text(query, limit=3)).objects]

    return asyncio.run(search())


@CLIENTS
class TestWeaviate:
    def test_an_id_is_a_reference(self, weaviate_shop, later):
        assert in_weaviate(weaviate_shop, later, image_id=FIRST) == in_weaviate(weaviate_shop, False, image_id=FIRST)
        assert len(in_weaviate(weaviate_shop, later)) == 3

    @pytest.mark.parametrize(
        ("name", "asked", "sentence"),
        [
            (NAME, {"image_id": MISSING}, f"has no object {MISSING}; correct image_id"),
            (NAME, {"image_id": "abc"}, "cannot be read: Not valid 'uuid'.*; correct image_id"),
            ("None", {"image_id": FIRST}, "^the Weaviate server has no collection 'None'; correct the name"),
            (NAME, {"image_id": FIRST, "using": "words"}, "has no such dense vector"),
        ],
        ids=["missing", "no id", "no collection", "no vector"],  # the same in every process, unlike the names
    )
    def test_a_failed_read_is_a_sentence(self, weaviate_shop, later, name, asked, sentence):
        with pytest.raises(CollectionError, match=sentence):
            in_weaviate(weaviate_shop, later, name, **asked)

    def test_a_vector_that_blends_texts_is_no_picture(self, weaviate_shop, later):
        with pytest.raises(
            QueryError, match=r"image_id: vectors of collection .* were made of pictures and texts together"
        ):
            in_weaviate(weaviate_shop, later, MIXED, image_id=FIRST)
