"""`connector local`: Apache Kafka and a SageMaker endpoint on this machine, without Docker."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console

from connector.commands.exit_codes import epilog
from connector.errors import ConnectorError, ExitCode, SettingsError
from connector.local.endpoint.faults import KINDS, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.local.endpoint.emulator import LocalEndpoint

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class _Topic(click.ParamType):
    name = "NAME[:PARTITIONS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        name, _, partitions = str(value).partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) or (
            partitions and not re.fullmatch(r"[1-9]\d*", partitions)
        ):
            self.fail(f"{value!r} is not a topic's name, or a name and a number of partitions such as events:4.")
        return name, int(partitions or 1)


class _Duration(click.ParamType):
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration such as 20ms or 1.5s.")
        return float(found[1]) * _SECONDS[found[2]]


@click.group()
def local() -> None:
    """Apache Kafka and a SageMaker endpoint on this machine, without Docker.

    Start each in a terminal of its own, then point the connector at them:

    \b
      connector local kafka --topics inference-requests:4 --topics inference-results:4 \\
                            --topics inference-requests.dlq
      connector local endpoint --name fraud-detector --model digits --captures captures
    """


@local.command(epilog=epilog("local kafka"))
@click.option("--port", type=click.IntRange(1, 65535), default=9092, show_default=True, help="Of the first broker.")
@click.option("--brokers", type=click.IntRange(1, 9), default=1, show_default=True, help="More than one for replicas.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here; else it goes when Kafka stops.",
)
@click.option(
    "--topics", type=_Topic(), multiple=True, help="Create this topic, with so many partitions (1). Repeat for more."
)
def kafka(port: int, brokers: int, data: Path | None, topics: tuple[tuple[str, int], ...]) -> None:
    """Run a real Apache Kafka until Ctrl-C.

    The first start fetches it from Maven Central (44 MB, about 20 s); later ones take 2 to 5 s. It runs on Java 17 or
    newer when that is on the PATH, else on a Java that came with the Python package.

    \b
      connector local kafka --topics inference-requests:4
      connector local kafka --port 9192 --brokers 3 --data /tmp/kafka
    """
    from connector.local.kafka.cluster import LocalKafka

    console = Console(soft_wrap=True, highlight=False)
    with _sentences(), _interruptible():
        cluster = LocalKafka(brokers, port=port, data=data, progress=console.print)
        with cluster:
            cluster.create_topics(dict(topics), replication=min(brokers, 3))
            console.print(f"Apache Kafka serves at [bold]{cluster.bootstrap_servers}[/bold].")
            if not topics:
                console.print("\nIt has no topics, and the connector creates none. To have what it needs, start with:")
                console.print(
                    "  --topics inference-requests:4 --topics inference-results:4 --topics inference-requests.dlq"
                )
            console.print("\nType next, in another terminal:")
            console.print("  connector local endpoint")
            console.print("\nand in a third, for the connector:")
            console.print(f"  export CONNECTOR_KAFKA__BOOTSTRAP_SERVERS={cluster.bootstrap_servers}")
            console.print("\nCtrl-C stops it." if data else "\nCtrl-C stops it and removes its data.")
            sys.stdout.flush()
            while True:
                cluster.check()
                time.sleep(0.5)


@local.command(epilog=epilog("local endpoint"))
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--name", default="local", show_default=True, help="The endpoint's name.")
@click.option("--variant", default="AllTraffic", show_default=True, help="The name of its production variant.")
@click.option(
    "--model",
    default="digits",
    show_default=True,
    help="digits (a real classifier of 64-pixel images), echo (each row is its own prediction), constant (each row "
    "gives 0), or the address of a container that answers /invocations.",
)
@click.option(
    "--captures", type=click.Path(file_okay=False, path_type=Path), help="Write SageMaker's data-capture files here."
)
@click.option(
    "--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A YAML list of faults, see above."
)
@click.option("--latency", type=_Duration(), default="0ms", show_default=True, help="Added to each call.")
@click.option("--address-file", type=click.Path(path_type=Path), hidden=True)
def endpoint(
    port: int,
    name: str,
    variant: str,
    model: str,
    captures: Path | None,
    faults: Path | None,
    latency: float,
    address_file: Path | None,
) -> None:
    """Run an emulator of the SageMaker runtime API until Ctrl-C.

    It checks calls as the service does, answers with a real model, writes data-capture files, and fails on purpose:

    \b
      connector local endpoint --model http://127.0.0.1:8081 --captures captures
      connector local endpoint --faults faults.yaml --latency 20ms

    \b
    faults.yaml, each fault with the conditions that choose its calls:
      - {kind: throttle, rate: 0.1}                 a tenth of the calls
      - {kind: model_error, status: 400, payload: poison}
      - {kind: delay, seconds: 2, every: 10}        each tenth call
      - {kind: service_unavailable, until: 30}      all calls of the first 30 s
      - {kind: reset, calls: [1, 2, 3]}             the first three

    The faults can be changed while it runs: PUT a JSON list of them to /_/faults. GET /_/calls and /_/stats tell what
    was called.
    """
    from connector.local.endpoint.captures import CaptureWriter
    from connector.local.endpoint.emulator import LocalEndpoint
    from connector.local.endpoint.hosted_endpoint import HostedEndpoint
    from connector.local.endpoint.model import make_model

    with _sentences():
        hosted = HostedEndpoint(name, {variant: make_model(model)})
        server = LocalEndpoint(
            [hosted],
            port=port,
            captures=CaptureWriter(captures) if captures else None,
            latency=latency,
            faults=_read_faults(faults) if faults else (),
        )
        asyncio.run(_serve(server, name, address_file))


async def _serve(server: LocalEndpoint, name: str, address_file: Path | None) -> None:
    console = Console(soft_wrap=True, highlight=False)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with server:
        console.print(f"The endpoint [bold]{name}[/bold] serves at [bold]{server.url}[/bold].")
        console.print("\nType next, in the terminal of the connector:")
        console.print(f"  export CONNECTOR_ENDPOINT__URL={server.url} CONNECTOR_ENDPOINT__NAME={name}")
        console.print("  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION=us-east-1")
        console.print("  connector run")
        console.print(f"\nWhat was called: curl {server.url}/_/stats")
        console.print("\nCtrl-C stops it.")
        sys.stdout.flush()
        if address_file is not None:
            partial = address_file.with_suffix(".partial")
            partial.write_text(server.url)
            partial.rename(address_file)
        await stopped.wait()


def _read_faults(path: Path) -> list[Fault]:
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, list):
        raise SettingsError(f"{path} is not a list of faults; their kinds are {', '.join(KINDS)}.")
    return [Fault.parse(fault) for fault in data]


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Give a person the sentence of an error, and the shell its exit code."""
    try:
        yield
    except ConnectorError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.DONE)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first SIGTERM or SIGINT end what runs, as Ctrl-C does; later ones must not cut the cleaning up short."""

    def handle(_number: int, _frame: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    local()
