"""Metrics: every number that /metrics shows, declared once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


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


class _Scrape(Collector):
    """Numbers that are read when somebody asks, and cost nothing otherwise."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would read the numbers while the parts are still being built."""
        return ()


class Metrics:
    """Every metric of a process, on a registry of its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock

        def counter(name: str, sentence: str, *labels: str) -> Counter:
            return Counter(f"connector_{name}", sentence, labels, registry=registry)

        def histogram(name: str, sentence: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(registry, f"connector_{name}", sentence, bounds)

        self.events = counter("events", "Events delivered from the input topic.")
        self.skipped = counter("skipped", "Events that an earlier owner had completed, and that were not called again.")
        self.results = counter("results", "Results that the broker has acknowledged.")
        self.dead_letters = counter(
            "dead_letters", "Dead letters that the broker has acknowledged, by reason.", "reason"
        )
        self.calls = counter("calls", "Calls that ended, by outcome and reason.", "outcome", "reason")
        self.lost_to_retention = counter("lost_to_retention", "Events that retention deleted before we read them.")
        self.topics_recreated = counter("topics_recreated", "Partitions whose topic was found to be created again.")
        self.commit_failures = counter("commit_failures", "Commits that failed and are tried again.")
        self.transactions = counter("transactions", "Transactions that ended, by outcome (exactly_once).", "outcome")
        self.stuck = counter("stuck", "Times that work did not move although nothing held it up.")
        self.batch_events = histogram("batch_events", "Events in a call.", _ROWS)
        self.call_seconds = histogram("call_seconds", "Seconds from sending a call to its answer.", _SECONDS)
        self.queue_seconds = histogram(
            "queue_seconds", "Seconds from the delivery of a batch's oldest event to its first call.", _SECONDS
        )
        self.end_to_end_seconds = histogram(
            "end_to_end_seconds", "Seconds from an event's timestamp to the acknowledgement of its result.", _SECONDS
        )
        self.polling = Stopwatch()
        self.waiting_for_slot = Stopwatch()
        self.calling = Stopwatch()
        self.publishing = Stopwatch()
        registry.register(_Scrape(self._activities))

    def _activities(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "connector_loop_seconds",
            "Seconds in which the process polled, had a batch waiting for a slot, had calls in flight, or was publishing.",
            labels=["activity"],
        )
        now = self._clock()
        for name in ("polling", "waiting_for_slot", "calling", "publishing"):
            family.add_metric([name], getattr(self, name).seconds(now))
        yield family

    def watch(self, name: str, sentence: str, read: Callable[[], float]) -> None:
        """Show a number that is read at every scrape."""

        def family() -> Iterable[Metric]:
            yield GaugeMetricFamily(f"connector_{name}", sentence, value=read())

        self.registry.register(_Scrape(family))

    def watch_partitions(self, name: str, sentence: str, read: Callable[[], dict[int, float]]) -> None:
        """Show a number for each partition, read at every scrape."""

        def family() -> Iterable[Metric]:
            gauge = GaugeMetricFamily(f"connector_{name}", sentence, labels=["partition"])
            for partition, value in read().items():
                gauge.add_metric([str(partition)], value)
            yield gauge

        self.registry.register(_Scrape(family))
