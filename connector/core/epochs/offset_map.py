"""OffsetMap: the complete events behind a committed offset, as the commit's metadata carries them to the next owner.

The text is `c1:` and the unpadded base64url of a CRC-32, of the committed offset and the body, and of the body: samples,
then ranges of offsets, as varints or as a bit set, whichever is shorter.
"""

from __future__ import annotations

import base64
import re
import zlib
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Run = tuple[int, int]
"""A range of offsets: the first, and the one behind the last."""

MAX_BYTES = 4096
"""What brokers take by default (`offset.metadata.max.bytes`)."""
MAX_SAMPLES = 16
_PREFIX = "c1:"
_ROOM = (MAX_BYTES - len(_PREFIX)) * 3 // 4 - 4
"""Bytes of the longest body."""
_RUNS, _BITS = 0, 1
_LARGEST = 2**63 - 1
_ONES = re.compile("1+")


class OffsetMap:
    """What an earlier owner said to be complete, asked once for every delivered event, by ascending offset.

    It is believed only from the first sample on that is confirmed: delivered with the offset and the timestamp that it
    has here. A sample with another timestamp means another topic of that name, and discards the map.
    """

    __slots__ = ("_run", "_runs", "_sample", "_samples", "confirmed", "discarded")

    def __init__(self, runs: Sequence[Run], samples: Sequence[tuple[int, int]]) -> None:
        """Take ascending, separate runs, and samples: pairs of an offset, ascending, and a timestamp in milliseconds."""
        self.confirmed = False
        """Whether a sample was found to be true."""
        self.discarded = False
        """Whether a sample was found to be false."""
        self._runs = runs
        self._samples = samples
        self._run = 0
        self._sample = 0

    def finished(self, offset: int, timestamp: int) -> bool:
        """Whether this event, with its timestamp in milliseconds, was completed by an earlier owner."""
        if self.discarded:
            return False
        runs, samples = self._runs, self._samples
        # A sample that was not delivered is compacted or expired, and says nothing.
        while self._sample < len(samples) and samples[self._sample][0] <= offset:
            sampled, expected = samples[self._sample]
            self._sample += 1
            if sampled == offset:
                if timestamp != expected:
                    self.discarded = True
                    return False
                self.confirmed = True
        while self._run < len(runs) and runs[self._run][1] <= offset:
            self._run += 1
        return self.confirmed and self._run < len(runs) and runs[self._run][0] <= offset

    @property
    def exhausted(self) -> bool:
        """Whether no later event can be found in it."""
        unconfirmed_for_ever = not self.confirmed and self._sample == len(self._samples)
        return self.discarded or unconfirmed_for_ever or self._run == len(self._runs)

    def runs(self, start: int) -> list[Run]:
        """The runs, or parts of runs, from `start` on, which is above every event that was asked about."""
        return [(max(first, start), end) for first, end in self._runs[self._run :] if end > start]

    def samples(self, start: int) -> dict[int, int]:
        """The samples from `start` on: timestamps in milliseconds by offset."""
        return {offset: timestamp for offset, timestamp in self._samples[self._sample :] if offset >= start}


def fits(runs: int, span: int) -> bool:
    """Whether that many runs, from the first to the last of `span` offsets, may be short enough to be encoded."""
    return 2 * runs <= _ROOM or span <= 8 * _ROOM


def encode(position: int, runs: Sequence[Run], *timestamps: Mapping[int, int]) -> str:
    """The metadata of a commit of `position`: at most MAX_BYTES ASCII characters; empty when it would be longer.

    `runs` ascend from `position` on and do not overlap; an offset in them that is no event does no harm. `timestamps`, in
    milliseconds, are of events in the runs, and each mapping gives its share of the samples. Without any the map could
    never be confirmed, and is empty.
    """
    samples = _choose([some for some in timestamps if some])
    if not runs or not samples:
        return ""
    body = bytearray([len(samples)])
    offset, timestamp = position, 0
    for sampled, at in samples:
        _append(body, sampled - offset)
        _append(body, 2 * (at - timestamp) if at >= timestamp else 2 * (timestamp - at) - 1)
        offset, timestamp = sampled, at
    bits = bytearray([_BITS])
    _append(bits, runs[0][0] - position)
    room, size = _ROOM - len(body), len(bits) + (runs[-1][1] - runs[0][0] + 7) // 8
    if (ranges := _ranges(position, runs, min(room, size))) is not None:
        body += ranges
    elif size <= room:
        body += bits + _bit_set(runs)
    else:
        return ""
    return _seal(body, position)


def decode(text: str, position: int) -> OffsetMap | None:
    """The map in the metadata of a commit of `position`; None for every text that is not such a map, whatever it is."""
    if not text.startswith(_PREFIX) or len(text) > MAX_BYTES:
        return None
    data = text[len(_PREFIX) :]
    try:
        body = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))[4:]
        return _read(body, position) if _seal(body, position) == text else None
    except (ValueError, IndexError):
        return None


def _choose(timestamps: Sequence[Mapping[int, int]]) -> list[tuple[int, int]]:
    """The first event, and others that are spread evenly; one without a timestamp would be confirmed by any other."""
    if not timestamps:
        return []
    share = MAX_SAMPLES // len(timestamps)
    chosen: dict[int, int] = {}
    for some in timestamps:
        first, step = min(some), 1 if len(some) <= share else -(-len(some) // (share - 1))
        chosen[first] = some[first]
        chosen.update((offset, some[offset]) for offset in islice(some, 0, None, step))
    return sorted((offset, timestamp) for offset, timestamp in chosen.items() if timestamp >= 0)


def _seal(body: bytes | bytearray, position: int) -> str:
    """The text of a body; the checksum covers the position, since elsewhere the body would name other events."""
    checksum = zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big"))).to_bytes(4, "big")
    return _PREFIX + base64.urlsafe_b64encode(checksum + body).rstrip(b"=").decode()


def _ranges(position: int, runs: Sequence[Run], limit: int) -> bytearray | None:
    """The runs as distances and lengths; None when they take more than `limit` bytes."""
    if 1 + 2 * len(runs) > limit:
        return None
    data, last = bytearray([_RUNS]), position
    for first, end in runs:
        _append(data, first - last)
        _append(data, end - first)
        last = end
        if len(data) > limit:
            return None
    return data


def _bit_set(runs: Sequence[Run]) -> bytes:
    """The runs as bits, the highest of the first byte for the first offset of the first run."""
    digits, last = [], runs[0][0]
    for first, end in runs:
        digits.append("0" * (first - last) + "1" * (end - first))
        last = end
    length = (last - runs[0][0] + 7) // 8
    return int("".join(digits).ljust(8 * length, "0"), 2).to_bytes(length, "big")


def _read(body: bytes, position: int) -> OffsetMap | None:
    """The map of a body; raises ValueError or IndexError when it is none."""
    count, at = _take(body, 0)
    samples, offset, timestamp = [], position, 0
    for _ in range(count):
        distance, at = _take(body, at)
        step, at = _take(body, at)
        offset += distance
        timestamp += -(step + 1 >> 1) if step & 1 else step >> 1
        samples.append((offset, timestamp))
    kind, at = _take(body, at)
    runs: list[Run] = []
    if kind == _RUNS:
        end = position
        while at < len(body):
            distance, at = _take(body, at)
            length, at = _take(body, at)
            runs.append((end + distance, end + distance + length))
            end += distance + length
    elif kind == _BITS:
        distance, at = _take(body, at)
        digits = bin(int.from_bytes(b"\1" + body[at:], "big"))[3:]
        start = position + distance
        runs += [(start + found.start(), start + found.end()) for found in _ONES.finditer(digits)]
    if not runs or runs[-1][1] > _LARGEST or any(first == end for first, end in runs):
        return None
    return OffsetMap(runs, samples)


def _append(data: bytearray, number: int) -> None:
    """Append a varint: seven bits a byte, the lowest first."""
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)


def _take(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and where the next byte is; raises IndexError at the end of the data."""
    number = shift = 0
    while (byte := data[at]) > 0x7F:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return number | byte << shift, at + 1
