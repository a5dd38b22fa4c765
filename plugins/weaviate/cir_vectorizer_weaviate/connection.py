"""The wire to Weaviate: one client for all collections of a server, what is tried again, and what errors say."""

import logging
import os
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import grpc
import httpx
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.exceptions import (
    AuthenticationFailedError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateInsertManyAllFailedError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from cir_vectorizer.collections import Address, OpenOptions
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import CirError, CollectionError
from cir_vectorizer.redaction import without_user

DEFAULT_GRPC_PORT, CLOUD_GRPC_PORT = 50051, 443
CLOUD = (".weaviate.network", ".weaviate.cloud")
"""Hosted servers, which speak gRPC at another host name."""
TIMEOUTS = Timeout(init=10, query=60, insert=120)
ATTEMPTS = 10
"""Of a call to a server that answered before: with the waits between them about 40 s, enough for it to restart."""
FIRST_ATTEMPTS = 2
"""Of a call before the server ever answered: the address may be wrong."""

_T = TypeVar("_T")
_UNREACHABLE = (WeaviateConnectionError, WeaviateStartUpError, WeaviateTimeoutError, httpx.TransportError)
_PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED")
_PASSING_WORDS = re.compile(
    r"connection (refused|reset)|\bEOF\b|broken pipe|i/o timeout|deadline exceeded|no such host|too many requests"
    r"|status (429|502|503|504)\b|leader not found|not ready|shutting down|read-only|shard is not|memory pressure",
    re.IGNORECASE,
)


class Connection:
    """A client, made at the first call."""

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self._address = address
        self._options = options
        self._reached = False

    @cached_property
    def client(self) -> weaviate.WeaviateClient:
        """The client of weaviate-client; connects."""
        logging.getLogger("weaviate-client").addFilter(_is_no_batch_error)
        host, tls = self._address.host or "", self._address.scheme == "weaviates"
        client = weaviate.connect_to_custom(
            http_host=host,
            http_port=self.port,
            http_secure=tls,
            grpc_host=self._grpc_host,
            grpc_port=self.grpc_port,
            grpc_secure=tls,
            auth_credentials=Auth.api_key(self._api_key) if self._api_key else None,
            additional_config=AdditionalConfig(timeout=TIMEOUTS),
            skip_init_checks=True,  # they would ask the package index for a newer client
        )
        try:
            self._check_grpc(tls)
        except CollectionError:
            client.close()
            raise
        return client

    def _check_grpc(self, tls: bool) -> None:
        where = f"{self._bracketed(self._grpc_host)}:{self.grpc_port}"
        channel = grpc.secure_channel(where, grpc.ssl_channel_credentials()) if tls else grpc.insecure_channel(where)
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUTS.init)
        except grpc.FutureTimeoutError as error:
            raise CollectionError(
                f"the Weaviate server {self._where} answers, but not by gRPC at port {self.grpc_port}; open that port, "
                "or correct it with --grpc-port (usually 50051)"
            ) from error
        finally:
            channel.close()

    @property
    def port(self) -> int:
        """Of REST."""
        return self._address.port or self._address.usual_port

    @property
    def grpc_port(self) -> int:
        """Of gRPC, which searches and writes need."""
        return self._options.grpc_port or (CLOUD_GRPC_PORT if self._cloud else DEFAULT_GRPC_PORT)

    def call(self, work: Callable[[weaviate.WeaviateClient], _T], collection: str, attempts: int = ATTEMPTS) -> _T:
        """Run a call; what may pass is tried again.

        Raises:
            CollectionError: cause and remedy; `__cause__` is the client's error.
        """
        try:
            result = persist(lambda: work(self.client), _may_pass, attempts if self._reached else FIRST_ATTEMPTS)
        except CirError:
            raise  # some are ValueErrors too
        except (WeaviateBaseError, httpx.HTTPError, grpc.RpcError, ValueError, KeyError) as error:
            raise CollectionError(self._sentence(error, collection)) from error
        self._reached = True
        return result

    def close(self) -> None:
        """Let go of the client; the next call makes another."""
        if "client" in self.__dict__:
            self.client.close()
            del self.client

    @property
    def _grpc_host(self) -> str:
        host = self._address.host or ""
        return f"grpc-{host}" if self._cloud else host

    @property
    def _where(self) -> str:
        return f"{self._bracketed(self._address.host or '')}:{self.port}"

    @staticmethod
    def _bracketed(host: str) -> str:
        return f"[{host}]" if ":" in host else host

    @property
    def _cloud(self) -> bool:
        return (self._address.host or "").endswith(CLOUD)

    @property
    def _api_key(self) -> str | None:
        return self._address.api_key or os.environ.get("WEAVIATE_API_KEY") or None

    def _sentence(self, error: Exception, collection: str) -> str:
        where = self._where
        said, code = said_by(error), _grpc_code(error)
        status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else None
        if isinstance(error, AuthenticationFailedError) or status in (401, 403) or code == "UNAUTHENTICATED":
            given = "the API key was refused" if self._api_key else "an API key is needed"
            return f"{where}: {given}; give --api-key or set WEAVIATE_API_KEY"
        if isinstance(error, _UNREACHABLE) or code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            remedy = "start it, or correct host and port (REST usually 8080, gRPC 50051)"
            return f"no Weaviate server answers at {where} ({said}); {remedy}"
        if isinstance(error, KeyError | ValueError) or str(error).startswith("Meta endpoint!"):
            return f"what answers at {where} does not speak as Weaviate does ({said}); check host and port"
        if "is the module" in said.lower() or "no module with name" in said.lower():
            return (
                f"the Weaviate server {where} runs without the module multi2vec-clip ({said}); start it with "
                "ENABLE_MODULES=multi2vec-clip, or make the vectors here"
            )
        return f"{where} refused this for collection {collection!r}: {said}"


def said_by(error: BaseException) -> str:
    """The server's sentence, without the wrapping and without a key that an address in it may hold."""
    body: Any = error.error if isinstance(error, UnexpectedStatusCodeError) else None
    try:
        said = "; ".join(str(each["message"]) for each in body["error"])
    except (TypeError, KeyError):
        said = str(error) or type(error).__name__
    said = re.sub(r"^.* with message |^Every object failed.*set of all errors: ", "", said, flags=re.DOTALL)
    said = re.sub(r"^Connection to Weaviate failed\. Details: |^Could not connect to Weaviate:\s*", "", said)
    return " ".join(without_user(said).split()).rstrip(".")


def may_pass(sentence: str) -> bool:
    """Whether what the server said about an object may be different later."""
    return _PASSING_WORDS.search(sentence) is not None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, WeaviateInsertManyAllFailedError | CollectionError):
        return False  # `writing` looks at each object
    if isinstance(error, UnexpectedStatusCodeError):
        return error.status_code in (429, 502, 503, 504) or may_pass(str(error))
    code = _grpc_code(error)
    return isinstance(error, _UNREACHABLE) or code in _PASSING_CODES or may_pass(str(error))


def _grpc_code(error: BaseException | None) -> str | None:
    """The gRPC status that the client's error hides."""
    while error is not None:
        if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
            return str(error.code().name)
        error = error.__cause__ or error.__context__
    return None


def _is_no_batch_error(record: logging.LogRecord) -> bool:
    """Keep the client from printing objects that were refused: they are raised by name."""
    return "Failed to send" not in str(record.msg)
