"""Conversion of points and payloads to Weaviate's objects, and back."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from weaviate.classes.data import DataObject
from weaviate.classes.query import GeoCoordinate
from weaviate.collections.classes.types import _PhoneNumber

from cir_vectorizer.collections import RECORD_KEY, TEXT_VECTOR, Hit, Id, Payload, Point, SyncRecord, Vector
from cir_vectorizer.collections.base import picture_to_vectorize
from cir_vectorizer_weaviate import words
from cir_vectorizer_weaviate.filters import HAS_TEXT
from cir_vectorizer_weaviate.schema import PAYLOAD, PICTURE, UNNAMED, Schema

_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def uuid_of(id_: Id) -> str | None:
    """Return an id as Weaviate writes it; None if it is not a UUID, so that no object can have it."""
    return str(UUID(id_)) if isinstance(id_, str) and _UUID.fullmatch(id_) else None


def to_object(point: Point, schema: Schema) -> DataObject[Any, Any]:
    """Convert a point to an object.

    Raises:
        ValueError: the point cannot be written; a sentence with the reason.
    """
    uuid = uuid_of(point.id)
    if uuid is None:
        raise ValueError(f"{point.id!r} is not a UUID, and Weaviate accepts only UUIDs as ids; give each object a UUID")
    found = properties(point.payload, schema, has_text=point.text_vector is not None)
    if point.vector is None:
        found[PICTURE] = picture_to_vectorize(point, PICTURE in schema.properties)
        return DataObject(properties=found, uuid=uuid)
    width = schema.note.dim if schema.note else None
    if width not in (None, len(point.vector)):
        raise ValueError(f"its vector has {len(point.vector)} numbers, and the collection's have {width}")
    return DataObject(properties=found, uuid=uuid, vector=to_vector(point, schema))


def to_vector(point: Point, schema: Schema) -> list[float] | dict[str, list[float]] | None:
    """Return a point's vectors as Weaviate's client takes them; None if it has none."""
    made = {} if point.vector is None else {schema.using or UNNAMED: numbers(point.vector)}
    if point.text_vector is not None:
        made[TEXT_VECTOR] = numbers(point.text_vector)
    return (made if schema.using is not None else made.get(UNNAMED)) or None


def numbers(vector: Iterable[Any]) -> list[float]:
    """Return a vector as a list."""
    return [float(x) for x in vector]


def properties(payload: Payload, schema: Schema, has_text: bool) -> dict[str, Any]:
    """Return the properties that store a payload and index its columns.

    Args:
        has_text: True if the object has the vector of a text.
    """
    columns = {key: value for key, value in payload.items() if key != RECORD_KEY}
    found = schema.columns.index(payload)
    found[PAYLOAD] = _json(columns)
    if RECORD_KEY in payload:
        found[RECORD_KEY] = _json(payload[RECORD_KEY])
    if text := words.of_payload(payload):
        found[words.WORDS] = text
    if has_text and schema.marks_texts:
        found[HAS_TEXT] = True
    return found


def merged(point: Point, schema: Schema) -> dict[str, Any]:
    """Return the properties to change in an object of another program; stored columns stay if the payload has none."""
    found = properties(point.payload, schema, has_text=point.text_vector is not None)
    if point.payload.keys() - {RECORD_KEY}:
        return found
    return {name: found[name] for name in (RECORD_KEY, HAS_TEXT) if name in found}


def payload(properties: Mapping[str, Any], schema: Schema) -> Payload:
    """Return an object's payload: the values of properties that other programs made, overlaid with our stored columns."""
    record = record_in(properties)
    columns = {key: _plain(value) for key, value in properties.items() if value is not None and key in schema.native}
    if isinstance(properties.get(PAYLOAD), str):
        columns |= json.loads(properties[PAYLOAD])
    return columns if record is None else {**columns, RECORD_KEY: record}


def read_record(found: Any) -> SyncRecord | None:
    """Return sync's record of an object; None if it is missing or cannot be read."""
    return SyncRecord.read({RECORD_KEY: record_in(found.properties)})


def record_in(properties: Mapping[str, Any]) -> Any:
    """Return the JSON value of the property `_cir`; None if it is missing or cannot be read."""
    text = properties.get(RECORD_KEY)
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return None


def read_point(found: Any, schema: Schema) -> Point:
    """Convert an object to a point."""
    text = stored_vector(found.vector, TEXT_VECTOR) if schema.texts else None
    return Point(
        str(found.uuid), read_vector(found.vector, schema), payload(found.properties, schema), text_vector=text
    )


def read_hit(found: Any, schema: Schema) -> Hit:
    """Convert a search result to a hit; the score is the cosine, or the fused score of a hybrid search."""
    distance = found.metadata.distance
    if distance is None:
        score = float(found.metadata.score or 0)
    else:
        score = 1 - float(distance) if schema.distance == "cosine" else -float(distance)
    return Hit(str(found.uuid), score, payload(found.properties, schema))


def read_vector(vectors: Any, schema: Schema) -> Vector | None:
    """Return an object's searched vector, of length 1; None if it has none."""
    vector = stored_vector(vectors, schema.using)
    if vector is None:
        return None
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 and abs(length - 1) > 1e-6 else vector


def stored_vector(vectors: Any, name: str | None) -> Vector | None:
    """Return one of an object's vectors (None: the one without a name) as it is stored; None if it has none."""
    found = vectors.get(name or UNNAMED) if isinstance(vectors, Mapping) else vectors
    return np.asarray(found, dtype=np.float32) if found else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, GeoCoordinate):
        return {"latitude": value.latitude, "longitude": value.longitude}
    if isinstance(value, _PhoneNumber):
        return value.international_formatted
    return value
