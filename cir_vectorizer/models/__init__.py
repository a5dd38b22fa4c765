"""Model folders and published models, and the vectorizer that each becomes."""

from cir_vectorizer.models.folder import composer_kinds, folder_of, import_checkpoint, load, pull, read_record, save
from cir_vectorizer.models.vectorizer import Vectorizer
from cir_vectorizer.models.work import Work
from cir_vectorizer.query.wire import Composed

__all__ = [
    "Composed",
    "Vectorizer",
    "Work",
    "composer_kinds",
    "folder_of",
    "import_checkpoint",
    "load",
    "pull",
    "read_record",
    "save",
]
