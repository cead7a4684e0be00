"""Test-time augmentation: averages the network's output over several orientations of a tomogram.

A tomogram has a missing wedge, so not every orientation looks like a tomogram. With the tilt axis along y and
a tilt range that is symmetric about 0°, the wedge is left as it is by turning the signs of x, y and z, and by
nothing else that maps the grid onto itself: swapping x and y would turn the tilt axis. Of these eight
symmetries (the point group mmm) four are rotations: none, and half turns about x, y and z. The other four
are mirror images, in which molecules have the wrong hand; a network that sees details finer than about 10 Å
may find them strange, so they are used only when eight are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Number of orientations -> the array axes (0 z, 1 y, 2 x) that are reversed in each.
SYMMETRIES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    4: ((), (0, 1), (0, 2), (1, 2)),
    8: ((), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,), (0, 1, 2)),
}


def turned(values: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """View a volume (z, y, x, ...) with some axes reversed; applying it twice restores the volume."""
    return np.flip(values, axes) if axes else values
