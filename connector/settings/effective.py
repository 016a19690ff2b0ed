"""Effective: the settings as they are, for one line at the start, without any secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.settings.settings import Settings

_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")


def effective(settings: Settings) -> dict[str, Any]:
    """Every setting as it is written in a file; a secret, and the user and password of an address, as `***`."""
    shown: dict[str, Any] = _hide(settings.model_dump(mode="json"))
    return shown


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hide(inner) for key, inner in value.items()}
    return _USER_INFO.sub("***@", value) if isinstance(value, str) else value
