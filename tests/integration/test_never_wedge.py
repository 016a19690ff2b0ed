"""Never wedge: what goes wrong with a cluster, a topic or the endpoint for a while, and is over without anybody's help.

Whatever it was: nothing is lost, nothing good is dead-lettered, and under exactly-once nothing is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from connector.local.endpoint.faults import Fault
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.integration.rig import Rig, make_rig, source, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from aiokafka.structs import ConsumerRecord

    from tests.integration.rig import Event, Process, Settings

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])

_POISONED = Fault("model_error", payload=b"poison", status=400)


def settings(delivery: str = "at_least_once", **kafka: object) -> Settings:
    """Time limits that a test can wait for, and batches of a few events of any keys."""
    limits = {
        "session_timeout": "4s",
        "rebalance_timeout": "6s",
        "request_timeout": "2s",
        "revoke_drain": "300ms",
        "transaction_timeout": "10s",
    }
    return {
        "kafka": {"delivery": delivery, **limits, **kafka},
        "correlation": {"mode": "batch"},
        "batch": {"max_events": 8, "linger": "2ms"},
    }


def good(these: Iterable[int]) -> list[Event]:
    """Events of these numbers."""
    return [(b"key-%02d" % (number % 20), b"%d,7" % number) for number in these]


def poison(these: Iterable[int]) -> list[Event]:
    """Events of these numbers that the model refuses."""
    return [(b"bad-%02d" % number, b"%d,poison" % number) for number in these]


def numbers(records: Iterable[ConsumerRecord]) -> Counter[int]:
    """How often each number came out; -1 is what came without a value."""
    return Counter(int((record.value or b"-1").split(b",")[0]) for record in records)


async def together(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Do things at the same time, none of which goes on when one has failed."""
    async with asyncio.TaskGroup() as tasks:
        for one in work:
            tasks.create_task(one)


async def published(rig: Rig, topic: str, wanted: set[int]) -> None:
    """Wait until these numbers are in a topic, and no others."""
    await rig.read(topic, len(wanted))

    async def there() -> bool:
        return set(numbers(await rig.so_far(topic))) >= wanted

    await until(there, f"{wanted} in {topic}")
    assert set(numbers(await rig.so_far(topic))) == wanted


async def all_answered(
    rig: Rig, delivery: str, results: set[int], letters: set[int] | None = None, *, maybe: set[int] | None = None
) -> None:
    """Wait until every number has come out where it belongs, and no other anywhere; under exactly-once once.

    `maybe` are results that may be there or not.
    """
    await rig.results(len(results))

    async def there() -> bool:
        return set(numbers(await rig.so_far(rig.output))) >= results

    await until(there, "every result")
    await published(rig, rig.letters, letters or set())
    came = numbers(await rig.settled(rig.output, 0.3))
    assert results <= set(came) <= results | (maybe or set())
    if delivery == "exactly_once":
        buried = numbers(await rig.settled(rig.letters, 0.3))
        assert max([*came.values(), *buried.values()]) == 1
    assert "Traceback" not in "".join(process.lines() for process in rig.processes)


@contextlib.asynccontextmanager
async def side_by_side(servers: str, folder: Path, partitions: int = 2) -> AsyncIterator[dict[str, Rig]]:
    """A rig without topics for each delivery, so that what happens to a cluster happens to both at once."""
    async with contextlib.AsyncExitStack() as stack:
        rigs = {}
        for delivery in ("at_least_once", "exactly_once"):
            own = folder / delivery
            own.mkdir()
            rigs[delivery] = await stack.enter_async_context(make_rig(servers, own, partitions))
        yield rigs


# -- a cluster with a copy of everything -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalKafka]:
    """Two brokers, of which the first can be away, and soon leads its share of partitions again."""
    with LocalKafka(2, properties={"leader.imbalance.check.interval.seconds": "1"}) as kafka:
        yield kafka


@contextlib.asynccontextmanager
async def away(kafka: LocalKafka, how: Callable[[int], None]) -> AsyncIterator[None]:
    """The first broker goes, and comes back at the end."""
    await asyncio.to_thread(how, 0)
    try:
        yield
    finally:
        await asyncio.to_thread(kafka.restart, 0)


@pytest.mark.parametrize("refusing", ["output", "dead_letter"])
async def test_a_topic_with_too_few_replicas_holds_what_is_its_own_until_it_has_enough(
    pair: LocalKafka, tmp_path: Path, refusing: str
) -> None:
    good_first, good_later = set(range(20)), set(range(20, 60))
    bad_first, bad_later = {100, 101}, set(range(102, 106))

    async def begin(rig: Rig, delivery: str) -> None:
        refused, other = (rig.output, rig.letters) if refusing == "output" else (rig.letters, rig.output)
        await rig.make_topics(rig.input, other, replication=2)
        await rig.make_topics(refused, replication=2, config={"min.insync.replicas": "2"})
        rig.endpoint.faults = [_POISONED]
        await rig.connector(settings(delivery))
        await rig.produce([*good(good_first), *poison(bad_first)])
        await published(rig, rig.output, good_first)
        await published(rig, rig.letters, bad_first)

    async def hold(rig: Rig, delivery: str) -> None:
        await rig.produce([*good(good_later), *poison(bad_later)])
        if delivery == "exactly_once":
            # Results and dead letters share transactions, which fail.
            await rig.processes[0].unready("a transaction of")
        elif refusing == "output":
            await published(rig, rig.letters, bad_first | bad_later)
        else:
            await published(rig, rig.output, good_first | good_later)
        refused, before = (rig.output, good_first) if refusing == "output" else (rig.letters, bad_first)
        assert set(numbers(await rig.so_far(refused))) == before

    async with side_by_side(pair.bootstrap_servers, tmp_path) as rigs:
        await together(begin(rig, delivery) for delivery, rig in rigs.items())
        async with away(pair, pair.stop):
            await together(hold(rig, delivery) for delivery, rig in rigs.items())
        for delivery, rig in rigs.items():
            await all_answered(rig, delivery, good_first | good_later, bad_first | bad_later)


async def test_work_goes_on_when_the_broker_that_coordinates_the_group_is_killed(
    pair: LocalKafka, tmp_path: Path
) -> None:
    async def begin(rig: Rig, delivery: str) -> None:
        async def by_the_first() -> bool:
            rig.group = f"group-{uuid.uuid4().hex}"
            return await rig.coordinator() == 0

        await until(by_the_first, "a group that the first broker coordinates")
        await rig.make_topics(replication=2)
        await rig.connector(settings(delivery))

    async def flow(rig: Rig) -> None:
        for first in range(0, 400, 20):
            await rig.produce(good(range(first, first + 20)))
            await asyncio.sleep(0.2)

    async with side_by_side(pair.bootstrap_servers, tmp_path) as rigs:
        await together(begin(rig, delivery) for delivery, rig in rigs.items())
        async with asyncio.TaskGroup() as flowing:
            for rig in rigs.values():
                flowing.create_task(flow(rig))
            for rig in rigs.values():
                await rig.results(60)
            async with away(pair, pair.kill):
                for delivery, rig in rigs.items():
                    await all_answered(rig, delivery, set(range(400)))


# -- access that is taken back -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalKafka]:
    """A broker that lets a user do only what was allowed."""
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
    with LocalKafka(security=security) as kafka:
        yield kafka


@both
@pytest.mark.parametrize("denied", ["output", "dead_letter"])
async def test_a_topic_that_denies_writes_for_a_while_gets_what_was_held_when_they_are_allowed(
    guarded: LocalKafka, tmp_path: Path, delivery: str, denied: str
) -> None:
    async with make_rig(guarded.admin_servers, tmp_path, partitions=2) as rig:
        await rig.make_topics()
        topic = rig.output if denied == "output" else rig.letters
        for resource, name, *operations in (
            ("topic", rig.input, "READ"),
            ("topic", rig.output, "WRITE"),
            ("topic", rig.letters, "WRITE"),
            ("group", rig.group, "READ"),
            ("transactional_id", "*", "WRITE", "DESCRIBE"),
        ):
            await asyncio.to_thread(guarded.allow, "service", resource, name, *operations)
        rig.endpoint.faults = [_POISONED]
        login = {
            "protocol": "SASL_PLAINTEXT",
            "mechanism": "PLAIN",
            "username": "service",
            "password": "service-secret",
        }
        process = await rig.connector(settings(delivery, bootstrap_servers=guarded.bootstrap_servers, security=login))
        await rig.produce([*good(range(20)), *poison([100])])
        await published(rig, rig.output, set(range(20)))
        await published(rig, rig.letters, {100})
        access = ("service", "topic", topic, "WRITE")
        await asyncio.to_thread(guarded.disallow, *access)
        await rig.produce([*good(range(20, 40)), *poison([101, 102])])
        await process.unready(f"access to topic {topic} is denied")
        if delivery == "at_least_once" and denied == "dead_letter":
            await published(rig, rig.output, set(range(40)))
        await asyncio.to_thread(guarded.allow, *access)
        await process.ready()
        await all_answered(rig, delivery, set(range(40)), {100, 101, 102})


# -- what is too large for its topic -----------------------------------------------------------------------------------


@both
async def test_a_result_that_is_too_large_costs_no_neighbour_and_a_large_dead_letter_only_its_value(
    rig: Rig, delivery: str
) -> None:
    def large(number: int, size: int) -> Event:
        return b"large", b"%d," % number + b"7" * size

    await rig.configure(rig.output, {"max.message.bytes": "8000"})
    await rig.connector(settings(delivery))
    await rig.produce([*good(range(10)), large(10, 9_000), *good(range(11, 20))], partition=0)
    await all_answered(rig, delivery, set(range(20)) - {10}, {10})
    # The connector knows the limits of its start only: from here on the broker refuses, and its neighbours with it.
    await rig.configure(rig.output, {"max.message.bytes": "4000"})
    await rig.configure(rig.letters, {"max.message.bytes": "4000"})
    (place,) = (await rig.produce([*good(range(20, 30)), large(30, 6_000), *good(range(31, 40))], partition=0))[10:11]
    await rig.dead_letters(2)
    await all_answered(rig, delivery, set(range(40)) - {10, 30}, {10, -1})
    kept, dropped = await rig.dead_letters(2)
    for letter in (kept, dropped):
        assert letter.key == b"large"
        assert dict(letter.headers)["inference-error"] == b"too_large"
        assert b"max.message.bytes" in dict(letter.headers)["inference-error-message"]
    assert dropped.value is None
    assert source(dropped) == place
    assert b"the dead letter is" in dict(dropped.headers)["inference-value-dropped"]


# -- topics that change ------------------------------------------------------------------------------------------------


@both
async def test_a_topic_that_gets_more_partitions_while_events_flow_is_read_to_its_last(rig: Rig, delivery: str) -> None:
    rig.endpoint.faults = [Fault("delay", seconds=0.1)]
    process = await rig.connector(settings(delivery))
    await rig.produce(good(range(100)))
    await rig.add_partitions(4)
    for first in range(100, 300, 20):
        await rig.produce(good(range(first, first + 10)))
        await rig.produce(good(range(first + 10, first + 20)), partition=rig.partitions - 1 - first // 20 % 4)
        await asyncio.sleep(0.1)
    await all_answered(rig, delivery, set(range(300)))
    assert await process.metric("connector_partitions") == 8


@both
@pytest.mark.parametrize("paused", [False, True], ids=["at work", "halted"])
async def test_a_topic_that_is_created_again_is_read_from_its_beginning(rig: Rig, delivery: str, paused: bool) -> None:
    process = await rig.connector(settings(delivery))
    await rig.produce(good(range(100)))
    await all_answered(rig, delivery, set(range(100)))
    if paused:
        rig.endpoint.faults = [Fault("access_denied")]
        await rig.produce(good(range(1000, 1010)))
        await process.unready("halted")
    await rig.delete_topics(rig.input)
    await until(partial(is_created, rig), "the name of the deleted topic")
    await rig.produce(good(range(2000, 2300)))

    async def noticed() -> float:
        return await process.metric("connector_topics_recreated_total")

    await until(noticed, "the other topic to be noticed")
    rig.endpoint.faults = []
    await all_answered(rig, delivery, {*range(2000, 2300), *range(100)}, maybe=set(range(1000, 1010)))


async def is_created(rig: Rig) -> bool:
    """Create the input topic again, once its name is free."""
    with contextlib.suppress(AssertionError):
        await rig.make_topics(rig.input)
        return True
    return False


@both
async def test_what_retention_takes_from_a_halted_partition_is_counted_and_said_and_the_rest_answered(
    bare_rig: Rig, delivery: str
) -> None:
    rig = bare_rig
    rig.partitions = 1
    await rig.make_topics()
    rig.endpoint.faults = [Fault("access_denied")]
    process = await rig.connector(settings(delivery) | {"buffer": {"max_events": 20}})
    await rig.produce(good(range(10)))
    await process.unready("halted")
    await rig.produce(good(range(10, 300)))
    await rig.delete_records({0: 200})

    async def counted() -> float:
        return await process.metric("connector_lost_to_retention_total")

    lost = int(await until(counted, "what retention took to be counted"))
    rig.endpoint.faults = []
    await all_answered(rig, delivery, {*range(200 - lost), *range(200, 300)})
    said = [line for line in process.lines().splitlines() if "lost_to_retention" in line]
    assert len(said) == 1
    assert f'"lost": {lost}' in said[0]


# -- an endpoint that is no endpoint for a while -----------------------------------------------------------------------


async def test_an_endpoint_away_for_longer_than_the_poll_interval_costs_no_membership(
    bootstrap_servers: str, tmp_path: Path
) -> None:
    # Without the buffer's bound everything would be fetched at once, and nothing would be paused.
    limits = {"session_timeout": "10s", "request_timeout": "4s", "max_poll_interval": "3s"}

    async def work(rig: Rig, delivery: str) -> None:
        await rig.make_topics()
        process = await rig.connector(settings(delivery, **limits) | {"buffer": {"max_events": 20}})
        rig.endpoint.faults = [Fault("service_unavailable")]
        await rig.produce(good(range(400)))
        await asyncio.sleep(6)
        rig.endpoint.faults = []
        await all_answered(rig, delivery, set(range(400)))
        assert count(process, "partitions_assigned") == 1
        assert count(process, "partitions_revoked") == count(process, "partitions_lost") == 0

    async with side_by_side(bootstrap_servers, tmp_path) as rigs:
        await together(work(rig, delivery) for delivery, rig in rigs.items())


async def test_credentials_that_expire_are_read_again_until_they_are_good(rig: Rig) -> None:
    process = await rig.connector(settings())
    await rig.produce(good(range(20)))
    await all_answered(rig, "at_least_once", set(range(20)))
    rig.endpoint.faults = [Fault("expired_token", until=1.5)]
    await rig.produce(good(range(20, 200)))
    await all_answered(rig, "at_least_once", set(range(200)))
    assert await process.metric("connector_calls_total", outcome="retry", reason="credentials") > 0


async def test_calls_that_never_answer_are_given_up_and_made_again(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("hang", times=8)]
    await rig.connector(
        settings() | {"endpoint": {"read_timeout": "1s"}, "concurrency": {"max_in_flight": 8}},
        program=("tests.chaos.unprotected", "read_timeout_floor"),
    )
    await rig.produce(good(range(200)))
    await all_answered(rig, "at_least_once", set(range(200)))
    assert len({call.body_sha256 for call in rig.endpoint.calls}) <= len(rig.endpoint.calls) - 8


def count(process: Process, event: str) -> int:
    """How often a process has logged an event."""
    return process.lines().count(f'"event": "{event}"')
