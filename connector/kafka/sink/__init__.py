"""Sink: where results and dead letters go."""
