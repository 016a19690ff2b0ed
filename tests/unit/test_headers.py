"""Every header of a record is declared, is where it is declared to be, and holds what it is declared to hold."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from connector.core.answers.dead_letter import dead_letter, without_value
from connector.core.answers.headers import HEADERS, OF_RESULTS, On
from connector.core.answers.outgoing import Outgoing
from connector.core.answers.result import Results
from connector.core.calls.call import Call, Response
from connector.core.calls.outcome import Kind, Outcome
from connector.core.event import Event, Route
from connector.core.formats import format_named
from connector.core.reason import Reason
from tests.unit.factories import make_ledger

BY_NAME = {header.name: header for header in HEADERS}
TEXT = st.text(min_size=1, max_size=10)
RESPONSES = st.builds(
    Response,
    st.just(b""),
    content_type=st.none() | st.just("text/csv"),
    variant=st.none() | TEXT,
    custom_attributes=st.none() | TEXT,
    new_session=st.none() | TEXT,
    closed_session=st.none() | TEXT,
)
OUTCOMES = st.builds(
    Outcome,
    st.just(Kind.DEAD_LETTER),
    st.sampled_from(Reason),
    message=TEXT,
    detail=st.just("") | TEXT,
    status=st.none() | st.integers(0, 599),
    log_stream=st.none() | TEXT,
)


def event() -> Event:
    return Event(make_ledger(3), 7, b"device-17", b"1,2", [], 1_600_000_000_000, 0.0, 3)


def result(response: Response, *, as_envelope: bool = False) -> Outgoing:
    call = Call(Route("fraud"), "device-17", b"1,2", "text/csv", "text/csv")
    results = Results(format_named("csv"), as_envelope=as_envelope, event_time=False)
    (made,) = results.of([event()], call, response, [b"0"], 1_700_000_000_000)
    return made


def letter(outcome: Outcome, inference_id: str | None, variant: str | None) -> Outgoing:
    return dead_letter(
        event(), outcome, now_ms=1_700_000_000_000, attempts=2, inference_id=inference_id, variant=variant
    )


FULL = [
    (result(Response(b"", "text/csv", "v", "c", "n", "o")), On.RESULTS),
    (
        without_value(letter(Outcome(Kind.DEAD_LETTER, Reason.MODEL_ERROR, "m", "d", 500, "arn"), "device-17", "v"), 9),
        On.DEAD_LETTERS,
    ),
]


def claims_hold(outgoing: Outgoing, on: On) -> None:
    """The record has declared headers only, each at most once, and all that every such record has."""
    names = [name for name, _ in outgoing.headers]
    assert len(names) == len(set(names))
    assert {header.name for header in HEADERS if header.always and header.on in (on, On.BOTH)} <= set(names)
    for name, value in outgoing.headers:
        assert BY_NAME[name].on in (on, On.BOTH)
        assert re.fullmatch(BY_NAME[name].content.pattern, value), (name, value)


@given(RESPONSES, st.booleans())
def test_a_result_has_the_headers_that_are_declared_of_results(response: Response, as_envelope: bool) -> None:
    claims_hold(result(response, as_envelope=as_envelope), On.RESULTS)


@given(OUTCOMES, st.none() | st.just("device-17"), st.none() | TEXT, st.booleans())
def test_a_dead_letter_has_the_headers_that_are_declared_of_dead_letters(
    outcome: Outcome, inference_id: str | None, variant: str | None, too_large: bool
) -> None:
    made = letter(outcome, inference_id, variant)
    claims_hold(without_value(made, 2_000_000) if too_large else made, On.DEAD_LETTERS)


def test_no_header_is_declared_that_no_record_can_have() -> None:
    for outgoing, on in FULL:
        assert {name for name, _ in outgoing.headers} == {h.name for h in HEADERS if h.on in (on, On.BOTH)}


def test_a_result_replaces_exactly_the_headers_that_it_can_have() -> None:
    assert {header.name for header in HEADERS if header.on in (On.RESULTS, On.BOTH)} == OF_RESULTS


def test_every_example_is_one() -> None:
    assert len(BY_NAME) == len(HEADERS)
    for header in HEADERS:
        assert re.fullmatch(header.content.pattern, header.example.encode()), header.name
        assert header.sentence.endswith("."), header.name
