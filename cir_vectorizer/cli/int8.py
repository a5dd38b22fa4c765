"""The check that `--precision int8` needs: the int8 copy of a model beside float32, on pictures of a source."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import click

from cir_vectorizer.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

    from cir_vectorizer.sources import Source

SAMPLE = 250
"""Number of pictures of a check."""
LISTED = 10_000
"""Number of the source's first pictures among which they are chosen, at equal distances."""
WORKERS = 8


def check_int8(model: str, source: "Source") -> None:
    """Check a model's int8 copy on pictures of a source, unless it has passed there, and print the figure.

    Raises:
        ModelError: the copy did not pass, or cannot be made.
    """
    from cir_vectorizer.models import load
    from cir_vectorizer.models.int8 import LEAST_OVERLAP, TOP, check, passed

    vectorizer = load(model, "cpu", parts=())
    record = passed(vectorizer, source.name)
    if record is None:
        click.echo(f"Checking int8 against float32 on pictures of {source.name} …", err=True)
        record = check(vectorizer, _sample(source), source.name)
    click.echo(
        f"int8 on {record['pictures']} pictures of {source.name}: {record['overlap']:.1%} of the {TOP} nearest are the same "
        f"as in float32 ({LEAST_OVERLAP:.0%} needed).",
        err=True,
    )


def _sample(source: "Source") -> "Sequence[Image.Image]":
    """Return pictures of a source; those that cannot be read are left out."""
    from cir_vectorizer.pictures.images import open_image
    from cir_vectorizer.query.encoded import DEFAULT_LIMITS
    from cir_vectorizer.sources.base import Item

    items = [each for each in islice(source.items(), LISTED) if isinstance(each, Item)]
    chosen = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]

    def opened(item: Item) -> "Image.Image | None":
        try:
            return open_image(item.picture.read(DEFAULT_LIMITS), DEFAULT_LIMITS)
        except (ImageError, OSError):
            return None

    with ThreadPoolExecutor(WORKERS, "cir-int8") as pool:
        return [picture for picture in pool.map(opened, chosen) if picture is not None]
