"""The command line starts fast, lists its commands and reports errors without a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.service.settings import Settings, service_links

HEAVY = ("torch", "transformers", "open_clip", "sentence_transformers", "numpy", "PIL", "qdrant_client", "weaviate")
COMMANDS = (
    "doctor",
    "explain",
    "make-edits",
    "make-triplets",
    "mcp",
    "models",
    "search",
    "serve",
    "sync",
    "train",
    "train-compodiff",
)


@pytest.mark.parametrize(
    "code",
    [
        "import cir_vectorizer; cir_vectorizer.ComposedQuery.parse({'text': 'red'})",
        "from cir_vectorizer.cli import main; main(['--help'], standalone_mode=False)",
        *(
            f"from cir_vectorizer.cli import main; main(['{name}', '--help'], standalone_mode=False)"
            for name in COMMANDS
        ),
    ],
)
def test_import_and_help_load_nothing_heavy(code):
    check = f"{code}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command():
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_models_are_listed_and_shown():
    shown = CliRunner().invoke(main, ["models", "list"]).output
    assert all(name in shown for name in ("tiny", "lincir-vit-l", "compodiff-aesthetic"))
    assert '"fingerprint"' in CliRunner().invoke(main, ["models", "show", "tiny"]).output
    assert "navervision" in CliRunner().invoke(main, ["models", "show", "lincir-vit-l"]).output


def test_a_model_that_is_not_there_is_told_with_the_names_there_are():
    result = CliRunner().invoke(main, ["models", "show", "nope"])
    assert result.exit_code == 1
    assert "error: no model 'nope': no such folder, and the built-in names are tiny, lincir-vit-l" in result.stderr


def test_an_error_is_one_sentence_and_status_1(tmp_path):
    result = CliRunner().invoke(main, ["models", "show", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "Traceback" not in result.output


def test_without_network_a_pull_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("CIR_MODELS", str(tmp_path))
    result = CliRunner().invoke(main, ["models", "pull", "lincir-vit-l"])
    assert result.exit_code == 1
    assert str(tmp_path / "lincir-vit-l" / "lincir_large.pt") in result.output


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, "float32"),
        ({"half": True}, "float16"),
        ({"half": True, "dtype": "float16"}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"half": False, "dtype": "float32"}, "float32"),
    ],
)
def test_half_is_another_name_for_float16(given, weights, monkeypatch):
    for name in given:
        monkeypatch.setenv(f"CIR_{name.upper()}", str(given[name]))
    assert Settings().weights == Settings(**given).weights == weights


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--half", "--dtype", "bfloat16"], "error: half means dtype float16, but dtype is bfloat16; give one of the two"),
        (["--half", "--dtype", "float32"], "error: half means dtype float16, but dtype is float32; give one of the two"),
        (["--dtype", "int8"], "error: --dtype: Input should be 'float32', 'float16' or 'bfloat16'"),
    ],
)  # fmt: skip
def test_a_dtype_that_cannot_be_is_refused(options, says):
    result = CliRunner().invoke(main, ["serve", *options])
    assert (result.exit_code, result.output.strip()) == (1, says)


KUBERNETES = {
    "CIR_SERVICE_HOST": "10.96.0.12",
    "CIR_SERVICE_PORT": "8000",
    "CIR_PORT": "tcp://10.96.0.12:8000",
    "CIR_PORT_8000_TCP": "tcp://10.96.0.12:8000",
    "CIR_PORT_8000_TCP_PORT": "8000",
    "CIR_GRPC_PORT": "tcp://[fd00::7]:6334",
}


def test_kubernetes_own_variables_of_a_service_named_cir_are_no_settings(monkeypatch):
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert Settings() == Settings(port=8000, grpc_port=None)
    assert service_links() == {name: KUBERNETES[name] for name in ("CIR_PORT", "CIR_GRPC_PORT")}


def test_serve_names_every_wrong_variable_and_its_value(monkeypatch):
    monkeypatch.setenv("CIR_PORT", "eighty")
    monkeypatch.setenv("CIR_MAX_RESULTS", "0")
    result = CliRunner().invoke(main, ["serve", "--cache-mib", "lots"])
    assert result.exit_code == 1
    for part in ("CIR_PORT='eighty'", "CIR_MAX_RESULTS='0'", "--cache-mib: Input should be a valid integer"):
        assert part in result.output


def test_the_docs_list_every_command_and_option():
    docs = (Path(__file__).parents[1] / "docs" / "commands.md").read_text(encoding="utf-8")
    context = click.Context(main)
    for name in main.list_commands(context):
        assert f"\n## {name}\n" in docs
        section = docs.split(f"\n## {name}\n")[1].split("\n## ")[0]
        command = main.get_command(context, name)
        for part in [command, *getattr(command, "commands", {}).values()]:
            if part is not command:
                assert f"`{name} {part.name}" in section
            for option in (p for p in part.get_params(click.Context(part)) if isinstance(p, click.Option)):
                assert "--help" in option.opts or any(
                    long in section for long in option.opts if long.startswith("--")
                ), (name, option.opts)


NAMES = ("Hüt “weiß”", "帽子 🎩", "шапка")


@pytest.fixture(scope="module")
def named_shop(tmp_path_factory):
    """A directory with pictures whose names and columns no 8-bit encoding holds, synced into `index/shop`."""
    folder = tmp_path_factory.mktemp("named")
    rows = []
    for i, name in enumerate(NAMES):
        Image.new("RGB", (32, 32), (80 * i, 40, 200)).save(folder / f"{name}.png")
        rows.append(json.dumps({"image": f"{name}.png", "name": name}))
    (folder / "shop.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert run(folder, "sync", "shop.jsonl", "--to", "qdrant:index/shop").returncode == 0
    return folder


def run(folder, *arguments, **environment):
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "cir_vectorizer.cli", *arguments]
    return subprocess.run(command, capture_output=True, cwd=folder, env={**os.environ, **environment})


ENCODINGS = [
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("environment", ENCODINGS, ids=["cp1252", "C"])
def test_json_lines_escape_what_the_output_cannot_show(named_shop, environment):
    done = run(named_shop, "search", "--in", "qdrant:index/shop", "--text", "hat", "--json", **environment)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert sorted(hit["payload"]["name"] for hit in found) == sorted(NAMES)


@pytest.mark.parametrize("environment", ENCODINGS, ids=["cp1252", "C"])
def test_tables_and_lists_replace_what_the_output_cannot_show(named_shop, environment):
    searched = run(named_shop, "search", "--in", "qdrant:index/shop", "--text", "hat", **environment)
    (named_shop / "new.csv").write_text("image,name\n帽子 🎩.png,шапка\nno шапка.png,a\n", encoding="utf-8")
    planned = run(named_shop, "sync", "new.csv", "--to", "qdrant:index/new", "--dry-run", **environment)
    for done in (searched, planned):
        assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert searched.returncode == 0
    assert len(searched.stdout.splitlines()) == 4


def test_an_error_handler_that_the_user_chose_is_kept(named_shop):
    done = run(
        named_shop, "search", "--in", "qdrant:index/shop", "--text", "hat", PYTHONIOENCODING="cp1252:xmlcharrefreplace"
    )
    assert b"&#1096;" in done.stdout
