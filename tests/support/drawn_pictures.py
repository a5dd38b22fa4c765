"""Drawn stand-ins for a benchmark's pictures: small pictures under the names of the real ones.

python -m tests.support.drawn_pictures FOLDER BENCHMARK [OTHERS]    draw all annotated pictures, and some others
"""

import random
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from PIL import Image, ImageDraw

from cir_vectorizer.evaluate.benchmark import Benchmark
from cir_vectorizer.evaluate.running import DRAWN

SIDE = 64
NOTE = "the pictures are drawn stand-ins under the names of the real ones"


def draw(path: Path) -> None:
    """Draw a picture that depends on the file's name alone."""
    rng = random.Random(path.name)

    def colour() -> tuple[int, int, int]:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    picture = Image.new("RGB", (SIDE, SIDE), colour())
    pen = ImageDraw.Draw(picture)
    for shape in (pen.ellipse, pen.rectangle):
        left, top = rng.randrange(SIDE // 2), rng.randrange(SIDE // 2)
        shape((left, top, left + rng.randrange(8, SIDE // 2), top + rng.randrange(8, SIDE // 2)), fill=colour())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def annotated(benchmark: Benchmark) -> list[str]:
    """Return the names of the pictures that the queries name: references, answers and own galleries."""
    names: dict[str, None] = {}
    for task in benchmark.tasks:
        for query in task.queries:
            names |= dict.fromkeys((*query.references, *query.right, *(query.gallery or ())))
    return list(names)


def draw_all(benchmark: Benchmark, names: Iterable[str]) -> int:
    """Draw pictures by name, and say so in a file; return their number."""
    (benchmark.root / DRAWN).write_text(NOTE + "\n")
    paths = {benchmark.file(name) for name in names}
    for path in paths:
        draw(path)
    return len(paths)


def others(benchmark: Benchmark, count: int, taken: Sequence[str]) -> list[str]:
    """Return names of gallery pictures that no query names; for CIRCO, free ids where the gallery is not listed."""
    known = set(taken)
    listed = [name for task in benchmark.tasks for name in task.gallery if name not in known]
    if benchmark.title == "CIRCO":
        listed += [name for name in map(str, range(1, 10 * count)) if name not in known]
    return listed[:count]


if __name__ == "__main__":
    folder, name, *more = sys.argv[1:]
    found: Benchmark = import_module(f"cir_vectorizer.evaluate.{name}").read(Path(folder))
    wanted = annotated(found)
    wanted += others(found, int(more[0]) if more else 0, wanted)
    print(f"{draw_all(found, wanted):,} pictures")
