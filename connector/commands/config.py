"""`connector config`: the settings that there are, and those that are in force."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click
import yaml
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.commands.exit_codes import epilog
from connector.commands.options import config_option
from connector.settings import advice, examples
from connector.settings.effective import values
from connector.settings.load import load_with_origins
from connector.settings.origins import Kind
from connector.settings.reference import reference
from connector.settings.schema import schema
from connector.settings.section import legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from connector.settings.keys import Path as Key
    from connector.settings.origins import Origin

    _Row = tuple[Key, str, Origin]

_STYLES = {Kind.DEFAULT: "dim", Kind.FILE: "cyan", Kind.ENVIRONMENT: "green"}
_WIDEST = 60
"""Characters of `key: value` to which lines are filled up, so that one long value does not push all origins away."""


@click.command(epilog=epilog("config"))
@click.option("--effective", "in_force", is_flag=True, help="Show what is in force, and where each value comes from.")
@config_option
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of a settings file.")
@click.option("--example", metavar="[NAME]", is_flag=False, flag_value="", help="List the examples, or print one.")
@click.pass_context
def config(context: click.Context, in_force: bool, config: Path | None, as_schema: bool, example: str | None) -> None:
    """Print every setting with its sentence and its default, as a settings file.

    A file of your own needs only what differs from that. Begin with an example:

    \b
      connector config --example
      connector config --example batch-csv > connector.yaml

    Then see what the file and the environment come to, without a start: each key, its value, and where that comes from:
    default, FILE:LINE with the ${NAME} that stands there, or the variable that overrides the file. Secrets are ***. What a
    start would refuse or advise is on stderr. In a pipe each line is a key:

    \b
      connector config --effective --config connector.yaml
      connector config --effective --config connector.yaml | grep -v '# default'

    With the schema an editor completes and checks your file. Many look for it in the first line of the file:

    \b
      connector config --schema > connector.schema.json
      # yaml-language-server: $schema=connector.schema.json
    """
    if in_force + as_schema + (example is not None) > 1:
        raise click.UsageError("--effective, --schema and --example exclude each other.")
    if not in_force and context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--config has no effect without --effective.")
    if in_force:
        _show_effective(config)
    elif as_schema:
        click.echo(json.dumps(schema(), indent=2))
    elif example is not None:
        _show_example(example)
    else:
        click.echo(reference(), nl=False)


def _show_effective(file: Path | None) -> None:
    settings, origins = load_with_origins(file, os.environ)
    rows = [(path, _written(value), origins[path]) for path, value in values(settings).items()]
    console = Console()
    if console.is_terminal:
        console.print(_table(rows))
    else:
        click.echo("\n".join(_lines(rows)))
    for sentence in advice.sentences(settings):
        click.echo(f"Advice: {sentence}", err=True)


def _table(rows: Sequence[_Row]) -> Table:
    table = Table("key", "value", "from", box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    section: Key = ()
    for (*above, name), value, origin in rows:
        if section != tuple(above):
            section = tuple(above)
            table.add_row(Text(".".join(section), "bold"))
        cells = (f"  {name}", value, legible(origin.where))
        table.add_row(*(Text(cell, _STYLES[origin.kind], overflow="fold") for cell in cells))
    return table


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    """A line a key, which is YAML with a comment."""
    lines = [(f"{'.'.join(path)}: {value}", legible(origin.where)) for path, value, origin in rows]
    width = max(len(line) for line, _ in lines if len(line) <= _WIDEST)
    for line, where in lines:
        yield f"{line:<{width}}  # {where}"


def _written(value: Any) -> str:
    """A value as one line of YAML."""
    written = _dumped(value, allow_unicode=True)
    return written if written.isprintable() else _dumped(value, default_style='"')


def _dumped(value: Any, **style: Any) -> str:
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), **style)
    return dumped.removesuffix("\n").removesuffix("...").rstrip()


def _show_example(name: str) -> None:
    names = examples.names()
    if name in names:
        click.echo(examples.text(name), nl=False)
    elif name:
        raise click.BadParameter(f"{name} is none of {', '.join(names)}.", param_hint="--example")
    else:
        width = max(map(len, names))
        for known in names:
            click.echo(f"{known:<{width}}  {examples.sentence(known)}")
