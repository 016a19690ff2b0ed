"""json_lines: one JSON text a line, in both directions (https://jsonlines.org)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from connector.core.formats import json_text
from connector.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

# Looking for an int in bytes takes a sixth of the time of looking for a byte string.
LF, CR = b"\n\r"


class JsonLines:
    """Payloads are JSON texts without a newline; a response is as many lines, or one JSON array."""

    name = "json_lines"
    content_type = json_text.JSON_LINES
    accept = json_text.JSON_LINES
    max_rows: int | None = None
    overhead = 0
    row_overhead = 1

    def check(self, payload: bytes) -> str | None:
        """Refuse what is not JSON, and JSON on several lines: a payload is sent as it is, or not at all."""
        if LF in payload or CR in payload:
            return "The payload holds a newline, so it would be more than one line."
        return json_text.problem(payload)

    def join(self, payloads: Sequence[bytes]) -> bytes:
        """One payload a line, no newline after the last."""
        return b"\n".join(payloads)

    def split(self, body: bytes, content_type: str | None, rows: int) -> list[bytes]:
        """One line a prediction, verbatim; a response of type application/json may be one array instead.

        Raises MalformedResponse when there are not exactly `rows` lines, or one of them is not JSON.
        """
        if json_text.is_json(content_type) and (array := _array(body)) is not None:
            return json_text.texts(array, rows)
        text = body.removesuffix(b"\n")
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
