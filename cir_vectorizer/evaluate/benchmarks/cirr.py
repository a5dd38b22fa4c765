"""CIRR (Liu et al., ICCV 2021): pairs of NLVR2's pictures; recall over a split, and within six similar pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import find, first, read_json, read_records, record
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

VERSION = "rc2"
RECALL, SUBSET = "recall", "recall_subset"
"""The two tasks, by the name of their metric in a submission."""
_LETTERS = {RECALL: "R", SUBSET: "Rs"}


def read(root: Path, split: str = "val") -> Benchmark:
    """Read a split: `cirr/captions/cap.rc2.val.json` and `cirr/image_splits/split.rc2.val.json`.

    Pictures are looked for under the root at the paths that `image_splits` gives. Without that file rankings can be
    scored, but unknown names are not noticed, and no model can be run.

    Raises:
        SourceError: a file is missing, damaged or of another dataset.
    """
    name = f"cap.{VERSION}.{split}.json"
    path = find(root, f"cirr/captions/{name}", f"captions/{name}", name)
    listing = first(path.parent, f"../image_splits/split.{VERSION}.{split}.json", f"split.{VERSION}.{split}.json")
    places = {} if listing is None else _places(listing)
    whole, subset = [], []
    for row in read_records(path):
        reference = row.text("reference")
        right = (row.text("target_hard"),) if "target_hard" in row else ()
        members = row.inner("img_set").texts("members")
        query = Query(row.number("pairid"), (reference,), (row.text("caption"),), right, excluded=(reference,))
        whole.append(query)
        # of equal scores the first wins, which must not be the target
        rivals = tuple(each for each in members if each not in (reference, *right))
        subset.append(replace(query, gallery=(*rivals, *(each for each in right if each in members))))
    base = _base(root, places)
    return Benchmark(
        title="CIRR",
        split=split,
        root=root,
        tasks=(
            Task(RECALL, tuple(whole), (1, 5, 10, 50), tuple(places), listed=listing is not None),
            Task(SUBSET, tuple(subset), (1, 2, 3)),
        ),
        file=lambda name: base / places.get(name, f"{name}.png"),
        values=_values,
        parse=_parse,
        form=_form,
        to_json=_to_json,
        choices=(
            ("captions", "the caption of the pair"),
            ("reference", "taken out of the ranking"),
            ("right answer", "target_hard"),
            ("gallery", "all pictures of the split's list; Rs@k: the query's image set without the reference"),
        ),
        elsewhere="Papers report CIRR's split test1, whose answers are not published: no figure of theirs is of this split.",
    )


def _places(path: Path) -> Mapping[str, str]:
    split = record(read_json(path), str(path))
    return {name: split.text(name) for name in split.values}


def _base(root: Path, places: Mapping[str, str]) -> Path:
    """Return the folder that the split's paths start from: one that has the folder of its first picture, else the root."""
    folder = str(Path(next(iter(places.values()), ".")).parent)
    for base in (".", "img_raw", "cirr", "cirr/img_raw", ".."):
        if first(root / base, folder):
            return root / base
    return root


def _values(task: Task, rankings: Rankings, ks: Sequence[int]) -> Scores:
    found = relevance(rankings, (query.right for query in task.queries), max(ks))
    return {f"{_LETTERS[task.name]}@{k}": metrics.hits(found, k) for k in ks}


def _parse(tasks: Sequence[Task], content: Any, source: Path) -> Mapping[str, Rankings]:
    kinds = " or ".join(f'"{name}"' for name in _LETTERS)
    if not isinstance(content, dict) or content.get("metric") not in list(_LETTERS):
        raise SourceError(f'{source} has no "metric" that is {kinds}; write it in CIRR\'s submission form')
    lists = dict(content)
    metric, version = lists.pop("metric"), lists.pop("version", VERSION)
    if version != VERSION:
        raise SourceError(
            f"{source} is for version {version!r} of CIRR, and these annotations are {VERSION}; rank these"
        )
    task = next(task for task in tasks if task.name == metric)
    return {metric: checked(task, by_query(task, lists, source), source)}


def _form(rankings: Mapping[str, Rankings], tasks: Sequence[Task]) -> Mapping[str, Any]:
    forms: dict[str, Any] = {}
    for task in tasks:
        pairs = zip(task.queries, rankings[task.name], strict=True)
        lists = {query.name: list(names[: task.depth]) for query, names in pairs}
        forms[f".{task.name}"] = {"version": VERSION, "metric": task.name, **lists}
    return forms


def _to_json(scores: Mapping[str, Scores], tasks: Sequence[Task]) -> Mapping[str, Any]:
    return {name: mean for task in tasks for name, mean in means(scores[task.name]).items()}
