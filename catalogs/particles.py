"""Reads and writes particle lists in the formats of the field.

:func:`read` and :func:`write` go through the formats of :mod:`catalogs.particle_formats`; :func:`load` and
:func:`save` do the same and also report which format was recognised and what the format could not hold. The
table and its columns are described in :mod:`catalogs.particle_table`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from catalogs.particle_table import (
    COLUMNS,
    DISTRACTOR,
    OPTIONAL,
    Shape,
    VoxelSize,
    empty,
    make,
)
from catalogs.schema import ClassInfo

if TYPE_CHECKING:
    from catalogs.particle_formats.base import Context
    from catalogs.particle_formats.files import Loaded, Saved

__all__ = [
    "COLUMNS",
    "DISTRACTOR",
    "OPTIONAL",
    "Shape",
    "VoxelSize",
    "empty",
    "load",
    "make",
    "read",
    "save",
    "write",
]


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    voxel_size: VoxelSize | None = None,
    shape: Shape | None = None,
    context: Context | None = None,
) -> pd.DataFrame:
    """Read a particle table from a file or a folder of any known format.

    Parameters
    ----------
    path
        Path of the list. Its content determines the format.
    format
        Name of the format (see :data:`catalogs.particle_formats.FORMATS`); recognised from the content unless
        given.
    voxel_size, shape
        Voxel size (Å) and shape (voxels, z, y, x) of the tomograms, one for all or by name. Formats that
        count in voxels need the first, formats that count from the centre of the tomogram need both, unless
        the file states them.
    context
        Everything else that a list may not state: binning, names of the tomograms, classes.

    Returns
    -------
    pandas.DataFrame
        See :data:`COLUMNS`.

    Raises
    ------
    InputError
        If the file is missing, has an unknown or ambiguous format, contains no particles, or lacks
        something that must be given.
    """
    return load(path, format, _context(context, voxel_size, shape)).table


def write(
    table: pd.DataFrame,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    voxel_size: VoxelSize | None = None,
    shape: Shape | None = None,
    classes: Sequence[ClassInfo] = (),
    context: Context | None = None,
    sidecar: bool = False,
) -> None:
    """Write a particle table to a file or a folder, completely or not at all.

    Parameters
    ----------
    table
        See :data:`COLUMNS`.
    path
        Path of the list; its suffix determines the format where it is clear (``.star`` is RELION 5).
    format
        Name of the format (see :data:`catalogs.particle_formats.FORMATS`).
    voxel_size, shape
        Voxel size (Å) and shape (voxels, z, y, x) of the tomograms, one for all or by name.
    classes
        Labels and radii of the classes, for formats that hold them.
    context
        Everything else that a format may need.
    sidecar
        Whether to write what the format cannot hold to a CSV file beside it.

    Raises
    ------
    InputError
        If the suffix is unknown, the size of a tomogram is missing, or the format cannot hold a name.
    """
    context = _context(context, voxel_size, shape)
    save(table, path, format, replace(context, classes=tuple(classes)) if classes else context, sidecar)


def load(path: str | os.PathLike[str], format: str | None = None, context: Context | None = None) -> Loaded:
    """Do as :func:`read`, and also return which format was recognised and why."""
    from catalogs.particle_formats import files

    return files.load(Path(path), format, context)


def save(
    table: pd.DataFrame,
    path: str | os.PathLike[str],
    format: str | None = None,
    context: Context | None = None,
    sidecar: bool = False,
) -> Saved:
    """Do as :func:`write`, and also return which files were written and what they do not hold."""
    from catalogs.particle_formats import files

    return files.save(table, Path(path), format, context, sidecar)


def _context(context: Context | None, voxel_size: VoxelSize | None, shape: Shape | None) -> Context:
    from catalogs.particle_formats.base import Context

    context = context or Context()
    return replace(
        context,
        voxel_size=context.voxel_size if voxel_size is None else voxel_size,
        shape=context.shape if shape is None else shape,
    )
