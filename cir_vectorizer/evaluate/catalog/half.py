"""The half of the made queries that is reported, and the results of contenders on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import Info
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog.attributes import Found
from cir_vectorizer.evaluate.catalog.contenders import Contender, blocks
from cir_vectorizer.evaluate.catalog.objects import Objects
from cir_vectorizer.evaluate.catalog.queries import Answers, MadeQuery, QueryMaker
from cir_vectorizer.evaluate.report import Shown

KS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class Results:
    """Results of one contender on the reported queries: rows of objects by rank, and each query's figures."""

    ranking: npt.NDArray[np.intp]
    right: npt.NDArray[np.bool_]
    figures: Mapping[str, metrics.Values]


class Half:
    """The reported queries, with everything that judges a ranking of theirs."""

    def __init__(
        self, objects: Objects, found: Found, maker: QueryMaker, queries: Sequence[MadeQuery], info: Info
    ) -> None:
        self.objects, self.found, self.queries, self.info = objects, found, queries, info
        self.combinations = maker.combinations
        self.answers = Answers.of(queries, maker.combinations)
        self._totals, self._unwanted = self.answers.totals(maker.combinations.sizes)

    def results(self, entry: Contender) -> Results:
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
        return Results(ranking, right, figures)

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
