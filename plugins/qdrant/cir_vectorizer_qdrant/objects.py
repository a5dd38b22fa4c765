"""Conversion of points and payloads to Qdrant's points, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from cir_vectorizer.collections import Hit, Id, Payload, Point, SyncRecord, Vector
from cir_vectorizer.collections.base import picture_to_vectorize
from cir_vectorizer_qdrant import words
from cir_vectorizer_qdrant.inference import DEFAULT_MODEL
from cir_vectorizer_qdrant.schema import Schema


def to_batch(points: Sequence[Point], schema: Schema) -> models.Batch:
    """Convert points to a batch.

    Raises:
        ValueError: one of the points cannot be written; a sentence with the reason.
    """
    vectors: dict[str, Any] = {schema.using: [_to_vector(point, schema) for point in points]}
    if schema.words:
        vectors[words.VECTOR] = [words.of_payload(point.payload) for point in points]
    return models.Batch(
        ids=[point.id for point in points],
        vectors=vectors if len(vectors) > 1 or schema.using else vectors[""],
        payloads=[point.payload for point in points],
    )


def to_replacement(payloads: Mapping[Id, Payload], with_words: bool) -> list[models.UpdateOperation]:
    """Return the operations that replace payloads: new keywords for all objects, then one overwrite per object.

    The overwrites come last, because they hold the records that mark an object as up to date.
    """
    overwrites: list[models.UpdateOperation] = [
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[id_]))
        for id_, payload in payloads.items()
    ]
    if not with_words:
        return overwrites
    operations: list[models.UpdateOperation] = []
    sparse = {id_: words.of_payload(payload) for id_, payload in payloads.items()}
    points = [models.PointVectors(id=id_, vector={words.VECTOR: each}) for id_, each in sparse.items() if each.indices]
    wordless: list[Id] = [id_ for id_, each in sparse.items() if not each.indices]
    if points:
        operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=points)))
    if wordless:
        gone = models.DeleteVectors(vector=[words.VECTOR], points=list(wordless))
        operations.append(models.DeleteVectorsOperation(delete_vectors=gone))
    return operations + overwrites


def to_merge(points: Sequence[Point], schema: Schema) -> list[models.UpdateOperation]:
    """Return the operations that replace vectors and single columns; the records, which come last, mark the objects."""
    vectors = []
    for point in points:
        made: dict[str, Any] = {} if point.vector is None else {schema.using: [float(x) for x in point.vector]}
        if schema.words and (sparse := words.of_payload(point.payload)).indices:
            made[words.VECTOR] = sparse
        if made:
            vectors.append(models.PointVectors(id=point.id, vector=made if set(made) != {""} else made[""]))
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
    vector: Any = found.vector
    if isinstance(vector, dict):
        vector = vector.get(schema.using)
    dense: Vector = np.asarray(vector or [], dtype=np.float32)
    return Point(id_of(found), dense, found.payload or {})


def read_hit(found: models.ScoredPoint) -> Hit:
    """Convert a search result to a hit."""
    return Hit(id_of(found), found.score, found.payload or {})


def _to_vector(point: Point, schema: Schema) -> list[float] | models.Image:
    if point.vector is not None:
        return [float(x) for x in point.vector]
    picture = picture_to_vectorize(point, schema.note is not None and schema.note.vectorize == "server")
    return models.Image(image=picture, model=schema.model or DEFAULT_MODEL)
