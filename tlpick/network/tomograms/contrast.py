"""Whether protein is dark or bright in a tomogram, as far as its grey values tell."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Below this skewness nothing is said: a crowded cell is nearly symmetric.
CLEAR = 0.25
#: Nor below so many standard errors.
ERRORS = 6.0


def apparent_contrast(
    values: NDArray[np.float32], scale: int
) -> tuple[Literal["dark", "bright"] | None, float]:
    """Guess the sign of the contrast from the skewness of grey values.

    Molecules fill the smaller part of a volume, so that the side on which they stand is the longer tail.

    Parameters
    ----------
    values
        (z, y, x) normalised grey values.
    scale
        Edge of the boxes that are averaged first, voxels: about the radius of a molecule, to let it stand out
        of the noise.

    Returns
    -------
    tuple
        ``dark``, ``bright`` or None where it cannot be told; and the skewness.
    """
    scale = max(1, min(scale, *(n // 4 for n in values.shape)))
    z, y, x = (n // scale for n in values.shape)
    if z * y * x < 500:
        return None, 0.0
    means = np.empty((z, y, x))
    for k in range(z):
        slab = values[k * scale : (k + 1) * scale, : y * scale, : x * scale]
        means[k] = slab.reshape(scale, y, scale, x, scale).mean(axis=(0, 2, 4))
    deviation = means - means.mean()
    spread = deviation.std()
    if not spread**3 > 0:  # flat, or so small that its cube is no number
        return None, 0.0
    skewness = float((deviation**3).mean() / spread**3)
    if abs(skewness) < max(CLEAR, ERRORS * math.sqrt(6 / means.size)):
        return None, skewness
    return ("dark" if skewness < 0 else "bright"), skewness
