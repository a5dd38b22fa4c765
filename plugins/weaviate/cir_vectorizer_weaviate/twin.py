"""A new collection with the schema of one that another program made, for embedding that one's objects anew.

An object keeps its id, its properties (pictures included) and its other vectors; only the searched vector and sync's
record are new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weaviate import WeaviateClient
from weaviate.classes.data import DataObject, PhoneNumber
from weaviate.collections.classes.config import CollectionConfig
from weaviate.collections.classes.types import _PhoneNumber

from cir_vectorizer.collections import RECORD_KEY, CreateOptions, ModelRecord, Point
from cir_vectorizer.collections.note import Note
from cir_vectorizer.errors import CollectionError
from cir_vectorizer_weaviate import objects
from cir_vectorizer_weaviate.collection import WeaviateCollection, exists_already
from cir_vectorizer_weaviate.schema import Schema, description
from cir_vectorizer_weaviate.writing import Object, write

_LOT = 16
"""Objects that are read at once, with their pictures."""


class Twin(WeaviateCollection):
    """A collection that `create` makes with the schema of `origin`, and to which `merge` adds the objects of `origin`."""

    def __init__(self, origin: WeaviateCollection, name: str) -> None:
        super().__init__(replace(origin.address, collection=name), origin.options, origin._connection)
        self._origin = origin

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        origin = self._origin._schema
        column = origin.note.picture_column if origin.note is not None else None
        note = replace(Note.of(model, options), picture_column=column)

        def make(client: WeaviateClient) -> None:
            if client.collections.exists(self._name):
                return
            found = client.collections.export_config(origin.name)
            self._check_copyable(found)
            client.collections.create_from_dict(_renamed(found.to_dict(), self._name, note))

        try:
            self._call(make)
        except CollectionError as error:
            if not exists_already(error):
                raise
        self._known = None

    def merge(self, points: Sequence[Point]) -> None:
        schema = self._prepared([point.payload for point in points])
        failed = {point.id: "left the collection while it was copied" for point in points}
        made: list[Object] = []
        for start in range(0, len(points), _LOT):
            lot = {str(point.id): point for point in points[start : start + _LOT]}
            for found in self._everything(list(lot)):
                point = lot[str(found.uuid)]
                del failed[point.id]
                made.append(_joined(found, point, schema))
        write(made, self._on, failed, len(points))

    def _everything(self, ids: Sequence[str]) -> list[DataObject[Any, Any]]:
        """Return objects of the origin with all properties and vectors."""
        held = {name: self._origin.pictures(ids, name) for name in self._origin._schema.pictures}
        return [
            DataObject(
                uuid=str(each.uuid),
                properties={
                    **{name: _writable(value) for name, value in each.properties.items() if value is not None},
                    **{name: found[str(each.uuid)] for name, found in held.items() if str(each.uuid) in found},
                },
                vector=each.vector,
            )
            for each in self._origin._read(ids, include_vector=True)
        ]

    def _check_copyable(self, config: CollectionConfig) -> None:
        lost = [each.name for each in config.references]
        lost += [each.name for each in config.properties if each.data_type.value == "blobHash"]
        if lost:
            raise CollectionError(
                f"{self._origin.address} cannot be embedded anew in place: a copy would lose {', '.join(lost)} (cross "
                "references, or hashes of pictures); sync from it into a new collection: give another --to"
            )


def _joined(found: DataObject[Any, Any], point: Point, schema: Schema) -> DataObject[Any, Any]:
    held: Any = found.vector or {}
    vectors: Any = {name: each for name, each in held.items() if name != (schema.using or "default")}
    if (new := objects.to_vector(point, schema)) is not None:
        vectors = {**vectors, **new} if isinstance(new, dict) else new
    properties = {**found.properties, **objects.merged(point, schema)}
    return DataObject(uuid=str(found.uuid), properties=properties, vector=vectors or None)


def _renamed(config: Mapping[str, Any], name: str, note: Note) -> dict[str, Any]:
    """Return a collection's exported configuration under another name, with our note."""
    others = [each for each in config["properties"] if each["name"] != RECORD_KEY]
    record = {
        "name": RECORD_KEY,
        "description": description(note),
        "dataType": ["text"],
        "indexFilterable": False,
        "indexSearchable": False,
    }
    return {**_spelled(config), "class": name, "properties": [*others, record]}


def _spelled(config: Any) -> Any:
    """Return an exported configuration with the server's name for the distance: the client exports its own."""
    if isinstance(config, Mapping):
        return {"distance" if key == "distanceMetric" else key: _spelled(value) for key, value in config.items()}
    return config


def _writable(value: Any) -> Any:
    """Return a property's value in the form that the client writes."""
    return PhoneNumber(number=value.international_formatted) if isinstance(value, _PhoneNumber) else value
