"""Candidates of a search in Qdrant, and their cosines to several vectors.

A formula of Qdrant's could fuse cosines to pictures and texts in one request (`fusing.py` has it for stock clients). But each
cosine in it needs both rankings anew, so that it takes longer than the two requests here: the rankings, and the cosines that
they leave open.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from cir_vectorizer.collections import TEXT_VECTOR, Ask, Id, Scored, Signal
from cir_vectorizer_qdrant import objects, searching
from cir_vectorizer_qdrant.connection import TIMEOUT_S
from cir_vectorizer_qdrant.schema import Schema

EXACT = models.SearchParams(exact=True)
"""Compares with the full vectors, not with quantised ones."""

Cosines = dict[Id, float]


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
