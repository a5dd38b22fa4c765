"""The OpenAPI document, written for the models that are served: a request that fits it is answered with 200.

The doors take more than is written here (see `query.py`): what only some composers take, or what must fit together,
cannot be said in a schema.
"""

from typing import Any

from cir_vectorizer import __version__
from cir_vectorizer.service.names import Names
from cir_vectorizer.service.state import Service

RED_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"
BLUE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGNkYPjPgA0wYRUdtBIAy0MBD1YkjLoAAAAASUVORK5CYII="
)

PICTURE_FORMAT = "picture"
"""The `format` of strings that hold a picture in base64."""

_SAID = r"\S"
_Schema = dict[str, Any]


def document(service: Service) -> _Schema:
    """The whole document. Raises RefusedError (503) until the models are loaded."""
    names, vectorizers = service.names, service.engine.vectorizers
    every = _all_names(names, list(vectorizers))
    default = vectorizers[names.default]
    schemas = _queries(list(default.composers), names.masked[names.default], default.dim)
    paths: _Schema = {}
    paths |= _tagged("Applications", _applications(every))
    if service.catalogs:
        paths |= _tagged("Collections", _collections(every, list(service.catalogs), service.settings.max_results))
    paths |= _tagged("Databases", _doors(every))
    health: _Schema = {}
    for name, about in (
        ("/.well-known/live", "The process works."),
        ("/.well-known/ready", "Weights are loaded, a warm-up batch ran, and the service is not stopping."),
    ):
        health[name] = {
            "get": {"summary": about, "security": [], "responses": {"204": {"description": "Yes."}, **_errors()}}
        }
    for name, about in (("/meta", "The default model."), ("/metrics", "Metrics as Prometheus reads them.")):
        health[name] = {"get": {"summary": about, "responses": {"200": {"description": about}, **_errors()}}}
    paths |= _tagged("Operators", health)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cir-vectorizer",
            "version": __version__,
            "description": "Composed image retrieval for vector databases: a picture and words become one query vector.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Refusal": _refusal()},
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "cir-api-key"},
            },
        },
        "security": [{}, {"basic": []}, {"bearer": []}, {"header": []}],
    }


def _all_names(names: Names, models: list[str]) -> list[str]:
    return [*models, *(names.full_name(model) for model in models)]


def _queries(composers: list[str], masked: list[str], dim: int) -> _Schema:
    """The schemas of pictures and of queries by what they hold, so that every combination in them makes sense."""
    text = {"type": "string", "pattern": _SAID, "description": "what should be different"}
    image = {"$ref": "#/components/schemas/Image"}
    images = {"anyOf": [image, {"type": "array", "items": image, "minItems": 1, "maxItems": 4}]}
    composer = {"type": "string", "enum": composers, "description": "how picture and words become one vector"}
    kinds = {
        "TextQuery": _object({"text": {**text, "description": "what is looked for"}}, ["text"]),
        "ImageQuery": _object({"image": image}, ["image"]),
        "ImageAndTextQuery": _object({"image": images, "text": text, "composer": composer}, ["image", "text"]),
    }
    negative = {"type": "string", "description": "what should not be there"}
    if writers := [name for name in composers if name not in ("image", "text", "sum", *masked)]:
        options = {"options": {"weights": {"negative": {"type": "number", "minimum": 0, "maximum": 1}}}}
        weights = _object({"weights": _object(options["options"]["weights"], [])}, [])
        kinds["FullQuery"] = _object(
            {
                "image": image,
                "text": text,
                "negative_text": negative,
                "template": {"type": "string", "enum": ["a photo of $ that {text}", "$, {text}"]},
                "composer": {"type": "string", "enum": writers},
                "options": weights,
            },
            ["image", "text", "composer"],
        )
    if masked:
        side = {"type": "number", "minimum": 0, "maximum": 0.4}
        box = {
            "type": "array",
            "prefixItems": [side, side, {"const": 0.5}, {"const": 0.75}],
            "minItems": 4,
            "maxItems": 4,
        }
        draws = {
            "steps": {"type": "integer", "minimum": 1, "maximum": 10},
            "seed": {"type": "integer", "minimum": 0, "maximum": 2**53},
        }
        kinds["DrawnQuery"] = _object(
            {
                "image": {"$ref": "#/components/schemas/Picture"},
                "text": text,
                "negative_text": negative,
                "mask": {
                    **_object({"box": box}, ["box"]),
                    "description": "left, top, right, bottom of what may change",
                },
                "composer": {"type": "string", "enum": masked},
                "options": _object(draws, []),
            },
            ["image", "text", "composer"],
        )
    number = {"type": "number", "minimum": -10, "maximum": 10}
    vector = {
        "type": "array", "items": number, "minItems": dim, "maxItems": dim, "contains": {"minimum": 0.01},
        "description": "the embedding of a picture alone, in this backbone",
    }  # fmt: skip
    return {
        "Picture": {
            "type": "string",
            "format": PICTURE_FORMAT,
            "description": "an encoded picture (JPEG, PNG, WebP, …): bare base64 or a data URI",
            "examples": [RED_PICTURE],
        },
        "Image": {
            "anyOf": [
                {"$ref": "#/components/schemas/Picture"},
                _object({"base64": {"$ref": "#/components/schemas/Picture"}}, ["base64"]),
                _object(
                    {"vector": vector, "norm": {"type": "number", "minimum": 0.1, "maximum": 100}}, ["vector", "norm"]
                ),
            ]
        },
        "Reference": {
            "anyOf": [
                {"$ref": "#/components/schemas/Image"},
                _object({"id": {"type": ["string", "integer"], "description": "of the collection"}}, ["id"]),
            ]
        },
        **kinds,
        "Query": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in kinds]},
    }


def _doors(names: list[str]) -> _Schema:
    """What the databases call."""
    texts = {"type": "array", "items": {"type": "string", "pattern": r"^[^{]*$"}, "maxItems": 16}
    pictures = {"type": "array", "items": {"$ref": "#/components/schemas/Picture"}, "maxItems": 16}
    vectorize = _post(
        "Weaviate's multi2vec-clip: texts and pictures to vectors; a text that is a composed query in JSON is composed",
        _object({"texts": texts, "images": pictures}, [], closed=False),
        {
            "text": {"texts": ["a red dress"]},
            "composed": {"texts": [f'{{"image": "{RED_PICTURE}", "text": "is blue"}}']},
            "object": {"texts": ["a red dress"], "images": [RED_PICTURE]},
        },
    )
    model = {"type": "string", "enum": names}
    options = {"type": ["object", "null"], "maxProperties": 0}
    inputs = [
        _object(
            {"data": data, "data_type": {"const": kind}, "model": model, "options": options},
            ["data", "data_type", "model"],
        )
        for kind, data in (
            ("text", {"type": "string"}),
            ("image", {"$ref": "#/components/schemas/Picture"}),
            ("object", {"$ref": "#/components/schemas/Query"}),
        )
    ]
    infer = _post(
        "Qdrant's server-side inference",
        _object(
            {
                "inputs": {"type": "array", "items": {"anyOf": inputs}, "maxItems": 16},
                "inference": {"enum": ["search", "update"]},
                "token": {"type": ["string", "null"]},
            },
            ["inputs", "inference"],
        ),
        {
            "composed": {
                "inputs": [
                    {
                        "data": {"image": RED_PICTURE, "text": "is blue"},
                        "data_type": "object",
                        "model": names[0],
                        "options": None,
                    }
                ],
                "inference": "search",
                "token": None,
            }
        },
    )
    name = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": names}}]
    return {
        "/vectorize": {"post": vectorize},
        "/plain/vectorize": {"post": vectorize},
        "/m/{name}/vectorize": {"parameters": name, "post": vectorize},
        "/qdrant": {"post": infer},
        "/m/{name}/qdrant": {"parameters": name, "post": infer},
    }


def _applications(names: list[str]) -> _Schema:
    """What applications call."""
    model = {"type": ["string", "null"], "enum": [*names, None], "description": "the default model if not given"}
    picture = {"$ref": "#/components/schemas/Picture"}
    query = {"$ref": "#/components/schemas/Query"}
    composed = {"image": RED_PICTURE, "text": "is blue"}
    compose = _post(
        "Composed queries to unit vectors, with notes such as that a text was cut",
        _object({"model": model, "queries": {"type": "array", "items": query, "maxItems": 16}}, ["queries"]),
        {"one": {"queries": [composed]}, "named": {"model": names[0], "queries": [composed, {"text": "a red dress"}]}},
    )
    embed = _post(
        "Texts and pictures to unit vectors; for pictures also the length that their embedding had",
        _object(
            {
                "model": model,
                "texts": {"type": "array", "items": {"type": "string"}, "maxItems": 16},
                "images": {"type": "array", "items": picture, "maxItems": 16},
            },
            [],
        ),
        {"both": {"texts": ["a red dress"], "images": [BLUE_PICTURE]}},
    )
    text = {"type": "string"}
    embeddings = _post(
        "As OpenAI has it; an input that is a data URI of a picture is a picture",
        _object(
            {
                "model": model,
                "input": {"anyOf": [text, {"type": "array", "items": text, "maxItems": 16}]},
                "encoding_format": {"enum": ["float", "base64"]},
                "user": text,
            },
            ["input"],
        ),
        {
            "texts": {"input": ["a red dress", "a blue dress"], "model": names[0]},
            "picture": {"input": f"data:image/png;base64,{BLUE_PICTURE}"},
        },
    )
    explain = _post(
        "The words that the pictures became, and how far each part moves the query",
        _object({"model": model, "query": query, "words": {"type": "integer", "minimum": 1, "maximum": 50}}, ["query"]),
        {"composed": {"query": composed, "words": 5}},
    )
    models = {"summary": "What is served, and what it costs", "responses": {"200": _answer("Models."), **_errors()}}
    return {
        "/v1/compose": {"post": compose},
        "/v1/embed": {"post": embed},
        "/v1/embeddings": {"post": embeddings},
        "/v1/explain": {"post": explain},
        "/v1/models": {"get": models},
    }


def _collections(models: list[str], collections: list[str], most: int) -> _Schema:
    """What there is where collections are searched."""
    name = {"type": "string", "enum": collections}
    query = {"$ref": "#/components/schemas/Query"}
    pictures = {"type": "array", "items": {"$ref": "#/components/schemas/Reference"}, "maxItems": 4}
    search = _post(
        'A composed query to the nearest objects of a collection; a picture may be an object of it: {"id": …}',
        _object(
            {
                "model": {"type": ["string", "null"], "enum": [*models, None], "description": "as the collection's"},
                "collection": {**name, "description": "the default one if not given"},
                "query": query,
                "like": {**pictures, "description": "draw the results towards these"},
                "unlike": {**pictures, "description": "push the results away from these"},
                "filter": {"type": "string", "description": "for example colour=red and price<50"},
                "limit": {"type": "integer", "minimum": 1, "maximum": most},
                "offset": {"type": "integer", "minimum": 0, "maximum": 10_000 - most},
                "hybrid": {"type": "boolean", "description": "look for the words of the text in the columns too"},
                "group_by": {"type": "string", "description": "a column: only the best object for each of its values"},
            },
            [],
        ),
        {
            "composed": {"query": {"image": RED_PICTURE, "text": "is blue"}, "limit": 5},
            "refined": {"query": {"text": "a red dress"}, "unlike": [BLUE_PICTURE], "offset": 10},
        },
        "Hits, the nearest first: id, score, payload, the picture's name, and where its thumbnail is.",
    )
    parameters = [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "of the object"},
        {"name": "collection", "in": "query", "schema": name},
        {"name": "size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1024}},
    ]
    picture = {"description": "At most so many pixels wide and high.", "content": {"image/jpeg": {}}}
    thumbnail = {
        "summary": "A small picture of an object that sync wrote",
        "parameters": parameters,
        "responses": {"200": picture, "304": {"description": "As the client has it."}, **_errors()},
    }
    collections_ = {
        "summary": "The collections that are searched here",
        "responses": {"200": _answer("Collections."), **_errors()},
    }
    return {
        "/v1/search": {"post": search},
        "/v1/collections": {"get": collections_},
        "/v1/objects/{id}/thumbnail": {"get": thumbnail},
    }


def _tagged(tag: str, paths: _Schema) -> _Schema:
    """Paths whose operations are shown together."""
    methods = ("get", "post")
    return {
        path: {key: {**value, "tags": [tag]} if key in methods else value for key, value in item.items()}
        for path, item in paths.items()
    }


def _post(
    summary: str, schema: _Schema, examples: _Schema, answer: str = "Vectors, in the order of the request."
) -> _Schema:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}},
        "responses": {"200": _answer(answer), **_errors()},
    }


def _object(properties: _Schema, required: list[str], closed: bool = True) -> _Schema:
    schema: _Schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if closed else schema


def _answer(about: str) -> _Schema:
    return {"description": about, "content": {"application/json": {"schema": {"type": "object"}}}}


def _errors() -> _Schema:
    schema = {"$ref": "#/components/schemas/Refusal"}
    about = "One sentence that says what is wrong and what to do, and the same as data."
    return {"default": {"description": about, "content": {"application/json": {"schema": schema}}}}


def _refusal() -> _Schema:
    text = {"type": "string"}
    return _object(
        {
            "error": {**text, "description": "what is wrong and what to do, in one sentence"},
            "code": {**text, "description": "a word that never changes, for example query, image, model, overload"},
            "field": {**text, "description": "the part of the request at fault, for example queries.3.options.steps"},
            "index": {"type": "integer", "minimum": 0, "description": "the item at fault in its list"},
            "item_error": {**text, "description": "the sentence about that item alone, without its place"},
        },
        ["error", "code"],
    )
