"""Databases for the tests of collections: embedded Qdrant everywhere, real Qdrant and Weaviate servers where they run."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from cir_vectorizer.collections import Address, ModelRecord, OpenOptions, Point, SyncRecord, open_collection

DIM = 4
MODEL = ModelRecord("my-model", "a1" * 32, DIM)
RECORD = SyncRecord("/photos/a.jpg", 10, 1_700_000_000_123_456_789, "00ff", 9.5, MODEL.fingerprint, "ab")

QDRANT = [
    pytest.param("embedded", id="embedded"),
    pytest.param("qdrant", id="qdrant", marks=pytest.mark.live),
    pytest.param("qdrant-grpc", id="qdrant-grpc", marks=pytest.mark.live),
]
WEAVIATE = [pytest.param("weaviate", id="weaviate", marks=pytest.mark.live)]
SERVERS = QDRANT[1:] + WEAVIATE
EVERY = QDRANT + WEAVIATE
ONE_OF_EACH = [QDRANT[0], QDRANT[1], *WEAVIATE]


@dataclass
class Database:
    """A database for collections; `close` removes those that were opened through it."""

    kind: str
    server: object = None  # a tests.support.servers.Server
    folder: Path | None = None
    opened: list = field(default_factory=list)

    @property
    def embedded(self):
        return self.kind == "embedded"

    def open(self, name="Shop", **options):
        """Open a collection that no other test uses."""
        unique = f"{name}{os.getpid()}_{len(self.opened)}"
        collection = open_collection(self.address(unique), options=self.options(**options))
        self.opened.append(collection)
        return collection

    def again(self, collection, **options):
        """Open the same collection again."""
        other = open_collection(collection.address, options=replace(collection.options, **options))
        self.opened.append(other)
        return other

    def address(self, name):
        if self.embedded:
            return Address("qdrant", name, path=self.folder / "index")
        return Address(self.kind.partition("-")[0], name, self.server.host, self.server.port)

    def options(self, **options):
        if self.embedded:
            return OpenOptions(**options)
        grpc = self.kind == "qdrant-grpc"
        return OpenOptions(grpc=grpc, grpc_port=self.server.grpc_port, **options)

    def close(self):
        for collection in self.opened:
            collection.close()
        for address in {collection.address for collection in self.opened}:
            whole = open_collection(address, options=self.options())
            whole.drop()
            whole.close()


def database_of(kind, request, folder):
    """Return the database that a parameter of `EVERY` names."""
    if kind == "embedded":
        return Database(kind, folder=folder)
    return Database(kind, request.getfixturevalue("weaviate_server" if kind == "weaviate" else "qdrant_server"))


@pytest.fixture
def database(request, tmp_path):
    """Database under test; parametrised with `indirect=True`."""
    found = database_of(request.param, request, tmp_path)
    yield found
    found.close()


def every(kinds=EVERY):
    """Return a decorator that runs a test with each of these databases."""
    return pytest.mark.parametrize("database", kinds, indirect=True)


def uid(number):
    """Return an id that both databases accept."""
    return str(UUID(int=number + 1))


def unit(*numbers):
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def points(payloads, vector=None):
    """Return objects with these payloads, the first one nearest to (1, 0, 0, 0)."""
    return [
        Point(uid(i), unit(1, i / 10, 0, 0) if vector is None else vector, payload)
        for i, payload in enumerate(payloads)
    ]


FRONT = unit(1, 0, 0, 0)
