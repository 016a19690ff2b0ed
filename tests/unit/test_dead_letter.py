"""Dead letters as design section 8 wants them: the event untouched, and why it was given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.core.answers.dead_letter import dead_letter, without_value
from connector.core.calls.outcome import Kind, Outcome, unanswerable
from connector.core.event import Event
from connector.core.reason import Reason
from tests.unit.factories import make_ledger

NOW = 1_700_000_000_000
REJECTED = Outcome(
    Kind.DEAD_LETTER, Reason.REJECTED_BY_MODEL, "ModelError: The container answered 400.", "no column x", 400, "arn:log"
)
OURS = [
    ("inference-error", b"empty"),
    ("inference-error-message", b"The event's value is null."),
    ("inference-source", b"inference-requests/3/7"),
    ("inference-event-timestamp", b"1600000000000"),
    ("inference-attempts", b"0"),
    ("inference-failed-at", b"1700000000000"),
]

HEADERS = st.lists(
    st.tuples(st.sampled_from(["trace", "inference-id", "inference-error", "content-type"]), st.none() | st.binary())
)


def event_of(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> Event:
    return Event(make_ledger(3), 7, key, value, headers, 1_600_000_000_000, 0.0, 0)


@given(st.none() | st.binary(), st.none() | st.binary(), HEADERS)
def test_key_value_and_headers_of_the_event_are_untouched(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    before = list(headers)
    event = event_of(key, value, headers)
    letter = dead_letter(event, unanswerable(Reason.EMPTY, "The event's value is null."), now_ms=NOW)
    assert letter.event is event
    assert (letter.key, letter.value, letter.timestamp, letter.reason) == (key, value, NOW, Reason.EMPTY)
    assert list(letter.headers) == [*before, *OURS]
    assert headers == before


def test_a_dead_letter_of_a_call_says_all_that_the_service_told() -> None:
    letter = dead_letter(
        event_of(b"k", b"v", []), REJECTED, now_ms=NOW, attempts=5, inference_id="device 7", variant="blue"
    )
    assert dict(letter.headers) == {
        "inference-error": b"rejected_by_model",
        "inference-error-message": b"no column x",
        "inference-error-status": b"400",
        "inference-error-log-stream": b"arn:log",
        "inference-variant": b"blue",
        "inference-id": b"device 7",
        "inference-source": b"inference-requests/3/7",
        "inference-event-timestamp": b"1600000000000",
        "inference-attempts": b"5",
        "inference-failed-at": b"1700000000000",
    }


def test_a_status_of_zero_is_a_status() -> None:
    outcome = Outcome(Kind.DEAD_LETTER, Reason.MODEL_ERROR, "m", status=0)
    assert dict(dead_letter(event_of(None, b"", []), outcome, now_ms=NOW).headers)["inference-error-status"] == b"0"


def test_bytes_of_the_container_that_are_no_text_do_not_stop_a_dead_letter() -> None:
    outcome = Outcome(Kind.DEAD_LETTER, Reason.REJECTED_BY_MODEL, "m", "caf\udce9", log_stream="\udcff")
    headers = dict(dead_letter(event_of(None, b"v", []), outcome, now_ms=NOW).headers)
    assert headers["inference-error-message"] == b"caf\xe9"
    assert headers["inference-error-log-stream"] == b"\xff"


def test_a_dead_letter_that_is_too_large_keeps_its_coordinates_and_reason_and_says_what_it_lost() -> None:
    event = event_of(b"k", b"v" * 1000, [("large", b"x" * 1000), ("inference-error", b"of another connector")])
    letter = dead_letter(event, REJECTED, now_ms=NOW, attempts=1, inference_id="i")
    small = without_value(letter, 2345)
    assert (small.key, small.value, small.reason, small.timestamp) == (b"k", None, letter.reason, NOW)
    assert small.event is event
    ours = list(letter.headers)[2:]
    assert list(small.headers) == [*ours, ("inference-value-dropped", b"the dead letter is 2345 bytes")]
