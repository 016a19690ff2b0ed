"""Advice: what there is to try while the demo stays up."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything of a demo is; `port` is that of the connector's pages at `web`."""

    bootstrap_servers: str
    url: str
    web: str
    port: int
    captures: Path
    config: Path
    log: Path


def advice(demo: Addresses, topics: Mapping[str, int], aws: Mapping[str, str]) -> str:
    """The addresses, and command lines that can be typed as they stand; `aws` are the variables of the connector."""
    python, captures = shlex.quote(sys.executable), shlex.quote(str(demo.captures))
    config = shlex.quote(str(demo.config))
    variables = " ".join(f"{name}={value}" for name, value in aws.items())
    where = {
        "Kafka": demo.bootstrap_servers,
        "topics": ", ".join(topics),
        "endpoint": demo.url,
        "metrics": f"{demo.web}/metrics",
        "captures": str(demo.captures),
        "settings": str(demo.config),
        "log": str(demo.log),
    }
    throttle = '[{"kind": "throttle", "rate": 0.5}]'
    tries = {
        "Is it ready?": f"curl {demo.web}/health/ready",
        "How many calls, and how did they end?": f"curl -s {demo.web}/metrics | grep connector_calls_total",
        "What does a capture line look like?": f"find {captures} -name '*.jsonl' -exec head -n 1 {{}} +",
        "Throttle half of the calls": f"curl -X PUT -d '{throttle}' {demo.url}/_/faults",
        "... and stop that": f"curl -X PUT -d '[]' {demo.url}/_/faults",
        "Produce 500 more events, and three broken ones": (
            f"{python} -m connector.local.demo.produce {demo.bootstrap_servers} 500"
        ),
        "Run the connector against it, as a second process that shares the work": (
            f"{variables} CONNECTOR_WEB__PORT={demo.port + 1} {python} -m connector run --config {config}"
        ),
    }
    lines = ["", "Everything stays up until Ctrl-C:", ""]
    lines += [f"  {name:<10}{value}" for name, value in where.items()]
    lines += ["", "Try, in another terminal:"]
    for what, command in tries.items():
        lines += ["", f"  # {what}", f"  {command}"]
    return "\n".join(lines)
