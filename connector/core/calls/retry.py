"""Backoff: how long a batch waits before it is called again."""

from __future__ import annotations

_MAX_EXPONENT = 1023
"""The largest power of two that a float holds: 2.0 ** 1024 raises OverflowError."""


def full_jitter(attempt: int, initial: float, maximum: float, random: float) -> float:
    """Seconds to wait after the failure number `attempt`, counted from 0: a random part of a bound that doubles.

    `initial` is the bound after the first failure and `maximum` the largest, in seconds; `random` is in [0, 1).
    Full jitter spreads the calls of many batches that failed together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random * min(maximum, initial * 2.0 ** min(attempt, _MAX_EXPONENT))
