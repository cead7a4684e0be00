"""Writes MRC files block by block, completely or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from catalogs.errors import InputError
from catalogs.private_folders import scratch_folder
from catalogs.volumes.mrc import HEADER_BYTES, LABEL
from catalogs.volumes.slabs import Voxels, voxels
from catalogs.volumes.volume import Binning, Contrast

#: Type of a voxel -> type in MRC, lossless except for float64.
_WRITTEN = {"i1": "i1", "b1": "i1", "i2": "i2", "u1": "u2", "u2": "u2", "f2": "f2", "f4": "f4", "f8": "f4"}
_MODES = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}


def write_mrc(
    path: str | os.PathLike[str],
    data: Any,
    voxel_size: float | None,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    contrast: Contrast | None = None,
    binning: Binning | None = None,
    shape: tuple[int, int, int] | None = None,
    dtype: DTypeLike | None = None,
) -> None:
    """Write an MRC file completely or not at all, with a bounded part of the volume in memory.

    Parameters
    ----------
    path
        Path or fsspec URL; the suffix ``.gz`` compresses the file. An existing file is replaced. For URLs,
        the file is first written to the folder for temporary files (``TMPDIR``).
    data
        (z, y, x): a volume, an array that takes slices (NumPy, Zarr, Dask, ...), or an iterable of slabs
        (planes, y, x) or planes (y, x). int8, int16, uint16, float16 and float32 are written as they are,
        uint8 as uint16, which is what MRC has, and float64 as float32.
    voxel_size
        Å, for the header; None (written as 0) if it is unknown.
    origin
        Position of the centre of voxel 0, (x, y, z) in Å.
    contrast, binning
        Known facts, as in :class:`~catalogs.volumes.volume.Volume`; stored in a label.
    shape, dtype
        Needed for an iterable; ``dtype`` converts an array.

    Raises
    ------
    InputError
        If MRC has no mode for the type.
    ValueError
        If the data do not fit the shape.
    """
    given = voxels(data, shape, dtype)
    kind = _WRITTEN.get(given.dtype.str[1:])
    if kind is None:
        raise InputError(f"MRC cannot hold {given.dtype}; convert it to float32 or int16")
    labels = _labels(contrast, binning)
    text = os.fspath(path).removeprefix("file://")
    with _finished(text) as unfinished, open(unfinished, "wb") as raw:
        _write(raw, given, np.dtype(f"<{kind}"), voxel_size or 0.0, origin, labels)


def _write(
    raw: BinaryIO,
    given: Voxels,
    dtype: np.dtype[Any],
    voxel_size: float,
    origin: tuple[float, float, float],
    labels: list[str],
) -> None:
    raw.write(bytes(HEADER_BYTES))
    least, most, total, squares, n = np.inf, -np.inf, 0.0, 0.0, 0
    row = given.shape[2] * dtype.itemsize
    for (z, y, _), block in given.blocks():
        written = np.ascontiguousarray(block, dtype)
        for k, plane in enumerate(written, start=z.start):
            raw.seek(HEADER_BYTES + (k * given.shape[1] + y.start) * row)
            plane.tofile(raw)
            # in double precision, plane by plane: no copy of the block
            total += float(plane.sum(dtype=np.float64))
            squares += float(np.square(plane, dtype=np.float64).sum())
        least, most = min(least, float(written.min())), max(most, float(written.max()))
        n += written.size
    mean = total / n
    spread = float(np.sqrt(max(squares / n - mean**2, 0.0)))
    raw.seek(0)
    raw.write(_header(given.shape, dtype, voxel_size, origin, (least, most, mean, spread), labels))


def _header(
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_size: float,
    origin: tuple[float, float, float],
    statistics: tuple[float, float, float, float],
    labels: list[str],
) -> bytes:
    from mrcfile.dtypes import HEADER_DTYPE

    header = np.zeros(1, HEADER_DTYPE.newbyteorder("<"))
    h = header[0]
    nz, ny, nx = shape
    h["nx"], h["ny"], h["nz"], h["mode"] = nx, ny, nz, _MODES[dtype.str[1:]]
    h["mx"], h["my"], h["mz"] = nx, ny, nz
    h["cella"] = (nx * voxel_size, ny * voxel_size, nz * voxel_size)
    h["cellb"] = (90.0, 90.0, 90.0)
    h["mapc"], h["mapr"], h["maps"] = 1, 2, 3
    h["dmin"], h["dmax"], h["dmean"], h["rms"] = statistics
    h["ispg"], h["nversion"] = 1, 20140  # a volume, MRC2014
    h["origin"] = origin
    h["map"], h["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    h["nlabl"] = len(labels)
    for k, label in enumerate(labels):
        h["label"][k] = label.encode("ascii")[:80].ljust(80)
    return header.tobytes()


def _labels(contrast: Contrast | None, binning: Binning | None) -> list[str]:
    facts = [f"protein {contrast}"] if contrast else []
    if binning:
        facts.append(f"binned {binning.factor:g} by {binning.kind or 'unknown'}")
    return [f"{LABEL} {', '.join(facts)}"] if facts else [LABEL + " volume"]


@contextlib.contextmanager
def _finished(text: str) -> Iterator[Path]:
    """Open a file for writing; it gets its name after writing without an error."""
    from catalogs.storage.store import filesystem

    name = text.rstrip("/").rsplit("/", 1)[-1]
    hidden = f".{uuid.uuid4().hex[:8]}.{name}"
    with contextlib.ExitStack() as stack:
        if "://" in text:
            folder = stack.enter_context(scratch_folder("mrc-"))
        else:
            folder = Path(text).parent
            folder.mkdir(parents=True, exist_ok=True)
        unfinished, packed = folder / hidden, folder / f"{hidden}.packed"
        stack.callback(unfinished.unlink, missing_ok=True)
        stack.callback(packed.unlink, missing_ok=True)
        yield unfinished
        ready = unfinished
        if text.endswith(".gz"):
            # without time and name, so that the same volume gives the same file
            with (
                open(unfinished, "rb") as raw,
                open(packed, "wb") as out,
                gzip.GzipFile("", "wb", 6, out, mtime=0) as zipped,
            ):
                shutil.copyfileobj(raw, zipped, 4 * 2**20)
            ready = packed
        if "://" not in text:
            os.replace(ready, text)
            return
        try:
            fs, target = filesystem(text)
            fs.put_file(str(ready), target)
        except Exception as error:  # each storage has its own errors for "no such bucket" or "no permission"
            raise InputError(f"{text} cannot be written ({error})") from error
