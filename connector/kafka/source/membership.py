"""Membership: our place in the group, as the coordinator's answers tell of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiokafka.errors import ConsumerStoppedError

from connector.core.epochs.lease import Lease
from connector.kafka import repairs
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from connector.core.epochs.ledger import Commit
    from connector.settings.kafka import Kafka
    from connector.telemetry.problems import Problems

_LEASE = 0.75
"""How much of the session time-out a heartbeat's answer is good for: what is sent on its evidence needs time to arrive."""
_RIVAL = 30.0
"""Seconds without another process of our `group_instance_id` after which it counts as gone."""
_TURN = 0.2
"""Seconds between two looks at what only the passing of time tells."""


class Membership:
    """Hears what the group coordinator answers to the consumer of the moment: it is the evidence for our lease."""

    def __init__(self, kafka: Kafka, problems: Problems) -> None:
        self._kafka = kafka
        self._problems = problems
        self._consumer: AIOKafkaConsumer | None = None
        self._heard = 0.0
        self._rival_until = 0.0
        self.lease = Lease(_LEASE * kafka.session_timeout)
        """Whether we may take ourselves for the owner of our partitions."""
        problems.set(Problem.NOT_JOINED)

    def begin(self, consumer: AIOKafkaConsumer) -> None:
        """Hear of a consumer that has started, and has not subscribed yet."""
        self._consumer = consumer
        self._heard = time.monotonic()
        repairs.on_coordinator_answer(consumer, self._answered)
        repairs.on_rival(consumer, self._met_rival)

    def joined(self) -> None:
        """Note that the group has given us an assignment, which may be empty."""
        self._problems.clear(Problem.NOT_JOINED)

    def end(self) -> None:
        """Forget the consumer, which is being closed."""
        self._consumer = None
        self._problems.clear(Problem.CUT_OFF)

    async def watch(self) -> None:
        """Say that the coordinator has fallen silent, or that a rival has gone, which no answer tells; until cancelled."""
        while True:
            if self.cut_off:
                self._problems.set(Problem.CUT_OFF)
            if time.monotonic() >= self._rival_until:
                self._problems.clear(Problem.RIVAL)
            await asyncio.sleep(_TURN)

    @property
    def cut_off(self) -> bool:
        """Whether the coordinator has not answered for longer than a rebalance can keep it silent."""
        silent = time.monotonic() - self._heard
        return self._consumer is not None and silent > self._kafka.request_timeout + 2 * self._kafka.heartbeat

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has committed of a partition; raises KafkaError."""
        if self._consumer is None:
            raise ConsumerStoppedError
        return (await repairs.committed(self._consumer, [partition]))[partition]

    def rejoin(self) -> None:
        """Ask the group for our partitions anew: their epochs end in order, and others begin where the group is."""
        if self._consumer is not None:
            repairs.rejoin(self._consumer)

    def state(self) -> dict[str, object]:
        """How it stands, for a person who must find out why nothing moves."""
        return {
            "joined": not self._problems.holds(Problem.NOT_JOINED),
            "owner": self.lease.holds(time.monotonic()),
        }

    def _answered(self, answer: Any, asked: float) -> None:
        self._heard = time.monotonic()
        self._problems.clear(Problem.CUT_OFF)
        member = repairs.is_member(answer)
        if member:
            self.lease.renew(asked)
        elif member is False:
            self.lease.end()

    def _met_rival(self) -> None:
        self._rival_until = time.monotonic() + _RIVAL
        self._problems.set(Problem.RIVAL, name=self._kafka.group_instance_id)
