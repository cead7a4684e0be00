"""Picks many tomograms, also on a cluster, and writes the folder of a run."""
