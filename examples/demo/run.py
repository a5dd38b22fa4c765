"""`make demo`: draw a shop, train LinCIR on its captions as published and edit-aware, index its pictures, and search it with pictures and words.

Each step is a command as a user would type it; the command is printed before it runs. Writes `demo/results.json` and
`demo/index.html`. Needs no network and takes minutes on two CPU cores.
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from cir_vectorizer.collections import open_collection
from cir_vectorizer.evaluate.metrics import paired
from cir_vectorizer.models import load, read_record
from examples.demo import page
from examples.demo.catalog import HELD_OUT, Product, caption, catalog, draw, queries, rough_captions
from examples.demo.evaluate import BestSum, Hits, Part, blank_edit, by_wording, evaluate, slices
from examples.demo.make_compodiff import lessons

PICTURES = 3000
QUERIES = 600
CAPTIONS_A_PICTURE = 8
PUBLISHED = ("--objective", "lincir", "--from-scratch")
TRAINING = ("--steps", "500", "--batch-size", "256", "--lr", "1e-3")
EDITS_TRAINING = ("--steps", "400")
TITLES = {
    "image_only": "image only",
    "text_only": "text only",
    "best_sum": "best swept sum",
    "lincir_published": "LinCIR as published",
    "lincir": "LinCIR, edit-aware (captions alone)",
    "compodiff": "CompoDiff",
    "true_caption": "true target caption",
}


def draw_one(job: tuple[int, Product, Path]) -> None:
    index, product, path = job
    draw(product, random.Random(f"7/{index}")).save(path, quality=92)


def captioned(products: list[Product]) -> list[Product]:
    """Return the products that captions describe, each as often as it is described; held-out ones are left out."""
    return [product for product in products if product not in HELD_OUT for _ in range(CAPTIONS_A_PICTURE)]


def shop_captions(products: list[Product]) -> list[str]:
    """Return the captions of a shop, repetitions included."""
    rng = random.Random(1)
    return [caption(product, rng) for product in captioned(products)]


def make_shop(folder: Path, products: list[Product]) -> Path:
    """Draw the pictures and write the table of products, the captions and the rough captions; return the table's path."""
    (folder / "pictures").mkdir(parents=True)
    jobs = [(i, product, folder / "pictures" / f"{i:05}.jpg") for i, product in enumerate(products)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw_one, jobs, chunksize=50))
    table = folder / "shop.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "category", "colour", "pattern"])
        for i, product, path in jobs:
            writer.writerow([i, path.relative_to(folder).as_posix(), product.category, product.colour, product.pattern])
    (folder / "captions.txt").write_text("\n".join(shop_captions(products)) + "\n", encoding="utf-8")
    rough = rough_captions(captioned(products), random.Random(2))
    (folder / "rough_captions.txt").write_text("\n".join(rough) + "\n", encoding="utf-8")
    return table


def cli(*arguments: str) -> None:
    """Print a cir-vectorizer command and run it."""
    print("\n$ cir-vectorizer " + " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "cir_vectorizer.cli", *arguments], check=True)


def raw_index(address: str) -> np.ndarray:
    """Read the pictures' unnormalised embeddings from the collection, in catalog order. (products, dim)"""
    collection = open_collection(address)
    try:
        points = collection.get([identity for identity, _ in collection.scan()])
    finally:
        collection.close()
    points.sort(key=lambda point: int(Path(point.payload["_cir"]["path"]).stem))
    return np.stack([point.vector * point.payload["_cir"]["norm"] for point in points]).astype(np.float32)


def narrow(title: str) -> Table:
    """Return an empty table that fits 80 columns."""
    return Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def show_table(hits: dict[str, Hits], best: BestSum, triplets: int, held_out: list[int]) -> None:
    """Print the recall over all queries, and R@1 over those whose target no training saw."""
    table = narrow(
        f"{QUERIES} composed queries over {PICTURES:,} pictures;\n{len(held_out)} ask for a combination that no training saw"
    )
    table.add_column("query vector", no_wrap=True)
    for heading in ("R@1", "R@10", f"R@1 of\nthose {len(held_out)}"):
        table.add_column(heading, no_wrap=True)
    table.add_column("note")
    notes = {
        "best_sum": f"{best.image_weight:g} image + {best.text_weight:g} text, swept on other queries",
        "lincir_published": "Φ saw only captions",
        "lincir": "trained on edits made of the captions",
        "compodiff": f"trained on {triplets:,} triplets",
        "true_caption": "a ceiling: the target described in words",
    }
    for name, title in TITLES.items():
        row, unseen = hits[name].recall(), hits[name].recall(held_out)
        recalls = (f"{value:.3f}" for value in (row["R@1"], row["R@10"], unseen["R@1"]))
        table.add_row(title, *recalls, notes.get(name, ""))
    Console().print(table)


def show_wordings(hits: dict[str, Hits], wordings: dict[str, Part]) -> None:
    """Print R@1 by wording."""
    table = narrow("R@1 by wording; no composer was trained on any of them")
    names = {
        "best_sum": "sum",
        "lincir_published": "LinCIR\npubl.",
        "lincir": "LinCIR\nedits",
        "compodiff": "Compo-\nDiff",
        "true_caption": "target",
    }
    shown = {name: title for name, title in names.items() if name in hits}
    table.add_column("wording", no_wrap=True)
    for heading in shown.values():
        table.add_column(heading, no_wrap=True)
    for wording, part in wordings.items():
        recalls = (f"{hits[name].recall(part.rows)['R@1']:.3f}" for name in shown)
        table.add_row(wording, *recalls)
    Console().print(table)
    if "lincir" in hits:
        worst = min(wordings, key=lambda wording: hits["lincir"].recall(wordings[wording].rows)["R@1"])
        value = hits["lincir"].recall(wordings[worst].rows)["R@1"]
        print(f"worst wording of edit-aware LinCIR: {worst!r}, R@1 {value:.3f}")


def summary(
    hits: dict[str, Hits],
    best: BestSum,
    parts: dict[str, list[int]],
    wordings: dict[str, Part],
    blank: dict[str, float],
) -> dict[str, object]:
    """Return the content of `demo/results.json`."""
    return {
        **{name: found.recall() for name, found in hits.items()},
        "by_slice": {
            part: {"queries": len(rows), **{name: found.recall(rows) for name, found in hits.items()}}
            for part, rows in parts.items()
        },
        "by_wording": {
            wording: {
                "queries": len(part.rows),
                "transitions": part.transitions,
                "transitions_in_triplets": part.known,
                "held_out": part.held_out,
                **{name: found.recall(part.rows) for name, found in hits.items()},
            }
            for wording, part in wordings.items()
        },
        "sum_settings": asdict(best),
        "blank_edit": blank,
        "lincir_minus_best_sum": difference(hits, "best_sum"),
        "lincir_minus_lincir_published": difference(hits, "lincir_published"),
    }


def difference(hits: dict[str, Hits], other: str) -> dict[str, object]:
    """Return the mean of LinCIR's R@1 minus another's, and its 95 % bootstrap interval."""
    found = paired(hits["lincir"].at[1], hits[other].at[1])
    return {"R@1": round(found.value, 4), "95%": [round(found.low, 4), round(found.high, 4)]}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    os.environ["HF_HUB_OFFLINE"] = "1"
    started = time.monotonic()
    for part in ("pictures", "index", "model", "published"):
        shutil.rmtree(folder / part, ignore_errors=True)
    products = catalog(PICTURES)
    print(f"drawing {PICTURES:,} pictures into {folder / 'pictures'} …", flush=True)
    table = make_shop(folder, products)
    model, address = str(folder / "model"), f"qdrant:{folder / 'index'}/shop"
    train = ("train", "--captions", str(folder / "captions.txt"), "--model", "tiny")
    cli(*train, "--out", str(folder / "published"), *PUBLISHED, *TRAINING)
    cli(*train, "--out", model, *EDITS_TRAINING)
    cli(
        "sync",
        str(table),
        "--to",
        address,
        "--model",
        model,
        "--id-column",
        "id",
        "--report",
        str(folder / "sync-report.json"),
    )
    cli(
        "search", "--in", address, "--model", model, "--image", str(folder / "pictures" / "00000.jpg"),
        "--text", "is red", "--limit", "5",
    )  # fmt: skip

    vectorizer, published = load(model), load(str(folder / "published"))
    validation, test = queries(products, QUERIES, seed=11), queries(products, QUERIES, seed=12)
    raw = raw_index(address)
    hits, best = evaluate(vectorizer, published, raw, products, validation, test)
    blank = blank_edit(vectorizer, raw, products, test)
    parts, wordings = slices(test), by_wording(test, products, lessons().transitions())
    results = summary(hits, best, parts, wordings, blank)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print()
    triplets = read_record(folder / "model")["composers"]["compodiff"]["training"]["triplets"]
    show_table(hits, best, triplets, parts["held_out"])
    show_wordings(hits, wordings)
    print(
        f"without the words, edit-aware LinCIR has the target at rank 1 in {blank['R@1']:.3f} of the queries, and the "
        f"picture's own product in {blank['own_product']:.3f}"
    )
    page.write(folder, vectorizer, raw, products, test, hits, best, triplets)
    print(f"\n{time.monotonic() - started:.0f} s in all; open {folder / 'index.html'}")
    print(f"for a report on this shop: cir-vectorizer evaluate catalog --in {address} --model {model}")


if __name__ == "__main__":
    main()
