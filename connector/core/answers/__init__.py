"""Answers: results and dead letters, from a prediction or a reason to a record."""
