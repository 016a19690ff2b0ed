"""Result: a prediction on its way to the output topic."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from connector.core.answers.envelope import envelope
from connector.core.answers.headers import (
    BATCH_INDEX,
    BATCH_SIZE,
    CALL,
    CLOSED_SESSION,
    CONTENT_TYPE,
    CUSTOM_ATTRIBUTES,
    EVENT_TIMESTAMP,
    INFERENCE_ID,
    NEW_SESSION,
    OF_RESULTS,
    SOURCE,
    VARIANT,
    header_value,
)
from connector.core.answers.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.calls.call import Call, Response
    from connector.core.event import Event
    from connector.core.formats.body_format import BodyFormat

_INDEX = [str(index).encode() for index in range(1024)]


class Results:
    """Makes the results of a call, as the settings want them."""

    def __init__(self, fmt: BodyFormat, *, as_envelope: bool, event_time: bool) -> None:
        self._format = fmt
        self._envelope = as_envelope
        self._event_time = event_time

    def of(
        self, events: Sequence[Event], call: Call, response: Response, predictions: Sequence[bytes], now_ms: int
    ) -> list[Outgoing]:
        """One result for each event, in order, saying which row of which call it was.

        `now_ms` is the wall clock in milliseconds.
        """
        size = len(events)
        call_id = sha256(call.body).hexdigest()[:16]
        content_type = self._format.prediction_type(response.content_type)
        shared = self._shared_headers(call, response, call_id, size, content_type)
        results = []
        for index, (event, prediction) in enumerate(zip(events, predictions, strict=True)):
            ledger, value = event.ledger, prediction
            headers = [header for header in event.headers if header[0] not in OF_RESULTS] if event.headers else []
            headers += shared
            headers.append((BATCH_INDEX, _INDEX[index] if index < 1024 else str(index).encode()))
            headers.append((SOURCE, f"{ledger.topic}/{ledger.partition}/{event.offset}".encode()))
            headers.append((EVENT_TIMESTAMP, b"%d" % event.timestamp))
            if self._envelope:
                value = envelope(
                    event,
                    inference_id=call.inference_id,
                    batch_index=index,
                    batch_size=size,
                    call=call_id,
                    variant=response.variant,
                    content_type=content_type,
                    prediction=prediction,
                )
            results.append(Outgoing(event, event.key, value, headers, event.timestamp if self._event_time else now_ms))
        return results

    def _shared_headers(
        self, call: Call, response: Response, call_id: str, size: int, content_type: str
    ) -> list[tuple[str, bytes]]:
        """The headers that every result of a call has."""
        headers = [
            (INFERENCE_ID, call.inference_id.encode()),
            (BATCH_SIZE, str(size).encode()),
            (CALL, call_id.encode()),
            (CONTENT_TYPE, b"application/json" if self._envelope else header_value(content_type)),
        ]
        for name, text in (
            (VARIANT, response.variant),
            (CUSTOM_ATTRIBUTES, response.custom_attributes),
            (NEW_SESSION, response.new_session),
            (CLOSED_SESSION, response.closed_session),
        ):
            if text is not None:
                headers.append((name, header_value(text)))
        return headers
