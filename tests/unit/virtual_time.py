"""VirtualTime: an event loop whose clock jumps to the next timer as soon as nothing else is left to do.

A test that waits for hours takes milliseconds, and what happens at which second is exact.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from selectors import SelectorKey

    from _typeshed import FileDescriptorLike

P = ParamSpec("P")

EPOCH = 1_700_000_000
"""The wall clock of a loop that was just made, in seconds since 1970."""
_MOST_TURNS = 200_000
"""More turns of a loop than any test needs: beyond them it spins."""


class Clock:
    """What the `time` module is to the code under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds of a clock that does not go back."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970."""
        return EPOCH + self.now

    def time_ns(self) -> int:
        """Nanoseconds since 1970."""
        return round(self.time() * 1_000_000) * 1000


class _JumpingSelector(selectors.BaseSelector):
    """Jumps where an ordinary one would wait; what I/O there is, it finds all the same."""

    def __init__(self, clock: Clock) -> None:
        self._selector = selectors.DefaultSelector()
        self._clock = clock
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        self.turns += 1
        assert self.turns < _MOST_TURNS, "the loop spins"
        ready = self._selector.select(0)
        if not ready:
            assert timeout is not None, "everything waits, and nothing will ever happen"
            self._clock.now += max(0.0, timeout)
        return ready

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        return self._selector.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop in virtual time; `clock` is what its code must take for the time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.at_end: list[Callable[[], None]] = []
        """What a test has set going, and must be stopped when it ends, however it does."""
        self._jumps = _JumpingSelector(self.clock)
        super().__init__(self._jumps)

    def time(self) -> float:
        """Seconds of the virtual clock."""
        return self.clock.now

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]

    @property
    def turns(self) -> int:
        """How often the loop has turned: a timer that is due again at once turns it for ever."""
        return self._jumps.turns


def virtual_loop() -> VirtualTime:
    """The loop that runs the caller."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTime)
    return loop


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function: each run of it has a loop of its own, that leaves nothing behind."""

    async def whole(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await test(*args, **kwargs)
        finally:
            for stop in virtual_loop().at_end:
                stop()

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            runner.run(whole(*args, **kwargs))

    return run
