"""Masks of tomograms, of the same or another binning, on the grid of the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.volumes import Volume, open_volume

Triple = tuple[int, int, int]


def mask_path(pattern: str, name: str) -> str:
    """Return the path of a tomogram's mask: ``{name}`` stands for its name as a file name."""
    return pattern.replace("{name}", file_name(name)) if "{name}" in pattern else pattern


def check_mask(path: str, shape: Triple, voxel_size: float) -> None:
    """Refuse a mask that does not cover the box of its tomogram, by its header (InputError)."""
    _ratio(_opened(path, shape, voxel_size), path, shape, voxel_size)


class Region:
    """The region of a tomogram in which to pick.

    Parameters
    ----------
    path
        Path or URL of the mask; voxels that are not 0 are inside.
    shape
        Voxels (z, y, x) of the tomogram.
    voxel_size
        Voxel size of the tomogram, Å.

    Raises
    ------
    InputError
        If the mask cannot be read or does not cover the same box.
    """

    def __init__(self, path: str, shape: Triple, voxel_size: float) -> None:
        volume = _opened(path, shape, voxel_size)
        self._inside = np.asarray(volume.data[...]) != 0
        self._voxel_size = voxel_size
        self._ratio = _ratio(volume, path, shape, voxel_size)
        if not self._inside.any():
            raise InputError(f"the mask {path} is empty: all of its voxels are 0")

    def at(self, places: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Sample the mask on a grid.

        Parameters
        ----------
        places
            Voxel centres along z, y, x in Å, relative to the centre of the tomogram's voxel 0.

        Returns
        -------
        ndarray of bool
            (z, y, x).
        """
        picked = [self._index(axis, values) for axis, values in enumerate(places)]
        return np.asarray(self._inside[np.ix_(*picked)])

    def holds(self, xyz: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which of (n, 3) positions x, y, z in Å are inside."""
        z, y, x = (self._index(axis, xyz[:, 2 - axis]) for axis in range(3))
        return np.asarray(self._inside[z, y, x])

    def _index(self, axis: int, places: NDArray[np.float64]) -> NDArray[np.int64]:
        # a voxel of the mask covers whole voxels of the tomogram, with the same outer faces
        index = np.floor((places / self._voxel_size + 0.5) / self._ratio + 1e-9).astype(np.int64)
        return np.clip(index, 0, self._inside.shape[axis] - 1)


def _opened(path: str, shape: Triple, voxel_size: float) -> Volume:
    """Open a mask; its voxel size is ignored if it has as many voxels as the tomogram."""
    try:
        return open_volume(path)
    except InputError:
        volume = open_volume(path, voxel_size=voxel_size)
        if volume.shape != shape:
            raise
        return volume


def _ratio(mask: Volume, path: str, shape: Triple, voxel_size: float) -> float:
    """Return the edge of the mask's voxels in voxels of the tomogram."""
    if mask.shape == shape:
        return 1.0
    ratio = mask.voxel_size / voxel_size if mask.voxel_size else float(round(shape[2] / mask.shape[2]))
    # binning may drop or complete partial voxels at the end
    if ratio <= 0 or any(
        abs(n * ratio - whole) >= max(ratio, 1) for n, whole in zip(mask.shape, shape, strict=True)
    ):
        raise InputError(
            f"the mask {path} has {_size(mask.shape)} voxels{_edge(mask.voxel_size)}, the tomogram "
            f"{_size(shape)}{_edge(voxel_size)}: they do not cover the same box; give a mask of this tomogram"
        )
    return ratio


def _size(shape: Any) -> str:
    z, y, x = shape
    return f"{x} x {y} x {z}"


def _edge(voxel_size: float | None) -> str:
    return f" of {voxel_size:.5g} Å" if voxel_size else ""
