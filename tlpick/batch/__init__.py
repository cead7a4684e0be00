"""Many tomograms over a cluster, and what is left in the folder of a run."""
