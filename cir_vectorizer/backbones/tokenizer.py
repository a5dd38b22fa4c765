"""CLIP's byte-pair tokenizer, and the rows that are made of its tokens.

Wraps open_clip's tokenizer so that text from outside is safe: special tokens written out in a text stay
plain text, work stops once the context is full, and the word cache is bounded.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import open_clip.tokenizer
import regex

from cir_vectorizer.digests import PartsDigest

_MAX_WORD = 512
_MAX_CACHED_WORDS = 100_000
_MAX_CHARACTERS = 20_000
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


@dataclass(frozen=True)
class Tokens:
    """Token ids of a text, without start and end; `cut` tells whether text was left out."""

    ids: tuple[int, ...]
    cut: bool = False


class ClipTokenizer:
    """Text -> CLIP token ids."""

    def __init__(self) -> None:
        self._bpe = open_clip.tokenizer.SimpleTokenizer()
        self._lock = threading.Lock()
        self.start_id: int = self._bpe.sot_token_id
        self.end_id: int = self._bpe.eot_token_id
        self.marker_id: int = self._bpe.encoder["$</w>"]
        self.vocab_size: int = self._bpe.vocab_size

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
        """The text that these ids spell."""
        text: str = self._bpe.decode(ids)
        return text.strip()
