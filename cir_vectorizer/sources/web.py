"""Pictures that a table names by URL: fetched from threads, with the guard of `cir_vectorizer.pictures.fetch`."""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.fetch import MAX_REDIRECTS, Fetcher, ForbiddenHostError
from cir_vectorizer.sources.base import Stamp, version_of

_T = TypeVar("_T")
_STAMP_TIMEOUT_S = 10.0
_MAX_PORT = 65535


class Web:
    """Fetches pictures over http and https; does nothing before the first one.

    Args:
        private: also from addresses that are not on the public internet, and at any port.
    """

    def __init__(self, private: bool = False) -> None:
        self._private = private
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fetcher: _Fetcher | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_process, (self._private,)

    def fetch(self, url: str, most_bytes: int) -> bytes:
        """The bytes at `url`.

        Raises:
            ImageError: with reason "url" or "bytes".
        """
        loop, fetcher = self._started(most_bytes)
        return _wait(loop, fetcher.fetch(url))

    def stamp(self, url: str) -> Stamp | None:
        """Its length and a digest of its ETag (or else of Last-Modified); None if the server names neither."""
        loop, fetcher = self._started()
        return _wait(loop, fetcher.stamp(url))

    def _started(self, most_bytes: int | None = None) -> tuple[asyncio.AbstractEventLoop, "_Fetcher"]:
        with self._lock:
            if self._loop is None or self._fetcher is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="cir-web", daemon=True).start()
                self._fetcher = _wait(self._loop, _make(self._private))
            if most_bytes is not None:
                self._fetcher.limit(most_bytes)
            return self._loop, self._fetcher


@functools.cache
def _of_process(private: bool) -> Web:
    """What arrives where a Web was sent to another process: one for all that need the same."""
    return Web(private)


class _Fetcher(Fetcher):
    """The guarded fetcher, with a look at what a picture's server says of it, and with the guard off where asked."""

    def __init__(self, private: bool) -> None:
        super().__init__()
        self._private = private

    def limit(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes

    async def stamp(self, url: str) -> Stamp | None:
        try:
            async with self._turn:
                headers = await asyncio.wait_for(self._head(url), _STAMP_TIMEOUT_S)
        except (asyncio.TimeoutError, httpx.HTTPError, httpx.InvalidURL):
            return None  # fetching it says what is wrong
        version = headers.get("etag") or headers.get("last-modified")
        length = headers.get("content-length", "")
        return Stamp(int(length) if length.isdecimal() else -1, version_of(version)) if version else None

    async def _head(self, url: str) -> httpx.Headers:
        for _ in range(MAX_REDIRECTS + 1):
            address, headers, host = await self._checked(url)
            request = self._client.build_request("HEAD", address, headers=headers, extensions={"sni_hostname": host})
            response = await self._client.send(request)
            if not response.has_redirect_location:
                return response.headers if response.status_code == 200 else httpx.Headers()
            url = str(httpx.URL(url).join(response.headers["location"]))
        return httpx.Headers()

    async def _checked(self, text: str) -> tuple[httpx.URL, dict[str, str], str]:
        if not self._private:
            try:
                return await super()._checked(text)
            except ForbiddenHostError as error:
                hint = "or give --private-urls if your own network is meant"
                raise error.saying(f"{error.problem}, {hint}") from error.__cause__
        try:
            url = httpx.URL(text)
            host, port = url.host, url.port or 0
        except (httpx.InvalidURL, ValueError) as error:
            raise ImageError("url", "is not a valid URL; check it") from error
        if port > _MAX_PORT:
            raise ImageError("url", f"names port {port}, and ports end at {_MAX_PORT}; check it")
        if url.scheme not in ("http", "https") or not host or url.userinfo:
            raise ImageError("url", "is not a plain http or https address; remove user and password")
        return url, {}, host


async def _make(private: bool) -> _Fetcher:
    return _Fetcher(private)


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run_coroutine_threadsafe(work, loop).result()
