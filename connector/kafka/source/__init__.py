"""Source: where events come from."""
