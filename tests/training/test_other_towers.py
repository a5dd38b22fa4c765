"""Training over text towers of every kind: rows of 64 that are never cut, contexts of 16 and 32, mean pooling."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks.made_encoders import write_open_clip, write_transformers
from cir_vectorizer.cli import main
from cir_vectorizer.models import Vectorizer, load, read_record
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger, all_keyword_spans, prepare
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.probes import Probe
from cir_vectorizer_trainer.phi.edits_loss import UNIT, EditWeights
from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer
from cir_vectorizer_trainer.phi.examples import make_examples
from cir_vectorizer_trainer.phi.judging import NOISES, Judge
from cir_vectorizer_trainer.phi.loss import LENGTH, Noise
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from cir_vectorizer_trainer.state import weights_of
from examples.demo.catalog import CATEGORIES, COLOURS
from tests.training.test_other_languages import GERMAN

Kinds = Callable[[str], Vectorizer]

KINDS = ("siglip", "siglip2", "pe", "clipa", "worldwide", "roberta", "mt5")
"""Padded to 64 and read at the last place; a context of 32 with CLIP's tokenizer; the same with BERT's; MetaCLIP 2's, causal,
with another vocabulary; mean pooling over encoders of the transformers library."""
OF_TRANSFORMERS = ("siglip2", "metaclip_2", "chinese_clip", "altclip", "vision-text-dual-encoder")
"""Dual encoders of the transformers library."""
BOTH = (*KINDS, *(f"transformers:{kind}" for kind in OF_TRANSFORMERS))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """Return a function that makes a model of a kind at random weights, once."""
    root = tmp_path_factory.mktemp("towers")

    def model(kind: str) -> Vectorizer:
        return load(model_of(kind, root), "cpu")

    return model


def model_of(kind: str, root: Path) -> str:
    """Return the name of a model of a kind, whose folder is written into `root` unless it is there."""
    library, _, name = kind.rpartition(":")
    folder = root / f"{library}-{name}"
    if not folder.is_dir():
        (write_transformers if library else write_open_clip)(name, folder)
    return f"{library}:{folder}" if library else str(folder)


def captions() -> list[str]:
    return [f"a {colour} {kind} with long sleeves" for colour in sorted(COLOURS) for kind in CATEGORIES]


def edits() -> list[Edit]:
    colours = sorted(COLOURS)
    return [
        Edit(f"a {old} {kind}", f"is {new}", f"a {new} {kind}", "replace", "is {v}")
        for kind in CATEGORIES[:8]
        for old, new in pairwise(colours)
    ]


def composed(model: Vectorizer, **options: object) -> torch.Tensor:
    picture = torch.randn(model.dim, generator=torch.Generator().manual_seed(0)).tolist()
    query = {"image": {"vector": picture}, "text": "is red", "options": options}
    return torch.from_numpy(model.compose([query]).vectors[0])


# --- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*BOTH, "siglip-16"])
def test_masked_and_whole_captions_hold_the_same_words(made: Kinds, kind: str) -> None:
    text = made(kind).backbone.text
    texts = ["a red dress with long sleeves", "a red dress with " * 60, "$"]
    for example in make_examples(texts, text.tokenizer, BuiltinTagger(), 0):
        assert len(example.original.ids) <= text.facts.context_length
        assert len(example.masked.ids) <= text.facts.context_length
        assert example.masked.slots
        assert all(example.masked.ids[at] == text.facts.marker_id for at, _ in example.masked.slots)
        assert not example.masked.cut


@pytest.mark.parametrize("kind", ["siglip", "siglip-16", "clipa", "worldwide", "roberta"])
def test_a_text_is_cut_to_what_a_row_holds(made: Kinds, kind: str) -> None:
    tokenizer = made(kind).backbone.text.tokenizer
    long = "a photo of a red dress with long sleeves " * 40
    kept = tokenizer.cut(long)
    assert tokenizer.row(long).cut
    assert long.startswith(kept[:-1])
    assert tokenizer.row(kept).ids == tokenizer.row(long).ids
    assert tokenizer.cut("a red dress") == "a red dress"


def test_captions_keep_their_capitals_where_the_tower_reads_them(made: Kinds) -> None:
    tokenizer = made("roberta").backbone.text.tokenizer
    title = "Striped T-Shirt with Logo"
    (example,) = make_examples([title], tokenizer, BuiltinTagger(), 0)
    assert tokenizer.decode(example.original.ids) == title
    assert len(example.masked.slots) == 2
    (spans,) = all_keyword_spans([title], BuiltinTagger())
    (lower,) = all_keyword_spans([prepare(title)], BuiltinTagger())
    assert spans == lower


# --- noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*BOTH, "clip", "mobileclip"])
def test_only_towers_of_clips_form_get_the_published_noise(made: Kinds, kind: str) -> None:
    text = made(kind).backbone.text
    embeddings = torch.randn(50, text.dim) * 3
    noise = Noise.of(text, embeddings)
    if kind == "clip":
        assert noise.to_record() == {"kind": "published", "sigma": 1.0}
        assert noise.scale == 1
    else:
        assert noise.to_record() == {"kind": "relative", "sigma": math.sqrt(text.dim) / LENGTH}
        assert noise.scale == pytest.approx(embeddings.norm(dim=-1).mean().item() / LENGTH)
    assert Noise.of(text, 10 * embeddings).strength == pytest.approx(noise.strength / (10 if kind == "clip" else 1))


def test_held_out_queries_are_noised_in_the_unit_of_the_embeddings(made: Kinds) -> None:
    backbone = made("siglip").backbone
    judge = Judge(backbone, [Probe(edit, None, None) for edit in edits()])
    references = judge.embeddings[judge._references]
    seen: list[torch.Tensor] = []

    def phi(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs)
        return torch.zeros(len(inputs), backbone.text.facts.width)

    judge.figures(backbone.text, phi)
    length = judge.embeddings.norm(dim=1).mean().item()
    for noise, inputs in zip(NOISES, seen, strict=True):
        drawn = (inputs - references).norm(dim=1).mean().item()
        assert drawn == pytest.approx(noise * length / LENGTH * math.sqrt(backbone.dim) / 2, rel=0.2)


def test_weights_of_squared_errors_follow_the_length_of_the_embeddings() -> None:
    weights = EditWeights()
    assert weights.for_unit(UNIT) == weights
    longer = weights.for_unit(2 * UNIT)
    assert (longer.squared, longer.anchor) == (weights.squared / 4, weights.anchor / 4)
    assert longer.temperature == weights.temperature


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_phi_learns_and_composes(made: Kinds, kind: str, tmp_path: Path) -> None:
    settings = Hyperparameters(batch_size=32, lr=1e-3)
    trainer = PhiTrainer(made(kind).backbone, captions(), BuiltinTagger(), settings)
    for _ in trainer.run(15):
        pass
    first, last = trainer.history[0].loss, trainer.history[-1].loss
    assert last < 0.8 * first
    trainer.save(tmp_path / "model", complete=True)
    assert read_record(tmp_path / "model")["composers"]["lincir"]["training"]["noise"]["kind"] == "relative"
    model = load(str(tmp_path / "model"), "cpu")
    assert composed(model).norm().item() == pytest.approx(1, abs=1e-5)
    (words,) = model.composers["lincir"].explain(torch.randn(1, model.dim), 3)
    assert len(words) == 3
    assert all(word.isalpha() and -1 <= cosine <= 1 for word, cosine in words)


@pytest.mark.parametrize("kind", BOTH)
def test_phi_and_an_adapter_learn_from_edits(made: Kinds, kind: str, tmp_path: Path) -> None:
    backbone = made(kind).backbone
    settings = EditHyperparameters(batch_size=16, lr=1e-3)
    trainer = EditTrainer(backbone, edits(), captions()[:20], BuiltinTagger(), settings)
    for _ in trainer.run(15):
        pass
    assert trainer.history[-1].loss < trainer.history[0].loss
    assert all(up.abs().sum() > 0 for up in trainer.adapter.up.values())
    trainer.best = weights_of(trainer.learning)  # at random weights the first ones may be judged as good
    trainer.save(tmp_path / "model", complete=True)
    record = read_record(tmp_path / "model")["composers"]["lincir"]["training"]
    assert record["squared_weight"] == pytest.approx(EditWeights().squared * (UNIT / trainer.noise.unit) ** 2)
    model = load(str(tmp_path / "model"), "cpu")
    assert not torch.equal(composed(model), composed(model, adapter=False))
    assert (model.embed_texts(["a red dress"]) == made(kind).embed_texts(["a red dress"])).all()


def test_german_captions_train_over_a_multilingual_tower(tmp_path: Path) -> None:
    (tmp_path / "titel.txt").write_text("\n".join(GERMAN), encoding="utf-8")
    arguments = (
        "train", "--model", model_of("worldwide", tmp_path), "--captions", tmp_path / "titel.txt", "--language", "de",
        "--out", tmp_path / "model", "--steps", 3, "--batch-size", 8, "--device", "cpu",
    )  # fmt: skip
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert f"noise {math.sqrt(48) / LENGTH:.3g} x mean ‖e‖/√dim (published: " in result.output
    training = read_record(tmp_path / "model")["composers"]["lincir"]["training"]
    assert training["objective"] == "edits"
    assert training["tagger"].startswith("builtin:in,mit,für:")
    assert composed(load(str(tmp_path / "model"), "cpu")).norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "roberta", "worldwide"])
def test_compodiff_reads_the_states_of_other_towers(kind: str, tmp_path: Path) -> None:
    lines = ["image,caption"]
    for number, colour in enumerate(list(COLOURS)[:8]):
        Image.new("RGB", (32, 32), (30 * number, 80, 120)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,a {colour} dress")
    (tmp_path / "shop.csv").write_text("\n".join(lines))
    arguments = (
        "train-compodiff", "--model", model_of(kind, tmp_path), "--pairs", tmp_path / "shop.csv", "--out",
        tmp_path / "model", "--prior-steps", 2, "--steps", 2, "--depth", 1, "--heads", 2, "--head-dim", 8, "--batch-size", 4,
        "--masks", 1, "--device", "cpu",
    )  # fmt: skip
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    vectors = load(str(tmp_path / "model"), "cpu").compose([{"text": "a red dress", "composer": "compodiff"}]).vectors
    assert vectors.shape == (1, 48 if kind != "roberta" else 64)
