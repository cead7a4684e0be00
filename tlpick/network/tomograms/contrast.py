"""Guesses from the grey values whether protein is dark or bright in a tomogram."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalogs.threads import pool

#: Below this skewness there is no answer, because a crowded cell is nearly symmetric.
CLEAR = 0.25
#: There is no answer below this number of standard errors either.
ERRORS = 6.0


def apparent_contrast(
    values: NDArray[np.float32], scale: int
) -> tuple[Literal["dark", "bright"] | None, float]:
    """Guess the sign of the contrast from the skewness of grey values.

    Molecules fill the smaller part of a volume, so their side of the histogram has the longer tail.

    Parameters
    ----------
    values
        (z, y, x) normalised grey values.
    scale
        Edge of the boxes that are averaged first, voxels: about the radius of a molecule, to reduce noise.

    Returns
    -------
    tuple
        ``dark``, ``bright`` or None if unclear; and the skewness.
    """
    scale = max(1, min(scale, *(n // 4 for n in values.shape)))
    z, y, x = (n // scale for n in values.shape)
    if z * y * x < 500:
        return None, 0.0
    means = np.empty((z, y, x))

    def average(k: int) -> None:
        slab = values[k * scale : (k + 1) * scale, : y * scale, : x * scale]
        means[k] = slab.reshape(scale, y, scale, x, scale).mean(axis=(0, 2, 4))

    with pool() as threads:
        list(threads.map(average, range(z)))
    deviation = means - means.mean()
    spread = deviation.std()
    if not spread**3 > 0:  # constant, or so small that the cube is 0
        return None, 0.0
    skewness = float((deviation**3).mean() / spread**3)
    if abs(skewness) < max(CLEAR, ERRORS * math.sqrt(6 / means.size)):
        return None, skewness
    return ("dark" if skewness < 0 else "bright"), skewness
