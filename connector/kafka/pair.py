"""Pair: the source and the sink of a process, which are made for each other: one of the two commits.

At least once, the source commits what the sink has published. With exactly once, the sink commits in its transactions, so
the source opens them before it reads an offset. Either sink publishes only while the source's membership holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from connector.kafka.sink.protocol import Sink, Upstream
from connector.kafka.sink.sink import OutboxSink
from connector.kafka.sink.transactions import Transactions
from connector.kafka.source.membership import Membership
from connector.kafka.source.protocol import Downstream, Source
from connector.kafka.source.source import KafkaSource

if TYPE_CHECKING:
    from connector.settings import Settings
    from connector.telemetry.metrics import Metrics
    from connector.telemetry.problems import Problems


class Between(Downstream, Upstream, Protocol):
    """What stands between a source and a sink: the pipeline."""


def make(settings: Settings, metrics: Metrics, problems: Problems, pipeline: Between) -> tuple[Source, Sink]:
    """A source and a sink that are not at work yet, for the delivery that the settings name."""
    membership = Membership(settings.kafka, problems)
    if settings.kafka.delivery == "exactly_once":
        transactions = Transactions(settings, membership, metrics, problems, pipeline)
        return KafkaSource(settings, membership, metrics, problems, pipeline, transactions), transactions
    sink = OutboxSink(settings, membership.lease, metrics.publishing, problems, pipeline)
    return KafkaSource(settings, membership, metrics, problems, pipeline), sink
