"""Pictures of entries that may have changed: looked at, and decoded where they must be encoded."""

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from cir_vectorizer.errors import ImageError
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sync.compare import Candidate, Change, Decision, Outcome, same_picture, settled, unreadable
from cir_vectorizer.sync.encode import Encoder

FAR_WORKERS = 16
"""Threads that read, where pictures come over a network."""


class Decoders(Protocol):
    """Read and decode pictures, and make of them what their encoder takes."""

    encoder: Encoder

    def settle(self, compared: Iterator[Outcome], far: bool) -> Generator[Decision | Failure, None, None]:
        """Give the decision about each entry, in any order: read candidates, and prepare what must be encoded.

        Args:
            far: whether pictures come over a network.

        Raises:
            ModelError: the run cannot go on.
        """


def read(candidate: Candidate, limits: Limits) -> Decision | Failure | tuple[Candidate, bytes]:
    """Read a candidate's picture; return the decision, or the candidate and the bytes if it must be encoded."""
    item, known = candidate.item, candidate.known
    try:
        if not candidate.stamped and (stamp := item.picture.stamp()) is not None:
            fresh = replace(candidate.fresh, size=stamp.size, mtime_ns=stamp.version)
            candidate = Candidate(item, known, fresh, stamped=True)
            if (decision := settled(candidate)) is not None:
                return decision
        content = item.picture.read(limits)
    except (ImageError, OSError, ValueError) as error:
        return unreadable(item, error)
    fresh = replace(candidate.fresh, sha256=hashlib.sha256(content).hexdigest())
    if not candidate.stamped:
        fresh = replace(fresh, size=len(content))
    if known is not None and (known.sha256, known.fingerprint) == (fresh.sha256, fresh.fingerprint):
        return same_picture(item, known, fresh, candidate.adopted)
    return Candidate(item, known, fresh, candidate.stamped), content


def decode(candidate: Candidate, encoder: Encoder) -> Decision | Failure:
    """Read a candidate's picture, and prepare it if it must be encoded."""
    item = candidate.item
    try:
        found = read(candidate, encoder.limits)
        if isinstance(found, Decision | Failure):
            return found
        candidate, content = found
        prepared = encoder.prepare(content)
    except ImageError as error:
        return unreadable(item, error)
    except Exception as error:  # whatever one picture does, the others go on
        sentence = f"could not be prepared ({type(error).__name__}: {error}); report this"
        return Failure(item.name, "internal", sentence, item.id)
    change: Change = "added" if candidate.known is None else "picture"
    return Decision(item, change, candidate.fresh, prepared, candidate.adopted)


class ThreadDecoders:
    """The decoders of one process: some threads decode ahead of the model."""

    def __init__(self, encoder: Encoder, batch_size: int, workers: int | None) -> None:
        self.encoder = encoder
        self._batch_size = batch_size
        self._workers = workers

    def settle(self, compared: Iterator[Outcome], far: bool) -> Generator[Decision | Failure, None, None]:
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
