"""A corpus: samples, their records, the index, and what is done with the whole of it."""
