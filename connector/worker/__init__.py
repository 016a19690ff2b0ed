"""Worker: one process, from its start to its drain."""
