"""Benchmark of the service: the gain from batching, and its behaviour under overload.

    python -m benchmarks.service speed        64 clients: texts, pictures, composed queries, against a plain handler
    python -m benchmarks.service overload     arrivals at 10 times the capacity for a minute, after two of warm-up
    python -m benchmarks.service replicas     one replica on one core, then two on two, each with half of the clients

The model is ViT-B/32-sized with random weights, float32, on the CPU, and has a Φ. The plain handler works like the
stock multi2vec-clip container: a lock for each request, text rows of 77 tokens, one picture for each forward pass; it
answers a composed query with one picture and one row. Both run in separate processes with equal threads. A third
process sends the requests, whose bodies are prepared in advance and all different. The picture cache is off, except
for the composed queries, whose 32 pictures are cached.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

CLIENTS = 64
KNOWN_PICTURES = 32
BOUND = 2.5
"""Seconds of searches that may wait in the overload test: the service's default."""

WORDS = "red blue green dress shirt shoes long short sleeves collar stripes dots cotton silk summer winter plain logo".split()


# Models --------------------------------------------------------------------------------------------------------


def make_model(folder: Path) -> Path:
    """Make a model folder: ViT-B/32 with random weights, and a random Φ."""
    import torch

    from cir_vectorizer.backbones import BackboneSpec, load_backbone
    from cir_vectorizer.composers.lincir import Phi, save_phi
    from cir_vectorizer.models import save

    spec = BackboneSpec.parse("open_clip:ViT-B-32,pretrained=random")
    backbone = load_backbone(spec, "cpu", torch.float32)
    backbone.mean_image_norm = 10.0
    phi = Phi(backbone.dim, backbone.text.facts.width)
    save(folder, backbone, {"lincir": ({}, lambda path: save_phi(path, phi))})
    return folder


def plain_handler(folder: str) -> None:
    """Serve as the stock container does, on a free port, which uvicorn prints."""
    import open_clip
    import torch
    import uvicorn
    from fastapi import FastAPI, Request
    from PIL import Image
    from starlette.concurrency import run_in_threadpool
    from torch.nn import functional as F

    from cir_vectorizer.models import load

    vectorizer = load(folder, "cpu")
    backbone: Any = vectorizer.backbone
    towers, phi = backbone._towers, vectorizer.composers["lincir"].phi  # type: ignore[attr-defined]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    lock = threading.Lock()
    app = FastAPI()

    def encode(ids: Any, pseudo_token: Any = None) -> list[float]:
        embeddings = towers.embed_tokens(ids)
        if pseudo_token is not None:
            embeddings[0, 4] = pseudo_token
        vector: list[float] = F.normalize(towers.encode_tokens(embeddings, ids, ids.argmax(-1)), dim=-1)[0].tolist()
        return vector

    def embed(picture: str) -> Any:
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        return towers.encode_pixels(backbone.preprocess(image)[None])

    @torch.inference_mode()
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        texts, images = [], []
        with lock:
            for text in body.get("texts", []):
                query = json.loads(text) if text.startswith("{") else None
                if query:
                    texts.append(
                        encode(tokenizer([f"a photo of $ that {query['text']}"]), phi(embed(query["image"]))[0])
                    )
                else:
                    texts.append(encode(tokenizer([text])))
            images += [F.normalize(embed(picture), dim=-1)[0].tolist() for picture in body.get("images", [])]
        return {"textVectors": texts, "imageVectors": images}

    @app.post("/vectorize")
    async def vectorize(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(answer, await request.json())

    config = uvicorn.Config(app, port=0, log_level="info", access_log=False)
    uvicorn.Server(config).run()


# Bodies --------------------------------------------------------------------------------------------------------


def sentence(rng: random.Random) -> str:
    """Return eight to twelve random words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(8, 12)))


def picture(rng: random.Random) -> str:
    """Return a random JPEG of 256 × 256 pixels, as smooth as a photo, in base64."""
    from PIL import Image

    small = Image.frombytes("RGB", (16, 16), rng.randbytes(768))
    stream = io.BytesIO()
    small.resize((256, 256), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return base64.b64encode(stream.getvalue()).decode()


def bodies(kind: str, count: int, seed: int = 0) -> list[bytes]:
    """Return bodies of requests to `/vectorize`, all different."""
    rng = random.Random(seed)
    if kind == "text":
        made: list[dict[str, Any]] = [{"texts": [f"{sentence(rng)} {i}"]} for i in range(count)]
    elif kind == "picture":
        made = [{"images": [picture(rng)]} for _ in range(count)]
    else:
        known = [picture(rng) for _ in range(KNOWN_PICTURES)]
        queries = [{"image": known[i % KNOWN_PICTURES], "text": f"has {sentence(rng)} {i}"} for i in range(count)]
        made = [{"texts": [json.dumps(query)]} for query in queries]
    return [json.dumps(each).encode() for each in made]


# Load, in a process of its own ---------------------------------------------------------------------------------


class Connection:
    """A persistent HTTP connection, as light as possible, because the clients share the cores with the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes | None = None) -> int:
        """Send a request, read the answer to its end and return its status."""
        if self._streams is None or self._streams[0].at_eof():  # closed while it was idle
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body or b'')}\r\n\r\n"
        writer.write(head.encode() + (body or b""))
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in answer.lower():
            writer.close()
            self._streams = None
        return int(answer[9:12])


async def closed_loop(port: int, kind: str, clients: int, seconds: float, warm: float) -> dict[str, float]:
    """Run clients that send a request as soon as the last is answered; count answers after `warm` seconds."""
    waiting = iter(bodies(kind, 100_000 if kind == "text" else 3_000 if kind == "picture" else 12_000))
    if kind == "composed":
        for body in bodies("composed", KNOWN_PICTURES):
            await Connection(port).ask("/vectorize", body)
    times: list[float] = []
    began = time.perf_counter()
    counts_from, until = began + warm, began + warm + seconds

    async def client() -> None:
        connection = Connection(port)
        while (start := time.perf_counter()) < until:
            status = await connection.ask("/vectorize", next(waiting))
            assert status == 200, status
            if counts_from <= (now := time.perf_counter()) <= until:
                times.append(now - start)

    await asyncio.gather(*(client() for _ in range(clients)))
    return {
        "per_second": len(times) / seconds,
        "p50": float(np.percentile(times, 50)),
        "p99": float(np.percentile(times, 99)),
    }


async def open_loop(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Send requests at a fixed rate, whether earlier ones are answered or not."""
    prepared = [
        json.dumps({"images": json.loads(body)["images"]}).encode() for body in bodies("picture", 4_000, seed=1)
    ]
    idle: list[Connection] = []
    accepted: list[float] = []
    statuses: dict[str, int] = {}

    async def one(body: bytes) -> None:
        connection = idle.pop() if idle else Connection(port)
        start = time.perf_counter()
        try:
            status = str(await connection.ask("/v1/embed", body))
            idle.append(connection)
        except (OSError, EOFError) as error:
            status = type(error).__name__
        statuses[status] = statuses.get(status, 0) + 1
        if status == "200":
            accepted.append(time.perf_counter() - start)

    tasks = set()
    began = time.perf_counter()
    for i in range(int(rate * seconds)):
        if (pause := began + i / rate - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        task = asyncio.ensure_future(one(prepared[i % len(prepared)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    took = time.perf_counter() - began
    await asyncio.gather(*tasks)
    percentiles = [float(np.percentile(accepted, p)) for p in (50, 99, 100)]
    return {"statuses": statuses, "accepted": percentiles, "arrivals_per_second": rate * seconds / took}


async def probes(port: int, seconds: float) -> dict[str, list[float]]:
    """Ask readiness and meta up to ten times a second; return the 99th percentile and maximum of their seconds."""
    times: dict[str, list[float]] = {"/.well-known/ready": [], "/meta": []}
    connection = Connection(port)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for path, seen in times.items():
            start = time.perf_counter()
            await connection.ask(path)
            seen.append(time.perf_counter() - start)
        await asyncio.sleep(0.1)
    return {path: [float(np.percentile(seen, 99)), max(seen)] for path, seen in times.items()}


# The processes -------------------------------------------------------------------------------------------------


@contextmanager
def process(*command: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server; yield its process and the port that it prints once it is ready."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment}
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert started.stderr is not None
    port, lines = 0, []
    for line in started.stderr:
        lines.append(line)
        if found := re.search(r"running on http://[\w.]+:(\d+)", line):
            port = int(found[1])
        if port and ("serve" not in command or "ready: serving" in line):
            break
    else:
        raise SystemExit("".join(lines))
    threading.Thread(target=lambda: [None for _ in started.stderr or ()], daemon=True).start()
    try:
        yield started, port
    finally:
        started.terminate()
        started.wait(60)


def service(folder: Path, *options: str, **environment: str) -> Any:
    """Run our service with the model."""
    command = [sys.executable, "-m", "cir_vectorizer.cli", "serve", "--model", f"bench={folder}", "--port", "0"]
    return process(*command, "--drain-seconds", "0", *options, **environment)


def load(*arguments: Any) -> Any:
    """Run a load function of this module in a separate process and return its result."""
    command = [sys.executable, "-m", "benchmarks.service", "load", *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def speed(folder: Path, seconds: float) -> None:
    """Print a table of speeds of the plain handler and the service."""
    wanted = {"text": 6.0, "picture": 1.5, "composed": 8.0}
    print(f"{'':10}{'':28}{'per second':>12}{'p50':>10}{'p99':>10}")
    for kind, least in wanted.items():
        cache = "64" if kind == "composed" else "0"
        with process(sys.executable, "-m", "benchmarks.service", "plain", "--folder", str(folder)) as (_, port):
            plain = load("closed", port, kind, CLIENTS, seconds)
        with service(folder, "--cache-mib", cache) as (_, port):
            ours = load("closed", port, kind, CLIENTS, seconds)
            alone = load("closed", port, kind, 1, min(seconds, 10))
        for name, found in (
            (f"plain handler, {CLIENTS} clients", plain),
            (f"service, {CLIENTS} clients", ours),
            ("service, 1 client", alone),
        ):
            times = f"{1000 * found['p50']:8.0f}ms{1000 * found['p99']:8.0f}ms"
            print(f"{kind:10}{name:28}{found['per_second']:12.1f}{times}", flush=True)
        factor = ours["per_second"] / plain["per_second"]
        print(f"{kind:10}{factor:.1f} times the plain handler ({least:g} wanted)\n", flush=True)


def replicas(folder: Path, seconds: float) -> None:
    """Print the throughput of one replica and of two, each with one thread."""
    for kind, cache in {"text": "0", "picture": "0", "composed": "64"}.items():
        rates = []
        for count in (1, 2):
            with ExitStack() as stack:
                ports = [
                    stack.enter_context(service(folder, "--cache-mib", cache, OMP_NUM_THREADS="1"))[1]
                    for _ in range(count)
                ]
                with ThreadPoolExecutor(count) as pool:
                    each = [pool.submit(load, "closed", port, kind, CLIENTS // count, seconds) for port in ports]
                rates.append(sum(found.result()["per_second"] for found in each))
        print(f"{kind:10}one {rates[0]:.1f} a second, two {rates[1]:.1f}: {rates[1] / rates[0]:.2f} times", flush=True)


def overload(folder: Path, seconds: float, warm: float) -> None:
    """Print answers, times and memory under ten times too many requests, after `warm` seconds of them."""
    with service(folder, "--cache-mib", "0", "--max-search-wait", str(BOUND)) as (started, port):
        capacity = load("closed", port, "picture", CLIENTS, 15)["per_second"]
        print(
            f"capacity: {capacity:.1f} pictures a second; now {10 * capacity:.0f} a second for {warm:g} + {seconds:g} s",
            flush=True,
        )
        sizes: list[tuple[float, float]] = []
        done = threading.Event()

        def watch() -> None:
            began, resident = time.monotonic(), psutil.Process(started.pid)
            while not done.wait(1.0):
                sizes.append((time.monotonic() - began, resident.memory_info().rss / 2**20))

        threading.Thread(target=watch, daemon=True).start()
        load("open", port, 10 * capacity, warm)
        counts_from = len(sizes)
        probing = [sys.executable, "-m", "benchmarks.service", "load", "probes", str(port), str(seconds)]
        prober = subprocess.Popen(probing, stdout=subprocess.PIPE, text=True)
        found = load("open", port, 10 * capacity, seconds)
        done.set()
        probed = json.loads(prober.communicate()[0])
    curve = ", ".join(f"{rss:.0f}" for _, rss in sizes[::15])
    times, rss = np.array(sizes[counts_from:]).T
    p50, p99, worst = found["accepted"]
    print(f"arrivals: {found['arrivals_per_second']:.0f} a second; answers: {found['statuses']} (200 and 429 wanted)")
    print(f"accepted: p50 {p50:.2f} s, p99 {p99:.2f} s, worst {worst:.2f} s (p99 within {2 * BOUND:g} s wanted)")
    print(f"memory, every 15 s from the start of the warm-up: {curve} MiB")
    print(f"memory: {np.polyfit(times / 60, rss, 1)[0]:+.2f} MiB a minute after the warm-up (under 1 wanted)")
    for path, (high, most) in probed.items():
        print(f"{path}: p99 {1000 * high:.0f} ms (250 wanted), worst {1000 * most:.0f} ms (500 wanted)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "overload", "replicas", "plain", "load"])
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--folder", help="model folder; a new one is made if not given")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--warm", type=float, default=120, help="seconds of overload before the measurement")
    given = parser.parse_args()
    if given.what == "load":
        kind, port, *rest = given.arguments
        if kind == "closed":
            what = closed_loop(int(port), rest[0], int(rest[1]), float(rest[2]), warm=3.0)
            result: Any = asyncio.run(what)
        elif kind == "open":
            result = asyncio.run(open_loop(int(port), float(rest[0]), float(rest[1])))
        else:
            result = asyncio.run(probes(int(port), float(rest[0])))
        print(json.dumps(result))
        return
    if given.what == "plain":
        plain_handler(given.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder) if given.folder else make_model(Path(temporary) / "vit-b-32")
        if given.what == "speed":
            speed(folder, given.seconds or 20)
        elif given.what == "replicas":
            replicas(folder, given.seconds or 20)
        else:
            overload(folder, given.seconds or 60, given.warm)


if __name__ == "__main__":
    main()
