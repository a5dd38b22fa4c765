"""Keys and payload indexes of columns in Qdrant."""

from collections.abc import Collection, Sequence

from qdrant_client import models

from cir_vectorizer.collections import Payload, values_at
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query.filters import parse_column


def column_key(column: tuple[str, ...]) -> str:
    """Return a column's key in Qdrant: `maker.city`, `"brand name"`.

    Raises:
        QueryError: Qdrant has no key for this name.
    """
    return ".".join(_key(part) for part in column)


def _key(part: str) -> str:
    if '"' in part:
        raise QueryError("filter", f"column {part!r} has a quote in its name, which Qdrant cannot address; rename it")
    return part if part.replace("-", "_").isidentifier() else f'"{part}"'


def missing_indexes(
    asked: Sequence[str], there: Collection[str], payloads: Sequence[Payload]
) -> dict[str, models.PayloadSchemaType]:
    """Return the types of payload indexes to create, by key; columns of unknown type are left out.

    Args:
        asked: columns to index, written as in a filter.
        there: keys of the existing indexes.
        payloads: payloads whose values show the columns' types.
    """
    keys = {column_key(path): path for path in map(parse_column, asked)}
    kinds = {key: _kind(path, payloads) for key, path in keys.items() if key not in there}
    return {key: kind for key, kind in kinds.items() if kind is not None}


def _kind(path: tuple[str, ...], payloads: Sequence[Payload]) -> models.PayloadSchemaType | None:
    for payload in payloads:
        for each in values_at(payload, path):
            if isinstance(each, bool):
                return models.PayloadSchemaType.BOOL
            if isinstance(each, int | float):
                return models.PayloadSchemaType.FLOAT
            if isinstance(each, str):
                return models.PayloadSchemaType.KEYWORD
    return None
