"""Sync of folders into an embedded Qdrant, with the packaged model."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.collections import ModelRecord, ensure
from cir_vectorizer.errors import BackboneMismatch, CollectionError, ModelError
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import Report, sync
from tests.support.indexing import counts, draw, indexed, only, run

pytest_plugins = ["tests.support.indexing"]

SECOND = 1_000_000_000


class TestAFolder:
    def test_every_picture_is_indexed_with_its_vector_and_norm(self, photos, shop, tiny):
        assert counts(run(photos, shop, tiny, batch_size=2)) == only(added=5, encoded=5)
        assert indexed(shop) == ["a.jpg", "b.png", "c.webp", "d.gif", "e.bmp"]
        for point in shop.get([id_ for id_, _ in shop.scan()]):
            record = point.payload["_cir"]
            embedding = tiny.embed_images([Image.open(record["path"]).convert("RGB")])[0]
            assert record["norm"] == pytest.approx(np.linalg.norm(embedding), rel=1e-4)
            np.testing.assert_allclose(point.vector * record["norm"], embedding, atol=1e-3 * record["norm"])
            assert record["fingerprint"] == tiny.fingerprint
            assert record["size"] == Path(record["path"]).stat().st_size

    def test_a_second_run_encodes_nothing(self, photos, shop, tiny):
        run(photos, shop, tiny)
        assert counts(run(photos, shop, tiny)) == only(unchanged=5)

    def test_a_second_run_reads_no_picture_whose_size_and_time_are_the_same(self, photos, shop, tiny):
        run(photos, shop, tiny)
        status = (photos / "a.jpg").stat()
        (photos / "a.jpg").write_bytes(b"x" * status.st_size)
        os.utime(photos / "a.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert counts(run(photos, shop, tiny)) == only(unchanged=5)

    def test_a_touched_picture_is_not_encoded_and_not_read_the_time_after(self, photos, shop, tiny):
        run(photos, shop, tiny)
        os.utime(photos / "a.jpg", ns=(SECOND, SECOND))
        assert counts(run(photos, shop, tiny)) == only(unchanged=5)
        assert SECOND in [record.mtime_ns for _, record in shop.scan()]

    def test_an_edited_an_added_and_a_renamed_picture(self, photos, shop, tiny):
        run(photos, shop, tiny)
        before = {record.path: record for _, record in shop.scan()}
        draw(photos / "a.jpg", 100)
        draw(photos / "f.jpg", 101)
        (photos / "b.png").rename(photos / "z.png")
        assert counts(run(photos, shop, tiny)) == only(added=2, changed=1, unchanged=3, encoded=3)
        after = {record.path: record for _, record in shop.scan()}
        assert after[str(photos / "a.jpg")] != before[str(photos / "a.jpg")]
        assert after[str(photos / "z.png")].sha256 == before[str(photos / "b.png")].sha256
        assert indexed(shop) == ["a.jpg", "b.png", "c.webp", "d.gif", "e.bmp", "f.jpg", "z.png"]

    def test_a_folder_that_moved_keeps_its_objects_and_learns_their_paths(self, photos, shop, tiny):
        run(photos, shop, tiny)
        moved = photos.rename(photos.parent / "moved")
        assert counts(run(moved, shop, tiny)) == only(unchanged=5)
        assert all(record.path.startswith(str(moved)) for _, record in shop.scan())
        assert shop.count() == 5

    def test_hidden_files_and_other_files_are_passed_over(self, photos, shop, tiny):
        (photos / "notes.txt").write_text("x")
        (photos / "inner" / "table.csv").write_text("x")
        draw(photos / ".hidden.png", 1)
        draw(photos / ".git" / "x.png", 1)
        draw(photos / "UPPER.JPG", 6)
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=6, encoded=6)
        assert report.skipped == 2

    def test_links_are_followed_once_and_loops_end(self, photos, shop, tiny, tmp_path):
        draw(tmp_path / "elsewhere" / "x.png", 50)
        (photos / "aaa").symlink_to(tmp_path / "elsewhere")
        (photos / "again").symlink_to(tmp_path / "elsewhere")
        (photos / "inner" / "self").symlink_to(photos)
        (photos / "inner" / "up").symlink_to(tmp_path)
        (tmp_path / "elsewhere" / "back").symlink_to(photos / "inner")
        (photos / "link.jpg").symlink_to(photos / "a.jpg")
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=7, encoded=7)
        assert indexed(shop) == ["a.jpg", "b.png", "c.webp", "d.gif", "e.bmp", "link.jpg", "x.png"]

    def test_an_empty_folder_is_fine(self, shop, tiny, tmp_path):
        (tmp_path / "empty").mkdir()
        report = run(tmp_path / "empty", shop, tiny)
        assert counts(report) == only()
        assert report.complete


class TestWhatFails:
    def test_a_picture_replaced_by_a_damaged_one_keeps_its_object(self, photos, shop, tiny):
        run(photos, shop, tiny)
        (photos / "a.jpg").write_bytes(b"\xff\xd8\xff damaged")
        report = run(photos, shop, tiny)
        assert counts(report) == only(unchanged=4, failed=1)
        assert report.failed[0].path == "a.jpg"
        assert shop.count() == 5

    def test_a_picture_that_vanishes_after_the_listing_fails_alone(self, photos, shop, tiny):
        source = open_source(photos)
        listing = source.items
        source.items = lambda: iter([*listing(), (photos / "a.jpg").unlink()][:-1])
        report = sync(source, shop, tiny)
        assert counts(report) == only(added=4, failed=1, encoded=4)
        assert str(report.failed[0]).startswith("a.jpg does not exist")

    def test_a_picture_that_vanishes_before_it_is_read_fails_alone(self, photos, shop, tiny, monkeypatch):
        reading = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: (path.name == "a.jpg" and path.unlink()) or reading(path))
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=4, failed=1, encoded=4)
        assert str(report.failed[0]).startswith("a.jpg does not exist")

    def test_a_folder_that_cannot_be_listed_fails_alone(self, photos, shop, tiny, monkeypatch):
        (photos / "inner").chmod(0)
        if os.geteuid() == 0:  # root reads everything, so the refusal is faked
            listing = os.scandir

            def refusing(path):
                if Path(path).name == "inner":
                    raise PermissionError(errno.EACCES, "Permission denied")
                return listing(path)

            monkeypatch.setattr(os, "scandir", refusing)
        report = run(photos, shop, tiny)
        (photos / "inner").chmod(0o755)
        assert counts(report) == only(added=3, failed=1, encoded=3)
        assert (report.failed[0].path, report.failed[0].reason) == ("inner", "directory")

    def test_a_name_that_is_not_utf8_fails_alone(self, photos, shop, tiny):
        shutil.copy(photos / "a.jpg", os.fsencode(photos) + b"/b\xffd.jpg")
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=5, failed=1, encoded=5)
        assert "not UTF-8" in str(report.failed[0])
        json.dumps(report.failed[0].path, ensure_ascii=False).encode()

    def test_pipes_and_broken_links_fail_alone(self, photos, shop, tiny):
        os.mkfifo(photos / "pipe.jpg")
        (photos / "nowhere.jpg").symlink_to(photos / "gone.jpg")
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=5, failed=2, encoded=5)

    def test_an_embedding_without_direction_fails_alone(self, photos, shop, tiny, monkeypatch):
        embed = tiny.embed_pixels
        monkeypatch.setattr(
            tiny, "embed_pixels", lambda pixels: embed(pixels) * np.array([[np.nan], [0], [1], [1], [1]])
        )
        report = run(photos, shop, tiny)
        assert counts(report) == only(added=3, failed=2, encoded=5)
        assert {failure.reason for failure in report.failed} == {"embedding"}

    def test_a_model_that_fails_ends_the_run_with_a_sentence(self, photos, shop, tiny, monkeypatch):
        def out_of_memory(pixels):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(tiny, "embed_pixels", out_of_memory)
        with pytest.raises(ModelError, match=r"'tiny' failed on a batch of 5 pictures \(out of memory\).*--batch-size"):
            run(photos, shop, tiny)

    def test_a_database_that_fails_ends_the_run_and_keeps_what_was_written(self, photos, shop, tiny, monkeypatch):
        writing, calls = shop.upsert, []

        def failing(points):
            calls.append(len(points))
            if len(calls) > 1:
                raise CollectionError("the disk is full")
            writing(points)

        monkeypatch.setattr(shop, "upsert", failing)
        report = Report()
        with pytest.raises(CollectionError, match="the disk is full"):
            run(photos, shop, tiny, batch_size=1, report=report)
        assert (report.added, report.complete) == (1, False)
        assert len(calls) <= 3
        monkeypatch.undo()
        assert counts(run(photos, shop, tiny)) == only(added=4, unchanged=1, encoded=4)

    def test_another_backbone_is_refused_before_anything_is_read(self, photos, shop, tiny):
        ensure(shop, ModelRecord("other", "ff" * 32, tiny.dim))
        with pytest.raises(BackboneMismatch, match=r"other@ffff.*tiny@"):
            run(photos, shop, tiny)
        assert shop.count() == 0


def test_progress_grows_to_the_total(photos, shop, tiny):
    seen = []
    run(photos, shop, tiny, batch_size=2, on_progress=lambda report: seen.append((report.handled, report.total)))
    assert seen == sorted(seen)
    assert seen[-1] == (5, 5)


def test_no_more_pictures_are_decoded_ahead_than_a_few_batches(shop, tiny, tmp_path, monkeypatch):
    for i in range(60):
        draw(tmp_path / "many" / f"{i}.png", i)
    ahead, most = [0], [0]
    preprocess, embed = tiny.preprocess, tiny.embed_pixels

    def counted(image):
        ahead[0] += 1
        most[0] = max(most[0], ahead[0])
        return preprocess(image)

    def taken(pixels):
        ahead[0] -= len(pixels)
        time.sleep(0.05)
        return embed(pixels)

    monkeypatch.setattr(tiny, "preprocess", counted)
    monkeypatch.setattr(tiny, "embed_pixels", taken)
    assert run(tmp_path / "many", shop, tiny, batch_size=4, workers=2).added == 60
    assert most[0] <= 2 * 4 + 2 + 4
