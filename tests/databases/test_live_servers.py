"""Stock Qdrant and stock Weaviate with their stock clients, connected to our service by configuration alone.

The tests import 200 pictures by the servers' own calls. Then text, picture and composed searches go through both servers,
and through REST with a plain vector search; all must agree.
"""

import hashlib
import os

import numpy as np
import pytest
import weaviate as weaviate_client
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.classes.query import HybridVector, MetadataQuery
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateQueryError

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.client import Client
from tests.support.servers import KEY, base64_of, drawn, pictures, qdrant

pytestmark = pytest.mark.live
COUNT = 200
NAME = f"CirLive{os.getpid()}"
"""Prefix of the collections' names, so that a running server's own collections are not touched."""
LIMIT = 20
CLOSE = 1e-4


@pytest.fixture(scope="module")
def photos():
    return pictures(COUNT)


@pytest.fixture(scope="module")
def outside():
    """A picture that is in no collection."""
    return drawn(1234)


@pytest.fixture(scope="module")
def rest(service):
    with Client(service.url, api_key=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def qdrant_client(qdrant_server, photos):
    client = connect(qdrant_server)
    fill(client, photos)
    yield client
    client.delete_collection(NAME)
    client.close()


@pytest.fixture(scope="module")
def grpc_client(qdrant_server, qdrant_client):
    client = connect(qdrant_server, prefer_grpc=True)
    yield client
    client.close()


@pytest.fixture(scope="module")
def weaviate_db(weaviate_server):
    server = weaviate_server
    with weaviate_client.connect_to_local(server.host, server.port, server.grpc_port) as client:
        yield client


@pytest.fixture(scope="module")
def weaviate_shop(weaviate_db, photos):
    shop = make_collection(weaviate_db, NAME)
    with shop.batch.fixed_size(batch_size=50) as batch:
        for number, photo in enumerate(photos):
            batch.add_object({"photo": base64_of(photo), "number": number})
    assert shop.batch.failed_objects == []
    yield shop
    weaviate_db.collections.delete(NAME)


def connect(server, **options):
    return QdrantClient(
        url=server.url,
        grpc_port=server.grpc_port,
        cloud_inference=True,
        timeout=60,
        check_compatibility=False,
        **options,
    )


def fill(client, photos):
    client.create_collection(NAME, vectors_config=models.VectorParams(size=128, distance=models.Distance.COSINE))
    for start in range(0, len(photos), 50):
        points = [
            models.PointStruct(id=start + i, vector=models.Image(image=base64_of(photo), model="tiny"))
            for i, photo in enumerate(photos[start : start + 50])
        ]
        client.upsert(NAME, points, wait=True)


def make_collection(client, name, **options):
    index = Configure.VectorIndex.flat(distance_metric=VectorDistances.COSINE)
    return client.collections.create(
        name,
        properties=[
            Property(name="photo", data_type=DataType.BLOB),
            Property(name="number", data_type=DataType.INT),
            Property(name="words", data_type=DataType.TEXT),
        ],
        vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"], vector_index_config=index, **options),
    )


def by_qdrant(client, query):
    exact = models.SearchParams(exact=True)
    found = client.query_points(NAME, query=query, limit=LIMIT, search_params=exact).points
    return [(point.id, point.score) for point in found]


def by_weaviate(found):
    return [(each.properties["number"], 1 - each.metadata.distance) for each in found.objects]


def assert_same_ranking(one, other):
    """Check that scores and objects agree; neighbours with equal scores may change places."""
    assert len(one) == len(other) == LIMIT
    assert np.allclose([score for _, score in one], [score for _, score in other], atol=CLOSE, rtol=0)
    scores = dict(other)
    for number, score in one:
        assert abs(scores.get(number, other[-1][1]) - score) < CLOSE


def asked(**options):
    return {"limit": LIMIT, "return_metadata": MetadataQuery(distance=True), **options}


def test_the_import_made_the_vectors_that_a_local_model_makes(qdrant_client, weaviate_shop, photos, rest):
    expected = rest.embed_images(photos[:5])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    stored = sorted(qdrant_client.retrieve(NAME, range(5), with_vectors=True), key=lambda each: each.id)
    assert np.allclose([each.vector for each in stored], expected, atol=CLOSE)
    assert qdrant_client.count(NAME, exact=True).count == COUNT
    found = {each.properties["number"]: each.vector["default"] for each in weaviate_shop.iterator(include_vector=True)}
    assert len(found) == COUNT
    assert np.allclose([found[i] for i in range(5)], expected, atol=CLOSE)


def test_a_text_ranks_the_same_everywhere(qdrant_client, grpc_client, weaviate_shop, rest):
    text = "a red dress"
    truth = by_qdrant(qdrant_client, rest.embed_texts([text])[0].tolist())
    assert_same_ranking(by_qdrant(qdrant_client, models.Document(text=text, model="tiny")), truth)
    assert_same_ranking(by_qdrant(grpc_client, models.Document(text=text, model="tiny")), truth)
    assert_same_ranking(by_weaviate(weaviate_shop.query.near_text(text, **asked())), truth)


def test_a_picture_ranks_the_same_everywhere(qdrant_client, grpc_client, weaviate_shop, rest, outside):
    image = base64_of(outside)
    truth = by_qdrant(qdrant_client, rest.embed_images([outside])[0].tolist())
    assert_same_ranking(by_qdrant(qdrant_client, models.Image(image=image, model="tiny")), truth)
    assert_same_ranking(by_qdrant(grpc_client, models.Image(image=image, model="tiny")), truth)
    assert_same_ranking(by_weaviate(weaviate_shop.query.near_image(image, **asked())), truth)


COMPOSED = [
    {"text": "is red and has long sleeves"},
    {"text": "is blue", "negative_text": "with stripes", "composer": "lincir"},
    {"text": "is green", "composer": "sum", "options": {"weights": {"image": 0.3, "text": 0.7}}},
]


@pytest.mark.parametrize("parts", COMPOSED, ids=["default", "negative", "sum"])
def test_a_composed_query_ranks_the_same_everywhere(parts, qdrant_client, grpc_client, weaviate_shop, rest, outside):
    vector = rest.compose([{"image": outside, **parts}]).vectors[0].tolist()
    truth = by_qdrant(qdrant_client, vector)
    for client in (qdrant_client, grpc_client):
        assert_same_ranking(
            by_qdrant(client, cir_vectorizer_qdrant.composed(image=outside, model="tiny", **parts)), truth
        )
    concept = cir_vectorizer_weaviate.composed(image=outside, **parts)
    assert_same_ranking(by_weaviate(weaviate_shop.query.near_text(concept, **asked())), truth)
    assert_same_ranking(by_weaviate(weaviate_shop.query.near_vector(vector, **asked())), truth)


def test_an_object_of_the_collection_is_a_reference_by_its_id(qdrant_client, weaviate_shop, rest, photos):
    vector = rest.embed_images([photos[7]])[0]
    reference = {"vector": vector / np.linalg.norm(vector)}
    truth = by_qdrant(qdrant_client, rest.compose([{"image": reference, "text": "is red"}]).vectors[0].tolist())
    query = cir_vectorizer_qdrant.composed(
        image_id=7, client=qdrant_client, collection=NAME, text="is red", model="tiny"
    )
    assert_same_ranking(by_qdrant(qdrant_client, query), truth)
    uuid = next(each.uuid for each in weaviate_shop.iterator() if each.properties["number"] == 7)
    concept = cir_vectorizer_weaviate.composed(image_id=uuid, collection=weaviate_shop, text="is red")
    assert_same_ranking(by_weaviate(weaviate_shop.query.near_text(concept, **asked())), truth)


def test_a_hybrid_search_takes_words_and_a_composed_query(weaviate_shop, outside):
    concept = cir_vectorizer_weaviate.composed(image=outside, text="is red")
    vector = HybridVector.near_text(concept)
    found = weaviate_shop.query.hybrid("dress", vector=vector, alpha=1, limit=LIMIT)
    alone = weaviate_shop.query.near_text(concept, limit=LIMIT)
    assert [each.uuid for each in found.objects] == [each.uuid for each in alone.objects]


WRONG = {"image": base64_of(drawn(3)), "colour": "red"}
SENTENCE = "colour: is not a field"


def test_a_wrong_field_comes_back_as_our_sentence(qdrant_client, grpc_client, weaviate_shop):
    wrong = models.InferenceObject(object=WRONG, model="lincir")
    with pytest.raises(UnexpectedResponse, match=SENTENCE):
        by_qdrant(qdrant_client, wrong)
    with pytest.raises(Exception, match=SENTENCE) as caught:
        by_qdrant(grpc_client, wrong)
    assert "inputs[0]" in str(caught.value)
    with pytest.raises(WeaviateQueryError, match=SENTENCE):
        weaviate_shop.query.near_text('{"image": "iVBORw0KGgo=", "colour": "red"}')


def test_a_bad_picture_is_refused_alone_by_weaviate(weaviate_shop, outside):
    with weaviate_shop.batch.fixed_size(batch_size=10) as batch:
        uuid = batch.add_object({"photo": base64_of(outside), "number": -1})
        batch.add_object({"photo": base64_of(b"no picture at all"), "number": -2})
    (failed,) = weaviate_shop.batch.failed_objects
    assert "images[0]" in failed.message
    weaviate_shop.data.delete_by_id(uuid)


def test_qdrant_orders_a_batch_as_it_likes_and_the_bad_picture_is_found_by_its_digest(
    qdrant_client, grpc_client, outside
):
    bad = b"no picture at all"
    images = [outside, bad, *map(drawn, range(8))]
    points = [
        models.PointStruct(id=COUNT + i, vector=models.Image(image=base64_of(image), model="tiny"))
        for i, image in enumerate(images)
    ]
    name = rf"inputs\[\d\] \(model \W+tiny\W+: picture sha256 {hashlib.sha256(bad).hexdigest()[:12]} "
    for client in (qdrant_client, grpc_client):
        with pytest.raises(Exception, match=name) as caught:
            client.upsert(NAME, points, wait=True)
        assert cir_vectorizer_qdrant.refused_points(caught.value, points) == [COUNT + 1]


def test_another_backbone_is_refused_with_both_names(qdrant_client, outside):
    query = cir_vectorizer_qdrant.composed(image=outside, text="is red", model="tiny@0123456789ab")
    with pytest.raises(UnexpectedResponse, match=r"tiny@0123456789ab.*tiny@"):
        by_qdrant(qdrant_client, query)


def test_a_wrong_key_in_the_address_is_refused_by_both(service, weaviate_db, tmp_path, outside):
    with qdrant(tmp_path, f"{service.with_key('wrong')}/qdrant") as server:
        client = connect(server)
        client.create_collection(NAME, vectors_config=models.VectorParams(size=128, distance=models.Distance.COSINE))
        with pytest.raises(UnexpectedResponse, match="no valid key"):
            client.query_points(NAME, query=models.Document(text="red", model="tiny"))
        client.close()
    shop = make_collection(weaviate_db, f"{NAME}Wrong", inference_url=f"{service.with_key('wrong')}/m/tiny")
    with pytest.raises(WeaviateQueryError, match="no valid key") as searched:
        shop.query.near_text("red")
    with pytest.raises(UnexpectedStatusCodeError, match="no valid key") as inserted:
        shop.data.insert({"photo": base64_of(outside)})
    assert not any("wrong@" in str(each.value) or ":wrong" in str(each.value) for each in (searched, inserted))
    weaviate_db.collections.delete(f"{NAME}Wrong")


def test_a_key_of_one_application_travels_in_a_header_through_qdrant(service, tmp_path):
    with qdrant(tmp_path, f"{service.url}/qdrant") as server:
        client = connect(server, headers={"cir-api-key": KEY})
        client.create_collection(NAME, vectors_config=models.VectorParams(size=128, distance=models.Distance.COSINE))
        assert client.query_points(NAME, query=models.Document(text="red", model="tiny")).points == []
        client.close()


def test_on_the_plain_path_a_text_that_looks_composed_is_a_text(service, weaviate_db):
    index = Configure.VectorIndex.flat(distance_metric=VectorDistances.COSINE)
    shop = weaviate_db.collections.create(
        f"{NAME}Plain",
        properties=[Property(name="words", data_type=DataType.TEXT)],
        vector_config=Configure.Vectors.multi2vec_clip(
            text_fields=["words"], vector_index_config=index, inference_url=f"{service.with_key(KEY)}/m/tiny/plain"
        ),
    )
    shop.data.insert({"words": '{"image": "not a picture", "colour": "red"}'})
    assert len(shop.query.near_text('{"image": "neither"}').objects) == 1
    weaviate_db.collections.delete(f"{NAME}Plain")


def test_weaviate_shows_what_the_container_says_of_itself(weaviate_db):
    meta = weaviate_db.get_meta()["modules"]["multi2vec-clip"]
    assert (meta["model"], meta["dim"]) == ("tiny", 128)
