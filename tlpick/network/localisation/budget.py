"""Finds the size of blocks with which localising stays within its memory.

The bytes per voxel are the largest that were measured, in noise, whose clusters have the most pieces
(``tests/tlpick/network/test_localisation_memory.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tlpick.network.localisation.blocks import cut
from tlpick.network.localisation.localise import BLOCK
from tlpick.network.localisation.meanshift import halo_of as halo_of_meanshift
from tlpick.network.localisation.peaks import halo_of as halo_of_peaks

#: Edges that are tried, in voxels, the longest first; smaller blocks consist of halo for the most part.
EDGES = (BLOCK, 128, 96, 64, 48, 32, 24)
# Bytes per voxel of a block with its halo.
_MEANSHIFT, _OF_CLASS = 3.0, 0.5
_PEAKS = 18.0
_GATHER, _CONNECTED = 4.0, 40.0


def blocks_within(
    memory: float, shape: Sequence[int], radii: Mapping[int, float], method: str, threads: int
) -> tuple[int, int]:
    """Choose the edge of blocks and how many are worked on at a time; neither changes the particles.

    Parameters
    ----------
    memory
        Bytes that localising may take beside its volumes.
    shape
        Voxels of the volume, z, y, x.
    radii
        Label of each class -> its radius, voxels.
    method
        As in :class:`~tlpick.network.localisation.localise.Options`.
    threads
        Most blocks at a time.

    Returns
    -------
    int, int
        The edge in voxels, and the number of blocks at a time: at least the smallest edge, and 1.
    """
    if not radii:
        return BLOCK, threads
    widest = max(radii.values())
    meanshift = (halo_of_meanshift(widest), _MEANSHIFT + _OF_CLASS * len(radii))
    steps = {
        "meanshift": [meanshift, (0, _GATHER)],
        "components": [meanshift, (0, _CONNECTED)],
    }.get(method, [(halo_of_peaks(widest), _PEAKS), (0, _GATHER)])
    for edge in EDGES:
        one = max(_largest(shape, edge, halo) * each for halo, each in steps)
        at_a_time = min(threads, len(cut(shape, edge, 0)))
        if one * at_a_time <= memory:
            return edge, threads
    return EDGES[-1], max(1, min(threads, int(memory // one)))


def _largest(shape: Sequence[int], edge: int, halo: int) -> int:
    """Return the voxels of the largest block with its halo."""
    return math.prod(min(n, min(n, edge) + 2 * halo) for n in shape)
