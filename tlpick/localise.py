"""From a segmentation to particles: flat-kernel mean shift over the voxels of each class.

The clusters are those of ``sklearn.cluster.MeanShift(bandwidth, bin_seeding=True)`` on the same voxels,
which is what DeepFinder and the Template Learning paper cluster with (Comaniciu & Meer, IEEE TPAMI 24,
603, 2002). Here the points are voxels of a grid, so what lies in a ball is a handful of runs along x:
prefix sums over the sorted voxels give the mean of a ball without visiting its points one by one, and
the sums of whole numbers are exact, so no rounding separates the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from catalogs.schema import ClassInfo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A seed stops when its mean moves less than this share of the bandwidth, as in scikit-learn.
TOLERANCE = 1e-3
#: Or after so many moves.
MAX_MOVES = 300


@dataclass(frozen=True)
class Picks:
    """The particles of one class in one tomogram, the largest clusters first.

    Attributes
    ----------
    label
        The class's value in the segmentation.
    centres
        (n, 3) positions x, y, z in Å: the mean of each cluster's voxels.
    voxels
        (n,) size of each cluster in voxels.
    scores
        (n,) mean target probability over the cluster's voxels, 0 to 1.
    """

    label: int
    centres: Floats
    voxels: Ints
    scores: Floats


def localise(
    labels: NDArray[np.uint8],
    score: NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    voxel_size: float,
    min_size: float,
) -> list[Picks]:
    """Find the particles of every class.

    Parameters
    ----------
    labels
        (z, y, x) class of each voxel, 0 for background.
    score
        (z, y, x) target probability in 1/255.
    classes
        The classes to look for; the bandwidth of each is its radius.
    voxel_size
        Of the grid, Å.
    min_size
        Clusters with fewer voxels than this share of a particle's volume are dropped.

    Returns
    -------
    list of Picks
        One for each class, in the order of ``classes``.
    """
    return [_of_class(labels, score, info, voxel_size, min_size) for info in classes]


def _of_class(
    labels: NDArray[np.uint8], score: NDArray[np.uint8], info: ClassInfo, voxel_size: float, min_size: float
) -> Picks:
    voxels = np.argwhere(labels == info.label)
    if not len(voxels):
        return Picks(info.label, np.empty((0, 3)), np.empty(0, np.int64), np.empty(0))
    radius = info.radius / voxel_size
    centres = mean_shift(voxels, radius)
    member = cKDTree(centres).query(voxels)[1]
    size = np.bincount(member, minlength=len(centres))
    total = np.bincount(member, weights=score[tuple(voxels.T)], minlength=len(centres))
    keep = size >= max(1.0, min_size * 4 / 3 * math.pi * radius**3)
    # A flat kernel stops anywhere inside a body larger than itself, so a pick stands at its voxels' mean.
    sums = np.stack([np.bincount(member, weights=axis, minlength=len(centres)) for axis in voxels.T], axis=1)
    places = sums[keep] / size[keep, np.newaxis]
    return Picks(
        label=info.label,
        centres=places[:, ::-1] * voxel_size,
        voxels=size[keep].astype(np.int64),
        scores=total[keep] / size[keep] / 255,
    )


def mean_shift(points: Ints, bandwidth: float) -> Floats:
    """Cluster voxels by a mean shift with a flat kernel.

    Parameters
    ----------
    points
        (n, 3) voxel indices, without duplicates and sorted as by :func:`numpy.argwhere`.
    bandwidth
        Radius of the kernel, voxels.

    Returns
    -------
    ndarray
        (m, 3) cluster centres in voxels, those with most voxels in reach first. No two are closer than
        the bandwidth.
    """
    points = np.asarray(points, np.int64)
    low = points.min(axis=0)
    height, width = (int(n) for n in np.ptp(points[:, :2], axis=0) + 1)
    row = (points[:, 0] - low[0]) * width + points[:, 1] - low[1]
    first = np.searchsorted(row, np.arange(height * width + 1))
    x = points[:, 2].copy()
    sum_x = np.append(0, x.cumsum())
    means, counts = _climb(_seeds(points, bandwidth), bandwidth, low, height, width, first, x, sum_x)
    return _drop_near_duplicates(means[counts > 0], counts[counts > 0], bandwidth)


def _seeds(points: Ints, bandwidth: float) -> Floats:
    """Give the nodes of a grid, one bandwidth apart, that have a point near; float32 as scikit-learn's."""
    bins = np.round(points / bandwidth).astype(np.int64)
    low = bins.min(axis=0)
    extent = tuple(int(n) for n in np.ptp(bins, axis=0) + 1)
    flat = np.unique(np.ravel_multi_index(tuple((bins - low).T), extent))
    if len(flat) == len(points):  # as scikit-learn: with no two points in a bin, the points themselves
        return points.astype(np.float64)
    nodes = np.stack(np.unravel_index(flat, extent), axis=1) + low
    return (nodes.astype(np.float32) * np.float32(bandwidth)).astype(np.float64)


def _drop_near_duplicates(means: Floats, counts: Ints, bandwidth: float) -> Floats:
    """Keep a mean if no fuller one lies within a bandwidth; ties go to the larger (z, y, x)."""
    order = np.lexsort((means[:, 2], means[:, 1], means[:, 0], counts))[::-1]
    means = means[order]
    keep = np.ones(len(means), bool)
    near = cKDTree(means).query_ball_point(means, bandwidth)
    for i, others in enumerate(near):
        if keep[i]:
            keep[others] = False
            keep[i] = True
    return means[keep]


@numba.njit(cache=True, nogil=True)
def _climb(
    seeds: Floats, bandwidth: float, low: Ints, height: int, width: int, first: Ints, x: Ints, sum_x: Ints
) -> tuple[Floats, Ints]:
    """Move every seed to the mean of the voxels within ``bandwidth``, again and again until it rests.

    The voxels lie in rows of constant (z, y): row ``(z - low_z) * width + y - low_y`` holds those from
    ``first[row]`` to ``first[row + 1]``, with positions ``x`` along it; ``sum_x`` are the prefix sums
    of ``x``. Returns the mean of each seed and the number of voxels in its reach.
    """
    means = np.empty_like(seeds)
    counts = np.zeros(len(seeds), np.int64)
    for i in range(len(seeds)):
        z, y, c = seeds[i]
        n = 0
        for move in range(MAX_MOVES + 1):
            n, total_z, total_y, total_x = 0, 0, 0, 0
            z_begin = max(math.ceil(z - bandwidth), low[0])
            z_end = min(math.floor(z + bandwidth) + 1, low[0] + height)
            for iz in range(z_begin, z_end):
                square_z = bandwidth**2 - (iz - z) ** 2
                reach_y = math.sqrt(max(square_z, 0.0))
                y_begin = max(math.ceil(y - reach_y), low[1])
                y_end = min(math.floor(y + reach_y) + 1, low[1] + width)
                for iy in range(y_begin, y_end):
                    reach = math.sqrt(max(square_z - (iy - y) ** 2, 0.0))
                    row = (iz - low[0]) * width + iy - low[1]
                    run = x[first[row] : first[row + 1]]
                    begin = first[row] + np.searchsorted(run, math.ceil(c - reach))
                    end = first[row] + np.searchsorted(run, math.floor(c + reach), side="right")
                    n += end - begin
                    total_z += (end - begin) * iz
                    total_y += (end - begin) * iy
                    total_x += sum_x[end] - sum_x[begin]
            if n == 0:
                break
            before_z, before_y, before_c = z, y, c
            z, y, c = total_z / n, total_y / n, total_x / n
            moved = math.sqrt((z - before_z) ** 2 + (y - before_y) ** 2 + (c - before_c) ** 2)
            if moved <= TOLERANCE * bandwidth or move == MAX_MOVES:
                break
        means[i] = z, y, c
        counts[i] = n
    return means, counts
