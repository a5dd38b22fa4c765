"""Picture encoders in int8: checked on the customer's pictures, cached whole or not at all, and said where they differ."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cir_vectorizer import extras
from cir_vectorizer.cli import main
from cir_vectorizer.cli.serve import _load
from cir_vectorizer.errors import ModelError
from cir_vectorizer.models import int8, load
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.sync.ray_decoders import _Encode
from tests.query.test_precision import cosines, picture
from tests.support.indexing import draw

needs_int8 = pytest.mark.skipif(
    bool(extras.missing("int8")), reason="the extra int8 is missing (pip install 'cir-vectorizer[int8]')"
)
COUNT = int8.FEWEST_PICTURES


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this module, which keeps the copy of the packaged model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with as many pictures as a check needs."""
    made = tmp_path_factory.mktemp("pictures")
    for i in range(COUNT):
        draw(made / f"{i:02}.png", i)
    return made


@pytest.fixture
def lenient(monkeypatch):
    """Let copies pass whose neighbours differ: pictures of random blocks are all about equally near."""
    monkeypatch.setattr(int8, "LEAST_OVERLAP", 0.5)


def command(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_overlap_is_the_share_of_the_nearest_that_stay_nearest():
    one = np.eye(12, dtype=np.float32) + np.arange(144, dtype=np.float32).reshape(12, 12) / 100
    assert int8.overlap(one, one * 7) == 1.0
    angles = np.array([0.0, 0.1, 0.3, 2.0, 2.1, 2.5])
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert int8.overlap(points, points, top=1) == 1.0
    assert int8.overlap(points, points[[3, 1, 2, 0, 4, 5]], top=2) < 1.0


def test_without_the_extra_the_sentence_names_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(extras.MODULES, "int8", ("no_such_module",))
    result = command("sync", folder, "--to", f"qdrant:{tmp_path}/index/shop", "--model", "tiny", "--precision", "int8")
    assert result.exit_code == 1
    assert "--precision int8 needs packages that are not installed (no_such_module)" in result.output
    assert "pip install 'cir-vectorizer[int8]', or give --precision auto" in result.output


@needs_int8
class TestCopies:
    def test_one_that_is_not_checked_is_not_loaded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for loading in (lambda: load("tiny", "cpu", "int8"), lambda: _Encode("tiny", "cpu", "", "int8")):
            with pytest.raises(
                ModelError, match=r"'tiny' is not checked on this machine; run cir-vectorizer sync --prec"
            ):
                loading()

    def test_sync_checks_it_once_prints_the_figure_and_notes_the_precision(self, folder, shop, tmp_path, lenient, tiny):
        arguments = ["sync", folder, "--to", shop.address, "--model", "tiny", "--report", tmp_path / "r.json"]
        first = command(*arguments, "--precision", "int8")
        assert first.exit_code == 0, first.output
        assert "Checking int8 against float32" in first.stderr
        assert f"int8 on {COUNT} pictures of {folder}: " in first.stderr
        info = shop.info()
        assert (info.precision, info.fingerprint) == ("int8", tiny.fingerprint)
        points = shop.get([id_ for id_, _ in shop.scan()])
        paths = [folder / each.payload["_cir"]["path"] for each in points]
        assert cosines([each.vector for each in points], tiny.embed_images(paths)).min() > 0.99
        shop.close()
        second = command(*arguments, "--precision", "int8")
        assert second.exit_code == 0, second.output
        assert "Checking" not in second.stderr
        assert "of the 10 nearest are the same as in float32" in second.stderr
        search = ["search", "--in", shop.address, "--model", "tiny", "--image", folder / "01.png", "--json"]
        same, other = command(*search, "--precision", "int8"), command(*search)
        assert json.loads(same.stdout.splitlines()[0])["score"] > 0.9999
        assert "Note" not in same.stderr
        assert "embedded in int8, and this model runs in float32" in other.stderr

    def test_serve_loads_it_once_it_is_checked_or_checks_it_on_a_folder(self, folder, tmp_path, monkeypatch, lenient):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(ModelError, match="give serve --check-pictures FOLDER"):
            _load(Settings(precision="int8"))
        served = _load(Settings(precision="int8", check_pictures=folder))["tiny"]
        assert (served.precision, served.backbone.text.dtype) == ("int8", load("tiny", "cpu", "auto").backbone.dtype)
        assert _load(Settings(precision="int8"))["tiny"].precision == "int8"
        pixels = torch.stack([served.preprocess(picture(seed)) for seed in range(5)])
        together, alone = (
            served.embed_pixels(pixels),
            np.concatenate([served.embed_pixels(each[None]) for each in pixels]),
        )
        assert cosines(together, alone).min() > 0.999

    def test_one_that_changes_results_is_refused_with_the_figure(self, folder, shop, monkeypatch):
        monkeypatch.setattr(int8, "LEAST_OVERLAP", 1.01)
        monkeypatch.setattr(int8, "_passed", lambda folder: {})
        result = command("sync", folder, "--to", shop.address, "--model", "tiny", "--precision", "int8")
        assert result.exit_code == 1
        assert f"int8 would change results: on {COUNT} pictures of {folder}, " in result.output
        assert (
            "of the 10 nearest are the same as in float32, and 101% are needed; give --precision auto" in result.output
        )
        assert shop.info() is None

    def test_too_few_pictures_are_refused(self, photos, shop):
        result = command("sync", photos, "--to", shop.address, "--model", "tiny", "--precision", "int8")
        assert result.exit_code == 1
        assert f"at least {COUNT} pictures, and {photos} has 5 that can be read; give --precision auto" in result.output

    def test_it_is_written_whole_or_not_at_all(self, folder, tmp_path, tiny, monkeypatch, lenient):
        import onnxruntime.quantization

        def broken(float32, copy, **options):
            copy.write_bytes(b"half")
            raise RuntimeError("no space left")

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(onnxruntime.quantization, "quantize_dynamic", broken)
        with pytest.raises(ModelError, match=r"cannot be exported to int8 .no space left.; give --precision auto"):
            int8.check(tiny, [picture(seed) for seed in range(COUNT)], "pictures")
        assert [*(tmp_path / "cir-vectorizer" / "int8").iterdir()] == []
        assert torch.backends.mha.get_fastpath_enabled()

    def test_its_folder_is_of_one_picture_encoder(self, tiny, clip_folder):
        other = load(f"transformers:{clip_folder}", "cpu", parts=())
        assert int8.copy_folder(tiny.backbone) != int8.copy_folder(other.backbone)
        assert int8.copy_folder(tiny.backbone) == int8.copy_folder(load("tiny", "cpu", "bfloat16").backbone)
