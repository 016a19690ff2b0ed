"""EndpointProcess: a LocalEndpoint in a process of its own, so that its CPU is not its caller's."""

from __future__ import annotations

import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from connector.errors import StartupError
from connector.local.child import Child
from connector.local.folders import temporary
from connector.local.startable import Startable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connector.local.endpoint.faults import Fault

_START_LIMIT = 60.0


class EndpointProcess(Startable):
    """`connector local endpoint` as a context manager; `model` is what its --model takes, `latency` is in seconds."""

    def __init__(
        self,
        name: str = "local",
        *,
        model: str = "digits",
        variant: str = "AllTraffic",
        captures: Path | None = None,
        latency: float = 0.0,
    ) -> None:
        self.name = name
        self._arguments = ["--port", "0", "--name", name, "--model", model, "--variant", variant]
        self._arguments += ["--latency", f"{latency}s"]
        if captures is not None:
            self._arguments += ["--captures", str(captures)]
        self.url = ""
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The id of the process; raises StartupError when it does not run."""
        if self._child is None:
            raise StartupError(f"The endpoint {self.name} does not run.")
        return self._child.pid

    def start(self) -> None:
        """Start it; returns when it serves. Raises StartupError."""
        self._folder = temporary("connector-endpoint-")
        self._ready = self._folder / "url"
        arguments = ["-m", "connector.commands.local", "endpoint", *self._arguments, "--address-file", str(self._ready)]
        self._child = Child(sys.executable, arguments, self._folder / "endpoint.log")
        deadline = time.monotonic() + _START_LIMIT
        while not self._ready.exists():
            if not self._child.running or time.monotonic() > deadline:
                raise StartupError(f"The endpoint {self.name} did not start:\n{self._child.last_lines()}")
            time.sleep(0.02)
        self.url = self._ready.read_text()

    def stop(self) -> None:
        """End it and remove its log."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait(5)
            self._child.kill()
            self._child = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Replace the scripted faults."""
        self._ask("PUT", "faults", [fault.as_json() for fault in faults])

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The calls after number `since`, each with the fields of SeenCall."""
        calls: list[dict[str, Any]] = self._ask("GET", f"calls?since={since}")
        return calls

    def stats(self) -> dict[str, Any]:
        """The fields of Stats."""
        stats: dict[str, Any] = self._ask("GET", "stats")
        return stats

    def _ask(self, method: str, what: str, data: object = None) -> Any:
        body = orjson.dumps(data) if data is not None else None
        request = urllib.request.Request(f"{self.url}/_/{what}", data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return orjson.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise StartupError(f"The endpoint {self.name} refused: {error.read().decode()}") from None
