"""Benchmark of training on as many captions as the papers use: memory, disk, and the time to the first step.

    python -m benchmarks.train_scale [--captions 10000000] [--objective lincir edits]

Writes generated product captions to a file, and trains on them for some steps with the command that a user would type, in a
process of its own. Reading, checking for duplicates, tagging and, for edits, making edits are part of the time.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BRANDS = [
    f"{a}{b}"
    for a in "al be cor dan el fan gra hal iv jo kel lum mor nor os".split()
    for b in "ra mont den sio".split()
]
ADJECTIVES = (
    "striped wooden small large shiny modern soft woollen plain floral cotton linen slim loose short long".split()
)
COLOURS = "red blue green black white yellow purple brown navy beige orange pink grey teal".split()
NOUNS = "dress shirt lamp jacket mug bag chair boot hat skirt vase umbrella scarf sweater belt watch".split()


def write_captions(path: Path, count: int) -> None:
    """Write `count` captions, nearly all different, a line each."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = (rng.choice(BRANDS), rng.choice(ADJECTIVES), rng.choice(COLOURS), rng.choice(NOUNS))
            file.write(f"{words[0]} {words[1]} {words[2]} {words[3]} for {rng.choice(('men', 'women'))} {number:x}\n")


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def memory(pids: list[int]) -> int:
    """Return the bytes of memory of processes that belong to them alone or are shared by them, files that are mapped left out."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has ended
            continue
        total += 1024 * sum(int(kib) for kib in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status))
    return total


def measure(objective: str, captions: Path, arguments: argparse.Namespace, folder: Path) -> None:
    out, scratch = folder / objective, folder / "tmp"
    scratch.mkdir()
    command = [
        sys.executable, "-u", "-m", "cir_vectorizer.cli", "train", "--objective", objective, "--captions", str(captions),
        "--model", arguments.model, "--steps", str(arguments.steps), "--batch-size", str(arguments.batch_size), "--out", str(out),
    ]  # fmt: skip
    started = time.monotonic()
    free = least = shutil.disk_usage(folder).free
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    said: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lambda lines=process.stderr: said.extend(lines), daemon=True)
    reader.start()
    peak, first = 0, None
    while process.poll() is None:
        peak = max(peak, memory(tree(process.pid)))
        least = min(least, shutil.disk_usage(folder).free)
        if first is None and (out / "training.pt").is_file():  # the first state is saved after the first step
            first = time.monotonic() - started
        time.sleep(0.2)
    reader.join()
    total = time.monotonic() - started
    if process.returncode or first is None:
        raise SystemExit("".join(said))
    print(f"{objective}: first step after {first:.0f} s, {arguments.steps} steps of {arguments.batch_size} after {total:.0f} s; "
          f"at most {peak / 2**30:.2f} GiB of memory and {(free - least) / 2**30:.2f} GiB of disk")  # fmt: skip
    print("".join(f"  {line}" for line in said), flush=True)
    shutil.rmtree(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--objective", nargs="+", choices=("lincir", "edits"), default=["lincir", "edits"])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        captions = Path(made) / "captions.txt"
        write_captions(captions, arguments.captions)
        size = captions.stat().st_size / 2**30
        print(f"{arguments.captions:,} captions, {size:.2f} GiB, on {os.cpu_count()} cores", flush=True)
        for objective in arguments.objective:
            measure(objective, captions, arguments, Path(made))


if __name__ == "__main__":
    main()
