"""The stage on which pages run: a prepared shop, and the servers that a page needs; made once for all pages of a process."""

import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from click.testing import CliRunner
from qdrant_client import QdrantClient
from weaviate import connect_to_local

from cir_vectorizer.cli import main
from cir_vectorizer.collections import CreateOptions, OpenOptions, open_collection
from cir_vectorizer.models import load
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo.catalog import SEEN, Product, caption, draw
from tests.docs import stand_ins, warm
from tests.docs.blocks import ROOT, Block
from tests.support import servers
from tests.support.servers import Server, free_port
from tests.support.serving import serving

PICTURES, CAPTIONS = 60, 100
BRANDS = ("norvik", "fjordline", "kestrel")
DRESS = Product("dress", "blue", "striped")
LINKED = ("benchmarks", "charts", "docker", "docs", "examples", "integrations", "plugins")
"""Folders of the repository that a page's folder links to: documents name their files as from a clone."""
PAGE_SECONDS = 300
WRITES = {
    "qdrant": r"\bsync\b(\\\n|.)*--to[ =]qdrant://[^\s/]+/shop\b|create_collection\(|PUT .*/collections/shop",
    "weaviate": r"\bsync\b(\\\n|.)*--to[ =]weaviate://[^\s/]+/Shop\b|collections\.create|/v1/schema",
}
"""Signs that a page makes the collection itself; otherwise it finds the prepared shop there."""
NAMES = {
    "qdrant": r"\bqdrant://(localhost|HOST)\b|\b633[34]\b",
    "weaviate": r"\bweaviate://(localhost|HOST)\b|\b8080\b|\b50051\b|connect_to_local",
    "service": r"\b8000\b",
}
"""Signs that a page needs a server."""


def prepare(folder: Path) -> None:
    """Make a shop: drawn photos, captions, the table of products, a trained model and an embedded collection."""
    (folder / "photos").mkdir(parents=True)
    rng = random.Random(5)
    products = rng.sample(SEEN, PICTURES)
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "file", "title", "brand", "colour", "category", "pattern", "price"])
        for i, product in enumerate(products):
            name = f"photos/{i:03}.jpg"
            draw(product, random.Random(i), 128).save(folder / name)
            row = (rng.choice(BRANDS), product.colour, product.category, product.pattern, 10 + i)
            table.writerow([i, name, caption(product, rng), *row])
    captions = [caption(product, rng) for product in SEEN[:CAPTIONS]]
    (folder / "catalog.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    draw(DRESS, rng, 128).save(folder / "dress.jpg")
    for command in (
        f"train --captions {folder}/catalog.txt --model tiny --out {folder}/my-model --steps 2 --objective lincir",
        f"sync {folder}/catalog.csv --to qdrant:{folder}/index/shop --model {folder}/my-model --id-column id",
    ):
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, done.output


class Stage:
    """A prepared shop and its servers, which start when a page first needs them.

    Our service always listens at the same port, where the databases ask it for vectors: a page that serves itself takes
    the place of the one that pages share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shop = folder / "shop"
        self._always = contextlib.ExitStack()
        door = Path(self._always.enter_context(tempfile.TemporaryDirectory())) / "door"  # a socket's path must be short
        self._always.enter_context(warm.serving(door, folder / "warm.log"))
        self._programs = stand_ins.programs(folder / "programs", door)
        prepare(self._shop)
        self._port = free_port()
        self._started: dict[str, Server] = {}
        self._service = contextlib.ExitStack()
        self._serving = False

    def close(self) -> None:
        self._stop()
        self._always.close()

    def run(self, page: str, blocks: Sequence[Block]) -> tuple[int | None, str]:
        """Run the blocks of a page in a folder of its own.

        Returns:
            The exit status, 0 if all blocks ran, None if they took too long; and the output.
        """
        text = "\n".join(block.code for block in blocks)
        folder = self._copy(page, text)
        needed = {name for name, sign in NAMES.items() if re.search(sign, text)}
        if needed and not self._serving:
            self._serve()
        ports: dict[str | int, int] = {"service": self._port}
        for name in sorted(needed - {"service"}):
            server = self._database(name)
            self._fill(name, server, empty=re.search(WRITES[name], text) is not None)
            ports |= {name: server.port, f"{name}_grpc": server.grpc_port}
        if any(block.background and "serve" in block.code for block in blocks):
            self._stop()
        ports |= {number: free_port() for number in stand_ins.other_ports(text)}
        return self._play(folder, [stand_ins.replaced(block, ports) for block in blocks])

    def _copy(self, page: str, text: str) -> Path:
        """Copy the shop without the folders that the page's own commands write, and link the repository's folders."""
        folder = self._folder / "pages" / page.replace("/", "-").removesuffix(".md")
        shutil.copytree(self._shop, folder, ignore=shutil.ignore_patterns(".lock"))
        for out, index in re.findall(r"--out[ =](?:\./)?([\w-]+)|--to[ =]qdrant:(?:\./)?(\w+)/", text):
            shutil.rmtree(folder / (out or index), ignore_errors=True)
        for name in LINKED:
            if (ROOT / name).is_dir():
                (folder / name).symlink_to(ROOT / name)
        return folder

    def _serve(self) -> None:
        """Start the service that pages share."""
        index = self._folder / "served"
        shutil.copytree(self._shop / "index", index, dirs_exist_ok=True)
        collection = open_collection(f"qdrant:{index}/shop")
        self._service.callback(collection.close)
        models = {"my-model": load(str(self._shop / "my-model"), "cpu"), "tiny": load("tiny", "cpu")}
        service = serving(vectorizers=models, collections={"shop": [collection]}, port=self._port)
        self._service.enter_context(service)
        self._serving = True

    def _stop(self) -> None:
        self._service.close()
        self._serving = False

    def _database(self, name: str) -> Server:
        if name not in self._started:
            folder = self._folder / name
            folder.mkdir(exist_ok=True)
            service = f"http://cir:KEY@127.0.0.1:{self._port}"
            start = servers.qdrant if name == "qdrant" else servers.weaviate
            address = f"{service}/qdrant" if name == "qdrant" else service
            self._started[name] = self._always.enter_context(start(folder, address))
        return self._started[name]

    def _fill(self, name: str, server: Server, empty: bool) -> None:
        """Remove all collections of a database, and fill the shop's unless it shall be empty."""
        if name == "qdrant":
            client = QdrantClient(url=server.url, timeout=30)
            for each in client.get_collections().collections:
                client.delete_collection(each.name)
            client.close()
        else:
            with connect_to_local(server.host, server.port, server.grpc_port) as weaviate:
                for alias in weaviate.alias.list_all():
                    weaviate.alias.delete(alias_name=alias)
                weaviate.collections.delete_all()
        if empty:
            return
        address = f"{name}://{server.host}:{server.port}/{'shop' if name == 'qdrant' else 'Shop'}"
        collection = open_collection(address, options=OpenOptions(grpc_port=server.grpc_port))
        source, model = (
            open_source(self._shop / "catalog.csv", id_column="id"),
            load(str(self._shop / "my-model"), "cpu"),
        )
        create = CreateOptions(vectorize="server" if name == "weaviate" else "client")  # for `near_text`
        sync(source, collection, model, create=create)
        collection.close()

    def _play(self, folder: Path, blocks: Sequence[Block]) -> tuple[int | None, str]:
        beside = folder.with_suffix(".run")
        beside.mkdir()
        (beside / "blocks.json").write_text(json.dumps([asdict(block) for block in blocks]), encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": os.pathsep.join((str(self._programs), str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": str(ROOT),
            "PAGE_STATE": str(beside / "state"),
            "CIR_PORT": str(self._port),
            "CIR_MODELS": str(beside / "models"),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-m", "tests.docs.page_runner", str(beside / "blocks.json")]
        log = beside / "output"
        with log.open("wb") as output:
            page = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = page.wait(PAGE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(page.pid, signal.SIGKILL)
        page.wait()
        return status, log.read_text(encoding="utf-8", errors="replace")
