"""Pipeline: the asyncio shell that drives the pure core, from delivered events to completed ones.

Everything but the calls themselves happens in plain methods, so that nothing comes between a decision and what follows
from it. `_pump` starts calls for as long as slots are free; `_conclude` is the end of every call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from connector.core.answers import headers
from connector.core.answers.dead_letter import dead_letter
from connector.core.answers.held import Held, Letter
from connector.core.answers.result import Results
from connector.core.batches.batcher import Batcher, BatchPolicy, Ordering
from connector.core.calls import outcome as outcomes
from connector.core.calls.call import Call, Failure, Response
from connector.core.calls.gate import Gate
from connector.core.calls.guard import Guard
from connector.core.calls.halt import Halt
from connector.core.calls.outcome import Kind, Outcome
from connector.core.calls.retry import RetryPolicy
from connector.core.calls.signature import Signature
from connector.core.formats.body_format import Answer
from connector.core.formats.known import KnownModels
from connector.core.reason import Reason
from connector.core.routes.inference_id import batch_id
from connector.core.routes.router import Router
from connector.errors import MalformedResponse
from connector.telemetry import log
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from connector.core.answers.outgoing import Outgoing
    from connector.core.batches.batch import Batch
    from connector.core.calls.call import Reply
    from connector.core.calls.limiter import Limiter, Slot
    from connector.core.event import Event, Route
    from connector.core.formats.body_format import Body
    from connector.endpoint.invoker import Invoker
    from connector.kafka.sink.protocol import Sink
    from connector.settings import Settings
    from connector.telemetry.metrics import Metrics
    from connector.telemetry.problems import Problems

_ROUTES_COUNTED = 4096
"""Routes whose successes are remembered; headers can make any number."""
_GROWTH = 0.05
"""How much each call's results count in the average of their size."""
_QUIET = 10.0
"""Seconds between two log lines about calls that fail for the same reason."""
_TOLD = frozenset({headers.INFERENCE_ID, headers.VARIANT})
"""What a dead letter repeats of a result that was too large; a result holds no header of its event by these names."""
_CANCEL_LIMIT = 1.0
"""Seconds that cancelled calls are waited for; what they bring later is ignored."""


class Pipeline:
    """Batches delivered events, calls the endpoint, and hands results and dead letters to the sink."""

    def __init__(
        self, settings: Settings, invoker: Invoker, limiter: Limiter, metrics: Metrics, problems: Problems
    ) -> None:
        self._settings = settings
        self._invoker = invoker
        self._limiter = limiter
        self._metrics = metrics
        self._problems = problems
        self._log = structlog.get_logger("connector.pipeline")
        own_ids = settings.correlation.mode == "key"
        batch, self._format = settings.batch, settings.request.body_format()
        fmt = self._format
        self._batcher = Batcher(
            BatchPolicy(
                max_events=min(batch.max_events, fmt.max_rows or batch.max_events),
                max_bytes=batch.max_bytes,
                linger=batch.linger,
                one_id=own_ids,
                ordering=Ordering(settings.kafka.ordering),
                overhead=fmt.overhead,
                row_overhead=fmt.row_overhead,
                max_calls=settings.bisect.max_calls,
            )
        )
        endpoint = settings.endpoint
        self._router = Router(
            endpoint.name, endpoint.members(), fmt, settings.request.payload, batch.max_bytes, own_ids=own_ids
        )
        self._retry_policy = RetryPolicy(settings.retry.initial, settings.retry.max, settings.retry.max_age)
        self._results = Results(
            fmt, as_envelope=settings.result.envelope, event_time=settings.result.timestamp == "event"
        )
        self._gate = Gate(Guard(settings.dead_letter.window, settings.dead_letter.max_ratio), Halt())
        self._known = KnownModels()
        self._sink: Sink
        self._room: Callable[[], None]
        self._calls: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._successes: Counter[Route] = Counter()
        self._held = Held()
        self._signature = Signature()
        self.growth = 0.0
        """Bytes of results for each byte of events, of late."""
        self.progress = 0
        """A number that grows whenever events come, calls end, or the broker has acknowledged something."""
        self._starved = False
        self._draining = False
        self._era = 0
        self._quiet_until: dict[tuple[Kind, Reason], float] = {}

    def attach(self, sink: Sink, room: Callable[[], None]) -> None:
        """Name the sink, and what to call when room was made or consuming stopped or goes on."""
        self._sink = sink
        self._room = room

    @property
    def consuming(self) -> bool:
        """Whether events may be fetched: while the gate is closed, only to have something to probe with."""
        if self._draining:
            return False
        return not self._gate.closed or (not self._calls and self._batcher.empty)

    def state(self) -> dict[str, object]:
        """What it is doing, for a person who must find out why nothing moves."""
        return {
            "calls": len(self._calls),
            "limit": self._limiter.why,
            "starved": self._starved,
            "draining": self._draining,
            "held_dead_letters": len(self._held),
            **self._batcher.state(),
        }

    # -- events in ---------------------------------------------------------------------------------------------------

    def deliver(self, events: list[Event]) -> None:
        """Take the events of one partition, in order; those that cannot be batched become dead letters at once."""
        self.progress += 1
        admit = self._router.admit
        admitted: list[Event] = []
        for event in events:
            refusal = admit(event)
            if refusal is None:
                admitted.append(event)
            else:
                self._bury([event], outcomes.unanswerable(refusal.reason, refusal.message))
        self._batcher.add(admitted)
        self._pump()

    # -- calls -------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start calls for as long as batches are due and slots are free, and set the timer for what falls due later."""
        now = time.monotonic()
        batcher, limiter = self._batcher, self._limiter
        starved = False
        batcher.ripen(now)
        while (chosen := self._next(now)) is not None:
            if not limiter.free(chosen.size):
                starved = True
                break
            batch = self._gate.take(batcher, chosen)
            if batch.parent is None and batch.started == 1:
                self._metrics.queue_seconds.observe(now - batch.oldest)
            task = asyncio.create_task(self._call(batch))
            self._calls.add(task)
            task.add_done_callback(partial(self._ended, limiter.start(batch.size, now), self._era))
        self._let_one_go(now)
        if starved is not self._starved:
            self._starved = starved
            (self._metrics.waiting_for_slot.start if starved else self._metrics.waiting_for_slot.stop)(now)
        self._set_timer(now)

    def _next(self, now: float) -> Batch | None:
        """The batch to call next; a drain makes no probes."""
        return None if self._draining and self._gate.closed else self._gate.choose(self._batcher, now)

    def _let_one_go(self, now: float) -> None:
        """Publish one held dead letter when the guard is due for a probe and has nothing that could be called."""
        guard = self._gate.guard
        if self._only_held and guard.probe_due(now):
            guard.probe_started()
            guard.probe_rejected(now)
            self._let_go(self._held.release())

    @property
    def _only_held(self) -> bool:
        """Whether held dead letters are all there is: none of them leaves by the outcome of a call."""
        return self._gate.guard.tripped and bool(self._held) and not self._calls and self._batcher.empty

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The pump runs when events come, when a call ends, and at this timer, which is only for what falls due by the
        # passing of time alone. A timer for something that is due already would fire at once, change nothing, and be set
        # again: a core at its limit until a call ends. There are three ways into that, each with a way out:
        #
        # 1. Every slot is taken. A batch is due and gets none; the end of a call frees one, and pumps (`_ended`). So there
        #    is no timer while `_starved`.
        # 2. The gate is closed, and its probe is out or was given a moment ago. Batches are due, and none may be called;
        #    the end of the probe pumps. So only the moment of the next probe counts, and not the batcher's.
        # 3. The gate is closed, and its probe is due but has nothing to try. It waits for a batch, and that for its linger
        #    or its backoff: the batcher's moment, if it is still to come. If it is not, only events or a call bring one.
        #
        # And one way into waiting for ever: held dead letters are all there is, and the halt waits for a batch which only
        # their release would bring. Then the guard's probes count, which let one of them go at a time (`_let_one_go`).
        at = self._batcher.wake_at()
        if self._gate.closed:
            probe_at = self._gate.guard.next_probe_at if self._only_held else self._gate.wake_at()
            if probe_at is None or probe_at > now:
                at = probe_at
            elif at is not None and at <= now:
                at = None
        if at is not None and not self._starved:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._pump)

    async def _call(self, batch: Batch) -> Reason | None:
        """Make one call and conclude it; gives the reason of its outcome, None when it broke or came too late."""
        era, metrics = self._era, self._metrics
        events = batch.events
        inference_id = self._inference_id(batch)
        started = now = time.monotonic()
        metrics.calling.start(started)
        try:
            body = self._format.join([event.payload for event in events])
            call = Call(batch.route, inference_id, body.data, body.content_type, self._format.accept)
            reply = await self._invoker.invoke(call)
            now = time.monotonic()
            metrics.call_seconds.observe(now - started)
            metrics.batch_events.observe(len(events))
            return self._conclude(batch, body, call, reply, now) if era == self._era else None
        except Exception as error:  # noqa: BLE001
            # A fault of ours: the batch is kept, and the log has the traceback; the error's own text may repeat a payload.
            shown = {"exc_info": error} if self._settings.log.payloads else {"exception": log.traceback_of(error)}
            self._log.error(LogEvent.CALL_BROKE, batch_id=batch.number, inference_id=inference_id, **shown)
            if era == self._era:
                if self._gate.is_probe(batch):
                    self._gate.abandoned(now)
                batch.attempts[Reason.SERVICE_UNAVAILABLE] += 1
                self._retry(batch, Outcome(Kind.RETRY, Reason.SERVICE_UNAVAILABLE, type(error).__name__))
            return None
        finally:
            metrics.calling.stop(time.monotonic())

    def _inference_id(self, batch: Batch) -> str:
        """What a call of this batch carries: the id that its events share, or one of its own."""
        return batch.events[0].inference_id or batch_id(
            (event.ledger.topic, event.ledger.partition, event.offset) for event in batch.events
        )

    def _ended(self, slot: Slot, era: int, task: asyncio.Task[Reason | None]) -> None:
        """Give the slot of a call back, whatever became of it: one that is cancelled before its first step runs nothing."""
        self.progress += 1
        self._calls.discard(task)
        self._limiter.finish(slot, None if task.cancelled() else task.result(), time.monotonic())
        # A drain that has cancelled its calls makes no others; but events of a later era may wait for this slot.
        if era == self._era or not self._draining:
            self._pump()

    def _conclude(self, batch: Batch, body: Body, call: Call, reply: Reply, now: float) -> Reason:
        """Do what the end of a call means; gives the reason of its outcome."""
        predictions: list[bytes] = []
        if isinstance(reply, Response):
            try:
                answer, known = Answer(reply.body, reply.content_type), self._known.of(batch.route.model)
                predictions = self._format.split(answer, body, known)
                outcome = outcomes.OK
            except MalformedResponse as error:
                outcome = outcomes.mismatch(error, len(batch.events))
        else:
            outcome = self._decide(batch, reply)
        self._metrics.calls.labels(outcome.kind.value, outcome.reason.value).inc()
        self._look_at_signature(outcome, now)
        probe = self._gate.is_probe(batch)
        opened = self._gate.concluded(batch, outcome, now)
        if opened or self._gate.closed:
            self._say_why()
        if outcome.kind is Kind.OK and isinstance(reply, Response):
            self._publish(batch, call, reply, predictions, now)
        elif outcome.kind is Kind.DEAD_LETTER:
            variant = reply.variant if isinstance(reply, Response) else None
            self._bury(
                batch.events,
                outcome,
                attempts=batch.tries,
                inference_id=call.inference_id,
                variant=variant,
                held=not probe,
            )
            self._batcher.answered(batch)
        else:
            self._try_again(batch, outcome, now)
        if opened:
            self._log.info(LogEvent.RESUMED)
            while self._held:
                self._let_go(self._held.release())
            self._room()
        return outcome.reason

    def _decide(self, batch: Batch, failure: Failure) -> Outcome:
        successes = self._successes[batch.route]
        if batch.mark is None:
            batch.mark = successes
        outcome = outcomes.decide(
            failure,
            rows=len(batch.events),
            attempts=batch.attempts,
            succeeded_meanwhile=successes > batch.mark,
            from_headers=batch.route.from_headers,
            dead_letter_timeouts=self._settings.dead_letter.timeouts,
        )
        batch.attempts[outcome.reason] += 1
        return outcome

    def _publish(self, batch: Batch, call: Call, response: Response, predictions: list[bytes], now: float) -> None:
        events = batch.events
        if len(self._successes) > _ROUTES_COUNTED:
            self._successes.clear()
        self._successes[batch.route] += len(events)
        results = self._results.of(events, call, response, predictions, time.time_ns() // 1_000_000)
        attempts = batch.tries
        asked = answered = 0
        for event, prediction in zip(events, predictions, strict=True):
            size = len(prediction)
            asked += event.size
            answered += size
            event.attempts = attempts
            event.ledger.answered(event, size)
        self.growth += _GROWTH * (answered / max(1, asked) - self.growth)
        self._sink.publish(results)
        self._batcher.answered(batch)
        self._tripped(self._gate.guard.answered(len(events), now))

    def _try_again(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Call the events of a batch again: all of them after a backoff, or its halves."""
        if outcome.kind is not Kind.HALT:
            self._say(batch, outcome, now)
        if self._draining and outcome.kind is not Kind.SPLIT:
            return  # the next owner reads it again
        if outcome.kind is Kind.SPLIT:
            self._batcher.split(batch)
        elif outcome.kind is Kind.HALT:
            self._batcher.retry(batch, now)
            if outcome.reason in (Reason.ACCESS_DENIED, Reason.CREDENTIALS):
                self._renew_credentials()  # that there are better ones may be how it is mended
            if self._gate.halt.begin(outcome.reason.value, outcome.message, now):
                self._log.error(LogEvent.HALTED, reason=outcome.reason.value, problem=outcome.message)
            self._say_why()
            self._room()
        else:
            self._retry(batch, outcome)

    def _retry(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.reason is Reason.CREDENTIALS:
            self._renew_credentials()
        kept = self._expire(batch, outcome)
        if kept is not None:
            wait = self._retry_policy.wait(kept, outcome.reason, random.random())  # noqa: S311
            self._batcher.retry(kept, time.monotonic() + wait)

    def _renew_credentials(self) -> None:
        renewal = asyncio.create_task(self._invoker.renew_credentials())
        self._calls.add(renewal)
        renewal.add_done_callback(self._calls.discard)

    def _expire(self, batch: Batch, outcome: Outcome) -> Batch | None:
        """Dead-letter the events of a batch that are too old to be called again; gives what is left of it."""
        expired, rest = self._retry_policy.by_age(batch, time.time() * 1000)
        if not expired:
            return batch
        message = f"The event is older than retry.max_age; the last failure was {outcome.reason}: {outcome.message}"
        self._bury(
            expired,
            outcomes.unanswerable(Reason.EXPIRED, message),
            attempts=batch.tries,
            inference_id=self._inference_id(batch),
        )
        if not rest:
            self._batcher.answered(batch)
            return None
        old, kept = self._batcher.cut(batch, expired, rest)
        self._batcher.answered(old)
        return kept

    # -- what leaves -------------------------------------------------------------------------------------------------

    def _bury(
        self,
        events: Iterable[Event],
        outcome: Outcome,
        *,
        attempts: int = 0,
        inference_id: str | None = None,
        variant: str | None = None,
        held: bool = True,
    ) -> None:
        """Make dead letters of events; while the guard has tripped they are held, but for the probe's."""
        now, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        for event in events:
            outgoing = dead_letter(
                event, outcome, now_ms=now_ms, attempts=attempts, inference_id=inference_id, variant=variant
            )
            event.ledger.answered(event)
            self._tripped(self._gate.guard.dead_lettered(outcome.reason, 1, now))
            letter = Letter(outgoing, attempts, inference_id, outcome.message)
            if held and self._gate.guard.tripped:
                self._held.hold(letter)
            else:
                self._let_go(letter)

    def _let_go(self, letter: Letter) -> None:
        """Publish a dead letter, and log it."""
        outgoing, event = letter.outgoing, letter.outgoing.event
        self._sink.bury([outgoing])
        self._log.warning(
            LogEvent.DEAD_LETTERED,
            topic=event.ledger.topic,
            partition=event.ledger.partition,
            offset=event.offset,
            key=event.key,
            inference_id=letter.inference_id,
            attempt=letter.attempts,
            reason=outgoing.reason,
            problem=letter.problem,
            **({"payload": event.value} if self._settings.log.payloads else {}),
        )

    def _tripped(self, just_now: bool) -> None:
        if just_now:
            self._log.error(LogEvent.GUARD_TRIPPED, problem=self._gate.guard.hint)
            self._say_why()
            self._room()

    def published(self, results: list[Outgoing]) -> None:
        """The broker has acknowledged these results: their events are complete."""
        now_ms = time.time_ns() // 1_000_000
        self._metrics.results.inc(len(results))
        self._metrics.end_to_end_seconds.observe(*[(now_ms - result.event.timestamp) / 1000 for result in results])
        self._completed(results)

    def buried(self, letters: list[Outgoing]) -> None:
        """The broker has acknowledged these dead letters: their events are complete."""
        for letter in letters:
            self._metrics.dead_letters.labels(letter.reason.value if letter.reason else "").inc()
        self._completed(letters)

    def _completed(self, outgoings: list[Outgoing]) -> None:
        self.progress += 1
        for outgoing in outgoings:
            event = outgoing.event
            event.ledger.complete(event)
        self._room()

    def result_too_large(self, result: Outgoing, size: int) -> None:
        """A result that its topic can never take makes a dead letter of its event."""
        topic = self._settings.kafka.output_topic
        message = f"The result takes {size} bytes, more than max.message.bytes of topic {topic}."
        told = {name: value.decode("utf-8", "surrogateescape") for name, value in result.headers if name in _TOLD}
        self._bury(
            [result.event],
            outcomes.unanswerable(Reason.TOO_LARGE, message),
            attempts=result.event.attempts,
            inference_id=told.get(headers.INFERENCE_ID),
            variant=told.get(headers.VARIANT),
        )
        if not self._draining:
            # The guard may hold it, and without a call or another event nothing else sets the timer of its probe.
            self._pump()

    # -- the end of epochs -------------------------------------------------------------------------------------------

    async def drain(self, calls_until: float, published_until: float) -> None:
        """Make no further call but for what stands before finished events, and wait for calls and acknowledgements."""
        self._draining = True
        self._batcher.drain()
        self._pump()
        while self._calls and (left := calls_until - time.monotonic()) > 0:
            await asyncio.wait(self._calls, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        await self._cancel_calls()
        try:
            async with asyncio.timeout(max(0.0, published_until - time.monotonic())):
                await self._sink.flushed()
        except TimeoutError:
            self._log.warning(LogEvent.DRAIN_INCOMPLETE, pending=self._sink.pending)

    async def _cancel_calls(self) -> None:
        self._era += 1
        calls = set(self._calls)
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_CANCEL_LIMIT)

    def forget(self) -> None:
        """Drop every event: its epoch has ended, and the next owner reads it again."""
        self._era += 1
        for task in self._calls:
            task.cancel()
        self._batcher.clear()
        self._gate.abandoned(time.monotonic())
        self._held.forget()
        self._sink.discard()
        self._draining = False

    def _look_at_signature(self, outcome: Outcome, now: float) -> None:
        """Say when the service has refused our signatures for longer than a renewal of credentials takes."""
        self._signature.note(outcome, now)
        seconds = self._signature.refused_for(now)
        if seconds is None:
            self._problems.clear(Problem.SIGNATURE_REFUSED)
        elif self._problems.set(Problem.SIGNATURE_REFUSED, message=outcome.message):
            self._log.error(LogEvent.SIGNATURE_REFUSED, seconds=round(seconds), problem=outcome.message)

    def _say_why(self) -> None:
        """Say why consuming is stopped, or that it is not."""
        halt, guard = self._gate.halt, self._gate.guard
        if halt.halted:
            self._problems.set(Problem.HALTED, reason=halt.reason, message=halt.message)
        else:
            self._problems.clear(Problem.HALTED)
        if guard.tripped:
            self._problems.set(Problem.GUARDED, hint=guard.hint)
        else:
            self._problems.clear(Problem.GUARDED)

    def _say(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Log what a call that is made again came to, but the same thing only now and then."""
        cause = (outcome.kind, outcome.reason)
        if now < self._quiet_until.get(cause, 0.0):
            return
        self._quiet_until[cause] = now + _QUIET
        self._log.warning(
            LogEvent.CALL_FAILED,
            outcome=outcome.kind.value,
            reason=outcome.reason.value,
            problem=outcome.message,
            batch_id=batch.number,
            events=len(batch.events),
            attempt=batch.started,
        )
