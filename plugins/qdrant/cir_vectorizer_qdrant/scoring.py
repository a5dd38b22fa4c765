"""Candidates of a search in Qdrant, and their cosines to several vectors.

A formula of Qdrant's could fuse cosines to pictures and texts in one request (`fusing.py` has it for stock clients). But each
cosine in it needs both rankings anew, so that it takes longer than the two requests here: the rankings, and the cosines that
they leave open, with the payloads of the objects that will probably be shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc, grpc_to_payload

from cir_vectorizer.collections import TEXT_VECTOR, Ask, Candidates, Id, Payload, Signal, TextShare
from cir_vectorizer_qdrant import objects, searching
from cir_vectorizer_qdrant.connection import TIMEOUT_S
from cir_vectorizer_qdrant.schema import Schema

EXACT = models.SearchParams(exact=True)
"""Compares with the full vectors, not with quantised ones."""

SPARE = 8
"""Payloads that are read beside those of the objects that will probably be shown."""

Cosines = dict[Id, float]


@dataclass(frozen=True)
class Found:
    """The answer to a search: the cosine of each object, and the payloads, if they were asked for."""

    cosines: Cosines
    payloads: Mapping[Id, Payload]


def rankings(
    signals: Sequence[Signal], ask: Ask, candidates: int, schema: Schema, embedded: bool
) -> list[models.QueryRequest]:
    """Return a search for the nearest objects of each signal."""
    plain = Ask(where=ask.where, without=ask.without, exact=ask.exact)
    searches = []
    for signal in signals:
        found = searching.by_vector(signal.vector.tolist(), plain, schema, embedded)
        params = found.get("search_params")
        if params is not None:  # less than the usual 100, since the best are among the first of so many candidates
            params.hnsw_ef = candidates
        searches.append(
            models.QueryRequest(
                query=found["query"],
                using=_name(signal, schema),
                filter=found["query_filter"],
                params=params,
                limit=candidates,
            )
        )
    return searches


def comparison(signal: Signal, ids: Sequence[Id], schema: Schema) -> models.QueryRequest:
    """Return a search that compares objects with a signal."""
    return models.QueryRequest(
        query=signal.vector.tolist(),
        using=_name(signal, schema),
        filter=models.Filter(must=[models.HasIdCondition(has_id=list(ids))]),
        params=EXACT,
        limit=len(ids),
    )


def payloads_of(ids: Sequence[Id]) -> models.QueryRequest:
    """Return a search that reads the payloads of objects."""
    there = models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
    return models.QueryRequest(filter=there, limit=len(ids), with_payload=True)


def on_server(client: QdrantClient, name: str, searches: Sequence[models.QueryRequest], by_grpc: bool) -> list[Found]:
    """Run searches on a server in one request.

    It calls the client's own stubs, since `query_batch_points` copies each request and takes longer to convert five hundred
    results of gRPC than the server takes to find them.
    """
    if not searches:
        return []
    if not by_grpc:
        batch = models.QueryRequestBatch(searches=list(searches))
        found = client.http.search_api.query_batch_points(name, query_request_batch=batch).result or []
        return [
            Found(
                {objects.id_of(each): each.score for each in one.points},
                {objects.id_of(each): each.payload for each in one.points if each.payload is not None},
            )
            for one in found
        ]
    asked = [RestToGrpc.convert_query_request(each, name) for each in searches]
    answer = client.grpc_points.QueryBatch(
        grpc.QueryBatchPoints(collection_name=name, query_points=asked), timeout=TIMEOUT_S
    )
    return [
        Found(
            {_grpc_id(each.id): each.score for each in one.result},
            {_grpc_id(each.id): grpc_to_payload(each.payload) for each in one.result} if search.with_payload else {},
        )
        for search, one in zip(searches, answer.result, strict=True)
    ]


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


def table(rankings: Sequence[Signal], tops: Sequence[Cosines], signals: Sequence[Signal]) -> Candidates:
    """Return the objects of some rankings with the cosines that the rankings tell; the others are NaN.

    Args:
        tops: the first objects of each ranking, with their cosines to it.
    """
    ids = list(dict.fromkeys(chain.from_iterable(tops)))
    known = [_known(signal, rankings, tops) for signal in signals]
    columns = [[cosines.get(id_, np.nan) for id_ in ids] for cosines in known]
    return Candidates(ids, np.array(columns, dtype=np.float64).T)


def missing(found: Candidates) -> list[list[Id]]:
    """Return the objects whose cosine to each signal is not known."""
    return [[found.ids[row] for row in np.flatnonzero(column).tolist()] for column in np.isnan(found.cosines).T]


def likely(found: Candidates, share: TextShare, count: int) -> list[Id]:
    """Return the objects that seem to be the best by picture and text.

    An unknown cosine is counted as the least known one; where it is that to a text, the object may have none, too.
    """
    filled = np.where(np.isnan(found.cosines), np.fmin.reduce(found.cosines, axis=0), found.cosines)
    wordless = np.stack([filled[:, 0], found.cosines[:, 1]], axis=1)
    scores = np.fmax(share.fused(filled), share.fused(wordless))
    return [found.ids[row] for row in np.argsort(-scores)[:count].tolist()]


def completed(found: Candidates, compared: Sequence[Cosines], payloads: Mapping[Id, Payload]) -> Candidates:
    """Return candidates with further cosines to each signal, and with payloads."""
    rows = {id_: row for row, id_ in enumerate(found.ids)}
    cosines = found.cosines.copy()
    for column, more in enumerate(compared):
        cosines[[rows[id_] for id_ in more], column] = list(more.values())
    return Candidates(found.ids, cosines, payloads)


def _known(signal: Signal, rankings: Sequence[Signal], tops: Sequence[Cosines]) -> Cosines:
    for ranking, top in zip(rankings, tops, strict=True):
        if ranking.of == signal.of and np.array_equal(ranking.vector, signal.vector):
            return top
    return {}


def _name(signal: Signal, schema: Schema) -> str | None:
    return TEXT_VECTOR if signal.of == "text" else schema.using or None


def _grpc_id(found: grpc.PointId) -> Id:
    return str(found.uuid) or int(found.num)
