"""Folders: those that are written to on this machine, and a sentence where they cannot be."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from connector.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written(folder: Path, remedy: str) -> Iterator[None]:
    """A block that writes below a folder; raises StartupError with the remedy when it cannot."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"{folder} cannot be written ({error.strerror or error}): {remedy}.") from None


def temporary(prefix: str) -> Path:
    """A folder of its own below the one for temporary files, for its maker to remove; raises StartupError."""
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise StartupError(
            f"There is no folder for temporary files ({error.strerror or error}): set TMPDIR to one that can be written."
        ) from None


def home() -> Path:
    """The person's folder; raises StartupError when nothing says which it is."""
    try:
        return Path.home()
    except RuntimeError:
        raise StartupError("Nothing says which folder is yours: set HOME, or XDG_CACHE_HOME.") from None
