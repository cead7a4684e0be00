"""Decorations in our own engine: their mean inner potential, integrated from the geometry.

A material's mean inner potential is the number of its atoms in a volume times the integral of each atom's
potential (Kirkland 2010, section 5.2: the projected potential of independent atoms is their sum). The
integrals are those that Parakeet's engine has at 1 Å a pixel (:mod:`tlgen.simulate.microscope.potentials`),
so that a body shows the contrast here that it shows as single atoms there; single atoms at a tomogram's
resolution are no more than this mean. Ice is displaced as atoms displace it: to a third, and also in the rim
that the discs of the outermost atoms cover.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from tlgen.scene import decoration_matter
from tlgen.scene.decorations import Decoration
from tlgen.scene.materials import Material
from tlgen.scene.scene import Scene
from tlgen.simulate.microscope import potentials
from tlgen.simulate.microscope.potentials import Scattering
from tlgen.simulate.multislice.splat import Frame, share
from tlgen.simulate.specimen import tilt_rotation
from tlgen.tilts.scheme import Tilt

#: Å; the rim around a body in which its atoms displace ice, on average over directions.
RIM = 1.2
#: Bytes that the integration takes at a time, measured in a box of 2048 x 2048 x 1024 Å.
MEMORY = 300_000_000
# Å; cells of the integration, at most. They are finer where voxels are.
_COARSEST = 4.0


def inner_potential(material: Material, scattering: Scattering | None = None) -> float:
    """Mean inner potential of a material in V; Parakeet's contrast unless another is given."""
    return per_volume(material, (scattering or potentials.scattering()).integral)


def per_volume(material: Material, weights: NDArray[np.float32]) -> float:
    """Sum of its atoms' weights, which are by atomic number, in 1 Å³ of a material."""
    return material.atoms * float(material.shares @ weights[material.elements])


def decorate(
    scene: Scene,
    tilt: Tilt,
    frame: Frame,
    slabs: Sequence[NDArray[np.float32]],
    weights: Sequence[NDArray[np.float32] | None],
) -> None:
    """Add what the atoms of all decorations weigh, and the ice that they displace, to slabs, in place.

    Parameters
    ----------
    scene, tilt
        Whose decorations, and how they are turned.
    frame
        Where pixels and slabs lie.
    slabs
        (slabs, ny, nx) of each pixel's sums: one array for each of the weights.
    weights
        Of atoms, by atomic number; None for the ice that they displace, Å³.
    """
    n = parts(scene, frame.step)
    matrix, shift = frame.transform(tilt_rotation(tilt.angle).as_matrix(), np.zeros(3))
    for decoration in scene.decorations:
        for points, amounts in integrate(decoration, scene, frame.step, weights):
            _share_out(tuple(slabs), points, amounts, matrix, shift, n)


def integrate(
    decoration: Decoration, scene: Scene, step: float, weights: Sequence[NDArray[np.float32] | None]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Integrate the weights of a decoration's atoms, and for None the volume of ice that it displaces.

    Yields
    ------
    points : ndarray, float32
        (n, 3) Å from the centre of the box; the middles of cells :func:`parts` pixels of ``step`` Å wide.
    amounts : ndarray, float32
        (n, weights) of the weights' unit, or Å³, in each.
    """
    densities = [
        decoration_matter.Density(_unity, RIM)
        if w is None
        else decoration_matter.Density(partial(per_volume, weights=w))
        for w in weights
    ]
    yield from decoration_matter.integrate(decoration, scene.box, parts(scene, step) * step, densities)


def parts(scene: Scene, step: float) -> int:
    """How many pixels of ``step`` Å the integration's cells are wide."""
    return max(1, int(min(_COARSEST, scene.voxel_size / 2) / step))


def offsets(number: int) -> NDArray[np.float32]:
    """From a cell's middle to those of the pixels that it is spread over, (number², 3) pixels and slabs."""
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
    """Spread each cell's amounts over the pixels that it is wide, in place.

    Each of the cell's pixels is shared out to the four around it, as :func:`.splat.share` does; together that
    is a row of ``parts + 1`` weights along x times one along y.
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
            for k in range(parts * parts):  # at the grid's edge, pixel by pixel
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
