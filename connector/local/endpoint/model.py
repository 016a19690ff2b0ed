"""Model: what answers behind the endpoint, a Python object or a container with `/invocations`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import orjson

from connector.errors import SettingsError, StartupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp

_CSV = "text/csv"
_JSON = "application/json"
_JSON_LINES = "application/jsonlines"
_BRIGHTEST = 16
"""The largest value of a pixel in scikit-learn's digits."""
_CONTAINER_LIMIT = 60.0


class ModelFailure(Exception):
    """A model refused or failed: the HTTP status of the container, 0 when it gave none, and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Model(Protocol):
    """A model in this process; called from one thread at a time when `quick`, else from several."""

    quick: bool
    """Whether `predict` takes under a millisecond, and so may run on the event loop."""

    def predict(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """Answer a body with another, and its content type; raises ModelFailure."""
        ...


class Echo:
    """Answers each row with itself, and costs next to nothing."""

    quick = True

    def predict(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """The body; `instances` become `predictions`."""
        if body.startswith(b'{"instances"'):
            body = b'{"predictions"' + body[len(b'{"instances"') :]
        return body, content_type


class Constant:
    """Answers each row with the same prediction, whatever it holds."""

    quick = True

    def __init__(self, prediction: str = "0") -> None:
        self._prediction = prediction

    def predict(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """As many predictions as the body has rows."""
        return encode_rows([self._prediction] * count_rows(body, content_type), content_type), content_type


class Digits:
    """A scikit-learn classifier of the bundled handwritten digits: 64 pixels in, a digit out.

    Trained on the first `train` of the 1,797 images; takes and gives text/csv, application/jsonlines, application/json.
    """

    quick = False

    def __init__(self, train: int = 898) -> None:
        try:
            from sklearn.datasets import load_digits
            from sklearn.linear_model import LogisticRegression
        except ModuleNotFoundError:
            raise StartupError(
                "The model digits needs scikit-learn, which is not installed: "
                "pip install 'sagemaker-kafka-connector[demo]'."
            ) from None
        digits = load_digits()
        pixels = digits.data[:train] / _BRIGHTEST
        self._classifier = LogisticRegression(max_iter=500).fit(pixels, digits.target[:train])

    def predict(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """One digit a row; a row that is not 64 numbers is refused, and with it the body."""
        given = content_type.partition(";")[0].strip()
        if given not in (_CSV, _JSON_LINES, _JSON):
            raise ModelFailure(415, f"unsupported content type {content_type}")
        wanted = accept.partition(";")[0].strip()
        if wanted in ("", "*/*"):
            wanted = given
        if wanted not in (_CSV, _JSON_LINES, _JSON):
            raise ModelFailure(406, f"unsupported accept {accept}")
        labels = self._classifier.predict([_pixels(at, row) for at, row in enumerate(decode_rows(body, given))])
        return encode_rows([str(label) for label in labels], wanted), wanted


class Container:
    """Any container that answers `POST /invocations`, at an address such as http://127.0.0.1:8080."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"A container's address begins with http:// or https://, unlike {url}.")
        self.url = url.rstrip("/")

    async def invoke(
        self, session: aiohttp.ClientSession, body: bytes, headers: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        """Its response body and headers; raises ModelFailure for a status of 400 or more, or after 60 s."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(_CONTAINER_LIMIT),
                session.post(f"{self.url}/invocations", data=body, headers=headers) as response,
            ):
                answer = await response.read()
        except TimeoutError:
            raise ModelFailure(0, "Your invocation timed out while waiting for a response from container") from None
        except aiohttp.ClientError as error:
            raise ModelFailure(0, f"The container did not answer: {type(error).__name__}") from None
        if response.status >= 400:
            raise ModelFailure(response.status, answer.decode(errors="replace"))
        return answer, response.headers


def make_model(name: str) -> Model | Container:
    """The model that a command line names: `digits`, `echo`, `constant`, or a container's address."""
    if name == "digits":
        return Digits()
    if name == "echo":
        return Echo()
    if name == "constant":
        return Constant()
    if "://" in name:
        return Container(name)
    raise SettingsError(f"The model is digits, echo, constant or the address of a container, not {name}.")


def count_rows(body: bytes, content_type: str) -> int:
    """How many rows a body has; 1 for what is not known to have rows."""
    if content_type.startswith((_CSV, _JSON_LINES)):
        return body.count(b"\n") + (not body.endswith(b"\n"))
    if content_type.startswith(_JSON):
        try:
            return len(decode_rows(body, _JSON))
        except ModelFailure:
            return 1
    return 1


def decode_rows(body: bytes, content_type: str) -> list[object]:
    """The rows of a body, lines as str, JSON decoded; raises ModelFailure with status 400."""
    try:
        if content_type == _CSV:
            return list(body.decode().splitlines())
        if content_type == _JSON_LINES:
            return [orjson.loads(line) for line in body.splitlines()]
        whole = orjson.loads(body)
    except ValueError as error:
        raise ModelFailure(400, f"the body is not {content_type}: {error}") from None
    if isinstance(whole, dict):
        whole = whole.get("instances", whole.get("predictions"))
    if not isinstance(whole, list):
        raise ModelFailure(400, "the body is neither a list nor an object with instances")
    return whole


def encode_rows(predictions: Sequence[str], content_type: str) -> bytes:
    """Predictions, each of them JSON, as a body."""
    if content_type.startswith(_JSON) and not content_type.startswith(_JSON_LINES):
        return b'{"predictions": [' + ",".join(predictions).encode() + b"]}"
    return "".join(f"{prediction}\n" for prediction in predictions).encode()


def _pixels(at: int, row: object) -> list[float]:
    if isinstance(row, dict):
        row = row.get("features")
    try:
        pixels = [float(pixel) / _BRIGHTEST for pixel in (row.split(",") if isinstance(row, str) else row)]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ModelFailure(400, f"row {at} is not numbers") from None
    if len(pixels) != 64:
        raise ModelFailure(400, f"row {at} has {len(pixels)} numbers, not 64")
    return pixels
