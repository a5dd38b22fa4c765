"""Edits as the trainer reads them: their prompts as token rows, and the embeddings of their captions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cir_vectorizer.backbones import Backbone, Tokenizer, TokenRow
from cir_vectorizer.composers.lincir import PROMPT, PROMPT_WITHOUT_TEXT, prompt_row, words_of_edit
from cir_vectorizer.query import check_template
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.phi.edits_loss import EditBatch

BLOCK = 4096
"""Number of captions whose embeddings are computed together."""


def edit_prompts(edits: Sequence[Edit], tokenizer: Tokenizer) -> list[TokenRow]:
    """Return the prompts of edits, each with markers for pseudo-token 0."""
    pieces = check_template(PROMPT, 1, has_text=True)
    rows: dict[str, TokenRow] = {}  # many edits share their words
    for edit in edits:
        words = words_of_edit(edit.words, edit.negative)
        if words not in rows:
            rows[words] = prompt_row(tokenizer, pieces, 1, words)
    return [rows[words_of_edit(edit.words, edit.negative)] for edit in edits]


class EditExamples:
    """Edits with their prompts; their captions are embedded by the frozen tower when they are first needed.

    Captions are numbered by their first appearance, and embedded in blocks of neighbours. So a first pass in the edits'
    own order can begin at once, and an embedding does not depend on the step that first needs it.
    """

    def __init__(self, edits: Sequence[Edit], backbone: Backbone) -> None:
        self._backbone = backbone
        tokenizer = backbone.text.tokenizer
        numbers: dict[str, int] = {}
        for edit in edits:
            for caption in (edit.reference, edit.target):
                numbers.setdefault(caption, len(numbers))
        self._captions = list(numbers)
        self._references = torch.tensor([numbers[edit.reference] for edit in edits])
        self._targets = torch.tensor([numbers[edit.target] for edit in edits])
        self._prompts = edit_prompts(edits, tokenizer)
        self._empty = prompt_row(tokenizer, check_template(PROMPT_WITHOUT_TEXT, 1, has_text=False), 1, "")
        self._embeddings = torch.empty(len(self._captions), backbone.dim)
        self._encoded: set[int] = set()

    def __len__(self) -> int:
        return len(self._prompts)

    def batch(self, picked: Sequence[int]) -> EditBatch:
        """Return some edits, by index, on the backbone's device."""
        at = torch.tensor(list(picked))
        references, targets = self._references[at], self._targets[at]
        device = self._backbone.device
        return EditBatch(
            [self._prompts[i] for i in picked],
            self._empty,
            self._embeddings_of(references).to(device),
            self._embeddings_of(targets).to(device),
            torch.cat([targets, references]).to(device),
        )

    def first_embeddings(self) -> Tensor:
        """Return the embeddings of the first block of captions. (at most `BLOCK`, dim)"""
        return self._embeddings_of(torch.arange(min(BLOCK, len(self._captions))))

    def _embeddings_of(self, numbers: Tensor) -> Tensor:
        for block in sorted({number // BLOCK for number in numbers.tolist()} - self._encoded):
            self._encode(block)
        return self._embeddings[numbers]

    @torch.no_grad()
    def _encode(self, block: int) -> None:
        text, part = self._backbone.text, slice(block * BLOCK, (block + 1) * BLOCK)
        rows = [text.tokenizer.row(caption) for caption in self._captions[part]]
        embeddings = text.encode_text(rows).cpu()
        self._embeddings = self._embeddings.to(embeddings.dtype)
        self._embeddings[part] = embeddings
        self._encoded.add(block)
