"""A run as people see it: the live display, the time left, a journal in JSON lines."""
