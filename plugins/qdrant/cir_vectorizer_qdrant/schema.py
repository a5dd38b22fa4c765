"""What a Qdrant collection is made of: vectors, what sync noted in the metadata, and how we make one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_client import models

from cir_vectorizer.collections import Address, CreateOptions, Maker, ModelRecord, Payload
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer_qdrant import words
from cir_vectorizer_qdrant.filters import column_key

METADATA_KEY = "cir_vectorizer"


@dataclass(frozen=True)
class Note:
    """What we keep in the collection's metadata (servers from 1.16 on)."""

    model: str
    fingerprint: str
    vectorize: Maker = "client"
    indexed: tuple[str, ...] = ()
    precision: str = "float32"

    @classmethod
    def read(cls, metadata: Mapping[str, Any] | None) -> "Note | None":
        """The note in a collection's metadata; None where another program made it."""
        found = (metadata or {}).get(METADATA_KEY)
        if not isinstance(found, Mapping):
            return None
        vectorize: Maker = "server" if found.get("vectorize") == "server" else "client"
        precision = str(found.get("precision") or "float32")
        indexed = tuple(found.get("indexed") or ())
        return cls(str(found["model"]), str(found["fingerprint"]), vectorize, indexed, precision)

    def to_metadata(self) -> dict[str, Any]:
        """Return the collection's metadata that holds this note."""
        return {METADATA_KEY: {**asdict(self), "indexed": list(self.indexed)}}


@dataclass(frozen=True)
class Schema:
    """The collection as the plugin speaks to it; `using` is "" for a vector without a name."""

    dim: int
    distance: str
    using: str
    vectors: tuple[str, ...]
    words: bool
    text_columns: tuple[str, ...]
    """Keys of payload columns with a full-text index."""
    indexed: frozenset[str]
    quantized: bool
    note: Note | None
    count: int

    @property
    def model(self) -> str | None:
        """The model's name and fingerprint as the container takes them."""
        return None if self.note is None else str(ModelRecord(self.note.model, self.note.fingerprint, self.dim))


def read_schema(found: models.CollectionInfo, address: Address, using: str | None) -> Schema:
    """The part of a collection that a search with `using` (None: the only vector) needs.

    Raises:
        CollectionError: there is no such vector, or several and none was named.
    """
    params = found.config.params
    vectors = {"": params.vectors} if isinstance(params.vectors, models.VectorParams) else dict(params.vectors or {})
    dense = {name: each for name, each in vectors.items() if each.multivector_config is None}
    names = tuple(name for name in dense if name)
    chosen = next(iter(dense)) if using is None and len(dense) == 1 else using
    if chosen is None or chosen not in dense:
        has = (
            f"the vectors {', '.join(names)}" if names else "one vector without a name" if dense else "no dense vector"
        )
        remedy = "name one with --using" if names else "leave out --using" if dense else "name another collection"
        raise CollectionError(f"{address} has {has}{'' if using is None else f', and not {using!r}'}; {remedy}")
    vector = dense[chosen]
    indexes = found.payload_schema or {}
    return Schema(
        dim=vector.size,
        distance=vector.distance.value.lower(),
        using=chosen,
        vectors=names,
        words=words.VECTOR in (params.sparse_vectors or {}),
        text_columns=tuple(k for k, v in indexes.items() if v.data_type == models.PayloadSchemaType.TEXT),
        indexed=frozenset(indexes),
        quantized=bool(vector.quantization_config or found.config.quantization_config),
        note=Note.read(getattr(found.config, "metadata", None)),
        count=found.points_count or 0,
    )


def new_collection(model: ModelRecord, using: str | None, options: CreateOptions) -> dict[str, Any]:
    """Arguments of `create_collection`: cosine, and keywords beside the dense vector."""
    quantization: dict[str, models.QuantizationConfig | None] = {
        "none": None,
        "scalar": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        ),
        "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    dense = models.VectorParams(
        size=model.dim,
        distance=models.Distance.COSINE,
        on_disk=options.vector_on_disk or None,
        quantization_config=quantization[options.quantization],
    )
    note = Note(model.name, model.fingerprint, options.vectorize, options.indexed, model.precision)
    return {
        "vectors_config": {using: dense} if using else dense,
        "sparse_vectors_config": {words.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "metadata": note.to_metadata(),
    }


def missing_indexes(schema: Schema, payloads: Sequence[Payload]) -> dict[str, models.PayloadSchemaType]:
    """Payload indexes that were asked for and are not there, by key, as far as these payloads tell their type."""
    asked = {column_key(path): path for path in map(parse_column, schema.note.indexed if schema.note else ())}
    kinds = {key: _kind(path, payloads) for key, path in asked.items() if key not in schema.indexed}
    return {key: kind for key, kind in kinds.items() if kind is not None}


def _kind(path: tuple[str, ...], payloads: Sequence[Payload]) -> models.PayloadSchemaType | None:
    for payload in payloads:
        value: Any = payload
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                return models.PayloadSchemaType.BOOL
            if isinstance(each, int | float):
                return models.PayloadSchemaType.FLOAT
            if isinstance(each, str):
                return models.PayloadSchemaType.KEYWORD
    return None
