"""Known: what is known of how a model answers, from its answers so far.

Some answers can be read in two ways: one line of four values may be four predictions, or one of four values. That the
model answers calls of two, three and four rows with as many values settles it. A format says what it saw, in a word of
its own for the shape, and asks how many different numbers of rows were answered so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from connector.core.event import Model

_SHAPES = 32
"""Shapes that are remembered of a model; a response may choose their words, so there can be any number."""
_SIZES = 8
"""Different numbers of rows that are remembered of a shape: more of them are no better evidence."""
_LONGEST = 128
"""Characters of a shape that is remembered."""
_MODELS = 4096
"""Models that are remembered; headers can make any number."""
_NONE: AbstractSet[int] = frozenset()


class Known:
    """What one model's answers have shown; it forgets what it has no room for, and knows nothing that was not shown."""

    __slots__ = ("_sizes",)

    def __init__(self) -> None:
        self._sizes: dict[str, set[int]] = {}

    def saw(self, shape: str, rows: int) -> None:
        """A call of that many rows was answered in that shape; what was seen longest ago makes room."""
        if len(shape) > _LONGEST:
            return
        sizes = self._sizes.pop(shape, None)
        if sizes is None:
            sizes = set()
            if len(self._sizes) >= _SHAPES:
                del self._sizes[next(iter(self._sizes))]
        if len(sizes) < _SIZES:
            sizes.add(rows)
        self._sizes[shape] = sizes

    def sizes(self, shape: str) -> AbstractSet[int]:
        """The different numbers of rows of calls that were answered in that shape."""
        return self._sizes.get(shape, _NONE)


class KnownModels:
    """What is known of each model."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: dict[Model, Known] = {}

    def of(self, model: Model) -> Known:
        """What is known of this model; of a model that was not met before, nothing."""
        known = self._models.get(model)
        if known is None:
            if len(self._models) >= _MODELS:
                del self._models[next(iter(self._models))]
            self._models[model] = known = Known()
        return known
