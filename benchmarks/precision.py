"""Benchmark of precisions: speed and closeness of each to float32, in one run on one machine.

    python -m benchmarks.precision --data FOLDER            FOLDER holds photos
    python -m benchmarks.precision --data FOLDER --sync     whole syncs, with --precision auto and float32

Speed: pictures and texts a second in rounds that alternate; the medians of their ratios to float32 are printed. Closeness, on
the photos: least cosine of a picture's and a text's vector to the one in float32, and the share of the 10 nearest photos in
float32 that are nearest in the other precision. Random weights give photos nearly the same embedding, so for them the overlap
is of the embeddings less their mean, and says little about trained ones.
int8 needs the extra `int8`; it is loaded here without the check that `sync` and `serve` ask for.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import numpy as np
import torch

from benchmarks.service import sentence
from benchmarks.sync import spread
from cir_vectorizer import extras
from cir_vectorizer.backbones.precision import is_native, resolve
from cir_vectorizer.collections import open_collection
from cir_vectorizer.models import Vectorizer, int8, load
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync

MODELS = ("open_clip:ViT-B-32,pretrained=random", "tiny")
TEXT_BATCH = 64


def loaded(model: str) -> dict[str, Vectorizer]:
    """Return the model in each precision that can run here."""
    found = {each: load(model, "cpu", each, parts=()) for each in ("float32", "bfloat16")}
    if not extras.missing("int8"):
        backbone = found["float32"].backbone
        folder = int8.copy_folder(backbone)
        if not folder.is_dir():
            int8.make_copy(backbone, folder)
        text = load(model, "cpu", "auto", parts=()).backbone
        found["int8"] = Vectorizer(model, int8.Int8Backbone(text, folder), {}, "sum")
    return found


def rate(work: Callable[[], Any], count: int, seconds: float) -> float:
    """Return the items a second of a call that handles `count`."""
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds or not done:
        work()
        done += count
    return done / took


def speeds(works: Mapping[str, Callable[[], Any]], count: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return the rates of each precision, whose rounds alternate."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(rate(work, count, seconds))
    return found


def cosines(one: Any, other: Any) -> Any:
    """Return the cosine of each row of `one` to that of `other`."""
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def closeness(models: Mapping[str, Vectorizer], photos: list[Any], texts: list[str], centred: bool) -> None:
    """Print the closeness of each precision to float32."""
    pictures = {name: model.embed_images(photos) for name, model in models.items()}
    words = {name: model.embed_texts(texts) for name, model in models.items()}
    full = pictures["float32"]
    mean = full.mean(0) if centred else 0.0
    for name in list(models)[1:]:
        print(
            f"  {name:9} least cosine of pictures {cosines(full, pictures[name]).min():.5f}, of texts "
            f"{cosines(words['float32'], words[name]).min():.5f}; {int8.overlap(full - mean, pictures[name] - mean):.1%} of the "
            "10 nearest photos the same"
        )


def compare(model: str, photos: list[Any], batch: int, seconds: float, rounds: int) -> None:
    """Print speed and closeness of a model's precisions."""
    import random

    models = loaded(model)
    texts = [sentence(random.Random(i)) for i in range(256)]
    pixels = torch.stack([models["float32"].preprocess(photo) for photo in photos[:batch]])
    print(f"{model}: {len(photos)} photos, batches of {batch} and of {TEXT_BATCH} texts", flush=True)
    for items, count, works in (
        ("pictures", batch, {name: (lambda m=m: m.embed_pixels(pixels)) for name, m in models.items()}),
        ("texts", TEXT_BATCH, {name: (lambda m=m: m.embed_texts(texts[:TEXT_BATCH])) for name, m in models.items()}),
    ):
        found = speeds(works, count, seconds, rounds)
        for name, rates in found.items():
            ratio = statistics.median(ours / full for ours, full in zip(rates, found["float32"], strict=True))
            print(f"  {name:9}{statistics.median(rates):9.1f} {items}/s, {ratio:.2f} times float32", flush=True)
    closeness(models, photos, texts, centred="random" in model)


def syncs(model: str, photos: Path, count: int, rounds: int) -> None:
    """Print the rates of whole syncs of `count` files into an embedded Qdrant, in float32 and `auto`."""
    models = {each: load(model, "cpu", each, parts=()) for each in ("float32", "auto")}
    rates: dict[str, list[float]] = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as directory:
        folder = spread(photos, count, Path(directory) / "photos")
        for number in range(rounds):
            for name, vectorizer in models.items():
                collection = open_collection(f"qdrant:{directory}/{name}-{number}/shop")
                began = time.perf_counter()
                report = sync(open_source(folder), collection, vectorizer)
                rates[name].append(report.encoded / (time.perf_counter() - began))
                collection.close()
    ratio = statistics.median(ours / full for ours, full in zip(rates["auto"], rates["float32"], strict=True))
    shown = ", ".join(f"{name} {statistics.median(found):.1f}/s" for name, found in rates.items())
    print(
        f"sync of {count} files, {model}: {shown}; auto ({models['auto'].precision}) {ratio:.2f} times float32",
        flush=True,
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photos")
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each precision in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--count", type=int, default=160, help="files of a sync")
    given = parser.parse_args()
    cpu = torch.device("cpu")
    flag = "computes" if is_native("bfloat16", cpu) else "does not compute"
    print(
        f"this processor {flag} in bfloat16, auto is {str(resolve('auto', cpu)).removeprefix('torch.')}; "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    photos = [] if given.sync else [open_image(path) for path in sorted(given.data.iterdir()) if path.is_file()]
    for model in given.model:
        if given.sync:
            syncs(model, given.data, given.count, given.rounds)
        else:
            compare(model, photos, given.batch, given.seconds, given.rounds)


if __name__ == "__main__":
    main()
