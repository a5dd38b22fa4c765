"""Collections and model folders that release 0.1.0 made go on working.

Release 0.1.0 wrote `tests/data/release-0.1.0`: a table of six drawn products, a model folder over `tiny`, an embedded
Qdrant collection, and its collections on both servers as their REST APIs return them.
"""

import json
import logging
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import Ask, CreateOptions, ModelRecord, note_former, open_collection
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.doctor.examination import Examination
from cir_vectorizer.errors import BackboneMismatch
from cir_vectorizer.models import load, read_record, save
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.service.names import Names
from tests.support.databases import Database
from tests.support.indexing import counts, run
from tests.support.servers import base64_of, our_service

RELEASE = Path(__file__).parents[1] / "data" / "release-0.1.0"
FORMER = "83980318b3eb8ebfc1c5d15c789fa0b069a1fb1dd71ec765ee3615fc5fba8596"


@pytest.fixture(autouse=True)
def fresh_notes():
    """Forget the notes of earlier tests, so that each test sees its own."""
    note_former.cache_clear()


@pytest.fixture(scope="module")
def open_service(tmp_path_factory):
    """A container without keys."""
    with our_service(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture
def old(tmp_path):
    """A copy of the release's files."""
    return Path(shutil.copytree(RELEASE, tmp_path / "old"))


def notes(caplog):
    return [record.getMessage() for record in caplog.records if "earlier release" in record.getMessage()]


def restored_in_qdrant(server):
    """Make the release's collection again through the server's own API."""
    kept = json.loads((RELEASE / "qdrant.json").read_text())
    collection = f"{server.url}/collections/ShopOf010"
    httpx.delete(collection)
    config = kept["config"]["params"] | {"metadata": kept["config"]["metadata"]}
    httpx.put(collection, json=config).raise_for_status()
    httpx.put(f"{collection}/points?wait=true", json={"points": kept["points"]}).raise_for_status()


def restored_in_weaviate(server, name, container=""):
    """Make the release's collection again through the server's own API."""
    kept = json.loads((RELEASE / "weaviate.json").read_text().replace("http://SERVICE", container))[name]
    schema = {key: value for key, value in kept["schema"].items() if key != "shardingConfig"} | {"class": "ShopOf010"}
    httpx.delete(f"{server.url}/v1/schema/ShopOf010")
    httpx.post(f"{server.url}/v1/schema", json=schema).raise_for_status()
    for each in kept["objects"]:
        wanted = {key: each[key] for key in ("id", "properties", "vectors")} | {"class": "ShopOf010"}
        httpx.post(f"{server.url}/v1/objects", json=wanted).raise_for_status()


def goes_on(shop, source, tiny, caplog, **options):
    """Check that the collection can be opened, searched and synced: nothing is encoded again, and one note is logged."""
    assert shop.info().fingerprint == FORMER
    found = find(Search.read({"image": source.parent / "pictures" / "1.png"}, limit=3), shop, tiny)
    assert found.hits[0].payload["id"] == 101
    report = run(source, shop, tiny, id_column="id", **options)
    assert counts(report)["encoded"] == 0
    assert counts(report)["unchanged"] + counts(report)["changed"] == 6
    assert shop.info().fingerprint == tiny.fingerprint
    assert run(source, shop, tiny, id_column="id", prune=True, **options).unchanged == 6
    assert shop.count() == 6
    assert len(notes(caplog)) == 1


def gets_texts(shop, source, tiny):
    """Check that texts are added to the collection without encoding a picture."""
    texts = CreateOptions(text_columns=("colour", "category"))
    report = run(source, shop, tiny, id_column="id", create=texts, yes=True)
    assert (report.encoded, report.texts, counts(report)["failed"]) == (0, 6, 0)
    points = shop.get([id_ for id_, _ in shop.scan()])
    wanted = tiny.embed_texts([f"{each.payload['colour']}, {each.payload['category']}" for each in points])
    assert np.abs(np.stack([each.text_vector for each in points]) - wanted).max() < 1e-5
    found = find(Search.read({"image": source.parent / "pictures" / "1.png"}, limit=3), shop, tiny)
    assert found.hits[0].payload["id"] == 101


def test_a_model_folder_composes_as_it_did_and_gives_one_note(old, caplog):
    with caplog.at_level(logging.WARNING):
        model = load(str(old / "model"), "cpu")
        load(str(old / "model"), "cpu")
    composed = model.compose([{"image": old / "pictures" / "0.png", "text": "is red"}]).vectors[0]
    assert np.abs(composed - json.loads((old / "composed.json").read_text())).max() < 1e-5
    assert len(notes(caplog)) == 1


def test_a_model_folder_that_is_written_again_has_the_present_fingerprints(old, tmp_path):
    model = load(str(old / "model"), "cpu")
    save(tmp_path / "new", model.backbone, {}, beside=old / "model")
    record = read_record(tmp_path / "new")
    assert record["format"] == 2
    names = ("fingerprint", "text_fingerprint", "former_fingerprint")
    backbone = model.backbone
    wanted = [backbone.fingerprint, backbone.text.fingerprint, FORMER]
    assert [record["backbone"][name] for name in names] == wanted
    assert "lincir" in load(str(tmp_path / "new"), "cpu").composers


def test_a_model_folder_of_other_weights_is_still_refused(old):
    record = json.loads((old / "model" / "model.json").read_text())
    record["backbone"]["fingerprint"] = "0" * 64
    (old / "model" / "model.json").write_text(json.dumps(record))
    with pytest.raises(BackboneMismatch, match="fingerprint 000000000000, but its weights here have 83980318b3eb"):
        load(str(old / "model"), "cpu")


def test_an_embedded_collection_goes_on(old, tiny, caplog):
    shop = open_collection(f"qdrant:{old}/index/shop")
    goes_on(shop, old / "shop.csv", tiny, caplog)
    gets_texts(shop, old / "shop.csv", tiny)
    shop.close()


def test_doctor_finds_nothing_wrong_with_it(old, tiny):
    shop = open_collection(f"qdrant:{old}/index/shop")
    examination = Examination(shop, ModelRecord.of(tiny))
    found = [*examination.fit(shop.info()), *examination.norms(shop.info(), tiny.mean_image_norm)]
    assert [finding for finding in found if finding.level != "ok"] == []
    shop.close()


def test_a_folder_and_a_collection_that_were_brought_up_to_date_at_different_times_fit(old):
    """A synced collection has the present fingerprint, and a model folder of the release the former one."""
    place, model = f"qdrant:{old}/index/shop", ["--model", str(old / "model")]
    for command in (
        ["sync", str(old / "shop.csv"), "--to", place, "--id-column", "id"],
        ["sync", str(old / "shop.csv"), "--to", place, "--id-column", "id", "--dry-run"],
        ["doctor", "--to", place],
        ["search", "--in", place, "--image", str(old / "pictures" / "1.png"), "--text", "is red", "--json"],
    ):
        for _ in range(2):
            result = CliRunner().invoke(main, [*command, *model])
            assert result.exit_code == 0, result.output
            assert "changed 0, unchanged 6" in result.output or command[0] != "sync"


def test_a_collection_of_another_model_is_still_refused(old, tiny):
    other = ModelRecord("other", "b" * 64, tiny.dim, former_fingerprint="c" * 64)
    shop = open_collection(f"qdrant:{old}/index/shop")
    with pytest.raises(BackboneMismatch, match="made by tiny@83980318b3eb, and the model at hand is other@bbbb"):
        run(old / "shop.csv", shop, other, id_column="id", create=CreateOptions(vectorize="server"))
    shop.close()


def test_a_name_that_pins_the_former_fingerprint_is_served(tiny, caplog):
    names = Names({"tiny": tiny})
    for name in (f"tiny@{FORMER[:12]}", f"tiny/lincir@{FORMER[:12]}", f"tiny@{tiny.fingerprint[:12]}"):
        assert names.resolve(name).model == "tiny"
    assert len(notes(caplog)) == 1
    assert names.full_name("tiny") == f"tiny@{tiny.fingerprint[:12]}"


@pytest.mark.live
def test_a_collection_of_a_qdrant_server_goes_on(old, qdrant_server, tiny, caplog):
    restored_in_qdrant(qdrant_server)
    database = Database("qdrant", qdrant_server)
    shop = open_collection(database.address("ShopOf010"), options=database.options())
    goes_on(shop, old / "shop.csv", tiny, caplog)
    gets_texts(shop, old / "shop.csv", tiny)
    shop.drop()
    shop.close()


@pytest.mark.live
@pytest.mark.parametrize("kind", ["Shop", "Served"])
def test_a_collection_of_a_weaviate_server_goes_on(old, request, weaviate_server, tiny, kind, caplog):
    container = request.getfixturevalue("open_service").url if kind == "Served" else ""
    restored_in_weaviate(weaviate_server, kind, container)
    database = Database("weaviate", weaviate_server)
    shop = open_collection(database.address("ShopOf010"), options=database.options())
    options = {"create": CreateOptions(vectorize="server")} if kind == "Served" else {}
    goes_on(shop, old / "shop.csv", tiny, caplog, **options)
    if kind == "Served":  # the schema still has the model's old name, tiny@83980318b3eb
        schema = httpx.get(f"{weaviate_server.url}/v1/schema/ShopOf010").text
        assert f"/m/tiny@{FORMER[:12]}" in schema
        picture = base64_of((old / "pictures" / "1.png").read_bytes())
        assert len(shop.search(ComposedQuery.parse({"image": picture, "text": "is red"}), Ask(3))) == 3
    else:
        gets_texts(shop, old / "shop.csv", tiny)
    shop.drop()
    shop.close()
