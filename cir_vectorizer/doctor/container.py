"""Checks of the container from this machine."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from cir_vectorizer.client import Client, Patience
from cir_vectorizer.collections import ModelRecord
from cir_vectorizer.doctor.findings import Finding
from cir_vectorizer.doctor.servers import TIMEOUT_S
from cir_vectorizer.errors import ServiceError
from cir_vectorizer.query import ComposedQuery


class Container:
    """The container as this machine sees it.

    Raises:
        ServiceError: the URL is not a service's address.
    """

    def __init__(self, url: str, key: str | None, model: ModelRecord) -> None:
        bare = httpx.URL(url).copy_with(userinfo=b"") if "://" in url else None
        if bare is not None and bare.path.strip("/"):
            raise ServiceError(
                f"{bare} has a path, and the container's address has none; give {bare.copy_with(raw_path=b'')}"
            )
        self.client = Client(url, api_key=key, timeout=TIMEOUT_S, patience=Patience(retries=0))
        self.model = model
        self.served: ModelRecord | None = None
        """The model with the wanted backbone, under the container's name for it."""
        self._url = str(bare).rstrip("/")

    def compose(self, queries: Sequence[ComposedQuery]) -> npt.NDArray[np.float32]:
        """Return the unit vectors, (n, dim), that the container makes of queries with the wanted backbone."""
        return self.client.compose(queries, model=str(self.served)).vectors

    def findings(self) -> Iterator[Finding]:
        """Check that the container is ready, accepts the key, and serves the model's backbone."""
        try:
            answer = httpx.get(f"{self._url}/.well-known/ready", timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            sentence = (
                f"no container answers at {self._url} ({error or type(error).__name__}); start it, or correct --service"
            )
            yield Finding("service", "problem", sentence)
            return
        if answer.status_code == 503:
            yield Finding("service", "problem", f"{self._url} is not ready: {_error(answer)}; wait, or look at its log")
            return
        if not answer.is_success:
            sentence = (
                f"{self._url} is not a container of cir-vectorizer (it answers with status {answer.status_code}); correct "
                "--service"
            )
            yield Finding("service", "problem", sentence)
            return
        yield Finding("service", "ok", f"{self._url} is alive and ready")
        try:
            listed = self.client.models()
        except ServiceError as error:
            refused = error.status in (401, 403)
            problem = "it got no valid key; give one with --service-key or CIR_API_KEY" if refused else str(error)
            yield Finding("service key" if refused else "service", "problem", f"{self._url}: {problem}")
            return
        yield Finding("service key", "ok", "the container accepts these requests")
        yield self._model(listed)

    def _model(self, listed: dict[str, Any]) -> Finding:
        data: list[dict[str, Any]] = listed.get("data", [])
        for each in data:
            if self.model.made(each.get("fingerprint")):
                self.served = ModelRecord(str(each["id"]), self.model.fingerprint, self.model.dim)
                return Finding("service model", "ok", f"serves {self.served}, with the same backbone as {self.model}")
        names = ", ".join(str(each.get("full_name")) for each in data) or "no model"
        sentence = (
            f"the container serves {names}, and none has the backbone of {self.model}; have it serve {self.model.name}"
        )
        return Finding("service model", "problem", sentence)


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
