"""Routes: an event gets its payload, its route and its id, or the reason why it can have none."""
