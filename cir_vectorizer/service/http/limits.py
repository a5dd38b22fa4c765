"""Limits on a request: its bytes, its time, and work stopped when the client has gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from cir_vectorizer.errors import OverloadError
from cir_vectorizer.service.http.problems import ClientGoneError, RefusedError

Result = TypeVar("Result")

TIMEOUT_HEADER = "x-request-timeout"


class Bodies:
    """Reads request bodies, and limits their total size.

    Args:
        most: most bytes of one body.
        together: most bytes of all bodies whose requests are not answered yet.
        seconds: longest time for a body to arrive.
    """

    def __init__(self, most: int, together: int, seconds: float) -> None:
        self.held = 0
        self._most = most
        self._together = together
        self._seconds = seconds
        self._waiting: list[asyncio.Future[None]] = []

    @contextlib.asynccontextmanager
    async def read(self, request: Request, wait: float) -> AsyncIterator[bytes]:
        """Yield the request's body; its bytes count as held from their arrival until the context ends.

        Args:
            wait: seconds to wait for room before refusing.

        Raises:
            RefusedError: the body is too large, slow, compressed, or a form with files.
            OverloadError: other bodies take all the room.
            ClientGoneError: the client went away before the end.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusedError(415, "encoding", "the body is compressed; send it without Content-Encoding")
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            problem = "the body is a form with files (multipart); send a JSON object, with pictures in base64"
            raise RefusedError(415, "encoding", problem)
        declared = request.headers.get("content-length", "0")
        expected = int(declared) if declared.isdecimal() else 0
        self._check(expected)
        held = [0]
        try:
            await self._room(expected, wait, held)  # not reserved: the declared bytes may never arrive
            try:
                yield await asyncio.wait_for(self._collect(request, wait, held), self._seconds)
            except asyncio.TimeoutError as error:
                problem = f"the body did not arrive within {self._seconds:g} s; send it faster or in smaller requests"
                raise RefusedError(408, "slow-body", problem) from error
        finally:
            self.held -= held[0]
            while self._waiting:
                future = self._waiting.pop()
                if not future.done():
                    future.set_result(None)

    async def _collect(self, request: Request, wait: float, held: list[int]) -> bytes:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self._check(len(body))
                await self._room(len(chunk), wait, held)
                self.held += len(chunk)
                held[0] += len(chunk)
        except ClientDisconnect as error:
            raise ClientGoneError("the client went away") from error
        return bytes(body)

    def _check(self, count: int) -> None:
        if count > self._most:
            most = f"{self._most / 2**20:,.0f} MiB"
            raise RefusedError(
                413, "body-size", f"the body is over the limit of {most}; send fewer or smaller pictures"
            )

    async def _room(self, count: int, wait: float, held: list[int]) -> None:
        """Wait until there is room for `count` more bytes of one request, which holds `held[0]` so far."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while self.held > held[0] and self.held + count > self._together:
            left = until - loop.time()
            if left <= 0:
                raise OverloadError(1)
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append(future)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(future, left)


async def until_gone(request: Request, work: Awaitable[Result], seconds: float) -> Result:
    """Return the result of `work`, which is cancelled when the client goes away or `seconds` have passed.

    Raises:
        ClientGoneError: the client went away.
        RefusedError: 503, the deadline has passed.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGoneError("the client went away")
        raise RefusedError(503, "deadline", f"no answer within {seconds:g} s; try again later, or send less at a time")
    finally:
        task.cancel()
        gone.cancel()


def deadline(request: Request, most: float) -> float:
    """Return the seconds that a request may take: `most`, or less if its header `X-Request-Timeout` says so.

    Raises:
        RefusedError: 400, the header is not a number of seconds above 0.
    """
    asked = request.headers.get(TIMEOUT_HEADER)
    if asked is None:
        return most
    with contextlib.suppress(ValueError):
        if (seconds := float(asked)) > 0:
            return min(seconds, most)
    raise RefusedError(
        400, "timeout", "X-Request-Timeout is not a number of seconds above 0; correct it or leave it out"
    )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
