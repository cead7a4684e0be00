"""Learns from a corpus: streams patches, trains a segmentation network, writes a model file."""
