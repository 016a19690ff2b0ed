"""Renames: what a setting was called before, so that an old name is answered with the name that it has."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.settings.keys import Path


class Rename(NamedTuple):
    """What a key is called, and the version that called it so."""

    key: str
    since: str


RENAMES: Mapping[str, Rename] = MappingProxyType({})
"""Every rename by the old dotted key; that of a section holds for its keys. What is renamed again changes its line here."""


def renamed(path: Path) -> tuple[Path, str] | None:
    """What an old key is called, and since which version; None of a key that was never called otherwise."""
    since = None
    while step := _step(path):
        path, since = step
    return None if since is None else (path, since)


def dissolved(path: Path) -> bool:
    """Whether this was a section whose keys went elsewhere, one by one."""
    return any(old.startswith(f"{'.'.join(path)}.") for old in RENAMES)


def _step(path: Path) -> tuple[Path, str] | None:
    for length in range(len(path), 0, -1):
        if rename := RENAMES.get(".".join(path[:length])):
            return (*rename.key.split("."), *path[length:]), rename.since
    return None
