"""Metrics: every number that /metrics shows, declared once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ACTIVITIES = (
    "Seconds in which the process polled, had a batch waiting for a slot, had calls in flight, or was publishing."
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LABELS: Final[Mapping[str, str]] = {
    "partition": "The number of a partition of the input topic.",
    "outcome": "Of calls the outcome, one of those below; of transactions committed or failed.",
    "reason": "The reason, one of those below.",
    "activity": "polling, waiting_for_slot, calling or publishing; they overlap.",
}
"""What the values of each label are, whichever metric has it."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A metric as it is declared: what it is called, what it counts or measures in which unit, and by which labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    sentence: str
    labels: tuple[str, ...] = ()


class Histogram(Collector):
    """A histogram that takes many values at a time: prometheus_client's own costs microseconds a value."""

    def __init__(self, registry: CollectorRegistry, name: str, sentence: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._sentence = sentence
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, *values: float) -> None:
        """Count values."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def collect(self) -> Iterable[Metric]:
        """The cumulative buckets, as Prometheus wants them."""
        total, buckets = 0, []
        for bound, count in zip((*map(floatToGoString, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._sentence, buckets=buckets, sum_value=self._sum)


class Stopwatch:
    """Seconds in which something was going on; things that overlap count once."""

    __slots__ = ("_running", "_seconds", "_since")

    def __init__(self) -> None:
        self._running = 0
        self._since = 0.0
        self._seconds = 0.0

    def start(self, now: float) -> None:
        """One more of it has begun."""
        if not self._running:
            self._since = now
        self._running += 1

    def stop(self, now: float) -> None:
        """One of it has ended."""
        self._running -= 1
        if not self._running:
            self._seconds += now - self._since

    def add(self, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._seconds += seconds

    def seconds(self, now: float) -> float:
        """The seconds up to a moment."""
        return self._seconds + (now - self._since if self._running else 0.0)


class Gauge(Collector):
    """A number, or one for each value of its label, that is read when somebody asks, and costs nothing otherwise.

    Until `reads` has named where it comes from, it is not shown.
    """

    def __init__(self, registry: CollectorRegistry, name: str, sentence: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._sentence = sentence
        self._labels = labels
        self._read: Callable[[], float | Mapping[int, float]] | None = None
        registry.register(self)

    def reads(self, read: Callable[[], float | Mapping[int, float]]) -> None:
        """Name what gives the number; with a label, one for each value of it."""
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """The number at this moment."""
        if self._read is None:
            return
        read = self._read()
        gauge = GaugeMetricFamily(self._name, self._sentence, labels=self._labels)
        for label, value in read.items() if isinstance(read, Mapping) else (("", read),):
            gauge.add_metric([str(label)] if self._labels else [], value)
        yield gauge


class _Activities(Collector):
    """The seconds of each activity, as one counter; `clock` is that of the stopwatches."""

    def __init__(
        self, registry: CollectorRegistry, name: str, clock: Callable[[], float], watches: Mapping[str, Stopwatch]
    ) -> None:
        self._name = name
        self._clock = clock
        self._watches = watches
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The seconds up to this moment."""
        family = CounterMetricFamily(self._name, _ACTIVITIES, labels=["activity"])
        now = self._clock()
        for activity, watch in self._watches.items():
            family.add_metric([activity], watch.seconds(now))
        yield family


class Metrics:
    """Every metric of a process, on a registry of its own; `clock` gives seconds and does not go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self.declared: list[Declaration] = []
        """Every metric, in the order of its declaration."""

        def counter(name: str, unit: str, sentence: str, *labels: str) -> Counter:
            return Counter(declare(name, "counter", unit, sentence, labels), sentence, labels, registry=registry)

        def histogram(name: str, unit: str, sentence: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(registry, declare(name, "histogram", unit, sentence), sentence, bounds)

        def gauge(name: str, unit: str, sentence: str, *labels: str) -> Gauge:
            return Gauge(registry, declare(name, "gauge", unit, sentence, labels), sentence, labels)

        def declare(
            name: str,
            kind: Literal["counter", "gauge", "histogram"],
            unit: str,
            sentence: str,
            labels: tuple[str, ...] = (),
        ) -> str:
            self.declared.append(Declaration(f"connector_{name}", kind, unit, sentence, labels))
            return f"connector_{name}"

        self.events = counter("events", "events", "Events delivered from the input topic.")
        self.skipped = counter(
            "skipped", "events", "Events that an earlier owner had completed, and that were not called again."
        )
        self.results = counter("results", "results", "Results that the broker has acknowledged.")
        self.dead_letters = counter(
            "dead_letters", "dead letters", "Dead letters that the broker has acknowledged, by reason.", "reason"
        )
        self.calls = counter("calls", "calls", "Calls that ended, by outcome and reason.", "outcome", "reason")
        self.lost_to_retention = counter(
            "lost_to_retention", "events", "Events that retention deleted before we read them."
        )
        self.topics_recreated = counter(
            "topics_recreated", "partitions", "Partitions whose topic was found to be created again."
        )
        self.commit_failures = counter("commit_failures", "commits", "Commits that failed and are tried again.")
        self.transactions = counter(
            "transactions", "transactions", "Transactions that ended, by outcome (exactly_once).", "outcome"
        )
        self.stuck = counter("stuck", "times", "Times that work did not move although nothing held it up.")
        self.batch_events = histogram("batch_events", "events", "Events in a call.", _ROWS)
        self.call_seconds = histogram("call_seconds", "seconds", "Seconds from sending a call to its answer.", _SECONDS)
        self.queue_seconds = histogram(
            "queue_seconds",
            "seconds",
            "Seconds from the delivery of a batch's oldest event to its first call.",
            _SECONDS,
        )
        self.end_to_end_seconds = histogram(
            "end_to_end_seconds",
            "seconds",
            "Seconds from an event's timestamp to the acknowledgement of its result.",
            _SECONDS,
        )
        self.calls_in_flight = gauge("calls_in_flight", "calls", "Calls in flight.")
        self.bytes_in_flight = gauge("bytes_in_flight", "bytes", "Bytes of the bodies in flight.")
        self.limit = gauge("limit", "calls", "The most calls that may be in flight at present.")
        self.buffered_events = gauge("buffered_events", "events", "Events delivered and not complete.")
        self.buffered_bytes = gauge("buffered_bytes", "bytes", "Bytes of events and results not complete.")
        self.partitions = gauge("partitions", "partitions", "Partitions assigned to this process.")
        self.commit_age = gauge("commit_age_seconds", "seconds", "Seconds since nothing was left to commit.")
        self.ready = gauge("ready", "1 or 0", "1 while ready, else 0.")
        self.open_descriptors = gauge("open_descriptors", "descriptors", "Files and connections that are open.")
        self.descriptor_limit = gauge("descriptor_limit", "descriptors", "The most that may be open.")
        self.lag = gauge("lag", "events", "Events of the partition that are not complete.", "partition")
        self.oldest_unfinished_seconds = gauge(
            "oldest_unfinished_seconds",
            "seconds",
            "Seconds since the delivery of the oldest unfinished event.",
            "partition",
        )
        self.oldest_unfinished_offset = gauge(
            "oldest_unfinished_offset", "an offset", "Offset of the oldest unfinished event.", "partition"
        )
        self.polling, self.waiting_for_slot, self.calling, self.publishing = (Stopwatch() for _ in range(4))
        _Activities(
            registry,
            declare("loop_seconds", "counter", "seconds", _ACTIVITIES, ("activity",)),
            clock,
            {
                "polling": self.polling,
                "waiting_for_slot": self.waiting_for_slot,
                "calling": self.calling,
                "publishing": self.publishing,
            },
        )
