"""Request: what the model gets of an event, in which body format, with which options of that format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from connector.core.formats import format_named, names, options_named
from connector.core.routes.json_pointer import JsonPointer
from connector.errors import SettingsError
from connector.settings.format_options import with_format_options
from connector.settings.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.core.formats.body_format import BodyFormat

    FormatName = str
else:
    FormatName = Literal[names()]


def _json_pointer(pointer: str) -> str:
    try:
        JsonPointer(pointer)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return pointer


@with_format_options
class Request(Section):
    """What the model gets of an event."""

    format: FormatName = Field(
        default="csv",
        description="The body format: how the payloads of a batch become one body, and its answer results.",
    )
    payload: Annotated[str, AfterValidator(_json_pointer)] | None = Field(
        default=None,
        description="A JSON pointer to the part of the event's value that the model gets, like /features; "
        "null gives it the whole value.",
    )

    def body_format(self) -> BodyFormat:
        """The body format, made with its options."""
        declared = options_named(self.format)
        options = None if declared is None else declared(**dict(getattr(self, self.format)))
        return format_named(self.format, options)

    def broken(self) -> Iterator[str]:
        """Say which options belong to a format that is not chosen; at their defaults they may stand, as in the reference."""
        for name, field in type(self).model_fields.items():
            if name in names() and name != self.format:
                for option, value in getattr(self, name):
                    if value != getattr(field.default, option):
                        yield (
                            f"{name}.{option}: belongs to request.format: {name}, and the format is {self.format}; "
                            "remove it, or choose that format"
                        )
