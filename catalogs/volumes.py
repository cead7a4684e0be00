"""Volumes: an array (z, y, x) with its voxel size, from MRC files and OME-Zarr images, read lazily."""

from __future__ import annotations

import math
import os
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

MRC_SUFFIXES = (".mrc", ".rec", ".map", ".st")

_MRC_MODES = (0, 1, 2, 6, 12)  # 3 and 4 are complex
_SAME = 1e-3  # relative; headers hold float32, and programs round the cell
_IMOD_STAMP = 1146047817  # "IMOD"
_ANGSTROM = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4, "picometer": 0.01}


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume that is read only where it is asked for.

    Attributes
    ----------
    data
        Array-like (z, y, x): a memory map or a Zarr array.
    voxel_size
        Å; None if the file does not say (MRC: 0 or 1, which is what programs write that do not know).
    origin
        Physical place (x, y, z) of the centre of voxel 0 in Å, as the file states it.
    name
        Stem of the file, or the sample's id for a sample of a corpus.
    """

    data: Any
    voxel_size: float | None
    origin: tuple[float, float, float]
    name: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.data.shape
        return (int(z), int(y), int(x))

    def read(self, slices: tuple[slice, slice, slice] | None = None) -> NDArray[np.float32]:
        """Read the whole volume or a box of it as float32."""
        part = self.data[slices if slices is not None else (slice(None),) * 3]
        return np.ascontiguousarray(part, np.float32)


def open_volume(path: str | os.PathLike[str]) -> Volume:
    """Open a volume without reading its voxels.

    Parameters
    ----------
    path
        An MRC file (``.mrc``, ``.rec``, ``.map``, ``.st``; modes 0, 1, 2, 6 and 12, either byte order),
        or a folder or URL of an OME-Zarr image (0.4 or 0.5), of which the finest level is taken.

    Raises
    ------
    InputError
        If it is missing, is not a single real-valued volume, or its voxels are not cubes.
    """
    text = os.fspath(path)
    if text.lower().endswith(MRC_SUFFIXES):
        return _open_mrc(Path(text))
    if "://" not in text and not Path(text).exists():
        raise InputError(f"there is no volume {text}")
    if "://" not in text and not Path(text).is_dir():
        raise InputError(f"{text} is not a volume: give {', '.join(MRC_SUFFIXES)} or an OME-Zarr folder")
    return _open_zarr(text)


def write_mrc(
    path: str | os.PathLike[str],
    data: NDArray[Any],
    voxel_size: float,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write an MRC file, whole or not at all.

    Parameters
    ----------
    path
        Of the file.
    data
        (z, y, x) int8, int16, uint16, float16 or float32.
    voxel_size
        Å, for the header.
    origin
        x, y, z in Å of the centre of voxel 0, for the header.
    """
    import mrcfile

    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{uuid.uuid4().hex[:8]}.{file.name}")
    try:
        with mrcfile.new(unfinished) as mrc:
            mrc.set_data(data)
            mrc.set_volume()
            mrc.voxel_size = voxel_size
            mrc.header.origin = origin
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _open_mrc(file: Path) -> Volume:
    import mrcfile

    if not file.is_file():
        raise InputError(f"there is no volume {file}")
    try:
        with warnings.catch_warnings():
            # Many a program writes a header that is not quite to the standard; what matters is checked here.
            warnings.simplefilter("ignore")
            mrc = mrcfile.mmap(file, mode="r", permissive=True)
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is not an MRC file that can be read ({error})") from error
    header, data = mrc.header, mrc.data
    mode = int(header.mode)
    if mode not in _MRC_MODES:
        raise InputError(f"{file} has MRC mode {mode}; volumes have mode 0, 1, 2, 6 or 12")
    if data is None:
        raise InputError(f"{file} is cut off or its header is damaged; copy it again")
    if data.ndim != 3:
        raise InputError(
            f"{file} is not one volume: its array has {data.ndim} axes, give one with z, y and x"
        )
    if mode == 0 and _unsigned(header):
        data = data.view(np.uint8)
    # The header names the axis (1 x, 2 y, 3 z) that columns, rows and sections lie along.
    axes = [int(header.maps), int(header.mapr), int(header.mapc)]
    if sorted(axes) == [1, 2, 3]:
        data = np.transpose(data, [axes.index(axis) for axis in (3, 2, 1)])

    intervals = np.array([header.mz, header.my, header.mx], np.float64)
    lengths = np.array([header.cella.z, header.cella.y, header.cella.x], np.float64)
    voxel = np.divide(lengths, intervals, out=np.zeros(3), where=intervals > 0)
    return Volume(
        data=data,
        voxel_size=_cube(str(file), voxel),
        origin=(float(header.origin.x), float(header.origin.y), float(header.origin.z)),
        name=file.stem,
    )


def _unsigned(header: Any) -> bool:
    """Tell whether mode 0 means bytes from 0: IMOD stamps its files and says so in a flag."""
    order = header.mode.dtype.byteorder
    stamp, flags = np.frombuffer(header.extra2.tobytes(), np.dtype("i4").newbyteorder(order), 2, offset=40)
    return bool(stamp == _IMOD_STAMP and not flags & 1)


def _open_zarr(text: str) -> Volume:
    import zarr
    from zarr.errors import GroupNotFoundError

    from catalogs.store import zarr_store

    try:
        group = zarr.open_group(zarr_store(text), mode="r")
    except (GroupNotFoundError, FileNotFoundError, ValueError) as error:
        raise InputError(f"{text} is not an OME-Zarr image, and not {', '.join(MRC_SUFFIXES)}") from error
    attributes = dict(group.attrs)
    images: Any = attributes.get("ome", attributes)
    images = images.get("multiscales") if isinstance(images, dict) else None
    try:
        image = images[0]
        finest = image["datasets"][0]
        array = group[finest["path"]]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]
        steps = [*finest.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
        scale, shift = _affine(steps, len(axes))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(f"{text} is not an OME-Zarr image: it has no proper multiscales") from error
    names = [axis["name"] for axis in axes]
    if names != ["z", "y", "x"] or not isinstance(array, zarr.Array) or array.ndim != 3:
        raise InputError(f"{text} is not one volume: its axes are {', '.join(names)}, they must be z, y, x")
    units = [_ANGSTROM.get(axis.get("unit") or "angstrom") for axis in axes]
    if None in units:
        raise InputError(f"{text} has axes in {axes[0]['unit']}; give a volume in angstrom or nanometer")
    unit = np.array(units, np.float64)
    z, y, x = (float(value) for value in shift * unit)
    sample: Any = attributes.get("template_learning", {})
    stem = text.rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr").removesuffix(".ome")
    return Volume(
        data=array,
        voxel_size=_cube(text, scale * unit),
        origin=(x, y, z),
        name=str(sample.get("sample_id", stem)),
    )


def _affine(steps: Sequence[dict[str, Any]], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compose OME-Zarr's scales and translations, in their order."""
    scale, shift = np.ones(n), np.zeros(n)
    for step in steps:
        if step["type"] == "scale":
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation":
            shift = shift + step["translation"]
    return scale, shift


def _cube(text: str, voxel: NDArray[np.float64]) -> float | None:
    """Edge of the voxel in Å, or None where the file does not know."""
    z, y, x = (float(v) for v in voxel)
    if not all(math.isfinite(v) and v > 0 for v in (z, y, x)):
        return None
    if max(z, y, x) > (1 + _SAME) * min(z, y, x):
        raise InputError(f"the voxels of {text} are no cubes ({x:.4g} x {y:.4g} x {z:.4g} Å); resample it")
    return None if (z, y, x) == (1.0, 1.0, 1.0) else round(x, 6)
