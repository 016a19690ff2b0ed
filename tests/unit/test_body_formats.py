"""What holds for every body format."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.formats import FORMATS, format_named
from connector.core.formats.body_format import BodyFormat
from connector.errors import MalformedResponse, SettingsError

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
JSON_TEXTS = JSON_VALUES.map(lambda value: json.dumps(value).encode()) | JSON_VALUES.map(orjson.dumps)
CSV_ROWS = st.lists(st.floats(width=32).map(str) | st.sampled_from(["a", '"b,c"', '"d""e"', "é", ""]), min_size=2).map(
    lambda values: ",".join(values).encode()
)
PAYLOADS: dict[str, st.SearchStrategy[bytes]] = {
    "raw": st.binary(min_size=1),
    "csv": CSV_ROWS,
    "json_lines": JSON_TEXTS,
    "json_instances": JSON_TEXTS,
    "json_array": JSON_TEXTS,
}
MODELS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda body: body,
    "csv": lambda body: b"".join(row + b",answered\n" for row in body.split(b"\n")),
    "json_lines": lambda body: b"".join(b"[" + line + b"]\n" for line in body.split(b"\n")),
    "json_instances": lambda body: orjson.dumps({"predictions": [[x] for x in json.loads(body)["instances"]]}),
    "json_array": lambda body: orjson.dumps([[x] for x in json.loads(body)]),
}
"""Models that answer row by row: each says what it was asked, in its format's own way."""
ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda payload: payload,
    "csv": lambda payload: payload + b",answered",
    "json_lines": lambda payload: b"[" + payload + b"]",
    "json_instances": lambda payload: orjson.dumps([json.loads(payload)]),
    "json_array": lambda payload: orjson.dumps([json.loads(payload)]),
}
"""What each model answers to one payload."""

every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS.keys())
content_types = st.none() | st.sampled_from(
    ["application/json", "Application/JSON; charset=utf-8", "application/jsonlines", "text/csv", "a/b+json", ""]
)


def payload_lists(fmt: BodyFormat) -> st.SearchStrategy[list[bytes]]:
    return st.lists(PAYLOADS[fmt.name], min_size=1, max_size=fmt.max_rows or 6)


@every_format
@given(st.data())
def test_a_model_that_answers_row_by_row_gives_each_payload_its_own_prediction(
    fmt: BodyFormat, data: st.DataObject
) -> None:
    payloads = data.draw(payload_lists(fmt))
    assert [fmt.check(payload) for payload in payloads] == [None] * len(payloads)
    response = MODELS[fmt.name](fmt.join(payloads))
    assert fmt.split(response, fmt.accept, len(payloads)) == [ANSWERS[fmt.name](payload) for payload in payloads]


@every_format
@given(st.data())
def test_a_body_is_never_larger_than_its_format_says(fmt: BodyFormat, data: st.DataObject) -> None:
    payloads = data.draw(payload_lists(fmt))
    assert len(fmt.join(payloads)) <= fmt.overhead + sum(len(payload) + fmt.row_overhead for payload in payloads)


@every_format
@given(st.data())
def test_payloads_are_sent_byte_for_byte(fmt: BodyFormat, data: st.DataObject) -> None:
    payloads = data.draw(payload_lists(fmt))
    body, start = fmt.join(payloads), 0
    for payload in payloads:
        found = body.index(payload, start)
        start = found + len(payload)


@every_format
@given(
    body=st.binary()
    | st.text(alphabet='[]{}":,\\ue0123.\r\n ').map(str.encode)
    | JSON_TEXTS
    | JSON_VALUES.map(lambda value: orjson.dumps({"predictions": value})),
    content_type=content_types | st.text(),
    rows=st.integers(-1, 4),
)
@example(body=b"", content_type=None, rows=0)
@example(body=b"", content_type="application/json", rows=1)
@example(body=b"[" + b"[" * 600 + b"]" * 600 + b"]", content_type="application/json", rows=1)
@example(body=b"[" * 100_000 + b"]" * 100_000, content_type="application/json", rows=1)
@example(body=b"\n" * 100_000, content_type="text/csv", rows=2)
@example(body=b'"' * 99_999, content_type="text/csv", rows=2)
@example(body=b'[NaN,"\\ud800"]', content_type="application/json", rows=2)
@example(body=b"[1e999]", content_type="application/json", rows=1)
def test_any_response_is_taken_apart_exactly_or_malformed(
    fmt: BodyFormat, body: bytes, content_type: str | None, rows: int
) -> None:
    assert isinstance(fmt.prediction_type(content_type), str)
    try:
        predictions = fmt.split(body, content_type, rows)
    except MalformedResponse:
        return
    assert len(predictions) == rows
    assert all(isinstance(prediction, bytes) for prediction in predictions)


@every_format
@given(payload=st.binary() | st.text().map(str.encode))
def test_any_payload_is_accepted_or_refused_in_a_sentence(fmt: BodyFormat, payload: bytes) -> None:
    problem = fmt.check(payload)
    assert problem is None or problem.endswith(".")


@every_format
@given(st.data())
def test_a_response_with_a_prediction_too_few_or_too_many_is_malformed(fmt: BodyFormat, data: st.DataObject) -> None:
    payloads = data.draw(payload_lists(fmt))
    response = MODELS[fmt.name](fmt.join(payloads))
    wrong = len(payloads) + data.draw(st.sampled_from([-1, 1]))
    with pytest.raises(MalformedResponse):
        fmt.split(response, fmt.accept, wrong)


def test_a_format_is_found_by_its_name() -> None:
    assert {name: format_named(name).name for name in FORMATS} == {name: name for name in FORMATS}


def test_an_unknown_format_is_named_beside_those_that_exist() -> None:
    with pytest.raises(SettingsError, match=r"'parquet'.*raw, csv, json_lines, json_instances, json_array"):
        format_named("parquet")
