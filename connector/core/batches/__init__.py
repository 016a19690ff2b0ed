"""Batches: which events share a call, in which order, and how a refused batch is taken apart."""
