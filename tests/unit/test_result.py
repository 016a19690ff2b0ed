"""Results as design section 8 wants them: whose they are, which row of which call they were, and when."""

from __future__ import annotations

from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.answers.headers import header_value
from connector.core.answers.outgoing import Outgoing
from connector.core.answers.result import Results
from connector.core.calls.call import Call, Response
from connector.core.event import Event, Route
from connector.core.formats import format_named
from tests.unit.factories import make_ledger

NOW = 1_700_000_000_000
OURS = (
    "inference-id",
    "inference-source",
    "inference-event-timestamp",
    "inference-batch-index",
    "inference-batch-size",
    "inference-call",
    "inference-variant",
    "content-type",
    "inference-custom-attributes",
    "inference-new-session",
    "inference-closed-session",
)

Headers = list[tuple[str, bytes]]


def event_of(offset: int, key: bytes | None = b"device", headers: Headers | None = None) -> Event:
    return Event(make_ledger(3), offset, key, b"%d" % offset, headers or [], 1_600_000_000_000 + offset, 0.0, 1)


def results_of(
    *events: Event,
    response: Response | None = None,
    as_envelope: bool = False,
    event_time: bool = False,
    fmt: str = "csv",
) -> list[Outgoing]:
    body = b"\n".join(event.value or b"" for event in events)
    call = Call(Route("fraud"), "the id", body, "text/csv", "text/csv")
    predictions = [b"p%d" % event.offset for event in events]
    results = Results(format_named(fmt), as_envelope=as_envelope, event_time=event_time)
    return results.of(events, call, response or Response(b"", "text/csv", "blue"), predictions, NOW)


def test_a_result_has_its_events_key_and_exactly_these_headers() -> None:
    first, second = results_of(event_of(7), event_of(8, key=None))
    call = sha256(b"7\n8").hexdigest()[:16].encode()
    assert (first.key, first.value, first.timestamp, first.reason) == (b"device", b"p7", NOW, None)
    assert (second.key, second.value) == (None, b"p8")
    assert sorted(first.headers) == [
        ("content-type", b"text/csv"),
        ("inference-batch-index", b"0"),
        ("inference-batch-size", b"2"),
        ("inference-call", call),
        ("inference-event-timestamp", b"1600000000007"),
        ("inference-id", b"the id"),
        ("inference-source", b"inference-requests/3/7"),
        ("inference-variant", b"blue"),
    ]
    assert dict(second.headers)["inference-batch-index"] == b"1"
    assert dict(second.headers)["inference-source"] == b"inference-requests/3/8"


def test_what_the_container_or_the_service_gave_becomes_a_header_and_what_it_did_not_is_left_out() -> None:
    (full,) = results_of(event_of(1), response=Response(b"", "text/csv", "blue", "a=1", "s1; Expires=x", "s0"))
    assert {
        "inference-custom-attributes": b"a=1",
        "inference-new-session": b"s1; Expires=x",
        "inference-closed-session": b"s0",
    }.items() <= dict(full.headers).items()
    (bare,) = results_of(event_of(1), response=Response(b""))
    assert not {"inference-variant", "inference-custom-attributes", "inference-new-session"} & set(dict(bare.headers))
    assert dict(bare.headers)["content-type"] == b"text/csv", "the format's own"


@given(
    st.lists(st.tuples(st.sampled_from(["trace", "", *OURS]), st.binary(max_size=3))),
    st.sampled_from([Response(b""), Response(b"", "a/b", "v", "c", "n", "o")]),
)
def test_the_events_own_headers_stay_in_order_but_for_those_of_our_names(own: Headers, response: Response) -> None:
    (plain,) = results_of(event_of(1), response=response)
    (result,) = results_of(event_of(1, headers=own), response=response)
    kept = [header for header in own if header[0] not in OURS]
    assert list(result.headers) == [*kept, *plain.headers]
    names = [name for name, _ in result.headers if name in OURS]
    assert len(names) == len(set(names)), "each of ours once"


def test_the_events_of_a_call_do_not_share_their_headers() -> None:
    first, second = results_of(event_of(1, headers=[("a", b"1")]), event_of(2, headers=[("b", b"2")]))
    assert "b" not in dict(first.headers)
    assert "a" not in dict(second.headers)
    assert isinstance(first.headers, list)
    first.headers.append(("more", b""))
    assert "more" not in dict(second.headers)


def test_rows_are_counted_however_many_there_are() -> None:
    results = results_of(*[event_of(number) for number in range(1100)])
    assert [dict(result.headers)["inference-batch-index"] for result in results] == [b"%d" % n for n in range(1100)]
    assert {dict(result.headers)["inference-batch-size"] for result in results} == {b"1100"}


def test_equal_bodies_have_equal_calls_and_others_have_not() -> None:
    (one,), (same,), (other,) = results_of(event_of(1)), results_of(event_of(1)), results_of(event_of(2))
    call = "inference-call"
    assert dict(one.headers)[call] == dict(same.headers)[call] != dict(other.headers)[call]


def test_the_timestamp_is_now_or_the_events_own() -> None:
    assert results_of(event_of(7))[0].timestamp == NOW
    assert results_of(event_of(7), event_time=True)[0].timestamp == 1_600_000_000_007


def test_an_envelope_says_in_json_what_the_headers_say() -> None:
    _, second = results_of(event_of(7), event_of(8), as_envelope=True)
    headers = dict(second.headers)
    assert headers["content-type"] == b"application/json"
    assert orjson.loads(second.value or b"") == {
        "inferenceId": "the id",
        "source": {"topic": "inference-requests", "partition": 3, "offset": 8},
        "key": "device",
        "eventTimestamp": 1_600_000_000_008,
        "batchIndex": 1,
        "batchSize": 2,
        "call": headers["inference-call"].decode(),
        "variant": "blue",
        "contentType": "text/csv",
        "prediction": "p8",
    }


@pytest.mark.parametrize(
    ("fmt", "given_type", "expected"),
    [
        ("csv", "application/json", b"application/json"),
        ("raw", "image/png", b"image/png"),
        ("json_lines", "application/jsonlines", b"application/json"),
        ("raw", "text/\udcfftype", b"text/\xfftype"),
    ],
)
def test_the_content_type_is_that_of_one_prediction(fmt: str, given_type: str, expected: bytes) -> None:
    (result,) = results_of(event_of(1), response=Response(b"", given_type), fmt=fmt)
    assert dict(result.headers)["content-type"] == expected


@given(st.binary())
def test_bytes_of_the_service_that_are_no_text_come_out_as_they_came_in(data: bytes) -> None:
    assert header_value(data.decode("utf-8", "surrogateescape")) == data
