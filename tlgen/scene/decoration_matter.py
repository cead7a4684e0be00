"""Decorations as matter: a lattice of small cells for integrals, or atoms for an engine that wants them.

Everything is cut at the faces of the box, as molecules are, but for what stands on them (``free``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.seeds import generator
from tlgen.scene.decorations import Decoration
from tlgen.scene.materials import Material

Box = tuple[float, float, float]

#: Å; edge of the cells that volumes and numbers of atoms are estimated with.
_COARSE = 8.0
_AT_A_TIME = 500_000
_BLOCK = 8  # cells along each edge
# Of the four atoms in the cube of a face-centred cubic crystal, in edges of the cube.
_FCC = np.array([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])


def integrate(
    decoration: Decoration, box: Box, spacing: float, of: Callable[[Material], float], grown: float = 0.0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Share a density out to points on a lattice.

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
    of
        Density of a material, of whatever is to be integrated, in 1 Å³.
    grown
        Å by which the body is larger all around; the outermost material fills it.

    Yields
    ------
    points : ndarray, float32
        (n, 3) x, y, z in Å from the centre of the box.
    amounts : ndarray, float32
        (n,) what is in the cell around each point.
    """
    cells = np.ceil(np.array(box) / spacing - 1e-9).astype(np.int64)
    edges = np.array(box) / cells
    volume, edge = float(edges.prod()), float(edges.prod()) ** (1 / 3)
    starts = [start for start, _ in decoration.layers]
    starts[0] -= grown
    steps = np.diff([0.0, *(of(material) for _, material in decoration.layers)]) * volume
    for points in _lattice(decoration, box, edges, np.zeros(3), grown + float(np.linalg.norm(edges)) / 2):
        depth = -decoration.distance(points)
        amounts = np.zeros(len(points))
        for start, step in zip(starts, steps, strict=True):
            amounts += step * np.clip(0.5 + (depth - start) / edge, 0, 1)
        some = depth > starts[0] - edge / 2
        yield points[some].astype(np.float32), amounts[some].astype(np.float32)


def total(
    decoration: Decoration, box: Box, of: Callable[[Material], float], spacing: float = _COARSE
) -> float:
    """Integrate a density over the body; see :func:`integrate`."""
    return sum(float(a.sum(dtype=np.float64)) for _, a in integrate(decoration, box, spacing, of))


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
    low, high = _limits(decoration, box, reach)
    corner = shift - np.array(box) / 2
    first = np.floor((low - corner) / edges).astype(np.int64)
    end = np.ceil((high - corner) / edges).astype(np.int64)
    if not shift.any() and not _free(decoration):
        first, end = np.maximum(first, 0), np.minimum(end, np.rint(np.array(box) / edges).astype(np.int64))
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
