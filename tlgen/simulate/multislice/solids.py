"""Decorations in the multislice engine: their mean inner potential, integrated from the geometry.

The mean inner potential of a material is the number of atoms per volume times the integral of an atom's
potential (Kirkland 2010, section 5.2: the projected potential of independent atoms is their sum). The
integrals are those of Parakeet's engine at 1 Å per pixel (:mod:`tlgen.simulate.microscope.potentials`), so
that a body has the same contrast here as with single atoms there. At a tomogram's resolution, single atoms
cannot be distinguished from this mean. Ice is displaced as by atoms: it is reduced to a third, also in the
rim that the discs of the outermost atoms cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from tlgen.scene import decoration_density
from tlgen.scene.decoration_shapes import Decoration
from tlgen.scene.materials import Material
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import potentials
from tlgen.simulate.microscope.potentials import Scattering
from tlgen.simulate.multislice.splat import Frame, share
from tlgen.simulate.specimen import tilt_rotation
from tlgen.tilts.scheme import Tilt

#: Å; width of the rim around a body in which its atoms displace ice, averaged over directions.
RIM = 1.2
#: Bytes of memory for the integration, measured in a box of 2048 x 2048 x 1024 Å.
MEMORY = 300_000_000
# Å; largest cells of the integration. They are smaller for small voxels.
_COARSEST = 4.0


def inner_potential(material: Material, scattering: Scattering | None = None) -> float:
    """Mean inner potential of a material in V; by default with Parakeet's contrast."""
    return per_volume(material, (scattering or potentials.scattering()).integral)


def per_volume(material: Material, weights: NDArray[np.float32]) -> float:
    """Sum of the atoms' weights in 1 Å³ of a material; ``weights`` is indexed by atomic number."""
    return material.atoms * float(material.shares @ weights[material.elements])


def decorate(
    scene: Scene,
    tilt: Tilt,
    frame: Frame,
    slabs: Sequence[NDArray[np.float32]],
    weights: Sequence[NDArray[np.float32] | None],
) -> None:
    """Add the atoms of all decorations, and the ice that they displace, to slabs, in place.

    Parameters
    ----------
    scene, tilt
        The scene with the decorations, and the tilt.
    frame
        Position of pixels and slabs.
    slabs
        One array (slabs, ny, nx) of sums for each of the weights.
    weights
        Weights of atoms, indexed by atomic number; None for the volume of displaced ice, Å³.
    """
    n = parts(scene, frame.step)
    matrix, shift = frame.transform(tilt_rotation(tilt.angle).as_matrix(), np.zeros(3))
    for decoration in scene.decorations:
        for points, amounts in integrate(decoration, scene, frame.step, weights):
            _share_out(tuple(slabs), points, amounts, matrix, shift, n)


def integrate(
    decoration: Decoration, scene: Scene, step: float, weights: Sequence[NDArray[np.float32] | None]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Integrate the weights of a decoration's atoms, or, for None, the volume of the displaced ice.

    Yields
    ------
    points : ndarray, float32
        (n, 3) Å from the centre of the box; centres of cells, which are :func:`parts` pixels of ``step`` Å
        wide.
    amounts : ndarray, float32
        (n, weights) sum in each cell, in the weights' unit or in Å³.
    """
    densities = [
        decoration_density.Density(_unity, RIM)
        if w is None
        else decoration_density.Density(partial(per_volume, weights=w))
        for w in weights
    ]
    yield from decoration_density.integrate(decoration, scene.box, parts(scene, step) * step, densities)


def parts(scene: Scene, step: float) -> int:
    """Width of the integration's cells, in pixels of ``step`` Å."""
    return max(1, int(min(_COARSEST, scene.voxel_size / 2) / step))


def offsets(number: int) -> NDArray[np.float32]:
    """Offsets from a cell's centre to the centres of its pixels: (number², 3) in pixels and slabs."""
    along = np.arange(number, dtype=np.float32) - np.float32((number - 1) / 2)
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)


def _unity(_: Material) -> float:
    return 1.0


@numba.njit(cache=True, nogil=True)
def _share_out(
    slabs: tuple[NDArray[np.float32], ...],
    positions: NDArray[np.float32],
    amounts: NDArray[np.float32],
    matrix: NDArray[np.float32],
    shift: NDArray[np.float32],
    parts: int,
) -> None:
    """Distribute each cell's amounts over its pixels, in place.

    Each of the cell's pixels is distributed over the four grid pixels around it, as in :func:`.splat.share`.
    In total this is the product of ``parts + 1`` weights along x and as many along y.
    """
    m, s = matrix, shift
    one, part = np.float32(1), np.float32(1 / parts)
    middle = np.float32((parts - 1) / 2)
    n, ny, nx = slabs[0].shape
    along_x, along_y = np.full(parts + 1, part, np.float32), np.full(parts + 1, part, np.float32)
    for i in range(len(positions)):
        a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + s[0] - middle
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + s[1] - middle
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + s[2]
        if not (x >= 0 and y >= 0 and x < nx - parts and y < ny - parts):
            for k in range(parts * parts):  # pixel by pixel at the edge of the grid
                for channel in range(len(slabs)):
                    share(
                        slabs[channel], x + np.float32(k % parts), y + np.float32(k // parts), z,
                        amounts[i, channel] * part * part,
                    )  # fmt: skip
            continue
        ix, iy = int(x), int(y)
        k = min(max(int(z), 0), n - 1)
        fx, fy = x - np.float32(ix), y - np.float32(iy)
        along_x[0], along_x[parts] = (one - fx) * part, fx * part
        along_y[0], along_y[parts] = (one - fy) * part, fy * part
        for channel in range(len(slabs)):
            into, amount = slabs[channel], amounts[i, channel]
            for v in range(parts + 1):
                row = amount * along_y[v]
                for u in range(parts + 1):
                    into[k, iy + v, ix + u] += row * along_x[u]
