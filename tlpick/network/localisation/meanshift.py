"""Flat-kernel mean shift over the voxels of one class, in time linear in the foreground.

The clusters are those of ``sklearn.cluster.MeanShift(bandwidth, bin_seeding=True)`` on the same voxels, which
is what DeepFinder and the Template Learning paper cluster with (Comaniciu & Meer, IEEE TPAMI 24, 603, 2002).
Here the points are voxels of a grid, so a ball is a few hundred runs along x. Prefix sums give the number of
voxels in a run and the sum of their positions with four look-ups. Sums of integers are exact, so the order of
summation and the division into blocks do not change a mean.

The path of a seed depends only on its position and number of moves. So when the ball of a seed would leave
its block, the seed is passed to the block where it is and continues there in the same way (:func:`modes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tlpick.network.localisation.blocks import Block, Volume8, cut, owners
from tlpick.network.localisation.rows import Rows, between, pack

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A seed stops when its mean moves less than this share of the bandwidth, as in scikit-learn.
TOLERANCE = 1e-3
#: Or after this many moves.
MAX_MOVES = 300

#: Applies a function to every item, in any order or process, and yields the results in order.
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Seeds:
    """Moving seeds of one class.

    Attributes
    ----------
    label
        Label of the class.
    places
        (n, 3) positions, voxels z, y, x of the whole volume.
    moves
        (n,) number of moves.
    """

    label: int
    places: Floats
    moves: Ints


@dataclass(frozen=True, eq=False)
class Climbed:
    """The seeds of one block: those at rest, and those that left it.

    Attributes
    ----------
    label
        Label of the class.
    means
        (n, 3) final positions.
    counts
        (n,) voxels within a bandwidth of them.
    left
        Seeds that continue in another block.
    """

    label: int
    means: Floats
    counts: Ints
    left: Seeds


@dataclass(frozen=True, eq=False)
class _Task:
    """A block and its seeds; None stands for the block's own first seeds."""

    labels: Volume8
    block: Block
    bandwidths: dict[int, float]
    seeds: list[Seeds] | None


def mean_shift(points: Ints, bandwidth: float) -> Floats:
    """Cluster voxels by a mean shift with a flat kernel.

    Parameters
    ----------
    points
        (n, 3) voxel indices, without duplicates.
    bandwidth
        Radius of the kernel, voxels.

    Returns
    -------
    ndarray
        (m, 3) cluster centres in voxels, those with most voxels in reach first. Centres are at least one
        bandwidth apart.
    """
    points = np.asarray(points, np.int64)
    low = points.min(axis=0)
    shape = tuple(int(n) for n in np.ptp(points, axis=0) + 1)
    labels = np.zeros(shape, np.uint8)
    labels[tuple((points - low).T)] = 1
    rows, _ = pack(labels, [1])
    if len(np.unique(np.round(points / bandwidth), axis=0)) == len(points):
        # as in scikit-learn: if no bin has two points, the points themselves are the seeds
        seeds = points.astype(np.float64)
    else:
        seeds = _nodes(rows.bits[0], shape[2], low, bandwidth)
    start = Seeds(1, seeds, np.zeros(len(seeds), np.int64))
    everywhere = np.full(3, -np.inf), np.full(3, np.inf)
    found = _climb_from(start, rows, 0, everywhere, low, bandwidth)
    return distinct(found.means, found.counts, bandwidth)


def modes(labels: Volume8, bandwidths: dict[int, float], *, edge: int, run: Map = map) -> dict[int, Floats]:
    """Find the cluster centres of several classes in a label volume, block by block.

    Parameters
    ----------
    labels
        (z, y, x) class of each voxel: an array in memory or one that is read piece by piece (Zarr).
    bandwidths
        Label of each class -> radius of its kernel, voxels.
    edge
        Edge of a block without its halo, voxels. It affects memory and time, but not the result.
    run
        Function that maps over blocks: ``map``, or that of a pool.

    Returns
    -------
    dict
        Label -> (m, 3) centres in voxels (z, y, x), those with most voxels in reach first; identical to
        those of a single block.
    """
    blocks = cut(labels.shape, edge, halo_of(max(bandwidths.values())))
    means: dict[int, list[Floats]] = {label: [np.empty((0, 3))] for label in bandwidths}
    counts: dict[int, list[Ints]] = {label: [np.empty(0, np.int64)] for label in bandwidths}
    tasks = [_Task(labels, block, bandwidths, None) for block in blocks]
    while tasks:
        left: list[list[Seeds]] = [[] for _ in blocks]
        for climbed in run(_climb_task, tasks):
            for found in climbed:
                means[found.label].append(found.means)
                counts[found.label].append(found.counts)
                for k, seeds in _by_owner(found.left, blocks):
                    left[k].append(seeds)
        tasks = [
            _Task(labels, block, bandwidths, seeds)
            for block, seeds in zip(blocks, left, strict=True)
            if seeds
        ]
    return {
        label: distinct(np.concatenate(means[label]), np.concatenate(counts[label]), bandwidth)
        for label, bandwidth in bandwidths.items()
    }


def halo_of(bandwidth: float) -> int:
    """Return the voxels around a block that the seeds in it may reach at first."""
    return math.ceil(1.5 * bandwidth) + 1


def _climb_task(task: _Task) -> list[Climbed]:
    box = task.block.read(task.labels)
    rows, packed = pack(box, list(task.bandwidths))
    if task.seeds is None:
        seeds = []
        for k, label in enumerate(packed):
            nodes = _nodes(rows.bits[k], box.shape[2], task.block.low, task.bandwidths[label])
            nodes = nodes[task.block.owns(nodes)]
            seeds.append(Seeds(label, nodes, np.zeros(len(nodes), np.int64)))
    else:
        seeds = task.seeds
    limits = task.block.reach()
    return [
        _climb_from(each, rows, packed.index(each.label), limits, task.block.low, task.bandwidths[each.label])
        for each in seeds
        if each.label in packed
    ]


def _by_owner(seeds: Seeds, blocks: Sequence[Block]) -> Iterable[tuple[int, Seeds]]:
    owner = owners(seeds.places, blocks)
    for k in np.unique(owner):
        these = owner == k
        yield int(k), Seeds(seeds.label, seeds.places[these], seeds.moves[these])


def _nodes(bits: NDArray[np.uint64], width: int, low: Ints, bandwidth: float) -> Floats:
    """Return the nodes of a grid, one bandwidth apart, near a voxel; float32 as in scikit-learn."""
    bins = [
        np.round(np.arange(a, a + n) / bandwidth).astype(np.int64)
        for a, n in zip(low, (*bits.shape[:2], width), strict=True)
    ]
    first = np.array([b[0] for b in bins])
    near = np.zeros([int(b[-1] - b[0]) + 1 for b in bins], np.bool_)
    z, y, x = (b - b[0] for b in bins)
    _mark(bits, z, y, x, near)
    nodes = np.argwhere(near) + first
    return (nodes.astype(np.float32) * np.float32(bandwidth)).astype(np.float64)


def _climb_from(
    seeds: Seeds, rows: Rows, k: int, limits: tuple[Floats, Floats], low: Ints, bandwidth: float
) -> Climbed:
    means, counts, moves, left = _climb(
        seeds.places, seeds.moves, bandwidth, low, rows.bits[k], rows.before[k], rows.sums[k], *limits
    )
    rest = ~left & (counts > 0)
    return Climbed(seeds.label, means[rest], counts[rest], Seeds(seeds.label, means[left], moves[left]))


def distinct(places: Floats, weights: NDArray[Any], radius: float) -> Floats:
    """Keep positions without a heavier one within a radius; ties go to the larger (z, y, x).

    Parameters
    ----------
    places
        (n, 3) voxels z, y, x.
    weights
        (n,) weight of each.
    radius
        Voxels.

    Returns
    -------
    ndarray
        (m, 3) the kept positions, the heaviest first.
    """
    if not len(places):
        return places
    both = np.unique(np.column_stack([weights.astype(np.float64), places]), axis=0)[::-1]
    places = np.ascontiguousarray(both[:, 1:])
    keep = np.ones(len(places), bool)
    for i, others in enumerate(cKDTree(places).query_ball_point(places, radius)):
        if keep[i]:
            keep[others] = False
            keep[i] = True
    return places[keep]


@numba.njit(cache=True, nogil=True)
def _mark(bits: NDArray[np.uint64], bin_z: Ints, bin_y: Ints, bin_x: Ints, near: NDArray[np.bool_]) -> None:
    nz, ny, words = bits.shape
    for z in range(nz):
        for y in range(ny):
            for w in range(words):
                word = bits[z, y, w]
                x = w << 6
                while word != 0:
                    if word & np.uint64(1):
                        near[bin_z[z], bin_y[y], bin_x[x]] = True
                    word >>= np.uint64(1)
                    x += 1


@numba.njit(cache=True, nogil=True)
def _climb(
    seeds: Floats,
    moves_before: Ints,
    bandwidth: float,
    low: Ints,
    bits: NDArray[np.uint64],
    before: NDArray[np.int32],
    sums: NDArray[np.int64],
    least: Floats,
    most: Floats,
) -> tuple[Floats, Ints, Ints, NDArray[np.bool_]]:
    """Move every seed to the mean of the voxels within ``bandwidth``, repeatedly until it rests.

    ``low`` is the place of the first voxel of the rows in the whole volume. Between ``least`` and
    ``most`` the block knows all voxels; a seed whose ball reaches further is left as it is.
    Returns the places, the voxels in their reach, the moves so far, and which seeds were left.
    """
    nz, ny = bits.shape[0], bits.shape[1]
    nx = 64 * (bits.shape[2] - 1)
    means = np.empty_like(seeds)
    counts = np.zeros(len(seeds), np.int64)
    moves = moves_before.copy()
    left = np.zeros(len(seeds), np.bool_)
    for i in range(len(seeds)):
        z, y, c = seeds[i]
        n = 0
        while True:
            if (
                z - bandwidth < least[0]
                or z + bandwidth > most[0]
                or y - bandwidth < least[1]
                or y + bandwidth > most[1]
                or c - bandwidth < least[2]
                or c + bandwidth > most[2]
            ):
                left[i] = True
                break
            n, total_z, total_y, total_x = 0, 0, 0, 0
            z_begin = max(math.ceil(z - bandwidth) - low[0], 0)
            z_end = min(math.floor(z + bandwidth) + 1 - low[0], nz)
            for iz in range(z_begin, z_end):
                square_z = bandwidth**2 - (iz + low[0] - z) ** 2
                reach_y = math.sqrt(max(square_z, 0.0))
                y_begin = max(math.ceil(y - reach_y) - low[1], 0)
                y_end = min(math.floor(y + reach_y) + 1 - low[1], ny)
                of_plane = 0
                for iy in range(y_begin, y_end):
                    reach = math.sqrt(max(square_z - (iy + low[1] - y) ** 2, 0.0))
                    begin = min(max(math.ceil(c - reach) - low[2], 0), nx)
                    end = max(min(math.floor(c + reach) + 1 - low[2], nx), begin)
                    here, sum_x = between(bits[iz, iy], before[iz, iy], sums[iz, iy], begin, end)
                    of_plane += here
                    total_y += here * iy
                    total_x += sum_x
                n += of_plane
                total_z += of_plane * iz
            if n == 0:
                break
            before_z, before_y, before_c = z, y, c
            z = (total_z + n * low[0]) / n
            y = (total_y + n * low[1]) / n
            c = (total_x + n * low[2]) / n
            moved = math.sqrt((z - before_z) ** 2 + (y - before_y) ** 2 + (c - before_c) ** 2)
            if moved <= TOLERANCE * bandwidth or moves[i] == MAX_MOVES:
                break
            moves[i] += 1
        means[i] = z, y, c
        counts[i] = n
    return means, counts, moves, left
