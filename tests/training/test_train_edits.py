"""`cir-vectorizer train --objective edits`: Φ and an adapter of the text tower learn to change a caption."""

import json
import random
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch.nn import functional as F

from cir_vectorizer.backbones import BackboneSpec, TokenRow, load_backbone
from cir_vectorizer.cli import main
from cir_vectorizer.composers.prompts import OURS
from cir_vectorizer.models import load, read_record
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.phi.edits_examples import EditExamples
from cir_vectorizer_trainer.phi.edits_loss import EditBatch, EditWeights, contrastive_loss, edits_loss
from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer, lincir_of
from examples.demo.catalog import CATEGORIES, COLOURS

SETTINGS = ("--batch-size", 16, "--seed", 3, "--lr", "1e-3", "--schedule", "constant")


def edits(count: int = 200) -> list[Edit]:
    """Changes of a colour, in two wordings."""
    rng = random.Random(0)
    found: dict[Edit, None] = {}
    while len(found) < count:
        category, (old, new) = rng.choice(CATEGORIES), rng.sample(sorted(COLOURS), 2)
        wording = rng.choice(["make it {v}", "{v} instead"])
        found[Edit(f"a {old} {category}", wording.format(v=new), f"a {new} {category}", "replace", wording)] = None
    return list(found)


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "edits.jsonl"
    rows = [{"reference": e.reference, "words": e.words, "target": e.target} for e in edits()]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def train(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments), "--device", "cpu"])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / read_record(folder)["composers"]["lincir"]["file"])


def trainer_of(model, some=None, captions=(), from_scratch=False, **settings) -> EditTrainer:
    hyperparameters = EditHyperparameters(**{"batch_size": 16, "lr": 1e-3, **settings})
    chosen = edits() if some is None else some
    start = None if from_scratch else lincir_of(model)
    return EditTrainer(model.backbone, chosen, captions, BuiltinTagger(), hyperparameters, start)


def test_training_lowers_the_loss_and_writes_a_model_folder_with_an_adapter(table, tmp_path):
    out = tmp_path / "model"
    result = train("--objective", "edits", "--edits", table, "--out", out, "--steps", 40, *SETTINGS)
    assert result.exit_code == 0, result.output
    entry = read_record(out)["composers"]["lincir"]
    record = entry["training"]
    assert record["best_validation_loss"] < 0.9 * record["first_validation_loss"]
    assert (record["objective"], record["temperature"], record["squared_weight"]) == ("edits", 0.1, 2.0)
    assert record["edits"] + record["validation_edits"] <= 200
    assert entry["adapter"]["rank"] == record["adapter_rank"] == 8
    model = load(str(out), "cpu")
    query = {"image": [1.0] * model.dim, "text": "make it red"}
    assert (model.compose([query]).vectors != model.compose([{**query, "options": {"adapter": False}}]).vectors).any()


def test_without_adapting_the_text_tower_phi_alone_learns(table, tmp_path):
    out = tmp_path / "model"
    arguments = ("--objective", "edits", "--edits", table, "--out", out, "--steps", 2, *SETTINGS)
    assert train(*arguments, "--no-adapt-text-tower").exit_code == 0
    assert "adapter" not in read_record(out)["composers"]["lincir"]
    assert not [name for name in weights_of(out) if name.startswith("adapter.")]
    result = train(*arguments, "--resume")
    assert "adapt-text-tower False, not True" in result.output


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(table, tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"a {pattern} {c}" for pattern in ("striped", "dotted") for c in CATEGORIES))
    common = ("--objective", "edits", "--edits", table, "--captions", captions, *SETTINGS)
    train(*common, "--out", tmp_path / "whole", "--steps", 20)
    train(*common, "--out", tmp_path / "parts", "--steps", 7)
    result = train(*common, "--out", tmp_path / "parts", "--steps", 20, "--resume")
    assert result.exit_code == 0, result.output
    whole, parts = (torch.load(tmp_path / run / "training.pt", weights_only=True) for run in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 20
    assert all(torch.equal(tensor, parts["learning"][name]) for name, tensor in whole["learning"].items())
    assert read_record(tmp_path / "whole")["composers"]["lincir"]["training"]["anchor_captions_a_step"] == 2


def test_resume_refuses_another_objective_other_edits_and_another_start(table, tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(dict.fromkeys(e.reference for e in edits())))
    edited, rebuilt = tmp_path / "edited", tmp_path / "rebuilt"
    common = ("--objective", "edits", "--edits", table, *SETTINGS)
    assert train(*common, "--out", edited, "--steps", 2).exit_code == 0
    published = ("--objective", "lincir", "--from-scratch", "--captions", captions, *SETTINGS)
    assert train(*published, "--out", rebuilt, "--steps", 2).exit_code == 0
    result = train(*published, "--out", edited, "--steps", 3, "--resume")
    assert "learns by objective edits, not lincir" in result.output
    result = train(*common, "--out", rebuilt, "--steps", 3, "--resume")
    assert "learns by objective lincir, not edits" in result.output
    result = train(*common, "--out", edited, "--steps", 3, "--resume", "--model", rebuilt)
    assert "started from other weights" in result.output
    lines = table.read_text().splitlines()
    table.write_text("\n".join(reversed(lines)))
    assert "belongs to other edits, or to another order" in train(*common, "--out", edited, "--resume").output


def test_a_training_goes_on_from_the_phi_and_the_adapter_of_its_model(table, tmp_path, tiny):
    first = tmp_path / "first"
    train("--objective", "edits", "--edits", table, "--out", first, "--steps", 20, *SETTINGS)
    trainer = trainer_of(load(str(first), "cpu"))
    assert all(torch.equal(trainer.adapter.tensors()[n], t) for n, t in weights_of(first).items() if "adapter" in n)
    assert all(torch.equal(trainer.phi.state_dict()[n], t) for n, t in weights_of(first).items() if "adapter" not in n)
    assert lincir_of(tiny).adapter is None, "the packaged model is the published recipe's"


def test_prompts_of_edits_are_in_the_language_of_the_captions(tiny, table, tmp_path):
    text = tiny.backbone.text.tokenizer
    german = EditExamples(edits(20), tiny.backbone, [], 0.5, OURS["de"]).batch([0])
    words = edits(20)[0].words
    assert german.prompts[0] == text.marked_row(["ein Foto von ", 0, ", ", words, ""])
    assert german.empty == text.marked_row(["ein Foto von ", 0])
    removed = Edit("ein Hemd", "rot", "ein rotes Hemd", "not", "…", "gestreift")
    (row,) = EditExamples([removed], tiny.backbone, [], 0.5, OURS["de"]).batch([0]).prompts
    assert row == text.marked_row(["ein Foto von ", 0, ", ", "rot, nicht gestreift", ""])
    result = train("--edits", table, "--out", tmp_path / "m", "--steps", 1, *SETTINGS, "--language", "de")
    assert result.exit_code == 0, result.output
    assert read_record(tmp_path / "m")["composers"]["lincir"]["language"] == "de"
    assert trainer_of(tiny).judge.digest() != trainer_of(tiny, language="de").judge.digest()


def test_the_options_that_belong_together_are_asked_for(table, tmp_path):
    out = ("--out", tmp_path / "model")
    assert "Missing option '--captions'" in train(*out).output
    published = ("--objective", "lincir", *out)
    assert "--edits is for --objective edits" in train("--edits", table, *published).output
    assert "--attributes is for --objective edits" in train("--attributes", "colour", *published).output
    assert "--attributes is for edits made of the captions" in train("--edits", table, "--attributes", "a", *out).output


def test_edits_are_made_of_the_captions_unless_a_table_gives_them(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"a photo of a {colour} {kind}" for colour in COLOURS for kind in CATEGORIES))
    out = tmp_path / "model"
    result = train("--captions", captions, "--out", out, "--steps", 30, *SETTINGS)
    assert result.exit_code == 0, result.output
    assert re.search(r"(\d+) % of the \d+ captions gave edits", result.output)
    record = read_record(out)["composers"]["lincir"]
    assert record["training"]["objective"] == "edits"
    assert record["training"]["best_validation_loss"] < record["training"]["first_validation_loss"]
    assert record["adapter"]["rank"] == 8


def test_captions_of_which_no_edit_can_be_made_are_trained_on_as_published(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"{place} in winter" for place in ("oslo", "rome", "paris", "lima")))
    out = tmp_path / "model"
    result = train("--captions", captions, "--out", out, "--steps", 2, *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "the captions are trained on as LinCIR publishes it" in result.output
    assert "adapter" not in read_record(out)["composers"]["lincir"]
    again = train("--captions", captions, "--out", out, "--steps", 3, "--resume", *SETTINGS)
    assert again.exit_code == 0, again.output
    asked = train("--objective", "edits", "--captions", captions, "--out", out, "--overwrite", *SETTINGS)
    assert asked.exit_code == 1
    assert "no words of the captions take each other's place" in asked.output


def test_the_learning_rate_falls_along_a_cosine_unless_another_schedule_is_asked_for(table, tmp_path):
    out = tmp_path / "model"
    assert train("--edits", table, "--out", out, "--steps", 2).exit_code == 0
    assert read_record(out)["composers"]["lincir"]["training"]["schedule"] == "cosine"
    again = train("--edits", table, "--out", out, "--steps", 3, "--resume")
    assert again.exit_code == 0, again.output
    asked = train("--edits", table, "--out", out, "--steps", 4, "--schedule", "cosine", "--resume")
    assert (
        "learning rate falls to zero at step 3, and 4 steps were asked for; give --steps 3, or train anew"
        in asked.output
    )


def test_from_scratch_leaves_the_weights_of_the_model_out(table, tmp_path, tiny):
    losses = {}
    for name, options in (("on", ()), ("scratch", ("--from-scratch",))):
        out = tmp_path / name
        train("--edits", table, "--out", out, "--steps", 1, *options, *SETTINGS)
        losses[name] = read_record(out)["composers"]["lincir"]["training"]["first_validation_loss"]
    assert losses["on"] < 0.7 * losses["scratch"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"reference": "a", "words": "b"}'], "has no column 'target'"),
        (['"a"'], "edits.jsonl, row 1 is no JSON object"),
        (["{"], "line 1"),
        (['{"reference": "", "words": "b", "target": "c"}'], "'reference' is empty"),
        (['{"reference": "a", "words": "b", "target": "c"}'], "1 edits of 1 captions are too few"),
    ],
)
def test_a_table_that_holds_no_edits_is_a_sentence(lines, words, tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text("\n".join(lines))
    result = train("--objective", "edits", "--edits", path, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert words in result.output


def test_no_edit_of_a_held_out_caption_is_trained_on(tiny):
    trainer = trainer_of(tiny)
    held_out = {trainer.validation._captions[number] for number in trainer.validation._references.tolist()}
    assert held_out
    assert not held_out & set(trainer.examples._captions)


def test_targets_of_one_group_are_no_negatives():
    queries, targets = torch.randn(4, 8), torch.randn(4, 8)
    groups = torch.tensor([0, 1, 2, 1])
    cosines = F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T / 0.07
    without = {0: [0, 1, 2, 3], 1: [1, 0, 2], 2: [2, 0, 1, 3], 3: [3, 0, 2]}
    expected = torch.stack([-F.log_softmax(cosines[i, kept], 0)[0] for i, kept in without.items()]).mean()
    torch.testing.assert_close(contrastive_loss(queries, targets, groups, 0.07), expected)


def test_a_target_lies_halfway_to_the_mean_of_the_captions_with_its_values(tiny):
    made = [
        Edit("acme red dress", "in blue", "acme blue dress", "replace", "in …"),
        Edit("zeta red dress", "in blue", "zeta blue dress", "replace", "in …"),
        Edit("zeta red dress", "in green", "zeta green dress", "replace", "in …"),
    ]
    values = {"red": {("red",): 1}, "blue": {("blue",): 1}, "green": {("green",): 1}}
    kinds = [Kind("colour", "colour", values), Kind("type", "noun", {"dress": {("dress",): 1}})]
    examples = EditExamples(made, tiny.backbone, kinds, 0.5)
    batch = examples.batch([0, 1, 2])
    row = tiny.backbone.text.tokenizer.row
    blue, red = (
        tiny.backbone.text.encode_text([row(f"{brand} {colour} dress") for brand in ("acme", "zeta")])
        for colour in ("blue", "red")
    )
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(batch.targets[:2], 0.5 * blue + 0.5 * blue.mean(0), **close)
    torch.testing.assert_close(batch.targets[3:5], 0.5 * red + 0.5 * red.mean(0), **close)
    green = tiny.backbone.text.encode_text([row("zeta green dress")])[0]
    torch.testing.assert_close(batch.targets[2], green, **close)
    assert batch.groups.tolist() == [batch.groups[0]] * 2 + [batch.groups[2]] + [batch.groups[3]] * 3
    assert len(set(batch.groups.tolist())) == 3


def test_the_reference_is_a_negative_of_its_own_edit(tiny):
    """The loss of one edit alone is not zero: its reference competes with its target, and the other way round."""
    trainer = trainer_of(tiny)
    batch = trainer.examples.batch([0])
    weights = EditWeights(squared=0.0)
    assert edits_loss(tiny.backbone.text, trainer.phi(batch.references), batch, weights) > 0
    itself = batch.references.expand(2, -1)
    same = EditBatch(batch.prompts, batch.empty, batch.references, itself, torch.zeros(2, dtype=torch.long))
    assert edits_loss(tiny.backbone.text, trainer.phi(batch.references), same, weights) == 0


def test_the_adapter_learns_from_edits_and_not_from_captions_without_edit(tiny):
    captions = ["a striped hat", "a dotted mug", "a checked chair"]
    trainer = trainer_of(tiny, captions=captions)
    assert sorted(trainer.captions_without_edit) == sorted(captions)
    trainer.learning.eval()
    gradients = []
    for anchors in ([], [0, 1, 2]):
        torch.manual_seed(0)
        loss = trainer.loss([0, 1, 2, 3], anchors)
        parameters = [*trainer.adapter.up.values(), *trainer.phi.parameters()]
        gradients.append(torch.autograd.grad(loss, parameters))
    count = len(trainer.adapter.up)
    assert all(torch.equal(a, b) for a, b in zip(gradients[0][:count], gradients[1][:count], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(gradients[0][count:], gradients[1][count:], strict=True))


def test_gradients_of_a_step_are_those_of_plain_padded_rows():
    """In float64: packed rows with shared beginnings give the gradients of rows that are padded and encoded apart."""
    backbone = load_backbone(BackboneSpec("tiny", ""), "cpu", torch.float64)
    trainer = EditTrainer(backbone, edits(), (), BuiltinTagger(), EditHyperparameters(batch_size=64))
    trainer.learning.double().eval()
    torch.manual_seed(1)
    for parameter in trainer.adapter.up.values():
        torch.nn.init.normal_(parameter, std=0.1)
    batch, weights = trainer.examples.batch(range(64)), EditWeights()
    learning = list(trainer.learning.parameters())
    noised = batch.references + torch.randn(batch.references.shape, dtype=torch.float64)

    ours = edits_loss(trainer.reader(), trainer.phi(noised), batch, weights)
    reader, pseudo_tokens = trainer.reader(), trainer.phi(noised)
    rows = [
        TokenRow(row.ids, tuple((at, i % 64) for at, _ in row.slots))
        for i, row in enumerate([*batch.prompts, *[batch.empty] * 64])
    ]
    parts = list(reader._encode_padded(rows, pseudo_tokens))
    order = torch.tensor([i for indices, _ in parts for i in indices])
    queries = torch.cat([part for _, part in parts])[order.argsort()]
    plain = contrastive_loss(queries, batch.targets, batch.groups, 0.1) + 2 * F.mse_loss(queries, batch.targets)
    torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)
    for mine, theirs in zip(torch.autograd.grad(ours, learning), torch.autograd.grad(plain, learning), strict=True):
        assert (mine - theirs).abs().max() <= 1e-9 * max(1e-6, theirs.abs().max())


def test_the_best_weights_are_those_that_find_the_most_held_out_targets(tiny, monkeypatch):
    """A validation with a higher score is better, whatever its loss."""
    monkeypatch.setattr("cir_vectorizer_trainer.phi.training.VALIDATE_EVERY", 1)
    trainer = trainer_of(tiny)
    scores = iter((0.2, 0.6, 0.5, 0.55))
    monkeypatch.setattr(trainer.judge, "figures", lambda reader, phi: {"score": next(scores)})
    list(trainer.run(3))
    assert trainer.best_validation.step == 1
    assert [entry.figures["score"] for entry in trainer.history] == [0.2, 0.6, 0.5, 0.55]


def test_a_run_ends_when_its_patience_does(tiny, monkeypatch):
    monkeypatch.setattr("cir_vectorizer_trainer.phi.training.VALIDATE_EVERY", 1)
    trainer = trainer_of(tiny)
    trainer.patience = 2
    scores = iter((0.1, 0.6, 0.5, 0.4, 0.9))
    monkeypatch.setattr(trainer.judge, "figures", lambda reader, phi: {"score": next(scores)})
    assert [progress.step for progress in trainer.run(10)] == [1, 2, 3]
    assert trainer.out_of_patience
    assert list(trainer.run(10)) == []


def test_every_validation_is_in_the_record_and_in_the_saved_state(table, tmp_path):
    out = tmp_path / "model"
    train("--edits", table, "--out", out, "--steps", 30, "--from-scratch", *SETTINGS)
    record = read_record(out)["composers"]["lincir"]["training"]
    curve = record["curve"]
    assert [entry["step"] for entry in curve] == [0, 30]
    assert {"r_at_1", "r_at_10", "edit", "keep", "score"} <= curve[0]["figures"].keys()
    assert curve[1]["figures"]["score"] > curve[0]["figures"]["score"] + 0.1
    saved = torch.load(out / "training.pt", weights_only=True)
    assert [entry["figures"] for entry in saved["history"]] == [entry["figures"] for entry in curve]
