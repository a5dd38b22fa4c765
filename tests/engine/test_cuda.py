"""Models on a GPU: the same vectors as on the CPU, in the service too, and training that runs there."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.models import Vectorizer, load
from tests.support.serving import drawn, serving
from tests.support.serving import tiny as on_cpu
from tests.training.test_train_compodiff import drawn_shop, train_on  # noqa: F401
from tests.training.test_train_edits import edits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

TEXTS = ["red", "a dress with long sleeves", "", "blue and striped, " * 30, "rotes Kleid", "赤いドレス"]
QUERIES = [
    {"image": drawn(1), "text": "is red"},
    {"image": [drawn(2), drawn(3)], "text": "with stripes", "negative_text": ["dots", "blue"]},
    {"image": drawn(4), "text": "is red", "composer": "sum"},
    {"image": drawn(5), "text": "is green", "composer": "compodiff", "options": {"seed": 3}},
    {"image": drawn(6), "text": "x", "negative_text": "red", "mask": [0, 0, 1, 0.5], "composer": "compodiff"},
    {"image": drawn(7)},
    {"text": "a red shirt"},
]


def cosines(one, other) -> np.ndarray:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (64 + i, 90, 3), dtype=np.uint8)) for i in range(count)]


@pytest.fixture(
    scope="module", params=[(torch.float32, 0.99999), (torch.float16, 0.999), (torch.bfloat16, 0.99)], ids=str
)
def on_gpu(request) -> tuple[Vectorizer, float]:
    """The packaged model on the GPU in each precision, and the least cosine to the CPU's vectors."""
    dtype, least = request.param
    return load("tiny", "cuda", dtype), least


def test_pictures_and_texts_have_the_vectors_of_the_cpu(on_gpu):
    model, least = on_gpu
    assert cosines(model.embed_images(pictures(33)), on_cpu().embed_images(pictures(33))).min() >= least
    assert cosines(model.embed_texts(TEXTS), on_cpu().embed_texts(TEXTS)).min() >= least
    assert model.fingerprint == on_cpu().fingerprint


def test_composed_queries_have_the_vectors_of_the_cpu(on_gpu):
    model, least = on_gpu
    assert cosines(model.compose(QUERIES).vectors, on_cpu().compose(QUERIES).vectors).min() >= least


def test_the_service_answers_many_clients_with_the_vectors_of_the_cpu():
    queries = QUERIES * 40
    expected = on_cpu().compose(QUERIES).vectors
    with serving(vectorizers={"tiny": load("tiny", "cuda")}) as service, ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(lambda query: service.post("/v1/compose", {"queries": [query]}), queries))
        assert {answer.status_code for answer in answers} == {200}
        vectors = [answer.json()["vectors"][0] for answer in answers]
    assert cosines(vectors, np.tile(expected, (40, 1))).min() >= 0.99999


def test_lincir_and_edits_train_there_and_load_on_the_cpu(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join({each.reference for each in edits()}))
    (tmp_path / "edits.csv").write_text(
        "\n".join(["reference,words,target", *(f"{each.reference},{each.words},{each.target}" for each in edits())])
    )
    for out, more in (
        ("plain", ("--objective", "lincir", "--captions", tmp_path / "captions.txt", "--from-scratch")),
        ("edits", ("--objective", "edits", "--edits", tmp_path / "edits.csv")),
    ):
        arguments = ("train", *more, "--out", tmp_path / out, "--steps", 12, "--batch-size", 32, "--device", "cuda")
        trained = CliRunner().invoke(main, [*map(str, arguments)])
        assert trained.exit_code == 0, trained.output
        query = {"image": drawn(1), "text": "is red"}
        there, here = (load(str(tmp_path / out), device).compose([query]).vectors for device in ("cuda", "cpu"))
        assert cosines(there, here).min() >= 0.99999


def test_compodiff_trains_there_and_loads_on_the_cpu(drawn_shop, tmp_path):  # noqa: F811
    trained = train_on(drawn_shop, tmp_path / "out", "--steps", 12, "--device", "cuda")
    assert trained.exit_code == 0, trained.output
    query = {"image": drawn(1), "text": "is red", "composer": "compodiff", "options": {"seed": 1}}
    there, here = (load(str(tmp_path / "out"), device).compose([query]).vectors for device in ("cuda", "cpu"))
    assert cosines(there, here).min() >= 0.99999


def test_sync_encodes_there(drawn_shop, tmp_path):  # noqa: F811
    arguments = ("sync", drawn_shop / "shop.csv", "--to", f"qdrant:{tmp_path}/index/shop", "--model", "tiny")
    done = CliRunner().invoke(main, [*map(str, arguments), "--device", "cuda", "--image-column", "image"])
    assert done.exit_code == 0, done.output
    assert "added 40" in done.output
