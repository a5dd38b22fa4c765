"""An edit made of texts, the example that edit-aware training learns from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """Edit made of texts: a reference caption, the words of the change, and the target caption.

    Attributes:
        reference: caption of the picture that a shopper shows.
        words: what should be different; empty for the empty edit, whose target is the reference, and where only `negative`
            says what changes.
        target: caption of the wanted picture.
        kind: "replace", "add", "remove", "two", "not", "empty" or "table" (read from a table).
        wording: `words` with its values blanked; edits of one wording differ in the values alone.
        negative: what the target must not have, where the edit says so beside its words; else empty.
    """

    reference: str
    words: str
    target: str
    kind: str
    wording: str
    negative: str = ""
