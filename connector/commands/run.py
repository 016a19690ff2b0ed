"""`connector run`: the worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from connector.commands.exit_codes import epilog
from connector.commands.options import config_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=epilog("run"))
@config_option
def run(config: Path | None) -> None:
    """Consume events, call the endpoint, publish results, until SIGTERM or SIGINT.

    The first signal drains: calls in flight may end, their results are published and committed, all within
    shutdown.drain. A second signal ends the process at once.

    Settings come from the file and from the environment, which overrides it: kafka.bootstrap_servers is
    CONNECTOR_KAFKA__BOOTSTRAP_SERVERS.
    """
    from connector.settings import load

    settings = load(config, os.environ)
    # Faust, Kafka's client and the SDK take a second to import, which a mistake in the settings need not wait for.
    from connector.worker import process

    process.run(settings)
