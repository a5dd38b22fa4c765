"""What every backbone offers to the composers, and the part of it that all CLIPs share."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any, Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from cir_vectorizer.backbones.fingerprint import EncoderFacts, Fingerprints, fingerprints
from cir_vectorizer.backbones.packed import ON_CPU, ON_GPU, Pack, Piece, TextTower, packs
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
    dtype: torch.dtype

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the picture encoder (hex), which an index is known by."""
        ...

    @property
    def text_fingerprint(self) -> str:
        """Fingerprint of the text encoder and its tokenizer (hex)."""
        ...

    @property
    def former_fingerprint(self) -> str:
        """Fingerprint that releases up to 0.1.0 gave to the whole backbone (hex)."""
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

    def encode_states(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        """Rows -> (n, text.context_length, text.width): all states after the last norm, rows padded with `pad_id`.

        `pseudo_tokens` as in `encode_text`. Nothing attends to the padding; its own states are kept, since networks were trained on them.
        """
        ...


class Towers(Protocol):
    """The calls by which a CLIP library differs from another; an `nn.Module` too."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(n, length) ids -> (n, length, width), before positions are added."""
        ...

    def encode_tokens(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """(n, length, width) and the (n,) end positions -> (n, dim) projected, by the library's own tower."""
        ...

    def text_tower(self) -> TextTower | None:
        """The text tower in parts, for packed rows; None where its layers are not of the common form."""
        ...

    def encode_states(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """(n, length, width) and the (n,) end positions -> (n, length, width) after the last norm."""
        ...

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) -> (n, dim) projected."""
        ...

    def picture_facts(self) -> EncoderFacts:
        """Weights and layers of the picture encoder, for the fingerprint."""
        ...

    def text_facts(self) -> EncoderFacts:
        """Weights and layers of the text encoder, for the fingerprint."""
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
        ratio = _ratio(spec)
        self._transform = transform if ratio is None else PadThen(ratio, transform)
        self._preprocessing = preprocessing if ratio is None else {**preprocessing, "target_pad": ratio}
        self._towers: Any = towers.requires_grad_(False).eval()
        if dtype != torch.float32:
            _ = self._fingerprints  # of the weights as published, before they are rounded
        self._towers = towers.to(device=device, dtype=dtype)
        self._sizes = ON_CPU if device.type == "cpu" else ON_GPU

    @cached_property
    def _fingerprints(self) -> Fingerprints:
        picture, text = self._towers.picture_facts(), self._towers.text_facts()
        seen = {**picture.facts, "preprocessing": self._preprocessing}
        row = self.text
        read = {
            **text.facts,
            "tokenizer": self.tokenizer.fingerprint,
            "row": [row.context_length, row.start_id, row.end_id, row.pad_id],
            "causal": row.causal,
            "pooling": "end" if row.pools_at_end else "other",
        }
        return fingerprints(
            self._towers.state_dict(), replace(picture, facts=seen), replace(text, facts=read), self._preprocessing
        )

    @cached_property
    def fingerprint(self) -> str:
        return self._fingerprints.picture

    @property
    def text_fingerprint(self) -> str:
        return self._fingerprints.text

    @property
    def former_fingerprint(self) -> str:
        return self._fingerprints.former

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """`preprocess` without the weights, for other processes."""
        return self._transform

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.encode_pixels(pixels.to(self.device, self.dtype, non_blocking=True))
        return embeddings.float()

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        if not rows:
            return torch.empty(0, self.dim, device=self.device)
        if pseudo_tokens is None and any(row.slots for row in rows):
            raise ValueError("rows with slots need pseudo_tokens")
        tower = self._towers.text_tower() if self.text.rows_may_be_cut else None
        encoded = self._encode_packed(tower, rows, pseudo_tokens) if tower else self._encode_padded(rows, pseudo_tokens)
        order: list[int] = []
        parts: list[Tensor] = []
        for indices, embeddings in encoded:
            order += indices
            parts.append(embeddings)
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(self.device)].float()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.embed_tokens(ids.to(self.device))
        return embeddings

    def encode_states(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        ids, ends = self._padded(rows, self.text.context_length)
        slots = [(n * ids.shape[1] + at, which) for n, row in enumerate(rows) for at, which in row.slots]
        embeddings = self._embed(ids.flatten().tolist(), slots, pseudo_tokens)
        states: Tensor = self._towers.encode_states(embeddings.view(*ids.shape, -1), ends)
        return states.float()

    def _padded(self, rows: Sequence[TokenRow], length: int) -> tuple[Tensor, Tensor]:
        """Ids (n, length) and end positions (n,), on the device."""
        pad = (self.text.pad_id,)
        ids = torch.tensor([row.ids + pad * (length - len(row.ids)) for row in rows])
        ends = torch.tensor([len(row.ids) - 1 for row in rows])
        return ids.to(self.device), ends.to(self.device)

    def _encode_packed(
        self, tower: TextTower, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of rows and their embeddings.

        Nothing before a row's first pseudo-token depends on it, so that is read once for all rows that share it, and
        without a graph; unless it saves less than the further pass costs.
        """
        starts = [min((at for at, _ in row.slots), default=1) for row in rows]
        prefixes = sorted(dict.fromkeys(row.ids[:start] for row, start in zip(rows, starts, strict=True)), key=len)
        kept: list[Tensor] | None = None
        kept_at: dict[tuple[int, ...], int] = {(): 0}
        if sum(starts) - sum(map(len, prefixes)) < self._sizes.one_pass:
            starts = [0] * len(rows)
        else:
            pack = Pack([[Piece(ids) for ids in same] for _, same in groupby(prefixes, len)], self.text.pad_id)
            kept_at = dict(zip(prefixes, pack.offsets, strict=True))
            with torch.no_grad():
                kept = pack.keys_values(tower, self._embed(pack.ids, (), None))
        pieces = [
            Piece(row.ids[start:], tuple((at - start, i) for at, i in row.slots), start, kept_at[row.ids[:start]])
            for row, start in zip(rows, starts, strict=True)
        ]
        for groups in packs([len(piece.ids) for piece in pieces], self._sizes):
            pack = Pack([[pieces[i] for i in group] for group in groups], self.text.pad_id)
            embeddings = self._embed(pack.ids, pack.slots, pseudo_tokens)
            yield [i for group in groups for i in group], pack.embed(tower, embeddings, kept)

    def _encode_padded(
        self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of rows and their embeddings, by the library's own tower."""
        full = self.text.context_length
        lengths = [len(row.ids) if self.text.rows_may_be_cut else full for row in rows]
        for group in chain.from_iterable(packs(lengths, replace(self._sizes, group=self._sizes.one_pass))):
            length = lengths[group[-1]]
            ids, ends = self._padded([rows[i] for i in group], length)
            slots = [(n * length + at, which) for n, i in enumerate(group) for at, which in rows[i].slots]
            embeddings = self._embed(ids.flatten().tolist(), slots, pseudo_tokens)
            yield group, self._towers.encode_tokens(embeddings.view(*ids.shape, -1), ends)

    def _embed(self, ids: Sequence[int], slots: Sequence[tuple[int, int]], pseudo_tokens: Tensor | None) -> Tensor:
        """Token embeddings (len(ids), width), with pseudo-tokens at their (position, index)."""
        embeddings = self.embed_tokens(torch.tensor(ids))
        if slots and pseudo_tokens is not None:
            at, which = torch.tensor(slots, device=self.device).unbind(1)
            embeddings = embeddings.index_put((at,), pseudo_tokens.to(embeddings.dtype)[which])
        return embeddings


class PadThen:
    """Preprocessing that first pads a long picture with black towards a square, as SEARLE's published runs did.

    Args:
        ratio: longer side by shorter side that is left as it is; 1.25 as published.
        transform: the backbone's own preprocessing, which follows.
    """

    def __init__(self, ratio: float, transform: Callable[[Image.Image], Tensor]) -> None:
        self._ratio = ratio
        self._transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        least = max(image.size) / self._ratio
        across, down = (max(0, int((least - side) / 2)) for side in image.size)
        padded = ImageOps.expand(image, (across, down, across, down)) if across or down else image
        return self._transform(padded)


def _ratio(spec: BackboneSpec) -> float | None:
    """The option `target_pad` of a spec; None if it is not there.

    Raises:
        ModelError: it is no number from 1 on.
    """
    text = spec.options.get("target_pad")
    if text is None:
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 <= ratio < math.inf:
        raise ModelError(f"{spec}: target_pad is {text!r}; give the longest ratio of sides to keep, such as 1.25")
    return ratio


COMMON_OPTIONS = ("target_pad",)
"""Options of every loader."""


def check_options(options: Mapping[str, str], known: Sequence[str], loader: str) -> None:
    """Refuse loader options that do not exist.

    Raises:
        ModelError: names the option and lists the known ones.
    """
    known = (*known, *COMMON_OPTIONS)
    if unknown := sorted(set(options) - set(known)):
        raise ModelError(f"{loader} knows no option {unknown[0]!r}; it knows {', '.join(known)}")
