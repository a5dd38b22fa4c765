"""`--watch`: a round whenever the source has changed, until Ctrl-C."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cir_vectorizer.errors import CirError
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync, watch
from tests.support.indexing import counts, draw, indexed, only, table

pytest_plugins = ["tests.support.indexing"]


class Stopped(Exception):
    """Ends a watch after its last planned look."""


def looks(shop, model, source, *between, **options):
    """Watch `source` through one look and one more after each of `between`; return what each round reported."""
    steps, told = iter(between), []

    def sleep(seconds):
        step = next(steps, None)
        if step is None:
            raise Stopped
        told.append("look")
        step()

    with pytest.raises(Stopped):
        watch(
            lambda: open_source(source, **options),
            lambda listing: sync(listing, shop, model),
            1.0,
            told.append,
            sleep,
        )
    return [
        each if isinstance(each, str) else str(each) if isinstance(each, CirError) else counts(each) for each in told
    ]


def nothing():
    """No change between two looks."""


def test_a_round_takes_place_only_when_the_source_changed(photos, shop, tiny):
    told = looks(shop, tiny, photos, nothing, lambda: draw(photos / "new.png", 9), nothing)
    assert told == [only(added=5, encoded=5), "look", "look", only(added=1, unchanged=5, encoded=1), "look"]


def test_a_failed_round_does_not_end_it(photos, shop, tiny, tmp_path):
    told = looks(
        shop,
        tiny,
        photos,
        lambda: photos.rename(tmp_path / "away"),
        nothing,
        lambda: (tmp_path / "away").rename(photos),
    )
    assert told[0] == only(added=5, encoded=5)
    assert told[2].endswith(
        "does not exist; give a folder of pictures, or a .csv, .tsv, .jsonl, .ndjson or .parquet table"
    )
    assert told[4] == told[2]
    assert told[-1] == only(unchanged=5)


def test_after_failed_pictures_each_look_tries_again(photos, shop, tiny):
    (photos / "bad.png").write_bytes(b"bad")
    told = looks(shop, tiny, photos, nothing, lambda: (photos / "bad.png").unlink())
    assert told == [
        only(added=5, failed=1, encoded=5), "look", only(unchanged=5, failed=1), "look", only(unchanged=5),
    ]  # fmt: skip


def test_a_table_that_is_written_anew_is_seen(photos, shop, tiny):
    source = table(photos / "catalog.csv", [{"image": "a.jpg", "n": 1}])
    told = looks(shop, tiny, source, lambda: table(source, [{"image": "a.jpg", "n": 2}]), nothing)
    assert told == [only(added=1, encoded=1), "look", only(changed=1), "look"]


def test_the_command_follows_the_folder_and_ctrl_c_ends_it(photos, shop, tmp_path):
    command = [sys.executable, "-m", "cir_vectorizer.cli", "sync", photos, "--to", shop.address, "--watch"]
    command += ["--interval", "0.2", "--report", tmp_path / "r.json", "--device", "cpu"]
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from cir_vectorizer.cli import main; main(sys.argv[1:])"
    command[1:3] = ["-c", code]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(tmp_path / "r.json", lambda report: report["added"] == 5, process)
        draw(photos / "new.png", 9)
        wait_for(tmp_path / "r.json", lambda report: report["added"] == 1, process)
        shutil.rmtree(photos)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert re.findall(r"added \d+", shown) == ["added 5", "added 1"]
    assert "does not exist" in errors
    assert errors.rstrip().endswith("Stopped.")
    assert "Traceback" not in errors
    assert len(indexed(shop)) == 6


def wait_for(path, condition, process):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        if path.exists() and condition(json.loads(path.read_text())):
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"{path} does not say what it should; the command said: {process.communicate()}")
