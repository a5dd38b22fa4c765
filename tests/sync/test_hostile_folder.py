"""A folder of hostile pictures among good ones: the good ones are indexed, and each bad one is in the report with its reason."""

import json
from pathlib import Path

from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from cir_vectorizer.sources import PICTURE_SUFFIXES
from tests.support.hostile import hostile_pictures, odd_but_good_pictures


def test_all_good_pictures_are_indexed_and_each_bad_one_is_reported(tmp_path):
    folder, report = tmp_path / "photos", tmp_path / "report.json"
    folder.mkdir()
    bad = hostile_pictures(folder)
    good = odd_but_good_pictures(folder)
    address = f"qdrant:{tmp_path}/index/shop"
    arguments = ["sync", str(folder), "--to", address, "--model", "tiny", "--report", str(report), "--device", "cpu"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3, result.output
    written = json.loads(report.read_text())
    failed = {failure["path"]: failure for failure in written["failed"]}
    bad = {name: reason for name, reason in bad.items() if Path(name).suffix in PICTURE_SUFFIXES}
    good = [name for name in good if Path(name).suffix in PICTURE_SUFFIXES]
    assert len(bad) >= 80
    assert {name: failure["reason"] for name, failure in failed.items()} == bad
    assert all(failure["sentence"] for failure in failed.values())
    assert written["added"] == len(good)
    collection = open_collection(address)
    assert collection.count() == len(good)
    collection.close()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 3
    assert json.loads(report.read_text())["encoded"] == 0
