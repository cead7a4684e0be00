"""Saves segmentations: an OME-Zarr image with its label image, or two MRC files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from catalogs.schema import ClassInfo
from catalogs.volumes import write_mrc, write_ome_zarr
from tlpick.batch.files import SEGMENTATION
from tlpick.network.segment import Segmentation

SegmentationFormat = Literal["zarr", "mrc"]
#: Planes that are converted at a time.
_PLANES = 16
_NAMES: dict[str, tuple[str, ...]] = {"zarr": (SEGMENTATION,), "mrc": ("segmentation.mrc", "probability.mrc")}


def save_segmentation(
    kind: SegmentationFormat | None,
    work: Path,
    target: Path,
    segmentation: Segmentation,
    voxel_size: float,
    offset: tuple[float, float, float],
    classes: Sequence[ClassInfo],
) -> None:
    """Write a segmentation beside the picks, completely or not at all, and remove an older one.

    Parameters
    ----------
    kind
        ``zarr``, ``mrc``, or None for no segmentation.
    work
        Folder for unfinished files, on the same disk.
    target
        Folder of the tomogram.
    segmentation
        The segmentation.
    voxel_size
        Voxel size of its grid, Å.
    offset
        Offset of its voxel 0 from that of the tomogram, (x, y, z) in Å.
    classes
        Classes, for their names in the label image.
    """
    for names in _NAMES.values():
        for name in names:
            _remove(target / name)
    if kind == "zarr":
        _write_zarr(work / SEGMENTATION, segmentation, voxel_size, offset, classes)
    elif kind == "mrc":
        labels, probability = (work / name for name in _NAMES["mrc"])
        write_mrc(labels, segmentation.labels, voxel_size, origin=offset)
        slabs, shape = _shares(segmentation.score), segmentation.score.shape
        z, y, x = shape
        write_mrc(probability, slabs, voxel_size, origin=offset, shape=(z, y, x), dtype=np.float32)
    for name in _NAMES.get(kind or "", ()):
        os.replace(work / name, target / name)


def _write_zarr(
    path: Path,
    segmentation: Segmentation,
    voxel_size: float,
    offset: tuple[float, float, float],
    classes: Sequence[ClassInfo],
) -> None:
    import zarr

    write_ome_zarr(path, segmentation.score, voxel_size, origin=offset)
    labels = path / "labels" / "classes"
    group = zarr.create_group(path / "labels", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "labels": ["classes"]}
    write_ome_zarr(labels, segmentation.labels, voxel_size, origin=offset, labels=True)
    image = zarr.open_group(labels, mode="r+")
    stated: Any = image.attrs["ome"]
    named: Any = [{"label-value": info.label, "class": info.name} for info in classes]
    image.attrs["ome"] = {**stated, "image-label": {"source": {"image": "../../"}, "properties": named}}


def _shares(score: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    for z in range(0, len(score), _PLANES):
        yield np.asarray(score[z : z + _PLANES] / np.float32(255), np.float32)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
