"""Parts of the reference that are made from the program itself: its commands, a query's fields, the service's settings."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping

import click
from pydantic import BaseModel

from cir_vectorizer.cli import main
from cir_vectorizer.query import ComposedQuery, Options
from cir_vectorizer.service.settings import Settings, variable


def commands() -> str:
    """Return a section for each command: its help, its usage, and a table of its arguments and options."""
    return "\n".join(_section(main, click.Context(main, info_name="cir-vectorizer", **main.context_settings)))


def settings() -> str:
    """Return the table of the service's settings: option, environment variable, default and meaning."""
    rows = [
        (f"`--{name.replace('_', '-')}`", f"`{variable(name)}`", _default(field.get_default()), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(_table(("option", "variable", "default", "meaning"), rows))


def query() -> str:
    """Return the table of a query's fields."""
    return "\n".join(_table(("field", "meaning"), _fields(ComposedQuery)))


def options() -> str:
    """Return the table of a query's options; those within another one have its name before them."""
    return "\n".join(_table(("option", "meaning"), _fields(Options)))


GENERATED: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "query": query,
    "options": options,
}
"""The parts by the names that pages use: `<!-- generated: commands -->`."""


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the lines of a command's section and of those below it."""
    if context.parent is not None:
        yield f"\n{'#' * min(context.command_path.count(' ') + 1, 6)} {context.command_path}\n"
    yield f"{_help(command)}\n"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    rows = [
        (f"`{names}`", _cell(text))
        for names, text in filter(None, (each.get_help_record(context) for each in command.get_params(context)))
    ]
    yield from _table(("option", "meaning"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _section(below, click.Context(below, context, name, **below.context_settings))


def _fields(model: type[BaseModel], within: str = "") -> list[tuple[str, ...]]:
    """Return a row for each described field of a model, and for those of models in it."""
    rows: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        if field.description:
            rows.append((f"`{within}{name}`", _cell(field.description)))
        for kind in typing.get_args(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                rows += _fields(kind, f"{within}{name}.")
    return rows


def _help(command: click.Command) -> str:
    """Return a command's help as Markdown; click's mark for lines to keep as they are is a block of text there."""
    paragraphs = inspect.cleandoc(command.help or "").replace("\f", "").split("\n\n")
    return "\n\n".join(
        f"```text\n{part.lstrip().removeprefix(chr(8)).strip(chr(10))}\n```" if part.lstrip().startswith("\b") else part
        for part in paragraphs
    )


def _default(value: object) -> str:
    return "" if value in (None, (), False, "") else f"`{' '.join(value) if isinstance(value, tuple) else value}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield f"| {' | '.join('---' for _ in head)} |"
        yield from (f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    """Return a text as a cell of a table, with its characters as they are."""
    return " ".join(re.sub(r"[\\`|*_\[\]]", r"\\\g<0>", text).replace("<", "&lt;").split())
