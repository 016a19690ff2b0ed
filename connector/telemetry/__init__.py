"""Telemetry: what a person sees: metrics, problems, log lines."""
