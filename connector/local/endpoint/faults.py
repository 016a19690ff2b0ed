"""Fault: how a call goes wrong on purpose, as data; FaultPlan: which calls do."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KINDS: Mapping[str, str] = {
    "throttle": "400 ThrottlingException with a null message, as SageMaker throttles",
    "throttle_untyped": "400 with a null message and no error type",
    "too_many_requests": "429 without an error type",
    "model_not_ready": "429 ModelNotReadyException",
    "service_unavailable": "503 ServiceUnavailable",
    "internal_failure": "500 InternalFailure",
    "internal_dependency": "530 InternalDependencyException",
    "model_error": "424 ModelError; `status` is the container's own status, 0 for none",
    "validation": "400 ValidationError with `message`",
    "access_denied": "403 AccessDeniedException",
    "expired_token": "403 ExpiredTokenException",
    "endpoint_not_found": "400 ValidationError, the endpoint was not found",
    "delay": "`seconds` more, then whatever else would happen",
    "hang": "no answer until the client gives up",
    "reset": "the connection is reset after the body was read",
    "truncate": "half of the response, then the connection is closed",
    "wrong_rows": "`rows` predictions more than asked for, or fewer when negative",
    "garbage": "a 200 response with a body that is no prediction",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call that all of its conditions choose.

    `calls` are numbers, 1 being the first call after the faults were set; `first` and `last` bound them, and `every` n
    takes each n-th. `rate` is the probability among the calls that are chosen otherwise. `payload` must be in the body.
    It happens at most `times` times, and only within `until` seconds after the faults were set.
    """

    kind: str
    rate: float = 1.0
    calls: frozenset[int] | None = None
    first: int = 1
    last: int | None = None
    every: int = 1
    payload: bytes | None = None
    endpoint: str | None = None
    times: int | None = None
    until: float | None = None
    status: int = 500
    seconds: float = 1.0
    rows: int = -1
    message: str = "scripted fault"

    def __post_init__(self) -> None:
        """Raise SettingsError for a fault that could never happen."""
        if self.kind not in KINDS:
            raise SettingsError(f"There is no fault {self.kind}; there are {', '.join(KINDS)}.")
        if not 0 < self.rate <= 1:
            raise SettingsError(f"The rate of a fault is above 0 and at most 1, not {self.rate}.")
        if self.every < 1:
            raise SettingsError(f"A fault's `every` is 1 or more, not {self.every}.")

    @classmethod
    def parse(cls, data: object) -> Fault:
        """Take one from JSON or YAML: an object with the fields of this class; raises SettingsError."""
        if not isinstance(data, dict) or "kind" not in data:
            raise SettingsError(f"A fault is an object with a kind and conditions, not {data!r}.")
        if unknown := set(data) - {known.name for known in fields(cls)}:
            raise SettingsError(f"A fault has no {', '.join(map(str, sorted(unknown)))}.")
        values = dict(data)
        try:
            if values.get("calls") is not None:
                values["calls"] = frozenset(int(number) for number in values["calls"])
            if values.get("payload") is not None:
                values["payload"] = str(values["payload"]).encode()
            for name in ("rate", "seconds"):
                values[name] = float(values.get(name, 1))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"The fault {data!r} cannot be read: {error}.") from None

    def as_json(self) -> dict[str, object]:
        """What `parse` takes."""
        values = asdict(self)
        values["calls"] = sorted(self.calls) if self.calls is not None else None
        values["payload"] = self.payload.decode(errors="replace") if self.payload is not None else None
        return values


class FaultPlan:
    """Decides which faults a call gets; `at` is when it was made, in seconds of the clock of `next`'s `now`."""

    def __init__(self, faults: Iterable[Fault] = (), *, at: float = 0.0, seed: int = 0) -> None:
        self.faults = tuple(faults)
        self._random = random.Random(seed)
        self._at = at
        self._calls = 0
        self._happened = [0] * len(self.faults)

    def next(self, endpoint: str, body: bytes, now: float) -> Sequence[Fault]:
        """The faults of the next call: every delay, and at most one other, the first in the list."""
        if not self.faults:
            return ()
        self._calls += 1
        chosen: list[Fault] = []
        decided = False
        for index, fault in enumerate(self.faults):
            if (decided and fault.kind != "delay") or not self._applies(index, fault, endpoint, body, now):
                continue
            self._happened[index] += 1
            chosen.append(fault)
            decided = decided or fault.kind != "delay"
        return chosen

    def _applies(self, index: int, fault: Fault, endpoint: str, body: bytes, now: float) -> bool:
        number = self._calls
        return (
            (fault.endpoint is None or fault.endpoint == endpoint)
            and (fault.calls is None or number in fault.calls)
            and fault.first <= number
            and (fault.last is None or number <= fault.last)
            and (number - fault.first + 1) % fault.every == 0
            and (fault.times is None or self._happened[index] < fault.times)
            and (fault.until is None or now - self._at <= fault.until)
            and (fault.payload is None or fault.payload in body)
            and (fault.rate == 1 or self._random.random() < fault.rate)
        )
