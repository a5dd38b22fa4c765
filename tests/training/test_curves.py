"""`cir-vectorizer train` with --plot, --tensorboard and --picture-index."""

import importlib.util
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models

from cir_vectorizer.cli import main
from cir_vectorizer.errors import ModelError
from cir_vectorizer.models import read_record
from cir_vectorizer_trainer.phi.curves import plot
from cir_vectorizer_trainer.phi.picture_index import embeddings_of_pictures
from cir_vectorizer_trainer.progress import Validation
from examples.demo.catalog import catalog, pictures
from tests.training.test_train_edits import SETTINGS, table, train

__all__ = ["table"]


def test_a_plot_has_a_panel_for_the_loss_and_one_for_the_figures(tmp_path):
    history = [Validation(step, 1 / (1 + step)) for step in (0, 100, 200)]
    plot(history, tmp_path / "loss.png")
    judged = [Validation(e.step, e.loss, figures={"r_at_1": 0.1, "score": e.step / 200}) for e in history]
    plot(judged, tmp_path / "both.png")
    sizes = {}
    for name in ("loss", "both"):
        with Image.open(tmp_path / f"{name}.png") as image:
            sizes[name] = image.size
            colours = {colour for _, colour in image.getcolors(100_000)}
            assert len(colours) > 3
    assert sizes["both"][1] > 1.5 * sizes["loss"][1]


def test_train_draws_its_curves(table, tmp_path):
    file = tmp_path / "curves.png"
    arguments = ("--edits", table, "--out", tmp_path / "model", "--steps", 2, *SETTINGS)
    assert train(*arguments, "--plot", file).exit_code == 0
    with Image.open(file) as image:
        assert image.format == "PNG"
    result = train(*arguments, "--overwrite", "--plot", tmp_path / "missing" / "curves.png")
    assert result.exit_code == 1
    assert "correct --plot" in result.output


def test_tensorboard_is_asked_for_before_the_training(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = train("--edits", table, "--out", tmp_path / "model", "--tensorboard", tmp_path / "board", *SETTINGS)
    assert result.exit_code == 1
    assert "pip install tensorboard" in result.output
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_scalars(table, tmp_path):
    board = tmp_path / "board"
    train("--edits", table, "--out", tmp_path / "model", "--steps", 2, "--tensorboard", board, *SETTINGS)
    assert list(board.iterdir())


def test_a_folder_of_pictures_is_judged_with(tiny, table, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = list(pictures(catalog(5)))
    for number, picture in enumerate(drawn):
        picture.save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    found = embeddings_of_pictures(str(folder), tiny)
    mean, count = found.mean(dim=0), len(found)
    assert count == 5
    np.testing.assert_allclose(mean.numpy(), np.mean(tiny.embed_images(drawn), axis=0), atol=1e-3)
    arguments = ("--edits", table, "--steps", 2, "--from-scratch", *SETTINGS)
    result = train(*arguments, "--out", tmp_path / "model", "--picture-index", folder)
    assert result.exit_code == 0, result.output
    assert "judged with 5 pictures" in result.output
    curve = read_record(tmp_path / "model")["composers"]["lincir"]["training"]["curve"]
    assert all(0 <= entry["figures"]["pictures_r_at_10"] <= 1 for entry in curve)


def test_a_collection_gives_the_mean_of_its_embeddings(tiny, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = list(pictures(catalog(5)))
    for number, picture in enumerate(drawn):
        picture.save(folder / f"{number}.png")
    address = f"qdrant:{tmp_path / 'index'}/shop"
    report = ("--report", str(tmp_path / "report.json"))
    result = CliRunner().invoke(main, ["sync", str(folder), "--to", address, "--model", "tiny", *report])
    assert result.exit_code == 0, result.output
    found = embeddings_of_pictures(address, tiny)
    mean, count = found.mean(dim=0), len(found)
    assert count == 5
    np.testing.assert_allclose(mean.numpy(), np.mean(tiny.embed_images(drawn), axis=0), atol=1e-3)


def test_a_place_without_pictures_is_a_sentence(table, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ("--edits", table, "--out", tmp_path / "model", "--steps", 2, *SETTINGS)
    result = train(*arguments, "--picture-index", tmp_path / "empty")
    assert result.exit_code == 1
    assert "correct --picture-index" in result.output or "no picture" in result.output


def test_a_collection_with_several_vectors_is_refused(tmp_path, tiny):
    vectors = {name: models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE) for name in ("back", "front")}
    client = QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("shop", vectors_config=vectors)
    client.close()
    with pytest.raises(
        ModelError, match="has the vectors back, front, and --picture-index takes a collection with one"
    ):
        embeddings_of_pictures(f"qdrant:{tmp_path / 'index'}/shop", tiny)
