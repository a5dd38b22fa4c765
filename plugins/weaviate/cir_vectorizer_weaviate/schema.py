"""The schema of a Weaviate collection: its vectors, its properties and our note in the description of `_cir`.

Our collections keep the whole payload in hidden properties, beside the properties for filters (see columns.py):

    _cir            sync's record of the object, as JSON; the property's description holds our note (model, options)
    _cir_payload    the user's columns, as JSON
    _cir_words      texts of the columns, for the keyword side of a hybrid search
    _cir_picture    the picture for the container; Weaviate only keeps its hash
    _cir_has_text   true if the object has a text's vector, for searches among the others

A collection of another program keeps its own properties. Once it was adopted, it gets these hidden ones too, and an object's
payload is then its own properties, overlaid with `_cir_payload`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.collections.classes.config import _CollectionConfig

from cir_vectorizer.collections import RECORD_KEY, TEXT_VECTOR, Address, CreateOptions, Maker, ModelRecord
from cir_vectorizer.collections.base import choose_vector, pictures_of
from cir_vectorizer.collections.note import Note
from cir_vectorizer.errors import AddressError, CollectionError
from cir_vectorizer.redaction import without_user
from cir_vectorizer_weaviate import words
from cir_vectorizer_weaviate.columns import Column, Columns, Path
from cir_vectorizer_weaviate.filters import HAS_TEXT, Field, kind_of

PAYLOAD, PICTURE = f"{RECORD_KEY}_payload", f"{RECORD_KEY}_picture"
CLIP = "multi2vec-clip"
UNNAMED = "default"
"""Name under which the client makes and gives a vector without a name."""
ON_DISK_CACHE = 10_000
"""Vectors cached in memory with `vector_on_disk`."""


@dataclass
class Schema:
    """The parts of a collection's schema that the plugin needs."""

    name: str
    """The collection's own name, even if it was opened by an alias."""
    distance: str
    using: str | None
    """Name of the searched vector; None in old collections, whose vector has no name."""
    vectors: tuple[str, ...]
    texts: bool
    """True if objects may have `TEXT_VECTOR`."""
    flat: bool
    """True if the index is flat: every search compares with all vectors."""
    exact_cutoff: int
    """Largest number of objects that a filtered search compares one by one."""
    blends_text: bool
    vectorize: Maker
    container: str | None
    """Address of the container in the collection's schema; None if the server's configuration alone names it."""
    tenants: bool
    note: Note | None
    properties: dict[str, str]
    """Weaviate types by property name."""
    pictures: tuple[str, ...] = ()
    """Properties that hold pictures, those from which the server makes vectors first."""
    native: tuple[str, ...] = ()
    """Properties that another program made."""
    columns: Columns = field(default_factory=Columns)

    @property
    def ours(self) -> bool:
        """True if the collection stores payloads in the form of this plugin."""
        return PAYLOAD in self.properties

    @property
    def marks_texts(self) -> bool:
        """True if objects with `TEXT_VECTOR` are marked; collections of older releases lack the property."""
        return HAS_TEXT in self.properties

    @property
    def shown(self) -> list[str]:
        """Properties to read for a payload."""
        hidden = [name for name in (PAYLOAD, RECORD_KEY) if name in self.properties]
        unread = ("blob", "blobHash", "object", "object[]")
        return hidden + [name for name in self.native if self.properties[name] not in unread]

    def fields(self, path: Path) -> list[Field]:
        """Return the properties that hold a column, for filters."""
        found = [Field(column.name, column.kind) for column in self.columns.of(path)]
        name = path[0][:1].lower() + path[0][1:]
        if len(path) == 1 and name in self.native and all(field.name != name for field in found):
            found.append(Field(name, kind_of(self.properties[name])))
        return found


def capitalised(name: str) -> str:
    """Return a collection's name with a capital letter first; to Weaviate both spellings are the same."""
    return name[:1].upper() + name[1:]


def class_name(address: Address) -> str:
    """Return the collection's name as Weaviate writes it, with a capital letter first.

    Raises:
        AddressError: Weaviate refuses the name.
    """
    name = capitalised(address.collection)
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name):
        raise AddressError(
            f"{address} has a collection name that Weaviate refuses; take a letter first, then letters, digits and _"
        )
    return name


def read_schema(found: _CollectionConfig, address: Address, using: str | None) -> Schema:
    """Return the schema for searches with the vector `using`; None means the only one beside `TEXT_VECTOR`.

    Raises:
        CollectionError: the vector does not exist, or `using` is None and there are several.
    """
    named: Mapping[str, Any] = found.vector_config or {}
    dense = {
        name: each for name, each in named.items() if getattr(each.vector_index_config, "multi_vector", None) is None
    }
    chosen = choose_vector(dense if named else [""], using, address) or None
    index: Any = dense[chosen].vector_index_config if chosen is not None else found.vector_index_config
    maker, settings = _maker(found, chosen)
    properties = {each.name: str(each.data_type.value) for each in found.properties}
    record = next((each for each in found.properties if each.name == RECORD_KEY), None)
    columns = [Column.read(each.name, each.data_type, each.description) for each in found.properties]
    described = {each.name for each in columns if each is not None} | {
        RECORD_KEY,
        PAYLOAD,
        PICTURE,
        HAS_TEXT,
        words.WORDS,
    }
    native = [each for each in found.properties if each.name not in described]
    columns += [Column.native(each.name, each.data_type) for each in native]
    plain = getattr(index, "hnsw", index)
    return Schema(
        name=found.name,
        distance=str(getattr(getattr(plain, "distance_metric", None), "value", "unknown")),
        using=chosen,
        vectors=tuple(pictures_of(dense)),
        texts=TEXT_VECTOR in dense,
        flat=type(index).__name__.endswith("FLAT"),
        exact_cutoff=int(getattr(plain, "flat_search_cutoff", 0) or 0),
        blends_text=_blends_text(maker, settings),
        vectorize="server" if maker == CLIP else "client",
        container=without_user(str(url)) if (url := (settings or {}).get("inferenceUrl")) else None,
        tenants=bool(found.multi_tenancy_config.enabled),
        note=_read_note(record.description if record else None),
        properties=properties,
        pictures=_pictures(properties, settings),
        native=tuple(each.name for each in native),
        columns=Columns([each for each in columns if each is not None], {name.lower() for name in properties}),
    )


def new_collection(
    name: str, model: ModelRecord, using: str | None, tenant: str | None, options: CreateOptions, keeps_hash: bool
) -> dict[str, Any]:
    """Return the arguments of `collections.create`: cosine distance, hidden properties, and the module multi2vec-clip
    if the server makes the vectors.

    Args:
        keeps_hash: True if the server knows the type blobHash, which stores only a picture's hash.

    Raises:
        CollectionError: the container's address holds a key.
    """
    bits = {"none": None, "scalar": 8, "binary": 1}[options.quantization]
    hnsw = _hnsw(bits, ON_DISK_CACHE if options.vector_on_disk else None)
    hidden = hidden_properties(Note.of(model, options))
    if options.vectorize == "server":
        vectors = Configure.Vectors.multi2vec_clip(
            name=using,
            image_fields=[PICTURE],
            inference_url=_container(options.service_url, model),
            vector_index_config=hnsw,
        )
        hidden.append(Property(name=PICTURE, data_type=DataType.BLOB_HASH if keeps_hash else DataType.BLOB))
    else:
        vectors = Configure.Vectors.self_provided(name=using or UNNAMED, vector_index_config=hnsw)
    texts = [Configure.Vectors.self_provided(name=TEXT_VECTOR, vector_index_config=hnsw)]
    if options.text_columns:
        hidden.append(text_mark())
    return {
        "name": name,
        "properties": hidden,
        "vector_config": [vectors, *texts] if options.text_columns else vectors,
        "multi_tenancy_config": Configure.multi_tenancy(auto_tenant_activation=True) if tenant is not None else None,
    }


def text_vector(found: _CollectionConfig, using: str) -> Any:
    """Return the argument of `config.add_vector` for `TEXT_VECTOR`: stored and compressed as the vector `using`."""
    index: Any = (found.vector_config or {})[using].vector_index_config
    bits = getattr(getattr(index, "quantizer", None), "bits", None)
    return Configure.Vectors.self_provided(
        name=TEXT_VECTOR, vector_index_config=_hnsw(bits, getattr(index, "vector_cache_max_objects", None))
    )


def _hnsw(bits: int | None, cached: int | None) -> Any:
    """Return the settings of an index by cosine.

    Args:
        bits: bits a number of the compressed vectors; None for uncompressed ones.
        cached: vectors in memory; None for all.
    """
    quantizer = Configure.VectorIndex.Quantizer
    return Configure.VectorIndex.hnsw(
        distance_metric=VectorDistances.COSINE,
        quantizer=quantizer.none() if bits is None else quantizer.rq(bits=bits),
        vector_cache_max_objects=cached,
    )


def hidden_properties(note: Note | None) -> list[Property]:
    """Return the properties that store the payload and sync's record."""
    kept = {RECORD_KEY: description(note) if note else None, PAYLOAD: "the columns of an object, as JSON"}
    return [
        *(
            Property(
                name=name, description=text, data_type=DataType.TEXT, index_filterable=False, index_searchable=False
            )
            for name, text in kept.items()
        ),
        words.new_property(),
    ]


def text_mark() -> Property:
    """Return the property that marks objects with a text's vector."""
    return Property(name=HAS_TEXT, description="true if the object has a text", data_type=DataType.BOOL)


def description(note: Note) -> str:
    """Return the property description that holds a note."""
    return json.dumps(note.to_json(), ensure_ascii=False)


def _read_note(description: str | None) -> Note | None:
    """Return the note in a property description; None if it holds none."""
    try:
        return Note.read(json.loads(description or ""))
    except ValueError:
        return None


def _container(url: str | None, model: ModelRecord) -> str | None:
    """Return the container's address for vectors of this model; None if no address is set."""
    if url is None:
        return None
    if "@" in (urlsplit(url).netloc or ""):
        raise CollectionError(
            "the container's address holds a key, and everybody who may read the schema would see it; give the address "
            "without it, or set CLIP_INFERENCE_API for the server and leave the option out"
        )
    return f"{url.rstrip('/')}/m/{quote(str(model), safe='/@:,=')}"


def blends_text(found: _CollectionConfig, using: str | None) -> bool:
    """Tell whether the server makes the vector `using` (None: the only one) from texts, with a picture or alone."""
    named = pictures_of(found.vector_config or {})
    chosen = using or (named[0] if len(named) == 1 else UNNAMED)
    if named and chosen not in named:
        return False
    return _blends_text(*_maker(found, chosen if named else None))


def _maker(found: _CollectionConfig, vector: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the module that makes a vector (None: the one without a name), or "none", and its settings."""
    module: Any
    if vector is not None:
        own = (found.vector_config or {})[vector].vectorizer
        module, settings = own.vectorizer, own.model
    else:
        module, settings = found.vectorizer, found.vectorizer_config.model if found.vectorizer_config else {}
    return str(getattr(module, "value", module) or "none"), settings or {}


def _pictures(properties: Mapping[str, str], settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the properties that hold pictures; those of the module that makes the vectors come first."""
    blobs = [name for name, kind in properties.items() if kind == "blob" and name != PICTURE]
    read = settings.get("imageFields") or ()
    return tuple(sorted(blobs, key=lambda name: name not in read))


def _blends_text(maker: str, settings: Mapping[str, Any]) -> bool:
    """Tell whether the server makes vectors from texts, together with a picture or alone."""
    if maker == "none":
        return False
    others = [key for key, value in settings.items() if key.endswith("Fields") and key != "imageFields" and value]
    return bool(others) or not settings.get("imageFields")
