"""`sync --engine ray`: pictures are read, decoded and encoded on a Ray cluster, or by Ray on this machine alone.

    this process    lists, compares, and writes to the collection, as without Ray
    CPU tasks       read, hash, decode and preprocess
    actors          run the model, one for each GPU, or without GPUs one for every two cores

Ray first lists every picture to read, and every text to embed, and keeps the list in its object store, which spills to disk; then one pipeline of
Ray Data reads and encodes them. A task that dies with its machine is run again elsewhere by Ray. Every machine needs
cir-vectorizer, the model under the same name, and the pictures at the same paths or URLs.
"""

import contextlib
import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Self

from cir_vectorizer import extras
from cir_vectorizer.collections import Point
from cir_vectorizer.errors import BackboneMismatch, CirError, ModelError
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sync.compare import Candidate, Decision, Outcome
from cir_vectorizer.sync.encode import FAR_WORKERS, Encoder, decode, encode_texts, to_points
from cir_vectorizer.sync.run import BATCH_SIZE
from cir_vectorizer.sync.texts import EncodedText

if TYPE_CHECKING:
    import pyarrow as pa

    from cir_vectorizer.models.vectorizer import Vectorizer

BATCHES_A_BLOCK = 4
"""Batches in each block of candidates that is handed to Ray."""
KNOCK_S = 10.0
OUTCOME, PIXELS, EMBEDDING = "outcome", "pixels", "embedding"


class RayDecoders:
    """Decoders for `sync` on Ray; a context manager that connects to a cluster or starts Ray on this machine.

    Args:
        vectorizer: the model; actors load it by its name.
        address: the cluster's address for `ray.init`; if None, the value of RAY_ADDRESS, or else this machine.
        device: device for the actors' model; if None, the best one that Ray gives them.
        batch_size: pictures that go through the model at once.
        workers: threads that read in each task; if None, one, or 16 for pictures elsewhere.

    Raises:
        MissingExtraError: Ray is not installed.
        ModelError: Ray cannot be reached.
    """

    def __init__(
        self,
        vectorizer: "Vectorizer",
        address: str | None = None,
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> None:
        self.encoder: Encoder = _ByEmbedding(vectorizer.limits)
        backbone = vectorizer.backbone
        self._preprocess: Callable[..., Any] = getattr(backbone, "transform", backbone.preprocess)
        folder = Path(vectorizer.name)
        name = str(folder.resolve()) if folder.is_dir() else vectorizer.name
        if device is not None and device.startswith("cuda:"):
            device = "cuda"  # Ray shows each actor only its own GPU
        self._model = {
            "name": name,
            "device": device,
            "fingerprint": vectorizer.fingerprint,
            "precision": vectorizer.precision,
        }
        self._address = address
        self._batch_size = batch_size
        self._workers = workers
        self._started = False

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        extras.require("ray", "--engine ray", "leave it out")
        import ray
        import ray.data

        if not ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS") or "local"
            # at least two cores: one for the actor, and one for the task that reads
            cores = {"num_cpus": max(2, os.cpu_count() or 2), "include_dashboard": False} if address == "local" else {}
            try:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **cores)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
                if address == "local":
                    raise ModelError(
                        f"Ray cannot be started here ({_said(error)}); name a cluster with --ray-address"
                    ) from error
                given = "--ray-address" if self._address else "RAY_ADDRESS"
                raise ModelError(
                    f"no Ray answers at {address} ({_said(error)}); start it, or correct {given}"
                ) from error
            self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def settle(self, compared: Iterator[Outcome], far: bool) -> Generator[Decision | Failure, None, None]:
        blocks: list[Any] = []
        waiting: list[Candidate | Decision] = []
        count = 0
        for outcome in compared:
            if isinstance(outcome, Failure) or (isinstance(outcome, Decision) and not outcome.must_embed):
                yield outcome
                continue
            waiting.append(outcome)
            count += 1
            if len(waiting) == BATCHES_A_BLOCK * self._batch_size:
                blocks.append(_kept(waiting))
                waiting = []
        if waiting:
            blocks.append(_kept(waiting))
        if blocks:
            yield from self._settled(blocks, count, far)

    def _settled(self, blocks: list[Any], count: int, far: bool) -> Generator[Decision | Failure, None, None]:
        done = 0
        try:
            for table in self._pipeline(blocks, far).iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in table.to_pylist():
                    done += 1
                    outcome: Decision | Failure = pickle.loads(row[OUTCOME])  # noqa: S301  made by our own tasks
                    if row[EMBEDDING] is not None and isinstance(outcome, Decision):
                        outcome = replace(outcome, prepared=np.frombuffer(row[EMBEDDING], np.float32))
                    yield outcome
        except GeneratorExit:
            raise
        except Exception as error:
            if isinstance(error, CirError):
                raise
            raise ModelError(
                f"the run on Ray could not go on ({_said(error)}); what was written stays, so correct it and run again"
            ) from error
        if done != count:
            raise ModelError(
                f"Ray gave back {done:,} of {count:,} pictures; what was written stays, so run the same command again"
            )

    def _pipeline(self, blocks: list[Any], far: bool) -> Any:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = 0
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if self._model["device"] in (None, "cuda") else 0
        actors = gpus or max(1, int(resources.get("CPU", 2)) // 2)
        threads = self._workers or (FAR_WORKERS if far else 1)
        return (
            ray.data.from_arrow_refs(blocks)
            .map_batches(
                partial(_read, encoder=_Preparing(self.encoder.limits, self._preprocess), threads=threads),
                batch_size=self._batch_size,
                batch_format="pyarrow",
                zero_copy_batch=True,
                num_cpus=1,
            )
            .map_batches(
                _Encode,
                fn_constructor_kwargs=self._model,
                batch_size=self._batch_size,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
                **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
            )
        )


class _ByEmbedding:
    """The encoder of the process that writes: turns the actors' (dim,) embeddings into objects."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def prepare(self, content: bytes) -> Any:
        raise TypeError("pictures are prepared on Ray's workers")

    def points(self, decisions: Sequence[Decision]) -> Iterator[Point | Failure]:
        return to_points(decisions, [decision.prepared for decision in decisions])

    def embed_texts(self, texts: Sequence[str]) -> list[EncodedText | str]:
        raise TypeError("texts are embedded on Ray's workers")


@dataclass
class _Preparing:
    """The form of pictures in a reading task."""

    limits: Limits
    preprocess: Callable[..., Any]

    def prepare(self, content: bytes) -> Any:
        return self.preprocess(open_image(content, self.limits)).numpy()


def _read(table: "pa.Table", encoder: _Preparing, threads: int) -> "pa.Table":
    """Turn a table of candidates, and of decisions with texts, into a table of outcomes, with pixels to encode."""
    waiting: list[Candidate | Decision] = [pickle.loads(each) for each in table.column("waiting").to_pylist()]  # noqa: S301

    def decided(each: Candidate | Decision) -> Decision | Failure:
        return each if isinstance(each, Decision) else decode(each, encoder)

    with ThreadPoolExecutor(threads, "cir-decode") as pool:
        outcomes = list(pool.map(decided, waiting))
    pixels = [each.prepared if isinstance(each, Decision) else None for each in outcomes]
    bare = [replace(each, prepared=None) if isinstance(each, Decision) else each for each in outcomes]
    columns: dict[str, Sequence[bytes | None]] = {
        OUTCOME: [pickle.dumps(each) for each in bare],
        PIXELS: [None if each is None else pickle.dumps(each) for each in pixels],
    }
    return _table(**columns)


class _Encode:
    """An actor that loads the model and encodes batches of pictures and texts."""

    def __init__(self, name: str, device: str | None, fingerprint: str, precision: str) -> None:
        from cir_vectorizer.models import load

        self._vectorizer = load(name, device, precision, parts=())
        if self._vectorizer.fingerprint != fingerprint:
            raise BackboneMismatch(
                f"model {name!r} has other weights on a Ray worker than here (fingerprint "
                f"{self._vectorizer.fingerprint[:12]}, not {fingerprint[:12]}); put the same model on every machine"
            )

    def __call__(self, table: "pa.Table") -> "pa.Table":
        import torch

        pixels = table.column(PIXELS).to_pylist()
        places = [i for i, each in enumerate(pixels) if each is not None]
        embeddings: list[bytes | None] = [None] * len(pixels)
        if places:
            arrays = [torch.from_numpy(pickle.loads(pixels[i])) for i in places]  # noqa: S301
            for i, embedding in zip(places, self._vectorizer.embed_pixels(torch.stack(arrays)), strict=True):
                embeddings[i] = embedding.astype(np.float32).tobytes()
        outcomes: list[Decision | Failure] = [pickle.loads(each) for each in table.column(OUTCOME).to_pylist()]  # noqa: S301
        asked = {i: each for i, each in enumerate(outcomes) if isinstance(each, Decision) and each.must_embed}
        if asked:
            texts = encode_texts(self._vectorizer, [each.text or "" for each in asked.values()])
            for (i, decision), text in zip(asked.items(), texts, strict=True):
                outcomes[i] = replace(decision, embedded=text)
        made: list[bytes | None] = [pickle.dumps(each) for each in outcomes]
        return _table(**{OUTCOME: made, EMBEDDING: embeddings})


def _knock(address: str) -> None:
    """Check that a server listens at the address, because Ray itself takes minutes to find out.

    Raises:
        OSError: no server listens at HOST:PORT.
    """
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _kept(waiting: Sequence[Candidate | Decision]) -> Any:
    """Move candidates and decisions to Ray's object store, and return the reference."""
    import ray

    return ray.put(_table(waiting=[pickle.dumps(each) for each in waiting]))


def _table(**columns: Sequence[bytes | None]) -> "pa.Table":
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.large_binary()) for name, values in columns.items()})


def _said(error: BaseException) -> str:
    """Return the last line of an error; for an error from a worker, that of its cause there."""
    cause: BaseException = error
    with contextlib.suppress(AttributeError):
        while True:
            cause = cause.cause  # type: ignore[attr-defined]
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
