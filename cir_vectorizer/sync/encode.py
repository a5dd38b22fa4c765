"""Encoders: the model at hand makes the vectors, or the database's server does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cir_vectorizer.collections import ModelRecord, Point, Vector
from cir_vectorizer.errors import ModelError
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sync.compare import Decision

if TYPE_CHECKING:
    from torch import Tensor

    from cir_vectorizer.models.vectorizer import Vectorizer


class Encoder(Protocol):
    """Turns pictures into objects to write."""

    limits: Limits

    def prepare(self, content: bytes) -> Any:
        """Return what `points` needs of a picture, from its encoded bytes; called on several threads.

        Raises:
            ImageError: it is no picture, or is refused.
        """

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        """Give the object of each of `decisions`, or why there is none.

        Raises:
            ModelError: the model failed on all of them.
        """


class ByModel:
    """Encodes with the model at hand."""

    def __init__(self, vectorizer: "Vectorizer") -> None:
        self._vectorizer = vectorizer
        self.limits: Limits = getattr(vectorizer, "limits", DEFAULT_LIMITS)

    def prepare(self, content: bytes) -> "Tensor":
        return self._vectorizer.preprocess(open_image(content, self.limits))

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        import torch

        try:
            embeddings = self._vectorizer.embed_pixels(torch.stack([decision.prepared for decision in decisions]))
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"model {self._vectorizer.name!r} failed on a batch of {len(decisions)} pictures ({error}); "
                "if memory is short, give a smaller --batch-size"
            ) from error
        return to_points(decisions, embeddings)


def to_points(decisions: Sequence[Decision], embeddings: Iterable[Vector]) -> Iterator[Point | Failure]:
    """Give the object of each of `decisions`, made of its unnormalised (dim,) embedding."""
    for decision, embedding in zip(decisions, embeddings, strict=True):
        item, record = decision.item, decision.record
        assert record is not None
        norm = float(np.linalg.norm(embedding))
        if np.isfinite(norm) and norm > 0:
            yield Point(item.id, embedding / norm, replace(record, norm=norm).join(item.columns))
        else:
            sentence = "gives an embedding that is no direction (zero or not finite); check the picture and the model"
            yield Failure(item.name, "embedding", sentence, item.id)


class ByServer:
    """Sends pictures as they are; the server has the container make the vectors."""

    limits = DEFAULT_LIMITS

    def prepare(self, content: bytes) -> bytes:
        open_image(content, self.limits)
        return content

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        for decision in decisions:
            assert decision.record is not None
            payload = replace(decision.record, norm=None).join(decision.item.columns)
            yield Point(decision.item.id, None, payload, decision.prepared)


def encoder(vectorizer: "Vectorizer | ModelRecord", by_server: bool) -> Encoder:
    """Return the encoder for a run."""
    if by_server:
        return ByServer()
    if isinstance(vectorizer, ModelRecord):
        raise TypeError("a model's record makes no vectors; give the model")
    return ByModel(vectorizer)
