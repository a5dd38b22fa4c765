"""Code that collections of all databases share: plugins derive their own class from `BaseCollection`."""

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from typing_extensions import Self

from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.collections.connection import ATTEMPTS, ClientT, Connection
from cir_vectorizer.collections.note import Note
from cir_vectorizer.collections.protocol import ANY_VECTOR, Ask, Collection, CreateOptions, OpenOptions, Signal
from cir_vectorizer.collections.records import TEXT_VECTOR, Id, Info, ModelRecord, Point, SyncRecord
from cir_vectorizer.errors import CollectionError, PartialWriteError, QueryError
from cir_vectorizer.query import ComposedQuery

Page = list[tuple[Id, SyncRecord | None]]

_T = TypeVar("_T")


class Schema(Protocol):
    """The part of a collection's schema that this module needs."""

    @property
    def note(self) -> Note | None: ...
    @property
    def texts(self) -> bool: ...


SchemaT = TypeVar("SchemaT", bound=Schema)


class BaseCollection(ABC, Generic[ClientT, SchemaT]):
    """A collection with its name, its connection, and its schema, which is cached until an error occurs.

    Subclasses implement the rest of `cir_vectorizer.collections.Collection`, which documents every method.
    """

    page_size: int
    """Objects in each page of a scan."""

    def __init__(self, address: Address, options: OpenOptions, connection: Connection[ClientT]) -> None:
        self.address = address
        self.options = options
        self._connection = connection
        self._name = self.name_of(address)
        self._known: SchemaT | None = None
        self._version: str | None = None

    def name_of(self, address: Address) -> str:
        """Return the collection's name as the database spells it."""
        return address.collection

    @abstractmethod
    def _exists(self) -> bool:
        """Tell whether the collection (or the tenant) exists."""

    @abstractmethod
    def _read_schema(self) -> SchemaT:
        """Read the schema from the database."""

    @abstractmethod
    def _describe(self, schema: SchemaT) -> Info:
        """Return the collection's state, without the model that the note names."""

    @abstractmethod
    def _read_version(self) -> str | None:
        """Read the server's version; None if there is no server."""

    @abstractmethod
    def _write_note(self, note: Note) -> None:
        """Replace the stored note."""

    @abstractmethod
    def _add_text_vector(self, schema: SchemaT) -> None:
        """Add `TEXT_VECTOR` to a collection of ours, or do nothing if it has this vector.

        Raises:
            CollectionError: as for `Collection.add_texts`.
        """

    @abstractmethod
    def _clients_with_texts(self, schema: SchemaT) -> str:
        """Return the sentence of `Collection.about_texts`.

        Raises:
            CollectionError: the collection can have no `TEXT_VECTOR` beside its own vector.
        """

    @abstractmethod
    def _page(self, limit: int, after: Any) -> tuple[Page, Any]:
        """Return one page of ids and sync records, and the start of the next page (None after the last one).

        Args:
            after: start of the page, as the last call returned it; None for the first page.
        """

    @abstractmethod
    def _behind(self, client: ClientT, name: str) -> str | None:
        """Return the collection that a name or an alias stands for; None if there is none."""

    @abstractmethod
    def _switch(self, client: ClientT, old: str | None, new: str) -> None:
        """Make the name and all aliases of `old` aliases of `new`, and remove `old`."""

    @abstractmethod
    def _remove(self, client: ClientT, real: str) -> None:
        """Remove the collection `real` (with a tenant: only that tenant), and the name if it is an alias of it."""

    def info(self) -> Info | None:
        self._known = None
        if not self._exists():
            return None
        schema = self._schema
        info, note = self._describe(schema), schema.note
        if note is not None:
            return replace(
                info,
                model=note.model,
                fingerprint=note.fingerprint,
                precision=note.precision,
                picture_column=note.picture_column,
                text_columns=note.text_columns,
                text_weight=note.text_weight,
            )
        page, _ = self._page(1, None)  # some servers keep no note, but each object has its record
        first = page[0][1] if page else None
        if first is None:
            return info
        return replace(info, model="a model whose name was not kept", fingerprint=first.fingerprint)

    def add_texts(self, columns: Sequence[str]) -> None:
        note = self._note_for_texts()
        self._add_text_vector(self._schema)
        self._write_note(replace(note, text_columns=tuple(columns)))
        self._known = None

    def about_texts(self) -> str:
        self._note_for_texts()
        return self._clients_with_texts(self._schema)

    def _note_for_texts(self) -> Note:
        if (note := self._schema.note) is None:
            raise CollectionError(
                f"{self.address} keeps no note of its columns of texts, since another program or an old server made it; "
                "sync into a new collection: give another --to"
            )
        return note

    def weigh_texts(self, weight: float | None) -> None:
        if (note := self._schema.note) is not None:
            self._write_note(replace(note, text_weight=weight))
            self._known = None

    def remember(self, model: ModelRecord) -> None:
        if (note := self._schema.note) is not None:
            self._write_note(note.by(model))
            self._known = None

    def adopt(self, model: ModelRecord, picture_column: str) -> None:
        self._write_note(replace(Note.of(model, CreateOptions()), picture_column=picture_column))
        self._known = None

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        after = None
        while True:
            page, after = self._page(self.page_size, after)
            yield from page
            if after is None:
                return

    def pictures(self, ids: Sequence[Id], column: str) -> dict[Id, str]:
        return {}  # only some databases keep pictures

    def beside(self, name: str, options: OpenOptions | None = None) -> Self:
        return type(self)(replace(self.address, collection=name), options or self.options, self._connection)

    def twin(self, name: str) -> Collection:
        return cast(Collection, self.beside(name))  # only some databases keep pictures

    def take_over(self, other: Collection) -> None:
        def switch(client: ClientT) -> None:
            old, new = self._behind(client, self._name), self._behind(client, self.name_of(other.address))
            if new is None:
                raise CollectionError(f"there is no collection {other.address}; nothing was switched")
            if old != new:
                self._switch(client, old, new)

        self._call(switch)
        self._known = None

    def drop(self) -> None:
        def remove(client: ClientT) -> None:
            if (real := self._behind(client, self._name)) is not None:
                self._remove(client, real)

        self._call(remove)
        self._known = None

    def close(self) -> None:
        self._connection.close()
        self._known = None

    @property
    def _schema(self) -> SchemaT:
        if self._known is None:
            self._known = self._read_schema()
        return self._known

    def _check_ask(self, query: Any, ask: Ask) -> None:
        """Check that the query and the collection have what the options of a search need.

        Raises:
            QueryError: the query is not composed yet.
            CollectionError: the collection has no texts.
        """
        for field, wanted in (("text_weight", ask.texts is not None), ("diversity", ask.diversity > 0)):
            if wanted and isinstance(query, ComposedQuery):
                raise QueryError(field, "needs the query's vector; compose the query first")
        if ask.texts is not None:
            self._check_texts()

    def _check_signals(self, signals: Iterable[Signal]) -> None:
        """Check that objects have the vectors with which signals are compared."""
        if any(signal.of == "text" for signal in signals):
            self._check_texts()

    def _check_texts(self) -> None:
        if not self._schema.texts:
            raise CollectionError(
                f"objects of {self.address} have no vector of a text; run cir-vectorizer sync with --text-column, or search "
                "by their pictures alone"
            )

    def _needs(self, version: tuple[int, int], feature: str) -> None:
        """Check that the server is not older than a version; a newer one is asked again only after an error.

        Raises:
            CollectionError: the server is too old for `feature`.
        """
        if self._version is None:
            self._version = self._read_version() or ""
        numbers = tuple(int(part) for part in re.findall(r"\d+", self._version)[:2])
        if numbers and numbers < version:
            found, self._version = self._version, None
            raise CollectionError(
                f"{self.address.server} is a {self._connection.database.name} server {found}, and {feature} needs "
                f"{version[0]}.{version[1]} or later; update the server"
            )

    def _call(self, work: Callable[[ClientT], _T], attempts: int = ATTEMPTS) -> _T:
        try:
            return self._connection.call(work, self._name, attempts)
        except CollectionError:
            self._known = None  # the collection may have been replaced
            raise


SAMPLE = 32
"""Vectors whose length is read in a collection that compares by the dot product."""


def lengths_of(vectors: Iterable[Any]) -> tuple[float, float] | None:
    """Return the least and the greatest length of vectors, each (dim,); None if there are none."""
    found = [float(np.linalg.norm(each)) for each in vectors]
    return (min(found), max(found)) if found else None


def choose_vector(dense: Iterable[str], using: str | None, address: Address) -> str:
    """Return the name of the vector to search: `using`, or the collection's only one beside `TEXT_VECTOR`.

    Args:
        dense: names of the dense vectors, "" for one without a name.

    Raises:
        CollectionError: the vector does not exist, or `using` is None and there are several.
    """
    known = list(dense)
    if known and using == ANY_VECTOR:
        return known[0]
    if using is not None and using in known:
        return using
    known = pictures_of(known) or known
    if using is None and len(known) == 1:
        return known[0]
    names = [name for name in known if name]
    has = f"the vectors {', '.join(names)}" if names else "one vector without a name" if known else "no dense vector"
    remedy = "name one with --using" if names else "leave out --using" if known else "name another collection"
    raise CollectionError(f"{address} has {has}{'' if using is None else f', and not {using!r}'}; {remedy}")


def pictures_of(dense: Iterable[str]) -> list[str]:
    """Return the names of the vectors beside `TEXT_VECTOR`."""
    return [name for name in dense if name != TEXT_VECTOR]


def picture_to_vectorize(point: Point, by_server: bool) -> str:
    """Return a point's picture, in base64, from which the database's server shall make the vector.

    Args:
        by_server: True if the collection was created with `vectorize="server"`.

    Raises:
        ValueError: the point has no picture, or the collection only takes vectors; a sentence about that object.
    """
    if point.picture is None or not by_server:
        raise ValueError(
            "it comes without a vector, and the server makes no vectors for this collection; write the vector, or "
            "create the collection with --vectorize server"
        )
    return base64.b64encode(point.picture).decode("ascii")


def by_halves(
    batch: Sequence[_T],
    send: Callable[[Sequence[_T]], Mapping[Id, str]],
    refusal: Callable[[Exception], str | None],
    id_of: Callable[[_T], Id],
) -> tuple[dict[Id, str], Exception | None]:
    """Send a batch; if the database rejects all of it, send its halves, until the objects at fault are found.

    Args:
        send: sends objects, and returns a sentence for each one that was rejected; the others are written.
        refusal: returns the sentence of an error that rejected a batch; None for any other error, which is raised.

    Returns:
        A sentence for each rejected object by its id, and the first error.
    """
    try:
        return dict(send(batch)), None
    except (CollectionError, ValueError) as error:
        sentence = refusal(error)
        if sentence is None:
            raise
        if len(batch) == 1:
            return {id_of(batch[0]): sentence}, error
    middle = len(batch) // 2
    first, first_cause = by_halves(batch[:middle], send, refusal, id_of)
    second, second_cause = by_halves(batch[middle:], send, refusal, id_of)
    return first | second, first_cause or second_cause


def check_written(failed: Mapping[Id, str], total: int, cause: Exception | None = None) -> None:
    """Check that no object of a batch was rejected.

    Raises:
        PartialWriteError: names the rejected objects.
    """
    if failed:
        raise PartialWriteError(failed, total) from cause
