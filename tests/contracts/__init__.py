"""Contracts: one suite for each Protocol, which runs against everything that implements it."""
