"""Keywords of a caption, which training masks: maximal runs of adjectives, nouns, names and determiners.

"a red dress with long sleeves" becomes "$ with $" (LinCIR's self-masking projection, https://arxiv.org/abs/2312.01998).

Two things deliberately differ from the published code, which replaces a run's text wherever it occurs. Runs are word
offsets here, so that masking "art" leaves "party" whole, and no run is skipped because its text was already replaced
with another run. And hyphens and apostrophes do not split words, so that "t-shirt" and "men's" are one word each.
"""

import random
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol

from cir_vectorizer.digests import PartsDigest
from cir_vectorizer_trainer.captions.languages import linking_words
from cir_vectorizer_trainer.captions.lexicon import kind_of
from cir_vectorizer_trainer.captions.titles import KEYWORD, KEYWORD_TAGS, NEVER, is_title, tag_sizes, tag_title

MARKER = "$"
_PERSON = re.compile("<person>", re.IGNORECASE)

Span = tuple[int, int]

_BREAKING = (
    "!-/:-@\\[-`{-~¡-©«-±´¶-¸»¿×÷،؛؟۔।॥\u2000-\u200b\u200e-\u206f\u20a0-\u20cf\u2190-\u2bff\u2e00-\u2e7f\u3000-\u3004"
    "\u3008-\u3020\u3030\ufe00-\ufe1f\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufffc\ufffd"
    "\U0001f000-\U0001faff\U000e0000-\U000e007f"
)
"""Punctuation, symbols and emoji: each is a token of its own and ends a run. All other characters, accents and CJK
included, form words."""
_LETTER = rf"[^\s{_BREAKING}]"
_UNSPACED = re.compile(r"[ぁ-ヿ㐀-鿿豈-﫿]")
_LINK = r"(?:[的和与與及]|(?<![ぁ-ゟ])(?:から|まで|より|など|[のとでにをはがも])(?![ぁ-ゟ]))"
"""A linking word of Chinese or Japanese; one of Japanese stands alone among other characters than hiragana."""


def _word(letters: str) -> str:
    return rf"{letters}(?:(?:[-'’&‐‑]|(?<=\d)[.,/](?=\d)){letters})*(?:(?<=[sS])['’](?=\s))?"


_TOKEN = re.compile(rf"({_word(f'{_LETTER}+')})|\S")
_UNSPACED_TOKEN = re.compile(rf"({_LINK}|{_word(f'(?:(?!{_LINK}){_LETTER})+')})|\S")


def tokens_of(text: str) -> list[re.Match[str]]:
    """Return the words and marks of a text with their places; group 1 is set if it is a word and not a mark."""
    return list((_UNSPACED_TOKEN if _UNSPACED.search(text) else _TOKEN).finditer(text))


_FIXED = {
    "det": "DET", "quantity": "DET", "possessive": "PRON", "subject": "PRON", "pron": "PRON", "adp": "ADP", "to": "ADP",
    "cconj": "CCONJ", "sconj": "SCONJ", "be": "AUX", "have": "AUX", "part": "PART", "intj": "INTJ", "degree": "ADV",
    "adv": "ADV", "num": "NUM", "adj": "ADJ", "adjed": "ADJ", "noun": "NOUN", "mark": "PUNCT",
}  # fmt: skip
"""The tag of each kind of word (see `lexicon`) that needs no context."""
_HEADS = frozenset({"noun", "adj", "adjed", "adjverb", "nounverb", "nounverb_s", "uninflected"})
_OBJECTS = frozenset({"det", "quantity", "this", "possessive", "pron"})
_EDGES = frozenset({"", "mark"})


def in_own_case(caption: str) -> str:
    """Return a caption in the form that is trained on: no "$", `<person>` as person, whitespace collapsed."""
    return " ".join(_PERSON.sub("person", caption.replace(MARKER, "")).split())


def prepare(caption: str) -> str:
    """Return a caption in the form whose words are tagged and swapped: as `in_own_case`, and in lower case."""
    return in_own_case(caption).lower()


class Tagger(Protocol):
    """Tagger of words with their part of speech."""

    @property
    def name(self) -> str:
        """Name of this tagger in a training record, for example `builtin`, `builtin:titles` or
        `spacy:en_core_web_sm`."""

    @property
    def english(self) -> bool:
        """False if it tags captions of another language."""

    def tag(self, rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        """Yield the universal POS tags of each row of lower-case words and punctuation marks, as long as the row.

        `KEYWORD` and `NEVER` are tags too.
        """


_kind = lru_cache(1 << 18)(kind_of)
SAMPLE = 20_000
"""Number of captions from which the built-in tagger decides on its rules."""
SENTENCES = 0.3
"""Share of captions with a verb, an auxiliary, an article or a pronoun below which captions are product titles; real
titles have few (brands that look like verbs), captions of pictures nearly always one."""


class BuiltinTagger:
    """Tags captions by word lists, endings and neighbouring words; needs no download.

    It does not parse: a noun used as a verb far from its subject is missed.

    Args:
        captions: the captions to tag; a sample of them decides on the rules. If they are product titles, those without
            the small words of a sentence follow the rules of `titles`. If they are not English, all words are nouns
            except their `linking_words`. Without captions the rules are those for English sentences.
        english: whether the captions are English; told by their words if None.
    """

    def __init__(self, captions: Sequence[str] = (), english: bool | None = None) -> None:
        step = max(1, len(captions) // SAMPLE)
        sample = (prepare(captions[at]) for at in range(0, len(captions), step))
        rows = [row for caption in sample if (row := [token[0] for token in tokens_of(caption)])]
        sentences = sum(not is_title(row) or "VERB" in _english(row) for row in rows)
        self._titles = sentences < SENTENCES * len(rows)
        self._linking = linking_words(rows, english)

    @property
    def english(self) -> bool:
        return self._linking is None

    @property
    def name(self) -> str:
        if self._linking is not None:
            digest = PartsDigest(*sorted(self._linking)).hexdigest()[:8]
            return f"builtin:{','.join(self._linking[:3]) or 'none'}:{digest}"
        return "builtin:titles" if self._titles else "builtin"

    def tag(self, rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        if self._linking is not None:
            linking = frozenset(self._linking)
            for row in rows:
                yield tag_sizes(row, [_foreign(word, linking) for word in row])
            return
        for row in rows:
            tags = _english(row)
            yield tag_title(row, tags) if self._titles and is_title(row) else tags


def _foreign(word: str, linking: frozenset[str]) -> str:
    if word in linking:
        return "ADP"
    kind = _kind(word)
    return _FIXED[kind] if kind in {"mark", "num"} else "NOUN"


def _english(row: Sequence[str]) -> list[str]:
    kinds = ["", "", *map(_kind, row), "", ""]
    tags = ["", ""]
    opener = ""
    for at in range(2, len(kinds) - 2):
        kind = kinds[at]
        tag = _FIXED.get(kind) or _in_context(kinds, tags, at, opener)
        if tag != "ADJ":
            opener = kind
        tags.append(tag)
    return tags[2:]


def _in_context(kinds: list[str], tags: list[str], at: int, opener: str) -> str:
    """Return the tag of a word whose kind allows several; `opener` is the kind of the word before the adjectives that
    precede it."""
    before, after, tag_before = kinds[at - 1], kinds[at + 1], tags[at - 1]
    subject = before == "subject" or (before == "that" and tag_before == "PRON")
    owned = tag_before == "DET" or before == "possessive"
    match kinds[at]:
        case "this":
            pointed = after in _HEADS or after in {"num", "participle", "ing", "adjing", "more", "verb"}
            return "DET" if pointed else "PRON"
        case "that":
            return "DET" if after in _HEADS and before in {"", "mark", "adp", "to", "verb"} else "PRON"
        case "off":
            return "ADJ" if after == "adj" else "ADP"
        case "more":
            graded = after in {"adj", "adjed", "adjing", "adjverb", "degree", "adv", "participle", "ing"}
            amount = before == "have" and after == "adj" and kinds[at + 2] not in _HEADS
            return "ADV" if graded and not amount else "ADJ"
        case "modal":
            named = tag_before in {"DET", "ADJ"} or (tag_before == "NOUN" and after in _EDGES | {"adp", "cconj"})
            return "NOUN" if named else "AUX"
        case "verb":
            phrase = before == after == "adp"
            return "NOUN" if owned or phrase or (tag_before == "ADJ" and after not in _OBJECTS) else "VERB"
        case "verb_s":
            return "NOUN" if owned or (tag_before == "ADJ" and after in _EDGES | {"cconj"}) else "VERB"
        case "uninflected" if before == "be":
            return "NOUN" if after in _HEADS else "VERB"
        case "nounverb" | "uninflected":
            ordered = after in _OBJECTS and tag_before not in {"DET", "ADJ", "ADP"}
            counted = after == "num" and before in _EDGES
            aimed = before == "to" and after in _OBJECTS
            return "VERB" if before == "modal" or subject or ordered or counted or aimed else "NOUN"
        case "nounverb_s":
            stated = (after in _OBJECTS or after == "num") and tag_before in {"", "NOUN", "NUM", "CCONJ", "ADV"}
            return "VERB" if subject or stated else "NOUN"
        case "adjverb":
            return "VERB" if after in _OBJECTS and tag_before not in {"DET", "ADJ", "AUX"} else "ADJ"
        case "deverbal":
            return "VERB" if after in _OBJECTS or (tag_before in {"AUX", "NUM"} and after in _HEADS) else "NOUN"
        case "adjing":
            return "VERB" if tag_before in {"NOUN", "AUX"} and after in {"adp", "to", "det"} else "ADJ"
        case "compound" if after in _HEADS and tag_before not in {"PRON", "AUX"}:
            return "ADJ"
        case "transitive" if after in _HEADS and tag_before not in {"NOUN", "NUM", "PRON", "AUX"}:
            return "ADJ"
        case "ing" | "compound" | "transitive":
            return _ing(before, after, tag_before, opener)
        case "participle":
            return _participle(kinds, tags, at, subject)
    raise AssertionError(f"no rule for words of the kind {kinds[at]}")


def _ing(before: str, after: str, tag_before: str, opener: str) -> str:
    led_by = opener if tag_before == "ADJ" else before
    if led_by in {"det", "this", "possessive"}:
        return "ADJ" if after in _HEADS else "NOUN"
    return "ADJ" if before == "more" or (led_by == "have" and after in _HEADS) else "VERB"


def _participle(kinds: list[str], tags: list[str], at: int, subject: bool) -> str:
    before, after = kinds[at - 1], kinds[at + 1]
    alone = before in _EDGES and after in _EDGES
    graded = before == "more" or (before == "degree" and after in _EDGES | {"cconj"})
    joined = before == "cconj" and tags[at - 2] == "ADJ" and after not in {"adp", "to"}
    attributive = after in _HEADS and not subject and not (tags[at - 1] == "NOUN" and after == "adj")
    return "ADJ" if attributive or alone or graded or joined else "VERB"


class SpacyTagger:
    """Tags with an installed spaCy model.

    Args:
        model: name of the model's package, for example `en_core_web_sm`.
        nlp: the loaded pipeline, without parser and entity recogniser.
    """

    english = True

    def __init__(self, model: str, nlp: Any) -> None:
        self._model = model
        self._nlp = nlp

    @property
    def name(self) -> str:
        return f"spacy:{self._model}"

    def tag(self, rows: Iterable[Sequence[str]]) -> Iterator[list[str]]:
        from spacy.tokens import Doc

        docs = (Doc(self._nlp.vocab, words=list(row)) for row in rows)
        for doc in self._nlp.pipe(docs, batch_size=512):
            yield [token.pos_ for token in doc]

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_spacy, (self._model,)


_SPACY_MODELS = ("en_core_web_sm", "en_core_web_md", "en_core_web_lg", "en_core_web_trf")


def best_tagger(captions: Sequence[str] = (), english: bool | None = None) -> Tagger:
    """Return the tagger for `captions`.

    spaCy's smallest installed English model tags English ones, as in the published code, else the built-in tagger.

    Args:
        english: whether the captions are English; told by their words if None.
    """
    builtin = BuiltinTagger(captions, english)
    if not builtin.english or find_spec("spacy") is None:
        return builtin
    import spacy

    installed = spacy.util.get_installed_models()
    return next((_load_spacy(model) for model in _SPACY_MODELS if model in installed), builtin)


def _load_spacy(model: str) -> SpacyTagger:
    import spacy

    return SpacyTagger(model, spacy.load(model, exclude=["parser", "ner", "lemmatizer"]))


def keyword_spans(caption: str, tagger: Tagger, rng: random.Random | None = None) -> list[Span]:
    """Return the offsets of one prepared caption's keywords; see `all_keyword_spans`."""
    return next(all_keyword_spans([caption], tagger, rng))


def all_keyword_spans(
    captions: Iterable[str], tagger: Tagger, rng: random.Random | None = None
) -> Iterator[list[Span]]:
    """Yield the character offsets (start, end) of each prepared caption's keyword runs, in order and disjoint.

    Args:
        captions: prepared by `prepare` or `in_own_case`; read at most one batch of the tagger ahead.
        rng: draws one space-separated word of a caption without keywords, to be masked instead, but none tagged
            `NEVER`; if None, or if the caption has no such word, there are no spans.
    """
    queue: deque[tuple[str, list[re.Match[str]]]] = deque()

    def rows() -> Iterator[list[str]]:
        for caption in captions:
            tokens = tokens_of(caption)
            queue.append((caption, tokens))
            yield [token[0].lower() for token in tokens]

    for tags in tagger.tag(rows()):
        caption, tokens = queue.popleft()
        spans = _runs(tokens, tags)
        if not spans and rng is not None:
            never = {token.start() for token, tag in zip(tokens, tags, strict=True) if tag == NEVER}
            words = [word.span() for word in re.finditer(r"\S+", caption)]
            maskable = [(start, end) for start, end in words if never.isdisjoint(range(start, end))]
            spans = [rng.choice(maskable)] if maskable else []
        yield spans


def _runs(tokens: list[re.Match[str]], tags: list[str]) -> list[Span]:
    spans: list[Span] = []
    open_run = False
    for token, tag in zip(tokens, tags, strict=True):
        keyword = tag == KEYWORD or (tag in KEYWORD_TAGS and token[1] is not None)
        if keyword and open_run:
            spans[-1] = spans[-1][0], token.end()
        elif keyword:
            spans.append(token.span())
        open_run = keyword
    return spans


def masked_pieces(caption: str, spans: Sequence[Span]) -> list[str]:
    """Return the n + 1 pieces of text around n spans; a marker goes between each two pieces."""
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(caption)]
    return [caption[end:start] for end, start in zip(ends, starts, strict=True)]


def mask_keywords(caption: str, tagger: Tagger, rng: random.Random) -> list[str]:
    """Prepare one caption and return the text around its keywords; joined by "$" it is the form printed in the paper."""
    caption = prepare(caption)
    return masked_pieces(caption, keyword_spans(caption, tagger, rng))
