"""Particle tables as RELION 5 STAR files.

RELION 5 counts in Å from the centre of the tomogram, and its extraction takes that centre to be half of
the size, counted from the centre of voxel 0: ``x_centred = x - n_x / 2 * voxel_size`` (tomogram_set.cpp
and particle_set.cpp of RELION 5.0; its Python picker differs by one pixel). Eulers are intrinsic ZYZ of
the rotation tomogram -> particle.

The files have no ``data_optics`` block: RELION then takes voltage, pixel size and so on from the
tomograms that the particles are joined with. Blocks and columns that begin with ``tl`` are this program's
own; RELION keeps such columns and does not look at such blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.particles import COLUMNS, DISTRACTOR, Shape, VoxelSize, make
from catalogs.schema import ClassInfo

_CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
_EULERS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
_SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
_ORIGIN = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
_SCORE = "rlnAutopickFigureOfMerit"
_PARTICLE_NAME = "rlnTomoParticleName"

# Column of the particle table -> of the STAR file, where the value is the same.
_SAME = {
    "tomogram": "rlnTomoName",
    "label": "rlnClassNumber",
    "class_name": "tlClassName",
    "instance": "tlInstance",
    "structure": "tlStructure",
    "variant": "tlVariant",
}
_TEXT = ["rlnTomoName", _PARTICLE_NAME, "tlClassName", "tlStructure"]
_TOMOGRAMS = "tl_tomograms"
_CLASSES = "tl_classes"
_SIZES = ["tlSizeX", "tlSizeY", "tlSizeZ"]

_HEADER = """\
# RELION 5 particles, written by template-learning
# centre of the tomogram: size/2, as RELION 5 extracts; coordinates = centred + size/2 * voxel size
"""


def format_star(
    table: pd.DataFrame, *, voxel_size: VoxelSize, shape: Shape, classes: Sequence[ClassInfo] = ()
) -> str:
    """Write a particle table as the text of a STAR file.

    Parameters
    ----------
    table
        See :data:`catalogs.particles.COLUMNS`.
    voxel_size, shape
        Of the tomograms in Å and voxels (z, y, x), one for all or by name.
    classes
        Written as an own block, for their radii.

    Raises
    ------
    InputError
        If a tomogram has no size here, or a name has characters that a STAR file cannot hold.
    """
    names = list(dict.fromkeys(table["tomogram"]))
    sizes = {name: _size_of(name, voxel_size, shape) for name in names}
    xyz = table[["x", "y", "z"]].to_numpy(np.float64) - _centres(table["tomogram"], sizes)

    columns: dict[str, Any] = dict(zip(_CENTRED, xyz.T, strict=True))
    # Numbers come first in each line: a line that begins with data_ or _ would end the block.
    columns |= dict(zip(_EULERS, _eulers(table).T, strict=True))
    if table["score"].notna().any():
        columns[_SCORE] = table["score"]
    for ours, theirs in _SAME.items():
        columns[theirs] = table[ours]
    order = table.groupby("tomogram").cumcount() + 1
    columns[_PARTICLE_NAME] = [f"{name}/{k}" for name, k in zip(table["tomogram"], order, strict=True)]
    for name in table.columns:
        if name not in COLUMNS and name not in columns:
            columns[name] = table[name]

    blocks = {"particles": pd.DataFrame(columns, index=table.index), _TOMOGRAMS: _describe(sizes)}
    if classes:
        blocks[_CLASSES] = pd.DataFrame(
            {
                "tlLabel": [info.label for info in classes],
                "tlRadius": [info.radius for info in classes],
                "tlClassName": [info.name for info in classes],
            }
        )
    for block in blocks.values():
        _refuse_what_star_cannot_hold(block)
    text = starfile.to_string(blocks, float_format="%.12g", na_rep="nan")
    # starfile's first line holds the time of day: the same particles would never give the same file.
    return _HEADER + "".join(text.splitlines(keepends=True)[1:])


def read(path: Path, *, voxel_size: VoxelSize | None = None, shape: Shape | None = None) -> pd.DataFrame:
    """Read the particles of a RELION 5 STAR file.

    Origin shifts and subtomogram orientations are applied as RELION applies them. Columns that have no
    place in the particle table are kept under RELION's names.

    Parameters
    ----------
    path
        Of the file.
    voxel_size, shape
        Of the tomograms in Å and voxels (z, y, x), one for all or by name; not needed for files that
        this program wrote, and stronger than what stands in them.

    Raises
    ------
    InputError
        If it holds no RELION 5 particles, or the size of a tomogram is not known.
    """
    blocks = _blocks(path)
    stars = blocks.get("particles", next(iter(blocks.values())) if len(blocks) == 1 else None)
    if not isinstance(stars, pd.DataFrame) or not set(_CENTRED) <= set(stars.columns):
        raise InputError(
            f"{path} holds no RELION 5 particles: a block 'particles' with {_CENTRED[0]}, Y and Z is needed"
        )
    n = len(stars)
    tomograms = stars["rlnTomoName"] if "rlnTomoName" in stars else pd.Series([""] * n, dtype=object)
    stated = _stated_sizes(blocks.get(_TOMOGRAMS))
    sizes = {}
    for name in dict.fromkeys(tomograms):
        if voxel_size is None and shape is None and name in stated:
            sizes[name] = stated[name]
        elif voxel_size is None or shape is None:
            raise InputError(
                f"{path} counts from the centre of the tomogram {name!r}; give its voxel size and shape"
            )
        else:
            sizes[name] = _size_of(name, voxel_size, shape)

    subtomogram, particle = _rotation(stars, _SUBTOMOGRAM), _rotation(stars, _EULERS)
    xyz = _numbers(path, stars, _CENTRED) + _centres(tomograms, sizes)
    if set(_ORIGIN) <= set(stars.columns):
        xyz -= subtomogram.apply(_numbers(path, stars, _ORIGIN)) if n else 0.0
    quaternions = (subtomogram * particle).as_quat() if n else np.zeros((0, 4))

    columns: dict[str, Any] = dict(zip("xyz", xyz.T, strict=True))
    columns |= dict(zip(("qx", "qy", "qz", "qw"), quaternions.T, strict=True))
    if _SCORE in stars:
        columns["score"] = stars[_SCORE]
    for ours, theirs in _SAME.items():
        if theirs in stars:
            columns[ours] = stars[theirs]
    if "class_name" not in columns and "label" in columns:
        columns["class_name"] = [DISTRACTOR if k == 0 else f"class{k}" for k in columns["label"]]
    ours_only = {*_CENTRED, *_EULERS, *_SUBTOMOGRAM, *_ORIGIN, _SCORE, _PARTICLE_NAME, *_SAME.values()}
    columns |= {str(name): stars[name] for name in stars if name not in ours_only}
    try:
        return make(**columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_classes(path: Path) -> list[ClassInfo]:
    """Read the classes that this program wrote beside the particles; none if there are none."""
    block = _blocks(path).get(_CLASSES)
    if not isinstance(block, pd.DataFrame):
        return []
    return [
        ClassInfo(name=str(row["tlClassName"]), label=int(row["tlLabel"]), radius=float(row["tlRadius"]))
        for row in block.to_dict("records")
    ]


def _blocks(path: Path) -> dict[str, Any]:
    try:
        blocks: dict[str, Any] = starfile.read(path, always_dict=True, parse_as_string=_TEXT)
    except Exception as error:  # starfile lets anything through that its parts raise
        raise InputError(f"{path} is not a STAR file that can be read ({error})") from error
    return blocks


def _size_of(name: str, voxel_size: VoxelSize, shape: Shape) -> NDArray[np.float64]:
    """Voxel size, and voxels along x, y, z, of one tomogram."""
    try:
        voxel = voxel_size[name] if isinstance(voxel_size, Mapping) else voxel_size
        nz, ny, nx = shape[name] if isinstance(shape, Mapping) else shape
    except KeyError:
        raise InputError(
            f"the voxel size and shape of the tomogram {name!r} are not known; give them"
        ) from None
    return np.array([voxel, nx, ny, nz], np.float64)


def _centres(tomograms: pd.Series[Any], sizes: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(n, 3) what RELION takes to be the centre of each particle's tomogram, in Å."""
    return np.array([sizes[name][1:] / 2 * sizes[name][0] for name in tomograms]).reshape(-1, 3)


def _describe(sizes: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    rows = np.array(list(sizes.values())).reshape(-1, 4)
    described = pd.DataFrame({"tlVoxelSize": rows[:, 0]})
    described[_SIZES] = rows[:, 1:].astype(np.int64)
    described["rlnTomoName"] = list(sizes)
    return described


def _stated_sizes(block: Any) -> dict[str, NDArray[np.float64]]:
    if not isinstance(block, pd.DataFrame) or not {"tlVoxelSize", *_SIZES, "rlnTomoName"} <= set(
        block.columns
    ):
        return {}
    rows = block[["tlVoxelSize", *_SIZES]].to_numpy(np.float64)
    return dict(zip(block["rlnTomoName"].map(str), rows, strict=True))


def _eulers(table: pd.DataFrame) -> NDArray[np.float64]:
    """(n, 3) rot, tilt, psi in degrees."""
    if table.empty:
        return np.zeros((0, 3))
    with warnings.catch_warnings():
        # At tilt 0 and 180 only rot + psi or rot - psi is defined; scipy puts all of it into one.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        rotations = Rotation.from_quat(table[["qx", "qy", "qz", "qw"]].to_numpy(np.float64))
        return np.asarray(rotations.inv().as_euler("ZYZ", degrees=True), np.float64)


def _rotation(stars: pd.DataFrame, names: Sequence[str]) -> Rotation:
    """Rotation particle -> tomogram of every row; none where the file has no such angles."""
    if stars.empty or not set(names) <= set(stars.columns):
        return Rotation.identity(len(stars))
    return Rotation.from_euler("ZYZ", stars[list(names)].to_numpy(np.float64), degrees=True).inv()


def _numbers(path: Path, stars: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    try:
        return stars[list(names)].to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} has a value of {names[0]} or its like that is not a number ({error})"
        ) from error


def _refuse_what_star_cannot_hold(block: pd.DataFrame) -> None:
    for column in block.columns:
        if (
            not isinstance(column, str)
            or not column.isprintable()
            or set(column) & set(" #\"'")
            or not column
        ):
            raise InputError(f"a STAR file cannot hold the column name {column!r}; rename it or write .csv")
        if block[column].dtype != object:
            continue
        for value in block[column]:
            text = str(value)
            if not text.isprintable() or set(text) & set("#\"'") or text in ("nan", "NaN", "<NA>"):
                raise InputError(f"a STAR file cannot hold the name {text!r}; rename it or write .csv")
