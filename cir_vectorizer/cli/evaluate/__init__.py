"""`cir-vectorizer evaluate`: benchmarks of the papers, the customer's own catalog, and judged queries."""

from importlib import import_module

import click

_COMMANDS = {
    "catalog": "cir_vectorizer.cli.evaluate.catalog:catalog",
    "circo": "cir_vectorizer.cli.evaluate.benchmarks:circo",
    "cirr": "cir_vectorizer.cli.evaluate.benchmarks:cirr",
    "fashioniq": "cir_vectorizer.cli.evaluate.benchmarks:fashioniq",
    "genecis": "cir_vectorizer.cli.evaluate.benchmarks:genecis",
    "pinpoint": "cir_vectorizer.cli.evaluate.pinpoint:pinpoint",
    "queries": "cir_vectorizer.cli.evaluate.queries:queries",
}


class _Commands(click.Group):
    """Subcommands that are imported when they are run or their help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands, short_help="Judge composers on your catalog, judged queries or a paper's benchmark.")
def evaluate() -> None:
    """Judge composers on your catalog, on judged queries or on a paper's benchmark."""
