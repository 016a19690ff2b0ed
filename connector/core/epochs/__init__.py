"""Epochs: what was delivered, what is complete, where to begin, and whether we are the owner."""
