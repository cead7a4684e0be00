"""Finds particles in a segmentation: clusters of voxels of each class, for picking and validation."""
