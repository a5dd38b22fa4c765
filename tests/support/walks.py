"""Walks through the code, traced on real runs: the functions that a composed query, a picture and a caption pass.

python -m tests.support.walks query|picture|caption    a file and a function a line, in the order of their first call
"""

import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.support.house import PACKAGES, ROOT

_ROOMS = tuple(f"{ROOT / package}/" for package in PACKAGES)


class Trace:
    """Records the first call of each of our functions while it is active; `watching` passes it on to threads that start later."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[tuple[str, str]] = []
        """Files and functions in the order of their first calls."""
        self._seen: set[CodeType] = set()

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Record one call; a profile function."""
        if event != "call" or not self.on:
            return
        code = frame.f_code
        if code not in self._seen:
            self._seen.add(code)
            if code.co_filename.startswith(_ROOMS) and code.co_name != "<module>":
                self.calls.append((code.co_filename.removeprefix(f"{ROOT}/"), code.co_name))


@contextlib.contextmanager
def watching() -> Iterator[Trace]:
    """Trace the calls of this thread and of all threads that start meanwhile."""
    trace = Trace()
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def query() -> Trace:
    """Trace a composed query at the Weaviate door, from the request to the answer."""
    from tests.support.serving import drawn, serving

    asked = {"texts": [json.dumps({"image": drawn(1), "text": "is red"})]}
    with watching() as trace, serving() as running:
        running.post("/vectorize", {"texts": [json.dumps({"image": drawn(2), "text": "is blue"})]})
        trace.on = True
        assert running.post("/vectorize", asked).status_code == 200
        trace.on = False
    return trace


def picture() -> Trace:
    """Trace `sync` of a folder of one picture, from the command to the written object."""
    from click.testing import CliRunner

    from cir_vectorizer.cli.sync import sync
    from tests.support.indexing import draw

    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "photos" / "a.png", 1)
        draw(Path(folder) / "more" / "b.png", 2)

        def run(photos: str) -> None:
            arguments = [f"{folder}/{photos}", "--to", f"qdrant:{folder}/index/shop", "--workers", "1"]
            result = CliRunner().invoke(sync, [*arguments, "--report", f"{folder}/report.json"])
            assert result.exit_code == 0, result.output

        with watching() as trace:
            run("photos")
            trace.on = True
            run("more")
            trace.on = False
    return trace


def caption() -> Trace:
    """Trace `train` on a file of captions, from the command to the model folder."""
    from click.testing import CliRunner

    from cir_vectorizer_trainer.phi.command import train

    with tempfile.TemporaryDirectory() as folder:
        captions = Path(folder) / "captions.txt"
        captions.write_text("".join(f"a {colour} dress number {i}\n" for i, colour in enumerate(["red", "blue"] * 20)))

        def run(out: str) -> None:
            arguments = ["--captions", str(captions), "--out", f"{folder}/{out}", "--steps", "2", "--batch-size", "4"]
            result = CliRunner().invoke(train, arguments)
            assert result.exit_code == 0, result.output

        with watching() as trace:
            run("first")
            trace.on = True
            run("second")
            trace.on = False
    return trace


WALKS = {"query": query, "picture": picture, "caption": caption}

if __name__ == "__main__":
    for file, function in WALKS[sys.argv[1]]().calls:
        print(file, function)
