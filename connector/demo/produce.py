"""`python -m connector.demo.produce SERVERS [EVENTS]`: more of the demo's events, while it stays up."""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaProducer

from connector.demo.demo import INPUT
from connector.demo.workload import workload


async def produce(bootstrap_servers: str, events: int) -> None:
    """Produce so many events, and the broken ones."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=5) as producer:
        items = workload(events)
        await asyncio.gather(*[await producer.send(INPUT, item.value, key=item.key) for item in items])
    sys.stdout.write(f"produced {len(items)} events to {INPUT}\n")


if __name__ == "__main__":
    asyncio.run(produce(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500))
