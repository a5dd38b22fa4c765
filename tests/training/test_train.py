"""`cir-vectorizer train`: text in, a better Φ out, and a run that can be stopped and continued."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from benchmarks.train_phi import PlainRecipe, differences
from cir_vectorizer.cli import main
from cir_vectorizer.composers.prompts import OURS
from cir_vectorizer.errors import CaptionError, ModelError
from cir_vectorizer.models import load, read_record
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger, prepare
from cir_vectorizer_trainer.phi.examples import make_examples
from cir_vectorizer_trainer.phi.loss import add_noise, self_masking_loss
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from examples.demo.catalog import SEEN, caption

RESUMED = ("--batch-size", 16, "--seed", 3)


def captions(count: int = 300) -> list[str]:
    rng = random.Random(0)
    return list(dict.fromkeys(caption(rng.choice(SEEN), rng) for _ in range(2 * count)))[:count]


@pytest.fixture
def caption_file(tmp_path) -> Path:
    return write_captions(tmp_path)


def write_captions(folder: Path) -> Path:
    path = folder / "captions.txt"
    path.write_text("\n".join(captions()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of an uninterrupted run of 150 steps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(*RESUMED, "--captions", write_captions(folder), "--out", folder / "whole", "--steps", 150)
    return folder / "whole"


def train(*arguments, **kwargs):
    return CliRunner().invoke(
        main, ["train", "--objective", "lincir", "--from-scratch", *map(str, arguments), "--device", "cpu"], **kwargs
    )


def phi_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / read_record(folder)["composers"]["lincir"]["file"])


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_lowers_the_validation_loss_and_writes_a_model_folder(caption_file, tmp_path):
    out = tmp_path / "model"
    result = train("--captions", caption_file, "--out", out, "--steps", 120, "--batch-size", 64, "--lr", "1e-3")
    assert result.exit_code == 0, result.output
    record = read_record(out)["composers"]["lincir"]["training"]
    assert record["best_validation_loss"] < 0.6 * record["first_validation_loss"]
    assert record["complete"]
    assert record["captions"] + record["validation_captions"] == 300
    model = load(str(out), "cpu")
    assert model.compose([{"image": [1.0] * model.dim, "text": "is red"}]).vectors.shape == (1, model.dim)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(caption_file, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train("--captions", caption_file, "--out", tmp_path / name, "--steps", 3, "--batch-size", 32, "--seed", seed)
    assert same(phi_of(tmp_path / "a"), phi_of(tmp_path / "b"))
    assert not same(phi_of(tmp_path / "a"), phi_of(tmp_path / "c"))


@pytest.mark.parametrize("first", [7, 100, 130])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(caption_file, uninterrupted, tmp_path, first):
    common = ("--captions", caption_file, *RESUMED)
    train(*common, "--out", tmp_path / "parts", "--steps", first)
    result = train(*common, "--out", tmp_path / "parts", "--steps", 150, "--resume")
    assert result.exit_code == 0, result.output
    whole, parts = (torch.load(run / "training.pt", weights_only=True) for run in (uninterrupted, tmp_path / "parts"))
    assert same(whole["phi"], parts["phi"])
    assert whole["step"] == parts["step"] == 150


def test_ctrl_c_saves_and_resume_goes_on(caption_file, tmp_path):
    out = tmp_path / "model"
    command = [sys.executable, "-m", "cir_vectorizer.cli", "train", "--captions", str(caption_file), "--out", str(out),
               "--batch-size", "16", "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen([*command, "--steps", "100000"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "training.pt").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in said
    done = torch.load(out / "training.pt", weights_only=True)["step"]
    assert not read_record(out)["composers"]["lincir"]["training"]["complete"]
    subprocess.run([*command, "--steps", str(done + 5), "--resume"], check=True, stderr=subprocess.DEVNULL)
    assert torch.load(out / "training.pt", weights_only=True)["step"] == done + 5


def test_resume_refuses_other_captions_other_settings_and_an_empty_folder(caption_file, tmp_path):
    out = tmp_path / "model"
    assert "run without --resume" in train("--captions", caption_file, "--out", out, "--resume").output
    train("--captions", caption_file, "--out", out, "--steps", 2, "--batch-size", 16)
    assert (
        "batch-size 16, not 8" in train("--captions", caption_file, "--out", out, "--batch-size", 8, "--resume").output
    )
    caption_file.write_text("a red dress\na blue hat\n")
    assert "other captions" in train("--captions", caption_file, "--out", out, "--batch-size", 16, "--resume").output


def test_a_model_that_is_trained_in_a_language_is_asked_in_it(caption_file, tmp_path):
    common = ("--captions", caption_file, "--out", tmp_path / "de", *RESUMED)
    result = train(*common, "--language", "de-AT", "--steps", 2)
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "de")["composers"]["lincir"]
    assert (record["language"], list(record["prompts"]), record["training"]["language"]) == ("de", ["de"], "de-AT")
    model = load(str(tmp_path / "de"), "cpu")
    query = {"image": [1.0] * model.dim, "text": "in rot"}
    queries = [query, {**query, "template": "ein Foto von $, {text}"}, {**query, "language": "en"}]
    own, german, english = model.compose(queries).vectors
    assert abs(own - german).max() < 1e-6 < abs(own - english).max()
    resumed = train(*common, "--steps", 3, "--resume")
    assert "give the same --keywords and --language" in resumed.output


def test_a_language_without_a_prompt_of_ours_is_trained_in_english_and_said(caption_file, tmp_path):
    result = train("--captions", caption_file, "--out", tmp_path / "m", *RESUMED, "--language", "sw", "--steps", 1)
    assert result.exit_code == 0, result.output
    assert "no prompt in 'sw' is built in, so prompts are in English" in result.stderr
    assert "language" not in read_record(tmp_path / "m")["composers"]["lincir"]


def test_a_state_from_before_there_were_languages_is_resumed_in_english(caption_file, tmp_path):
    common = ("--captions", caption_file, "--out", tmp_path / "m", *RESUMED)
    train(*common, "--steps", 2)
    state = torch.load(tmp_path / "m" / "training.pt", weights_only=True)
    del state["settings"]["language"]
    torch.save(state, tmp_path / "m" / "training.pt")
    assert train(*common, "--steps", 3, "--resume").exit_code == 0


def test_a_caption_without_keywords_is_the_prompt_of_the_language(tiny):
    """With a context of nothing but the caption, no marker is left of it."""
    tokenizer = tiny.backbone.text.tokenizer
    (example,) = make_examples([""], tokenizer, BuiltinTagger(), 0, OURS["de"])
    assert example.masked == tokenizer.marked_row(["ein Foto von ", 0, ""])


def test_resume_refuses_a_damaged_state(caption_file, tmp_path):
    (tmp_path / "training.pt").write_bytes(b"junk")
    result = train("--captions", caption_file, "--out", tmp_path, "--resume")
    assert result.exit_code == 1
    assert "training.pt cannot be read" in result.output
    assert "train anew with --overwrite" in result.output


def test_resume_refuses_the_same_captions_in_another_order(caption_file, tmp_path):
    """Another order would hold out other captions, most of which the first run was trained on."""
    out = ("--out", tmp_path / "model", "--batch-size", 16)
    train("--captions", caption_file, *out, "--steps", 2)
    lines = caption_file.read_text().splitlines()
    caption_file.write_text("\n".join(reversed(lines)))
    result = train("--captions", caption_file, *out, "--steps", 4, "--resume")
    assert result.exit_code == 1
    assert "the same captions in another order, so other ones were held out" in result.output
    caption_file.write_text("\n".join(lines))
    assert train("--captions", caption_file, *out, "--steps", 4, "--resume").exit_code == 0


def test_resume_refuses_another_tagger(caption_file, tmp_path, monkeypatch):
    class OtherTagger(BuiltinTagger):
        """The built-in tagger under another name, as spaCy's would have."""

        name = "spacy:en_core_web_sm"

    out = ("--captions", caption_file, "--out", tmp_path / "model", "--batch-size", 16)
    train(*out, "--steps", 2)
    monkeypatch.setattr("cir_vectorizer_trainer.captions.keywords.best_tagger", OtherTagger)
    result = train(*out, "--steps", 4, "--resume")
    assert result.exit_code == 1
    assert "keywords tagged by builtin, and here spacy:en_core_web_sm does it" in result.output


def test_resume_refuses_another_share_of_held_out_captions_and_another_backbone(tiny, tmp_path):
    texts = captions(40)
    trainer = PhiTrainer(tiny.backbone, texts, BuiltinTagger(), Hyperparameters(batch_size=8))
    assert list(trainer.run(1))
    trainer.save(tmp_path, complete=False)
    other = PhiTrainer(tiny.backbone, texts, BuiltinTagger(), Hyperparameters(batch_size=8, validation_share=0.2))
    with pytest.raises(ModelError, match=r"validation-share 0\.05, not 0\.2"):
        other.resume(tmp_path)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    torch.save({**state, "material": {**state["material"], "backbone": "0" * 64}}, tmp_path / "training.pt")
    with pytest.raises(ModelError, match="over another text encoder"):
        trainer.resume(tmp_path)
    del state["material"]
    torch.save(state, tmp_path / "training.pt")
    with pytest.raises(ModelError, match=r"saved by release 0\.1\.0"):
        trainer.resume(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "no caption"), ("\n \n", "no caption"), ("a red dress\n", "too few"), ("a red dress\n" * 50, "too few")],
)
def test_too_few_captions_are_a_sentence(content, words, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text(content)
    result = train("--captions", path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_odd_captions_train(tmp_path):
    lines = [
        "👗",
        "赤いドレス",
        "red " * 500,
        "$",
        "<PERSON> in a hat",
        "of the",
        "a red dress",
        "," * 90,
        "it is and of " * 60,
    ]
    path = tmp_path / "odd.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines + ["a red dress"] * 100_000).encode()))
    result = train("--captions", path, "--out", tmp_path / "out", "--steps", 4, "--batch-size", 8)
    assert result.exit_code == 0, result.output
    assert "100,000" in result.output


def test_captions_come_from_standard_input_and_from_a_named_column(tmp_path):
    out = ("--steps", 2, "--batch-size", 4)
    result = train("--captions", "-", "--out", tmp_path / "a", *out, input="\n".join(captions(20)))
    assert result.exit_code == 0, result.output
    table = tmp_path / "products.jsonl"
    table.write_text("\n".join(json.dumps({"sku": i, "title": c, "brand": "x"}) for i, c in enumerate(captions(20))))
    assert (
        "sku, title, brand"
        in (refused := train("--captions", table, "--column", "name", "--out", tmp_path / "b", *out)).output
    )
    assert refused.exit_code == 1
    assert train("--captions", table, "--column", "title", "--out", tmp_path / "b", *out).exit_code == 0


def test_one_caption_is_refused_by_the_trainer_too(tiny):
    with pytest.raises(CaptionError):
        PhiTrainer(tiny.backbone, ["a red dress"], BuiltinTagger(), Hyperparameters())


def test_masked_rows_hold_their_markers_and_long_captions_keep_one(tiny):
    texts = ["a red dress with long sleeves", "of the " * 60 + "red dress", "it is " * 80]
    for example in make_examples(texts, tiny.backbone.text.tokenizer, BuiltinTagger(), 0):
        assert example.masked.slots
        assert all(example.masked.ids[at] == tiny.backbone.text.facts.marker_id for at, _ in example.masked.slots)
        assert len(example.original.ids) <= 77
        assert len(example.masked.ids) <= 77


def test_clip_reads_captions_in_lower_case_as_published(tiny):
    texts = ["A Red DRESS with long Sleeves", "It IS there", "MEN'S t-shirt, $ 5 <PERSON>", "It Is " * 80]
    lower = [prepare(text) for text in texts]
    made = [make_examples(each, tiny.backbone.text.tokenizer, BuiltinTagger(), 0) for each in (texts, lower)]
    assert made[0] == made[1]


def test_the_default_noise_is_the_published_one_in_any_unit(tiny):
    trainer = PhiTrainer(tiny.backbone, captions(50), BuiltinTagger(), Hyperparameters())
    assert trainer.noise.scale == 1
    assert trainer.noise.to_record() == {"kind": "published", "sigma": 1.0}
    doubled = Hyperparameters(noise_strength=2 * trainer.noise.strength)
    double = PhiTrainer(tiny.backbone, captions(50), BuiltinTagger(), doubled)
    assert double.noise.scale == pytest.approx(2)
    assert double.noise.to_record() == {"kind": "relative", "sigma": doubled.noise_strength}
    drawn = add_noise(torch.zeros(20_000, 16), 2.0, torch.Generator().manual_seed(0))
    assert drawn.std(dim=1).max() < 2 * 1.9
    assert drawn.pow(2).mean().sqrt().item() == pytest.approx(2 / 3**0.5, rel=0.02)


def test_loss_is_the_same_with_rows_alone_or_together(tiny):
    backbone = tiny.backbone
    examples = make_examples(captions(12), backbone.text.tokenizer, BuiltinTagger(), 0)
    phi = torch.nn.Linear(backbone.dim, backbone.text.facts.width)
    originals = backbone.text.encode_text([e.original for e in examples])
    together = self_masking_loss(backbone, phi, [e.masked for e in examples], originals, originals)
    alone = [
        self_masking_loss(backbone, phi, [e.masked], o[None], o[None]) for e, o in zip(examples, originals, strict=True)
    ]
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone) / len(alone), rel=1e-4)


def test_loss_and_gradients_are_those_of_the_plain_recipe(tiny):
    plain = PlainRecipe(tiny.backbone, Hyperparameters())
    trainer = PhiTrainer(tiny.backbone, captions(300), BuiltinTagger(), Hyperparameters())
    loss, gradient = differences(trainer, plain, 256)
    assert loss < 1e-6
    assert gradient < 1e-5


@pytest.mark.slow
def test_the_real_fashioniq_captions_train_tiny(shared, tmp_path):
    files = [shared / "data" / "fashioniq" / f"cap.{kind}.train.json" for kind in ("dress", "shirt", "toptee")]
    arguments = [part for file in files for part in ("--captions", file)]
    result = train(
        *arguments,
        "--column",
        "captions",
        "--out",
        tmp_path / "out",
        "--steps",
        60,
        "--batch-size",
        128,
        "--lr",
        "1e-3",
    )
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "out")["composers"]["lincir"]["training"]
    assert record["captions"] > 20_000
    assert record["best_validation_loss"] < record["first_validation_loss"]
    assert os.path.getsize(tmp_path / "out" / "model.json") < 5000
