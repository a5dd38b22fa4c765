"""Sample work for the warm-up: one piece for each stage of a model."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cir_vectorizer.composers import Takes
from cir_vectorizer.errors import ModelError, QueryError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.models.work import PICTURE
from cir_vectorizer.query import ComposedQuery, ImageRef, MaskRef

_TEXT = "a dress that is red and has long sleeves"


@dataclass(frozen=True)
class Sample:
    """Sample work for a stage: the payload of one piece in its queue, and the piece's units."""

    stage: str
    payload: Any
    units: int


def samples(vectorizer: Vectorizer) -> Iterator[Sample]:
    """Yield one sample for each stage that the engine has a queue for.

    Raises:
        ModelError: a composer rejects a query that its `takes` allows.
    """
    red = Image.new("RGB", (64, 64), "red")
    yield Sample(PICTURE, vectorizer.preprocess(red), 1)
    text = vectorizer.plan_text(_TEXT)
    yield Sample(text.stage, (text.plan, []), text.plan.units)
    encoded = io.BytesIO()
    red.save(encoded, "PNG")
    picture = ImageRef(data=encoded.getvalue())
    embedding = np.ones(vectorizer.dim, np.float32)
    for name, composer in vectorizer.composers.items():
        try:
            work = vectorizer.plan(_query(composer.takes, picture).model_copy(update={"composer": name}))
        except QueryError as error:
            raise ModelError(
                f"composer {name!r} of model {vectorizer.name!r} refuses a query that its `takes` allows ({error}); "
                "correct its `takes`"
            ) from error
        yield Sample(work.stage, (work.plan, [embedding] * len(work.pictures)), work.plan.units)


def _query(takes: Takes, picture: ImageRef) -> ComposedQuery:
    """Return a typical query: a picture and a text if the composer reads them, and whatever else it requires."""
    return ComposedQuery(
        image=(picture,) if takes.reads("image") else (),
        text=_TEXT if takes.reads("text") else None,
        negative_text="stripes" if takes.negative_text == "required" else None,
        mask=MaskRef(box=(0.0, 0.0, 0.5, 1.0)) if takes.mask == "required" else None,
        template="a photo of $ that {text}" if takes.template == "required" else None,
    )
