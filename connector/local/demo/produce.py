"""`python -m connector.local.demo.produce SERVERS [EVENTS]`: more of the demo's events, while it stays up."""

from __future__ import annotations

import asyncio

import click
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from connector.local.demo.demo import INPUT
from connector.local.demo.workload import workload


@click.command()
@click.argument("servers")
@click.argument("events", type=click.IntRange(1), default=500)
def produce(servers: str, events: int) -> None:
    """Produce so many of the demo's events to the Kafka at SERVERS, and the three broken ones."""
    click.echo(f"produced {asyncio.run(_produce(servers, events))} events to {INPUT}")


async def _produce(servers: str, events: int) -> int:
    items = workload(events)
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5)
    try:
        await producer.start()
        await asyncio.gather(*[await producer.send(INPUT, item.value, key=item.key) for item in items])
    except KafkaConnectionError:
        raise click.ClickException(f"No Kafka answers at {servers}; the demo prints its address.") from None
    finally:
        await producer.stop()
    return len(items)


if __name__ == "__main__":
    produce()
