"""Embeddings of a benchmark's pictures, kept in the user's cache folder so that a picture is read once for each model."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.files import cache_folder, replace_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cir_vectorizer.models import Vectorizer

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with the numbers of items done and of all."""
BATCH = 64
"""Pictures that are in memory at a time."""
PART = 2048
"""Pictures of one file of the cache: as many are lost at most if a run is stopped."""
_VERSION = "cir-vectorizer embeddings 1"


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of pictures.

    Attributes:
        vectors: (pictures, dim), unnormalised.
        rows: row of each picture that could be read, by its name.
        missing: names of the others.
    """

    vectors: Vectors
    rows: Mapping[str, int]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """Pictures to embed.

    Attributes:
        names: each once.
        file: returns the file of a picture, which may not exist.
        view: returns what the model is shown of a picture.
    """

    names: Sequence[str]
    file: Callable[[str], Path]
    view: "Callable[[str, Image.Image], Image.Image]"


def embed(pictures: Pictures, vectorizer: "Vectorizer", progress: Progress | None = None) -> Embeddings:
    """Embed pictures, or read their embeddings from the cache.

    The cache has a file for every 2,048 pictures, named by the model's fingerprint and by the names, sizes and times of
    change of the pictures. It is written whole or not at all, and pictures that could not be read are tried again.

    Raises:
        SourceError: no picture exists, or the cache cannot be written.
    """
    names = pictures.names
    vectors = np.full((len(names), vectorizer.dim), np.nan, np.float32)
    stats = [_stat(pictures.file(name)) for name in names]
    if not any(stats):
        raise SourceError(
            f"none of {len(names):,} pictures exists; the first is {pictures.file(names[0])}: put the dataset's pictures there"
        )
    for start in range(0, len(names), PART):
        part = slice(start, start + PART)
        cache = _cache_file(names[part], stats[part], vectorizer)
        found = vectors[part]
        cached = _read(cache, found.shape)
        if cached is not None:
            found[:] = cached
        wanted = [start + i for i, row in enumerate(found) if stats[start + i] and np.isnan(row[0])]
        read = 0
        for at in range(0, len(wanted), BATCH):
            rows = wanted[at : at + BATCH]
            read += _fill(vectors, rows, pictures, vectorizer)
            if progress is not None:
                progress(min(rows[-1] + 1, len(names)), len(names))
        if read:
            _write(cache, found)
    readable = ~np.isnan(vectors[:, 0])
    return Embeddings(
        vectors,
        {name: i for i, name in enumerate(names) if readable[i]},
        tuple(name for i, name in enumerate(names) if not readable[i]),
    )


def _stat(path: Path) -> tuple[str, int, int] | None:
    """Return a file's name, size and time of change; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path.name, found.st_size, found.st_mtime_ns


def _cache_file(names: Sequence[str], stats: Sequence[tuple[str, int, int] | None], vectorizer: "Vectorizer") -> Path:
    digest = PartsDigest(_VERSION, vectorizer.fingerprint, vectorizer.precision)
    for name, stat in zip(names, stats, strict=True):
        digest.add(name, repr(stat))
    return cache_folder() / "embeddings" / f"{digest.hexdigest()[:40]}.npy"


def _read(cache: Path, shape: tuple[int, ...]) -> Vectors | None:
    """Return the content of a file of the cache; None if there is none, or a damaged one."""
    try:
        found = np.load(cache, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if isinstance(found, np.ndarray) and found.shape == shape and found.dtype == np.float32 else None


def _write(cache: Path, vectors: Vectors) -> None:
    stream = BytesIO()
    np.save(stream, vectors)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cache, stream.getvalue())
    except OSError as error:
        cause = error.strerror or error
        raise SourceError(
            f"the cache {cache.parent} cannot be written ({cause}); set XDG_CACHE_HOME to a folder with room"
        ) from error


def _fill(vectors: Vectors, rows: Sequence[int], pictures: Pictures, vectorizer: "Vectorizer") -> int:
    """Embed the pictures of some rows; rows of pictures that cannot be read stay NaN. Return the number of the others."""
    import torch

    from cir_vectorizer.pictures.images import open_image

    def pixels(row: int) -> "Tensor | None":
        name = pictures.names[row]
        try:
            return vectorizer.preprocess(pictures.view(name, open_image(pictures.file(name), vectorizer.limits)))
        except ImageError:
            return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        opened = list(pool.map(pixels, rows))
    read = [row for row, each in zip(rows, opened, strict=True) if each is not None]
    if read:
        found = vectorizer.embed_pixels(torch.stack([each for each in opened if each is not None]))
        lengths = np.linalg.norm(found, axis=1)
        found[~(np.isfinite(lengths) & (lengths > 0))] = np.nan
        vectors[read] = found
    return len(read)
