"""Calls: what a call is, what its end means, how many there may be, and when none may be made."""
