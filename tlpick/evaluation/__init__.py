"""Picks compared with the truth, and what their scores mean."""
