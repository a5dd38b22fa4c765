"""Searches in Qdrant with a second score: the fused score of picture and text, and cosines of candidates to several vectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from cir_vectorizer.collections import TEXT_VECTOR, Ask, Hit, Id, Scored, Signal, TextShare, Vector
from cir_vectorizer_qdrant import objects, searching
from cir_vectorizer_qdrant.connection import TIMEOUT_S
from cir_vectorizer_qdrant.schema import Schema

EXACT = models.SearchParams(exact=True)
"""Compares with the full vectors, not with quantised ones."""

Cosines = dict[Id, float]


def fused(vector: list[float], share: TextShare, ask: Ask, schema: Schema) -> searching.Arguments:
    """Return the arguments of a search by the fused score of picture and text.

    The first objects by picture and by text are compared with both: an object that only one of the two rankings holds has
    both cosines.
    """
    names = (schema.using, TEXT_VECTOR)
    found = searching.by_vector(vector, ask, schema, embedded=False)
    first = [models.Prefetch(query=vector, using=name, limit=ask.pool, params=found["search_params"]) for name in names]
    both = [
        models.Prefetch(prefetch=first, query=vector, using=name, limit=2 * ask.pool, params=EXACT) for name in names
    ]
    return {
        "prefetch": both,
        "query": formula(share),
        "query_filter": found["query_filter"],
        "with_vectors": list(names),
    }


def formula(share: TextShare) -> models.FormulaQuery:
    """Return the fused score of the cosines to the picture, `$score[0]`, and to the text, `$score[1]` (see `TextShare`)."""
    wordless = models.Filter(must_not=[models.HasVectorCondition(has_vector=TEXT_VECTOR)])
    weight = share.weight
    stand_in = models.SumExpression(sum=[models.MultExpression(mult=[share.slope, "$score[0]"]), share.offset])
    return models.FormulaQuery(
        formula=models.SumExpression(
            sum=[
                models.MultExpression(mult=[1 - weight, "$score[0]"]),
                models.MultExpression(mult=[weight, "$score[1]"]),
                models.MultExpression(mult=[weight, wordless, stand_in]),
            ]
        ),
        defaults={"$score[0]": 0.0, "$score[1]": 0.0},
    )


def read_fused(found: models.ScoredPoint, vector: Vector, schema: Schema) -> Hit:
    """Convert a result of `fused` to a hit, with the cosines to the picture and to the text as signals."""
    vectors = objects.read_vectors(found)
    cosines = {
        name: float(vectors[key] @ vector)
        for name, key in (("picture", schema.using), ("text", TEXT_VECTOR))
        if key in vectors
    }
    return Hit(objects.id_of(found), found.score, found.payload or {}, cosines)


def rankings(
    signals: Sequence[Signal], ask: Ask, candidates: int, schema: Schema, embedded: bool
) -> list[models.QueryRequest]:
    """Return a search for the nearest objects of each signal."""
    plain = Ask(where=ask.where, without=ask.without, exact=ask.exact)
    searches = []
    for signal in signals:
        found = searching.by_vector(objects.numbers(signal.vector), plain, schema, embedded)
        searches.append(
            models.QueryRequest(
                query=found["query"],
                using=_name(signal, schema),
                filter=found["query_filter"],
                params=found.get("search_params"),
                limit=candidates,
            )
        )
    return searches


def comparison(signal: Signal, ids: Sequence[Id], schema: Schema) -> models.QueryRequest:
    """Return a search that compares objects with a signal."""
    return models.QueryRequest(
        query=objects.numbers(signal.vector),
        using=_name(signal, schema),
        filter=models.Filter(must=[models.HasIdCondition(has_id=list(ids))]),
        params=EXACT,
        limit=len(ids),
    )


def on_server(client: QdrantClient, name: str, searches: Sequence[models.QueryRequest], by_grpc: bool) -> list[Cosines]:
    """Run searches on a server; return the cosine of each object that they find.

    It calls the client's own stubs, since `query_batch_points` copies each request and takes longer to convert five hundred
    results of gRPC than the server takes to find them.
    """
    if not searches:
        return []
    if not by_grpc:
        batch = models.QueryRequestBatch(searches=list(searches))
        found = client.http.search_api.query_batch_points(name, query_request_batch=batch).result or []
        return [{_id(each.id): each.score for each in one.points} for one in found]
    asked = [RestToGrpc.convert_query_request(each, name) for each in searches]
    answer = client.grpc_points.QueryBatch(
        grpc.QueryBatchPoints(collection_name=name, query_points=asked), timeout=TIMEOUT_S
    )
    return [{_grpc_id(each.id): each.score for each in one.result} for one in answer.result]


def embedded(client: QdrantClient, name: str, searches: Sequence[models.QueryRequest]) -> list[Cosines]:
    """Run searches in the embedded mode; return the cosine of each object that they find."""
    found = [
        client.query_points(
            name,
            query=each.query,
            using=each.using,
            query_filter=each.filter,
            limit=each.limit or 0,
            with_payload=False,
        ).points
        for each in searches
    ]
    return [{objects.id_of(each): each.score for each in one} for one in found]


def compare_embedded(
    client: QdrantClient, name: str, asked: Sequence[tuple[Signal, list[Id]]], schema: Schema
) -> list[Cosines]:
    """Return the cosines of objects to signals in the embedded mode, whose searches by ids take long."""
    ids = {id_: None for _, some in asked for id_ in some}
    names = {_name(signal, schema) or "" for signal, _ in asked}
    found = client.retrieve(name, list(ids), with_payload=False, with_vectors=list(names)) if ids else []
    points = {point.id: point for point in (objects.read_point(each, schema) for each in found)}
    made = []
    for signal, some in asked:
        cosines = {}
        for id_ in some:
            point = points.get(id_)
            vector = None if point is None else point.text_vector if signal.of == "text" else point.vector
            if vector is not None and vector.size:
                cosines[id_] = float(vector @ signal.vector)
        made.append(cosines)
    return made


def candidates_of(tops: Sequence[Cosines]) -> list[Id]:
    """Return each object of some rankings once."""
    return list({id_: None for top in tops for id_ in top})


def scored(
    rankings: Sequence[Signal],
    tops: Sequence[Cosines],
    signals: Sequence[Signal],
    compare: Callable[[list[tuple[Signal, list[Id]]]], list[Cosines]],
) -> list[Scored]:
    """Return the candidates with their cosine to each signal.

    Args:
        tops: the candidates of each ranking, with their cosines to it.
        compare: returns the cosines of objects to signals.
    """
    ids = candidates_of(tops)
    known = [_known(signal, rankings, tops) for signal in signals]
    missing = [[id_ for id_ in ids if id_ not in cosines] for cosines in known]
    asked = [i for i, some in enumerate(missing) if some]
    for i, found in zip(asked, compare([(signals[i], missing[i]) for i in asked]), strict=True):
        known[i] = known[i] | found
    return [Scored(id_, tuple(cosines.get(id_) for cosines in known)) for id_ in ids]


def _known(signal: Signal, rankings: Sequence[Signal], tops: Sequence[Cosines]) -> Cosines:
    for ranking, top in zip(rankings, tops, strict=True):
        if ranking.of == signal.of and np.array_equal(ranking.vector, signal.vector):
            return top
    return {}


def _name(signal: Signal, schema: Schema) -> str | None:
    return TEXT_VECTOR if signal.of == "text" else schema.using or None


def _id(found: Any) -> Id:
    return found if isinstance(found, int) else str(found)


def _grpc_id(found: grpc.PointId) -> Id:
    return str(found.uuid) or int(found.num)
