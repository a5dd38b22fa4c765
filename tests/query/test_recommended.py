"""Recommended encoders: the facts of the table are those of open_clip, and the document shows the same table."""

from pathlib import Path

import open_clip
import pytest
from click.testing import CliRunner

from benchmarks.encoders import count
from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.cli import main
from cir_vectorizer.models.published import PUBLISHED
from cir_vectorizer.models.recommended import HEADINGS, RECOMMENDED, SPEEDS

NAMES = [encoder.name for encoder in RECOMMENDED]
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("encoder", RECOMMENDED, ids=NAMES)
def test_width_and_context_are_those_of_open_clips_configuration(encoder):
    config = open_clip.get_model_config(encoder.config)
    assert config is not None, "open_clip has no such configuration"
    assert encoder.dim == config["embed_dim"]
    assert encoder.context == config["text_cfg"].get("context_length", 77)


@pytest.mark.parametrize("encoder", RECOMMENDED, ids=NAMES)
def test_a_name_is_a_configuration_with_published_weights_or_a_repository(encoder):
    spec = BackboneSpec.parse(encoder.name)
    assert spec.loader == "open_clip"
    if not spec.name.startswith("hf-hub:"):
        assert spec.name == encoder.config
        assert spec.options["pretrained"] in open_clip.list_pretrained_tags_by_model(encoder.config)


@pytest.mark.parametrize("config", ["ViT-B-32", "ViT-B-16-SigLIP", "xlm-roberta-base-ViT-B-32"])
def test_sizes_and_speeds_are_those_that_are_counted(config):
    check_counted(config)


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted({encoder.config for encoder in RECOMMENDED}))
def test_all_sizes_and_speeds_are_those_that_are_counted(config):
    check_counted(config)


def check_counted(config):
    counted = count(config)
    mine = [encoder for encoder in RECOMMENDED if encoder.config == config]
    assert {(each.parameters, each.speed) for each in mine} == {(round(counted.parameters / 1e6), counted.speed)}


def test_a_published_phi_is_over_the_encoder_that_names_it():
    for encoder in RECOMMENDED:
        if encoder.phi in PUBLISHED:
            assert PUBLISHED[encoder.phi].backbone == encoder.name
        else:
            assert encoder.phi in ("train", "models import")


def test_the_command_lists_them(monkeypatch, tmp_path):
    monkeypatch.setenv("CIR_MODELS", str(tmp_path))
    shown = CliRunner().invoke(main, ["models", "list"])
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    table = lines[lines.index("Recommended encoders:") + 1 :]
    assert [line.split()[-1] for line in table[1:]] == NAMES
    start = table[0].index(HEADINGS[-1])
    assert all(line[start:] == name for line, name in zip(table[1:], NAMES, strict=True))


def test_the_document_shows_the_same_table():
    def row(cells):
        return f"| {' | '.join(cells)} |\n"

    named = [(*encoder.cells()[:-1], f"`{encoder.name}`") for encoder in RECOMMENDED]
    table = row(HEADINGS) + row(["---"] * len(HEADINGS)) + "".join(map(row, named))
    document = DOCUMENT.read_text(encoding="utf-8")
    assert table in document, f"write this table into docs/models.md:\n{table}"
    for most, speed in SPEEDS[:-1]:
        assert f"{speed} up to {most:g}" in document
