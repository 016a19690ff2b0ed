"""Worker: one process, from its start to its drain."""

from connector.telemetry.environment import hidden

with hidden():
    # Whatever of this room is imported first: what Faust reads of the environment, it reads when its parts are imported.
    import faust.app.base
    import faust.web.drivers.aiohttp
    import faust.worker  # noqa: F401
