"""From a segmentation to particles: clusters of the voxels of each class, for picking and for validation."""
