"""Judge composers by a customer's own judged queries, on a collection of any database.

Each query is searched for as `search` does it: the model composes a vector, the collection is asked for its nearest objects,
and texts and words that results must or must not show score them again. The objects that are the query's own pictures are taken out of its results. A query that one of the
composers refuses is left out for all of them, so that all rows are figures of the same queries.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import (
    RECORD_KEY,
    Ask,
    Collection,
    Hit,
    Id,
    Info,
    ModelRecord,
    SyncRecord,
    Vector,
    check,
    values_at,
)
from cir_vectorizer.collections.rescoring import STRENGTH
from cir_vectorizer.collections.searching import Search
from cir_vectorizer.collections.stored import read_id, resolve
from cir_vectorizer.errors import ImageError, QueryError, SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.judged.reading import JudgedQuery, Key, known_only
from cir_vectorizer.evaluate.metrics import Values
from cir_vectorizer.evaluate.report import Comparison, Example, Report, Row, Shown
from cir_vectorizer.identity import id_text
from cir_vectorizer.query import ComposedQuery, ImageRef
from cir_vectorizer.query.filters import Condition, bare_value, parse_column

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

DEFAULT = "default"
"""Name of the row for which each query runs as it is written, with its own composer or the model's default."""
WORDING = "wording range"
_BATCH = 100
_SHOWN_QUERIES, _SHOWN_RESULTS, _NAMED, _SAMPLES = 5, 6, 5, 4
_OF_PARTS = ("NDCG@10", "mAP@10", "R@10", "NegRecall@10")
_CURVE = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Searching:
    """Settings of the searches.

    Attributes:
        limit: results of each query that are looked at.
        exact: compare with every object instead of using the index.
        id_column: the column whose values are ids in the judgments; of objects with the same value the best one counts.
            None if they are the collection's own ids.
        text_weight, strength: as for `Search`.
    """

    limit: int = 50
    exact: bool = True
    id_column: str | None = None
    text_weight: float | None = None
    strength: float = STRENGTH

    def search(self, query: ComposedQuery, more: int = 0) -> Search:
        """Return the search for a query; `more` results than the limit are looked at."""
        return Search(
            query,
            limit=self.limit + more,
            group_by=self.id_column,
            text_weight=self.text_weight,
            strength=self.strength,
            exact=self.exact,
        )

    @property
    def column(self) -> tuple[str, ...] | None:
        """Path of keys of the id column."""
        return None if self.id_column is None else parse_column(self.id_column)

    def key(self, hit: Hit) -> Key:
        """Return the key that judgments have for an object."""
        return id_text(hit.id).lower() if self.column is None else id_text(values_at(hit.payload, self.column)[0])


@dataclass(frozen=True)
class _Contender:
    """A model with one of its composers; None runs each query as it is written."""

    name: str
    model: str
    vectorizer: "Vectorizer"
    composer: str | None


@dataclass(frozen=True)
class _Found:
    """The results of a query.

    Attributes:
        results: keys of the objects found, by row name, nearest first.
        first: the first results to show, by key.
        seconds: time for composing the query, by row name.
    """

    query: JudgedQuery
    results: Mapping[str, Sequence[Key]]
    first: Mapping[Key, Shown]
    seconds: Mapping[str, float]


def judge(
    queries: Sequence[JudgedQuery],
    collection: Collection,
    models: Mapping[str, "Vectorizer"],
    composers: Sequence[str] = (),
    searching: Searching = Searching(),
    title: str = "Judged queries",
    problems: Sequence[str] = (),
    note: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Search for judged queries and score what is found.

    Args:
        models: by name; all over the backbone that filled the collection.
        composers: by name; each one makes a row for each model. If there are none, a model's one row runs each query as
            it is written.
        problems: sentences about queries that could not be read.
        note: called with a sentence for each query that is left out.
        progress: called with the numbers of queries done and of all queries.

    Raises:
        SourceError: no query is left to be judged.
        QueryError: a model has no composer of this name.
        BackboneMismatch, CollectionError: as for `collections.check` and the collection's methods.
    """
    contenders = _contenders(models, composers)
    infos = [check(collection, ModelRecord.of(each.vectorizer)) for each in contenders]
    asked = frozenset().union(*(each.keys for each in queries))
    objects = _objects(asked, collection, contenders[0].vectorizer.dim, searching)
    if not objects:
        _check_column(searching, collection, contenders[0].vectorizer.dim)
    kept, lost = known_only(queries, frozenset(objects))
    left_out: list[str] = []

    def leave_out(problem: str) -> None:
        left_out.append(problem)
        if note is not None:
            note(problem)

    for problem in [*problems, *lost]:
        leave_out(problem)
    found = []
    for done, each in enumerate(kept, start=1):
        try:
            found.append(_search(each, objects, collection, infos[0], contenders, searching))
        except (QueryError, ImageError) as error:
            leave_out(f"{each.place}: {error}")
        if progress is not None:
            progress(done, len(kept))
    if not found:
        raise SourceError(f"no query is left to be judged: {left_out[0]}")
    unknown = sorted(asked - objects.keys())
    return _report(found, objects, collection, infos[0], contenders, searching, title, left_out, unknown)


def _objects(keys: frozenset[Key], collection: Collection, dim: int, searching: Searching) -> dict[Key, Id]:
    """Return the ids of the objects that the collection has, by their keys."""
    found: dict[Key, Id] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        if searching.column is None:
            points = collection.get([read_id(key, "id") for key in batch])
            found |= {id_text(point.id).lower(): point.id for point in points}
            continue
        held = Condition(searching.column, "in", tuple(bare_value(key) for key in batch))
        ask = Ask(2 * len(batch), (held,), group_by=searching.id_column, exact=searching.exact)  # 7 and "7" are two
        found |= {searching.key(hit): hit.id for hit in collection.search(_anywhere(dim), ask)}
    return {key: found[key] for key in ordered if key in found}


def _check_column(searching: Searching, collection: Collection, dim: int) -> None:
    """Check that some objects have a value in the id column, if there is one.

    Raises:
        SourceError: none of those looked at has a value.
    """
    if searching.column is None:
        return
    payloads = [hit.payload for hit in collection.search(_anywhere(dim), Ask(_BATCH))]
    if all(values_at(payload, searching.column) == [None] for payload in payloads):
        columns = sorted({name for payload in payloads for name in payload} - {RECORD_KEY})
        raise SourceError(
            f"no object of {collection.address} that was looked at ({len(payloads)}) has a value in column "
            f"{searching.id_column!r}; give --id-column one of these: {', '.join(columns) or 'none'}"
        )


def _anywhere(dim: int) -> Vector:
    vector = np.zeros(dim, dtype=np.float32)
    vector[0] = 1
    return vector


def _search(
    judged: JudgedQuery,
    objects: Mapping[Key, Id],
    collection: Collection,
    info: Info,
    contenders: Sequence[_Contender],
    searching: Searching,
) -> _Found:
    """Search for a query with each composer.

    Raises:
        QueryError, ImageError: a composer refuses the query.
    """
    refs = [ref if ref.id is None else ImageRef(id=objects[str(ref.id)]) for ref in judged.query.image]
    query = resolve(judged.query.model_copy(update={"image": tuple(refs)}), collection, info)
    results, shown, seconds = {}, {}, {}
    for each in contenders:
        asked = query if each.composer is None else query.model_copy(update={"composer": each.composer})
        search = searching.search(asked, len(judged.references))
        started = perf_counter()
        try:
            composed = each.vectorizer.compose(list(search.parts(each.vectorizer).values()))
        except QueryError as error:
            raise error.at("", f"for {each.name}, ") from error
        seconds[each.name] = perf_counter() - started
        hits = {searching.key(hit): hit for hit in search.run(collection, list(composed.vectors), info)}
        results[each.name] = [key for key in hits if key not in judged.references][: searching.limit]
        for key in results[each.name][:_SHOWN_RESULTS]:
            record = SyncRecord.read(hits[key].payload)
            path = "" if record is None else record.path
            caption = (Path(path).name if searching.id_column is None else "") or key
            shown[key] = Shown(
                path, f"{caption}, unwanted" if key in judged.unwanted else caption, key in judged.relevant
            )
    return _Found(judged, results, shown, seconds)


def _report(
    found: Sequence[_Found],
    objects: Mapping[Key, Id],
    collection: Collection,
    info: Info,
    contenders: Sequence[_Contender],
    searching: Searching,
    title: str,
    left_out: Sequence[str],
    unknown: Sequence[Key],
) -> Report:
    values = {each.name: _values(found, each.name) for each in contenders}
    rows = [_row(found, each) for each in contenders]
    shown = _examples(found, values[rows[0].name]["NDCG@10"], collection, objects)
    return Report(
        title=title,
        summary=_summary(rows, len(found), left_out, unknown),
        choices=[
            ("collection", str(collection.address)),
            ("backbone", f"fingerprint {contenders[0].vectorizer.fingerprint[:12]}"),
            ("search", "compared with every object" if searching.exact else "through the collection's index"),
            *_second_scores(found, info, searching),
            ("results looked at", f"the first {searching.limit}"),
            ("ids", f"values of column {searching.id_column}" if searching.id_column else "the collection's own"),
            ("objects that are a query's own pictures", "left out of its results"),
            ("R@k", "share of queries with a relevant object among the first k"),
            ("recall@k", "share of a query's relevant objects among the first k"),
            ("mAP@10", "Σ precision@i · rel(i) / min(10, relevant objects)"),
            ("NDCG@10", "gain / log2(rank + 1), as a share of the ideal order's"),
            (
                "NegRecall@10",
                "unwanted objects among the first 10 / min(10, unwanted objects), of queries that have some",
            ),
            (WORDING, "largest less smallest NDCG@10 of the wordings of one wish, of groups with two or more"),
        ],
        rows=rows,
        queries=len(found),
        gallery=collection.count(),
        comparisons=[
            Comparison(row, other, metrics.differences(values[row], values[other])) for row, other in _pairs(contenders)
        ],
        lower_is_better=("NegRecall@10", WORDING),
        examples=[each for each in shown if each.verdict != "first"],
        samples=[each for each in shown if each.verdict == "first"],
    )


def _second_scores(found: Sequence[_Found], info: Info, searching: Searching) -> Iterator[tuple[str, str]]:
    """Yield the settings of the scores beside the picture's, where there are any."""
    queries = [each.query.query for each in found]
    if info.text_columns:
        yield "weight of the objects' texts", f"{searching.search(queries[0]).texts_weigh(info):g}"
    if any(query.unwanted or query.wanted for query in queries):
        yield "words that results must or must not show", f"score them again, with strength {searching.strength:g}"


def _contenders(models: Mapping[str, "Vectorizer"], composers: Sequence[str]) -> list[_Contender]:
    found = []
    for model, vectorizer in models.items():
        for composer in dict.fromkeys(composers) or (None,):
            if composer is not None:
                vectorizer.composer(composer)
            shown = composer or DEFAULT
            name = shown if len(models) == 1 else f"{model}: {shown}"
            found.append(_Contender(name, model, vectorizer, composer))
    return found


def _pairs(contenders: Sequence[_Contender]) -> Iterator[tuple[str, str]]:
    """Yield each row after the first with the first one, and with the same composer of the first model."""
    first = contenders[0]
    for each in contenders[1:]:
        yield each.name, first.name
        before = next(other for other in contenders if other.composer == each.composer)
        if before not in (first, each):
            yield each.name, before.name


def _row(found: Sequence[_Found], contender: _Contender) -> Row:
    name, composer, defaults = contender.name, contender.composer, contender.vectorizer.defaults
    settings: dict[str, Any] = {"model": contender.model, "composer": composer or "as the query says"}
    if options := {each: defaults[each].to_json() for each in defaults if composer in (None, each)}:
        settings["options from the model folder"] = options
    right, totals = _gains(found, name) > 0, _relevant(found)
    kinds = dict.fromkeys(each.query.kind for each in found)
    parts = {}
    for kind in kinds:
        values = _values([each for each in found if each.query.kind == kind], name)
        parts[kind] = metrics.estimates({figure: values[figure] for figure in _OF_PARTS if figure in values})
    ks = [k for k in _CURVE if k <= right.shape[1]]
    seconds = [each.seconds[name] for each in found]
    return Row(
        name=name,
        settings=settings,
        figures=metrics.estimates(_values(found, name)),
        parts={"kind of query": parts} if len(kinds) > 1 else {},
        curves={
            "R": [(k, float(np.mean(metrics.hits(right, k)))) for k in ks],
            "recall": [(k, float(np.mean(metrics.recall(right, k, totals)))) for k in ks],
        },
        milliseconds=1000 * float(np.mean(seconds[1:] or seconds)),  # the first query waits for the model's start
    )


def _values(found: Sequence[_Found], name: str) -> dict[str, Values]:
    """Return a row's values by figure: one for each query, for each query with unwanted objects, or for each group."""
    gains, totals = _gains(found, name), _relevant(found)
    ideal = np.zeros((len(found), totals.max()))
    for row, each in zip(ideal, found, strict=True):
        row[: len(each.query.relevant)] = list(each.query.relevant.values())
    right = gains > 0
    values = {
        "NDCG@10": metrics.ndcg(gains, 10, ideal),
        "mAP@10": metrics.average_precision(right, 10, totals),
        "R@1": metrics.hits(right, 1),
        "R@10": metrics.hits(right, 10),
        "recall@10": metrics.recall(right, 10, totals),
    }
    avoiding = [each for each in found if each.query.unwanted]
    if avoiding:
        unwanted = _table(avoiding, name, lambda query, key: key in query.unwanted) > 0
        counts = np.array([len(each.query.unwanted) for each in avoiding])
        values["NegRecall@10"] = metrics.unwanted_recall(unwanted, 10, counts)
    sizes = Counter(each.query.group for each in found)
    wordings = [i for i, each in enumerate(found) if each.query.group is not None and sizes[each.query.group] > 1]
    if wordings:
        groups = [found[i].query.group for i in wordings]
        values[WORDING], _ = metrics.spread(values["NDCG@10"][wordings], groups)
    return values


def _relevant(found: Sequence[_Found]) -> npt.NDArray[np.int_]:
    return np.array([len(each.query.relevant) for each in found])


def _gains(found: Sequence[_Found], name: str) -> Values:
    return _table(found, name, lambda query, key: query.relevant.get(key, 0))


def _table(found: Sequence[_Found], name: str, value: Callable[[JudgedQuery, Key], float]) -> Values:
    """Return a value for each result, (queries, ranks), and 0 where a query has fewer results."""
    table = np.zeros((len(found), max(len(each.results[name]) for each in found)))
    for row, each in zip(table, found, strict=True):
        for rank, key in enumerate(each.results[name]):
            row[rank] = value(each.query, key)
    return table


def _summary(rows: Sequence[Row], judged: int, left_out: Sequence[str], unknown: Sequence[Key]) -> list[str]:
    best = max(rows, key=lambda row: row.figures["NDCG@10"].value)
    sentences = [f"{best.name} has the highest NDCG@10, {best.figures['NDCG@10'].value:.3f}."] if len(rows) > 1 else []
    if unknown:
        objects = "object is" if len(unknown) == 1 else "objects are"
        named = ", ".join(unknown[:_NAMED]) + (f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else "")
        sentences.append(f"{len(unknown):,} judged {objects} not in the collection: {named}.")
    if left_out:
        total = judged + len(left_out)
        sentences.append(f"{len(left_out):,} of {total:,} queries {'is' if len(left_out) == 1 else 'are'} left out.")
        sentences += [f"Left out: {problem}." for problem in left_out[:_NAMED]]
    return sentences


def _examples(
    found: Sequence[_Found], values: Values, collection: Collection, objects: Mapping[Key, Id]
) -> list[Example]:
    """Return the best and the worst queries of the first row, and the first ones of the file."""
    order = np.argsort(-values, kind="stable")
    half = len(order) // 2
    best, worst = order[: min(_SHOWN_QUERIES, len(order) - half)], order[::-1][: min(_SHOWN_QUERIES, half)]
    chosen = [("best", found[i]) for i in best] + [("worst", found[i]) for i in worst]
    chosen += [("first", each) for each in found[:_SAMPLES]]
    ids = {key: objects[key] for _, each in chosen for key in each.query.references}
    records = collection.records(list(ids.values())) if ids else {}
    paths = {key: records[id_].path for key, id_ in ids.items() if id_ in records}
    return [_example(verdict, each, paths) for verdict, each in chosen]


def _example(verdict: str, found: _Found, paths: Mapping[Key, str]) -> Example:
    query = found.query.query
    references = []
    for ref in query.image:
        path = str(ref.path or paths.get(str(ref.id), ""))
        references.append(Shown(path, Path(path).name or str(ref.id or "a picture")))
    words = [found.query.name, query.text or "", f"not: {query.negative}" if query.negative else ""]
    results = {name: [found.first[key] for key in keys[:_SHOWN_RESULTS]] for name, keys in found.results.items()}
    return Example(", ".join(filter(None, words)), references, results, verdict)
