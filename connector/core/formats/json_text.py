"""JSON text: what the body formats have to know about payloads and responses that are JSON.

orjson does the work, and its limits are the formats': nesting up to 1,024 levels when it reads and 254 when it writes,
integers beyond 64 bits become doubles, NaN and Infinity are not JSON. Predictions are written anew, so they keep their
values but not their blanks, nor the spelling of their numbers (`1.50` becomes `1.5`). Payloads are never written anew.
"""

from __future__ import annotations

import orjson

from connector.errors import MalformedResponse

JSON = "application/json"
JSON_LINES = "application/jsonlines"

_SCALARS = frozenset({float, int, bool, type(None)})
_LINES = frozenset({JSON_LINES, "application/jsonl", "application/x-jsonlines", "application/x-ndjson"})


def is_json(content_type: str | None) -> bool:
    """Whether this content type, its parameters apart, says one JSON text."""
    if content_type is None:
        return False
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")


def is_json_lines(content_type: str | None) -> bool:
    """Whether this content type, its parameters apart, says one JSON text a line."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() in _LINES


def problem(payload: bytes) -> str | None:
    """Say in a sentence why this payload is not one JSON text, or None when it is."""
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return f"The payload is not JSON: {error}."
    return None


def predictions(body: bytes, rows: int) -> list[bytes]:
    """Take `[...]` or `{"predictions": [...]}` apart into one JSON text a row.

    Raises MalformedResponse when the body is neither, or does not hold exactly `rows` elements.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedResponse(f"The response is not JSON: {error}.") from error
    array = array_in(document)
    if array is None:
        raise MalformedResponse('The response is JSON, but neither an array nor an object with "predictions".')
    return texts(array, rows)


def array_in(document: object) -> list[object] | None:
    """The array that a response's document is, or holds as `predictions`; None when it does neither."""
    if isinstance(document, dict):
        document = document.get("predictions")
    return document if isinstance(document, list) else None


def texts(array: list[object], rows: int) -> list[bytes]:
    """One JSON text an element; raises MalformedResponse when there are not exactly `rows`."""
    if len(array) != rows:
        raise MalformedResponse(f"The response holds {len(array)} predictions, and the call had {rows} rows.")
    # Numbers are what most models answer, and writing them one by one costs 35 times as much as all at once.
    if array and _SCALARS.issuperset(map(type, array)):
        return orjson.dumps(array)[1:-1].split(b",")
    try:
        return [orjson.dumps(element) for element in array]
    except orjson.JSONEncodeError as error:
        raise MalformedResponse(f"A prediction cannot be written as JSON again: {error}.") from error
