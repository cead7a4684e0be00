"""Volumes: arrays (z, y, x) with a voxel size, read lazily from the formats of the field; and writers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from catalogs.errors import InputError
from catalogs.plugins import Known
from catalogs.volumes import em, hdf5, layouts, mrc, tiff
from catalogs.volumes.mrc_writer import write_mrc
from catalogs.volumes.ome_writer import write_ome_zarr
from catalogs.volumes.source import PACKED, Source, Unpacked
from catalogs.volumes.volume import Binning, Contrast, Volume

__all__ = [
    "MRC_SUFFIXES",
    "Binning",
    "Contrast",
    "Volume",
    "VolumeFormat",
    "open_stack",
    "open_volume",
    "write_mrc",
    "write_ome_zarr",
]

MRC_SUFFIXES = mrc.SUFFIXES
_FILES = (*mrc.SUFFIXES, *hdf5.SUFFIXES, *tiff.SUFFIXES, *em.SUFFIXES)
_GIVE = (
    "give MRC (.mrc, .rec, .map, .st, also .gz or .bz2), EM (.em), HDF5 (.h5, .hdf), TIFF (.tif) or a Zarr "
    "folder (also as .zip)"
)
_ZIP = b"PK\x03\x04"


class VolumeFormat(Protocol):
    """A format of volumes in another package; its entry point names such an object."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its files or folders, such as ``.xyz``; built-in suffixes have priority."""

    def open(self, path: str, voxel_size: float | None) -> Volume:
        """Open a volume without reading its voxels.

        Parameters
        ----------
        path
            Path or URL.
        voxel_size
            Å, instead of that in the file; None: that of the file.

        Raises
        ------
        InputError
            If it is not a volume of this format.
        """


#: Formats of volumes of other packages.
FORMATS: Known[VolumeFormat] = Known("volume_formats", "format of volumes", {})


def open_volume(path: str | os.PathLike[str], *, voxel_size: float | None = None) -> Volume:
    """Open a volume without reading its voxels.

    The format follows from the first bytes of the file; the suffix counts only if these are not conclusive.

    Parameters
    ----------
    path
        Path or fsspec URL of

        - an MRC file (modes 0, 1, 2, 6, 12 and 101, either byte order), also compressed by gzip or bzip2;
        - an EM file (either byte order), whose voxel size is unknown;
        - an HDF5 file of DeepFinder, IMOD or EMAN2, or with one volume;
        - a TIFF stack;
        - an OME-Zarr image (0.4 or 0.5), of which the finest level is taken, or one of its levels;
        - a Zarr array, or a group with one array of three axes (version 2 or 3); on a disk all Zarr also as
          one zip file;
        - a folder of a copick project or of the CryoET Data Portal that holds one tomogram.

    voxel_size
        Å, instead of that in the file and its folder.

    Raises
    ------
    InputError
        If it is missing, cut off or contradicts itself, is not a single real-valued volume, or its voxels
        are not cubes.
    """
    text = os.fspath(path).removeprefix("file://")
    text = os.path.expanduser(text.rstrip("/") or text)
    added = _added_format(text)
    if added is not None:
        volume = added.open(text, voxel_size)
    elif _is_file(text):
        volume = _open_file(text, voxel_size)
    else:
        text, volume = _open_folder(text, voxel_size)
    if voxel_size is not None:
        return replace(volume, voxel_size=voxel_size)
    return replace(volume, voxel_size=layouts.checked_spacing(text, volume.voxel_size))


def _added_format(text: str) -> VolumeFormat | None:
    """Find the format of another package with the suffix of a file; None for built-in formats."""
    if text.lower().endswith(_FILES):
        return None
    endings = (each for each in FORMATS.loadable() if text.lower().endswith(each.suffixes))
    return next(endings, None)


def open_stack(path: str | os.PathLike[str], *, voxel_size: float | None = None) -> Volume:
    """Open a stack of images (MRC: .st, .ali, .mrcs, ...) without reading them: z counts the images.

    Parameters
    ----------
    path
        Path or fsspec URL.
    voxel_size
        Pixel size in Å, instead of that in the file.

    Raises
    ------
    InputError
        If it is missing, not an MRC file, cut off or contradictory, or its pixels are not squares.
    """
    text = os.fspath(path).removeprefix("file://")
    if "://" not in text and not Path(text).is_file():
        raise InputError(f"there is no stack of images {text}")
    source = Source(text)
    head = source.read(0, mrc.HEADER_BYTES)
    stem = os.path.splitext(_unpacked(text.rsplit("/", 1)[-1]))[0]
    if head.startswith(PACKED):
        packed = Unpacked(source)
        head = packed.head(mrc.HEADER_BYTES)
        return mrc.open_mrc(packed, head, text, stem, stack=True, voxel_size=voxel_size)
    if not mrc.is_mrc(head) and not text.lower().endswith(mrc.SUFFIXES):
        raise InputError(f"{text} is not a stack of images in MRC format (.mrc, .st, .ali, .mrcs)")
    return mrc.open_mrc(source, head, text, stem, stack=True, voxel_size=voxel_size)


def _is_file(text: str) -> bool:
    if "://" in text:
        return _unpacked(text.lower()).endswith(_FILES)
    if not Path(text).exists():
        raise InputError(f"there is no volume {text}")
    return not Path(text).is_dir()


def _unpacked(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".bz2")


def _open_file(text: str, voxel_size: float | None) -> Volume:
    source = Source(text)
    head = source.read(0, mrc.HEADER_BYTES)
    stem, suffix = os.path.splitext(_unpacked(text.rsplit("/", 1)[-1]))
    name = layouts.run_of(text) or stem
    opened: Source | Unpacked = source
    if head.startswith(PACKED):
        opened = Unpacked(source)
        head = opened.head(mrc.HEADER_BYTES)
        if suffix.lower() in em.SUFFIXES and not mrc.is_mrc(head):
            return em.open_em(opened, head, text, name)
        return mrc.open_mrc(opened, head, text, name, voxel_size=voxel_size)
    if head.startswith(hdf5.SIGNATURE):
        return hdf5.open_hdf5(source, text, name, voxel_size)
    if head.startswith(tiff.SIGNATURES):
        return tiff.open_tiff(source, text, name, voxel_size)
    if head.startswith(_ZIP):
        return _open_zip(text, voxel_size)
    if suffix.lower() in em.SUFFIXES and not mrc.is_mrc(head):
        return em.open_em(source, head, text, name)
    if mrc.is_mrc(head) or suffix.lower() in mrc.SUFFIXES:
        return mrc.open_mrc(source, head, text, name, voxel_size=voxel_size)
    if suffix.lower() in _FILES:
        raise InputError(f"{text} is damaged: it does not begin as {suffix} files do; copy it again")
    raise InputError(f"{text} is not a volume: {_GIVE}")


def _open_zip(text: str, voxel_size: float | None) -> Volume:
    from catalogs.volumes import zarrs

    stem = text.rsplit("/", 1)[-1].removesuffix(".zip").removesuffix(".ozx")
    stem = stem.removesuffix(".zarr").removesuffix(".ome")
    found = zarrs.open_zarr(text, stem, voxel_size)
    if found is None:
        raise InputError(f"{text} holds no Zarr array or OME-Zarr image: {_GIVE}")
    return replace(found, name=layouts.run_of(text) or found.name)


def _open_folder(text: str, voxel_size: float | None) -> tuple[str, Volume]:
    from catalogs.volumes import zarrs

    stem = text.rsplit("/", 1)[-1].removesuffix(".zarr").removesuffix(".ome")
    found = zarrs.open_zarr(text, stem, voxel_size)
    if found is not None:
        return text, replace(found, name=layouts.run_of(text) or found.name)
    below = layouts.volume_below(text)
    if below is None:
        raise InputError(f"{text} is not a Zarr array or an OME-Zarr image: {_GIVE}")
    return below, open_volume(below, voxel_size=voxel_size)
