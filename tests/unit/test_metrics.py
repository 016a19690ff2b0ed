"""Metrics: numbers as Prometheus wants them, and every family that /metrics promises."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from connector.settings.load import parse
from connector.telemetry.metrics import Histogram, Metrics, Stopwatch
from connector.worker.connector import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDS = (0.001, 0.25, 1, 10, 1800)


@pytest.fixture(autouse=True)
def _no_created_samples() -> Iterator[None]:
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    yield
    prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]


@given(st.lists(st.lists(st.sampled_from(BOUNDS) | st.floats(0, 4000), max_size=8)))
def test_a_histogram_shows_what_prometheus_own_would(observed: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram(ours, "seconds", "A sentence.", BOUNDS)
    reference = prometheus_client.Histogram("seconds", "A sentence.", registry=theirs, buckets=BOUNDS)
    for values in observed:
        histogram.observe(*values)
        for value in values:
            reference.observe(value)
    assert shown_without_sum(ours) == shown_without_sum(theirs)
    assert ours.get_sample_value("seconds_sum") == pytest.approx(theirs.get_sample_value("seconds_sum"))


def shown_without_sum(registry: CollectorRegistry) -> list[str]:
    """The text of a registry; sums of floats depend on their order."""
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("seconds_sum ")]


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    registry = CollectorRegistry()
    Histogram(registry, "seconds", "A sentence.", (1, 2, 4)).observe(0.5, 1.0, 1.5, 4.0, 5.0)
    counts = [registry.get_sample_value("seconds_bucket", {"le": le}) for le in ("1.0", "2.0", "4.0", "+Inf")]
    assert counts == [2, 3, 4, 5]
    assert registry.get_sample_value("seconds_count") == 5
    assert registry.get_sample_value("seconds_sum") == 12


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20))), st.integers(0, 80))
def test_a_stopwatch_counts_what_overlaps_once(spans: list[tuple[int, int]], now: int) -> None:
    stopwatch = Stopwatch()
    edges = sorted([(at, 0) for at, _ in spans] + [(at + lasting, 1) for at, lasting in spans])
    for at, ends in edges:
        if at <= now:
            (stopwatch.stop if ends else stopwatch.start)(at)
    busy = {second for at, lasting in spans for second in range(at, at + lasting) if second < now}
    assert stopwatch.seconds(now) == len(busy)


def test_a_stopwatch_takes_seconds_that_were_measured_elsewhere() -> None:
    stopwatch = Stopwatch()
    stopwatch.add(2.5)
    stopwatch.start(10.0)
    stopwatch.add(1.0)
    assert stopwatch.seconds(11.0) == 4.5


def test_the_seconds_of_the_loop_grow_while_something_goes_on() -> None:
    now = 100.0
    metrics = Metrics(lambda: now)
    metrics.calling.start(now)
    metrics.polling.add(3.0)
    shown = metrics.registry.get_sample_value
    assert shown("connector_loop_seconds_total", {"activity": "calling"}) == 0
    now = 107.0
    assert shown("connector_loop_seconds_total", {"activity": "calling"}) == 7
    assert shown("connector_loop_seconds_total", {"activity": "polling"}) == 3


def test_what_is_watched_is_read_at_every_scrape_and_never_before() -> None:
    metrics = Metrics(lambda: 0.0)
    numbers = itertools.count(1)
    metrics.limit.reads(lambda: next(numbers))
    metrics.lag.reads(lambda: {0: 5.0, 12: 7.0})
    shown = metrics.registry.get_sample_value
    assert [shown("connector_limit"), shown("connector_limit")] == [1.0, 2.0]
    assert shown("connector_lag", {"partition": "12"}) == 7.0


FAMILIES = {
    "events": "counter",
    "results": "counter",
    "dead_letters": "counter",
    "calls": "counter",
    "loop_seconds": "counter",
    "batch_events": "histogram",
    "call_seconds": "histogram",
    "queue_seconds": "histogram",
    "end_to_end_seconds": "histogram",
    "calls_in_flight": "gauge",
    "buffered_events": "gauge",
    "buffered_bytes": "gauge",
    "limit": "gauge",
    "commit_age_seconds": "gauge",
    "lag": "gauge",
    "oldest_unfinished_seconds": "gauge",
}


def families_of(connector: Connector) -> dict[str, Any]:
    text = generate_latest(connector.metrics.registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_family_of_the_contract_is_there_with_a_sentence() -> None:
    connector = Connector(parse({"endpoint": {"region": "eu-west-1"}}))
    connector.source = cast(
        "Any",
        SimpleNamespace(
            partitions=2,
            unfinished=1,
            bytes=13,
            commit_age=1.5,
            lag=lambda: {4: 11.0, 5: 0.0},
            ages=lambda: {4: 2.5, 5: 0.0},
            oldest=lambda: {4: 9.0},
        ),
    )
    connector._watch_numbers()
    connector.metrics.calls.labels("retry", "throttled").inc()
    connector.metrics.dead_letters.labels("empty").inc()
    families = families_of(connector)
    assert {name: families[f"connector_{name}"].type for name in FAMILIES} == FAMILIES
    assert all(family.documentation.endswith(".") for family in families.values())
    shown = connector.metrics.registry.get_sample_value
    assert shown("connector_calls_total", {"outcome": "retry", "reason": "throttled"}) == 1
    assert shown("connector_dead_letters_total", {"reason": "empty"}) == 1
    assert shown("connector_buffered_events") == 1
    assert shown("connector_buffered_bytes") == 13
    assert shown("connector_limit") == 64
    assert shown("connector_calls_in_flight") == 0
    assert shown("connector_commit_age_seconds") == 1.5
    assert shown("connector_lag", {"partition": "4"}) == 11
    assert shown("connector_oldest_unfinished_seconds", {"partition": "4"}) == 2.5
    activities = {sample.labels["activity"] for sample in families["connector_loop_seconds"].samples}
    assert activities == {"polling", "waiting_for_slot", "calling", "publishing"}
