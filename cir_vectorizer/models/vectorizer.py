"""The vectorizer: a backbone and its composers turn pictures, texts and composed queries into vectors of one space."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers import Composer, Plan
from cir_vectorizer.composers.arithmetic import ImageOnly, TextOnly
from cir_vectorizer.composers.base import encode_rows
from cir_vectorizer.errors import ImageError, QueryError
from cir_vectorizer.pictures.images import load_reference
from cir_vectorizer.pictures.masks import Mask, load_mask, nothing_hidden
from cir_vectorizer.query import ComposedQuery, ImageRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits

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
        """Fingerprint of the picture encoder (hex), which an index is known by."""
        return self.backbone.fingerprint

    @property
    def former_fingerprint(self) -> str:
        """Fingerprint that releases up to 0.1.0 gave to the backbone (hex)."""
        return self.backbone.former_fingerprint

    @property
    def precision(self) -> str:
        """Precision of the backbone's weights, for example `float32`."""
        return str(self.backbone.dtype).removeprefix("torch.")

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
        encoder = self.backbone.text
        return _to_numpy(encode_rows(encoder, [encoder.tokenizer.row(text) for text in texts]))

    def prepare(self, query: ComposedQuery | Mapping[str, Any] | str, allow_paths: bool = True) -> Job:
        """Check one query, tokenise its texts and decode its pictures, all on the host; safe on threads.

        Raises:
            QueryError: names the field at fault.
            ImageError: a picture of the query is refused.
        """
        query = ComposedQuery.parse(query)
        composer, plan = self.plan(query, allow_paths)
        pictures = (self._picture(i, ref, allow_paths, plan.mask) for i, ref in enumerate(query.image))
        return Job(composer, plan, tuple(pictures))

    def plan(self, query: ComposedQuery, allow_paths: bool = False) -> tuple[Composer, Plan]:
        """The first half of `prepare`: choose the composer, tokenise and read the mask, not the pictures.

        Raises:
            QueryError: names the field at fault.
            ImageError: the mask is refused.
        """
        composer = self._composer(query)
        plan = composer.prepare(query)
        if query.mask is not None:
            plan = replace(plan, mask=load_mask(query.mask, self, self.limits, allow_paths))
        elif plan.squash:
            plan = replace(plan, mask=nothing_hidden(self))
        return composer, plan

    def pixels(self, image: Image.Image, mask: Mask | None = None) -> Tensor:
        """RGB picture -> (3, height, width) as `preprocess`, zero where the mask says that it may change."""
        return self.preprocess(image) if mask is None else mask.pixels(self, image)

    def given_embedding(self, position: int, ref: ImageRef, mask: Mask | None = None) -> Tensor | None:
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
        if mask is not None and mask.hidden.any():
            raise QueryError("mask", "needs the picture itself, and a vector shows no pixels; send the picture")
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

    def _picture(self, position: int, ref: ImageRef, allow_paths: bool, mask: Mask | None) -> Tensor:
        given = self.given_embedding(position, ref, mask)
        if given is not None:
            return given
        try:
            return self.pixels(load_reference(ref, self.limits, allow_paths), mask)
        except ImageError as error:
            field = f"image.{position}"
            raise error.at(field, said=f"{ref.path or field} ") from error.__cause__

    def _embed_pictures(self, jobs: Sequence[Job]) -> list[Tensor]:
        pictures = [picture for job in jobs for picture in job.pictures]
        embeddings = torch.empty(len(pictures), self.dim, device=self.backbone.device)
        pixels = [i for i, picture in enumerate(pictures) if picture.ndim == 3]
        if pixels:
            embeddings[pixels] = self.backbone.encode_images(torch.stack([pictures[i] for i in pixels]))
        if given := [i for i, picture in enumerate(pictures) if picture.ndim == 1]:
            embeddings[given] = torch.stack([pictures[i] for i in given]).to(self.backbone.device)
        return list(torch.split(embeddings, [len(job.pictures) for job in jobs]))


def _to_numpy(tensor: Tensor) -> Vectors:
    array: Vectors = tensor.float().cpu().numpy()
    return array
