"""What holds for the raw format alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.formats.body_format import Answer
from connector.core.formats.raw import Raw
from tests.unit.formats.example import Example, split

RAW = Raw()
EXAMPLE = Example(
    payloads=st.binary(min_size=1),
    sample=b"1",
    rows_of=lambda body: [body],
    answer=lambda rows: Answer(b"".join(rows), "image/png"),
    prediction=lambda payload: payload,
)


@given(st.binary(), st.none() | st.text())
def test_any_response_is_the_one_prediction_and_keeps_its_content_type(body: bytes, content_type: str | None) -> None:
    assert split(RAW, body, content_type, 1) == [body]
    assert RAW.prediction_type(content_type) == (content_type or "application/octet-stream")


def test_two_payloads_have_no_body() -> None:
    with pytest.raises(ValueError, match="too many values"):
        RAW.join([b"1", b"2"])
