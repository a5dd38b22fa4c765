"""Searches in Weaviate: by vector, by a composed query, with keywords, for different hits, and for the best of each group."""

from collections.abc import Callable
from typing import Any

from weaviate.classes.query import HybridFusion, HybridVector, MetadataQuery
from weaviate.collections import Collection

from cir_vectorizer.collections import Ask, Hit, records
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer_weaviate import objects, words
from cir_vectorizer_weaviate.schema import Schema

FIRST_WINDOW, MOST_RESULTS = 100, 10_000
"""Hits among which groups are sought: at first, and at most (Weaviate's limit, QUERY_MAXIMUM_RESULTS)."""
HALF = 0.5
"""Weight of the vector beside the keywords."""

Search = Callable[[Collection[Any, Any], int, int], list[Hit]]
"""Function that searches a collection; takes the limit and the offset."""


def nearest(near: list[float] | str, text: str | None, schema: Schema, filters: Any) -> Search:
    """Return a search for the objects nearest to a vector, or to the vector that the container makes of a concept.

    Args:
        near: a vector, or a concept.
        text: keywords; the two rankings are fused by rank, as in the Qdrant plugin. None for a search without keywords.
    """
    named = {} if schema.using is None else {"target_vector": schema.using}
    wanted = MetadataQuery(distance=True, score=True)
    fixed = {**named, "filters": filters, "return_properties": schema.shown, "return_metadata": wanted}

    def ask(remote: Collection[Any, Any], limit: int, offset: int) -> Any:
        arguments = {**fixed, "limit": limit, "offset": offset}
        if text is not None:
            return remote.query.hybrid(
                words.of_query(text) if schema.ours else text,
                vector=HybridVector.near_text(near) if isinstance(near, str) else near,
                alpha=HALF,
                fusion_type=HybridFusion.RANKED,
                query_properties=[words.WORDS] if schema.ours and not schema.native else None,
                **arguments,
            )
        if isinstance(near, str):
            return remote.query.near_text(near, **arguments)
        return remote.query.near_vector(near, **arguments)

    return lambda remote, limit, offset: [objects.read_hit(each, schema) for each in ask(remote, limit, offset).objects]


def varied(vector: list[float], ask: Ask, schema: Schema, filters: Any) -> Search:
    """Return a search for objects near to a vector that differ from each other."""
    from weaviate.classes.query import Diversity

    def search(remote: Collection[Any, Any], limit: int, offset: int) -> list[Hit]:
        found = remote.query.near_vector(
            vector,
            target_vector=schema.using,
            filters=filters,
            limit=ask.pool,
            diversity_selection=Diversity.mmr(limit=offset + limit, balance=1 - ask.diversity),
            return_properties=schema.shown,
            return_metadata=MetadataQuery(distance=True),
        )
        return [objects.read_hit(each, schema) for each in found.objects[offset:]]

    return search


def best_of_groups(page: Callable[[int], list[Hit]], group_by: str, limit: int, offset: int) -> list[Hit]:
    """Return the best hit for each text or whole number in a column.

    Weaviate only groups the hits of one search, so the search is repeated with growing limits until there are enough
    groups.

    Args:
        page: returns the first hits, given their number.
    """
    column, end = parse_column(group_by), offset + limit
    window = max(FIRST_WINDOW, 2 * end)
    while True:
        window = min(window, MOST_RESULTS)
        hits = page(window)
        best = records.best_of_groups(hits, column, end)
        if len(best) == end or len(hits) < window or window == MOST_RESULTS:
            return best[offset:]
        window *= 4
