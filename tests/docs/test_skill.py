"""SKILL.md, which the wheel brings for coding agents: its header is valid, and its commands, options and names exist."""

import importlib
import re
import shlex
from importlib.resources import files

import click
import pytest
import yaml

from cir_vectorizer.cli import main

SKILL = files("cir_vectorizer") / "SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE))
LINES = [line for kind, code in BLOCKS if kind == "bash" for line in code.splitlines()]
COMMANDS = [text for text in (*LINES, *INLINE) if re.match(r"cir-vectorizer [a-z]", text)]


def command_of(words):
    """Return the command that the words name, and its arguments."""
    command, context = main, click.Context(main)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(context, words[0])
        assert below is not None, words
        command, words = below, words[1:]
    return command, words


def options(command):
    found = [each for each in command.get_params(click.Context(command)) if isinstance(each, click.Option)]
    return {name for each in found for name in (*each.opts, *each.secondary_opts)}


def every_option(command=main):
    found = options(command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found |= every_option(command.get_command(context, name))
    return found


def test_the_header_says_name_and_use():
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", TEXT, re.DOTALL)[1])
    assert re.fullmatch(r"[a-z0-9-]{1,64}", header["name"])
    assert 0 < len(header["description"]) <= 1024
    assert " use " in f" {header['description'].lower()} "


def test_it_shows_each_thing_that_the_library_does():
    shown = {shlex.split(text)[1] for text in COMMANDS}
    assert {"doctor", "evaluate", "models", "search", "serve", "sync", "train"} <= shown
    python = "\n".join(code for kind, code in BLOCKS if kind == "python")
    assert all(name in python for name in ("load(", ".compose(", ".search(", "sync(", "Client("))


@pytest.mark.parametrize("text", COMMANDS)
def test_its_commands_and_options_exist(text):
    command, words = command_of(shlex.split(text, comments=True)[1:])
    assert {word for word in words if word.startswith("--")} <= options(command)


def test_options_that_stand_alone_exist():
    known = every_option()
    alone = [text for text in INLINE if text.startswith("--")]
    assert alone
    assert [text for text in alone if text.split()[0] not in known] == []


def test_names_that_it_imports_exist():
    python = "\n".join(code for kind, code in BLOCKS if kind == "python")
    imports = re.findall(r"^from (cir_vectorizer[\w.]*) import (\w+)$", python, re.MULTILINE)
    assert len(imports) >= 4
    named = [tuple(name.rsplit(".", 1)) for name in re.findall(r"\b(cir_vectorizer\w*\.\w+)\(", TEXT)]
    for module, name in (*imports, *named):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
