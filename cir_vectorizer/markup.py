"""Text without HTML: shops export their descriptions as `<p>Red &amp; white <b>dress</b></p>`."""

import html
import re

_INLINE = "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span strike strong sub sup time tt u var wbr".split()  # fmt: skip
_BLOCKS = (
    "address article aside blockquote body br button caption center col colgroup dd details div dl dt embed fieldset figcaption "
    "figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input label li link main meta nav noscript object ol "
    "option p picture pre script section select source style summary svg table tbody td tfoot th thead title tr ul video"
).split()
_MARKED = re.compile(r"<[a-zA-Z/!]|&#?\w+;")
_UNREAD = re.compile(r"<!--.*?-->|<(script|style)\b[^>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(rf"</?(?:(?P<inline>{'|'.join(_INLINE)})|{'|'.join(_BLOCKS)})(?:[\s/][^<>]*)?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]*);")


def without_markup(text: str) -> str:
    """Return a text without HTML's tags, comments and scripts, its entities as letters; other uses of < and & stay.

    HTML that was itself escaped (`&lt;p&gt;`) is removed too. Blocks such as paragraphs are set apart by a space.
    """
    for _ in range(2):
        if not _MARKED.search(text):
            break
        text = _UNREAD.sub(" ", text)
        text = _TAG.sub(lambda tag: "" if tag["inline"] else " ", text)
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text
