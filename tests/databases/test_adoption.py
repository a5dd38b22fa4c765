"""Collections that another program filled: `doctor --adopt` verifies and notes the model, and sync keeps them in step."""

import csv
import functools
import json
import threading
from datetime import datetime, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.collections import SyncRecord
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.sources.picture_column import guess_columns
from tests.support.databases import ONE_OF_EACH, every, uid
from tests.support.servers import pictures

pytest_plugins = ["tests.support.databases", "tests.support.servers"]

MANY = 100
"""Photos in the collections of the servers."""


class Shop:
    """A folder of pictures, served over HTTP, and the collection that a program of the shop's own made of it."""

    def __init__(self, folder, database, count, url):
        self.folder, self.database, self.count, self.url = folder, database, count, url
        for i, picture in enumerate(pictures(count + 1)):
            (folder / f"{i:03}.jpg").write_bytes(picture)
        address = database.open("Foreign").address
        self.collection = f"{address}"
        self.name = address.collection

    def place(self, i, by_url=True):
        return f"{self.url}/{i:03}.jpg" if by_url else str(self.folder / f"{i:03}.jpg")

    def vectors(self, model, change=lambda picture: picture):
        read = [change(open_image((self.folder / f"{i:03}.jpg").read_bytes())) for i in range(self.count)]
        made = model.embed_images(read)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def columns(self, i, by_url=True):
        return {"sku": f"A-{i}", "price": 10 + i, "imageUrl": self.place(i, by_url), "page": f"{self.url}/shop/{i}"}

    def fill(self, vectors, by_url=True, distance="cosine"):
        """Write the collection with the database's own client."""
        write = _with_weaviate if self.database.kind == "weaviate" else _with_qdrant
        return write(self, vectors, [self.columns(i, by_url) for i in range(self.count)], distance)

    def run(self, *arguments):
        server = self.database.server
        more = ["--grpc-port", str(server.grpc_port)] if server else []
        return CliRunner().invoke(main, [*map(str, arguments), *more])

    def doctor(self, *arguments):
        """Run doctor; return its findings by check."""
        result = self.run("doctor", "--to", self.collection, "--private-urls", "--json", *arguments)
        assert result.stdout.startswith("{"), result.output
        return {each["check"]: each for each in json.loads(result.stdout)["findings"]}

    def sync(self, source, *arguments):
        report = self.folder / "report.json"
        arguments = ["sync", source, "--to", self.collection, "--private-urls", "--report", report, *arguments]
        result = self.run(*arguments)
        assert result.exit_code in (0, 3), result.output
        return json.loads(report.read_text()), result.output

    def table(self, prices):
        """Write a table of the first pictures by their URLs, with prices."""
        file = self.folder / "catalog.csv"
        with file.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["code", "image_url", "price", "colour"])
            for i, price in enumerate(prices):
                rows.writerow([f"B-{i}", self.place(i), price, "red"])
        return file

    def open(self, **options):
        return self.database.again(self.database.opened[0], **options)


def _with_qdrant(shop, vectors, columns, distance):
    database = shop.database
    where = {"path": str(database.folder / "index")} if database.embedded else {"url": database.server.url}
    client = QdrantClient(**where, check_compatibility=False)
    kind = models.Distance.COSINE if distance == "cosine" else models.Distance.DOT
    config = {"image": models.VectorParams(size=vectors.shape[1], distance=kind)}
    if shop.count > 50:  # beside a vector of another kind, which must stay
        config["words"] = models.VectorParams(size=3, distance=kind)
    client.create_collection(shop.name, vectors_config=config if len(config) > 1 else config["image"])
    points = []
    for i, (vector, row) in enumerate(zip(vectors, columns, strict=True)):
        numbers = vector.tolist()
        made = {"image": numbers, "words": [0.0, 0.6, 0.8]} if len(config) > 1 else numbers
        points.append(models.PointStruct(id=i, vector=made, payload=row))
    client.upsert(shop.name, points, wait=True)
    client.close()
    return list(range(len(points)))


def _with_weaviate(shop, vectors, columns, distance):
    import weaviate
    from weaviate.classes.config import Configure, DataType, Property, VectorDistances
    from weaviate.classes.data import DataObject

    server = shop.database.server
    kind = VectorDistances.COSINE if distance == "cosine" else VectorDistances.DOT
    types = {"sku": DataType.TEXT, "price": DataType.INT, "imageUrl": DataType.TEXT, "page": DataType.TEXT}
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port, skip_init_checks=True) as client:
        made = client.collections.create(
            shop.name,
            properties=[
                *(Property(name=name, data_type=each) for name, each in types.items()),
                Property(name="added", data_type=DataType.DATE),
            ],
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.hnsw(distance_metric=kind)
            ),
        )
        day = datetime(2024, 5, 1, tzinfo=timezone.utc)
        answer = made.data.insert_many(
            [
                DataObject(properties={**row, "added": day}, uuid=uid(i), vector=vector.tolist())
                for i, (vector, row) in enumerate(zip(vectors, columns, strict=True))
            ]
        )
        assert not answer.errors
    return [uid(i) for i in range(len(columns))]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def shop(tmp_path, database):
    """A shop of few pictures if the database is embedded, of `MANY` on a server."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    count = 12 if database.embedded else MANY
    yield Shop(folder, database, count, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


embedded = every(ONE_OF_EACH[:1])


@every(ONE_OF_EACH)
def test_a_collection_of_another_program_is_verified_noted_searched_and_kept_in_step(shop, tiny):
    ids = shop.fill(shop.vectors(tiny))
    using = ["--using", "image"] if shop.count > 50 and shop.database.kind == "qdrant" else []
    catalog = shop.table([50.5] * shop.count)
    refused = shop.run("sync", catalog, "--to", shop.collection, *using)
    assert refused.exit_code == 1
    assert "doctor --adopt" in refused.output
    assert shop.doctor(*using)["backbone"]["level"] == "warning"

    found = shop.doctor("--adopt", *using)
    assert found["adoption"]["level"] == found["backbone"]["level"] == "ok", found
    pictures_seen = min(20, shop.count)
    assert f"{pictures_seen} pictures of column 'imageUrl'" in found["adoption"]["sentence"]
    assert "already" in shop.doctor("--adopt", *using)["adoption"]["sentence"]
    with_using = {"using": "image"} if using else {}
    collection = shop.open(**with_using)
    info = collection.info()
    assert (info.model, info.fingerprint, info.picture_column) == ("tiny", tiny.fingerprint, "imageUrl")
    before = {str(point.id): point for point in collection.get(ids)}
    assert before[str(ids[3])].payload["sku"] == "A-3"
    collection.close()

    by_mean = best(shop, tiny, ids[3], with_using)

    said = shop.run(
        "sync", catalog, "--to", shop.collection, "--private-urls", *using, "--dry-run", "--take-over"
    ).output
    assert f"changed {shop.count}," in said, said
    report, said = shop.sync(catalog, *using, "--take-over")
    assert (report["added"], report["changed"], report["encoded"]) == (0, shop.count, shop.count)
    assert f"{shop.count} objects of another source now belong to this one" in said
    assert "need collections of their own" not in said
    collection = shop.open(**with_using)
    assert collection.count() == shop.count
    norms = np.linalg.norm(tiny.embed_images([open_image(shop.folder / "003.jpg")]), axis=1)
    after = {str(point.id): point for point in collection.get(ids)}
    assert set(after) == set(before)
    point = after[str(ids[3])]
    assert SyncRecord.read(point.payload).norm == pytest.approx(norms[0], rel=1e-4)
    expected = {**before[str(ids[3])].payload, "code": "B-3", "price": 50.5, "colour": "red"}
    assert {key: value for key, value in point.payload.items() if key != "_cir"} == expected
    np.testing.assert_allclose(point.vector, before[str(ids[3])].vector, atol=1e-3)
    collection.close()
    if using:
        other = shop.open(using="words")
        np.testing.assert_allclose(other.get([3])[0].vector, [0, 0.6, 0.8], atol=1e-5)
        other.close()

    # composed by id: as if the picture itself were given
    by_id = best(shop, tiny, ids[3], with_using)
    by_picture = best(shop, tiny, None, with_using, shop.folder / "003.jpg")
    assert by_id == pytest.approx(by_picture, abs=1e-4)
    assert by_mean != pytest.approx(by_picture, abs=1e-4)
    priced = shop.run("search", "--in", shop.collection, *using, "--text", "red", "--filter", "price>50", "--json")
    assert len(priced.stdout.splitlines()) == 10, priced.output

    assert shop.sync(catalog, *using)[0]["unchanged"] == shop.count
    changed = shop.table([51.5, *[50.5] * (shop.count - 2)])  # one price, and one product less; and a new picture
    with changed.open("a") as stream:
        stream.write(f"B-new,{shop.place(shop.count)},1,blue\n")
    report, _ = shop.sync(changed, *using, "--prune")
    counted = {key: report[key] for key in ("added", "changed", "unchanged", "removed", "encoded", "failed")}
    assert counted == {
        "added": 1, "changed": 1, "unchanged": shop.count - 2, "removed": 1, "encoded": 1, "failed": [],
    }  # fmt: skip
    collection = shop.open(**with_using)
    assert collection.count() == shop.count
    first = collection.get([ids[0]])[0].payload
    assert (first["price"], first["sku"]) == (51.5, "A-0")
    collection.close()
    assert shop.doctor(*using)["norms"]["level"] == "ok"


def best(shop, model, id_, opening, picture=None):
    """Return the scores of the nearest objects to a composed query, by id."""
    collection = shop.open(**opening)
    try:
        query = {"image": picture if id_ is None else {"id": id_}, "text": "is blue"}
        return {str(hit.id): hit.score for hit in find(Search.read(query, limit=3), collection, model).hits}
    finally:
        collection.close()


@every(ONE_OF_EACH)
def test_without_take_over_objects_of_the_other_program_stay_as_they_are(shop, tiny):
    ids = shop.fill(shop.vectors(tiny))
    using = ["--using", "image"] if shop.count > 50 and shop.database.kind == "qdrant" else []
    assert shop.doctor("--adopt", *using)["adoption"]["level"] == "ok"
    collection = shop.open(**({"using": "image"} if using else {}))
    before = [point.payload for point in sorted(collection.get(ids), key=lambda point: str(point.id))]
    collection.close()
    report, said = shop.sync(shop.table([1, 2, 3]), *using, "--prune")
    assert f"{shop.count} objects of another program stay as they are (--take-over joins" in said
    assert report["foreign"] == shop.count
    assert (report["added"], report["changed"], report["removed"]) == (3, 0, 0)
    collection = shop.open(**({"using": "image"} if using else {}))
    assert collection.count() == shop.count + 3
    assert [point.payload for point in sorted(collection.get(ids), key=lambda point: str(point.id))] == before
    collection.close()
    assert shop.sync(shop.table([1, 2, 3]), *using)[0]["unchanged"] == 3
    assert shop.sync(shop.table([1, 2]), *using, "--prune", "--yes")[0]["removed"] == 1


@every(ONE_OF_EACH)
def test_another_model_of_the_same_width_is_found_out(shop, tiny):
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(tiny.dim, tiny.dim)))
    shop.fill((shop.vectors(tiny) @ turned).astype(np.float32))
    using = ["--using", "image"] if shop.count > 50 and shop.database.kind == "qdrant" else []
    found = shop.doctor("--adopt", *using)["adoption"]
    assert found["level"] == "problem"
    assert "another model than tiny" in found["sentence"], found
    collection = shop.open(**({"using": "image"} if using else {}))
    assert collection.info().fingerprint is None
    collection.close()


@embedded
def test_another_preprocessing_is_found_out(shop, tiny):
    def cropped(picture):
        return picture.crop((6, 6, picture.width - 6, picture.height - 6))

    shop.fill(shop.vectors(tiny, cropped))
    found = shop.doctor("--adopt")["adoption"]
    assert found["level"] == "problem"
    assert "preprocessing" in found["sentence"], found


@embedded
def test_few_pictures_that_changed_are_named(shop, tiny):
    vectors = shop.vectors(tiny)
    vectors[5] = -vectors[5]
    shop.fill(vectors)
    found = shop.doctor("--adopt")["adoption"]
    assert found["level"] == "problem"
    assert "11 of 12 objects have the vectors of tiny@" in found["sentence"]
    assert "object 5: cosine -1.000" in found["sentence"]


@embedded
def test_paths_are_read_and_a_wrong_column_is_named(shop, tiny):
    shop.fill(shop.vectors(tiny), by_url=False)
    wrong = shop.doctor("--adopt", "--picture-column", "sku")["adoption"]
    assert wrong["level"] == "problem"
    assert "12 of 12 pictures that column 'sku' names could not be read" in wrong["sentence"]
    assert "there are: imageUrl, page, price, sku" in wrong["sentence"]
    assert shop.doctor("--adopt")["adoption"]["level"] == "ok"
    report, _ = shop.sync(shop.folder, "--take-over", "--include", "*.jpg")
    assert (report["added"], report["changed"], report["changes"]["source"]) == (1, 12, 12)
    report, _ = shop.sync(shop.folder, "--include", "*.jpg")
    assert report["unchanged"] == 13


@embedded
def test_the_column_whose_pictures_give_the_vectors_is_found(shop, tiny, monkeypatch):
    def columns(i, by_url=True):
        return {"image": shop.place((i + 1) % shop.count), "back": shop.place(i)}

    monkeypatch.setattr(shop, "columns", columns)
    shop.fill(shop.vectors(tiny))
    found = shop.doctor("--adopt")["adoption"]
    assert found["level"] == "ok", found
    assert "of column 'back'" in found["sentence"]


@embedded
def test_urls_of_the_own_network_need_the_option(shop, tiny):
    shop.fill(shop.vectors(tiny))
    result = shop.run("doctor", "--to", shop.collection, "--adopt")
    assert result.exit_code == 1
    assert "--private-urls" in result.output


@embedded
def test_a_server_that_keeps_no_note_has_it_in_the_records(shop, tiny, monkeypatch):
    from cir_vectorizer_qdrant import QdrantCollection

    shop.fill(shop.vectors(tiny))
    monkeypatch.setattr(QdrantCollection, "_write_note", lambda self, note: None)  # stands for Qdrant before 1.16
    found = shop.doctor("--adopt")
    assert found["adoption"]["level"] == found["backbone"]["level"] == "ok", found
    assert "this server keeps no note" in found["adoption"]["sentence"]
    catalog = shop.table([5.0] * shop.count)
    report, _ = shop.sync(catalog, "--take-over", "--picture-column", "imageUrl")
    assert (report["added"], report["changed"]) == (0, 12)
    assert shop.sync(catalog, "--take-over", "--picture-column", "imageUrl")[0]["unchanged"] == 12


@embedded
def test_an_adopted_collection_is_copied_but_not_embedded_anew(shop, tiny, clip_folder, tmp_path):
    shop.fill(shop.vectors(tiny), by_url=False)
    assert shop.doctor("--adopt")["adoption"]["level"] == "ok"
    copied = shop.run("sync", shop.collection, "--to", f"{shop.collection}2", "--report", tmp_path / "copied.json")
    assert copied.stdout.startswith("added 12"), copied.output
    other = ("--to", shop.collection, "--model", clip_folder)
    refused = shop.run("sync", shop.folder, *other, "--report", tmp_path / "refused.json")
    assert "name another collection, or use the model that made it" in refused.output
    assert "--reembed" not in refused.output
    assert "sync into a new collection" in shop.run("doctor", *other).output


@embedded
def test_columns_are_guessed_by_name_and_by_ending(database):
    rows = [{"url": "http://a/p/1", "thumb": "http://a/1.jpg?w=2", "title": "x", "n": 3}, {"title": "a.jpg b"}]
    assert guess_columns(rows) == ["url", "thumb"]
    assert guess_columns([{"meta": {"source": "/photos/a.png"}, "image-link": ["http://a/1"]}]) == [
        "meta.source",
        "image-link",
    ]
