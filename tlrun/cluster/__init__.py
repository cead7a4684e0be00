"""Dask clusters: described in one word or one file, started, checked and connected to."""
