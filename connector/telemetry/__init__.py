"""Telemetry: what a person sees: metrics, problems, log lines."""

from connector.telemetry.environment import hidden

with hidden():
    # PROMETHEUS_MULTIPROC_DIR, which images of web servers set, would have every counter kept in a file of that folder.
    import prometheus_client  # noqa: F401
