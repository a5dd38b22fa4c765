"""The text encoder that all backbones share: ragged rows, pseudo-tokens and the fingerprint."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.fingerprint import EncoderFacts, encoder_fingerprint
from cir_vectorizer.backbones.packed import ON_CPU, ON_GPU, Pack, Piece, TextTower, packs
from cir_vectorizer.backbones.text import LayerWeight, TextFacts, Tokenizer, TokenRow
from cir_vectorizer.digests import PartsDigest


class TextTowers(Protocol):
    """Calls that the text tower of each library implements in its own way, on an `nn.Module`.

    Attributes:
        layers: prefix of the names of all weights in the text tower's layers.
        stacked: by the end of a weight's name, the number of linear maps whose weights are stacked in it, if several.
    """

    layers: str
    stacked: Mapping[str, int]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids: (n, length) -> (n, length, width), before positions are added."""
        ...

    def encode_tokens(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        """Encode with the library's own tower.

        Args:
            embeddings: (n, length, width).
            ids: (n, length), padding included, of which `embeddings` are the embeddings, except at pseudo-tokens.
            ends: (n,), position of each row's last id.

        Returns:
            (n, dim), projected.
        """
        ...

    def text_tower(self) -> TextTower | None:
        """Return the text tower in parts, for packed rows; None if its layers do not have the common form."""
        ...

    def encode_states(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        """Compute all states after the last norm, (n, length, width); arguments as of `encode_tokens`."""
        ...

    def text_facts(self) -> EncoderFacts:
        """Return weights and layers of the text encoder, for the fingerprint."""
        ...


class ClipTextEncoder:
    """The text encoder of a backbone of any library.

    Args:
        spec: spec of the backbone that it belongs to.
        towers: implements `TextTowers`; must be frozen, on `device` and in `dtype` before rows are encoded.
        facts: facts of the tower.
        dim: length of an embedding.
        tokenizer: builds its rows, of this context length.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        towers: nn.Module,
        facts: TextFacts,
        dim: int,
        device: torch.device,
        dtype: torch.dtype,
        tokenizer: Tokenizer,
    ) -> None:
        self.spec = spec
        self.facts = facts
        self.tokenizer = tokenizer
        self.dim = dim
        self.device = device
        self.dtype = dtype
        self._towers: Any = towers
        self._sizes = ON_CPU if device.type == "cpu" else ON_GPU

    @cached_property
    def fingerprint(self) -> str:
        tower, row = self._towers.text_facts(), self.facts
        facts = {
            **tower.facts,
            "tokenizer": self.tokenizer.fingerprint,
            "row": [row.context_length, row.start_id, row.end_id, row.pad_id],
            "causal": row.causal,
            "pooling": row.pooling,
            **({} if row.attends_padding else {"attends_padding": False}),
            **({"pads_left": True} if row.pads_left else {}),
        }
        return encoder_fingerprint("text", self._towers.state_dict(), replace(tower, facts=facts))

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        if not rows:
            return torch.empty(0, self.dim, device=self.device)
        if pseudo_tokens is None and any(row.slots for row in rows):
            raise ValueError("rows with slots need pseudo_tokens")
        tower = self._towers.text_tower() if self.facts.rows_may_be_cut else None
        encoded = self._encode_packed(tower, rows, pseudo_tokens) if tower else self._encode_padded(rows, pseudo_tokens)
        order: list[int] = []
        parts: list[Tensor] = []
        for indices, embeddings in encoded:
            order += indices
            parts.append(embeddings)
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        embeddings = torch.cat(parts)[back.to(self.device)]
        return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.embed_tokens(ids.to(self.device))
        return embeddings

    def encode_states(self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None = None) -> Tensor:
        padded = self._padded(rows, self.facts.context_length, pseudo_tokens)
        states: Tensor = self._towers.encode_states(*padded)
        return states.float()

    def layer_weights(self) -> Mapping[str, LayerWeight]:
        layers: str = self._towers.layers
        stacked: Mapping[str, int] = self._towers.stacked
        tables = {f"{name}.weight" for name, module in self._towers.named_modules() if isinstance(module, nn.Embedding)}
        return {
            name: LayerWeight(tensor, next((parts for end, parts in stacked.items() if name.endswith(end)), 1))
            for name, tensor in self._towers.named_parameters()
            if name.startswith(layers) and tensor.ndim == 2 and name not in tables
        }

    def with_weights(self, weights: Mapping[str, Tensor]) -> "ClipTextEncoder":
        towers = self._towers
        inside = {tuple(name.split(".")[:depth]) for name in weights for depth in range(name.count(".") + 1)}
        untouched = [module for name, module in towers.named_modules() if name and tuple(name.split(".")) not in inside]
        shared = {id(each): each for each in (*towers.parameters(), *towers.buffers(), *untouched)}
        adapted = copy.deepcopy(towers, shared)
        for name, tensor in weights.items():
            module, _, weight = name.rpartition(".")
            owner = adapted.get_submodule(module)
            delattr(owner, weight)
            setattr(owner, weight, tensor)  # no parameter, so that gradients flow on to what it was computed from
        return _ChangedTextEncoder(self, adapted, weights)

    def _padded(
        self, rows: Sequence[TokenRow], length: int, pseudo_tokens: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return token embeddings (n, length, width), padded ids (n, length) and end positions (n,), on the device."""
        ids: list[int] = []
        ends: list[int] = []
        slots: list[tuple[int, int]] = []
        for row in rows:
            padding = (self.facts.pad_id,) * (length - len(row.ids))
            shift = len(padding) if self.facts.pads_left else 0
            slots += [(len(ids) + shift + at, which) for at, which in row.slots]
            ends.append(shift + len(row.ids) - 1)
            ids += padding + row.ids if shift else row.ids + padding
        embeddings = self._embed(ids, slots, pseudo_tokens).view(len(rows), length, -1)
        return (
            embeddings,
            torch.tensor(ids, device=self.device).view(len(rows), length),
            torch.tensor(ends).to(self.device),
        )

    def _encode_packed(
        self, tower: TextTower, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield indices of rows and their embeddings.

        Tokens before a row's first pseudo-token do not depend on it. So rows that begin with the same tokens share one
        pass over them, unless this saves less than the extra pass costs. Gradients flow through that pass if weights
        of the tower need them; a frozen tower leaves no graph there.
        """
        starts = [min((at for at, _ in row.slots), default=1) for row in rows]
        prefixes = sorted(dict.fromkeys(row.ids[:start] for row, start in zip(rows, starts, strict=True)), key=len)
        kept: list[Tensor] | None = None
        kept_at: dict[tuple[int, ...], int] = {(): 0}
        if sum(starts) - sum(map(len, prefixes)) < self._sizes.one_pass:
            starts = [0] * len(rows)
        else:
            pack = Pack([[Piece(ids) for ids in same] for _, same in groupby(prefixes, len)], self.facts.pad_id)
            kept_at = dict(zip(prefixes, pack.offsets, strict=True))
            kept = pack.keys_values(tower, self._embed(pack.ids, (), None))
        pieces = [
            Piece(row.ids[start:], tuple((at - start, i) for at, i in row.slots), start, kept_at[row.ids[:start]])
            for row, start in zip(rows, starts, strict=True)
        ]
        for groups in packs([len(piece.ids) for piece in pieces], self._sizes):
            pack = Pack([[pieces[i] for i in group] for group in groups], self.facts.pad_id)
            embeddings = self._embed(pack.ids, pack.slots, pseudo_tokens)
            yield [i for group in groups for i in group], pack.embed(tower, embeddings, kept)

    def _encode_padded(
        self, rows: Sequence[TokenRow], pseudo_tokens: Tensor | None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield indices of rows and their embeddings, from the library's own tower."""
        full = self.facts.context_length
        lengths = [len(row.ids) if self.facts.rows_may_be_cut else full for row in rows]
        for group in chain.from_iterable(packs(lengths, replace(self._sizes, group=self._sizes.one_pass))):
            length = lengths[group[-1]]
            yield group, self._towers.encode_tokens(*self._padded([rows[i] for i in group], length, pseudo_tokens))

    def _embed(self, ids: Sequence[int], slots: Sequence[tuple[int, int]], pseudo_tokens: Tensor | None) -> Tensor:
        """Return token embeddings (len(ids), width); `slots` are (position, index) pairs of pseudo-tokens."""
        embeddings = self.embed_tokens(torch.tensor(ids))
        if slots and pseudo_tokens is not None:
            at, which = torch.tensor(slots, device=self.device).unbind(1)
            embeddings = embeddings.index_put((at,), pseudo_tokens.to(embeddings.dtype)[which])
        return embeddings


class _ChangedTextEncoder(ClipTextEncoder):
    """A text encoder that differs from another one in some weights."""

    def __init__(self, original: ClipTextEncoder, towers: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__(
            original.spec,
            towers,
            original.facts,
            original.dim,
            original.device,
            original.dtype,
            original.tokenizer,
        )
        self._original = original
        self._weights = weights

    @cached_property
    def fingerprint(self) -> str:
        digest = PartsDigest(self._original.fingerprint)
        for name, tensor in sorted(self._weights.items()):
            digest.add(name, tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()
