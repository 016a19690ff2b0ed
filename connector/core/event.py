"""Event: one record of the input topic, and the Route that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.epochs.ledger import Ledger


class Model(NamedTuple):
    """What names a model: which one of an endpoint answers. Attributes and sessions make no other model."""

    endpoint: str
    target_model: str | None = None
    target_variant: str | None = None
    target_container_hostname: str | None = None
    inference_component_name: str | None = None


_MODEL_MEMBERS = ("TargetModel", "TargetVariant", "TargetContainerHostname", "InferenceComponentName")
"""The members of InvokeEndpoint that name a model, in the order of its fields."""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint and the arguments that all events of a call share.

    `members` are pairs of an InvokeEndpoint member's name and its value, sorted by name, Body and InferenceId excepted;
    `from_headers` says that event headers choose some of them, by what they hold or by being left out. `model` is whose
    answers come by this route.
    """

    endpoint: str
    members: tuple[tuple[str, str], ...] = ()
    from_headers: bool = False
    model: Model = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = dict(self.members)
        object.__setattr__(self, "model", Model(self.endpoint, *map(named.get, _MODEL_MEMBERS)))


@dataclass(slots=True, eq=False)
class Event:
    """One record of the input topic on its way through the connector; equal only to itself, and shown without its data.

    `timestamp` is Kafka's, in milliseconds; `arrived` is the loop's clock at delivery, in seconds; `size` is the bytes of
    key, value and headers, and once it is answered those of its result; `payload` is the part of the value that the model
    gets; `inference_id` is its own, empty where calls have the ids of their batches; `attempts` is how often it was called,
    once it was answered.
    """

    ledger: Ledger
    offset: int
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: Sequence[tuple[str, bytes]] = field(repr=False)
    timestamp: int
    arrived: float
    size: int
    payload: bytes = field(default=b"", repr=False)
    route: Route = field(default=Route(""))
    inference_id: str = ""
    attempts: int = 0

    @property
    def source(self) -> str:
        """The coordinates of the event, `topic/partition/offset`."""
        return f"{self.ledger.topic}/{self.ledger.partition}/{self.offset}"
