"""The chaos suite's checks: each says nothing about a right run, and speaks about a wrong one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.local.endpoint.captures import Capture
from tests.chaos import checks
from tests.chaos.checks import Answer, Exit, Kind, Problem, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable


def make_events(count: int = 12, keys: int = 3, partitions: int = 2) -> list[Sent]:
    """Events over keys, and a key over one partition."""
    return [
        Sent("in", number % keys % partitions, number, b"key-%d" % (number % keys), b"%d,7" % number)
        for number in range(count)
    ]


def answer(event: Sent, position: int, **headers: str) -> Answer:
    """The right answer to an event, at a position of the output partition that has its number."""
    given = {"inference-id": (event.key or b"").decode(), "inference-source": event.place} | headers
    encoded = {name: text.encode() for name, text in given.items()}
    return Answer(event.place, event.partition, position, event.key, event.value, encoded)


def make_results(events: Iterable[Sent]) -> list[Answer]:
    """A right result for each event, in order."""
    return [answer(event, position) for position, event in enumerate(events)]


def kinds(problems: Iterable[Problem]) -> list[Kind]:
    return [problem.kind for problem in problems]


EVENTS = make_events()
RESULTS = make_results(EVENTS)


@given(st.integers(0, 11))
def test_an_event_without_an_answer_is_lost(missing: int) -> None:
    assert not list(checks.nothing_is_lost(EVENTS, RESULTS, []))
    others = [*RESULTS[:missing], *RESULTS[missing + 1 :]]
    assert kinds(checks.nothing_is_lost(EVENTS, others, [])) == [Kind.LOST]
    assert not list(checks.nothing_is_lost(EVENTS, others, [RESULTS[missing]]))


@given(st.integers(0, 11), st.integers(0, 11))
def test_a_result_with_the_value_of_another_event_is_wrong(at: int, other: int) -> None:
    swapped = [*RESULTS]
    swapped[at] = replace(RESULTS[at], value=EVENTS[other].value)
    expected = [] if at == other else [Kind.WRONG]
    assert kinds(checks.answers_belong_to_their_events(EVENTS, swapped, [])) == expected


@pytest.mark.parametrize(
    "changed", [{"key": b"another"}, {"key": None}, {"value": None}, {"place": "in/0/99"}, {"place": ""}]
)
def test_a_dead_letter_must_be_its_event_untouched(changed: dict[str, bytes]) -> None:
    assert not list(checks.answers_belong_to_their_events(EVENTS, [], RESULTS))
    letter = replace(RESULTS[0], **changed)  # type: ignore[arg-type]
    assert kinds(checks.answers_belong_to_their_events(EVENTS, [], [letter])) == [Kind.WRONG]


@pytest.mark.parametrize("oversized", [False, True])
@pytest.mark.parametrize("header", ["", "the dead letter is too large"])
@pytest.mark.parametrize("value", [None, EVENTS[0].value, b"another"])
def test_a_dead_letter_may_lack_its_value_only_when_it_says_so_and_its_event_is_oversized(
    oversized: bool, header: str, value: bytes | None
) -> None:
    events = [replace(EVENTS[0], oversized=oversized)]
    letter = replace(answer(EVENTS[0], 0, **{"inference-value-dropped": header}), value=value)
    right = value == EVENTS[0].value or (value is None and oversized and header != "")
    assert kinds(checks.answers_belong_to_their_events(events, [], [letter])) == ([] if right else [Kind.WRONG])
    if value is None:
        assert kinds(checks.answers_belong_to_their_events(events, [letter], [])) == [Kind.WRONG]


def test_poison_is_dead_lettered_and_nothing_else_is() -> None:
    events = [replace(EVENTS[0], poison=True), *EVENTS[1:]]
    assert not list(checks.only_poison_is_dead_lettered(events, RESULTS[1:], RESULTS[:1]))
    (problem,) = checks.only_poison_is_dead_lettered(events, RESULTS[2:], RESULTS[:2])
    assert problem.kind is Kind.BURIED
    assert RESULTS[1].place in problem.text
    assert kinds(checks.only_poison_is_dead_lettered(events, RESULTS, RESULTS[:1])) == [Kind.WRONG]


@given(st.permutations(range(12)))
def test_the_first_results_of_a_key_must_be_in_order_and_those_of_different_keys_need_not(order: list[int]) -> None:
    results = [answer(EVENTS[number], position) for position, number in enumerate(order)]
    # Within an output partition only: a key's results share one.
    by_key = [[number for number in order if number % 3 == key] for key in range(3)]
    in_order = all(numbers == sorted(numbers) for numbers in by_key)
    assert (not list(checks.first_results_are_in_order(EVENTS, results))) is in_order


def test_a_repeated_result_may_come_late() -> None:
    late = [*RESULTS, replace(RESULTS[0], offset=100)]
    assert not list(checks.first_results_are_in_order(EVENTS, late))


def test_order_is_not_expected_across_input_partitions_nor_without_a_key() -> None:
    moved = [Sent("in", 0, 5, b"k", b"1,7"), Sent("in", 1, 0, b"k", b"2,7")]
    results = [replace(answer(event, position), partition=0) for position, event in enumerate(reversed(moved))]
    assert not list(checks.first_results_are_in_order(moved, results))
    keyless = [replace(event, key=None) for event in EVENTS]
    assert not list(checks.first_results_are_in_order(keyless, make_results(reversed(keyless))))


def test_the_results_of_a_key_are_in_one_partition() -> None:
    results = [*RESULTS[:-1], replace(RESULTS[-1], partition=7)]
    assert Kind.DISORDERED in kinds(checks.first_results_are_in_order(EVENTS, results))


@given(st.integers(0, 11))
def test_in_mode_key_an_id_is_the_key_or_the_coordinates(at: int) -> None:
    keyless = [replace(event, key=None) if number == at else event for number, event in enumerate(EVENTS)]
    coordinates = "-".join(keyless[at].place.split("/"))
    results = make_results(keyless)
    assert kinds(checks.ids_are_right(keyless, results, "key")) == [Kind.MISNAMED]
    results[at] = answer(keyless[at], at, **{"inference-id": coordinates})
    assert not list(checks.ids_are_right(keyless, results, "key"))


def batch(events: list[Sent], inference_id: str | None = None) -> list[Answer]:
    """The results of one call of mode `batch`, whose body the emulator would have seen."""
    digest = sha256("\n".join(event.place for event in events).encode()).hexdigest()
    headers = {
        "inference-id": inference_id or f"b-{digest[:40]}",
        "inference-batch-size": str(len(events)),
        "inference-call": sha256(body(events)).hexdigest()[:16],
    }
    return [answer(event, at, **headers, **{"inference-batch-index": str(at)}) for at, event in enumerate(events)]


def body(events: list[Sent]) -> bytes:
    return b"\n".join(event.value or b"" for event in events)


def capture(events: list[Sent], inference_id: str) -> Capture:
    return Capture("model", "blue", "e", datetime.now(UTC), inference_id=inference_id, input=body(events))


def test_in_mode_batch_an_id_is_the_digest_of_the_events_of_its_call() -> None:
    assert not list(checks.ids_are_right(EVENTS, batch(EVENTS[:5]), "batch"))
    other = batch(EVENTS[:6])[0].text("inference-id")
    assert kinds(checks.ids_are_right(EVENTS, batch(EVENTS[:5], other), "batch")) == [Kind.MISNAMED]


def test_the_call_that_a_result_names_was_captured_with_the_event_in_its_row() -> None:
    results = batch(EVENTS[:5])
    right = capture(EVENTS[:5], results[0].text("inference-id"))
    assert not list(checks.captures_tell_the_same(EVENTS, results, [right]))
    assert len(list(checks.captures_tell_the_same(EVENTS, results, []))) == 5
    assert len(list(checks.captures_tell_the_same(EVENTS, results, [replace(right, inference_id="other")]))) == 5
    turned = [replace(results[0], headers={**results[0].headers, "inference-batch-index": b"1"})]
    assert kinds(checks.captures_tell_the_same(EVENTS, turned, [right])) == [Kind.MISNAMED]


@given(st.lists(st.sampled_from(RESULTS)), st.lists(st.sampled_from(RESULTS)))
def test_repeats_are_counted_over_results_and_dead_letters(results: list[Answer], letters: list[Answer]) -> None:
    both = [*results, *letters]
    repeats = checks.count_repeats(results, letters)
    assert repeats == len(both) - len({one.place for one in both})
    assert not list(checks.repeats_are_bounded(repeats, repeats))
    assert kinds(checks.repeats_are_bounded(repeats + 1, repeats)) == [Kind.REPEATED]


@pytest.mark.parametrize("committed", [{0: 12}, {0: 12, 1: 10}, {0: 12, 1: 12}, {}])
def test_the_group_stands_behind_the_last_event_of_each_partition(committed: dict[int, int]) -> None:
    assert not list(checks.everything_is_committed(EVENTS, {0: 12, 1: 11}))
    assert Kind.UNCOMMITTED in kinds(checks.everything_is_committed(EVENTS, committed))


@pytest.mark.parametrize("code", [1, 2, -9, -15, None])
def test_a_process_ends_in_time_and_with_code_0(code: int | None) -> None:
    assert not list(checks.exits_are_clean([Exit(0, 0, 7.9, calm=True)], 6))
    assert kinds(checks.exits_are_clean([Exit(0, 0, 8.1, calm=True)], 6)) == [Kind.UNCLEAN]
    assert kinds(checks.exits_are_clean([Exit(0, code, 1.0, calm=True)], 6)) == [Kind.UNCLEAN]
    in_an_outage = kinds(checks.exits_are_clean([Exit(0, code, 1.0, calm=False)], 6))
    assert in_an_outage == ([] if code == 1 else [Kind.UNCLEAN])


def test_memory_has_a_bound() -> None:
    assert not list(checks.memory_is_bounded({0: 99.0, 1: 100.0}, 100))
    assert kinds(checks.memory_is_bounded({0: 99.0, 1: 101.0}, 100)) == [Kind.LARGE]
