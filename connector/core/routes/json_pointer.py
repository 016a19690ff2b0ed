"""JsonPointer: the way to one field of a JSON document, by RFC 6901."""

from __future__ import annotations

import re

from connector.errors import SettingsError

_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])*)*")
# RFC 6901 section 4: no leading zeros. No array is as long as 18 digits say, and int() refuses to read the longest.
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


class JsonPointer:
    """A pointer, parsed once; `""` points to the whole document, `/a/0/b~1c` to key `b/c` of the first of `a`.

    Raises SettingsError when the text is not a JSON pointer.
    """

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        if not _POINTER.fullmatch(text):
            raise SettingsError(
                f"{text!r} is not a JSON pointer: each name has a slash before it (/features), and in a name"
                " ~ is written ~0 and / is written ~1."
            )
        self.text = text
        self._steps = tuple(
            (step.replace("~1", "/").replace("~0", "~"), int(step) if _INDEX.fullmatch(step) else None)
            for step in text.split("/")[1:]
        )

    def find(self, document: object) -> object:
        """What the pointer points to; raises LookupError when the document has no such place."""
        place = document
        for name, index in self._steps:
            if isinstance(place, dict):
                place = place[name]
            elif isinstance(place, list) and index is not None:
                place = place[index]
            else:
                raise LookupError(name)
        return place
