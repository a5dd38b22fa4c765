"""Benchmark of syncing a large source into a Qdrant server: memory, rate, and the cost of a second sync.

    python benchmarks/sync_large.py                      100,000 drawn pictures; half an hour on two cores
    python benchmarks/sync_large.py --count 10000

It starts a Qdrant server (`qdrant` on PATH) and prints

- the resident memory of the syncing process after each tenth of the pictures;
- pictures a second of the whole sync, and of the image tower alone on preloaded and preprocessed batches, measured
  before and after the sync in the same process;
- the seconds of a second sync, of a bare listing of the source (names, sizes and times) and of a bare scroll of ids and
  fingerprints with qdrant-client: medians of alternating runs.
"""

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).parents[1]))  # for examples and tests
ROUNDS = 3
SIDE = 48
PER_FOLDER = 1000


def draw_shop(folder: Path, count: int) -> None:
    """Write `count` different small pictures: drawn products, each copy shifted and tinted."""
    from PIL import Image

    from examples.demo.catalog import SEEN, draw

    drawn = [np.asarray(draw(product, random.Random(i), SIDE)) for i, product in enumerate(SEEN[:200])]
    noise = np.random.default_rng(0)
    for i in range(count):
        if i % PER_FOLDER == 0:
            (folder / f"{i // PER_FOLDER:03}").mkdir(parents=True)
        tint = noise.integers(-24, 25, 3)
        shifted = np.roll(drawn[i % len(drawn)], tuple(noise.integers(0, SIDE, 2)), (0, 1))
        picture = Image.fromarray(np.clip(shifted + tint, 0, 255).astype(np.uint8))
        picture.save(folder / f"{i // PER_FOLDER:03}" / f"{i:06}.png", compress_level=1)


def first(folder: Path, address: str, model: str, batch_size: int, count: int) -> None:
    """Sync for the first time, and print memory and rates."""
    import psutil
    import torch

    from cir_vectorizer.collections import open_collection
    from cir_vectorizer.models import load
    from cir_vectorizer.pictures.images import open_image
    from cir_vectorizer.sources import open_source
    from cir_vectorizer.sync import Report, sync

    vectorizer = load(model, "cpu")
    files = list(itertools.islice(folder.rglob("*.png"), 8 * batch_size))
    pixels = torch.stack([vectorizer.preprocess(open_image(path)) for path in files])
    batches = list(pixels.split(batch_size))

    def bare() -> float:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < 10:
            for batch in batches:
                vectorizer.embed_pixels(batch)
                done += len(batch)
        return done / (time.perf_counter() - started)

    process, seen = psutil.Process(), [0]

    def watch(report: Report) -> None:
        if report.handled >= seen[0]:
            print(f"{report.handled:9,} pictures: {process.memory_info().rss / 2**20:,.0f} MiB", flush=True)
            seen[0] += count // 10

    vectorizer.embed_pixels(batches[0])
    before = bare()
    collection = open_collection(address)
    started = time.perf_counter()
    report = sync(open_source(folder), collection, vectorizer, batch_size=batch_size, on_progress=watch)
    rate = report.encoded / (time.perf_counter() - started)
    collection.close()
    after = bare()
    assert (report.added, len(report.failed)) == (count, 0), report
    print(
        f"first sync: {rate:,.1f} pictures/s; the image tower alone {before:,.1f}/s before and {after:,.1f}/s after it: "
        f"{rate / statistics.mean([before, after]):.2f} of it"
    )


def second(folder: Path, address: str, model: str, count: int) -> None:
    """Sync again, and print its time and the times of a bare listing and a bare scroll."""
    from qdrant_client import QdrantClient

    from cir_vectorizer.collections import open_collection, parse_address
    from cir_vectorizer.models import load
    from cir_vectorizer.sources import open_source
    from cir_vectorizer.sync import sync

    vectorizer = load(model, "cpu")
    place = parse_address(address)
    client = QdrantClient(host=place.host, port=place.port, timeout=60)
    client.get_collections()

    def listing() -> None:
        found = 0
        for parent, _, names in os.walk(folder):
            for name in names:
                os.stat(os.path.join(parent, name))
                found += 1
        assert found == count

    def scroll(page: int) -> None:
        found, offset = 0, None
        while True:
            points, offset = client.scroll(
                place.collection, limit=page, offset=offset, with_payload=["_cir.fingerprint"], with_vectors=False
            )
            found += len(points)
            if offset is None:
                break
        assert found == count

    def again() -> None:
        collection = open_collection(address)
        report = sync(open_source(folder), collection, vectorizer)
        collection.close()
        assert (report.unchanged, report.encoded) == (count, 0), report

    jobs: dict[str, Callable[[], None]] = {
        "listing": listing,
        "scroll of 1,000": lambda: scroll(1000),
        "scroll of 10,000": lambda: scroll(10_000),
        "second sync": again,
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    client.close()
    median = {name: statistics.median(values) for name, values in seconds.items()}
    bare = median["listing"] + min(median["scroll of 1,000"], median["scroll of 10,000"])
    print("; ".join(f"{name} {value:.2f} s" for name, value in median.items()))
    print(f"second sync: nothing encoded, {median['second sync'] / bare:.2f} of listing and scroll")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--step", nargs=2, metavar=("FOLDER", "ADDRESS"), help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        folder, address = Path(arguments.step[0]), arguments.step[1]
        if arguments.again:
            second(folder, address, arguments.model, arguments.count)
        else:
            first(folder, address, arguments.model, arguments.batch_size, arguments.count)
        return

    from tests.support import servers

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "shop"
        started = time.perf_counter()
        draw_shop(folder, arguments.count)
        print(f"{arguments.count:,} pictures drawn in {time.perf_counter() - started:,.0f} s", flush=True)
        (Path(directory) / "server").mkdir()
        with servers.qdrant(Path(directory) / "server", "http://127.0.0.1:9/qdrant") as server:
            address = f"qdrant://{server.host}:{server.port}/large"
            command = [sys.executable, __file__, "--step", str(folder), address, "--count", str(arguments.count)]
            command += ["--model", arguments.model, "--batch-size", str(arguments.batch_size)]
            subprocess.run(command, check=True)
            subprocess.run([*command, "--again"], check=True)


if __name__ == "__main__":
    main()
