"""Members: the arguments of InvokeEndpoint that a route may carry, and the service's rule for the value of each.

The rules are those of botocore's model of sagemaker-runtime (2017-05-13), where the SDK reads them and checks neither
lengths nor patterns. Body and InferenceId are absent: no route carries them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Rule:
    """What the service takes as a member's value.

    `source` is the service's own pattern, in Java's dialect; `pattern` says the same in Python's, for values of
    printable ASCII; `meaning` says it to a person.
    """

    max_length: int
    source: str
    pattern: re.Pattern[str]
    meaning: str
    min_length: int = 0


_NAME = Rule(
    63,
    "^[a-zA-Z0-9](-*[a-zA-Z0-9])*",
    re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"),
    "letters, digits and hyphens, no hyphen first or last",
)
_TEXT = Rule(1024, r"\p{ASCII}*", re.compile(r"[ -~]*"), "printable ASCII")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Accept": _TEXT,
        "ContentType": _TEXT,
        "CustomAttributes": _TEXT,
        "EnableExplanations": Rule(64, ".*", re.compile(r"[ -~]*"), "printable ASCII", min_length=1),
        "EndpointName": _NAME,
        "InferenceComponentName": Rule(
            63,
            r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$",
            _NAME.pattern,
            _NAME.meaning,
        ),
        "SessionId": Rule(
            256,
            "^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$",
            re.compile(r"NEW_SESSION|[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"),
            f"NEW_SESSION, or {_NAME.meaning}",
        ),
        "TargetContainerHostname": _NAME,
        "TargetModel": Rule(
            1024,
            r"\A\S[\p{Print}]*\z",
            re.compile(r"[!-~][ -~]*"),
            "printable ASCII, no blank first",
            min_length=1,
        ),
        "TargetVariant": _NAME,
    }
)
"""The rule of each member, by the member's name in the API."""


def problem(member: str, value: str) -> str | None:
    """Say in a clause why the service would not take this value of the member, or None when it would.

    Stricter than the service in two things: nothing but printable ASCII, because a control character can end the HTTP
    header that carries the value, and no empty value, because the SDK would send an empty header. The value is not
    repeated, because it may come from an event.
    """
    rule = RULES.get(member)
    if rule is None:
        return f"{member} is no member of InvokeEndpoint that a route can carry; there are {', '.join(RULES)}"
    if not value:
        return f"{member} is empty"
    if len(value) > rule.max_length:
        return f"{member} has {len(value)} characters, and at most {rule.max_length} are allowed"
    if not rule.pattern.fullmatch(value):
        return f"{member} must be {rule.meaning}"
    return None
