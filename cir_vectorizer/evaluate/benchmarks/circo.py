"""CIRCO (Baldrati et al., ICCV 2023): open-domain queries with several right answers among 123,403 pictures of COCO."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import find, first, number, read_json, read_records, record
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

KS = (5, 10, 25, 50)
ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)
"""The semantic aspects, in the order of the official evaluation."""
_COCO = "COCO2017_unlabeled"


def read(root: Path, split: str = "val") -> Benchmark:
    """Read a split: `annotations/val.json` or `annotations/test.json`.

    The gallery is the list `COCO2017_unlabeled/annotations/image_info_unlabeled2017.json`, else the pictures in
    `COCO2017_unlabeled/unlabeled2017`.

    Raises:
        SourceError: a file is missing, damaged or of another dataset.
    """
    path = find(root, f"annotations/{split}.json", f"CIRCO/annotations/{split}.json", f"{split}.json")
    base = path.parent.parent if path.parent.name == "annotations" else path.parent
    queries = []
    for row in read_records(path):
        right = row.numbers("gt_img_ids") if "gt_img_ids" in row else ()
        aspects = row.texts("semantic_aspects") if "semantic_aspects" in row else ()
        if right and row.number("target_img_id") != right[0]:
            raise SourceError(f"{row.where}: target_img_id is not the first of gt_img_ids; get CIRCO's own file again")
        texts = (row.text("relative_caption"),)
        queries.append(
            Query(row.number("id"), (row.number("reference_img_id"),), texts, right, parts={"aspect": aspects})
        )
    listing = first(base, f"{_COCO}/annotations/image_info_unlabeled2017.json")
    pictures = base / _COCO / "unlabeled2017"
    return Benchmark(
        title="CIRCO",
        split=split,
        root=root,
        tasks=(Task("", tuple(queries), KS, _gallery(listing, pictures), listed=listing is not None),),
        file=lambda name: pictures / f"{int(name):012d}.jpg",
        values=_values,
        parse=_parse,
        form=_form,
        to_json=_to_json,
        part_figures=("mAP@10",),
        choices=(
            ("captions", "the relative caption alone; shared_concept is not used"),
            ("reference", "left in the ranking"),
            ("gallery", "all pictures of COCO 2017 unlabeled"),
        ),
        elsewhere="Papers report CIRCO's test split, whose answers are not published: no figure of theirs is of this split.",
    )


def _gallery(listing: Path | None, pictures: Path) -> tuple[str, ...]:
    if listing is not None:
        content = record(read_json(listing), str(listing))
        return tuple(
            record(row, f"{listing}, images[{i}]").number("id") for i, row in enumerate(content.items("images"))
        )
    names = [number(path.stem) for path in pictures.glob("*.jpg")]
    return tuple(sorted((name for name in names if name is not None), key=int))


def _values(task: Task, rankings: Rankings, ks: Sequence[int]) -> Scores:
    """Return AP@k over all right answers, and R@k of the target alone."""
    right = relevance(rankings, (query.right for query in task.queries), max(ks))
    target = relevance(rankings, (query.right[:1] for query in task.queries), max(ks))
    totals = np.array([len(set(query.right)) for query in task.queries])
    return {
        **{f"mAP@{k}": metrics.average_precision(right, k, totals) for k in ks},
        **{f"R@{k}": metrics.hits(target, k) for k in ks},
    }


def _parse(tasks: Sequence[Task], content: Any, source: Path) -> Mapping[str, Rankings]:
    if not isinstance(content, dict):
        raise SourceError(f"{source} is no JSON object of query ids and lists; write it in CIRCO's submission form")
    (task,) = tasks
    return {"": checked(task, by_query(task, content, source), source, number)}


def _form(rankings: Mapping[str, Rankings], tasks: Sequence[Task]) -> Mapping[str, Any]:
    (task,) = tasks
    pairs = zip(task.queries, rankings[""], strict=True)
    return {"": {query.name: [int(name) for name in names[: task.depth]] for query, names in pairs}}


def _to_json(scores: Mapping[str, Scores], tasks: Sequence[Task]) -> Mapping[str, Any]:
    (task,) = tasks
    values = scores[""]["mAP@10"]
    semantic = {}
    for aspect in ASPECTS:
        rows = [i for i, query in enumerate(task.queries) if aspect in query.parts["aspect"]]
        if rows:
            semantic[aspect] = float(np.mean(values[rows]))
    return {**means(scores[""]), "semantic": semantic}
