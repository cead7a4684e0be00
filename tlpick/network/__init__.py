"""A network at work: its geometry, the sweep over a tomogram, segmentation, localisation."""
