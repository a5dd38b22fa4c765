"""`sync --engine ray`: the same collection as without Ray."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import CreateOptions, open_collection
from cir_vectorizer.errors import ModelError
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.indexing import counts, draw, only, table

pytest.importorskip("ray", reason="ray is not installed (pip install 'cir-vectorizer[ray]')")
pytestmark = pytest.mark.slow

from cir_vectorizer.sync.ray_decoders import RayDecoders  # noqa: E402


def contents(shop):
    """Return payload and vector of each object by its id."""
    return {point.id: (point.payload, point.vector) for point in shop.get([id_ for id_, _ in shop.scan()])}


def same(plain, by_ray):
    ours, theirs = contents(plain), contents(by_ray)
    assert ours.keys() == theirs.keys()
    for id_, (payload, vector) in ours.items():
        other_payload, other_vector = theirs[id_]
        norm, other_norm = payload["_cir"].pop("norm"), other_payload["_cir"].pop("norm")
        assert payload == other_payload
        assert norm == pytest.approx(other_norm, rel=1e-5)
        assert np.abs(vector - other_vector).max() <= 1e-5


def failures(report):
    return sorted((each.path, each.reason, each.sentence) for each in report.failed)


def test_two_runs_give_the_same_collection_and_report_as_the_plain_engine(tmp_path, tiny):
    folder = tmp_path / "photos"
    for i in range(40):
        draw(folder / f"{i:02}.png", i)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html><body>404</body></html>")
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:60])
    plain = open_collection(f"qdrant:{tmp_path}/plain/shop")
    by_ray = open_collection(f"qdrant:{tmp_path}/ray/shop")

    def both():
        ours = sync(open_source(str(folder)), plain, tiny, batch_size=8)
        theirs = sync(open_source(str(folder)), by_ray, tiny, batch_size=8, decoders=decoders)
        assert counts(ours) == counts(theirs)
        assert failures(ours) == failures(theirs)
        assert (ours.total, ours.complete, ours.changes) == (theirs.total, theirs.complete, theirs.changes)
        same(plain, by_ray)
        return theirs

    with RayDecoders(tiny, device="cpu", batch_size=8) as decoders:
        report = both()
        assert (report.added, report.encoded, len(report.failed)) == (40, 40, 3)
        draw(folder / "00.png", 100)
        draw(folder / "new.png", 101)
        (folder / "empty.jpg").unlink()
        (folder / "01.png").touch()
        report = both()
        assert (report.added, report.changed, report.encoded, len(report.failed)) == (1, 1, 2, 2)
    plain.close()
    by_ray.close()


def test_texts_are_embedded_by_the_actors(photos, tmp_path, tiny, monkeypatch):
    rows = [{"image": name, "title": f"{name} in red"} for name in ("a.jpg", "b.png", "c.webp")]
    shop = open_collection(f"qdrant:{tmp_path}/index/shop")
    titles = CreateOptions(text_columns=("title",))

    def index():
        source = open_source(str(table(photos / "catalog.jsonl", rows)))
        report = sync(source, shop, tiny, batch_size=2, create=titles, yes=True, decoders=decoders)
        found = shop.get([id_ for id_, _ in shop.scan()])
        wanted = [texts.get(each.payload["title"]) for each in found]
        assert np.abs(np.stack([each.text_vector for each in found]) - np.stack(wanted)).max() <= 1e-5
        return report.encoded, report.texts, len(report.failed)

    new = "a blue one"
    titles_seen = [*(row["title"] for row in rows), new]
    texts = dict(zip(titles_seen, tiny.embed_texts(titles_seen), strict=True))
    sync(open_source(str(table(photos / "catalog.jsonl", rows[:1]))), shop, tiny)
    monkeypatch.setattr(type(tiny), "run", None)  # only the actors embed
    with RayDecoders(tiny, device="cpu", batch_size=2) as decoders:
        assert index() == (2, 3, 0)
        rows[1]["title"] = new
        assert index() == (0, 1, 0)
        assert index() == (0, 0, 0)
    shop.close()


def test_the_command_starts_a_ray_of_this_machine(photos, tmp_path):
    arguments = ["sync", photos, "--to", f"qdrant:{tmp_path}/index/shop", "--engine", "ray", "--device", "cpu"]
    result = CliRunner().invoke(main, [*map(str, arguments), "--report", str(tmp_path / "r.json")])
    assert result.exit_code == 0, result.output
    assert "added 5, changed 0, unchanged 0, failed 0" in result.output
    assert json.loads((tmp_path / "r.json").read_text())["encoded"] == 5


def test_with_gpus_the_actors_take_them_and_tasks_read(photos, tmp_path, tiny):
    """The GPU is a fake: Ray is told of one, and the model runs on whatever device torch finds."""
    import ray

    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    shop = open_collection(f"qdrant:{tmp_path}/index/shop")
    try:
        with RayDecoders(tiny) as decoders:
            report = sync(open_source(str(photos)), shop, tiny, decoders=decoders)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
        shop.close()
    assert counts(report) == only(added=5, encoded=5)


def test_a_cluster_that_does_not_answer_is_named(tiny):
    with pytest.raises(ModelError, match=r"no Ray answers at 127.0.0.1:1 .*correct --ray-address"):
        RayDecoders(tiny, "127.0.0.1:1").__enter__()


def test_a_worker_with_other_weights_ends_the_run_with_a_sentence(photos, tmp_path, tiny):
    class Other:
        """A fake: the same model with another fingerprint."""

        name, dim, limits, backbone, fingerprint = "tiny", tiny.dim, tiny.limits, tiny.backbone, "0" * 64
        former_fingerprint, precision = "1" * 64, "float32"

    shop = open_collection(f"qdrant:{tmp_path}/index/shop")
    with (
        RayDecoders(Other(), device="cpu") as decoders,
        pytest.raises(ModelError, match="other weights on a Ray worker"),
    ):
        sync(open_source(str(photos)), shop, Other(), decoders=decoders)
    shop.close()
