"""Result: a prediction on its way to the output topic."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from connector.core.answers.envelope import envelope
from connector.core.answers.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.calls.call import Call, Response
    from connector.core.event import Event
    from connector.core.formats.body_format import BodyFormat

_OURS = frozenset(
    {
        "inference-id",
        "inference-source",
        "inference-event-timestamp",
        "inference-batch-index",
        "inference-batch-size",
        "inference-call",
        "inference-variant",
        "inference-custom-attributes",
        "inference-new-session",
        "inference-closed-session",
        "content-type",
    }
)
"""The headers of a result that replace the event's own of the same name."""

_INDEX = [str(index).encode() for index in range(1024)]


def header_value(text: str) -> bytes:
    """A text of the service as a header's value; HTTP clients keep stray bytes as lone surrogates, JSON has any."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


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
            headers = [header for header in event.headers if header[0] not in _OURS] if event.headers else []
            headers += shared
            headers.append(("inference-batch-index", _INDEX[index] if index < 1024 else str(index).encode()))
            headers.append(("inference-source", f"{ledger.topic}/{ledger.partition}/{event.offset}".encode()))
            headers.append(("inference-event-timestamp", b"%d" % event.timestamp))
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
            ("inference-id", call.inference_id.encode()),
            ("inference-batch-size", str(size).encode()),
            ("inference-call", call_id.encode()),
            ("content-type", b"application/json" if self._envelope else header_value(content_type)),
        ]
        for name, text in (
            ("inference-variant", response.variant),
            ("inference-custom-attributes", response.custom_attributes),
            ("inference-new-session", response.new_session),
            ("inference-closed-session", response.closed_session),
        ):
            if text is not None:
                headers.append((name, header_value(text)))
        return headers
