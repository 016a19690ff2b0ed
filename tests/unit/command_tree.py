"""The commands of a group, and those of the groups in it, whether they are imported already or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


def subcommand(group: click.Group, name: str) -> click.Command | None:
    """The command of that name in a group, None when there is none."""
    return group.get_command(click.Context(group), name)


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command that does something, with what is typed for it."""
    for name in group.list_commands(click.Context(group)):
        command = subcommand(group, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command
