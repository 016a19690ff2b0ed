"""Capture: one line of a SageMaker data-capture file, its writer and its reader.

The layout is that of https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html:
`{endpoint}/{variant}/yyyy/mm/dd/hh/{uuid}.jsonl`, hour in UTC, one line a call.
"""

from __future__ import annotations

import base64
import random
import tempfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import orjson

from connector.local.folders import written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

_CSV_TYPES = frozenset({"text/csv"})
_JSON_TYPES = frozenset({"application/json", "application/jsonlines"})
_MAX_FILE = 16 << 20


@dataclass(frozen=True, slots=True)
class Capture:
    """What one call sent and got; a side that was not captured is None."""

    endpoint: str
    variant: str
    event_id: str
    time: datetime
    inference_id: str | None = None
    custom_attributes: tuple[str, ...] = ()
    input: bytes | None = None
    input_type: str | None = None
    output: bytes | None = None
    output_type: str | None = None

    def line(self) -> bytes:
        """The line that stands for it in a capture file."""
        metadata: dict[str, object] = {
            "eventId": self.event_id,
            "inferenceTime": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if self.inference_id is not None:
            metadata["inferenceId"] = self.inference_id
        if self.custom_attributes:
            metadata["customAttributes"] = self.custom_attributes
        sides: dict[str, object] = {}
        if self.input is not None:
            sides["endpointInput"] = _side("INPUT", self.input, self.input_type)
        if self.output is not None:
            sides["endpointOutput"] = _side("OUTPUT", self.output, self.output_type)
        document = {"captureData": sides, "eventMetadata": metadata, "eventVersion": "0"}
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


class CaptureWriter:
    """Appends captures below a folder; each line is in the file when `write` returns. `share` of them are kept."""

    def __init__(self, folder: Path, *, share: float = 1.0, seed: int = 0) -> None:
        self._folder = folder
        self._share = share
        self._random = random.Random(seed)
        self._files: dict[tuple[str, str], tuple[str, IO[bytes]]] = {}

    def prepare(self) -> None:
        """Make the folder; raises StartupError when nothing can be written there."""
        with written(self._folder, "name another folder for the captures"):
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()

    def write(self, capture: Capture) -> None:
        """Append one line, to another file with each hour and 16 MiB."""
        if self._share < 1 and self._random.random() >= self._share:
            return
        key = capture.endpoint, capture.variant
        hour = capture.time.strftime("%Y/%m/%d/%H")
        opened, file = self._files.get(key, ("", None))
        if file is None or opened != hour or file.tell() > _MAX_FILE:
            if file is not None:
                file.close()
            path = self._folder / capture.endpoint / capture.variant / hour / f"{uuid.uuid4()}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
            self._files[key] = hour, file
        file.write(capture.line())

    def close(self) -> None:
        """Close the files."""
        for _, file in self._files.values():
            file.close()
        self._files.clear()


def read(folder: Path) -> Iterator[Capture]:
    """Every capture below a folder of endpoints, files by name; a last line that is still being written is left out."""
    for path in sorted(folder.glob("*/*/*/*/*/*/*.jsonl")):
        endpoint, variant = path.relative_to(folder).parts[:2]
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield _parse(endpoint, variant, orjson.loads(line))


def _parse(endpoint: str, variant: str, document: dict[str, Any]) -> Capture:
    metadata = document.get("eventMetadata", {})
    sides = document["captureData"]
    given, got = sides.get("endpointInput"), sides.get("endpointOutput")
    return Capture(
        endpoint=endpoint,
        variant=variant,
        event_id=metadata.get("eventId", ""),
        time=datetime.fromisoformat(metadata["inferenceTime"])
        if "inferenceTime" in metadata
        else datetime.min.replace(tzinfo=UTC),
        inference_id=metadata.get("inferenceId"),
        custom_attributes=tuple(metadata.get("customAttributes", ())),
        input=_data(given) if given else None,
        input_type=given["observedContentType"] if given else None,
        output=_data(got) if got else None,
        output_type=got["observedContentType"] if got else None,
    )


def _side(mode: str, body: bytes, content_type: str | None) -> dict[str, object]:
    kind = (content_type or "").partition(";")[0].strip().lower()
    encoding = "CSV" if kind in _CSV_TYPES else "JSON" if kind in _JSON_TYPES else "BASE64"
    try:
        data = body.decode() if encoding != "BASE64" else base64.b64encode(body).decode()
    except UnicodeDecodeError:
        encoding, data = "BASE64", base64.b64encode(body).decode()
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}


def _data(side: dict[str, str]) -> bytes:
    if side["encoding"] == "BASE64":
        return base64.b64decode(side["data"])
    return side["data"].encode()
