"""`composed_query` and `composed_targets`: fused searches of stock clients, against the same scores in numpy."""

import asyncio

import numpy as np
import pytest
import weaviate
from qdrant_client import AsyncQdrantClient, models

from cir_vectorizer.collections import TextShare
from cir_vectorizer.errors import QueryError
from cir_vectorizer_qdrant import composed, composed_query
from cir_vectorizer_weaviate import composed_targets
from tests.databases.test_second_signals import ALL, CLOSE, DIM, SHARE, SHOP, row_of, same, shop, shops, top, unit
from tests.support.databases import QDRANT, WEAVIATE

__all__ = ["shop"]  # the fixture


def run(collection, arguments, **more):
    """Search with the stock client of a collection."""
    client = collection._connection.client
    return client.query_points(collection._name, **arguments, limit=10, with_payload=True, **more).points


@shops(QDRANT)
class TestQdrant:
    @pytest.mark.parametrize("share", [SHARE, TextShare(0.7, 1.2, 0.05), TextShare(1.0)], ids=str)
    def test_fused_scores_are_those_of_numpy(self, shop, share):
        vector = SHOP.near(20)
        arguments = composed_query(
            vector, text_weight=share.weight, slope=share.slope, offset=share.offset, candidates=100
        )
        scores = SHOP.fused(vector, share)
        same(run(shop, arguments), scores, top(scores, SHOP.candidates(vector, share, 100, ALL)))

    def test_unwanted_words_are_subtracted(self, shop):
        vector, one, two = SHOP.near(21), SHOP.near(22), SHOP.near(23)
        arguments = composed_query(
            vector, text_weight=0.3, slope=SHARE.slope, offset=SHARE.offset, unwanted=[one, two], penalty=0.4
        )
        scores = SHOP.fused(vector, SHARE) - 0.4 * (SHOP.fused(one, SHARE) + SHOP.fused(two, SHARE))
        same(run(shop, arguments), scores, top(scores, SHOP.candidates(vector, SHARE, 500, ALL)))

    def test_without_texts_the_pictures_alone_count(self, shop):
        vector, words = SHOP.near(24), SHOP.near(25)
        scores = SHOP.pictures @ vector - 0.5 * SHOP.pictures @ words
        hits = run(shop, composed_query(vector, unwanted=[words.tolist()], candidates=200))
        same(hits, scores, top(scores, SHOP.candidates(vector, None, 200, ALL)))

    def test_a_filter_of_the_client_reaches_the_candidates(self, shop):
        vector = SHOP.near(26)
        red = models.Filter(must=[models.FieldCondition(key="colour", match=models.MatchValue(value="red"))])
        keep = np.array([payload["colour"] == "red" for payload in SHOP.payloads])
        arguments = composed_query(vector, text_weight=0.3, slope=SHARE.slope, offset=SHARE.offset, candidates=20)
        scores = SHOP.fused(vector, SHARE)
        same(run(shop, arguments, query_filter=red), scores, top(scores, SHOP.candidates(vector, SHARE, 20, keep)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"text_weight": 1.5}, "text_weight: is 1.5, which is not from 0 to 1"),
        ({"penalty": -1.0}, "penalty: is -1, which is not at least 0"),
        ({"candidates": 0}, "candidates: is below 1"),
    ],
)
def test_numbers_outside_their_range_are_refused(given, says):
    with pytest.raises(QueryError) as caught:
        composed_query(np.ones(DIM), **given)
    assert says in str(caught.value)


@pytest.mark.live
@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_the_server_has_the_query_and_the_words_composed(qdrant_server, tiny, grpc):
    """One request of the stock client, asynchronous too: the container composes the query and embeds the words."""
    vectors = {name: tiny.compose([{"text": name, "composer": "text"}]).vectors[0] for name in ("a dress", "lace")}
    rows = unit(np.random.default_rng(3).normal(size=(60, tiny.dim)))
    server = qdrant_server

    async def search():
        client = AsyncQdrantClient(
            host=server.host,
            port=server.port,
            grpc_port=server.grpc_port,
            prefer_grpc=grpc,
            cloud_inference=True,
            timeout=30,
            check_compatibility=False,
        )
        name = f"Helped{grpc}"
        cosine = models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE)
        await client.create_collection(name, {"": cosine, "cir_text": cosine})
        try:
            points = [
                models.PointStruct(
                    id=i, vector={"": row.tolist(), **({"cir_text": rows[-i].tolist()} if i % 3 else {})}
                )
                for i, row in enumerate(rows)
            ]
            await client.upsert(name, points, wait=True)
            query = await composed(client=client, text="a dress", composer="text", model="tiny")
            arguments = composed_query(query, text_weight=0.3, unwanted=["lace"], penalty=0.5)
            return (await client.query_points(name, **arguments, limit=10)).points
        finally:
            await client.delete_collection(name)
            await client.close()

    found = asyncio.run(search())
    has_text = np.arange(len(rows)) % 3 != 0

    def fused(vector):
        pictures = rows @ vector
        return 0.7 * pictures + 0.3 * np.where(has_text, rows[-np.arange(len(rows))] @ vector, pictures)

    scores = fused(vectors["a dress"]) - 0.5 * fused(vectors["lace"])
    assert [each.score for each in found] == pytest.approx(sorted(scores, reverse=True)[:10], abs=1e-3)


@shops(WEAVIATE)
class TestWeaviate:
    def test_objects_with_a_text_have_the_score_of_numpy(self, shop):
        vector = SHOP.near(27)
        remote = shop._connection.client.collections.use(shop._name)
        wanted = weaviate.classes.query.MetadataQuery(distance=True)
        found = remote.query.near_vector(
            **composed_targets(vector, text_weight=0.3), limit=100, return_metadata=wanted
        ).objects
        scores = np.where(SHOP.has_text, SHOP.fused(vector, SHARE), -np.inf)
        rows = [row_of(str(each.uuid)) for each in found]
        assert all(SHOP.has_text[row] for row in rows)
        assert [1 - each.metadata.distance for each in found] == pytest.approx([scores[row] for row in rows], abs=CLOSE)
        assert [1 - each.metadata.distance for each in found[:10]] == pytest.approx(
            sorted(scores, reverse=True)[:10], abs=CLOSE
        )

    def test_a_weight_outside_its_range_is_refused(self, shop):
        assert shop.count()
        with pytest.raises(QueryError, match=r"text_weight: is -0\.1, which is not from 0 to 1"):
            composed_targets(SHOP.near(0), text_weight=-0.1)
