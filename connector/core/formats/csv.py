"""csv: one row of comma-separated values an event; answers by line, or by comma on one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connector.core.formats import json_text
from connector.core.formats.body_format import Answer, Body
from connector.core.formats.json_lines import CR, LF, JsonLines
from connector.core.formats.registry import register
from connector.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known

# A quote opens a quoted field only as its first character, "" inside is a quote, and what follows the closing quote is
# taken literally: RFC 4180, and Python's csv and pandas where it is silent. Possessive, so that no input backtracks.
_FIELD = rb'(?:"[^"]*+(?:""[^"]*+)*+"(?:[^",\n][^,\n]*+)?+|(?:[^",\n][^,\n]*+)?+)'
_NEXT_FIELD = re.compile(rb"(" + _FIELD + rb")(?:,|(\Z))")
_NEXT_ROW = re.compile(rb"(" + _FIELD + rb"(?:," + _FIELD + rb")*+)(?:\n|(\Z))")
# The same grammar for one row, from quote to quote instead of from comma to comma: most fields have no quotes.
_QUOTED_FIELD = rb'(?<![^,])"[^"]*+(?:""[^"]*+)*+"[^,]*+'
_LITERAL_QUOTE = rb'(?<=[^,])"[^,]*+'
_ROW = re.compile(rb'[^"]*+(?:(?:' + _QUOTED_FIELD + rb"|" + _LITERAL_QUOTE + rb')[^"]*+)*+')
_QUOTE = ord('"')
_CSV = "text/csv"


@register
class Csv:
    """Payloads are single CSV rows in UTF-8; a prediction is a row of the response, verbatim."""

    name = "csv"
    accept = _CSV
    max_rows: int | None = None
    overhead = 0
    row_overhead = 1

    def __init__(self) -> None:
        self._json_lines = JsonLines()

    def check(self, payload: bytes) -> str | None:
        """Refuse what a reader could take for no row, for several, or for a part of one.

        Quotes have to balance for readers that toggle at every quote (so their number is even), and for those that see
        one only at a field's start: otherwise the row would swallow the next one.
        """
        if LF in payload or CR in payload:
            return "The CSV payload holds a newline, so it would be more than one row."
        if not payload or payload.isspace():
            return "The CSV payload is blank, and readers skip blank rows."
        if _QUOTE in payload and (payload.count(b'"') % 2 or not _ROW.fullmatch(payload)):
            return "The CSV payload has unbalanced quotes, so it would swallow the next row."
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                return f"The CSV payload is not UTF-8: {error.reason} at byte {error.start}."
        return None

    def join(self, payloads: Sequence[bytes]) -> Body:
        """One payload a row, no newline after the last."""
        return Body(b"\n".join(payloads), _CSV, len(payloads))

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """One row a prediction; of several, one comma-separated line will do; JSON and JSON lines by content type.

        The XGBoost container answers `",".join(map(str, predictions))`, where multi:softprob makes each prediction a
        bracketed list (aws/sagemaker-xgboost-container, algorithm_mode/serve.py).

        Raises MalformedResponse when there are not as many predictions as rows, or one of them is blank.
        """
        rows = request.rows
        if json_text.is_json(answer.content_type):
            return json_text.predictions(answer.body, rows)
        if json_text.is_json_lines(answer.content_type):
            return self._json_lines.split(answer, request, known)
        predictions = _lines(answer.body, rows)
        if len(predictions) == 1 and rows > 1:
            predictions = _values(predictions[0], rows)
        if len(predictions) != rows:
            raise _miscounted(len(predictions), rows)
        if not all(map(bytes.strip, predictions)):
            raise MalformedResponse("A prediction of the response is blank.")
        return predictions

    def prediction_type(self, content_type: str | None) -> str:
        """The response's own, `text/csv` when it names none; a line of JSON lines is JSON."""
        if json_text.is_json(content_type) or json_text.is_json_lines(content_type):
            return json_text.JSON
        return content_type or _CSV


def _lines(body: bytes, rows: int) -> list[bytes]:
    """The CSV rows of a response, which are its lines unless a quoted field spans some."""
    text = body.removesuffix(b"\n")
    if b'"' in text:
        lines = _scan(_NEXT_ROW, text, rows)
    else:
        # Split no further than it can be right, so that a response of nothing but newlines costs no list of them.
        lines = text.split(b"\n", rows)
        if len(lines) not in (1, rows):
            raise _miscounted(text.count(b"\n") + 1, rows)
    return [line.removesuffix(b"\r") for line in lines] if b"\r" in text else lines


def _values(line: bytes, rows: int) -> list[bytes]:
    """The predictions of a response that is one line."""
    if line.startswith((b"[", b"{")):
        # Commas within brackets separate nothing here.
        return json_text.predictions(b"[" + line + b"]", rows)
    if b'"' in line:
        return _scan(_NEXT_FIELD, line, rows)
    found = line.count(b",") + 1
    if found != rows:
        raise _miscounted(found, rows)
    return line.split(b",")


def _scan(part: re.Pattern[bytes], text: bytes, rows: int) -> list[bytes]:
    """The parts of a text that has quotes in it; `part` has a group for the part, and one that matches at the end."""
    parts: list[bytes] = []
    position = 0
    while len(parts) <= rows:
        match = part.match(text, position)
        if match is None:
            raise MalformedResponse("The response has unbalanced quotes.")
        parts.append(match[1])
        if match[2] is not None:
            return parts
        position = match.end()
    raise MalformedResponse(f"The response holds more than {rows} predictions, and the call had {rows} rows.")


def _miscounted(found: int, rows: int) -> MalformedResponse:
    return MalformedResponse(f"The response holds {found} predictions, and the call had {rows} rows.")
