"""Benchmark of searches with a second score on real servers: their time as a multiple of a plain vector search.

    python -m benchmarks.second_signals_speed
    python -m benchmarks.second_signals_speed --count 5000 --database qdrant

It starts a Qdrant and a Weaviate server (`qdrant` and `weaviate` on PATH) and fills a collection with random unit vectors
in clusters, one for the picture of an object and one for its text; a tenth of the objects has no text. Then it runs, one
after another for each query,

- a plain search by the picture's vector, with payloads;
- a fused search by picture and text;
- a search whose first 500 candidates are scored again by an unwanted text, without and with the objects' texts.

It prints the median time of each and its ratio to that of the plain search, and the share of the exact ten best by the
fused score that the fused search finds. No query is composed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from cir_vectorizer.collections import (
    RECORD_KEY,
    Address,
    Ask,
    Collection,
    CreateOptions,
    Hit,
    ModelRecord,
    OpenOptions,
    Point,
    TextShare,
    open_collection,
)
from cir_vectorizer.collections.rescoring import Background, Words, rescored
from tests.support import servers
from tests.support.databases import uid

DIM, CLUSTERS, WEIGHT = 512, 200, 0.3
NOWHERE = "http://127.0.0.1:9"


def unit(rows: np.ndarray) -> np.ndarray:
    made: np.ndarray = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return made


BLOCK = 20
"""Queries of one kind in a row, before those of the next kind: a service, too, gets mostly one kind."""


class Shop:
    """Vectors of `count` objects: pictures in clusters, and texts near to them but apart from all pictures."""

    def __init__(self, count: int) -> None:
        self.noise = np.random.default_rng(0)
        centres = unit(self.noise.normal(size=(CLUSTERS, DIM)))
        of = self.noise.integers(0, CLUSTERS, count)
        self.pictures = unit(centres[of] + 0.04 * self.noise.normal(size=(count, DIM)))
        apart = unit(self.noise.normal(size=DIM))
        self.texts = unit(self.pictures + apart + 0.04 * self.noise.normal(size=(count, DIM)))
        self.has_text = np.arange(count) % 10 != 0

    def points(self) -> Iterator[Point]:
        for i in range(len(self.pictures)):
            payload = {
                "title": f"Product {i} of soft red cotton with long sleeves",
                "category": f"category {i % 20}",
                "brand": f"brand {i % 50}",
                "price": i % 100 + 0.5,
                "url": f"https://shop.example/products/{i}",
                RECORD_KEY: {"path": f"/photos/{i}.jpg", "size": 123_456, "sha256": "ab" * 32, "norm": 10.5},
            }
            text = self.texts[i] if self.has_text[i] else None
            yield Point(uid(i), self.pictures[i], payload, text_vector=text)

    def query(self) -> np.ndarray:
        """Return a query near some object."""
        near = self.pictures[self.noise.integers(len(self.pictures))]
        return unit(near + 0.03 * self.noise.normal(size=DIM))

    def best(self, vector: np.ndarray, background: Background) -> set[str]:
        """Return the ids of the ten best objects by the fused score."""
        share = background.share(vector, WEIGHT)
        pictures = self.pictures @ vector
        texts = np.where(self.has_text, self.texts @ vector, share.stand_in(pictures))
        return {uid(int(i)) for i in np.argsort(-((1 - WEIGHT) * pictures + WEIGHT * texts))[:10]}


@contextmanager
def running(kind: str) -> Iterator[tuple[Collection, Callable[[], bool]]]:
    """Start a server; yield a collection of it, and a function that tells whether all objects are in the index."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        weaviate = kind == "weaviate"
        with servers.weaviate(folder, NOWHERE, modules="") if weaviate else servers.qdrant(folder, NOWHERE) as server:
            options = OpenOptions(grpc=kind == "qdrant by gRPC", grpc_port=server.grpc_port)
            address = Address(kind.partition(" ")[0], "Speed", server.host, server.port)
            collection = open_collection(address, options=options)

            def is_indexed() -> bool:
                if weaviate:  # which indexes an object before it answers
                    return True
                found = httpx.get(f"{server.url}/collections/{address.collection}").json()["result"]
                return found["status"] == "green"

            try:
                yield collection, is_indexed
            finally:
                collection.close()


def fill(collection: Collection, shop: Shop, is_indexed: Callable[[], bool]) -> None:
    """Write the shop, and wait until the server has indexed it."""
    collection.create(ModelRecord("random", "a1" * 32, DIM), CreateOptions(text_columns=("title",)))
    points = list(shop.points())
    for at in range(0, len(points), 500):
        collection.upsert(points[at : at + 500])
    time.sleep(5)  # the server may not have begun yet
    while not is_indexed():
        time.sleep(1)


def measure(kind: str, shop: Shop, rounds: int) -> None:
    """Print the median times of searches, and their ratios to a plain one."""
    with running(kind) as (collection, is_indexed):
        fill(collection, shop, is_indexed)
        background = Background.of(collection, DIM, True)
        found = []

        def share(vector: np.ndarray) -> TextShare:
            return background.share(vector, WEIGHT)

        searches: dict[str, Callable[[np.ndarray, Words], list[Hit]]] = {
            "plain": lambda vector, _: collection.search(vector, Ask()),
            "fused": lambda vector, _: collection.search(vector, Ask(texts=share(vector))),
            "scored again": lambda vector, words: rescored(collection, vector, words, Ask()),
            "scored again, with texts": lambda vector, words: rescored(
                collection, vector, words, Ask(texts=share(vector))
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(rounds // BLOCK):
            asked = [(shop.query(), Words((shop.query(),))) for _ in range(BLOCK)]
            answers = []
            for name, search in searches.items():
                for vector, words in asked:
                    started = time.perf_counter()
                    hits = search(vector, words)
                    seconds[name].append(time.perf_counter() - started)
                    if name == "fused":
                        answers.append({str(hit.id) for hit in hits})
            for (vector, _), ids in zip(asked, answers, strict=True):
                found.append(len(ids & shop.best(vector, background)) / 10)
        base = statistics.median(seconds["plain"])
        for name, times in seconds.items():
            median = statistics.median(times)
            print(f"{kind:16} {name:26} {median * 1000:6.1f} ms  {median / base:5.2f} × plain", flush=True)
        print(f"{kind:16} the fused search finds {np.mean(found):.1%} of the exact ten best", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=100)
    kinds = ("qdrant", "qdrant by gRPC", "weaviate")
    parser.add_argument("--database", choices=kinds, action="append", help="all if left out")
    given = parser.parse_args()
    shop = Shop(given.count)
    print(
        f"{given.count:,} objects of {DIM} dimensions, {given.rounds} queries, candidates scored again: {Ask().candidates}"
    )
    for kind in given.database or kinds:
        measure(kind, shop, given.rounds)


if __name__ == "__main__":
    main()
