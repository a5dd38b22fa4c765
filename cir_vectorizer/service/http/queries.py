"""Schemas of pictures and queries in the OpenAPI document, derived from the fields that the composers take."""

from typing import Any

from cir_vectorizer.composers import Takes
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query.composed import MAX_TEXTS

Schema = dict[str, Any]

RED_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"

PICTURE_FORMAT = "picture"
"""The `format` of strings that hold a picture in base64."""

_SAID = {"type": "string", "pattern": r"[^\s\u001c-\u001f\u0085]"}  # what Python takes for blank, ECMA's \s does not
_TEXT = {**_SAID, "description": "what should be different"}
_NEGATIVE = "what should not be there"
_WANTED = "what every result should show"
_TEMPLATE = {"type": "string", "enum": ["a photo of $ that {text}", "$, {text}"]}
_LANGUAGE = {
    "type": "string",
    "enum": ["en", "de", "fr-CA", "ja"],
    "description": "language of the prompt, as a BCP 47 tag",
}
_PICTURE = {"$ref": "#/components/schemas/Picture"}
_IMAGE = {"$ref": "#/components/schemas/Image"}
_MOST_IMAGES = 4

_OPTIONS: dict[str, Schema] = {
    "steps": {"type": "integer", "minimum": 1, "maximum": 10},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**53},
    "weights.negative": {"type": "number", "minimum": 0, "maximum": 1},
    "adapter": {"type": "boolean"},
    "fusion.a": {"type": "number", "minimum": 0, "maximum": 5},
    "fusion.b": {"type": "number", "minimum": 0, "maximum": 1},
    "fusion.c": {"type": "number", "minimum": 0, "maximum": 5},
}
"""Options whose allowed values are valid in every query; whether other options are depends on the rest of the query."""


def object_schema(properties: Schema, required: list[str], closed: bool = True) -> Schema:
    """Return the schema of an object; a closed one has no other properties."""
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if closed else schema


def query_schemas(model: Vectorizer) -> Schema:
    """Return the schemas of pictures and of queries, by name; they allow only valid combinations of fields."""
    takes = model.takes
    kinds = {
        "TextQuery": object_schema({"text": {**_TEXT, "description": "what to look for"}}, ["text"]),
        "ImageQuery": object_schema({"image": _IMAGE}, ["image"]),
    }
    usual = takes.get(model.default_composer)  # None if the model's record names a composer that is not installed
    words = {"text": _TEXT}
    if (
        usual is not None
        and usual.reads("image")
        and usual.reads("text")
        and "required" not in (usual.negative_text, usual.mask, usual.template)
    ):
        words = {"image": _images(usual), "text": _TEXT}
        kinds["ImageAndTextQuery"] = object_schema(words, ["image", "text"])
    for name, each in takes.items():
        kinds |= _composed(name, each)
    second = {"negative_text": _texts(_NEGATIVE), "must_text": _texts(_WANTED)}
    return {
        **_pictures(model.dim),
        **kinds,
        "Content": _content("ImageAndTextQuery" in kinds),
        "Query": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in kinds]},
        "SearchedQuery": {
            **object_schema({**words, **second}, ["text", "must_text"]),
            "description": "the words that results must or must not show score the results again; every composer's query takes them",
        },
    }


def _content(both: bool) -> Schema:
    """Return the schema of Voyage's pieces: a text, a picture, or `both`, which are composed."""

    def piece(kind: str, value: Schema) -> Schema:
        return object_schema({"type": {"const": kind}, kind: value}, ["type", kind])

    text, picture = piece("text", _TEXT), piece("image_base64", _PICTURE)
    alone = {"type": "array", "items": {"anyOf": [text, picture]}, "minItems": 1, "maxItems": 1}
    together = {"type": "array", "prefixItems": [picture, text], "minItems": 2, "maxItems": 2}
    return {
        "anyOf": [alone, together] if both else [alone],
        "description": "pieces of one input, each a text or a picture",
    }


def _composed(name: str, takes: Takes) -> Schema:
    """Return the schemas of queries that name a composer: without a mask, and with one if it reads masks."""
    fields = {
        "image": _images(takes),
        "text": _TEXT,
        "negative_text": _texts(_NEGATIVE),
        "template": _TEMPLATE,
        "language": _LANGUAGE,
    }
    properties: Schema = {field: schema for field, schema in fields.items() if takes.reads(field)}
    if takes.negative_text == "required":
        properties["negative_text"] = {**_SAID, "description": _NEGATIVE}
    if options := _options(takes):
        properties["options"] = options
    properties["composer"] = {"const": name, "description": "how picture and words become one vector"}
    needed = [field for field in properties if field in ("image", "text", "composer") or takes.required(field)]
    kinds = {}
    if takes.mask != "required":
        kinds[f"Query.{name}"] = object_schema(properties, needed)
    if takes.reads("mask"):
        masked = {**properties, "image": _PICTURE, "mask": _mask()}
        kinds[f"MaskedQuery.{name}"] = object_schema(masked, [*needed, "mask"])
    return kinds


def _texts(about: str) -> Schema:
    one = {"type": "string"}
    return {"anyOf": [one, {"type": "array", "items": one, "maxItems": MAX_TEXTS}], "description": about}


def _images(takes: Takes) -> Schema:
    most = min(takes.most_images, _MOST_IMAGES)
    if most == 1:
        return _IMAGE
    return {"anyOf": [_IMAGE, {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": most}]}


def _options(takes: Takes) -> Schema | None:
    """Return the schema of the options that a composer reads; dotted names are nested."""
    plain: Schema = {}
    for name in takes.options:
        if name in _OPTIONS:
            group, _, inner = name.rpartition(".")
            if group:
                plain.setdefault(group, object_schema({}, []))["properties"][inner] = _OPTIONS[name]
            else:
                plain[name] = _OPTIONS[name]
    return object_schema(plain, []) if plain else None


def _mask() -> Schema:
    side = {"type": "number", "minimum": 0, "maximum": 0.4}
    box = {"type": "array", "prefixItems": [side, side, {"const": 0.5}, {"const": 0.75}], "minItems": 4, "maxItems": 4}
    about = "left, top, right, bottom of what may change"
    return {**object_schema({"box": box}, ["box"]), "description": about}


def _pictures(dim: int) -> Schema:
    number = {"type": "number", "minimum": -10, "maximum": 10}
    vector = {
        "type": "array", "items": number, "minItems": dim, "maxItems": dim, "contains": {"minimum": 0.01},
        "description": "the embedding of a picture alone, in this backbone",
    }  # fmt: skip
    norm = {"type": "number", "minimum": 0.1, "maximum": 100}
    id_ = {"type": ["string", "integer"], "description": "an object of the collection"}
    return {
        "Picture": {
            "type": "string",
            "format": PICTURE_FORMAT,
            "description": "an encoded picture (JPEG, PNG, WebP, …): bare base64 or a data URI",
            "examples": [RED_PICTURE],
        },
        "Image": {
            "anyOf": [
                _PICTURE,
                object_schema({"base64": _PICTURE}, ["base64"]),
                object_schema({"vector": vector, "norm": norm}, ["vector", "norm"]),
            ]
        },
        "Reference": {"anyOf": [_IMAGE, object_schema({"id": id_}, ["id"])]},
    }
