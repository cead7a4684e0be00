"""Corpora: samples, their records, the index, and operations on the whole corpus."""
