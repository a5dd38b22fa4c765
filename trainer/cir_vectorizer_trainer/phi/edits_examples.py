"""Edits as the trainer reads them: their prompts as token rows, and the embeddings of their captions."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from cir_vectorizer.backbones import Backbone, TextEncoder, Tokenizer, TokenRow
from cir_vectorizer.composers.lincir import prompt_row
from cir_vectorizer.composers.prompts import ENGLISH, Wording
from cir_vectorizer.query import check_template
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.mining import grouped
from cir_vectorizer_trainer.phi.edits_loss import EditBatch
from cir_vectorizer_trainer.phi.examples import BLOCK


def edit_prompts(edits: Sequence[Edit], tokenizer: Tokenizer, wording: Wording) -> list[TokenRow]:
    """Return the prompts of edits, each with markers for pseudo-token 0."""
    pieces = check_template(wording.prompt, 1, has_text=True)
    rows: dict[str, TokenRow] = {}  # many edits share their words
    for edit in edits:
        words = wording.words_of_edit(edit.words, edit.negative)
        if words not in rows:
            rows[words] = prompt_row(tokenizer, pieces, 1, words)
    return [rows[wording.words_of_edit(edit.words, edit.negative)] for edit in edits]


@torch.no_grad()
def embeddings_of(captions: Sequence[str], text: TextEncoder, block: int) -> Tensor:
    """Embed captions, `block` of them at a time, unnormalised. (captions, dim)"""
    parts = [captions[at : at + block] for at in range(0, len(captions), block)]
    return torch.cat([text.encode_text([text.tokenizer.row(caption) for caption in part]) for part in parts])


class EditExamples:
    """Edits with their prompts; their captions are embedded by the frozen tower when the first batch is asked for.

    Args:
        kinds: kinds of the captions' values. Captions that hold the same values are a group.
        smoothing: share of a group's mean embedding in the targets, 0 to 1.
        wording: prompts of the captions' language.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        backbone: Backbone,
        kinds: Sequence[Kind],
        smoothing: float,
        wording: Wording = ENGLISH,
    ) -> None:
        self._backbone = backbone
        self._smoothing = smoothing
        tokenizer = backbone.text.tokenizer
        numbers: dict[str, int] = {}
        for edit in edits:
            for caption in (edit.reference, edit.target):
                numbers.setdefault(caption, len(numbers))
        self._captions = list(numbers)
        self.groups = torch.tensor(grouped(self._captions, kinds))
        self._references = torch.tensor([numbers[edit.reference] for edit in edits])
        self._targets = torch.tensor([numbers[edit.target] for edit in edits])
        self._prompts = edit_prompts(edits, tokenizer, wording)
        empty = check_template(wording.prompt_without_text, 1, has_text=False)
        self._empty = prompt_row(tokenizer, empty, 1, "")

    def __len__(self) -> int:
        return len(self._prompts)

    def batch(self, picked: Sequence[int]) -> EditBatch:
        """Return some edits, by index, on the backbone's device."""
        at = torch.tensor(list(picked))
        references = self._references[at]
        captions = torch.cat([self._targets[at], references])
        groups = self.groups[captions]
        targets = torch.lerp(self.embeddings[captions], self._means[groups], self._smoothing)
        device = self._backbone.device
        return EditBatch(
            [self._prompts[i] for i in picked],
            self._empty,
            self.embeddings[references].to(device),
            targets.to(device),
            groups.to(device),
        )

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings of all captions by the frozen tower. (captions, dim)"""
        return embeddings_of(self._captions, self._backbone.text, BLOCK).cpu()

    @cached_property
    def _means(self) -> Tensor:
        """Mean embedding of each group. (groups, dim)"""
        counts = torch.bincount(self.groups)
        sums = torch.zeros(len(counts), self.embeddings.shape[1], dtype=self.embeddings.dtype)
        return sums.index_add_(0, self.groups, self.embeddings) / counts[:, None]
