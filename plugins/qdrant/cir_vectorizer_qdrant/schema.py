"""The schema of a Qdrant collection: its vectors, our note in its metadata (servers from 1.16 on), and its creation."""

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from cir_vectorizer.collections import TEXT_VECTOR, Address, CreateOptions, ModelRecord
from cir_vectorizer.collections.base import choose_vector, pictures_of
from cir_vectorizer.collections.note import Note
from cir_vectorizer_qdrant import words


@dataclass(frozen=True)
class Schema:
    """The parts of a collection's schema that the plugin needs; `using` is "" for a vector without a name."""

    dim: int
    distance: str
    using: str
    vectors: tuple[str, ...]
    words: bool
    texts: bool
    """True if objects may have `TEXT_VECTOR`."""
    text_columns: tuple[str, ...]
    """Keys of payload columns with a full-text index."""
    indexed: frozenset[str]
    quantized: bool
    storage: models.VectorParamsDiff
    """Place and compression of the searched vector."""
    note: Note | None
    count: int

    @property
    def model(self) -> str | None:
        """The model's name and fingerprint, as the container expects them; None if the collection holds no note."""
        return None if self.note is None else str(ModelRecord(self.note.model, self.note.fingerprint, self.dim))


def read_schema(found: models.CollectionInfo, address: Address, using: str | None) -> Schema:
    """Return the schema for searches with the vector `using`; None means the only one beside `TEXT_VECTOR`.

    Raises:
        CollectionError: the vector does not exist, or `using` is None and there are several.
    """
    params = found.config.params
    vectors = {"": params.vectors} if isinstance(params.vectors, models.VectorParams) else dict(params.vectors or {})
    dense = {name: each for name, each in vectors.items() if each.multivector_config is None}
    chosen = choose_vector(dense, using, address)
    vector = dense[chosen]
    indexes = found.payload_schema or {}
    return Schema(
        dim=vector.size,
        distance=vector.distance.value.lower(),
        using=chosen,
        vectors=tuple(name for name in pictures_of(dense) if name),
        words=words.VECTOR in (params.sparse_vectors or {}),
        texts=TEXT_VECTOR in dense,
        text_columns=tuple(k for k, v in indexes.items() if v.data_type == models.PayloadSchemaType.TEXT),
        indexed=frozenset(indexes),
        quantized=bool(vector.quantization_config or found.config.quantization_config),
        storage=models.VectorParamsDiff(on_disk=vector.on_disk, quantization_config=vector.quantization_config),
        note=Note.read(getattr(found.config, "metadata", None)),
        count=found.points_count or 0,
    )


def new_collection(model: ModelRecord, using: str | None, options: CreateOptions) -> dict[str, Any]:
    """Return the arguments of `create_collection`: dense vectors with cosine distance, and a sparse keyword vector."""
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
    named = {using or "": dense, **({TEXT_VECTOR: dense} if options.text_columns else {})}
    return {
        "vectors_config": dense if set(named) == {""} else named,
        "sparse_vectors_config": {words.VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "metadata": Note.of(model, options).to_json(),
    }
