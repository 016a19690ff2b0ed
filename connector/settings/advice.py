"""Advice: settings that work, but cost more, promise less or show more than a person may expect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connector.settings.section import on_this_host, parts_of
from connector.settings.units import write_duration, write_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.settings.endpoint import Endpoint
    from connector.settings.kafka import Kafka
    from connector.settings.settings import Settings

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes makes the random parts of names of these letters (k8s.io/apimachinery, util/rand)."""
_DEPLOYMENT_POD = re.compile(rf".+-[{_SAFE}]{{6,10}}-[{_SAFE}]{{5}}")
_GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL that Kubernetes gives a pod by default."""
_EXIT = 2.0
"""Seconds that the process may take to exit after its drain."""
_SESSIONS = (6.0, 1800.0)
"""The session timeouts that a broker takes by default, in seconds (group.min and group.max.session.timeout.ms)."""


def sentences(settings: Settings) -> Iterator[str]:
    """Each piece of advice as `key: sentence`."""
    yield from _kafka(settings.kafka)
    yield from _security(settings.kafka)
    yield from _endpoint(settings.endpoint)
    yield from _batches(settings)
    yield from _limits(settings)


def _kafka(kafka: Kafka) -> Iterator[str]:
    if kafka.group_instance_id is not None and _DEPLOYMENT_POD.fullmatch(kafka.group_instance_id):
        yield (
            f"kafka.group_instance_id: {kafka.group_instance_id} looks like a pod of a Deployment, whose name "
            "changes with each restart, so its partitions idle until the session ends; use a StatefulSet, or null"
        )
    if not _SESSIONS[0] <= kafka.session_timeout <= _SESSIONS[1]:
        yield (
            "kafka.session_timeout: brokers refuse less than 6s and more than 30m unless "
            "group.min.session.timeout.ms and group.max.session.timeout.ms say otherwise"
        )
    if kafka.request_timeout > 30:
        yield (
            "kafka.request_timeout: a connection that died silently is noticed only after "
            f"{write_duration(kafka.request_timeout)}; 10s to 15s are enough"
        )
    if kafka.metadata_max_age > 30:
        yield (
            "kafka.metadata_max_age: a topic that is deleted and created again is noticed only after "
            f"{write_duration(kafka.metadata_max_age)}; use 10s to 30s"
        )
    if kafka.metadata_max_age < 1:
        yield "kafka.metadata_max_age: the brokers are asked more than once a second; use 10s to 30s"
    if kafka.commit_interval > 10:
        yield (
            f"kafka.commit_interval: a crash repeats the results of up to {write_duration(kafka.commit_interval)}; "
            "a commit costs about a millisecond, so 500ms is cheap"
        )


def _security(kafka: Kafka) -> Iterator[str]:
    security = kafka.security
    if security.protocol == "SASL_PLAINTEXT":
        secret = {"PLAIN": "the password travels", "OAUTHBEARER": "the token travels"}.get(
            security.mechanism or "", "events travel"
        )
        yield f"kafka.security.protocol: with SASL_PLAINTEXT {secret} in the clear; use SASL_SSL"
    if not security.check_hostname:
        yield (
            "kafka.security.check_hostname: any host with a certificate of the same authority can pose as a broker; "
            "set it to true"
        )


def _endpoint(endpoint: Endpoint) -> Iterator[str]:
    parts = parts_of(endpoint.url or "")
    if parts.scheme == "http" and not on_this_host(parts.hostname or ""):
        yield (
            f"endpoint.url: with http to {parts.hostname} events and predictions travel in the clear, for all on the way to "
            "read and change; use https"
        )


def _batches(settings: Settings) -> Iterator[str]:
    batch, fmt = settings.batch, settings.request.body_format()
    if fmt.max_rows == 1 and batch.max_events > 1 and "max_events" in batch.model_fields_set:
        yield f"batch.max_events: has no effect with request.format: {fmt.name}, which carries one event a call"
    if fmt.max_rows != 1 and batch.max_events == 1:
        yield (
            f"batch.max_events: 1 makes a call of every event, although request.format: {fmt.name} can carry many in one; "
            "each call costs as much as hundreds of events"
        )
    if settings.kafka.ordering == "partition" and settings.correlation.mode == "key":
        yield (
            "kafka.ordering: partition with correlation.mode: key has one call in flight a partition, with "
            "neighbours of one key only; use ordering: key, or correlation.mode: batch"
        )
    if settings.kafka.ordering == "partition" and fmt.max_rows == 1:
        yield f"kafka.ordering: partition with request.format: {fmt.name} answers one event of a partition at a time"


def _limits(settings: Settings) -> Iterator[str]:
    buffer, batch, retry = settings.buffer, settings.batch, settings.retry
    rows = min(batch.max_events, settings.request.body_format().max_rows or batch.max_events)
    wanted = settings.concurrency.max_in_flight * rows
    if buffer.max_events < wanted:
        yield (
            f"buffer.max_events: {buffer.max_events} is less than concurrency.max_in_flight calls of "
            f"batch.max_events hold ({wanted}), so calls go out part full or slots stay empty"
        )
    if settings.kafka.fetch_max_bytes > buffer.max_bytes:
        yield (
            f"kafka.fetch_max_bytes: {write_size(settings.kafka.fetch_max_bytes)} is more than buffer.max_bytes "
            f"({write_size(buffer.max_bytes)}), so one fetch overfills the buffer"
        )
    if retry.max_age is not None and retry.max_age < settings.endpoint.read_timeout + retry.max:
        yield (
            f"retry.max_age: {write_duration(retry.max_age)} is less than endpoint.read_timeout and retry.max "
            "together, so one slow answer is enough to dead-letter healthy events"
        )
    if settings.dead_letter.max_ratio == 1:
        yield "dead_letter.max_ratio: at 1 consuming never stops, so a broken model empties the topic into dead letters"
    if settings.shutdown.drain + _EXIT > _GRACE:
        yield (
            f"shutdown.drain: {write_duration(settings.shutdown.drain)} needs a terminationGracePeriodSeconds above "
            "Kubernetes' default of 30, or the process is killed before it has committed"
        )
    if settings.log.payloads:
        yield "log.payloads: the log will hold what the model is asked, for everyone who may read the log"
