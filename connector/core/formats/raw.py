"""raw: one event a call, the payload as it is; the response is the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.formats.body_format import Answer, Body
from connector.core.formats.registry import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known

_BYTES = "application/octet-stream"


@register
class Raw:
    """Any bytes in, any bytes out: for models whose body holds one input and for formats that are not built in."""

    name = "raw"
    accept = "*/*"
    max_rows: int | None = 1
    overhead = 0
    row_overhead = 0

    def check(self, payload: bytes) -> str | None:
        """Accept every payload."""
        return None

    def join(self, payloads: Sequence[bytes]) -> Body:
        """The one payload, not copied."""
        (payload,) = payloads
        return Body(payload, _BYTES, 1)

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """The response is the one prediction, an empty one too."""
        return [answer.body]

    def prediction_type(self, content_type: str | None) -> str:
        """The response's own, or `application/octet-stream` when it names none."""
        return content_type or _BYTES
