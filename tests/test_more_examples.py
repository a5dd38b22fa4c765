"""Examples that are no single Python search run as they say: conversation, copy, shell, TypeScript and notebook."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import weaviate
from qdrant_client import QdrantClient, models
from weaviate.classes.config import Configure, DataType, Property

import cir_vectorizer
from cir_vectorizer.collections import Ask
from examples.demo.catalog import catalog, draw
from tests.support.indexing import run
from tests.support.servers import KEY, base64_of, drawn, our_service

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAME = f"CirMoreExamples{os.getpid()}"
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def dress(tmp_path):
    path = tmp_path / "dress.png"
    path.write_bytes(drawn(5))
    return path


def said(*command, folder=None, words=None, **variables):
    """Run a command and return its output."""
    done = subprocess.run(
        [str(part) for part in command], input=words, capture_output=True, text=True, cwd=folder,
        env={**ENVIRONMENT, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_conversation_refines_goes_back_and_forgives_a_slip(photos, shop, tiny):
    run(photos, shop, tiny)
    shop.close()
    words = "2 is blue\n1 not striped\nback\n9 in red\n\n"
    printed = said(
        sys.executable, EXAMPLES / "refine_in_steps.py", "--in", shop.address, "--model", "tiny", "--text", "a red boot",
        "--column", "path", "--limit", 3, words=words,
    )  # fmt: skip
    assert printed.count("then:") == 5
    assert "say the number of a result" in printed
    lists = [block.strip().splitlines()[:3] for block in printed.split("then:")[:-1]]
    first, refined, avoided, back = lists[:4]
    assert first != refined != avoided
    assert back == refined


@pytest.mark.live
def test_a_collection_of_ones_own_vectors_gets_the_module_without_encoding(weaviate_server, tiny, dress):
    server, copied = weaviate_server, f"{NAME}Copied"
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        own = client.collections.create(
            NAME,
            properties=[
                Property(name="photo", data_type=DataType.BLOB),
                Property(name="title", data_type=DataType.TEXT),
            ],
            vector_config=Configure.Vectors.self_provided(),
        )
        pictures = [drawn(i) for i in range(8)]
        vectors = tiny.embed_images(pictures)
        for i, picture in enumerate(pictures):
            own.data.insert({"photo": base64_of(picture), "title": f"product {i}"}, vector=vectors[i].tolist())
        place = ("--host", server.host, "--port", server.port, "--grpc-port", server.grpc_port)
        arguments = ("--collection", NAME, "--into", copied, "--image-property", "photo")
        assert "8 objects copied" in said(
            sys.executable, EXAMPLES / "weaviate_existing_deployment.py", *place, *arguments
        )
        target = client.collections.get(copied)
        for before in own.iterator(include_vector=True):
            after = target.query.fetch_object_by_id(before.uuid, include_vector=True)
            assert after.properties["title"] == before.properties["title"]
            assert after.vector["default"] == pytest.approx(before.vector["default"], abs=1e-6)
        composed = json.dumps({"image": base64_of(dress.read_bytes()), "text": "is red"})
        found = target.query.near_text(composed, limit=8, return_properties=["title"])
        client.collections.delete([NAME, copied])
    expected = vectors @ tiny.compose([{"image": dress, "text": "is red"}]).vectors[0]
    expected /= (vectors**2).sum(1) ** 0.5
    assert found.objects[0].properties["title"] == f"product {expected.argmax()}"


def test_curl_sends_a_picture_and_quoted_words(photos, shop, tiny, dress, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    run(photos, shop, tiny)
    found = shop.search(tiny.compose([{"image": dress, "text": 'is "red"'}]).vectors[0], Ask(5))
    shop.close()
    with our_service(tmp_path, "--collection", str(shop.address), key=f"test:{KEY}") as server:
        printed = said(EXAMPLES / "curl.sh", dress, 'is "red"', CIR_URL=server.url, CIR_API_KEY=KEY)
    assert [str(hit["id"]) for hit in json.loads(printed)["hits"]] == [str(hit.id) for hit in found]


@pytest.fixture(scope="module")
def typescript(tmp_path_factory):
    """The examples in TypeScript, checked and built."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH")
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(
        EXAMPLES / "typescript", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "out")
    )
    installed = subprocess.run(
        ["npm", "install", "--no-package-lock", "--no-audit", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        timeout=300,
    )
    if installed.returncode:
        pytest.skip("npm cannot fetch the packages here")
    said("npm", "run", "build", folder=folder)
    return folder / "out"


def ids(printed):
    return [line.split()[1] for line in printed.splitlines()]


@pytest.mark.slow
def test_typescript_by_rest(typescript, photos, shop, tiny, dress, tmp_path):
    run(photos, shop, tiny)
    found = shop.search(tiny.compose([{"image": dress, "text": "is red"}]).vectors[0], Ask(5))
    shop.close()
    with our_service(tmp_path, "--collection", str(shop.address), key=f"test:{KEY}") as server:
        printed = said("node", typescript / "rest.js", dress, "is red", CIR_URL=server.url, CIR_API_KEY=KEY)
    assert ids(printed) == [str(hit.id) for hit in found]


@pytest.mark.live
@pytest.mark.slow
def test_typescript_by_qdrants_client(typescript, qdrant_server, dress):
    client = QdrantClient(url=qdrant_server.url, cloud_inference=True, check_compatibility=False)
    client.create_collection(NAME, vectors_config=models.VectorParams(size=128, distance=models.Distance.COSINE))
    image = {i: models.Image(image=base64_of(drawn(i)), model="tiny") for i in range(8)}
    client.upsert(NAME, [models.PointStruct(id=i, vector=vector) for i, vector in image.items()], wait=True)
    asked = models.InferenceObject(object={"image": base64_of(dress.read_bytes()), "text": "is red"}, model="lincir")
    found = client.query_points(NAME, query=asked, limit=5).points
    printed = said("node", typescript / "qdrant.js", NAME, dress, "is red", QDRANT_URL=qdrant_server.url)
    client.delete_collection(NAME)
    assert ids(printed) == [str(point.id) for point in found]


@pytest.mark.live
@pytest.mark.slow
def test_typescript_by_weaviates_client(typescript, weaviate_server, dress):
    server, name = weaviate_server, f"{NAME}Ts"
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        shop = client.collections.create(
            name,
            properties=[Property(name="photo", data_type=DataType.BLOB)],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"]),
        )
        for i in range(8):
            shop.data.insert({"photo": base64_of(drawn(i))})
        query = json.dumps({"image": base64_of(dress.read_bytes()), "text": "is red"})
        found = shop.query.near_text(query, limit=5).objects
        place = {
            "WEAVIATE_HOST": server.host,
            "WEAVIATE_PORT": str(server.port),
            "WEAVIATE_GRPC_PORT": str(server.grpc_port),
        }
        printed = said("node", typescript / "weaviate.js", name, dress, "is red", **place)
        client.collections.delete(name)
    assert ids(printed) == [str(each.uuid) for each in found]


@pytest.mark.slow
def test_tuning_on_captions_writes_both_reports(tmp_path):
    products = catalog(400, seed=1)
    (tmp_path / "photos").mkdir()
    with (tmp_path / "products.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "file", "colour", "category"])
        for i, product in enumerate(products):
            draw(product, random.Random(i)).save(tmp_path / f"photos/{i}.jpg")
            table.writerow([i, f"photos/{i}.jpg", product.colour, product.category])
    captions = sorted({f"a {product.colour} {product.category}" for product in products})
    (tmp_path / "catalog.txt").write_text("\n".join(captions))
    said(
        "cir-vectorizer",
        "sync",
        "products.csv",
        "--to",
        "qdrant:index/shop",
        "--model",
        "tiny",
        "--id-column",
        "id",
        folder=tmp_path,
    )
    said(EXAMPLES / "tune_on_captions.sh", "catalog.txt", "qdrant:index/shop", "tiny", "4", folder=tmp_path)
    assert (tmp_path / "report-before/report.html").is_file()
    assert (tmp_path / "report-after/report.html").is_file()
    assert cir_vectorizer.load(str(tmp_path / "tuned-model")).default_composer == "lincir"


@pytest.mark.slow
def test_the_notebook_runs(capfd):
    notebook = json.loads((EXAMPLES / "composed_search.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "composed_search.ipynb", "exec"), names)
    assert "R@10" in capfd.readouterr().out
    assert (names["folder"] / "report/report.html").is_file()
