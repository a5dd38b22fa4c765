"""FashionIQ (Wu et al., CVPR 2021): dresses, shirts and tops, each category with its own gallery."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import find, first, read_json, read_records, text
from cir_vectorizer.evaluate.benchmarks.base import (
    Benchmark,
    Query,
    Rankings,
    Scores,
    Task,
    average,
    by_task,
    checked,
    means,
    relevance,
)
from cir_vectorizer.evaluate.report import Published

CATEGORIES = ("dress", "shirt", "toptee")
KS = (10, 50)
_ENDS = ".?, "
_LINCIR = "Gu et al., CVPR 2024"
_PUBLISHED = (
    Published("LinCIR, ViT-L/14", {"R@10": 0.2628, "R@50": 0.4649}, _LINCIR),
    Published("LinCIR, ViT-H/14", {"R@10": 0.3626, "R@50": 0.5746}, _LINCIR),
    Published("LinCIR, ViT-bigG/14", {"R@10": 0.4511, "R@50": 0.6569}, _LINCIR),
    Published("CompoDiff, ViT-L/14", {"R@10": 0.3602, "R@50": 0.4864}, "Gu et al., TMLR 2024"),
)


def read(root: Path, split: str = "val") -> Benchmark:
    """Read the categories of a split: `captions/cap.dress.val.json` and `image_splits/split.dress.val.json`.

    Pictures are `images/NAME.png` or `images/NAME.jpg`. Categories without a file of captions are left out.
    Without `image_splits` rankings can be scored, but unknown names are not noticed, and no model can be run.

    Raises:
        SourceError: there is no category, or a file is missing, damaged or of another dataset.
    """
    tasks = []
    folders = ("captions/", "fashioniq/captions/", "")
    for category in CATEGORIES:
        name = f"cap.{category}.{split}.json"
        if path := first(root, *(f"{folder}{name}" for folder in folders)):
            splits = f"split.{category}.{split}.json"
            listing = first(path.parent, f"../image_splits/{splits}", splits)
            gallery = () if listing is None else _gallery(listing)
            tasks.append(Task(category, _queries(path), KS, gallery, listed=listing is not None))
    if not tasks:
        find(root, *(f"{folder}cap.{CATEGORIES[0]}.{split}.json" for folder in folders))
    pictures = first(root, "images", "fashioniq/images", "../images") or root / "images"
    whole = split == "val" and len(tasks) == len(CATEGORIES)
    return Benchmark(
        title="FashionIQ",
        split=split,
        root=root,
        tasks=tuple(tasks),
        file=lambda name: first(pictures, f"{name}.png", f"{name}.jpg") or pictures / f"{name}.png",
        values=_values,
        parse=_parse,
        form=_form,
        to_json=_to_json,
        division="category",
        choices=(
            ("captions", 'both, joined by " and ", in both orders: the mean of the two unit vectors, normalised'),
            ("reference", "left in the ranking"),
            ("gallery", "all pictures of the category's split list, not only references and targets"),
            ("mean", f"over {', '.join(task.name for task in tasks)}, each with the same weight"),
        ),
        published=_PUBLISHED if whole else (),
        elsewhere="" if whole else "Papers report the mean of all three categories of split val.",
    )


def both_orders(captions: Sequence[str]) -> tuple[str, ...]:
    """Return the text of a query, once for each order of its two captions."""
    stripped = [caption.strip(_ENDS) for caption in captions]
    return tuple(dict.fromkeys(" and ".join(each) for each in (stripped, stripped[::-1])))


def _queries(path: Path) -> tuple[Query, ...]:
    queries = []
    for i, row in enumerate(read_records(path)):
        captions = [str(each) for each in row.items("captions")]
        if len(captions) != 2:
            raise SourceError(
                f"{row.where} has {len(captions)} captions instead of 2; get the dataset's own file again"
            )
        right = (row.text("target"),) if "target" in row else ()
        queries.append(Query(str(i), (row.text("candidate"),), both_orders(captions), right))
    return tuple(queries)


def _gallery(path: Path) -> tuple[str, ...]:
    names = read_json(path)
    if not isinstance(names, list) or not all(text(each) for each in names):
        raise SourceError(f"{path} is no list of picture names; get the dataset's own file again")
    return tuple(names)


def _values(task: Task, rankings: Rankings, ks: Sequence[int]) -> Scores:
    found = relevance(rankings, (query.right for query in task.queries), max(ks))
    return {f"R@{k}": metrics.hits(found, k) for k in ks}


def _parse(tasks: Sequence[Task], content: Any, source: Path) -> Mapping[str, Rankings]:
    lists = by_task(tasks, content, source)
    return {task.name: checked(task, lists[task.name], source) for task in tasks if task.name in lists}


def _form(rankings: Mapping[str, Rankings], tasks: Sequence[Task]) -> Mapping[str, Any]:
    return {"": {task.name: [list(names[: task.depth]) for names in rankings[task.name]] for task in tasks}}


def _to_json(scores: Mapping[str, Scores], tasks: Sequence[Task]) -> Mapping[str, Any]:
    figures = {task.name: means(scores[task.name]) for task in tasks}
    return {**figures, "mean": average(list(figures.values()))}
