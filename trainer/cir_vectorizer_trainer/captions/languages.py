"""Linking words of captions that are not English: "mit", "und", "de", "avec", "z", "için", "の".

The built-in lexicon is English. In other languages the words between the keywords are told from the keywords by their
frequency and by the words around them; a short list backs the commonest languages, of which few captions are enough.

Not handled: captions of several languages, where English ones keep all of them English; endings and articles that are
written together with a word; and writing without spaces other than Chinese and Japanese, such as Thai, in which a run from
one space or mark to the next is one keyword.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from cir_vectorizer_trainer.captions.lexicon import KINDS

_KNOWN_SHARE = 0.15
"""Share of words from the English lexicon from which on captions are English; English titles have a third of such words."""
_SMALL_SHARE = 0.01
_ENGLISH = frozenset("with and for from the".split())
_COMMON = frozenset(
    # German, Dutch, Scandinavian; without indefinite articles, which are keywords as in English
    "mit und aus für von vom zu zum zur im in am an auf bei ohne oder über unter ist sind der die das den dem des sich als "
    "a met en van voor zonder op het uit bij och med av till från utan på som og til fra uden uten för "
    # French, Italian, Spanish, Portuguese
    "avec et de du des d la le les à au aux en pour sans sur dans par est con e di del della dei delle da dal il lo gli "
    "per senza su nel nella y el los las al para sin por com do das na no sem em "
    # Polish, Czech, Turkish, Russian
    "z ze i w we na do dla bez od po oraz u o s se v k ke ve ile için veya и с со для без на в из от по под или "
    # Arabic, Hindi, Chinese, Japanese
    "من في مع على إلى و أو بدون عن ذو ذات के का की और में से को पर साथ लिए या वाला वाली वाले बिना "
    "的 和 与 與 及 の と で に を は が も から まで より など".split()
)
_LATIN = re.compile(r"[a-z\u00df-\u024f]")
_JOINED = re.compile(r"[\d'’&.,/‐‑-]")
"""Characters of words that are no single plain word: "l'herbe", "t-shirt"."""
_MOST_LETTERS, _LEAST_TIMES = 4, 50
_LEAST_SHARE, _LEAST_LISTED = 0.02, 0.005
_MOST_FIRST, _MOST_LAST, _LEAST_SPREAD = 0.1, 0.01, 0.6


def linking_words(rows: Sequence[Sequence[str]], english: bool | None = None) -> tuple[str, ...] | None:
    """Return the words that link keywords in captions of another language, the most frequent first.

    Listed ones are those in one caption of 200. Any other word of up to four letters is one if it is in one caption
    of 50, opens hardly any caption, hardly ever stands before a mark or at the end, and follows nearly as many different
    words as chance would allow.

    Args:
        rows: words and marks of each caption.
        english: whether the captions are English; told by their words if None.

    Returns:
        None if the captions are English, as they also seem to be if most of their words are in Latin letters and no
        linking word of two letters or more is found.
    """
    words = [[word for word in row if word[0].isalpha()] for row in rows]
    times = Counter(word for row in words for word in row)
    if _english(times) if english is None else english:
        return None
    captions = Counter(word for row in words for word in set(row))
    first = Counter(row[0] for row in words if row)
    last = Counter(word for row in rows for word, after in pairwise([*row, ""]) if not after[:1].isalnum())

    def links(word: str) -> bool:
        share = captions[word] / len(rows)
        if word in _COMMON:
            return share >= _LEAST_LISTED
        return (
            not _JOINED.search(word)
            and len(word) <= _MOST_LETTERS
            and times[word] >= _LEAST_TIMES
            and share >= _LEAST_SHARE
            and first[word] <= _MOST_FIRST * times[word]
            and last[word] <= _MOST_LAST * times[word]
        )

    candidates = {word for word in captions if links(word)}
    before: dict[str, Counter[str]] = {word: Counter() for word in candidates}
    for row in words:
        for left, word in zip(["", *row], row, strict=False):
            if word in candidates:
                before[word][left] += 1
    chance = _entropy(times)
    found = [
        word
        for word in candidates
        if word in _COMMON or _entropy(before[word]) >= _LEAST_SPREAD * min(chance, math.log2(times[word]))
    ]
    latin = sum(count for word, count in times.items() if _LATIN.match(word))
    if english is None and 2 * latin >= times.total() and all(len(word) == 1 for word in found):
        return None  # the sizes "s" and "l", brands such as "W"
    return tuple(sorted(found, key=lambda word: (-times[word], word)))


def _english(times: Counter[str]) -> bool:
    """Tell whether many words are in the English lexicon, or the small words are mostly English."""
    known, small, others = (
        sum(count for word, count in times.items() if word in words)
        for words in (KINDS, _ENGLISH, _COMMON - KINDS.keys())
    )
    total = times.total()
    return known >= max(_KNOWN_SHARE * total, others) or small > max(_SMALL_SHARE * total, others)


def _entropy(counts: Counter[str]) -> float:
    """Return the entropy of a distribution in bits."""
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())
