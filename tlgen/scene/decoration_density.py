"""Decorations as matter: a lattice of small cells for integrals, or atoms for an engine that wants them.

Everything is cut at the faces of the box, as molecules are, but for what stands on them (``free``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.seeds import generator
from tlgen.scene.decoration_shapes import Decoration, surface_distance
from tlgen.scene.materials import Material

Box = tuple[float, float, float]

#: Å; edge of the cells that volumes and numbers of atoms are estimated with.
_COARSE = 8.0
_AT_A_TIME = 500_000
_BLOCK = 8  # cells along each edge
# Of the four atoms in the cube of a face-centred cubic crystal, in edges of the cube.
_FCC = np.array([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])


class Density(NamedTuple):
    """What is integrated over a body.

    Attributes
    ----------
    of
        Of a material, in 1 Å³.
    grown
        Å by which the body is larger all around; the outermost material fills it.
    """

    of: Callable[[Material], float]
    grown: float = 0.0


def integrate(
    decoration: Decoration, box: Box, spacing: float, densities: Sequence[Density]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Share densities out to points on a lattice.

    A cell that the surface of a layer cuts counts by the part of it that lies below, to first order in
    its size.

    Parameters
    ----------
    decoration
        The body.
    box
        Lengths of the box along x, y, z in Å.
    spacing
        Å between points, at most; the box is a whole number of cells.
    densities
        What is to be integrated, in one pass over the body.

    Yields
    ------
    points : ndarray, float32
        (n, 3) x, y, z in Å from the centre of the box.
    amounts : ndarray, float32
        (n, densities) what is in the cell around each point.
    """
    cells = np.ceil(np.array(box) / spacing - 1e-9).astype(np.int64)
    edges = np.array(box) / cells
    volume, edge = float(edges.prod()), float(edges.prod()) ** (1 / 3)
    starts = np.array([[start for start, _ in decoration.layers]] * len(densities))
    starts[:, 0] -= [density.grown for density in densities]
    values = [[0.0, *(density.of(material) for _, material in decoration.layers)] for density in densities]
    steps = np.diff(values, axis=1) * volume
    first, end = _cells_around(decoration, box, edges, np.zeros(3), float(-starts.min()) + edge)
    if (end <= first).any():
        return
    blocks = -(-(end - first) // _BLOCK)
    room = _AT_A_TIME + _BLOCK**3
    at, number = 0, int(blocks.prod())
    points, amounts = np.empty((room, 3), np.float32), np.empty((room, len(densities)), np.float32)
    while at < number:
        at, found = _integrate(
            *decoration.form, -np.array(box) / 2, edges, first, end, blocks, starts, steps, edge,
            at, points, amounts,
        )  # fmt: skip
        if found:
            yield points[:found].copy(), amounts[:found].copy()


@numba.njit(cache=True, nogil=True)
def _integrate(
    kind: int,
    numbers: NDArray[np.float64],
    corner: NDArray[np.float64],
    edges: NDArray[np.float64],
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    blocks: NDArray[np.int64],
    starts: NDArray[np.float64],
    steps: NDArray[np.float64],
    edge: float,
    at: int,
    points: NDArray[np.float32],
    amounts: NDArray[np.float32],
) -> tuple[int, int]:
    """Fill points and amounts from block ``at`` on until they are full: next block, and how many."""
    found = 0
    least = starts.min() - edge / 2  # depth at which anything begins
    half = np.sqrt((edges**2).sum()) * _BLOCK / 2
    number = blocks[0] * blocks[1] * blocks[2]
    n, layers = starts.shape
    while at < number and found + _BLOCK**3 <= len(points):
        i = first[0] + at // (blocks[1] * blocks[2]) * _BLOCK
        j = first[1] + at // blocks[2] % blocks[1] * _BLOCK
        k = first[2] + at % blocks[2] * _BLOCK
        at += 1
        # a sheet fills little of the box: look at blocks of cells first
        far = surface_distance(
            kind,
            numbers,
            corner[0] + (i + _BLOCK / 2) * edges[0],
            corner[1] + (j + _BLOCK / 2) * edges[1],
            corner[2] + (k + _BLOCK / 2) * edges[2],
        )
        if far > half - least:
            continue
        for a in range(i, min(i + _BLOCK, end[0])):
            x = corner[0] + (a + 0.5) * edges[0]
            for b in range(j, min(j + _BLOCK, end[1])):
                y = corner[1] + (b + 0.5) * edges[1]
                for c in range(k, min(k + _BLOCK, end[2])):
                    z = corner[2] + (c + 0.5) * edges[2]
                    depth = -surface_distance(kind, numbers, x, y, z)
                    if depth <= least:
                        continue
                    points[found, 0], points[found, 1], points[found, 2] = x, y, z
                    for m in range(n):
                        amount = 0.0
                        for layer in range(layers):
                            share = min(max(0.5 + (depth - starts[m, layer]) / edge, 0.0), 1.0)
                            amount += steps[m, layer] * share
                        amounts[found, m] = amount
                    found += 1
    return at, found


def total(
    decoration: Decoration, box: Box, of: Callable[[Material], float], spacing: float = _COARSE
) -> float:
    """Integrate a density over the body; see :func:`integrate`."""
    portions = integrate(decoration, box, spacing, [Density(of)])
    return sum(float(amounts.sum(dtype=np.float64)) for _, amounts in portions)


def count_atoms(decorations: Sequence[Decoration], box: Box) -> int:
    """Estimate how many atoms :func:`atoms` gives for all of them, to a few percent."""
    return round(sum(total(decoration, box, lambda material: material.atoms) for decoration in decorations))


def atoms(decoration: Decoration, box: Box) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Fill the body with atoms; the same ones every time.

    An amorphous material has one atom at a random place in each cell of a lattice of the volume that an
    atom takes, which keeps the density even, as it is in glass; the elements are drawn by their shares. A
    crystal is turned and shifted at random.

    Yields
    ------
    elements : ndarray, uint8
        (n,) atomic numbers.
    positions : ndarray, float32
        (n, 3) x, y, z in Å from the centre of the box.
    """
    layers = decoration.layers
    for k, (start, material) in enumerate(layers):
        end = layers[k + 1][0] if k + 1 < len(layers) else np.inf
        rng = generator("filling", decoration.seed, k)
        candidates = _crystal if material.lattice else _amorphous
        for xyz in candidates(decoration, box, material, rng):
            depth = -decoration.distance(xyz)
            mine = (depth >= start) & (depth < end)
            if not _free(decoration):
                mine &= (np.abs(xyz) <= np.array(box) / 2).all(axis=1)
            if mine.any():
                drawn = rng.choice(material.elements, size=int(mine.sum()), p=material.shares)
                yield drawn, xyz[mine].astype(np.float32)


def _amorphous(
    decoration: Decoration, box: Box, material: Material, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield a random point in each cell that reaches into the body."""
    edge = material.atoms ** (-1 / 3)
    shift = rng.uniform(-0.5, 0.5, 3) * edge
    for centres in _lattice(decoration, box, np.full(3, edge), shift, float(np.sqrt(3)) * edge / 2):
        yield centres + rng.uniform(-0.5, 0.5, centres.shape) * edge


def _crystal(
    decoration: Decoration, box: Box, material: Material, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield the points of a turned and shifted face-centred cubic lattice around the body."""
    turn = Rotation.from_quat(rng.normal(size=4))
    low, high = _limits(decoration, box, 0.0)
    middle, reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    n = int(np.ceil(reach / material.lattice)) + 1
    cells, line = np.arange(-n, n + 1), np.arange(1)
    shift = rng.uniform(0, 1, 3)
    for x in cells:
        cubes = _indices([line + x, cells, cells])
        points = (cubes[:, None] + _FCC + shift).reshape(-1, 3) * material.lattice
        points = points[np.linalg.norm(points, axis=1) <= reach]
        yield turn.apply(points) + middle if len(points) else points


def _lattice(
    decoration: Decoration, box: Box, edges: NDArray[np.float64], shift: NDArray[np.float64], reach: float
) -> Iterator[NDArray[np.float64]]:
    """Yield the centres of the cells over the box that lie within ``reach`` of the body, in portions.

    Without a shift, cells begin at the box's lowest corner, and only whole cells of the box are given.
    """
    first, end = _cells_around(decoration, box, edges, shift, reach)
    corner = shift - np.array(box) / 2
    if (end <= first).any():
        return
    # a sheet fills little of the box: look at blocks of cells first
    blocks = _indices(np.arange(first[a], end[a], _BLOCK) for a in range(3))
    within = _indices([np.arange(_BLOCK)] * 3)
    far = reach + float(np.linalg.norm(edges)) * _BLOCK / 2
    blocks = blocks[decoration.distance(corner + (blocks + _BLOCK / 2) * edges) <= far]
    at_a_time = max(1, _AT_A_TIME // len(within))
    for k in range(0, len(blocks), at_a_time):
        cells = (blocks[k : k + at_a_time, None] + within).reshape(-1, 3)
        points = corner + (cells[(cells < end).all(axis=1)] + 0.5) * edges
        near = decoration.distance(points) <= reach
        if near.any():
            yield points[near]


def _cells_around(
    decoration: Decoration, box: Box, edges: NDArray[np.float64], shift: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and end of the cells along each axis that lie within ``reach`` of the body's bounds."""
    low, high = _limits(decoration, box, reach)
    corner = shift - np.array(box) / 2
    first = np.floor((low - corner) / edges).astype(np.int64)
    end = np.ceil((high - corner) / edges).astype(np.int64)
    if not shift.any() and not _free(decoration):
        first, end = np.maximum(first, 0), np.minimum(end, np.rint(np.array(box) / edges).astype(np.int64))
    return first, end


def _indices(axes: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All combinations of three axes' numbers, (n, 3)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _free(decoration: Decoration) -> bool:
    return bool(getattr(decoration, "free", False))


def _limits(decoration: Decoration, box: Box, more: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest x, y, z of the part of a body in the box, and so much around it."""
    half = np.array(box) / 2
    low, high = decoration.bounds()
    if _free(decoration):
        return np.array(low) - more, np.array(high) + more
    return np.maximum(np.array(low), -half) - more, np.minimum(np.array(high), half) + more
