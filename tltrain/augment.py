"""Changes of a patch that leave it a possible tomogram of the same class.

A tomogram is not isotropic: the tilt axis is y and the beam runs along z, so that a wedge of directions
around kz is missing. Half turns about x, y and z leave that wedge in place; a quarter turn would not.
A mirror would turn proteins into their mirror images, which do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Axes that are reversed by no turn and by a half turn about x, y and z, for arrays (z, y, x).
HALF_TURNS: tuple[tuple[int, ...], ...] = ((), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True)
class Augmentation:
    """How much a patch is changed; grey values are in spreads of the tomogram (``catalogs.intensity``).

    Attributes
    ----------
    half_turns
        Whether patches are turned by 180° about x, y or z.
    contrast
        Grey values are multiplied by up to this factor or divided by it; 1 leaves them.
    offset
        Grey values are shifted by up to this much.
    noise
        White noise with a standard deviation of up to this much is added.
    """

    half_turns: bool = True
    contrast: float = 1.25
    offset: float = 0.2
    noise: float = 0.3


def augment(
    tomogram: NDArray[np.float32],
    classes: NDArray[np.uint8],
    rng: np.random.Generator,
    how: Augmentation,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Change a patch and its labels together.

    Parameters
    ----------
    tomogram
        (z, y, x) normalised grey values.
    classes
        (z, y, x) labels.
    rng
        Where the choices come from.
    how
        What may be done.

    Returns
    -------
    tomogram, classes
        The changed patch, of the same shape; the inputs are left as they are.
    """
    if how.half_turns:
        axes = HALF_TURNS[int(rng.integers(len(HALF_TURNS)))]
        tomogram, classes = np.flip(tomogram, axes), np.flip(classes, axes)
    factor = np.float32(how.contrast ** rng.uniform(-1, 1))
    shift = np.float32(rng.uniform(-how.offset, how.offset))
    changed = tomogram * factor + shift
    sigma = np.float32(rng.uniform(0, how.noise))
    if sigma > 0:
        changed += sigma * rng.standard_normal(changed.shape, dtype=np.float32)
    return changed, classes
