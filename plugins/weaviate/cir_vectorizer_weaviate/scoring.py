"""Candidates of a search in Weaviate, and their cosines to several vectors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from weaviate.collections import Collection

from cir_vectorizer.collections import TEXT_VECTOR, Id, Scored, Signal, Vector
from cir_vectorizer_weaviate.schema import UNNAMED, Schema

Found = list[tuple[Id, Mapping[str, Vector]]]
"""Objects with their vectors by name."""


def names(signals: Iterable[Signal], schema: Schema) -> list[str]:
    """Return the names of the vectors that are compared with these signals; none for a vector without a name."""
    return list({name: None for signal in signals if (name := _target(signal, schema)) is not None})


def nearest(
    remote: Collection[Any, Any], signal: Signal, limit: int, filters: Any, names: Sequence[str], schema: Schema
) -> Found:
    """Return the objects nearest to a signal, with the vectors that `names` lists.

    The client converts each number of a vector by itself, which takes longer than the search. So the vectors are taken from
    the server's answer, by private attributes of the client; in a version without them, this takes longer and nothing else
    changes.
    """
    include: Any = list(names) or True
    vector = signal.vector.tolist()
    arguments: dict[str, Any] = {"filters": filters, "target_vector": _target(signal, schema), "limit": limit}
    query: Any = remote.query
    try:
        request = query._query.near_vector(
            near_vector=vector,
            **arguments,
            return_metadata=query._parse_return_metadata(None, include),
            return_properties=query._parse_return_properties(False),
        )
        run = query._connection.grpc_search
    except (AttributeError, TypeError):
        found = query.near_vector(vector, **arguments, include_vector=include, return_properties=False).objects
        return [(str(each.uuid), {name: _array(made) for name, made in each.vector.items()}) for each in found]
    return [_read(each.metadata) for each in run(request).results]


def scored(found: Mapping[Id, Mapping[str, Vector]], signals: Sequence[Signal], schema: Schema) -> list[Scored]:
    """Return objects with their cosine to each signal."""
    columns = [_cosines(list(found.values()), _target(each, schema) or UNNAMED, each.vector) for each in signals]
    return [Scored(id_, cosines) for id_, cosines in zip(found, zip(*columns, strict=True), strict=True)]


def _cosines(found: Sequence[Mapping[str, Vector]], name: str, signal: Vector) -> list[float | None]:
    """Return the cosine of each object's vector `name` to a unit vector; None where it has no such vector."""
    cosines: list[float | None] = [None] * len(found)
    there = [i for i, vectors in enumerate(found) if name in vectors]
    if there:
        vectors = np.stack([found[i][name] for i in there])
        for i, cosine in zip(there, vectors @ signal / np.linalg.norm(vectors, axis=1), strict=True):
            cosines[i] = float(cosine)
    return cosines


def _target(signal: Signal, schema: Schema) -> str | None:
    return TEXT_VECTOR if signal.of == "text" else schema.using


def _read(found: Any) -> tuple[Id, Mapping[str, Vector]]:
    made: dict[str, Vector] = {each.name: np.frombuffer(each.vector_bytes, dtype="<f4") for each in found.vectors}
    if found.vector_bytes:
        made[UNNAMED] = np.frombuffer(found.vector_bytes, dtype="<f4")
    return found.id, made


def _array(numbers: Sequence[float]) -> Vector:
    return np.asarray(numbers, dtype=np.float32)
