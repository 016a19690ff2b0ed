"""How a process ends: in order, in time, and at once when asked twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from connector.local.endpoint.faults import Fault
from tests.integration.rig import Rig, source, until
from tests.unit.needed import needed_but

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
DRAIN = 7.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_even_while_a_call_hangs(rig: Rig, number: signal.Signals) -> None:
    rig.endpoint.faults = [Fault("hang", payload=b"hang"), Fault("delay", seconds=1.0)]
    process = await rig.connector({"shutdown": {"drain": f"{DRAIN}s"}})
    (hanging,) = await rig.produce([(b"stuck", b"hang,1")], partition=0)
    others = await rig.produce([(b"k%d" % part, b"1,%d" % part) for part in range(8)], partition=1)

    async def calls_are_out() -> bool:
        return rig.endpoint.stats.in_flight >= 9

    await until(calls_are_out, "the calls to be out")
    started = time.monotonic()
    process.signal(number)
    assert await process.ended() == 0, process.lines()
    assert time.monotonic() - started < DRAIN + 2
    results = await rig.settled(rig.output, 0.3)
    assert {source(record) for record in results} == set(others)
    assert await rig.committed() == {0: 0, 1: 8, 2: 0, 3: 0}
    rig.endpoint.faults = []
    await rig.connector()
    assert {source(record) for record in await rig.results(9)} == {*others, hanging}
    assert len(await rig.settled(rig.output, 0.3)) == 9, "an answered event was answered again"


async def test_a_second_signal_ends_it_at_once_unless_it_is_the_same_wish(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("hang")]
    process = await rig.connector({"shutdown": {"drain": "20s"}})
    await rig.produce([(b"k", b"1,2")])

    async def call_is_out() -> bool:
        return rig.endpoint.stats.in_flight == 1

    await until(call_is_out, "the call to be out")
    process.signal(signal.SIGTERM)

    async def stopping() -> bool:
        return '"stopping"' in process.lines()

    await until(stopping, "the drain to begin")
    process.signal(signal.SIGTERM)  # a wrapper that forwards what the whole group had says nothing new
    await asyncio.sleep(1.2)
    assert process.running
    started = time.monotonic()
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    assert time.monotonic() - started < 10, "the drain has 20 s"
    assert '"ended_by_force"' in process.lines()


async def test_a_signal_while_kafka_is_away_ends_it_soon(rig: Rig) -> None:
    process = await rig.connector({"kafka": {"bootstrap_servers": "127.0.0.1:1"}}, wait=False)
    await process.unready("cannot be reached")
    started = time.monotonic()
    await process.stop()
    assert time.monotonic() - started < 6, "the drain has 8 s"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kafka: {bootstrap_servers: null}", ["kafka.bootstrap_servers", "CONNECTOR_KAFKA__BOOTSTRAP_SERVERS"]),
        ("endpoint: {name: ''}", ["endpoint.name", "CONNECTOR_ENDPOINT__NAME"]),
        ("kafka: {bootstrap_server: x:9092}", ["kafka.bootstrap_server", "bootstrap_servers"]),
        ("kafka: {revoke_drain: 20s}", ["kafka.revoke_drain", "request_timeout"]),
        ("kafka: {delivery: exactly_once, transaction_timeout: 20s}", ["kafka.transaction_timeout", "request_timeout"]),
        ("batch: {max_events: many}", ["batch.max_events"]),
    ],
)
async def test_wrong_settings_are_a_sentence_and_exit_code_2(tmp_path: Path, text: str, words: list[str]) -> None:
    key = tuple(words[0].split("."))
    config = tmp_path / "connector.yaml"
    config.write_text(text)
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "connector", "run", "--config", str(config)],
        env=os.environ | needed_but(key),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert all(word in ended.stderr for word in words), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


async def test_a_port_that_is_taken_is_a_sentence_and_exit_code_1(rig: Rig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await rig.connector({"web": {"port": port}}, wait=False)
        assert await process.ended() == 1
    assert process.lines().startswith(f"Port {port} on 127.0.0.1 cannot be used for the pages")
    assert process.lines().count("\n") == 1
