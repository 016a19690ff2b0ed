"""`connector demo`: everything on this machine, with real events and a real model."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from connector.commands.exit_codes import epilog
from connector.errors import ExitCode
from connector.local.demo.stop_request import Stopped, StopRequest
from connector.local.demo.workload import TRAINED
from connector.local.folders import temporary


@click.command(epilog=epilog("demo"))
@click.option(
    "--mode",
    type=click.Choice(["key", "batch"]),
    default="key",
    show_default=True,
    help="correlation.mode: calls of one key each, or calls that mix keys.",
)
@click.option(
    "--events",
    type=click.IntRange(1),
    default=1797 - TRAINED,
    show_default=True,
    help="Good events to produce; three broken ones come on top.",
)
@click.option("--keep", is_flag=True, help="Stay up at the end, and print what to try next.")
def demo(mode: str, events: int, keep: bool) -> None:
    """Run a real Kafka, a SageMaker endpoint with a real model, and the connector between them.

    The model learns half of scikit-learn's handwritten digits; the other half are the events, keyed by 60 devices. The
    end is a table: what was produced, what came of it, how fast and how right, and whether every result is found in
    the capture files with its own input row. It takes about 10 s; the first run fetches Apache Kafka (44 MB).

    Mode key makes the key of the events the InferenceId of each call, as in production. Mode batch fills calls with
    events of many keys, so there are fewer of them. More events than images go round the images again.

    Everything listens on free ports of 127.0.0.1, and is gone at the end.

    \b
      connector demo
      connector demo --mode batch --events 5000
      connector demo --keep                         then Ctrl-C
    """
    stop = StopRequest()
    stop.listen()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        code = _demo(mode, events, keep, console, stop)
    except Stopped:
        click.echo("Stopped; nothing is left behind.", err=True)
        code = ExitCode.INTERRUPTED
    stop.leave()
    sys.exit(code)


def _demo(mode: str, events: int, keep: bool, console: Console, stop: StopRequest) -> ExitCode:
    from connector.local.demo.demo import TOPICS, Demo
    from connector.local.demo.report import show
    from connector.local.demo.workload import workload
    from connector.local.kafka.cluster import LocalKafka

    # First of all, because it needs the extra: who lacks it should not have started a Kafka before that is said.
    items = workload(events)
    stop.check()
    with contextlib.ExitStack() as resources:
        folder = _folder(resources)
        kafka = LocalKafka(data=folder / "kafka", progress=console.print)
        resources.callback(kafka.stop)
        console.print("Starting Apache Kafka.")
        with stop.raising():
            kafka.start()
        # Outside of the region: the thread that creates them would go on, and ask a Kafka that is gone.
        kafka.create_topics(TOPICS)
        stop.check()
        console.print(f"Kafka serves at {kafka.bootstrap_servers}.")
        one = Demo(kafka.bootstrap_servers, kafka.check, folder, mode, items, console)
        report = asyncio.run(one.run(stop, lambda report: show(report, console), keep=keep))
        if report.problems:
            click.echo("\n".join(f"Not as it should be: {problem}." for problem in report.problems), err=True)
            click.echo(one.last_lines(), err=True)
    return ExitCode.FAILED if report.problems else ExitCode.DONE


def _folder(resources: contextlib.ExitStack) -> Path:
    """The one folder of everything that the demo writes, which goes with its resources."""
    folder = temporary("connector-demo-")
    # A start that is interrupted may leave one of Kafka's tools to the end of this process, where it is killed before
    # this is called: what was registered last comes first.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
