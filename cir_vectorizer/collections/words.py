"""Words of texts, for the keyword side of a hybrid search.

Chinese, Japanese, Thai, Lao, Khmer and Burmese write no spaces between words. A run of their characters is read as
overlapping pairs, which need no dictionary: 赤い帽子 holds 赤い, い帽 and 帽子. Releases up to 0.1.0 stored a whole run as
one word.

Not handled: forms of words (stemming), and the words inside a compound of other scripts.
"""

import re
import unicodedata

_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ecd\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u109d"  # Burmese
    "\u1780-\u17d3"  # Khmer
    "\u3005-\u3007\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese
)
_RUN = re.compile(f"[{_UNSPACED}]+")
_OF_ODD_WIDTH = re.compile("[\uff01-\uffee]+")
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(rf"{_RUN.pattern}|(?:(?![{_UNSPACED}])[^\W_])+")


def unspaced(text: str) -> bool:
    """Tell whether a text holds characters of a script without spaces."""
    return _RUN.search(text) is not None


def words_of(text: str) -> list[str]:
    """Return the words of a text to store, in lower case; a run without spaces gives its characters and its pairs."""
    text = _plain(text)
    if not unspaced(text):
        return _WORD.findall(text)
    return [word for part in _PART.findall(text) for word in ((*part, *_pairs(part)) if unspaced(part) else (part,))]


def wanted_words(text: str) -> list[str]:
    """Return the words of a text to search for, in lower case; a run without spaces gives its pairs, and the whole run
    for objects of earlier releases."""
    text = _plain(text)
    whole = _WORD.findall(text)
    if not unspaced(text):
        return whole
    found = [word for part in _PART.findall(text) for word in (_pairs(part) if unspaced(part) else []) or [part]]
    return list(dict.fromkeys([*found, *(word for word in whole if len(word) > 1)]))


def _plain(text: str) -> str:
    """Return a text in lower case; wide Latin and narrow Japanese characters become the usual ones."""
    return _OF_ODD_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text).lower()


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]
