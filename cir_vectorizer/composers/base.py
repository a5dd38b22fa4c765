"""The seam between a model and its composers.

Work is in two halves, so that a service can do the first on host threads and batch the second over
requests: `prepare` checks and tokenises one query, `compose` runs the device for many.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from cir_vectorizer.backbones import Backbone, TextEncoder, Tokenizer, TokenRow
from cir_vectorizer.pictures.masks import Mask
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.takes import Takes


@dataclass(frozen=True)
class Plan:
    """A query, checked and tokenised by the composer that will run it.

    Attributes:
        query: what was asked.
        rows: the texts to encode; the composer decides what each is for.
        notes: sentences for the caller, for example that a text was cut.
        units: estimated work relative to other plans of the same composer; the texts' tokens if left out.
        squash: whether the pictures are squashed to a square before the model sees them.
        mask: the query's mask, read for this model; set by the vectorizer.
        own: further data that the composer needs in `compose`.
    """

    query: ComposedQuery
    rows: tuple[TokenRow, ...] = ()
    notes: tuple[str, ...] = field(default=())
    units: int = 0
    squash: bool = False
    mask: Mask | None = None
    own: Any = None

    def __post_init__(self) -> None:
        if not self.units:
            object.__setattr__(self, "units", max(1, self.tokens))

    @property
    def tokens(self) -> int:
        """Number of tokens of its texts."""
        return sum(len(row.ids) for row in self.rows)


class Composer(ABC):
    """Turns queries into vectors in the space of one backbone; the base class of every composer.

    A composer sets `takes` and writes `load`, `prepare` and `compose`; the rest has defaults.

    Attributes:
        takes: the fields and options of a query that it reads. `prepare` is given no query that does not fit.
        weightless: true if it needs no weights; then every model has it, and `load` gets an empty record.
    """

    takes: Takes
    weightless: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> Self:
        """Read a composer from a model folder.

        Args:
            record: the composer's part of model.json; its weights are `folder / record["file"]`.

        Raises:
            CheckpointError: the weights do not fit.
        """

    @abstractmethod
    def prepare(self, query: ComposedQuery) -> Plan:
        """Tokenise a query on the host, and check what `takes` cannot say.

        Raises:
            QueryError: names the field that this composer cannot take, and the fix.
        """

    def without_words(self, query: ComposedQuery) -> ComposedQuery:
        """Return the query without its words; the difference of the two vectors is the change that the words make."""
        return query.model_copy(update={"text": None, "negative_text": None, "template": None})

    @abstractmethod
    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        """Run the device: plans of `prepare`, and for each its (k, dim) unnormalised picture embeddings.

        Returns:
            (n, dim) unit vectors.
        """

    def compile(self) -> None:  # noqa: B027  a default, not a gap
        """Compile the networks for their device: a slower start, faster queries. By default there is nothing to compile."""

    def explain(self, references: Tensor, words: int) -> list[list[tuple[str, float]]]:
        """Name the words nearest to what the model made of each picture; by default none. Called on a host thread.

        Args:
            references: (k, dim) unnormalised picture embeddings of one query, on the host.
            words: largest number of words for each picture.

        Returns:
            For each picture (word, cosine) from near to far; an empty list if pictures do not become words.
        """
        return []


def cut_note(field_name: str, tokenizer: Tokenizer) -> str:
    """Return the sentence that tells a caller that a text was cut."""
    return f"{field_name}: longer than the model's {tokenizer.context_length} tokens; its end was left out"


def encode_rows(encoder: TextEncoder, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
    """Rows -> (n, dim) unit vectors."""
    return F.normalize(encoder.encode_text(rows, pseudo_tokens), dim=-1)


def mean_direction(references: Sequence[Tensor], dim: int) -> Tensor:
    """Return each query's mean picture embedding, a unit vector made of unit vectors; zeros without pictures. (n, dim)"""
    rows = [F.normalize(r.float(), dim=-1).mean(0) if len(r) else torch.zeros(dim, device=r.device) for r in references]
    return F.normalize(torch.stack(rows), dim=-1)
