"""Suggests the next command in RELION or Warp for picks without orientation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Formats of these programs -> the command that reads them.
_RELION_5, _RELION_4, _WARP = ("relion5", "relion5-set"), ("relion4",), ("relion3",)
_QUATERNION = ["qx", "qy", "qz", "qw"]


def without_orientations(table: pd.DataFrame) -> bool:
    """Return whether all orientations are the identity."""
    if table.empty:
        return False
    return bool(np.allclose(table[_QUATERNION].to_numpy(np.float64), [0, 0, 0, 1]))


def next_step(
    path: str,
    format_name: str,
    voxel_size: float | None,
    radii: Mapping[str, float],
    pixel_size: float | None = None,
) -> list[str]:
    """Report that picks have no orientation, with the next command.

    Parameters
    ----------
    path
        Path of the list.
    format_name
        Name of its format.
    voxel_size
        Voxel size of the tomograms, Å; None if unknown.
    radii
        Class -> radius in Å, if known; boxes are twice as wide as the largest.
    pixel_size
        Pixel size of the tilt images, Å, if known.

    Returns
    -------
    list of str
        Lines to print.
    """
    said = "the picks have no orientation (all angles are 0): refine them from a global search"
    if voxel_size is None or format_name not in (*_RELION_5, *_RELION_4, *_WARP):
        return [said]
    known = [radius for radius in radii.values() if not math.isnan(radius)]
    diameter = 2 * max(known, default=100.0)
    crop = _even(1.5 * diameter / voxel_size)
    if format_name in _WARP:
        size = f"{voxel_size:.5g}"
        command = (
            f"WarpTools ts_export_particles --settings warp_tiltseries.settings --input_star {path} "
            f"--coords_angpix {size} --output_star relion/particles.star --output_angpix {size} "
            f"--box {crop} --diameter {diameter:.0f} --relative_output_paths --2d"
        )
        return [f"{said}, starting with:", f"  {command}"]
    which = f"--i {path}" if format_name == "relion5-set" else f"--p {path} --t tomograms.star"
    times = f"{round(voxel_size / pixel_size)}" if pixel_size else "BIN"
    command = f"relion_tomo_subtomo {which} --o Extract/job001/ --b {2 * crop} --crop {crop} --bin {times}"
    lines = [f"{said}, starting with:", f"  {command}{' --stack2d' if format_name in _RELION_5 else ''}"]
    if not pixel_size:
        lines.append(f"  (BIN is {voxel_size:.5g} Å over the pixel size of the tilt images)")
    return lines


def _even(number: float) -> int:
    return max(2 * math.ceil(number / 2), 16)
