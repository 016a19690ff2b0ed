"""Exactly-once output under everything that can go wrong with one transaction (items 3, 10, 15, and "Transactions").

Each protection is taken away once, where that is possible, to show that the failure that it prevents is real.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from aiokafka import AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest, InitProducerIdRequest, TxnOffsetCommitRequest

from connector.core.epochs.ledger import Commit, Ledger
from connector.kafka import repairs
from connector.kafka.sink.transactions import Transactions
from connector.kafka.sink.transactor import Transactor
from connector.kafka.source.positions import Positions
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from connector.telemetry.log_events import LogEvent
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problem, Problems
from tests.integration.answering import (
    Answering,
    Upstream,
    answering,
    committed_records,
    each,
    exactly_once,
    result,
    sources,
)
from tests.integration.clients import started
from tests.integration.stage import Stage, committed_is, endless_lease, said, until
from tests.unit.factories import make_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from connector.core.event import Event
    from connector.settings import Settings


pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        yield stage


class Interception:
    """Does something in the place of a producer's first request of a kind."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        kind: type[Any],
        instead: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self.met = asyncio.Event()
        self._kind = kind
        self._instead = instead
        self._send = producer.client.send
        producer.client.send = self._intercepting

    async def _intercepting(self, node: int, request: Any, **options: Any) -> Any:
        async def send() -> Any:
            return await self._send(node, request, **options)

        if self.met.is_set() or not isinstance(request, self._kind):
            return await send()
        self.met.set()
        return await self._instead(send)


async def never(send: Callable[[], Awaitable[Any]]) -> Any:
    """Send nothing, and wait for an answer for ever."""
    await asyncio.Event().wait()


async def works_on(stage: Stage, working: Answering, count: int) -> None:
    """Let there be events up to `count` in all, and wait until they are committed."""
    upstream = working.upstream
    await until(lambda: len(upstream.offsets()) >= count)
    await until(lambda: committed_is(stage, count), limit=30)


async def all_committed(stage: Stage, offset: int, partitions: int) -> bool:
    """Whether the group has this offset of every partition."""
    return [await stage.committed(number) for number in range(partitions)] == [offset] * partitions


# -- 3: a send that fails inside a transaction -------------------------------------------------------------------------


@both
async def test_a_transaction_with_a_failed_send_commits_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    working = await answering(stage, hold=True)
    if not protected:

        async def not_awaited(self: Transactor, sends: list[Any]) -> None:
            await asyncio.wait([future for *_, future in sends])
            assert any(future.exception() for *_, future in sends)

        monkeypatch.setattr(Transactor, "_acknowledged", not_awaited)
    await stage.configure(stage.letters, {"max.message.bytes": "2000"})
    await stage.produce(3)
    await until(lambda: working.upstream.offsets() == [0, 1, 2])
    first, large, last = working.upstream.events
    large.value = b"x" * 5000
    working.upstream.bury(large)
    working.upstream.answer([first, last])
    await until(lambda: committed_is(stage, 3))
    assert await sources(stage) == ["0/0", "0/2"]
    letters = await committed_records(stage.servers, stage.letters)
    # aiokafka commits the transaction, and the dead letter is lost.
    assert len(letters) == (1 if protected else 0)


async def test_what_failed_at_random_is_redone_without_duplicates(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends, send_batch = 0, AIOKafkaProducer.send_batch

    async def failing(self: AIOKafkaProducer, *arguments: Any, **options: Any) -> Any:
        nonlocal sends
        sends += 1
        future = await send_batch(self, *arguments, **options)
        if sends % 3:
            return future
        # It has reached the broker all the same.
        await asyncio.wait([future])
        broken = asyncio.get_running_loop().create_future()
        broken.set_exception(KafkaError("injected"))
        return broken

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", failing)
    working = await answering(stage)
    for count in range(5, 55, 5):
        await stage.produce(5)
        await works_on(stage, working, count)
    assert working.metrics.registry.get_sample_value("connector_transactions_total", {"outcome": "failed"})
    assert await sources(stage) == each(50)
    assert working.upstream.settled == list(range(50))


# -- a commit whose answer is not heard --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrives", "protected"),
    [(True, True), (True, False), (False, True)],
    ids=["committed-protected", "committed-unprotected", "not committed"],
)
async def test_a_commit_that_was_not_heard_is_redone_exactly(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, arrives: bool, protected: bool
) -> None:
    working = await answering(stage)
    if not protected:

        async def trusting(self: Transactor) -> None:
            pass

        monkeypatch.setattr(Transactor, "_reconcile", trusting)

    async def unheard(send: Callable[[], Awaitable[Any]]) -> Any:
        if arrives:
            await send()
        raise RuntimeError("the answer is lost")

    lost = Interception(working.producer(), EndTxnRequest, unheard)
    await stage.produce(5)
    await lost.met.wait()
    await works_on(stage, working, 5)
    await stage.produce(5)
    await works_on(stage, working, 10)
    got = await sources(stage)
    if protected:
        assert got == each(10)
        assert working.upstream.settled == list(range(10))
    else:
        assert len(got) > 10
        assert set(got) == set(each(10))


# -- fenced ------------------------------------------------------------------------------------------------------------


def rival(stage: Stage, partition: int = 0, **options: Any) -> AIOKafkaProducer:
    """A producer with the transactional id of a partition."""
    name = f"{stage.group}/{stage.topic}/{partition}"
    return AIOKafkaProducer(bootstrap_servers=stage.servers, transactional_id=name, **options)


@pytest.mark.parametrize(
    "moment",
    [None, ProduceRequest, TxnOffsetCommitRequest, EndTxnRequest],
    ids=["between two", "before the sends", "before the offsets", "before the end"],
)
async def test_an_owner_that_is_fenced_starts_again(stage: Stage, moment: type[Any] | None) -> None:
    with structlog.testing.capture_logs() as lines:
        working = await answering(stage)
        await stage.produce(5)
        await works_on(stage, working, 5)

        async def fenced(send: Callable[[], Awaitable[Any]]) -> Any:
            async with started(rival(stage)):
                return await send()

        if moment is None:
            async with started(rival(stage)):
                pass
        else:
            Interception(working.producer(), moment, fenced)
        await stage.produce(5)
        await works_on(stage, working, 10)
        await stage.produce(5)
        await works_on(stage, working, 15)
    assert await sources(stage) == each(15)
    assert LogEvent.FENCED in [line["event"] for line in lines]
    assert working.problem is None


class Zombie:
    """Transactions of a process that has lost its partition and does not know: its ledger is stale, and its lease holds."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        self._stage = stage
        self.upstream = Upstream()
        self.lease = endless_lease()
        self.transactions = self.upstream.sink = Transactions(
            settings, self, Metrics(time.monotonic), Problems(), self.upstream
        )
        self.ledger = Ledger(stage.topic, 0, 1)
        self.events: list[Event] = []
        stage.stack.push_async_callback(self.close)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has."""
        offset = await self._stage.committed(partition.partition)
        return None if offset is None else Commit(offset)

    def rejoin(self) -> None:
        """The group does not hear it."""

    async def own(self, position: int, committed: Commit | None, events: Iterable[int]) -> None:
        """Take the partition over, and events of it."""
        await self.transactions.open([self.ledger])
        self.ledger.place(position, committed)
        self.events = [make_event(self.ledger, offset) for offset in events]
        assert all(map(self.ledger.deliver, self.events))

    async def close(self) -> None:
        """End it."""
        self.transactions.discard()
        while self.transactions._closing:
            await asyncio.wait(self.transactions._closing)


@pytest.mark.parametrize("left", [5, None], ids=["with a commit", "without a commit"])
@both
async def test_a_former_owner_never_publishes_and_never_moves_the_group_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, left: int | None, protected: bool
) -> None:
    reconcile, starts = Transactor._reconcile, 0

    async def watched(self: Transactor) -> None:
        nonlocal starts
        former = self.ledger is zombie.ledger
        starts += former
        if protected or not former:
            await reconcile(self)

    monkeypatch.setattr(Transactor, "_reconcile", watched)
    zombie = Zombie(stage, exactly_once(stage, transaction_interval="1h" if left is None else "100ms"))
    # Not as many as the owner will commit: that would look like a commit of its own.
    await zombie.own(0, None, range(8))
    await stage.produce(10)
    if left is not None:
        zombie.upstream.answer(zombie.events[:left])
        await until(lambda: committed_is(stage, left))
    owner = await answering(stage)
    await until(lambda: committed_is(stage, 10))
    zombie.upstream.answer(zombie.events[left or 0 :])
    zombie.transactions.hurry.set()
    await until(lambda: starts)
    if not protected:
        await until(lambda: has_duplicates(stage))
        return
    await stage.produce(5)
    await until(lambda: committed_is(stage, 15))
    await until(lambda: starts > 3)
    await stage.produce(5)
    await until(lambda: committed_is(stage, 20), limit=30)
    assert await sources(stage) == each(20)
    assert owner.upstream.settled == list(range(left or 0, 20))
    assert "another process works on it" in (said(zombie.transactions.problems, Problem.TRANSACTION_FAILS) or "")
    await zombie.close()
    await stage.produce(5)
    await until(lambda: committed_is(stage, 25))
    await until(lambda: owner.problem is None)


@both
async def test_a_start_that_came_late_does_not_make_its_process_commit_without_a_lease(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    former = Zombie(stage, exactly_once(stage, transaction_interval="1h"))
    start, ended = Transactor.start, asyncio.Event()

    async def late(self: Transactor) -> None:
        # The group gives the partition away while the start is on its way.
        former.lease.end()
        await start(self)
        ended.set()

    async def owned_before() -> None:
        pass

    await former.own(0, None, range(3))
    async with started(rival(stage)):
        pass
    monkeypatch.setattr(Transactor, "start", late)
    if not protected:
        monkeypatch.setattr(former.transactions, "owned", owned_before)
    former.transactions.hurry.set()
    await until(ended.is_set)
    if not protected:
        # What the owner finds is another's.
        await until(lambda: committed_is(stage, 0))
        return
    await asyncio.sleep(0.5)
    assert await committed_is(stage, None)
    former.lease.renew(time.monotonic())
    await until(lambda: committed_is(stage, 0))


async def has_duplicates(stage: Stage) -> bool:
    got = await sources(stage)
    return len(got) > len(set(got))


async def test_an_owner_whose_group_offset_was_moved_goes_on_where_it_was_moved_to(stage: Stage) -> None:
    working = await answering(stage)
    await stage.produce(5)
    await until(lambda: working.upstream.settled == list(range(5)))
    async with started(rival(stage)) as other:
        await other.begin_transaction()
        await other.send_offsets_to_transaction({TopicPartition(stage.topic, 0): OffsetAndMetadata(8, "")}, stage.group)
        await other.commit_transaction()
    await stage.produce(5)
    await until(lambda: committed_is(stage, 10))
    assert await sources(stage) == each(5) + each(10, first=8)
    await until(lambda: working.problem is None)


# -- a zombie's transaction while the partition is taken over ----------------------------------------------------------


@both
async def test_producers_start_before_the_offsets_are_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.produce(8)
    await stage.commit(0)
    zombie = rival(stage)
    await stage.stack.enter_async_context(started(zombie))
    await zombie.begin_transaction()
    for offset in range(5):
        await zombie.send_and_wait(stage.output, f"{stage.topic}/0/{offset}".encode(), partition=0)
    await zombie.send_offsets_to_transaction({TopicPartition(stage.topic, 0): OffsetAndMetadata(5, "")}, stage.group)
    place, opening, placed = Positions._place, Transactions.open, asyncio.Event()

    async def placed_too_late(self: Positions, waiting: set[TopicPartition]) -> None:
        await place(self, waiting)
        with suppress(ProducerFenced):
            await zombie.commit_transaction()
        placed.set()

    async def opened_too_late(self: Transactions, ledgers: Iterable[Ledger]) -> None:
        late.append(asyncio.create_task(opened_when_placed(self, list(ledgers))))

    async def opened_when_placed(self: Transactions, ledgers: list[Ledger]) -> None:
        await placed.wait()
        await opening(self, ledgers)

    late: list[asyncio.Task[None]] = []
    monkeypatch.setattr(Positions, "_place", placed_too_late)
    if not protected:
        monkeypatch.setattr(Transactions, "open", opened_too_late)
    working = await answering(stage, hold=True)
    await until(lambda: len(working.upstream.events) == 8)
    await until(placed.is_set)
    await asyncio.gather(*late)
    working.upstream.answer(working.upstream.events)
    await until(lambda: committed_is(stage, 8))
    assert await sources(stage) == (each(8) if protected else each(5) + each(8))


async def test_a_start_that_fails_ends_those_that_were_begun_with_it(
    bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, tries = Transactor.start, [0, 0]

    async def failing(self: Transactor) -> None:
        number = self.partition.partition
        tries[number] += 1
        if tries[number] == 1 and number == 0:
            raise KafkaError("injected")
        if tries[number] == 1:
            # It goes on for longer than it takes to try again.
            await asyncio.sleep(1)
        await start(self)

    monkeypatch.setattr(Transactor, "start", failing)
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=2)
        with structlog.testing.capture_logs() as lines:
            working = await answering(stage)
            await until(lambda: working.partitions == {0, 1})
            for partition in (0, 1):
                await stage.produce(5, partition)
            await until(lambda: all_committed(stage, 5, 2))
        assert tries == [2, 1]
        assert LogEvent.FENCED not in [line["event"] for line in lines]
        assert sorted(await sources(stage)) == each(5) + each(5, 1)


# -- 15: a connection that is closed while a coordinator is looked for -------------------------------------------------


@pytest.mark.parametrize("lookup", ["group", "transaction"])
async def test_a_connection_closed_while_a_coordinator_is_looked_for_loses_and_doubles_nothing(
    stage: Stage, lookup: str
) -> None:
    working = await answering(stage)
    first = working.producer()

    async def closed(send: Callable[[], Awaitable[Any]]) -> Any:
        answer = asyncio.ensure_future(send())
        await asyncio.sleep(0)
        for connection in list(first.client._conns.values()):
            connection.close()
        return await answer

    async def forgetting(send: Callable[[], Awaitable[Any]]) -> Any:
        # So that the end of the transaction looks for its coordinator.
        first._sender._coordinators.clear()
        return await send()

    if lookup == "transaction":
        Interception(first, TxnOffsetCommitRequest, forgetting)
    else:
        first._sender._coordinators.clear()
    met = Interception(first, FindCoordinatorRequest, closed).met
    await stage.produce(5)
    await works_on(stage, working, 5)
    assert met.is_set()
    await stage.produce(5)
    await works_on(stage, working, 10)
    assert working.producer() is not first
    assert await sources(stage) == each(10)


# -- sizes -------------------------------------------------------------------------------------------------------------


async def test_a_result_that_is_known_to_be_too_large_costs_no_transaction(stage: Stage) -> None:
    await stage.configure(stage.output, {"max.message.bytes": "2000"})
    working = await answering(stage, hold=True)
    await stage.produce(30)
    await until(lambda: len(working.upstream.events) == 30)
    working.upstream.values[20] = b"x" * 5000
    working.upstream.answer(working.upstream.events)
    await works_on(stage, working, 30)
    assert await sources(stage) == each(20) + each(30, first=21)
    assert transactions_of(working, "failed") == 0
    # The position, and all of it in one transaction.
    assert transactions_of(working, "committed") == 2


def transactions_of(working: Answering, outcome: str) -> float:
    return working.metrics.registry.get_sample_value("connector_transactions_total", {"outcome": outcome}) or 0.0


async def test_a_limit_that_many_partitions_meet_at_once_is_learned_once(bootstrap_servers: str) -> None:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=6)
        working = await answering(stage, hold=True)
        await until(lambda: len(working.partitions) == 6)
        await stage.configure(stage.output, {"max.message.bytes": "50000"})
        for partition in range(6):
            await stage.produce(40, partition)
        await until(lambda: len(working.upstream.events) == 240)
        working.transactions.hurry.set()
        for event in working.upstream.events:
            working.upstream.sink.publish([result(event, event.source.encode().ljust(1900))])
        await until(lambda: all_committed(stage, 40, 6))
        # 76,000 bytes were refused, by each of them.
        assert working.transactions.results.max_batch_bytes > 20_000
        assert len(await committed_records(stage.servers, stage.output)) == 240


async def test_a_dead_letter_that_never_fits_is_said_and_not_tried_in_a_loop_without_a_word(stage: Stage) -> None:
    await stage.configure(stage.letters, {"max.message.bytes": "200"})
    working = await answering(stage, hold=True)
    await stage.produce(2)
    await until(lambda: len(working.upstream.events) == 2)
    first, second = working.upstream.events
    working.upstream.bury(first)
    working.upstream.answer([second])
    await until(lambda: working.problem is not None)
    assert await committed_is(stage, 0)
    await stage.configure(stage.letters, {"max.message.bytes": "10000"})
    await works_on(stage, working, 2)
    (letter,) = await committed_records(stage.servers, stage.letters)
    assert "inference-value-dropped" in dict(letter.headers)
    assert working.problem is None


# -- 10: what ends in time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stuck", [ProduceRequest, TxnOffsetCommitRequest, EndTxnRequest, InitProducerIdRequest])
async def test_a_transaction_that_does_not_end_is_given_up_with_its_partitions(
    bootstrap_servers: str, stuck: type[Any]
) -> None:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=2)
        first = await answering(stage)
        await until(lambda: first.partitions == {0, 1})
        for partition in (0, 1):
            await stage.produce(5, partition)
        await until(lambda: all_committed(stage, 5, 2))
        producers = [first.producer(0), first.producer(1)]
        if stuck is InitProducerIdRequest:
            make = first.transactions.producer

            def made(ledger: Ledger, **options: Any) -> AIOKafkaProducer:
                producers.append(make(ledger, **options))
                Interception(producers[-1], stuck, never)
                return producers[-1]

            first.transactions.producer = made  # type: ignore[method-assign]
            for partition in (0, 1):
                async with started(rival(stage, partition)):
                    pass
        else:
            for producer in producers:
                Interception(producer, stuck, never)
        for partition in (0, 1):
            await stage.produce(5, partition)
        await until(lambda: len(first.upstream.events) == 20)
        if stuck is InitProducerIdRequest:
            await until(lambda: len(producers) == 4)
            del first.transactions.producer
        before = time.monotonic()
        second = await answering(stage)
        await until(lambda: len(first.partitions) == len(second.partitions) == 1)
        assert time.monotonic() - before < 8
        await until(lambda: all_committed(stage, 10, 2))
        assert sorted(await sources(stage)) == sorted(each(10) + each(10, 1))
        await until(lambda: not first.transactions._closing)
        for producer in producers:
            assert not repairs._tasks_of(producer, producer.client, producer._sender)
            assert not producer._sender._under_way


# -- how many ----------------------------------------------------------------------------------------------------------


async def test_the_transactions_of_a_second_are_bounded_however_many_partitions_have_something(
    bootstrap_servers: str,
) -> None:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=30)
        working = await answering(stage, exactly_once(stage, transaction_interval="1ms"), hold=True)
        await until(lambda: len(working.partitions) == 30)
        await until(lambda: all(ledger.due is None for ledger in working.source.epochs.ledgers.values()))
        for partition in range(30):
            await stage.produce(20, partition)
        await until(lambda: len(working.upstream.events) == 600)
        started, before = time.monotonic(), transactions_of(working, "committed")
        # A trickle: a partition has nothing to commit most of the time.
        by_offset = sorted(working.upstream.events, key=lambda event: event.offset)
        for number in range(20):
            working.upstream.answer(by_offset[30 * number : 30 * (number + 1)])
            await asyncio.sleep(0.1)
        await until(lambda: all_committed(stage, 20, 30))
        made = transactions_of(working, "committed") - before
        # One turn each may have been saved before.
        assert made <= 50 * (time.monotonic() - started) + 30 + 1
        assert len(await sources(stage)) == 600


# -- a broker that denies access, and one that gives transactions up soon ----------------------------------------------


@pytest.fixture(scope="module")
def strict() -> Iterator[LocalKafka]:
    """A broker that lets a user do only what was allowed, and looks often for transactions that outlived their time."""
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
    sweep = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}
    with LocalKafka(security=security, properties=sweep) as kafka:
        yield kafka


async def test_access_that_is_denied_is_said_in_a_sentence_and_work_goes_on_when_it_is_granted(
    strict: LocalKafka,
) -> None:
    async with Stage.open(strict.admin_servers) as stage:
        await stage.create()
        login = {
            "protocol": "SASL_PLAINTEXT",
            "mechanism": "PLAIN",
            "username": "service",
            "password": "service-secret",
        }
        for resource, name, operation in (
            ("topic", stage.topic, "READ"),
            ("topic", stage.output, "DESCRIBE"),
            ("topic", stage.letters, "WRITE"),
            ("group", stage.group, "READ"),
        ):
            await asyncio.to_thread(strict.allow, "service", resource, name, operation)
        working = Answering(exactly_once(stage, bootstrap_servers=strict.bootstrap_servers, security=login))
        stage.stack.push_async_callback(working.stop)
        identity = f"{stage.group}/{stage.topic}/0"
        await until(lambda: f"access to transactional id {identity} is denied" in (working.problem or ""))
        await asyncio.to_thread(strict.allow, "service", "transactional_id", identity, "WRITE")
        await until(lambda: committed_is(stage, 0))
        await until(lambda: working.problem is None)
        await stage.produce(3)
        await until(lambda: f"access to topic {stage.output} is denied" in (working.problem or ""))
        failed = transactions_of(working, "failed")
        while transactions_of(working, "failed") < failed + 3:
            # It is no less true while it is tried again.
            assert working.problem is not None
            await asyncio.sleep(0.005)
        await asyncio.to_thread(strict.allow, "service", "topic", stage.output, "WRITE")
        await until(lambda: committed_is(stage, 3), limit=30)
        await until(lambda: working.problem is None)
        assert await sources(stage) == each(3)


async def test_a_transaction_that_outlived_its_time_on_the_broker_is_redone(
    strict: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Transactions.producer

    def impatient(self: Transactions, ledger: Ledger, **options: Any) -> AIOKafkaProducer:
        producer = make(self, ledger, **options)
        producer._txn_manager.transaction_timeout_ms = 1000
        return producer

    monkeypatch.setattr(Transactions, "producer", impatient)
    async with Stage.open(strict.admin_servers) as stage:
        await stage.create()
        with structlog.testing.capture_logs() as lines:
            working = await answering(stage)

            async def late(send: Callable[[], Awaitable[Any]]) -> Any:
                await asyncio.sleep(2.5)
                return await send()

            Interception(working.producer(), EndTxnRequest, late)
            await stage.produce(5)
            await works_on(stage, working, 5)
            await stage.produce(5)
            await works_on(stage, working, 10)
        assert await sources(stage) == each(10)
        assert LogEvent.FENCED in [line["event"] for line in lines]
