"""Router: what an event needs before it can be batched, its payload, route and id, or why it can have none of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson

from connector.core.event import Route
from connector.core.reason import Reason
from connector.core.routes import members as rules
from connector.core.routes.inference_id import coordinate_id, key_id
from connector.core.routes.json_pointer import JsonPointer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.core.event import Event
    from connector.core.formats.body_format import BodyFormat

_IDS_KEPT = 16_384
"""Keys whose InferenceIds are kept for reuse."""
_ROUTES_KEPT = 1024
"""Routes that headers chose and that are kept for reuse; a session's id can make as many as there are events."""


@dataclass(frozen=True, slots=True)
class HeaderRef:
    """A member's value comes from the event header of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event cannot be batched: the reason of its dead letter, and a sentence without the event's data."""

    reason: Reason
    message: str


class Router:
    """Gives each event its payload, its route and its id, without a call.

    `members` are the InvokeEndpoint members that the settings name (TargetModel, CustomAttributes, ...), each a
    constant that `members.problem` accepts, or a HeaderRef; only headers that they name are looked at.
    `payload_pointer` is the JSON pointer to the payload in the value, None when the value is the payload. `max_bytes`
    bounds a body. `own_ids` says that each event has an InferenceId of its own; else their batches have one.

    Raises SettingsError when `payload_pointer` is no JSON pointer.
    """

    def __init__(
        self,
        endpoint: str,
        members: Mapping[str, str | HeaderRef],
        fmt: BodyFormat,
        payload_pointer: str | None,
        max_bytes: int,
        *,
        own_ids: bool,
    ) -> None:
        self._check = fmt.check
        self._id_of_key = lru_cache(_IDS_KEPT)(key_id) if own_ids else None
        self._pointer = None if payload_pointer is None else JsonPointer(payload_pointer)
        self._max_bytes = max_bytes
        self._room = max_bytes - fmt.overhead - fmt.row_overhead
        self._constants = tuple(sorted((name, value) for name, value in members.items() if isinstance(value, str)))
        self._chosen = tuple((name, ref.name) for name, ref in members.items() if isinstance(ref, HeaderRef))
        self._names = tuple(header for _, header in self._chosen)
        # An event that lacks a header is as much to blame for its route as one whose header is wrong: it must not halt all.
        self._route = Route(endpoint, self._constants, from_headers=bool(self._chosen))
        self._unchosen: tuple[bytes | None, ...] = (None,) * len(self._names)
        self._routes: dict[tuple[bytes | None, ...], Route] = {}

    def admit(self, event: Event) -> Refusal | None:
        """Set the event's payload, route and id, or say why it gets none; a refused event is left as it was."""
        value = event.value
        if not value:
            return Refusal(
                Reason.EMPTY, "The event's value is null." if value is None else "The event's value is empty."
            )
        payload = value if self._pointer is None else _field(value, self._pointer)
        if isinstance(payload, Refusal):
            return payload
        if len(payload) > self._room:
            return Refusal(
                Reason.TOO_LARGE,
                f"The payload is {len(payload)} bytes, and a body of batch.max_bytes={self._max_bytes} has room for"
                f" {max(self._room, 0)}.",
            )
        if (problem := self._check(payload)) is not None:
            return Refusal(Reason.UNDECODABLE, problem)
        if self._names:
            route = self._choose(event.headers)
            if isinstance(route, Refusal):
                return route
            event.route = route
        else:
            event.route = self._route
        event.payload = payload
        if self._id_of_key is not None:
            key, ledger = event.key, event.ledger
            event.inference_id = (
                self._id_of_key(key) if key else coordinate_id(ledger.topic, ledger.partition, event.offset)
            )
        return None

    def _choose(self, headers: Sequence[tuple[str, bytes]]) -> Route | Refusal:
        """The route of an event with these headers; of a header that occurs twice, the last counts."""
        # A header without a value, which Kafka allows, is None here and like a header that is not there.
        values = tuple(map(dict(headers).get, self._names))
        if values == self._unchosen:
            return self._route
        route = self._routes.get(values)
        if route is None:
            made = self._make(values)
            if isinstance(made, Refusal):
                return made
            if len(self._routes) >= _ROUTES_KEPT:
                del self._routes[next(iter(self._routes))]
            self._routes[values] = route = made
        return route

    def _make(self, values: tuple[bytes | None, ...]) -> Route | Refusal:
        """The route with these values of the chosen members."""
        pairs = list(self._constants)
        for (member, header), value in zip(self._chosen, values, strict=True):
            if value is None:
                continue
            try:
                text = value.decode("ascii")
            except UnicodeDecodeError:
                problem: str | None = f"{member} must be ASCII"
            else:
                problem = rules.problem(member, text)
            if problem is not None:
                return Refusal(Reason.INVALID_ROUTE, f"The event header {header!r} breaks a rule: {problem}.")
            pairs.append((member, text))
        return Route(self._route.endpoint, tuple(sorted(pairs)), from_headers=True)


def _field(value: bytes, pointer: JsonPointer) -> bytes | Refusal:
    """The field of a JSON value as a payload: a string's own text, anything else as JSON that orjson writes."""
    try:
        field = pointer.find(orjson.loads(value))
    except orjson.JSONDecodeError as error:
        return Refusal(
            Reason.UNDECODABLE, f"The value is not JSON, and the payload is its field {pointer.text!r}: {error}."
        )
    except LookupError:
        return Refusal(Reason.UNDECODABLE, f"The value has no field {pointer.text!r}.")
    if isinstance(field, str):
        payload = field.encode()
    else:
        try:
            payload = orjson.dumps(field)
        except orjson.JSONEncodeError as error:
            return Refusal(Reason.UNDECODABLE, f"The field {pointer.text!r} cannot be written as JSON: {error}.")
    return payload or Refusal(Reason.EMPTY, f"The field {pointer.text!r} is empty.")
