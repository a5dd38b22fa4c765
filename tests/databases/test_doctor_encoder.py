"""`cir-vectorizer doctor` says what kind of encoder a model has."""

import json

from click.testing import CliRunner

from cir_vectorizer import models
from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.cli import main
from cir_vectorizer.composers.lincir import save_phi
from cir_vectorizer.composers.prompts import Prompts
from cir_vectorizer.doctor import encoder_finding

OPENAI = BackboneSpec.parse("open_clip:ViT-L-14-quickgelu,pretrained=openai")
SIGLIP_2 = BackboneSpec.parse("open_clip:ViT-B-16-SigLIP2-256,pretrained=webli")


def finding(tmp_path, model):
    shown = CliRunner().invoke(
        main, ["doctor", "--to", f"qdrant:{tmp_path}/none/shop", "--model", str(model), "--json"]
    )
    return next((each for each in json.loads(shown.stdout)["findings"] if each["check"] == "encoder"), None)


def test_of_a_loaded_model_it_says_how_the_text_tower_reads(tmp_path, clip_folder):
    found = finding(tmp_path, f"transformers:{clip_folder}")
    assert found["level"] == "ok"
    assert found["sentence"].endswith("reads texts of up to 77 tokens, causal, pooled at the end token")


def test_of_a_recommended_encoder_it_needs_no_weights():
    (found,) = encoder_finding(SIGLIP_2, None, "de")
    assert found.level == "ok"
    assert found.sentence == f"{SIGLIP_2} reads texts of up to 64 tokens, languages: 109"
    assert not list(encoder_finding(BackboneSpec("tiny", ""), None))


def test_prompts_in_a_language_that_the_encoder_does_not_know_are_a_warning():
    (found,) = encoder_finding(OPENAI, None, "de")
    assert found.level == "warning"
    assert (
        "languages: English, but the model's prompts are in 'de'; train over an encoder that knows it" in found.sentence
    )
    assert [each.level for each in encoder_finding(OPENAI, None)] == ["ok"]


def test_the_language_is_that_of_the_models_record(tiny, tmp_path):
    phi, folder = tiny.composers["lincir"].phi, tmp_path / "model"
    models.save(
        folder, tiny.backbone, {"lincir": (Prompts.built_in("de").to_record(), lambda path: save_phi(path, phi))}
    )
    assert finding(tmp_path, folder) is None
    record = models.read_record(folder)
    record["backbone"] |= {"loader": OPENAI.loader, "name": OPENAI.name, "options": dict(OPENAI.options)}
    (folder / "model.json").write_text(json.dumps(record))
    assert finding(tmp_path, folder)["level"] == "warning"
