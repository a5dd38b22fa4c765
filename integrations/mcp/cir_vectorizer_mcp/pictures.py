"""Pictures that an agent may name: files of the operator's folders, public URLs if the operator allows them, and base64.

A file outside the folders is refused with the sentence for a file that does not exist, so an agent learns nothing of it.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.pictures.thumbnails import jpeg, thumbnail
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, decode_base64

SIDE = 320
"""Longest side of a thumbnail, in pixels."""


class Pictures:
    """Reads the pictures that queries and results name.

    Args:
        folders: folders whose files may be read, inner folders included; none if empty.
        fetcher: fetches pictures by URL; None refuses them.
    """

    def __init__(self, folders: Sequence[Path] = (), fetcher: Fetcher | None = None) -> None:
        self._folders = [folder.resolve() for folder in folders]
        self._fetcher = fetcher

    async def read(self, named: str) -> bytes:
        """Return the encoded picture that a text names or holds.

        Raises:
            ImageError: it is no picture that may be read here.
        """
        if named.startswith(("http://", "https://")):
            if self._fetcher is None:
                raise ImageError(
                    "url", "is a URL, and URLs are not fetched here; the operator allows it by --allow-urls"
                )
            return await self._fetcher.fetch(named)
        return await asyncio.to_thread(self._local, named)

    async def thumbnail(self, place: object) -> bytes:
        """Return the picture at a place of a collection as a small JPEG.

        Raises:
            ImageError: as `read`, or it is no picture.
        """
        if not isinstance(place, str):
            raise ImageError("missing", "has no picture whose place is known")
        content = await self.read(place)
        return await asyncio.to_thread(lambda: jpeg(thumbnail(content, SIDE)))

    def _local(self, named: str) -> bytes:
        file = self._file(named)
        if file is not None:
            return file.read_bytes()
        try:
            return decode_base64(named)
        except ImageError as error:
            if error.reason != "base64":
                raise
            folders = " or ".join(map(str, self._folders))
            inside = f"a file in {folders}" if folders else "files only if the operator names a folder by --folder"
            raise ImageError("path", f"is neither such a file nor base64; give {inside}, a URL, or base64") from error

    def _file(self, named: str) -> Path | None:
        """Return the file of that name in one of the folders, links followed; None if there is none."""
        for folder in self._folders:
            try:
                file = (folder / named).resolve()
                if file.is_relative_to(folder) and file.is_file() and file.stat().st_size <= DEFAULT_LIMITS.max_bytes:
                    return file
            except (OSError, ValueError):  # longer than any name, or not a name at all
                continue
        return None
