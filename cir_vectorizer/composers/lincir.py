"""LinCIR: a picture's embedding becomes a pseudo-word that is read inside a prompt.

Gu et al., "Language-only Efficient Training of Zero-shot Composed Image Retrieval" (CVPR 2024). The
same composer runs SEARLE's and Pic2Word's networks, which differ only in their layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone, TextEncoder, Tokenizer, TokenRow
from cir_vectorizer.backbones.adapter import PREFIX, Adapter, AdapterSettings
from cir_vectorizer.backbones.text import RowTooLong
from cir_vectorizer.composers.base import Composer, Plan, cut_note, encode_rows, mean_direction
from cir_vectorizer.composers.checkpoints import read_weights
from cir_vectorizer.composers.prompts import ENGLISH, Prompts, Wording
from cir_vectorizer.composers.words import nearest_words
from cir_vectorizer.errors import CheckpointError, QueryError
from cir_vectorizer.query import TEXT_SLOT, ComposedQuery, check_template
from cir_vectorizer.query.takes import Takes

PROMPT = ENGLISH.prompt
PIC2WORD_PROMPT = "a photo of $ , {text}"
NEGATIVE_WEIGHT = 0.5
NEGATIVE_STEP = 0.5
"""With an adapter, how far a query goes on in the direction in which the negative text turned its prompt."""


class Phi(nn.Module):
    """Φ of LinCIR and SEARLE: (n, dim) unnormalised embeddings -> (n, width) pseudo-tokens."""

    def __init__(self, dim: int, width: int, hidden: int | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        hidden = hidden or 4 * dim
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, width),
        )  # fmt: skip

    def forward(self, embeddings: Tensor) -> Tensor:
        pseudo_tokens: Tensor = self.layers(embeddings)
        return pseudo_tokens


class Pic2WordMapper(nn.Module):
    """Pic2Word's network: blocks of linear, dropout and ReLU, then a linear layer. (n, dim) -> (n, width)"""

    def __init__(self, dim: int, width: int, hidden: int = 512, blocks: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        sizes = [dim, *[hidden] * blocks]
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b), nn.Dropout(dropout), nn.ReLU()) for a, b in pairwise(sizes))
        )
        self.fc_out = nn.Linear(hidden, width)

    def forward(self, embeddings: Tensor) -> Tensor:
        pseudo_tokens: Tensor = self.fc_out(self.layers(embeddings))
        return pseudo_tokens


@dataclass(frozen=True)
class _Reading:
    """A plan's reading of its rows.

    Attributes:
        adapted: whether prompts are read with the adapter.
        subtracted: whether rows 1 and 2 are the prompt with the negative text and the one without text.
        said: whether row 0 says the negative text too, row 1 is the same prompt without it, and row 2 the negative text.
        turn: as `_turn` returns it; below 0, the last row is the bare text.
    """

    adapted: bool
    subtracted: bool
    said: bool
    turn: float

    def encoders(self, rows: int) -> list[bool]:
        """Return for each row whether the adapter reads it; bare texts are always read by the frozen tower."""
        prompts = rows - self.said - (self.turn < 0)
        return [self.adapted] * prompts + [False] * (rows - prompts)


class LinCIR(Composer):
    """Composer that puts pseudo-words into a prompt, which a text encoder reads.

    A negative text subtracts its direction: the unit vector of the prompt with the negative text minus that of the
    prompt without text, times `options.weights.negative` (default `NEGATIVE_WEIGHT`).

    A model may have an adapter of its text tower, learnt from edits of texts. Then queries with pictures are read with
    it, and a negative text becomes words of the prompt ("…, not striped") unless `options.weights.negative` asks for
    the subtraction. From the unit vector q of the prompt without the negative text to p of the one with it, the query then
    goes on by `NEGATIVE_STEP` of the way: p + `NEGATIVE_STEP` · (p − q). But it stays q if p is not farther from the negative
    text's own vector than q is: then the picture shows nothing of the kind, and the adapter would read the words as wanted
    (`benchmarks/negative_text.py`). `options.adapter` of false leaves the adapter out.
    Queries without pictures never pass through it.

    `options.keep` of 0.5 changes nothing. Above 0.5 the vector turns towards the pictures' mean embedding, which it
    equals at 1; below 0.5 it turns towards the bare text's vector, which it equals at 0.

    The query's `language` chooses the prompt, and the words "and" and "not" in it; a `template` replaces the prompt alone.

    Args:
        backbone: the encoder that Φ was trained for.
        phi: network from unnormalised image embeddings to pseudo-tokens.
        prompts: prompts by language; the built-in ones, English by default, if None.
        text: the encoder that reads prompts, in the space of `backbone`; `backbone.text` if None.
        adapter: changes of `text` for queries with pictures; None if there are none.
    """

    takes = Takes(
        negative_text="optional",
        template="optional",
        language="optional",
        options=("keep", "weights.negative", "adapter"),
    )

    def __init__(
        self,
        backbone: Backbone,
        phi: nn.Module,
        prompts: Prompts | None = None,
        text: TextEncoder | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.backbone = backbone
        self.text = text or backbone.text
        self.adapter = adapter
        self.adapted: TextEncoder | None = None
        if adapter is not None:
            with torch.no_grad():
                self.adapted = adapter.adapt(self.text)
        self.phi = phi.to(backbone.device).eval().requires_grad_(False)
        self.prompts = prompts or Prompts()

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> "LinCIR":
        """Load Φ and the adapter, if there is one, from a model folder. Raises CheckpointError if they do not fit."""
        try:
            prompts = Prompts.from_record(record)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}/model.json: {error}") from error.__cause__
        path = folder / record["file"]
        adapter = load_adapter(path, record["adapter"], backbone) if "adapter" in record else None
        return cls(backbone, load_phi(path, backbone), prompts, adapter=adapter)

    def prepare(self, query: ComposedQuery) -> Plan:
        options = query.options
        if options.weights and (options.weights.image, options.weights.text) != (None, None):
            raise QueryError(
                "options.weights", "LinCIR takes only 'negative'; use composer 'sum' for image and text weights"
            )
        text, negative = (query.text or "").strip(), query.negative
        adapted = self.adapted is not None and options.adapter is not False and bool(query.image)
        subtracted = bool(negative) and not (adapted and (options.weights is None or options.weights.negative is None))
        said = bool(negative) and not subtracted
        wording = self.prompts.of(query.language)
        rows, notes = [], []
        if said:
            rows += [
                self._row_with_negative(query, wording, text, negative),
                self._row(query, wording, text),
                self.text.tokenizer.row(negative),
            ]
            if rows[0].cut:
                notes.append(cut_note("text and negative_text", self.text.tokenizer))
        else:
            asked = [("text", text)] + ([("negative_text", negative), ("", "")] if negative else [])
            for field_name, words in asked:
                rows.append(self._row(query, wording, words))
                if rows[-1].cut:
                    notes.append(cut_note(field_name or "template", self.text.tokenizer))
        turn = _turn(query, bool(text))
        if turn < 0:
            rows.append(self.text.tokenizer.row(text))
        return Plan(query, tuple(rows), tuple(notes), own=_Reading(adapted, subtracted, said, turn))

    def _row_with_negative(self, query: ComposedQuery, wording: Wording, text: str, negative: str) -> TokenRow:
        """Build the row of a prompt that also says what is not wanted."""
        words = wording.words_of_edit(text, negative)
        template = query.template or wording.prompt
        if query.template is not None and not text:
            template = f"{query.template}, {TEXT_SLOT}"
        pieces = check_template(template, len(query.image), True)
        return prompt_row(self.text.tokenizer, pieces, len(query.image), words, wording.join)

    def _row(self, query: ComposedQuery, wording: Wording, words: str) -> TokenRow:
        tokenizer, count = self.text.tokenizer, len(query.image)
        if not count:
            return tokenizer.row(words or wording.photo)
        if query.template is not None and bool(words) == bool((query.text or "").strip()):
            template = query.template
        else:
            template = wording.prompt if words else wording.prompt_without_text
        pieces = check_template(template, count, bool(words))
        return prompt_row(tokenizer, pieces, count, words, wording.join)

    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        counts = [len(r) for r in references]
        pseudo_tokens = self.phi(torch.cat(list(references)).float()) if sum(counts) else None
        rows: list[TokenRow] = []
        first = 0
        for plan, count in zip(plans, counts, strict=True):
            rows += [replace(row, slots=tuple((at, first + i) for at, i in row.slots)) for row in plan.rows]
            first += count
        encoded = self._encode(
            rows, [each for plan in plans for each in plan.own.encoders(len(plan.rows))], pseudo_tokens
        )
        pictures = mean_direction(references, self.backbone.dim)
        vectors = []
        at = 0
        for plan, picture in zip(plans, pictures, strict=True):
            mine = encoded[at : at + len(plan.rows)]
            at += len(plan.rows)
            vector = mine[0]
            if plan.own.subtracted:
                weights = plan.query.options.weights
                weight = NEGATIVE_WEIGHT if weights is None or weights.negative is None else weights.negative
                vector = vector - weight * (mine[1] - mine[2])
            elif plan.own.said:
                without, unwanted = mine[1:3]
                away = (vector - without) @ unwanted < 0
                vector = vector + NEGATIVE_STEP * (vector - without) if away else without
            if turn := plan.own.turn:
                vector = torch.lerp(F.normalize(vector, dim=-1), picture if turn > 0 else mine[-1], abs(turn))
            vectors.append(vector)
        return F.normalize(torch.stack(vectors), dim=-1)

    def _encode(self, rows: Sequence[TokenRow], adapted: Sequence[bool], pseudo_tokens: Tensor | None) -> Tensor:
        """Encode each row to a unit vector, with the adapter or by the frozen tower. -> (rows, dim)"""
        if self.adapted is None or not any(adapted):
            return encode_rows(self.text, rows, pseudo_tokens)
        if all(adapted):
            return encode_rows(self.adapted, rows, pseudo_tokens)
        encoded = torch.empty(len(rows), self.backbone.dim, device=self.backbone.device)
        for encoder, wanted in ((self.adapted, True), (self.text, False)):
            mine = [i for i, each in enumerate(adapted) if each is wanted]
            encoded[mine] = encode_rows(encoder, [rows[i] for i in mine], pseudo_tokens)
        return encoded

    @torch.inference_mode()
    def explain(self, references: Tensor, words: int) -> list[list[tuple[str, float]]]:
        return nearest_words(self.text, self.phi(references.to(self.backbone.device).float()), words)


def prompt_row(
    tokenizer: Tokenizer, pieces: Sequence[str | int], references: int, text: str, join: str = "and"
) -> TokenRow:
    """Build the row of a template, split by `query.check_template`; its slots index the query's references from 0.

    A "$" in the text stays literal. With several references, `$` becomes one marker for each, with the word `join` between
    them. If the row is too long, the text is cut first, then the words after the last marker.

    Raises:
        QueryError: the template is still too long.
    """
    filled: list[str | int] = []
    shorten: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            which = [piece - 1] if piece else list(range(references))
            filled += [part for index in which for part in (join, index)][1:]
            continue
        before, slot, after = piece.partition(TEXT_SLOT)
        filled.append(before)
        if slot:
            shorten = [len(filled)]
            filled += [text, after.replace(TEXT_SLOT, text)]
    try:
        return tokenizer.marked_row(filled, [*shorten, len(filled) - 1])
    except RowTooLong as error:
        raise QueryError(
            "template", f"is {error.excess} tokens too long for this model's {tokenizer.context_length}; shorten it"
        ) from error


def _turn(query: ComposedQuery, has_text: bool) -> float:
    """Return how far `keep` turns a query: 1 fully to its pictures, -1 fully to its text; 0 if that part is missing."""
    turn = 0.0 if query.options.keep is None else 2 * query.options.keep - 1
    return turn if (query.image if turn > 0 else has_text) else 0.0


def save_phi(path: Path, phi: nn.Module, adapter: Adapter | None = None) -> None:
    """Write Φ as safetensors, under the names of the published checkpoints, and an adapter beside it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in phi.state_dict().items()}
    save_file({**tensors, **(adapter.tensors() if adapter is not None else {})}, path)


def load_adapter(path: Path, record: Mapping[str, Any], backbone: Backbone) -> Adapter:
    """Load the adapter that `save_phi` wrote beside Φ.

    Args:
        record: the entry `adapter` of the composer's record.

    Raises:
        CheckpointError: the file is missing or truncated, or the adapter is for another text tower.
    """
    adapter = Adapter(backbone.text, AdapterSettings.from_record(record))
    try:
        adapter.load_tensors(read_weights(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return adapter.eval().requires_grad_(False)


def load_phi(path: Path, backbone: Backbone) -> nn.Module:
    """Load Φ from a safetensors file of ours or a published checkpoint of LinCIR, SEARLE or Pic2Word.

    The names inside the file tell the family. Only tensors are unpickled.

    Raises:
        CheckpointError: the file is missing or truncated, of another family, or made for a backbone of other widths.
    """
    weights = _phi_weights(path)
    if any(name.startswith("fc_out.") for name in weights):
        linears = [name for name in weights if name.endswith(".weight") and name.startswith("layers.")]
        hidden, dim = weights["layers.0.0.weight"].shape if "layers.0.0.weight" in weights else (0, 0)
        width = weights["fc_out.weight"].shape[0]
        phi: nn.Module = Pic2WordMapper(dim, width, hidden, blocks=len(linears))
    elif "layers.0.weight" in weights and "layers.6.weight" in weights:
        hidden, dim = weights["layers.0.weight"].shape
        width = weights["layers.6.weight"].shape[0]
        phi = Phi(dim, width, hidden)
    else:
        raise CheckpointError(
            f"{path} is no Φ of LinCIR, SEARLE or Pic2Word: it holds {', '.join(sorted(weights)[:3])}, …; check the file"
        )
    wanted = (backbone.dim, backbone.text.facts.width)
    if (dim, width) != wanted:
        raise CheckpointError(
            f"{path} maps embeddings of {dim} to tokens of {width}, but backbone {backbone.spec} has {wanted[0]} and "
            f"{wanted[1]}; choose the backbone that it was trained for"
        )
    try:
        phi.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} is incomplete or damaged ({' '.join(str(error).split())}); copy or download the file again"
        ) from error
    return phi


def _phi_weights(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    for key in ("Phi", "state_dict_img2text"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor) and not str(name).startswith(PREFIX)
    }
    if not weights:
        raise CheckpointError(
            f"{path} holds no Φ: its entries are {', '.join(sorted(map(str, content))[:5])}; check the file"
        )
    return weights
