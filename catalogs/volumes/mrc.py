"""MRC and CCP4 files: the header, and whether to believe it (MRC2014, doi:10.1016/j.jsb.2015.04.002)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catalogs.errors import InputError
from catalogs.volumes.lazy import Reordered
from catalogs.volumes.source import RawArray, Source, Unzipped
from catalogs.volumes.volume import Binning, BinningKind, Contrast, Volume, cube

SUFFIXES = (".mrc", ".rec", ".map", ".st", ".mrcs", ".ali", ".preali", ".ccp4")

HEADER_BYTES = 1024
#: MRC mode -> type of a voxel.
MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_OTHER_MODES = {3: "complex integers", 4: "complex numbers", 16: "colours", 101: "4-bit numbers"}

_IMOD_STAMP = 1146047817  # "IMOD"
_SIGNED_BYTES, _INVERTED_ORIGIN = 1, 4  # IMOD's flags

#: The line that :func:`catalogs.volumes.mrc_writer.write_mrc` puts into a header; it is read here.
LABEL = "template-learning:"


@dataclass(frozen=True)
class _Header:
    """What is needed of a header; three numbers are in the order of the file: columns, rows, sections."""

    order: str
    counts: tuple[int, int, int]
    mode: int
    starts: tuple[int, int, int]
    intervals: tuple[int, int, int]  # x, y, z
    cell: tuple[float, float, float]  # x, y, z
    angles: tuple[float, float, float]
    axes: tuple[int, int, int]
    group: int
    least: float
    most: float
    extended: int
    version: int
    origin: tuple[float, float, float]  # x, y, z
    imod: bool
    flags: int
    labels: tuple[str, ...]


def is_mrc(head: bytes) -> bool:
    """Tell from the first 1024 bytes whether a file says that it is MRC."""
    return head[208:212] == b"MAP "


def open_mrc(source: Source | Unzipped, head: bytes, text: str, name: str, *, stack: bool = False) -> Volume:
    """Open an MRC file without reading its voxels.

    Parameters
    ----------
    source
        The file.
    head
        Its first 1024 bytes, or fewer if it has fewer.
    text
        Its path or URL, for errors.
    name
        Of the volume.
    stack
        It is a stack of images, which may be one and whose distance along z means nothing.

    Raises
    ------
    InputError
        If it is no MRC file, is cut off, or the header contradicts itself or the size of the file.
    """
    header = _parse(head, text)
    dtype = _dtype(header, text)
    columns, rows, sections = header.counts
    if sections == 1 and header.group == 0 and not stack:
        raise InputError(
            f"{text} is not one volume: it is a single image of 2 axes, give one with z, y and x"
        )
    expected = HEADER_BYTES + header.extended + columns * rows * sections * dtype.itemsize
    if isinstance(source, Unzipped):  # as many bytes as the widest voxels would have
        source = replace(source, most=HEADER_BYTES + header.extended + columns * rows * sections * 16)
    _check_size(source, expected, header, text)
    array: Any = RawArray(source, HEADER_BYTES + header.extended, (sections, rows, columns), dtype)

    # The header names the axis (1 x, 2 y, 3 z) that columns, rows and sections lie along.
    along = header.axes[::-1]
    starts = dict(zip(along, header.starts[::-1], strict=True))
    if along != (3, 2, 1):
        array = Reordered(array, (along.index(3), along.index(2), along.index(1)))
    voxel = np.zeros(3)
    if min(header.intervals) > 0 and all(map(math.isfinite, header.cell)):
        voxel = np.divide(header.cell, header.intervals)
    if stack:
        voxel[2] = voxel[0]
    size = cube(text, voxel[::-1])
    return Volume(
        data=array,
        voxel_size=size,
        origin=_origin(header, tuple(starts[axis] for axis in (1, 2, 3)), size),
        name=name,
        binning=_binning(header.labels),
        contrast=_contrast(header.labels),
    )


def _parse(head: bytes, text: str) -> _Header:
    from mrcfile.dtypes import HEADER_DTYPE

    if len(head) < HEADER_BYTES:
        raise InputError(f"{text} is not an MRC file that can be read: it has no whole header; copy it again")
    order = _byte_order(head)
    if order is None:
        raise InputError(
            f"{text} is not an MRC file that can be read: its header states no possible size or mode"
        )
    raw = np.frombuffer(head, HEADER_DTYPE.newbyteorder(order))[0]
    stamp, flags = np.frombuffer(raw["extra2"].tobytes(), f"{order}i4", 2, offset=40)
    # Older files use word 28 for something else.
    version = int(raw["nversion"]) if 20140 <= int(raw["nversion"]) < 20300 else 0
    axes = (int(raw["mapc"]), int(raw["mapr"]), int(raw["maps"]))
    header = _Header(
        order=order,
        counts=(int(raw["nx"]), int(raw["ny"]), int(raw["nz"])),
        mode=int(raw["mode"]),
        starts=(int(raw["nxstart"]), int(raw["nystart"]), int(raw["nzstart"])),
        intervals=(int(raw["mx"]), int(raw["my"]), int(raw["mz"])),
        cell=_three(raw["cella"]),
        angles=(float(raw["cellb"]["alpha"]), float(raw["cellb"]["beta"]), float(raw["cellb"]["gamma"])),
        axes=(1, 2, 3) if axes == (0, 0, 0) else axes,  # programs that never set them mean x, y, z
        group=int(raw["ispg"]),
        least=float(raw["dmin"]),
        most=float(raw["dmax"]),
        extended=int(raw["nsymbt"]),
        version=version,
        origin=_three(raw["origin"]),
        imod=int(stamp) == _IMOD_STAMP,
        flags=int(flags) if int(stamp) == _IMOD_STAMP else 0,
        labels=tuple(bytes(label).decode("ascii", "replace").strip("\0 ") for label in raw["label"]),
    )
    if sorted(header.axes) != [1, 2, 3]:
        raise InputError(
            f"the header of {text} lies: columns, rows and sections along the axes {header.axes}, which must"
            " be 1, 2 and 3 in some order; repair it, e.g. with IMOD's alterheader"
        )
    if header.extended < 0:
        raise InputError(f"the header of {text} lies: {header.extended} bytes of extended header (nsymbt)")
    skew = [angle for angle in header.angles if angle != 0 and abs(angle - 90) > 0.01]
    if skew:
        raise InputError(f"the axes of {text} are not at right angles ({skew[0]:g}°); resample it")
    return header


def _three(record: Any) -> tuple[float, float, float]:
    return (float(record["x"]), float(record["y"]), float(record["z"]))


def _byte_order(head: bytes) -> str | None:
    """Find the byte order: the stamp says it, but only the size and the mode prove it."""
    stamped = ">" if head[212:213] == b"\x11" else "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        nx, ny, nz, mode = np.frombuffer(head, f"{order}i4", 4)
        if all(0 < n < 2**20 for n in (nx, ny, nz)) and 0 <= mode < 128:
            return order
    return None


def _dtype(header: _Header, text: str) -> np.dtype[Any]:
    if header.mode not in MODES:
        what = f" ({_OTHER_MODES[header.mode]})" if header.mode in _OTHER_MODES else ""
        raise InputError(f"{text} has MRC mode {header.mode}{what}; volumes have mode 0, 1, 2, 6 or 12")
    if header.mode == 0 and header.flags & 16:
        raise InputError(f"{text} has two 4-bit numbers in each byte; unpack it with IMOD's newstack")
    kind = "u1" if header.mode == 0 and _bytes_from_zero(header) else MODES[header.mode]
    return np.dtype(header.order + kind) if kind[1] != "1" else np.dtype(kind)


def _bytes_from_zero(header: _Header) -> bool:
    """Tell whether mode 0 means bytes from 0.

    IMOD stamps its files and says so in a flag. Files from before the stamp give themselves away where
    they state values that no signed byte has.
    """
    if header.imod:
        return not header.flags & _SIGNED_BYTES
    return header.least >= 0 and 127 < header.most <= 255


def _check_size(source: Source | Unzipped, expected: int, header: _Header, text: str) -> None:
    if isinstance(source, Unzipped):
        if source.promised_size() == expected % 2**32:
            return
        size = source.unzip().size()  # several parts joined, or cut off: only reading all of it tells
    else:
        size = source.size()
    if size == expected:
        return
    counts = " x ".join(map(str, header.counts))
    promise = (
        f"the header promises {counts} voxels of mode {header.mode} after {header.extended} bytes of extended"
        f" header, {expected} bytes in all, and the file has {size}"
    )
    voxels = math.prod(header.counts)
    fits = [
        f"mode {mode}"
        for mode, kind in MODES.items()
        if mode != header.mode
        and np.dtype(kind).itemsize != np.dtype(MODES[header.mode]).itemsize
        and size == HEADER_BYTES + header.extended + voxels * np.dtype(kind).itemsize
    ]
    extended = size - (expected - header.extended)
    if extended >= 0 and extended != header.extended:
        fits.append(f"an extended header (nsymbt) of {extended}")
    if size < expected and not fits:
        raise InputError(f"{text} is cut off: {promise}; copy it again")
    hint = f", which would fit {' or '.join(fits)}" if fits else ""
    state = "is cut off or its header lies" if size < expected else "has a header that lies"
    raise InputError(f"{text} {state}: {promise}{hint}; copy it again or repair the header")


def _origin(header: _Header, starts: tuple[int, ...], size: float | None) -> tuple[float, float, float]:
    """Find the centre of voxel 0: from the origin, else from where the grid starts (MRC2014, note 5)."""
    x, y, z = (value if math.isfinite(value) else 0.0 for value in header.origin)
    if (x, y, z) == (0, 0, 0):
        if size is None:
            return (0.0, 0.0, 0.0)
        return (starts[0] * size, starts[1] * size, starts[2] * size)
    # IMOD counts the other way round in files of its own that are not to the standard of 2014.
    if header.imod and not header.version and not header.flags & _INVERTED_ORIGIN:
        x, y, z = -x, -y, -z
    return (x, y, z)


def _binning(labels: tuple[str, ...]) -> Binning | None:
    """Read what a program wrote about binning: ours, or IMOD's binvol, which averages boxes."""
    kinds: dict[str, BinningKind] = {"box": "box", "fourier": "fourier"}
    factor = 0.0
    for label in labels:
        ours = re.match(rf"{LABEL}.*binned ([\d.]+) by (\w+)", label)
        imod = re.match(r"BINVOL: Volume binned down by factors +(\d+) +(\d+) +(\d+)", label)
        if ours:
            return Binning(float(ours[1]), kinds.get(ours[2]))
        if imod and imod[1] == imod[2] == imod[3]:
            factor = (factor or 1.0) * int(imod[1])
    return Binning(factor, "box") if factor else None


def _contrast(labels: tuple[str, ...]) -> Contrast | None:
    for label in labels:
        found = re.match(rf"{LABEL}.*protein (dark|bright)", label)
        if found:
            return "dark" if found[1] == "dark" else "bright"
    return None
