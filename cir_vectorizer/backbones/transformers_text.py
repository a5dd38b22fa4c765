"""Text encoders of transformers models: for each kind of model its tower, its tokenizer and the facts of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cir_vectorizer.backbones.hf_text import Pool
from cir_vectorizer.backbones.hf_tokenizer import HFTokenizer, check_vocabulary, read_tokenizer
from cir_vectorizer.backbones.text import Pooling, TextFacts, Tokenizer
from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer.backbones.transformers_towers import TransformersHFTowers, TransformersTowers
from cir_vectorizer.errors import ModelError

CLIP_VOCABULARY = 49408
END_ID = CLIP_VOCABULARY - 1
"""CLIP's end token; most of its tokenizers also pad with it."""
_MOST_TOKENS = 100_000
"""Context of encoders without a limit of their own."""


@dataclass(frozen=True)
class TextPart:
    """A text encoder in parts.

    Attributes:
        towers: implements `Towers`, pictures included.
        facts: facts of the text tower.
        dim: length of an embedding.
        tokenizer: builds its rows.
    """

    towers: nn.Module
    facts: TextFacts
    dim: int
    tokenizer: Tokenizer


def text_part(name: str, model: Any) -> TextPart:
    """Return the text encoder of `model`, whose tokenizer's files are in folder or hub repository `name`.

    Raises:
        ModelError: the tokenizer cannot be read or does not fit, or the model is of no kind that is known here.
    """
    return KINDS[model.config.model_type](name, model)


def _clip(name: str, model: Any) -> TextPart:
    """CLIP and MetaCLIP 2: causal, pooled at the end token."""
    config = getattr(model.config, "text_config", model.config)
    tokenizer: ClipTokenizer | HFTokenizer
    if config.vocab_size == CLIP_VOCABULARY:
        tokenizer, pad_id = ClipTokenizer(config.max_position_embeddings), END_ID
    else:
        tokenizer = _tokenizer(name, config.max_position_embeddings, config.vocab_size)
        pad_id = tokenizer.pad_id
        if tokenizer.end_id != config.eos_token_id:
            raise ModelError(
                f"the tokenizer of {name!r} ends a text with {list(tokenizer.after)}, and the model pools at the id "
                f"{config.eos_token_id}; put the tokenizer files that belong to the model into its folder"
            )
    facts = TextFacts(
        context_length=config.max_position_embeddings,
        width=config.hidden_size,
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
        pad_id=pad_id,
        marker_id=tokenizer.marker_id,
        causal=True,
        pooling="end",
    )
    return TextPart(TransformersTowers(model), facts, model.config.projection_dim, tokenizer)


def _siglip(name: str, model: Any) -> TextPart:
    """SigLIP and SigLIP 2: not causal, pooled at the last place of a padded row; padding is attended to."""
    config = model.config.text_config
    tokenizer = _tokenizer(name, config.max_position_embeddings, config.vocab_size, of_siglip=True)
    facts = TextFacts(
        context_length=config.max_position_embeddings,
        width=config.hidden_size,
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
        pad_id=tokenizer.pad_id,
        marker_id=tokenizer.marker_id,
        causal=False,
        pooling="last",
        pads_left=tokenizer.pads_left,
    )
    dim = model.text_model.head.out_features
    return TextPart(TransformersTowers(model, causal=False), facts, dim, tokenizer)


def _chinese_clip(name: str, model: Any) -> TextPart:
    return bidirectional(name, model, model.text_model, model.text_projection, "first", model.config.projection_dim)


def _altclip(name: str, model: Any) -> TextPart:
    text = model.text_model
    head = nn.Sequential(text.pre_LN, text.transformation, model.text_projection)
    return bidirectional(name, model, text.roberta, head, "first", model.config.projection_dim)


def _pair(name: str, model: Any) -> TextPart:
    """Pair of any two encoders: the text encoder's own pooler comes before the projection."""
    return bidirectional(
        name, model, model.text_model, model.text_projection, "first", model.config.projection_dim, _pooler_output
    )


def _pooler_output(output: Any, _mask: Tensor) -> Tensor:
    pooled: Tensor = output.pooler_output
    return pooled


def bidirectional(
    name: str,
    pictures: Any,
    encoder: Any,
    head: nn.Module,
    pooling: Pooling,
    dim: int,
    pool: Pool | None = None,
    tokenizer: HFTokenizer | None = None,
) -> TextPart:
    """Return a text encoder that attends in both directions, and never to padding.

    Args:
        name: folder or hub repository of its tokenizer.
        pictures: model whose picture encoder goes with it.
        encoder: an encoder of the transformers library.
        head: maps pooled states to embeddings of length `dim`.
        pooling: name of the pooling.
        pool: the pooling itself; by its name if None.
        tokenizer: builds its rows; the one of `name` if None.

    Raises:
        ModelError: the tokenizer cannot be read or does not fit.
    """
    config = encoder.config
    rows, width = encoder.get_input_embeddings().weight.shape
    tokenizer = tokenizer or _tokenizer(name, _positions(encoder), rows)
    if config.pad_token_id is not None and tokenizer.pad_id != config.pad_token_id:
        raise ModelError(
            f"the tokenizer of {name!r} pads with id {tokenizer.pad_id}, and the model hides id {config.pad_token_id}; put "
            "the tokenizer files that belong to the model into its folder"
        )
    facts = TextFacts(
        context_length=tokenizer.context_length,
        width=width,
        start_id=tokenizer.start_id,
        end_id=tokenizer.end_id,
        pad_id=tokenizer.pad_id,
        marker_id=tokenizer.marker_id,
        causal=False,
        pooling=pooling,
        attends_padding=False,
    )
    return TextPart(
        TransformersHFTowers(pictures, encoder, head, pooling, tokenizer.pad_id, pool), facts, dim, tokenizer
    )


def _positions(encoder: Any) -> int:
    """Return how many tokens the encoder has positions for; those of RoBERTa's kin begin after the padding's."""
    config = encoder.config
    positions = int(getattr(config, "max_position_embeddings", None) or _MOST_TOKENS)
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return positions if padding is None else positions - padding - 1


def _tokenizer(name: str, positions: int, rows: int, of_siglip: bool = False) -> HFTokenizer:
    """Read the tokenizer of `name`. SigLIP's rows fill all positions, whatever its tokenizer says.

    Raises:
        ModelError: it cannot be read or does not fit.
    """
    from transformers import AutoTokenizer

    read = read_tokenizer(name, lambda: AutoTokenizer.from_pretrained(name))
    context = positions if of_siglip else min(positions, int(read.model_max_length))
    # SigLIP 2 was trained on lower case, and Gemma's tokenizer keeps capitals
    clean = str.lower if of_siglip and "Gemma" in type(read).__name__ else None
    tokenizer = HFTokenizer(read, context, clean)
    check_vocabulary(name, tokenizer, rows)
    return tokenizer


def clip_pad_id(name: str) -> int:
    """Return the pad id of the tokenizer of a CLIP in folder or hub repository `name`, or CLIP's end token if it has none.

    Raises:
        ModelError: the model has no such token.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(name)
    except (OSError, ValueError, TypeError):
        return END_ID
    pad_id = END_ID if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    if not 0 <= pad_id < CLIP_VOCABULARY:
        raise ModelError(
            f"the tokenizer of {name!r} pads with id {pad_id}, and the model has {CLIP_VOCABULARY} token "
            "embeddings; put the tokenizer files that belong to the model into its folder"
        )
    return pad_id


KINDS: Mapping[str, Callable[[str, Any], TextPart]] = {
    "clip": _clip,
    "clip_text_model": _clip,
    "metaclip_2": _clip,
    "siglip": _siglip,
    "siglip2": _siglip,
    "chinese_clip": _chinese_clip,
    "altclip": _altclip,
    "vision-text-dual-encoder": _pair,
}
"""Builders of text encoders, by the model's `model_type`."""
