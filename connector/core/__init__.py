"""Core: what decides. No I/O, no clock, no chance: time is an argument, and so is a random number."""
