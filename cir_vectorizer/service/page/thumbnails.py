"""Thumbnails of pictures that sync recorded, or that a column of another program's objects names, and of nothing else.

A recorded file is shown only if its content is what sync saw; a path that now leads elsewhere (a replaced file, a changed
link) shows nothing. Files that a column names are read only if the operator named the column. A thumbnail is always a
newly encoded JPEG.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable

from cir_vectorizer.collections import SyncRecord
from cir_vectorizer.engine.cache import ByteCache
from cir_vectorizer.errors import CirError, ImageError
from cir_vectorizer.pictures.thumbnails import jpeg, thumbnail
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.service.http.problems import RefusedError

SIDES = (160, 320, 640, 1024)
"""Sizes of thumbnails: the longest side in pixels. Another size is rounded up to one of these, or down to the largest."""

DEFAULT_SIDE = 320
MEDIA_TYPE = "image/jpeg"

MOST_FETCHED = 16
"""Most pictures that are fetched by URL, or held in memory until they are drawn, at a time."""

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # opening a pipe in a picture's place must not block

Fetch = Callable[[str], Awaitable[bytes]]
OnHost = Callable[..., Awaitable[bytes]]


class Thumbnails:
    """Makes and caches thumbnails; use it on one event loop.

    Args:
        budget: size of the cache in bytes.
        limits: limits on one picture.
        fetch: fetches a picture that was recorded by its URL; None refuses such pictures.
    """

    def __init__(self, budget: int, limits: Limits, fetch: Fetch | None = None) -> None:
        self._limits = limits
        self._fetch = fetch
        self._fetching = asyncio.Semaphore(MOST_FETCHED)
        self._kept: ByteCache[tuple[str, int], bytes] = ByteCache(budget, len)

    def tag(self, record: SyncRecord, side: int) -> str:
        """Return the ETag of a thumbnail, which is known without reading the picture."""
        return f'"{record.sha256[:32]}-{side}"'

    async def get(self, record: SyncRecord, side: int, on_host: OnHost) -> tuple[bytes, bool]:
        """Return a thumbnail's JPEG bytes, and whether they came from the cache.

        The thumbnail is at most `side` pixels wide and high.

        Args:
            side: one of SIDES.
            on_host: runs a function on a host thread.

        Raises:
            RefusedError: 404, the recorded picture is not available here.
        """
        key = record.sha256, side
        if (known := self._kept.get(key)) is not None:
            return known, True
        if not record.sha256:
            raise _gone("has no picture that sync read here")
        if is_web(record.path):
            async with self._fetching:
                made = await on_host(_draw, await self._fetched(record.path), record, side, self._limits)
        else:
            made = await on_host(_draw_file, record, side, self._limits)
        self._kept.put(key, made)
        return made, False

    async def named(self, place: str, side: int, on_host: OnHost) -> tuple[bytes, bool]:
        """Return the thumbnail of a picture that a column names, and whether it came from the cache.

        Args:
            place: a URL, or a path that may be read.
            side, on_host: as in `get`.

        Raises:
            RefusedError: 404, the picture is not available here.
        """
        key = place, side
        if is_web(place):
            if (known := self._kept.get(key)) is not None:
                return known, True
            async with self._fetching:
                made = await on_host(_drawn, await self._fetched(place), side, self._limits)
        else:
            content = await on_host(_content, os.path.abspath(place), self._limits)
            key = hashlib.sha256(content).hexdigest(), side
            if (known := self._kept.get(key)) is not None:
                return known, True
            made = await on_host(_drawn, content, side, self._limits)
        self._kept.put(key, made)
        return made, False

    async def _fetched(self, url: str) -> bytes:
        if self._fetch is None:
            raise _gone(
                "has its picture at a URL, and URLs are not fetched here; the service's operator allows it by --allow-urls"
            )
        try:
            return await self._fetch(url)
        except CirError as error:
            raise _gone("has its picture at a URL that cannot be fetched") from error


def is_web(place: str) -> bool:
    """Tell whether a picture is at an http or https URL."""
    return place.lower().startswith(("http://", "https://"))


def side_for(asked: int) -> int:
    """Return the side from SIDES to use for the one asked for."""
    return next((side for side in SIDES if side >= asked), SIDES[-1])


def _draw_file(record: SyncRecord, side: int, limits: Limits) -> bytes:
    return _draw(_read(record, limits), record, side, limits)


def _read(record: SyncRecord, limits: Limits) -> bytes:
    if not os.path.isabs(record.path):
        raise _gone("has its picture in a place that is not read here")
    content = _content(record.path, limits, record.size)
    if len(content) != record.size:
        raise _changed()
    return content


def _content(path: str, limits: Limits, size: int | None = None) -> bytes:
    """Return a file's bytes, or none if it has another size or is no file."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limits.max_bytes:
                return b""
            return b"" if size is not None and status.st_size != size else file.read(status.st_size + 1)
    except (OSError, ValueError) as error:
        raise _gone(
            "has a picture that the service cannot read; its operator runs it where the pictures are"
        ) from error


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _NONBLOCK)


def _draw(data: bytes, record: SyncRecord, side: int, limits: Limits) -> bytes:
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise _changed()
    return _drawn(data, side, limits)


def _drawn(data: bytes, side: int, limits: Limits) -> bytes:
    try:
        return jpeg(thumbnail(data, side, limits))
    except ImageError as error:
        raise _gone("has no picture that this service can show, or one over its limits") from error


def _changed() -> RefusedError:
    return _gone("has a picture that changed since sync read it; the next cir-vectorizer sync mends that")


def _gone(what: str) -> RefusedError:
    return RefusedError(404, "thumbnail", f"the object {what}")
