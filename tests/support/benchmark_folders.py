"""Folders of benchmarks in their official layout: links to the real annotations, and small random ones."""

import json
import random
from pathlib import Path
from typing import Any

BENCHMARKS = ("circo", "cirr", "fashioniq", "genecis")
CATEGORIES = ("dress", "shirt", "toptee")
SETS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
ASPECTS = ("cardinality", "addition", "negation", "viewpoint")

_PLACES = {
    "circo": {"val.json": "annotations", "test.json": "annotations"},
    "cirr": {"cap.": "cirr/captions", "split.": "cirr/image_splits"},
    "fashioniq": {"cap.": "captions", "split.": "image_splits"},
    "genecis": {"change_object": "genecis", "focus_object": "genecis"},
}


def link_official(shared: Path, root: Path) -> Path:
    """Link the real annotations of `shared` into their official places; return the folder with one folder a benchmark."""
    for benchmark, places in _PLACES.items():
        for start, place in places.items():
            folder = root / benchmark / place
            folder.mkdir(parents=True, exist_ok=True)
            for file in (shared / "data" / benchmark).glob(f"{start}*"):
                (folder / file.name).symlink_to(file)
    return root


def write(path: Path, content: Any) -> Path:
    """Write JSON, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def random_circo(root: Path, rng: random.Random, queries: int = 12, pictures: int = 60) -> list[dict[str, Any]]:
    """Write a small CIRCO with a listed gallery; return its annotations."""
    ids = rng.sample(range(1, 500_000), pictures)
    rows = []
    for i in range(queries):
        right = rng.sample(ids, rng.randint(1, 12))
        rows.append(
            {
                "id": i,
                "reference_img_id": rng.choice(ids),
                "target_img_id": right[0],
                "gt_img_ids": right,
                "relative_caption": f"has {i} more lamps",
                "shared_concept": "a room",
                "semantic_aspects": rng.sample(ASPECTS, rng.randint(1, 3)),
            }
        )
    write(root / "annotations/val.json", rows)
    hidden = ("target_img_id", "gt_img_ids", "semantic_aspects")
    write(root / "annotations/test.json", [{k: v for k, v in row.items() if k not in hidden} for row in rows])
    write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": [{"id": i} for i in ids]})
    return rows


def random_cirr(root: Path, rng: random.Random, queries: int = 12, pictures: int = 70) -> tuple[list[Any], list[str]]:
    """Write a small CIRR; return its annotations and the names of its split."""
    names = [f"dev-{i}-0-img{i % 2}" for i in range(pictures)]
    rows = []
    for i in range(queries):
        members = rng.sample(names, 6)
        reference, target = rng.sample(members, 2)
        rows.append(
            {
                "pairid": 100 + i,
                "reference": reference,
                "target_hard": target,
                "caption": f"show {i} more dogs",
                "img_set": {"id": i, "members": members},
            }
        )
    write(root / "cirr/captions/cap.rc2.val.json", rows)
    write(root / "cirr/image_splits/split.rc2.val.json", {name: f"./dev/{name}.png" for name in names})
    hidden = [{k: v for k, v in row.items() if k != "target_hard"} for row in rows]
    write(root / "cirr/captions/cap.rc2.test1.json", hidden)
    write(root / "cirr/image_splits/split.rc2.test1.json", {name: f"./dev/{name}.png" for name in names})
    return rows, names


def random_fashioniq(
    root: Path, rng: random.Random, queries: int = 8, pictures: int = 70
) -> dict[str, tuple[Any, list[str]]]:
    """Write a small FashionIQ; return each category's annotations and split list."""
    found = {}
    for category in CATEGORIES:
        names = [f"B00{category[0].upper()}{i:04d}" for i in range(pictures)]
        rows = []
        for i in range(queries + rng.randint(0, 3)):
            candidate, target = rng.sample(names, 2)
            rows.append(
                {"candidate": candidate, "target": target, "captions": [f"is {i} shades darker", "has no sleeves."]}
            )
        write(root / f"captions/cap.{category}.val.json", rows)
        write(root / f"image_splits/split.{category}.val.json", names)
        found[category] = (rows, names)
    return found


def random_genecis(root: Path, rng: random.Random, queries: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Write a small GeneCIS; return the annotations of each task."""
    found = {}
    for task in SETS:
        rows = []
        for _ in range(queries):
            ids = rng.sample(range(1, 500_000), rng.randint(11, 16))
            pictures = [_picture(task, each, rng) for each in ids]
            rows.append({"condition": "lamp", "reference": pictures[0], "target": pictures[1], "gallery": pictures[2:]})
        write(root / f"genecis/{task}.json", rows)
        found[task] = rows
    return found


def genecis_id(picture: dict[str, Any]) -> int:
    """Return the id of a picture of GeneCIS."""
    return int(picture["val_image_id"] if "val_image_id" in picture else picture["image_id"])


def _picture(task: str, number: int, rng: random.Random) -> dict[str, Any]:
    if task.endswith("object"):
        return {"val_image_id": number}
    box = [rng.uniform(0, 20), rng.uniform(0, 20), rng.uniform(5, 30), rng.uniform(5, 30)]
    return {"image_id": str(number), "instance_bbox": box}
