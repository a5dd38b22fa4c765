"""The report of a run of sync."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cir_vectorizer.errors import SourceError
from cir_vectorizer.files import replace_file
from cir_vectorizer.sources.base import Failure


def _no_changes() -> dict[str, int]:
    return {"picture": 0, "payload": 0, "record": 0, "source": 0}


@dataclass
class Report:
    """The counts and failures of a run. Each entry of the source is in exactly one of added, changed, unchanged and failed.

    `total` is how many entries there are (0 until they were listed, where the source cannot count them), `removed` how many
    objects left the collection, `encoded` how many pictures went through the model, `skipped` how many files are no
    pictures or were not asked for. `complete` is False until the run has seen all entries, `switched` tells that the
    address answers from a newly embedded collection since this run.

    `changes` says what was different: another `picture`, or the `payload` alone (together `changed`); of unchanged
    entries the `record` alone (a touched or moved file); and how many objects another `source` had made, and belong to
    this one now.
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
    skipped: int = 0
    changes: dict[str, int] = field(default_factory=_no_changes)
    seconds: float = 0.0
    complete: bool = False
    switched: bool = False
    failed: list[Failure] = field(default_factory=list)

    @property
    def handled(self) -> int:
        """Number of entries that are done."""
        return self.added + self.changed + self.unchanged + len(self.failed)

    def write(self, path: Path) -> None:
        """Write as JSON; a reader sees the old file or the new one.

        Raises:
            SourceError: it cannot be written.
        """
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        try:
            replace_file(path, content.encode())
        except OSError as error:
            raise SourceError(
                f"the report {path} cannot be written ({error.strerror or error}); give another place with --report"
            ) from error
