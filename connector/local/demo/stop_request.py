"""StopRequest: SIGINT and SIGTERM, which end the demo in an orderly way at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Stopped(BaseException):
    """What a region ends with that was asked to stop; no `except Exception` on the way keeps it."""


class StopRequest:
    """Whether this process was asked to stop; the request ends regions that allow it, and never interrupts a cleanup.

    The handlers stay to the end of the process. asyncio's own would not do: with the loop they are gone, and the defaults
    are back while Kafka is still being stopped.
    """

    def __init__(self) -> None:
        self._wanted = False
        self._act: Callable[[], object] | None = None

    def listen(self) -> None:
        """Take the signals over; a hangup counts as one, unless somebody (nohup) has it ignored."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            signal.signal(number, self._handle)

    def leave(self) -> None:
        """Let no signal change the exit code any more: for handlers, Python puts the defaults back while it ends."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """End with Stopped what stands between two regions, when a request has come since the last."""
        if self._wanted:
            raise Stopped

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """A blocking region that a request ends at once with Stopped, also one that came before it."""
        with self._acting(_stop):
            yield

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """A region of a task that a request cancels; it ends with Stopped, and awaits after it go undisturbed."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        inside, cancelled = True, False

        def cancel() -> None:
            nonlocal cancelled
            if inside:
                cancelled = True
                task.cancel()

        with self._acting(lambda: loop.call_soon_threadsafe(cancel)):
            try:
                yield
            except asyncio.CancelledError:
                if not cancelled:
                    raise
                task.uncancel()
                raise Stopped from None
            finally:
                inside = False

    @contextlib.contextmanager
    def _acting(self, act: Callable[[], object]) -> Iterator[None]:
        self._act = act
        try:
            if self._wanted:
                self._fire()
            yield
        finally:
            self._act = None

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted = True
        self._fire()

    def _fire(self) -> None:
        """Act once: an impatient second Ctrl-C finds nothing to do, and the cleanup goes on."""
        act, self._act = self._act, None
        if act is not None:
            act()


def _stop() -> NoReturn:
    raise Stopped
