"""Startable: something that is started and stopped, as a context manager."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Startable(ABC):
    """Starts when its block is entered, and stops when it is left, also when the start fails half-way."""

    @abstractmethod
    def start(self) -> None:
        """Start it; returns when it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Stop what runs of it."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
