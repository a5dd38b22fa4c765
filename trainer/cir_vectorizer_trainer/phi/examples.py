"""Examples that Φ is trained on: captions as token rows, whole and with their keywords replaced by markers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cir_vectorizer.backbones import Backbone, Tokenizer, TokenRow
from cir_vectorizer.composers.lincir import PROMPT_WITHOUT_TEXT
from cir_vectorizer_trainer.captions.keywords import Tagger, all_keyword_spans, masked_pieces, prepare


@dataclass(frozen=True)
class Example:
    """A caption as two token rows: itself, and with its keywords replaced by markers."""

    original: TokenRow
    masked: TokenRow


def make_examples(captions: Sequence[str], backbone: Backbone, tagger: Tagger, rng: random.Random) -> list[Example]:
    """Tokenise captions and their masked forms.

    A caption is first cut to the context length, so that both forms hold the same words. A masked form without any
    marker becomes "a photo of $".
    """
    tokenizer = backbone.text.tokenizer
    originals: list[TokenRow] = []
    texts: list[str] = []
    for caption in captions:
        text = prepare(caption)
        row = tokenizer.row(text)
        originals.append(row)
        texts.append(tokenizer.decode(row.ids[1:-1]) if row.cut else text)
    bare = _marked_row(PROMPT_WITHOUT_TEXT.split("$"), tokenizer)
    examples = []
    for original, text, spans in zip(originals, texts, all_keyword_spans(texts, tagger, rng), strict=True):
        masked = _marked_row(masked_pieces(text, spans), tokenizer)
        examples.append(Example(original, masked if masked.slots else bare))
    return examples


def _marked_row(pieces: Sequence[str], tokenizer: Tokenizer) -> TokenRow:
    """Join texts by markers for pseudo-token 0."""
    return tokenizer.marked_row([part for piece in pieces for part in (0, piece)][1:])
