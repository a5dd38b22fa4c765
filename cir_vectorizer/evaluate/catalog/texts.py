"""Texts of a catalog's objects as a second score: whether its queries can judge their weight, and how far that can be trusted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cir_vectorizer.collections import Info, values_at
from cir_vectorizer.collections.rescoring import TEXT_WEIGHT
from cir_vectorizer.evaluate.catalog.attributes import Found
from cir_vectorizer.evaluate.catalog.contenders import TEXT_WEIGHTS
from cir_vectorizer.evaluate.catalog.objects import LEAST, Objects
from cir_vectorizer.evaluate.catalog.queries import Combinations, MadeQuery
from cir_vectorizer.evaluate.catalog.wordings import singular
from cir_vectorizer.query.filters import parse_column

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer


def judgeable(objects: Objects, found: Found, info: Info) -> Objects:
    """Return the objects, without texts if queries made of these attributes cannot judge them; a note says why.

    Texts that hold the very columns of which the right answers are made would look better than they are.

    Args:
        found: the attributes; a note is added to it.
    """
    if objects.texts is None:
        return objects
    made_of = {each.name for each in found.attributes} if found.captions is None else {found.captions}
    held = [column for column in info.text_columns if column in made_of]
    if held:
        problem = f"right answers are made of {', '.join(map(repr, held))}, which they hold; name columns that they do not hold with --attributes"
    elif (count := int(objects.having_text.sum())) < LEAST:
        problem = f"{count} of these objects have one, and {LEAST} are needed"
    else:
        return objects
    found.notes.append(f"the objects' texts: {problem}")
    return objects.without_texts()


def today(models: Mapping[str, "Vectorizer"], objects: Objects, info: Info) -> dict[str, Any]:
    """Return the settings of a contender that is what searches do now, by the first model's default."""
    name, model = next(iter(models.items()))
    composer = model.default_composer
    options = model.defaults[composer].to_json() if composer in model.defaults else {}
    settings = {"model": name, "composer": composer, "options": options}
    if objects.texts is None:
        return settings
    return {**settings, "text_weight": TEXT_WEIGHT if info.text_weight is None else info.text_weight}


def choices(objects: Objects, info: Info) -> Iterator[tuple[str, str]]:
    """Yield the choices of a report that the figures with texts hang on."""
    if objects.texts is not None:
        yield (
            "texts",
            f"{', '.join(info.text_columns)}; {int(objects.having_text.sum()):,} objects have one; weights from "
            f"{TEXT_WEIGHTS[0]:g} to {TEXT_WEIGHTS[-1]:g} were tried, and of those that are not surely worse than the best one, "
            f"the nearest to the usual {TEXT_WEIGHT:g} was taken",
        )


def naming_share(
    queries: Iterable[MadeQuery], combinations: Combinations, objects: Objects, columns: Sequence[str]
) -> float:
    """Return the share of right objects whose texts name the values asked for, among those with a text."""
    parsed = [parse_column(column) for column in columns]
    said = [" ".join(str(value) for column in parsed for value in values_at(own, column)) for own in objects.columns]
    said = [text.lower() for text in said]
    shares = []
    for query in queries:
        asked = [singular(value) for at in query.attributes if (value := query.target[at]) is not None]
        right = np.flatnonzero(np.isin(combinations.group, query.wanted) & objects.having_text)
        if asked and len(right):
            shares.append(np.mean([all(value in said[row] for value in asked) for row in right]))
    return float(np.mean(shares)) if shares else 0.0
