"""Options that describe a composed query, for the commands that search a collection; and what is shown of it."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.common import with_options

if TYPE_CHECKING:
    from cir_vectorizer.collections import Collection
    from cir_vectorizer.collections.searching import Search
    from cir_vectorizer.query import ImageRef

STRENGTH_OPTION = click.option(
    "--strength",
    type=click.FloatRange(0, 10),
    help="How strongly --negative-text and --must-text reorder the results; 0: not at all.  [default: 2]",
)
_QUERY_OPTIONS = (
    click.option(
        "--image",
        "images",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Reference picture; repeat it for several.",
    ),
    click.option(
        "--id", "ids", multiple=True, metavar="ID", help="Object of the collection as reference picture; repeatable."
    ),
    click.option("--text", help="What should be different, or the whole search if there is no picture."),
    click.option("--negative-text", multiple=True, metavar="TEXT", help="What should not be there; repeatable."),
    click.option("--must-text", multiple=True, metavar="TEXT", help="What every result should show; repeatable."),
    click.option(
        "--mask", metavar="FILE|BOX", help="Where the picture may change: white in a picture, or left,top,right,bottom."
    ),
    click.option("--template", help="Prompt with $ (or $1, $2, …) for pictures and {text} for the text."),
    click.option(
        "--language", metavar="TAG", help="Language of the prompt: de, fr, ja, ….  [default: the model's own]"
    ),
    click.option("--composer", metavar="NAME", help="How picture and words become one vector."),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help="Number for the composer: keep=0.7, steps=10, seed=1, guidance=[1.5,7.5], weights.text=0.3, fusion.b=0.6; repeatable.",
    ),
)


def query_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `read_query_options` reads to a command."""
    return with_options(command, _QUERY_OPTIONS)


def read_query_options(
    images: tuple[Path, ...],
    ids: tuple[str, ...],
    text: str | None,
    negative_text: tuple[str, ...],
    must_text: tuple[str, ...],
    mask: str | None,
    template: str | None,
    language: str | None,
    composer: str | None,
    options: tuple[str, ...],
) -> dict[str, Any]:
    """Return the fields of the query that the options describe."""
    if url := next((each for each in images if re.match("https?:/", str(each))), None):
        raise click.UsageError(f"--image {url} is a URL; download the picture, and give its file")
    said = {
        "image": [*images, *({"id": each} for each in ids)] or None,
        "text": text,
        "negative_text": list(negative_text) or None,
        "must_text": list(must_text) or None,
        "mask": None if mask is None else _mask(mask),
        "template": template,
        "language": language,
        "composer": composer,
        "options": _options(options),
    }
    return {key: value for key, value in said.items() if value is not None}


def read_picture(option: str, text: str) -> dict[str, Any] | Path:
    """Return a file if one has this name, else an object's id."""
    from cir_vectorizer.collections.stored import read_id
    from cir_vectorizer.errors import QueryError

    if Path(text).is_file():
        return Path(text)
    try:
        return {"id": read_id(text, option)}
    except QueryError as error:
        problem = f"{text!r} is neither an existing file nor an id (a whole number or a UUID); correct it"
        raise QueryError(option, problem) from error


def _mask(text: str) -> Path | list[float]:
    """Return a mask's file, or the four numbers of a box, which are separated by commas."""
    parts = text.split(",")
    try:
        return [float(part) for part in parts] if len(parts) == 4 and not Path(text).exists() else Path(text)
    except ValueError:
        return Path(text)


def _options(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return the composer's options; a dot in a key makes a group of numbers."""
    from cir_vectorizer.errors import QueryError

    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise QueryError("option", f"{text!r} is not KEY=VALUE; write for example --option keep=0.7")
        *groups, name = key.strip().split(".")
        into = options
        for group in groups:
            into = into.setdefault(group, {})
            if not isinstance(into, dict):
                raise QueryError("option", f"{group} is both a number and a group of numbers; give one of them")
        try:
            into[name] = json.loads(value)
        except ValueError as error:
            raise QueryError(
                f"options.{key}", f"is {value!r}, which is no number; write for example keep=0.7"
            ) from error
    return options or None


def references(asked: "Search", collection: "Collection", picture_column: str | None) -> list[tuple[Any, str]]:
    """Return the places of a search's pictures, with captions."""
    from cir_vectorizer.cli.sheet import name_of
    from cir_vectorizer.collections import place_of
    from cir_vectorizer.collections.stored import read_id

    groups: list[tuple[str, tuple[ImageRef, ...]]] = [
        ("", asked.query.image if asked.query else ()),
        ("like ", asked.like),
        ("unlike ", asked.unlike),
    ]
    ids = [read_id(ref.id, "id") for _, refs in groups for ref in refs if ref.id is not None]
    found = {point.id: place_of(point.payload, picture_column) for point in (collection.get(ids) if ids else [])}
    shown: list[tuple[Any, str]] = []
    for words, refs in groups:
        for ref in refs:
            place = str(ref.path) if ref.id is None else found.get(read_id(ref.id, "id"))
            shown.append((place, words + (name_of(place) or str(ref.id))))
    return shown


def caption(asked: "Search") -> str:
    query = asked.query
    if query is None:
        return ""
    said = (("not", query.negative), ("must show", ", ".join(query.wanted)))
    return " ".join(filter(None, [query.text, *(f"({name}: {words})" for name, words in said if words)]))
