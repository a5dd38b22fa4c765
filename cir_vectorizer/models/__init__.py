"""Model folders and published models: their records, and the vectorizers that they load as.

Neither importing this package nor `describe` loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cir_vectorizer import extras
from cir_vectorizer.query.wire import Composed

if TYPE_CHECKING:
    from cir_vectorizer.models.folder import composer_kinds, load
    from cir_vectorizer.models.record import FolderRecord, describe, folder_of, has_record, read_record
    from cir_vectorizer.models.vectorizer import Vectorizer
    from cir_vectorizer.models.work import Work
    from cir_vectorizer.models.writing import import_checkpoint, pull, save, text_encoder_record

__all__ = [
    "Composed",
    "FolderRecord",
    "Vectorizer",
    "Work",
    "composer_kinds",
    "describe",
    "folder_of",
    "has_record",
    "import_checkpoint",
    "load",
    "pull",
    "read_record",
    "save",
    "text_encoder_record",
]

_HOMES = {
    "folder": ("composer_kinds", "load"),
    "record": ("FolderRecord", "describe", "folder_of", "has_record", "read_record"),
    "vectorizer": ("Vectorizer",),
    "work": ("Work",),
    "writing": ("import_checkpoint", "pull", "save", "text_encoder_record"),
}


def __getattr__(name: str) -> Any:
    """Import slow modules, torch above all, only when a name of theirs is used.

    Raises:
        MissingExtraError: the name needs torch, and the extra `models` is not installed.
    """
    for module, names in _HOMES.items():
        if name in names:
            if module != "record":
                extras.require("models", "a local model")
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
