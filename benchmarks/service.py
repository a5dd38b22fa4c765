"""Benchmark of the service: the gain from batching, and its behaviour under overload.

    python -m benchmarks.service speed        64 clients: texts, pictures, composed queries, against a plain handler
    python -m benchmarks.service overload     arrivals at 10 times the capacity for a minute, after two of warm-up
    python -m benchmarks.service replicas     one replica on one core, then two on two, each with half of the clients

The model is ViT-B/32-sized with random weights, on the CPU, and has a Φ; the service's precision is --precision, `auto` if
not given. The plain handler works like the stock multi2vec-clip container's transformers path: float32, a lock for each
request, its pictures and texts in one forward pass, texts padded to the longest one of the request; a second plain
handler pads them to 77 tokens. It answers a composed query with one picture and one row. All run in separate processes
with equal threads. Another process sends the requests, whose bodies are prepared in advance and all different. The picture cache is off, except
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
CLIP = "clip"
"""Folder of the weights and the tokenizer, as transformers saves them."""
WANTED = {
    "text": {"longest": 6.0, "max_length": 12.0},
    "picture": {"longest": 3.0},
    "composed": {"longest": 4.0, "max_length": 8.0},
}
"""Wanted factors beside the plain handler, by its padding of texts."""
KNOWN_PICTURES = 32
BOUND = 2.5
"""Seconds of searches that may wait in the overload test: the service's default."""

WORDS = "red blue green dress shirt shoes long short sleeves collar stripes dots cotton silk summer winter plain logo".split()


# Models --------------------------------------------------------------------------------------------------------


def make_model(folder: Path) -> Path:
    """Make a model folder: a ViT-B/32 of transformers with random weights in `clip`, and a random Φ."""
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    from cir_vectorizer.backbones import BackboneSpec, load_backbone
    from cir_vectorizer.composers.lincir import Phi, save_phi
    from cir_vectorizer.models import save

    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig())
    clip.config.text_config.eos_token_id = 49407
    words = SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(word, word): number for word, number in words.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[*words.bpe_ranks])
    clip.save_pretrained(folder / CLIP)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder / CLIP)
    backbone = load_backbone(BackboneSpec("transformers", str(folder / CLIP)), "cpu", torch.float32)
    backbone.mean_image_norm = 10.0
    phi = Phi(backbone.dim, backbone.text.facts.width)
    save(folder / "model", backbone, {"lincir": ({}, lambda path: save_phi(path, phi))})
    return folder


def plain_handler(folder: Path, padding: str) -> None:
    """Serve as the stock container's transformers path does, on a free port, which uvicorn prints.

    Args:
        padding: "longest" pads texts to the longest one of a request, "max_length" to the model's context.
    """
    import torch
    import uvicorn
    from fastapi import FastAPI, Request
    from PIL import Image
    from starlette.concurrency import run_in_threadpool
    from transformers import CLIPModel, CLIPProcessor

    from cir_vectorizer.models import load

    clip = CLIPModel.from_pretrained(folder / CLIP)
    processor = CLIPProcessor.from_pretrained(folder / CLIP)
    composer: Any = load(str(folder / "model"), "cpu").composers["lincir"]
    lock = threading.Lock()
    app = FastAPI()
    pseudo_token: Any = None

    def put(_module: Any, _ids: Any, embeddings: Any) -> Any:
        if pseudo_token is None:
            return embeddings
        return torch.cat([embeddings[:, :4], pseudo_token[None], embeddings[:, 5:]], 1)

    clip.text_model.embeddings.token_embedding.register_forward_hook(put)

    def normed(embeddings: Any) -> list[list[float]]:
        vectors: list[list[float]] = (embeddings / embeddings.norm(dim=-1, keepdim=True)).tolist()
        return vectors

    def read(texts: list[str]) -> Any:
        inputs = processor(text=texts, return_tensors="pt", padding=padding, max_length=77)
        return clip.text_projection(clip.text_model(**inputs)[1])

    def see(pictures: list[str]) -> Any:
        images = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
        return clip.visual_projection(clip.vision_model(**processor(images=images, return_tensors="pt"))[1])

    def compose(query: dict[str, Any]) -> list[float]:
        nonlocal pseudo_token
        pseudo_token = composer.phi(see([query["image"]]))
        try:
            return normed(read([f"a photo of $ that {query['text']}"]))[0]
        finally:
            pseudo_token = None

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        texts, pictures = body.get("texts", []), body.get("images", [])
        with lock:
            composed = [compose(json.loads(text)) for text in texts if text.startswith("{")]
            return {
                "textVectors": composed or (normed(read(texts)) if texts else []),
                "imageVectors": normed(see(pictures)) if pictures else [],
            }

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
    command = [
        sys.executable,
        "-m",
        "cir_vectorizer.cli",
        "serve",
        "--model",
        f"bench={folder / 'model'}",
        "--port",
        "0",
    ]
    return process(*command, "--drain-seconds", "0", *options, **environment)


def load(*arguments: Any) -> Any:
    """Run a load function of this module in a separate process and return its result."""
    command = [sys.executable, "-m", "benchmarks.service", "load", *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def speed(folder: Path, seconds: float, rounds: int, precision: str) -> None:
    """Print the speeds of the plain handlers and the service, whose rounds alternate, and the medians of their ratios."""
    import torch

    from cir_vectorizer.backbones.precision import is_native, resolve

    device = torch.device("cpu")
    native = "" if is_native("bfloat16", device) else ", which is emulated here"
    weights = str(resolve(precision, device)).removeprefix("torch.") if precision != "int8" else precision
    print(
        f"service: --precision {precision}, that is {weights}; bfloat16{native or ' is native here'}; load {os.getloadavg()[0]:.1f}"
    )
    for kind, wanted in WANTED.items():
        cache = "64" if kind == "composed" else "0"
        ratios: dict[str, list[float]] = {}
        for number in range(rounds):
            plain = {}
            for padding in wanted:
                command = ["-m", "benchmarks.service", "plain", padding, "--folder", str(folder)]
                with process(sys.executable, *command) as (_, port):
                    plain[f"plain handler, {padding}"] = load("closed", port, kind, CLIENTS, seconds)
            with service(folder, "--cache-mib", cache, "--precision", precision) as (_, port):
                ours = load("closed", port, kind, CLIENTS, seconds)
                alone = load("closed", port, kind, 1, min(seconds, 10))
            for name, found in {**plain, f"service, {CLIENTS} clients": ours, "service, 1 client": alone}.items():
                times = f"{1000 * found['p50']:8.0f}ms{1000 * found['p99']:8.0f}ms"
                print(f"{number + 1} {kind:10}{name:28}{found['per_second']:12.1f} a second{times}", flush=True)
            for padding, found in zip(wanted, plain.values(), strict=True):
                ratios.setdefault(padding, []).append(ours["per_second"] / found["per_second"])
        for padding, least in wanted.items():
            factor = float(np.median(ratios[padding]))
            print(f"{kind}: {factor:.1f} times the plain handler, {padding} ({least:g} wanted)", flush=True)


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
    parser.add_argument("--rounds", type=int, default=1, help="rounds of speed, which alternate")
    parser.add_argument("--precision", default="auto", help="precision of the service in speed")
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
        plain_handler(Path(given.folder), *given.arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder) if given.folder else make_model(Path(temporary))
        if given.what == "speed":
            speed(folder, given.seconds or 20, given.rounds, given.precision)
        elif given.what == "replicas":
            replicas(folder, given.seconds or 20)
        else:
            overload(folder, given.seconds or 60, given.warm)


if __name__ == "__main__":
    main()
