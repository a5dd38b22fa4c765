"""Reader of a benchmark's JSON files; an error names the file, the row and the field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cir_vectorizer.errors import SourceError, first_line


def find(root: Path, *places: str, split: bool = True) -> Path:
    """Return the first of some files or folders under `root` that exists.

    Args:
        places: paths relative to `root`, the official one first; a `..` is understood.
        split: False if the benchmark has no splits.

    Raises:
        SourceError: there is none.
    """
    if found := first(root, *places):
        return found
    if not root.is_dir():
        raise SourceError(f"--data {root} is no folder; give the folder of the downloaded dataset")
    splits = ", and --split one of its splits" if split else ""
    raise SourceError(f"{root / places[0]} is missing; give --data the dataset's folder as it was downloaded{splits}")


def first(root: Path, *places: str) -> Path | None:
    """Return the first of some files or folders under `root` that exists, or None."""
    return next((root / place for place in places if (root / place).exists()), None)


def read_json(path: Path) -> Any:
    """Read a JSON file in which no object has the same key twice.

    Raises:
        SourceError: the file cannot be read, is no JSON, or was cut short.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: _object(pairs, path))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except RecursionError as error:
        raise SourceError(f"{path} is nested too deeply; get the file again") from error
    except ValueError as error:
        problem = f"{path} is no JSON, or was cut short ({first_line(error)}); get the file again"
        raise SourceError(problem) from error


def read_records(path: Path) -> "list[Record]":
    """Read a JSON file that is a list of objects.

    Raises:
        SourceError: it is not.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise SourceError(f"{path} holds no list of annotations; get the dataset's own file again")
    return [record(row, f"{path}, annotation {i}") for i, row in enumerate(rows)]


def record(value: Any, where: str) -> "Record":
    """Return a JSON object as a record.

    Raises:
        SourceError: it is no object.
    """
    if not isinstance(value, dict):
        raise SourceError(f"{where} is no JSON object; get the dataset's own file again")
    return Record(value, where)


def number(value: object) -> str | None:
    """Return an id that is a number, or a text of digits, in its shortest form; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return value.lstrip("0") or "0"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: object) -> str | None:
    """Return the value if it is a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


@dataclass(frozen=True)
class Record:
    """A JSON object whose fields are checked as they are read; `where` names it in errors."""

    values: Mapping[str, Any]
    where: str

    def __contains__(self, field: str) -> bool:
        return field in self.values

    def number(self, field: str) -> str:
        """Return an id that is a number, as `number` does. Raises SourceError if it is none."""
        return self._checked(field, number(self.values.get(field)), "a number")

    def numbers(self, field: str) -> tuple[str, ...]:
        """Return a list of ids that are numbers. Raises SourceError if it is none."""
        return tuple(self._checked(field, number(value), "a list of numbers") for value in self.items(field))

    def text(self, field: str) -> str:
        """Return a text. Raises SourceError if there is none."""
        return self._checked(field, text(self.values.get(field)), "a text")

    def texts(self, field: str) -> tuple[str, ...]:
        """Return a list of texts. Raises SourceError if it is none."""
        return tuple(self._checked(field, text(value), "a list of texts") for value in self.items(field))

    def inner(self, field: str) -> "Record":
        """Return an object inside this one. Raises SourceError if there is none."""
        return record(self.values.get(field), f"{self.where}, {field}")

    def items(self, field: str) -> list[Any]:
        """Return a list. Raises SourceError if there is none."""
        value = self.values.get(field)
        if not isinstance(value, list):
            raise SourceError(f"{self.where}: {field} is no list; get the dataset's own file again")
        return value

    def _checked(self, field: str, value: str | None, kind: str) -> str:
        if value is None:
            raise SourceError(f"{self.where}: {field} is missing or is not {kind}; get the dataset's own file again")
        return value


def _object(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise SourceError(f"{path} has {twice!r} twice in one object; keep one of them")
    return found
