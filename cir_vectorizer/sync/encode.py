"""Decoders, which read and decode pictures, and encoders, which turn them into objects to write.

The vectors are made by the local model, a service's model, or the database's server.
"""

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cir_vectorizer.client import ServedModel
from cir_vectorizer.collections import ModelRecord, Point, Vector
from cir_vectorizer.errors import ImageError, ModelError, ServiceError
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits, check_bytes
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sync.compare import Candidate, Decision, Outcome, same_picture, settled, unreadable
from cir_vectorizer.sync.texts import EncodedText

if TYPE_CHECKING:
    from torch import Tensor

    from cir_vectorizer.models.vectorizer import Vectorizer

FAR_WORKERS = 16
"""Threads that read if pictures come over a network or go to a service."""


class Preparer(Protocol):
    """Turns pictures into the form that an encoder takes."""

    limits: Limits

    def prepare(self, content: bytes) -> Any:
        """Turn a picture's encoded bytes into the form that `points` takes; called on several threads.

        Raises:
            ImageError: the bytes are not a picture, or the picture is refused.
            ServiceError: the service that makes the vectors does not answer; the run ends.
        """


class Encoder(Preparer, Protocol):
    """Turns pictures and texts into objects to write."""

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        """Yield the object for each of `decisions`, or a Failure.

        Raises:
            ModelError: the model failed on all of them.
        """

    def embed_texts(self, texts: Sequence[str]) -> list[EncodedText | str]:
        """Return the embedding of each text, or a sentence about a text that is refused.

        Raises:
            ModelError, ServiceError: the run cannot go on.
        """


class ByModel:
    """An encoder that runs the local model."""

    def __init__(self, vectorizer: "Vectorizer") -> None:
        self._vectorizer = vectorizer
        self.limits: Limits = getattr(vectorizer, "limits", DEFAULT_LIMITS)

    def prepare(self, content: bytes) -> "Tensor":
        from cir_vectorizer.pictures.images import open_image

        return self._vectorizer.preprocess(open_image(content, self.limits))

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        import torch

        with self._batch(len(decisions), "pictures"):
            embeddings = self._vectorizer.embed_pixels(torch.stack([decision.prepared for decision in decisions]))
        return to_points(decisions, embeddings)

    def embed_texts(self, texts: Sequence[str]) -> list[EncodedText | str]:
        with self._batch(len(texts), "texts"):
            return [*encode_texts(self._vectorizer, texts)]

    @contextmanager
    def _batch(self, count: int, items: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"model {self._vectorizer.name!r} failed on a batch of {count} {items} ({error}); "
                "if memory is short, give a smaller --batch-size"
            ) from error


def encode_texts(vectorizer: "Vectorizer", texts: Sequence[str]) -> list[EncodedText]:
    """Return the embeddings of texts by a local model."""
    works = [vectorizer.plan_text(text) for text in texts]
    return [EncodedText(vector, bool(work.notes)) for work, vector in zip(works, vectorizer.run(works), strict=True)]


def to_points(decisions: Sequence[Decision], embeddings: Iterable[Vector]) -> Iterator[Point | Failure]:
    """Yield the object for each of `decisions`, made from its unnormalised (dim,) embedding."""
    for decision, embedding in zip(decisions, embeddings, strict=True):
        item, record = decision.item, decision.record
        assert record is not None
        norm = float(np.linalg.norm(embedding))
        if np.isfinite(norm) and norm > 0:
            text = None if decision.embedded is None else decision.embedded.vector
            payload = replace(record, norm=norm).join(item.columns)
            yield Point(item.id, embedding / norm, payload, text_vector=text)
        else:
            sentence = "has an embedding that is zero or not finite; check the picture and the model"
            yield Failure(item.name, "embedding", sentence, item.id)


class ByService:
    """An encoder that sends each picture, as it is, in a request of its own to a service, which makes the vector."""

    limits = DEFAULT_LIMITS

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def prepare(self, content: bytes) -> Vector:
        check_bytes(len(content), self.limits)
        return self._model.embed_picture(content)

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        return to_points(decisions, [decision.prepared for decision in decisions])

    def embed_texts(self, texts: Sequence[str]) -> list[EncodedText | str]:
        return [
            str(each) if isinstance(each, ServiceError) else EncodedText(each[0], each[1])
            for each in self._model.embed_texts(texts)
        ]


class ByServer:
    """An encoder that sends pictures as they are to the database; its server has the container make the vectors."""

    limits = DEFAULT_LIMITS

    def prepare(self, content: bytes) -> bytes:
        from cir_vectorizer.pictures.images import open_image

        open_image(content, self.limits)
        return content

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        for decision in decisions:
            assert decision.record is not None
            payload = replace(decision.record, norm=None).join(decision.item.columns)
            yield Point(decision.item.id, None, payload, decision.prepared)

    def embed_texts(self, texts: Sequence[str]) -> list[EncodedText | str]:
        raise TypeError("the database's server makes no vectors of texts; sync refuses text columns before")


def encoder(vectorizer: "Vectorizer | ServedModel | ModelRecord", by_server: bool) -> Encoder:
    """Return the encoder for a run."""
    if by_server:
        return ByServer()
    if isinstance(vectorizer, ServedModel):
        return ByService(vectorizer)
    if isinstance(vectorizer, ModelRecord):
        raise TypeError("a model's record makes no vectors; give the model")
    return ByModel(vectorizer)


class Decoders(Protocol):
    """Threads or tasks that read pictures and prepare them for an encoder."""

    encoder: Encoder

    def settle(self, compared: Iterator[Outcome], far: bool) -> Generator[Decision | Failure, None, None]:
        """Yield the decision about each entry, in any order: read candidates, and prepare those to be encoded.

        Args:
            far: True if pictures come over a network.

        Raises:
            ModelError: the run cannot go on.
        """


def read(candidate: Candidate, limits: Limits) -> Decision | Failure | tuple[Candidate, bytes]:
    """Read a candidate's picture; return the decision, or the candidate and the bytes if they must be encoded."""
    item, known = candidate.item, candidate.known
    try:
        if not candidate.stamped and (stamp := item.picture.stamp()) is not None:
            fresh = replace(candidate.fresh, path=item.picture.location, size=stamp.size, mtime_ns=stamp.version)
            candidate = replace(candidate, fresh=fresh, stamped=True)
            if (decision := settled(candidate)) is not None:
                return decision
        content = item.picture.read(limits)
    except (ImageError, OSError, ValueError) as error:
        return unreadable(item, error)
    fresh = replace(candidate.fresh, path=item.picture.location, sha256=hashlib.sha256(content).hexdigest())
    if not candidate.stamped:
        fresh = replace(fresh, size=len(content))
    if known is not None and (known.sha256, known.fingerprint) == (fresh.sha256, fresh.fingerprint):
        return same_picture(replace(candidate, fresh=fresh), known)
    return replace(candidate, fresh=fresh), content


def decode(candidate: Candidate, encoder: Preparer) -> Decision | Failure:
    """Read a candidate's picture, and prepare it if it must be encoded."""
    item = candidate.item
    try:
        found = read(candidate, encoder.limits)
        if isinstance(found, Decision | Failure):
            return found
        candidate, content = found
        prepared = encoder.prepare(content)
    except ImageError as error:
        remedy = (
            ", or raise --max-megapixels" if error.reason == "pixels" and not isinstance(encoder, ByService) else ""
        )
        return unreadable(item, ImageError(error.reason, f"{error}{remedy}"))
    except ServiceError:  # the service is gone for all pictures
        raise
    except Exception as error:  # one picture must not end the run
        sentence = (
            f"could not be prepared ({type(error).__name__}: {error}); please report it as a fault of cir-vectorizer"
        )
        return Failure(item.name, "internal", sentence, item.id)
    return Decision(item, candidate.change, candidate.fresh, prepared, candidate.adopted, candidate.text)


class ThreadDecoders:
    """Decoders on threads of this process, which work ahead of the model."""

    def __init__(self, encoder: Encoder, batch_size: int, workers: int | None) -> None:
        self.encoder = encoder
        self._batch_size = batch_size
        self._workers = workers

    def settle(self, compared: Iterator[Outcome], far: bool) -> Generator[Decision | Failure, None, None]:
        far = far or isinstance(self.encoder, ByService)
        workers = self._workers or (FAR_WORKERS if far else min(8, os.cpu_count() or 1))
        in_flight = 2 * self._batch_size + workers
        decoding: deque[Future[Decision | Failure]] = deque()
        with ThreadPoolExecutor(workers, "cir-decode") as pool:
            try:
                for outcome in compared:
                    if isinstance(outcome, Candidate):
                        decoding.append(pool.submit(decode, outcome, self.encoder))
                    else:
                        yield outcome
                    if len(decoding) >= in_flight:
                        yield decoding.popleft().result()
                while decoding:
                    yield decoding.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
