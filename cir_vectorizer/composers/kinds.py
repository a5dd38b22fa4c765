"""Installed composers, found by their entry points."""

from cir_vectorizer import extras
from cir_vectorizer.composers.base import Composer
from cir_vectorizer.errors import ModelError, first_line


def composer_kinds() -> dict[str, type[Composer]]:
    """Return the installed composers by name: our own and those of other packages.

    Raises:
        ModelError: an entry point cannot be imported or is no `Composer`.
    """
    kinds: dict[str, type[Composer]] = {}
    for point in extras.plugins("cir_vectorizer.composers").values():
        try:
            kind = point.load()
        except Exception as error:  # somebody else's package may raise anything while it is imported
            raise ModelError(
                f"composer {point.name!r} ({point.value}) cannot be imported ({type(error).__name__}: "
                f"{first_line(error)}); update or uninstall its package"
            ) from error
        if not (isinstance(kind, type) and issubclass(kind, Composer)):
            raise ModelError(
                f"composer {point.name!r} ({point.value}) is no subclass of cir_vectorizer.composers.Composer; update or "
                "uninstall its package"
            )
        kinds[point.name] = kind
    return kinds
