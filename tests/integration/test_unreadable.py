"""What aiokafka cannot parse: names of headers that are no text, and batches that came spoilt; nothing stops, or is lost."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, RecordTooLargeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchPy as Batch
from aiokafka.record.legacy_records import _LegacyRecordBatchBuilderPy as LegacyBatchBuilder
from aiokafka.record.util import calc_crc32c

from connector.kafka import unreadable
from tests.integration.clients import started
from tests.integration.rig import source
from tests.integration.stage import Stage, committed_is, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.integration.rig import Rig
    from tests.integration.stage import Working

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])

_AIOKAFKA = {name: getattr(fetcher, name) for name in ("MemoryRecords", "PartitionRecords", "FetchResult")}
_GZIP, _ZSTD, _UNKNOWN = 1, 4, 7
_LENGTH, _MAGIC, _CRC, _ATTRIBUTES, _RECORDS = 8, 16, 17, 21, 61
"""Where a batch has its length, magic, checksum, attributes and records."""


@pytest.fixture
def protected() -> bool:
    return True


@pytest.fixture(autouse=True)
def parser(monkeypatch: pytest.MonkeyPatch, protected: bool) -> None:
    """Aiokafka's own parser, which `read_on` replaces while the test lasts, if it is to be protected."""
    monkeypatch.setattr(unreadable, "AGAIN", 0.5)
    for name, own in _AIOKAFKA.items():
        monkeypatch.setattr(fetcher, name, own)
    if protected:
        unreadable.read_on()
    else:
        monkeypatch.setattr(unreadable, "read_on", lambda: None)


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=2)
        yield stage


class Odd(str):
    """A name that a producer of another language could have written."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def batch_of(
    records: list[tuple[bytes, list[tuple[str, bytes | None]]]], compression: int = 0, timestamp: int | None = None
) -> BatchBuilder:
    """One batch with these values and headers."""
    builder = BatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for number, (value, headers) in enumerate(records):
        assert builder.append(number, timestamp=timestamp, key=b"k", value=value, headers=headers)
    return builder


@asynccontextmanager
async def sending(servers: str) -> AsyncIterator[Callable[[str, int, BatchBuilder], Any]]:
    """Sends a batch to a partition, and gives its first offset."""
    async with started(AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=False)) as producer:

        async def send(topic: str, partition: int, builder: BatchBuilder) -> int:
            batch = producer.create_batch()
            batch._builder = builder
            batch._relative_offset = builder._num_records
            place = await (await producer.send_batch(batch, topic, partition=partition))
            return int(place.offset)

        yield send


# -- names of headers --------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("compression", [0, _ZSTD], ids=["plain", "zstd"])
async def test_an_event_is_delivered_whatever_the_names_of_its_headers(
    stage: Stage, protected: bool, compression: int
) -> None:
    await stage.produce(5)
    odd = [(b"a", []), (b"b", [("before", b"1"), (Odd("?"), b"2"), ("after", None)]), (b"c", [])]
    async with sending(stage.servers) as send:
        await send(stage.topic, 0, batch_of(odd, compression))
    await stage.produce(5)
    await stage.produce(5, partition=1)
    working = stage.work()
    if not protected:
        await until(lambda: working.problem == "the Kafka consumer failed: UnicodeDecodeError; replacing it")
        assert not {6, 7, 8} & set(working.recorder.offsets())
        return
    await until(lambda: working.source.epochs.consumer is not None)
    consumer = working.consumer
    await until(lambda: len(working.recorder.events) >= 18)
    assert working.recorder.offsets() == list(range(13))
    assert working.recorder.offsets(1) == list(range(5))
    assert {event.offset: list(event.headers) for event in working.recorder.events}[6] == [
        ("before", b"1"),
        (r"\xff\xfe", b"2"),
        ("after", None),
    ]
    assert working.consumer is consumer
    assert working.problem is None
    await until(lambda: committed_is(stage, 13))


async def test_an_odd_name_in_the_middle_gives_no_event_twice(stage: Stage) -> None:
    """Also when the answer is read in turns, and after a part of its batch."""
    async with sending(stage.servers) as send:
        for _ in range(3):
            await send(stage.topic, 0, batch_of([(b"%d" % n, [(Odd("?"), b"")] if n == 3 else []) for n in range(10)]))
    async with started(AIOKafkaConsumer(bootstrap_servers=stage.servers)) as consumer:
        tp = TopicPartition(stage.topic, 0)
        consumer.assign([tp])
        consumer.seek(tp, 1)
        got: list[int] = []
        async with asyncio.timeout(15):
            while len(got) < 29:
                records = (await consumer.getmany(timeout_ms=200, max_records=4)).get(tp, [])
                got += [record.offset for record in records]
    assert got == list(range(1, 30))


@pytest.mark.parametrize("without_extensions", ["", "1"], ids=["c", "python"])
async def test_a_process_answers_and_dead_letters_events_with_odd_names_and_those_after_them(
    rig: Rig, without_extensions: str
) -> None:
    process = await rig.connector(AIOKAFKA_NO_EXTENSIONS=without_extensions)
    async with sending(rig.bootstrap_servers) as send:
        odd = [(Odd("?"), b"v"), ("null", None), ("", b"")]
        first = await send(rig.input, 0, batch_of([(b"1,1", odd), (b"\xff", odd), (b"1,2", [])]))
        last = await send(rig.input, 0, batch_of([(b"1,3", [])], timestamp=-1))
    (after,) = await rig.produce([(b"k", b"1,4")], partition=0)
    places = [f"{rig.input}/0/{first + n}" for n in (0, 2)] + [f"{rig.input}/0/{last}", after]
    results, letters = await rig.results(4), await rig.dead_letters(1)
    assert [source(record) for record in results] == places
    assert list(letters[0].headers)[:3] == [(r"\xff\xfe", b"v"), ("null", None), ("", b"")]
    assert (r"\xff\xfe", b"v") in results[0].headers
    assert (await process.get("/health/ready"))[0] == 200
    await process.stop()
    assert process.lines().count("header_name_replaced") == 1
    assert "source_problem" not in process.lines()


# -- batches that came spoilt ------------------------------------------------------------------------------------------


def resealed(data: bytearray) -> bytes:
    """A batch with the checksum that it should have."""
    struct.pack_into(">I", data, _CRC, calc_crc32c(bytes(data[_ATTRIBUTES:])))
    return bytes(data)


def bad_checksum(data: bytearray) -> bytes:
    data[-1] ^= 1
    return bytes(data)


def unknown_codec(data: bytearray) -> bytes:
    data[_ATTRIBUTES + 1] |= _UNKNOWN
    return resealed(data)


def no_gzip(data: bytearray) -> bytes:
    data[_ATTRIBUTES + 1] |= _GZIP
    return resealed(data)


def no_records(data: bytearray) -> bytes:
    data[_RECORDS:] = bytes(len(data) - _RECORDS)
    return resealed(data)


def cut_short(data: bytearray) -> bytes:
    return bytes(data[:-1])


def no_length(data: bytearray) -> bytes:
    struct.pack_into(">i", data, _LENGTH, -1)
    return bytes(data)


class Spoiler:
    """Spoils the batches that a consumer gets of one partition, from an offset on."""

    def __init__(self, consumer: AIOKafkaConsumer, spoil: Callable[[bytearray], bytes], start: int = 0) -> None:
        self.on = True
        self.answers = 0
        """How many were spoilt."""
        self._spoil, self._start = spoil, start
        self._send = consumer._client.send
        consumer._client.send = self._sent

    async def _sent(self, node: int, request: Any, **options: Any) -> Any:
        response = await self._send(node, request, **options)
        if self.on and isinstance(request, FetchRequest):
            response.topics = [
                (topic, [(*rest, self._spoilt(rest[0], data)) for *rest, data in partitions])
                for topic, partitions in response.topics
            ]
        return response

    def _spoilt(self, partition: int, data: bytes) -> bytes:
        if partition != 0 or not data:
            return data
        parts, place, spoilt = [], 0, False
        while place < len(data):
            end = place + _LENGTH + 4 + struct.unpack_from(">i", data, place + _LENGTH)[0]
            batch = bytearray(data[place:end])
            place = end
            if spoilt := Batch(batch).base_offset >= self._start:
                parts.append(self._spoil(batch))
                self.answers += 1
                break
            parts.append(bytes(batch))
        assert spoilt or parts
        return b"".join(parts)


async def spoilt(stage: Stage, spoil: Callable[[bytearray], bytes], start: int) -> tuple[Working, Spoiler]:
    """A source that gets what comes spoilt from an offset of partition 0 on."""
    working = await stage.worker()
    await working.pause()
    spoiler = Spoiler(working.consumer, spoil, start)
    async with sending(stage.servers) as send:
        for number in range(3):
            await send(stage.topic, 0, batch_of([(b"%d" % number, [])] * 4))
    await stage.produce(3, partition=1)
    working.recorder.consuming = True
    return working, spoiler


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(bad_checksum, "CorruptRecordException", id="checksum"),
        pytest.param(unknown_codec, "UnsupportedCodecError: Unknown compression codec 0x07", id="codec"),
        pytest.param(no_gzip, "BadGzipFile", id="gzip"),
        pytest.param(no_records, "CorruptRecordException", id="records"),
        pytest.param(cut_short, "CorruptRecordException", id="short"),
        pytest.param(no_length, "CorruptRecordException", id="length"),
    ],
)
async def test_a_batch_that_cannot_be_read_is_named_and_holds_up_its_partition_only_until_it_comes_whole(
    stage: Stage, spoil: Callable[[bytearray], bytes], why: str
) -> None:
    working, spoiler = await spoilt(stage, spoil, start=4)
    place = f"{stage.topic}/0 from offset 4 on ({why}"
    await until(lambda: place in (working.problem or ""))
    consumer = working.consumer
    await stage.produce(3, partition=1)
    await until(lambda: working.recorder.offsets(1) == list(range(6)))
    before = spoiler.answers
    await until(lambda: spoiler.answers > before + 1)
    assert place in (working.problem or "")
    assert working.recorder.offsets() == list(range(4))
    await until(lambda: committed_is(stage, 4))
    spoiler.on = False
    await until(lambda: working.problem is None)
    await until(lambda: working.recorder.offsets() == list(range(12)))
    assert working.consumer is consumer


async def test_records_that_are_deleted_because_they_cannot_be_read_are_counted_and_the_rest_is_read(
    stage: Stage,
) -> None:
    def one(data: bytearray) -> bytes:
        return bad_checksum(data) if Batch(data).base_offset == 4 else bytes(data)

    working, _ = await spoilt(stage, one, start=4)
    await until(lambda: "from offset 4 on" in (working.problem or ""))
    await stage.delete_records(before=8)
    await until(lambda: working.recorder.offsets() == [*range(4), *range(8, 12)])
    await until(lambda: working.problem is None)
    assert working.count("lost_to_retention") == 4


async def test_a_batch_that_cannot_be_read_is_not_fetched_in_a_hot_loop(stage: Stage) -> None:
    working, spoiler = await spoilt(stage, bad_checksum, start=0)
    await until(lambda: working.problem)
    before = spoiler.answers
    await asyncio.sleep(1.6)
    assert spoiler.answers - before <= 4


async def test_batches_of_before_2017_are_read(stage: Stage) -> None:
    def old(data: bytearray) -> bytes:
        batch = Batch(data)
        assert batch.base_offset % 4 == 0
        builder = LegacyBatchBuilder(magic=batch.base_offset // 4 % 2, compression_type=0, batch_size=1 << 20)
        for record in Batch(data):
            builder.append(record.offset, record.timestamp, record.key, record.value)
        return bytes(builder.build())

    working, spoiler = await spoilt(stage, old, start=0)
    await until(lambda: working.recorder.offsets() == list(range(12)))
    assert spoiler.answers
    assert working.problem is None


@both
async def test_events_that_one_getmany_took_before_it_met_an_unreadable_batch_are_not_lost(
    stage: Stage, protected: bool
) -> None:
    bad, good = TopicPartition(stage.topic, 0), TopicPartition(stage.topic, 1)
    await stage.produce(3, partition=0)
    await stage.produce(3, partition=1)
    async with started(AIOKafkaConsumer(bootstrap_servers=stage.servers)) as consumer:
        Spoiler(consumer, bad_checksum)
        consumer.assign([bad, good])
        for tp in (bad, good):
            consumer.seek(tp, 0)
        fetched = consumer._fetcher._records
        await until(lambda: {bad, good} <= set(fetched))
        fetched.move_to_end(bad)
        if protected:
            assert [record.offset for record in (await consumer.getmany(timeout_ms=0))[good]] == [0, 1, 2]
        else:
            with pytest.raises(CorruptRecordException):
                await consumer.getmany(timeout_ms=0)
            assert await consumer.position(good) == 3


@both
async def test_a_batch_that_is_cut_short_is_not_stepped_over(stage: Stage, protected: bool) -> None:
    tp = TopicPartition(stage.topic, 0)
    await stage.produce(3)
    async with started(AIOKafkaConsumer(bootstrap_servers=stage.servers)) as consumer:
        spoiler = Spoiler(consumer, cut_short)
        consumer.assign([tp])
        consumer.seek(tp, 0)
        if protected:
            await until(lambda: spoiler.answers)
            assert await consumer.getmany(timeout_ms=300) == {}
            assert await consumer.position(tp) == 0
        else:
            with pytest.raises(RecordTooLargeError):
                await consumer.getmany(timeout_ms=5000)
            assert await consumer.position(tp) == 1
