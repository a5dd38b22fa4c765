"""Pictures that a table names by URL: lets threads use the asynchronous `cir_vectorizer.pictures.fetch`."""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cir_vectorizer.pictures.fetch import Fetcher, NotPublicError
from cir_vectorizer.sources.base import Stamp, version_of
from cir_vectorizer.sources.waiting import PATIENCE

_T = TypeVar("_T")


class Web:
    """A client that fetches pictures over http and https; the first fetch starts its thread.

    Args:
        private: also fetch from addresses outside the public internet, and from any port.
        patience: seconds to wait for a busy server to give a picture.
    """

    def __init__(self, private: bool = False, patience: float = PATIENCE) -> None:
        self._private = private
        self._patience = patience
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @functools.cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(private=self._private, patience=self._patience, instead="")

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_process, (self._private, self._patience)

    def fetch(self, url: str, most_bytes: int) -> bytes:
        """Return the bytes at `url`.

        Raises:
            ImageError: with reason "url" or "bytes".
        """
        return self._wait(lambda fetcher: fetcher.fetch(url, most_bytes))

    def stamp(self, url: str) -> Stamp | None:
        """Return the stamp of a URL: the length, and a digest of ETag or else Last-Modified; None without either.

        Raises:
            ImageError: the address is refused.
        """
        headers = self._wait(lambda fetcher: fetcher.head(url))
        version = headers.get("etag") or headers.get("last-modified")
        length = headers.get("content-length", "")
        return Stamp(int(length) if length.isdecimal() else -1, version_of(version)) if version else None

    def _wait(self, ask: Callable[[Fetcher], Coroutine[Any, Any, _T]]) -> _T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="cir-web", daemon=True).start()
            work = ask(self._fetcher)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except NotPublicError as error:
            raise error.saying(f"{error.problem}, or give --private-urls if your own network is meant") from error


@functools.cache
def _of_process(private: bool, patience: float) -> Web:
    """Return this process's shared Web, in place of one that was pickled in another process."""
    return Web(private, patience)
