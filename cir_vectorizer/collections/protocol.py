"""The protocol of a collection: the options to open and create one, the form of a search, and its methods."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.collections.records import Hit, Id, Info, Maker, ModelRecord, Payload, Point, SyncRecord, Vector
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import Filter

ANY_VECTOR = "*"
"""Value of `using` for who reads no vectors."""
LEAST_CANDIDATES, CANDIDATES_PER_HIT = 500, 50
LEAST_POOL, POOL_PER_HIT = 50, 5
LEAST_VARIED, VARIED_PER_HIT = 100, 10
MAX_RESULTS = 10_000
"""Largest sum of `offset` and `limit`, and largest number of candidates: Weaviate's limit."""


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a collection.

    `using` names one of an object's vectors; None means its only one, ANY_VECTOR whichever. `tenant` is a tenant of a Weaviate collection.
    `grpc` has Qdrant's client speak gRPC instead of REST (Weaviate needs both); `grpc_port` is the port for gRPC, None
    for the database's usual one. `picture_column` names the pictures of objects that sync did not write: a column with
    a URL or a path.
    """

    using: str | None = None
    tenant: str | None = None
    grpc: bool = False
    grpc_port: int | None = None
    picture_column: str | None = None


@dataclass(frozen=True)
class CreateOptions:
    """Options for creating a collection.

    `indexed` are columns (`a.b` for a nested one) that filters will often use. With `vectorize="server"` the server
    calls the container for each object that is written with a picture instead of a vector; `service_url` is the
    container's address as seen from the server, None for the one in the server's own configuration. With `text_columns`,
    objects have a second vector, `TEXT_VECTOR`, of the texts in these columns.
    """

    vector_on_disk: bool = False
    quantization: Literal["none", "scalar", "binary"] = "none"
    indexed: tuple[str, ...] = ()
    vectorize: Maker = "client"
    service_url: str | None = None
    text_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextShare:
    """The share of an object's text in its score: (1 − weight) · cosine to the picture + weight · cosine to the text.

    For an object without a text, slope · cosine to the picture + offset stands for the cosine to the text. CLIP's texts lie
    apart from its pictures, so slope and offset are those with which the cosines to pictures get the mean and the spread
    of the cosines to texts.
    """

    weight: float
    slope: float = 1.0
    offset: float = 0.0

    def stand_in(self, pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what stands for the cosines to missing texts, from the cosines to the pictures; any shape."""
        stand_in: npt.NDArray[Any] = self.slope * pictures + self.offset
        return stand_in

    def fused(self, cosines: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the scores, (…,), for cosines to picture and text, (…, 2); NaN for a missing text."""
        pictures, texts = cosines[..., 0], cosines[..., 1]
        texts = np.where(np.isnan(texts), self.stand_in(pictures), texts)
        scores: npt.NDArray[Any] = (1 - self.weight) * pictures + self.weight * texts
        return scores


@dataclass(frozen=True)
class Signal:
    """A vector, (dim,) of length 1, to compare objects with, and the vector of theirs that it is compared with."""

    vector: Vector
    of: Literal["picture", "text"] = "picture"


@dataclass(frozen=True)
class Candidates:
    """Candidates of a search, with their cosines to signals.

    Attributes:
        ids: each candidate once, in any order.
        cosines: (candidates, signals); NaN where an object has no such vector.
        payloads: payloads of some of them, which came in the same answer.
    """

    ids: Sequence[Id]
    cosines: npt.NDArray[np.float64]
    payloads: Mapping[Id, Payload] = field(default_factory=dict)


NOT_WITH_HYBRID = ("text_weight", "diversity", "min_score", "must_text")
NOT_WITH_DIVERSITY = ("text_weight", "negative_text", "must_text", "group_by")


def check_options(given: Container[str]) -> None:
    """Check that the options of a search go together.

    Args:
        given: names of the options that a search has.

    Raises:
        QueryError: two of them do not go together.
    """
    for name in NOT_WITH_HYBRID:
        if "hybrid" in given and name in given:
            raise QueryError(name, "needs scores, and hybrid fuses rankings without any; leave one of the two out")
    for name in NOT_WITH_DIVERSITY:
        if "diversity" in given and name in given:
            raise QueryError(
                "diversity", f"is chosen by the database, which knows nothing of {name}; leave one of the two out"
            )


def check_range(name: str, value: float, most: float) -> None:
    """Check that a number lies between 0 and `most`.

    Raises:
        QueryError: it does not.
    """
    if not 0 <= value <= most:
        wanted = "at least 0" if math.isinf(most) else f"from 0 to {most:g}"
        raise QueryError(name, f"is {value:g}, which is not {wanted}; correct it")


@dataclass(frozen=True)
class Ask:
    """The options of a search beside the query itself.

    Attributes:
        limit: largest number of hits.
        where: conditions that every hit meets.
        offset: number of hits to skip.
        text: keywords to search for too; the rankings by vector and by keywords are fused.
        group_by: a column, written as in a filter: return the best object for each of its values, and no object
            without that column.
        exact: compare with every object instead of using the index.
        model: model that composes a ComposedQuery, as the container lists it; None for the model that the collection
            was created for. Weaviate ignores this: there the container's address selects the model.
        without: ids of objects to leave out.
        texts: also compare the query with the texts of objects, with this share; hits then have the signals `picture` and
            `text`. Only for a vector, without keywords.
        diversity: from 0 to 1; above 0, the database picks hits that differ from each other (maximal marginal relevance
            by the pictures' vectors). Only for a vector, without keywords, texts and grouping.

    Raises:
        QueryError: two options do not go together.
    """

    limit: int = 10
    where: Filter = ()
    offset: int = 0
    text: str | None = None
    group_by: str | None = None
    exact: bool = False
    model: str | None = None
    without: tuple[Id, ...] = ()
    texts: TextShare | None = None
    diversity: float = 0.0

    def __post_init__(self) -> None:
        options = {
            "hybrid": self.text is not None,
            "text_weight": self.texts is not None,
            "diversity": self.diversity > 0,
            "group_by": self.group_by is not None,
        }
        check_options([name for name, given in options.items() if given])

    @property
    def candidates(self) -> int:
        """Number of candidates that a second score re-scores, from each ranking."""
        return min(MAX_RESULTS, max(LEAST_CANDIDATES, CANDIDATES_PER_HIT * self.limit, self.offset + self.limit))

    @property
    def pool(self) -> int:
        """Number of objects from which a fused or a diverse search picks its hits, from each ranking.

        Fewer than `candidates`, because the two rankings of a fused search agree by and large: an object far down in both
        is not among the first in their sum.
        """
        if self.group_by is not None:
            return self.candidates
        least, per_hit = (LEAST_VARIED, VARIED_PER_HIT) if self.diversity else (LEAST_POOL, POOL_PER_HIT)
        return min(MAX_RESULTS, max(least, per_hit * (self.offset + self.limit)))


class Collection(Protocol):
    """A collection of a vector database: one vector of the model's width and a JSON payload for each id.

    Opening one does not connect; the first call does. Any thread may call, but only one at a time.
    Methods retry while the server is busy or restarting, then raise.

    Every method raises CollectionError with cause and remedy: the database cannot be reached, refuses, is locked or
    full, or (except for `info`, `create` and `drop`) the collection does not exist.
    """

    @property
    def address(self) -> Address:
        """The collection's address."""

    @property
    def options(self) -> OpenOptions:
        """The options it was opened with."""

    def info(self) -> Info | None:
        """Return the collection's state; None if the collection (or the tenant) does not exist. Creates nothing."""

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        """Create the collection, with cosine distance over vectors of `model.dim` numbers, and note the model in it.

        Does nothing if the collection exists, so two processes may call it at once.
        """

    def remember(self, model: ModelRecord) -> None:
        """Note another model, if the database can keep a note; objects are not changed."""

    def adopt(self, model: ModelRecord, picture_column: str) -> None:
        """Note the model in a collection that another program made, if the database can keep a note.

        Args:
            picture_column: the column that names an object's picture.
        """

    def add_texts(self, columns: Sequence[str]) -> None:
        """Note the columns of which `TEXT_VECTOR` is made, and add that vector if the collection has none yet.

        Raises:
            CollectionError: the server is too old to add a vector, or the collection can have none beside its own.
        """

    def about_texts(self) -> str:
        """Return a sentence about what clients of other programs must pass once objects have `TEXT_VECTOR`.

        Raises:
            CollectionError: the collection can have no such vector beside its own.
        """

    def weigh_texts(self, weight: float | None) -> None:
        """Note the weight of `TEXT_VECTOR` in searches, from 0 to 1; None if it is not chosen."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write objects, replacing those with the same ids; on return they survive a crash of this process.

        Raises:
            PartialWriteError: names the objects that the database rejected; all others were written.
        """

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        """Return the sync records of objects by id; objects without one are left out. Reads no vectors or columns."""

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        """Yield every object's id and sync record, in any order; reads page by page, no vectors and no columns."""

    def get(self, ids: Sequence[Id]) -> list[Point]:
        """Return the objects with these ids that exist, in any order; vectors have length 1, pictures are left out."""

    def payloads(self, ids: Sequence[Id]) -> dict[Id, Payload]:
        """Return the payloads of the objects with these ids that exist; reads no vectors."""

    def pictures(self, ids: Sequence[Id], column: str) -> dict[Id, str]:
        """Return the pictures, in base64, that objects hold in a column of `Info.pictures`; others are left out."""

    def search(self, query: Vector | ComposedQuery, ask: Ask = Ask()) -> list[Hit]:
        """Return the nearest objects that meet every condition, nearest first.

        Args:
            query: a vector, (dim,) float32; or a composed query, which the database's server passes to the container.

        Raises:
            CollectionError: for a composed query: this collection has no container, or the container rejected the
                query; says how to fix it.
            QueryError: the database cannot filter or group by a column.
        """

    def score(
        self, rankings: Sequence[Signal], signals: Sequence[Signal], ask: Ask, candidates: int, shown: int = 0
    ) -> Candidates:
        """Return the candidates of a search, which are the nearest objects of each ranking, with their cosines.

        Args:
            rankings: signals by which candidates are found.
            signals: signals to compare every candidate with, whichever ranking found it.
            ask: its `where`, `without` and `exact` apply; the rest is ignored.
            candidates: number of objects to take from each ranking.
            shown: if above 0, only this number of the best by `ask.texts` will be shown, and the signals are the query by
                picture and by text. Their payloads come along where this takes no more requests.
        """

    def sample(self, count: int) -> list[Point]:
        """Return some objects, at most `count`, with both vectors and an empty payload; the same ones at each call."""

    def replace_payload(self, payloads: Mapping[Id, Payload], texts: Mapping[Id, Vector | None] = {}) -> None:
        """Replace the whole payload of objects by id; vectors and pictures stay.

        Ids that do not exist are skipped.

        Args:
            texts: new vectors of the objects' texts, written before the payloads; None removes the old one.

        Raises:
            PartialWriteError: as for `upsert`.
        """

    def merge(self, points: Sequence[Point]) -> None:
        """Replace the vector (unless it is None) and the given columns of existing objects; the rest of them stays.

        Raises:
            PartialWriteError: as for `upsert`.
        """

    def delete(self, ids: Sequence[Id]) -> None:
        """Remove objects; ids that do not exist are skipped."""

    def count(self) -> int:
        """Return the number of objects."""

    def beside(self, name: str, options: OpenOptions | None = None) -> "Collection":
        """Open another collection of the same server or directory, with the same options if none are given.

        It shares this collection's connection, so closing this one closes it too.
        """

    def twin(self, name: str) -> "Collection":
        """Open another collection as `beside`, for embedding anew the objects of one that holds pictures itself.

        Its `create` gives it this collection's schema, and its `merge` adds objects of this collection, with all that they
        hold there. For collections without `Info.pictures` it is the same as `beside`.
        """

    def take_over(self, other: "Collection") -> None:
        """Replace this collection by `other`, which `beside` opened.

        This collection's name becomes an alias of the other one, and the old collection is removed. If the name was
        already an alias or unused, readers see the old or the new collection at any moment; otherwise the name is
        missing for a moment.
        """

    def drop(self) -> None:
        """Remove the collection (with a tenant: only that tenant); no error if it does not exist."""

    def close(self) -> None:
        """Close connections and release locks; safe to call twice."""
