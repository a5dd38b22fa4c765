"""Crash test of sync and of the database.

    python -m tests.support.crash_sync PHOTOS                     20 kills of sync and 5 of the server, on Qdrant and on Weaviate
    python -m tests.support.crash_sync PHOTOS --database qdrant --kills 4 --server-kills 1 --pictures 300

`cir-vectorizer sync` is started again and again and killed with SIGKILL at random moments: in a quarter of the runs while
it starts, in the others while it encodes and writes. Then the database's server is killed in the same way during a sync and
started again. One clean run follows. Then the texts of the pictures are added as a second vector, by runs that are killed in
the same way, and a last clean run. Encoding is slowed down, so that no run ends before it is killed. The script checks and
prints that

- every picture is one object, and each vector is within 1e-5 of that of a run without crashes;
- every object is found by its own vector, so the index is whole too;
- the clean run encodes exactly the pictures that were missing before it;
- no more pictures were encoded twice than were on their way when something was killed;
- the same of the texts, for which no picture is encoded.

Both servers must be on PATH. Weaviate runs with ASYNC_INDEXING=true unless the environment says otherwise: without it, a
killed server loses the index entries of its last acknowledged batches for good (the objects stay).
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np

from cir_vectorizer.collections import Ask, Collection, OpenOptions, open_collection
from cir_vectorizer.sync.run import WRITES_IN_FLIGHT
from tests.support import servers

BATCH_SIZE = 8
ON_THEIR_WAY = WRITES_IN_FLIGHT + 1
"""Most batches that are encoded but not written when sync is killed: those handed over, and one in the queue."""
TOLERANCE = 1e-5
COLOURS = ("red", "green", "blue", "white", "black")
SHARE_S = 1.0
"""Seconds of encoding planned for each kill."""


@dataclass
class Outcome:
    """Result of a crash test."""

    database: str
    pictures: int
    sync_kills: int = 0
    server_kills: int = 0
    survived: int = 0
    """Number of runs that went on after their server came back."""
    encoded: int = 0
    """Number of pictures encoded in all runs together."""
    missing_before_last: int = 0
    encoded_by_last: int = 0
    text_kills: int = 0
    """Number of kills of sync while it added texts."""
    texts: int = 0
    """Number of texts embedded in all runs together."""
    texts_missing_before_last: int = 0
    texts_by_last: int = 0
    most_difference: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def encoded_twice(self) -> int:
        return self.encoded - self.pictures

    @property
    def allowed_twice(self) -> int:
        return self.sync_kills * ON_THEIR_WAY * BATCH_SIZE

    @property
    def texts_twice(self) -> int:
        return self.texts - self.pictures

    @property
    def texts_allowed_twice(self) -> int:
        return self.text_kills * ON_THEIR_WAY * BATCH_SIZE

    def __str__(self) -> str:
        return (
            f"{self.database}: {self.pictures:,} pictures, sync killed {self.sync_kills} times, its server "
            f"{self.server_kills} times ({self.survived} syncs went on); the last run encoded "
            f"{self.encoded_by_last:,} of {self.missing_before_last:,} missing; encoded twice {self.encoded_twice:,}, "
            f"allowed {self.allowed_twice:,}; killed {self.text_kills} times while it added texts, the last run embedded "
            f"{self.texts_by_last:,} of {self.texts_missing_before_last:,} missing; embedded twice {self.texts_twice:,}, "
            f"allowed {self.texts_allowed_twice:,}; greatest difference of a vector {self.most_difference:.1e}"
        )


class Database:
    """A server that can be killed and started again on the same data and port."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._context: contextlib.AbstractContextManager[servers.Server] | None = None
        folder.mkdir()
        self.server = self._start(None)

    def _start(self, again: servers.Server | None) -> servers.Server:
        make = {"qdrant": servers.qdrant, "weaviate": servers.weaviate}[self.name]
        self._context = make(self._folder, "http://127.0.0.1:9", again)
        return self._context.__enter__()

    def start(self) -> None:
        """Start the server again on the same data and port."""
        self.server = self._start(self.server)

    def kill(self) -> None:
        assert self.server.process is not None
        self.server.process.kill()
        self.server.process.wait()
        self.stop()

    def stop(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None

    def address(self, collection: str) -> str:
        return f"{self.name}://{self.server.host}:{self.server.port}/{collection}"

    def open(self, collection: str) -> Collection:
        return open_collection(self.address(collection), options=OpenOptions(grpc_port=self.server.grpc_port))


class Syncs:
    """Starts `cir-vectorizer sync` of one table in separate processes, which record what they encode."""

    def __init__(self, table: Path, work: Path, database: Database) -> None:
        self.table = table
        self.more: tuple[str, ...] = ()
        """Further options of the command."""
        self.log = work / f"{database.name}-encoded.log"
        self.report = work / f"{database.name}-report.json"
        self.errors = work / f"{database.name}-errors.log"
        self.pause = 0.0
        """Seconds added to each batch."""
        self._database = database

    def start(self, collection: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.crash_sync", "--child", str(self.log), str(self.pause)]
        command += ["sync", str(self.table), *self.more]
        command += ["--to", self._database.address(collection), "--grpc-port", str(self._database.server.grpc_port)]
        command += ["--report", str(self.report), "--batch-size", str(BATCH_SIZE), "--device", "cpu", "--model", "tiny"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.errors.open("ab") as errors:
            return subprocess.Popen(
                command, stdout=errors, stderr=errors, env=environment, cwd=Path(__file__).parents[2]
            )

    def finish(self, collection: str) -> dict[str, object]:
        process = self.start(collection)
        if process.wait(600):
            raise SystemExit(f"a sync failed:\n{self.errors.read_text()[-2000:]}")
        return dict(json.loads(self.report.read_text()))

    def wait_for_batch(self, process: subprocess.Popen[bytes], count: int = 1) -> None:
        """Wait until `count` more batches were encoded, or the process ended."""
        wanted = self.encoded() + (count - 1) * BATCH_SIZE
        while process.poll() is None and self.encoded() <= wanted:
            time.sleep(0.01)

    def encoded(self) -> int:
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


def child(log: Path, pause: float, arguments: list[str]) -> None:
    """Run `cir-vectorizer` with `arguments`; append the number of pictures or texts of each encoded batch to `log`."""
    from cir_vectorizer.cli import main
    from cir_vectorizer.models import Vectorizer

    def noted(embed: Callable[..., Sized]) -> Callable[..., Sized]:
        def embed_and_note(self: Vectorizer, batch: object) -> Sized:
            embeddings = embed(self, batch)
            with log.open("a") as stream:
                stream.write(f"{len(embeddings)}\n")
            time.sleep(pause)
            return embeddings

        return embed_and_note

    Vectorizer.embed_pixels = noted(Vectorizer.embed_pixels)
    Vectorizer.run = noted(Vectorizer.run)  # the texts
    main(arguments)


def crash(database: Database, table: Path, work: Path, kills: int, server_kills: int, seed: int) -> Outcome:
    """Run the whole test on one database."""
    chance = random.Random(seed)
    syncs = Syncs(table, work, database)
    outcome = Outcome(database.name, len(table.read_text().splitlines()))
    syncs.finish("Reference")
    started = time.monotonic()
    syncs.finish("Reference")
    startup = time.monotonic() - started
    syncs.log.unlink()
    syncs.pause = SHARE_S * (kills + 2 * server_kills + 1) / (outcome.pictures / BATCH_SIZE)

    for number in range(kills):
        outcome.sync_kills += _kill_one(syncs, number, chance, startup)
        print(f"  kill {number + 1}: {_count(database):,} objects", flush=True)
    for number in range(server_kills):
        process = syncs.start("Crashed")
        syncs.wait_for_batch(process)
        time.sleep(chance.uniform(0, SHARE_S))
        running = process.poll() is None
        database.kill()
        outcome.server_kills += running
        time.sleep(chance.uniform(0, 2))
        database.start()
        back = syncs.encoded()
        syncs.wait_for_batch(process, ON_THEIR_WAY + 2)
        if process.poll() is None:
            process.kill()
            outcome.sync_kills += 1
            outcome.survived += 1
        elif process.returncode == 0:
            outcome.survived += 1
        else:
            said = syncs.errors.read_text().strip().rpartition("\n")[2]
            outcome.problems.append(
                f"a sync ended with status {process.returncode} after its server was killed: {said}"
            )
        process.wait()
        more = syncs.encoded() - back
        print(f"  server kill {number + 1}: {more} more encoded after it, {_count(database):,} objects", flush=True)

    outcome.missing_before_last = outcome.pictures - _count(database)
    outcome.encoded_by_last = int(str(syncs.finish("Crashed")["encoded"]))
    outcome.encoded = syncs.encoded()
    _add_texts(database, syncs, outcome, kills, chance, startup)
    _examine(database, outcome, kills, server_kills)
    return outcome


def _kill_one(syncs: Syncs, number: int, chance: random.Random, startup: float) -> bool:
    """Start a sync and kill it: one in four while it starts, the others after their first batch; False if it ended before."""
    process = syncs.start("Crashed")
    if number % 4:
        syncs.wait_for_batch(process)
        moment = chance.uniform(0, 1.5 * SHARE_S)
    else:
        moment = chance.uniform(0, startup)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    killed = process.poll() is None
    if killed:
        process.send_signal(signal.SIGKILL)
    process.wait()
    return killed


def _add_texts(
    database: Database, syncs: Syncs, outcome: Outcome, kills: int, chance: random.Random, startup: float
) -> None:
    """Add texts to the collection, killed again and again, and to the one for comparison without a kill."""
    syncs.more, pause = ("--text-column", "title", "--yes"), syncs.pause
    syncs.pause = 0.0
    syncs.finish("Reference")
    syncs.pause = pause
    syncs.log.unlink()
    for number in range(kills):
        outcome.text_kills += _kill_one(syncs, number, chance, startup)
        print(f"  kill {number + 1} while texts are added: {_texts(database):,} objects have one", flush=True)
    outcome.texts_missing_before_last = outcome.pictures - _texts(database)
    report = syncs.finish("Crashed")
    outcome.texts_by_last, outcome.texts = int(str(report["texts"])), syncs.encoded()
    if report["encoded"]:
        outcome.problems.append(f"{report['encoded']} pictures were encoded for their texts")


def _texts(database: Database) -> int:
    """Return the number of objects whose record says that they have a text."""
    with contextlib.closing(database.open("Crashed")) as collection:
        return sum(record is not None and bool(record.text) for _, record in collection.scan())


def _count(database: Database) -> int:
    with contextlib.closing(database.open("Crashed")) as collection:
        return 0 if collection.info() is None else collection.count()


def _examine(database: Database, outcome: Outcome, kills: int, server_kills: int) -> None:
    """Compare the collection that went through the crashes with one from a run without crashes."""
    problems = outcome.problems
    with (
        contextlib.closing(database.open("Crashed")) as crashed,
        contextlib.closing(database.open("Reference")) as whole,
    ):
        ids = [id_ for id_, _ in crashed.scan()]
        if not len(ids) == len(set(ids)) == outcome.pictures == crashed.count():
            problems.append(f"{len(ids)} objects listed, {len(set(ids))} of them different, {crashed.count()} counted")
        expected = {point.id: point for point in whole.get(ids)}
        for point in crashed.get(ids):
            twin = expected.get(point.id)
            if twin is None or point.vector is None or twin.vector is None:
                problems.append(f"object {point.id} is not in the run without crashes")
                continue
            if point.text_vector is None or twin.text_vector is None:
                problems.append(f"object {point.id} has no text")
                continue
            pairs = ((point.vector, twin.vector), (point.text_vector, twin.text_vector))
            difference = max(float(np.abs(one - other).max()) for one, other in pairs)
            outcome.most_difference = max(outcome.most_difference, difference)
            if point.payload["_cir"]["sha256"] != twin.payload["_cir"]["sha256"]:
                problems.append(f"object {point.id} has another picture")
            hits = crashed.search(point.vector, Ask(50))
            if point.id not in [hit.id for hit in hits if hit.score > 1 - 1e-3]:
                problems.append(f"object {point.id} is not found by its own vector")
    if outcome.texts_by_last != outcome.texts_missing_before_last:
        problems.append("the last run did not embed exactly the texts that were missing")
    if outcome.texts_twice > outcome.texts_allowed_twice:
        problems.append("more texts were embedded twice than the batches that were on their way")
    if min(outcome.sync_kills, outcome.text_kills) < kills or outcome.server_kills < server_kills:
        problems.append("a run ended before it was killed; try with more pictures")
    if outcome.most_difference > TOLERANCE:
        problems.append(f"a vector differs by {outcome.most_difference:.1e}")
    if outcome.encoded_by_last != outcome.missing_before_last:
        problems.append("the last run did not encode exactly what was missing")
    if outcome.encoded_twice > outcome.allowed_twice:
        problems.append("more was encoded twice than the batches that were on their way")


def spread(photos: Path, count: int, folder: Path) -> Path:
    """Fill a new folder with `count` copies of the photos in turn, made different by a few bytes at their end.

    Returns:
        A table of them, with a title for each.
    """
    folder.mkdir()
    rows = []
    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    for i, path in zip(range(count), cycle(found), strict=False):
        shutil.copyfile(path, folder / f"{i:05}{path.suffix}")
        rows.append(json.dumps({"image": f"{i:05}{path.suffix}", "title": f"{COLOURS[i % len(COLOURS)]} thing {i}"}))
    table = folder / "catalog.jsonl"
    table.write_text("\n".join(rows))
    return table


def run(photos: Path, name: str, count: int, kills: int, server_kills: int, seed: int = 0) -> Outcome:
    """Run the crash test of one database with `count` pictures."""
    os.environ["CLIP_WAIT_FOR_STARTUP"] = "false"  # no container runs; vectors come from this program
    os.environ.setdefault("ASYNC_INDEXING", "true")
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        database = Database(name, work / name)
        try:
            return crash(database, spread(photos, count, work / "photos"), work, kills, server_kills, seed)
        finally:
            database.stop()


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--database", choices=["qdrant", "weaviate"], action="append")
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--server-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong = False
    for name in given.database or ["qdrant", "weaviate"]:
        outcome = run(given.photos, name, given.pictures, given.kills, given.server_kills, given.seed)
        print(outcome, flush=True)
        for problem in outcome.problems:
            print(f"  PROBLEM: {problem}", flush=True)
        wrong |= bool(outcome.problems)
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
