"""Endpoint: what talks to SageMaker."""
