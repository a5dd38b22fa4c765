"""`cir-vectorizer make-edits`: make edits from captions."""

from pathlib import Path

import click

from cir_vectorizer.cli.common import fail_with_sentence
from cir_vectorizer_trainer.edits.options import column_option, language_was_given, making_options


@click.command("make-edits", short_help="Make training edits from captions alone.")
@click.option(
    "--captions",
    "sources",
    multiple=True,
    required=True,
    metavar="FILE",
    help="txt, csv, tsv, json, jsonl or parquet, also .gz. Repeatable.",
)
@column_option
@making_options
@click.option("--count", type=click.IntRange(1), default=100_000, show_default=True, help="Largest number of edits.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Table to write: csv, tsv or jsonl.",
)
@fail_with_sentence
def make_edits(
    sources: tuple[str, ...], column: str | None, attributes: tuple[str, ...], phrasings: Path | None, language: str,
    known_only: bool, count: int, seed: int, out: Path,
) -> None:  # fmt: skip
    """Make edits from captions: a caption, the words of a change, and the caption that is wanted then.

    \b
    cir-vectorizer make-edits --captions catalog.txt --out edits.csv
    cir-vectorizer make-edits --captions products.csv --column title --attributes colour,type,gender --out edits.csv
    """
    from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
    from cir_vectorizer_trainer.captions.reading import read_captions
    from cir_vectorizer_trainer.edits.making import MadeEdits, Making, worded_in_english
    from cir_vectorizer_trainer.edits.table import write_edits
    from cir_vectorizer_trainer.writing import check_out

    check_out(out)
    read = read_captions(sources, column)
    click.echo(read.summary(), err=True)
    if not language_was_given() and phrasings is None and not BuiltinTagger(read.captions).english:
        click.echo(f"Note: {worded_in_english()}", err=True)
    making = Making(attributes, phrasings, language, known_only, count, seed)
    made = MadeEdits(read.captions, sources, making)
    for sentence in made.about_kinds():
        click.echo(sentence, err=True)
    write_edits(made.draw(), out)
    for sentence in made.about_edits():
        click.echo(sentence, err=True)
    click.echo(str(out))
