"""Pictures of collections that another program made: on the page, and in sheets; options of `serve` for one collection."""

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.cli.serve import _collections
from cir_vectorizer.collections import OpenOptions, open_collection
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.service.settings import Settings
from tests.support.serving import serving, tiny

RED, BLUE = (208, 32, 38), (44, 96, 214)
URL = "https://pictures.shop.example/red.png?size=full"


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """Address of a collection of three objects: a URL, a path, and a path to no picture."""
    for name, colour in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "secret.txt").write_text("a password")
    places = [URL, str(tmp_path / "blue.png"), str(tmp_path / "secret.txt")]
    client = QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("shop", models.VectorParams(size=tiny().dim, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).normal(size=(3, tiny().dim))
    points = [
        models.PointStruct(id=i, vector=vector.tolist(), payload={"photo": place, "sku": f"A-{i}"})
        for i, (vector, place) in enumerate(zip(vectors, places, strict=True))
    ]
    client.upsert("shop", points)
    client.close()
    return f"qdrant:{tmp_path}/index/shop"


def fetcher(tmp_path: Path) -> Fetcher:
    """Return a guarded fetcher whose network is this folder."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream((tmp_path / Path(request.url.path).name).read_bytes()))

    return Fetcher(resolve=resolve, transport=httpx.MockTransport(answer))


def colour_of(content: bytes) -> tuple[int, ...]:
    return Image.open(BytesIO(content)).convert("RGB").getpixel((5, 5))  # type: ignore[return-value]


def hits(running: Any) -> dict[int, dict[str, Any]]:
    answer = running.post("/v1/search", {"query": {"text": "a hat"}})
    assert answer.status_code == 200, answer.text
    return {hit["id"]: hit for hit in answer.json()["hits"]}


def test_the_page_shows_what_the_operators_column_names(foreign, tmp_path):
    opened = open_collection(foreign, options=OpenOptions(picture_column="photo"))
    with serving(fetcher=fetcher(tmp_path), collections={"shop": [opened]}) as running:
        found = hits(running)
        assert [found[i]["name"] for i in range(3)] == ["red.png", "blue.png", "secret.txt"]
        for i, colour in enumerate((RED, BLUE)):
            answer = running.client.get(found[i]["thumbnail"])
            assert answer.status_code == 200, answer.text
            assert np.abs(np.subtract(colour_of(answer.content), colour)).max() < 12
            again = running.client.get(found[i]["thumbnail"], headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        wrong = running.client.get(found[2]["thumbnail"])
        assert wrong.status_code == 404
        assert "password" not in wrong.text
        assert "no picture" in wrong.json()["error"]


def test_urls_are_fetched_by_the_guarded_fetcher_alone(foreign):
    opened = open_collection(foreign, options=OpenOptions(picture_column="photo"))
    with serving(collections={"shop": [opened]}) as running:
        answer = running.client.get(hits(running)[0]["thumbnail"])
        assert answer.status_code == 404
        assert "--allow-urls" in answer.json()["error"]


def test_a_noted_column_shows_urls_but_reads_no_file(foreign, tmp_path):
    opened = open_collection(foreign)
    opened.adopt(_record(), "photo")
    with serving(fetcher=fetcher(tmp_path), collections={"shop": [opened]}) as running:
        found = hits(running)
        assert colour_of(running.client.get(found[0]["thumbnail"]).content)[0] > 190
        assert found[1]["thumbnail"] is None
        answer = running.client.get("/v1/objects/1/thumbnail")
        assert answer.status_code == 404


def test_without_a_column_there_is_no_thumbnail_but_a_remedy(foreign):
    with serving(collections={"shop": [open_collection(foreign)]}) as running:
        assert hits(running)[0]["thumbnail"] is None
        assert "--picture-column" in running.client.get("/v1/objects/1/thumbnail").json()["error"]


def test_a_sheet_shows_them(foreign, tmp_path):
    def reference(*arguments: str) -> tuple[int, ...]:
        """Return the colour of the reference picture in a sheet."""
        out = tmp_path / "sheet.html"
        command = ["search", "--in", foreign, "--id", "1", "--text", "red", "--sheet", str(out), *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        found = re.search(r"base64,([^\"]+)", out.read_text())
        assert found is not None
        return Image.open(BytesIO(base64.b64decode(found[1]))).convert("RGB").getpixel((100, 100))  # type: ignore[return-value]

    assert np.abs(np.subtract(reference("--picture-column", "photo"), BLUE)).max() < 12
    assert np.abs(np.subtract(reference(), (221, 221, 221))).max() < 12


def test_collections_have_options_of_their_own(monkeypatch):
    monkeypatch.setenv(
        "CIR_COLLECTION",
        "one=qdrant://h/shop?using=image&grpc=true&grpc_port=7000 weaviate://h/Shop?tenant=a%20b&picture_column=x/y qdrant:./a?b/c",
    )
    opened = _collections(Settings(using="other"))
    options = {name: each[0].options for name, each in opened.items()}
    assert options == {
        "one": OpenOptions(using="image", grpc=True, grpc_port=7000),
        "Shop": OpenOptions(using="other", tenant="a b", picture_column="x/y"),
        "c": OpenOptions(using="other"),
    }


@pytest.mark.parametrize("wrong", ["grpc_port=x", "grpc_port=70000", "colour=red", "using=", "grpc=1"])
def test_a_wrong_option_is_named(wrong):
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--collection", f"qdrant://key@h/shop?{wrong}"])
    assert result.exit_code == 1
    assert f"is followed by {wrong}" in result.output
    assert "key@" not in result.output


def _record() -> Any:
    from cir_vectorizer.collections import ModelRecord

    return ModelRecord.of(tiny())
