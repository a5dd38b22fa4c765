"""A search of a collection, taken apart: what the composer made of the pictures, and how picture and words share in the ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cir_vectorizer.collections import Collection, Hit, Id, ModelRecord, check
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery

if TYPE_CHECKING:
    from cir_vectorizer.engine.explain import Part
    from cir_vectorizer.models import Vectorizer

PICTURE, WORDS, BOTH = "picture alone", "words alone", "both"
DEEP = 1000
"""Number of first results of a ranking that have a place."""


@dataclass(frozen=True)
class Explained:
    """A search, taken apart.

    Attributes:
        composer: its name; "" if the query is a picture or a text alone.
        pictures: for each picture the words nearest to what the composer made of it, with their cosines; empty if it makes no
            words of pictures.
        moves: parts of the query, and how far each moves its vector: 1 less the cosine to the vector without it.
        rankings: the first results by name: of the search itself (`BOTH`), and, if the query has pictures and words, of plain
            CLIP's searches for each of the two.
        ranks: by name of a ranking, the places of its first `DEEP` results, from 1. If words that results must or must not show
            score them again, the search itself has places for its first results alone.
        notes: for the user.
    """

    composer: str
    pictures: Sequence[Sequence[tuple[str, float]]]
    moves: Sequence[tuple[str, float]]
    rankings: Mapping[str, Sequence[Hit]]
    ranks: Mapping[str, Mapping[Id, int]]
    notes: Sequence[str]


def explain(search: Search, collection: Collection, vectorizer: "Vectorizer", words: int) -> Explained:
    """Run a search and take it apart.

    Args:
        search: without `like` and `unlike`.
        words: largest number of words for each picture.

    Raises:
        QueryError, ImageError, BackboneMismatch, CollectionError: as `find`.
    """
    from cir_vectorizer.engine.explain import moved, works_of_parts

    info = check(collection, ModelRecord.of(vectorizer))
    resolved = search.resolved(collection, info)
    found = find(resolved, collection, vectorizer)
    query = resolved.query
    if query is None:
        raise QueryError("", "the query is empty; give at least image or text")
    composed = query.model_copy(update={"must_text": None})  # scores the results and moves no vector
    works, parts = works_of_parts(vectorizer, composed, allow_paths=True)
    whole, *others = vectorizer.run(works)
    rankings: dict[str, Sequence[Hit]] = {}
    ranks: dict[str, dict[Id, int]] = {}
    alone = _alone(composed, vectorizer)
    for name, asked in alone.items():
        hits = find(replace(resolved, query=asked, limit=DEEP), collection, vectorizer).hits
        rankings[name], ranks[name] = hits[: search.limit], _places(hits)
    rankings[BOTH] = found.hits
    deep = alone and not (query.unwanted or query.wanted)  # else more results would mean other candidates
    ranks[BOTH] = _places(find(replace(resolved, limit=DEEP), collection, vectorizer).hits if deep else found.hits)
    return Explained(
        works[0].composer_name or "",
        vectorizer.nearest_words(works[0], words),
        [(_name(part, query), moved(whole, other)) for part, other in zip(parts, others, strict=True)],
        rankings,
        ranks,
        found.notes,
    )


def picture_name(number: int, pictures: int) -> str:
    """Return the name of a query's picture, counted from 0."""
    return "the picture" if pictures == 1 else f"picture {number + 1}"


def _name(part: "Part", query: ComposedQuery) -> str:
    if part.field == "text":
        return f"“{part.word}”"
    if part.field == "negative_text":
        return f"not “{part.word or query.negative}”"
    return picture_name(int(part.field.removeprefix("image.")), len(query.image))


def _places(hits: Sequence[Hit]) -> dict[Id, int]:
    return {hit.id: place for place, hit in enumerate(hits, start=1)}


def _alone(query: ComposedQuery, vectorizer: "Vectorizer") -> dict[str, ComposedQuery]:
    """Return plain CLIP's queries for the pictures and for the words, if the query has both."""
    if not query.image or not (query.text or "").strip():
        return {}
    return {
        name: alone
        for name, alone in (
            (PICTURE, ComposedQuery(image=query.image, composer="image")),
            (WORDS, ComposedQuery(text=query.text, composer="text")),
        )
        if alone.composer in vectorizer.takes
    }
