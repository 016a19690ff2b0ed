"""OutputTopic: a topic that we write to, with its limits, and how results or dead letters become record batches for it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatchBuilder

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

    from connector.core.answers.outgoing import Outgoing
    from connector.kafka.topic import Topic

_BATCH_BYTES = 1_000_000
"""A batch never grows beyond this, whatever the topic takes."""
_RECORD_BATCH_OVERHEAD = 128
"""More than the header of a record batch (61 bytes) and a record's own lengths; max.message.bytes is about the batch."""


@lru_cache(maxsize=65536)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def record_size(outgoing: Outgoing) -> int:
    """The most bytes that a record takes in a batch of its own."""
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(outgoing.key, outgoing.value, outgoing.headers)
    return int(size) + _RECORD_BATCH_OVERHEAD


class OutputTopic:
    """A topic that we write to.

    `too_large` is called with what can never fit it, and its size in bytes, and gives what should be sent in its place, or
    None.
    """

    def __init__(self, name: str, too_large: Callable[[Outgoing, int], Outgoing | None]) -> None:
        self.name = name
        self.max_message_bytes = 1_048_588
        """Its `max.message.bytes`; Kafka's default until it is looked up."""
        self._too_large = too_large
        self._batch_bytes = _BATCH_BYTES
        self._sticky = itertools.count()

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch that a producer for it should make."""
        return min(self._batch_bytes, self.max_message_bytes)

    def learn(self, topics: Mapping[str, Topic]) -> None:
        """Take the size that the topic allows, where we may read it."""
        limit = topics[self.name].max_message_bytes
        if limit is not None:
            self.max_message_bytes = limit

    def fitting(self, outgoing: Outgoing) -> Outgoing | None:
        """What can be sent for a result or dead letter: itself, or what stands in for one that is too large, or None."""
        # An estimate for every event would cost more than the send.
        if len(outgoing.value or b"") + len(outgoing.key or b"") + 4096 > self.max_message_bytes:
            size = record_size(outgoing)
            if size > self.max_message_bytes:
                return self._too_large(outgoing, size)
        return outgoing

    def distribute(self, outgoings: Iterable[Outgoing], partitions: int, queues: dict[int, deque[Outgoing]]) -> None:
        """Add each to its partition's queue, chosen as Kafka's default partitioner does, so that equal keys meet."""
        keyless = next(self._sticky) % partitions
        for outgoing in outgoings:
            partition = keyless if outgoing.key is None else _hash(outgoing.key) % partitions
            queue = queues.get(partition)
            if queue is None:
                queue = queues[partition] = deque()
            queue.append(outgoing)

    @staticmethod
    def batch(producer: AIOKafkaProducer, queue: deque[Outgoing]) -> tuple[BatchBuilder, list[Outgoing]]:
        """A record batch, ready to be sent, with as much of the front of a queue as it takes, and what it holds."""
        builder = producer.create_batch()
        taken: list[Outgoing] = []
        while queue:
            _, key, value, headers, timestamp, _ = queue[0]
            if builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                break
            taken.append(queue.popleft())
        builder.close()
        return builder, taken

    def shrink(self, sent: list[Outgoing]) -> None:
        """The broker takes less than it said: smaller batches, and what is too large on its own never again."""
        if len(sent) == 1:
            self.max_message_bytes = min(self.max_message_bytes, record_size(sent[0]) - 1)
        else:
            self._batch_bytes = max(min(self._batch_bytes, sum(map(record_size, sent))) // 2, 128)
