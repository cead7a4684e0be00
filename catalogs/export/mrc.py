"""Exports to MRC files and lists: plain, for DeepFinder, or like the original TemplateLearning scripts.

::

    mrc         tomograms/NAME.mrc, classes/NAME.mrc, instances/NAME.mrc, [density/NAME.mrc,]
                particles/NAME.star (RELION 5); particles.star of all; classes.csv
    deepfinder  train/, valid/ and test/ with NAME.mrc, NAME_target.mrc and NAME_objl.xml, as DeepFinder's
                Dataloader takes them; params_train.xml, objl_train.xml and objl_valid.xml for its bin/train
    original    tomograms/NAME.mrc, segmentations/NAME.mrc (0 and 1), coordinates/NAME.txt (x y z in voxels)

Distractors are in the tomograms but in no list, because a network must learn that they are background.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np

from catalogs.corpus.catalog import Catalog
from catalogs.export.target import Job, Target, all_particles, context_of, encode
from catalogs.schema import SampleRecord
from catalogs.volumes import Volume, write_mrc

#: Our split -> DeepFinder's folder.
_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def nothing(target: Target, catalog: Catalog) -> None:
    """Write nothing before the samples."""


def begin(target: Target, catalog: Catalog) -> None:
    """Name the classes."""
    rows = ["label,name,radius_angstrom"]
    rows += [f"{info.label},{info.name},{info.radius:g}" for info in catalog.classes]
    target.put("classes.csv", ("\n".join(rows) + "\n").encode())


def sample(job: Job) -> bool:
    """Write the volumes and the particles of a sample."""
    name = job.name
    wrote = [
        job.volume(f"tomograms/{name}.mrc", "tomogram", contrast="dark"),
        job.volume(f"classes/{name}.mrc", "classes", dtype=_label_type(job.catalog)),
        job.volume(f"instances/{name}.mrc", "instances"),
    ]
    if f"particles/{name}.star" not in job.there and "density" in job.arrays:
        wrote.append(job.volume(f"density/{name}.mrc", "density", contrast="bright"))
    wrote.append(job.particles(f"particles/{name}.star", "relion5"))
    return any(wrote)


def finish(target: Target, catalog: Catalog, records: list[SampleRecord]) -> list[str]:
    """Write all particles into one STAR file."""
    table = all_particles(catalog, records)
    target.put("particles.star", encode(table, "particles.star", "relion5", context_of(catalog, records)))
    return [f"particles.star lists {len(table)} particles of {len(records)} tomograms"]


def deepfinder_sample(job: Job) -> bool:
    """Write one tomogram, its target and its object list, by which DeepFinder finds the other two."""
    stem = f"{_FOLDERS[job.record.split]}/{job.name}"
    wrote = [
        job.volume(f"{stem}.mrc", "tomogram", contrast="dark"),
        job.volume(f"{stem}_target.mrc", "classes", dtype=_label_type(job.catalog)),
        job.particles(f"{stem}_objl.xml", "deepfinder"),
    ]
    return any(wrote)


def deepfinder_finish(target: Target, catalog: Catalog, records: list[SampleRecord]) -> list[str]:
    """Write the parameters of ``bin/train`` and the object lists that it reads.

    A tomogram's number is its position in the parameters, in either of the two lists.
    """
    used = [record for split in ("train", "val") for record in records if record.split == split]
    if not used:
        return ["all samples are of the split test: there is nothing to train on"]
    context = context_of(catalog, used)
    for split in ("train", "val"):
        table = all_particles(catalog, [record for record in used if record.split == split])
        key = f"objl_{_FOLDERS[split]}.xml"
        target.put(key, encode(table, key, "deepfinder", context))
    target.put("params_train.xml", _parameters(target, catalog, used))
    if target.store.local is not None:
        (target.store.local / "out").mkdir(
            exist_ok=True
        )  # DeepFinder does not create it, and would fail after the training
    remarks = ["train with DeepFinder's Dataloader on the folder, or with bin/train -p params_train.xml"]
    if all(record.split != "val" for record in used):
        remarks.append("no sample is of the split val: DeepFinder does not train without a validation set")
    return remarks


def _parameters(target: Target, catalog: Catalog, records: list[SampleRecord]) -> bytes:
    """Make DeepFinder's training parameters: its defaults with our files."""
    root = ET.Element("paramsTrain")
    ET.SubElement(root, "path_out", path=target.store.at("out/"))
    for tag, ending in (("path_tomo", ".mrc"), ("path_target", "_target.mrc")):
        paths = ET.SubElement(root, tag)
        for k, record in enumerate(records):
            place = target.store.at(f"{_FOLDERS[record.split]}/{record.name}{ending}")
            ET.SubElement(paths, f"tomo{k}" if tag == "path_tomo" else f"target{k}", path=place)
    for folder in ("train", "valid"):
        ET.SubElement(root, f"path_objl_{folder}", path=target.store.at(f"objl_{folder}.xml"))
    classes = max(info.label for info in catalog.classes) + 1
    numbers = {"number_of_classes": classes, "patch_size": 56, "batch_size": 25, "number_of_epochs": 100}
    numbers |= {"steps_per_epoch": 100, "steps_per_validation": 10}
    for tag, n in numbers.items():
        ET.SubElement(root, tag, n=str(n))
    ET.SubElement(root, "flag_direct_read", flag="False")
    ET.SubElement(root, "flag_bootstrap", flag="True")
    ET.SubElement(root, "random_shift", shift="13")
    ET.indent(root)
    return ET.tostring(root) + b"\n"


def original_sample(job: Job) -> bool:
    """Write one tomogram, its segmentation and its coordinates under one name in three folders."""
    name = job.name
    wrote = []
    if f"segmentations/{name}.mrc" not in job.there:
        size = job.record.acquisition.voxel_size
        classes = Volume(job.arrays["classes"], size, (0.0, 0.0, 0.0), name).dask()
        write_mrc(job.target.store.at(f"segmentations/{name}.mrc"), classes > 0, size, dtype=np.int8)
        wrote.append(True)
    if f"coordinates/{name}.txt" not in job.there:
        text = io.StringIO()
        voxels = job.targets[["x", "y", "z"]].to_numpy() / job.record.acquisition.voxel_size
        np.savetxt(text, voxels, fmt="%f")
        job.target.put(f"coordinates/{name}.txt", text.getvalue().encode())
        wrote.append(True)
    wrote.append(job.volume(f"tomograms/{name}.mrc", "tomogram", contrast="dark"))
    return any(wrote)


def original_finish(target: Target, catalog: Catalog, records: list[SampleRecord]) -> list[str]:
    """Report what was lost, since the original scripts distinguish only particle and background."""
    names = [info.name for info in catalog.classes]
    if len(names) < 2:
        return []
    return [f"the classes {', '.join(names)} were merged: the original has only one"]


def _label_type(catalog: Catalog) -> str:
    """Type of a label map: MRC has no unsigned bytes, and DeepFinder's own are signed."""
    return "i1" if max(info.label for info in catalog.classes) < 128 else "i2"
