"""Ports: numbers of ports for what cannot choose one by itself."""

from __future__ import annotations

import contextlib
import random
import socket

_HOST = "127.0.0.1"
# Below the ports that a system gives to outgoing connections, so that nobody takes one between choice and use.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port that nothing listens on, and that no outgoing connection takes."""
    for number in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, number))
            return number
    raise OSError(f"no free port was found on {_HOST}")
