"""Make class and instance volumes from a scene, on the tomogram's voxels or any others.

Every voxel centre is transformed into the frame of each molecule near it, and the molecule's density is read
there. Nothing is rotated, shifted or resized on a voxel grid, so a label lies where its molecule does.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from tlgen.molecules.envelope import ENCLOSED, RESOLUTION, envelope
from tlgen.molecules.molecule import Library
from tlgen.scene.decoration_shapes import Decoration
from tlgen.scene.scene import Grid, Scene


def label(
    scene: Scene,
    library: Library,
    *,
    grid: Grid | None = None,
    resolution: float = RESOLUTION,
    enclosed: float = ENCLOSED,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Label every voxel whose centre lies in a molecule's envelope or in a decoration.

    Where envelopes overlap, the voxel goes to the molecule whose density, in units of its own contour, is
    higher there. Decorations have sharp surfaces and take precedence over molecules.

    Parameters
    ----------
    scene
        What stands where.
    library
        Its molecules, by digest.
    grid
        Voxels to label; those of the tomogram if left out.
    resolution, enclosed
        Of the envelope: Å, and the share of the mass inside (see :func:`tlgen.molecules.envelope.envelope`).

    Returns
    -------
    classes : ndarray
        (z, y, x) of the grid, uint8: the label of the class; 0 elsewhere and in distractors.
    instances : ndarray
        (z, y, x) of the grid, uint16: 1 + the index of the molecule in the scene, including distractors; the
        numbers of decorations follow.

    Raises
    ------
    InputError
        If there are more molecules and decorations than uint16 counts, or more classes than uint8.
    """
    grid = grid or scene.grid
    n = len(scene.which)
    _check(scene)
    instances = np.zeros(grid.shape, np.uint16)
    highest = np.zeros(grid.shape, np.float32)  # density over contour of the voxel's molecule
    centres = (scene.positions + scene.centre - np.array(grid.origin)).reshape(n, 3)
    frames = Rotation.from_quat(scene.quaternions).as_matrix() if n else np.zeros((0, 3, 3))
    highest_centre = (np.array(grid.shape[::-1]) - 1) * grid.voxel_size
    for kind in np.unique(scene.which):
        molecule = library[scene.digests[kind]].points
        reach = float(np.linalg.norm(molecule.positions, axis=1).max()) + 2 * resolution
        beside = ((centres > -reach) & (centres < highest_centre + reach)).all(axis=1) & (scene.which == kind)
        if not beside.any():  # an envelope is not needed for what is not there
            continue
        body = envelope(molecule, resolution=resolution, enclosed=enclosed)
        relative = body.density / np.float32(body.threshold)
        for i in np.flatnonzero(beside).tolist():
            where = (np.ascontiguousarray(frames[i]), centres[i], grid.voxel_size)
            _paint(relative, body.spacing, body.radius, *where, i + 1, highest, instances)
    for k, decoration in enumerate(scene.decorations):
        _fill(decoration, scene, grid, n + k + 1, instances)
    class_of = np.zeros(n + len(scene.decorations) + 1, np.uint8)  # of each instance; 0 is background
    class_of[1 : n + 1] = np.array(scene.labels, np.uint8)[scene.which] if n else 0
    class_of[n + 1 :] = [scene.label_of(decoration) for decoration in scene.decorations]
    return class_of[instances], instances


def _check(scene: Scene) -> None:
    """Refuse more molecules or classes than the integers of the volumes can number."""
    n = len(scene.which) + len(scene.decorations)
    if n > np.iinfo(np.uint16).max:
        raise InputError(
            f"the scene has {n} molecules and an instance volume counts to {np.iinfo(np.uint16).max}; "
            "make the box smaller or ask for fewer molecules"
        )
    highest = max((*scene.labels, *map(scene.label_of, scene.decorations)), default=0)
    if highest > np.iinfo(np.uint8).max:
        raise InputError(
            f"a class has label {highest} and a class volume counts to {np.iinfo(np.uint8).max}; "
            "use fewer classes"
        )


def _fill(
    decoration: Decoration, scene: Scene, grid: Grid, instance: int, instances: NDArray[np.uint16]
) -> None:
    """Label every voxel of the box whose centre lies in a decoration, a section at a time."""
    shift = np.array(grid.origin) - scene.centre  # of voxel 0 from the centre of the box
    half = np.array(scene.box) / 2
    low, high = (np.clip(bound, -half, half) - shift for bound in decoration.bounds())
    x0, y0, z0 = (_first(value, grid.voxel_size) for value in low)
    x1, y1, z1 = (_end(value, grid.voxel_size, n) for value, n in zip(high, grid.shape[::-1], strict=True))
    if x1 <= x0 or y1 <= y0:
        return
    y, x = np.mgrid[y0:y1, x0:x1].reshape(2, -1) * grid.voxel_size
    for k in range(z0, z1):
        points = np.column_stack([x, y, np.full(len(x), k * grid.voxel_size)]) + shift
        inside = (decoration.distance(points) <= 0).reshape(y1 - y0, x1 - x0)
        instances[k, y0:y1, x0:x1][inside] = instance


@njit(cache=True)
def _paint(
    density: NDArray[np.float32],
    spacing: float,
    radius: float,
    frame: NDArray[np.float64],
    centre: NDArray[np.float64],
    voxel_size: float,
    instance: int,
    highest: NDArray[np.float32],
    instances: NDArray[np.uint16],
) -> None:
    """Label every voxel where the molecule's density is at least 1 and the highest so far.

    ``frame`` rotates the molecule's axes into the tomogram's; ``centre`` is x, y, z in Å from voxel 0.
    """
    nz, ny, nx = instances.shape
    mz, my, mx = density.shape
    for k in range(_first(centre[2] - radius, voxel_size), _end(centre[2] + radius, voxel_size, nz)):
        dz = k * voxel_size - centre[2]
        for j in range(_first(centre[1] - radius, voxel_size), _end(centre[1] + radius, voxel_size, ny)):
            dy = j * voxel_size - centre[1]
            for i in range(_first(centre[0] - radius, voxel_size), _end(centre[0] + radius, voxel_size, nx)):
                dx = i * voxel_size - centre[0]
                # the transpose of a rotation is its inverse: tomogram -> molecule
                x = (frame[0, 0] * dx + frame[1, 0] * dy + frame[2, 0] * dz) / spacing + (mx - 1) / 2
                y = (frame[0, 1] * dx + frame[1, 1] * dy + frame[2, 1] * dz) / spacing + (my - 1) / 2
                z = (frame[0, 2] * dx + frame[1, 2] * dy + frame[2, 2] * dz) / spacing + (mz - 1) / 2
                if x < 0 or y < 0 or z < 0 or x >= mx - 1 or y >= my - 1 or z >= mz - 1:
                    continue
                value = _interpolate(density, z, y, x)
                if value >= 1 and value > highest[k, j, i]:
                    highest[k, j, i] = value
                    instances[k, j, i] = instance


@njit(cache=True)
def _first(lowest: float, voxel_size: float) -> int:
    """Index of the first voxel of an axis whose centre is at or above a coordinate."""
    return max(0, int(np.ceil(lowest / voxel_size)))


@njit(cache=True)
def _end(highest: float, voxel_size: float, n: int) -> int:
    """Index after that of the last voxel of an axis whose centre is at or below a coordinate."""
    return min(n, int(np.floor(highest / voxel_size)) + 1)


@njit(cache=True)
def _interpolate(grid: NDArray[np.float32], z: float, y: float, x: float) -> float:
    """Read the grid between its 8 voxels around a point inside of it."""
    k, j, i = int(z), int(y), int(x)
    w, v, u = z - k, y - j, x - i
    near = (1 - v) * ((1 - u) * grid[k, j, i] + u * grid[k, j, i + 1]) + v * (
        (1 - u) * grid[k, j + 1, i] + u * grid[k, j + 1, i + 1]
    )
    far = (1 - v) * ((1 - u) * grid[k + 1, j, i] + u * grid[k + 1, j, i + 1]) + v * (
        (1 - u) * grid[k + 1, j + 1, i] + u * grid[k + 1, j + 1, i + 1]
    )
    return (1 - w) * near + w * far
