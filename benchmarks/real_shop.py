"""Benchmark on a real shop: composed queries on photos that no training saw; attributes tell which answers are right.

    python -m benchmarks.real_shop --data DIR [--compodiff]

DIR holds `products.csv` (id, image, title, gender, articleType, baseColour), the photos that it names, and
`titles.txt`, a title a line. A small CLIP is trained on three quarters of the products, on photos with titles and with
attribute phrases; the other quarter is the shop that is searched. A query takes a photo of the shop and asks for another
colour, type or gender. A hit is any other product with exactly the type, colour and gender asked for. LinCIR's Φ is
trained on the titles alone. Trained models are cached, under names derived from their settings.

The small CLIP's text tower was trained on descriptions with the queries' verbs ("this one comes in red"), as a large CLIP
is; no composer was trained on edits with them.
"""

import argparse
import csv
import json
import math
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.products import (
    HELD_OUT_SHARE,
    PHRASES,
    WORDINGS,
    Item,
    Product,
    Query,
    is_held_out,
    make_queries,
    phrases,
    read_items,
)
from cir_vectorizer.backbones import BackboneSpec, load_backbone, tiny
from cir_vectorizer.backbones import open_clip as open_clip_loader
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.evaluate.metrics import Values, estimate, paired
from cir_vectorizer.models import load
from cir_vectorizer.models.vectorizer import Vectorizer
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.captions.reading import read_captions
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from cir_vectorizer_trainer.phi.training import train as train_phi
from examples.demo.evaluate import KS, Hits, Vectors, composed_vectors, score, unit
from examples.demo.make_tiny import CONFIG as TINY
from examples.demo.make_tiny import NORM, Batches, normalise, rescale, text_encoder, train, used_tokens

CONFIG = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 96, "patch_size": 12}}
SIDE, KEPT, LEAST = CONFIG["vision_cfg"]["image_size"], 112, 80
"""Sides in pixels of the small CLIP's input, of the stored photos, and of the smallest random crop."""
QUERIES = 600
CLIP_SETTINGS = {"steps": 2000, "batch": 192, "lr": 1.5e-3, "titles": 0.5, "seed": 0}
PUBLISHED, EDIT_AWARE, COMPODIFF = "LinCIR as published", "LinCIR, edit-aware", "compodiff"
PHI_SETTINGS = {"steps": 1000, "batch_size": 256, "lr": 1e-3, "seed": 0}


def _shrunk(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((KEPT, KEPT), Image.Resampling.BICUBIC))


def shrunk(items: Sequence[Item]) -> npt.NDArray[np.uint8]:
    """Read the products' photos, `KEPT` pixels wide and high. (items, side, side, 3)"""
    with ProcessPoolExecutor() as pool:
        return np.stack(list(pool.map(_shrunk, [item.image for item in items], chunksize=64)))


def batches(items: Sequence[Item], size: int, titled: float) -> Batches:
    """Return a function that draws photos with titles or attribute phrases, no two photos of products that look the same.

    Args:
        titled: the share of titles among the texts.
    """
    rows_of: dict[Product, list[int]] = {}
    for row, item in enumerate(items):
        rows_of.setdefault(item.product, []).append(row)
    different = sorted(rows_of, key=str)

    def draw(rng: random.Random) -> tuple[list[str], list[int]]:
        rows = [rng.choice(rows_of[product]) for product in rng.sample(different, size)]
        by_title = [rng.random() < titled for _ in rows]
        texts = [
            items[row].title if title else rng.choice(phrases(items[row].product))
            for row, title in zip(rows, by_title, strict=True)
        ]
        return texts, rows

    return draw


def train_clip(items: Sequence[Item], path: Path) -> None:
    """Train the small CLIP on photos, titles and attribute phrases, and write it in the format of the loader `tiny`."""
    pixels = shrunk(items)
    torch.manual_seed(CLIP_SETTINGS["seed"])
    model = tiny.build(CONFIG)
    backbone = open_clip_loader.from_model(BackboneSpec("tiny", ""), model, CONFIG, torch.device("cpu"), torch.float32)
    model.requires_grad_(True)
    crops = random.Random(0)

    def encode(rows: list[int]) -> Tensor:
        return backbone.encode_images(normalise(np.stack([_cropped(pixels[row], crops) for row in rows]), backbone))

    drawn = batches(items, CLIP_SETTINGS["batch"], CLIP_SETTINGS["titles"])
    train(
        text_encoder(backbone), list(model.parameters()), model.logit_scale, encode, drawn, CLIP_SETTINGS["steps"],
        CLIP_SETTINGS["lr"], CLIP_SETTINGS["seed"],
    )  # fmt: skip
    model.requires_grad_(False)
    titles = [item.title for item in items]
    whole = np.stack([_resized(picture, 0, 0, KEPT) for picture in pixels[:2000]])
    rescale(model, backbone, normalise(whole, backbone), titles[:2000])
    texts = titles + [text for product in {item.product for item in items} for text in phrases(product)]
    tiny.save(path, model, CONFIG, used_tokens(backbone, texts), NORM)


def _cropped(picture: npt.NDArray[np.uint8], rng: random.Random) -> npt.NDArray[np.uint8]:
    side = rng.randint(LEAST, KEPT)
    cut = _resized(picture, rng.randint(0, KEPT - side), rng.randint(0, KEPT - side), side)
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def _resized(picture: npt.NDArray[np.uint8], left: int, top: int, side: int) -> npt.NDArray[np.uint8]:
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))


def embed(model: Vectorizer, items: Sequence[Item]) -> Vectors:
    """Embed photos as the service and `sync` do. (items, dim), unnormalised"""
    parts = []
    for at in range(0, len(items), 256):
        opened = [Image.open(item.image).convert("RGB") for item in items[at : at + 256]]
        parts.append(model.embed_images(opened))
    return np.concatenate(parts)


def sums(images: Vectors, texts: Vectors, weight: float) -> Vectors:
    """Return weight · picture + (1 − |weight|) · text, where both are unit vectors. (queries, dim)"""
    return weight * unit(images) + (1 - abs(weight)) * unit(texts)


def best_weight(
    images: Vectors, texts: Vectors, queries: Sequence[Query], products: Sequence[Product], index: Vectors
) -> float:
    """Return the picture's weight, from −1 to 1 in steps of 0.05, with the highest R@10."""
    trials = [round(0.05 * step, 2) for step in range(-20, 21)]
    return max(trials, key=lambda w: score(sums(images, texts, w), queries, products, index).at[10].mean())


def vectors_of(
    model: Vectorizer,
    published: Vectorizer,
    raw: Vectors,
    products: Sequence[Product],
    queries: Sequence[Query],
    tuned_on: Sequence[Query],
    titles: Sequence[str],
) -> tuple[dict[str, Vectors], dict[str, float]]:
    """Return the query vectors of each row of the table, and the swept weights of the sums."""  # fmt: skip
    index = unit(raw)
    means = index.mean(axis=0), model.embed_texts(titles[:2000]).mean(axis=0)
    rows: dict[str, Vectors] = {"image only": raw[[query.reference for query in queries]]}
    rows["text only"] = model.embed_texts([query.text for query in queries])
    weights = {}
    for name, (image_mean, text_mean) in (("best sum", (0.0, 0.0)), ("best sum, centred", means)):
        parts = [
            (
                index[[query.reference for query in some]] - image_mean,
                model.embed_texts([q.text for q in some]) - text_mean,
            )
            for some in (tuned_on, queries)
        ]
        weights[name] = best_weight(*parts[0], tuned_on, products, index)
        rows[name] = sums(*parts[1], weights[name])
    rows[PUBLISHED] = composed_vectors(published, raw, queries, "lincir")
    rows[EDIT_AWARE] = composed_vectors(model, raw, queries, "lincir")
    if COMPODIFF in model.composers:
        rows[COMPODIFF] = composed_vectors(model, raw, queries, COMPODIFF)
    rows["target in words"] = model.embed_texts([f"a photo of {q.target} for {q.target.gender}" for q in queries])
    return rows, weights


def cached(folder: Path, name: str, settings: Mapping[str, object], *parts: str) -> Path:
    """Return the path in the cache of something made with these settings."""
    return folder / f"{name}-{PartsDigest(json.dumps(settings, sort_keys=True), *parts).hexdigest()[:12]}"


def split(data: Path) -> tuple[list[Item], list[Item]]:
    """Return the products of the shop, and those to train on."""
    items = read_items(data)
    shop, learnt = ([item for item in items if is_held_out(item) == held_out] for held_out in (True, False))
    print(f"{len(items):,} products: {len(learnt):,} to train on, {len(shop):,} in the shop", flush=True)
    return shop, learnt


def identity(items: Sequence[Item]) -> str:
    """Return a text that tells these products from others, for names in the cache."""
    return "\n".join(f"{item.image.name}\t{item.title}\t{item.product}" for item in items)


def trained_clip(learnt: Sequence[Item], cache: Path) -> BackboneSpec:
    """Train the small CLIP if it is not cached."""
    cache.mkdir(parents=True, exist_ok=True)
    recipe = {**CLIP_SETTINGS, "config": CONFIG, "phrases": PHRASES, "share": HELD_OUT_SHARE, "crops": [KEPT, LEAST]}
    clip = cached(cache, "clip", recipe, identity(learnt)).with_suffix(".safetensors")
    if not clip.is_file():
        began = time.monotonic()
        train_clip(learnt, clip)
        print(f"small CLIP trained in {time.monotonic() - began:.0f} s", flush=True)
    return BackboneSpec("tiny", str(clip))


def trained_phi(
    spec: BackboneSpec,
    captions: Path,
    titles: Sequence[str],
    cache: Path,
    settings: Mapping[str, Any] = PHI_SETTINGS,
    for_edits: Sequence[object] = (),
    device: str = "cpu",
) -> tuple[Path, Path]:
    """Train Φ on titles, as published if it is not cached and then on edits; return both models' folders.

    Args:
        captions: file with the titles, a title a line.
        settings: of the training as published.
        for_edits: further options of `train` on edits.
    """
    backbone = load_backbone(spec, device)
    folder = cached(cache, "model", settings, backbone.text.fingerprint, *titles)
    if not (folder / "model.json").is_file():
        began = time.monotonic()
        chosen = Hyperparameters(**{key: value for key, value in settings.items() if key != "steps"})
        train_phi(PhiTrainer(backbone, titles, BuiltinTagger(), chosen), settings["steps"], folder)
        print(f"Φ trained on {len(titles):,} titles in {time.monotonic() - began:.0f} s", flush=True)
    edited = folder.with_name(f"{folder.name}-edits")
    shutil.rmtree(edited, ignore_errors=True)  # its settings are the command's defaults, which the cache doesn't know
    began = time.monotonic()
    run("train", "--captions", captions, "--model", folder, "--out", edited, "--device", device, *for_edits)
    print(f"edit-aware training in {time.monotonic() - began:.0f} s", flush=True)
    return folder, edited


def read_titles(data: Path) -> list[str]:
    return list(read_captions([str(data / "titles.txt")]).captions)


def run(*command: object) -> None:
    """Run a command as a user would type it, and print its output."""
    from click.testing import CliRunner

    from cir_vectorizer.cli import main as cli

    result = CliRunner().invoke(cli, [*map(str, command)], catch_exceptions=False)
    print(result.output, flush=True)
    if result.exit_code:
        raise SystemExit(result.exit_code)


def _with_compodiff(learnt: Sequence[Item], folder: Path) -> Path:
    """Train CompoDiff on triplets of the training products, with the commands that a user would type."""
    out = folder.with_name(f"{folder.name}-compodiff")
    if (out / "model.json").is_file():
        return out
    table, triplets = out.with_suffix(".csv"), out.with_suffix(".triplets.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "type", "colour", "gender"])
        for item in learnt:
            product = item.product
            writer.writerow([item.image.absolute(), item.title, product.type, product.colour, product.gender])
    run("make-triplets", table, "--columns", "type,colour,gender", "--out", triplets, "--count", 40_000)
    run(
        "train-compodiff", "--pairs", table, "--triplets", triplets, "--triplet-columns", "reference,text,target",
        "--pair-columns", "image,text", "--model", folder, "--out", out, "--prior-steps", 500, "--steps", 2500,
        "--masks", 0,
    )  # fmt: skip
    return out


def shown(hits: Values) -> str:
    """Return a recall with its 95 % interval, as text."""
    found = estimate(hits)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def report(found: Mapping[str, Hits], queries: Sequence[Query], weights: Mapping[str, float]) -> None:
    """Print all rows with intervals, R@10 by kind and by wording, and the composers' margins over the best sum."""
    console = Console(width=140)
    table = Table(title=f"{len(queries)} composed queries")
    kinds = {kind: [i for i, query in enumerate(queries) if query.kind == kind] for kind in WORDINGS}
    for heading in (
        "query vector",
        "R@1 [95 %]",
        "R@10 [95 %]",
        *(f"R@10 {k} ({len(rows)})" for k, rows in kinds.items()),
    ):
        table.add_column(heading)
    for name, hits in found.items():
        title = f"{name} ({weights[name]:g} picture)" if name in weights else name
        by_kind = (f"{hits.at[10][rows].mean():.3f}" for rows in kinds.values())
        table.add_row(title, *(shown(hits.at[k]) for k in KS), *by_kind)
    console.print(table)
    table = Table(title="R@10 by wording; no composer was trained on any of them")
    for heading in ("wording", "queries", *found):
        table.add_column(heading)
    for kind, wordings in WORDINGS.items():
        for wording in wordings:
            rows = [i for i in kinds[kind] if queries[i].wording == wording]
            name = f"{kind}: {wording.format(v='…', a='a …')}"
            table.add_row(name, str(len(rows)), *(f"{hits.at[10][rows].mean():.3f}" for hits in found.values()))
    console.print(table)
    best = max(weights, key=lambda name: found[name].at[10].mean())
    pairs = [(EDIT_AWARE, PUBLISHED), (EDIT_AWARE, best), (PUBLISHED, best)]
    for ours, theirs in (*pairs, *([(COMPODIFF, EDIT_AWARE)] if COMPODIFF in found else [])):
        for k in KS:
            gain = paired(found[ours].at[k], found[theirs].at[k])
            print(f"{ours} - {theirs}, R@{k}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")


def judge(published: Path, edited: Path, shop: Sequence[Item], titles: Sequence[str], count: int) -> None:
    """Ask `count` composed queries of the shop, and print the report."""
    model, products = load(str(edited), "cpu"), [item.product for item in shop]
    raw = embed(model, shop)
    tuned_on, queries = (make_queries(products, count, seed) for seed in (11, 12))
    rows, weights = vectors_of(model, load(str(published), "cpu"), raw, products, queries, tuned_on, titles)
    found = {name: score(vectors, queries, products, unit(raw)) for name, vectors in rows.items()}
    report(found, queries, weights)
    ceiling = found["target in words"].at[10].mean()
    if not (ceiling >= 0.70 and math.isfinite(ceiling)):
        print(f"the target in words finds {ceiling:.3f}: this encoder is not good enough to judge by (0.70 wanted)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with products.csv, titles.txt and photos")
    parser.add_argument("--cache", type=Path, default=Path("build/real_shop"), help="folder for trained models")
    parser.add_argument("--compodiff", action="store_true", help="train CompoDiff too, on triplets from the attributes")
    parser.add_argument("--queries", type=int, default=QUERIES)
    arguments = parser.parse_args()
    began = time.monotonic()
    data, (shop, learnt), titles = arguments.data, split(arguments.data), read_titles(arguments.data)
    published, edited = trained_phi(trained_clip(learnt, arguments.cache), data / "titles.txt", titles, arguments.cache)
    if arguments.compodiff:
        edited = _with_compodiff(learnt, edited)
    judge(published, edited, shop, titles, arguments.queries)
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
