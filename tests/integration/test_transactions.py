"""Exactly-once output under everything that can go wrong with one transaction (items 3, 10, 15, and "Transactions").

Each protection is taken away once, where that is possible, to show that the failure that it prevents is real.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest, TxnOffsetCommitRequest

from connector.kafka.transactions import Transactions
from connector.kafka.transactor import Transactor
from connector.ledger import Commit, Ledger
from connector.log_events import LogEvent
from connector.metrics import Metrics
from tests.integration.answering import (
    Answering,
    Upstream,
    answering,
    committed_records,
    each,
    exactly_once,
    sources,
)
from tests.integration.stage import Stage, committed_is, endless_lease, until
from tests.unit.factories import make_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from connector.event import Event
    from connector.settings import Settings


pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture(autouse=True)
def nothing_unretrieved(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An error that nobody takes is logged by asyncio when it is collected."""
    yield
    gc.collect()
    assert [one for one in caplog.get_records("call") if one.name == "asyncio"] == []


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
            async with rival(stage):
                return await send()

        if moment is None:
            async with rival(stage):
                pass
        else:
            Interception(working.producer(), moment, fenced)
        await stage.produce(5)
        await works_on(stage, working, 10)
        await stage.produce(5)
        await works_on(stage, working, 15)
    assert await sources(stage) == each(15)
    assert LogEvent.FENCED in [line["event"] for line in lines]
    assert working.transactions.problem is None


class Zombie:
    """Transactions of a process that has lost its partition and does not know: its ledger is stale, and its lease holds."""

    def __init__(self, stage: Stage, settings: Settings) -> None:
        async def committed(partition: TopicPartition) -> Commit | None:
            offset = await stage.committed(partition.partition)
            return None if offset is None else Commit(offset)

        self.upstream = Upstream()
        self.transactions = self.upstream.sink = Transactions(
            settings, endless_lease(), Metrics(time.monotonic), self.upstream, committed
        )
        self.ledger = Ledger(stage.topic, 0, 1)
        self.events: list[Event] = []
        stage.stack.push_async_callback(self.close)

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
    assert zombie.transactions.problem is not None
    assert "another process works on it" in zombie.transactions.problem
    await zombie.close()
    await stage.produce(5)
    await until(lambda: committed_is(stage, 25))
    await until(lambda: owner.transactions.problem is None)


async def has_duplicates(stage: Stage) -> bool:
    got = await sources(stage)
    return len(got) > len(set(got))
