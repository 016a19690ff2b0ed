"""InferenceId: what a call carries in X-Amzn-SageMaker-Inference-Id, made of an event's key or of its coordinates.

Four forms, no two of which meet:

- a legal key, as it is; never 64 hex digits, never in coordinate form, so it cannot be taken for one of the others;
- a coordinate form, `{topic}-{partition}-{offset}`, for an event without a key; read from the right it is unambiguous;
- SHA-256 hex of any other key;
- SHA-256 hex of a digest of the coordinates, where their form is too long. What is hashed here would do as a key's id
  as it is, and such a key is never hashed, so no key gives this id.

In mode `batch` the ids are `b-` and 40 hex digits; the modes do not meet, a deployment has one.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH: Final = 64
"""InferenceId: length 1-64, pattern `\\A\\S[\\p{Print}]*\\z`, in the service model of the SageMaker runtime API."""

_LEGAL: Final = re.compile(r"[!-~][ -~]{0,63}")
# As narrow as what is printed: a topic's characters, and ints without leading zeros. `order-2024-0007` is a plain key.
_COORDINATES: Final = re.compile(r"[A-Za-z0-9._-]+-(?:0|[1-9][0-9]*)-(?:0|[1-9][0-9]*)")
_OURS: Final = re.compile(rf"[0-9A-Fa-f]{{64}}|{_COORDINATES.pattern}")
_HASH_PREFIX: Final = "c-"


def legal(inference_id: str) -> bool:
    """Say whether SageMaker takes this as an InferenceId: 1-64 printable ASCII characters, the first not a blank."""
    return _LEGAL.fullmatch(inference_id) is not None


def key_id(key: bytes) -> str:
    """The InferenceId of the events of a key, which is not empty, in mode `key`: the key itself, or a hash of it.

    Equal keys give equal ids, and different keys different ones, up to SHA-256.
    """
    text = key.decode("latin-1")
    # HTTP strips a blank at the end of a header's value, and two keys would have one id.
    if _LEGAL.fullmatch(text) and text[-1] != " " and not _OURS.fullmatch(text):
        return text
    return sha256(key).hexdigest()


def coordinate_id(topic: str, partition: int, offset: int) -> str:
    """The InferenceId of an event without a key, or with an empty one, in mode `key`."""
    text = f"{topic}-{partition}-{offset}"
    if len(text) <= MAX_LENGTH and _COORDINATES.fullmatch(text):
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    digest_as_legal_key = f"{_HASH_PREFIX}{digest[: MAX_LENGTH - len(_HASH_PREFIX)]}"
    return sha256(digest_as_legal_key.encode()).hexdigest()


def batch_id(coordinates: Iterable[tuple[str, int, int]]) -> str:
    """The InferenceId of a batch in mode `batch`, of the topic, partition and offset of its events in order.

    The same events in the same order have the same id when they are sent again.
    """
    text = "\n".join([f"{topic}/{partition}/{offset}" for topic, partition, offset in coordinates])
    return f"b-{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"
