"""Compares picks with the truth, and calibrates scores."""
