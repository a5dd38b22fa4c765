"""Searches in Qdrant: by vector, by vector and keywords, and for the best object of each group."""

from typing import Any

from qdrant_client import QdrantClient, models

from cir_vectorizer.collections import Ask
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer_qdrant import words
from cir_vectorizer_qdrant.columns import column_key
from cir_vectorizer_qdrant.filters import to_qdrant
from cir_vectorizer_qdrant.schema import Schema

FUSED_DEPTH = 100
"""Smallest number of entries of each ranking that are fused."""
FUSION_K = 60
"""Constant of reciprocal rank fusion: an entry at rank r counts 1 / (r + 60)."""
OVERSAMPLING = 2.0
"""Candidates per hit that the quantised vectors select; the full vectors then rank them."""

Arguments = dict[str, Any]
"""Arguments of `query_points`."""


def by_vector(query: Any, ask: Ask, schema: Schema, embedded: bool) -> Arguments:
    """Return the arguments of a search by the dense vector; `query` is a vector or an InferenceObject."""
    arguments: Arguments = {
        "query": query,
        "using": schema.using or None,
        "query_filter": to_qdrant(ask.where, ask.without),
    }
    if not embedded:  # the embedded mode always compares with every object, and warns about search parameters
        rescoring = models.QuantizationSearchParams(ignore=ask.exact, rescore=True, oversampling=OVERSAMPLING)
        arguments["search_params"] = models.SearchParams(
            exact=ask.exact, quantization=rescoring if schema.quantized else None
        )
    if ask.diversity:
        varied = models.Mmr(diversity=ask.diversity, candidates_limit=ask.pool)
        arguments["query"] = models.NearestQuery(nearest=query, mmr=varied)
    return with_keywords(arguments, ask.text, schema, ask.offset + ask.limit) if ask.text is not None else arguments


def with_keywords(ranking: Arguments, text: str, schema: Schema, depth: int) -> Arguments:
    """Return the arguments of a search that fuses `ranking` with a ranking by keywords.

    In our own collections, BM25 ranks the keywords. In others, the second ranking is by the dense vector too, but only
    among objects that hold a keyword in a column with a full-text index.

    Args:
        depth: entries of each ranking.

    Raises:
        CollectionError: the collection has neither our keywords nor a full-text index.
    """
    conditions = ranking["query_filter"]
    if schema.words:
        by_words = {"query": words.of_query(text), "using": words.VECTOR, "query_filter": conditions}
    elif schema.text_columns:
        holds: list[models.Condition] = [
            models.FieldCondition(key=key, match=models.MatchTextAny(text_any=text)) for key in schema.text_columns
        ]
        both = models.Filter(must=[*([conditions] if conditions else []), models.Filter(should=holds)])
        by_words = {**ranking, "query_filter": both}
    else:
        raise CollectionError(
            "the collection has neither keywords nor a column with a full-text index; make such an index "
            "(create_payload_index(…, field_schema='text')), or search without keywords"
        )
    rankings = [models.Prefetch(**_prefetch(each), limit=max(FUSED_DEPTH, depth)) for each in (ranking, by_words)]
    return {"prefetch": rankings, "query": models.RrfQuery(rrf=models.Rrf(k=FUSION_K))}


def run(client: QdrantClient, name: str, arguments: Arguments, ask: Ask) -> list[models.ScoredPoint]:
    """Run a search; return its hits, or with `group_by` the best hit for each value of that column."""
    if ask.group_by is None and ask.diversity:  # the server applies an offset twice to such a search
        found = client.query_points(name, **arguments, limit=ask.offset + ask.limit, with_payload=True)
        return found.points[ask.offset :]
    if ask.group_by is None:
        found = client.query_points(name, **arguments, limit=ask.limit, offset=ask.offset, with_payload=True)
        return found.points
    key = column_key(parse_column(ask.group_by))
    groups = client.query_points_groups(
        name, group_by=key, **arguments, limit=ask.offset + ask.limit, group_size=1, with_payload=True
    ).groups
    return [group.hits[0] for group in groups[ask.offset :] if group.hits]


def _prefetch(ranking: Arguments) -> Arguments:
    renamed = {"query_filter": "filter", "search_params": "params"}
    return {renamed.get(key, key): value for key, value in ranking.items()}
