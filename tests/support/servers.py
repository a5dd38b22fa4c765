"""Real servers for the tests: our service, Qdrant and Weaviate, each a process on loopback that ends with its context.

`QDRANT_URL` (with `QDRANT_GRPC_PORT`) and `WEAVIATE_URL` (with `WEAVIATE_GRPC_PORT`) name running servers to use instead.
These must already be connected to a container of ours.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

KEY = "live-key"
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """Addresses of a running server."""

    host: str
    port: int
    grpc_port: int = 0
    log: Path | None = None
    inner_ports: tuple[int, ...] = ()
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def with_key(self, key: str) -> str:
        return f"http://cir:{key}@{self.host}:{self.port}"


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], ready: str, log: Path, environment: dict[str, str], cwd: Path
) -> Iterator[subprocess.Popen]:
    """Run a command until the context ends; the context begins once `ready` answers with 2xx."""
    variables = {**os.environ, **environment}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=variables, cwd=cwd)
    try:
        _wait(process, ready, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, ready: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(ready, timeout=2, trust_env=False).is_success:
                return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    pytest.fail(f"no answer at {ready}; the process's exit status is {process.poll()}; its log ends:\n{tail}")


@contextlib.contextmanager
def our_service(folder: Path, *arguments: str, key: str = "") -> Iterator[Server]:
    """Run `cir-vectorizer serve` with the model `tiny` in a process of its own."""
    server = Server("127.0.0.1", free_port(), log=folder / "service.log")
    command = [sys.executable, "-m", "cir_vectorizer.cli", "serve", "--model", "tiny", "--device", "cpu"]
    command += ["--port", str(server.port), "--drain-seconds", "0", *arguments]
    environment = {"CIR_API_KEYS": key, "OMP_NUM_THREADS": "1"}
    with running(command, f"{server.url}/.well-known/ready", server.log, environment, folder):
        yield server


@contextlib.contextmanager
def qdrant(folder: Path, inference: str, again: Server | None = None) -> Iterator[Server]:
    """Run a stock Qdrant whose server-side inference asks `inference`; `again` is a stopped server to start again."""
    binary = shutil.which("qdrant")
    if binary is None:
        pytest.skip("no qdrant on PATH")
    server = again or Server("127.0.0.1", free_port(), free_port(), folder / "qdrant.log")
    environment = {
        "QDRANT__SERVICE__HOST": server.host,
        "QDRANT__SERVICE__HTTP_PORT": str(server.port),
        "QDRANT__SERVICE__GRPC_PORT": str(server.grpc_port),
        "QDRANT__STORAGE__STORAGE_PATH": str(folder / "storage"),
        "QDRANT__STORAGE__SNAPSHOTS_PATH": str(folder / "snapshots"),
        "QDRANT__STORAGE__PERFORMANCE__MAX_SEARCH_THREADS": "1",
        "QDRANT__TELEMETRY_DISABLED": "true",
        "QDRANT__INFERENCE__ADDRESS": inference,
    }
    with running([binary], f"{server.url}/readyz", server.log, environment, folder) as process:
        yield replace(server, process=process)


@contextlib.contextmanager
def weaviate(
    folder: Path, inference: str, again: Server | None = None, modules: str = "multi2vec-clip", anonymous: bool = True
) -> Iterator[Server]:
    """Run a stock Weaviate whose module `multi2vec-clip` asks `inference`; `again` is a stopped server to start again."""
    binary = shutil.which("weaviate")
    if binary is None:
        pytest.skip("no weaviate on PATH")
    server = again or Server(
        "127.0.0.1", free_port(), free_port(), folder / "weaviate.log", tuple(free_port() for _ in range(5))
    )
    gossip, data, raft, raft_rpc, profiling = (str(port) for port in server.inner_ports)
    environment = {
        "ENABLE_MODULES": modules,
        "CLIP_INFERENCE_API": inference,
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_GOSSIP_BIND_PORT": gossip,
        "CLUSTER_DATA_BIND_PORT": data,
        "RAFT_PORT": raft,
        "RAFT_INTERNAL_RPC_PORT": raft_rpc,
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "GRPC_PORT": str(server.grpc_port),
        "PROFILING_PORT": profiling,
        "PERSISTENCE_DATA_PATH": str(folder / "data"),
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": str(anonymous).lower(),
        "DISABLE_TELEMETRY": "true",
        "QUERY_DEFAULTS_LIMIT": "20",
        "GOMAXPROCS": "2",
    }
    command = [binary, "--host", server.host, "--port", str(server.port), "--scheme", "http"]
    with running(command, f"{server.url}/v1/.well-known/ready", server.log, environment, folder) as process:
        yield replace(server, process=process)


def named(variable: str, default_grpc: int) -> Server | None:
    """Return the running server that the environment names; None if it names none."""
    if not (url := os.environ.get(f"{variable}_URL")):
        return None
    parts = urlsplit(url)
    grpc = int(os.environ.get(f"{variable}_GRPC_PORT", default_grpc))
    return Server(parts.hostname or "localhost", parts.port or 80, grpc)


def pictures(count: int) -> list[bytes]:
    """Return encoded pictures: real photos if `../shared` exists beside this checkout, else drawn products."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "photos"
    files = sorted(folder.glob("*.jpg"))[:count] if folder.is_dir() else []
    return [file.read_bytes() for file in files] if len(files) == count else [drawn(i) for i in range(count)]


def drawn(seed: int) -> bytes:
    """Draw a product as PNG; each seed gives a different picture."""
    import random

    from examples.demo.catalog import SEEN, draw

    file = BytesIO()
    draw(SEEN[seed * 7 % len(SEEN)], random.Random(seed), 96).save(file, "PNG")
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our service, with the key `KEY`."""
    with our_service(tmp_path_factory.mktemp("service"), key=f"test:{KEY}") as server:
        yield server


@pytest.fixture(scope="session")
def qdrant_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Qdrant, connected to our service by its configuration alone."""
    if (given := named("QDRANT", 6334)) is not None:
        yield given
        return
    service = request.getfixturevalue("service")
    with qdrant(tmp_path_factory.mktemp("qdrant"), f"{service.with_key(KEY)}/qdrant") as server:
        yield server


@pytest.fixture(scope="session")
def weaviate_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Weaviate, connected to our service by its configuration alone."""
    if (given := named("WEAVIATE", 50051)) is not None:
        yield given
        return
    service = request.getfixturevalue("service")
    with weaviate(tmp_path_factory.mktemp("weaviate"), f"{service.with_key(KEY)}/m/tiny") as server:
        yield server
