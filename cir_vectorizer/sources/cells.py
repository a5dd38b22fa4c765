"""Cells that name pictures: columns by their names in shops' exports, lists in a cell, and rows of one product.

A cell may list its pictures as JSON, as a list of Python or PostgreSQL, as a list of parquet, or as text between
commas, semicolons, bars, line ends or (URLs) blanks. A text is a list only if each part is a URL or ends like a
picture's file, and a URL is split only where another URL begins: commas are usual inside URLs.
"""

import ast
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from cir_vectorizer.identity import id_text
from cir_vectorizer.sources.base import Failure, is_picture
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.rows import Row
from cir_vectorizer.sources.types import NONE

Pictures = Literal["first", "each"]
"""The pictures of a product that become objects: its first one, or each of them."""

IMAGE_COLUMNS = (
    "image",
    "image_path",
    "img",
    "picture",
    "photo",
    "path",
    "file",
    "filename",
    "file_name",
    "image_url",
    "url",
)
"""Names of columns that are taken for a table's image column, most likely first; case does not matter."""
_EXPORT_COLUMNS = (
    "image_src",  # Shopify
    "product_image_url",  # Shopify, since 2024
    "image_link",  # Google Merchant
    "base_image",  # Magento
    "images",  # WooCommerce
    "image_urls",
    "image_links",
    "image_paths",
    "img_url",
    "pictures",
    "photos",
    "variant_image",
    "additional_images",
)
"""Names that shops' exports give to the image column; blanks and hyphens count as underscores."""
_MORE_PICTURES = (
    "variant_image",
    "variant_image_url",
    "additional_image_link",
    "additional_image_links",
    "additional_images",
    "additional_image_urls",
    "media_gallery",
)
"""Names of columns that hold further pictures of the product."""
_PRODUCTS = {"image_src": "handle", "product_image_url": "url_handle"}
"""Shopify's image columns, with the column that tells products apart: each row holds one picture of its product."""
_ADDRESS_KEYS = ("src", "url", "path", "image", "link", "href", "file")
"""Keys under which JSON objects of shops' exports hold a picture's address."""

_NO_PICTURE = NONE | {"", "no_selection"}  # the latter is Magento's
_LISTED = re.compile(r"[,;|\n\r]|[\[{]|\s[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_NEXT_URL = re.compile(r"(?:\s*[,;|]\s*|\s+)(?=[a-z][a-z0-9+.-]+://)", re.IGNORECASE)
_SEPARATORS = ("\n", "|", ";", ",")
_LONGEST_LIST = 2**20


def image_column(columns: Sequence[str]) -> str | None:
    """Return the column that is clearly the picture's, by its name; None if there is none."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    by_plain_name = {_plain(column): column for column in reversed(columns)}
    exact = (by_name[name] for name in IMAGE_COLUMNS if name in by_name)
    return next(exact, next((by_plain_name[name] for name in _EXPORT_COLUMNS if name in by_plain_name), None))


def more_pictures(columns: Sequence[str], image: str) -> list[str]:
    """Return the columns besides `image` that hold further pictures of the product."""
    return [column for column in columns if column != image and _plain(column) in _MORE_PICTURES]


def product_column(columns: Sequence[str], image: str) -> str | None:
    """Return the column that tells products apart in an export that has a row for each picture; None otherwise."""
    wanted = _PRODUCTS.get(_plain(image))
    return next((column for column in columns if _plain(column) == wanted), None)


def by_product(
    rows: Iterable[tuple[int, Row | Failure]], product: str, image: str, keep: Pictures
) -> Iterator[tuple[int, Row | Failure]]:
    """Yield the rows of a table in which several rows may follow one another for a product, one picture in each.

    Empty cells are filled from the product's first row. Rows without a picture are left out, unless the whole product
    has none; then its first row remains.

    Args:
        product: column that tells products apart.
        image: column of pictures.
        keep: "each" to keep each row that has a picture, "first" to join them into the first, with all the pictures.
    """
    singles = itertools.count()

    def group(numbered: tuple[int, Row | Failure]) -> object:
        row = numbered[1]
        value = None if isinstance(row, Failure) else row.get(product)
        return next(singles) if _empty(value) else ("product", id_text(value))

    for _, members in itertools.groupby(rows, group):
        lot = list(members)
        number, first = lot[0]
        if isinstance(first, Failure) or len(lot) == 1:
            yield number, first
            continue
        pictured = [(at, row) for at, row in lot if isinstance(row, dict) and not _empty(row.get(image))]
        if not pictured:
            yield number, first
        elif keep == "first":
            yield number, {**first, image: [row[image] for _, row in pictured]}
        else:
            for at, row in pictured:
                yield at, {**first, **{column: value for column, value in row.items() if not _empty(value)}}


def pictures_of(cell: Any) -> list[Any]:
    """Return the pictures that a cell names, in order: texts, bytes or dictionaries; empty if it names none."""
    if isinstance(cell, list | tuple):
        found = [picture for each in cell for picture in pictures_of(each)]
        return list(dict.fromkeys(found)) if all(isinstance(each, str) for each in found) else found
    if isinstance(cell, dict) and not {"bytes", "path"} & set(cell):
        return [next((cell[key] for key in _ADDRESS_KEYS if isinstance(cell.get(key), str)), cell)] if cell else []
    if not isinstance(cell, str):
        return [] if cell is None or cell != cell else [cell]  # NaN is no picture
    if cell.strip() in _NO_PICTURE:
        return []
    if cell[:5].lower() == "data:" or not _LISTED.search(cell):
        return [cell]
    return _in_text(cell)


def _in_text(cell: str) -> list[Any]:
    text = cell.strip()
    if text[:1] + text[-1:] in ("[]", "{}", "()") and len(text) <= _LONGEST_LIST:
        found = _literal(text)
        if found is not None:
            return pictures_of(found)
        text = text[1:-1].strip()
        if text in _NO_PICTURE:
            return []
    if is_url(text):
        parts = [part.rstrip(" ,;|").replace("\\,", ",") for part in _NEXT_URL.split(text)]
        return (
            list(dict.fromkeys(parts)) if len(parts) > 1 else [cell.replace("\\,", ",")]
        )  # WooCommerce writes \, for a comma in a URL
    for separator in _SEPARATORS:
        parts = [part for each in text.split(separator) if (part := each.strip().strip("'\"").strip())]
        if separator in text and parts and all(is_picture(part) or is_url(part) for part in parts):
            return list(dict.fromkeys(parts))
    return [cell]


def _literal(text: str) -> Any:
    """Return a list or object that a text holds in the notation of JSON or Python; None if it holds neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return list(found) if isinstance(found, set | tuple) else found if isinstance(found, list | dict) else None
    return None


def _plain(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", column.strip().lower())


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == []
