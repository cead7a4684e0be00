"""The report of a run, pictures, and lists for other programs."""
