"""Examples: settings files that work as they stand, for a person who writes the first of their own."""

from __future__ import annotations

import re
from pathlib import Path

from connector.errors import StartupError

_PACKAGE = Path(__file__).parents[1]


def names() -> list[str]:
    """The name of each example, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def text(name: str) -> str:
    """The example of this name, as it stands in its file."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def sentence(name: str) -> str:
    """What the example shows: the first sentence of the comment at its top."""
    comment = re.match(r"(?:#.*\n)*", text(name))
    assert comment is not None
    words = " ".join(comment[0].replace("#", " ").split())
    return words.partition(". ")[0].removesuffix(".") + "."


def _folder() -> Path:
    """`config/examples` of a clone, which a wheel carries inside of the package. Raises StartupError without either."""
    for above in (_PACKAGE, _PACKAGE.parent):
        folder = above / "config/examples"
        if folder.is_dir():
            return folder
    raise StartupError(
        f"The examples are missing: there is no config/examples in {_PACKAGE} or beside it; install anew."
    )
