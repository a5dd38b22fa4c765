"""Sync into real servers: Qdrant over REST and gRPC, and Weaviate, with our vectors and with the server's."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import Ask, OpenOptions, open_collection
from cir_vectorizer.models import load
from cir_vectorizer.sources import CollectionSource, Web, open_source
from cir_vectorizer.sync import reembed, sync
from tests.support.indexing import counts, draw, only, payloads, table

pytest_plugins = ["tests.support.indexing", "tests.support.servers"]
pytestmark = pytest.mark.live
QUERIES = 100
TIE = 1e-4


@pytest.fixture(params=["qdrant", "qdrant over gRPC", "weaviate"])
def place(request):
    """Address and options of a server."""
    server = request.getfixturevalue(f"{request.param.split()[0]}_server")
    scheme = request.param.split()[0]
    options = OpenOptions(grpc="gRPC" in request.param, grpc_port=server.grpc_port)
    return f"{scheme}://{server.host}:{server.port}", options


@pytest.fixture
def there(place, request):
    """An empty collection on the server."""
    address, options = place
    name = "".join(part.capitalize() for part in request.node.originalname.split("_"))[:60]
    with contextlib.closing(open_collection(f"{address}/{name}", options=options)) as collection:
        collection.drop()
        yield collection
        collection.drop()


class TestOnAServer:
    def test_a_folder_its_changes_and_what_left_it(self, photos, there, tiny):
        assert counts(sync(open_source(photos), there, tiny, batch_size=2)) == only(added=5, encoded=5)
        assert counts(sync(open_source(photos), there, tiny)) == only(unchanged=5)
        draw(photos / "a.jpg", 100)
        (photos / "b.png").touch()
        (photos / "c.webp").unlink()
        report = sync(open_source(photos), there, tiny, prune=True)
        assert counts(report) == only(changed=1, unchanged=3, encoded=1)
        assert (report.removed, there.count()) == (1, 4)
        assert counts(sync(open_source(photos), there, tiny)) == only(unchanged=4)

    def test_a_changed_payload_is_written_alone(self, photos, there, tiny):
        rows = [{"image": "a.jpg", "colour": "red", "n": 1}, {"image": "b.png", "colour": "blue", "n": 2}]
        sync(open_source(table(photos / "catalog.jsonl", rows)), there, tiny)
        before = {point.id: point.vector for point in there.get([id_ for id_, _ in there.scan()])}
        rows[0]["colour"] = "green"
        report = sync(open_source(table(photos / "catalog.jsonl", rows)), there, tiny)
        assert counts(report) == only(changed=1, unchanged=1)
        assert payloads(there) == {"a.jpg": {"colour": "green", "n": 1}, "b.png": {"colour": "blue", "n": 2}}
        for point in there.get(list(before)):
            np.testing.assert_allclose(point.vector, before[point.id], atol=1e-6)

    def test_another_backbone_takes_over(self, photos, there, tiny, clip_folder):
        other = load(str(clip_folder), "cpu")

        def copy(wanted):
            return CollectionSource(there, Web(), keep_owners=True, wanted=wanted, lent=True)

        sync(open_source(photos), there, tiny)
        report = reembed(open_source(photos), there, other, copy)
        assert (counts(report), report.switched) == (only(added=5, encoded=5), True)
        assert there.info().fingerprint == other.fingerprint
        assert counts(sync(open_source(photos), there, other)) == only(unchanged=5)
        assert reembed(open_source(photos), there, tiny, copy).switched
        assert counts(sync(open_source(photos), there, tiny)) == only(unchanged=5)

    def test_objects_looked_up_by_id_are_told_the_same_way(self, photos, there, tiny, monkeypatch):
        sync(open_source(photos), there, tiny)
        monkeypatch.setattr("cir_vectorizer.sync.run.ALWAYS_SCANNED", 0)
        for i in range(30):
            draw(photos / "more" / f"{i}.png", 200 + i)
        sync(open_source(photos), there, tiny)
        source = open_source(photos, include=["a.jpg", "b.png", "c.webp"])
        monkeypatch.setattr(type(there), "scan", lambda self: pytest.fail("the whole collection was scanned"))
        draw(photos / "a.jpg", 100)
        assert counts(sync(source, there, tiny)) == only(changed=1, unchanged=2, encoded=1)


def test_one_database_is_copied_into_the_other(photos, tiny, qdrant_server, weaviate_server, tmp_path):
    qdrant = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/Copied"
    weaviate = f"weaviate://{weaviate_server.host}:{weaviate_server.port}/Copied"
    common = ["--device", "cpu", "--report", str(tmp_path / "r.json")]
    rows = [{"image": "a.jpg", "colour": "red"}, {"image": "b.png", "colour": "blue"}]
    source = table(photos / "catalog.csv", rows)
    result = CliRunner().invoke(main, ["sync", str(source), "--to", qdrant, "--index", "colour", *common])
    assert result.exit_code == 0, result.output
    arguments = ["sync", qdrant, "--to", weaviate, "--grpc-port", str(weaviate_server.grpc_port), *common]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, "added 2" in result.output) == (0, True), result.output
    options = OpenOptions(grpc_port=weaviate_server.grpc_port)
    with (
        contextlib.closing(open_collection(qdrant)) as here,
        contextlib.closing(open_collection(weaviate, options=options)) as there,
    ):
        assert payloads(there) == payloads(here) == {"a.jpg": {"colour": "red"}, "b.png": {"colour": "blue"}}
        twins = {point.id: point.vector for point in here.get([id_ for id_, _ in here.scan()])}
        for point in there.get(list(twins)):
            np.testing.assert_allclose(point.vector, twins[point.id], atol=1e-6)
        here.drop()
        there.drop()


class TestVectorsByTheServer:
    def test_pictures_are_sent_and_the_container_makes_the_vectors(self, photos, tiny, weaviate_server, tmp_path):
        options = OpenOptions(grpc_port=weaviate_server.grpc_port)
        address = f"weaviate://{weaviate_server.host}:{weaviate_server.port}/ByServer"
        arguments = ["sync", str(photos), "--to", address, "--grpc-port", str(weaviate_server.grpc_port)]
        arguments += ["--vectorize", "server", "--report", str(tmp_path / "r.json")]
        (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff bad")
        with contextlib.closing(open_collection(address, options=options)) as there:
            there.drop()
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 3, result.output
            assert (there.count(), there.info().vectorize) == (5, "server")
            whole = there.beside("ByClient")
            whole.drop()
            sync(open_source(photos), whole, tiny)
            expected = {point.id: point.vector for point in whole.get([id_ for id_, _ in whole.scan()])}
            for point in there.get(list(expected)):
                np.testing.assert_allclose(point.vector, expected[point.id], atol=1e-4)
                assert point.payload["_cir"]["norm"] is None
            result = CliRunner().invoke(main, arguments)
            report = json.loads((tmp_path / "r.json").read_text())
            assert (report["unchanged"], report["encoded"], len(report["failed"])) == (5, 0, 1), result.output
            whole.drop()
            there.drop()

    def test_a_service_url_without_it_is_wrong_use(self, photos):
        result = CliRunner().invoke(
            main, ["sync", str(photos), "--to", "weaviate://h/X", "--service-url", "http://c:8000"]
        )
        assert result.exit_code == 2
        assert "--service-url goes with --vectorize server" in result.output


@pytest.mark.slow
def test_real_photos_are_found_alike_in_all_three(shared, tiny, qdrant_server, weaviate_server, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(shared / "data" / "photos", folder)
    files = sorted(folder.iterdir())
    captions = json.loads((shared / "data" / "fashioniq" / "cap.dress.val.json").read_text())[:QUERIES]
    asked = [{"image": files[i % len(files)], "text": row["captions"][0].strip()} for i, row in enumerate(captions)]
    queries = tiny.compose(asked).vectors
    places = [
        (f"qdrant:{tmp_path}/embedded/Photos", None),
        (f"qdrant://{qdrant_server.host}:{qdrant_server.port}/Photos", qdrant_server.grpc_port),
        (f"weaviate://{weaviate_server.host}:{weaviate_server.port}/Photos", weaviate_server.grpc_port),
    ]
    ids, vectors, found = [], [], []
    for address, grpc_port in places:
        with contextlib.closing(open_collection(address, options=OpenOptions(grpc_port=grpc_port))) as there:
            there.drop()
            report = sync(open_source(folder), there, tiny)
            assert counts(report) == only(added=len(files), encoded=len(files))
            assert counts(sync(open_source(folder), there, tiny)) == only(unchanged=len(files))
            points = sorted(there.get([id_ for id_, _ in there.scan()]), key=lambda point: point.id)
            ids.append([point.id for point in points])
            vectors.append(np.stack([point.vector for point in points]))
            found.append([there.search(query, Ask(10, exact=True)) for query in queries])
            there.drop()
    assert ids[0] == ids[1] == ids[2]
    assert max(np.abs(each - vectors[0]).max() for each in vectors) < 1e-5
    for query, *rankings in zip(queries, *found, strict=True):
        scores = dict(zip(ids[0], vectors[0] @ query, strict=True))
        best = sorted(scores.values(), reverse=True)[:10]
        for hits in rankings:
            assert len({hit.id for hit in hits}) == 10
            np.testing.assert_allclose([scores[hit.id] for hit in hits], best, atol=TIE)
            np.testing.assert_allclose([hit.score for hit in hits], best, atol=TIE)
