"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from connector import FILE_VARIABLE

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=FILE_VARIABLE,
    show_envvar=True,
    help="The settings, in YAML. `connector config` prints every one with its default.",
)
