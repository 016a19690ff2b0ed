"""The edges of the process: what of the environment reaches it, what a signal does at any moment, what strangers see."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faust.types.settings import Settings as FaustSettings

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

GARBAGE = "tcp://10.96.3.4:80"
POD = {
    f"{service}_{name}": value
    for service in ("WEB", "APP", "BROKER", "TOPIC", "CACHE", "F_WEB", "FAUST_WEB", "CONSUMER", "PRODUCER")
    for name, value in {
        "PORT": GARBAGE,
        "SERVICE_HOST": "10.96.3.4",
        "SERVICE_PORT": "80",
        "PORT_80_TCP": GARBAGE,
        "PORT_80_TCP_ADDR": "10.96.3.4",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_PROTO": "tcp",
    }.items()
}
"""What Kubernetes puts into a pod beside Services of these names."""
OF_FAUST = {
    **{str(setting.env_name): GARBAGE for setting in FaustSettings.SETTINGS.values() if setting.env_name},
    "APP_VERSION": "1.4.2",
    "APP_WEB_ENABLED": "false",
    "DEVLOG": "1",
    "DJANGO_SETTINGS_MODULE": "shop.settings",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "prometheus_multiproc_dir": "/nowhere",
    **{
        f"{prefix}{name}": GARBAGE
        for prefix in ("F_", "FAUST_")
        for name in ("BLOCKING_TIMEOUT", "CONSOLE_PORT", "LOOP")
    },
}
"""Every variable that Faust, mode, what they import and the metrics read, with what they cannot use."""


@contextmanager
def running(folder: Path, environment: dict[str, str] | None = None, *before: str) -> Iterator[Any]:
    """`connector run` without a Kafka to reach; its port as `.port`, its log as `.log`."""
    port, log = free_port(), folder / "log"
    config = folder / "connector.yaml"
    config.write_text(
        "kafka: {bootstrap_servers: '127.0.0.1:1'}\nendpoint: {name: fraud-detector, region: eu-west-1}\n"
        f"web: {{host: 127.0.0.1, port: {port}}}\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CONNECTOR_"))}
    with log.open("wb") as stream:
        process: Any = subprocess.Popen(
            [*before, sys.executable, "-m", "connector", "run", "--config", str(config)],
            env={**inherited, "AWS_EC2_METADATA_DISABLED": "true", **(environment or {})},
            stdout=stream,
            stderr=stream,
        )
    process.port, process.log = port, log
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def until_live(process: Any) -> None:
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, process.log.read_text()
        assert time.monotonic() < end, process.log.read_text()
        try:
            assert await asyncio.to_thread(get, process.port, "/health/live") == (200, "alive\n")
        except OSError:
            await asyncio.sleep(0.1)
        else:
            return


async def ended(process: Any, limit: float) -> int:
    return int(await asyncio.to_thread(process.wait, limit))


# -- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [POD, OF_FAUST], ids=["a pod's", "Faust's"])
async def test_nothing_but_ours_configures_us(tmp_path: Path, environment: dict[str, str]) -> None:
    with running(tmp_path, environment) as process:
        await until_live(process)
        status, text = await asyncio.to_thread(get, process.port, "/health/ready")
        assert (status, text.split(":")[0]) == (503, "not ready")
        process.terminate()
        assert await ended(process, 10) == 0, process.log.read_text()
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert {line["logger"] for line in lines if line["level"] not in ("info", "warning")} <= {"aiokafka"}


# -- descriptors -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are found in /proc")
async def test_the_soft_limit_of_descriptors_is_raised_and_its_nearness_is_said(tmp_path: Path) -> None:
    few = ("/bin/sh", "-c", 'ulimit -Sn 40 && ulimit -Hn 100 && exec "$@"', "few")
    with running(tmp_path, None, *few) as process, ExitStack() as connections:
        await until_live(process)
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        assert re.search(r"^Max open files +100 +100 ", limits, re.MULTILINE)
        assert "descriptors_scarce" not in process.log.read_text()
        while len([*Path(f"/proc/{process.pid}/fd").iterdir()]) < 85:
            connections.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            await asyncio.sleep(0.01)
        end = time.monotonic() + 10
        while "descriptors_scarce" not in (text := process.log.read_text()) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        status, metrics = await asyncio.to_thread(get, process.port, "/metrics")
        process.terminate()
        assert await ended(process, 10) == 0
    (line,) = [line for line in map(json.loads, text.splitlines()) if line["event"] == "descriptors_scarce"]
    assert re.match(r"8\d of 100 files and connections are open, ", line["problem"])
    assert (line["level"], status) == ("warning", 200)
    assert float(re.search(r"^connector_open_descriptors (\S+)", metrics, re.MULTILINE)[1]) >= 85  # type: ignore[index]
    assert "\nconnector_descriptor_limit 100.0\n" in metrics
    (advice,) = [line["problem"] for line in map(json.loads, text.splitlines()) if line["event"] == "advice"]
    assert advice.startswith(
        "concurrency.max_in_flight: 64 calls need a connection each, and the process may have 100 "
    )


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.1, 0.3, 0.6, 1.0, 1.5])
async def test_a_signal_at_any_moment_of_the_start_ends_it_without_a_traceback(
    tmp_path: Path, number: signal.Signals, after: float
) -> None:
    with running(tmp_path) as process:
        await asyncio.sleep(after)
        process.send_signal(number)
        code = await ended(process, 10)
    log = process.log.read_text()
    # Before Python has come to our first instruction, the signal does what it does to any program.
    assert code == 0 or (not log and after < 0.2), log
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_same_wish_again_until_the_process_is_gone_leaves_a_clean_end_clean(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path) as process:
        await until_live(process)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 0.9:
            process.send_signal(number)
            await asyncio.sleep(0.01)
        assert await ended(process, 10) == 0, process.log.read_text()


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="a namespace of processes needs root")
async def test_the_first_process_of_a_container_hears_a_signal_of_the_first_second(tmp_path: Path) -> None:
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with running(tmp_path, None, *inside) as process:
        child = await until_forked(process.pid)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 3:
            os.kill(child, signal.SIGTERM)
            await asyncio.sleep(0.02)
        assert process.poll() == 0, process.log.read_text()
    assert "Traceback" not in process.log.read_text()


async def until_forked(parent: int) -> int:
    while not (found := Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()):
        await asyncio.sleep(0.01)
    return int(found[0])


async def test_sigusr1_writes_the_state_of_every_part_as_log_lines_and_sigusr2_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        await until_live(process)
        process.send_signal(signal.SIGUSR2)
        process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + 10
        while (text := process.log.read_text()).count('"state"') < 4 * 2 and time.monotonic() < end:
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(get, process.port, "/health/live") == (200, "alive\n")
        process.terminate()
        assert await ended(process, 10) == 0
    lines = [json.loads(line) for line in text.splitlines()]
    told = {line["part"]: line["state"] for line in lines if line["event"] == "state"}
    assert told.keys() == {"source", "pipeline", "sink", "problems"}
    assert told["sink"] == {"pending": 0}


# -- imports ---------------------------------------------------------------------------------------------------------

HEAVY = ("aioboto3", "aiohttp", "aiokafka", "botocore", "faust", "mode", "sklearn", "uvloop")


@pytest.mark.parametrize(
    ("arguments", "code", "light"),
    [
        (["--help"], 0, (*HEAVY, "pydantic", "rich")),
        (["--version"], 0, (*HEAVY, "pydantic", "rich")),
        (["run", "--help"], 0, (*HEAVY, "pydantic", "rich")),
        (["run", "--config", "wrong.yaml"], 2, HEAVY),
        (["config"], 0, HEAVY),
        (["demo", "--help"], 0, (*HEAVY, "pydantic")),
        (["local", "kafka", "--help"], 0, (*HEAVY, "pydantic")),
        (["nonsense"], 2, (*HEAVY, "pydantic")),
    ],
)
def test_what_a_command_does_not_need_is_not_imported(
    tmp_path: Path, arguments: list[str], code: int, light: tuple[str, ...]
) -> None:
    (tmp_path / "wrong.yaml").write_text("kafka: {group_ids: x}\n")
    script = (
        "import sys\n"
        "from connector.commands.entry import main\n"
        f"sys.argv = ['connector', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        f"print('imported', [name for name in {light!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"imported [] {code}", done.stderr


# -- what strangers see ----------------------------------------------------------------------------------------------


async def test_faust_serves_no_page_of_its_own_and_the_root_says_whether_it_is_ready(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        await until_live(process)
        for path in ("/router/x/", "/router/x/y/", "/table/", "/graph/", "/stats/", "/performance/", "/nothing"):
            status, text = await asyncio.to_thread(get, process.port, path)
            assert (status, "Traceback" in text) == (404, False), path
        status, root = await asyncio.to_thread(get, process.port, "/")
        _, ready = await asyncio.to_thread(get, process.port, "/health/ready")
        assert (status, root) == (503, ready)
        assert root.startswith("not ready: ")
        assert not re.search(r"127\.0\.0\.1|:1\b", root), "the brokers' address is for the log"
        process.terminate()
        assert await ended(process, 10) == 0
    assert "Traceback" not in process.log.read_text()
