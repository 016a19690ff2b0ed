"""Environment: what of the process's environment reaches the libraries that read it for settings of their own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = ("HOME", "LANG", "PATH", "TMPDIR", "TZ")
_KEPT_PREFIXES = ("LC_", "LD_", "PYTHON")


@contextmanager
def hidden() -> Iterator[None]:
    """Hide the environment, but for what the interpreter needs, while such a library is imported or made.

    Faust and mode take names as general as WEB_PORT, and win over what we ask of them: a Kubernetes Service called `web`
    puts that name, with an address, into every pod beside it.
    """
    whole = dict(os.environ)
    for name in whole:
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    try:
        yield
    finally:
        # What they left there themselves goes with it.
        for name in os.environ.keys() - whole.keys():
            del os.environ[name]
        os.environ.update(whole)
