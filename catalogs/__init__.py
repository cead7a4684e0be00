"""Data at rest: what a corpus, a volume, a particle list and a model file are on disk."""
