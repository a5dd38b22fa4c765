"""The OpenAPI document, written for the models that are served: a request that fits it is answered with 200.

The doors accept more than is written here (see `queries`): a schema cannot express what only some composers accept,
or which values fit together.
"""

from cir_vectorizer import __version__
from cir_vectorizer.collections.rescoring import STRENGTH
from cir_vectorizer.collections.searching import MAX_GROUP_SIZE, MAX_STRENGTH
from cir_vectorizer.service.http.queries import RED_PICTURE, Schema, object_schema, query_schemas
from cir_vectorizer.service.names import Names
from cir_vectorizer.service.state import Service

BLUE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGNkYPjPgA0wYRUdtBIAy0MBD1YkjLoAAAAASUVORK5CYII="
)


def document(service: Service) -> Schema:
    """Return the whole document. Raises RefusedError (503) until the models are loaded."""
    names = service.names
    vectorizers = names.served
    every = _all_names(names, list(vectorizers))
    paths: Schema = {}
    paths |= _tagged("Applications", _applications(every))
    if service.collections:
        paths |= _tagged("Collections", _collections(every, list(service.collections), service.settings.max_results))
    paths |= _tagged("Databases", _doors(every))
    if service.admin.configured:
        paths["/v1/models"] |= _tagged("Operators", {"": _models()})[""]
        paths |= _tagged("Operators", {"/v1/models/{name}": _unloading(list(vectorizers))})
    health: Schema = {}
    for name, about in (
        ("/.well-known/live", "The process is alive."),
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
            "schemas": {**query_schemas(vectorizers[names.default]), "Refusal": _refusal()},
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


def _doors(names: list[str]) -> Schema:
    """Return the paths that the databases call."""
    texts = {"type": "array", "items": {"type": "string", "pattern": r"^[^{]*$"}, "maxItems": 16}
    pictures = {"type": "array", "items": {"$ref": "#/components/schemas/Picture"}, "maxItems": 16}
    vectorize = _post(
        "Weaviate's multi2vec-clip: texts and pictures to vectors; a text that is a composed query in JSON is composed",
        object_schema({"texts": texts, "images": pictures}, [], closed=False),
        {
            "text": {"texts": ["a red dress"]},
            "composed": {"texts": [f'{{"image": "{RED_PICTURE}", "text": "is blue"}}']},
            "object": {"texts": ["a red dress"], "images": [RED_PICTURE]},
        },
    )
    model = {"type": "string", "enum": names}
    options = {"type": ["object", "null"], "maxProperties": 0}
    inputs = [
        object_schema(
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
        object_schema(
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


def _applications(names: list[str]) -> Schema:
    """Return the paths that applications call."""
    model = {"type": ["string", "null"], "enum": [*names, None], "description": "the default model if not given"}
    picture = {"$ref": "#/components/schemas/Picture"}
    query = {"$ref": "#/components/schemas/Query"}
    composed = {"image": RED_PICTURE, "text": "is blue"}
    compose = _post(
        "Composed queries to unit vectors, with notes, for example that a text was cut",
        object_schema({"model": model, "queries": {"type": "array", "items": query, "maxItems": 16}}, ["queries"]),
        {"one": {"queries": [composed]}, "named": {"model": names[0], "queries": [composed, {"text": "a red dress"}]}},
    )
    embed = _post(
        "Texts and pictures to unit vectors; for pictures also the norm of the embedding",
        object_schema(
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
    content = object_schema({"content": {"$ref": "#/components/schemas/Content"}}, ["content"])
    written = {"model": model, "encoding_format": {"enum": ["float", "base64"]}}
    embeddings = _post(
        "OpenAI's and Jina's embeddings API; an object with picture and words is composed, and a text that is a "
        "picture's data URI is embedded as a picture",
        object_schema(
            {
                **written,
                "input": {"anyOf": [text, query, {"type": "array", "items": {"anyOf": [text, query]}, "maxItems": 16}]},
                "user": text,
            },
            ["input"],
        ),
        {
            "texts": {"input": ["a red dress", "a blue dress"], "model": names[0]},
            "picture": {"input": f"data:image/png;base64,{BLUE_PICTURE}"},
            "objects": {"input": [{"image": BLUE_PICTURE}, {"text": "a red dress"}, composed]},
        },
    )
    multimodal = _post(
        "Voyage's multimodal embeddings API; an input with picture and words is composed",
        object_schema(
            {
                **written,
                "inputs": {"type": "array", "items": content, "maxItems": 16},
                "input_type": {"enum": ["query", "document", None]},
                "truncation": {"type": "boolean"},
            },
            ["inputs"],
        ),
        {
            "composed": {
                "inputs": [
                    {
                        "content": [
                            {"type": "image_base64", "image_base64": f"data:image/png;base64,{RED_PICTURE}"},
                            {"type": "text", "text": "is blue"},
                        ]
                    }
                ],
                "model": names[0],
            }
        },
    )
    explain = _post(
        "The words that the pictures became, and how far each part moves the query",
        object_schema(
            {"model": model, "query": query, "words": {"type": "integer", "minimum": 1, "maximum": 50}}, ["query"]
        ),
        {"composed": {"query": composed, "words": 5}},
    )
    models = {"summary": "The served models and their costs", "responses": {"200": _answer("Models."), **_errors()}}
    return {
        "/v1/compose": {"post": compose},
        "/v1/embed": {"post": embed},
        "/v1/embeddings": {"post": embeddings},
        "/v1/multimodalembeddings": {"post": multimodal},
        "/v1/explain": {"post": explain},
        "/v1/models": {"get": models},
    }


def _models() -> Schema:
    """Return the operation that loads a model; it exists only if there are admin keys."""
    text = {"type": "string"}
    load = _post(
        "Load a model while requests run; needs an admin key",
        object_schema(
            {
                "model": {
                    **text,
                    "description": "model folder below one of the operator's folders, or a built-in name",
                },
                "name": {**text, "description": "the name to serve it under; by default the folder's"},
            },
            ["model"],
        ),
        {},
    )
    load["responses"]["201"] = _answer("Loaded: the model's entry.")
    load["responses"]["202"] = _answer("Still being loaded: see `changes` of GET /v1/models.")
    del load["responses"]["200"]
    return {"post": load}


def _unloading(models: list[str]) -> Schema:
    """Return the path of one model."""
    name = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": models}}]
    responses = {
        "200": _answer("Unloaded, and its memory freed."),
        "202": _answer("Requests under way still use it: see `changes` of GET /v1/models."),
        **_errors(),
    }
    return {
        "parameters": name,
        "delete": {
            "summary": "Unload a model once its requests are answered; needs an admin key",
            "responses": responses,
        },
    }


def _collections(models: list[str], collections: list[str], most: int) -> Schema:
    """Return the paths that exist only if collections are searched."""
    name = {"type": "string", "enum": collections}
    query = {"anyOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in ("Query", "SearchedQuery")]}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    pictures = {"type": "array", "items": {"$ref": "#/components/schemas/Reference"}, "maxItems": 4}
    search = _post(
        'A composed query to the nearest objects of a collection; a picture may be an object of it: {"id": …}',
        object_schema(
            {
                "model": {
                    "type": ["string", "null"],
                    "enum": [*models, None],
                    "description": "by default the collection's",
                },
                "collection": {**name, "description": "the default one if not given"},
                "query": query,
                "like": {**pictures, "description": "draw the results towards these"},
                "unlike": {**pictures, "description": "push the results away from these"},
                "filter": {"type": "string", "description": "for example colour=red and price<50"},
                "limit": {"type": "integer", "minimum": 1, "maximum": most},
                "offset": {"type": "integer", "minimum": 0, "maximum": 10_000 - most},
                "hybrid": {"type": "boolean", "description": "look for the words of the text in the columns too"},
                "group_by": {"type": "string", "description": "a column: only the best object for each of its values"},
                "group_size": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_GROUP_SIZE,
                    "description": "with group_by: objects of each group; the best is the hit, the next ones are its `others`",
                },
                "include_reference": {
                    "type": "boolean",
                    "description": "keep objects that the search names in the hits",
                },
                "text_weight": {
                    **share,
                    "description": "weight of the objects' texts beside their pictures; by default the collection's own",
                },
                "strength": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": MAX_STRENGTH,
                    "description": f"how strongly negative_text and must_text reorder the hits; default {STRENGTH:g}, 0 for not at all",
                },
                "diversity": {**share, "description": "how much the hits should differ from each other"},
                "min_score": {
                    "type": "number",
                    "description": "least standard score of a hit: how far it stands out from the collection",
                },
            },
            [],
        ),
        {
            "composed": {"query": {"image": RED_PICTURE, "text": "is blue"}, "limit": 5},
            "refined": {"query": {"text": "a red dress"}, "unlike": [BLUE_PICTURE], "offset": 10},
            "second score": {
                "query": {"text": "a dress", "negative_text": ["red", "stripes"], "must_text": "long sleeves"},
                "min_score": 0,
            },
        },
        "Hits, the nearest first: id (text from 2⁵³ on), id_text (always text), score, signals (the parts of the score: "
        "picture, text, unwanted, wanted), payload, the picture's name, and its thumbnail's address.",
    )
    parameters = [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "the object's id"},
        {"name": "collection", "in": "query", "schema": name},
        {"name": "size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1024}},
    ]
    picture = {"description": "A JPEG, at most `size` pixels wide and high.", "content": {"image/jpeg": {}}}
    thumbnail = {
        "summary": "A small picture of an object that sync wrote",
        "parameters": parameters,
        "responses": {"200": picture, "304": {"description": "Not modified."}, **_errors()},
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


def _tagged(tag: str, paths: Schema) -> Schema:
    """Return the paths with a tag, which makes the documentation show them together."""
    methods = ("get", "post", "delete")
    return {
        path: {key: {**value, "tags": [tag]} if key in methods else value for key, value in item.items()}
        for path, item in paths.items()
    }


def _post(
    summary: str, schema: Schema, examples: Schema, answer: str = "Vectors, in the order of the request."
) -> Schema:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}},
        "responses": {"200": _answer(answer), **_errors()},
    }


def _answer(about: str) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": {"type": "object"}}}}


def _errors() -> Schema:
    schema = {"$ref": "#/components/schemas/Refusal"}
    about = "One sentence that says what is wrong and what to do, and the same as data."
    return {"default": {"description": about, "content": {"application/json": {"schema": schema}}}}


def _refusal() -> Schema:
    text = {"type": "string"}
    return object_schema(
        {
            "error": {**text, "description": "what is wrong and what to do, in one sentence"},
            "code": {**text, "description": "a word that never changes, for example query, image, model, overload"},
            "field": {**text, "description": "the part of the request at fault, for example queries.3.options.steps"},
            "index": {"type": "integer", "minimum": 0, "description": "the item at fault in its list"},
            "item_error": {**text, "description": "the sentence about that item alone, without its place"},
        },
        ["error", "code"],
    )
