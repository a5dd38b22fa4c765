"""Runs the service under uvicorn, and stops it without losing an answer."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cir_vectorizer.collections import Collection
from cir_vectorizer.errors import CirError
from cir_vectorizer.models import load as load_model
from cir_vectorizer.service import logs
from cir_vectorizer.service.app import create_app
from cir_vectorizer.service.http.problems import RefusedError, refusal
from cir_vectorizer.service.live import OneLoader, loading
from cir_vectorizer.service.settings import Settings, service_links, weaviates_own
from cir_vectorizer.service.state import Loader, Service
from cir_vectorizer.service.tracing import from_environment

log = logging.getLogger(__name__)

BACKLOG = 2048
QUIET = 0.5
"""Seconds to wait for requests on new connections before idle ones are closed."""
LINGER = 2.0
"""Seconds for which the rest of an invalid request is read and dropped before its connection is closed."""
FIRST_REQUEST = 5.0
"""Longest wait at shutdown, in seconds, for the first request of an accepted connection."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, except that invalid HTTP gets a refusal as JSON too."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        refused = RefusedError(400, "http", "this is not a valid HTTP request", {"connection": "close"})
        answer = refusal(refused).response()
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(answer.body))
        self._refused = True
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        # To close with bytes unread would reset the connection, and the client might never see the answer.
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)


class _Server(uvicorn.Server):
    """A server that SIGTERM stops in three steps.

    It reports not ready but serves for `drain_seconds`, which a second signal cuts short; then it takes no new
    connections; it ends once every request is answered.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._service.draining:
            self._exit()
            return
        self._service.draining = True
        seconds = self._service.settings.drain_seconds
        log.info("stopping: not ready any more, serving for %g s", seconds)
        asyncio.get_running_loop().call_later(seconds, self._exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for connection in await self._last_connections():
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        await self._first_requests()
        await super().shutdown(sockets)

    async def _first_requests(self) -> None:
        """Wait for requests on the connections accepted last: a slow client may connect long before it sends one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_REQUEST
        await asyncio.sleep(QUIET)
        while loop.time() < deadline and any(
            isinstance(each, _Protocol) and each.cycle is None for each in self.server_state.connections
        ):
            await asyncio.sleep(QUIET / 10)

    async def _last_connections(self) -> list[socket.socket]:
        """Stop listening, and return the connections that closing would reset: accepted, but not seen by the loop."""
        listeners = [socket.socket(fileno=os.dup(each.fileno())) for server in self.servers for each in server.sockets]
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)
        connections = []
        for listener in listeners:
            listener.setblocking(False)
            with listener, contextlib.suppress(BlockingIOError):
                while True:
                    connections.append(listener.accept()[0])
        return connections

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(self.config, self.server_state, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._service.failure is not None

    def _exit(self) -> None:
        self.should_exit = True


def run(
    load: Loader,
    settings: Settings,
    collections: Mapping[str, Sequence[Collection]] | None = None,
    load_one: OneLoader = load_model,
) -> None:
    """Serve until a signal stops the process; the arguments are those of `create_app`.

    Raises:
        CirError: the models, keys or certificate cannot be loaded, the address is taken, or the environment asks for traces
            that cannot be sent.
    """
    logs.configure(settings.log_level)
    for name, value in service_links().items():
        log.info("%s=%s is not read: Kubernetes sets it for a Service, it is no setting", name, value)
    if meant := weaviates_own():
        said = ", ".join(f"{name} {value}" for name, value in meant.items())
        log.info(
            "ENABLE_CUDA is set, as for Weaviate's own inference images: %s, unless an option says otherwise", said
        )
    if "model" not in settings.model_fields_set:
        log.warning(
            "no model is set, so the toy `tiny` is served, which knows drawn products alone; for photos set CIR_MODEL or "
            "--model to a real model, for example lincir-vit-l"
        )
    tracing = from_environment()
    if tracing is not None:
        log.info("traces are sent, as OTEL_… in the environment asks")
    app = create_app(load, settings, collections=collections, load_one=load_one, tracing=tracing)
    service: Service = app.state.service
    if not service.keys.configured:
        _warn(settings.host)
    try:
        make_server(app, settings).run()
    except OSError as error:
        raise CirError(
            f"the certificate or its key cannot be read ({error.strerror or error}); check both files"
        ) from error
    if service.failure is not None:
        raise service.failure
    if loading():
        log.info("a model was still being loaded; it is given up")
        logging.shutdown()
        os._exit(0)  # everything is closed; to end Python beneath a thread in PyTorch's code would abort the process


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Return a server for an app made by `create_app`."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=int(settings.request_timeout) + 10,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return _Server(config, app.state.service)


def _warn(host: str) -> None:
    """Log that no key is configured, as a loud warning if other machines can reach the service."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local:
        log.info("no key is configured; only this machine can reach %s", host)
    else:
        log.warning(
            "NO KEY IS CONFIGURED AND %s IS NOT A LOOPBACK ADDRESS: anybody who reaches it can use this service. "
            "Set CIR_API_KEYS or --api-keys-file",
            host,
        )
