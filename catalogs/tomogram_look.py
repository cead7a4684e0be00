"""Properties by which tomograms are compared: power spectrum, missing wedge, first zero, thickness.

A model's card contains these properties of its training tomograms, so that a new tomogram can be compared
with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from catalogs.frequencies import frequencies
from catalogs.seeds import generator

Real = NDArray[np.float32]
Floats = NDArray[np.float64]

#: Shells between frequency 0 and Nyquist.
SHELLS = 20
#: Edge in voxels of the blocks in which power is measured, and largest number of blocks.
_BLOCK, _BLOCKS = 64, 60
#: Angular step of the search for the missing wedge, degrees.
_STEP = 5.0
#: A direction was measured if it has at least this share of the power near the horizontal.
_MEASURED = 0.3
#: A minimum of the power along a radius counts as a zero of the transfer function if it is below this share
#: of the following maximum.
_DEEP = 0.85
#: Coarsest possible first zero, Å; 60 Å correspond to a defocus of 18 µm at 300 kV.
_COARSEST_ZERO = 60.0


class TomogramLook(BaseModel):
    """Properties of a tomogram, from its normalised grey values inside the sample."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    voxel_size: float = Field(gt=0, le=1e4, json_schema_extra={"unit": "Å"})
    shells: list[float] = Field(
        min_length=SHELLS,
        max_length=SHELLS,
        description="Mean power of each, from frequency 0 to Nyquist; their sum is 1.",
    )
    tilt_range: float = Field(
        ge=0,
        le=90,
        json_schema_extra={"unit": "degrees"},
        description="By the missing wedge; 90: there is none.",
    )
    first_zero: float | None = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "Å"},
        description="Where power along a radius dips first, if it does.",
    )
    thickness: float = Field(
        gt=0, json_schema_extra={"unit": "Å"}, description="Of the ice, or of the volume."
    )

    def share(self, coarsest: float, finest: float) -> float:
        """Return the share of the power between two lengths in Å; the coarser one may be infinite."""
        edges = np.arange(SHELLS + 1) / SHELLS / (2 * self.voxel_size)
        low, high = (0.0 if math.isinf(each) else 1 / each for each in (coarsest, finest))
        inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
        return float((np.array(self.shells) * inside / (edges[1] - edges[0])).sum())


def look_at(
    values: Real, voxel_size: float, inside: NDArray[np.bool_] | None = None, thickness: float | None = None
) -> TomogramLook | None:
    """Measure the properties of a tomogram.

    Parameters
    ----------
    values
        (z, y, x) normalised grey values.
    voxel_size
        Å.
    inside
        (z, y, x) mask of the region to measure; None for the whole volume.
    thickness
        Thickness of the ice, Å; None for the thickness of the volume.

    Returns
    -------
    TomogramLook or None
        None if the volume is too small.
    """
    height = len(values) * voxel_size
    if inside is not None:  # thin ice holds no block with the planes above and below it
        planes = np.flatnonzero(inside.mean(axis=(1, 2)) > 0.5)
        if len(planes):
            part = slice(int(planes[0]), int(planes[-1]) + 1)
            values, inside = values[part], inside[part]
    power = _power(values, inside)
    if power is None or not power.sum() > 0:
        return None
    frequency = np.stack(np.broadcast_arrays(*frequencies(power.shape)))
    length = np.sqrt((frequency**2).sum(axis=0))
    shell = np.minimum((length * 2 * SHELLS).astype(np.int64), SHELLS)  # corners beyond Nyquist are left out
    counts = np.bincount(shell.ravel(), minlength=SHELLS + 1)[:SHELLS]
    means = np.bincount(shell.ravel(), power.ravel(), minlength=SHELLS + 1)[:SHELLS] / np.maximum(counts, 1)
    return TomogramLook(
        voxel_size=voxel_size,
        shells=[round(float(v), 6) for v in means / means.sum()],
        tilt_range=_tilt_range(power, frequency, length),
        first_zero=_first_zero(power, frequency, length, voxel_size),
        thickness=height if thickness is None else thickness,
    )


def _power(values: Real, inside: NDArray[np.bool_] | None) -> Floats | None:
    """Average the power spectra of blocks that are mostly inside the mask."""
    from scipy import fft

    size = [min(_BLOCK, n) for n in values.shape]
    if min(size) < 16:
        return None
    window = np.ones((1, 1, 1), np.float32)
    for axis, n in enumerate(size):
        shape = [1, 1, 1]
        shape[axis] = n
        window = window * np.sin(np.pi * (np.arange(n) + 0.5) / n).astype(np.float32).reshape(shape)
    total, n_blocks = np.zeros(size), 0
    for box in _boxes(values.shape, size):
        if inside is not None and inside[box].mean() < 0.7:
            continue
        block = values[box] - values[box].mean()
        total += np.abs(fft.fftn(block * window)) ** 2
        n_blocks += 1
        if n_blocks == _BLOCKS:
            break
    return total / n_blocks if n_blocks else None


def _boxes(shape: tuple[int, ...], size: list[int]) -> Iterator[tuple[slice, slice, slice]]:
    starts = [
        np.unique(np.linspace(0, n - s, max(1, math.ceil(2 * n / s) - 1)).astype(int))
        for n, s in zip(shape, size, strict=True)
    ]
    grid = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3)
    for z, y, x in grid[generator("look", "blocks").permutation(len(grid))]:
        yield slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2])


def _tilt_range(power: Floats, frequency: Floats, length: Floats) -> float:
    """Find the angle about the tilt axis y beyond which nothing was measured."""
    kz, _, kx = frequency
    across = np.hypot(kz, kx)
    ring = (across > 0.08) & (across < 0.3) & (length < 0.4)
    angle = np.degrees(np.arctan2(np.abs(kz[ring]), np.abs(kx[ring])))
    bins = np.minimum((angle / _STEP).astype(np.int64), int(90 / _STEP) - 1)
    mean = np.bincount(bins, power[ring]) / np.maximum(np.bincount(bins), 1)
    level = _MEASURED * float(np.median(mean[: int(30 / _STEP)]))
    empty = np.flatnonzero(mean < level)
    return float(empty[0] * _STEP) if len(empty) else 90.0


def _first_zero(power: Floats, frequency: Floats, length: Floats, voxel_size: float) -> float | None:
    """Find the first minimum of the power along radii near the x-y plane, Å."""
    n = max(power.shape)
    flat = np.abs(frequency[0]) < 0.06
    ring = np.rint(length[flat] * n).astype(np.int64)
    mean = np.bincount(ring, power[flat]) / np.maximum(np.bincount(ring), 1)
    curve = np.log(np.maximum(mean[: n // 2], 1e-30))
    smooth = np.convolve(curve, np.ones(3) / 3, mode="valid")  # entry k belongs to ring k + 1
    coarsest = n * voxel_size / _COARSEST_ZERO
    for k in range(2, len(smooth) - 4):
        if k + 1 < coarsest:
            continue
        after = float(smooth[k + 1 : k + 8].max())
        if smooth[k] == smooth[max(k - 3, 0) : k + 4].min() and math.exp(smooth[k] - after) < _DEEP:
            return round(n * voxel_size / (k + 1), 1)
    return None
