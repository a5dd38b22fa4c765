"""Model folders, and the vectorizer that one becomes.

A model folder holds `model.json` (format version, backbone, composers with their files and sha256) and
safetensors files. It is written file by file so that a reader never sees half a model: weights go under a
name that contains their hash, `model.json` is replaced last.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cir_vectorizer import published
from cir_vectorizer.backbones import Backbone, BackboneSpec, load_backbone
from cir_vectorizer.composers import Composer, Plan
from cir_vectorizer.composers.arithmetic import ImageOnly, TextOnly
from cir_vectorizer.composers.base import encode_rows, text_row
from cir_vectorizer.composers.lincir import load_phi, save_phi
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, ImageError, ModelError, QueryError
from cir_vectorizer.files import replace_file
from cir_vectorizer.images import DEFAULT_LIMITS, Limits, load_reference
from cir_vectorizer.query import ComposedQuery, ImageRef

FORMAT = 1
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Composed:
    """Query vectors, (n, dim) float32 of length 1, and for each the sentences its caller should see."""

    vectors: Vectors
    notes: list[list[str]]


@dataclass(frozen=True)
class Job:
    """One query, ready for the device: the composer that runs it, its plan and its pictures.

    `pictures` are pixels (3, height, width), or embeddings (dim,) where the query gave a vector.
    """

    composer: Composer
    plan: Plan
    pictures: tuple[Tensor, ...]


class Vectorizer:
    """A backbone and its composers: pictures, texts and composed queries become vectors of one space.

    Args:
        name: what the model is called in messages.
        backbone: the frozen encoder that the collection is indexed with.
        composers: by name.
        default_composer: runs queries that name none.
        limits: what pictures may be.
    """

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        composers: Mapping[str, Composer],
        default_composer: str,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.name = name
        self.backbone = backbone
        self.composers = dict(composers)
        self.default_composer = default_composer
        self.limits = limits
        self._image_only = ImageOnly(backbone)
        self._text_only = TextOnly(backbone)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.backbone.dim

    @property
    def fingerprint(self) -> str:
        """What an index made with this model's backbone is known by (hex)."""
        return self.backbone.fingerprint

    @property
    def mean_image_norm(self) -> float | None:
        """Mean length of unnormalised picture embeddings, where it is known."""
        return self.backbone.mean_image_norm

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture -> (3, height, width) float32 on the host; safe on threads."""
        return self.backbone.preprocess(image)

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Vectors:
        """(n, 3, height, width) -> (n, dim) **unnormalised** picture embeddings."""
        return _to_numpy(self.backbone.encode_images(pixels))

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB pictures -> (n, dim) unnormalised embeddings."""
        return self.embed_pixels(torch.stack([self.preprocess(image) for image in images]))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Plain texts -> (n, dim) unit vectors; what is over the context length is left out."""
        tokenizer, facts = self.backbone.tokenizer, self.backbone.text
        return _to_numpy(encode_rows(self.backbone, [text_row(tokenizer, facts, text)[0] for text in texts]))

    def prepare(self, query: ComposedQuery | Mapping[str, Any] | str, allow_paths: bool = True) -> Job:
        """Check one query, tokenise its texts and decode its pictures, all on the host; safe on threads.

        Raises:
            QueryError: names the field at fault.
            ImageError: a picture of the query is refused.
        """
        query = ComposedQuery.parse(query)
        composer, plan = self.plan(query)
        return Job(composer, plan, tuple(self._picture(i, ref, allow_paths) for i, ref in enumerate(query.image)))

    def plan(self, query: ComposedQuery) -> tuple[Composer, Plan]:
        """The first half of `prepare`: choose the composer and tokenise, without a look at the pictures.

        Raises:
            QueryError: names the field at fault.
        """
        composer = self._composer(query)
        return composer, composer.prepare(query)

    def given_embedding(self, position: int, ref: ImageRef) -> Tensor | None:
        """The unnormalised (dim,) embedding of a query's picture that is given as a vector; None if it is a picture.

        Raises:
            QueryError: the vector does not fit, or the reference is an id.
        """
        field = f"image.{position}"
        if ref.id is not None:
            raise QueryError(
                field,
                'an id is known only where a collection is at hand; pass the object\'s vector as {"vector": […], "norm": …}',
            )
        if ref.vector is None:
            return None
        if len(ref.vector) != self.dim:
            raise QueryError(
                f"{field}.vector",
                f"has {len(ref.vector)} numbers, but model {self.name!r} has {self.dim}; use a vector of its own index",
            )
        vector = torch.tensor(ref.vector, dtype=torch.float32)
        length = vector.norm().item()
        if not math.isfinite(length) or not length:
            raise QueryError(
                f"{field}.vector", "is too long or too short for float32; give the image embedding of a picture"
            )
        if ref.norm is None and abs(length - 1) > 1e-2:
            return vector
        norm = ref.norm or self.mean_image_norm
        if norm is None:
            raise QueryError(
                f"{field}.norm",
                "the model does not know how long its picture embeddings are; give the norm that the vector had",
            )
        scaled: Tensor = vector * (norm / length)
        return scaled

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> Vectors:
        """Jobs of `prepare` -> (n, dim) unit vectors; pictures are embedded in one batch, then each composer runs once."""
        references = self._embed_pictures(jobs)
        vectors = torch.empty(len(jobs), self.dim)
        for composer in {id(job.composer): job.composer for job in jobs}.values():
            mine = [i for i, job in enumerate(jobs) if job.composer is composer]
            composed = composer.compose([jobs[i].plan for i in mine], [references[i] for i in mine])
            vectors[mine] = composed.float().cpu()
        return _to_numpy(vectors)

    def compose(self, queries: Sequence[ComposedQuery | Mapping[str, Any] | str]) -> Composed:
        """Composed queries -> unit vectors to search with.

        Raises:
            QueryError: names the field at fault.
            ImageError: a picture of a query is refused.
        """
        jobs = [self.prepare(query) for query in queries]
        return Composed(self.run(jobs), [list(job.plan.notes) for job in jobs])

    def _composer(self, query: ComposedQuery) -> Composer:
        if query.plain:
            return self._image_only if query.image else self._text_only
        name = query.composer or self.default_composer
        if name not in self.composers:
            raise QueryError(
                "composer", f"model {self.name!r} has no composer {name!r}; it has {', '.join(self.composers)}"
            )
        return self.composers[name]

    def _picture(self, position: int, ref: ImageRef, allow_paths: bool) -> Tensor:
        given = self.given_embedding(position, ref)
        if given is not None:
            return given
        try:
            return self.preprocess(load_reference(ref, self.limits, allow_paths))
        except ImageError as error:
            raise ImageError(error.reason, f"{ref.path or f'image.{position}'} {error}") from error

    def _embed_pictures(self, jobs: Sequence[Job]) -> list[Tensor]:
        pictures = [picture for job in jobs for picture in job.pictures]
        embeddings = torch.empty(len(pictures), self.dim, device=self.backbone.device)
        pixels = [i for i, picture in enumerate(pictures) if picture.ndim == 3]
        if pixels:
            embeddings[pixels] = self.backbone.encode_images(torch.stack([pictures[i] for i in pixels]))
        if given := [i for i, picture in enumerate(pictures) if picture.ndim == 1]:
            embeddings[given] = torch.stack([pictures[i] for i in given]).to(self.backbone.device)
        return list(torch.split(embeddings, [len(job.pictures) for job in jobs]))


def load(name: str, device: str | None = None, dtype: torch.dtype = torch.float32) -> Vectorizer:
    """Load a model.

    Args:
        name: a model folder of ours, a built-in name (`cir-vectorizer models list`), a folder of transformers,
            sentence-transformers or open_clip, or `loader:name,key=value`.
        device: for example `cuda:1`; the best one present if None.
        dtype: of the backbone's weights; float32 unless on a GPU.

    Raises:
        ModelError: says what was looked for and what to do.
    """
    folder = Path(name)
    if name == "tiny":
        folder = published.TINY_FOLDER
    elif name in published.PUBLISHED:
        folder = published.store() / name
        if not (folder / "model.json").is_file():
            pull(name)
    if (folder / "model.json").is_file():
        return _load_folder(folder, name, device, dtype)
    backbone = load_backbone(_foreign_spec(name), device, dtype)
    return _assemble(name, backbone, {}, folder, None)


def pull(name: str) -> Path:
    """Fetch a published model and make it a model folder in the store.

    Raises:
        ModelError: no such name, or no network; then it says which file to put where.
    """
    files = published.fetch(name)
    entry = published.PUBLISHED[name]
    if entry.composer != "lincir":
        raise ModelError(
            f"{name!r} was fetched to {files[0].parent}, but this version has no composer {entry.composer!r}; update cir-vectorizer"
        )
    return import_phi(files[0], BackboneSpec.parse(entry.backbone), files[0].parent)


def import_phi(checkpoint: Path, spec: BackboneSpec, folder: Path) -> Path:
    """Make a model folder of a published Φ checkpoint (LinCIR, SEARLE, Pic2Word) and its backbone."""
    backbone = load_backbone(spec)
    phi = load_phi(checkpoint, backbone)
    record: dict[str, Any] = {"source": checkpoint.name}
    if hasattr(phi, "fc_out"):
        from cir_vectorizer.composers.lincir import PIC2WORD_PROMPT

        record["prompt"] = PIC2WORD_PROMPT
    save(folder, backbone, {"lincir": (record, lambda path: save_phi(path, phi))})
    return folder


def save(
    folder: Path, backbone: Backbone, composers: Mapping[str, tuple[Mapping[str, Any], Callable[[Path], None]]]
) -> None:
    """Write a model folder; a reader sees the old model or the new one, never a mixture.

    Args:
        folder: made if missing.
        backbone: recorded by its spec and fingerprint; its weights are not copied.
        composers: by name, a JSON record (prompt, training, …) and a function that writes the weights to a path.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries: dict[str, Any] = {}
        for name, (record, write) in composers.items():
            draft = folder / f".{name}.safetensors"
            write(draft)
            draft.chmod(0o644)
            digest = _sha256(draft)
            file = f"{name}-{digest[:12]}.safetensors"
            os.replace(draft, folder / file)
            entries[name] = {**record, "file": file, "sha256": digest}
        spec = backbone.spec
        model = {
            "format": FORMAT,
            "backbone": {
                "loader": spec.loader,
                "name": spec.name,
                "options": dict(spec.options),
                "dim": backbone.dim,
                "token_width": backbone.text.width,
                "mean_image_norm": backbone.mean_image_norm,
                "fingerprint": backbone.fingerprint,
            },
            "composers": entries,
            "default_composer": next(iter(entries)),
        }
        replace_file(folder / "model.json", (json.dumps(model, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ModelError(f"model folder {folder} cannot be written: {error.strerror or error}") from error
    kept = {entry["file"] for entry in entries.values()}
    for name in entries:
        for path in folder.glob(f"{name}-*.safetensors"):
            if path.name not in kept:
                with contextlib.suppress(OSError):  # an old file left behind harms nothing
                    path.unlink()


def read_record(folder: Path) -> dict[str, Any]:
    """The checked content of a folder's model.json.

    Raises:
        ModelError: missing, not JSON, or of a later format.
    """
    path = folder / "model.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise ModelError(
                f"{path} has format {record['format']}, this version reads up to {FORMAT}; update cir-vectorizer"
            )
        _ = record["backbone"]["loader"], record["composers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is no model record ({error}); point at a folder that `cir-vectorizer train` wrote"
        ) from error
    return record


def _load_folder(folder: Path, name: str, device: str | None, dtype: torch.dtype) -> Vectorizer:
    record = read_record(folder)
    wanted = record["backbone"]
    backbone = load_backbone(BackboneSpec(wanted["loader"], wanted["name"], wanted["options"]), device, dtype)
    if backbone.fingerprint != wanted["fingerprint"]:
        raise BackboneMismatch(
            f"{folder} was trained over backbone {backbone.spec} with fingerprint {wanted['fingerprint'][:12]}, but its "
            f"weights here have {backbone.fingerprint[:12]}; get the weights it was trained with, or train again"
        )
    if backbone.mean_image_norm is None:
        backbone.mean_image_norm = wanted.get("mean_image_norm")
    for composer, entry in record["composers"].items():
        path = folder / entry["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} of composer {composer!r} is missing; copy the whole model folder")
        if _sha256(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} of composer {composer!r} is damaged (its sha256 is not the recorded one); copy it again"
            )
    return _assemble(name, backbone, record["composers"], folder, record.get("default_composer"))


def _assemble(
    name: str, backbone: Backbone, records: Mapping[str, Any], folder: Path, default: str | None
) -> Vectorizer:
    kinds = {point.name: point for point in entry_points(group="cir_vectorizer.composers")}
    composers: dict[str, Composer] = {}
    for composer, record in records.items():
        kind = record.get("kind", composer)
        if kind not in kinds:
            raise ModelError(
                f"{folder} needs composer {kind!r}, which is not installed; installed are {', '.join(sorted(kinds))}"
            )
        composers[composer] = kinds[kind].load().load(record, folder, backbone)
    for kind, point in kinds.items():
        if kind not in composers and getattr(cls := point.load(), "weightless", False):
            composers[kind] = cls.load({}, folder, backbone)
    return Vectorizer(name, backbone, composers, default or "sum")


def _foreign_spec(name: str) -> BackboneSpec:
    folder = Path(name)
    if folder.is_dir():
        for file, loader in (("modules.json", "sentence-transformers"), ("config.json", "transformers")):
            if (folder / file).is_file():
                return BackboneSpec(loader, str(folder.resolve()))
        raise ModelError(
            f"folder {name} holds no model: no model.json, config.json or modules.json; point at a model folder"
        )
    if ":" in name:
        return BackboneSpec.parse(name)
    raise ModelError(
        f"no model {name!r}: no such folder, and the built-in names are {', '.join(published.names())}; "
        "backbones alone are written loader:name, for example open_clip:ViT-B-32,pretrained=openai"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _to_numpy(tensor: Tensor) -> Vectors:
    array: Vectors = tensor.float().cpu().numpy()
    return array


__all__ = ["Composed", "Job", "Vectorizer", "import_phi", "load", "pull", "read_record", "save"]
