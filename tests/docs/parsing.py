"""Parsers for blocks that are files: each raises an error that names the fault."""

import configparser
import json
import re
import shlex
import subprocess
import sys

import click
import yaml

from cir_vectorizer.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_INSTRUCTION = re.compile(
    r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\s"
)


def dockerfile(text: str) -> None:
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#") and not _INSTRUCTION.match(line):
            raise ValueError(f"not an instruction of a Dockerfile: {line}")


def bash(text: str) -> None:
    """Check the syntax, and that our commands and their options exist."""
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    if checked.returncode:
        raise ValueError(checked.stderr)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        for at, word in enumerate(words):
            begins = at == 0 or re.fullmatch(r"\w+=.*|&&|\|\|?|;|-m", words[at - 1])
            if begins and word in ("cir-vectorizer", "cir_vectorizer.cli"):
                _our_command(words[at + 1 :])


def _our_command(words: list[str]) -> None:
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        if found is None:
            raise ValueError(f"there is no command {words[0]}")
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in options:
            raise ValueError(f"{command.name} has no option {word}")


PARSERS = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
    "dockerfile": dockerfile,
    "bash": bash,
    "python": lambda text: compile(text, "block", "exec"),
}
"""The parser of each language; those of bash and Python are for blocks that are not run."""
