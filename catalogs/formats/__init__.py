"""Readers and writers of particle lists, one module a format."""
