"""Exports to a copick project (copick.github.io): its configuration and its tree.

::

    copick.json
    ExperimentRuns/NAME/VoxelSpacing8.000/wbp.zarr                                    the tomogram
    ExperimentRuns/NAME/Segmentations/8.000_tlgen_0_classes-multilabel.zarr           the class labels
    ExperimentRuns/NAME/Picks/tlgen_0_CLASS.json                                      the particles

On the same disk, the volumes are hard links into the corpus, which take no space and outlive the corpus.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from catalogs.corpus import ome
from catalogs.corpus.catalog import Catalog
from catalogs.export.target import Job, Target
from catalogs.particle_formats.registry import named
from catalogs.schema import SampleRecord
from catalogs.storage.store import Store

CONFIG = "copick.json"

_RUNS, _TOMOGRAM, _SEGMENTATION = "ExperimentRuns", "wbp", "classes"
_UNFINISHED = ".unfinished"


def begin(target: Target, catalog: Catalog) -> None:
    """Write the configuration, which also works after the project was moved."""
    root = target.store.url
    content: dict[str, Any] = {
        "config_type": "filesystem",
        "name": str(catalog.info["name"]),
        "description": f"simulated tomograms of the corpus {catalog.url}",
        "version": "1.0.0",
        "pickable_objects": [
            {
                "name": info.name,
                "is_particle": True,
                "label": info.label,
                "color": list(ome.colour(info.label)),
                "radius": info.radius,
            }
            for info in catalog.classes
        ],
        "overlay_root": root if "://" in root else f"local://{root}",
        "overlay_fs_args": {"auto_mkdir": True} if "://" not in root else {},
    }
    target.put(CONFIG, (json.dumps(content, indent=1) + "\n").encode())


def sample(job: Job) -> bool:
    """Write one run; on a disk it appears in one step, in a bucket its tomogram is written last."""
    run = f"{_RUNS}/{job.name}"
    spacing = f"{job.record.acquisition.voxel_size:.3f}"
    tomogram = f"{run}/VoxelSpacing{spacing}/{_TOMOGRAM}.zarr"
    labels = f"{run}/Segmentations/{spacing}_{job.context.user}_{job.context.session}_{_SEGMENTATION}"
    if f"{tomogram}/zarr.json" in job.there:
        return False
    _ = job.arrays  # refuses a damaged sample before anything is written
    folder = job.target.store.local
    if folder is None:
        _fill(job, job.target, tomogram, f"{labels}-multilabel.zarr")
        return True
    unfinished = folder / _UNFINISHED / uuid.uuid4().hex[:8]
    try:
        staged = Target(Store(str(unfinished)), job.target.copies)
        _fill(job, staged, tomogram, f"{labels}-multilabel.zarr")
        (folder / _RUNS).mkdir(exist_ok=True)
        os.rename(unfinished / run, folder / run)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def finish(target: Target, catalog: Catalog, records: list[SampleRecord]) -> list[str]:
    """Remove leftovers of an interrupted export, and say how to open the project."""
    if target.store.local is not None:
        shutil.rmtree(target.store.local / _UNFINISHED, ignore_errors=True)
    return [f"open it with copick.from_file({target.store.at(CONFIG)!r})"]


def _fill(job: Job, target: Target, tomogram: str, labels: str) -> None:
    for path, data in named("copick").encode(job.targets, Path(), job.context).items():
        target.put(path.as_posix(), data)
    _take_image(job, target, "labels/classes", labels)
    _take_image(job, target, "", tomogram)


def _take_image(job: Job, target: Target, group: str, name: str) -> None:
    """Export one image of the sample as its own group, with its metadata last."""
    source, inside = job.group, f"{group}/" if group else ""
    for key in source.sizes(f"{inside}0"):
        target.take(source, key, f"{name}/{key.removeprefix(inside)}")
    metadata: dict[str, Any] = json.loads(source.read(f"{inside}zarr.json"))
    metadata.pop("consolidated_metadata", None)  # refers to groups that stay in the corpus
    metadata["attributes"]["ome"].get("image-label", {}).pop("source", None)  # so does this
    target.put(f"{name}/zarr.json", json.dumps(metadata).encode())
