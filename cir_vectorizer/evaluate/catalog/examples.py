"""Queries of a report on a catalog that are shown with their results, and the values that are confused."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog.contenders import Contender
from cir_vectorizer.evaluate.catalog.half import Half, Results
from cir_vectorizer.evaluate.report import Confusion, Example

_EXAMPLES = {"best": 2, "worst": 3}
_RESULTS, _COMPARED = 4, 3
_SAMPLES, _SAMPLED = 4, 5
_MOST_CONFUSED = 12


def examples(
    half: Half, choice: Contender, entries: Sequence[Contender], results: Mapping[str, Results]
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
            yield _example(half, row, shown, results, kind, _RESULTS)
            if len(seen) == _EXAMPLES[kind]:
                break


def _example(
    half: Half, row: int, shown: Iterable[Contender], results: Mapping[str, Results], kind: str, count: int
) -> Example:
    found = {
        entry.name: [
            half.shown(int(at), bool(right))
            for at, right in zip(results[entry.name].ranking[row, :count], results[entry.name].right[row], strict=False)
        ]
        for entry in shown
    }
    return Example(half.queries[row].text, [half.shown(half.queries[row].reference)], found, kind)


def samples(
    half: Half, entries: Sequence[Contender], results: Mapping[str, Results], by_attribute: Mapping[str, Sequence[int]]
) -> Iterable[Example]:
    """Yield the typical query of each of the attributes that most queries change: by the best plain contender, then by
    the best trained one.

    Typical is the query for which both find about as many right objects as at their median queries.
    """
    ranked = sorted(entries, key=lambda entry: -entry.score)
    shown = [next((entry for entry in ranked if entry.plain is plain), None) for plain in (True, False)]
    kept = [entry for entry in shown if entry is not None]
    counts = [results[entry.name].right[:, :_SAMPLED].sum(axis=1) for entry in kept]
    for rows in sorted(by_attribute.values(), key=len, reverse=True)[:_SAMPLES]:
        yield _example(half, metrics.typical(rows, counts), kept, results, "typical", _SAMPLED)


def confusions(half: Half, choice: Contender, results: Results) -> Iterable[Confusion]:
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
