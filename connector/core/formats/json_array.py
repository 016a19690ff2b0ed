"""json_array: the payloads are the elements of one JSON array, and so are the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.formats import json_text
from connector.core.formats.body_format import Answer, Body
from connector.core.formats.registry import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known


@register
class JsonArray:
    """`[...]` in, `[...]` or `{"predictions": [...]}` out; a subclass says what else stands around the array."""

    name = "json_array"
    accept = json_text.JSON
    max_rows: int | None = None
    row_overhead = 1

    def __init__(self, before: bytes = b"[", after: bytes = b"]") -> None:
        self._before = before
        self._after = after
        self.overhead = len(before) + len(after)

    def check(self, payload: bytes) -> str | None:
        """Refuse what is not exactly one JSON text: it would be no element, or more than one."""
        return json_text.problem(payload)

    def join(self, payloads: Sequence[bytes]) -> Body:
        """The payloads' own bytes between commas, so that the model reads the numbers as the producer wrote them."""
        rows = [*payloads]
        rows[0] = self._before + rows[0]
        rows[-1] += self._after
        return Body(b",".join(rows), json_text.JSON, len(rows))

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """One JSON text a row, written anew (see `json_text`), whatever the response calls itself.

        Raises MalformedResponse when the body is no such JSON or does not hold as many predictions as rows.
        """
        return json_text.predictions(answer.body, request.rows)

    def prediction_type(self, content_type: str | None) -> str:
        """JSON, whatever the response calls itself."""
        return json_text.JSON
