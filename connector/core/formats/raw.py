"""raw: one event a call, the payload as it is; the response is the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence


class Raw:
    """Any bytes in, any bytes out: for models whose body holds one input and for formats that are not built in."""

    name = "raw"
    content_type = "application/octet-stream"
    accept = "*/*"
    max_rows: int | None = 1
    overhead = 0
    row_overhead = 0

    def check(self, payload: bytes) -> str | None:
        """Accept every payload."""
        return None

    def join(self, payloads: Sequence[bytes]) -> bytes:
        """The one payload, not copied."""
        (payload,) = payloads
        return payload

    def split(self, body: bytes, content_type: str | None, rows: int) -> list[bytes]:
        """The response is the one prediction, an empty one too."""
        if rows != 1:
            raise MalformedResponse(f"A raw response is one prediction, and the call had {rows} rows.")
        return [body]

    def prediction_type(self, content_type: str | None) -> str:
        """The response's own, or `application/octet-stream` when it names none."""
        return content_type or self.content_type
