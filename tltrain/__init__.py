"""Learns from a corpus: streams patches, trains a segmentation network, writes a model file."""

from catalogs.machine import prefer_onednn

prefer_onednn()
