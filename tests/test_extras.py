"""Optional parts: a missing package is reported before anything is opened, with the command that installs it."""

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cir_vectorizer import extras
from cir_vectorizer.cli import main
from cir_vectorizer.errors import CirError, MissingExtraError

ROOT = Path(__file__).parents[1]


def test_only_one_module_reads_entry_points():
    files = [
        path
        for folder in ("cir_vectorizer", "trainer", "plugins", "integrations")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert [path.name for path in files if "entry_points(" in path.read_text()] == ["extras.py"]


def test_plugins_are_entry_points_by_name():
    assert {"lincir", "compodiff", "sum"} <= set(extras.plugins("cir_vectorizer.composers"))
    assert extras.plugins("cir_vectorizer.nothing") == {}


def test_every_extra_of_the_code_is_one_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert set(extras.MODULES) <= set(re.findall(r"^([\w-]+) = \[", section, re.MULTILINE))


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert extras.missing("train") == ["pyarrow"]
    with pytest.raises(
        MissingExtraError, match=r"train needs .*\(pyarrow\); run: pip install 'cir-vectorizer\[train\]'"
    ):
        extras.require("train", "train")
    assert issubclass(MissingExtraError, CirError)
    assert issubclass(MissingExtraError, ImportError)


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.setitem(extras.MODULES, "train", ("some_folder_here",))
    (tmp_path / "some_folder_here").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert extras.missing("train") == ["some_folder_here"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["train", "--captions", "FILE", "--out", "DIR"], "train"),
        (["train-compodiff", "--pairs", "FILE", "--out", "DIR"], "train"),
        (["serve", "--model", "FILE", "--port", "0"], "serve"),
        (["search", "--in", "qdrant:DIR/shop", "--image", "FILE"], "models"),
        (["sync", "FILE", "--to", "qdrant:DIR/shop"], "models"),
        (["models", "pull", "lincir-vit-l"], "models"),
        (["models", "import", "FILE", "--backbone", "tiny", "--out", "DIR"], "models"),
    ],
)
def test_a_command_says_what_it_misses_before_it_opens_a_file(command, extra, tmp_path, monkeypatch):
    for module in ("torch", "fastapi", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    names = {"FILE": str(tmp_path / "missing.csv"), "DIR": str(tmp_path / "dir")}
    given = [re.sub("FILE|DIR", lambda match: names[match[0]], word) for word in command]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.fullmatch(rf"error: .* run: pip install 'cir-vectorizer\[{extra}\]'.*\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["qdrant", "weaviate"])
def test_a_database_whose_client_is_missing_is_said(scheme, monkeypatch):
    from cir_vectorizer.collections import open_collection

    for name in [name for name in sys.modules if name.startswith(f"cir_vectorizer_{scheme}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, {"qdrant": "qdrant_client"}.get(scheme, scheme), None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'cir-vectorizer\[{scheme}\]'"):
        open_collection(f"{scheme}://localhost/Shop")


def test_serve_shows_its_help_without_its_packages(monkeypatch):
    from cir_vectorizer.cli import serve

    serve._options.cache_clear()
    monkeypatch.setitem(sys.modules, "fastapi", None)
    try:
        assert CliRunner().invoke(main, ["serve", "--help"]).exit_code == 0
    finally:
        serve._options.cache_clear()
