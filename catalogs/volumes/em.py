"""EM files of TOM, PyTom, Dynamo and STOPGAP: 512 bytes of header, then voxels.

The first byte identifies the machine that wrote the file, and so the byte order; the fourth is the type of a
voxel. Programs fill the header's field for the pixel size in nanometres, in ångström or not at all, so the
voxel size counts as unknown.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from catalogs import user_warnings
from catalogs.errors import InputError
from catalogs.volumes.source import RawArray, Source, Unpacked
from catalogs.volumes.volume import Volume

SUFFIXES = (".em",)

_HEADER_BYTES = 512
#: Machine -> byte order; others (VAX, Convex) have other number formats.
_MACHINES = {0: ">", 3: ">", 4: ">", 5: ">", 6: "<"}
_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}


def open_em(source: Source | Unpacked, head: bytes, text: str, name: str) -> Volume:
    """Open an EM file without reading its voxels.

    Parameters
    ----------
    source
        The file.
    head
        Its first 512 bytes or more.
    text
        Its path or URL, for errors.
    name
        Name of the volume.

    Raises
    ------
    InputError
        If it is not an EM file, has complex numbers, or is cut off.
    """
    if len(head) < _HEADER_BYTES:
        raise InputError(f"{text} is not an EM file that can be read: it has no whole header; copy it again")
    if head[3] in (8, 10):
        raise InputError(f"{text} holds complex numbers; a volume has real numbers")
    if head[0] not in _MACHINES or head[3] not in _TYPES:
        raise InputError(
            f"{text} is not an EM file that can be read: its header states no known machine and type; copy "
            "it again"
        )
    if isinstance(source, Unpacked):
        source = source.unpack()
    size = source.size()
    stated = _MACHINES[head[0]]
    found = []
    for order in (stated, "<" if stated == ">" else ">"):
        nx, ny, nz = (int(n) for n in np.frombuffer(head, f"{order}i4", 3, 4))
        dtype: np.dtype[Any] = np.dtype(f"{order}{_TYPES[head[3]]}")
        expected = _HEADER_BYTES + math.prod((nx, ny, nz)) * dtype.itemsize
        if min(nx, ny, nz) > 0 and max(nx, ny, nz) < 2**20:
            found.append((size - expected, (nz, ny, nx), dtype))
    if not found:
        raise InputError(f"{text} is not an EM file that can be read: its header states no possible size")
    # some files name the wrong machine; their size shows the other byte order
    more, shape, dtype = next((each for each in found if each[0] == 0), found[0])
    if more < 0:
        raise InputError(
            f"{text} is cut off: its header states {shape[2]} x {shape[1]} x {shape[0]} voxels of "
            f"{dtype.itemsize} bytes, and the file has {size} bytes; copy it again"
        )
    if more:
        user_warnings.warn(f"{text} has {more} bytes after its voxels, which are left out")
    if shape[0] == 1:
        raise InputError(f"{text} is not one volume: it is a single image, give one with z, y and x")
    return Volume(RawArray(source, _HEADER_BYTES, shape, dtype), None, (0.0, 0.0, 0.0), name)
