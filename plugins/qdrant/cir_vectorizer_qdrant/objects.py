"""Conversion of points and payloads to Qdrant's points, and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from cir_vectorizer.collections import TEXT_VECTOR, Hit, Id, Payload, Point, SyncRecord, Vector
from cir_vectorizer.collections.base import picture_to_vectorize
from cir_vectorizer_qdrant import words
from cir_vectorizer_qdrant.inference import DEFAULT_MODEL
from cir_vectorizer_qdrant.schema import Schema


def to_points(points: Sequence[Point], schema: Schema) -> list[models.PointStruct]:
    """Convert points to Qdrant's.

    Raises:
        ValueError: one of the points cannot be written; a sentence with the reason.
    """
    made = []
    for point in points:
        vectors: dict[str, Any] = {schema.using: _to_vector(point, schema)}
        if schema.words:
            vectors[words.VECTOR] = words.of_payload(point.payload)
        if point.text_vector is not None:
            vectors[TEXT_VECTOR] = numbers(point.text_vector)
        made.append(models.PointStruct(id=point.id, vector=_unnamed(vectors), payload=point.payload))
    return made


def to_replacement(
    payloads: Mapping[Id, Payload], texts: Mapping[Id, Vector | None], schema: Schema
) -> list[models.UpdateOperation]:
    """Return the operations that replace payloads: new keywords and texts, then one overwrite per object.

    The overwrites come last, because they hold the records that mark an object as up to date.

    Args:
        texts: as for `Collection.replace_payload`.
    """
    points: list[models.PointVectors] = []
    without: dict[str, list[Id]] = {words.VECTOR: [], TEXT_VECTOR: []}
    for id_, payload in payloads.items():
        made: dict[str, Any] = {}
        if schema.words:
            sparse = words.of_payload(payload)
            made[words.VECTOR] = sparse if sparse.indices else None
        if id_ in texts and schema.texts:
            text = texts[id_]
            made[TEXT_VECTOR] = None if text is None else numbers(text)
        for name in [name for name, vector in made.items() if vector is None]:
            del made[name]
            without[name].append(id_)
        if made:
            points.append(models.PointVectors(id=id_, vector=made))
    operations: list[models.UpdateOperation] = []
    if points:
        operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=points)))
    for name, ids in without.items():
        if ids:
            gone = models.DeleteVectors(vector=[name], points=list(ids))
            operations.append(models.DeleteVectorsOperation(delete_vectors=gone))
    operations += [
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[id_]))
        for id_, payload in payloads.items()
    ]
    return operations


def to_merge(points: Sequence[Point], schema: Schema) -> list[models.UpdateOperation]:
    """Return the operations that replace vectors and single columns; the records, which come last, mark the objects."""
    vectors = []
    for point in points:
        made: dict[str, Any] = {} if point.vector is None else {schema.using: numbers(point.vector)}
        if schema.words and (sparse := words.of_payload(point.payload)).indices:
            made[words.VECTOR] = sparse
        if point.text_vector is not None:
            made[TEXT_VECTOR] = numbers(point.text_vector)
        if made:
            vectors.append(models.PointVectors(id=point.id, vector=_unnamed(made)))
    operations: list[models.UpdateOperation] = []
    if vectors:
        operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=vectors)))
    operations += [
        models.SetPayloadOperation(set_payload=models.SetPayload(payload=point.payload, points=[point.id]))
        for point in points
    ]
    return operations


def id_of(found: models.Record | models.ScoredPoint) -> Id:
    """Return the id of an object from Qdrant."""
    return found.id if isinstance(found.id, int) else str(found.id)


def read_record(found: models.Record) -> SyncRecord | None:
    """Return sync's record of an object; None if it is missing or cannot be read."""
    return SyncRecord.read(found.payload)


def read_point(found: models.Record, schema: Schema) -> Point:
    """Convert an object to a point."""
    vectors = read_vectors(found)
    dense: Vector = vectors.get(schema.using, np.empty(0, dtype=np.float32))
    return Point(id_of(found), dense, found.payload or {}, text_vector=vectors.get(TEXT_VECTOR))


def read_vectors(found: models.Record | models.ScoredPoint) -> dict[str, Vector]:
    """Return the dense vectors that were read of an object, by name; "" is the one without a name."""
    vectors: Any = found.vector if isinstance(found.vector, dict) else {"": found.vector}
    return {name: np.asarray(each, dtype=np.float32) for name, each in vectors.items() if isinstance(each, list)}


def read_hit(found: models.ScoredPoint) -> Hit:
    """Convert a search result to a hit."""
    return Hit(id_of(found), found.score, found.payload or {})


def _to_vector(point: Point, schema: Schema) -> list[float] | models.Image:
    if point.vector is not None:
        return numbers(point.vector)
    picture = picture_to_vectorize(point, schema.note is not None and schema.note.vectorize == "server")
    return models.Image(image=picture, model=schema.model or DEFAULT_MODEL)


def numbers(vector: Iterable[Any]) -> list[float]:
    """Return a vector as a list."""
    return [float(x) for x in vector]


def _unnamed(vectors: dict[str, Any]) -> Any:
    """Return vectors by name, or the vector alone if it is the only one and has no name."""
    return vectors[""] if set(vectors) == {""} else vectors
