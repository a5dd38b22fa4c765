"""`search --service` and `sync --service`: a running service in place of a local model gives the same results."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.client import Client, Patience, ServedModel
from cir_vectorizer.collections import open_collection
from cir_vectorizer.errors import BackboneMismatch, ImageError, ModelError, ServiceError
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import Report, sync
from tests.support.indexing import draw, table
from tests.support.serving import serving

KEY = "remote-key"


@pytest.fixture(scope="module")
def service():
    with serving(api_keys=f"tests:{KEY}") as running:
        yield running


@pytest.fixture
def command(service, monkeypatch):
    """Run a command with the service's key in the environment."""
    monkeypatch.setenv("CIR_API_KEY", KEY)
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


def without_model(monkeypatch):
    """Make the loading of any local model fail."""

    def refuse(*_, **__):
        raise AssertionError("a local model was loaded")

    monkeypatch.setattr("cir_vectorizer.models.folder.load", refuse)


class TestSync:
    @pytest.fixture
    def catalog(self, photos):
        names = ["a.jpg", "b.png", "c.webp", "inner/d.gif", "inner/e.bmp"]
        rows = [{"image": name, "price": 10 * i, "colour": "red"} for i, name in enumerate(names)]
        return table(photos / "catalog.csv", rows)

    def sync(self, command, catalog, to, *more):
        report = Path(str(to).removeprefix("qdrant:").replace("/", "-").strip("-") + ".json").name
        report = catalog.parent.parent / report
        result = command("sync", catalog, "--to", to, "--report", report, *more)
        return result, json.loads(report.read_text()) if report.is_file() else None

    def objects(self, to):
        collection = open_collection(to)
        try:
            found = {point.id: point for point in collection.get([id_ for id_, _ in collection.scan()])}
            return found, collection.info()
        finally:
            collection.close()

    def test_the_collection_is_the_one_that_a_local_model_makes(self, command, service, catalog, tmp_path, monkeypatch):
        local, remote = f"qdrant:{tmp_path}/local/shop", f"qdrant:{tmp_path}/remote/shop"
        result, said = self.sync(command, catalog, local, "--model", "tiny")
        assert result.exit_code == 0, result.output
        without_model(monkeypatch)
        result, told = self.sync(command, catalog, remote, "--service", service.url)
        assert result.exit_code == 0, result.output
        same = ("source", "model", "total", "added", "encoded", "skipped", "changes", "failed")
        assert {key: told[key] for key in same} == {key: said[key] for key in same}
        (here, made_here), (there, made_there) = self.objects(local), self.objects(remote)
        assert made_here == made_there
        assert set(here) == set(there)
        for id_, point in here.items():
            np.testing.assert_allclose(there[id_].vector, point.vector, atol=1e-5)
            mine, theirs = dict(point.payload["_cir"]), dict(there[id_].payload["_cir"])
            assert theirs.pop("norm") == pytest.approx(mine.pop("norm"), rel=1e-5)
            assert theirs == mine
            assert {**there[id_].payload, "_cir": None} == {**point.payload, "_cir": None}

    def test_either_goes_on_where_the_other_was(self, command, service, catalog, tmp_path):
        to = f"qdrant:{tmp_path}/index/shop"
        assert "added 5" in self.sync(command, catalog, to, "--service", service.url)[0].output
        draw(catalog.parent / "a.jpg", 99)
        assert "changed 1, unchanged 4" in self.sync(command, catalog, to, "--model", "tiny")[0].output
        draw(catalog.parent / "b.png", 98)
        result, _ = self.sync(command, catalog, to, "--service", service.url)
        assert "changed 1, unchanged 4" in result.output

    def test_a_picture_that_cannot_be_read_is_reported_as_locally(self, command, service, photos, tmp_path):
        jpeg = (photos / "a.jpg").read_bytes()
        for i, content in enumerate([b"", b"hello", b"<html>404</html>", jpeg[: len(jpeg) // 2]]):
            (photos / f"bad-{i}.jpg").write_bytes(content)
        outputs = []
        for name, more in (("local", ["--model", "tiny"]), ("remote", ["--service", service.url])):
            result, report = self.sync(command, photos, f"qdrant:{tmp_path}/{name}/shop", *more)
            assert result.exit_code == 3, result.output
            outputs.append(sorted((each["path"], each["id"], each["sentence"]) for each in report["failed"]))
        assert len(outputs[1]) == 4
        for mine, theirs in zip(*outputs, strict=True):
            assert theirs[:2] == mine[:2]
            assert theirs[2].endswith(mine[2])

    def test_a_dry_run_asks_the_service_for_its_model_alone(self, command, service, photos, tmp_path, monkeypatch):
        without_model(monkeypatch)
        to = f"qdrant:{tmp_path}/index/shop"
        result = command("sync", photos, "--to", to, "--service", service.url, "--dry-run")
        assert result.exit_code == 0, result.output
        assert "added 5" in result.output

    def test_another_backbone_is_refused(self, command, service, photos, tmp_path, clip_folder):
        to = f"qdrant:{tmp_path}/index/shop"
        assert self.sync(command, photos, to, "--model", clip_folder)[0].exit_code == 0
        result, _ = self.sync(command, photos, to, "--service", service.url)
        assert result.exit_code == 1
        assert "give --reembed" in result.output

    def test_a_service_that_ends_ends_the_run(self, photos, shop):
        report = Report()
        with serving() as running, Client(running.url, patience=Patience(retries=0)) as client:
            model = ServedModel(client)
            running.stop()
            with pytest.raises(ServiceError, match="no service answers"):
                sync(open_source(photos), shop, model, report=report)
        assert (report.added, report.complete, report.failed) == (0, False, [])


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny):
    """A folder with six pictures, and their collection at index/shop."""
    folder = tmp_path_factory.mktemp("shop")
    for i in range(6):
        draw(folder / f"{i}.png", i)
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder), collection, tiny)
    collection.close()
    return folder


class TestSearch:
    @pytest.mark.parametrize(
        "query",
        [
            ["--text", "a red hat"],
            ["--image", "0.png"],
            ["--image", "0.png", "--text", "in white"],
            ["--image", "0.png", "--image", "1.png", "--text", "in white", "--composer", "sum"],
            ["--image", "2.png", "--text", "in white", "--composer", "lincir", "--option", "keep=0.7"],
            ["--image", "2.png", "--like", "3.png", "--unlike", "4.png"],
            ["--text", "a hat", "--negative-text", "red", "--negative-text", "blue", "--must-text", "a bag"],
            [
                "--image",
                "1.png",
                "--text",
                "a hat",
                "--composer",
                "image",
                "--negative-text",
                "red",
                "--min-score",
                "0",
            ],
        ],
    )
    def test_finds_what_a_local_model_finds(self, command, service, searched, monkeypatch, query):
        monkeypatch.chdir(searched)
        asked = ["search", "--in", f"qdrant:{searched}/index/shop", *query, "--json"]
        local = command(*asked, "--model", "tiny")
        without_model(monkeypatch)
        remote = command(*asked, "--service", service.url)
        assert (local.exit_code, remote.exit_code) == (0, 0), remote.output
        mine, theirs = ([json.loads(line) for line in each.stdout.splitlines()] for each in (local, remote))
        assert [hit["id"] for hit in theirs] == [hit["id"] for hit in mine]
        assert [hit["payload"] for hit in theirs] == [hit["payload"] for hit in mine]
        np.testing.assert_allclose([hit["score"] for hit in theirs], [hit["score"] for hit in mine], atol=1e-5)

    def test_words_that_score_results_are_plain_texts_whatever_composer_the_models_name_includes(
        self, command, service, searched
    ):
        asked = ["search", "--in", f"qdrant:{searched}/index/shop", "--image", searched / "0.png", "--text", "in white"]
        asked += ["--negative-text", "red", "--must-text", "a hat", "--json"]
        local = command(*asked, "--model", "tiny", "--composer", "compodiff", "--option", "steps=2")
        for name in ("tiny/compodiff", "compodiff"):
            remote = command(*asked, "--service", service.url, "--model", name, "--option", "steps=2")
            assert remote.exit_code == 0, remote.output
            mine, theirs = ([json.loads(line) for line in each.stdout.splitlines()] for each in (local, remote))
            signals = {hit["id"]: hit["signals"] for hit in theirs}
            for hit in mine:
                assert signals[hit["id"]] == pytest.approx(hit["signals"], abs=1e-5)

    def test_an_id_is_a_reference_too(self, command, service, searched):
        to = f"qdrant:{searched}/index/shop"
        first = json.loads(
            command("search", "--in", to, "--image", searched / "0.png", "--json").stdout.splitlines()[0]
        )
        named = ("--id", first["id"], "--include-reference")
        found = command("search", "--in", to, *named, "--service", service.url, "--json")
        assert json.loads(found.stdout.splitlines()[0])["id"] == first["id"]

    def test_the_model_names_one_of_the_services(self, command, service, searched):
        to = f"qdrant:{searched}/index/shop"
        asked = ["search", "--in", to, "--text", "a hat", "--service", service.url, "--json"]
        for name in ("tiny", "tiny/sum", "lincir"):
            assert command(*asked, "--model", name).exit_code == 0
        result = command(*asked, "--model", "other")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: the service has no model 'other'; name one that it has: tiny")

    @pytest.mark.parametrize(
        ("more", "status", "sentence"),
        [
            (["--device", "cpu"], 2, "--device is for a local model"),
            (["--service", "nonsense"], 1, "the service's address is no URL"),
        ],
    )
    def test_what_cannot_be_is_a_sentence(self, command, service, searched, more, status, sentence):
        to = f"qdrant:{searched}/index/shop"
        result = command("search", "--in", to, "--text", "a hat", "--service", service.url, *more)
        assert result.exit_code == status
        assert sentence in result.stderr

    def test_a_wrong_path_in_the_address_is_a_sentence(self, command, service, searched):
        asked = ["search", "--in", f"qdrant:{searched}/index/shop", "--text", "a", "--service"]
        result = command(*asked, f"{service.url}/docs/")
        assert result.exit_code == 1
        assert result.stderr == "error: the service has nothing at /docs/v1/models; check the path of its address\n"

    def test_a_wrong_key_is_a_sentence(self, command, service, searched, monkeypatch):
        monkeypatch.setenv("CIR_API_KEY", "wrong")
        result = command("search", "--in", f"qdrant:{searched}/index/shop", "--text", "a", "--service", service.url)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")


class TestServedModel:
    @pytest.fixture
    def client(self, service):
        with Client(service.url, api_key=KEY, patience=Patience(retries=0)) as client:
            yield client

    def test_says_what_a_local_model_says(self, client, tiny):
        served = ServedModel(client)
        for name in ("name", "fingerprint", "former_fingerprint", "dim", "precision", "default_composer"):
            assert getattr(served, name) == getattr(tiny, name)

    @pytest.mark.parametrize(
        ("name", "composer"),
        [("tiny", "lincir"), ("tiny/sum", "sum"), ("lincir", "lincir"), ("sum", "sum"), ("tiny@FP/sum", "sum")],
    )
    def test_names_are_the_services(self, client, tiny, name, composer):
        served = ServedModel(client, name.replace("FP", tiny.fingerprint[:8]))
        assert (served.name, served.default_composer) == ("tiny", composer)
        assert served.compose([{"text": "a hat", "image": None}]).vectors.shape == (1, tiny.dim)

    def test_unknown_names_are_refused(self, client):
        with pytest.raises(ModelError, match="no model 'vit'"):
            ServedModel(client, "vit")
        with pytest.raises((ServiceError, BackboneMismatch), match="was asked for"):
            ServedModel(client, "tiny@0123456789ab").compose([{"text": "a hat"}])

    def test_a_picture_that_is_none_is_an_image_error(self, client):
        with pytest.raises(ImageError, match="is plain text; give a picture"):
            ServedModel(client).embed_picture(b"hello")
