"""Redaction: texts of others without the credentials that they may repeat.

AWS answers a signature that it does not accept with the canonical request, session token and all; a proxy may echo a
request's headers; an SDK names a URL with the user and password in it.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")
_PATTERNS = (
    (_USER_INFO, f"{HIDDEN}@"),
    (re.compile(r"((?:proxy-)?authorization(?: header)?[\"']?\s*[:=]).*", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"((?:x-amz-(?:security-token|signature|credential)|signature|credential|session_?token|secret_?access_?key"
            r"|access_?key_?id|password)[\"']?\s*[:=]\s*)[\"']?[^\s,;&\"']+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # How AWS begins the id of an access key: of a user, and of temporary credentials.
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{8,}"), HIDDEN),
)


_FOR_STRANGERS = (
    # A role, a user, an endpoint of AWS, with the account in it; and an account alone.
    (re.compile(r"\barn:aws[\w-]*:[^\s,;\"']+"), HIDDEN),
    (re.compile(r"(?<![\w.-])\d{12}(?![\w.-])"), HIDDEN),
    # The address of a host, as settings, as sockets and as Kafka's client write it.
    (re.compile(r"\('[^']*', \d+(?:, [^)]*)?\)"), HIDDEN),
    (re.compile(r"\bhttps?://[^\s,;\"']+"), HIDDEN),
    (re.compile(r"\[[0-9A-Fa-f:.]+\]:\d{1,5}\b|(?=[\w.-]*[A-Za-z.])[\w.-]+:\d{1,5}\b"), HIDDEN),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), HIDDEN),
)


def for_strangers(text: str) -> str:
    """A text without roles, accounts and addresses, for whoever can reach a page."""
    for pattern, hidden in _FOR_STRANGERS:
        text = pattern.sub(hidden, text)
    return text


def without_user(text: str) -> str:
    """A text with `***` for the user and password of each address in it."""
    return _USER_INFO.sub(f"{HIDDEN}@", text)


def redacted(text: str) -> str:
    """A text with `***` for each credential in it that can be told by its look or by the name before it."""
    for pattern, hidden in _PATTERNS:
        text = pattern.sub(hidden, text)
    return text
