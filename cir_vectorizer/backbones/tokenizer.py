"""CLIP's byte-pair tokenizer, and the rows that are built from its tokens.

Wraps open_clip's tokenizer to make untrusted text safe: special tokens spelled out in a text stay plain text,
work stops once the context is full, and the word cache is bounded.
"""

import json
import threading
from collections.abc import Sequence
from functools import cached_property

import open_clip.tokenizer
import regex

from cir_vectorizer.backbones.text import RowTooLong, TokenRow, Tokens
from cir_vectorizer.digests import PartsDigest

_MAX_WORD = 512
_MAX_CACHED_WORDS = 100_000
_MAX_CHARACTERS = 20_000
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


class ClipTokenizer:
    """A tokenizer that builds rows of CLIP's tokens, for a context of `context_length`."""

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length
        self._room = context_length - 2
        self._bpe = open_clip.tokenizer.SimpleTokenizer()
        self._lock = threading.Lock()
        self.start_id: int = self._bpe.sot_token_id
        self.end_id: int = self._bpe.eot_token_id
        self.marker_id: int = self._bpe.encoder["$</w>"]
        self.vocab_size: int = self._bpe.vocab_size

    def __reduce__(self) -> tuple[type["ClipTokenizer"], tuple[int]]:
        return ClipTokenizer, (self.context_length,)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and of the merges' order (hex)."""
        ranks = (f"{a} {b} {rank}" for (a, b), rank in self._bpe.bpe_ranks.items())
        return PartsDigest(json.dumps(self._bpe.encoder, sort_keys=True), *ranks).hexdigest()

    def encode(self, text: str, limit: int) -> Tokens:
        """Tokenise `text`, at most `limit` ids."""
        cut = len(text) > _MAX_CHARACTERS
        ids: list[int] = []
        with self._lock:
            for word in _WORDS.findall(self._bpe.clean_fn(text[:_MAX_CHARACTERS])):
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

    def cut(self, text: str) -> str:
        tokens = self.encode(text, self._room)
        return self.decode(tokens.ids) if tokens.cut else text

    def row(self, text: str) -> TokenRow:
        tokens = self.encode(text, self._room)
        return TokenRow((self.start_id, *tokens.ids, self.end_id), cut=tokens.cut)

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
        ids, slots = [self.start_id], []
        for segment in segments:
            if isinstance(segment, int):
                slots.append((len(ids), segment))
                ids.append(self.marker_id)
            else:
                ids += segment
        last = self._room + 1
        return TokenRow((*ids[:last], self.end_id), tuple(slot for slot in slots if slot[0] < last), cut or excess > 0)
