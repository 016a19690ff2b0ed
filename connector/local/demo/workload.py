"""Workload: what the demo produces, scikit-learn's digits as CSV events of 60 devices, and three broken ones."""

from __future__ import annotations

from dataclasses import dataclass

from connector.errors import StartupError

DEVICES = tuple(f"device-{number:02}" for number in range(60))
TRAINED = 898
"""The images that the model is trained on; the rest of the 1,797 are the events."""
_BURST = 15
BROKEN: tuple[tuple[bytes | None, str], ...] = (
    (b"0,1,2\n3,4,5", "undecodable"),  # two rows
    (None, "empty"),
    (b"1,2,3", "rejected_by_model"),  # 3 numbers instead of 64
)
"""Values that cannot be answered, each with the reason that its dead letter must give."""


@dataclass(frozen=True, slots=True)
class Item:
    """One event of the demo: `label` is the digit that the image shows, and `reason` why a broken one is dead-lettered."""

    key: bytes
    value: bytes | None
    label: str | None = None
    reason: str | None = None


def workload(events: int) -> list[Item]:
    """So many good events, going round the images again when there are more, and the broken ones among them."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise StartupError(
            "The demo needs scikit-learn, which is not installed: pip install 'sagemaker-kafka-connector[demo]'."
        ) from None
    digits = load_digits()
    images, labels = digits.data[TRAINED:], digits.target[TRAINED:]
    items = []
    for number in range(events):
        row = ",".join(f"{pixel:g}" for pixel in images[number % len(images)])
        # A device reports several readings at a time, so that calls of one key have something to batch.
        key = DEVICES[number // _BURST % len(DEVICES)].encode()
        items.append(Item(key, row.encode(), str(labels[number % len(labels)])))
    for number, (value, reason) in enumerate(BROKEN):
        place = (number + 1) * events // (len(BROKEN) + 1)
        items.insert(place, Item(DEVICES[number].encode(), value, reason=reason))
    return items
