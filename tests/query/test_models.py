"""Model folders: records are read without loading a model, and a model is loaded with the parts asked for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cir_vectorizer.errors import CheckpointError, ModelError, QueryError
from cir_vectorizer.models import describe, load, save
from cir_vectorizer.models.published import TINY_FOLDER


@pytest.fixture
def folder(tmp_path):
    """A copy of the packaged model folder."""
    return Path(shutil.copytree(TINY_FOLDER, tmp_path / "model"))


def file_of(folder, composer):
    return folder / describe(str(folder)).composers[composer]["file"]


class TestDescribe:
    def test_the_record_says_what_the_loaded_model_says(self, tiny):
        record = describe("tiny")
        backbone = tiny.backbone
        for name in ("name", "fingerprint", "dim", "former_fingerprint", "precision", "default_composer"):
            assert getattr(record, name) == getattr(tiny, name)
        assert (record.backbone, record.mean_image_norm) == (backbone.spec, backbone.mean_image_norm)
        assert (record.text_fingerprint, record.token_width) == (backbone.text.fingerprint, backbone.text.facts.width)
        assert set(record.composers) == {"lincir", "compodiff"}
        assert record.composers["lincir"]["prompt"] == tiny.composers["lincir"].prompts.of(None).prompt

    def test_no_weights_are_read(self, folder, tiny):
        for path in folder.glob("*.safetensors"):
            path.unlink()
        assert describe(str(folder)).fingerprint == tiny.fingerprint

    def test_nothing_heavy_is_imported(self):
        code = (
            "import sys; from cir_vectorizer import models; print(models.describe('tiny').fingerprint)\n"
            "print([name for name in ('torch', 'open_clip', 'transformers', 'PIL') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("open_clip:ViT-B-32,pretrained=openai", "without a model folder.*load it, or make a folder"),
            ("lincir-vit-l", "is not fetched yet; run `cir-vectorizer models pull lincir-vit-l`"),
            ("no-such-model", "no model 'no-such-model': no such folder"),
        ],
    )
    def test_without_a_record_the_remedy_is_said(self, name, says, tmp_path, monkeypatch):
        monkeypatch.setenv("CIR_MODELS", str(tmp_path))
        with pytest.raises(ModelError, match=says):
            describe(name)


class TestParts:
    def test_the_parts_that_are_asked_for_are_loaded_beside_those_without_weights(self):
        weightless = {"image", "text", "sum"}
        for parts in ((), ("lincir",), ("lincir", "compodiff")):
            assert set(load("tiny", "cpu", parts=parts).composers) == {*weightless, *parts}

    def test_the_default_composer_is_one_that_is_there(self):
        assert load("tiny", "cpu", parts=("lincir",)).default_composer == "lincir"
        assert load("tiny", "cpu", parts=()).default_composer == "sum"

    def test_a_default_composer_that_is_not_installed_is_not_replaced_by_another(self, folder):
        record = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**record, "default_composer": "magic"}))
        with pytest.raises(QueryError, match="has no composer 'magic'; it has"):
            load(str(folder), "cpu").compose([{"text": "a red dress", "negative_text": "stripes"}])

    def test_files_of_other_parts_may_be_missing_or_damaged(self, folder):
        file_of(folder, "lincir").write_bytes(b"damaged")
        file_of(folder, "compodiff").unlink()
        assert "compodiff" not in load(str(folder), "cpu", parts=()).composers
        with pytest.raises(CheckpointError, match="composer 'lincir' is damaged"):
            load(str(folder), "cpu", parts=("lincir",))

    def test_an_unknown_part_is_named(self):
        with pytest.raises(
            ModelError, match="model 'tiny' has no part 'magic'; name one of its composers with weights: lincir, com"
        ):
            load("tiny", "cpu", parts=("magic",))


def test_a_composer_whose_file_is_missing_does_not_go_along_into_a_new_folder(folder, tmp_path, tiny):
    file_of(folder, "lincir").unlink()
    save(tmp_path / "new", tiny.backbone, {}, beside=folder)
    record = describe(str(tmp_path / "new"))
    assert (set(record.composers), record.default_composer) == ({"compodiff"}, "compodiff")
    assert "compodiff" in load(str(tmp_path / "new"), "cpu").composers
