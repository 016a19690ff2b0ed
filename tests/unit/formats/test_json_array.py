"""What holds for the json_array format, and for json_instances, which puts a name to the array."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.formats.body_format import Answer, BodyFormat
from connector.core.formats.json_array import JsonArray
from connector.core.formats.json_instances import JsonInstances
from connector.errors import MalformedResponse
from tests.unit.formats.example import Example, split
from tests.unit.formats.json_values import JSON_TEXTS, JSON_VALUES, NEARLY_JSON, in_a_list

ARRAY = JsonArray()
EXAMPLE = Example(
    payloads=JSON_TEXTS,
    sample=b"[1,2]",
    rows_of=lambda body: [orjson.dumps(row) for row in json.loads(body)],
    answer=lambda rows: Answer(b"[" + b",".join(map(in_a_list, rows)) + b"]", "application/json"),
    prediction=in_a_list,
)
every_array = pytest.mark.parametrize("fmt", [ARRAY, JsonInstances()], ids=lambda fmt: fmt.name)


def elements(body: bytes) -> list[Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return list(document["instances"] if isinstance(document, dict) else document)


@every_array
@given(payload=NEARLY_JSON | JSON_TEXTS | st.binary(max_size=4))
@example(payload=b"1,2")
@example(payload=b"1],[2")
@example(payload=b"")
@example(payload=b"NaN")
def test_a_payload_is_accepted_exactly_when_it_is_one_element_of_the_array(fmt: BodyFormat, payload: bytes) -> None:
    found = elements(fmt.join([b"1", payload, b"3"]).data)
    assert (fmt.check(payload) is None) == (found is not None and len(found) == 3)


@every_array
@given(values=st.lists(JSON_VALUES) | st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)))
@example(values=["a,b", "c"])
@example(values=[[1, 2], 3])
def test_predictions_keep_their_values(fmt: BodyFormat, values: list[Any]) -> None:
    expected = [orjson.dumps(value) for value in values]
    assert split(fmt, orjson.dumps({"predictions": values, "model": "m"}), None, len(values)) == expected
    assert split(fmt, orjson.dumps(values, option=orjson.OPT_INDENT_2), "application/json", len(values)) == expected


@every_array
def test_numbers_reach_the_model_as_the_producer_wrote_them(fmt: BodyFormat) -> None:
    assert b"1.50" in fmt.join([b"1.50"]).data
    assert b"123456789012345678901234567890" in fmt.join([b"0", b"123456789012345678901234567890"]).data


def test_the_array_stands_alone() -> None:
    assert ARRAY.join([b"[1,2]", b'{"a": 1}']).data == b'[[1,2],{"a": 1}]'


@pytest.mark.parametrize("body", [b'{"outputs":[1]}', b'{"predictions":1}', b"1", b'"a"', b"null", b"{}", b"[1]x", b""])
@every_array
def test_json_without_an_array_of_predictions_is_malformed(fmt: BodyFormat, body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        split(fmt, body, "application/json", 1)


@every_array
def test_predictions_are_json_whatever_the_response_calls_itself(fmt: BodyFormat) -> None:
    assert fmt.prediction_type("text/html") == "application/json"


@given(st.integers(2**64, 2**80))
def test_integers_beyond_64_bits_become_the_nearest_double(number: int) -> None:
    (prediction,) = split(ARRAY, b"[%d]" % number, "application/json", 1)
    assert math.isclose(float(prediction), number)
