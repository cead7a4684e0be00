"""Runs: what is made, in which order, what it costs, and what is recorded."""
