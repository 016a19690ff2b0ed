"""Envelope: a prediction with where it comes from, as one JSON object (`result.envelope`)."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import orjson

from connector.core.formats import json_text

if TYPE_CHECKING:
    from connector.core.event import Event


def envelope(
    event: Event,
    *,
    inference_id: str,
    batch_index: int,
    batch_size: int,
    call: str,
    variant: str | None,
    content_type: str,
    prediction: bytes,
) -> bytes:
    """The JSON object that a result's value is, instead of the bare prediction; never fails, whatever the bytes.

    `content_type` is the prediction's: one of type JSON is embedded as it is, any other as a string, and what is not
    UTF-8 as `{"base64": ...}`. `eventTimestamp` is Kafka's, in milliseconds.
    """
    ledger = event.ledger
    return orjson.dumps(
        {
            "inferenceId": _legible(inference_id),
            "source": {"topic": ledger.topic, "partition": ledger.partition, "offset": event.offset},
            "key": None if event.key is None else _text(event.key),
            "eventTimestamp": event.timestamp,
            "batchIndex": batch_index,
            "batchSize": batch_size,
            "call": call,
            "variant": None if variant is None else _legible(variant),
            "contentType": _legible(content_type),
            "prediction": _prediction(content_type, prediction),
        }
    )


def _prediction(content_type: str, prediction: bytes) -> orjson.Fragment | str | dict[str, str]:
    """A fragment is written unread, so a prediction that only claims to be JSON must not become one."""
    if json_text.is_json(content_type) and json_text.problem(prediction) is None:
        return orjson.Fragment(prediction)
    return _text(prediction)


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _legible(text: str) -> str:
    """HTTP clients keep a response header's stray bytes as lone surrogates, which no JSON can hold."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
