"""A causal text tower over packed rows: linear layers see tokens of many rows at once, attention those of one row only.

Rows are grouped by length, which saves padding, and tokens with which several rows begin are read only once. Neither
changes an embedding, since no token depends on a later one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class TextLayer(Protocol):
    """A layer: norm, attention, norm, MLP. States are (tokens, width), from any rows."""

    heads: int

    def norm(self, states: Tensor) -> Tensor:
        """Return the normed states that attention reads."""
        ...

    def queries(self, normed: Tensor) -> Tensor:
        """Return the queries, (tokens, width), head by head."""
        ...

    def keys_values(self, normed: Tensor) -> Tensor:
        """Return (tokens, 2 · width): the keys head by head, then the values."""
        ...

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output, from the states that entered it and the values that its heads attended to."""
        ...


@dataclass(frozen=True)
class TextTower:
    """A text tower in parts.

    Attributes:
        positions: (context_length, width).
        layers: first to last.
        project: final norm and projection of the states at the end tokens, (n, width) -> (n, dim).
    """

    positions: Tensor
    layers: Sequence[TextLayer]
    project: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PackSizes:
    """Sizes of packs and groups, in tokens.

    Attributes:
        pack: most tokens that go through the linear layers together.
        group: fewest tokens that go through attention together: pieces of one length, and longer ones if these are
            too few.
        one_pass: tokens whose work equals the fixed cost of a pass over the layers.
    """

    pack: int
    group: int
    one_pass: int


ON_CPU = PackSizes(pack=2048, group=64, one_pass=256)
ON_GPU = PackSizes(pack=262_144, group=1024, one_pass=16_384)


def packs(lengths: Sequence[int], sizes: PackSizes) -> Iterator[list[list[int]]]:
    """Yield packs of groups of indices, from the shortest length to the longest."""
    pack: list[list[int]] = []
    in_pack = in_group = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if pack and in_pack + lengths[i] > sizes.pack:
            yield pack
            pack, in_pack = [], 0
        if not pack or (in_group >= sizes.group and lengths[i] > lengths[pack[-1][-1]]):
            pack.append([])
            in_group = 0
        pack[-1].append(i)
        in_pack += lengths[i]
        in_group += lengths[i]
    yield pack


@dataclass(frozen=True)
class Piece:
    """Tokens of a row that are read together.

    Attributes:
        ids: the tokens.
        slots: (position in `ids`, index of a pseudo-token).
        before: number of tokens of the row that were read before.
        kept_at: position of their keys and values among all that were kept.
    """

    ids: tuple[int, ...]
    slots: tuple[tuple[int, int], ...] = ()
    before: int = 0
    kept_at: int = 0


class Pack:
    """Pieces end to end, in groups that go through attention together; each group is padded to its longest piece.

    Attributes:
        ids: ids of all tokens, including padding.
        slots: (position in `ids`, index of a pseudo-token).
        offsets: start of each piece in `ids`.
    """

    def __init__(self, groups: Sequence[Sequence[Piece]], pad_id: int) -> None:
        self.ids: list[int] = []
        self.slots: list[tuple[int, int]] = []
        self.offsets: list[int] = []
        self._groups = groups
        self._ends: list[int] = []
        self._positions: list[int] = []
        for pieces in groups:
            length = max(len(piece.ids) for piece in pieces)
            for piece in pieces:
                offset = len(self.ids)
                self.offsets.append(offset)
                self._ends.append(offset + len(piece.ids) - 1)
                self.slots += [(offset + at, which) for at, which in piece.slots]
                self.ids += piece.ids + (pad_id,) * (length - len(piece.ids))
                self._positions += range(piece.before, piece.before + length)

    def keys_values(self, tower: TextTower, embeddings: Tensor) -> list[Tensor]:
        """Return keys and values of each layer, for later pieces: (tokens, width) -> (tokens, 2 · width)."""
        states = self._placed(tower, embeddings)
        attentions = [_Attention.of(pieces, states) for pieces in self._groups]
        kept: list[Tensor] = []
        for layer in tower.layers:
            normed = layer.norm(states)
            kept.append(layer.keys_values(normed))
            if layer is not tower.layers[-1]:
                states = layer.finish(states, _attend(attentions, layer, normed, kept[-1], None))
        return kept

    def embed(self, tower: TextTower, embeddings: Tensor, kept: Sequence[Tensor] | None = None) -> Tensor:
        """Embed the pieces: (tokens, width) -> (pieces, dim). The last layer runs at their last tokens only.

        `kept` is the result of `keys_values` for the tokens before.
        """
        states = self._placed(tower, embeddings)
        attentions = [_Attention.of(pieces, states) for pieces in self._groups]
        for i, layer in enumerate(tower.layers):
            normed = layer.norm(states)
            keys_values = layer.keys_values(normed)
            if layer is tower.layers[-1]:
                normed, states = normed[self._ends], states[self._ends]
                attentions = [_Attention.of(pieces, states, at_ends=True) for pieces in self._groups]
            attended = _attend(attentions, layer, normed, keys_values, kept[i] if kept else None)
            states = layer.finish(states, attended)
        return tower.project(states)

    def _placed(self, tower: TextTower, embeddings: Tensor) -> Tensor:
        positions = torch.tensor(self._positions, device=embeddings.device)
        return embeddings + tower.positions[positions.clamp_(max=len(tower.positions) - 1)]


@dataclass(frozen=True)
class _Attention:
    """Attention pattern of a group's pieces: to the tokens before, then to their own.

    Attributes:
        before: (pieces, most tokens before), positions at which these tokens were kept.
        mask: (pieces, 1, queries, most tokens before + most of their own), added to the logits.
    """

    before: Tensor
    mask: Tensor

    @classmethod
    def of(cls, pieces: Sequence[Piece], states: Tensor, at_ends: bool = False) -> "_Attention":
        lengths = torch.tensor([len(piece.ids) for piece in pieces])
        before = torch.tensor([piece.before for piece in pieces])
        kept_at = torch.tensor([piece.kept_at for piece in pieces])
        nth_before, nth = torch.arange(int(before.max())), torch.arange(int(lengths.max()))
        queries = lengths[:, None] - 1 if at_ends else nth.expand(len(pieces), -1)
        sees_before = (nth_before < before[:, None])[:, None].expand(-1, queries.shape[1], -1)
        sees = torch.cat([sees_before, nth <= queries[..., None]], -1)[:, None]
        mask = torch.zeros(sees.shape, dtype=states.dtype).masked_fill_(~sees, float("-inf"))
        at = kept_at[:, None] + nth_before.minimum((before[:, None] - 1).clamp_(min=0))
        return cls(at.to(states.device), mask.to(states.device))


def _attend(
    attentions: Sequence[_Attention], layer: TextLayer, normed: Tensor, keys_values: Tensor, kept: Tensor | None
) -> Tensor:
    """Return the values that the heads attend to at the tokens of `normed`, (queries, width)."""
    query_counts = [a.mask.shape[0] * a.mask.shape[2] for a in attentions]
    token_counts = [a.mask.shape[0] * (a.mask.shape[3] - a.before.shape[1]) for a in attentions]
    queries = torch.split(layer.queries(normed), query_counts)
    own = torch.split(keys_values, token_counts)
    attended = []
    for attention, q, kv in zip(attentions, queries, own, strict=True):
        pieces, width = len(attention.before), q.shape[-1]
        kv = kv.view(pieces, -1, 2 * width)
        if kept is not None:
            kv = torch.cat([kept[attention.before], kv], 1)
        heads = (pieces, -1, layer.heads, width // layer.heads)
        q, k, v = (x.reshape(heads).transpose(1, 2) for x in (q, *kv.chunk(2, -1)))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention.mask)
        attended.append(mixed.transpose(1, 2).reshape(-1, width))
    return torch.cat(attended)
