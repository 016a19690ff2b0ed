"""Endpoint: which SageMaker endpoint is called, and the arguments of InvokeEndpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from connector.core.routes import members
from connector.core.routes.router import HeaderRef
from connector.settings.section import Required, Section, Text, parts_of
from connector.settings.units import PositiveDuration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationInfo

_CONTAINER_LIMIT = 60.0
"""Seconds that SageMaker gives a container to answer."""


MEMBER_KEYS = (
    "accept",
    "content_type",
    "custom_attributes",
    "target_model",
    "target_variant",
    "target_container_hostname",
    "inference_component_name",
    "session_id",
    "enable_explanations",
)
"""The keys that are members of InvokeEndpoint."""


class FromHeader(Section):
    """The event header that chooses a member of InvokeEndpoint for its event."""

    header: Text = Field(description="The name of the event header; an event without it leaves the member out.")


def _constant_or_header(value: Any) -> Any:
    # A union's own errors would speak once for each of its types.
    if isinstance(value, dict) and set(value) != {"header"}:
        raise ValueError("must be a text or {header: NAME}")
    if value is None or isinstance(value, str | dict | FromHeader):
        return value
    raise ValueError(f"must be a text or {{header: NAME}}, not {value!r}; put a text in quotes")


Member = Annotated[str | FromHeader | None, BeforeValidator(_constant_or_header)]
"""A member of InvokeEndpoint: the same for all events, from an event header, or left out."""


def _region(region: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,63}", region):
        raise ValueError(f"must be a region like eu-west-1, not {region!r}")
    return region


def _address(url: str) -> str:
    parts = parts_of(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL like https://runtime.sagemaker.eu-west-1.amazonaws.com")
    return url


def member_name(key: str) -> str:
    """The name that InvokeEndpoint has for a key of this section: `target_model` is `TargetModel`."""
    return "".join(word.title() for word in key.split("_"))


class Endpoint(Section):
    """The SageMaker endpoint, and what every call of it carries."""

    name: Annotated[Text, Required("fraud-detector")] = Field(
        default="", description="The name of the SageMaker endpoint."
    )
    region: Annotated[str, AfterValidator(_region)] | None = Field(
        default=None, description="The AWS region of the endpoint; null takes it from the SDK's own chain."
    )
    url: Annotated[Text, AfterValidator(_address)] | None = Field(
        default=None, description="Another address for the runtime API, such as an emulator or a VPC endpoint."
    )
    accept: Member = Field(
        default=None,
        description="The content type to ask the model for: a constant, or {header: NAME} to take it from that event "
        "header; null takes the body format's.",
    )
    content_type: Member = Field(
        default=None,
        description="The content type of the body, a constant or {header: NAME}; null takes the body format's.",
    )
    custom_attributes: Member = Field(
        default=None, description="What the container gets as CustomAttributes, a constant or {header: NAME}."
    )
    target_model: Member = Field(
        default=None, description="The model of a multi-model endpoint, a constant or {header: NAME}."
    )
    target_variant: Member = Field(
        default=None, description="The production variant that must answer, a constant or {header: NAME}."
    )
    target_container_hostname: Member = Field(
        default=None, description="The container of a multi-container endpoint, a constant or {header: NAME}."
    )
    inference_component_name: Member = Field(
        default=None, description="The inference component that must answer, a constant or {header: NAME}."
    )
    session_id: Member = Field(
        default=None, description="The session of a stateful model, a constant or {header: NAME}."
    )
    enable_explanations: Member = Field(
        default=None, description="The expression that turns Clarify's explanations on, a constant or {header: NAME}."
    )
    connect_timeout: PositiveDuration = Field(
        default=5.0, description="How long a connection to the endpoint may take to open."
    )
    read_timeout: PositiveDuration = Field(
        default=70.0,
        description="How long a call may wait for its answer; a container may take 60s, so not below that.",
    )

    @field_validator("name")
    @classmethod
    def _legal_name(cls, name: str) -> str:
        return _legal("EndpointName", name)

    @field_validator(*MEMBER_KEYS)
    @classmethod
    def _legal_constant(cls, value: str | FromHeader | None, info: ValidationInfo) -> str | FromHeader | None:
        return _legal(member_name(info.field_name or ""), value) if isinstance(value, str) else value

    def members(self) -> dict[str, str | HeaderRef]:
        """The members of InvokeEndpoint that are constants or come from an event header, by their name in the API."""
        given = {member_name(key): getattr(self, key) for key in MEMBER_KEYS}
        return {
            name: HeaderRef(value.header) if isinstance(value, FromHeader) else value
            for name, value in given.items()
            if value is not None
        }

    def broken(self) -> Iterator[str]:
        """Say when a call would be given up before its container is."""
        if self.read_timeout < _CONTAINER_LIMIT:
            yield "read_timeout: must be at least 60s, the time that SageMaker gives a container to answer"


def _legal(member: str, value: str) -> str:
    if problem := members.problem(member, value):
        raise ValueError(problem)
    return value
