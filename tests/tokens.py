"""Tokens: unsecured JSON web tokens, which a broker takes that has no other way to check them.

https://kafka.apache.org/documentation/#security_sasl_oauthbearer
"""

from __future__ import annotations

import base64
import json
import time

_SKEW = 60.0
"""Seconds by which a token is older than now: a broker refuses one that its own clock takes for future."""


def json_web_token(user: str, life: float = 600) -> str:
    """An unsecured token that expires in `life` seconds; below 0 it has expired."""
    expires = time.time() + life
    claims = {"sub": user, "iat": min(time.time(), expires) - _SKEW, "exp": expires}
    return (
        ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
            for part in ({"alg": "none"}, claims)
        )
        + "."
    )
