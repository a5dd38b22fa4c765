"""Commands against real servers print none of Python's warnings: no file or connection stays open."""

import csv
import gzip
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with two pictures, tables of them, and a list of captions."""
    folder = tmp_path_factory.mktemp("shop")
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / name)
    with (folder / "shop.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "price"], ["a.jpg", "1.5"], ["b.jpg", "n/a"]])
    (folder / "shop.csv.gz").write_bytes(gzip.compress((folder / "shop.csv").read_bytes()))
    (folder / "shop.jsonl").write_text('{"image": "a.jpg"}\n{"image": "b.jpg"}\n')
    return folder


@pytest.mark.parametrize("database", ["weaviate", "qdrant", "qdrant embedded"])
def test_no_command_prints_a_warning_of_python(request, shop, database, tmp_path):
    name = database.split()[0]
    place, more = f"qdrant:{tmp_path}/index/shop", []
    if database == name:
        server = request.getfixturevalue(f"{name}_server")
        place, more = f"{name}://{server.host}:{server.port}/CirQuiet", ["--grpc-port", str(server.grpc_port)]
    commands = [
        ["sync", "shop.csv", "--to", place],
        ["sync", "shop.csv.gz", "--to", place, "--dry-run"],
        ["sync", "shop.jsonl", "--to", place, "--prune"],
        ["sync", ".", "--to", place],
        ["search", "--in", place, "--image", "a.jpg", "--text", "is blue", "--json"],
        ["doctor", "--to", place],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-W", "default", "-m", "cir_vectorizer.cli", *command, "--model", "tiny", *more],
            cwd=shop,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        assert "Warning" not in done.stdout
