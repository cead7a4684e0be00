"""Finds what is denser than protein in a tomogram, such as gold and contamination, from grey values.

Averaged over about 40 Å, protein and noise stay within a few spreads of the median, while a gold bead of 10
nm is tens of spreads away. So values further out than :data:`SPREADS`, and clearly further than the outermost
0.5 % of the tomogram, are not protein, whatever their sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import ClassInfo
from catalogs.threads import pool

Floats = NDArray[np.float64]

#: Edge of the pixels, and standard deviation of the smoothing Gaussian, Å.
PIXEL, SMOOTH = 20.0, 20.0
#: Least distance from the median, in spreads and as a multiple of the distance of the outermost 0.5 %.
SPREADS, TIMES, OUTERMOST = 9.0, 2.5, 0.5
#: Range of a bead's halo, Å.
HALO = 80.0
#: Classes of a corpus that are denser than protein.
DENSE = ("gold", "carbon", "contamination")


@dataclass(frozen=True, eq=False)
class Beads:
    """Pixels that are not protein.

    Attributes
    ----------
    places
        (n, 3) x, y, z of the centres of the pixels, Å.
    pixel
        Edge of the pixels, Å.
    """

    places: Floats
    pixel: float

    def near(self, xyz: Floats, distance: float) -> NDArray[np.bool_]:
        """Return which of (n, 3) positions x, y, z lie within a distance (Å) of a bead."""
        from scipy.spatial import cKDTree

        if not len(self.places) or not len(xyz):
            return np.zeros(len(xyz), bool)
        far = cKDTree(self.places).query(xyz, distance_upper_bound=distance + self.pixel / 2)[0]
        return np.asarray(np.isfinite(far))

    def take_out(self, inside: NDArray[np.bool_], places: list[Floats], halo: float = HALO) -> None:
        """Set a mask to False around the beads, in place; ``places`` are voxel centres along z, y, x in Å."""
        if not len(self.places):
            return
        reach = halo + self.pixel / 2
        starts = [
            [np.searchsorted(at, self.places[:, 2 - axis] + side * reach) for side in (-1, 1)]
            for axis, at in enumerate(places)
        ]
        for k, (x, y, z) in enumerate(self.places):
            box = tuple(slice(int(starts[axis][0][k]), int(starts[axis][1][k])) for axis in range(3))
            dz, dy, dx = ((places[axis][box[axis]] - at) ** 2 for axis, at in enumerate((z, y, x)))
            inside[box] &= dz[:, None, None] + dy[:, None] + dx > reach**2


def find_beads(
    values: NDArray[np.float32],
    voxel_size: float,
    inside: NDArray[np.bool_] | None = None,
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Beads:
    """Find what cannot be protein.

    Parameters
    ----------
    values
        (z, y, x) grey values on any scale, before clipping.
    voxel_size
        Å.
    inside
        (z, y, x) where the spread is measured; None: everywhere.
    offset
        Position (x, y, z) of the centre of voxel 0, Å.

    Returns
    -------
    Beads
        Empty if there are none.
    """
    from scipy.ndimage import gaussian_filter

    b = max(1, min(round(PIXEL / voxel_size), *values.shape))
    nz, ny, nx = (n // b for n in values.shape)
    small = np.empty((nz, ny, nx), np.float32)
    lit = np.ones((nz, ny, nx), bool)

    def average(z: int) -> None:
        block = values[z * b : (z + 1) * b, : ny * b, : nx * b].reshape(b, ny, b, nx, b)
        small[z] = block.mean(axis=(0, 2, 4), dtype=np.float32)
        if inside is not None:
            lit[z] = inside[z * b + b // 2, b // 2 : ny * b : b, b // 2 : nx * b : b]

    with pool() as threads:
        list(threads.map(average, range(nz)))
    none = Beads(np.empty((0, 3)), b * voxel_size)
    if lit.sum() < 1000:
        return none
    small[~np.isfinite(small)] = 0
    small = gaussian_filter(small, SMOOTH / (b * voxel_size), mode="nearest")
    low, first, centre, last, high = np.percentile(small[lit], [16, OUTERMOST, 50, 100 - OUTERMOST, 84])
    spread = (high - low) / 2
    if not spread > 0:
        return none
    dark, bright = (max(SPREADS * spread, TIMES * abs(at - centre)) for at in (first, last))
    where = np.argwhere((small < centre - dark) | (small > centre + bright))
    edge = b * voxel_size
    places = (where[:, ::-1] * edge + (edge - voxel_size) / 2 + np.array(offset)).astype(np.float64)
    return Beads(places, edge)


def labelled_as_dense(
    labels: NDArray[np.uint8],
    classes: Sequence[ClassInfo],
    voxel_size: float,
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Beads:
    """Find what a network labels as gold, carbon or contamination.

    Parameters
    ----------
    labels
        (z, y, x) class of each voxel.
    classes
        Classes of the network.
    voxel_size
        Å.
    offset
        Place (x, y, z) of the centre of voxel 0, Å.

    Returns
    -------
    Beads
        Boxes of 2 x 2 x 2 voxels, at least half of which have such a label.
    """
    wanted = [info.label for info in classes if not info.is_particle and info.name in DENSE]
    edge = 2 * voxel_size
    found = []
    ny, nx = (n // 2 * 2 for n in labels.shape[1:])
    for z in range(0, len(labels) - 1, 2) if wanted else ():
        block = np.isin(labels[z : z + 2, :ny, :nx], wanted)
        if block.any():
            sums = block.reshape(2, ny // 2, 2, nx // 2, 2).sum(axis=(0, 2, 4))
            y, x = np.nonzero(sums >= 4)
            found.append(np.column_stack([x, y, np.full(len(x), z // 2)]))
    boxes = np.concatenate([np.empty((0, 3)), *found])
    return Beads(boxes * edge + voxel_size / 2 + np.array(offset), edge)


def count(beads: Beads) -> int:
    """Count the bodies; touching pixels belong to one body."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(beads.places)
    if not n:
        return 0
    pairs = cKDTree(beads.places).query_pairs(1.01 * math.sqrt(3) * beads.pixel, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return int(connected_components(graph, directed=False)[0])
