"""Runs the blocks of one page, in order, in the current folder: `python -m tests.docs.page_runner BLOCKS.json`.

Python blocks share their names; bash blocks hand on the folder and the environment, as in one terminal. Before each block its
place and code are printed, so that the end of the output tells what failed. A program in the background lives until the
page's process group is ended.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from tests.docs.blocks import ROOT, Block

START_SECONDS = 60.0


class FailedError(Exception):
    """A block that is not Python failed; its own output says why."""


def bash(block: Block) -> None:
    """Run a block under `bash -euo pipefail`, and take over its folder and environment."""
    state = Path(os.environ["PAGE_STATE"])
    script = f'{block.code.rstrip()}\n{{ pwd; env -0; }} > "$PAGE_STATE"\n'
    _run(["bash", "-euo", "pipefail", "-c", script], block.status)
    if block.status:
        return
    folder, _, variables = state.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
    os.chdir(folder)
    os.environ.update(line.partition("=")[::2] for line in variables.split("\0") if "=" in line)


def _run(command: list[str], expected: int = 0) -> None:
    if (status := subprocess.run(command).returncode) != expected:
        raise FailedError(f"exit status {status}")


def background(block: Block, running: dict[str, psutil.Popen]) -> None:
    """Start a block, in the place of one that answers at the same address, and wait until its program answers."""
    ready = block.ready or f"http://127.0.0.1:{os.environ['CIR_PORT']}/.well-known/ready"
    if ready in running:
        former = [*running[ready].children(recursive=True), running[ready]]
        for process in former:
            process.terminate()
        psutil.wait_procs(former)
    process = running[ready] = psutil.Popen(["bash", "-euo", "pipefail", "-c", block.code])
    end = time.monotonic() + START_SECONDS
    while not _answers(ready):
        if process.poll() is not None:
            raise FailedError(f"the program in the background has ended, with status {process.returncode}")
        if time.monotonic() > end:
            raise FailedError(f"the program in the background gave no answer at {ready}")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except urllib.error.HTTPError as refused:
        return refused.code < 500
    except OSError:
        return False


def python(block: Block, names: dict[str, Any]) -> None:
    """Run a block among the page's names; a traceback shows the page's own lines."""
    exec(compile("\n" * (block.line - 1) + block.code, str(ROOT / block.page), "exec"), names)


def node(block: Block) -> None:
    """Run a block as a module; types are taken out by a Node that can do it."""
    module = Path("page-block.mts" if block.language == "typescript" and _node_version() >= 22 else "page-block.mjs")
    module.write_text(block.code, encoding="utf-8")
    options = ["--experimental-strip-types"] if module.suffix == ".mts" else []
    _run(["node", *options, module.name])


def _node_version() -> int:
    shown = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", shown)[0])


def run(blocks: list[Block]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    running: dict[str, psutil.Popen] = {}
    for block in blocks:
        print(f"\n=== {block.place} ({block.language})\n{block.code.rstrip()}\n--- output", flush=True)
        if block.background:
            background(block, running)
        elif block.language == "bash":
            bash(block)
        elif block.language == "python":
            python(block, names)
        elif shutil.which("node") is None:
            print("not run: no node on PATH")
        else:
            node(block)
        sys.stdout.flush()


def main() -> int:
    blocks = [Block(**each) for each in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))]
    try:
        run(blocks)
    except FailedError as failed:
        print(failed, flush=True)
    except BaseException:
        sys.stdout.flush()
        traceback.print_exc()
    else:
        return 0
    return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a client that a block left open must not hold the page
