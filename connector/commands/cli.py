"""The command line: `connector run`, `config`, `demo`, `local` and `reference`."""

from __future__ import annotations

import sys

import click

from connector import __version__
from connector.commands.config import config
from connector.commands.demo import demo
from connector.commands.local import local
from connector.commands.reference import reference
from connector.commands.run import run
from connector.errors import ConnectorError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="connector")
def connector() -> None:
    """Kafka events in micro-batches through Amazon SageMaker endpoints, with the event key as InferenceId.

    \b
    Try it on this machine:      connector demo
    Write its settings:          connector config --example
    See what is in force:        connector config --effective --config connector.yaml
    Run it:                      connector run --config connector.yaml
    """


connector.add_command(run)
connector.add_command(config)
connector.add_command(demo)
connector.add_command(local)
connector.add_command(reference)


def main() -> None:
    """Run the command line; an error of ours is a sentence and its exit code."""
    try:
        connector(standalone_mode=True)
    except ConnectorError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
