"""Decorations in our own engine: their mean inner potential, integrated from the geometry.

A material's mean inner potential is the number of its atoms in a volume times the integral of each atom's
potential (Kirkland 2010, section 5.2: the projected potential of independent atoms is their sum). The
integrals are those that Parakeet's engine has at 1 Å a pixel (:mod:`tlgen.simulate.potentials`), so that a
body shows the contrast here that it shows as single atoms there; single atoms at a tomogram's resolution
are no more than this mean. Ice is displaced as atoms displace it: to a third, and also in the rim that the
discs of the outermost atoms cover.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from tlgen import filling
from tlgen.decorations import Decoration
from tlgen.materials import Material
from tlgen.scene import Scene
from tlgen.simulate import potentials
from tlgen.simulate.specimen import tilt_rotation
from tlgen.tilts import Tilt

#: Å; the rim around a body in which its atoms displace ice, on average over directions.
RIM = 1.2
#: Bytes that the integration takes at a time, measured in a box of 2048 x 2048 x 1024 Å.
MEMORY = 300_000_000
# Å; cells of the integration, at most. They are finer where voxels are.
_COARSEST = 4.0


def inner_potential(material: Material) -> float:
    """Mean inner potential of a material in V, as the engines see it."""
    return material.atoms * float(material.shares @ potentials.INTEGRAL[material.elements])


def decorate(
    decoration: Decoration,
    scene: Scene,
    tilt: Tilt,
    potential: NDArray[np.float32],
    covered: NDArray[np.float32],
    first: NDArray[np.floating],
    step: float,
    half: float,
) -> None:
    """Add a decoration's potential and the ice that it displaces to the slabs of a specimen, in place.

    Parameters
    ----------
    decoration, scene, tilt
        What, where, and how it is turned.
    potential, covered
        (slabs, ny, nx) V Å³ and Å³ in each pixel.
    first
        Pixel, (x, y), of the centre of the box.
    step, half
        Å: a pixel, and half the thickness of all slabs.
    """
    matrix = tilt_rotation(tilt.angle).as_matrix().T.astype(np.float32)
    parts = max(1, int(min(_COARSEST, scene.voxel_size / 2) / step))
    thickness = 2 * half / len(potential)
    for slabs, of, grown in ((potential, inner_potential, 0.0), (covered, _unity, RIM)):
        for points, amounts in filling.integrate(decoration, scene.box, parts * step, of, grown):
            _share_out(slabs, points @ matrix, amounts, first, step, half, thickness, parts)


def _unity(_: Material) -> float:
    return 1.0


@numba.njit(cache=True, nogil=True)
def _share_out(
    slabs: NDArray[np.float32],
    xyz: NDArray[np.float32],
    amounts: NDArray[np.float32],
    first: NDArray[np.floating],
    step: float,
    half: float,
    thickness: float,
    parts: int,
) -> None:
    """Spread each cell's amount over the pixels that it is wide, in place."""
    n, ny, nx = slabs.shape
    for i in range(len(amounts)):
        k = min(max(int((xyz[i, 2] + half) / thickness), 0), n - 1)
        for a in range(parts * parts):
            x = xyz[i, 0] / step + first[0] + a % parts - (parts - 1) / 2
            y = xyz[i, 1] / step + first[1] + a // parts - (parts - 1) / 2
            ix, iy = int(np.floor(x)), int(np.floor(y))
            if ix < 0 or iy < 0 or ix + 1 >= nx or iy + 1 >= ny:
                continue
            fx, fy = np.float32(x - ix), np.float32(y - iy)
            w = amounts[i] / np.float32(parts * parts)
            slabs[k, iy, ix] += w * (1 - fy) * (1 - fx)
            slabs[k, iy, ix + 1] += w * (1 - fy) * fx
            slabs[k, iy + 1, ix] += w * fy * (1 - fx)
            slabs[k, iy + 1, ix + 1] += w * fy * fx
