"""Runs: what is made, in which order, at which cost, and what is kept about it."""
