"""Reads MRC and CCP4 files and checks their headers (MRC2014, doi:10.1016/j.jsb.2015.04.002)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import user_warnings
from catalogs.errors import InputError
from catalogs.volumes.lazy import Box, LazyArray, Reordered
from catalogs.volumes.source import RawArray, Source, Unpacked
from catalogs.volumes.volume import Binning, BinningKind, Contrast, Volume, cube

SUFFIXES = (".mrc", ".rec", ".map", ".st", ".mrcs", ".ali", ".preali", ".ccp4")

HEADER_BYTES = 1024
#: MRC mode -> type of a voxel.
MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_OTHER_MODES = {3: "complex integers", 4: "complex numbers", 16: "colours"}
#: Mode of 4-bit numbers, two in a byte.
_PACKED = 101
#: Space groups that mark a stack of volumes.
_STACKS_OF_VOLUMES = range(401, 631)
#: Up to so many zero bytes after the voxels count as padding of a disk block.
_PADDING = 65536

_IMOD_STAMP = 1146047817  # "IMOD"
_SIGNED_BYTES, _INVERTED_ORIGIN = 1, 4  # IMOD's flags

_SAME_EDGE = 1e-3  # relative; headers hold float32, and programs round the cell
_FEI_PIXEL_SIZE = 156  # byte of "Pixel size X" in a record of FEI1 and FEI2

#: Label that :func:`catalogs.volumes.mrc_writer.write_mrc` writes into the header and that is read here.
LABEL = "template-learning:"


@dataclass(frozen=True)
class _Header:
    """Fields of a header; triples are in the order of the file: columns, rows, sections."""

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
    """Return whether a file is MRC according to its first 1024 bytes."""
    return head[208:212] == b"MAP "


def open_mrc(
    source: Source | Unpacked,
    head: bytes,
    text: str,
    name: str,
    *,
    stack: bool = False,
    voxel_size: float | None = None,
) -> Volume:
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
        Name of the volume.
    stack
        Whether it is a stack of images (or a single one), whose spacing along z has no meaning.
    voxel_size
        Å, instead of that in the header.

    Raises
    ------
    InputError
        If it is not an MRC file, is cut off, or its header contradicts itself or the file size.
    """
    header = _parse(head, text, source)
    dtype = _dtype(header, text)
    columns, rows, sections = header.counts
    if sections == 1 and header.group == 0 and not stack:
        raise InputError(
            f"{text} is not one volume: it is a single image of 2 axes, give one with z, y and x"
        )
    count = sections / max(1, header.intervals[2])
    if header.group in _STACKS_OF_VOLUMES and count > 1:
        raise InputError(
            f"{text} is not one volume: its space group {header.group} marks a stack of {count:g} volumes; "
            "cut one out, e.g. with IMOD's newstack or with mrcfile"
        )
    if isinstance(source, Unpacked):  # as many bytes as for the widest voxels
        source = replace(source, most=HEADER_BYTES + header.extended + columns * rows * sections * 16)
    _check_size(source, _expected(header), header, text)
    start, shape = HEADER_BYTES + header.extended, (sections, rows, columns)
    array: Any = (
        Halves(source, start, shape) if header.mode == _PACKED else RawArray(source, start, shape, dtype)
    )

    # the header names the axes (1 x, 2 y, 3 z) of columns, rows and sections
    along = header.axes[::-1]
    starts = dict(zip(along, header.starts[::-1], strict=True))
    if along != (3, 2, 1):
        array = Reordered(array, (along.index(3), along.index(2), along.index(1)))
    size = voxel_size
    if size is None:
        counts = dict(zip(header.axes, header.counts, strict=True))
        edges = edges_of(header.cell, header.intervals, (counts[1], counts[2], counts[3]), images=stack)
        size = cube(text, edges[::-1]) or pixel_size_of_fei(
            source, header.order, header.extended, head, header.labels
        )
    return Volume(
        data=array,
        voxel_size=size,
        origin=_origin(header, tuple(starts[axis] for axis in (1, 2, 3)), size),
        name=name,
        binning=_binning(header.labels),
        contrast=_contrast(header.labels),
    )


def edges_of(
    cell: Sequence[float], intervals: Sequence[int], counts: Sequence[int], *, images: bool = False
) -> tuple[float, float, float]:
    """Return the edges of a voxel along x, y and z from a header with at most one wrong word.

    Programs write the whole length along z and one interval (``mz`` = 1), as the standard has it for stacks
    of images, or leave a length at 0. What two axes agree on counts where the third is not known,
    would agree if it had as many intervals as voxels, or is z and has one interval only.

    Parameters
    ----------
    cell
        Lengths x, y, z, Å.
    intervals
        Along x, y, z, of these lengths.
    counts
        Voxels along x, y, z.
    images
        Whether the third axis counts images, so that its length has no meaning.

    Returns
    -------
    tuple of float
        Å, 0 where unknown.
    """

    def edge(length: float, number: int) -> float:
        return length / number if number > 0 and math.isfinite(length) and length > 0 else 0.0

    edges = [edge(length, n) for length, n in zip(cell, intervals, strict=True)]
    others = [edge(length, n) for length, n in zip(cell, counts, strict=True)]
    if images or edges[2] == 0:
        edges[2] = edges[0] or edges[1]
    for odd in (2, 1, 0):
        one, two = (edges[k] for k in range(3) if k != odd)
        if not one or not math.isclose(one, two, rel_tol=_SAME_EDGE):
            continue
        loose = odd == 2 and intervals[2] == 1 and counts[2] > 1
        if not edges[odd] or loose or math.isclose(others[odd], one, rel_tol=_SAME_EDGE):
            edges[odd] = one
    return (edges[0], edges[1], edges[2])


def pixel_size_of_fei(
    source: Source | Unpacked, order: str, extended: int, head: bytes, labels: Sequence[str]
) -> float | None:
    """Read the pixel size in Å from the extended header of FEI's and Thermo Fisher's programs.

    ``FEI1`` and ``FEI2`` state it in metres as a double (EPU's MRC2014 extension); the older one of
    1024 records of 128 bytes has a float.
    """
    kind = head[104:108].rstrip(b"\0 ")
    if kind in (b"FEI1", b"FEI2") and extended >= _FEI_PIXEL_SIZE + 8:
        at, dtype = _FEI_PIXEL_SIZE, f"{order}f8"
    elif (
        kind in (b"", b"AGAR") and extended == 1024 * 128 and any("fei" in label.lower() for label in labels)
    ):
        at, dtype = 44, f"{order}f4"
    else:
        return None
    raw = (
        source.head(HEADER_BYTES + at + 8)
        if isinstance(source, Unpacked)
        else source.read(0, HEADER_BYTES + at + 8)
    )
    value = (
        np.frombuffer(raw, dtype, 1, HEADER_BYTES + at) if len(raw) == HEADER_BYTES + at + 8 else np.zeros(1)
    )
    metres = float(value[0])
    return round(metres * 1e10, 6) if 1e-12 < metres < 1e-6 else None


class Halves(LazyArray):
    """4-bit voxels, two per byte with the first in the lower half; rows fill whole bytes (mode 101).

    Parameters
    ----------
    source, offset, shape
        As :class:`~catalogs.volumes.source.RawArray` has them; the shape counts voxels.
    """

    def __init__(self, source: Source | Unpacked, offset: int, shape: tuple[int, int, int]) -> None:
        z, y, x = shape
        self._bytes = RawArray(source, offset, (z, y, (x + 1) // 2), np.dtype("u1"))
        self.shape, self.dtype = shape, np.dtype("u1")

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box of numbers from 0 to 15."""
        z, y, x = box
        packed = self._bytes.read((z, y, slice(x.start // 2, (x.stop + 1) // 2)))
        both = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
        first = x.start - 2 * (x.start // 2)
        return both[:, :, first : first + x.stop - x.start]


def _parse(head: bytes, text: str, source: Source | Unpacked) -> _Header:
    if len(head) < HEADER_BYTES:
        raise InputError(f"{text} is not an MRC file that can be read: it has no whole header; copy it again")
    orders = _byte_orders(head)
    if not orders:
        raise InputError(
            f"{text} is not an MRC file that can be read: its header states no possible size or mode"
        )
    if len(orders) == 2:  # the machine stamp may be wrong, but the file size is not
        size = source.promised_size() if isinstance(source, Unpacked) else source.size()
        orders.sort(key=lambda order: _expected(_header(head, text, order)) != size)
    return _header(head, text, orders[0])


def _header(head: bytes, text: str, order: str) -> _Header:
    from mrcfile.dtypes import HEADER_DTYPE

    raw = np.frombuffer(head, HEADER_DTYPE.newbyteorder(order))[0]
    stamp, flags = np.frombuffer(raw["extra2"].tobytes(), f"{order}i4", 2, offset=40)
    # older files use word 28 differently
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
        axes=(1, 2, 3) if axes == (0, 0, 0) else axes,  # programs that do not set them mean x, y, z
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
            f"the header of {text} is wrong: columns, rows and sections along the axes {header.axes}, which"
            " must be 1, 2 and 3 in some order; repair it, e.g. with IMOD's alterheader"
        )
    if header.extended < 0:
        raise InputError(
            f"the header of {text} is wrong: {header.extended} bytes of extended header (nsymbt)"
        )
    skew = [angle for angle in header.angles if angle != 0 and abs(angle - 90) > 0.01]
    if skew:
        raise InputError(f"the axes of {text} are not at right angles ({skew[0]:g}°); resample it")
    return header


def _three(record: Any) -> tuple[float, float, float]:
    return (float(record["x"]), float(record["y"]), float(record["z"]))


def _byte_orders(head: bytes) -> list[str]:
    """List the possible byte orders, that of the stamp first; the file size decides."""
    stamped = ">" if head[212:213] == b"\x11" else "<"
    found = []
    for order in (stamped, "<" if stamped == ">" else ">"):
        nx, ny, nz, mode = np.frombuffer(head, f"{order}i4", 4)
        if all(0 < n < 2**20 for n in (nx, ny, nz)) and 0 <= mode < 128:
            found.append(order)
    return found


def _expected(header: _Header) -> int:
    """Return the file size according to the header."""
    columns, rows, sections = header.counts
    row = (
        (columns + 1) // 2
        if header.mode == _PACKED
        else columns * np.dtype(MODES.get(header.mode, "u1")).itemsize
    )
    return HEADER_BYTES + header.extended + row * rows * sections


def _dtype(header: _Header, text: str) -> np.dtype[Any]:
    if header.mode == _PACKED:
        return np.dtype("u1")
    if header.mode not in MODES:
        what = f" ({_OTHER_MODES[header.mode]})" if header.mode in _OTHER_MODES else ""
        raise InputError(f"{text} has MRC mode {header.mode}{what}; volumes have mode 0, 1, 2, 6, 12 or 101")
    if header.mode == 0 and header.flags & 16:
        raise InputError(f"{text} has two 4-bit numbers in each byte; unpack it with IMOD's newstack")
    kind = "u1" if header.mode == 0 and _bytes_from_zero(header) else MODES[header.mode]
    return np.dtype(header.order + kind) if kind[1] != "1" else np.dtype(kind)


def _bytes_from_zero(header: _Header) -> bool:
    """Return whether mode 0 means unsigned bytes.

    IMOD stamps its files and has a flag for this. Files from before the stamp are recognised by statistics
    that exceed signed bytes.
    """
    if header.imod:
        return not header.flags & _SIGNED_BYTES
    return header.least >= 0 and 127 < header.most <= 255


def _check_size(source: Source | Unpacked, expected: int, header: _Header, text: str) -> None:
    if isinstance(source, Unpacked):
        if source.promised_size() == expected % 2**32:
            return
        source = source.unpack()  # several joined parts, or cut off: only reading everything shows which
    size = source.size()
    if size == expected:
        return
    if 0 < size - expected <= _PADDING and not any(source.read(expected, size - expected)):
        user_warnings.warn(
            f"{text} has {size - expected} bytes of zeros after its voxels, which are left out"
        )
        return
    counts = " x ".join(map(str, header.counts))
    promise = (
        f"the header states {counts} voxels of mode {header.mode} after {header.extended} bytes of extended"
        f" header, {expected} bytes in all, and the file has {size}"
    )
    voxels = math.prod(header.counts)
    fits = [
        f"mode {mode}"
        for mode, kind in MODES.items()
        if mode != header.mode
        and size != expected
        and size == HEADER_BYTES + header.extended + voxels * np.dtype(kind).itemsize
    ]
    extended = size - (expected - header.extended)
    if extended >= 0 and extended != header.extended:
        fits.append(f"an extended header (nsymbt) of {extended}")
    if size > expected:
        fits.append(f"{size - expected} bytes that do not belong to it after the voxels")
    if size < expected and not fits:
        raise InputError(f"{text} is cut off: {promise}; copy it again")
    hint = f", which would fit {' or '.join(fits)}" if fits else ""
    state = "is cut off or has a wrong header" if size < expected else "has a wrong header"
    raise InputError(f"{text} {state}: {promise}{hint}; copy it again or repair the header")


def _origin(header: _Header, starts: tuple[int, ...], size: float | None) -> tuple[float, float, float]:
    """Find the centre of voxel 0: from the origin, else from the start of the grid (MRC2014, note 5)."""
    x, y, z = (value if math.isfinite(value) else 0.0 for value in header.origin)
    if (x, y, z) == (0, 0, 0):
        if size is None:
            return (0.0, 0.0, 0.0)
        return (starts[0] * size, starts[1] * size, starts[2] * size)
    # IMOD uses the opposite sign in its files that do not follow the standard of 2014
    if header.imod and not header.version and not header.flags & _INVERTED_ORIGIN:
        x, y, z = -x, -y, -z
    return (x, y, z)


def _binning(labels: tuple[str, ...]) -> Binning | None:
    """Read the note of a program about binning: ours, or IMOD's binvol, which averages boxes."""
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
