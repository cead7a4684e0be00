"""Defines a format of particle lists, and the context that lists do not contain.

A :class:`Format` has a name, the columns that it can hold, and three functions. ``detect`` explains why a
file has this format, ``read`` turns it into a particle table, ``encode`` turns a table into bytes. Formats do
not write to the disk themselves; :mod:`catalogs.particle_formats.files` does so, completely or not at all.

A :class:`Context` has the facts that lists do not contain. Its methods convert the positions of a format to Å
of the particle table and back, for all formats.

Binning. A tomogram's voxel is ``b`` pixels of the unbinned tilt series. Fourier cropping (RELION, Warp) keeps
the centre of the first voxel at the centre of the first pixel: unbinned = i b. Averaging boxes of pixels
(IMOD's newstack and binvol) moves it to the middle of the first ``b`` pixels: unbinned = i b + (b - 1) / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError
from catalogs.file_names import file_name
from catalogs.particle_table import Shape, VoxelSize
from catalogs.schema import ClassInfo

if TYPE_CHECKING:
    from catalogs.particle_formats.sniff import SniffedFile

#: How the pixels of the tilt series were binned to voxels of the tomogram.
BinningKind = Literal["fourier", "box"]
#: RELION 5's two rules for the centre of a tomogram: size/2 in extraction, size/2 - 1 in picking.
CentreRule = Literal["extract", "picker"]
#: Unit of a list whose format allows several; shares are fractions of the tomogram's edges.
Unit = Literal["angstrom", "voxels", "shares"]
#: A position or offset in Å or voxels, along x, y, z.
Vector = tuple[float, float, float]

#: In ``Format.holds``: all columns, of any name.
EVERYTHING = "*"
#: Attribute of a particle table: notes for the user on how it was read.
NOTES = "notes"
POSITION = frozenset("xyz")
ORIENTATION = frozenset(["qx", "qy", "qz", "qw"])

#: So many particles never lie all in the first voxel.
#: So many particles never lie all in the first voxel.
SEVERAL = 3
_Value = TypeVar("_Value")

_VOLUMES = (
    *(".tomostar", ".ome.zarr", ".zarr", ".mrcs", ".mrc", ".rec", ".map", ".st", ".ali"),
    *(".hdf", ".h5", ".tiff", ".tif", ".em"),
)
_OPTIONS = {
    "voxel size": "`voxel_size`",
    "size in voxels": "`shape`",
    "pixel size of the unbinned tilt series": "`pixel_size`",
    "size in unbinned pixels": "`unbinned_shape`",
    "origin": "`volume`",
    "pixel size of the list": "`from_pixel_size`",
}


@dataclass(frozen=True)
class Context:
    """Facts that particle lists may not contain.

    Parameters
    ----------
    voxel_size, shape
        Voxel size (Å) and shape (voxels, z, y, x) of the tomograms; one for all or by name.
    pixel_size
        Å of the pixels of the unbinned tilt series, which RELION 4 and 5 and EMAN2 count in; Warp's
        ``--coords_angpix`` for a list in other pixels.
    in_pixels
        Whether lists that may count in either (Dynamo's, TOM's, IMOD's, ...) count in these pixels and
        not in the tomogram's voxels.
    binning
        Pixels per voxel: relates the two sizes.
    unit
        Unit of the list to read, if not the usual one of its format.
    list_pixel
        Pixel size in Å of the list to read, independent of the tomogram's voxels.
    unbinned_shape
        Pixels (z, y, x) of the unbinned tomogram; binning times the shape unless given. Only RELION 5
        uses it: half of it is its centre.
    binning_kind
        ``fourier`` or ``box``: how pixels were binned to voxels.
    centre
        RELION 5's centre rule; by default that of the file, else ``extract``.
    first_voxel
        Index of the first voxel in Dynamo, TOM and STOPGAP lists: 1 as in MATLAB, or 0 as in many converters.
    origin
        Å (x, y, z) of the tomogram's voxel 0 in its MRC header, which ChimeraX adds.
    tomogram
        Name of the tomogram, for lists that do not contain it.
    tomograms
        Number of a tomogram in a list -> its name.
    classes
        Names, labels and radii.
    optics
        Column of RELION's optics table -> its value, e.g. ``rlnVoltage``.
    tomograms_file
        RELION 5's tomograms.star, as an optimisation set names it.
    user, session
        Of copick picks.
    """

    voxel_size: VoxelSize | None = None
    shape: Shape | None = None
    pixel_size: VoxelSize | None = None
    in_pixels: bool = False
    binning: float | None = None
    unit: Unit | None = None
    list_pixel: VoxelSize | None = None
    unbinned_shape: Shape | None = None
    binning_kind: BinningKind = "fourier"
    centre: CentreRule | None = None
    first_voxel: int = 1
    origin: Vector | Mapping[str, Vector] = (0.0, 0.0, 0.0)
    tomogram: str | None = None
    tomograms: Mapping[int, str] = field(default_factory=dict)
    classes: tuple[ClassInfo, ...] = ()
    optics: Mapping[str, float] = field(default_factory=dict)
    tomograms_file: str | None = None
    user: str = "tlpick"
    session: str = "0"

    def __post_init__(self) -> None:
        """Refuse impossible sizes from any source."""
        for what, value in [
            ("voxel size", self.voxel_size),
            ("pixel size of the unbinned tilt series", self.pixel_size),
            ("pixel size of the list", self.list_pixel),
            ("binning", self.binning),
        ]:
            named = value.items() if isinstance(value, Mapping) else [("", value)]
            for name, size in named:
                if size is not None and not (np.isfinite(size) and size > 0):
                    of = f" of the tomogram {name!r}" if name else ""
                    raise InputError(f"a {what} of {size:g}{of} is impossible; it must be above 0")

    def voxel(self, name: str) -> float:
        """Return the voxel size of one tomogram in Å."""
        if self.voxel_size is None and self.binning is not None and self.pixel_size is not None:
            return self.unbinned(name) * self.binning
        if self.voxel_size is None and self.binning is not None:
            raise InputError(
                f"`binning` needs the voxel size of the tomogram {name!r}; give it (`voxel_size`)"
            )
        return float(_known("voxel size", self.voxel_size, name))

    def stating(self, path: Path, sizes: Mapping[str, float], where: str) -> Context:
        """Take the voxel sizes that a list states, where none are given.

        Parameters
        ----------
        path
            Path of the list, for errors.
        sizes
            Å of a voxel of each of its tomograms; 1 is what programs write that do not know it.
        where
            What in the list states them.

        Raises
        ------
        InputError
            If another size of a tomogram is given, and nothing says which of them the list counts in.
        """
        if self.in_pixels or self.list_pixel is not None or self.unit is not None:
            return self
        known: dict[str, float] = {}
        for name, size in sizes.items():
            if size == 1:
                continue
            if not (np.isfinite(size) and size > 0):
                raise InputError(
                    f"{path}: a voxel size of {size:g} Å of the tomogram {name!r}, as {where}, is "
                    "impossible; it must be above 0; correct it there, or give `unit=voxels`"
                )
            try:
                given = self.voxel(name)
            except InputError:
                known[name] = size
                continue
            if abs(given - size) > 0.01 * size:
                raise InputError(
                    f"{path} may count in the voxels of {size:g} Å that {where}, or in the voxels of "
                    f"{given:g} Å of the tomogram {name!r}; say which (`from_pixel_size={size:g}`, or "
                    "`unit=voxels`)"
                )
        if not known:
            return self
        return replace(self, voxel_size={**(self.voxel_size or {}), **known})  # type: ignore[dict-item]

    def pixel(self, name: str) -> float:
        """Return the unit of a list in Å: a voxel of the tomogram, or a pixel of the tilt series."""
        if self.list_pixel is not None:
            return float(_known("pixel size of the list", self.list_pixel, name))
        return self.unbinned(name) if self.in_pixels else self.voxel(name)

    def unbinned(self, name: str) -> float:
        """Return the pixel size in Å of the unbinned tilt series of one tomogram."""
        if self.pixel_size is None and self.binning is not None:
            return self.voxel(name) / self.binning
        size = float(_known("pixel size of the unbinned tilt series", self.pixel_size, name))
        if self.binning is not None and self.voxel_size is not None:
            voxel = self.voxel(name)
            if abs(voxel - self.binning * size) > 0.01 * voxel:
                raise InputError(
                    f"pixels of {size:g} Å and a binning of {self.binning:g} do not make the voxels of "
                    f"{voxel:g} Å that the tomogram {name!r} has; leave one out (`binning`)"
                )
        return size

    def size(self, name: str) -> NDArray[np.float64]:
        """Return the number of voxels of one tomogram along x, y, z."""
        return np.array(_known("size in voxels", self.shape, name)[::-1], np.float64)

    def shift(self, name: str) -> float:
        """Return the distance in Å from the centre of the first pixel to that of the first voxel."""
        return 0.0 if self.binning_kind == "fourier" else (self.voxel(name) - self.unbinned(name)) / 2

    def centre_of(self, name: str, rule: CentreRule) -> NDArray[np.float64]:
        """Return the position (x, y, z) in Å of RELION 5's centre of one tomogram."""
        if self.unbinned_shape is not None:
            shape = _known("size in unbinned pixels", self.unbinned_shape, name)
            half = np.array(shape[::-1], np.float64) / 2 * self.unbinned(name)
        else:
            half = self.size(name) / 2 * self.voxel(name)
        return half - self.shift(name) - (self.unbinned(name) if rule == "picker" else 0.0)

    def to_angstrom(
        self, index: NDArray[np.float64], tomograms: Sequence[str], first: float | Vector = 0.0
    ) -> NDArray[np.float64]:
        """Convert positions in pixels, (n, 3), to Å; ``first`` is the index of the first pixel's centre."""
        index = np.asarray(index, np.float64).reshape(-1, 3)
        if self.unit == "angstrom":
            return index
        if self.unit is None and len(index) >= SEVERAL and all_shares(index):
            raise InputError(
                "its coordinates all lie between 0 and 1: they may be shares of the tomogram's edges, or "
                "voxels; say which (`unit=shares` with `voxel_size` and `shape`, or `unit=voxels`)"
            )
        if self.unit == "shares":
            edges = {name: self.size(name) * self.voxel(name) for name in dict.fromkeys(tomograms)}
            return index * np.array([edges[name] for name in tomograms]).reshape(-1, 3)
        step, shift = self._steps(tomograms)
        return (index - np.asarray(first)) * step - shift

    def to_pixels(self, table: pd.DataFrame, first: float | Vector = 0.0) -> NDArray[np.float64]:
        """Convert the positions of a table to pixels, (n, 3)."""
        step, shift = self._steps(list(table["tomogram"]))
        return (positions(table) + shift) / step + np.asarray(first)

    def _steps(self, tomograms: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        known = {
            name: (self.pixel(name), self.shift(name) if self.in_pixels else 0.0)
            for name in dict.fromkeys(tomograms)
        }
        rows = np.array([known[name] for name in tomograms], np.float64).reshape(-1, 2)
        return rows[:, :1], rows[:, 1:]

    def origin_of(self, name: str) -> NDArray[np.float64]:
        """Return the origin in Å in the header of one tomogram."""
        return np.array(_known("origin", self.origin, name), np.float64)

    def name_of(self, path: Path) -> str:
        """Return the tomogram's name for a list without names: as given, else from the file name."""
        return path.stem if self.tomogram is None else self.tomogram

    def radius_of(self, class_name: str) -> float | None:
        """Å; None if it is not known."""
        return next((info.radius for info in self.classes if info.name == class_name), None)


@dataclass(frozen=True)
class Format:
    """A format of particle lists.

    Parameters
    ----------
    name, title
        Name for the command line, and title for people.
    suffixes
        Suffixes of its files.
    holds
        Columns of the particle table that the format can hold; :data:`EVERYTHING` for all.
    detect
        Function that explains why a file has this format; None if it does not.
    read
        Function that reads the particle table of a file.
    encode
        Function that returns path -> content of the files for a table; it gets the path of the list.
    learn
        Function that adds to the context what a file states about its tomograms.
    default_for
        Suffixes that select this format for writing.
    one_tomogram
        Whether a file contains one tomogram.
    one_class
        Whether a file also contains one class.
    numbers_tomograms
        Whether it identifies tomograms only by number.
    rounding
        Largest rounding error of a coordinate, in pixels of the list.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    holds: frozenset[str]
    detect: Callable[[SniffedFile], str | None]
    read: Callable[[Path, Context], pd.DataFrame]
    encode: Callable[[pd.DataFrame, Path, Context], dict[Path, bytes]]
    learn: Callable[[Path, Context], Context] = lambda _path, context: context
    default_for: tuple[str, ...] = ()
    one_tomogram: bool = False
    one_class: bool = False
    numbers_tomograms: bool = False
    rounding: float = 0.001


def all_shares(index: NDArray[np.float64]) -> bool:
    """Whether all coordinates lie between 0 and 1, and not only on them."""
    return bool(len(index) and (index >= 0).all() and (index <= 1).all() and (index % 1 != 0).any())


def positions(table: pd.DataFrame) -> NDArray[np.float64]:
    """(n, 3) Å."""
    return table[["x", "y", "z"]].to_numpy(np.float64)


def as_columns(names: Sequence[str], values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Name the columns of an (n, k) array."""
    return dict(zip(names, np.asarray(values).reshape(-1, len(names)).T, strict=True))


def has_orientations(table: pd.DataFrame) -> bool:
    """Return whether any particle is rotated."""
    return bool((table[["qx", "qy", "qz"]].to_numpy(np.float64) != 0).any())


def one_of(table: pd.DataFrame, column: str, what: str, path: Path) -> str:
    """Return the only value of a column, for lists of one tomogram or class; empty without rows."""
    values = list(dict.fromkeys(table[column]))
    if len(values) > 1:
        raise InputError(
            f"{path.name} would be of one {what}, but the particles are of {len(values)} "
            f"({', '.join(values[:3])}{', ...' if len(values) > 3 else ''}); "
            "give a folder to write one file for each"
        )
    return str(values[0]) if values else ""


def in_a_path(name: str) -> str:
    """Turn a name into a part of a path; see :func:`catalogs.file_names.file_name`."""
    return file_name(name)


def stem(path: str) -> str:
    """Return the name of the tomogram in a file, without folders and suffixes of volumes."""
    name = PurePath(path.replace("\\", "/")).name.removesuffix(".gz")
    for ending in _VOLUMES:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name or path


def _known(what: str, value: _Value | Mapping[str, _Value] | None, name: str) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            value = value[name]
        else:  # Warp's lists call TS_1 TS_1.tomostar
            like = [known for other, known in value.items() if stem(other) == stem(name)]
            value = like[0] if len(like) == 1 else None
    if value is None:
        tomogram = f"tomogram {name!r}" if name else "tomogram"
        raise InputError(f"the {what} of the {tomogram} is not known; give it ({_OPTIONS[what]})")
    return value
