"""Judged queries of a customer: a file with one JSON object a line, a query and the objects that are right for it.

    {"image": "photos/shirt.jpg", "text": "in blue", "relevant": [17, 21], "unwanted": [4], "group": "blue shirt"}

The query's fields are those of `ComposedQuery`. A picture or a mask may be a file, relative to the folder of the judged
queries. Beside the query:

    relevant    ids of right objects: a list, or an object of gains by id (a gain of 0 is a wrong object that was judged)
    unwanted    ids of objects that must not be found
    name        the query's name in the report
    group       queries of one group are wordings of one wish
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cir_vectorizer.collections.stored import read_id
from cir_vectorizer.errors import CirError, QueryError, SourceError
from cir_vectorizer.identity import id_text
from cir_vectorizer.query import ComposedQuery, ImageRef
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import json_kind, table_rows, table_suffix

Key = str
"""An object's id as text, or the value of the id column as text."""

_SUFFIXES = (".jsonl", ".ndjson", ".json")
_OWN = ("relevant", "unwanted", "name", "group")


@dataclass(frozen=True)
class JudgedQuery:
    """A query with the objects that are right for it.

    Attributes:
        place: file and line, for messages.
        query: as it was read; ids of its pictures are keys.
        relevant: gains of right objects, above 0.
        group: the wish that it words; None if it stands alone.
        name: the query's name in reports, "" if it has none.
    """

    place: str
    query: ComposedQuery
    relevant: Mapping[Key, float]
    unwanted: frozenset[Key] = frozenset()
    group: str | None = None
    name: str = ""

    @property
    def references(self) -> frozenset[Key]:
        """Keys of the objects that are the query's own pictures."""
        return frozenset(str(ref.id) for ref in self.query.image if ref.id is not None)

    @property
    def keys(self) -> frozenset[Key]:
        """Keys of all objects that the query names."""
        return self.references | self.relevant.keys() | self.unwanted

    @property
    def kind(self) -> str:
        """The parts of the query: "picture and text", "text and negative text", …"""
        query, pictures = self.query, len(self.query.image)
        parts = [
            "picture" if pictures == 1 else "pictures" if pictures else "",
            "text" if (query.text or "").strip() else "",
            "negative text" if query.unwanted else "",
            "must text" if query.wanted else "",
        ]
        return " and ".join(filter(None, parts))


def read_judged(path: Path, by_column: bool = False) -> tuple[list[JudgedQuery], list[str]]:
    """Read judged queries.

    Args:
        path: a .jsonl, .ndjson or .json file, which may be gzipped.
        by_column: ids are values of a column, so that any text or number is one.

    Returns:
        The queries, and a sentence for each line that is wrong.

    Raises:
        SourceError: the file cannot be read, or no line holds a judged query.
    """
    suffix = table_suffix(path.name) or ""
    if not suffix.startswith(_SUFFIXES):
        raise SourceError(
            f"{path} does not end in {', '.join(_SUFFIXES)}; write one JSON object a line, in a .jsonl file"
        )
    table = table_rows(path, strict=False)
    queries, problems = [], []
    for number, row in table:
        place = table.place(number)
        if isinstance(row, Failure):
            problems.append(f"{place}: {row.sentence}")
            continue
        try:
            if not isinstance(row, dict):
                raise QueryError("", f'holds {json_kind(row)}; write an object, {{"text": …, "relevant": […]}}')
            queries.append(_read(row, place, path.parent, _as_key if by_column else _as_id))
        except CirError as error:
            problems.append(f"{place}: {error}")
    if not queries:
        first = f"the first mistake is {problems[0]}" if problems else "the file is empty"
        raise SourceError(f"{path} holds no judged query: {first}")
    return queries, problems


def _read(row: Mapping[str, Any], place: str, folder: Path, key: Callable[[Any, str], Key]) -> JudgedQuery:
    given = {field: value for field, value in row.items() if field not in _OWN}
    for field in ("image", "mask"):
        value = given.get(field)
        items = isinstance(value, list) and not all(isinstance(each, int | float) for each in value)
        given[field] = [_file(each, folder) for each in value or ()] if items else _file(value, folder)
    query = ComposedQuery.parse(given)
    for i, ref in enumerate(query.image):
        if ref.url is not None:
            raise QueryError(f"image.{i}", "is a URL, and pictures are not fetched here; name a file or an object's id")
    ids = {i: key(ref.id, f"image.{i}") for i, ref in enumerate(query.image) if ref.id is not None}
    images = [ImageRef(id=ids[i]) if i in ids else ref for i, ref in enumerate(query.image)]
    relevant = {each: gain for each, gain in _gains(row.get("relevant"), key).items() if gain}
    if not relevant:
        raise QueryError("relevant", "names no object; list the ids of the right ones")
    if own := sorted(relevant.keys() & set(ids.values())):
        problem = f"names object {own[0]}, the query's own picture, which is left out of its results; remove it"
        raise QueryError("relevant", problem)
    unwanted = frozenset(_gains(row.get("unwanted") or [], key, "unwanted"))
    if both := sorted(unwanted & relevant.keys()):
        raise QueryError("unwanted", f"names object {both[0]}, which is relevant too; keep it in one of the two")
    query = query.model_copy(update={"image": tuple(images)})
    return JudgedQuery(place, query, relevant, unwanted, _label(row, "group"), _label(row, "name") or "")


def _file(value: Any, folder: Path) -> Any:
    """Return a picture that is named by its file as a path; anything else as it is."""
    if isinstance(value, Mapping) and isinstance(value.get("path"), str) and len(value) == 1:
        return folder / value["path"]
    if not isinstance(value, str) or value.lower().startswith(("http://", "https://", "data:")):
        return value
    return folder / value if "." in value or _exists(folder / value) else value  # base64 has no dot


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a long base64 text is no file's name
        return False


def _gains(value: Any, key: Callable[[Any, str], Key], field: str = "relevant") -> dict[Key, float]:
    """Return the gains of a list of ids, 1 each, or of an object of gains by id."""
    if isinstance(value, list):
        return {key(each, f"{field}.{i}"): 1.0 for i, each in enumerate(value)}
    if value is None:
        raise QueryError(field, "is missing; list the ids of the right objects")
    if not isinstance(value, Mapping) or field != "relevant":
        gains = ", or an object of gains by id" if field == "relevant" else ""
        raise QueryError(field, f"is {json_kind(value)}; give a list of ids{gains}")
    for each, gain in value.items():
        if isinstance(gain, bool) or not isinstance(gain, int | float) or not math.isfinite(gain) or gain < 0:
            raise QueryError(f"{field}.{each}", f"is {gain!r}; a gain is a number from 0 on")
    return {key(each, f"{field}.{each}"): float(gain) for each, gain in value.items()}


def _as_id(value: Any, field: str) -> Key:
    return str(read_id(_as_key(value, field), field))


def _as_key(value: Any, field: str) -> Key:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise QueryError(field, f"is {json_kind(value)}, which is no id; give a text or a number")
    return id_text(value)


def _label(row: Mapping[str, Any], field: str) -> str | None:
    value = row.get(field)
    return None if value is None else _as_key(value, field)


def known_only(queries: Sequence[JudgedQuery], known: frozenset[Key]) -> tuple[list[JudgedQuery], list[str]]:
    """Leave objects out of the judgments that the collection does not have, and queries of which nothing is left.

    Returns:
        The queries, and a sentence for each one that is left out.
    """
    kept, problems = [], []
    for each in queries:
        relevant = {key: gain for key, gain in each.relevant.items() if key in known}
        if lost := sorted(each.references - known):
            problems.append(f"{each.place}: its picture {lost[0]} is no object of the collection; correct the id")
        elif not relevant:
            problems.append(f"{each.place}: the collection has none of its relevant objects; correct their ids")
        else:
            kept.append(replace(each, relevant=relevant, unwanted=each.unwanted & known))
    return kept, problems
