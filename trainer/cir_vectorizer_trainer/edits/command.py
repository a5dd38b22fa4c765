"""`cir-vectorizer make-edits`: make edits from captions."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import fail_with_sentence

if TYPE_CHECKING:
    from cir_vectorizer_trainer.edits.base import Edit

MOST_CAPTIONS = 1_000_000
"""Largest number of captions that edits are made from; more are sampled."""
_SHOWN_VALUES = 8


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    return [name.strip() for name in (value or "").split(",") if name.strip()]


@click.command("make-edits", short_help="Make training edits from captions alone.")
@click.option(
    "--captions",
    "sources",
    multiple=True,
    required=True,
    metavar="FILE",
    help="txt, csv, tsv, json, jsonl or parquet, also .gz. Repeatable.",
)
@click.option("--column", help="Column that holds the captions; guessed if only one is possible.")
@click.option(
    "--attributes",
    callback=_names,
    metavar="A,B,…",
    help="Columns whose values are swapped for each other.  [default: kinds of words are learnt from the captions]",
)
@click.option(
    "--phrasings",
    "phrasings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JSON file of phrasings that replaces or extends ours.",
)
@click.option("--language", default="en", show_default=True, help="Language of the captions and phrasings.")
@click.option(
    "--known-only",
    is_flag=True,
    help="Swap a value only if some caption has the resulting combination of values.",
)
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
    sources: tuple[str, ...], column: str | None, attributes: list[str], phrasings_file: Path | None, language: str,
    known_only: bool, count: int, seed: int, out: Path,
) -> None:  # fmt: skip
    """Make edits from captions: a caption, the words of a change, and the caption that is wanted then.

    \b
    cir-vectorizer make-edits --captions catalog.txt --out edits.csv
    cir-vectorizer make-edits --captions products.csv --column title --attributes colour,type,gender --out edits.csv
    """
    from collections import Counter
    from random import Random

    from cir_vectorizer_trainer.captions.keywords import prepare
    from cir_vectorizer_trainer.captions.reading import read_captions
    from cir_vectorizer_trainer.edits.kinds import learn_kinds, named_kinds
    from cir_vectorizer_trainer.edits.phrasings import Phrasings
    from cir_vectorizer_trainer.edits.swapping import EditMaker
    from cir_vectorizer_trainer.edits.table import write_edits
    from cir_vectorizer_trainer.writing import check_out

    check_out(out)
    phrasings = Phrasings.read(phrasings_file, language)
    read = read_captions(sources, column)
    click.echo(read.summary(), err=True)
    captions = list(dict.fromkeys(filter(None, map(prepare, read.captions))))
    random = Random(f"captions/{seed}")
    if len(captions) > MOST_CAPTIONS:
        click.echo(f"edits are made from {MOST_CAPTIONS:,} of {len(captions):,} captions, drawn at random", err=True)
        captions = random.sample(captions, MOST_CAPTIONS)
    if attributes:
        kinds = named_kinds(sources, attributes, captions, phrasings)
    else:
        kinds = learn_kinds(captions, phrasings, random)
    maker = EditMaker(captions, kinds, phrasings, seed, known_only)
    for kind, holding in zip(kinds, maker.index.holding, strict=True):
        surfaces = [max(own, key=lambda tokens: own[tokens]) for own in kind.values.values()]
        shown = ", ".join(" ".join(tokens) for tokens in surfaces[:_SHOWN_VALUES])
        more = f" and {len(surfaces) - _SHOWN_VALUES:,} more" if len(surfaces) > _SHOWN_VALUES else ""
        share = 100 * len(holding) / len(captions)
        click.echo(f"kind {kind.name!r} ({kind.role}), in {share:.0f} % of the captions: {shown}{more}", err=True)
    counts: Counter[str] = Counter()
    wordings: set[str] = set()

    def counted() -> Iterator["Edit"]:
        for edit in maker.draw(count):
            counts[edit.kind] += 1
            wordings.add(edit.wording)
            yield edit

    written = write_edits(counted(), out)
    able, gave = 100 * maker.index.used / len(captions), 100 * len(maker.references) / len(captions)
    kinds_of_edits = ", ".join(f"{number:,} {name}" for name, number in counts.most_common())
    click.echo(f"{written:,} edits in {len(wordings):,} wordings: {kinds_of_edits}", err=True)
    click.echo(
        f"{gave:.0f} % of the {len(captions):,} captions gave edits; {able:.0f} % hold a value that can change",
        err=True,
    )
    click.echo(str(out))
