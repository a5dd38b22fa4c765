"""`--dry-run`: it tells what a run would do, and writes nothing."""

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import ModelRecord, open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import dry_run
from tests.support.indexing import draw, indexed, run, table

pytest_plugins = ["tests.support.indexing"]


@pytest.fixture
def dry(photos, shop, tmp_path, monkeypatch):
    """Run `sync --dry-run` of the photos into the shop, check that it wrote nothing, and return its output."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def invoke(*arguments):
        shop.close()
        before = states(shop)
        shop.close()
        result = CliRunner().invoke(main, ["sync", str(photos), "--to", str(shop.address), "--dry-run", *arguments])
        assert result.exit_code == 0, result.output
        assert states(shop) == before
        assert list(here.iterdir()) == []
        return result.output

    return invoke


def states(shop):
    return None if shop.info() is None else sorted(shop.scan(), key=str)


def test_a_new_collection_would_be_made(dry, shop):
    shown = dry()
    assert "add      a.jpg\n" in shown
    assert "Nothing was written. A run would give: added 5, changed 0, unchanged 0, failed 0" in shown
    assert not shop.address.path.exists()


def test_each_change_has_its_line(dry, photos, shop, tiny):
    run(photos, shop, tiny)
    draw(photos / "a.jpg", 100)
    (photos / "b.png").touch()
    (photos / "c.webp").unlink()
    draw(photos / "new.png", 101)
    shown = dry("--prune")
    lines = ["encode   a.jpg", "add      new.png", f"remove   {photos}/c.webp"]
    assert [line for line in shown.splitlines() if line in lines] == lines
    assert "added 1, changed 1, unchanged 3, removed 1, failed 0" in shown


def test_a_payload_alone_is_said(photos, shop, tiny):
    run(table(photos / "t.csv", [{"image": "a.jpg", "n": 1}]), shop, tiny)
    source = open_source(table(photos / "t.csv", [{"image": "a.jpg", "n": 2}]))
    made = dry_run(source, shop, ModelRecord(tiny.name, tiny.fingerprint, tiny.dim))
    assert made.lines == ["payload  a.jpg"]


def test_only_the_first_lines_are_shown(dry, photos):
    for i in range(30):
        draw(photos / f"more-{i}.png", i)
    shown = dry()
    assert shown.count("add  ") == 20
    assert "… and 15 more" in shown


def test_a_refusal_to_prune_is_a_note(dry, photos, shop, tiny):
    run(photos, shop, tiny)
    for name in ("a.jpg", "b.png"):
        (photos / name).unlink()
    assert "Note: nothing was removed: 2 of the 5 objects" in dry("--prune")
    assert "removed 2" in dry("--prune", "--yes")
    assert len(indexed(shop)) == 5


def test_another_backbone_would_be_embedded_anew(dry, photos, shop, tiny, clip_folder):
    run(photos, shop, tiny)
    shown = dry("--model", str(clip_folder), "--device", "cpu", "--reembed")
    assert "embed everything anew into qdrant:" in shown
    assert "added 5" in shown


def test_no_model_is_loaded(photos, shop, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr("cir_vectorizer.models.load", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["sync", str(photos), "--to", str(shop.address), "--dry-run"])
    assert result.exit_code == 0, result.output


def test_what_cannot_be_read_is_listed(photos, shop, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    result = CliRunner().invoke(main, ["sync", str(photos), "--to", str(shop.address), "--dry-run"])
    assert "gone.jpg does not exist" in result.output
    assert "added 5, changed 0, unchanged 0, failed 1" in result.output
    assert open_collection(shop.address).info() is None
