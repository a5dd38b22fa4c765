"""A customer's own catalog as the judge: composed queries made of it, contenders swept on one half and reported on the other."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import Address, Collection, Info, ModelRecord, check
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog import texts
from cir_vectorizer.evaluate.catalog.attributes import Attribute, Found, attributes_of, catalog_words, visible
from cir_vectorizer.evaluate.catalog.contenders import (
    FUSED,
    TEXTS,
    Asked,
    Bench,
    Contender,
    blocks,
    contenders,
    embed_texts,
)
from cir_vectorizer.evaluate.catalog.objects import Objects, read_objects
from cir_vectorizer.evaluate.catalog.queries import Answers, MadeQuery, QueryMaker, halves
from cir_vectorizer.evaluate.catalog.wordings import Wordings
from cir_vectorizer.evaluate.report import Comparison, Confusion, Example, Report, Row, Shown
from cir_vectorizer.evaluate.sentences import verdict

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

MOST_OBJECTS = 20_000
QUERIES = 600
MOST_PAIRS = 400_000_000
"""Largest number of queries times objects: a matrix of the similarities of half of the queries takes 0.8 GB."""
KS = (1, 2, 5, 10, 20, 50)
FIGURES = ("R@10", "R@1", "mAP@10", "NegRecall@10", "edit@1", "keep@1")
"""Figures of every row. edit@1: the first result has the values asked for; keep@1: it has kept the other ones."""
CEILING = "target in words"
"""Row of text searches with the wanted product in words, which shows how much the encoder allows."""
_EXAMPLES = {"best": 2, "worst": 3}
_RESULTS, _COMPARED = 4, 3
_COMPARED_FIGURES = ("R@10", "R@1", "mAP@10")
_MOST_CONFUSED = 12


@dataclass(frozen=True)
class Asking:
    """Choices of an evaluation of a catalog; see the options of `evaluate catalog`."""

    attributes: Sequence[str] = ()
    captions: str | None = None
    queries: int = QUERIES
    objects: int = MOST_OBJECTS
    language: str = "en"
    seed: int = 0


@dataclass(frozen=True)
class Judged:
    """The result: the report, and the choice that it recommends.

    Attributes:
        choice: the contender to use, with its model's name, composer and options in `settings`.
        regret: R@10 that it loses, on the reported half, to the best contender there that a model serves.
        text_weight: weight of objects' texts that the choice searches with; None if no texts were judged.
    """

    report: Report
    choice: Contender
    regret: float
    text_weight: float | None = None


def judge(
    collection: Collection,
    models: Mapping[str, "Vectorizer"],
    asking: Asking = Asking(),
    progress: Callable[[str], None] = lambda _: None,
) -> Judged:
    """Make queries of a collection, judge every contender, and choose one.

    Args:
        models: by name; all over the backbone that filled the collection.
        progress: told what is being done.

    Raises:
        BackboneMismatch: the collection was filled by another backbone.
        CollectionError: the collection cannot be read or is too small.
        SourceError: it holds no usable attributes or captions, or allows too few queries.
    """
    for model in models.values():
        check(collection, ModelRecord.of(model))
    first, info = next(iter(models.values())), collection.info()
    assert info is not None
    wordings, words = Wordings(asking.language), catalog_words(asking.language)
    objects = read_objects(collection, asking.objects, asking.seed, progress)
    progress(f"{len(objects):,} of {objects.total:,} objects read")
    if asking.queries * len(objects) > MOST_PAIRS:
        raise SourceError(
            f"{asking.queries:,} queries over {len(objects):,} objects need too much memory; ask for fewer of either with "
            "--queries and --objects"
        )
    found = attributes_of(objects, words, asking.attributes, asking.captions)
    visible(found, objects, first, lambda value, role: wordings.target({"": (value, role)}), bool(asking.attributes))
    objects = texts.judgeable(objects, found, info)
    for note in found.notes:
        progress(f"left out: {note}")
    maker = QueryMaker(found.attributes, wordings, asking.seed)
    queries = maker.draw(asking.queries)
    progress(f"{len(queries):,} queries made; they change {', '.join(each.name for each in found.attributes)}")
    later = halves(queries)
    choosing, reported = (
        [query for query, own in zip(queries, later, strict=True) if own == half] for half in (False, True)
    )
    bench = Bench(objects, Answers.of(choosing, maker.combinations))
    asked = Asked.of(choosing, objects, first), Asked.of(reported, objects, first)
    today = texts.today(models, objects, info)
    entries = contenders(models, bench, *asked, progress, today)
    targets = [wordings.target(_named(query.target, found.attributes)) for query in reported]
    entries.sort(key=lambda entry: -entry.score)
    ceiling = Contender(CEILING, {"text": targets[0]}, embed_texts(first, targets), 0.0)
    half = _Half(objects, found, maker, reported, info)
    return _judged([*entries, ceiling], half, collection.address, asking, today)


def _named(target: Sequence[str | None], attributes: Sequence[Attribute]) -> dict[str, tuple[str, str]]:
    return {
        attribute.name: (value, attribute.role)
        for attribute, value in zip(attributes, target, strict=True)
        if value is not None
    }


@dataclass(frozen=True)
class _Results:
    """Results of one contender on the reported queries: rows of objects by rank, and each query's figures."""

    ranking: npt.NDArray[np.intp]
    right: npt.NDArray[np.bool_]
    figures: Mapping[str, metrics.Values]


class _Half:
    """The reported queries, with everything that judges a ranking of theirs."""

    def __init__(
        self, objects: Objects, found: Found, maker: QueryMaker, queries: Sequence[MadeQuery], info: Info
    ) -> None:
        self.objects, self.found, self.queries, self.info = objects, found, queries, info
        self.combinations = maker.combinations
        self.answers = Answers.of(queries, maker.combinations)
        self._totals, self._unwanted = self.answers.totals(maker.combinations.sizes)

    def results(self, entry: Contender) -> _Results:
        ranking = np.concatenate([self._ranked(entry, rows) for rows in blocks(len(self.queries), len(self.objects))])
        right = self.answers.right(ranking)
        edited, kept = self._first_results(ranking[:, 0])
        figures = {
            **{f"R@{k}": metrics.hits(right, k) for k in KS},
            "mAP@10": metrics.average_precision(right, 10, self._totals),
            "NegRecall@10": metrics.unwanted_recall(self.answers.unwanted(ranking), 10, self._unwanted),
            "edit@1": edited,
            "keep@1": kept,
        }
        return _Results(ranking, right, figures)

    def _ranked(self, entry: Contender, rows: slice) -> npt.NDArray[np.intp]:
        scores = self.objects.scores(entry.vectors[rows], entry.text_weight)
        references = self.answers.references[rows]
        scores[np.arange(len(references)), references] = -np.inf
        return metrics.top(scores, max(KS))

    def _first_results(self, first: npt.NDArray[np.intp]) -> tuple[metrics.Values, metrics.Values]:
        """Tell whether each first result has the values asked for, and whether it has kept the others."""
        edited, kept = np.zeros(len(first)), np.zeros(len(first))
        for row, (query, result) in enumerate(zip(self.queries, first, strict=True)):
            base, got = self.combinations.rows[query.reference], self.combinations.rows[result]
            edited[row] = all(
                got[at] == query.target[at] if query.target[at] is not None else got[at] not in (None, base[at])
                for at in query.attributes
            )
            kept[row] = all(got[at] == base[at] for at in range(len(base)) if at not in query.attributes)
        return edited, kept

    def parts(self) -> dict[str, dict[str, list[int]]]:
        """Return rows of queries by division and part."""
        divisions: dict[str, Callable[[MadeQuery], str]] = {
            "attribute": lambda query: " and ".join(sorted(self.found.attributes[at].name for at in query.attributes)),
            "change": lambda query: query.change,
            "wording": lambda query: query.wording if query.change != "two" else "two changes",
        }
        found: dict[str, dict[str, list[int]]] = {}
        for division, name in divisions.items():
            rows: dict[str, list[int]] = {}
            for row, query in enumerate(self.queries):
                rows.setdefault(name(query), []).append(row)
            found[division] = dict(sorted(rows.items()))
        return found

    def shown(self, row: int, right: bool | None = None) -> Shown:
        values = ", ".join(value for value in self.combinations.rows[row] if value is not None)
        return Shown(self.objects.pictures[row], values, right)


def _judged(
    entries: Sequence[Contender], half: _Half, address: Address, asking: Asking, today: Mapping[str, Any]
) -> Judged:
    results = {entry.name: half.results(entry) for entry in entries}
    parts = half.parts()
    served = [entry for entry in entries if entry.served]
    choice = max(served, key=lambda entry: entry.score)
    r10 = {entry.name: float(results[entry.name].figures["R@10"].mean()) for entry in served}
    best = max(r10, key=r10.__getitem__)
    regret = r10[best] - r10[choice.name]
    comparisons = list(_comparisons(entries, choice, results))
    now = next(
        (entry.name for entry in entries if entry.settings == today), ""
    )  # the default may not answer such queries
    report = Report(
        title=f"Catalog {address.collection}",
        summary=list(_summary(choice, best, results, comparisons, half, now)),
        choices=[("collection", str(address)), *_choices(half, asking)],
        rows=[_row(entry, results[entry.name], parts) for entry in entries],
        queries=len(half.queries),
        gallery=len(half.objects),
        comparisons=comparisons,
        examples=list(_examples(half, choice, entries, results)),
        confusions=list(_confusions(half, choice, results[choice.name])),
        lower_is_better=("NegRecall@10",),
    )
    return Judged(report, choice, regret, None if half.objects.texts is None else choice.text_weight)


def _row(entry: Contender, results: _Results, parts: Mapping[str, Mapping[str, Sequence[int]]]) -> Row:
    def estimates(rows: Sequence[int] | None = None) -> dict[str, metrics.Estimate]:
        return metrics.estimates(
            {name: results.figures[name] if rows is None else results.figures[name][rows] for name in FIGURES}
        )

    divided = {division: {part: estimates(rows) for part, rows in own.items()} for division, own in parts.items()}
    curve = [(k, float(results.figures[f"R@{k}"].mean())) for k in KS]
    return Row(
        entry.name,
        entry.settings,
        estimates(),
        divided,
        {"R": curve},
        entry.milliseconds,
        ceiling=entry.name == CEILING,
    )


def _comparisons(
    entries: Sequence[Contender], choice: Contender, results: Mapping[str, _Results]
) -> Iterable[Comparison]:
    """Compare the choice with every other row, fusions and texts with the row without, and later models with the first."""
    pairs = [(choice.name, entry.name) for entry in entries if entry is not choice and entry.name != CEILING]
    names = {entry.name for entry in entries}
    pairs += [(name, name.removesuffix(FUSED)) for name in sorted(names) if name.endswith(FUSED)]
    pairs += [(entry.name, entry.name.rpartition(TEXTS)[0]) for entry in entries if entry.text_weight]
    models = list(dict.fromkeys(str(entry.settings["model"]) for entry in entries if entry.served))
    for later in models[1:]:
        pairs += [
            (name, before)
            for name in sorted(names)
            if name.startswith(f"{later}: ") and (before := name.replace(later, models[0], 1)) in names
        ]
    for ours, theirs in dict.fromkeys(pairs):
        compared = {name: results[ours].figures[name] for name in _COMPARED_FIGURES}
        yield Comparison(ours, theirs, metrics.differences(compared, results[theirs].figures))


def _summary(
    choice: Contender,
    best: str,
    results: Mapping[str, _Results],
    comparisons: Sequence[Comparison],
    half: _Half,
    today: str,
) -> Iterable[str]:
    r1, r10 = (float(results[choice.name].figures[name].mean()) for name in ("R@1", "R@10"))
    settings = [f"{key} {value}" for key, value in choice.options.items()]
    if half.objects.texts is not None:
        settings.append(f"texts weighing {choice.text_weight:g}")
    options = ", ".join(settings)
    yield (
        f"Use {choice.settings['composer']!r} of {choice.settings['model']}{f' with {options}' if options else ''}: a right "
        f"product is the first result in {r1:.0%} of the queries and among the first ten in {r10:.0%}."
    )
    rivals = {each.other: each for each in comparisons if each.row == choice.name}
    if today in rivals:
        yield f"Today's default: {verdict(rivals[today])}"
    elif today == choice.name:
        yield "This is the default already."
    if rivals:
        nearest = min(rivals.values(), key=lambda each: each.differences["R@1"].value + each.differences["R@10"].value)
        yield f"Nearest rival: {verdict(nearest)}"
    lead = -rivals[best].differences["R@10"].value if best in rivals else 0.0
    yield (
        "Settings were chosen on other queries than these. "
        + (f"Here {best} has {100 * lead:.1f} points more R@10." if lead else "Here too none has more R@10.")
    )
    if best in rivals and rivals[best].differences["R@10"].clear:
        yield (
            "The two halves disagree, so do not rely on this choice: make more queries with --queries, or name more columns "
            "with --attributes."
        )
    if choice.text_weight:
        share = texts.naming_share(half.queries, half.combinations, half.objects, half.info.text_columns)
        yield (
            f"The texts of right objects name the values asked for in {share:.0%} of the cases; they help less with what they do "
            "not name."
        )
    if len(half.objects) < half.objects.total:
        yield (
            f"{len(half.objects):,} of the {half.objects.total:,} objects were drawn at random; among all of them the figures "
            "are lower."
        )
    if len(half.found.attributes) == 1:
        yield (
            "With one attribute alone nothing shows whether a search keeps the rest of the picture, and words alone look better "
            "than they are; name more columns with --attributes."
        )


def _choices(half: _Half, asking: Asking) -> list[tuple[str, str]]:
    found, objects = half.found, half.objects
    source = "columns" if found.captions is None else f"words of column {found.captions!r}"
    median = int(np.median(half.answers.totals(half.combinations.sizes)[0]))
    return [
        ("queries", f"{len(half.queries):,} made from the catalog; settings were chosen on as many others"),
        ("halves", "split by the combination of values asked for"),
        ("attributes", f"{', '.join(attribute.name for attribute in found.attributes)} ({source})"),
        ("right answers", f"objects with exactly the attributes asked for; median {median} a query"),
        ("unwanted", "objects with the attributes of the query's picture (NegRecall@10: lower is better)"),
        ("reference", "left out of the results"),
        ("wordings", f"{asking.language}; no training of ours used them"),
        ("objects", f"{len(objects):,} of {objects.total:,}"),
        *texts.choices(objects, half.info),
        *(("left out", note) for note in found.notes),
        ("seed", str(asking.seed)),
    ]


def _examples(
    half: _Half, choice: Contender, entries: Sequence[Contender], results: Mapping[str, _Results]
) -> Iterable[Example]:
    """Yield queries that the choice answers best where others fail, and its worst ones, with different wordings."""
    rivals = sorted(
        (entry for entry in entries if entry is not choice and entry.served),
        key=lambda entry: -entry.score,
    )
    families: dict[str, Contender] = {}
    for entry in rivals:
        families.setdefault(str(entry.settings["composer"]), entry)
    others = [each for name, each in families.items() if name != choice.settings["composer"]]
    shown = [choice, *others][:_COMPARED]
    own = results[choice.name].figures["mAP@10"]
    theirs = np.mean([results[entry.name].figures["mAP@10"] for entry in shown[1:]] or [np.zeros(len(own))], axis=0)
    for kind, order in (
        ("best", np.argsort(theirs - own, kind="stable")),
        ("worst", np.argsort(own, kind="stable")),
    ):
        seen: set[str] = set()
        for row in order:
            query = half.queries[row]
            if query.wording in seen:
                continue
            seen.add(query.wording)
            yield Example(
                query.text,
                [half.shown(query.reference)],
                {
                    entry.name: [
                        half.shown(int(found), bool(right))
                        for found, right in zip(
                            results[entry.name].ranking[row, :_RESULTS], results[entry.name].right[row], strict=False
                        )
                    ]
                    for entry in shown
                },
                kind,
            )
            if len(seen) == _EXAMPLES[kind]:
                break


def _confusions(half: _Half, choice: Contender, results: _Results) -> Iterable[Confusion]:
    """Yield, by attribute, the values asked for and those of the first results."""
    for at, attribute in enumerate(half.found.attributes):
        pairs = [
            (asked, half.combinations.rows[first][at] or "unknown")
            for query, first in zip(half.queries, results.ranking[:, 0], strict=True)
            if at in query.attributes and (asked := query.target[at]) is not None
        ]
        values = [value for value, _ in Counter(asked for asked, _ in pairs).most_common(_MOST_CONFUSED)]
        found = list(dict.fromkeys([*values, *(got for _, got in pairs)]))
        counts = [[sum(pair == (one, other) for pair in pairs) for other in found] for one in values]
        if values:
            yield Confusion(attribute.name, choice.name, values, found, counts)
