"""Another backbone for a collection, and one collection as the source of another."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.collections import ModelRecord, Point
from cir_vectorizer.errors import BackboneMismatch, SourceError
from cir_vectorizer.models import load
from cir_vectorizer.sources import CollectionSource, Web, open_source
from cir_vectorizer.sync import PruneRefused, Report, SwitchRefused, reembed
from tests.support.indexing import counts, draw, indexed, only, payloads, run, table

pytest_plugins = ["tests.support.indexing"]


@pytest.fixture(scope="module")
def other_model(clip_folder):
    """A model of another backbone and width than `tiny`."""
    return load(str(clip_folder), "cpu")


def anew(source, shop, model, **options):
    """Sync as `sync --reembed` does."""

    def copy(wanted):
        return CollectionSource(shop, Web(), keep_owners=True, wanted=wanted, lent=True)

    return reembed(open_source(source), shop, model, copy, **options)


def dims(shop):
    return {len(point.vector) for point in shop.get([id_ for id_, _ in shop.scan()])}


class TestReembedding:
    def test_without_it_another_backbone_is_refused_and_the_sentence_names_it(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        with pytest.raises(BackboneMismatch, match="or give --reembed"):
            run(photos, shop, other_model)

    def test_everything_is_embedded_anew_and_the_address_answers_with_it(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        ids = sorted(id_ for id_, _ in shop.scan())
        report = anew(photos, shop, other_model)
        assert (counts(report), report.switched) == (only(added=5, encoded=5), True)
        assert shop.info().fingerprint == other_model.fingerprint
        assert sorted(id_ for id_, _ in shop.scan()) == ids
        assert dims(shop) == {other_model.dim}
        assert counts(run(photos, shop, other_model)) == only(unchanged=5)
        assert not anew(photos, shop, other_model).switched

    def test_and_back_again(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        anew(photos, shop, other_model)
        assert anew(photos, shop, tiny).switched
        assert counts(run(photos, shop, tiny)) == only(unchanged=5)

    def test_objects_of_other_sources_come_along_with_their_columns(self, photos, shop, tiny, other_model, tmp_path):
        draw(tmp_path / "more" / "x.png", 40)
        run(table(tmp_path / "more" / "catalog.csv", [{"image": "x.png", "colour": "red"}]), shop, tiny)
        run(photos, shop, tiny)
        report = anew(photos, shop, other_model)
        assert (counts(report), report.switched) == (only(added=6, encoded=6), True)
        assert payloads(shop)["x.png"] == {"colour": "red"}
        assert counts(run(tmp_path / "more" / "catalog.csv", shop, other_model)) == only(unchanged=1)

    def test_nothing_is_switched_while_an_object_would_be_lost(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        (photos / "a.jpg").write_bytes(b"\xff\xd8\xff damaged")
        (photos / "b.png").unlink()
        with pytest.raises(SwitchRefused, match=r"2 objects of qdrant:.*/shop could not be embedded anew.*--yes"):
            anew(photos, shop, other_model)
        assert shop.info().fingerprint == tiny.fingerprint
        assert shop.count() == 5
        draw(photos / "a.jpg", 0)
        draw(photos / "b.png", 1)
        report = anew(photos, shop, other_model)
        assert (counts(report), report.switched) == (only(added=2, unchanged=3, encoded=2), True)

    def test_it_is_switched_without_them_if_that_is_confirmed(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        (photos / "a.jpg").write_bytes(b"\xff\xd8\xff damaged")
        assert anew(photos, shop, other_model, yes=True).switched
        assert shop.count() == 4

    def test_with_prune_what_left_the_source_stays_behind(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        (photos / "a.jpg").unlink()
        assert anew(photos, shop, other_model, prune=True).switched
        assert indexed(shop) == ["b.png", "c.webp", "d.gif", "e.bmp"]

    def test_with_prune_no_more_than_a_fifth_stays_behind(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        (photos / "a.jpg").unlink()
        (photos / "b.png").unlink()
        with pytest.raises(PruneRefused, match="2 of the 5 objects"):
            anew(photos, shop, other_model, prune=True)
        assert (shop.count(), shop.info().fingerprint) == (5, tiny.fingerprint)

    def test_a_run_that_was_stopped_goes_on_and_the_old_collection_answers_meanwhile(
        self, photos, shop, tiny, other_model, monkeypatch
    ):
        run(photos, shop, tiny)
        embed, calls = other_model.embed_pixels, []

        def stopping(pixels):
            calls.append(len(pixels))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return embed(pixels)

        monkeypatch.setattr(other_model, "embed_pixels", stopping)
        report = Report()
        with pytest.raises(KeyboardInterrupt):
            anew(photos, shop, other_model, batch_size=1, report=report)
        assert (report.added, shop.info().fingerprint) == (2, tiny.fingerprint)
        monkeypatch.undo()
        assert counts(anew(photos, shop, other_model)) == only(added=3, unchanged=2, encoded=3)

    def test_what_another_sync_adds_to_the_old_collection_meanwhile_comes_along(
        self, photos, shop, tiny, other_model, tmp_path, monkeypatch
    ):
        run(photos, shop, tiny)
        draw(tmp_path / "more" / "x.png", 40)
        taking, calls = other_model.embed_pixels, []

        def meanwhile(pixels):
            if not calls:
                calls.append(run(tmp_path / "more", shop, tiny))
            return taking(pixels)

        monkeypatch.setattr(other_model, "embed_pixels", meanwhile)
        assert anew(photos, shop, other_model).switched
        assert "x.png" in indexed(shop)

    def test_a_switch_that_was_cut_off_after_the_old_collection_went_is_ended(self, photos, shop, tiny, other_model):
        run(photos, shop, tiny)
        anew(photos, shop, other_model)
        other = shop.beside(f"shop_{tiny.fingerprint[:8]}")
        run(photos, other, tiny)
        shop.drop()
        assert counts(anew(photos, shop, tiny)) == only(unchanged=5)

    def test_the_command_says_what_it_did(self, photos, shop, tiny, clip_folder, tmp_path):
        run(photos, shop, tiny)
        shop.close()
        arguments = ["sync", str(photos), "--to", str(shop.address), "--model", str(clip_folder), "--device", "cpu"]
        arguments += ["--report", str(tmp_path / "r.json")]
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, "or give --reembed" in result.output) == (1, True), result.output
        result = CliRunner().invoke(main, [*arguments, "--reembed"])
        assert result.exit_code == 0, result.output
        assert "shop answers with" in result.output
        assert json.loads((tmp_path / "r.json").read_text())["switched"]


class TestACollectionAsTheSource:
    def test_objects_are_copied_with_their_columns_and_embedded_anew(self, photos, shop, tiny, other_model):
        rows = [{"image": "a.jpg", "colour": "red"}, {"image": "b.png", "colour": "blue"}]
        run(table(photos / "catalog.csv", rows), shop, tiny)
        copy = shop.beside("copy")
        source = CollectionSource(shop, Web(), lent=True)
        from cir_vectorizer.sync import sync

        assert counts(sync(source, copy, other_model)) == only(added=2, encoded=2)
        assert payloads(copy) == {"a.jpg": {"colour": "red"}, "b.png": {"colour": "blue"}}
        assert {id_ for id_, _ in copy.scan()} == {id_ for id_, _ in shop.scan()}
        assert counts(sync(source, copy, other_model)) == only(unchanged=2)
        rows[0]["colour"] = "green"
        run(table(photos / "catalog.csv", rows), shop, tiny)
        assert counts(sync(source, copy, other_model)) == only(changed=1, unchanged=1)

    def test_an_object_whose_picture_is_gone_fails_alone(self, photos, shop, tiny, other_model):
        from cir_vectorizer.sync import sync

        run(photos, shop, tiny)
        (photos / "a.jpg").unlink()
        report = sync(CollectionSource(shop, Web(), lent=True), shop.beside("copy"), other_model)
        assert counts(report) == only(added=4, failed=1, encoded=4)
        assert "a.jpg is not in" in str(report.failed[0])

    def test_a_collection_of_another_program_names_its_pictures_by_a_column(self, photos, shop, tiny):
        from cir_vectorizer.sync import sync

        foreign = shop.beside("foreign")
        foreign.create(ModelRecord("x", "ff" * 32, 4))
        vector = np.full(4, 0.5, np.float32)
        foreign.upsert(
            [
                Point(7, vector, {"file": str(photos / "a.jpg"), "n": 1}),
                Point(8, vector, {"n": 2}),
            ]
        )
        report = sync(CollectionSource(foreign, Web(), lent=True), shop, tiny)
        assert counts(report) == only(failed=2)
        assert "does not say where its picture is; name the column that does with --image-column" in str(
            report.failed[0]
        )
        report = sync(CollectionSource(foreign, Web(), "file", lent=True), shop, tiny)
        assert counts(report) == only(added=1, failed=1, encoded=1)
        (point,) = shop.get([7])
        assert point.payload["n"] == 1

    def test_the_command_copies_within_one_directory(self, photos, shop, tiny, tmp_path):
        run(photos, shop, tiny)
        shop.close()
        copy = str(shop.address).replace("/shop", "/copy")
        arguments = ["--model", "tiny", "--device", "cpu", "--report", str(tmp_path / "r.json")]
        result = CliRunner().invoke(main, ["sync", str(shop.address), "--to", copy, *arguments])
        assert (result.exit_code, "added 5" in result.output) == (0, True), result.output
        result = CliRunner().invoke(main, ["sync", copy, "--to", copy, *arguments])
        assert result.exit_code == 1
        assert "is the collection to write to as well; give another --to, or --reembed" in result.output

    def test_which_of_its_vectors_does_not_matter(self, photos, shop, tmp_path, monkeypatch):
        monkeypatch.chdir(photos)
        vectors = {name: models.VectorParams(size=4, distance=models.Distance.COSINE) for name in ("front", "back")}
        client = QdrantClient(path=str(tmp_path / "theirs"))
        client.create_collection("two", vectors_config=vectors)
        client.upsert("two", [models.PointStruct(id=7, vector={"front": [1.0, 0, 0, 0]}, payload={"file": "a.jpg"})])
        client.close()
        shop.close()
        for i, to in enumerate((f"qdrant:{tmp_path}/theirs/copy", str(shop.address))):
            arguments = [
                "--to",
                to,
                "--image-column",
                "file",
                "--model",
                "tiny",
                "--report",
                str(tmp_path / f"{i}.json"),
            ]
            result = CliRunner().invoke(main, ["sync", f"qdrant:{tmp_path}/theirs/two", *arguments])
            assert (result.exit_code, "added 1" in result.output) == (0, True), result.output

    def test_a_collection_can_be_embedded_anew_from_itself(self, photos, shop, tiny, clip_folder, tmp_path):
        run(photos, shop, tiny)
        shop.close()
        arguments = ["sync", str(shop.address), "--to", str(shop.address), "--model", str(clip_folder), "--reembed"]
        result = CliRunner().invoke(main, [*arguments, "--device", "cpu", "--report", str(tmp_path / "r.json")])
        assert (result.exit_code, "added 5" in result.output) == (0, True), result.output
        assert counts(run(photos, shop, load(str(clip_folder), "cpu"))) == only(unchanged=5)

    def test_a_collection_that_is_not_there_is_a_sentence(self, shop, tiny, tmp_path):
        with pytest.raises(SourceError, match=r"there is no collection qdrant:.*/nowhere to copy from"):
            run(f"qdrant:{tmp_path}/other/nowhere", shop, tiny)
