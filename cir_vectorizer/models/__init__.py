"""Model folders and published models, and the vectorizer that each becomes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cir_vectorizer import extras

if TYPE_CHECKING:
    from cir_vectorizer.models.folder import folder_of, import_checkpoint, load, pull, read_record, save
    from cir_vectorizer.models.vectorizer import Composed, Job, Vectorizer

__all__ = ["Composed", "Job", "Vectorizer", "folder_of", "import_checkpoint", "load", "pull", "read_record", "save"]


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extras.require("models", "a local model")
    module = "vectorizer" if name in ("Composed", "Job", "Vectorizer") else "folder"
    return getattr(import_module(f"{__name__}.{module}"), name)
