"""Pages: /health/live, /health/ready and /metrics, on Faust's web server; they show strangers no address and no account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connector.core.redaction import for_strangers

if TYPE_CHECKING:
    import faust
    from prometheus_client import CollectorRegistry

    from connector.worker.health import Health


def add(app: faust.App, health: Health, registry: CollectorRegistry) -> None:
    """Put the pages on the web server of an app."""

    @app.page("/health/live")  # type: ignore[untyped-decorator]
    async def live(web: Any, request: Any) -> Any:
        # That this was run is the answer: the event loop turns.
        return web.text("alive\n")

    @app.page("/")  # type: ignore[untyped-decorator]
    @app.page("/health/ready")  # type: ignore[untyped-decorator]
    async def ready(web: Any, request: Any) -> Any:
        reason = health.look()
        shown = None if reason is None else for_strangers(reason)
        return web.text("ready\n" if shown is None else f"not ready: {shown}\n", status=200 if shown is None else 503)

    @app.page("/metrics")  # type: ignore[untyped-decorator]
    async def metrics(web: Any, request: Any) -> Any:
        content_type, _, _ = CONTENT_TYPE_LATEST.partition(";")
        return web.bytes(generate_latest(registry), content_type=content_type)
