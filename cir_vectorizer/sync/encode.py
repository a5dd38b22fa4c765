"""Who makes the vectors: the model at hand, a service's model, or the database's server."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cir_vectorizer.client import ServedModel
from cir_vectorizer.collections import ModelRecord, Point, Vector
from cir_vectorizer.errors import ModelError
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits, check_bytes
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sync.compare import Work

if TYPE_CHECKING:
    from torch import Tensor

    from cir_vectorizer.models.vectorizer import Vectorizer


class Encoder(Protocol):
    """Makes objects to write of pictures."""

    limits: Limits

    def prepare(self, content: bytes) -> Any:
        """What `points` needs of a picture, from its encoded bytes; called on several threads.

        Raises:
            ImageError: it is no picture, or is refused.
            ServiceError: the service that makes the vectors cannot be asked; the run ends.
        """

    def points(self, works: Sequence[Work]) -> Iterator[Point | Failure]:
        """The object of each of `works`, or why there is none.

        Raises:
            ModelError: the model failed on all of them.
        """


class ByModel:
    """The model at hand makes the vectors."""

    def __init__(self, vectorizer: "Vectorizer") -> None:
        self._vectorizer = vectorizer
        self.limits: Limits = getattr(vectorizer, "limits", DEFAULT_LIMITS)

    def prepare(self, content: bytes) -> "Tensor":
        from cir_vectorizer.pictures.images import open_image

        return self._vectorizer.preprocess(open_image(content, self.limits))

    def points(self, works: Sequence[Work]) -> Iterator[Point | Failure]:
        import torch

        try:
            embeddings = self._vectorizer.embed_pixels(torch.stack([work.prepared for work in works]))
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"model {self._vectorizer.name!r} failed on a batch of {len(works)} pictures ({error}); "
                "if memory is short, give a smaller --batch-size"
            ) from error
        return to_points(works, embeddings)


def to_points(works: Sequence[Work], embeddings: Iterable[Vector]) -> Iterator[Point | Failure]:
    """The object of each of `works` from its unnormalised (dim,) embedding."""
    for work, embedding in zip(works, embeddings, strict=True):
        item, record = work.item, work.record
        assert record is not None
        norm = float(np.linalg.norm(embedding))
        if np.isfinite(norm) and norm > 0:
            yield Point(item.id, embedding / norm, replace(record, norm=norm).join(item.columns))
        else:
            sentence = "gives an embedding that is no direction (zero or not finite); check the picture and the model"
            yield Failure(item.name, "embedding", sentence, item.id)


class ByService:
    """A service's model makes the vectors: pictures are sent as they are, each in a request of its own."""

    limits = DEFAULT_LIMITS

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def prepare(self, content: bytes) -> Vector:
        check_bytes(len(content), self.limits)
        return self._model.embed_picture(content)

    def points(self, works: Sequence[Work]) -> Iterator[Point | Failure]:
        return to_points(works, [work.prepared for work in works])


class ByServer:
    """Pictures are sent as they are, and the server has the container make the vectors."""

    limits = DEFAULT_LIMITS

    def prepare(self, content: bytes) -> bytes:
        from cir_vectorizer.pictures.images import open_image

        open_image(content, self.limits)
        return content

    def points(self, works: Sequence[Work]) -> Iterator[Point | Failure]:
        for work in works:
            assert work.record is not None
            payload = replace(work.record, norm=None).join(work.item.columns)
            yield Point(work.item.id, None, payload, work.prepared)


def encoder(vectorizer: "Vectorizer | ServedModel | ModelRecord", by_server: bool) -> Encoder:
    """The encoder for a run."""
    if by_server:
        return ByServer()
    if isinstance(vectorizer, ServedModel):
        return ByService(vectorizer)
    if isinstance(vectorizer, ModelRecord):
        raise TypeError("a model's record makes no vectors; give the model")
    return ByModel(vectorizer)
