"""Examples that Φ is trained on: captions as token rows, whole and with their keywords replaced by markers.

Examples are prepared in blocks, when they are first needed. Of many captions only the newest blocks are kept, and worker
processes prepare the next ones while the device works.
"""

import multiprocessing
import os
import pickle
import random
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cir_vectorizer.backbones import Tokenizer, TokenRow
from cir_vectorizer.composers.prompts import ENGLISH, Wording
from cir_vectorizer_trainer.captions.keywords import (
    Tagger,
    all_keyword_spans,
    in_own_case,
    keyword_spans,
    masked_pieces,
)
from cir_vectorizer_trainer.captions.store import MANY, LazySequence
from cir_vectorizer_trainer.phi.processes import size

BLOCK = 4096
"""Number of examples that are prepared together, and whose embeddings are computed together."""
KEPT_BLOCKS = 16
"""Number of blocks that are kept of many captions."""
MOST_WORKERS = 8

Block = TypeVar("Block")
MadeOf = tuple[Tokenizer, Tagger, int, Wording]
"""Tokenizer, tagger, seed and wording of `make_examples`."""


@dataclass(frozen=True)
class Example:
    """A caption as two token rows: itself, and with its keywords replaced by markers."""

    original: TokenRow
    masked: TokenRow


def order_of_pass(count: int, number: int, seed: str) -> Tensor:
    """Return the order of a pass: for the first pass the examples' own, shuffled order; for later ones a new one.

    Of many examples, of which only few blocks are in memory, the blocks are shuffled, and the examples in each. (count,)
    int64
    """
    if not number:
        return torch.arange(count)
    rng = random.Random(f"{seed}/{number}")
    if count <= MANY:
        order = list(range(count))
        rng.shuffle(order)
        return torch.tensor(order)
    starts = list(range(0, count, BLOCK))
    rng.shuffle(starts)
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    return torch.cat([start + torch.randperm(min(BLOCK, count - start), generator=generator) for start in starts])


class Blocks(Generic[Block]):
    """Blocks that are made when they are first asked for.

    Args:
        make: makes a block by its number.
        most: largest number of blocks that are kept; all if None.
    """

    def __init__(self, make: Callable[[int], Block], most: int | None) -> None:
        self._make = make
        self._most = most
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def keep(self, most: int | None) -> None:
        """Keep at most `most` blocks from now on; all if None."""
        self._most = most

    def __contains__(self, number: int) -> bool:
        return number in self._blocks

    def __getitem__(self, number: int) -> Block:
        if number not in self._blocks:
            self._blocks[number] = self._make(number)
            if self._most is not None and len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


class Examples(LazySequence[Example]):
    """Examples of captions.

    Args:
        captions: cleaned.
        tokenizer: of the backbone; it must be possible to pickle it, or no worker is used.
        seed: draws the word that is masked in a caption without keywords.
        wording: prompts of the captions' language.
    """

    def __init__(
        self, captions: Sequence[str], tokenizer: Tokenizer, tagger: Tagger, seed: int, wording: Wording = ENGLISH
    ) -> None:
        self._captions = captions
        self._made_of = tokenizer, tagger, seed, wording
        many = len(captions) > MANY
        self._blocks = Blocks(self._block, KEPT_BLOCKS if many else None)
        self._ahead: dict[int, Future[list[Example]]] = {}
        workers = max(1, min(MOST_WORKERS, os.cpu_count() or 1) // size())
        self._sent = _pickled(self._made_of) if many else None
        self.workers = workers if self._sent is not None else 0

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _ignore_signals)

    def __len__(self) -> int:
        return len(self._captions)

    def at(self, index: int) -> Example:
        return self._blocks[index // BLOCK][index % BLOCK]

    def prepare(self, indices: Iterable[int]) -> None:
        """Have workers prepare the blocks of examples that will be needed soon."""
        for number in dict.fromkeys(index // BLOCK for index in indices):
            if self._sent is not None and number not in self._blocks and number not in self._ahead:
                self._ahead[number] = self._pool.submit(_work, self._texts(number), self._sent)

    def close(self) -> None:
        """Stop the workers."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(cancel_futures=True)
            del self._pool
        self._ahead.clear()

    def _texts(self, number: int) -> list[str]:
        return list(self._captions[number * BLOCK : (number + 1) * BLOCK])

    def _block(self, number: int) -> list[Example]:
        ahead = self._ahead.pop(number, None)
        return ahead.result() if ahead is not None else make_examples(self._texts(number), *self._made_of)


def _pickled(made_of: MadeOf) -> bytes | None:
    """Return what `make_examples` needs as it is sent to workers; None if it cannot be sent."""
    try:
        return pickle.dumps(made_of)
    except (TypeError, AttributeError, pickle.PicklingError):
        return None


def _ignore_signals() -> None:
    """Leave Ctrl-C to the process that trains, which saves its state before it stops."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@cache
def _received(made_of: bytes) -> MadeOf:
    received: MadeOf = pickle.loads(made_of)  # noqa: S301  bytes of the parent process
    return received


def _work(texts: list[str], made_of: bytes) -> list[Example]:
    return make_examples(texts, *_received(made_of))


def make_examples(
    captions: Sequence[str], tokenizer: Tokenizer, tagger: Tagger, seed: int, wording: Wording = ENGLISH
) -> list[Example]:
    """Tokenise captions and their masked forms.

    A caption is first cut to the context length, so that both forms hold the same words. A masked form without any
    marker becomes the prompt without text, "a photo of $".

    Args:
        seed: draws the word that is masked in a caption without keywords, with the caption.
        wording: prompts of the captions' language.
    """
    prepared = [in_own_case(caption) for caption in captions]
    originals = [tokenizer.row(text) for text in prepared]
    texts = [tokenizer.cut(text) if row.cut else text for text, row in zip(prepared, originals, strict=True)]
    bare = _marked_row(wording.prompt_without_text.split("$"), tokenizer)
    examples = []
    for original, text, found in zip(originals, texts, all_keyword_spans(texts, tagger), strict=True):
        spans = found or keyword_spans(text, tagger, random.Random(f"{seed}/{text.lower()}"))
        masked = _marked_row(masked_pieces(text, spans), tokenizer)
        examples.append(Example(original, masked if masked.slots else bare))
    return examples


def with_own_slots(rows: Sequence[TokenRow]) -> list[TokenRow]:
    """Return rows whose markers stand for the pseudo-token of their own number."""
    return [TokenRow(row.ids, tuple((at, i) for at, _ in row.slots)) for i, row in enumerate(rows)]


def _marked_row(pieces: Sequence[str], tokenizer: Tokenizer) -> TokenRow:
    """Join texts by markers for pseudo-token 0."""
    return tokenizer.marked_row([part for piece in pieces for part in (0, piece)][1:])
