"""The report of a run of sync."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cir_vectorizer.collections import Address
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import SourceError
from cir_vectorizer.files import replace_file, state_folder
from cir_vectorizer.sources.base import Failure


def usual_path(place: Address) -> Path:
    """Return the report's place for a collection, in the user's folder for state; each collection has its own."""
    path = None if place.path is None else place.path.resolve()
    digest = PartsDigest(str(replace(place, path=path))).hexdigest()
    return state_folder() / f"{place.collection}-{digest[:8]}-sync-report.json"


def _no_changes() -> dict[str, int]:
    return {"picture": 0, "payload": 0, "text": 0, "record": 0, "source": 0}


@dataclass
class Report:
    """The counts and failures of a run. Each entry of the source is either added, changed, unchanged or failed.

    `total` counts the entries (0 until they are listed, if the source cannot count them), `removed` the objects removed
    from the collection, `encoded` the pictures that went through the model, `texts` the texts that did, and `skipped` the
    files that are not pictures or were not asked for. `foreign` counts the objects of another program that stayed as they were. `complete` is
    False until the run has seen all entries; `switched` is True if this run replaced the collection by a newly embedded
    one. `moved` counts objects under another spelling of their id that were moved to the present one, or removed if it was
    taken already.

    `changes` counts the kinds of changes: `picture`, or only the `payload`, or only the vector of the `text` (these three
    make up `changed`); only the `record` (a touched or moved file, which counts as unchanged); and `source`, objects taken over from another source.

    `notes` are sentences about the source or the collection as a whole.
    """

    source: str = ""
    collection: str = ""
    model: str = ""
    total: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    encoded: int = 0
    texts: int = 0
    moved: int = 0
    skipped: int = 0
    foreign: int = 0
    changes: dict[str, int] = field(default_factory=_no_changes)
    seconds: float = 0.0
    complete: bool = False
    switched: bool = False
    failed: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def handled(self) -> int:
        """Number of the source's entries handled so far, failed ones included."""
        return self.added + self.changed + self.unchanged + len(self.failed)

    def write(self, path: Path) -> None:
        """Write the report as JSON; a reader sees either the old file or the new one, never a part.

        Raises:
            SourceError: the file cannot be written.
        """
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content.encode())
        except OSError as error:
            raise SourceError(
                f"the report {path} cannot be written ({error.strerror or error}); give another place with --report"
            ) from error
