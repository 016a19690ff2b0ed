"""Checks: what must hold between the events of a run and what came out, as pure functions.

Each yields a `Problem` for every violation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from connector.local.endpoint.captures import Capture


class Kind(StrEnum):
    """What is broken."""

    LOST = "lost"
    WRONG = "wrong"
    BURIED = "good events dead-lettered"
    DISORDERED = "out of order"
    MISNAMED = "wrong InferenceId"
    REPEATED = "repeated"
    UNCOMMITTED = "not committed at the end"
    UNCLEAN = "unclean exit"
    LARGE = "too much memory"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Problem:
    """One violation, in a sentence."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as the input topic holds it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    poison: bool = False
    """Whether it must be dead-lettered, whatever for."""
    oversized: bool = False
    """Whether its dead letter may be too large to have its value."""

    @property
    def place(self) -> str:
        """Its coordinates, as `inference-source` has them."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A result or a dead letter; `place` is the event it says it is of, `partition` and `offset` are its own."""

    place: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    def text(self, header: str) -> str:
        """A header as text, empty when it is missing."""
        return self.headers.get(header, b"").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended that was asked to; `calm` when Kafka and the endpoint were within reach."""

    process: int
    code: int | None
    seconds: float
    calm: bool


def nothing_is_lost(events: Iterable[Sent], results: Iterable[Answer], letters: Iterable[Answer]) -> Iterator[Problem]:
    """Every event has a result or a dead letter."""
    answered = {answer.place for answers in (results, letters) for answer in answers}
    for event in events:
        if event.place not in answered:
            yield Problem(Kind.LOST, f"{event.place} ({event.value!r}) has no answer")


def answers_belong_to_their_events(
    events: Iterable[Sent], results: Iterable[Answer], letters: Iterable[Answer]
) -> Iterator[Problem]:
    """An answer has the key of its event, and the value that only its event can have.

    A dead letter may say that an oversized event's value was dropped.
    """
    by_place = {event.place: event for event in events}
    for what, answers in (("result", results), ("dead letter", letters)):
        for answer in answers:
            event = by_place.get(answer.place)
            if event is None:
                yield Problem(Kind.WRONG, f"a {what} is of {answer.place}, which is no event")
            elif (answer.key, answer.value) != (event.key, event.value) and not (
                answers is letters and _has_dropped_its_value(answer, event)
            ):
                yield Problem(
                    Kind.WRONG,
                    f"the {what} of {answer.place} ({event.key!r}: {event.value!r}) is {answer.key!r}: {answer.value!r}",
                )


def _has_dropped_its_value(letter: Answer, event: Sent) -> bool:
    named = bool(letter.text("inference-value-dropped"))
    return event.oversized and named and (letter.key, letter.value) == (event.key, None)


def only_poison_is_dead_lettered(
    events: Iterable[Sent], results: Iterable[Answer], letters: Iterable[Answer]
) -> Iterator[Problem]:
    """No good event is dead-lettered, and no poison has a result."""
    poison = {event.place for event in events if event.poison}
    for letter in letters:
        if letter.place not in poison:
            reason, message = letter.text("inference-error"), letter.text("inference-error-message")
            yield Problem(Kind.BURIED, f"{letter.place} was dead-lettered: {reason}, {message}")
    for result in results:
        if result.place in poison:
            yield Problem(Kind.WRONG, f"{result.place} is poison, and has a result")


def first_results_are_in_order(events: Iterable[Sent], results: Iterable[Answer]) -> Iterator[Problem]:
    """First results of one key come in the order of its events, for those that share an input partition."""
    by_place = {event.place: event for event in events}
    last: dict[tuple[bytes, int], int] = {}
    seen: set[str] = set()
    homes: dict[bytes, int] = {}
    for result in sorted(results, key=lambda one: (one.partition, one.offset)):
        event = by_place.get(result.place)
        if event is None or event.key is None or result.place in seen:
            continue
        seen.add(result.place)
        if homes.setdefault(event.key, result.partition) != result.partition:
            yield Problem(Kind.DISORDERED, f"results of {event.key!r} are in two partitions")
        lane = (event.key, event.partition)
        if event.offset < last.get(lane, -1):
            yield Problem(Kind.DISORDERED, f"{result.place} of {event.key!r} comes after offset {last[lane]}")
        last[lane] = max(event.offset, last.get(lane, -1))


def ids_are_right(events: Iterable[Sent], results: Iterable[Answer], mode: str) -> Iterator[Problem]:
    """In mode `key` an id is its event's key, or its coordinates; in mode `batch` the digest of its call's events."""
    by_place = {event.place: event for event in events}
    calls: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for result in results:
        event, given = by_place.get(result.place), result.text("inference-id")
        if event is None:
            continue
        if mode == "batch":
            calls[given, result.text("inference-batch-size")][int(result.text("inference-batch-index") or -1)] = (
                result.place
            )
            continue
        coordinates = f"{event.topic}-{event.partition}-{event.offset}"
        expected = event.key.decode() if event.key else coordinates
        if given != expected:
            yield Problem(Kind.MISNAMED, f"the id of {result.place} is {given!r}, not {expected!r}")
    for (given, size), rows in calls.items():
        places = [rows[index] for index in sorted(rows)]
        digest = sha256("\n".join(places).encode()).hexdigest()[:40]
        # Without all of its rows a call's id cannot be computed; they are missing only where something was lost.
        if str(len(rows)) == size and given != f"b-{digest}":
            yield Problem(Kind.MISNAMED, f"the id of the call with {places[0]} is {given!r}, not 'b-{digest}'")


def captures_tell_the_same(
    events: Iterable[Sent], results: Iterable[Answer], captures: Iterable[Capture]
) -> Iterator[Problem]:
    """The call that a result names was captured with its InferenceId, and has the event in the row that it names."""
    values = {event.place: event.value for event in events}
    known: dict[tuple[str, str | None], list[bytes]] = {}
    for capture in captures:
        body = capture.input or b""
        known[sha256(body).hexdigest()[:16], capture.inference_id] = body.split(b"\n")
    for result in results:
        rows = known.get((result.text("inference-call"), result.text("inference-id")))
        index, size = result.text("inference-batch-index"), result.text("inference-batch-size")
        if rows is None:
            yield Problem(Kind.MISNAMED, f"{result.place} names a call that was not captured")
        elif str(len(rows)) != size or rows[int(index or 0)] != values.get(result.place):
            yield Problem(Kind.MISNAMED, f"{result.place} is not in row {index} of the call that it names")


def count_repeats(*answers: Iterable[Answer]) -> int:
    """How many answers are of an event that had one before, results and dead letters together."""
    counts = Counter(answer.place for some in answers for answer in some)
    return sum(count - 1 for count in counts.values())


def repeats_are_bounded(repeats: int, bound: int) -> Iterator[Problem]:
    """No more answers are repeated than the scenario allows."""
    if repeats > bound:
        yield Problem(Kind.REPEATED, f"{repeats} answers are repeated, of at most {bound}")


def everything_is_committed(events: Iterable[Sent], committed: Mapping[int, int]) -> Iterator[Problem]:
    """After clean exits the group stands behind the last event of each partition, and no further."""
    ends: dict[int, int] = {}
    for event in events:
        ends[event.partition] = max(ends.get(event.partition, 0), event.offset + 1)
    for partition, end in ends.items():
        if committed.get(partition) != end:
            yield Problem(
                Kind.UNCOMMITTED, f"partition {partition} is committed at {committed.get(partition)}, and ends at {end}"
            )


def exits_are_clean(exits: Sequence[Exit], drain: float) -> Iterator[Problem]:
    """A process that is asked to end does so within its drain and 2 s, with code 0; 1 where it was cut off."""
    for one in exits:
        allowed = (0,) if one.calm else (0, 1)
        if one.code not in allowed or one.seconds > drain + 2:
            how = "did not end" if one.code is None else f"ended with {one.code}"
            yield Problem(Kind.UNCLEAN, f"process {one.process} {how} after {one.seconds:.1f} s")


def memory_is_bounded(peaks: Mapping[int, float], mebibytes: float) -> Iterator[Problem]:
    """No process had more resident memory than allowed, both in MiB."""
    for process, peak in peaks.items():
        if peak > mebibytes:
            yield Problem(Kind.LARGE, f"process {process} had {peak:.0f} MiB, of at most {mebibytes:.0f}")
