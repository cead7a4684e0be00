"""Molecules: read from files, made flexible, and looked up by digest."""
