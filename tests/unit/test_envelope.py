"""What holds for the envelope."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.answers.envelope import envelope
from connector.core.epochs.ledger import Ledger
from connector.core.event import Event
from connector.core.formats.json_text import problem
from tests.unit.formats.json_values import JSON_TEXTS


def enveloped(
    prediction: bytes = b"0.5",
    content_type: str = "text/csv",
    key: bytes | None = b"device",
    variant: str | None = "blue",
) -> Any:
    event = Event(
        ledger=Ledger("inference-requests", 3, 1),
        offset=7,
        key=key,
        value=b"1,2",
        headers=[],
        timestamp=1_700_000_000_123,
        arrived=0.0,
        size=3,
    )
    return json.loads(
        envelope(
            event,
            inference_id="device",
            batch_index=1,
            batch_size=4,
            call="0123456789abcdef",
            variant=variant,
            content_type=content_type,
            prediction=prediction,
        )
    )


def test_an_envelope_says_where_a_prediction_comes_from() -> None:
    assert enveloped() == {
        "inferenceId": "device",
        "source": {"topic": "inference-requests", "partition": 3, "offset": 7},
        "key": "device",
        "eventTimestamp": 1_700_000_000_123,
        "batchIndex": 1,
        "batchSize": 4,
        "call": "0123456789abcdef",
        "variant": "blue",
        "contentType": "text/csv",
        "prediction": "0.5",
    }


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
@given(prediction=JSON_TEXTS)
def test_a_json_prediction_is_embedded(content_type: str, prediction: bytes) -> None:
    assert enveloped(prediction, content_type)["prediction"] == json.loads(prediction)


def test_an_embedded_prediction_keeps_its_numbers() -> None:
    big = "123456789012345678901234567890"
    assert enveloped(big.encode(), "application/json")["prediction"] == int(big)


@given(st.binary(), st.sampled_from(["application/json", "application/jsonlines", "text/csv", "image/png"]))
@example(b"[", "application/json")
@example(b'1,"key":2', "application/json")
@example(b"\xff", "application/json")
@example(b"", "application/json")
def test_any_prediction_comes_back_out(prediction: bytes, content_type: str) -> None:
    found = enveloped(prediction, content_type)["prediction"]
    if content_type == "application/json" and problem(prediction) is None:
        assert found == json.loads(prediction)
    elif isinstance(found, str):
        assert found.encode() == prediction
    else:
        assert b64decode(found["base64"]) == prediction


@given(st.none() | st.binary())
@example(b"\xff")
@example(b"")
def test_any_key_comes_back_out(key: bytes | None) -> None:
    found = enveloped(key=key)["key"]
    if isinstance(found, str):
        assert found.encode() == key
    else:
        assert (None if found is None else b64decode(found["base64"])) == key


@given(st.text(st.characters()), st.none() | st.text(st.characters()))
@example("text/\udcff", "\ud800")
def test_response_headers_never_make_it_fail(content_type: str, variant: str | None) -> None:
    found = enveloped(content_type=content_type, variant=variant)
    legible = variant if variant is None else variant.encode("utf-8", "backslashreplace").decode()
    assert found["variant"] == legible
