"""PinPoint (Mahadev et al., CVPR 2026): several right and several unwanted answers, and paraphrases of each query.

Columns of `pinpoint_licensed.parquet`, one query a row, and their meaning here:

    query_id                    name of the query: "query_00001", "00001" and 1 are the same
    query_image_signature       reference picture; `query_image_signature2` is the second one, or "None"
    instruction                 the words
    positive_candidates         right answers; a picture listed twice counts twice in the number of right answers
    negative_candidates         unwanted answers; a picture listed twice, and an empty entry, count in their number
    query_category, length_category    parts of the report

The figures have the names and the formulas of the official evaluation (Apache-2.0), written anew from its description.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import Record, find, first, record
from cir_vectorizer.evaluate.benchmarks.base import (
    Benchmark,
    Query,
    Rankings,
    Scores,
    Task,
    by_query,
    checked,
    means,
    relevance,
)
from cir_vectorizer.evaluate.report import Published
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import table_rows
from cir_vectorizer.sources.text import reading, text_lines

KS = (1, 5, 10, 50)
QUERIES, INDEX = "pinpoint_licensed.parquet", "index_signatures.txt"
RANGE, DEVIATION = "ling_sens_range", "ling_sens_std"
_RELEASE = "c17bb95b04488ae09f5c51d9d2f8840dded92e86f648250f068d619945e627e2"
"""SHA-256 of the queries that the published figures are of (labels of 2 March 2026)."""
_SOURCE = "metrics.csv of github.com/pinterest/pinpoint-dataset, commit d9016f9"


def read(root: Path) -> Benchmark:
    """Read the queries, `pinpoint_licensed.parquet`, and the names of the gallery's pictures, `index_signatures.txt`.

    Pictures are looked for at `images/<signature>.jpg`.

    Raises:
        SourceError: a file is missing, damaged or of another dataset, or pyarrow is not installed.
    """
    path = find(root, QUERIES, split=False)
    listing = first(root, INDEX)
    gallery = () if listing is None else _signatures(listing)
    queries = tuple(_queries(path))
    same = hashlib.sha256(path.read_bytes()).hexdigest() == _RELEASE
    return Benchmark(
        title="PinPoint",
        split="all queries",
        root=root,
        tasks=(Task("", queries, KS, gallery, listed=listing is not None),),
        file=lambda name: root / "images" / f"{name}.jpg",
        values=_values,
        grouped=_sensitivity,
        parse=_parse,
        form=_form,
        to_json=_to_json,
        figures=(
            "mAP@10",
            "mAP@10_noNeg",
            "precision@1",
            "precision@10",
            "recall@10",
            "NegRecall@10",
            RANGE,
            DEVIATION,
        ),
        part_figures=("mAP@10", "precision@10", "NegRecall@10"),
        lower_is_better=("NegRecall@10", RANGE, DEVIATION),
        choices=(
            ("reference", "left in the ranking"),
            ("AP@k", "Σ precision@i · rel(i) / min(k, right answers); _noNeg: after taking unwanted answers out"),
            ("NegRecall@k", "unwanted answers among the first k / min(k, unwanted answers)"),
            (
                "number of answers",
                "entries of the row's list, doubled and empty ones too, as in the official evaluation",
            ),
            (RANGE, "largest less smallest precision@10 of the queries with the same pictures, whatever they ask for"),
        ),
        published=_PUBLISHED if same else (),
        elsewhere=""
        if same
        else "The labels are not those that PinPoint's published figures are of, so none is shown.",
    )


def _signatures(path: Path) -> tuple[str, ...]:
    with reading(str(path), lambda: path.open("rb")) as stream:
        return tuple(line.strip() for line in text_lines(stream, str(path)) if line.strip())


def _queries(path: Path) -> list[Query]:
    table = table_rows(path)
    found, names = [], set()
    for number, values in table:
        if isinstance(values, Failure):
            raise SourceError(f"{values}; get PinPoint's own file again")
        row = record(values, table.place(number))
        name = _name(row.text("query_id"))
        if name is None:
            raise SourceError(
                f"{row.where}: query_id {row.text('query_id')!r} is no number; get PinPoint's own file again"
            )
        if name in names:
            raise SourceError(f"{row.where}: query {name} stands twice; get PinPoint's own file again")
        names.add(name)
        second = row.text("query_image_signature2") if "query_image_signature2" in row else "None"
        references = (row.text("query_image_signature"), *((second,) if second != "None" else ()))
        parts = {"pictures in the query": ("two" if len(references) == 2 else "one",)}
        for column, division in (("query_category", "category"), ("length_category", "length of the words")):
            if column in row:
                parts[division] = (row.text(column),)
        found.append(
            Query(
                name,
                references,
                (row.text("instruction"),),
                row.texts("positive_candidates"),
                unwanted=_unwanted(row),
                parts=parts,
            )
        )
    if not found:
        raise SourceError(f"{path} holds no query; get PinPoint's own file again")
    return found


def _unwanted(row: Record) -> tuple[str, ...]:
    column = "negative_candidates"
    return tuple(str(value or "") for value in row.items(column)) if column in row else ()


def _name(value: object) -> str | None:
    """Return a query's id as five or more digits, or None if it is no id."""
    digits = str(value).removeprefix("query_")
    return digits.zfill(5) if digits.isascii() and digits.isdecimal() else None


def _values(task: Task, rankings: Rankings, ks: Sequence[int]) -> Scores:
    most = max(len(query.unwanted) for query in task.queries)
    depth = max(ks) + most  # results beyond k move up where unwanted ones are taken out
    right = relevance(rankings, (frozenset(query.right) for query in task.queries), depth)
    unwanted = relevance(rankings, (frozenset(query.unwanted) for query in task.queries), depth)
    totals = np.array([len(query.right) for query in task.queries])
    avoided = np.array([len(query.unwanted) for query in task.queries])
    cleaned = metrics.without(right, unwanted)
    scores = {}
    for k in ks:
        scores[f"mAP@{k}"] = metrics.average_precision(right, k, totals)
        scores[f"mAP@{k}_noNeg"] = metrics.average_precision(cleaned, k, totals)
        scores[f"precision@{k}"] = metrics.precision(right, k)
        scores[f"recall@{k}"] = metrics.recall(right, k, totals)
        scores[f"NegRecall@{k}"] = metrics.unwanted_recall(unwanted, k, avoided)
    return scores


def _sensitivity(task: Task, scores: Scores) -> Scores:
    """Return range and deviation of precision@10, one for each group of queries with the same pictures."""
    sizes = Counter(query.references for query in task.queries)
    mine = [i for i, query in enumerate(task.queries) if sizes[query.references] > 1]
    groups = [task.queries[i].references for i in mine]
    ranges, deviations = metrics.spread(scores["precision@10"][mine], groups)
    return {RANGE: ranges, DEVIATION: deviations} if groups else {}


def _parse(tasks: Sequence[Task], content: Any, source: Path) -> Mapping[str, Rankings]:
    if not isinstance(content, dict):
        raise SourceError(f"{source} is no JSON object of query ids and lists of signatures; write it in that form")
    lists: dict[str, Any] = {}
    for key, value in content.items():
        name = _name(key) or key
        if name in lists:
            raise SourceError(f"{source}: query {name} stands twice; rank it once")
        lists[name] = value.get("retrieved_items") if isinstance(value, dict) else value
    (task,) = tasks
    return {"": checked(task, by_query(task, lists, source), source)}


def _form(rankings: Mapping[str, Rankings], tasks: Sequence[Task]) -> Mapping[str, Any]:
    """Return the form that the official evaluation reads."""
    (task,) = tasks
    pairs = zip(task.queries, rankings[""], strict=True)
    return {"": {query.name: {"retrieved_items": list(names[: task.depth])} for query, names in pairs}}


def _to_json(scores: Mapping[str, Scores], tasks: Sequence[Task]) -> Mapping[str, Any]:
    (task,) = tasks
    figures = means({**scores[""], **_sensitivity(task, scores[""])})
    gain = figures["mAP@10_noNeg"] - figures["mAP@10"]
    share = gain / figures["mAP@10"] if figures["mAP@10"] else 0.0
    return {**figures, "delta_mAP@10_noNeg": gain, "pct_increase_mAP@10_noNeg": share}


def _published(method: str, *values: float) -> Published:
    names = ("mAP@10", "mAP@10_noNeg", "precision@1", "precision@10", "NegRecall@10", RANGE)
    return Published(method, dict(zip(names, values, strict=True)), _SOURCE)


_PUBLISHED = (
    _published("MetaCLIP2, picture alone", 0.0331, 0.0584, 0.0092, 0.0522, 0.2194, 0.0242),
    _published("MetaCLIP2, text alone", 0.0635, 0.0677, 0.1122, 0.0758, 0.0656, 0.1412),
    _published("MetaCLIP2, both", 0.0764, 0.1027, 0.0918, 0.1017, 0.1407, 0.1450),
    _published("BGE-VL CLIP Large", 0.1104, 0.1200, 0.1842, 0.1265, 0.1011, 0.1667),
    _published("BGE-VL MLLM S1", 0.1314, 0.1409, 0.2326, 0.1423, 0.0865, 0.1527),
)
