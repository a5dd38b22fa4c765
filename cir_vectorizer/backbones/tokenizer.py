"""Tokenizers that build rows: what they all share, and CLIP's byte-pair tokenizer.

Wraps open_clip's tokenizer to make untrusted text safe: special tokens spelled out in a text stay plain text,
work stops once the context is full, and the word cache is bounded.
"""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import open_clip.tokenizer
import regex

from cir_vectorizer.backbones.text import RowTooLong, TokenRow, Tokens
from cir_vectorizer.digests import PartsDigest

MAX_CHARACTERS = 20_000
"""Characters of a text that are read at most."""
_MAX_WORD = 512
_MAX_CACHED_WORDS = 100_000
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


class RowTokenizer(ABC):
    """A tokenizer that builds rows for a context.

    Args:
        context_length: most ids of a row.
        before: ids with which each row begins.
        after: ids with which each row ends.
        marker_id: placeholder at the position of a pseudo-token.
    """

    def __init__(self, context_length: int, before: Sequence[int], after: Sequence[int], marker_id: int) -> None:
        self.context_length = context_length
        self.marker_id = marker_id
        self.before = tuple(before)
        self.after = tuple(after)
        self._room = context_length - len(self.before) - len(self.after)

    @property
    def start_id(self) -> int | None:
        """First id of each row; None if rows begin with their text."""
        return self.before[0] if self.before else None

    @property
    def end_id(self) -> int | None:
        """Last id of each row; None if rows end with their text."""
        return self.after[-1] if self.after else None

    @abstractmethod
    def encode(self, text: str, limit: int) -> Tokens:
        """Tokenise `text` without the ids around a row, at most `limit` ids."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that these ids spell."""

    def cut(self, text: str) -> str:
        tokens = self.encode(text, self._room)
        return self.decode(tokens.ids) if tokens.cut else text

    def row(self, text: str) -> TokenRow:
        tokens = self.encode(text, self._room)
        return TokenRow((*self.before, *tokens.ids, *self.after), cut=tokens.cut)

    def marked_row(self, pieces: Sequence[str | int], shorten: Sequence[int] | None = None) -> TokenRow:
        encoded = [piece if isinstance(piece, int) else self.encode(piece, self._room) for piece in pieces]
        cut = any(isinstance(piece, Tokens) and piece.cut for piece in encoded)
        segments = [piece.ids if isinstance(piece, Tokens) else piece for piece in encoded]
        excess = sum(1 if isinstance(segment, int) else len(segment) for segment in segments) - self._room
        for at in shorten or ():
            segment = segments[at]
            if excess > 0 and not isinstance(segment, int):
                segments[at] = segment[: max(0, len(segment) - excess)]
                excess -= min(excess, len(segment))
                cut = True
        if excess > 0 and shorten is not None:
            raise RowTooLong(excess)
        ids, slots = list(self.before), []
        for segment in segments:
            if isinstance(segment, int):
                slots.append((len(ids), segment))
                ids.append(self.marker_id)
            else:
                ids += segment
        last = len(self.before) + self._room
        slots = [slot for slot in slots if slot[0] < last]
        return TokenRow((*ids[:last], *self.after), tuple(slots), cut or excess > 0)


class ClipTokenizer(RowTokenizer):
    """A tokenizer that builds rows of CLIP's tokens, for a context of `context_length`."""

    def __init__(self, context_length: int = 77) -> None:
        self._bpe = open_clip.tokenizer.SimpleTokenizer()
        self._lock = threading.Lock()
        self.vocab_size: int = self._bpe.vocab_size
        ends = (self._bpe.sot_token_id,), (self._bpe.eot_token_id,)
        super().__init__(context_length, *ends, self._bpe.encoder["$</w>"])

    def __reduce__(self) -> tuple[type["ClipTokenizer"], tuple[int]]:
        return ClipTokenizer, (self.context_length,)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and of the merges' order (hex)."""
        ranks = (f"{a} {b} {rank}" for (a, b), rank in self._bpe.bpe_ranks.items())
        return PartsDigest(json.dumps(self._bpe.encoder, sort_keys=True), *ranks).hexdigest()

    def encode(self, text: str, limit: int) -> Tokens:
        """Tokenise `text`, at most `limit` ids."""
        cut = len(text) > MAX_CHARACTERS
        ids: list[int] = []
        with self._lock:
            for word in _WORDS.findall(self._bpe.clean_fn(text[:MAX_CHARACTERS])):
                if len(ids) >= limit:
                    return Tokens(tuple(ids[:limit]), cut=True)
                cut |= len(word) > _MAX_WORD
                symbols = "".join(self._bpe.byte_encoder[byte] for byte in word[:_MAX_WORD].encode("utf-8", "replace"))
                ids += [self._bpe.encoder[piece] for piece in self._bpe.bpe(symbols).split(" ")]
            if len(self._bpe.cache) > _MAX_CACHED_WORDS:
                self._bpe.cache.clear()
        return Tokens(tuple(ids[:limit]), cut or len(ids) > limit)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that these ids spell."""
        text: str = self._bpe.decode(ids)
        return text.strip()
