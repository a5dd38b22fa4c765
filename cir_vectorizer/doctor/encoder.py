"""The model's text encoder: how it reads texts, and whether it knows the language of the model's prompts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cir_vectorizer.doctor.findings import Finding
from cir_vectorizer.models.recommended import RECOMMENDED

if TYPE_CHECKING:
    from cir_vectorizer.backbones import BackboneSpec
    from cir_vectorizer.backbones.text import TextFacts

_POOLED = {
    "end": "pooled at the end token",
    "first": "pooled at the first token",
    "last": "pooled at the last token",
    "mean": "pooled by their mean",
    "max": "pooled by their maximum",
}


def encoder_finding(spec: "BackboneSpec", facts: "TextFacts | None", language: str = "en") -> Iterator[Finding]:
    """Yield what is known of a text encoder, if anything is.

    Args:
        facts: None if the encoder is not loaded; then only recommended encoders are known.
        language: BCP 47 tag of the model's own prompts.
    """
    listed = next((each for each in RECOMMENDED if each.name == str(spec)), None)
    if facts is not None:
        parts = [f"{spec} reads texts of up to {facts.context_length} tokens"]
        parts += ["causal" if facts.causal else "not causal", _POOLED[facts.pooling]]
    elif listed is not None:
        parts = [f"{spec} reads texts of up to {listed.context} tokens"]
    else:
        return
    if listed is not None:
        parts.append(f"languages: {listed.languages}")
    foreign = listed is not None and listed.languages == "English" and language != "en"
    if foreign:
        parts.append(
            f"but the model's prompts are in {language!r}; train over an encoder that knows it (cir-vectorizer models list)"
        )
    yield Finding("encoder", "warning" if foreign else "ok", ", ".join(parts))
