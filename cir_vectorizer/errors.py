"""Errors that this project raises on purpose: a sentence with cause and remedy, and attributes for programs.

    CirError                       code               raised for
    ├── QueryError                 query              a composed query that makes no sense
    ├── ImageError                 image              a picture that is refused; `reason` is a short word for reports
    ├── ModelError                 model              a model that cannot be found, loaded or written
    │   ├── CheckpointError        checkpoint         a weights file of the wrong family, width or length
    │   ├── BackboneMismatch       backbone-mismatch  a collection or a request that was made for another backbone
    │   └── ComposerMismatch       composer-mismatch  a request that pins another composer than the one at hand
    ├── CaptionError               captions           training captions that cannot be read or are too few
    ├── SourceError                source             a folder or table to index that cannot be read
    ├── CollectionError            collection         a database or collection that is missing, unreachable or misshapen
    │   ├── AddressError           collection-address an address that names no collection
    │   └── PartialWriteError      partial-write      some objects of a batch were refused; `failed` says which and why
    ├── OverloadError              overload           more waiting work than the engine accepts; `retry_after` in seconds
    ├── MissingExtraError          missing-extra      a package that an extra of cir-vectorizer brings is not installed
    ├── DeviceError                device             one piece of work the device could not run; `__cause__` says why
    │   └── DeviceFullError        device-memory      one piece of work that needs more memory than the device has free
    └── ServiceError               the service's own  a request that the service refused or failed to answer; `status`

The attributes: `code`, a word that never changes; `field`, the dotted name of the part at fault (`options.steps`, or
`queries.3.options.steps` in a request), "" for the whole; `index`, the position of the item at fault in its batch or
list, or None; `problem`, the sentence without the names of field and item. `str(error)` is the whole sentence.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self  # slow to import, and every command imports this module


class CirError(Exception):
    """Base of every error raised on purpose: catch this to catch them all.

    Args:
        problem: cause and remedy in one sentence.
    """

    code: str = "error"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = ""
        self.index: int | None = None
        self._item: str | None = None
        self._part = ""

    def __str__(self) -> str:
        return f"{self._item or ''}{self._part}{self.problem}"

    @property
    def item_error(self) -> str | None:
        """Sentence without the item's place in its list; None unless `within` placed this error."""
        return None if self._item is None else f"{self._part}{self.problem}"

    def at(self, field: str, said: str | None = None) -> "Self":
        """Return a copy of this error for a part: `field` is put before its own field and before its sentence.

        Args:
            field: dotted name of the part, or "" for none.
            said: prefix of the sentence; `field` and a colon if None.
        """
        placed = self._copy()
        placed.field = ".".join(filter(None, (field, self.field)))
        said = f"{field}: " if said is None else said
        if self._item is not None:
            placed._item = f"{said}{self._item}"
        else:
            placed._part = f"{said}{self._part}"
        return placed

    def within(self, field: str, index: int, said: str | None = None) -> "Self":
        """Return a copy of this error for an item of the list `field`.

        Args:
            field: dotted name of the list.
            index: position of the item, counted from 0.
            said: prefix of the sentence; `field[index]` and a colon if None.
        """
        placed = self._copy()
        placed.field = ".".join(filter(None, (field, str(index), self.field)))
        placed.index = index
        placed._part = f"{self._item or ''}{self._part}"
        placed._item = f"{field}[{index}]: " if said is None else said
        return placed

    def saying(self, problem: str) -> "Self":
        """Return a copy of this error, at the same place, with another sentence."""
        changed = self._copy()
        changed.problem = problem
        return changed

    def _copy(self) -> "Self":
        """Return a copy, since one error may be raised in several callers that wait for the same work."""
        import copy  # not at the start of every command

        copied = copy.copy(self).with_traceback(self.__traceback__)
        copied.__cause__ = self.__cause__
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self), self.args), self.__dict__  # without __init__: its parameters differ in subclasses


def _blank(kind: type[CirError], args: tuple[Any, ...]) -> CirError:
    return kind.__new__(kind, *args)


class QueryError(CirError, ValueError):
    """A composed query that makes no sense.

    Args:
        field: dotted name of the part at fault, for example `options.steps`, or "" for the whole query.
        problem: cause and remedy in one sentence, without the field's name.
        index: position of the item at fault, if `field` names an item of a list.
    """

    code = "query"

    def __init__(self, field: str, problem: str, index: int | None = None) -> None:
        super().__init__(problem)
        self.field = field
        self.index = index
        self._part = f"{field}: " if field else ""


class ImageError(CirError, ValueError):
    """A picture that is refused.

    Args:
        reason: one of "bytes", "pixels", "shape", "format", "truncated", "mode", "base64", "url", "path", "missing".
        problem: cause and remedy in one sentence.
    """

    code = "image"

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ModelError(CirError):
    """A model that cannot be found, loaded or written."""

    code = "model"


class CheckpointError(ModelError):
    """A weights file of the wrong family, width or length."""

    code = "checkpoint"


class BackboneMismatch(ModelError):
    """A collection or a request that was made for another backbone than the one at hand."""

    code = "backbone-mismatch"


class ComposerMismatch(ModelError):
    """A request that pins another composer, by its digest, than the one at hand."""

    code = "composer-mismatch"


class CaptionError(CirError):
    """Training captions that cannot be read or are too few."""

    code = "captions"


class SourceError(CirError):
    """A folder or table to index that cannot be read."""

    code = "source"


class CollectionError(CirError):
    """A database or collection that is missing, unreachable or of the wrong shape."""

    code = "collection"


class AddressError(CollectionError, ValueError):
    """An address that names no collection."""

    code = "collection-address"


class PartialWriteError(CollectionError):
    """Some objects of a batch were refused by the database; all others were written.

    Args:
        failed: the database's error message for each refused object, by id.
        total: number of objects in the batch.
    """

    code = "partial-write"

    def __init__(self, failed: Mapping[str | int, str], total: int) -> None:
        id_, sentence = next(iter(failed.items()))
        what = "object" if len(failed) == 1 else f"{len(failed):,} of {total:,} objects, the first of them"
        super().__init__(f"{what} {id_} was not written: {sentence}")
        self.failed = dict(failed)


class OverloadError(CirError):
    """More work is waiting than the engine accepts; `retry_after` is in seconds."""

    code = "overload"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too much work is waiting; try again in {retry_after} s, or send less at a time")
        self.retry_after = retry_after


class DeviceError(CirError):
    """The device could not run one piece of work; `__cause__` says why."""

    code = "device"


class DeviceFullError(DeviceError):
    """A single piece of work needs more memory than the device has free."""

    code = "device-memory"


class MissingExtraError(CirError, ImportError):
    """A package that an extra of cir-vectorizer brings is not installed; the sentence has the command."""

    code = "missing-extra"


class ServiceError(CirError):
    """The service refused a request, failed or could not be reached.

    Args:
        problem: the service's sentence, or the reason why no answer came.
        status: HTTP status of the answer; None if no answer came.
        code: the service's error code; "service" if it gave none.
        field: dotted name of the part of the request at fault, "" for the whole.
    """

    code = "service"

    def __init__(self, problem: str, status: int | None = None, code: str = "service", field: str = "") -> None:
        super().__init__(problem)
        self.status = status
        self.code = code
        self.field = field


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the error's type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
