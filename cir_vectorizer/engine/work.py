"""What is asked of the engine, prepared on the host, and what it answers."""

from dataclasses import dataclass

from torch import Tensor

from cir_vectorizer.backbones import TokenRow
from cir_vectorizer.composers import Plan
from cir_vectorizer.engine.stages import Vector
from cir_vectorizer.pictures.masks import Mask

THE_PICTURE = "the picture"
"""What a message calls a picture that is not part of a composed query."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its digest, or the address it is fetched from; `label` names it in messages.

    The digest is of what the model sees: of the bytes, and of the mask where there is one.
    """

    label: str
    data: bytes = b""
    digest: bytes = b""
    url: str | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Work:
    """One vector that is wanted, prepared on the host.

    `stage` is the queue that makes the vector from `payload`; for a picture alone it is None. `tokens` counts CLIP
    tokens, `notes` are sentences for the caller.
    """

    model: str
    stage: str | None
    payload: Plan | TokenRow | None
    pictures: tuple[Picture | Tensor, ...] = ()
    tokens: int = 0
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """Estimated work in its stage, beside other work there."""
        return self.payload.units if isinstance(self.payload, Plan) else max(1, self.tokens)


@dataclass(frozen=True)
class Answer:
    """A unit vector (dim,), and for a picture alone the length that its embedding had."""

    vector: Vector
    norm: float = 1.0
