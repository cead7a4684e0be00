"""The multislice engine."""
