"""Edits from a table: columns `reference`, `words` and `target`, and `kind`, `wording` and `negative` if it has them."""

from collections.abc import Sequence
from pathlib import Path

from cir_vectorizer.errors import CaptionError, SourceError
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import table_rows
from cir_vectorizer_trainer.captions.reading import clean
from cir_vectorizer_trainer.edits.base import Edit

NEEDED = ("reference", "words", "target")
"""Columns that a table of edits must have."""


def read_edits(sources: Sequence[Path]) -> list[Edit]:
    """Read all edits of `sources`, cleaned and each once. Rows without a reference or a target are left out.

    Args:
        sources: paths that end in .csv, .tsv, .jsonl, .ndjson, .json or .parquet, each also with .gz.

    Raises:
        CaptionError: a table is missing or damaged, lacks a column, or holds no edit.
    """
    edits: dict[Edit, None] = {}
    for source in sources:
        try:
            table = table_rows(source, strict=False)
            for number, row in table.read():
                if isinstance(row, Failure):
                    raise CaptionError(str(row))
                columns = row if isinstance(row, dict) else {}
                if missing := [name for name in NEEDED if name not in columns]:
                    raise CaptionError(
                        f"{table.place(number)} has no column {missing[0]!r}; a table of edits has {', '.join(NEEDED)}"
                    )
                said = {name: clean(str(value)) for name, value in row.items() if value is not None}
                words, negative = said.get("words", ""), said.get("negative", "")
                edit = Edit(
                    said.get("reference", ""), words, said.get("target", ""),
                    said.get("kind") or "table", said.get("wording") or words, negative,
                )  # fmt: skip
                if edit.reference and edit.target:
                    edits[edit] = None
        except SourceError as error:
            raise CaptionError(str(error)) from error
    if not edits:
        raise CaptionError(
            f"{' and '.join(map(str, sources)) or 'an empty list of files'} holds no edit; each row needs a reference "
            "caption and a target caption"
        )
    return list(edits)
