"""Reports of a run: the live display, the time left, a journal in JSON lines."""
