"""Stand-ins: what the documents write, and what a test puts in its place so that a block can run on this machine."""

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs import warm
from tests.docs.blocks import ROOT, Block
from tests.support.serving import RED

PORTS = {"service": 8000, "qdrant": 6333, "qdrant_grpc": 6334, "weaviate": 8080, "weaviate_grpc": 50051}
"""Usual ports, by the name of the free port that stands in for each."""

STAND_INS = (
    # hosts: everything runs on this machine
    (r"\b(HOST|localhost)(?=[:/])", "127.0.0.1"),
    # ports that an address leaves out
    (r"(qdrant://127\.0\.0\.1)/", r"\1:6333/"),
    (r"(weaviate://127\.0\.0\.1)/", r"\1:8080/"),
    (r"connect_to_local\(\)", "connect_to_local(port=8080)"),
    (r"connect_to_local\((?![^)]*grpc_port)([^)]*)\)", r"connect_to_local(\1, grpc_port=50051)"),
    # the service fetches no pictures
    (r"https://…/dress\.jpg", f"data:image/png;base64,{RED}"),
    # models of the hub
    (r"\b(open_clip|transformers|sentence-transformers):[\w./-]+(:[\w./-]+)*(,\w+=[\w./-]+)*", "tiny"),
    (r"\b(lincir-vit-l|compodiff-aesthetic)\b", "tiny"),
    # trainings take a few steps, judgements a few queries
    (r"\bcir-vectorizer train(?=\s)", "cir-vectorizer train --steps 4 --batch-size 16"),
    (r"\bcir-vectorizer evaluate catalog(?=\s)", "cir-vectorizer evaluate catalog --queries 40"),
    (r"\bcir-vectorizer train-compodiff(?=\s)", "cir-vectorizer train-compodiff --steps 4 --prior-steps 4"),
)
"""A pattern and its replacement, applied in this order; ports come last."""

_IN_BASH = (
    # the command line of Weaviate's collections needs the gRPC port too, if it is not the usual one
    (r"(weaviate://127\.0\.0\.1:8080/\w+)(?![\w?])", r"\1 --grpc-port 50051"),
)
_OTHER_PORTS = re.compile(r"(?:127\.0\.0\.1|localhost|HOST):(\d{4,5})\b")


def replaced(block: Block, ports: Mapping[str, int]) -> Block:
    """Return a block with the stand-ins in place; `ports` has the free port for each name of `PORTS`."""
    code, ready = (_text(text, block.language, ports) for text in (block.code, block.ready))
    return Block(**{**vars(block), "code": code, "ready": ready})


def _text(text: str, language: str, ports: Mapping[str, int]) -> str:
    for pattern, replacement in STAND_INS + (_IN_BASH if language == "bash" else ()):
        text = re.sub(pattern, replacement, text)
    by_number = {PORTS.get(name, name): port for name, port in ports.items()}
    return re.sub(r"\b\d{4,5}\b", lambda found: str(by_number.get(int(found[0]), found[0])), text)


def other_ports(text: str) -> set[int]:
    """Return the ports that a page names beside the usual ones."""
    return {int(port) for port in _OTHER_PORTS.findall(text)} - set(PORTS.values())


def programs(folder: Path, door: Path) -> Path:
    """Write programs that stand in for those which would install packages or take long; return their folder.

    `cir-vectorizer` runs in a fork of the process behind the socket `door`.
    `pip install` checks that our extras exist and that other packages are installed; `make` checks that the target exists.
    """
    folder.mkdir()
    python, root = shlex.quote(sys.executable), shlex.quote(str(ROOT))
    make = shlex.quote(shutil.which("make") or "make")
    scripts = {
        "cir-vectorizer": warm.client(door),
        "pip": f'#!/bin/sh\nPYTHONPATH={root} exec {python} -m tests.docs.pip_stand_in "$@"\n',
        "make": f'#!/bin/sh\nexec {make} --dry-run --directory {root} "$@"\n',
    }
    for name, text in scripts.items():
        script = folder / name
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)
    return folder
