"""A search of a collection: a composed query, pictures to be like or unlike, a filter, and a limit.

The command line, the service and Python programs share this code:

    search = Search.read({"image": {"id": 17}, "text": "is red"}, unlike=[Path("a.jpg")], where="price<50")
    hits = find(search, collection, vectorizer).hits

`like` and `unlike` refine any query, whichever composer made its vector. The query's own composer turns each of their
pictures into a vector, as a query of that picture alone, so that all vectors are of one kind (CLIP's text vectors lie
apart from its picture vectors). Half the mean of the likes is added to the query's unit vector, half the mean of the
unlikes is subtracted, and the result is normalised. Without a query, the mean of the likes takes its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cir_vectorizer.collections import Ask, Collection, Hit, Id, Info, ModelRecord, Vector, check
from cir_vectorizer.collections.filter_notes import filter_notes, without_values
from cir_vectorizer.collections.stored import read_id, resolve_refs
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import MAX_REFERENCES, ComposedQuery, ImageRef, parse_pictures
from cir_vectorizer.query.filters import Filter, parse_column, parse_filter

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models.vectorizer import Vectorizer

LIKE_WEIGHT = UNLIKE_WEIGHT = 0.5
NEAREST = 100
"""Number of objects whose columns tell why a filter finds nothing."""
MAX_RESULTS = 10_000
"""Largest sum of `offset` and `limit`: Weaviate's limit."""


@dataclass(frozen=True)
class Search:
    """A search of a collection. `like` and `unlike` are pictures; `hybrid` also searches for the words of the text.

    Objects that any picture is named by are left out of the hits, unless `include_reference` is set; `resolved` notes
    their ids in `without`.

    Raises:
        QueryError: names the field at fault and the fix.
    """

    query: ComposedQuery | None = None
    like: tuple[ImageRef, ...] = ()
    unlike: tuple[ImageRef, ...] = ()
    where: Filter = ()
    limit: int = 10
    offset: int = 0
    hybrid: bool = False
    group_by: str | None = None
    include_reference: bool = False
    without: tuple[Id, ...] = ()

    def __post_init__(self) -> None:
        if self.query is None and not self.like:
            if self.unlike:
                raise QueryError("unlike", "says only what to avoid; add text, an image or like")
            raise QueryError("", "the search is empty; give at least text, an image or like")
        for field in ("like", "unlike"):
            if len(getattr(self, field)) > MAX_REFERENCES:
                raise QueryError(field, f"has more than {MAX_REFERENCES} pictures; give fewer")
        if self.limit < 1:
            raise QueryError("limit", "is below 1; ask for one result at least")
        if self.offset < 0:
            raise QueryError("offset", "is below 0; 0 begins with the nearest")
        if self.offset + self.limit > MAX_RESULTS:
            raise QueryError("offset", f"is, together with limit, over {MAX_RESULTS:,}; narrow the search by a filter")
        if self.group_by is not None:
            _check_column(self.group_by)
        if self.hybrid and self.words is None:
            raise QueryError("hybrid", "looks for the words of the text, and there is no text; add text or drop hybrid")

    @classmethod
    def read(
        cls,
        query: ComposedQuery | Mapping[str, Any] | str | None = None,
        like: Sequence[Any] = (),
        unlike: Sequence[Any] = (),
        where: str | None = None,
        **more: Any,
    ) -> "Search":
        """Return a search from user input: a query as `ComposedQuery.parse` reads it, pictures as `image` takes them,
        and a filter as text.

        Raises:
            QueryError: names the field at fault and the fix.
        """
        parsed = None if query is None else ComposedQuery.parse(query)
        conditions = () if where is None else parse_filter(where)
        return cls(
            parsed, parse_pictures(list(like), "like"), parse_pictures(list(unlike), "unlike"), conditions, **more
        )

    @property
    def words(self) -> str | None:
        """The query's text; None if it is empty."""
        text = (self.query.text or "").strip() if self.query else ""
        return text or None

    @property
    def ids(self) -> bool:
        """True if any picture is named by an object's id."""
        own = self.query.image if self.query else ()
        return any(ref.id is not None for ref in (*own, *self.like, *self.unlike))

    def resolved(self, collection: Collection, info: Info | None = None) -> "Search":
        """Return the same search with vectors in place of ids, which it leaves out of the hits; see `resolve_refs`."""
        if not self.ids:
            return self
        named = {f"image.{i}": ref for i, ref in enumerate(self.query.image)} if self.query else {}
        for field in ("like", "unlike"):
            named |= {f"{field}.{i}": ref for i, ref in enumerate(getattr(self, field))}
        found = resolve_refs(named, collection, info)

        def of(field: str) -> tuple[ImageRef, ...]:
            return tuple(ref for name, ref in found.items() if name.startswith(f"{field}."))

        query = self.query.model_copy(update={"image": of("image")}) if self.query else None
        ids = {read_id(ref.id, field): None for field, ref in named.items() if ref.id is not None}
        without = () if self.include_reference else tuple(ids)
        return replace(self, query=query, like=of("like"), unlike=of("unlike"), without=without)

    def parts(self, vectorizer: "Vectorizer | ServedModel") -> dict[str, ComposedQuery]:
        """Return the queries whose unit vectors `blend` takes, in that order, by the name of their field.

        Args:
            vectorizer: the model that will make the vectors; decides which composer each picture gets.
        """
        parts = {} if self.query is None else {"query": self.query}
        for field in ("like", "unlike"):
            for i, ref in enumerate(getattr(self, field)):
                parts[f"{field}.{i}"] = self._alone(ref, vectorizer)
        return parts

    def _alone(self, picture: ImageRef, vectorizer: "Vectorizer | ServedModel") -> ComposedQuery:
        """Return a query for one picture, by the composer of the search's own query if that takes pictures alone."""
        query = self.query
        if query is None or (query.plain and query.image):
            return ComposedQuery(image=(picture,))
        name = query.composer or vectorizer.default_composer
        takes = vectorizer.takes.get(name)  # an unknown composer is rejected together with the search's own query
        if takes is not None and not takes.picture_alone:
            return ComposedQuery(image=(picture,))
        options = query.options.model_copy(update={"weights": None, "keep": None, "source_weight": None})
        return ComposedQuery(image=(picture,), composer=name, options=options)

    def blend(self, vectors: Sequence[Vector]) -> Vector:
        """Return the vector to search with, (dim,) of length 1, from the vectors of `parts`.

        Raises:
            QueryError: the vectors cancel out.
        """
        own = vectors[: 0 if self.query is None else 1]
        like = vectors[len(own) : len(own) + len(self.like)]
        unlike = vectors[len(own) + len(self.like) :]
        if not like and not unlike:
            return own[0]
        total = np.zeros_like(vectors[0])
        for share, weight in ((own, 1.0), (like, LIKE_WEIGHT if own else 1.0), (unlike, -UNLIKE_WEIGHT)):
            if share:
                total += np.float32(weight) * np.mean(share, axis=0, dtype=np.float32)
        length = float(np.linalg.norm(total))
        if length < 1e-6:
            raise QueryError("unlike", "takes away all that is asked for; name other pictures")
        blended: Vector = total / np.float32(length)
        return blended

    def ask(self, collection: Collection, vector: Vector) -> list[Hit]:
        """Search a collection for a vector, with this search's filter, limit and grouping."""
        asked = Ask(
            self.limit,
            self.where,
            offset=self.offset,
            text=self.words if self.hybrid else None,
            group_by=self.group_by,
            without=self.without,
        )
        return collection.search(vector, asked)

    def doubts(self, collection: Collection, vector: Vector) -> list[str]:
        """Return why this search's filter or grouping may find nothing, as the objects nearest to a vector show."""
        if not self.where and self.group_by is None:
            return []
        payloads = [hit.payload for hit in collection.search(vector, Ask(NEAREST))]
        notes = filter_notes(self.where, payloads)
        if self.group_by is not None and (problem := without_values(parse_column(self.group_by), payloads)):
            notes.append(f"group_by: {problem}")
        return notes


@dataclass(frozen=True)
class Found:
    """Hits, nearest first; notes for the user; and the vector that was searched for, (dim,)."""

    hits: list[Hit]
    notes: list[str]
    vector: Vector


def find(search: Search, collection: Collection, vectorizer: "Vectorizer | ServedModel") -> Found:
    """Compose the query of a search and search a collection; ids name objects of that collection.

    Raises:
        QueryError: names the field at fault.
        ImageError: a picture is rejected.
        BackboneMismatch, CollectionError: as for `collections.check` and the collection's methods.
        ServiceError: the service of a served model does not answer.
    """
    info = check(collection, ModelRecord.of(vectorizer))
    resolved = search.resolved(collection, info)
    composed = vectorizer.compose(list(resolved.parts(vectorizer).values()))
    vector = resolved.blend(list(composed.vectors))
    hits = resolved.ask(collection, vector)
    doubts = [] if hits else resolved.doubts(collection, vector)
    return Found(hits, [note for notes in composed.notes for note in notes] + doubts, vector)


def _check_column(name: str) -> None:
    try:
        parse_column(name)
    except QueryError as error:
        raise QueryError("group_by", error.problem) from error
