"""Planned work: one wanted vector, prepared on the host. The vectorizer runs it at once, or the engine in batches."""

from dataclasses import dataclass, replace

from torch import Tensor

from cir_vectorizer.composers import Composer, Plan
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.masks import Mask

PICTURE, TEXT = "picture", "text"
"""Stages of plain searches; a composed query's stage is `composer_stage` of its composer's name."""


def composer_stage(name: str) -> str:
    """Return the name of a composer's stage."""
    return f"composer {name}"


@dataclass(frozen=True)
class EncodedPicture:
    """An encoded picture and the digest of everything that its embedding depends on, or the URL to fetch it from.

    Attributes:
        field: dotted name of its part of the query; "" for a picture that is not part of one.
        path: of a local file, which messages name instead.
        digest: of the bytes and, if there is one, the mask; empty until a picture by URL is fetched.
        mask: hides a part of the picture from the model.
    """

    field: str = ""
    path: str = ""
    data: bytes = b""
    digest: bytes = b""
    url: str | None = None
    mask: Mask | None = None

    def holding(self, data: bytes) -> "EncodedPicture":
        """Return the picture with its bytes and their digest, which takes a millisecond for each megabyte."""
        parts = [data] if self.mask is None else [data, self.mask.content]
        return replace(self, data=data, digest=PartsDigest(*parts).digest(), url=None)

    def placed(self, error: ImageError) -> ImageError:
        """Return an error of this picture with its place in the query and its name before the sentence."""
        return error.at(self.field, said=f"{self.path or self.field or 'the picture'} ")


@dataclass(frozen=True)
class Work:
    """Preparation of one wanted vector, done on the host.

    Attributes:
        model: name of the vectorizer that planned it.
        stage: the last step: `PICTURE` for a picture alone, `TEXT` for a text alone, else the composer's stage.
        composer: runs `plan`.
        composer_name: the composer's name in the model; None for a plain search.
        pictures: encoded pictures, or (dim,) unnormalised embeddings where the query gave a vector.
    """

    model: str
    stage: str
    composer: Composer
    plan: Plan
    pictures: tuple[EncodedPicture | Tensor, ...] = ()
    composer_name: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the caller."""
        return self.plan.notes

    @property
    def tokens(self) -> int:
        """Number of tokens of its texts."""
        return self.plan.tokens
