"""HDF5 volumes: DeepFinder's ``dataset``, IMOD's and EMAN2's ``MDF/images``, or the one volume in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import user_warnings
from catalogs.errors import InputError
from catalogs.storage.hdf5_data import lies_elsewhere, read_box
from catalogs.volumes.lazy import Box, LazyArray, Reordered
from catalogs.volumes.mrc import edges_of
from catalogs.volumes.source import Source, explained
from catalogs.volumes.units import factor_of
from catalogs.volumes.volume import Volume, cube

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
SIGNATURE = b"\x89HDF\r\n\x1a\n"

_DEEPFINDER = "dataset"
_IMAGES = "MDF/images"
_MICROMETRES = "element_size_um"  # of ilastik and Fiji, z y x


class Hdf5Array(LazyArray):
    """A data set with three axes, or a stack of data sets with two axes.

    Parameters
    ----------
    source
        The file.
    names
        One data set (z, y, x), or a data set (y, x) for each plane.
    shape, dtype, chunks
        Shape, type and chunks of the volume.
    """

    def __init__(
        self,
        source: Source,
        names: tuple[str, ...],
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        chunks: tuple[int, int, int] | None,
    ) -> None:
        self._source, self._names, self._chunks = source, names, chunks
        self._size = source.size()
        self.shape, self.dtype = shape, dtype

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Chunks of the file."""
        return self._chunks or super().chunks

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box."""
        with self._source.not_shorter_than(self._size), _opened(self._source) as file:
            if len(self._names) == 1:
                return read_box(file[self._names[0]], box, self._source.url)
            z, y, x = box
            planes = [read_box(file[name], (y, x), self._source.url) for name in self._names[z]]
            return np.stack(planes) if planes else np.empty([b.stop - b.start for b in box], self.dtype)


def open_hdf5(source: Source, text: str, name: str, voxel_size: float | None = None) -> Volume:
    """Open an HDF5 file without reading its voxels; see :func:`catalogs.volumes.mrc.open_mrc`."""
    import h5py

    with _opened(source) as file:
        for link in (_DEEPFINDER, _IMAGES.partition("/")[0], _IMAGES):
            if isinstance(file.get(link, getlink=True), h5py.ExternalLink):
                raise InputError(f"{text} has its voxels in another file ({link}); give that one")
        if isinstance(file.get(_DEEPFINDER), h5py.Dataset):
            names: tuple[str, ...] = (_DEEPFINDER,)
        elif isinstance(file.get(_IMAGES), h5py.Group):
            names = _numbered(file[_IMAGES], text)
        else:
            names = _the_one(file, text)
        for each in names:
            _refuse_other_files(file, each, text)
        first = file[names[0]]
        shape = first.shape if len(names) == 1 else (len(names), *first.shape)
        if len(shape) != 3:
            raise InputError(f"{text} is not one volume: {names[0]} has {len(shape)} axes, give z, y and x")
        if any(file[other].shape != first.shape for other in names[1:]):
            raise InputError(f"{text} is not one volume: its images differ in size")
        if first.dtype.kind not in "iuf":
            raise InputError(f"{text} holds {first.dtype}; a volume has real numbers")
        chunks = first.chunks if len(names) == 1 else None
        facts = _attributes(first) if len(names) == 1 else _attributes(first) | dict(file[_IMAGES].attrs)
        size, origin = _grid(facts, text, (shape[2], shape[1], shape[0]), voxel_size)
        data: Any = Hdf5Array(source, names, shape, first.dtype, chunks)
        axes = [str(each.label).lower() for each in first.dims] if len(names) == 1 else []
    if sorted(axes) == ["x", "y", "z"] and axes != [*"zyx"]:
        user_warnings.warn(f"the axes of {text} are called {', '.join(axes)}; they are turned to z, y, x")
        data = Reordered(data, (axes.index("z"), axes.index("y"), axes.index("x")))
    return Volume(data=data, voxel_size=size, origin=origin, name=name)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Any]:
    import h5py

    with contextlib.ExitStack() as stack, explained(source.url):
        try:
            if source.local is not None:
                # nothing here writes HDF5, and locks fail on many network file systems
                file = h5py.File(source.local, "r", locking=False)
            else:
                file = h5py.File(stack.enter_context(source.open()), "r")
        except OSError as error:
            raise InputError(
                f"{source.url} is not an HDF5 file that can be read ({error}); copy it again"
            ) from error
        yield stack.enter_context(file)


def _refuse_other_files(file: Any, name: str, text: str) -> None:
    """Refuse voxels in other files, which could be any files of this machine."""
    if lies_elsewhere(file, name):
        raise InputError(f"{text} has its voxels in other files ({name}); copy them into one file")


def _numbered(images: Any, text: str) -> tuple[str, ...]:
    """Find the single volume of IMOD or EMAN2, or their numbered stack of images."""
    import h5py

    numbers = sorted((key for key in images if key.isdigit()), key=int)
    found = [key for key in numbers if isinstance(images[key].get("image"), h5py.Dataset)]
    volumes = [key for key in found if images[key]["image"].ndim == 3]
    if not found or (volumes and len(found) > 1):
        listed = f"{len(volumes)} volumes" if volumes else "no image"
        raise InputError(f"{text} is not one volume: it holds {listed} under {_IMAGES}")
    return tuple(f"{_IMAGES}/{key}/image" for key in found)


def _the_one(file: Any, text: str) -> tuple[str, ...]:
    import h5py

    found: list[str] = []
    file.visititems(lambda name, node: _keep(found, name, node, h5py.Dataset))
    if len(found) == 1:
        return (found[0],)
    what = f"several ({', '.join(found[:4])})" if found else "none"
    raise InputError(
        f"{text} is not one volume: it must hold one data set of three axes or one called"
        f" {_DEEPFINDER!r}, it holds {what}"
    )


def _keep(found: list[str], name: str, node: Any, kind: type) -> None:
    if isinstance(node, kind) and node.ndim == 3:  # type: ignore[attr-defined]
        found.append(name)


def _attributes(data: Any) -> dict[str, Any]:
    """Return the attributes of a data set and its group, since programs differ in where they put them."""
    return {**dict(data.parent.attrs), **dict(data.attrs)}


def _grid(
    facts: dict[str, Any], text: str, counts: tuple[int, int, int], given: float | None
) -> tuple[float | None, tuple[float, float, float]]:
    """Read voxel size and origin from attributes of IMOD (as in MRC headers), EMAN2, Chimera and others."""

    def three(*names: str) -> list[float] | None:
        try:
            return [float(np.ravel(facts[name])[0]) for name in names]
        except (KeyError, ValueError, TypeError, IndexError):
            return None

    cell = three(*(f"IMOD.MRC.{axis}len" for axis in "xyz"))
    intervals = three(*(f"IMOD.MRC.m{axis}" for axis in "xyz"))
    voxel = None
    if cell and intervals:
        edges = edges_of(cell, [int(n) for n in intervals], counts)
        voxel = list(edges) if min(edges) > 0 else None
    voxel = voxel or three("EMAN.apix_x", "EMAN.apix_y", "EMAN.apix_z")
    if voxel is None and np.shape(facts.get("step", ())) == (3,):
        voxel = [float(value) for value in facts["step"]]
    for word in ("voxel_size", "voxel_spacing", _MICROMETRES):
        if voxel is None and word in facts:
            factor = 1e4 if word == _MICROMETRES else factor_of(facts)
            voxel = [factor * float(value) for value in np.ravel(facts[word])]
            voxel = voxel * 3 if len(voxel) == 1 else voxel[::-1]
    origin = three(*(f"IMOD.MRC.{axis}origin" for axis in "xyz"))
    origin = origin or three("EMAN.origin_x", "EMAN.origin_y", "EMAN.origin_z") or [0.0, 0.0, 0.0]
    size = given
    if size is None and voxel is not None and len(voxel) == 3:
        size = cube(text, voxel[::-1])
    return size, (origin[0], origin[1], origin[2])
