"""CryoET Data Portal annotations: one point a line of JSON (``.ndjson``), in voxels from 0.

A file has one tomogram and one class, given by its name and folders:
``RUN/Reconstructions/VoxelSpacing10.000/Annotations/100/NAME-1.0_orientedpoint.ndjson`` with a metadata
file beside it. Folders have this layout. Scores cannot be stored.
"""

from __future__ import annotations

import json
import re
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
    in_a_path,
    one_of,
)
from catalogs.particle_formats.eulers import from_matrices, quaternions, rotations
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_formats.star import read_text
from catalogs.particle_table import make

_NAME = re.compile(
    r"^(?:\d+-)?(?P<name>.+?)-\d+\.\d+_(?:point|orientedpoint|instancepoint|instancesegmentation)$"
)
_SPACING = re.compile(r"^VoxelSpacing([0-9.]+)$")
_TYPES = ("point", "orientedPoint", "instancePoint")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.ndjson"))


def _detect(sniffed: SniffedFile) -> str | None:
    if sniffed.is_folder:
        found = _files(sniffed.path)
        return (
            f"it has {len(found)} .ndjson files: Data Portal annotations, voxels counted from 0"
            if found
            else None
        )
    try:
        first = json.loads(sniffed.text.lstrip().partition("\n")[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict) or first.get("type") not in _TYPES or "location" not in first:
        return None
    return f"lines of JSON of type {first['type']!r}: a Data Portal annotation, voxels counted from 0"


def _read(path: Path, context: Context) -> pd.DataFrame:
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no .ndjson files of the CryoET Data Portal")
    parts = [_read_file(file, context) for file in files]
    columns: dict[str, Any] = {key: [value for part in parts for value in part[key]] for key in parts[0]}
    return make(**columns | names.classes_of_names(columns["class_name"], context))


def _tomogram_of(path: Path, context: Context) -> str:
    run = next((parent.parent.name for parent in path.parents if parent.name == "Reconstructions"), None)
    return context.tomogram or run or context.name_of(path)


def _learn(path: Path, context: Context) -> Context:
    """Take the voxel size from the folder's name."""
    sizes = {}
    for file in _files(path) if path.is_dir() else [path.absolute()]:
        spacing = next((found for parent in file.parents if (found := _SPACING.match(parent.name))), None)
        if spacing is not None:
            sizes[_tomogram_of(file, context)] = float(spacing.group(1))
    return context.stating(path, sizes, "its folder says")


def _read_file(path: Path, context: Context) -> dict[str, Any]:
    try:
        points = [json.loads(line) for line in read_text(path).splitlines() if line.strip()]
        index = np.array([[float(point["location"][axis]) for axis in "xyz"] for point in points]).reshape(
            -1, 3
        )
        identity = np.eye(3).tolist()
        matrices = [point.get("xyz_rotation_matrix") or identity for point in points]
        turned = from_matrices(np.array(matrices, np.float64).reshape(-1, 3, 3))
        instances = [int(point.get("instance_id", 0)) for point in points]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an annotation of the CryoET Data Portal ({error!r})") from error
    tomogram = _tomogram_of(path, context)
    xyz = context.to_angstrom(index, [tomogram] * len(points))
    stem = _NAME.match(path.name.removesuffix(".ndjson"))
    return {
        **as_columns(["x", "y", "z"], xyz),
        **quaternions(turned),
        "instance": instances,
        "tomogram": [tomogram] * len(points),
        "class_name": [stem.group("name") if stem else "particle"] * len(points),
    }


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    if path.suffix == ".ndjson":
        one_of(table, "tomogram", "tomogram", path)
        one_of(table, "class_name", "class", path)
        return {path: _lines(table, context)}
    files = {}
    numbers = {name: 100 + k for k, name in enumerate(dict.fromkeys(table["class_name"]))}
    for (run, name), part in table.groupby(["tomogram", "class_name"], sort=False):
        kind = "orientedpoint" if has_orientations(part) else "point"
        spacing = f"VoxelSpacing{context.voxel(str(run)):.3f}"
        folder = (
            path / in_a_path(str(run)) / "Reconstructions" / spacing / "Annotations" / str(numbers[str(name)])
        )
        points = folder / f"{in_a_path(str(name))}-1.0_{kind}.ndjson"
        metadata = {
            "annotation_object": {"name": str(name)},
            "annotation_software": "template-learning",
            "object_count": len(part),
            "files": [
                {
                    "format": "ndjson",
                    "path": points.relative_to(path).as_posix(),
                    "shape": "OrientedPoint" if kind == "orientedpoint" else "Point",
                }
            ],
        }
        files[points] = _lines(part, context)
        files[folder / f"{in_a_path(str(name))}-1.0.json"] = (json.dumps(metadata, indent=2) + "\n").encode()
    return files


def _lines(table: pd.DataFrame, context: Context) -> bytes:
    turned = has_orientations(table)
    matrices = rotations(table).as_matrix() if len(table) else np.zeros((0, 3, 3))
    lines = []
    for (x, y, z), matrix in zip(context.to_pixels(table), matrices, strict=True):
        point: dict[str, Any] = {
            "type": "orientedPoint" if turned else "point",
            "location": {"x": float(x), "y": float(y), "z": float(z)},
        }
        if turned:
            point["xyz_rotation_matrix"] = matrix.tolist()
        lines.append(json.dumps(point) + "\n")
    return "".join(lines).encode()


PORTAL = Format(
    name="portal",
    title="CryoET Data Portal annotations",
    suffixes=(".ndjson", ""),
    holds=POSITION | ORIENTATION | {"tomogram", "class_name"},
    detect=_detect,
    read=_read,
    learn=_learn,
    encode=_encode,
    default_for=(".ndjson",),
)
