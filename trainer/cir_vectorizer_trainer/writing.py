"""Tables that the trainer writes, whole or not at all: csv, tsv or jsonl, as the suffix says."""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cir_vectorizer.errors import SourceError

OUT_SUFFIXES = (".csv", ".tsv", ".jsonl")


def check_out(out: Path) -> str:
    """Return the suffix of a table to write.

    Raises:
        SourceError: it is none that is written.
    """
    suffix = out.suffix.lower()
    if suffix not in OUT_SUFFIXES:
        raise SourceError(
            f"{out} is no table that is written here; its name must end in one of {', '.join(OUT_SUFFIXES)}"
        )
    return suffix


def write_table(out: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Write rows under the names of their columns; return their number.

    Raises:
        SourceError: the suffix of `out` is not supported, or `out` cannot be written.
    """
    suffix = check_out(out)
    count = 0
    draft = out.with_name(f".{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
            if suffix != ".jsonl":
                writer.writerow(columns)
            for row in rows:
                if suffix == ".jsonl":
                    file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
                else:
                    writer.writerow(row)
                count += 1
        os.replace(draft, out)
    except OSError as error:
        raise SourceError(f"{out} cannot be written ({error.strerror or error}); correct --out or make room") from error
    return count
