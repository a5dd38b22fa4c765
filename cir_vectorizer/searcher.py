"""Searches of one collection again and again, with a model that is loaded once; and parts that integrations with frameworks share."""

import contextlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.client import Client, ServedModel
from cir_vectorizer.collections import Collection, Payload, open_collection, picture_column_of, place_of, texts
from cir_vectorizer.collections.searching import Found, Search, find
from cir_vectorizer.errors import CirError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import Query, read_query, references

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query.wire import Picture

Vectors = npt.NDArray[np.float32]

TOY = "tiny"
"""Model that is loaded if none is named; it knows drawn products alone."""


class Searcher:
    """A collection and the model that composes its queries. Any thread may search; searches wait for each other.

    Args:
        collection: an opened collection, or its address, which is opened here and closed by `close`.
        model: a model, or a name for `load`, which is loaded at the first search; TOY if None.
        service: address of a running service in place of a local model; `model` then names one of its models, and None
            its default one.
        api_key: key of the service; CIR_API_KEY of the environment if None.

    Raises:
        AddressError: the collection's address is malformed.
    """

    def __init__(
        self,
        collection: Collection | str,
        model: "Vectorizer | ServedModel | str | None" = None,
        service: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._named = model
        self._service = service
        self._api_key = api_key
        self._turn = threading.Lock()
        self._stack = contextlib.ExitStack()
        if isinstance(collection, str):
            collection = self._stack.enter_context(contextlib.closing(open_collection(collection)))
        self._collection = collection

    def search(self, query: Query | None = None, **options: Any) -> Found:
        """Search; the parameters, the result and the errors are those of `cir_vectorizer.search`."""
        asked = Search.read(read_query(query) if isinstance(query, Mapping) else query, **options)
        with self._turn:
            return find(asked, self._collection, self._model)

    def place(self, payload: Payload) -> Any:
        """Return the place of an object's picture, a path or a URL; None if it is not known."""
        with self._turn:
            return place_of(payload, self._picture_column)

    def close(self) -> None:
        """Close the connections that were opened here."""
        with self._turn:
            self._stack.close()

    @cached_property
    def _model(self) -> "Vectorizer | ServedModel":
        if isinstance(self._named, str | None):
            if self._service is not None:
                return ServedModel(self._stack.enter_context(client_of(self._service, self._api_key)), self._named)
            from cir_vectorizer.models import load

            return load(self._named or TOY)
        return self._named

    @cached_property
    def _picture_column(self) -> str | None:
        return picture_column_of(self._collection, self._collection.info())


def embedder(
    model: "Vectorizer | Client | str | None", service: str | None, api_key: str | None
) -> "Vectorizer | Client":
    """Return what embeds texts, pictures and composed queries; a model or a client that is given as such is used as it is.

    Args:
        model, service, api_key: as for `Searcher`.
    """
    if not isinstance(model, str | None):
        return model
    if service is not None:
        return client_of(service, api_key, model)
    from cir_vectorizer.models import load

    return load(model or TOY)


def composed(model: "Vectorizer | Client", queries: Sequence[Query]) -> list[list[float]]:
    """Return the vectors of composed queries, (n, dim), whose pictures may be any `Picture`.

    Raises:
        QueryError, ImageError, ServiceError: the query at `index` is refused.
    """
    read = []
    for i, query in enumerate(queries):
        try:
            read.append(read_query(as_query(query)))
        except CirError as error:
            raise error.within("queries", i) from error.__cause__
    return unit(model.compose(read).vectors) if read else []


def unit(embeddings: Vectors) -> list[list[float]]:
    """Return embeddings, (n, dim), as lists of numbers with length 1, the form that frameworks expect."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows: list[list[float]] = (embeddings / lengths).tolist()
    return rows


def text_of(payload: Payload, column: str | None) -> str:
    """Return an object as a text for a language model: its texts, or the value of one column."""
    return ", ".join(texts(payload)) if column is None else str(payload.get(column, ""))


def named_picture(image: "Picture") -> "Picture":
    """Return a picture as the vocabulary knows it: frameworks name files by texts."""
    return Path(image) if isinstance(image, str) and os.path.isfile(image) else image


def client_of(service: str, api_key: str | None, model: str | None = None) -> Client:
    """Return a client of a running service, whose key is CIR_API_KEY of the environment if none is given."""
    return Client(service, api_key=api_key or os.environ.get("CIR_API_KEY"), model=model)


def as_query(given: Query, image: "Picture | list[Picture] | None" = None) -> Query:
    """Return a query that a framework handed over: a text that begins as a JSON object does is a composed query.

    Args:
        image: the reference picture, or several, beside a query that holds none; a text may name a file.

    Raises:
        QueryError: the text is no valid JSON, or both hold a picture.
    """
    query = _read(given) if isinstance(given, str) else given
    if image is None:
        return query
    image = [named_picture(each) for each in references(image)]
    parts = query.model_dump(exclude_unset=True) if isinstance(query, ComposedQuery) else dict(query)
    if parts.get("image"):
        raise QueryError("image", "is given beside a query that has one already; give it in one place")
    return {**parts, "image": image}


def _read(text: str) -> Mapping[str, Any]:
    if not text.lstrip().startswith("{"):
        return {"text": text}
    try:
        query: Mapping[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = (
            f'the query begins as a JSON object does, but is no valid JSON ({error}); send {{"text": …}} or plain words'
        )
        raise QueryError("", problem) from error
    return query
