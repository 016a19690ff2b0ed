"""Bench: a Pipeline between ledgers, an endpoint that plays a script, and a sink that acknowledges when it is told to."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest import mock

import structlog

from connector.core.calls.call import Call, Failure, Reply, Response, Transport
from connector.core.calls.limiter import FixedLimiter
from connector.core.epochs.ledger import Ledger
from connector.core.event import Event
from connector.settings.load import parse
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problems
from connector.worker import pipeline as pipeline_module
from connector.worker.pipeline import Pipeline
from tests.unit.factories import make_ledger
from tests.unit.virtual_time import EPOCH, virtual_loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from connector.core.answers.outgoing import Outgoing

NEVER = math.inf
"""Seconds after which a reply or an acknowledgement never comes."""

THROTTLED = Failure(status=400)
UNAVAILABLE = Failure(code="ServiceUnavailable", status=503)
TIMED_OUT = Failure(transport=Transport.READ_TIMEOUT)
EXPIRED_TOKEN = Failure(code="ExpiredTokenException", status=403)
DENIED = Failure(code="AccessDeniedException", status=403, message="not authorized")
UNKNOWN_ENDPOINT = Failure(code="ValidationError", status=400, message="Endpoint x of account 1 not found.")
BAD_INPUT = Failure(code="ModelError", status=424, original_status=400, original_message="bad input")
BROKEN_MODEL = Failure(code="ModelError", status=424, original_status=500, log_stream="arn:log")


def ok(call: Call) -> Response:
    """One prediction a row: the row, and a `!`."""
    return Response(b"\n".join(row + b"!" for row in rows_of(call)), "text/csv", "blue")


def rows_of(call: Call) -> list[bytes]:
    """The payloads of a call."""
    return call.body.split(b"\n")


@dataclass(slots=True)
class Play:
    """What comes of one call: a reply, or an exception to raise, after some seconds.

    A stubborn one answers as if it had not been cancelled.
    """

    reply: Reply | Exception
    delay: float = 0.0
    stubborn: bool = False


Script = Callable[[Call], Play]


@dataclass(slots=True, eq=False)
class Seen:
    """A call that the endpoint has got, and when."""

    call: Call
    started: float
    ended: float | None = None
    cancelled: bool = False

    @property
    def rows(self) -> list[bytes]:
        """Its payloads."""
        return rows_of(self.call)


class Endpoint:
    """An Invoker that plays a script."""

    def __init__(
        self, script: Script, events: Mapping[bytes, Event], lane_of: Callable[[Event], object], *, legible: bool
    ) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.renewals = 0
        self.most_in_flight = 0
        self._events = events
        self._lane_of = lane_of
        self._legible = legible
        self._busy: Counter[object] = Counter()
        self._in_flight = 0

    @property
    def rows(self) -> list[list[bytes]]:
        """The payloads of each call, in the order in which they were started."""
        return [seen.rows for seen in self.seen]

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    async def renew_credentials(self) -> None:
        """Count it."""
        self.renewals += 1

    async def invoke(self, call: Call) -> Reply:
        """Play the script for this call."""
        loop = asyncio.get_running_loop()
        seen = Seen(call, loop.time())
        self.seen.append(seen)
        lanes = {self._lane_of(self._events[row]) for row in seen.rows} if self._legible else set()
        assert not any(self._busy[lane] for lane in lanes), "two calls in flight hold events of one lane"
        self._busy.update(lanes)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        play = self.script(call)
        try:
            until = loop.time() + play.delay
            while (left := until - loop.time()) > 0:
                try:
                    await (asyncio.sleep(left) if left < NEVER else asyncio.Event().wait())
                except asyncio.CancelledError:
                    seen.cancelled = True
                    if not play.stubborn:
                        raise
            if isinstance(play.reply, Exception):
                raise play.reply
            return play.reply
        finally:
            seen.ended = loop.time()
            self._busy.subtract(lanes)
            self._in_flight -= 1


class Topic:
    """A topic that acknowledges each append some seconds later: 0 at once, NEVER never."""

    def __init__(self, acknowledged: Callable[[list[Outgoing]], None], delay: float) -> None:
        self.delay = delay
        self.appended: list[Outgoing] = []
        self.times: list[float] = []
        """When each of them was appended."""
        self.pending: list[Outgoing] = []
        self._acknowledged = acknowledged
        self._empty = asyncio.Event()
        self._empty.set()

    def append(self, outgoings: Iterable[Outgoing]) -> None:
        """Take them, and acknowledge them after the delay."""
        loop = asyncio.get_running_loop()
        given = list(outgoings)
        if not given:
            return
        self.appended += given
        self.times += [loop.time()] * len(given)
        self.pending += given
        self._empty.clear()
        if self.delay < NEVER:
            loop.call_later(self.delay, self.acknowledge, given)

    def acknowledge(self, outgoings: Sequence[Outgoing]) -> None:
        """Say that the broker has these, those excepted that were discarded."""
        known = [outgoing for outgoing in outgoings if outgoing in self.pending]
        self.pending = [outgoing for outgoing in self.pending if outgoing not in known]
        if not self.pending:
            self._empty.set()
        self._acknowledged(known)

    async def flushed(self) -> None:
        """Wait until everything is acknowledged."""
        await self._empty.wait()

    def discard(self) -> None:
        """Forget what is not acknowledged."""
        self.pending.clear()
        self._empty.set()

    @property
    def payloads(self) -> list[bytes | None]:
        """The values of the events of all that was appended, in order."""
        return [outgoing.event.value for outgoing in self.appended]


class Bench:
    """A Pipeline with all that it touches; `settings` are sections as in a file, over settings for small batches.

    `legible` says that a line of a body is the value of an event, so that lanes can be told from calls.
    """

    def __init__(
        self, script: Script, *, acknowledge: float = 0.0, legible: bool = True, **settings: dict[str, Any]
    ) -> None:
        sections: dict[str, dict[str, Any]] = {
            "batch": {"max_events": 4, "linger": 0},
            "correlation": {"mode": "batch"},
            "concurrency": {"max_in_flight": 4},
        }
        for name, section in settings.items():
            sections[name] = {**sections.get(name, {}), **section}
        self.settings = parse(sections)
        self.loop = virtual_loop()
        self.metrics = Metrics(self.loop.time)
        self.problems = Problems()
        concurrency = self.settings.concurrency
        self.limiter = FixedLimiter(concurrency.max_in_flight, concurrency.max_bytes)
        self.events: dict[bytes, Event] = {}
        self.endpoint = Endpoint(script, self.events, self.lane_of, legible=legible)
        self.pipeline = Pipeline(self.settings, self.endpoint, self.limiter, self.metrics, self.problems)
        self.results = Topic(self.pipeline.published, acknowledge)
        self.dead_letters = Topic(self.pipeline.buried, acknowledge)
        self.rooms = 0
        self._room = asyncio.Event()
        self.pipeline.attach(self, self._on_room)
        self.loop.at_end.append(self.pipeline.forget)
        self.ledgers: dict[int, Ledger] = {}
        self._offsets: Counter[int] = Counter()

    # -- the sink ----------------------------------------------------------------------------------------------------

    def publish(self, results: list[Outgoing]) -> None:
        """Take results."""
        self.results.append(results)

    def bury(self, dead_letters: list[Outgoing]) -> None:
        """Take dead letters."""
        self.dead_letters.append(dead_letters)

    async def flushed(self) -> None:
        """Wait until everything is acknowledged."""
        await self.results.flushed()
        await self.dead_letters.flushed()

    def discard(self) -> None:
        """Forget what is not acknowledged."""
        self.results.discard()
        self.dead_letters.discard()

    @property
    def pending(self) -> int:
        """How many are not acknowledged."""
        return len(self.results.pending) + len(self.dead_letters.pending)

    def learn(self, topics: object) -> None:
        """Nothing to learn: everything fits."""

    async def run(self) -> None:
        """Nothing to do."""

    def _on_room(self) -> None:
        self.rooms += 1
        self._room.set()

    # -- the source --------------------------------------------------------------------------------------------------

    def deliver(
        self,
        *values: bytes,
        keys: Sequence[bytes | None] | bytes = (),
        partition: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
        age: float = 0.0,
    ) -> list[Event]:
        """Deliver events with these values, which are all different; without keys, each has a lane of its own.

        `keys` of bytes are keys of one byte each; `age` is the seconds since the events were produced.
        """
        ledger = self.ledgers.setdefault(partition, make_ledger(partition))
        given = [bytes([key]) for key in keys] if isinstance(keys, bytes) else [*keys] or [None] * len(values)
        events = []
        for value, key in zip(values, given, strict=True):
            offset = self._offsets[partition]
            self._offsets[partition] += 1
            timestamp = round((EPOCH + self.loop.time() - age) * 1000)
            size = len(value) + len(key or b"")
            event = Event(ledger, offset, key, value, headers, timestamp, self.loop.time(), size)
            assert ledger.deliver(event)
            self.events[value] = event
            events.append(event)
        self.pipeline.deliver(events)
        return events

    def consuming(self) -> bool:
        """Whether the source may fetch."""
        return self.pipeline.consuming

    def problem(self) -> str:
        """Why consuming is stopped, name and sentence; empty while it is not."""
        gravest = self.problems.gravest
        return "" if gravest is None else f"{gravest.problem}: {gravest.sentence}"

    def end_epochs(self) -> None:
        """Drop every ledger, and have its partition read from the first event that is not complete."""
        for partition, ledger in self.ledgers.items():
            position = ledger.committable or 0
            self._offsets[partition] = position
            self.ledgers[partition] = make_ledger(partition, ledger.epoch + 1, position)
            ledger.drop()
        self.pipeline.forget()

    def lane_of(self, event: Event) -> object:
        """What an event must stay in order with, itself when with nothing."""
        ordering = self.settings.kafka.ordering
        if ordering == "partition":
            return event.ledger
        if ordering == "key" and event.key is not None:
            return event.ledger, event.key
        return event

    # -- time --------------------------------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def complete(self, within: float = 3600.0) -> None:
        """Wait until every event is complete, then check that nothing is left behind."""
        await self.idle(within)
        self.check_that_nothing_is_left()

    async def idle(self, within: float = 3600.0) -> None:
        """Wait until every event is complete; a gate that is still closed keeps its timer."""
        async with asyncio.timeout(within):
            while not all(ledger.idle for ledger in self.ledgers.values()):
                self._room.clear()
                await self._room.wait()
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(10):
            await asyncio.sleep(0)

    # -- what was seen -----------------------------------------------------------------------------------------------

    @property
    def gaps(self) -> list[float]:
        """Seconds between the end of each call and the start of the next."""
        seen = self.endpoint.seen
        return [after.started - (before.ended or 0.0) for before, after in pairwise(seen)]

    @property
    def reasons(self) -> list[tuple[bytes | None, str]]:
        """Value and reason of each dead letter, in the order of their values."""
        return sorted((letter.value or b"", str(letter.reason)) for letter in self.dead_letters.appended)

    def calls_by_outcome(self) -> dict[tuple[str, str], int]:
        """The metric `calls`, by outcome and reason."""
        return {
            (sample.labels["outcome"], sample.labels["reason"]): int(sample.value)
            for metric in self.metrics.calls.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def check_that_nothing_is_left(self) -> None:
        """Check that slots, bytes, batches, timers and ledgers are as at the start."""
        assert (self.limiter.in_flight, self.limiter.bytes_in_flight) == (0, 0)
        assert self.pipeline._batcher.empty
        assert not self.pipeline._calls
        assert self.pipeline._timer is None
        assert self.loop.timers == 0
        assert not self.pipeline._held
        for partition, ledger in self.ledgers.items():
            assert (ledger.bytes, ledger.unfinished, ledger.uncommittable) == (0, 0, 0)
            assert ledger.committable == self._offsets[partition]
        for stopwatch in (self.metrics.calling, self.metrics.waiting_for_slot):
            assert stopwatch.seconds(0.0) == stopwatch.seconds(1e6), "a stopwatch still runs"


@contextmanager
def simulated(chance: float | None = None, *, seed: int = 0) -> Iterator[list[Any]]:
    """Give the pipeline the loop's clock and dice of our own, and collect its log; `chance` is what every throw gives."""
    dice = random.Random(seed)
    if chance is not None:
        dice.random = lambda: chance  # type: ignore[method-assign]
    with (
        mock.patch.object(pipeline_module, "time", virtual_loop().clock),
        mock.patch.object(pipeline_module, "random", dice),
        structlog.testing.capture_logs() as lines,
    ):
        yield lines
