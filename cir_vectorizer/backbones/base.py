"""What every backbone offers to the composers, and the part of it that all CLIPs share."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer.errors import ModelError


@dataclass(frozen=True)
class BackboneSpec:
    """Names a backbone: loader, model name or folder, and the loader's own options.

    Written `loader:name` or `loader:name,key=value,…`, for example
    `open_clip:ViT-L-14-quickgelu,pretrained=openai`.
    """

    loader: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "BackboneSpec":
        """Read `loader:name,key=value`.

        Raises:
            ModelError: an option without `=`.
        """
        loader, _, rest = text.partition(":")
        name, *pairs = rest.split(",")
        options = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ModelError(f"model {text!r}: option {pair!r} has no value; write {pair}=VALUE")
            options[key.strip()] = value.strip()
        return cls(loader, name, options)

    def __str__(self) -> str:
        return ",".join([f"{self.loader}:{self.name}", *(f"{k}={v}" for k, v in self.options.items())])


@dataclass(frozen=True)
class TextFacts:
    """What a composer must know of a text tower."""

    context_length: int
    width: int
    """Width t of a token embedding, and so of a pseudo-token."""
    start_id: int
    end_id: int
    pad_id: int
    marker_id: int
    """The token that a template's `$` becomes."""
    causal: bool
    pools_at_end: bool

    @property
    def rows_may_be_cut(self) -> bool:
        """Whether a row that stops right after its end token gives the same vector as a padded one."""
        return self.causal and self.pools_at_end


@dataclass(frozen=True)
class TokenRow:
    """One text, ready for the tower: ids from start to end token, unpadded.

    `slots` are (position, index) pairs: the token embedding at that position is replaced by the
    pseudo-token of that index.
    """

    ids: tuple[int, ...]
    slots: tuple[tuple[int, int], ...] = ()


class Backbone(Protocol):
    """A frozen dual encoder. Embeddings are (n, dim) float32, projected and **not** normalised."""

    spec: BackboneSpec
    dim: int
    text: TextFacts
    tokenizer: ClipTokenizer
    mean_image_norm: float | None
    device: torch.device

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights and the image preprocessing: what is in an index is known by it."""
        ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """RGB picture -> (3, height, width) float32 on the host; safe on threads."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) -> (n, dim)."""
        ...

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(n, length) ids -> (n, length, text.width) token embeddings: what pseudo-tokens are compared with."""
        ...

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        """Ragged rows -> (n, dim); `pseudo_tokens` is (m, text.width), and gradients flow back to it."""
        ...


class Towers(Protocol):
    """The three calls by which a CLIP library differs from another; an `nn.Module` too."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(n, length) ids -> (n, length, width), before positions are added."""
        ...

    def encode_tokens(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """(n, length, width) and the (n,) end positions -> (n, dim) projected."""
        ...

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) -> (n, dim) projected."""
        ...


class ClipBackbone:
    """A CLIP of any library: tokenising, ragged rows, pseudo-tokens and the fingerprint are the same for all."""

    def __init__(
        self,
        spec: BackboneSpec,
        towers: nn.Module,
        text: TextFacts,
        dim: int,
        transform: Callable[[Image.Image], Tensor],
        preprocessing: Mapping[str, Any],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        mean_image_norm: float | None = None,
    ) -> None:
        self.spec = spec
        self.text = text
        self.dim = dim
        self.tokenizer = ClipTokenizer()
        self.mean_image_norm = mean_image_norm
        self.device = device
        self.dtype = dtype
        self._transform = transform
        self._preprocessing = preprocessing
        self._weights = towers.requires_grad_(False).eval()
        self._digest: str | None = None
        if dtype != torch.float32:
            _ = self.fingerprint  # of the weights as published, before they are rounded
        self._towers: Any = towers.to(device=device, dtype=dtype)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self._preprocessing, sort_keys=True).encode())
        for name, tensor in sorted(self._weights.state_dict().items()):
            if tensor.is_floating_point():
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.encode_pixels(pixels.to(self.device, self.dtype, non_blocking=True))
        return embeddings.float()

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        if not rows:
            return torch.empty(0, self.dim, device=self.device)
        order: list[int] = []
        parts: list[Tensor] = []
        for group in self._groups(rows):
            order += group
            parts.append(self._encode_group([rows[i] for i in group], pseudo_tokens))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(self.device)].float()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.embed_tokens(ids.to(self.device))
        return embeddings

    def _encode_group(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None) -> Tensor:
        length = max(len(row.ids) for row in rows) if self.text.rows_may_be_cut else self.text.context_length
        pad = (self.text.pad_id,)
        ids = torch.tensor([row.ids + pad * (length - len(row.ids)) for row in rows])
        ends = torch.tensor([len(row.ids) - 1 for row in rows])
        embeddings: Tensor = self._towers.embed_tokens(ids.to(self.device))
        slots = [(i, position, which) for i, row in enumerate(rows) for position, which in row.slots]
        if slots:
            if pseudo_tokens is None:
                raise ValueError("rows with slots need pseudo_tokens")
            at = torch.tensor(slots, device=self.device)
            chosen = pseudo_tokens.to(embeddings.dtype)[at[:, 2]]
            embeddings = embeddings.index_put((at[:, 0], at[:, 1]), chosen)
        encoded: Tensor = self._towers.encode_tokens(embeddings, ends.to(self.device))
        return encoded

    def _groups(self, rows: Sequence[TokenRow]) -> Iterator[list[int]]:
        """Row indices in groups of (nearly) one length, so that little is spent on padding."""
        least, most = (256, 16_384) if self.device.type == "cpu" else (16_384, 262_144)
        if not self.text.rows_may_be_cut:
            least = most
        group: list[int] = []
        tokens = 0
        for i in sorted(range(len(rows)), key=lambda i: len(rows[i].ids)):
            length = len(rows[i].ids)
            grown = bool(group) and length > len(rows[group[-1]].ids)
            if group and ((grown and tokens >= least) or tokens + length > most):
                yield group
                group, tokens = [], 0
            group.append(i)
            tokens += length
        yield group


def check_options(options: Mapping[str, str], known: Sequence[str], loader: str) -> None:
    """Refuse loader options that do not exist.

    Raises:
        ModelError: names the option and lists the known ones.
    """
    if unknown := sorted(set(options) - set(known)):
        raise ModelError(f"{loader} knows no option {unknown[0]!r}; it knows {', '.join(known) or 'none'}")
