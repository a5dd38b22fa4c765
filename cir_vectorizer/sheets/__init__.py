"""Picture sheets: queries beside what each way to search found for them, as PNG, WebP or one HTML file.

`parts.py` says what is on a sheet, `drawn.py` draws it as a picture, and `page.py` writes it as a page.
"""

from pathlib import Path

from cir_vectorizer.errors import SourceError
from cir_vectorizer.files import replace_file
from cir_vectorizer.sheets.drawn import picture
from cir_vectorizer.sheets.page import page
from cir_vectorizer.sheets.parts import Bars, Panel, Sheet, Strip, Tile, square

__all__ = ["Bars", "Panel", "Sheet", "Strip", "Tile", "square", "write_sheet"]


def write_sheet(out: Path, sheet: Sheet) -> None:
    """Write a sheet; the file is written whole or not at all.

    Args:
        out: ends in .png, .webp or .html (self-contained, pictures inside).

    Raises:
        SourceError: the file cannot be written.
    """
    content = page(sheet) if out.suffix.lower() == ".html" else picture(sheet, out.suffix)
    try:
        replace_file(out, content)
    except OSError as error:
        cause = error.strerror or error
        raise SourceError(f"the sheet {out} cannot be written ({cause}); give another place") from error
