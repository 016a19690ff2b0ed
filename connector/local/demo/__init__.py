"""The demo: the connector between a real Kafka and a SageMaker endpoint on this machine, measured."""
