"""Named scenarios: one for each thing that must neither lose, wedge nor repeat without bound."""

from __future__ import annotations

from collections.abc import Mapping

from connector.local.endpoint.faults import Fault
from tests.chaos.scenario import (
    Access,
    AddPartitions,
    BrokerRestart,
    Configure,
    Expect,
    Expire,
    Freeze,
    Kill,
    Link,
    Recreate,
    Scale,
    Scenario,
    SetFaults,
    Settings,
    Terminate,
)

_LONGER_THAN_THE_SESSION = 6.0
_SLOW = Fault("delay", rate=0.5, seconds=0.05)
_BATCHES: Settings = {"correlation": {"mode": "batch"}, "batch": {"max_events": 16}}
_SMALL = {"max.message.bytes": "8000"}
"""What no oversized value fits in."""
_SHORT_READ: Settings = {"endpoint": {"read_timeout": "500ms"}}

_ALL = (
    Scenario(
        "broker_restart",
        faults=(_SLOW,),
        steps=(BrokerRestart(at=0.2, seconds=0.5, clean=True), BrokerRestart(at=0.6, seconds=0.5)),
    ),
    Scenario(
        "broker_away_for_longer_than_the_session",
        faults=(_SLOW,),
        steps=(BrokerRestart(at=0.3, seconds=3 * _LONGER_THAN_THE_SESSION, clean=True),),
        expect=Expect(seconds=90.0),
    ),
    Scenario(
        "network_drop_between_connector_and_kafka",
        faults=(_SLOW,),
        steps=(Link(at=0.3, how="drop", seconds=_LONGER_THAN_THE_SESSION),),
        expect=Expect(repeats=30),
    ),
    Scenario(
        "half_open_connections",
        faults=(_SLOW,),
        steps=(Link(at=0.2, how="forget", seconds=0.1), Link(at=0.6, how="forget", seconds=0.1)),
    ),
    Scenario(
        "cut_connections",
        faults=(_SLOW,),
        steps=(*[Link(at=at, how="cut", seconds=0.0) for at in (0.1, 0.3, 0.5)], Link(at=0.7, how="cut", seconds=2.0)),
    ),
    Scenario(
        "endpoint_away",
        # Membership must outlive it, so nothing may be repeated.
        settings={"kafka": {"max_poll_interval": "3s"}},
        faults=(_SLOW,),
        steps=(Link(at=0.3, to="endpoint", how="cut", seconds=8.0),),
    ),
    Scenario(
        "silent_endpoint",
        settings={"endpoint": {"read_timeout": "2s"}, "kafka": {"max_poll_interval": "3s"}},
        faults=(_SLOW,),
        steps=(Link(at=0.3, to="endpoint", how="drop", seconds=6.0), Link(at=0.7, to="endpoint", how="forget")),
        without=("read_timeout_floor",),
    ),
    Scenario(
        "frozen_process",
        faults=(_SLOW,),
        steps=(Freeze(at=0.3, process=0, seconds=_LONGER_THAN_THE_SESSION),),
    ),
    Scenario(
        "frozen_process_wakes_in_an_empty_group",
        faults=(_SLOW,),
        steps=(Freeze(at=0.2, process=0, seconds=12.0), Scale(at=0.75, by=-1)),
        expect=Expect(repeats=15),
    ),
    Scenario(
        "calls_that_never_answer",
        settings=_SHORT_READ,
        faults=(_SLOW, Fault("hang", rate=0.1)),
        without=("read_timeout_floor",),
    ),
    Scenario(
        "throttling_503_530_resets_timeouts_at_30_percent",
        settings={**_BATCHES, **_SHORT_READ},
        faults=tuple(
            Fault(kind, rate=0.3)
            for kind in ("throttle", "service_unavailable", "internal_dependency", "reset", "hang")
        ),
        without=("read_timeout_floor",),
    ),
    Scenario(
        "few_keys_in_order_through_retries_and_kills",
        keys=5,
        settings=_BATCHES,
        faults=(_SLOW, Fault("throttle", rate=0.3)),
        poison=0.02,
        steps=(Kill(at=0.3, process=0), Kill(at=0.6, process=1)),
    ),
    Scenario("poison_in_every_batch", settings=_BATCHES, faults=(_SLOW,), poison=0.15),
    Scenario(
        "model_that_rejects_everything_and_is_mended",
        settings={"dead_letter": {"window": 40}, **_BATCHES},
        faults=(Fault("model_error", status=400),),
        steps=(SetFaults(at=0.05, pause=4.0),),
        # Two processes with a window each, and what they had in flight.
        expect=Expect(buried=200),
    ),
    Scenario(
        "expired_credentials",
        faults=(_SLOW,),
        steps=(SetFaults(at=0.3, faults=(Fault("expired_token"),)), SetFaults(pause=3.0, faults=(_SLOW,))),
    ),
    Scenario(
        "access_denied_and_granted",
        faults=(_SLOW,),
        steps=(SetFaults(at=0.3, faults=(Fault("access_denied"),)), SetFaults(pause=3.0, faults=(_SLOW,))),
    ),
    Scenario(
        "dead_letter_topic_refuses_writes",
        faults=(_SLOW,),
        poison=0.1,
        # A compacted topic refuses what has no key.
        keyless=1.0,
        steps=(
            Configure(at=0.2, topic="letters", config={"cleanup.policy": "compact"}),
            Configure(pause=4.0, topic="letters", config={"cleanup.policy": "delete"}),
        ),
    ),
    Scenario(
        "one_group_instance_id_twice",
        settings={"kafka": {"group_instance_id": "the-same"}},
        processes=1,
        faults=(_SLOW,),
        steps=(Scale(at=0.3, by=1), Scale(pause=5.0, by=-1)),
        # What is in flight at each change, and the fight is slowed down.
        expect=Expect(repeats=20),
    ),
    Scenario(
        "backlog_while_the_endpoint_is_away",
        events=16_000,
        rate=4000,
        keys=500,
        padding=10_000,
        processes=1,
        settings={
            "kafka": {"fetch_max_bytes": "2MiB", "max_poll_interval": "3s"},
            "buffer": {"max_bytes": "8MiB"},
            "batch": {"max_bytes": "1MiB", "max_events": 64},
            "correlation": {"mode": "batch"},
        },
        steps=(Link(to="endpoint", how="cut", seconds=8.0),),
        # An idle process has 95, and the backlog 152: with all of it a process would have more than this.
        expect=Expect(mebibytes=220.0),
    ),
    Scenario(
        "kills",
        settings=_BATCHES,
        # Calls that outlast a commit interval, so that every kill meets events that only the ledger keeps uncommitted.
        faults=(Fault("delay", seconds=0.25), Fault("throttle", rate=0.1)),
        steps=tuple(Kill(at=at, process=number % 2) for number, at in enumerate((0.1, 0.25, 0.4, 0.55, 0.7))),
    ),
    Scenario(
        "kills_behind_slow_events",
        # What is complete behind an event that takes long is in the metadata of the commits, and is not called again.
        faults=(Fault("delay", payload=b"9,7", seconds=4.0),),
        steps=(Kill(at=0.3, process=0), Kill(at=0.6, process=1)),
        expect=Expect(repeats=15),
    ),
    Scenario(
        "rolling_restart",
        faults=(_SLOW,),
        steps=(Terminate(at=0.2, process=0), Terminate(at=0.5, process=1)),
        expect=Expect(repeats=5),
    ),
    Scenario("scaling_up_and_down", faults=(_SLOW,), steps=(Scale(at=0.2, by=1), Scale(at=0.7, by=-1))),
    Scenario("more_partitions", faults=(_SLOW,), steps=(AddPartitions(at=0.3, count=4),)),
    Scenario("slow_network", faults=(_SLOW,), steps=(Link(at=0.2, how="delay", seconds=3.0, amount=0.2),)),
    Scenario("result_too_large_for_its_topic", faults=(_SLOW,), oversized=0.1, topics={"output": _SMALL}),
    Scenario(
        "result_too_large_for_a_limit_that_was_lowered",
        # A process knows the limits of its start: from then on the broker refuses, and neighbours with what is too large.
        faults=(_SLOW,),
        oversized=0.1,
        steps=(Configure(first=True, topic="output", config=_SMALL),),
    ),
    Scenario(
        "dead_letter_too_large_for_its_topic",
        faults=(_SLOW,),
        poison=0.05,
        oversized=0.1,
        topics={"output": _SMALL, "letters": _SMALL},
    ),
    Scenario(
        "dead_letter_too_large_for_a_limit_that_was_lowered",
        faults=(_SLOW,),
        poison=0.05,
        oversized=0.1,
        topics={"output": _SMALL},
        steps=(Configure(first=True, topic="letters", config=_SMALL),),
    ),
    Scenario("recreated_input_topic", faults=(_SLOW,), steps=(Recreate(at=0.4),), expect=Expect(repeats=20)),
    Scenario(
        "recreated_input_topic_while_halted",
        rate=60.0,
        faults=(_SLOW,),
        steps=(
            SetFaults(at=0.3, faults=(Fault("access_denied"),)),
            Recreate(pause=1.5, answered=False),
            SetFaults(pause=3.0, faults=(_SLOW,)),
        ),
        expect=Expect(repeats=20),
    ),
    Scenario(
        "retention_passes_a_paused_position",
        settings={"buffer": {"max_events": 20}},
        faults=(_SLOW,),
        steps=(
            SetFaults(at=0.2, faults=(Fault("access_denied"),)),
            Expire(pause=2.0, left=10),
            SetFaults(pause=3.0, faults=(_SLOW,)),
        ),
    ),
    Scenario("coordinator_moves", brokers=2, faults=(_SLOW,), steps=(BrokerRestart(at=0.3, seconds=6.0),)),
    Scenario(
        "too_few_replicas_of_the_output_topic",
        brokers=2,
        topics={"output": {"min.insync.replicas": "2"}},
        faults=(_SLOW,),
        poison=0.05,
        steps=(BrokerRestart(at=0.3, seconds=6.0, clean=True),),
    ),
    Scenario(
        "too_few_replicas_of_the_dead_letter_topic",
        brokers=2,
        topics={"letters": {"min.insync.replicas": "2"}},
        faults=(_SLOW,),
        poison=0.05,
        steps=(BrokerRestart(at=0.3, seconds=6.0, clean=True),),
    ),
    Scenario(
        "output_topic_denied_and_granted",
        guarded=True,
        faults=(_SLOW,),
        poison=0.05,
        steps=(Access(at=0.3, topic="output"), Access(pause=4.0, topic="output", granted=True)),
    ),
    Scenario(
        "dead_letter_topic_denied_and_granted",
        guarded=True,
        faults=(_SLOW,),
        poison=0.05,
        steps=(Access(at=0.3, topic="letters"), Access(pause=4.0, topic="letters", granted=True)),
    ),
)

NAMED: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
"""Every named scenario, by its name."""

PROOFS: Mapping[str, str] = {
    "offset_map": "kills_behind_slow_events",
    "lease": "network_drop_between_connector_and_kafka",
    "unfinished_prefix": "kills",
    "lost_partitions": "frozen_process_wakes_in_an_empty_group",
    "transient_retries": "throttling_503_530_resets_timeouts_at_30_percent",
    "guard": "model_that_rejects_everything_and_is_mended",
    "lanes": "few_keys_in_order_through_retries_and_kills",
}
"""For each protection of tests/chaos/unprotected.py, a scenario that fails when it is switched off."""
