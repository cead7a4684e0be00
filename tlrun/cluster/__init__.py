"""Dask clusters: read from one word or one file, checked, started and connected to."""
