"""Adoption of a collection that another program filled: a model is verified on its pictures, then noted in it."""

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import Collection, Id, Info, ModelRecord, Point, SyncRecord, check, picture_cell
from cir_vectorizer.doctor.findings import Finding
from cir_vectorizer.errors import CirError, ImageError
from cir_vectorizer.redaction import cause, without_credentials
from cir_vectorizer.sources.picture_column import guess_columns
from cir_vectorizer.sources.places import Places
from cir_vectorizer.sources.web import Web

if TYPE_CHECKING:
    from PIL.Image import Image

    from cir_vectorizer.models import Vectorizer

PICTURES = 20
"""Objects whose pictures are encoded again."""
ALIKE = 0.999
"""Least cosine between a stored vector and the one that the model makes of the same picture."""
_RELATED = 0.8
"""Median cosine above which the weights are probably the same."""
_READERS = 8
_CHECK = "adoption"


class _UnfitError(Exception):
    """Raised with the sentence that says why a collection cannot be adopted."""


@dataclass(frozen=True)
class _Seen:
    """An object, and its picture as it was read."""

    point: Point
    location: str
    content: bytes
    picture: "Image"


class Adoption:
    """Verifies that a model made a collection's vectors, and notes the model in the collection.

    Args:
        vectorizer: the model.
        web: fetches pictures that are named by URL.
        base: folder that relative paths start at.
    """

    def __init__(self, vectorizer: "Vectorizer", web: Web, base: str) -> None:
        self._vectorizer = vectorizer
        self._model = ModelRecord.of(vectorizer)
        self._places = Places(base, web)

    def findings(self, collection: Collection, info: Info) -> Iterator[Finding]:
        """Adopt a collection; yield one finding."""
        if self._model.made(info.fingerprint):
            sentence = f"{collection.address} names {info.model} already, so there is nothing to adopt"
            yield Finding(_CHECK, "ok", sentence)
            return
        try:
            yield Finding(_CHECK, "ok", self._adopt(collection, info))
        except (_UnfitError, CirError) as error:
            yield Finding(_CHECK, "problem", str(error))

    def _adopt(self, collection: Collection, info: Info) -> str:
        check(collection, self._model)
        if not info.count:
            raise _UnfitError(f"{collection.address} holds no objects that could be verified; sync fills it as it is")
        named = "name another with --using, or " if len(info.vectors) > 1 else ""
        if info.blends_text:
            raise _UnfitError(
                f"the vectors of {collection.address} were made of pictures and texts together, which {self._model} does "
                f"not make; {named}sync into a new collection"
            )
        points = collection.get(_spread(id_ for id_, record in collection.scan() if record is None))
        points = [point for point in points if point.vector is not None and point.vector.any()]
        if not points:
            raise _UnfitError(
                f"no object of {collection.address} has a vector of its own; {named}sync into a new collection"
            )
        if info.distance != "cosine":
            self._check_lengths(points, info)
        column, seen, norms, failures = self._verified(collection, points)
        collection.adopt(self._model, column)
        noted = collection.info()
        kept = "it notes the model"
        if noted is None or not self._model.made(noted.fingerprint):
            collection.merge([self._recorded(each, norm) for each, norm in zip(seen, norms, strict=True)])
            noted = collection.info()
            if noted is None or not self._model.made(noted.fingerprint):
                raise _UnfitError(
                    f"all {len(seen)} pictures fit, but this server keeps no note of the model; update it and run this again"
                )
            kept = f"this server keeps no note, so the records of these {len(seen)} objects name the model"
        left = f" ({len(failures)} others could not be read: {failures[0]})" if failures else ""
        return (
            f"{len(seen)} pictures of column {column!r} were encoded again and give the stored vectors{left}; {kept}, and "
            f"sync --model {self._model.name} keeps the collection in step (with --take-over these objects too)"
        )

    def _check_lengths(self, points: Sequence[Point], info: Info) -> None:
        lengths = [float(np.linalg.norm(point.vector)) for point in points if point.vector is not None]
        if max(abs(length - 1) for length in lengths) > 1e-2:
            raise _UnfitError(
                f"the vectors are not of length 1 (they are {min(lengths):.3g} to {max(lengths):.3g} long) and are compared "
                f"by {info.distance}, so long ones always win; write them divided by their length, or into a collection "
                "with cosine"
            )

    def _verified(
        self, collection: Collection, points: Sequence[Point]
    ) -> tuple[str, list[_Seen], list[float], list[str]]:
        """Return the column of the pictures from which the model makes the stored vectors, the objects whose pictures
        could be read, the lengths of their embeddings, and a sentence for each other object."""
        payloads = [point.payload for point in points]
        named = collection.options.picture_column
        columns = [named] if named is not None else guess_columns(payloads)
        known = ", ".join(sorted({name for payload in payloads for name in payload})) or "none"
        if not columns:
            raise _UnfitError(
                f"no column of {collection.address} clearly names pictures by URL or path; name the one that does with "
                f"--picture-column (there are: {known})"
            )
        differing: list[_UnfitError] = []
        unread: list[_UnfitError] = []
        for column in columns:
            with ThreadPoolExecutor(_READERS, "cir-read") as readers:
                found = list(readers.map(self._read, points, [column] * len(points)))
            seen = [each for each in found if isinstance(each, _Seen)]
            failures = [each for each in found if isinstance(each, str)]
            if 2 * len(seen) < len(points):
                sentence = (
                    f"{len(failures)} of {len(points)} pictures that column {column!r} names could not be read "
                    f"({failures[0]}); run this where they can be (relative paths start at the current folder), or name "
                    f"another column with --picture-column (there are: {known})"
                )
                unread.append(_UnfitError(sentence))
                continue
            try:
                return column, seen, self._norms(collection, column, seen), failures
            except _UnfitError as error:
                differing.append(error)
        raise (differing + unread)[0]

    def _read(self, point: Point, column: str) -> _Seen | str:
        from cir_vectorizer.pictures.images import open_image

        limits = self._vectorizer.limits
        cell = picture_cell(point.payload, column)
        if cell is None:
            return f"object {point.id} names none"
        try:
            picture, _ = self._places.picture(cell)
            content = picture.read(limits)
            return _Seen(point, picture.location, content, open_image(content, limits))
        except (ImageError, OSError, ValueError) as error:
            problem = str(error) if isinstance(error, ImageError) else f"cannot be read ({cause(error)})"
            return f"object {point.id}: {without_credentials(str(cell)[:200])} {problem}"

    def _norms(self, collection: Collection, column: str, seen: Sequence[_Seen]) -> list[float]:
        """Return the lengths of the embeddings after checking that the model makes the stored vectors."""
        embeddings = np.asarray(self._vectorizer.embed_images([each.picture for each in seen]), dtype=np.float32)
        norms = np.linalg.norm(embeddings, axis=1)
        made = embeddings / norms[:, None]
        stored = np.stack([each.point.vector for each in seen if each.point.vector is not None])
        stored = stored / np.linalg.norm(stored, axis=1, keepdims=True)
        cosines = (made * stored).sum(axis=1)
        if (cosines < ALIKE).any():
            raise _UnfitError(self._difference(collection, column, seen, cosines, stored @ made.T))
        return [float(norm) for norm in norms]

    def _difference(
        self,
        collection: Collection,
        column: str,
        seen: Sequence[_Seen],
        cosines: npt.NDArray[np.float32],
        between: npt.NDArray[np.float32],
    ) -> str:
        """Return the sentence about vectors that differ.

        Args:
            between: (n, n), the cosine of each stored vector with the vector that the model makes of each picture.
        """
        model, count = self._model, len(seen)
        worst = int(cosines.argmin())
        differing = int((cosines < ALIKE).sum())
        own = int((between.diagonal() >= between.max(axis=1) - 1e-6).sum())
        range_ = (
            f"their cosines with the vectors that it makes of the pictures in column {column!r} are {cosines.min():.3f} to "
            f"{cosines.max():.3f}"
        )
        if 4 * differing <= count:
            return (
                f"{count - differing} of {count} objects have the vectors of {model}, and {differing} have others (object "
                f"{seen[worst].point.id}: cosine {cosines[worst]:.3f}): their pictures have changed since, or another model "
                "made them; write these anew or remove them, then run this again"
            )
        if own >= 0.9 * count and float(np.median(cosines)) >= _RELATED:
            return (
                f"the vectors of {collection.address} are nearly, but not quite those of {model}: {range_}. Its weights are "
                "probably the same, and the preprocessing (size, crop, colours), the activation or the pictures' files "
                "differ; give the --model that made them, with its own preprocessing, or sync into a new collection"
            )
        return (
            f"another model than {model} made the vectors of {collection.address}: {range_}, and must be {ALIKE} or more; "
            "give the --model that made them, or the --picture-column of their pictures, or sync into a new collection"
        )

    def _recorded(self, seen: _Seen, norm: float) -> Point:
        digest = hashlib.sha256(seen.content).hexdigest()
        record = SyncRecord(seen.location, len(seen.content), 0, digest, norm, self._model.fingerprint, "")
        return Point(seen.point.id, None, record.join({}))


def _spread(ids: Iterable[Id]) -> list[Id]:
    """Return the first id, and others from all over the collection."""
    chosen: list[Id] = []
    choose = random.Random(0)
    for position, id_ in enumerate(ids):
        if position < PICTURES:
            chosen.append(id_)
        elif 0 < (place := choose.randrange(position + 1)) < PICTURES:
            chosen[place] = id_
    return chosen
