"""CryoET Data Portal annotations: one point a line of JSON (``.ndjson``), in voxels from 0.

A file is of one tomogram and one class, which its name and its folders say:
``RUN/Reconstructions/VoxelSpacing10.000/Annotations/100/NAME-1.0_orientedpoint.ndjson`` with a metadata
file beside it. As a folder it is that layout. Scores have no room.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.formats import names
from catalogs.formats.base import ORIENTATION, POSITION, Context, Format, as_columns, has_orientations, one_of
from catalogs.formats.eulers import quaternions, rotations
from catalogs.formats.peek import Peek
from catalogs.particles import make

_NAME = re.compile(
    r"^(?:\d+-)?(?P<name>.+?)-\d+\.\d+_(?:point|orientedpoint|instancepoint|instancesegmentation)$"
)
_SPACING = re.compile(r"^VoxelSpacing([0-9.]+)$")
_TYPES = ("point", "orientedPoint", "instancePoint")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.ndjson"))


def _detect(peek: Peek) -> str | None:
    if peek.is_folder:
        found = _files(peek.path)
        return (
            f"it has {len(found)} .ndjson files: Data Portal annotations, voxels counted from 0"
            if found
            else None
        )
    try:
        first = json.loads(peek.text.partition("\n")[0])
    except ValueError:
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


def _read_file(path: Path, context: Context) -> dict[str, Any]:
    try:
        points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        index = np.array([[float(point["location"][axis]) for axis in "xyz"] for point in points]).reshape(
            -1, 3
        )
        identity = np.eye(3).tolist()
        matrices = [point.get("xyz_rotation_matrix", identity) for point in points]
        turned = Rotation.from_matrix(np.array(matrices, np.float64)) if points else Rotation.identity(0)
        instances = [int(point.get("instance_id", 0)) for point in points]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an annotation of the CryoET Data Portal ({error!r})") from error
    folders = {parent.name: parent for parent in path.parents}
    spacing = next((found for name in folders if (found := _SPACING.match(name))), None)
    tomogram = context.tomogram
    if tomogram is None:
        tomogram = (
            folders["Reconstructions"].parent.name if "Reconstructions" in folders else context.name_of(path)
        )
    if context.voxel_size is None and not context.in_pixels and spacing is not None:
        step = float(spacing.group(1))
        xyz = index * step
    else:
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
        folder = path / str(run) / "Reconstructions" / spacing / "Annotations" / str(numbers[str(name)])
        points = folder / f"{name}-1.0_{kind}.ndjson"
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
        files[folder / f"{name}-1.0.json"] = (json.dumps(metadata, indent=2) + "\n").encode()
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
    encode=_encode,
    default_for=(".ndjson",),
)
