"""`cir-vectorizer sync`: exit statuses, the report, and runs that are stopped half way."""

import errno
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from tests.support.indexing import counts, draw, indexed, only, run

pytest_plugins = ["tests.support.indexing"]


class TestTheCommand:
    def sync(self, *arguments):
        return CliRunner().invoke(main, ["sync", *map(str, arguments)])

    def test_all_is_well(self, photos, shop, tmp_path):
        result = self.sync(photos, "--to", shop.address, "--model", "tiny", "--report", tmp_path / "r.json")
        assert result.exit_code == 0, result.output
        assert "added 5, changed 0, unchanged 0, failed 0" in result.output
        report = json.loads((tmp_path / "r.json").read_text())
        assert (report["added"], report["encoded"], report["complete"], report["failed"]) == (5, 5, True, [])
        assert (report["source"], report["collection"]) == (str(photos), str(shop.address))

    def test_bad_pictures_among_good_ones_give_status_3_and_stand_in_the_report(self, photos, shop, tmp_path):
        jpeg = (photos / "a.jpg").read_bytes()
        for i in range(20):
            kinds = [
                b"",
                b"hello",
                b"<html><body>404</body></html>",
                jpeg[: len(jpeg) // 2],
                b"\x89PNG\r\n\x1a\n" + bytes(50),
            ]
            (photos / f"bad-{i:02}.jpg").write_bytes(kinds[i % 5])
        result = self.sync(photos, "--to", shop.address, "--model", "tiny", "--report", tmp_path / "r.json")
        assert result.exit_code == 3, result.output
        assert "added 5, changed 0, unchanged 0, failed 20" in result.output
        assert "bad-00.jpg is empty" in result.output
        report = json.loads((tmp_path / "r.json").read_text())
        assert sorted(each["path"] for each in report["failed"]) == [f"bad-{i:02}.jpg" for i in range(20)]
        assert {each["reason"] for each in report["failed"]} == {"truncated", "format"}
        assert all(each["sentence"] for each in report["failed"])
        assert len(indexed(shop)) == 5

    def test_a_picture_over_the_limit_is_read_with_a_higher_one(self, photos, shop, tmp_path):
        Image.new("RGB", (1200, 1000)).save(photos / "large.png")
        to = ["--to", shop.address, "--model", "tiny", "--report", tmp_path / "r.json"]
        small = self.sync(photos, *to, "--max-megapixels", 1)
        assert small.exit_code == 3, small.output
        assert (
            "large.png is 1,200 × 1,000 = 1.2 megapixels, over the limit of 1; make it smaller, or raise --max-megapixels"
            in small.output
        )
        assert "added 1, changed 0, unchanged 5" in self.sync(photos, *to, "--max-megapixels", 2).output
        refused = self.sync(photos, *to, "--max-megapixels", 2, "--service", "http://127.0.0.1:1")
        assert "set CIR_MAX_MEGAPIXELS there" in " ".join(refused.output.split())

    def test_the_report_goes_to_the_users_folder_for_state_and_no_other(self, photos, shop, monkeypatch, tmp_path):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        result = self.sync(photos, "--to", shop.address)
        assert result.exit_code == 0
        assert list(Path.cwd().iterdir()) == []
        (report,) = (tmp_path / "state" / "cir-vectorizer").iterdir()
        assert report.name.startswith("shop-")
        assert f"Report: {report}" in result.stderr
        assert json.loads(report.read_text())["added"] == 5

    def test_a_folder_for_state_that_cannot_be_written_ends_no_run(self, photos, shop, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
        result = self.sync(photos, "--to", shop.address)
        assert result.exit_code == 0
        assert "cannot be written" in result.stderr

    def test_wrong_use_gives_status_2(self, photos, shop):
        assert self.sync(photos).exit_code == 2
        result = self.sync(photos, "--to", shop.address, "--report", photos / "no" / "r.json")
        assert result.exit_code == 2
        assert "does not exist" in result.output

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["nowhere", "--to", "qdrant:x/shop"], "nowhere does not exist"),
            ([".", "--to", "shop"], "does not say which database"),
            ([".", "--to", "milvus://host/shop"], "no plugin is installed for milvus"),
            ([".", "--to", "qdrant://127.0.0.1:9/shop"], "no Qdrant server answers at 127.0.0.1:9"),
            ([".", "--to", "qdrant:x/shop", "--model", "no-such-model"], "no-such-model"),
        ],
    )
    def test_what_cannot_go_on_gives_status_1_and_a_sentence(self, arguments, sentence, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = self.sync(*arguments)
        assert result.exit_code == 1
        assert sentence in result.output
        assert isinstance(result.exception, SystemExit)

    def test_two_syncs_at_once_into_an_embedded_collection_give_a_sentence(self, photos, shop, tiny, tmp_path):
        run(photos, shop, tiny)
        result = self.sync(photos, "--to", shop.address, "--report", tmp_path / "r.json")
        assert result.exit_code == 1
        assert "is in use by another process" in result.output

    def test_a_full_disk_for_the_report_gives_a_sentence(self, photos, shop, tmp_path, monkeypatch):
        def full(path, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("cir_vectorizer.sync.report.replace_file", full)
        result = self.sync(photos, "--to", shop.address, "--report", tmp_path / "r.json")
        assert result.exit_code == 1
        assert "added 5" in result.output
        assert "cannot be written (No space left on device); give another place with --report" in result.output


class TestInterruption:
    COUNT = 240

    @pytest.fixture
    def many(self, tmp_path):
        for i in range(self.COUNT):
            draw(tmp_path / "many" / f"{i:03}.png", i)
        return tmp_path / "many"

    def start(self, many, to, report, batch_size=4):
        """Start a sync in another process, and wait until some objects are written."""
        command = [sys.executable, "-m", "tests.support.slow_sync", many, to.address, report, batch_size]
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        storage = to.address.path / "collection" / "shop" / "storage.sqlite"
        while process.poll() is None and rows(storage) < 20:
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
        return process

    def test_after_kill_9_the_next_run_finishes_with_every_object_once(self, many, shop, tiny, tmp_path):
        process = self.start(many, shop, tmp_path / "r.json")
        process.kill()
        process.wait()
        written = shop.count()
        assert 20 <= written < self.COUNT
        report = run(many, shop, tiny)
        assert counts(report) == only(added=self.COUNT - written, unchanged=written, encoded=self.COUNT - written)
        whole = open_collection(f"qdrant:{tmp_path}/whole/shop")
        run(many, whole, tiny)
        ids = [id_ for id_, _ in shop.scan()]
        assert len(ids) == len(set(ids)) == self.COUNT
        expected = {point.id: point for point in whole.get(ids)}
        for point in shop.get(ids):
            assert point.payload["_cir"]["sha256"] == expected[point.id].payload["_cir"]["sha256"]
            np.testing.assert_allclose(point.vector, expected[point.id].vector, atol=1e-5)
        whole.close()

    def test_ctrl_c_stops_cleanly_with_a_report_and_the_next_run_goes_on(self, many, shop, tiny, tmp_path):
        process = self.start(many, shop, tmp_path / "r.json")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Stopped. added" in errors
        assert "Traceback" not in errors
        report = json.loads((tmp_path / "r.json").read_text())
        assert not report["complete"]
        assert report["added"] == shop.count()
        assert counts(run(many, shop, tiny))["unchanged"] == report["added"]


def rows(storage):
    """Count the objects that an embedded collection has on disk, without opening it."""
    if not storage.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{storage}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM points").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
