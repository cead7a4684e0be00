"""The class ``Volume``, for all formats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from catalogs.errors import InputError
from catalogs.volumes.lazy import Box, split_index

if TYPE_CHECKING:
    import dask.array as da

#: Contrast of protein: ``dark`` as in real tomograms, ``bright`` in inverted ones.
Contrast = Literal["dark", "bright"]
#: The same words as for particle lists (:class:`catalogs.particle_formats.base.Context`).
BinningKind = Literal["box", "fourier"]

#: Approximate bytes of a volume in memory during reading and writing.
BLOCK_BYTES = 64 * 2**20

_SAME = 1e-3  # relative; headers hold float32, and programs round the cell


@dataclass(frozen=True)
class Binning:
    """How a volume was binned from a finer one.

    Averaging boxes of voxels moves the centre of voxel 0, cropping the Fourier transform does not; the
    difference is up to half a binned voxel.

    Attributes
    ----------
    factor
        Edge of a voxel in voxels of the finer volume.
    kind
        ``box`` (IMOD's binvol and newstack, mean pooling), ``fourier`` (RELION, Warp), None if unknown.
    """

    factor: float
    kind: BinningKind | None = None

    def unbinned(self, index: ArrayLike) -> NDArray[np.float64]:
        """Convert positions in voxels of this volume to voxels of the finer one; both count from 0.

        Raises
        ------
        InputError
            If the kind of binning is unknown.
        """
        if self.kind is None:
            raise InputError(
                f"it is unknown whether the volume was binned {self.factor:g} times by averaging or by"
                " cropping its Fourier transform, which differ by half a voxel; say which"
            )
        shift = (self.factor - 1) / 2 if self.kind == "box" else 0.0
        return np.asarray(index, np.float64) * self.factor + shift


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume that is read lazily.

    Attributes
    ----------
    data
        Array-like (z, y, x), of which only requested slices are read. It can be sent to other processes.
    voxel_size
        Å; None if the file does not state it (in MRC 0 or 1, which programs write if it is unknown).
    origin
        Position (x, y, z) of the centre of voxel 0 in Å, as stated in the file.
    name
        Stem of the file, id of a sample of a corpus, or the run in a copick project or in the CryoET Data
        Portal.
    binning
        How it was binned from a finer volume; None if the file does not state it.
    contrast
        Whether protein is ``dark`` or ``bright``; None if the file does not state it.
    """

    data: Any
    voxel_size: float | None
    origin: tuple[float, float, float]
    name: str
    binning: Binning | None = None
    contrast: Contrast | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.data.shape
        return (int(z), int(y), int(x))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels in the file."""
        return np.dtype(self.data.dtype)

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole volume in its stored type."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, slices: Sequence[slice] | None = None) -> NDArray[np.float32]:
        """Read the whole volume or a box of it as float32."""
        part = self.data[tuple(slices) if slices is not None else (slice(None),) * 3]
        return np.ascontiguousarray(part, np.float32)

    def __getitem__(self, key: Any) -> Volume:
        """Select a box without reading it; the origin is adapted."""
        box, rest = split_index(key, self.shape)
        if rest != (slice(None, None, 1),) * 3:
            raise IndexError("a box of a volume has three slices without a step; index .data for planes")
        size = self.voxel_size
        x, y, z = self.origin
        if size is not None:
            x, y, z = x + box[2].start * size, y + box[1].start * size, z + box[0].start * size
        return replace(self, data=Part(self.data, box), origin=(x, y, z))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.data[(slice(None),) * 3], dtype)

    def blocks(self, n_bytes: int = BLOCK_BYTES) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Read block by block from the first plane to the last; yield the box and the stored voxels.

        Parameters
        ----------
        n_bytes
            Approximate size of a block. Blocks span x and consist of whole chunks of the file, so that each
            chunk is read once; they are at least one row of chunks.
        """
        for box in blocks(self.shape, _chunks(self.data), self.dtype.itemsize, n_bytes):
            yield box, np.asarray(self.data[box])

    def dask(self, n_bytes: int = BLOCK_BYTES) -> da.Array:
        """View it as a Dask array with chunks of about ``n_bytes``, each of whole chunks of the file.

        Workers open the file or URL themselves, so they must have access to it.
        """
        import dask.array as da

        chunks = list(_chunks(self.data))
        for axis in (2, 1, 0):
            below = math.prod(chunks) * self.dtype.itemsize
            times = max(1, min(n_bytes // max(below, 1), -(-self.shape[axis] // chunks[axis])))
            chunks[axis] = min(chunks[axis] * times, self.shape[axis])
        whole = (slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2]))
        return da.from_array(Part(self.data, whole), chunks=tuple(chunks), name=False)


class Part:
    """A lazy box of an array."""

    ndim = 3

    def __init__(self, inner: Any, box: Box) -> None:
        self._inner, self._box = inner, box
        z, y, x = (part.stop - part.start for part in box)
        self.shape = (z, y, x)
        self.dtype = np.dtype(inner.dtype)
        self.chunks = tuple(
            max(1, min(chunk, n)) for chunk, n in zip(_chunks(inner), self.shape, strict=True)
        )

    def __getitem__(self, key: Any) -> NDArray[Any]:
        box, rest = split_index(key, self.shape)
        moved = tuple(
            slice(part.start + mine.start, part.stop + mine.start)
            for part, mine in zip(box, self._box, strict=True)
        )
        return np.asarray(np.asarray(self._inner[moved])[rest])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


def blocks(
    shape: tuple[int, int, int], chunks: tuple[int, int, int], itemsize: int, n_bytes: int
) -> Iterator[Box]:
    """Divide a volume into boxes that span x, of whole chunks and about ``n_bytes``."""
    nz, ny, nx = shape
    depth, height, _ = chunks
    fits = n_bytes // max(1, depth * height * nx * itemsize)  # rows of chunks
    height *= max(1, min(fits, -(-ny // height)))
    if height >= ny:
        depth *= max(1, n_bytes // max(1, depth * ny * nx * itemsize))
    for z in range(0, nz, depth):
        for y in range(0, ny, height):
            yield slice(z, min(z + depth, nz)), slice(y, min(y + height, ny)), slice(0, nx)


def cube(text: str, voxel: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Return the edge of the voxel in Å, or None if unknown.

    Parameters
    ----------
    text
        The file, for the error.
    voxel
        Å along z, y, x.

    Raises
    ------
    InputError
        If the voxels are not cubes.
    """
    z, y, x = (float(v) for v in voxel)
    if not all(math.isfinite(v) and v > 0 for v in (z, y, x)):
        return None
    if max(z, y, x) > (1 + _SAME) * min(z, y, x):
        raise InputError(f"the voxels of {text} are not cubes ({x:.4g} x {y:.4g} x {z:.4g} Å); resample it")
    return None if (z, y, x) == (1.0, 1.0, 1.0) else round(x, 6)


def _chunks(data: Any) -> tuple[int, int, int]:
    chunks = getattr(data, "chunks", None)
    if chunks is None or not all(isinstance(n, int) for n in chunks):  # a Dask array has tuples of sizes
        return (1, int(data.shape[1]), int(data.shape[2]))
    z, y, x = (max(1, int(n)) for n in chunks)
    return (z, y, x)
