"""What holds for the json_lines format alone."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.formats.body_format import Answer
from connector.core.formats.json_lines import JsonLines
from connector.errors import MalformedResponse
from tests.unit.formats.example import Example, split
from tests.unit.formats.json_values import JSON_TEXTS, JSON_VALUES, NEARLY_JSON

LINES = JsonLines()
EXAMPLE = Example(
    payloads=JSON_TEXTS,
    sample=b"[1,2]",
    rows_of=lambda body: body.split(b"\n"),
    answer=lambda rows: Answer(b"".join(b"[" + row + b"]\n" for row in rows), "application/jsonlines"),
    prediction=lambda payload: b"[" + payload + b"]",
)


def one_text(payload: bytes) -> bool:
    try:
        return len(orjson.loads(b"[%b]" % payload)) == 1
    except orjson.JSONDecodeError:
        return False


@given(NEARLY_JSON | JSON_TEXTS | st.binary(max_size=4))
@example(b"[1,\n2]")
@example(b"[1,\r2]")
def test_a_payload_is_accepted_exactly_when_it_is_one_json_line(payload: bytes) -> None:
    lines = LINES.join([b"1", payload, b"3"]).data.splitlines()
    alone = len(lines) == 3 and b"\n" not in payload and b"\r" not in payload
    assert (LINES.check(payload) is None) == (alone and one_text(payload))


def test_numbers_reach_the_model_as_the_producer_wrote_them() -> None:
    assert LINES.join([b"1.50", b"123456789012345678901234567890"]).data == b"1.50\n123456789012345678901234567890"


@given(st.lists(JSON_VALUES.map(orjson.dumps), min_size=1), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_lines_are_predictions_verbatim(lines: list[bytes], end: bytes, last: bool) -> None:
    body = end.join(lines) + (end if last else b"")
    assert split(LINES, body, "application/jsonlines", len(lines)) == lines


def test_a_line_that_is_not_json_is_malformed() -> None:
    pretty = b'[\n"a",\n"b"\n]'
    with pytest.raises(MalformedResponse, match="Line 1"):
        split(LINES, pretty, "application/jsonlines", 4)
    with pytest.raises(MalformedResponse, match="Line 2"):
        split(LINES, b"1\n\n", "application/jsonlines", 2)


@pytest.mark.parametrize("rows", [2, 3])
def test_json_lines_may_call_themselves_json_and_an_array_is_taken_apart(rows: int) -> None:
    expected = [b'{"score":%d}' % row for row in range(rows)]
    assert split(LINES, b"\n".join(expected), "application/json", rows) == expected
    assert split(LINES, b"[" + b", ".join(expected) + b"]", "application/json", rows) == expected
    assert split(LINES, expected[0], "application/json", 1) == expected[:1]


def test_predictions_are_json_whatever_the_response_calls_itself() -> None:
    assert LINES.prediction_type("text/html") == "application/json"
