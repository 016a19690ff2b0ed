"""Durations and sizes as they are written in the settings: `45s`, `100ms`, `5MiB`, `50MB`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_DURATION_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_SIZE_UNITS = {
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "KB": 10**3,
    "B": 1,
}
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,9})?"
_WRITTEN = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)", re.ASCII)
_LONGEST = 365 * 24 * 3600
_KAFKA_LONGEST = (2**31 - 1) / 1000
"""Kafka's protocol counts a duration's milliseconds in 32 bits."""


def parse_duration(written: object) -> float:
    """Read `45s`, `100ms`, `5m` or `1h` into seconds; 0 needs no unit. Raises ValueError with a sentence."""
    match = _match(written)
    if match is None:
        raise ValueError(f"must be a duration like 45s, 100ms, 5m or 1h, not {written!r}")
    number, unit = Decimal(match[1]), match[2]
    if not unit and number:
        raise ValueError(f"has no unit; write {match[1]}s for seconds or {match[1]}ms for milliseconds")
    if unit and unit not in _DURATION_UNITS:
        raise ValueError(f"has the unit {unit}, which is none of ms, s, m, h")
    seconds = float(number * _DURATION_UNITS.get(unit, 1))
    if seconds > _LONGEST:
        raise ValueError(f"is longer than a year: {written}")
    return seconds


def write_duration(seconds: float) -> str:
    """Write seconds as a duration that reads back to the same number: `45s`, `100ms`, `5m`."""
    exact = Decimal(repr(seconds))
    for unit in ("h", "m"):
        # A single minute stays 60s, as people write it.
        if exact > 60 and exact % _DURATION_UNITS[unit] == 0:
            return f"{int(exact / _DURATION_UNITS[unit])}{unit}"
    if exact == exact.to_integral_value():
        return f"{int(exact)}s"
    return f"{(exact * 1000).normalize():f}ms"


def parse_size(written: object) -> int:
    """Read `5MiB`, `256KiB`, `50MB` or a plain number of bytes. Raises ValueError with a sentence."""
    match = _match(written)
    if match is None:
        raise ValueError(f"must be a size like 5MiB, 256KiB, 50MB or a number of bytes, not {written!r}")
    number, unit = Decimal(match[1]), match[2] or "B"
    if unit not in _SIZE_UNITS:
        raise ValueError(f"has the unit {unit}, which is none of B, KB, MB, GB, KiB, MiB, GiB")
    size = number * _SIZE_UNITS[unit]
    if size != size.to_integral_value():
        raise ValueError(f"is not a whole number of bytes: {written}")
    return int(size)


def write_size(size: int) -> str | int:
    """Write bytes in the largest unit that divides them, binary units first: `5MiB`, `50MB`, 1234."""
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "KB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return size


def _match(written: object) -> re.Match[str] | None:
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        return None
    return _WRITTEN.fullmatch(str(written))


def _within_kafka(written: object) -> float:
    seconds = parse_duration(written)
    if seconds > _KAFKA_LONGEST:
        raise ValueError("is longer than 24 days, the most that Kafka's protocol can count")
    return seconds


def whole(value: object) -> object:
    """Refuse true and false, which Python would count as 1 and 0. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def upper(value: object) -> object:
    """Take a word in capitals and in small letters."""
    return value.upper() if isinstance(value, str) and value.isascii() else value


_ABOVE_0 = r"(?=[0-9.]*[1-9])"
_IN_TIME = rf"{_NUMBER} ?({'|'.join(_DURATION_UNITS)})"
_WRITTEN_DURATION = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "pattern": rf"^({_IN_TIME}|0+(\.0+)? ?)$", "examples": ["100ms", "45s"]},
            {"const": 0},
        ]
    }
)
_WRITTEN_POSITIVE = WithJsonSchema(
    {"type": "string", "pattern": f"^{_ABOVE_0}{_IN_TIME}$", "examples": ["100ms", "45s"]}
)
_WRITTEN_SIZE = WithJsonSchema(
    {
        "anyOf": [
            {
                "type": "string",
                "pattern": rf"^{_ABOVE_0}{_NUMBER} ?({'|'.join(_SIZE_UNITS)})?$",
                "examples": ["256KiB", "5MiB"],
            },
            {"type": "integer", "exclusiveMinimum": 0},
        ]
    }
)
_DURATION_TEXT = PlainSerializer(write_duration, return_type=str, when_used="json")
_SIZE_TEXT = PlainSerializer(write_size, return_type=str | int, when_used="json")

Duration = Annotated[float, BeforeValidator(parse_duration), _DURATION_TEXT, _WRITTEN_DURATION]
"""Seconds, 0 allowed."""
PositiveDuration = Annotated[Duration, Field(gt=0), _WRITTEN_POSITIVE]
"""Seconds, above 0."""
KafkaDuration = Annotated[float, BeforeValidator(_within_kafka), _DURATION_TEXT, Field(gt=0), _WRITTEN_POSITIVE]
"""Seconds, above 0, that Kafka's protocol can carry."""
Size = Annotated[int, BeforeValidator(parse_size), _SIZE_TEXT, Field(gt=0), _WRITTEN_SIZE]
"""Bytes, above 0."""
Count = Annotated[int, BeforeValidator(whole), Field(gt=0)]
"""A whole number above 0."""
