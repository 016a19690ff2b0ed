"""Body formats: payloads become a body, a body becomes predictions. Each is a file of this folder that registers itself."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from connector.core.formats.registry import format_named, names, options_named

__all__ = ["format_named", "names", "options_named"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
