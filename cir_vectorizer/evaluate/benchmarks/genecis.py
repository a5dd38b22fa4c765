"""GeneCIS (Vaze et al., CVPR 2023): four tasks whose queries each have a small gallery of their own."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.benchmarks.annotations import Record, find, first, number, read_records, record
from cir_vectorizer.evaluate.benchmarks.base import (
    Benchmark,
    Query,
    Rankings,
    Scores,
    Task,
    by_task,
    checked,
    means,
    relevance,
)
from cir_vectorizer.evaluate.report import Published

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""
TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
KS = (1, 2, 3)
DILATION = 0.7
"""Share of the box's width and height that is shown on each side of it."""
_COCO_FOLDERS = ("val2017", "coco/val2017", "COCO2017/val2017", "../val2017", "../coco/val2017")
_VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2", "VG_100K_all", "visual_genome", "../VG_100K", "../VG_100K_2")
_PUBLISHED = (Published("LinCIR, ViT-L/14", {"R@1": 0.1219}, "Gu et al., CVPR 2024, mean of the four tasks"),)


def read(root: Path, split: str = "val") -> Benchmark:
    """Read the tasks whose files the folder has: `genecis/change_object.json` and so on.

    Objects are pictures of COCO in `val2017`; attributes are boxes in pictures of Visual Genome in `VG_100K` and
    `VG_100K_2`.

    Raises:
        SourceError: there is no task, or a file is missing, damaged or of another dataset.
    """
    if split != "val":
        raise SourceError(f"GeneCIS has no split {split!r}; leave --split out")
    boxes: dict[str, Box] = {}
    tasks = []
    for name in TASKS:
        if path := first(root, f"genecis/{name}.json", f"{name}.json"):
            tasks.append(Task(name, tuple(_query(i, row, boxes) for i, row in enumerate(read_records(path))), KS))
    if not tasks:
        find(root, "genecis/change_object.json", split=False)
    whole = len(tasks) == len(TASKS)
    return Benchmark(
        title="GeneCIS",
        split=split,
        root=root,
        tasks=tuple(tasks),
        file=lambda name: _file(root, name, name in boxes),
        values=_values,
        parse=_parse,
        form=_form,
        to_json=_to_json,
        division="task",
        view=lambda name, picture: around(picture, boxes[name]) if name in boxes else picture,
        choices=(
            ("captions", "the condition"),
            ("reference", "not in the gallery"),
            ("gallery", "each query's own: the target and its distractors; of equal scores the target comes last"),
            ("mean", f"over {', '.join(task.name for task in tasks)}, each with the same weight"),
        ),
        published=_PUBLISHED if whole else (),
        elsewhere="" if whole else f"Papers report the mean of all four tasks; this folder has {len(tasks)} of them.",
    )


def around(picture: "Image.Image", box: Box) -> "Image.Image":
    """Return the part of a picture around a box, in the middle of a black square.

    On the left and at the top the margin is 0.7 of the box's side, less at the picture's edge; the part is 1.7 sides long.
    """
    from PIL import Image

    starts = [max(0.0, start - DILATION * side) for start, side in zip(box[:2], box[2:], strict=True)]
    ends = [
        max(min(edge, start + (1 + DILATION) * side), start + 1)
        for edge, start, side in zip(picture.size, starts, box[2:], strict=True)
    ]
    part = picture.crop((round(starts[0]), round(starts[1]), round(ends[0]), round(ends[1])))
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def _query(i: int, row: Record, boxes: dict[str, Box]) -> Query:
    distractors = [
        _name(record(each, f"{row.where}, gallery[{at}]"), boxes) for at, each in enumerate(row.items("gallery"))
    ]
    target, reference = _name(row.inner("target"), boxes), _name(row.inner("reference"), boxes)
    return Query(str(i), (reference,), (row.text("condition"),), (target,), gallery=(*distractors, target))


def _name(picture: Record, boxes: dict[str, Box]) -> str:
    """Return the picture's name: its id, and its box if it has one."""
    if "val_image_id" in picture:
        return picture.number("val_image_id")
    numbers = [float(each) for each in picture.items("instance_bbox") if isinstance(each, int | float)]
    if len(numbers) != 4:
        raise SourceError(f"{picture.where}: instance_bbox is not four numbers; get the dataset's own file again")
    left, top, width, height = numbers
    name = f"{picture.number('image_id')} [{left:g}, {top:g}, {width:g}, {height:g}]"
    boxes[name] = (left, top, width, height)
    return name


def _id(name: str) -> str:
    return name.partition(" ")[0]


def _file(root: Path, name: str, boxed: bool) -> Path:
    folders = _VISUAL_GENOME_FOLDERS if boxed else _COCO_FOLDERS
    file = f"{_id(name)}.jpg" if boxed else f"{int(name):012d}.jpg"
    return first(root, *(f"{folder}/{file}" for folder in folders)) or root / folders[0] / file


def _values(task: Task, rankings: Rankings, ks: Sequence[int]) -> Scores:
    found = relevance(rankings, (query.right for query in task.queries), max(ks))
    return {f"R@{k}": metrics.hits(found, k) for k in ks}


def _parse(tasks: Sequence[Task], content: Any, source: Path) -> Mapping[str, Rankings]:
    found = {}
    lists = by_task(tasks, content, source)
    for task in tasks:
        if task.name in lists:
            pairs = zip(task.queries, lists[task.name], strict=True)
            found[task.name] = checked(task, [_named(query, ids) for query, ids in pairs], source)
    return found


def _named(query: Query, ids: Any) -> Any:
    """Return a ranking with names in place of ids; an id of several boxes takes their names in turn, the target first."""
    if not isinstance(ids, list):
        return ids
    names = defaultdict(list)
    for name in (query.gallery or ())[::-1]:
        names[_id(name)].append(name)
    named: list[Any] = []
    for value in ids:
        known = names.get(number(value) or "", [])
        named.append(known.pop(0) if len(known) > 1 else known[0] if known else number(value) or value)
    return named


def _form(rankings: Mapping[str, Rankings], tasks: Sequence[Task]) -> Mapping[str, Any]:
    return {"": {task.name: [[int(_id(name)) for name in names] for names in rankings[task.name]] for task in tasks}}


def _to_json(scores: Mapping[str, Scores], tasks: Sequence[Task]) -> Mapping[str, Any]:
    return {task.name: means(scores[task.name]) for task in tasks}
