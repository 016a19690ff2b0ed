"""LocalEndpoint: an emulator of the SageMaker runtime API with a real model behind it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import aiohttp
import orjson
from aiohttp import web

from connector.errors import SettingsError, StartupError
from connector.local.endpoint.captures import Capture, CaptureWriter
from connector.local.endpoint.faults import Fault, FaultPlan
from connector.local.endpoint.model import Container, ModelFailure, count_rows
from connector.local.endpoint.sabotage import Answer, fail, send_half, spoil
from connector.local.endpoint.service_error import (
    HEADER,
    ServiceError,
    check_headers,
    check_signature,
    check_size,
    endpoint_not_found,
    model_error,
    validation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from connector.local.endpoint.hosted_endpoint import HostedEndpoint

_CLOSED_SESSION = f"{HEADER}Closed-Session-Id"
_LARGEST_READ = 64 << 20
_PREFIX = "/endpoints/"
_SUFFIX = "/invocations"


@dataclass(slots=True)
class SeenCall:
    """A call that came in; `started` and `finished` are seconds since 1970, `status` is None when none was sent."""

    number: int
    endpoint: str
    inference_id: str | None
    body_sha256: str
    rows: int
    size: int
    started: float
    finished: float | None = None
    status: int | None = None
    fault: str | None = None


@dataclass(slots=True)
class Stats:
    """What happened since the start."""

    calls: int = 0
    rows: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    by_status: dict[str, int] = field(default_factory=dict)


class LocalEndpoint:
    """Serves `POST /endpoints/{name}/invocations` on `host`, an async context manager; port 0 takes a free one.

    `latency` is added to each call, in seconds. `captures` is the folder of the data-capture files. Steered over HTTP:
    `PUT` and `GET /_/faults` (a list of Fault as JSON), `GET /_/calls?since=NUMBER`, `GET /_/stats`.
    """

    def __init__(
        self,
        endpoints: Iterable[HostedEndpoint],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        captures: CaptureWriter | None = None,
        latency: float = 0.0,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        max_calls_kept: int = 20_000,
    ) -> None:
        self.calls: deque[SeenCall] = deque(maxlen=max_calls_kept)
        self.stats = Stats()
        self.latency = latency
        self._endpoints = {hosted.name: hosted for hosted in endpoints}
        self._host = host
        self._port = port
        self._captures = captures
        self._seed = seed
        self._sessions: set[str] = set()
        self.faults = faults

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong on purpose; setting it begins to count calls, times and seconds again."""
        return self._plan.faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._plan = FaultPlan(faults, at=time.monotonic(), seed=self._seed)

    @property
    def url(self) -> str:
        """What the SDK's `endpoint_url` takes."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        if self._captures is not None:
            self._captures.prepare()
        # handler_cancellation: a call that hangs must not outlive a client that gave up.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartupError(
                f"Port {self._port} on {self._host} cannot be used ({os.strerror(error.errno or 0)}): "
                "stop what listens there, or choose another port."
            ) from None
        self._port = self._runner.addresses[0][1]
        self._session = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()
        if self._captures is not None:
            self._captures.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(_PREFIX) and path.endswith(_SUFFIX) and request.method == "POST":
            return await self._invoke(request, path[len(_PREFIX) : -len(_SUFFIX)])
        if path.startswith("/_/"):
            return await self._steer(request, path)
        return web.Response(status=404, headers={"x-amzn-ErrorType": "UnknownOperationException"}, body=b"{}")

    async def _invoke(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        body = await _read(request)
        headers = request.headers
        stats = self.stats
        stats.calls += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        content_type = headers.get("Content-Type", "application/octet-stream")
        seen = SeenCall(
            number=stats.calls,
            endpoint=name,
            inference_id=headers.get(f"{HEADER}Inference-Id"),
            body_sha256=hashlib.sha256(body).hexdigest(),
            rows=count_rows(body, content_type),
            size=len(body),
            started=time.time(),
        )
        stats.rows += seen.rows
        self.calls.append(seen)
        try:
            response = await self._answer(request, name, body, content_type, seen)
            seen.status = response.status
            return response
        except ServiceError as error:
            seen.status = error.status
            return web.Response(status=error.status, headers=error.headers, body=error.body)
        finally:
            seen.finished = time.time()
            stats.in_flight -= 1
            status = str(seen.status)
            stats.by_status[status] = stats.by_status.get(status, 0) + 1

    async def _answer(
        self, request: web.BaseRequest, name: str, body: bytes, content_type: str, seen: SeenCall
    ) -> web.StreamResponse:
        headers = request.headers
        check_signature(headers)
        check_size(body)
        check_headers(headers)
        if self.latency:
            await asyncio.sleep(self.latency)
        fault: Fault | None = None
        for chosen in self._plan.next(name, body, time.monotonic()):
            seen.fault = chosen.kind
            if chosen.kind == "delay":
                await asyncio.sleep(chosen.seconds)
            else:
                fault = chosen
        hosted = self._endpoints.get(name)
        if hosted is None:
            raise endpoint_not_found(name)
        if fault is not None:
            await fail(request, fault, name, next(iter(hosted.variants)))
        answer = await self._predict(hosted, headers, body, content_type)
        if fault is not None:
            answer = spoil(answer, fault, seen.rows)
        if self._captures is not None:
            attributes = headers.get(f"{HEADER}Custom-Attributes")
            capture = Capture(
                endpoint=name,
                variant=answer.variant,
                event_id=str(uuid.uuid4()),
                time=datetime.now(UTC),
                inference_id=seen.inference_id,
                custom_attributes=() if attributes is None else (attributes,),
                input=body,
                input_type=content_type,
                output=answer.body,
                output_type=answer.content_type,
            )
            self._captures.write(capture)
        sent = {"Content-Type": answer.content_type, "x-Amzn-Invoked-Production-Variant": answer.variant}
        sent.update(answer.headers)
        if fault is not None and fault.kind == "truncate":
            return await send_half(request, answer.body, sent)
        return web.Response(body=answer.body, headers=sent)

    async def _predict(
        self, hosted: HostedEndpoint, headers: Mapping[str, str], body: bytes, content_type: str
    ) -> Answer:
        variant, model = hosted.choose(headers, self.stats.calls)
        session = self._open_session(headers.get(f"{HEADER}Session-Id"))
        accept = headers.get("Accept", "*/*")
        try:
            if isinstance(model, Container):
                passed = {name: value for name, value in headers.items() if name.lower().startswith(HEADER.lower())}
                passed |= {"Content-Type": content_type, "Accept": accept}
                predictions, given = await model.invoke(self._session, body, passed)
                answered_type = given.get("Content-Type", "application/octet-stream")
                names = (f"{HEADER}Custom-Attributes", _CLOSED_SESSION)
                session |= {name: given[name] for name in names if name in given}
            elif model.quick:
                predictions, answered_type = model.predict(body, content_type, accept)
            else:
                predictions, answered_type = await asyncio.to_thread(model.predict, body, content_type, accept)
        except ModelFailure as failure:
            raise model_error(failure, hosted.name, variant) from None
        self._sessions.discard(session.get(_CLOSED_SESSION, ""))
        return Answer(predictions, answered_type, variant, session)

    def _open_session(self, asked: str | None) -> dict[str, str]:
        """The header that a session's first answer carries; raises ServiceError for a session that is not open."""
        if asked is None or asked in self._sessions:
            return {}
        if asked != "NEW_SESSION":
            raise validation(f"Session {asked} was not found.")
        name = str(uuid.uuid4())
        self._sessions.add(name)
        expires = (datetime.now(UTC) + timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {f"{HEADER}New-Session-Id": f"{name}; Expires={expires}"}

    async def _steer(self, request: web.BaseRequest, path: str) -> web.Response:
        match request.method, path:
            case "PUT", "/_/faults":
                try:
                    faults = orjson.loads(await request.read())
                    self.faults = [Fault.parse(fault) for fault in faults]
                except (SettingsError, orjson.JSONDecodeError, TypeError) as error:
                    return _json({"message": str(error)}, status=400)
                return _json({"faults": len(self.faults)})
            case "GET", "/_/faults":
                return _json([fault.as_json() for fault in self.faults])
            case "GET", "/_/calls":
                since = int(request.query.get("since", "0"))
                return _json([asdict(call) for call in self.calls if call.number > since])
            case "GET", "/_/stats":
                return _json(asdict(self.stats))
        return _json({"message": f"there is no {request.method} {path}"}, status=404)


async def _read(request: web.BaseRequest) -> bytes:
    """The body, to its end also when it is too large: closing while the client still sends would look like a reset."""
    chunks = bytearray()
    async for chunk in request.content.iter_any():
        if len(chunks) < _LARGEST_READ:
            chunks += chunk
    return bytes(chunks)


def _json(data: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(data), content_type="application/json")
