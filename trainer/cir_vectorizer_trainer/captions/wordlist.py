"""A customer's own list of keywords: phrases that are always masked, and phrases that never are.

The list has a phrase a line. A line that begins with "-" holds a phrase that is no keyword ("-sku"):

    reid & taylor
    air max 90
    -new
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import CaptionError, SourceError
from cir_vectorizer.sources.text import reading, text_lines
from cir_vectorizer_trainer.captions.keywords import Tagger, prepare, tokens_of
from cir_vectorizer_trainer.captions.titles import KEYWORD, NEVER

Phrase = tuple[str, ...]
"""The words and marks of a phrase, as captions are split."""


@dataclass(frozen=True)
class ListedTagger:
    """Tagger that corrects the tags of another one by a list of phrases.

    Where several phrases begin at a word, the longest counts; phrases are found from left to right and don't overlap.

    Args:
        tagger: tags all other words.
        phrases: the tag of each phrase's words, `KEYWORD` or `NEVER`.
    """

    tagger: Tagger
    phrases: Mapping[Phrase, str]

    @property
    def name(self) -> str:
        parts = (part for phrase, tag in sorted(self.phrases.items()) for part in (" ".join(phrase), tag))
        return f"{self.tagger.name}+keywords:{PartsDigest(*parts).hexdigest()[:8]}"

    @property
    def english(self) -> bool:
        return self.tagger.english

    def tag(self, rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        lengths: dict[str, list[int]] = {}
        for length, first in sorted({(len(phrase), phrase[0]) for phrase in self.phrases}, reverse=True):
            lengths.setdefault(first, []).append(length)
        to_tag, to_search = tee(rows)
        for tags, row in zip(self.tagger.tag(to_tag), to_search, strict=True):
            at = 0
            while at < len(row):
                matched = (n for n in lengths.get(row[at], ()) if tuple(row[at : at + n]) in self.phrases)
                length = next(matched, 0)
                tags[at : at + length] = [self.phrases[tuple(row[at : at + length])]] * length if length else []
                at += length or 1
            yield tags


def read_word_list(path: Path) -> dict[Phrase, str]:
    """Read a customer's phrases, with the tag of each: `KEYWORD`, or `NEVER` after a "-".

    Raises:
        CaptionError: the file cannot be read, is not UTF-8 or holds no phrase; a line has no word; or a phrase is in it
            both with and without "-".
    """
    phrases: dict[Phrase, str] = {}
    try:
        with reading(str(path), lambda: path.open("rb")) as stream:
            for number, line in enumerate(text_lines(stream, str(path)), start=1):
                text = prepare(line)
                if not text:
                    continue
                tokens = tokens_of(text.removeprefix("-"))
                if not any(token[1] for token in tokens):
                    raise CaptionError(
                        f"{path}, line {number:,}: {text!r} has no word; write a phrase, or remove the line"
                    )
                phrase = tuple(token[0] for token in tokens)
                tag = NEVER if text.startswith("-") else KEYWORD
                if phrases.setdefault(phrase, tag) != tag:
                    raise CaptionError(
                        f'{path}, line {number:,}: {" ".join(phrase)!r} is listed both with and without "-"; keep one'
                    )
    except SourceError as error:
        raise CaptionError(str(error)) from error
    if not phrases:
        raise CaptionError(f"{path} holds no phrase; write one a line, or leave out --keywords")
    return phrases
