"""Tilt series: angles, doses, their order, a user's own files, and errors of the alignment."""
