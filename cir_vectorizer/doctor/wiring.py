"""Checks that a database itself reaches the container, and that it gets the right vectors there."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import Ask, Collection, CreateOptions, Database, Info, ModelRecord, Point, Vector
from cir_vectorizer.doctor.findings import Finding, Level
from cir_vectorizer.errors import CirError, CollectionError, MissingExtraError
from cir_vectorizer.query import ComposedQuery

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAADAAAAAYAgMAAADBk5ZPAAAACVBMVEX///8UPMjIHihPdipjAAAALElEQVR42mNcxcDAwBDGwMDAwMDAxIAEqMthgdKsAQwMq2lo"
    "DyVu+72aeD0AYtED2h/eziEAAAAASUVORK5CYII="
)
"""A small picture in base64, wider than high, so that other preprocessing gives another vector."""
PROBES = (ComposedQuery(text="a picture"), ComposedQuery.parse({"image": PICTURE}))
"""A query for each encoder."""
HITS = 10
CLOSE = 1e-3
"""Largest difference between two scores of the same vector."""

Compose = Callable[[Sequence[ComposedQuery]], npt.NDArray[np.float32]]
"""Function that turns queries into unit vectors, (n, dim)."""


@dataclass(frozen=True)
class Wiring:
    """The check of one database.

    Attributes:
        server: entry of the database.
        scratch: makes a collection beside the one examined, which is removed when the context ends.
        to_point: makes an object of the scratch collection; takes a number and a vector.
        compose: makes the right vectors.
        source: the maker of these vectors, for sentences.
    """

    server: Database
    scratch: Callable[[ModelRecord, CreateOptions], AbstractContextManager[Collection]]
    to_point: Callable[[int, Vector], Point]
    compose: Compose
    source: str

    def of_collection(self, collection: Collection, info: Info, model: ModelRecord) -> Finding:
        """Check a collection for which the server has its container make vectors and compose queries."""
        name = self.server.name
        place = (
            self.server.container_setting if info.container is None else f"the collection's address {info.container}"
        )
        plain = (info.container or "").rstrip("/").endswith("/plain")  # there, a picture's query is read as a text
        probes = PROBES[:1] if plain else PROBES
        try:
            asked = [collection.search(probe, Ask(HITS)) for probe in probes]
            vectors = self.compose(probes)
            if info.dim not in (None, vectors.shape[1]):
                same = False
            elif info.count:
                own = [collection.search(vector, Ask(HITS)) for vector in vectors]
                same = all(
                    len(one) == len(other)
                    and np.allclose([hit.score for hit in one], [hit.score for hit in other], atol=CLOSE, rtol=0)
                    for one, other in zip(asked, own, strict=True)
                )
            elif info.container is None:
                same = self._found_beside(model, vectors)
            else:
                sentence = f"{name} had {info.container} compose a query; compare its vectors once there are objects"
                return Finding("wiring", "ok", sentence)
        except CirError as error:
            return unreached(self.server, error)
        return self._compared(same, place)

    def of_server(self, model: ModelRecord) -> Finding:
        """Check a server by a collection beside the one examined, which the server has its container make vectors for."""
        try:
            same = self._found_beside(model, self.compose(PROBES))
        except CirError as error:
            return unreached(self.server, error)
        return self._compared(same, self.server.container_setting)

    def _found_beside(self, model: ModelRecord, vectors: npt.NDArray[np.float32]) -> bool:
        """Tell whether each probe's vector is found by the same probe when the server asks its container."""
        with self.scratch(model, CreateOptions(vectorize="server")) as made:
            made.upsert([self.to_point(number, vector) for number, vector in enumerate(vectors)])
            best = [made.search(probe, Ask(1)) for probe in PROBES]
        return all(hits and hits[0].score > 1 - CLOSE for hits in best)

    def _compared(self, same: bool, place: str) -> Finding:
        name, source = self.server.name, self.source
        if same:
            return Finding("wiring", "ok", f"{name} reaches the container and gets the vectors that {source} gives")
        sentence = f"{name} asks a container that gives other vectors than {source}; correct {place}, or {source}"
        return Finding("wiring", "problem", sentence)


def unreached(server: Database, error: CirError) -> Finding:
    """Return the finding about vectors that a server could not get, or that could not be compared."""
    if isinstance(error, CollectionError):
        return Finding("wiring", "problem", f"{server.name} does not get vectors from the container: {error}")
    level: Level = "warning" if isinstance(error, MissingExtraError) else "problem"
    return Finding("wiring", level, f"the vectors that {server.name} gets cannot be compared: {error}")
