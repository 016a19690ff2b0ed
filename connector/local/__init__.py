"""A laptop's own Kafka and endpoint, and the demo between them."""
