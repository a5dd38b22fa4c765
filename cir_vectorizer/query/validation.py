"""Fields that pydantic refuses, reworded for our own errors."""

from typing import NamedTuple

from pydantic import ValidationError


class InvalidField(NamedTuple):
    """A field that pydantic refuses.

    Attributes:
        path: names of fields and positions in lists, outermost first.
        message: pydantic's message, or that of our own validator.
        unknown: True if there is no such field.
    """

    path: tuple[str | int, ...]
    message: str
    unknown: bool

    @property
    def problem(self) -> str:
        """The message, worded to follow the field's name."""
        text = self.message.removeprefix("Input ")  # most of pydantic's own messages begin so
        return text[:1].lower() + text[1:]


def invalid_fields(error: ValidationError) -> list[InvalidField]:
    """Return the fields at fault."""
    found = []
    for each in error.errors(include_url=False, include_input=False):
        own = each.get("ctx", {}).get("error")  # raised by one of our own validators
        message = each["msg"] if own is None else str(own)
        if each["type"] in ("dict_type", "model_type"):
            message = "should be a JSON object"  # pydantic's message names a Python class
        found.append(InvalidField(each["loc"], message, each["type"] == "extra_forbidden"))
    return found


def first_invalid_field(error: ValidationError) -> InvalidField:
    """Return the first field at fault."""
    return invalid_fields(error)[0]
