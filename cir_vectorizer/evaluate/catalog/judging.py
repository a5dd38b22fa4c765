"""A customer's own catalog as the judge: composed queries made of it, contenders swept on one half and reported on the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cir_vectorizer.collections import Address, Collection, ModelRecord, check
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog import texts
from cir_vectorizer.evaluate.catalog.attributes import Attribute, attributes_of, catalog_words, visible
from cir_vectorizer.evaluate.catalog.contenders import (
    FUSED,
    TEXTS,
    Asked,
    Bench,
    Contender,
    contenders,
    embed_texts,
)
from cir_vectorizer.evaluate.catalog.examples import confusions, examples, samples
from cir_vectorizer.evaluate.catalog.half import KS, Half, Results
from cir_vectorizer.evaluate.catalog.objects import read_objects
from cir_vectorizer.evaluate.catalog.queries import Answers, QueryMaker, halves
from cir_vectorizer.evaluate.catalog.wordings import Wordings
from cir_vectorizer.evaluate.report import Comparison, Report, Row
from cir_vectorizer.evaluate.sentences import verdict

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

MOST_OBJECTS = 20_000
QUERIES = 600
MOST_PAIRS = 400_000_000
"""Largest number of queries times objects: a matrix of the similarities of half of the queries takes 0.8 GB."""
FIGURES = ("R@10", "R@1", "mAP@10", "NegRecall@10", "edit@1", "keep@1")
"""Figures of every row. edit@1: the first result has the values asked for; keep@1: it has kept the other ones."""
CEILING = "target in words"
"""Row of text searches with the wanted product in words, which shows how much the encoder allows."""
_COMPARED_FIGURES = ("R@10", "R@1", "mAP@10")


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
    half = Half(objects, found, maker, reported, info)
    return _judged([*entries, ceiling], half, collection.address, asking, today)


def _named(target: Sequence[str | None], attributes: Sequence[Attribute]) -> dict[str, tuple[str, str]]:
    return {
        attribute.name: (value, attribute.role)
        for attribute, value in zip(attributes, target, strict=True)
        if value is not None
    }


def _judged(
    entries: Sequence[Contender], half: Half, address: Address, asking: Asking, today: Mapping[str, Any]
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
        examples=list(examples(half, choice, entries, results)),
        samples=list(samples(half, [entry for entry in entries if entry.name != CEILING], results, parts["attribute"])),
        confusions=list(confusions(half, choice, results[choice.name])),
        lower_is_better=("NegRecall@10",),
    )
    return Judged(report, choice, regret, None if half.objects.texts is None else choice.text_weight)


def _row(entry: Contender, results: Results, parts: Mapping[str, Mapping[str, Sequence[int]]]) -> Row:
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
        plain=entry.plain,
    )


def _comparisons(
    entries: Sequence[Contender], choice: Contender, results: Mapping[str, Results]
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
    results: Mapping[str, Results],
    comparisons: Sequence[Comparison],
    half: Half,
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


def _choices(half: Half, asking: Asking) -> list[tuple[str, str]]:
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
