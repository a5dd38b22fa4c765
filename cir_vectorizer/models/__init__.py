"""Model folders and published models, and the vectorizer that each becomes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cir_vectorizer.models.folder import (
        folder_of,
        import_checkpoint,
        load,
        pull,
        read_record,
        save,
        text_encoder_record,
    )  # fmt: skip
    from cir_vectorizer.models.vectorizer import Composed, Job, Vectorizer

__all__ = [
    "Composed", "Job", "Vectorizer", "folder_of", "import_checkpoint", "load", "pull", "read_record", "save", "text_encoder_record",
]  # fmt: skip

_HOMES = {name: f"cir_vectorizer.models.{'vectorizer' if name[0].isupper() else 'folder'}" for name in __all__}


def __getattr__(name: str) -> Any:
    """Import what takes long, torch above all, only when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
