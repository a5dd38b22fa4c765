"""Files of ours: the user's cache and state folders, and atomic replacement: a reader sees the old file or the new one."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return our folder in the user's cache folder; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cir-vectorizer"


def state_folder() -> Path:
    """Return our folder in the user's folder for state, such as reports; it may not exist yet."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cir-vectorizer"


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then move it into place.

    Raises:
        OSError: the file cannot be written; `path` is unchanged.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            draft.write(content)
            draft.flush()
            os.chmod(draft.name, 0o644)
            os.replace(draft.name, path)
        except BaseException:
            os.unlink(draft.name)
            raise
