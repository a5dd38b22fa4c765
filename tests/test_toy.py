"""The toy `tiny` is named where a command falls back to it, and no quick start uses it."""

import re
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from cir_vectorizer.cli import main
from cir_vectorizer.service import run as serving
from cir_vectorizer.service.settings import Settings
from tests.docs.blocks import blocks

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("[pi]*/*/README.md"))]
_NEEDS_MODEL = re.compile(
    r"cir-vectorizer +(sync|search|serve|train|train-compodiff|doctor|evaluate (catalog|queries)) |compose\.yaml up|"
    r"docker run .*cir-vectorizer:"
)


@pytest.fixture
def catalog(photos: Path, tmp_path: Path) -> str:
    address = f"qdrant:{tmp_path}/index/shop"
    assert run("sync", photos, "--to", address, "--model", "tiny", "--report", tmp_path / "r.json").exit_code == 0
    return address


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def named_toy(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if "tiny" in line]


def test_commands_say_in_one_line_that_they_fall_back_to_the_toy(catalog, photos, tmp_path):
    sync = ("sync", photos, "--to", catalog, "--report", tmp_path / "r.json")
    search = ("search", "--in", catalog, "--text", "a red dress", "--json")
    doctor = ("doctor", "--to", catalog, "--json")
    for command in (sync, (*sync, "--dry-run"), search, doctor):
        result = run(*command)
        assert result.exit_code == 0, result.output
        (line,) = named_toy(result)
        assert "knows drawn products alone" in line
        assert "for example --model lincir-vit-l" in line
        assert "tiny" not in result.stdout or command is doctor
        assert not named_toy(run(*command, "--model", "tiny")), "who names it knows it"


def test_evaluations_say_it_too(catalog, tmp_path):
    judged = tmp_path / "queries.jsonl"
    judged.write_text('{"text": "a red dress", "relevant": [1]}\n')
    for arguments in (("catalog", "--out", tmp_path / "out"), ("queries", "--file", judged)):
        command = ("evaluate", *arguments, "--in", catalog)
        assert len(named_toy(run(*command))) == 1
        assert not named_toy(run(*command, "--model", "tiny"))
    assert "knows drawn products alone" in run("evaluate", "circo", "--data", tmp_path).stderr


def test_serve_logs_it(monkeypatch, caplog):
    monkeypatch.delenv("CIR_MODEL", raising=False)
    monkeypatch.setattr(serving.logs, "configure", lambda level: None)
    monkeypatch.setattr(serving, "make_server", lambda app, settings: SimpleNamespace(run=lambda: None))
    for given, said in ((Settings(), True), (Settings(model=("tiny",)), False)):
        caplog.clear()
        serving.run(dict, given)
        assert ("the toy `tiny` is served" in caplog.text) == said


def test_training_for_the_toys_backbone_is_said_too(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("a red dress\na blue hat\n")
    result = run("train", "--captions", captions, "--out", tmp_path / "model", "--steps", 1, "--batch-size", 2)
    assert "knows drawn products alone" in result.stderr


def commands_of(document: Path) -> list[str]:
    """Return the command lines of a document's blocks of shell, each after the variables that its block exports."""
    codes = [each.code for each in blocks(str(document.relative_to(ROOT))) if each.language in ("", "bash")]
    exported = [" ".join(re.findall(r"^export (.+)", code, re.MULTILINE)) for code in codes]
    return [
        f"{set_before} {line}".strip()
        for code, set_before in zip(codes, exported, strict=True)
        for line in code.replace("\\\n", " ").splitlines()
    ]


def test_every_quick_start_names_a_real_model():
    lines = [(str(file), line) for file in DOCUMENTS for line in commands_of(file)]
    for file in (*(ROOT / "examples").glob("*.py"), *(ROOT / "plugins").glob("*/compose.yaml")):
        lines += [(str(file), line) for line in file.read_text(encoding="utf-8").splitlines()]
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        lines += [(name, line) for line in (command.help or "").splitlines() if line.startswith("cir-vectorizer ")]
    found = [(place, line) for place, line in lines if _NEEDS_MODEL.search(line)]
    assert len(found) > 12
    for place, line in found:
        given = re.search(r"(?:--model |CIR_MODEL=)(\S+)", line)
        if "--rankings" not in line and "--service" not in line:
            assert given is not None, (place, line)
            assert given[1] != "tiny", (place, line)
