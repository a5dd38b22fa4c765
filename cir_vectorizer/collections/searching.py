"""A search of a collection: a composed query, pictures to be like or unlike, a filter, and a limit.

The command line, the service and Python programs share this code:

    search = Search.read({"image": {"id": 17}, "text": "is red"}, unlike=[Path("a.jpg")], where="price<50")
    hits = find(search, collection, vectorizer).hits

`like` and `unlike` refine any query, whichever composer made its vector. The query's own composer turns each of their
pictures into a vector, as a query of that picture alone, so that all vectors are of one kind (CLIP's text vectors lie
apart from its picture vectors). Half the mean of the likes is added to the query's unit vector, half the mean of the
unlikes is subtracted, and the result is normalised. Without a query, the mean of the likes takes its place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cir_vectorizer.collections import Ask, Collection, Hit, Id, Info, ModelRecord, Vector, check
from cir_vectorizer.collections.filter_notes import filter_notes, without_values
from cir_vectorizer.collections.protocol import MAX_RESULTS, check_options, check_range
from cir_vectorizer.collections.records import groups_of
from cir_vectorizer.collections.rescoring import STRENGTH, TEXT_WEIGHT, Background, Words, rescored
from cir_vectorizer.collections.stored import read_id, resolve_refs
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import MAX_REFERENCES, ComposedQuery, ImageRef, parse_pictures
from cir_vectorizer.query.filters import Condition, Filter, Value, parse_column, parse_filter

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models.vectorizer import Vectorizer

LIKE_WEIGHT = UNLIKE_WEIGHT = 0.5
NEAREST = 100
"""Number of objects whose columns tell why a filter finds nothing."""
MAX_STRENGTH = 10.0
MAX_GROUP_SIZE = 10
MEMBERS_PER_SHOWN = 4
"""Objects of groups that are read for each one that is shown beside the best: groups differ in size."""


@dataclass(frozen=True)
class Search:
    """A search of a collection. `like` and `unlike` are pictures; `hybrid` also searches for the words of the text.

    `text_weight` is the weight of objects' texts beside their pictures, from 0 to 1; None takes the collection's own.
    `strength` is the exponent of the second score, by the words of `negative_text` and `must_text`; with 0, only the
    composer reads them. `diversity`, from 0 to 1, makes hits differ from each other. `min_score` is the least standard score
    of a hit; see `cir_vectorizer.collections.rescoring`. `exact` compares with every object instead of using the index.
    `group_by` finds the best object for each value of a column; with `group_size`, the next ones of its group are its `others`.

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
    group_size: int = 1
    include_reference: bool = False
    without: tuple[Id, ...] = ()
    text_weight: float | None = None
    strength: float = STRENGTH
    diversity: float = 0.0
    min_score: float | None = None
    exact: bool = False

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
        if not 1 <= self.group_size <= MAX_GROUP_SIZE:
            raise QueryError("group_size", f"is not from 1 to {MAX_GROUP_SIZE}; correct it")
        if self.group_size > 1 and self.group_by is None:
            raise QueryError("group_size", "is for groups; add group_by or leave it out")
        if self.hybrid and self.words is None:
            raise QueryError("hybrid", "looks for the words of the text, and there is no text; add text or drop hybrid")
        self._check_scores()

    def _check_scores(self) -> None:
        for field, most in (("text_weight", 1.0), ("strength", MAX_STRENGTH), ("diversity", 1.0)):
            value = getattr(self, field)
            if value is not None:
                check_range(field, value, most)
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise QueryError("min_score", "is no finite number; correct it")
        options = {
            "hybrid": self.hybrid,
            "text_weight": bool(self.text_weight),
            "diversity": self.diversity > 0,
            "min_score": self.min_score is not None,
            "negative_text": self._second and self.query is not None and bool(self.query.unwanted),
            "must_text": self.query is not None and bool(self.query.wanted),
            "group_by": self.group_by is not None,
        }
        check_options([name for name, given in options.items() if given])

    @property
    def _second(self) -> bool:
        """True if the words of `negative_text` and `must_text` score the candidates again."""
        return self.strength > 0 and not self.hybrid

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
        parts = {} if self.query is None else {"query": self._composable(self.query, vectorizer)}
        for field in ("like", "unlike"):
            for i, ref in enumerate(getattr(self, field)):
                parts[f"{field}.{i}"] = self._alone(ref, vectorizer)
        plain = "text" if "text" in vectorizer.takes else None  # named, since a served model's name may name another
        for field, texts in (("negative_text", self._unwanted), ("must_text", self._wanted)):
            for i, text in enumerate(texts):
                parts[f"{field}.{i}"] = ComposedQuery(text=text, composer=plain)
        return parts

    @property
    def _unwanted(self) -> tuple[str, ...]:
        return self.query.unwanted if self.query is not None and self._second else ()

    @property
    def _wanted(self) -> tuple[str, ...]:
        return self.query.wanted if self.query is not None and self._second else ()

    def _composable(self, query: ComposedQuery, vectorizer: "Vectorizer | ServedModel") -> ComposedQuery:
        """Return the query without the words that score the candidates and that its composer does not read."""
        takes = vectorizer.takes.get(query.composer or vectorizer.default_composer)
        unread = bool(self._unwanted) and takes is not None and not takes.reads("negative_text")
        # one text, so that a served model of an earlier release reads it
        negative = None if unread else query.negative or None
        return query.model_copy(update={"must_text": None, "negative_text": negative})

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
        unlike = vectors[len(own) + len(self.like) : self._blended]
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

    @property
    def _blended(self) -> int:
        """Number of vectors that `blend` takes; those of words follow."""
        return (self.query is not None) + len(self.like) + len(self.unlike)

    def texts_weigh(self, info: Info) -> float:
        """Return the weight of objects' texts in this search.

        Raises:
            QueryError: the search asks for texts, and the collection has none.
        """
        if self.text_weight and not info.text_columns:
            raise QueryError(
                "text_weight",
                "is for collections with texts, and this one has none; run cir-vectorizer sync with --text-column, or leave "
                "it out",
            )
        if self.text_weight is not None:
            return self.text_weight
        return 0.0 if self.hybrid or self.diversity else weight_of_texts(info)

    def run(self, collection: Collection, vectors: Sequence[Vector], info: Info) -> list[Hit]:
        """Search a collection.

        Args:
            vectors: the vectors of `parts`.
            info: the collection's state.
        """
        hits = self._run(collection, vectors, info)
        return hits if self.group_size == 1 or not hits else self._with_others(hits, collection, vectors, info)

    def _with_others(
        self, hits: Sequence[Hit], collection: Collection, vectors: Sequence[Vector], info: Info
    ) -> list[Hit]:
        """Return the best hits of groups with the next ones of each group, which one more search finds."""
        assert self.group_by is not None
        column = parse_column(self.group_by)
        groups = {group: None for hit in hits for group in groups_of(hit, column)}
        values = tuple(Value(str(value), value if isinstance(value, int) else None) for _, value in groups)
        most = min(MAX_RESULTS, MEMBERS_PER_SHOWN * self.group_size * len(hits))
        where = (*self.where, Condition(column, "in", values))
        members = replace(self, where=where, group_by=None, group_size=1, limit=most, offset=0)
        found = members._run(collection, vectors, info)

        places: dict[tuple[type, str | int], list[int]] = {}
        for place, member in enumerate(found):
            for group in groups_of(member, column):
                places.setdefault(group, []).append(place)

        def others(hit: Hit) -> tuple[Hit, ...]:
            own = sorted({place for group in groups_of(hit, column) for place in places.get(group, ())})
            same = (found[place] for place in own if found[place].id != hit.id)
            return tuple(islice(same, self.group_size - 1))

        return [replace(hit, others=others(hit)) for hit in hits]

    def _run(self, collection: Collection, vectors: Sequence[Vector], info: Info) -> list[Hit]:
        vector, weight = self.blend(vectors), self.texts_weigh(info)
        unwanted = len(self._unwanted)
        said = tuple(vectors[self._blended :])
        words = Words(said[:unwanted], said[unwanted:], self.strength)
        background = (
            Background.of(collection, len(vector), weight > 0) if weight or self.min_score is not None else None
        )
        asked = Ask(
            self.limit,
            self.where,
            offset=self.offset,
            text=self.words if self.hybrid else None,
            group_by=self.group_by,
            without=self.without,
            texts=background.share(vector, weight) if background is not None and weight else None,
            diversity=self.diversity,
            exact=self.exact,
        )
        least = -math.inf
        if background is not None and self.min_score is not None:
            mean, spread = background.usual(vector, weight)
            least = mean + self.min_score * spread if spread else -math.inf  # then no object stands out
        if words:
            return rescored(collection, vector, words, asked, least)
        hits = [hit for hit in collection.search(vector, asked) if hit.score >= least]
        return hits if self.hybrid or weight else [replace(hit, signals={"picture": hit.score}) for hit in hits]

    def notes(self, parts: Sequence[str], composed: Sequence[Sequence[str]]) -> list[str]:
        """Return the notes of the composer, with the names of the words that are texts of their own.

        Args:
            parts: names of `parts`.
            composed: notes for each of them.
        """
        notes = []
        for at, (part, said) in enumerate(zip(parts, composed, strict=True)):
            notes += [f"{part}{note.removeprefix('text')}" if at >= self._blended else note for note in said]
        return notes

    def unheard(self, info: Info) -> list[str]:
        """Return notes about parts of the search that its other options leave without effect."""
        notes = []
        if not self.strength and self.query is not None and self.query.wanted:
            notes.append("with strength 0, must_text changes nothing")
        if self.hybrid and self.query is not None and self.query.unwanted:
            notes.append("with hybrid, negative_text changes the query alone and does not score the results again")
        if weight_of_texts(info) and self.text_weight is None and (self.hybrid or self.diversity):
            option = "hybrid" if self.hybrid else "diversity"
            notes.append(f"with {option}, the vectors of the texts do not score the results; their pictures alone do")
        return notes

    def doubts(self, collection: Collection, vector: Vector, info: Info) -> list[str]:
        """Return why this search may find nothing, as the objects nearest to a vector show."""
        notes = []
        if self.where or self.group_by is not None:
            payloads = [hit.payload for hit in collection.search(vector, Ask(NEAREST))]
            notes += filter_notes(self.where, payloads)
            if self.group_by is not None and (problem := without_values(parse_column(self.group_by), payloads)):
                notes.append(f"group_by: {problem}")
        if self.min_score is not None:
            weight = self.texts_weigh(info)
            background = Background.of(collection, len(vector), weight > 0)
            texts = background.share(vector, weight) if weight else None
            nearest = collection.search(vector, Ask(1, self.where, without=self.without, texts=texts))
            mean, spread = background.usual(vector, weight)
            if nearest and spread and (nearest[0].score - mean) / spread < self.min_score:
                standard = (nearest[0].score - mean) / spread
                notes.append(
                    f"min_score: the nearest object has {standard:.2f}, and {self.min_score:g} is asked for; lower it"
                )
        return notes


def weight_of_texts(info: Info) -> float:
    """Return the weight of objects' texts in searches of a collection that name none; 0 if it has no texts."""
    if not info.text_columns:
        return 0.0
    return TEXT_WEIGHT if info.text_weight is None else info.text_weight


@dataclass(frozen=True)
class Found(Sequence[Hit]):
    """Hits, nearest first, as a sequence; notes for the user; and the vector that was searched for, (dim,)."""

    hits: list[Hit]
    notes: list[str]
    vector: Vector

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> list[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | list[Hit]:
        return self.hits[at]


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
    resolved.texts_weigh(info)  # refuses before anything is composed
    parts = resolved.parts(vectorizer)
    composed = vectorizer.compose(list(parts.values()))
    vectors = list(composed.vectors)
    vector = resolved.blend(vectors)
    hits = resolved.run(collection, vectors, info)
    doubts = [] if hits else resolved.doubts(collection, vector, info)
    notes = resolved.notes(list(parts), composed.notes) + resolved.unheard(info) + doubts
    notes += info.precision_notes(vectorizer.precision)
    return Found(hits, notes, vector)


def _check_column(name: str) -> None:
    try:
        parse_column(name)
    except QueryError as error:
        raise QueryError("group_by", error.problem) from error
