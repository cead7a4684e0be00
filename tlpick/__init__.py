"""Uses a model: segments tomograms tile by tile, localises particles, scores and reports them."""

from catalogs.machine import prefer_installed_backend, prefer_onednn

prefer_onednn()
prefer_installed_backend()
