"""`connector run`: the worker."""

from __future__ import annotations

import os
from pathlib import Path

import click

from connector.settings import load
from connector.settings.load import FILE_VARIABLE
from connector.worker import process as app


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=FILE_VARIABLE,
    show_envvar=True,
    help="The settings, in YAML. config/connector.yaml lists every one with its default.",
)
def run(config: Path | None) -> None:
    """Consume events, call the endpoint, publish results, until SIGTERM or SIGINT.

    The first signal drains: calls in flight may end, their results are published and committed, all within
    shutdown.drain. A second signal ends the process at once.

    Settings come from the file and from the environment, which overrides it: kafka.bootstrap_servers is
    CONNECTOR_KAFKA__BOOTSTRAP_SERVERS.

    \b
    Exit codes:  0  drained after a signal
                 1  cannot start, or ended by force
                 2  wrong settings; stderr names each key and what to do
    """
    app.run(load(config, os.environ))
