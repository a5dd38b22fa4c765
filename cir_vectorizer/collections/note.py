"""The note that a collection keeps in its metadata: the model that fills it, and its options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cir_vectorizer.collections.protocol import CreateOptions
from cir_vectorizer.collections.records import Maker, ModelRecord

NOTE_KEY = "cir_vectorizer"
"""Key of our note in a collection's metadata."""


@dataclass(frozen=True)
class Note:
    """Note in a collection's metadata: the model that fills it, and the options it was created with.

    `dim` is None in notes that releases up to 0.1.0 wrote in Qdrant. `picture_column` is set if another program made the
    collection: the column that names an object's picture. `text_columns` are set if objects have `TEXT_VECTOR`, and
    `text_weight` if its weight in searches was chosen.
    """

    model: str
    fingerprint: str
    dim: int | None = None
    vectorize: Maker = "client"
    indexed: tuple[str, ...] = ()
    precision: str = "float32"
    picture_column: str | None = None
    text_columns: tuple[str, ...] = ()
    text_weight: float | None = None

    @classmethod
    def of(cls, model: ModelRecord, options: CreateOptions) -> "Note":
        """Return the note of a new collection."""
        return cls(
            model.name,
            model.fingerprint,
            model.dim,
            options.vectorize,
            options.indexed,
            model.precision,
            text_columns=options.text_columns,
        )

    @classmethod
    def read(cls, kept: Any) -> "Note | None":
        """Return the note in a collection's metadata `kept`; None if another program made the collection."""
        found = kept.get(NOTE_KEY) if isinstance(kept, Mapping) else None
        if not isinstance(found, Mapping) or not {"model", "fingerprint"} <= found.keys():
            return None
        dim = found.get("dim")
        return cls(
            str(found["model"]),
            str(found["fingerprint"]),
            None if dim is None else int(dim),
            "server" if found.get("vectorize") == "server" else "client",
            tuple(found.get("indexed") or ()),
            str(found.get("precision") or "float32"),
            found.get("picture_column"),
            tuple(found.get("text_columns") or ()),
            found.get("text_weight"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the note as metadata for the database to store."""
        kept = {**asdict(self), "indexed": list(self.indexed), "text_columns": list(self.text_columns)}
        for name in ("picture_column", "text_columns", "text_weight"):
            if not kept[name] and kept[name] != 0:
                del kept[name]
        return {NOTE_KEY: kept}

    def by(self, model: ModelRecord) -> "Note":
        """Return the same note about another model."""
        return replace(self, model=model.name, fingerprint=model.fingerprint, precision=model.precision)
