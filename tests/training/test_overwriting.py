"""A training never replaces a composer in silence, nor drops an option that is given twice."""

import csv
import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cir_vectorizer.cli import main
from cir_vectorizer.models import import_checkpoint, read_record
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.models.record import read_folder
from examples.demo.catalog import SEEN, caption, draw

COMPODIFF = ("--depth", 1, "--heads", 2, "--head-dim", 8, "--batch-size", 8, "--masks", 0, "--prior-steps", 1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captions.txt, and shop.csv with pictures, titles and stories."""
    folder = tmp_path_factory.mktemp("shop")
    rng = random.Random(0)
    items = rng.sample(SEEN, 60)
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "words", "story"])
        for number, item in enumerate(items):
            if number < 24:
                draw(item, rng, 64).save(folder / f"{number}.png")
                writer.writerow([f"{number}.png", caption(item, rng), f"story {number}"])
    (folder / "captions.txt").write_text("\n".join(caption(item, rng) for item in items))
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def train(shop: Path, out: Path, *options: object, steps: int = 1) -> Result:
    given = ("--captions", shop / "captions.txt", "--out", out, "--steps", steps, "--batch-size", 8, "--device", "cpu")
    return invoke("train", "--objective", "lincir", *given, *options)


def train_compodiff(shop: Path, out: Path, *options: object, steps: int = 1) -> Result:
    table = ("--pairs", shop / "shop.csv", "--pair-columns", "picture,words")
    return invoke("train-compodiff", *table, "--out", out, "--steps", steps, "--device", "cpu", *COMPODIFF, *options)


def composers(folder: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_record(folder)["composers"].items()}


def test_a_finished_lincir_is_refused_unless_overwrite_or_resume_is_given(shop, tmp_path):
    out = tmp_path / "model"
    assert train(shop, out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = train(shop, out, "--seed", 1, "--from-scratch")
    assert refused.exit_code == 1
    assert f"{out} already holds a finished lincir over backbone tiny:" in refused.output
    assert "go on with its training by --resume, or replace it with --overwrite" in refused.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert train(shop, out, "--resume", steps=2).exit_code == 0
    assert read_record(out)["composers"]["lincir"]["training"]["steps"] == 2
    assert train(shop, out, "--overwrite", "--seed", 1, "--from-scratch").exit_code == 0
    assert read_record(out)["composers"]["lincir"]["training"]["seed"] == 1
    both = train(shop, out, "--overwrite", "--resume")
    assert both.exit_code == 2
    assert "leave one out" in both.output


def test_training_into_the_folder_of_its_own_model_needs_overwrite(shop, tmp_path):
    out = tmp_path / "model"
    assert train(shop, out).exit_code == 0
    assert "already holds a finished lincir" in train(shop, out, "--model", out).output
    others = composers(out)
    assert train(shop, out, "--model", out, "--overwrite", "--from-scratch", steps=2).exit_code == 0
    assert {name for name, digest in composers(out).items() if digest != others[name]} == {"lincir"}


def test_another_composer_is_added_and_a_resumed_run_keeps_it(shop, tmp_path):
    out = tmp_path / "model"
    phi = TINY_FOLDER / read_record(TINY_FOLDER)["composers"]["lincir"]["file"]
    import_checkpoint(phi, read_folder(TINY_FOLDER).backbone, out)
    assert train_compodiff(shop, out, "--model", out).exit_code == 0
    added = composers(out)
    assert set(added) == {"lincir", "compodiff"}
    refused = train_compodiff(shop, out, "--model", out)
    assert refused.exit_code == 1
    assert "already holds a finished compodiff" in refused.output
    assert "--resume" in refused.output
    lost = train(shop, out)
    assert "a finished lincir and compodiff" in lost.output, "tiny has another CompoDiff, which would replace this one"
    assert composers(out) == added
    assert train_compodiff(shop, out, "--model", out, "--overwrite", "--seed", 3).exit_code == 0
    own = tmp_path / "own"
    assert train(shop, own).exit_code == 0
    assert train_compodiff(shop, own, "--model", own, "--overwrite").exit_code == 0
    compodiff = composers(own)["compodiff"]
    assert compodiff != composers(TINY_FOLDER)["compodiff"]
    assert train(shop, own, "--resume", steps=3).exit_code == 0
    assert composers(own)["compodiff"] == compodiff


def test_the_folder_of_another_backbone_is_refused(shop, tmp_path):
    out = tmp_path / "padded"
    phi = TINY_FOLDER / read_record(TINY_FOLDER)["composers"]["lincir"]["file"]
    padded = read_folder(TINY_FOLDER).backbone
    import_checkpoint(phi, type(padded).parse("tiny:,target_pad=1.25"), out)
    for refused in (train(shop, out), train_compodiff(shop, out)):
        assert refused.exit_code == 1
        assert (
            "already holds a finished lincir over backbone tiny:,target_pad=1.25, which would be lost" in refused.output
        )
        assert "--resume" not in refused.output, "an imported Φ has no training to go on with"
    assert train(shop, out, "--overwrite").exit_code == 0
    assert "target_pad" not in str(read_folder(out).backbone)


def test_an_unfinished_training_is_called_so(shop, tmp_path):
    from cir_vectorizer.models import load
    from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
    from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer

    captions = (shop / "captions.txt").read_text().splitlines()
    trainer = PhiTrainer(load("tiny", "cpu").backbone, captions, BuiltinTagger(), Hyperparameters(batch_size=8))
    assert list(trainer.run(1))
    trainer.save(tmp_path, complete=False)
    refused = train(shop, tmp_path)
    assert "already holds an unfinished lincir" in refused.output
    assert "by --resume" in refused.output


@pytest.mark.parametrize("command", ["train", "make-edits"])
def test_a_second_column_is_refused_and_not_dropped(shop, tmp_path, command):
    columns = ("--column", "words", "--column", "story")
    result = invoke(command, "--captions", shop / "shop.csv", *columns, "--out", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "captions are read from one column, and 'words' and 'story' were given" in result.output


def test_lists_of_columns_that_are_given_twice_are_joined(shop, tmp_path):
    once = ("--pairs", shop / "shop.csv", "--pair-columns", "picture", "--pair-columns", "words")
    small = ("--steps", 1, "--device", "cpu", *COMPODIFF)
    result = invoke("train-compodiff", *once, "--out", tmp_path / "model", *small)
    assert result.exit_code == 0, result.output
