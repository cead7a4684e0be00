"""Applies a network: its geometry, the sweep over a tomogram, segmentation, localisation."""
