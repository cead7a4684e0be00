"""TIFF stacks of ImageJ, IMOD and tifffile: one image for each plane along z."""

from __future__ import annotations

import contextlib
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import user_warnings
from catalogs.errors import InputError
from catalogs.storage.unpacking import Packed, unpacks_within
from catalogs.volumes.lazy import Box, LazyArray
from catalogs.volumes.source import RawArray, Source, explained
from catalogs.volumes.units import angstroms_in
from catalogs.volumes.volume import Volume, cube

SUFFIXES = (".tif", ".tiff")
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: TIFF's number of a compression -> how it is packed. All others tifffile unpacks into the size of a plane.
_PACKERS = {8: "zlib", 32946: "zlib", 50013: "zlib", 34925: "lzma", 50000: "zstd"}
_ROOM = 1 << 16  # bytes
_NO_DEPTH = {"C": "channels", "T": "of different times"}
_LONGEST = 1 << 20  # pixels along an axis
_LARGEST_PLANE = 1 << 32  # bytes

_RESOLUTION_UNITS = {2: 2.54e8, 3: 1e8}  # Å in an inch and in a centimetre
_LARGEST = 1000.0  # Å; larger values are the resolution of a printer


class TiffArray(LazyArray):
    """Planes of a TIFF file, decoded one at a time."""

    def __init__(self, source: Source, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._source, self._size = source, source.size()
        self.shape, self.dtype = shape, dtype

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box; whole planes are decoded."""
        out = np.empty([part.stop - part.start for part in box], self.dtype)
        with self._source.not_shorter_than(self._size), _opened(self._source) as file:
            pages = file.series[0].pages
            for k in range(box[0].start, box[0].stop):
                _check_plane(pages[k], self._source, f"plane {k} of {self._source.url}")
                try:
                    out[k - box[0].start] = pages[k].asarray()[box[1], box[2]]
                except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
                    raise InputError(
                        f"plane {k} of {self._source.url} cannot be read ({error}); write it without"
                        " compression"
                    ) from error
        return out


def _check_plane(page: Any, source: Source, what: str) -> None:
    """Refuse a plane with a strip or tile that is not all there or would unpack to too much (InputError).

    tifffile puts zeros where a strip is missing.
    """
    packer = _PACKERS.get(int(page.compression))
    page = page.aspage()  # some of a series are read only in part
    edges = page.chunks if page.is_tiled else (page.rowsperstrip or page.imagelength, page.imagewidth)
    most = math.prod(edges) * page.dtype.itemsize * page.samplesperpixel + _ROOM
    size = source.size()
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset + count > size:
            raise InputError(f"{what} is cut off; copy the data again")
        if packer is not None and not unpacks_within(packer, Packed(source.read(offset, count)), most):
            raise InputError(
                f"{what} would unpack to more than it can have: it is damaged, or made to fill the memory; "
                "get the data again"
            )


def open_tiff(source: Source, text: str, name: str, voxel_size: float | None = None) -> Volume:
    """Open a TIFF stack without reading its voxels; see :func:`catalogs.volumes.mrc.open_mrc`."""
    with _opened(source) as file:
        if not _whole(file, source):
            raise InputError(f"{text} is cut off; copy it again")
        try:
            series = file.series[0]
            shape, dtype = tuple(int(n) for n in series.shape), np.dtype(series.dtype)
        except (IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{text} is not a TIFF file that can be read ({error}); copy it again"
            ) from error
        if len(file.series) > 1:
            raise InputError(f"{text} is not one volume: its images differ in size or type")
        if len(shape) != 3 or "S" in series.axes:
            raise InputError(
                f"{text} is not one volume: it has the axes {series.axes} of sizes"
                f" {' x '.join(map(str, shape))}; give a stack of grey images, one for each plane"
            )
        if series.axes[0] in _NO_DEPTH:
            user_warnings.warn(
                f"{text} says that its images are {_NO_DEPTH[series.axes[0]]}; they are taken for the planes "
                "of a volume"
            )
        if dtype.kind not in "iuf":
            raise InputError(f"{text} holds {dtype}; a volume has real numbers")
        if max(shape) > _LONGEST or math.prod(shape[1:]) * dtype.itemsize > _LARGEST_PLANE:
            raise InputError(f"{text} is not a volume: its images have {' x '.join(map(str, shape))} pixels")
        data: Any = TiffArray(source, (shape[0], shape[1], shape[2]), dtype)
        if series.dataoffset is not None:  # contiguous planes: any box can be read
            if series.dataoffset + math.prod(shape) * dtype.itemsize > source.size():
                raise InputError(f"{text} is cut off; copy it again")
            data = RawArray(source, series.dataoffset, data.shape, dtype.newbyteorder(file.byteorder))
        size = cube(text, _voxel(file)) if voxel_size is None else voxel_size
    return Volume(data=data, voxel_size=size, origin=(0.0, 0.0, 0.0), name=name)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    import tifffile

    with source.open() as raw, explained(source.url):
        try:
            # tifffile's metadata would split a stack that was written plane by plane
            with tifffile.TiffFile(raw, is_shaped=False) as file:
                yield file
        except (tifffile.TiffFileError, struct.error) as error:
            raise InputError(
                f"{source.url} is not a TIFF file that can be read ({error}); copy it again"
            ) from error


def _whole(file: Any, source: Source) -> bool:
    """Return whether the chain of pages is complete and the last page has its voxels.

    tifffile treats a broken chain as a shorter one.
    """
    size, layout = source.size(), file.tiff
    if not len(file.pages):
        return False
    last = file.pages[len(file.pages) - 1]
    n = source.read(last.offset, layout.tagnosize)
    entries = int.from_bytes(n, "little" if file.byteorder == "<" else "big") if n else 0
    end = last.offset + layout.tagnosize + entries * layout.tagsize
    following = source.read(end, layout.offsetsize)
    if len(following) < layout.offsetsize or any(following):
        return False
    strips = zip(last.dataoffsets, last.databytecounts, strict=False)
    return all(offset + count <= size for offset, count in strips)


def _voxel(file: Any) -> tuple[float, float, float]:
    """Return the edges (z, y, x) of the voxel in Å, 0 if unknown.

    ImageJ states a unit and the distance of planes, OME a size for each axis. For plain files the resolution
    is used if it can be a microscope's, because many programs write that of a printer.
    """
    page = file.pages[0]
    per = [_ratio(page.tags.get(tag)) for tag in ("YResolution", "XResolution")]
    y, x = (1 / value if value else 0.0 for value in per)
    if file.is_imagej:
        meta = file.imagej_metadata or {}
        unit = str(meta.get("unit", "")).replace("\\u00B5", "µ").replace("\\u00C5", "Å").strip()
        factor = angstroms_in(unit)
        if factor is None:
            return (0.0, 0.0, 0.0)
        z = float(meta.get("spacing", x))
        return (z * factor, y * factor, x * factor)
    if file.is_ome:
        return _ome_voxel(str(file.ome_metadata))
    unit_tag = page.tags.get("ResolutionUnit")
    factor = _RESOLUTION_UNITS.get(int(unit_tag.value) if unit_tag is not None else 2)
    if factor is None or not 0 < x * factor <= _LARGEST:
        return (0.0, 0.0, 0.0)
    return (x * factor, y * factor, x * factor)  # the distance of the planes is unknown


def _ome_voxel(xml: str) -> tuple[float, float, float]:
    sizes = []
    for axis in "ZYX":
        size = re.search(rf'PhysicalSize{axis}="([-+.\deE]+)"', xml)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', xml)
        factor = angstroms_in(unit[1] if unit else "µm")
        sizes.append(float(size[1]) * factor if size and factor else 0.0)
    return (sizes[0], sizes[1], sizes[2])


def _ratio(tag: Any) -> float:
    if tag is None:
        return 0.0
    above, below = tag.value
    return above / below if below else 0.0
