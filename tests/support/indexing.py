"""Helpers of the tests of sync: drawn pictures, tables, and short ways to run sync and to inspect the result."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.collections import open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync


@pytest.fixture
def photos(tmp_path):
    """A folder of five pictures, two of them in a subfolder."""
    folder = tmp_path / "photos"
    for i, name in enumerate(["a.jpg", "b.png", "c.webp", "inner/d.gif", "inner/e.bmp"]):
        draw(folder / name, i)
    return folder


@pytest.fixture
def shop(tmp_path):
    """An embedded collection that sync has yet to create."""
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    yield collection
    collection.close()


def draw(path, seed):
    """Draw a small picture of coloured blocks; each seed gives a different one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST).save(path)


def table(path, rows):
    """Write rows as csv, tsv or jsonl, by the suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def run(source, shop, model, **options):
    columns = {key: options.pop(key) for key in ("image_column", "id_column") if key in options}
    return sync(open_source(source, **columns), shop, model, **options)


def counts(report):
    return {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "failed": len(report.failed),
        "encoded": report.encoded,
    }


def only(**expected):
    return {"added": 0, "changed": 0, "unchanged": 0, "failed": 0, "encoded": 0, **expected}


def indexed(shop):
    """Return the names of the indexed pictures."""
    return sorted(Path(record.path).name for _, record in shop.scan())


def payloads(shop):
    """Return the user's columns by the picture's name."""
    points = shop.get([id_ for id_, _ in shop.scan()])
    return {Path(p.payload["_cir"]["path"]).name: {k: v for k, v in p.payload.items() if k != "_cir"} for p in points}
