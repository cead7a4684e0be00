"""Learns from a corpus: streams patches, trains a segmentation network, writes a model file."""

from catalogs.machine import prefer_installed_backend, prefer_onednn

prefer_onednn()
prefer_installed_backend()
