"""The API of ``tlpick`` for particle lists, which :mod:`tlpick.api` offers with the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlpick.output.convert import Converted


def convert(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    source_format: str | None = None,
    volumes: Sequence[str | os.PathLike[str]] = (),
    tomograms_star: str | os.PathLike[str] | None = None,
    tomogram_list: str | os.PathLike[str] | None = None,
    radii: Mapping[str, float] | None = None,
    of_source: Mapping[str, Any] | None = None,
    of_target: Mapping[str, Any] | None = None,
    sidecar: bool = False,
    overwrite: bool = False,
    **facts: Any,
) -> Converted:
    """Convert a particle list to another format.

    Parameters
    ----------
    source
        The list to read: a file or a folder.
    to
        The list to write; None: the source is only described.
    format, source_format
        Names of the formats; by default from the suffix of ``to``, and from the content of the source.
    volumes
        Tomograms, whose headers state sizes.
    tomograms_star
        RELION 5's ``tomograms.star``: sizes, pixel size, optics.
    tomogram_list
        Lines of a number and a tomogram, as Dynamo's ``.doc``.
    radii
        Class -> radius in Å, for boxes and spheres.
    of_source, of_target
        Facts of one of the lists only, such as ``{"centre": "picker"}``.
    sidecar
        Write what the target cannot hold to a CSV file beside it.
    overwrite
        Replace an existing file.
    facts
        Fields of :class:`catalogs.particle_formats.base.Context` for both lists, such as ``voxel_size=10.0``
        (Å) and ``shape=(200, 512, 512)`` (voxels, z, y, x).

    Returns
    -------
    tlpick.output.convert.Converted
        The ``table`` that was written, and ``sentences`` on what was recognised and lost.

    Raises
    ------
    InputError
        If the source has no known format or several, a needed fact is unknown, or the target exists.
    """
    from catalogs.particle_formats.base import Context
    from tlpick.output.convert import context_of, refuse_unknown
    from tlpick.output.convert import convert as write

    path = Path(source)
    star, numbers = (None if file is None else os.fspath(file) for file in (tomograms_star, tomogram_list))
    for only in (of_source or {}, of_target or {}):
        refuse_unknown(only, Context)
    known = context_of(
        path,
        volumes=[os.fspath(volume) for volume in volumes],
        tomograms_star=star,
        tomogram_list=numbers,
        radii=radii,
        **facts,
    )
    return write(
        path,
        None if to is None else Path(to),
        replace(known, **(of_source or {})),
        to_context=replace(known, **(of_target or {})),
        source_format=source_format,
        target_format=format,
        sidecar=sidecar,
        overwrite=overwrite,
    )
