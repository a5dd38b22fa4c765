"""Benchmark of sync: its speed compared with the bare model, and its memory.

    python benchmarks/sync.py --photos FOLDER
    python benchmarks/sync.py --photos FOLDER --only memory --sizes 1000 20000

Speed: pictures a second of the image tower alone on preloaded and preprocessed batches, and of a whole sync of as many
files (read, hashed, decoded, encoded, written) into an embedded Qdrant. Rounds of the two alternate; the medians are
compared.
Memory: peak resident memory of a sync of n pictures, minus that of the collection itself, which is measured by writing
n random vectors with the same payload in a separate process.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
VIT_B_32 = "open_clip:ViT-B-32,pretrained=random"


def spread(photos: Path, count: int, folder: Path) -> Path:
    """Make a folder of `count` files that repeat the photos in turn: each photo is copied once, then hard-linked."""
    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not found:
        raise SystemExit(f"{photos} holds no photos")
    store = folder / ".originals"
    store.mkdir(parents=True)
    copies = [Path(shutil.copy(path, store / path.name)) for path in found]
    for i, copy in zip(range(count), itertools.cycle(copies), strict=False):
        os.link(copy, folder / f"{i:06}{copy.suffix}")
    return folder


def speed(photos: Path, count: int, batch_size: int, rounds: int, model: str, workers: int | None) -> None:
    """Print the rates of the bare model and of sync, and their ratio."""
    import torch

    from cir_vectorizer.collections import open_collection
    from cir_vectorizer.models import load
    from cir_vectorizer.pictures.images import open_image
    from cir_vectorizer.sources import open_source
    from cir_vectorizer.sync import sync

    vectorizer = load(model, "cpu")
    bare, whole = [], []
    with tempfile.TemporaryDirectory() as directory:
        folder = spread(photos, count, Path(directory) / "photos")
        files = sorted(path for path in folder.iterdir() if path.is_file())[: 4 * batch_size]
        pixels = torch.stack([vectorizer.preprocess(open_image(path)) for path in files])
        batches = list(pixels.split(batch_size))
        vectorizer.embed_pixels(batches[0])
        for number in range(rounds):
            started = time.perf_counter()
            for batch in itertools.islice(itertools.cycle(batches), count // batch_size):
                vectorizer.embed_pixels(batch)
            bare.append(count // batch_size * batch_size / (time.perf_counter() - started))
            collection = open_collection(f"qdrant:{directory}/index-{number}/shop")
            started = time.perf_counter()
            report = sync(open_source(folder), collection, vectorizer, batch_size=batch_size, workers=workers)
            whole.append(report.encoded / (time.perf_counter() - started))
            collection.close()
            ratio = whole[-1] / bare[-1]
            print(f"round {number + 1}: bare {bare[-1]:.1f}/s, sync {whole[-1]:.1f}/s, {ratio:.3f}", flush=True)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(whole, bare, strict=True))
    print(
        f"{model}, {count:,} files, batch {batch_size}, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}: "
        f"bare {statistics.median(bare):.1f}/s, sync {statistics.median(whole):.1f}/s, ratio {ratio:.3f}"
    )


def memory(photos: Path, sizes: list[int], model: str) -> None:
    for count in sizes:
        with tempfile.TemporaryDirectory() as directory:
            spread(photos, count, Path(directory) / "photos")
            synced = peak("sync", directory, count, model)
        with tempfile.TemporaryDirectory() as directory:
            filled = peak("fill", directory, count, model)
        with tempfile.TemporaryDirectory() as directory:
            empty = peak("fill", directory, 0, model)
        data = filled - empty
        print(
            f"{count:,} pictures: peak {synced:,.0f} MiB, the collection's own data {data:,.0f} MiB, "
            f"sync without it {synced - data:,.0f} MiB",
            flush=True,
        )


def peak(what: str, directory: str, count: int, model: str) -> float:
    """Run a step of this script in a separate process and return its peak resident memory in MiB."""
    command = [sys.executable, __file__, "--step", what, directory, str(count), model]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.splitlines()[-1])


def step(what: str, directory: str, count: int, model: str) -> None:
    from cir_vectorizer.collections import ModelRecord, Point, SyncRecord, ensure, open_collection
    from cir_vectorizer.models import load
    from cir_vectorizer.sources import open_source, stable_id
    from cir_vectorizer.sync import sync

    vectorizer = load(model, "cpu")
    collection = open_collection(f"qdrant:{directory}/index/shop")
    if what == "sync":
        sync(open_source(Path(directory) / "photos"), collection, vectorizer)
    else:
        ensure(collection, ModelRecord.of(vectorizer))
        random = np.random.default_rng(0)
        for start in range(0, count, 32):
            points = []
            for i in range(start, min(start + 32, count)):
                name = f"{directory}/photos/{i:06}.jpg"
                record = SyncRecord(name, 30_000, time.time_ns(), f"{i:064}", 10.0, vectorizer.fingerprint, "0" * 16)
                vector = random.standard_normal(vectorizer.dim).astype(np.float32)
                points.append(Point(stable_id(name), vector, record.join({})))
            collection.upsert(points)
    collection.close()
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of real photos; required")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--count", type=int, default=640, help="number of files in the speed run")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--model", default=VIT_B_32, help="model of the speed run")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1_000, 20_000], help="numbers of pictures in the memory run"
    )
    parser.add_argument(
        "--memory-model", default="tiny", help="model of the memory run; small, so that 20,000 pictures take minutes"
    )
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        what, directory, count, model = arguments.step
        step(what, directory, int(count), model)
        return
    if arguments.photos is None:
        parser.error("--photos is missing; give --photos FOLDER")
    if arguments.only != "memory":
        speed(
            arguments.photos,
            arguments.count,
            arguments.batch_size,
            arguments.rounds,
            arguments.model,
            arguments.workers,
        )
    if arguments.only != "speed":
        memory(arguments.photos, arguments.sizes, arguments.memory_model)


if __name__ == "__main__":
    main()
