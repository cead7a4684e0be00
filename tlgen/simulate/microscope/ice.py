"""Shape of the ice layer (flat, inclined or a wedge), and the length of the beam's path through it.

Coordinates are those of the specimen, x and z in Å from the centre of the box, unless image coordinates are
stated. Neither face depends on y, which is the direction of the tilt axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin, tan

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.schema import Acquisition
from tlgen.scene.scene import Scene

#: Degrees; largest angle of a face to the plane across the beam, at any tilt. A steeper film is refused.
STEEPEST = 85.0


@dataclass(frozen=True)
class Layer:
    """Two planes z = height + slope x, the upper and the lower face of the ice.

    Attributes
    ----------
    top, bottom
        (height in Å, slope) of the upper face and of the lower face, whose height is negative.
    """

    top: tuple[float, float]
    bottom: tuple[float, float]

    def inside(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which points lie between the faces."""
        return np.asarray(
            (z <= self.top[0] + self.top[1] * x) & (z >= self.bottom[0] + self.bottom[1] * x), np.bool_
        )

    def path(self, x: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
        """Path length of the beam, Å, through an infinite layer, at x in the image and a tilt in degrees."""
        c, s = cos(radians(angle)), sin(radians(angle))
        upper, lower = (
            (height + x * (slope * c - s)) / (c + slope * s) for height, slope in (self.top, self.bottom)
        )
        return np.asarray(upper - lower, np.float64)

    def reach(self, half: float, angle: float) -> float:
        """Largest distance from the centre along the beam, Å, in a layer that ends at x = ±half."""
        c, s = cos(radians(angle)), sin(radians(angle))
        corners = [
            (x, height + slope * x) for x in (-half, half) for height, slope in (self.top, self.bottom)
        ]
        return max(abs(z * c - x * s) for x, z in corners)


def layer(scene: Scene, acq: Acquisition) -> Layer:
    """Place the faces of the ice so that they enclose the box and touch it."""
    x, _, z = scene.box
    slopes = (
        tan(radians(acq.ice_tilt + acq.ice_wedge / 2)),
        tan(radians(acq.ice_tilt - acq.ice_wedge / 2)),
    )
    above, below = (z / 2 + abs(slope) * x / 2 for slope in slopes)
    return Layer((above, slopes[0]), (-below, slopes[1]))


def check(acq: Acquisition) -> None:
    """Refuse ice that would be nearly parallel to the beam at some tilt (InputError)."""
    tilts = (abs(tilt + acq.tilt_angle_offset) for tilt in (acq.tilt_min, acq.tilt_max))
    steepest = max(tilts) + abs(acq.ice_tilt) + abs(acq.ice_wedge) / 2
    if steepest > STEEPEST and (acq.ice_tilt or acq.ice_wedge):
        raise InputError(
            f"ice_tilt: the ice would be {steepest:g}° steep at the end of the series, more than"
            f" {STEEPEST:g}°; reduce this tilt or the tilt range"
        )


def zero_loss_share(scene: Scene, acq: Acquisition, angle: float) -> NDArray[np.float32] | None:
    """Compute the share of electrons that lose no energy in each column of the image: (nx,).

    It is exp(-path / mean free path), as in Parakeet's zero-loss model (Parkhurst et al., Open Biology 11,
    210160, 2021). The film is taken to extend beyond the box. None without an energy filter.
    """
    if not acq.energy_filter or not acq.ice_density:
        return None
    nx = scene.shape[2]
    x = (np.arange(nx) - (nx - 1) / 2) * scene.voxel_size
    return np.exp(-layer(scene, acq).path(x, angle) / acq.mean_free_path).astype(np.float32)
