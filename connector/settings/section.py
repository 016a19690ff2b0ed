"""Section: a frozen group of settings that checks its own cross-field rules."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, model_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN_RULES = "broken_rules"
"""The type of the validation error that carries whole sentences, each of which names its own key."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""
Secret = Annotated[SecretStr, Field(min_length=1), PlainSerializer(lambda _: "***", return_type=str, when_used="json")]
"""Text that is never shown."""


@dataclass(frozen=True, slots=True)
class Required:
    """The mark of a text that has no default, and is empty until it is given; `load` does not go without it.

    `example` is a value as a person may write it.
    """

    example: str


def refusal(*sentences: str) -> PydanticCustomError:
    """The validation error that carries these sentences."""
    return PydanticCustomError(BROKEN_RULES, "{sentences}", {"sentences": "\n".join(map(legible, sentences))})


def legible(text: str) -> str:
    """A text on one line; pydantic cannot even carry the lone surrogates that stand for a variable's stray bytes."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def parts_of(url: str) -> SplitResult:
    """The parts of a URL, none of what is no URL; the parser's own errors repeat what may be a password."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def on_this_host(host: str) -> bool:
    """Whether what is sent to a host, as a URL names it, does not leave this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def broken(self) -> Iterator[str]:
        """Say each broken rule between the keys of this section as `key: sentence`."""
        yield from ()

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if sentences := list(self.broken()):
            raise refusal(*sentences)
        return self
