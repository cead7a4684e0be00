"""Normalisation of grey values, the same for training and for picking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogs.errors import InputError
from catalogs.schema import Intensity

#: Normalised values are clipped at this many spreads; gold and ice would dominate otherwise.
CLIP = 6.0

#: Name of this normalisation in a model file.
NORMALISATION = "robust-clip6"

# If more than this share of the voxels has one value, the percentiles do not describe the others.
_MOST = 0.68
# The smallest number that single precision represents with full precision.
_TINY = float(np.finfo(np.float32).tiny)
_ENOUGH = 20_000_000  # voxels; more of them would give the same percentiles
_AT_A_TIME = 4_000_000  # voxels that are checked in one step


def measure(array: ArrayLike) -> Intensity:
    """Measure the robust centre and spread of a tomogram.

    The centre is the median. The spread is half of the distance from the 16th to the 84th percentile: the
    standard deviation of a normal distribution, but hardly affected by a few voxels of gold or contamination.
    If there are more than 2e7 voxels, a regular subset of them is used.

    Parameters
    ----------
    array
        Grey values, of any shape.

    Returns
    -------
    Intensity
        ``centre`` and ``spread`` in the array's unit.

    Raises
    ------
    InputError
        If there are no voxels, some are not numbers, most are the same, or they are too small or large to be
        scaled.
    """
    values = np.asarray(array)
    if values.size == 0:
        raise InputError("the volume is empty; give a tomogram")
    sample = np.asarray(_thin_out(values), np.float32)
    if not np.isfinite(sample).all() or not _all_finite(np.atleast_1d(values)):
        raise InputError("the volume holds values that are not finite numbers; reconstruct it again")
    low, centre, high = (float(v) for v in np.percentile(sample, [16, 50, 84]))
    same = float((sample == np.float32(centre)).mean())
    if same > _MOST or not high > low:
        raise InputError(_one_value(same, centre))
    spread = (high - low) / 2
    if not _TINY <= spread <= 1 / _TINY:
        raise InputError(
            f"the grey values lie between {low:.3g} and {high:.3g}, beyond what single precision can scale; "
            "is it another data type or byte order? Else multiply them by a constant"
        )
    return Intensity(centre=centre, spread=spread)


def _one_value(same: float, value: float) -> str:
    """Explain why a volume has no spread: it is constant, or mostly so because it was masked."""
    if same == 1:
        return "the volume is constant: nothing can be seen in it"
    return (
        f"{100 * same:.0f} % of the voxels have the value {value:.4g}, as where a volume is masked, "
        "so its grey values cannot be measured; give the volume before masking, or, to pick, --mask with the "
        "region that has an image"
    )


def normalise(array: ArrayLike, intensity: Intensity) -> NDArray[np.float32]:
    """Scale grey values to centre 0 and spread 1, and clip them at ±:data:`CLIP`.

    Parameters
    ----------
    array
        Grey values, of any shape.
    intensity
        Centre and spread of the whole tomogram, never of a part of it.

    Returns
    -------
    ndarray of float32
        Normalised values of the same shape.
    """
    values: NDArray[np.float32] = np.asarray(
        np.subtract(array, np.float32(intensity.centre), dtype=np.float32), np.float32
    )
    values *= scale_of(intensity)
    np.clip(values, -CLIP, CLIP, out=values)
    return values


def scale_of(intensity: Intensity) -> np.float32:
    """Return the factor by which centred values are multiplied."""
    return np.float32(1 / intensity.spread)


def _thin_out(values: NDArray[Any]) -> NDArray[Any]:
    """Take every k-th voxel, with k coprime to the length of each axis, so that all columns are sampled."""
    if values.size <= _ENOUGH:
        return values
    step = math.ceil(values.size / _ENOUGH)
    while any(math.gcd(step, n) > 1 for n in values.shape if n > 1):
        step += 1
    return values.reshape(-1)[::step]


def _all_finite(values: NDArray[Any]) -> bool:
    """Check every voxel, some planes at a time, because a mask of the whole volume would be large."""
    each = max(1, values[:1].size)
    planes = max(1, _AT_A_TIME // each)
    return all(bool(np.isfinite(values[k : k + planes]).all()) for k in range(0, len(values), planes))
