"""Protocol of a text encoder: a tokenizer that builds whole rows, and the tower that reads them.

Composers receive a text encoder and know nothing else of the tower. A composer that changes the query side wraps the
encoder; the facts of a tower say how it attends and pools.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cir_vectorizer.backbones.base import BackboneSpec

Pooling = Literal["end", "first", "last", "mean", "max"]
"""The state that becomes a text's embedding: the one at the end token, at the first or the last position of the padded
row, or the mean or the maximum over the row without its padding."""


@dataclass(frozen=True)
class TextFacts:
    """Facts of a text tower that composers need."""

    context_length: int
    width: int
    """Width t of a token embedding, and so of a pseudo-token."""
    start_id: int | None
    """First id of each row; None if rows begin with their text."""
    end_id: int | None
    """Last id of each row; None if rows end with their text."""
    pad_id: int
    marker_id: int
    """Placeholder token at the position of a pseudo-token."""
    causal: bool
    pooling: Pooling
    attends_padding: bool = True
    """True if tokens attend to the padding of a row, as far as `causal` lets them."""
    pads_left: bool = False
    """True if padding comes before a row, not after it."""

    @property
    def rows_may_be_cut(self) -> bool:
        """True if a row without padding gives the same vector as a padded one."""
        return self.pooling != "last" and (not self.attends_padding or (self.causal and self.pooling == "end"))


@dataclass(frozen=True)
class TokenRow:
    """A text ready for the tower: ids from start to end token, unpadded.

    Attributes:
        slots: (position, index) pairs: the token embedding at that position is replaced by the pseudo-token of that
            index.
        cut: True if the text was longer than the context; ignored when rows are compared.
    """

    ids: tuple[int, ...]
    slots: tuple[tuple[int, int], ...] = ()
    cut: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Tokens:
    """Token ids of a text, without start and end; `cut` is True if text was left out."""

    ids: tuple[int, ...]
    cut: bool = False


class RowTooLong(ValueError):
    """A row that is `excess` tokens longer than the context; raised by `Tokenizer.marked_row`."""

    def __init__(self, excess: int) -> None:
        super().__init__(f"the row is {excess} tokens too long")
        self.excess = excess


class Tokenizer(Protocol):
    """A tokenizer that builds token rows for the tower's context. Thread-safe."""

    context_length: int
    vocab_size: int

    def __hash__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and the tokenising rules (hex)."""
        ...

    def encode(self, text: str, limit: int) -> Tokens:
        """Tokenise `text` without start and end, at most `limit` ids."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that these ids spell."""
        ...

    def row(self, text: str) -> TokenRow:
        """Build the row of token ids of a plain text, cut to the context length."""
        ...

    def marked_row(self, pieces: Sequence[str | int], shorten: Sequence[int] | None = None) -> TokenRow:
        """Build a row of texts, and of markers at the positions of pseudo-tokens.

        Each piece is tokenised separately, so a marker never merges with punctuation beside it, and no character of a
        text becomes a marker.

        Args:
            pieces: texts, and indices of pseudo-tokens.
            shorten: positions in `pieces` of the texts to cut at the end, one after the other, if the row is too long.
                If None, the whole row is cut at the end of the context, and markers beyond it are lost.

        Raises:
            RowTooLong: the row is too long even after these cuts.
        """
        ...


@dataclass(frozen=True)
class LayerWeight:
    """The weight of a linear map in a layer of a text tower.

    Attributes:
        tensor: (outputs, inputs).
        parts: number of linear maps whose weights are stacked in it, for example 3 for queries, keys and values.
    """

    tensor: "Tensor"
    parts: int = 1


class TextEncoder(Protocol):
    """A frozen text encoder. Embeddings are (n, dim) float32, projected and **not** normalised."""

    spec: "BackboneSpec"
    """The backbone that it belongs to."""
    facts: TextFacts
    tokenizer: Tokenizer
    dim: int
    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the tower and its tokenizer (hex)."""
        ...

    def embed_tokens(self, ids: "Tensor") -> "Tensor":
        """Embed ids: (n, length) -> (n, length, width). Pseudo-tokens are compared with these token embeddings."""
        ...

    def encode_text(self, rows: Sequence[TokenRow], pseudo_tokens: "Tensor | None" = None) -> "Tensor":
        """Encode ragged rows to (n, dim); `pseudo_tokens` is (m, width), and gradients flow back to it."""
        ...

    def encode_states(self, rows: Sequence[TokenRow], pseudo_tokens: "Tensor | None" = None) -> "Tensor":
        """Encode rows, padded with `pad_id`, to all states after the last norm, (n, context_length, width).

        `pseudo_tokens` as in `encode_text`. Nothing attends to the padding; its own states are kept, since networks
        were trained on them.
        """
        ...

    def layer_weights(self) -> Mapping[str, LayerWeight]:
        """Return the weights of the linear maps in all layers, by name: those that an adapter may change."""
        ...

    def with_weights(self, weights: "Mapping[str, Tensor]") -> "TextEncoder":
        """Return an encoder in which some of `layer_weights` are replaced, and which shares everything else.

        This encoder is not changed. Gradients flow back to the new weights.
        """
        ...
