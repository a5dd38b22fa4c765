"""The examples run as their docstrings say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import weaviate
from qdrant_client import QdrantClient, models
from weaviate.classes.config import Configure, DataType, Property

from cir_vectorizer.collections import Ask
from tests.support.indexing import run
from tests.support.servers import KEY, base64_of, drawn

NAME = f"CirExample{os.getpid()}"
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def dress(tmp_path):
    path = tmp_path / "dress.png"
    path.write_bytes(drawn(5))
    return path


def example(name, *arguments):
    """Run an example and return the lines it prints: a score and an id each."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_rest_and_a_plain_vector_search(service, photos, shop, tiny, dress):
    run(photos, shop, tiny)
    found = shop.search(tiny.compose([{"image": dress, "text": "is red"}]).vectors[0], Ask(5))
    shop.close()
    printed = example(
        "rest_composed_search.py",
        *("--service", service.url, "--api-key", KEY, "--in", shop.address, "--image", dress, "--text", "is red"),
    )
    assert [id_ for _, id_ in printed] == [hit.id for hit in found]


@pytest.mark.live
def test_qdrant(qdrant_server, dress):
    client = QdrantClient(url=qdrant_server.url, cloud_inference=True, check_compatibility=False)
    client.create_collection(NAME, vectors_config=models.VectorParams(size=128, distance=models.Distance.COSINE))
    image = {i: models.Image(image=base64_of(drawn(i)), model="tiny") for i in range(8)}
    client.upsert(NAME, [models.PointStruct(id=i, vector=vector) for i, vector in image.items()], wait=True)
    url = ("--url", qdrant_server.url, "--collection", NAME, "--text", "is red")
    by_file = example("qdrant_composed_search.py", *url, "--image", dress)
    by_id = example("qdrant_composed_search.py", *url, "--like", 5)
    without = example("qdrant_composed_search.py", *url, "--image", dress, "--unwanted", "lace", "--limit", 8)
    client.delete_collection(NAME)
    assert len(by_file) == len(by_id) == 5
    assert by_file[0][1] == by_id[0][1]
    assert len(without) == 8
    assert without[0][0] != by_file[0][0]


@pytest.mark.live
def test_weaviate(weaviate_server, dress):
    server = weaviate_server
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        shop = client.collections.create(
            NAME,
            properties=[Property(name="photo", data_type=DataType.BLOB)],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"]),
        )
        uuids = [str(shop.data.insert({"photo": base64_of(drawn(i))})) for i in range(8)]
        place = ("--host", server.host, "--port", server.port, "--grpc-port", server.grpc_port)
        asked = (*place, "--collection", NAME, "--text", "is red")
        by_file = example("weaviate_composed_search.py", *asked, "--image", dress)
        by_id = example("weaviate_composed_search.py", *asked, "--like", uuids[5])
        client.collections.delete(NAME)
    assert len(by_file) == len(by_id) == 5
    assert by_file[0][1] == by_id[0][1]
