"""The plain copy loop that the connector is measured beside: getmany, send, wait for the acknowledgements, commit."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def copy(bootstrap_servers: str, source: str, target: str, events: int) -> None:
    """Copy so many events from one topic to another, with keys and headers, at least once."""
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=bootstrap_servers,
        group_id=f"copy-{target}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
    async with consumer, producer:
        copied = 0
        while copied < events:
            fetched = await consumer.getmany(timeout_ms=200, max_records=2000)
            sent = [
                await producer.send(target, record.value, key=record.key, headers=list(record.headers))
                for records in fetched.values()
                for record in records
            ]
            if sent:
                await asyncio.gather(*sent)
                await consumer.commit()
                copied += len(sent)


if __name__ == "__main__":
    uvloop.run(copy(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
