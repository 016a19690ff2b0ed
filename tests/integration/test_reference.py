"""What a real process writes, shows and logs is what the reference says, and nothing else."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector.core.answers.headers import HEADERS, OF_RESULTS, On
from connector.core.reason import Reason
from connector.errors import ExitCode
from connector.local.endpoint.faults import Fault
from connector.telemetry.log import FIELDS
from connector.telemetry.log_events import LogEvent
from connector.telemetry.metrics import Metrics
from tests.integration.rig import Rig, until

if TYPE_CHECKING:
    from tests.integration.rig import Process

pytestmark = pytest.mark.integration

OF_LETTERS = {header.name for header in HEADERS if header.on is not On.RESULTS}
EVENTS = {event.value: event for event in LogEvent}
ALWAYS = {header.name for header in HEADERS if header.always}


def undeclared(process: Process) -> list[str]:
    """The lines of its log that have not exactly the fields that their event declares."""
    wrong = []
    for text in process.lines().splitlines():
        line = orjson.loads(text)
        if not line["logger"].startswith("connector"):
            continue
        event, fields = EVENTS[line["event"]], set(line) - set(FIELDS)
        if not set(event.fields) <= fields <= {*event.fields, *event.sometimes}:
            wrong.append(text)
    return wrong


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_process_that_meets_trouble_says_nothing_that_the_reference_does_not_have(
    rig: Rig, delivery: str
) -> None:
    rig.endpoint.faults = [
        Fault("model_error", payload=b"poison", status=400, message="bad row"),
        Fault("throttle", calls=frozenset({1, 2})),
    ]
    process = await rig.connector({"kafka": {"delivery": delivery}, "log": {"payloads": True}})
    own = [("trace", b"t-1"), ("content-type", b"theirs")]
    await rig.produce([(b"k", b"1,2"), (b"k", b"poison"), (b"k", None), (b"k", b"3,4")], headers=own)
    for record in await rig.results(2):
        names = [name for name, _ in record.headers if name != "trace"]
        assert len(names) == len(set(names))
        assert ALWAYS & OF_RESULTS <= set(names) <= OF_RESULTS
    for letter in await rig.dead_letters(2):
        assert list(letter.headers[:2]) == own
        names = [name for name, _ in letter.headers[2:]]
        assert ALWAYS & OF_LETTERS <= set(names) <= OF_LETTERS
        assert dict(letter.headers)["inference-error"].decode() in set(Reason)

    async def counted() -> bool:
        return await process.metric("connector_dead_letters_total") == 2

    await until(counted, "both dead letters to be counted")
    _, text = await process.get("/metrics")
    shown = {family.name.removesuffix("_created"): family for family in text_string_to_metric_families(text)}
    declared = {one.name: one for one in Metrics(lambda: 0.0).declared}
    assert shown.keys() == declared.keys()
    process.signal(signal.SIGTERM)
    assert await process.ended() == ExitCode.DONE
    assert not undeclared(process)
    assert LogEvent.DEAD_LETTERED in process.lines()
