"""The vectorizer: it turns pictures, texts and composed queries into vectors of one space."""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers import Composer, fusion
from cir_vectorizer.composers.arithmetic import ImageOnly, TextOnly
from cir_vectorizer.composers.base import encode_rows
from cir_vectorizer.errors import CirError, ImageError, QueryError
from cir_vectorizer.models.record import composer_digest
from cir_vectorizer.models.weights import weights_bytes
from cir_vectorizer.models.work import PICTURE, TEXT, EncodedPicture, Work, composer_stage
from cir_vectorizer.pictures.images import load_reference, open_image, read_reference
from cir_vectorizer.pictures.masks import Mask, load_mask, nothing_hidden
from cir_vectorizer.query import ComposedQuery, ImageRef, Options
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits
from cir_vectorizer.query.takes import Takes
from cir_vectorizer.query.wire import Composed, read_query

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture

Vectors = npt.NDArray[np.float32]
_PICTURES_AT_ONCE = 64
"""Pictures of `embed_images` whose pixels are in memory at once."""


class Vectorizer:
    """A backbone and its composers: pictures, texts and composed queries become vectors of one space.

    Args:
        name: the model's name in messages.
        backbone: the frozen encoder that the collection is indexed with.
        composers: by name.
        default_composer: runs queries that name none.
        limits: limits on the pictures that are accepted.
        defaults: for composers, the options that queries get where they give none.
        records: for composers of a model folder, their records in model.json; empty for those without weights.
    """

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        composers: Mapping[str, Composer],
        default_composer: str,
        limits: Limits = DEFAULT_LIMITS,
        defaults: Mapping[str, Options] | None = None,
        records: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.name = name
        self.backbone = backbone
        self.composers = dict(composers)
        self.default_composer = default_composer
        self.limits = limits
        self.defaults = dict(defaults or {})
        self.copies: tuple[Vectorizer, ...] = ()
        """The same model on other devices."""
        self._records = dict(records or {})
        self._image_only = ImageOnly(backbone)
        self._text_only = TextOnly(backbone)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.backbone.dim

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the picture encoder (hex), which identifies an index."""
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
    def on_all_devices(self) -> "list[Vectorizer]":
        """This model and its copies, in the order of the devices."""
        return [self, *self.copies]

    @property
    def weights_bytes(self) -> int:
        """Memory of all weights that are PyTorch's, of picture encoder, text encoder and composers together."""
        return weights_bytes([self.backbone, *self.composers.values()])

    @property
    def mean_image_norm(self) -> float | None:
        """Mean length of unnormalised picture embeddings; None if unknown."""
        return self.backbone.mean_image_norm

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture -> (3, height, width) float32 on the host; safe on threads."""
        return self.backbone.preprocess(image)

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Vectors:
        """(n, 3, height, width) -> (n, dim) **unnormalised** picture embeddings."""
        return _to_numpy(self.backbone.encode_images(pixels))

    def embed_images(self, images: "Sequence[Picture]") -> Vectors:
        """Pictures -> (n, dim) unnormalised embeddings, some pictures at a time.

        Args:
            images: files (`pathlib.Path`), encoded bytes, base64, or PIL images, which are taken as RGB and upright.

        Raises:
            ImageError, QueryError: the picture at `index` is refused.
        """
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), _PICTURES_AT_ONCE):
            pixels = []
            for i, image in enumerate(images[start : start + _PICTURES_AT_ONCE], start):
                pixels.append(self.preprocess(image if isinstance(image, Image.Image) else self._open(image, i)))
            parts.append(self.embed_pixels(torch.stack(pixels)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Plain texts -> (n, dim) unit vectors; a text's end beyond the context length is left out."""
        encoder = self.backbone.text
        return _to_numpy(encode_rows(encoder, [encoder.tokenizer.row(text) for text in texts]))

    def served_as(self, name: str, limits: Limits) -> "Vectorizer":
        """Return the same model under another name and with other limits for pictures."""
        served = copy.copy(self)
        served.name, served.limits = name, limits
        return served

    def without_defaults(self) -> "Vectorizer":
        """Return the same model without its folder's default options."""
        bare = copy.copy(self)
        bare.defaults = {}
        return bare

    @property
    def takes(self) -> Mapping[str, Takes]:
        """Fields and options of a query that each composer reads, by the composer's name."""
        return {name: composer.takes.with_fusion() for name, composer in self.composers.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each composer that came from a model folder (hex), by name; see `composer_digest`."""
        return {
            name: composer_digest(name, record, self.defaults.get(name, Options()))
            for name, record in self._records.items()
        }

    @property
    def stages(self) -> Mapping[str, Composer]:
        """Composers by stage: the one for plain texts, and the model's own."""
        return {TEXT: self._text_only, **{composer_stage(name): each for name, each in self.composers.items()}}

    def composer(self, name: str) -> Composer:
        """Return a composer.

        Raises:
            QueryError: the model has none of this name.
        """
        if name not in self.composers:
            raise QueryError(
                "composer", f"model {self.name!r} has no composer {name!r}; it has {', '.join(self.composers)}"
            )
        return self.composers[name]

    def plan(self, query: ComposedQuery | Mapping[str, Any] | str, allow_paths: bool = False) -> Work:
        """Check a query, tokenise its texts and read its pictures' bytes, all on the host; safe on threads.

        Args:
            allow_paths: read local files; never for queries that came over a network.

        Raises:
            QueryError: names the field at fault.
            ImageError: a picture of the query is refused.
        """
        query = ComposedQuery.parse(query)
        if query.wanted:
            raise QueryError(
                "must_text",
                "compares the results of a search, and a vector has none; search by POST /v1/search, cir-vectorizer search "
                "or cir_vectorizer.search, or remove it",
            )
        if query.plain and query.image:
            return self.plan_picture(query.image[0], "image.0", allow_paths=allow_paths)
        if query.plain:
            return self.plan_text(query.text or "")
        name = query.composer or self.default_composer
        composer = self.composer(name)
        self._check_fit(composer, query)
        plan = fusion.prepare(composer, query, self.defaults.get(name))
        if query.mask is not None:
            plan = replace(plan, mask=load_mask(query.mask, self, self.limits, allow_paths))
        elif plan.squash:
            plan = replace(plan, mask=nothing_hidden(self))
        pictures = (self._read(i, ref, f"image.{i}", allow_paths, plan.mask) for i, ref in enumerate(query.image))
        return Work(self.name, composer_stage(name), composer, plan, tuple(pictures), name)

    def plan_text(self, text: str) -> Work:
        """Tokenise a plain text, which may be empty; safe on threads."""
        return Work(self.name, TEXT, self._text_only, self._text_only.plain(text))

    def plan_picture(self, ref: ImageRef, field: str = "", allow_paths: bool = False) -> Work:
        """Read the bytes of a picture alone; safe on threads.

        Args:
            field: dotted name of its part of a query; "" for a picture alone.

        Raises:
            QueryError, ImageError: as `plan`.
        """
        plan = self._image_only.plain(ComposedQuery.model_construct(image=(ref,)))
        return Work(self.name, PICTURE, self._image_only, plan, (self._read(0, ref, field, allow_paths),))

    def pixels(self, image: Image.Image, mask: Mask | None = None) -> Tensor:
        """RGB picture -> (3, height, width), as `preprocess`, but zero where the mask hides it."""
        return self.preprocess(image) if mask is None else mask.pixels(self, image)

    def given_embedding(self, position: int, ref: ImageRef, mask: Mask | None = None) -> Tensor | None:
        """Return the unnormalised (dim,) embedding of a reference given as a vector; None if it is a picture.

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
    def run(self, works: Sequence[Work]) -> Vectors:
        """Run planned work at once: pictures are embedded in one batch, then each composer runs once.

        Returns:
            (n, dim) unit vectors.

        Raises:
            ImageError: a picture cannot be decoded, or is a URL, which only the service fetches.
        """
        references = self._embed_pictures(works)
        vectors = torch.empty(len(works), self.dim)
        for composer in {id(work.composer): work.composer for work in works}.values():
            mine = [i for i, work in enumerate(works) if work.composer is composer]
            composed = fusion.compose(composer, [works[i].plan for i in mine], [references[i] for i in mine])
            vectors[mine] = composed.float().cpu()
        return _to_numpy(vectors)

    def compose(self, queries: Sequence[ComposedQuery | Mapping[str, Any] | str]) -> Composed:
        """Composed queries -> unit vectors to search with.

        Raises:
            QueryError: names the field at fault; `index` is the query's position.
            ImageError: a picture of the query at `index` is refused.
        """
        works = []
        for i, query in enumerate(queries):
            with _numbered(i):
                works.append(self.plan(query, allow_paths=True))
        return Composed(self.run(works), [list(work.notes) for work in works])

    def explain(self, work: Work, embeddings: Sequence[Vectors], words: int) -> list[list[tuple[str, float]]]:
        """Name the words nearest to what the composer made of each picture; for a picture alone, the default composer.

        Args:
            embeddings: (dim,) unnormalised, one for each of the work's pictures.
            words: largest number of words for each picture.

        Returns:
            As `Composer.explain`.
        """
        if not embeddings:
            return []
        composer = work.composer if work.composer_name else self.composer(self.default_composer)
        return composer.explain(torch.from_numpy(np.stack(embeddings)), words)

    @torch.inference_mode()
    def nearest_words(self, work: Work, words: int) -> list[list[tuple[str, float]]]:
        """Embed the work's pictures and `explain` them."""
        (embeddings,) = self._embed_pictures([work])
        return self.explain(work, list(_to_numpy(embeddings)), words)

    def decode(self, picture: EncodedPicture) -> Tensor:
        """Read a picture's pixels, (3, height, width), zero where its mask hides them; safe on threads.

        Raises:
            ImageError: the picture cannot be decoded, or is a URL.
        """
        if picture.url is not None:
            raise ImageError("url", "pictures by URL are not fetched here; give the picture itself")
        return self.pixels(open_image(picture.data, self.limits), picture.mask)

    def _open(self, image: "Picture", position: int) -> Image.Image:
        try:
            (ref,) = read_query({"image": image}).image
            return load_reference(ref, self.limits, allow_paths=True)
        except CirError as error:
            raise error.within("images", position) from error.__cause__

    def _check_fit(self, composer: Composer, query: ComposedQuery) -> None:
        takes, kind = composer.takes, type(composer).__name__
        if field := takes.refused(query):
            others = [repr(name) for name, other in self.composers.items() if other.takes.reads(field)]
            remedy = f"use composer {' or '.join(others)}, or remove it" if others else "remove it"
            raise QueryError(field, f"{kind} reads no {field.replace('_', ' ')}; {remedy}")
        if field := takes.missing(query):
            raise QueryError(field, f"{kind} needs {field.replace('_', ' ')}; add {field}")
        if len(query.image) > takes.most_images:
            problem = f"{kind} takes at most {takes.most_images}, and there are {len(query.image)}; send fewer"
            raise QueryError("image", problem)

    def _read(
        self, position: int, ref: ImageRef, field: str, allow_paths: bool, mask: Mask | None = None
    ) -> EncodedPicture | Tensor:
        given = self.given_embedding(position, ref, mask)
        if given is not None:
            return given
        picture = EncodedPicture(field, "" if ref.path is None else str(ref.path), url=ref.url, mask=mask)
        if ref.url is not None:
            return picture
        try:
            return picture.holding(read_reference(ref, self.limits, allow_paths))
        except ImageError as error:
            raise picture.placed(error) from error.__cause__

    def _decoded(self, picture: EncodedPicture) -> Tensor:
        try:
            return self.decode(picture)
        except ImageError as error:
            raise picture.placed(error) from error.__cause__

    def _embed_pictures(self, works: Sequence[Work]) -> list[Tensor]:
        pictures = [picture for work in works for picture in work.pictures]
        owners = [i for i, work in enumerate(works) for _ in work.pictures]
        embeddings = torch.empty(len(pictures), self.dim, device=self.backbone.device)
        pixels = {}
        for i, picture in enumerate(pictures):
            if isinstance(picture, EncodedPicture):
                with _numbered(owners[i]):
                    pixels[i] = self._decoded(picture)
        if pixels:
            embeddings[list(pixels)] = self.backbone.encode_images(torch.stack(list(pixels.values())))
        if given := {i: picture for i, picture in enumerate(pictures) if isinstance(picture, Tensor)}:
            embeddings[list(given)] = torch.stack(list(given.values())).to(self.backbone.device)
        return list(torch.split(embeddings, [len(work.pictures) for work in works]))


@contextlib.contextmanager
def _numbered(position: int) -> Iterator[None]:
    """Note an item's position in the errors that it raises."""
    try:
        yield
    except CirError as error:
        if error.index is None:
            error.index = position
        raise


def _to_numpy(tensor: Tensor) -> Vectors:
    array: Vectors = tensor.float().cpu().numpy()
    return array
