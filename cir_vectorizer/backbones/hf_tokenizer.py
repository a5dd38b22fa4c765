"""Tokenizers of the transformers library as builders of rows: SentencePiece, WordPiece and byte-level ones.

The ids that the library puts around a text become the beginning and the end of each row. Special tokens spelled out in
a text stay plain text.
"""

import json
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cir_vectorizer.backbones.text import Tokens
from cir_vectorizer.backbones.tokenizer import MAX_CHARACTERS, RowTokenizer
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError, first_line

_SAMPLE = "a"


class HFTokenizer(RowTokenizer):
    """A tokenizer of the transformers library that builds rows.

    Args:
        tokenizer: a `PreTrainedTokenizerBase`.
        context_length: most ids of a row.
        clean: changes a text before it is tokenised; must be possible to pickle.
        separator_becomes: id that replaces the separator at the end of a row; None to keep it.

    Raises:
        ModelError: no room for text is left in the context, or there is no padding token.
    """

    def __init__(
        self,
        tokenizer: Any,
        context_length: int,
        clean: Callable[[str], str] | None = None,
        separator_becomes: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._clean = clean
        self._lock = threading.Lock()
        before, after = self._around()
        if separator_becomes is not None:
            after = tuple(separator_becomes if each == tokenizer.sep_token_id else each for each in after)
        if tokenizer.pad_token_id is None:
            raise ModelError(
                f"the tokenizer {tokenizer.name_or_path!r} names no padding token; put the tokenizer files that belong "
                "to the model into its folder"
            )
        if context_length <= len(before) + len(after):
            raise ModelError(f"a context of {context_length} tokens leaves no room for text; choose another model")
        self.pad_id: int = tokenizer.pad_token_id
        self.pads_left: bool = tokenizer.padding_side == "left"
        self.vocab_size: int = tokenizer.vocab_size  # without tokens that were added and no text becomes
        marker = tokenizer.unk_token_id
        if marker is None or marker == self.pad_id:
            marker = self._ids(_SAMPLE)[0]
        super().__init__(context_length, before, after, marker)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and the tokenising rules (hex)."""
        rules = json.dumps(self._tokenizer.get_vocab(), sort_keys=True)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            rules = json.dumps({**json.loads(backend.to_str()), "truncation": None, "padding": None}, sort_keys=True)
        clean = getattr(self._clean, "__name__", "")
        return PartsDigest(type(self._tokenizer).__name__, rules, clean, str((self.before, self.after))).hexdigest()

    def encode(self, text: str, limit: int) -> Tokens:
        """Tokenise `text` without the ids around a row, at most `limit` ids."""
        cut = len(text) > MAX_CHARACTERS
        text = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
        ids = self._ids(self._clean(text) if self._clean else text)
        return Tokens(tuple(ids[:limit]), cut or len(ids) > limit)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that these ids spell."""
        with self._lock:
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        with self._lock:
            ids: list[int] = self._tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, verbose=False
            ).input_ids
        return ids

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids that the library puts before and after a text."""
        bare, whole = self._ids(_SAMPLE), self._tokenizer(_SAMPLE).input_ids
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), None)
        if at is None or not bare:
            raise ModelError(
                f"the tokenizer {self._tokenizer.name_or_path!r} cannot read {_SAMPLE!r}; put the tokenizer files that "
                "belong to the model into its folder"
            )
        return tuple(whole[:at]), tuple(whole[at + len(bare) :])


def read_tokenizer(name: str, read: Callable[[], Any]) -> Any:
    """Return what `read` reads, a tokenizer of the model `name`.

    Raises:
        ModelError: its files are missing or damaged, or a library that reads them is not installed; says what to do.
    """
    try:
        return read()
    except Exception as error:  # missing and damaged files raise many types
        folder = Path(name)
        needs_library = any(folder.glob("*.model")) and find_spec("sentencepiece") is None
        if needs_library or isinstance(error, ImportError):
            raise ModelError(
                f"the tokenizer of {name!r} is a SentencePiece model, and the library that reads it is missing; "
                "`pip install sentencepiece protobuf`"
            ) from error
        remedy = (
            "put the tokenizer files that belong to the model into its folder"
            if folder.is_dir()
            else "give a folder that holds them, or a hub name and a network"
        )
        raise ModelError(f"the tokenizer of {name!r} cannot be read ({first_line(error)}); {remedy}") from error


def check_vocabulary(name: str, tokenizer: HFTokenizer, rows: int) -> None:
    """Refuse a tokenizer with more ids than the model has token embeddings.

    Raises:
        ModelError: says both numbers.
    """
    if max(tokenizer.vocab_size, tokenizer.pad_id + 1, *(i + 1 for i in tokenizer.before + tokenizer.after)) > rows:
        raise ModelError(
            f"the tokenizer of {name!r} has {tokenizer.vocab_size} ids, and the model has {rows} token embeddings; put the "
            "tokenizer files that belong to the model into its folder"
        )
