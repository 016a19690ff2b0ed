"""Unreadable: batches that aiokafka cannot parse, which would end the reading of every partition or lose events.

`read_on` repairs its parser, for all consumers of the process, with what needs private names; it belongs to `repairs.py`.
`Unreadable` says what cannot be read, and has it fetched again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, IllegalStateError, UnsupportedCodecError
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

from connector.kafka import repairs
from connector.telemetry.log_events import LogEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN = 5.0
"""Seconds until a batch is fetched again: what was spoilt on its way, or by one replica's disk, may come whole then."""

_told: set[TopicPartition] = set()
"""Partitions of which was said that names of headers are replaced."""


def read_on() -> None:
    """Let no batch that cannot be parsed end the reading of others, or lose an event.

    The fetcher parses within `getmany`: an error there throws away what the same call had taken from other partitions,
    whose positions are past it. A name of a header that is not UTF-8, which brokers take, is such an error, and it would
    be met again at every turn. A batch that is cut short is stepped over, an offset at a time.
    """
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = _Records, _PartitionRecords, _FetchResult


class _Records(MemoryRecords):
    """The batches of one partition in an answer, which can be read a second time from the last one given."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data
        self._given = 0

    def has_next(self) -> bool:
        # Without a whole batch aiokafka takes the first event for too large, and steps over it.
        return super().has_next() or (self._given == 0 and self.size_in_bytes() > 0)

    def next_batch(self) -> Any:
        batch = super().next_batch()
        if batch is None:
            raise CorruptRecordException("a batch is cut short")
        self._given += 1
        return batch

    def again(self) -> _LenientRecords:
        """The batches from the last one given on, with any names of headers."""
        records = _LenientRecords(self._data)
        for _ in range(self._given - 1):
            records.next_batch()
        return records


class _LenientRecords(_MemoryRecordsPy):
    """Batches whose names of headers may be any bytes. Slower, so only for the answer that has one which is not UTF-8."""

    def next_batch(self) -> Any:
        data, batch = self._next_slice, super().next_batch()
        # Batches of before 2017 (magic 0 and 1) have no headers.
        return batch if data is None or data[self.MAGIC_OFFSET] < 2 else _LenientBatch(data)


class _LenientBatch(_DefaultRecordBatchPy):
    """A batch that shows names of headers which are not UTF-8 with backslashes."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._plain = bytearray(self._buffer)
        self._buffer = _Lenient(self._buffer)

    def _read_msg(self) -> Any:
        return super()._read_msg(self._varint)

    def _varint(self, _: bytearray, position: int) -> Any:
        return decode_varint(self._plain, position)  # written in C, and takes no other class


class _Lenient(bytearray):
    """Bytes whose slices become a text in any case."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Lenient(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _PartitionRecords(PartitionRecords):
    """The records of one partition in an answer, which end before what cannot be read; `failure` says why."""

    _records: Any
    failure: Exception | None = None

    def _unpack_records(self) -> Iterator[Any]:
        try:
            try:
                yield from super()._unpack_records()
            except (UnicodeDecodeError, CorruptRecordException) as error:
                # The parser without extensions in C hides the cause.
                if not isinstance(error, UnicodeDecodeError) and not isinstance(error.__cause__, UnicodeDecodeError):
                    raise
                self._tell()
                self._records = self._records.again()
                yield from super()._unpack_records()
        except Exception as error:  # noqa: BLE001 - decompression has errors of its own
            self.failure = error

    def _tell(self) -> None:
        if self._tp not in _told:
            _told.add(self._tp)
            structlog.get_logger("connector.source").warning(
                LogEvent.HEADER_NAME_REPLACED,
                topic=self._tp.topic,
                partition=self._tp.partition,
                offset=self.next_fetch_offset,
            )


class _FetchResult(FetchResult):
    """What was fetched of a partition, which stays when it ends in a failure, so that it is not fetched in a hot loop."""

    _partition_records: _PartitionRecords | None

    @property
    def failure(self) -> Exception | None:
        """Why the events from the position on cannot be read."""
        return None if self._partition_records is None else self._partition_records.failure

    def getall(self, max_records: int | None = None) -> Any:
        records = self._partition_records
        taken = super().getall(max_records) if self.failure is None else []
        if records is not None and records.failure is not None:
            self._partition_records = records
            self.check_assignment(self._topic_partition)  # which forgets it when it is paused, or not ours any more
        return taken


@dataclass(slots=True)
class _Held:
    """A partition that stands before what cannot be read."""

    offset: int
    error: Exception
    again: float
    """When it is fetched again, by the clock of `look`."""


class Unreadable:
    """What cannot be read of the partitions of a consumer; nothing of it is skipped."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, _Held] = {}

    def look(self, consumer: AIOKafkaConsumer, now: float) -> str | None:
        """Which partitions stand before what cannot be read, from which offset on, and why; None while everything can.

        To be called after every `getmany`, with the time in seconds.
        """
        for tp, result in list(consumer._fetcher._records.items()):
            if type(result) is not _FetchResult or (error := result.failure) is None:
                continue
            offset = repairs.position(consumer, tp)
            held = self._held.get(tp)
            if offset is None:
                continue
            if held is None or held.offset != offset:
                self._held[tp] = _Held(offset, error, now + AGAIN)
            elif now >= held.again:
                held.error, held.again = error, now + AGAIN
                with contextlib.suppress(IllegalStateError):
                    consumer.seek(tp, offset)
        for tp, held in list(self._held.items()):
            if repairs.position(consumer, tp) != held.offset:
                del self._held[tp]
        return _places(self._held) if self._held else None


def _places(held: dict[TopicPartition, _Held]) -> str:
    """What cannot be read; never more of an error than its type, whose text may show an event's bytes."""
    places = []
    for tp, one in sorted(held.items()):
        what = str(one.error) if isinstance(one.error, UnsupportedCodecError) else type(one.error).__name__
        places.append(f"{tp.topic}/{tp.partition} from offset {one.offset} on ({what})")
    return ", ".join(places)
