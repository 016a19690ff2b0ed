"""Effective: the settings as they are, for whoever looks at them, without any secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connector.core.redaction import HIDDEN, without_user
from connector.settings.keys import fields, section_of

if TYPE_CHECKING:
    from connector.settings.keys import Path
    from connector.settings.settings import Settings


def effective(settings: Settings) -> dict[str, Any]:
    """Every setting as it is written in a file; a secret, and the user and password of an address, as `***`.

    Constant custom attributes are hidden too: what a container wants to be told with each call may be a token.
    """
    shown: dict[str, Any] = _hide(settings.model_dump(mode="json"))
    if isinstance(settings.endpoint.custom_attributes, str):
        shown["endpoint"]["custom_attributes"] = HIDDEN
    return shown


def values(settings: Settings) -> dict[Path, Any]:
    """The value of every key that holds one, as `effective` shows it."""
    shown = effective(settings)
    return {path: _at(path, shown) for path, field in fields().items() if section_of(field) is None}


def _at(path: Path, tree: Any) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hide(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide(inner) for inner in value]
    return without_user(value) if isinstance(value, str) else value
