"""The connection to Weaviate: its client, which errors to retry, and the sentences for all others."""

import logging
import re
from dataclasses import replace
from typing import Any

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

from cir_vectorizer.collections.connection import Connection
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.redaction import without_user

DEFAULT_GRPC_PORT, CLOUD_GRPC_PORT = 50051, 443
CLOUD = (".weaviate.network", ".weaviate.cloud")
"""Domains of hosted servers, whose gRPC has another host name."""
TIMEOUTS = Timeout(init=10, query=60, insert=120)

UNREACHABLE = (WeaviateConnectionError, WeaviateStartUpError, WeaviateTimeoutError, httpx.TransportError)
_PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED")
_CONTAINER_GONE = re.compile(r'(?:send POST request: )?Post "([^"]+)/vectorize": (.+)')
_PASSING_WORDS = re.compile(
    r"connection (refused|reset)|\bEOF\b|broken pipe|i/o timeout|deadline exceeded|no such host|too many requests"
    r"|status (429|502|503|504)\b|leader not found|not ready|shutting down|read-only|shard is not|memory pressure",
    re.IGNORECASE,
)


class WeaviateConnection(Connection[weaviate.WeaviateClient]):
    """A client that speaks REST and gRPC to a server."""

    errors = (WeaviateBaseError, httpx.HTTPError, grpc.RpcError, ValueError, KeyError)

    def connect(self) -> weaviate.WeaviateClient:
        logging.getLogger("weaviate-client").addFilter(_is_no_batch_error)
        tls = self.address.scheme == "weaviates"
        client = weaviate.connect_to_custom(
            http_host=self._host,
            http_port=self.address.port or 0,
            http_secure=tls,
            grpc_host=self._grpc_host,
            grpc_port=self.grpc_port,
            grpc_secure=tls,
            auth_credentials=Auth.api_key(self.api_key) if self.api_key else None,
            additional_config=AdditionalConfig(timeout=TIMEOUTS),
            skip_init_checks=True,  # the checks would ask the package index for a newer client
        )
        try:
            self._check_grpc(tls)
        except CollectionError:
            client.close()
            raise
        return client

    def disconnect(self, client: weaviate.WeaviateClient) -> None:
        client.close()

    def may_pass(self, error: Exception) -> bool:
        if isinstance(error, WeaviateInsertManyAllFailedError | CollectionError):
            return False  # the module `writing` decides for each object
        if isinstance(error, UnexpectedStatusCodeError):
            return error.status_code in (429, 502, 503, 504) or may_pass(str(error))
        code = grpc_code(error)
        return isinstance(error, UNREACHABLE) or code in _PASSING_CODES or may_pass(str(error))

    def _check_grpc(self, tls: bool) -> None:
        where = replace(self.address, host=self._grpc_host, port=self.grpc_port).server
        channel = grpc.secure_channel(where, grpc.ssl_channel_credentials()) if tls else grpc.insecure_channel(where)
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUTS.init)
        except grpc.FutureTimeoutError as error:
            raise CollectionError(
                f"the Weaviate server {self.address.server} answers, but not by gRPC at port {self.grpc_port}; open that port, "
                "or correct it with --grpc-port (usually 50051)"
            ) from error
        finally:
            channel.close()

    @property
    def grpc_port(self) -> int:
        """The port for gRPC, which searches and writes need."""
        return self.options.grpc_port or (CLOUD_GRPC_PORT if self._cloud else DEFAULT_GRPC_PORT)

    @property
    def _host(self) -> str:
        return self.address.host or ""

    @property
    def _grpc_host(self) -> str:
        return f"grpc-{self._host}" if self._cloud else self._host

    @property
    def _cloud(self) -> bool:
        return self._host.endswith(CLOUD)

    def sentence(self, error: Exception, collection: str) -> str:
        where = self.address.server
        said, code = said_by(error), grpc_code(error)
        status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else None
        if isinstance(error, AuthenticationFailedError) or status in (401, 403) or code == "UNAUTHENTICATED":
            return self.key_sentence()
        if isinstance(error, UNREACHABLE) or code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            remedy = "start it, or correct host and port (REST usually 8080, gRPC 50051)"
            return f"no Weaviate server answers at {where} ({said}); {remedy}"
        if isinstance(error, KeyError | ValueError) or str(error).startswith("Meta endpoint!"):
            return f"what answers at {where} does not speak as Weaviate does ({said}); check host and port"
        if "is the module" in said.lower() or "no module with name" in said.lower():
            return (
                f"the Weaviate server {where} runs without the module multi2vec-clip ({said}); start it with "
                "ENABLE_MODULES=multi2vec-clip, or make the vectors here"
            )
        return self._container_sentence(said) or f"{where} refused this for collection {collection!r}: {said}"

    def _container_sentence(self, said: str) -> str | None:
        """Return a sentence about the container that the server asks for vectors; None if it is not to blame."""
        server = f"the Weaviate server {self.address.server}"
        setting = "CLIP_INFERENCE_API=http://cir:KEY@CONTAINER:8000 of the server"
        if re.search(r"fail with status 40[13]\b", said):
            return (
                f"the container refuses the key that {server} sends, or it sends none; set it in {setting}, since an address "
                "in the collection's schema should hold no key"
            )
        if (gone := _CONTAINER_GONE.search(said)) is not None:
            return (
                f"no container answers at {gone[1]}, which {server} asks ({gone[2]}); start it, or correct {setting}, or the "
                "collection's inference_url; Weaviate's own readiness stays green meanwhile, so watch the container's "
                "/.well-known/ready"
            )
        if "vector lengths don't match" in said:
            return (
                f"the container that {server} asks makes vectors of another width than this collection has; have it serve "
                f"the collection's model, or correct {setting}"
            )
        return None


def said_by(error: BaseException) -> str:
    """Return the server's sentence, without the client's wrapping; keys in addresses are removed."""
    body: Any = error.error if isinstance(error, UnexpectedStatusCodeError) else None
    try:
        said = "; ".join(str(each["message"]) for each in body["error"])
    except (TypeError, KeyError):
        said = str(error) or type(error).__name__
    if "of RPC that terminated" in said and (call := _call(error)) is not None:
        said = str(call.details())
    said = re.sub(r"^.* with message |^Every object failed.*set of all errors: ", "", said, flags=re.DOTALL)
    said = re.sub(r"^Connection to Weaviate failed\. Details: |^Could not connect to Weaviate:\s*", "", said)
    return " ".join(without_user(said).split()).rstrip(".")


def may_pass(sentence: str) -> bool:
    """Tell whether an object that the server rejected with this sentence may be accepted later."""
    return _PASSING_WORDS.search(sentence) is not None


def grpc_code(error: BaseException) -> str | None:
    """Return the name of the gRPC code among an error's causes; None if there is none."""
    call = _call(error)
    return None if call is None else str(call.code().name)


def _call(error: BaseException | None) -> grpc.Call | grpc.aio.AioRpcError | None:
    """Return the failed gRPC call among an error's causes; None if there is none."""
    while error is not None:
        if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _is_no_batch_error(record: logging.LogRecord) -> bool:
    """Filter out the client's log lines about rejected objects, because `PartialWriteError` names these."""
    return "Failed to send" not in str(record.msg)
