"""Finds peaks: maxima of a class's probability, smoothed over half a radius."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlpick.network.localisation.blocks import Block, Volume8, cut
from tlpick.network.localisation.meanshift import Map, distinct

Floats = NDArray[np.float64]

#: Standard deviation of the smoothing Gaussian as a share of the radius, and its cut-off in deviations.
SIGMA, TRUNCATE = 0.5, 3.0


@dataclass(frozen=True, eq=False)
class _Task:
    labels: Volume8
    score: Volume8
    block: Block
    radii: dict[int, float]


def peaks(
    labels: Volume8, score: Volume8, radii: Mapping[int, float], *, edge: int, run: Map = map
) -> dict[int, Floats]:
    """Find the voxels where the smoothed probability of a class is highest.

    Parameters
    ----------
    labels, score
        (z, y, x) class, and probability in 1/255, of each voxel; only voxels of a class have its
        probability. In memory or read in parts.
    radii
        Label of each class -> its radius, voxels.
    edge
        Edge of a block, voxels; it affects memory and time, but not the result.
    run
        How blocks are worked on, as :func:`map`.

    Returns
    -------
    dict
        Label -> (n, 3) voxels z, y, x, the highest first, at least one radius apart.
    """
    reach = max(halo_of(radius) for radius in radii.values())
    tasks = [_Task(labels, score, block, dict(radii)) for block in cut(labels.shape, edge, reach)]
    found: dict[int, list[Floats]] = {label: [np.empty((0, 4))] for label in radii}
    for of_block in run(_peaks_task, tasks):
        for label, rows in of_block.items():
            found[label].append(rows)
    rows = {label: np.concatenate(of_class) for label, of_class in found.items()}
    return {label: distinct(rows[label][:, 1:], rows[label][:, 0], radius) for label, radius in radii.items()}


def halo_of(radius: float) -> int:
    """Return the voxels around a block that its peaks depend on."""
    return math.ceil(TRUNCATE * SIGMA * radius + 0.5) + _window(radius)


def _window(radius: float) -> int:
    return max(int(radius / 2), 1)


def _peaks_task(task: _Task) -> dict[int, Floats]:
    """Return (height, z, y, x) of the local maxima in the block's core, by label."""
    from scipy.ndimage import gaussian_filter, maximum_filter

    labels = task.block.read(task.labels)
    found: dict[int, Floats] = {}
    if not labels.any():
        return found
    score = task.block.read(task.score)
    present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
    for label, radius in task.radii.items():
        if label not in present:
            continue
        of_class = np.where(labels == label, score, 0).astype(np.float32)
        smooth = gaussian_filter(of_class, SIGMA * radius, mode="constant", truncate=TRUNCATE)
        highest = maximum_filter(smooth, 2 * _window(radius) + 1, mode="constant")
        core = task.block.core_in_box
        # a peak must be at a voxel of its class, not in the tail of the filter
        top = (smooth[core] == highest[core]) & (smooth[core] > 1.0)
        places = np.argwhere(top)
        heights = smooth[core][tuple(places.T)].astype(np.float64)
        first = np.array([part.start for part in task.block.core])
        found[label] = np.column_stack([heights, places + first])
    return found
