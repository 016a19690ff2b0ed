"""BodyFormat: how payloads become a body and a body becomes predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class BodyFormat(Protocol):
    """One way to put several payloads into one body, by position, and to take the response apart again."""

    name: str
    """What `request.format` calls it."""
    content_type: str
    """Sent as ContentType unless the settings name another."""
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

    def join(self, payloads: Sequence[bytes]) -> bytes:
        """Make one body of payloads, at least one, that `check` accepted."""
        ...

    def split(self, body: bytes, content_type: str | None, rows: int) -> list[bytes]:
        """Take a response apart into one prediction a row, in order.

        Raises MalformedResponse when it does not hold exactly `rows` predictions.
        """
        ...

    def prediction_type(self, content_type: str | None) -> str:
        """The content type of one prediction of a response that came as `content_type`."""
        ...
