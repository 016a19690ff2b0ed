"""Chaos: scenarios with faults, signals and broken links, and what must hold after each."""
