"""The connection to Qdrant: its client, which errors to retry, and the sentences for all others."""

import re
import sqlite3
import warnings

import grpc
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from cir_vectorizer.collections.connection import Connection
from cir_vectorizer.redaction import without_user

DEFAULT_GRPC_PORT = 6334
TIMEOUT_S = 60

SERVER_ERRORS = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, grpc.RpcError)
_LOCAL_ERRORS = (sqlite3.Error, OSError, RuntimeError, ValueError, LookupError)
_CONTAINER_GONE = re.compile(r"Failed to send inference request.*\((http\S+)\)")
_FINAL = ("not configured", "not initialized", "Authentication failed", "validation failed")
"""Phrases in answers with status 5xx that a retry would not change."""


class QdrantConnection(Connection[QdrantClient]):
    """A client of a server, or of a directory, which it locks."""

    errors = (*SERVER_ERRORS, *_LOCAL_ERRORS)

    @property
    def embedded(self) -> bool:
        """True if the collection is in a directory, without a server."""
        return self.address.path is not None

    def connect(self) -> QdrantClient:
        address = self.address
        if address.path is not None:
            # the README says this, so not every run needs to
            warnings.filterwarnings("ignore", message="Local mode is not recommended", category=UserWarning)
            client = QdrantClient(path=str(address.path), force_disable_check_same_thread=True)
            commit_without_fsync(client)
            return client
        return QdrantClient(
            host=f"[{address.host}]" if ":" in (address.host or "") else address.host,
            port=address.port,
            grpc_port=self.options.grpc_port or DEFAULT_GRPC_PORT,
            prefer_grpc=self.options.grpc,
            https=address.scheme == "qdrants",
            api_key=self.api_key,
            timeout=TIMEOUT_S,
            cloud_inference=True,  # sends an InferenceObject to the server unchanged
            check_compatibility=False,
        )

    def disconnect(self, client: QdrantClient) -> None:
        client.close()

    def may_pass(self, error: Exception) -> bool:
        status = status_of(error)
        if status in (429, "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"):
            return True
        if status == "INTERNAL" or (isinstance(status, int) and status >= 500):
            said = said_by(error)
            return not any(final in said for final in _FINAL)
        if isinstance(error, ResponseHandlingException):
            return not isinstance(error.source, ValidationError)
        return isinstance(error, ResourceExhaustedResponse)

    def sentence(self, error: Exception, collection: str) -> str:
        if self.embedded:
            return self._local_sentence(error, collection)
        where = self.address.server
        if isinstance(error, ResponseHandlingException):
            if isinstance(error.source, ValidationError):
                return (
                    f"what answers at {where} does not speak as Qdrant does; check host and port (REST, usually 6333)"
                )
            cause = str(error.source) or type(error.source).__name__
            remedy = "start it, or correct host and port (the REST port, usually 6333)"
            return f"no Qdrant server answers at {where} ({cause}); {remedy}"
        status, said = status_of(error), said_by(error)
        if status in (401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"):
            return self.key_sentence()
        if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            port = self.options.grpc_port or DEFAULT_GRPC_PORT
            return (
                f"no Qdrant server answers by gRPC at {self.address.host}, port {port} ({said}); start it, correct the "
                "gRPC port (usually 6334), or speak REST"
            )
        if "InferenceService" in said and ("not configured" in said or "not initialized" in said):
            return (
                f"the Qdrant server {where} knows no container that makes vectors; start it with "
                "QDRANT__INFERENCE__ADDRESS=http://CONTAINER:8000/qdrant, or make the vectors here"
            )
        if "Authentication failed for inference service" in said:
            return (
                f"the container refuses the key that the Qdrant server {where} sends, or it sends none; set it in "
                "QDRANT__INFERENCE__ADDRESS=http://cir:KEY@CONTAINER:8000/qdrant of the server"
            )
        if (gone := _CONTAINER_GONE.search(said)) is not None:
            return (
                f"no container answers at {gone[1]}, which the Qdrant server {where} asks; start it, or correct "
                "QDRANT__INFERENCE__ADDRESS of the server"
            )
        if status is not None:
            return f"{where} answered {status} for collection {collection!r}: {said}"
        return f"{where} cannot take this for collection {collection!r}: {error}"

    def _local_sentence(self, error: Exception, collection: str) -> str:
        path = self.address.path
        if isinstance(error, RuntimeError) and "already accessed" in str(error):
            return (
                f"{path} is in use by another process, and an embedded collection serves one at a time; wait until that "
                "one ends, or run a Qdrant server and name it as qdrant://HOST/COLLECTION"
            )
        cause = getattr(error, "strerror", None) or error
        what = f"the embedded collection {self.address.scheme}:{path}/{collection}"
        if isinstance(error, OSError | sqlite3.Error):
            return f"{what} cannot be read or written ({cause}); check the disk and the permissions"
        return f"{what} cannot do this: {cause}"


def status_of(error: BaseException | None) -> int | str | None:
    """Return the HTTP status or the name of the gRPC code in a server's answer; None if the error holds neither."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return str(error.code().name)
    return None


def said_by(error: BaseException) -> str:
    """Return the server's sentence; keys in addresses are removed."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        said = error.details() or ""
    elif isinstance(error, UnexpectedResponse):
        try:
            said = str(error.structured()["status"]["error"])
        except (ValueError, KeyError, TypeError):
            said = error.content[:200].decode("utf-8", "replace") or error.reason_phrase
    else:
        said = str(error)
    return without_user(said)


def commit_without_fsync(client: QdrantClient) -> None:
    """Let the embedded mode commit each object to a write-ahead log without waiting for the disk.

    By default it commits objects one by one, each with an fsync (about 15 ms). With the log, a crash of the process
    still loses nothing; a power cut may lose the last commits, which the next sync writes again. This uses a private
    attribute of qdrant-client: in a version without it, writing is slower and nothing else changes.
    """
    for inner in getattr(getattr(client, "_client", None), "collections", {}).values():
        connection = getattr(getattr(inner, "storage", None), "storage", None)
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
