"""Kafka events in micro-batches through Amazon SageMaker endpoints, with the event key as InferenceId."""

__version__ = "0.1.0"
FILE_VARIABLE = "CONNECTOR_CONFIG_FILE"
"""The variable of the environment that names the settings file."""
