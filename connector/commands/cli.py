"""The command line: `connector run`, `connector config`, `connector demo`, `connector local`."""

from __future__ import annotations

import sys

import click

from connector import __version__
from connector.commands.config import config
from connector.commands.demo import demo
from connector.commands.local import local
from connector.commands.run import run
from connector.errors import ConnectorError, SettingsError

SETTINGS_WRONG = 2
CANNOT_START = 1


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


def main() -> None:
    """Run the command line; exit code 2 for wrong settings or usage, 1 for what cannot start, each with a sentence."""
    try:
        connector(standalone_mode=True)
    except SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(SETTINGS_WRONG)
    except ConnectorError as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT_START)
