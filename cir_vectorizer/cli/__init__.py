"""The command line: one click command a file, found by the entry-point group `cir_vectorizer.commands`.

Built-in commands and those of plugins are found in the same way. A command's module is imported when it is run or its
help is shown; it must import torch and other heavy things inside its function.
"""

import io
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any

import click

from cir_vectorizer import extras

# Otherwise torch's idle worker threads spin on the cores that decode pictures: several times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Commands(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; characters that the output's encoding lacks are written as "?"."""
        out = sys.stdout
        if isinstance(out, io.TextIOWrapper) and out.errors in ("strict", "surrogateescape"):
            out.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    @cached_property
    def _points(self) -> Mapping[str, EntryPoint]:
        # read once: it opens the metadata of every installed package, and --help asks for each command
        return extras.plugins("cir_vectorizer.commands")

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._points)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._points.get(cmd_name)
        command: click.Command | None = point.load() if point else None
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cir-vectorizer")
def main() -> None:
    """Composed image retrieval for Qdrant and Weaviate: search with a picture and words."""
