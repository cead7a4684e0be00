"""Tomograms of users: which are meant, and their preprocessing for a model, to train on or to pick."""
