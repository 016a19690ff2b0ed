"""What holds for the formats json_lines, json_instances and json_array."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.formats import FORMATS
from connector.core.formats.body_format import BodyFormat
from connector.core.formats.json_lines import JsonLines
from connector.errors import MalformedResponse
from tests.unit.test_body_formats import JSON_TEXTS, JSON_VALUES

LINES = JsonLines()
ARRAYS = [FORMATS["json_instances"], FORMATS["json_array"]]
NEARLY_JSON = st.text(alphabet='[]{}":,1a\\ \n\r', max_size=10).map(str.encode)


def elements(body: bytes) -> list[Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return list(document["instances"] if isinstance(document, dict) else document)


@pytest.mark.parametrize("fmt", ARRAYS, ids=lambda fmt: fmt.name)
@given(payload=NEARLY_JSON | JSON_TEXTS | st.binary(max_size=4))
@example(payload=b"1,2")
@example(payload=b"1],[2")
@example(payload=b"")
@example(payload=b"NaN")
def test_a_payload_is_accepted_exactly_when_it_is_one_element_of_the_array(fmt: BodyFormat, payload: bytes) -> None:
    found = elements(fmt.join([b"1", payload, b"3"]))
    assert (fmt.check(payload) is None) == (found is not None and len(found) == 3)


@given(NEARLY_JSON | JSON_TEXTS | st.binary(max_size=4))
@example(b"[1,\n2]")
@example(b"[1,\r2]")
def test_a_payload_is_accepted_exactly_when_it_is_one_json_line(payload: bytes) -> None:
    lines = LINES.join([b"1", payload, b"3"]).splitlines()
    alone = (
        len(lines) == 3 and b"\n" not in payload and b"\r" not in payload and elements(b"[%b]" % payload) is not None
    )
    assert (LINES.check(payload) is None) == (alone and len(elements(b"[%b]" % payload) or ()) == 1)


@pytest.mark.parametrize("fmt", ARRAYS, ids=lambda fmt: fmt.name)
@given(values=st.lists(JSON_VALUES) | st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)))
@example(values=["a,b", "c"])
@example(values=[[1, 2], 3])
def test_predictions_keep_their_values(fmt: BodyFormat, values: list[Any]) -> None:
    expected = [orjson.dumps(value) for value in values]
    assert fmt.split(orjson.dumps({"predictions": values, "model": "m"}), None, len(values)) == expected
    assert fmt.split(orjson.dumps(values, option=orjson.OPT_INDENT_2), "application/json", len(values)) == expected


@pytest.mark.parametrize("fmt", [*ARRAYS, LINES], ids=lambda fmt: fmt.name)
def test_numbers_reach_the_model_as_the_producer_wrote_them(fmt: BodyFormat) -> None:
    assert b"1.50" in fmt.join([b"1.50"])
    assert b"123456789012345678901234567890" in fmt.join([b"0", b"123456789012345678901234567890"])


def test_the_names_of_the_arrays_are_those_of_tensorflow_serving() -> None:
    assert FORMATS["json_instances"].join([b"[1,2]", b'{"a": 1}']) == b'{"instances":[[1,2],{"a": 1}]}'
    assert FORMATS["json_array"].join([b"[1,2]", b'{"a": 1}']) == b'[[1,2],{"a": 1}]'


@pytest.mark.parametrize("body", [b'{"outputs":[1]}', b'{"predictions":1}', b"1", b'"a"', b"null", b"{}", b"[1]x", b""])
@pytest.mark.parametrize("fmt", ARRAYS, ids=lambda fmt: fmt.name)
def test_json_without_an_array_of_predictions_is_malformed(fmt: BodyFormat, body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        fmt.split(body, "application/json", 1)


@given(st.lists(JSON_VALUES.map(orjson.dumps), min_size=1), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_lines_are_predictions_verbatim(lines: list[bytes], end: bytes, last: bool) -> None:
    body = end.join(lines) + (end if last else b"")
    assert LINES.split(body, "application/jsonlines", len(lines)) == lines


def test_a_line_that_is_not_json_is_malformed() -> None:
    pretty = b'[\n"a",\n"b"\n]'
    with pytest.raises(MalformedResponse, match="Line 1"):
        LINES.split(pretty, "application/jsonlines", 4)
    with pytest.raises(MalformedResponse, match="Line 2"):
        LINES.split(b"1\n\n", "application/jsonlines", 2)


@pytest.mark.parametrize("rows", [2, 3])
def test_json_lines_may_call_themselves_json_and_an_array_is_taken_apart(rows: int) -> None:
    expected = [b'{"score":%d}' % row for row in range(rows)]
    assert LINES.split(b"\n".join(expected), "application/json", rows) == expected
    assert LINES.split(b"[" + b", ".join(expected) + b"]", "application/json", rows) == expected
    assert LINES.split(expected[0], "application/json", 1) == expected[:1]


def test_predictions_are_json_whatever_the_response_calls_itself() -> None:
    for fmt in [*ARRAYS, LINES]:
        assert fmt.prediction_type("text/html") == "application/json"


@given(st.integers(2**64, 2**80))
def test_integers_beyond_64_bits_become_the_nearest_double(number: int) -> None:
    (prediction,) = FORMATS["json_array"].split(b"[%d]" % number, "application/json", 1)
    assert math.isclose(float(prediction), number)
