"""json_lines: one JSON text a line, in both directions (https://jsonlines.org)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from connector.core.formats import json_text
from connector.core.formats.body_format import Answer, Body
from connector.core.formats.registry import register
from connector.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known

# Looking for an int in bytes takes a sixth of the time of looking for a byte string.
LF, CR = b"\n\r"


@register
class JsonLines:
    """Payloads are JSON texts without a newline; a response is as many lines, or one JSON array."""

    name = "json_lines"
    accept = json_text.JSON_LINES
    max_rows: int | None = None
    overhead = 0
    row_overhead = 1

    def check(self, payload: bytes) -> str | None:
        """Refuse what is not JSON, and JSON on several lines: a payload is sent as it is, or not at all."""
        if LF in payload or CR in payload:
            return "The payload holds a newline, so it would be more than one line."
        return json_text.problem(payload)

    def join(self, payloads: Sequence[bytes]) -> Body:
        """One payload a line, no newline after the last."""
        return Body(b"\n".join(payloads), json_text.JSON_LINES, len(payloads))

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """One line a prediction, verbatim; a response of type application/json may be one array instead.

        Raises MalformedResponse when there are not as many lines as rows, or one of them is not JSON.
        """
        rows = request.rows
        if json_text.is_json(answer.content_type) and (array := _array(answer.body)) is not None:
            return json_text.texts(array, rows)
        text = answer.body.removesuffix(b"\n")
        # Counted before it is split, so that a response of nothing but newlines costs no list of them.
        found = text.count(b"\n") + 1
        if found != rows:
            raise MalformedResponse(f"The response holds {found} lines, and the call had {rows} rows.")
        lines = text.split(b"\n")
        if b"\r" in text:
            lines = [line.removesuffix(b"\r") for line in lines]
        # Without this, a pretty-printed array whose lines happen to be as many as the rows would pass for predictions.
        for number, line in enumerate(lines, 1):
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise MalformedResponse(f"Line {number} of the response is not JSON: {error}.") from error
        return lines

    def prediction_type(self, content_type: str | None) -> str:
        """JSON, whatever the response calls itself."""
        return json_text.JSON


def _array(body: bytes) -> list[object] | None:
    """The one array of a JSON response; None for JSON lines that a container gave the type of JSON."""
    try:
        return json_text.array_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None
