"""Settings: everything that a person can set, frozen, with its cross-field rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from connector.settings.endpoint import Endpoint
from connector.settings.kafka import Kafka
from connector.settings.request import Request
from connector.settings.section import refusal
from connector.settings.sections import (
    Batch,
    Bisect,
    Buffer,
    Concurrency,
    Correlation,
    DeadLetter,
    Log,
    Result,
    Retry,
    Shutdown,
    Web,
)
from connector.settings.units import write_size

if TYPE_CHECKING:
    from collections.abc import Iterator


class Settings(BaseSettings):
    """Everything that a person can set; without arguments, the defaults, whatever the process's environment holds."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="CONNECTOR_", env_nested_delimiter="__", enable_decoding=False
    )

    kafka: Kafka = Field(default=Kafka(), description="The brokers, the consumer group, the topics, the time limits.")
    endpoint: Endpoint = Field(default=Endpoint(), description="The SageMaker endpoint, and what every call carries.")
    request: Request = Field(default=Request(), description="What the model gets of an event.")
    result: Result = Field(default=Result(), description="What is written for an event.")
    batch: Batch = Field(default=Batch(), description="When a batch is closed.")
    correlation: Correlation = Field(default=Correlation(), description="How a call gets its InferenceId.")
    concurrency: Concurrency = Field(default=Concurrency(), description="How many calls run at a time.")
    buffer: Buffer = Field(default=Buffer(), description="How much is held between delivery and completion.")
    retry: Retry = Field(default=Retry(), description="How long to wait before a batch is called again.")
    bisect: Bisect = Field(default=Bisect(), description="How bad events are found in a batch that the model refused.")
    dead_letter: DeadLetter = Field(default=DeadLetter(), description="When events are given up.")
    shutdown: Shutdown = Field(default=Shutdown(), description="How the process ends.")
    web: Web = Field(default=Web(), description="Where the health, metrics and status pages are.")
    log: Log = Field(default=Log(), description="What is logged, and how.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the arguments only: `load` merges the file and the environment that it was given."""
        return (init_settings,)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if sentences := list(self._broken()):
            raise refusal(*sentences)
        return self

    def _broken(self) -> Iterator[str]:
        for section, held in (("concurrency", self.concurrency.max_bytes), ("buffer", self.buffer.max_bytes)):
            if held < self.batch.max_bytes:
                yield (
                    f"{section}.max_bytes: must be at least batch.max_bytes ({write_size(self.batch.max_bytes)}), or "
                    "the largest batch never fits"
                )
