"""DeepFinder's object lists: XML, and the text of its label, z, y, x.

Positions are voxels from 0, orientations TOM's psi, phi, the. DeepFinder ignores unknown attributes of an
object, so score, class and tomogram are stored as additional attributes.

The text is what DeepFinder writes; its own reader of that text takes z for x.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats import names
from catalogs.particle_formats.base import (
    ORIENTATION,
    POSITION,
    Context,
    Format,
    as_columns,
    has_orientations,
    one_of,
)
from catalogs.particle_formats.chimerax import read_xml, write_xml
from catalogs.particle_formats.eulers import eulers, from_eulers, quaternions
from catalogs.particle_formats.imod import counts_contours
from catalogs.particle_formats.sniff import SniffedFile, read_numbers
from catalogs.particle_table import make

_ANGLES = ["phi", "the", "psi"]
# Our attributes, by type in the particle table.
_MORE: dict[str, type] = {"score": float, "calibrated": float, "flags": str}


def _detect_xml(sniffed: SniffedFile) -> str | None:
    found = "<objlist" in sniffed.text[:2000]
    return "it has an <objlist>: a DeepFinder object list, voxels counted from 0" if found else None


def _read_xml(path: Path, context: Context) -> pd.DataFrame:
    root = read_xml(path)
    if root.tag != "objlist":
        raise InputError(f"{path} is not a DeepFinder object list: it holds <{root.tag}>, not <objlist>")
    objects = [item.attrib for item in root.iter("object")]

    def all_of(name: str, default: Any) -> list[str]:
        return [item.get(name, str(default)) for item in objects]

    def have(name: str) -> bool:
        return any(name in item for item in objects)

    if have("tomogram"):
        tomograms = all_of("tomogram", "")
    elif have("tomo_idx"):
        tomograms = names.name_tomograms([int(number) for number in all_of("tomo_idx", 0)], context)
    else:
        tomograms = [context.name_of(path)] * len(objects)
    index = np.array([[float(item[axis]) for axis in "xyz"] for item in objects]).reshape(-1, 3)
    angles = np.array([[float(item.get(name, 0)) for name in _ANGLES] for item in objects]).reshape(-1, 3)
    columns: dict[str, Any] = {"tomogram": tomograms}
    columns |= as_columns(["x", "y", "z"], context.to_angstrom(index, tomograms))
    columns |= quaternions(from_eulers(angles, "tom"))
    columns |= names.classes_of_labels([int(label) for label in all_of("class_label", 1)], context)
    if have("class_name"):
        columns |= {
            "class_name": all_of("class_name", "particle"),
            "label": [int(k) for k in all_of("class_label", 1)],
        }
    if have("obj_id"):
        columns["instance"] = [int(number) for number in all_of("obj_id", 0)]
    if have("cluster_size"):
        columns["size"] = [float(size) for size in all_of("cluster_size", "nan")]
    for name, kind in _MORE.items():
        if have(name):
            columns[name] = [kind(value) for value in all_of(name, "nan" if kind is float else "")]
    return make(**columns)


def _encode_xml(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    numbered = names.number_tomograms(table["tomogram"], context)
    index, angles, turned = context.to_pixels(table), eulers(table, "tom"), has_orientations(table)
    named = any(str(number) != name for name, number in numbered.items())
    root = ET.Element("objlist")
    for k, row in enumerate(table.to_dict("records")):
        item = {"tomo_idx": str(numbered[row["tomogram"]])}
        if row["instance"]:
            item["obj_id"] = str(row["instance"])
        item["class_label"] = str(row["label"])
        item |= {axis: f"{value:.6f}" for axis, value in zip("xyz", index[k], strict=True)}
        if turned:
            item |= {name: f"{value:.6f}" for name, value in zip(_ANGLES, angles[k], strict=True)}
        if np.isfinite(size := row.get("size", np.nan)):
            item["cluster_size"] = str(round(size))
        if named:
            item["tomogram"] = row["tomogram"]
        item["class_name"] = row["class_name"]
        for name, kind in _MORE.items():
            if name in row and (kind is str or np.isfinite(row[name])):
                item[name] = row[name] if kind is str else f"{row[name]:.12g}"
        ET.SubElement(root, "object", item)
    return {path: write_xml(root)}


def _detect_text(sniffed: SniffedFile) -> str | None:
    rows = sniffed.numbers
    if rows is None or sniffed.suffix not in (".txt", "") or len(rows[0]) not in (4, 5):
        return None
    values = np.array(rows)
    labels, sizes = values[:, 0], values[:, 4:]
    whole = (labels % 1 == 0).all() and (labels >= 0).all() and (sizes % 1 == 0).all() and (sizes >= 1).all()
    if not whole or (values.shape[1] == 5 and counts_contours(values) and len(values) > 2):
        return None  # no tomogram has its particles in slices 1, 1, 1, ... by label
    size = " and sizes last" if sizes.size else ""
    columns = f"{len(rows[0])} columns with whole labels first{size}"
    return f"{columns}: DeepFinder's label z y x, voxels counted from 0"


def _read_text(path: Path, context: Context) -> pd.DataFrame:
    values = read_numbers(path, [4, 5], "DeepFinder's text (label z y x, and perhaps a size)")
    tomogram = context.name_of(path)
    columns = as_columns(["x", "y", "z"], context.to_angstrom(values[:, 3:0:-1], [tomogram] * len(values)))
    if values.shape[1] == 5:
        columns["size"] = values[:, 4]
    classes = names.classes_of_labels(names.whole(values[:, 0], "the label"), context)
    return make(tomogram=tomogram, **columns, **classes)


def _encode_text(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    one_of(table, "tomogram", "tomogram", path)
    sizes = table["size"].to_numpy(np.float64) if "size" in table else np.full(len(table), np.nan)
    known = len(table) > 0 and bool(np.isfinite(sizes).all())  # a column exists for all or for none
    lines = [
        f"{label} {z:.6f} {y:.6f} {x:.6f}{f' {round(size)}' if known else ''}\n"
        for label, (x, y, z), size in zip(table["label"], context.to_pixels(table), sizes, strict=True)
    ]
    return {path: "".join(lines).encode()}


XML = Format(
    name="deepfinder",
    title="DeepFinder object list",
    suffixes=(".xml",),
    holds=POSITION
    | ORIENTATION
    | {"tomogram", "class_name", "label", "instance", "score", "calibrated", "size", "flags"},
    detect=_detect_xml,
    read=_read_xml,
    encode=_encode_xml,
    default_for=(".xml",),
)
TEXT = Format(
    name="deepfinder-text",
    title="DeepFinder text (label z y x)",
    suffixes=(".txt",),
    holds=POSITION | {"tomogram", "label", "size"},
    detect=_detect_text,
    read=_read_text,
    encode=_encode_text,
    one_tomogram=True,
)
