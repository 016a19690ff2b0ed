"""BodyFormat: how payloads become a body and a body becomes predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known


@dataclass(frozen=True, slots=True)
class Body:
    """What a call sends: bytes of a content type that hold so many rows; shown without its data.

    `content_type` is sent unless the settings name another. `note` is what the format's own `split` has to know of the
    request, None when that is nothing.
    """

    data: bytes = field(repr=False)
    content_type: str
    rows: int
    note: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a body: bytes, of the content type that the response names, if any; shown without its body."""

    body: bytes = field(repr=False)
    content_type: str | None = None


class BodyFormat(Protocol):
    """One way to put several payloads into one body, by position, and to take the response apart again.

    A class registers itself (`registry.register`), and is made without arguments; one that declares `Options` (see
    `options`), with an instance of them.
    """

    name: str
    """What `request.format` calls it: the name of its file."""
    accept: str
    """Sent as Accept unless the settings name another."""
    max_rows: int | None
    """The most events that one body can hold; None for any number."""
    overhead: int
    """Bytes of a body beyond its rows."""
    row_overhead: int
    """Bytes that a row takes beyond its payload, at most."""

    def check(self, payload: bytes) -> str | None:
        """Say in a sentence why this payload cannot be one row of a body, or None when it can."""
        ...

    def join(self, payloads: Sequence[bytes]) -> Body:
        """Make one body of payloads, at least one, that `check` accepted."""
        ...

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """Take the answer to a body that `join` made apart into one prediction a row, in order.

        `known` is what the same model's answers have shown so far; what this one shows is told to it. Raises
        MalformedResponse when the answer does not hold exactly `request.rows` predictions.
        """
        ...

    def prediction_type(self, content_type: str | None) -> str:
        """The content type of one prediction of a response that came as `content_type`."""
        ...
