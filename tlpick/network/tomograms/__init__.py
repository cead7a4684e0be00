"""Tomograms of users: which are meant, and how one is brought to what a model knows, to train or to pick."""
