"""Parsers for blocks that are files: each raises an error that names the fault."""

import configparser
import json
import re
import sys

import yaml

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


PARSERS = {
    "json": json.loads,
    "jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
    "dockerfile": dockerfile,
    "python": lambda text: compile(text, "block", "exec"),
}
"""The parser of each language; Python's is for blocks that are not run."""
