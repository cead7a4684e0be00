"""Sizes in RELION's particle tables: reads and writes pixel sizes and sizes of tomograms.

Pixel sizes have several names. RELION 4 and 5 count in pixels of the unbinned tilt series. RELION 3 gives the
pixel of its coordinates as a detector pixel in micrometres and a magnification; PyTom's template matching
writes only the detector pixel, and means the tomogram's voxel size in Å. WarpTools up to 2.0.0dev39 counted
in pixels of its output, but stated the unbinned pixel; such files cannot be recognised and are refused until
the user decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.particle_formats import star
from catalogs.particle_formats.base import Context, all_shares, as_columns
from catalogs.particle_formats.relion_columns import (
    BINNING,
    GROUP,
    IMAGE_PIXEL,
    OPTICS,
    PIXELS,
    RIDING,
    STACKS,
    TILT_SERIES_PIXEL,
    TOMOGRAM,
    TOMOGRAMS,
)

_SIZES = ["tlSizeX", "tlSizeY", "tlSizeZ"]
_DETECTOR, _MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"
_ORIGINAL = "rlnMicrographOriginalPixelSize"
# Largest relative difference of two statements of the same size.
_SAME = 0.01


def prepare(
    path: Path, stars: pd.DataFrame, blocks: Mapping[str, pd.DataFrame], context: Context, version: int
) -> tuple[pd.DataFrame, Context]:
    """Find the tomogram of every particle, join the optics, and read the sizes in the file.

    Raises
    ------
    InputError
        If a size is invalid, two sizes of a tomogram differ, or the unit of the coordinates is ambiguous.
    """
    if TOMOGRAM not in stars:
        stars = stars.assign(**{TOMOGRAM: [context.tomogram or ""] * len(stars)})
    optics = blocks.get("optics")
    if optics is not None and GROUP in optics and GROUP in stars:
        stars = _join(path, stars, optics)
    given = context
    context = _with_stated_sizes(path, blocks.get(TOMOGRAMS), context)
    ours = TOMOGRAMS in blocks
    if version == 3:
        context = _of_relion3(path, stars, given, context)
    elif context.pixel_size is None:
        context = _of_tilt_series(path, stars, blocks, context, version)
    if version < 5 and not ours and context.unit is None and context.list_pixel is None:
        _refuse_shares(path, stars, given)
    return stars, context


def _join(path: Path, stars: pd.DataFrame, optics: pd.DataFrame) -> pd.DataFrame:
    missing = sorted(set(stars[GROUP]) - set(optics[GROUP]))
    if missing:
        raise InputError(f"{path} has particles of the optics group {missing[0]}, which data_optics lacks")
    if optics[GROUP].duplicated().any():
        raise InputError(f"{path}: data_optics lists the group {optics[GROUP].mode()[0]} twice")
    joined = [name for name in optics if name == GROUP or name not in stars]
    order = stars.attrs
    stars = stars.merge(optics[joined], on=GROUP, how="left")
    stars.attrs = order | {RIDING: [str(name) for name in joined if name != GROUP]}
    return stars


def _of_tilt_series(
    path: Path, stars: pd.DataFrame, blocks: Mapping[str, pd.DataFrame], context: Context, version: int
) -> Context:
    """Read the pixel size of RELION 4 and 5 from its own column, or from other columns."""
    own = next((name for name in (TILT_SERIES_PIXEL, _ORIGINAL) if name in stars), None)
    if own is not None:
        context = replace(context, pixel_size=_by_tomogram(path, stars, own))
        if version == 4 and context.list_pixel is None and context.unit is None:
            _refuse_pixels_of_the_output(path, stars, blocks, own)
    elif version == 4 and _DETECTOR in stars and context.list_pixel is None and context.unit is None:
        context = replace(context, list_pixel=_by_tomogram(path, stars, *_detector(path, stars)))
    return context


def _of_relion3(path: Path, stars: pd.DataFrame, given: Context, context: Context) -> Context:
    """Find the pixel of RELION 3's coordinates, whose size may be in the file."""
    if given.in_pixels or given.list_pixel is not None or given.unit is not None:
        return context
    if given.pixel_size is None and context.pixel_size is not None:
        return replace(context, in_pixels=True)  # a file that this program wrote
    stated = [_by_tomogram(path, stars, *statement) for statement in _statements(path, stars)]
    for other in stated[1:]:
        first = next((name for name in other if _differ(other[name], stated[0][name])), None)
        if first is not None:
            raise InputError(
                f"{path} states two pixel sizes, {stated[0][first]:g} and {other[first]:g} Å; say which its "
                f"coordinates count in (`from_pixel_size`)"
            )
    if not stated:
        _refuse_sizes_of_others(path, stars, given)
        return context
    for name, size in stated[0].items():
        if given.voxel_size is not None and _differ(size, given.voxel(name)):
            raise InputError(
                f"{path} may count in its stated pixels of {size:g} Å or in voxels of "
                f"{given.voxel(name):g} Å; say which (`from_pixel_size={size:g}`, or `unit=voxels`)"
            )
    return replace(context, list_pixel=stated[0])


def _refuse_sizes_of_others(path: Path, stars: pd.DataFrame, given: Context) -> None:
    """Refuse a table that only says the pixels of its images, or of the micrographs before them."""
    for column in (IMAGE_PIXEL, _ORIGINAL):
        if column not in stars:
            continue
        for name, size in _by_tomogram(path, stars, column).items():
            if given.voxel_size is None:
                raise InputError(
                    f"{path} states a {column} of {size:g} Å, and its coordinates may count in that or in "
                    f"voxels of the tomogram {name!r}; say which (`from_pixel_size={size:g}`, or "
                    "`unit=voxels` with `voxel_size`)"
                )
            if _differ(size, given.voxel(name)):
                raise InputError(
                    f"{path} may count in pixels of {size:g} Å ({column}) or in voxels of "
                    f"{given.voxel(name):g} Å; say which (`from_pixel_size={size:g}`, or `unit=voxels`)"
                )


def _statements(path: Path, stars: pd.DataFrame) -> list[tuple[str, NDArray[np.float64]]]:
    """Return the pixel sizes in Å in a table of RELION 3, with the names of their columns."""
    found = [_detector(path, stars)] if _DETECTOR in stars else []
    for name in ("rlnPixelSize", "rlnMicrographPixelSize"):
        if name in stars:
            found.append((name, star.numbers(path, stars, [name])[:, 0]))
    return found


def _detector(path: Path, stars: pd.DataFrame) -> tuple[str, NDArray[np.float64]]:
    size = star.numbers(path, stars, [_DETECTOR])[:, 0]
    if _MAGNIFICATION in stars:
        with np.errstate(divide="ignore", invalid="ignore"):
            size = size * 1e4 / star.numbers(path, stars, [_MAGNIFICATION])[:, 0]
    return _DETECTOR, size


def _by_tomogram(
    path: Path, stars: pd.DataFrame, column: str, values: NDArray[np.float64] | None = None
) -> dict[str, float]:
    """Return the size of every tomogram from a column: above 0 and equal for all of its particles."""
    values = star.numbers(path, stars, [column])[:, 0] if values is None else values
    sizes: dict[str, float] = {}
    for name, value in zip(stars[TOMOGRAM], values, strict=True):
        size = float(value)
        if not (np.isfinite(size) and size > 0):
            raise InputError(
                f"{path}: {column} of the tomogram {name!r} is {size:g}; correct it, or give the size"
            )
        if _differ(sizes.setdefault(name, size), size):
            raise InputError(
                f"{path}: {column} of the tomogram {name!r} is {sizes[name]:g} and {size:g}; say which"
            )
    return sizes


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _SAME * one


def _refuse_pixels_of_the_output(
    path: Path, stars: pd.DataFrame, blocks: Mapping[str, pd.DataFrame], own: str
) -> None:
    general = blocks.get("general")
    stacks = general is not None and STACKS in general and str(general[STACKS].iloc[0]) == "1"
    if not stacks and not any(str(name).endswith(".tomostar") for name in stars[TOMOGRAM]):
        return
    pixel = star.numbers(path, stars, [own])[:, 0]
    output = pixel
    if IMAGE_PIXEL in stars:
        output = star.numbers(path, stars, [IMAGE_PIXEL])[:, 0]
    elif BINNING in stars:
        output = pixel * star.numbers(path, stars, [BINNING])[:, 0]
    for one, other in zip(pixel, output, strict=True):
        if _differ(one, other):
            raise InputError(
                f"{path} may count in unbinned pixels of {one:g} Å, as RELION does, or in pixels of its "
                f"images of {other:g} Å, as WarpTools wrote them up to 2.0.0dev39; say which "
                f"(`from_pixel_size={one:g}` or `from_pixel_size={other:g}`)"
            )


def _refuse_shares(path: Path, stars: pd.DataFrame, given: Context) -> None:
    """Refuse coordinates between 0 and 1, which may be shares as in Warp's template matching."""
    if given.in_pixels or not len(stars):
        return
    index = star.numbers(path, stars, PIXELS)
    if all_shares(index):
        raise InputError(
            f"the coordinates of {path} all lie between 0 and 1: they may be shares of the tomogram's edges, "
            "as Warp's template matching writes them, or pixels; say which (`unit=shares` with `voxel_size` "
            "and `shape`, or `unit=voxels`)"
        )


def _with_stated_sizes(path: Path, block: pd.DataFrame | None, context: Context) -> Context:
    """Use the sizes that this program wrote into the file, unless the user gave others."""
    if block is None or TOMOGRAM not in block:
        return context
    rows = block.to_dict("records")

    def stated(names: Sequence[str]) -> dict[str, Any] | None:
        if not set(names) <= set(block.columns):
            return None
        values = star.numbers(path, block, names)
        known = [bool(np.isfinite(row).all()) for row in values]
        if len(names) == 1:
            sizes: list[Any] = [float(value) for value in values[:, 0]]
        else:
            sizes = [
                tuple(int(size) for size in reversed(row)) if ok else ()
                for row, ok in zip(values, known, strict=True)
            ]
        return {
            str(row[TOMOGRAM]): size for row, size, ok in zip(rows, sizes, known, strict=True) if ok
        } or None

    known: dict[str, Any] = {}
    for key, names in (
        ("voxel_size", ["tlVoxelSize"]),
        ("pixel_size", ["tlPixelSize"]),
        ("shape", _SIZES),
        ("unbinned_shape", [size.replace("Size", "Unbinned") for size in _SIZES]),
    ):
        if getattr(context, key) is None:
            known[key] = stated(names)
    context = replace(context, **known)
    if "tlBinningKind" in block and rows and rows[0]["tlBinningKind"] in ("fourier", "box"):
        context = replace(context, binning_kind=rows[0]["tlBinningKind"])
    return context


def describe(tomograms: Sequence[str], context: Context) -> pd.DataFrame:
    """Describe every tomogram, so that the file can be read without further options."""
    described: dict[str, Any] = {}

    def add(columns: Sequence[str], known: Any, value: Any) -> None:
        if known is not None and all(not isinstance(known, Mapping) or name in known for name in tomograms):
            rows = np.array([value(name) for name in tomograms]).reshape(-1, len(columns))
            described.update(as_columns(columns, rows))

    follows = context.binning is not None
    add(["tlVoxelSize"], context.voxel_size or (context.pixel_size if follows else None), context.voxel)
    add(["tlPixelSize"], context.pixel_size or (context.voxel_size if follows else None), context.unbinned)
    add(_SIZES, context.shape, lambda name: context.size(name).astype(np.int64))
    unbinned = context.unbinned_shape
    add(
        [size.replace("Size", "Unbinned") for size in _SIZES],
        unbinned,
        lambda name: np.array(unbinned[name] if isinstance(unbinned, Mapping) else unbinned)[::-1],
    )
    if context.binning_kind != "fourier":
        described["tlBinningKind"] = [context.binning_kind] * len(tomograms)
    described[TOMOGRAM] = list(tomograms)
    return pd.DataFrame(described)


def split_optics(
    particles: pd.DataFrame, tomograms: pd.Series[Any], context: Context, more: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Make RELION's optics table, one group per pixel size unless the particles have groups already.

    ``more`` are columns from the optics of the source file.
    """
    riding = [name for name in particles if name in OPTICS or name in more]
    if not riding and not context.optics:
        return particles, None
    known = particles[riding].copy()
    for name, value in context.optics.items():
        if name not in known:
            known[name] = value
    if TILT_SERIES_PIXEL not in known and (context.pixel_size is not None or context.binning is not None):
        known[TILT_SERIES_PIXEL] = [context.unbinned(name) for name in tomograms]
    if GROUP in particles:
        known.insert(0, GROUP, particles[GROUP])
    groups = known.drop_duplicates().reset_index(drop=True)
    if GROUP not in groups:
        groups.insert(0, GROUP, range(1, len(groups) + 1))
        particles = particles.assign(
            **{GROUP: known.merge(groups, on=list(known.columns), how="left")[GROUP].to_numpy()}
        )
    if "rlnOpticsGroupName" not in groups:
        groups["rlnOpticsGroupName"] = [f"opticsGroup{k}" for k in groups[GROUP]]
    if groups[GROUP].duplicated().any():
        return particles, None  # values that differ within a group stay with the particles
    return particles.drop(columns=riding), groups
