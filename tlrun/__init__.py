"""Work in motion: one fan-out over Dask for many independent, resumable items."""
