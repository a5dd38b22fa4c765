"""The searches that Weaviate can do for us, and their hits."""

from collections.abc import Callable, Mapping
from typing import Any

from weaviate.classes.query import HybridFusion, HybridVector, MetadataQuery
from weaviate.collections import Collection

from cir_vectorizer.collections import Hit, Payload
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer_weaviate import objects
from cir_vectorizer_weaviate.schema import WORDS, Schema

FIRST_WINDOW, MOST_RESULTS = 100, 10_000
"""Hits that are searched for groups at first, and at most: Weaviate's own bound (QUERY_MAXIMUM_RESULTS)."""
HALF = 0.5
"""Weight of the vector beside the keywords."""

Search = Callable[[Collection[Any, Any], int, int], list[Hit]]
"""Hits of a collection, by how many and how many to pass over."""


def near_vector(numbers: list[float], schema: Schema, filters: Any) -> Search:
    """The nearest to a vector."""
    arguments = _arguments(schema, filters)
    return lambda remote, limit, offset: _hits(
        remote.query.near_vector(numbers, limit=limit, offset=offset, **arguments), schema
    )


def near_text(concept: str, schema: Schema, filters: Any) -> Search:
    """The nearest to what the container makes of a concept."""
    arguments = _arguments(schema, filters)
    return lambda remote, limit, offset: _hits(
        remote.query.near_text(concept, limit=limit, offset=offset, **arguments), schema
    )


def hybrid(words: str, near: list[float] | str, schema: Schema, filters: Any) -> Search:
    """Keywords, and the nearest to a vector or a concept; fused by rank as in the Qdrant plugin."""
    arguments = _arguments(schema, filters)
    return lambda remote, limit, offset: _hits(
        remote.query.hybrid(
            words,
            vector=HybridVector.near_text(near) if isinstance(near, str) else near,
            alpha=HALF,
            fusion_type=HybridFusion.RANKED,
            query_properties=[WORDS] if schema.ours else None,
            limit=limit,
            offset=offset,
            **arguments,
        ),
        schema,
    )


def best_of_groups(page: Callable[[int], list[Hit]], group_by: str, limit: int, offset: int) -> list[Hit]:
    """The best hit for each text or whole number of a column.

    Weaviate groups among the hits of one search alone, so ever longer ones are asked for until there are enough.

    Args:
        page: the first hits, by how many.
    """
    column = parse_column(group_by)
    window = max(FIRST_WINDOW, 2 * (offset + limit))
    while True:
        window = min(window, MOST_RESULTS)
        hits = page(window)
        best: dict[tuple[type, str | int], Hit] = {}
        for hit in hits:
            for value in _group_values(hit.payload, column):
                best.setdefault((type(value), value), hit)
        if len(best) >= offset + limit or len(hits) < window or window == MOST_RESULTS:
            return list(best.values())[offset : offset + limit]
        window *= 4


def _arguments(schema: Schema, filters: Any) -> dict[str, Any]:
    named = {} if schema.using is None else {"target_vector": schema.using}
    wanted = MetadataQuery(distance=True, score=True)
    return {**named, "filters": filters, "return_properties": schema.shown, "return_metadata": wanted}


def _hits(found: Any, schema: Schema) -> list[Hit]:
    return [
        Hit(str(each.uuid), _score(each.metadata, schema), objects.payload(each.properties, schema))
        for each in found.objects
    ]


def _score(metadata: Any, schema: Schema) -> float:
    """The cosine, or the fused score of a hybrid search."""
    if metadata.distance is None:
        return float(metadata.score or 0)
    return 1 - float(metadata.distance) if schema.distance == "cosine" else -float(metadata.distance)


def _group_values(payload: Payload, column: tuple[str, ...]) -> list[str | int]:
    value: Any = payload
    for part in column:
        value = value.get(part) if isinstance(value, Mapping) else None
    entries = value if isinstance(value, list) else [value]
    return [each for each in entries if isinstance(each, str | int) and not isinstance(each, bool)]
