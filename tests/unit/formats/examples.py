"""The example of every format that is registered, from the format's own test; one without a test is an ImportError here."""

from __future__ import annotations

from importlib import import_module

from connector.core.formats import names
from tests.unit.formats.example import Example

EXAMPLES: dict[str, Example] = {name: import_module(f"tests.unit.formats.test_{name}").EXAMPLE for name in names()}
