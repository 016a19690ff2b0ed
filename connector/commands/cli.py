"""The command line: `connector run`, `config`, `demo`, `local` and `reference`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final, NamedTuple

import click

from connector import __version__
from connector.errors import ConnectorError


class _Command(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    module: str
    sentence: str


_COMMANDS: Final = {
    "run": _Command("run", "Consume events, call the endpoint, publish results, until SIGTERM or SIGINT."),
    "config": _Command("config", "Print every setting with its sentence and its default, as a settings file."),
    "demo": _Command(
        "demo", "Run a real Kafka, a SageMaker endpoint with a real model, and the connector between them."
    ),
    "local": _Command("local", "Apache Kafka and a SageMaker endpoint on this machine, without Docker."),
    "reference": _Command(
        "reference",
        "Print every record header, metric, log event, reason, problem and exit code, with what it means, in Markdown.",
    ),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are called: the help of all must not cost the SDK of one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, as people need them first."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None when there is none."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"connector.commands.{_COMMANDS[cmd_name].module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.sentence) for name, command in _COMMANDS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="connector")
def connector() -> None:
    """Kafka events in micro-batches through Amazon SageMaker endpoints, with the event key as InferenceId.

    \b
    Try it on this machine:      connector demo
    Write its settings:          connector config --example
    See what is in force:        connector config --effective --config connector.yaml
    Run it:                      connector run --config connector.yaml
    """


def main() -> None:
    """Run the command line; an error of ours is a sentence and its exit code."""
    try:
        connector(standalone_mode=True)
    except ConnectorError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
