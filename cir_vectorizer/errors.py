"""Every error this project raises on purpose. Each message is a cause and a remedy.

CirError
├── QueryError          a composed query that makes no sense; `field` names the part at fault
├── ImageError          a picture that is refused; `reason` is a short code for reports and metrics
├── ModelError          a model that cannot be found, loaded or written
│   ├── CheckpointError     a weights file of the wrong family, width or length
│   └── BackboneMismatch    a collection or a request that was made for another backbone
├── CaptionError        training captions that cannot be read or are too few
├── SourceError         a folder or table to index that cannot be read
├── CollectionError     a database or collection that is missing, unreachable or of the wrong shape
│   ├── AddressError        an address that names no collection
│   └── PartialWriteError   some objects of a batch were refused; `failed` says which and why
├── OverloadError       the engine has more work waiting than its bound; `retry_after` in seconds
├── DeviceError         the device could not run one piece of work; `__cause__` says why
│   └── DeviceFullError     one piece of work alone took more memory than the device has free
├── MissingExtraError   a package that an extra of cir-vectorizer brings is not installed
└── ServiceError        what a client of the service was told; `status`, or None where no answer came
"""

from collections.abc import Mapping


class CirError(Exception):
    """Base of every error raised on purpose: catch this to catch them all."""


class QueryError(CirError, ValueError):
    """A composed query that makes no sense.

    Args:
        field: dotted name of the part at fault, for example `options.steps`, or "" for the whole query.
        problem: cause and remedy in one sentence, without the field's name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


class ImageError(CirError, ValueError):
    """A picture that is refused.

    Args:
        reason: one of "bytes", "pixels", "shape", "format", "truncated", "mode", "base64", "url", "path", "missing".
        problem: cause and remedy in one sentence.
    """

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ModelError(CirError):
    """A model that cannot be found, loaded or written."""


class CheckpointError(ModelError):
    """A weights file of the wrong family, width or length."""


class BackboneMismatch(ModelError):
    """A collection or a request that was made for another backbone than the one at hand."""


class CaptionError(CirError):
    """Training captions that cannot be read or are too few."""


class SourceError(CirError):
    """A folder or table to index that cannot be read."""


class CollectionError(CirError):
    """A database or collection that is missing, unreachable or of the wrong shape."""


class AddressError(CollectionError, ValueError):
    """An address that names no collection."""


class PartialWriteError(CollectionError):
    """Some objects of a batch were refused by the database; all others were written.

    Args:
        failed: for each refused object its id and the database's sentence.
        total: how many objects the batch had.
    """

    def __init__(self, failed: Mapping[str | int, str], total: int) -> None:
        id_, sentence = next(iter(failed.items()))
        what = "object" if len(failed) == 1 else f"{len(failed):,} of {total:,} objects, the first of them"
        super().__init__(f"{what} {id_} was not written: {sentence}")
        self.failed = dict(failed)


class OverloadError(CirError):
    """More work waits than the engine's bound allows; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too much work is waiting; try again in {retry_after} s, or send less at a time")
        self.retry_after = retry_after


class DeviceError(CirError):
    """The device could not run one piece of work; `__cause__` says why."""


class DeviceFullError(DeviceError):
    """One piece of work alone took more memory than the device has free."""


class MissingExtraError(CirError, ImportError):
    """A package that an extra of cir-vectorizer brings is not installed; the sentence has the command."""


class ServiceError(CirError):
    """The service refused, failed or could not be reached; `status` is None if no answer came."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.status = status


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the error's kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
