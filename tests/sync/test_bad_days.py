"""Mishaps to sources during a sync, each with the sentence that the command line shows."""

import contextlib
import json
import os
import subprocess
import threading

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from cir_vectorizer.errors import CollectionError, PartialWriteError
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import Report, sync
from tests.support import servers
from tests.support.indexing import counts, draw, indexed, only, run

pytest_plugins = ["tests.support.indexing", "tests.support.servers"]


@pytest.fixture
def say(photos, shop, tmp_path):
    """Sync the photos again after a first run; return exit status, output and report."""
    arguments = [
        "sync",
        str(photos),
        "--to",
        str(shop.address),
        "--device",
        "cpu",
        "--report",
        str(tmp_path / "r.json"),
    ]

    def invoke(*more):
        shop.close()
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output, json.loads((tmp_path / "r.json").read_text())

    assert invoke()[0] == 0
    return invoke


class TestTheSource:
    def test_a_renamed_picture(self, photos, shop, say):
        (photos / "a.jpg").rename(photos / "z.jpg")
        status, shown, report = say("--prune", "--yes")
        assert (status, report["added"], report["removed"]) == (0, 1, 1)
        assert "added 1, changed 0, unchanged 4, removed 1, failed 0" in shown
        assert indexed(shop) == ["b.png", "c.webp", "d.gif", "e.bmp", "z.jpg"]

    def test_an_edited_picture(self, photos, say):
        draw(photos / "a.jpg", 100)
        status, shown, report = say()
        assert (status, report["changes"]["picture"]) == (0, 1)
        assert "added 0, changed 1, unchanged 4, failed 0" in shown

    def test_a_deleted_picture(self, photos, shop, say):
        (photos / "a.jpg").unlink()
        status, shown, _ = say("--prune")
        assert status == 0
        assert "unchanged 4, removed 1, failed 0" in shown
        assert len(indexed(shop)) == 4

    def test_a_picture_replaced_by_a_damaged_file(self, photos, shop, say):
        (photos / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
        status, shown, report = say("--prune")
        assert (status, report["removed"]) == (3, 0)
        assert "a.jpg is a cut short, damaged or oddly coded JPEG file; copy or export it again\n" in shown
        assert len(indexed(shop)) == 5

    def test_a_folder_that_cannot_be_read(self, photos, shop, say, monkeypatch):
        (photos / "inner").chmod(0)
        if os.geteuid() == 0:  # root reads everything, so the refusal is faked
            listing = os.scandir

            def refusing(path):
                if os.fspath(path).endswith("inner"):
                    raise PermissionError(13, "Permission denied")
                return listing(path)

            monkeypatch.setattr(os, "scandir", refusing)
        status, shown, report = say("--prune", "--yes")
        (photos / "inner").chmod(0o755)
        assert (status, report["removed"], len(report["failed"])) == (1, 0, 1)
        assert "inner cannot be listed (permission denied); check its permissions\n" in shown
        assert "error: nothing was removed: part of" in shown
        assert "so 2 objects that were not seen may still have their pictures" in shown
        assert len(indexed(shop)) == 5

    def test_a_loop_of_links(self, photos, shop, say):
        (photos / "inner" / "self").symlink_to(photos)
        (photos / "loop").symlink_to(photos / "loop")
        (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
        status, shown, _ = say("--prune")
        assert status == 3
        assert (
            "loop.jpg cannot be read (too many levels of symbolic links); check the file and its permissions\n" in shown
        )
        assert len(indexed(shop)) == 5

    def test_a_picture_that_vanishes_between_listing_and_reading(self, photos, shop, tiny):
        source = open_source(photos)
        listing = source.items

        def items():
            entries = list(listing())
            (photos / "a.jpg").unlink()
            yield from entries

        source.items = items
        report = sync(source, shop, tiny)
        assert counts(report) == only(added=4, failed=1, encoded=4)
        assert str(report.failed[0]) == ("a.jpg does not exist; correct the path, or it left while the source was read")

    def test_a_table_that_vanishes_while_it_is_read(self, photos, shop, tiny):
        (photos / "catalog.csv").write_text("image\na.jpg\n")
        source = open_source(photos / "catalog.csv")
        (photos / "catalog.csv").unlink()
        with pytest.raises(
            Exception, match=r"catalog.csv cannot be read \(no such file or directory\); check the file"
        ):
            sync(source, shop, tiny)


class TestTheReport:
    @pytest.fixture
    def full_disk(self, tmp_path):
        """A full file system."""
        folder = tmp_path / "full"
        folder.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], capture_output=True)
        if mounted.returncode:
            pytest.skip("no small file system can be mounted here")
        with contextlib.suppress(OSError):
            (folder / "filler").write_bytes(bytes(2**13))
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_no_room_for_it(self, photos, shop, tiny, full_disk):
        arguments = ["sync", str(photos), "--to", str(shop.address), "--device", "cpu"]
        result = CliRunner().invoke(main, [*arguments, "--report", str(full_disk / "r.json")])
        assert result.exit_code == 1
        assert "added 5, changed 0, unchanged 0, failed 0" in result.output
        sentence = "r.json cannot be written (No space left on device); give another place with --report\n"
        assert sentence in result.output
        assert [path.name for path in full_disk.iterdir()] == ["filler"]
        assert counts(run(photos, shop, tiny)) == only(unchanged=5)

    def test_it_is_written_when_the_run_cannot_go_on(self, photos, shop, say, monkeypatch, tmp_path):
        for i in range(8):
            draw(photos / f"more-{i}.png", i)
        plugin = type(shop)
        writing = plugin.upsert

        def failing(self, points):
            if any(point.payload["_cir"]["path"].endswith("more-5.png") for point in points):
                raise CollectionError("the disk of the database is full; make room")
            writing(self, points)

        monkeypatch.setattr(plugin, "upsert", failing)
        status, shown, report = say("--batch-size", "1")
        assert status == 1
        assert "error: the disk of the database is full; make room\n" in shown
        assert not report["complete"]
        assert report["added"] == len(indexed(shop)) - 5


class TestTheDatabase:
    def test_objects_that_it_refuses_are_listed_and_the_others_count(self, photos, shop, tiny, monkeypatch):
        writing = shop.upsert

        def refusing(points):
            refused = {point.id: "the cell 'ean' is no number" for point in points if "a.jpg" in str(point.payload)}
            writing([point for point in points if point.id not in refused])
            if refused:
                raise PartialWriteError(refused, len(points))

        monkeypatch.setattr(shop, "upsert", refusing)
        report = run(photos, shop, tiny, batch_size=2)
        assert counts(report) == only(added=4, failed=1, encoded=5)
        assert str(report.failed[0]) == "a.jpg was refused by the database: the cell 'ean' is no number"
        monkeypatch.undo()
        assert counts(run(photos, shop, tiny)) == only(added=1, unchanged=4, encoded=1)

    def test_one_that_takes_nothing_ends_the_run_after_three_batches(self, tmp_path, shop, tiny, monkeypatch):
        for i in range(12):
            draw(tmp_path / "many" / f"{i:02}.png", i)

        def refuse(points):
            raise PartialWriteError({point.id: "no room" for point in points}, len(points))

        monkeypatch.setattr(shop, "upsert", refuse)
        report = Report()
        with pytest.raises(CollectionError, match=r"refused 3 batches in a row whole.*no room; correct the cause"):
            sync(open_source(tmp_path / "many"), shop, tiny, batch_size=2, report=report)
        assert 6 <= len(report.failed) < 12
        report = sync(open_source(tmp_path / "many"), shop, tiny, batch_size=6)
        assert (report.complete, len(report.failed)) == (True, 12)

    def test_two_syncs_at_once_into_an_embedded_collection(self, photos, shop, tiny, tmp_path):
        run(photos, shop, tiny)
        arguments = ["sync", str(photos), "--to", str(shop.address), "--device", "cpu"]
        result = CliRunner().invoke(main, [*arguments, "--report", str(tmp_path / "r.json")])
        assert result.exit_code == 1
        assert "is in use by another process" in result.output


@pytest.fixture(scope="session")
def qdrant_address(tmp_path_factory):
    with servers.qdrant(tmp_path_factory.mktemp("qdrant"), "http://127.0.0.1:9/qdrant") as server:
        yield f"qdrant://{server.host}:{server.port}/shop"


@pytest.mark.live
class TestTwoSyncsAtOnce:
    COUNT = 200

    @pytest.fixture
    def many(self, tmp_path):
        for i in range(self.COUNT):
            draw(tmp_path / "many" / f"{i:03}.png", i)
        return tmp_path / "many"

    def at_once(self, *jobs):
        """Run jobs on threads; an exception of one is raised here."""
        done = [None] * len(jobs)

        def call(i):
            try:
                done[i] = jobs[i]()
            except BaseException as error:
                done[i] = error

        threads = [threading.Thread(target=call, args=[i]) for i in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return done

    def test_the_same_source_twice_gives_every_object_once(self, many, qdrant_address, tiny):
        def one():
            with contextlib.closing(open_collection(f"{qdrant_address}-twice")) as shop:
                return sync(open_source(many), shop, tiny, batch_size=8, prune=True)

        for report in self.at_once(one, one):
            assert (report.handled, report.removed, report.failed) == (self.COUNT, 0, [])
        with contextlib.closing(open_collection(f"{qdrant_address}-twice")) as shop:
            ids = [id_ for id_, _ in shop.scan()]
            assert len(ids) == len(set(ids)) == self.COUNT
            assert counts(sync(open_source(many), shop, tiny)) == only(unchanged=self.COUNT)

    def test_two_sources_with_prune_keep_each_others_objects(self, many, photos, qdrant_address, tiny):
        def one(folder):
            with contextlib.closing(open_collection(f"{qdrant_address}-both")) as shop:
                return sync(open_source(folder), shop, tiny, batch_size=8, prune=True)

        self.at_once(lambda: one(many), lambda: one(photos))
        (many / "000.png").unlink()
        reports = self.at_once(lambda: one(many), lambda: one(photos))
        assert [report.removed for report in reports] == [1, 0]
        with contextlib.closing(open_collection(f"{qdrant_address}-both")) as shop:
            assert shop.count() == self.COUNT - 1 + 5

    def test_pictures_that_come_while_both_run_are_not_removed_by_either(self, many, qdrant_address, tiny):
        address = f"{qdrant_address}-growing"
        stop = threading.Event()

        def one():
            with contextlib.closing(open_collection(address)) as shop:
                for _ in range(3):
                    sync(open_source(many), shop, tiny, batch_size=8, prune=True)

        def grow():
            for i in range(60):
                draw(many / f"new-{i:03}.png", 500 + i)
                stop.wait(0.05)

        self.at_once(one, one, grow)
        with contextlib.closing(open_collection(address)) as shop:
            sync(open_source(many), shop, tiny)
            assert shop.count() == self.COUNT + 60
