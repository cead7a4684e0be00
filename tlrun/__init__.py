"""Runs many independent, resumable items over a Dask cluster."""
