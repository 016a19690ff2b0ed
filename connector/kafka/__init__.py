"""Kafka: what talks to the brokers."""
