"""What every Sink keeps to, on a real broker: order, and the truth about what is published."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from connector.core.epochs.lease import Lease
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.contracts.sinks import SINKS, letter
from tests.integration import administration
from tests.integration.answering import committed_records
from tests.integration.stage import Stage, endless_lease, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from aiokafka.structs import ConsumerRecord

    from connector.core.answers.outgoing import Outgoing
    from connector.settings import Settings
    from tests.contracts.sinks import AtWork, Open

pytestmark = pytest.mark.integration


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        yield stage


@pytest.fixture(params=[*SINKS.values()], ids=[*SINKS])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens a sink of one kind after the other."""
    opening: Open = request.param
    return opening


@pytest.fixture
async def sink(opened: Open, stage: Stage) -> AsyncIterator[AtWork]:
    """One at work."""
    async with opened(stage, settings_of(stage), endless_lease()) as at_work:
        yield at_work


def settings_of(stage: Stage, **kafka: object) -> Settings:
    return stage.settings(**{"transaction_timeout": "10s"} | kafka)


def values(outgoings: list[Outgoing]) -> list[Any]:
    return [outgoing.value for outgoing in outgoings]


async def on(topic: str, stage: Stage) -> list[bytes | None]:
    """The values on a topic of one partition, without those of transactions that are open or aborted."""
    return [record.value for record in await committed_records(stage.servers, topic)]


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


# -- order -------------------------------------------------------------------------------------------------------------


def failing_sends(patch: pytest.MonkeyPatch) -> None:
    """Let some sends fail without having been one: so seldom that no three in a row have two of them."""
    sends, send_batch = count(1), AIOKafkaProducer.send_batch

    async def failing(self: AIOKafkaProducer, *arguments: Any, **options: Any) -> asyncio.Future[Any]:
        if next(sends) % 5 == 0:
            broken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            broken.set_exception(KafkaError("injected"))
            return broken
        future: asyncio.Future[Any] = await send_batch(self, *arguments, **options)
        return future

    patch.setattr(AIOKafkaProducer, "send_batch", failing)


@pytest.mark.parametrize("failing", [False, True], ids=["one producer", "producers that are replaced"])
async def test_what_shares_a_key_is_published_in_order_and_told_once_in_that_order(
    opened: Open, stage: Stage, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    wide = f"wide-{stage.output}"
    await administration.create_topics(stage.admin, {wide: 3})
    started: list[AIOKafkaProducer] = []
    start = AIOKafkaProducer.start

    async def noted(self: AIOKafkaProducer) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(AIOKafkaProducer, "start", noted)
    async with opened(stage, settings_of(stage, output_topic=wide), endless_lease()) as sink:
        sink.publish(b"0", key=b"0")
        await until(lambda: sink.sink.pending == 0)
        first = len(started)
        if failing:
            failing_sends(monkeypatch)
        for number in range(1, 100):
            sink.publish(b"%d" % number, key=b"%d" % (number % 5))
            if number % 10 == 0:
                await until(lambda: sink.sink.pending < 5)
        await until(lambda: sink.sink.pending == 0)
        assert (len(started) > first + 1) is failing
        told = sink.upstream.results
        assert sorted(values(told)) == sorted(numbers(0, 100))
        records = [record for number in range(3) for record in await committed_records(stage.servers, wide, number)]
        for key in range(5):
            wanted = [b"%d" % number for number in range(key, 100, 5)]
            assert [record.value for record in records if record.key == b"%d" % key] == wanted
            assert [outgoing.value for outgoing in told if outgoing.key == b"%d" % key] == wanted
    await stage.admin.delete_topics([wide])


# -- the truth ---------------------------------------------------------------------------------------------------------


async def test_what_is_told_to_be_published_is_there_for_every_reader(sink: AtWork) -> None:
    upstream, told = sink.upstream, 0
    for number in range(5):
        sink.publish(*numbers(10 * number, 10 * number + 10))
        sink.bury(b"bad %d" % number)
        await until(lambda: len(upstream.results) + len(upstream.letters) > told)  # noqa: B023 - that of this turn
        told = len(upstream.results) + len(upstream.letters)
        results, letters = values(upstream.results), values(upstream.letters)
        assert (await on(sink.stage.output, sink.stage))[: len(results)] == results
        assert (await on(sink.stage.letters, sink.stage))[: len(letters)] == letters
    await sink.sink.flushed()
    assert await on(sink.stage.output, sink.stage) == values(upstream.results) == numbers(0, 50)
    assert await on(sink.stage.letters, sink.stage) == values(upstream.letters) == [b"bad %d" % n for n in range(5)]


async def test_a_record_is_what_was_handed_over(sink: AtWork) -> None:
    (keyed,) = sink.results([b"1"])
    (keyless,) = sink.results([b""], key=None)
    keyed = keyed._replace(headers=[("inference-id", b"id"), ("inference-id", b"\xff"), ("x", b"")], timestamp=12345)
    buried = letter(sink.event(value=b"bad"))
    sink.sink.publish([keyed, keyless])
    sink.sink.bury([buried])
    await sink.sink.flushed()

    def as_handed_over(record: ConsumerRecord) -> tuple[object, ...]:
        return record.key, record.value, list(record.headers), record.timestamp

    got = await committed_records(sink.stage.servers, sink.stage.output)
    assert [as_handed_over(record) for record in got] == [outgoing[1:5] for outgoing in (keyed, keyless)]
    (got_letter,) = await committed_records(sink.stage.servers, sink.stage.letters)
    assert as_handed_over(got_letter) == buried[1:5]


async def test_pending_counts_what_the_broker_does_not_have_and_flushed_waits_for_it(
    opened: Open, stage: Stage
) -> None:
    lease = Lease(1000.0)
    lease.renew(time.monotonic())
    async with opened(stage, settings_of(stage), lease) as sink:
        assert sink.sink.pending == 0
        await asyncio.wait_for(sink.sink.flushed(), 15)
        # Who may not own its partitions publishes nothing.
        lease.end()
        sink.publish(*numbers(0, 20))
        sink.bury(b"bad")
        assert sink.sink.pending == 21
        flushed = asyncio.create_task(sink.sink.flushed())
        done, _ = await asyncio.wait([flushed], timeout=1)
        assert not done
        assert sink.sink.pending == 21
        assert sink.upstream.results == sink.upstream.letters == []
        assert await on(stage.output, stage) == await on(stage.letters, stage) == []
        lease.renew(time.monotonic())
        await asyncio.wait_for(flushed, 30)
        assert sink.sink.pending == 0
        assert values(sink.upstream.results) == await on(stage.output, stage) == numbers(0, 20)
        assert values(sink.upstream.letters) == await on(stage.letters, stage) == [b"bad"]


async def test_what_is_discarded_is_neither_published_nor_told(opened: Open, stage: Stage) -> None:
    lease = Lease(1000.0)
    lease.renew(time.monotonic())
    async with opened(stage, settings_of(stage), lease) as sink:
        sink.publish(b"before")
        await until(lambda: sink.sink.pending == 0)
        lease.end()
        sink.publish(*numbers(0, 20))
        sink.bury(b"gone")
        await asyncio.sleep(0.3)  # on its way as far as it gets
        sink.end()
        assert sink.sink.pending == 0
        await asyncio.wait_for(sink.sink.flushed(), 15)
        lease.renew(time.monotonic())
        await sink.begin()
        sink.publish(b"after")
        sink.bury(b"bad")
        await until(lambda: sink.sink.pending == 0)
        assert values(sink.upstream.results) == await on(stage.output, stage) == [b"before", b"after"]
        assert values(sink.upstream.letters) == await on(stage.letters, stage) == [b"bad"]


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known", "learned"])
async def test_a_result_that_is_too_large_is_told_and_costs_no_neighbour_and_no_order(
    opened: Open, stage: Stage, known: bool
) -> None:
    limit = {"max.message.bytes": "2000"}
    if known:
        await stage.configure(stage.output, limit)
    async with opened(stage, settings_of(stage), endless_lease()) as sink:
        if not known:
            await stage.configure(stage.output, limit)
        given = numbers(0, 40)
        given[20] = b"x" * 5000
        sink.publish(*given)
        await until(lambda: sink.sink.pending == 0, limit=30)
        wanted = [*given[:20], *given[21:]]
        assert values(sink.upstream.results) == await on(stage.output, stage) == wanted
        ((result, size),) = sink.upstream.too_large
        assert result.value == given[20]
        assert size > 5000
        # That of the upstream.
        assert len(sink.upstream.letters) == len(await on(stage.letters, stage)) == 1
        assert sink.problem is None


@pytest.mark.parametrize("known", [True, False], ids=["known", "learned"])
async def test_a_dead_letter_that_is_too_large_is_published_without_its_value(
    opened: Open, stage: Stage, known: bool
) -> None:
    limit = {"max.message.bytes": "2000"}
    if known:
        await stage.configure(stage.letters, limit)
    async with opened(stage, settings_of(stage), endless_lease()) as sink:
        if not known:
            await stage.configure(stage.letters, limit)
        sink.bury(b"small", b"x" * 5000, b"also small")
        await until(lambda: sink.sink.pending == 0, limit=30)
        records = await committed_records(stage.servers, stage.letters)
        assert [record.value for record in records] == [b"small", None, b"also small"]
        assert [b"inference-value-dropped" in str(record.headers).encode() for record in records] == [
            False,
            True,
            False,
        ]
        assert [outgoing.event.offset for outgoing in sink.upstream.letters] == [0, 1, 2]


# -- a topic that denies -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict() -> Iterator[LocalKafka]:
    """A broker that lets a user do only what was allowed."""
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
    with LocalKafka(security=security) as kafka:
        yield kafka


async def test_a_topic_that_denies_is_a_problem_until_it_allows_and_nothing_is_lost(
    opened: Open, strict: LocalKafka
) -> None:
    async with Stage.open(strict.admin_servers) as stage:
        await stage.create()
        for resource, name, operation in (
            ("topic", stage.topic, "READ"),
            ("topic", stage.output, "DESCRIBE"),
            ("topic", stage.letters, "WRITE"),
            ("group", stage.group, "READ"),
            ("transactional_id", f"{stage.group}/{stage.topic}/0", "WRITE"),
        ):
            await asyncio.to_thread(strict.allow, "service", resource, name, operation)
        login = {
            "protocol": "SASL_PLAINTEXT",
            "mechanism": "PLAIN",
            "username": "service",
            "password": "service-secret",
        }
        settings = settings_of(stage, bootstrap_servers=strict.bootstrap_servers, security=login)
        async with opened(stage, settings, endless_lease()) as sink:
            assert sink.problem is None
            sink.publish(*numbers(0, 5))
            await until(lambda: f"access to topic {stage.output} is denied" in (sink.problem or ""))
            assert sink.sink.pending == 5
            assert sink.upstream.results == []
            await asyncio.to_thread(strict.allow, "service", "topic", stage.output, "WRITE")
            await until(lambda: sink.sink.pending == 0, limit=30)
            await until(lambda: sink.problem is None)
            assert values(sink.upstream.results) == await on(stage.output, stage) == numbers(0, 5)
