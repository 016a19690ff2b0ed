"""What holds for the csv format alone."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.formats.body_format import Answer
from connector.core.formats.csv import Csv
from connector.errors import MalformedResponse
from tests.unit.formats.example import Example, split

CSV = Csv()
FIELDS = st.text(alphabet='ab01é,;" \n\r', max_size=6)
NUMBERS = st.floats(allow_nan=False).map(lambda number: str(number).encode())
EXAMPLE = Example(
    payloads=st.lists(
        st.floats(width=32).map(str) | st.sampled_from(["a", '"b,c"', '"d""e"', "é", ""]), min_size=2
    ).map(lambda values: ",".join(values).encode()),
    sample=b"1,2",
    rows_of=lambda body: body.split(b"\n"),
    answer=lambda rows: Answer(b"".join(row + b",answered\n" for row in rows), "text/csv"),
    prediction=lambda payload: payload + b",answered",
)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def written(fields: list[str]) -> bytes:
    """One row as Python's csv module writes it, without what ends it."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerow(fields)
    return out.getvalue().removesuffix("\r\n").encode()


@given(st.text(alphabet='ab,;"\n\r é', max_size=12))
@example('a,"b')
@example('a,"b,"')
@example('a"b,"c')
@example('"a""b"')
@example('"a"b",c"')
@example('"""')
@example('5" pipe')
@example('5" by 7" plate,2')
def test_a_payload_is_accepted_exactly_when_a_reader_takes_it_for_one_row(payload: str) -> None:
    own_row = "\n" not in payload and "\r" not in payload and payload.strip() != ""
    leaves_the_next_alone = read(f"{payload}\nx,y")[1:] == [["x", "y"]]
    toggles_back = payload.count('"') % 2 == 0
    assert (CSV.check(payload.encode()) is None) == (own_row and leaves_the_next_alone and toggles_back)


@given(st.lists(st.text(alphabet='ab,;" é', min_size=1, max_size=12), min_size=1, max_size=5))
def test_accepted_payloads_are_as_many_rows_and_the_same_alone(payloads: list[str]) -> None:
    assume(all(CSV.check(payload.encode()) is None for payload in payloads))
    body = CSV.join([payload.encode() for payload in payloads]).data.decode()
    assert read(body) == [read(payload)[0] for payload in payloads]


@given(st.binary(min_size=1).filter(lambda payload: payload.decode(errors="replace").encode() != payload))
def test_a_payload_that_is_not_utf_8_is_refused(payload: bytes) -> None:
    assert CSV.check(payload) is not None


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@given(rows=st.lists(st.lists(FIELDS, min_size=1, max_size=3).map(written), min_size=1, max_size=5), last=st.booleans())
def test_rows_are_predictions_also_when_quoted_fields_hold_newlines(end: bytes, rows: list[bytes], last: bool) -> None:
    assume(all(row.strip() for row in rows))
    body = end.join(rows) + (end if last else b"")
    assert split(CSV, body, "text/csv", len(rows)) == rows


@given(st.lists(NUMBERS, min_size=2), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_one_line_of_as_many_values_as_rows_is_their_predictions(values: list[bytes], end: bytes) -> None:
    assert split(CSV, b",".join(values) + end, "text/csv", len(values)) == values


@given(st.lists(NUMBERS, min_size=1), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_the_line_of_a_single_row_is_one_prediction_with_its_commas(values: list[bytes], end: bytes) -> None:
    line = b",".join(values)
    assert split(CSV, line + end, "text/csv; charset=utf-8", 1) == [line]


def test_one_line_of_bracketed_lists_is_a_list_a_row() -> None:
    assert split(CSV, b"[0.1, 0.9],[0.7, 0.3]", "text/csv", 2) == [b"[0.1,0.9]", b"[0.7,0.3]"]


def test_commas_within_brackets_or_quotes_separate_no_predictions() -> None:
    for body in (b"[0.1,0.9],[0.7,0.3]", b'{"a":1,"b":2,"c":3,"d":4}', b'"a,b","c,d"'):
        with pytest.raises(MalformedResponse):
            split(CSV, body, "text/csv", 4)
    assert split(CSV, b'"a,b","c,d"', "text/csv", 2) == [b'"a,b"', b'"c,d"']


@pytest.mark.parametrize("body", [b"1\n\n", b"\n1", b"1\n \n", b"1,", b" ,1", b'"a"\n\n', b'"a",'])
def test_a_blank_is_nobodys_prediction(body: bytes) -> None:
    with pytest.raises(MalformedResponse):
        split(CSV, body, "text/csv", 2)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[1.5,[2]]", "application/json"),
        (b'{"predictions":[1.5,[2]]}', "application/json; charset=utf-8"),
        (b"1.5\n[2]\n", "application/jsonlines"),
    ],
)
def test_json_answers_are_taken_apart_by_their_content_type(body: bytes, content_type: str) -> None:
    assert split(CSV, body, content_type, 2) == [b"1.5", b"[2]"]
    assert CSV.prediction_type(content_type) == "application/json"


def test_other_answers_keep_their_content_type() -> None:
    assert CSV.prediction_type(None) == "text/csv"
    assert CSV.prediction_type("text/csv; charset=utf-8") == "text/csv; charset=utf-8"
