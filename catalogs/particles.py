"""Particle lists: read and written in any format of the field.

:func:`read` and :func:`write` go through the formats of :mod:`catalogs.particle_formats`; :func:`load` and
:func:`save` do the same and say what was recognised and what had no room. The table itself, its columns and
their meaning, is :mod:`catalogs.particle_table`.
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
        Of the list. What is in it says which format it is.
    format
        Name of the format (see :data:`catalogs.particle_formats.FORMATS`); recognised from the content unless
        given.
    voxel_size, shape
        Of the tomograms in Å and voxels (z, y, x), one for all or by name. Formats that count in
        voxels need the first, those that count from the centre of the tomogram both, unless the file
        says it itself.
    context
        Everything else that a list may leave open: binning, names of the tomograms, classes.

    Returns
    -------
    pandas.DataFrame
        See :data:`COLUMNS`.

    Raises
    ------
    InputError
        If the file is missing, of an unknown or an ambiguous kind, does not hold particles, or lacks
        something that has to be given.
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
    """Write a particle table to a file or a folder, whole or not at all.

    Parameters
    ----------
    table
        See :data:`COLUMNS`.
    path
        Of the list; its ending says the format where that is clear (``.star`` is RELION 5).
    format
        Name of the format (see :data:`catalogs.particle_formats.FORMATS`).
    voxel_size, shape
        Of the tomograms in Å and voxels (z, y, x), one for all or by name.
    classes
        Labels and radii of the classes, where the format has room for them.
    context
        Everything else that a format may need.
    sidecar
        Whether to write what the format has no room for to a CSV file beside it.

    Raises
    ------
    InputError
        If the ending is unknown, a tomogram has no size, or a name cannot be written in the format.
    """
    context = _context(context, voxel_size, shape)
    save(table, path, format, replace(context, classes=tuple(classes)) if classes else context, sidecar)


def load(path: str | os.PathLike[str], format: str | None = None, context: Context | None = None) -> Loaded:
    """Do as :func:`read`, and tell what was recognised and why."""
    from catalogs.particle_formats import files

    return files.load(Path(path), format, context)


def save(
    table: pd.DataFrame,
    path: str | os.PathLike[str],
    format: str | None = None,
    context: Context | None = None,
    sidecar: bool = False,
) -> Saved:
    """Do as :func:`write`, and tell which files were written and what they have no room for."""
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
