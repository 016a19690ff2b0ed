"""`connector demo`: everything on this machine, with real events and a real model."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from connector.demo.demo import TOPICS, Demo
from connector.demo.report import Report, show
from connector.demo.workload import TRAINED
from connector.local.kafka import LocalKafka

INTERRUPTED = 130


@click.command()
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
    the capture files with its own input row. The first run fetches Apache Kafka.

    \b
      connector demo
      connector demo --mode batch --events 5000
      connector demo --keep

    \b
    Exit codes:  0    everything agrees
                 1    something does not, or cannot start; a sentence says what
                 130  Ctrl-C
    """
    console = Console(soft_wrap=True, highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        sys.exit(_demo(mode, events, keep, console))
    except KeyboardInterrupt:
        click.echo("Stopped; nothing is left behind.", err=True)
        sys.exit(INTERRUPTED)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Only once: what cleans up is not to be interrupted by an impatient second Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _demo(mode: str, events: int, keep: bool, console: Console) -> int:
    with tempfile.TemporaryDirectory(prefix="connector-demo-") as folder:
        console.print("Starting Apache Kafka.")
        with LocalKafka(progress=console.print) as kafka:
            kafka.create_topics(TOPICS)
            console.print(f"Kafka serves at {kafka.bootstrap_servers}.")
            one = Demo(kafka.bootstrap_servers, Path(folder), mode, events, console)
            report = asyncio.run(_until_interrupted(one, keep, console))
    for problem in report.problems:
        click.echo(f"Not as it should be: {problem}.", err=True)
    return 1 if report.problems else 0


async def _until_interrupted(one: Demo, keep: bool, console: Console) -> Report:
    """Run the demo and show its report; a signal cancels it, or ends the time that it stays up."""
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    running = asyncio.ensure_future(one.run(lambda report: show(report, console), leave if keep else None))
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        if one.shown:
            leave.set()
        else:
            running.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        return await running
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
