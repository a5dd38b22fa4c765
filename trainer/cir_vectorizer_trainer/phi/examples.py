"""Examples that Φ is trained on: captions as token rows, whole and with their keywords replaced by markers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cir_vectorizer.backbones import Backbone, TokenRow
from cir_vectorizer.composers.lincir import PROMPT_WITHOUT_TEXT
from cir_vectorizer_trainer.captions.keywords import Tagger, all_keyword_spans, masked_pieces, prepare


@dataclass(frozen=True)
class Example:
    """A caption as two token rows: itself, and with its keywords replaced by markers."""

    original: TokenRow
    masked: TokenRow


def make_examples(captions: Sequence[str], backbone: Backbone, tagger: Tagger, rng: random.Random) -> list[Example]:
    """Tokenise captions and their masked forms.

    A caption is cut to the context first, so both forms say the same; a masked form that lost every marker becomes
    "a photo of $".
    """
    facts, tokenizer = backbone.text, backbone.tokenizer
    originals: list[TokenRow] = []
    texts: list[str] = []
    for caption in captions:
        text = prepare(caption)
        tokens = tokenizer.encode(text, facts.context_length - 2)
        originals.append(TokenRow((facts.start_id, *tokens.ids, facts.end_id)))
        texts.append(tokenizer.decode(tokens.ids) if tokens.cut else text)
    bare = _marked_row(PROMPT_WITHOUT_TEXT.split("$"), backbone)
    examples = []
    for original, text, spans in zip(originals, texts, all_keyword_spans(texts, tagger, rng), strict=True):
        masked = _marked_row(masked_pieces(text, spans), backbone)
        examples.append(Example(original, masked if masked.slots else bare))
    return examples


def _marked_row(pieces: Sequence[str], backbone: Backbone) -> TokenRow:
    facts = backbone.text
    ids: list[int] = []
    slots: list[tuple[int, int]] = []
    for position, piece in enumerate(pieces):
        if position:
            slots.append((len(ids) + 1, 0))
            ids.append(facts.marker_id)
        ids += backbone.tokenizer.encode(piece, facts.context_length).ids
    room = facts.context_length - 2
    return TokenRow((facts.start_id, *ids[:room], facts.end_id), tuple(slot for slot in slots if slot[0] <= room))
