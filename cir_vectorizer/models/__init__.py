"""Model folders and published models: their records, and the vectorizers that they load as.

Neither importing this package nor `describe` loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cir_vectorizer import extras

if TYPE_CHECKING:
    from cir_vectorizer.composers.kinds import composer_kinds
    from cir_vectorizer.models.folder import load
    from cir_vectorizer.models.record import (
        FolderRecord,
        check_nothing_lost,
        describe,
        folder_of,
        has_record,
        read_record,
    )
    from cir_vectorizer.models.vectorizer import Vectorizer
    from cir_vectorizer.models.work import Work
    from cir_vectorizer.models.writing import import_checkpoint, pull, save, set_defaults, text_encoder_record
    from cir_vectorizer.query.wire import Composed

__all__ = [
    "Composed",
    "FolderRecord",
    "Vectorizer",
    "Work",
    "check_nothing_lost",
    "composer_kinds",
    "describe",
    "folder_of",
    "has_record",
    "import_checkpoint",
    "load",
    "pull",
    "read_record",
    "save",
    "set_defaults",
    "text_encoder_record",
]

_ROOM = "cir_vectorizer.models"
_LIGHT = {
    "Composed": "cir_vectorizer.query.wire",
    **dict.fromkeys(
        ("FolderRecord", "check_nothing_lost", "describe", "folder_of", "has_record", "read_record"), f"{_ROOM}.record"
    ),
}
_WITH_TORCH = {
    "composer_kinds": "cir_vectorizer.composers.kinds",
    "load": f"{_ROOM}.folder",
    "Vectorizer": f"{_ROOM}.vectorizer",
    "Work": f"{_ROOM}.work",
    **dict.fromkeys(("import_checkpoint", "pull", "save", "set_defaults", "text_encoder_record"), f"{_ROOM}.writing"),
}


def __getattr__(name: str) -> Any:
    """Import slow modules, torch above all, only when a name of theirs is used.

    Raises:
        MissingExtraError: the name needs torch, and the extra `models` is not installed.
    """
    if name in _LIGHT:
        return getattr(import_module(_LIGHT[name]), name)
    if name in _WITH_TORCH:
        extras.require("models", "a local model")
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
