"""Making edits of captions: kinds of values named or learnt, then edits drawn, with sentences that say what was found."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cir_vectorizer_trainer.captions.keywords import prepare
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind, learn_kinds, named_kinds
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.swapping import EditMaker, NoEditError

MOST_CAPTIONS = 1_000_000
"""Largest number of captions that edits are made from; more are sampled."""
MOST_EDITS = 100_000
_SHOWN_VALUES = 8


@dataclass(frozen=True)
class Making:
    """Choices for making edits.

    Attributes:
        attributes: columns whose values are swapped; kinds are learnt from the captions if there are none.
        phrasings: JSON file that replaces or extends our phrasings.
        known_only: a value is swapped only if some caption has the combination of values that results.
        count: largest number of edits.
    """

    attributes: Sequence[str] = ()
    phrasings: Path | None = None
    language: str = "en"
    known_only: bool = False
    count: int = MOST_EDITS
    seed: int = 0


class MadeEdits:
    """Edits of captions, drawn when they are asked for, and what was found on the way.

    Args:
        captions: cleaned; they are prepared here, and sampled if they are more than a million.
        sources: the files that they come from; the tables among them have the columns of `making.attributes`.

    Raises:
        NoEditError: no edit can be made of the captions.
        SourceError: phrasings cannot be read, or a column is missing.
    """

    def __init__(self, captions: Sequence[str], sources: Sequence[str], making: Making) -> None:
        phrasings = Phrasings.read(making.phrasings, making.language)
        self._making = making
        random = Random(f"captions/{making.seed}")
        self._total = len(captions)
        if self._total > MOST_CAPTIONS:
            captions = [captions[at] for at in sorted(random.sample(range(self._total), MOST_CAPTIONS))]
        prepared = list(dict.fromkeys(filter(None, map(prepare, captions))))
        self.captions = prepared
        if making.attributes:
            kinds = named_kinds(sources, making.attributes, prepared, phrasings)
        else:
            kinds = learn_kinds(prepared, phrasings, random)
        self.kinds = kinds
        self.maker = EditMaker(prepared, kinds, phrasings, making.seed, making.known_only)
        self._counts: Counter[str] = Counter()
        self._wordings: set[str] = set()

    def drawn(self, least: int) -> list[Edit]:
        """Return all edits.

        Raises:
            NoEditError: there are fewer than `least`.
        """
        edits = list(self.draw())
        if len(edits) < least:
            raise NoEditError(f"the captions gave {len(edits)} edits, and {least} are needed; give more captions")
        return edits

    def draw(self) -> Iterator[Edit]:
        """Yield the edits, each once."""
        for edit in self.maker.draw(self._making.count):
            self._counts[edit.kind] += 1
            self._wordings.add(edit.wording)
            yield edit

    def about_kinds(self) -> Iterator[str]:
        """Yield sentences on the captions and on each kind of value."""
        if self._total > MOST_CAPTIONS:
            yield f"edits are made from {MOST_CAPTIONS:,} of {self._total:,} captions, drawn at random"
        for kind, holding in zip(self.kinds, self.maker.index.holding, strict=True):
            shown = ", ".join(map(kind.commonest, list(kind.values)[:_SHOWN_VALUES]))
            more = f" and {len(kind.values) - _SHOWN_VALUES:,} more" if len(kind.values) > _SHOWN_VALUES else ""
            share = 100 * len(holding) / len(self.captions)
            yield f"kind {kind.name!r} ({kind.role}), in {share:.0f} % of the captions: {shown}{more}"

    def about_edits(self) -> Iterator[str]:
        """Yield sentences on the edits drawn so far."""
        able, gave = (100 * count / len(self.captions) for count in (self.maker.index.used, len(self.maker.references)))
        kinds_of_edits = ", ".join(f"{number:,} {name}" for name, number in self._counts.most_common())
        yield f"{self._counts.total():,} edits in {len(self._wordings):,} wordings: {kinds_of_edits}"
        yield (
            f"{gave:.0f} % of the {len(self.captions):,} captions gave edits; {able:.0f} % hold a value that can change"
        )


def worded_in_english() -> str:
    """Return a sentence for captions in another language whose edits have English words."""
    known = ", ".join(Phrasings.languages())
    return (
        "the captions are not English, and edits are worded in English by default; name a language with --language "
        f"(there are phrasings for {known}; --phrasings takes a file for others)"
    )


def kinds_of_edits(edits: Sequence[Edit], making: Making) -> list[Kind]:
    """Learn the kinds of values of the captions in a table of edits."""
    captions = list(dict.fromkeys(caption for edit in edits for caption in (edit.reference, edit.target)))
    return learn_kinds(captions, Phrasings.read(making.phrasings, making.language), Random(f"captions/{making.seed}"))
