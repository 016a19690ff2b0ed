"""What holds for every body format; payloads and model are those of the format's own test, `formats/test_<name>.py`."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core import formats
from connector.core.formats import format_named, names
from connector.core.formats.body_format import Answer
from connector.core.formats.known import Known
from connector.core.formats.registry import register
from connector.errors import MalformedResponse, SettingsError
from tests.unit.formats.examples import EXAMPLES
from tests.unit.formats.json_values import JSON_TEXTS, JSON_VALUES

FILES = Path(formats.__file__).parent
every_format = pytest.mark.parametrize("name", EXAMPLES)
several_rows = pytest.mark.parametrize("name", [name for name in EXAMPLES if format_named(name).max_rows != 1])
content_types = st.none() | st.sampled_from(
    ["application/json", "Application/JSON; charset=utf-8", "application/jsonlines", "text/csv", "a/b+json", ""]
)


def payload_lists(name: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(EXAMPLES[name].payloads, min_size=1, max_size=format_named(name).max_rows or 6)


@every_format
@given(st.data())
def test_a_model_that_answers_row_by_row_gives_each_payload_its_own_prediction(name: str, data: st.DataObject) -> None:
    fmt, model, payloads = format_named(name), EXAMPLES[name], data.draw(payload_lists(name))
    assert [fmt.check(payload) for payload in payloads] == [None] * len(payloads)
    body = fmt.join(payloads)
    assert body.rows == len(payloads)
    answer = model.answer(model.rows_of(body.data))
    assert fmt.split(answer, body, Known()) == [model.prediction(payload) for payload in payloads]


@every_format
@given(st.data())
def test_a_body_is_never_larger_than_its_format_says(name: str, data: st.DataObject) -> None:
    fmt, payloads = format_named(name), data.draw(payload_lists(name))
    assert len(fmt.join(payloads).data) <= fmt.overhead + sum(len(payload) + fmt.row_overhead for payload in payloads)


@every_format
@given(st.data())
def test_payloads_are_sent_byte_for_byte(name: str, data: st.DataObject) -> None:
    payloads = data.draw(payload_lists(name))
    body, start = format_named(name).join(payloads).data, 0
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
    rows=st.integers(1, 4),
)
@example(body=b"", content_type=None, rows=1)
@example(body=b"", content_type="application/json", rows=1)
@example(body=b"[" + b"[" * 600 + b"]" * 600 + b"]", content_type="application/json", rows=1)
@example(body=b"[" * 100_000 + b"]" * 100_000, content_type="application/json", rows=1)
@example(body=b"\n" * 100_000, content_type="text/csv", rows=2)
@example(body=b'"' * 99_999, content_type="text/csv", rows=2)
@example(body=b'[NaN,"\\ud800"]', content_type="application/json", rows=2)
@example(body=b"[1e999]", content_type="application/json", rows=1)
def test_any_response_is_taken_apart_exactly_or_malformed(
    name: str, body: bytes, content_type: str | None, rows: int
) -> None:
    fmt, sample = format_named(name), EXAMPLES[name].sample
    assert isinstance(fmt.prediction_type(content_type), str)
    request = fmt.join([sample] * min(rows, fmt.max_rows or rows))
    try:
        predictions = fmt.split(Answer(body, content_type), request, Known())
    except MalformedResponse:
        return
    assert len(predictions) == request.rows
    assert all(isinstance(prediction, bytes) for prediction in predictions)


@every_format
@given(st.data())
def test_a_response_that_was_cut_is_taken_apart_exactly_or_malformed(name: str, data: st.DataObject) -> None:
    fmt, model, payloads = format_named(name), EXAMPLES[name], data.draw(payload_lists(name))
    request = fmt.join(payloads)
    whole = model.answer(model.rows_of(request.data))
    cut = data.draw(st.integers(0, len(whole.body)))
    try:
        predictions = fmt.split(Answer(whole.body[:cut], whole.content_type), request, Known())
    except MalformedResponse:
        return
    assert len(predictions) == request.rows


@every_format
@given(payload=st.binary() | st.text().map(str.encode))
def test_any_payload_is_accepted_or_refused_in_a_sentence(name: str, payload: bytes) -> None:
    problem = format_named(name).check(payload)
    assert problem is None or problem.endswith(".")


@several_rows
@given(st.data())
def test_a_response_with_a_prediction_too_few_or_too_many_is_malformed(name: str, data: st.DataObject) -> None:
    fmt, model, payloads = format_named(name), EXAMPLES[name], data.draw(payload_lists(name))
    rows = model.rows_of(fmt.join(payloads).data)
    fewer_or_more = rows[1:] if data.draw(st.booleans()) else [*rows, *model.rows_of(fmt.join(payloads[:1]).data)]
    with pytest.raises(MalformedResponse):
        fmt.split(model.answer(fewer_or_more), fmt.join(payloads), Known())


@every_format
def test_a_format_has_the_name_of_its_file_which_can_be_a_key_of_the_settings(name: str) -> None:
    assert format_named(name).name == name
    assert (FILES / f"{name}.py").is_file()
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)


def test_an_unknown_format_is_named_beside_those_that_exist() -> None:
    with pytest.raises(SettingsError, match=rf"'parquet'; there are .*{', '.join(names())}\."):
        format_named("parquet")


def test_two_formats_cannot_have_one_name() -> None:
    csv = type(format_named("csv"))
    with pytest.raises(ValueError, match=r"^csv is the name of two body formats, .*Csv.*Second"):
        register(type("Second", (csv,), {}))
    assert type(format_named("csv")) is csv
