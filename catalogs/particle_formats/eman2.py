"""EMAN2's info files: ``info/TOMOGRAM_info.json`` with ``boxes_3d`` and ``class_list``.

With the key ``apix_unbin`` a box counts unbinned pixels from the middle voxel, ``size // 2``, of the
tomogram, which suits every binning; older files without the key count the tomogram's voxels from 0. Files are
written in the new way, and other content of an existing file is kept.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from catalogs.errors import InputError
from catalogs.particle_formats.base import POSITION, Context, Format, as_columns, in_a_path, one_of, positions
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make

_END = "_info.json"
_BOX = 64  # EMAN2's own, where the radius of a class is not known


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"info/*{_END}")) or sorted(folder.glob(f"*{_END}"))


def _detect(sniffed: SniffedFile) -> str | None:
    if sniffed.is_folder:
        found = _files(sniffed.path)
        return f"it has {len(found)} files {_END[1:]}: boxes of EMAN2" if found else None
    if not isinstance(sniffed.json, dict) or "boxes_3d" not in sniffed.json:
        return None
    new = "apix_unbin" in sniffed.json
    return "it has boxes_3d " + (
        "and apix_unbin: EMAN2, unbinned pixels from the middle voxel"
        if new
        else "but no apix_unbin: old EMAN2, voxels counted from 0"
    )


def _read(path: Path, context: Context) -> pd.DataFrame:
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no files info/*{_END} of EMAN2")
    parts = [_read_file(file, context) for file in files]
    columns: dict[str, Any] = {key: [value for part in parts for value in part[key]] for key in parts[0]}
    return make(**columns)


def _read_file(path: Path, context: Context) -> dict[str, Any]:
    content = _content(path)
    tomogram = context.tomogram or path.name.removesuffix(_END).removesuffix(".json")
    try:
        boxes = content["boxes_3d"]
        classes = {int(key): str(value["name"]) for key, value in content.get("class_list", {}).items()}
        index = np.array([[float(value) for value in box[:3]] for box in boxes]).reshape(-1, 3)
        labels = [int(box[5]) if len(box) > 5 else 0 for box in boxes]
        scores = [float(box[4]) if len(box) > 4 else np.nan for box in boxes]
        unbinned = None if "apix_unbin" not in content else float(content["apix_unbin"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not an info file of EMAN2 with boxes_3d ({error!r})") from error
    if unbinned is not None and not (np.isfinite(unbinned) and unbinned > 0):
        raise InputError(f"{path}: apix_unbin, Å of an unbinned pixel, is {unbinned:g}; it must be above 0")
    if unbinned is None:
        xyz = replace(context, in_pixels=False).to_angstrom(index, [tomogram] * len(boxes))
    else:
        xyz = index * unbinned + (_middle(tomogram, context) if boxes else 0.0)
    # EMAN2 counts classes from 0, which is no distractor there.
    first = 1 if 0 in labels or 0 in classes else 0
    by_number = {info.label: info.name for info in context.classes}
    return {
        **as_columns(["x", "y", "z"], xyz),
        "tomogram": [tomogram] * len(boxes),
        "score": scores,
        "label": [label + first for label in labels],
        "class_name": [
            classes.get(label, by_number.get(label + first, f"class{label + first}")) for label in labels
        ],
    }


def _middle(tomogram: str, context: Context) -> Any:
    return (context.size(tomogram) // 2) * context.voxel(tomogram)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not an info file of EMAN2 ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not an info file of EMAN2: it holds a list")
    return content


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    if path.suffix == ".json":
        return {path: _encode_file(table, path, one_of(table, "tomogram", "tomogram", path), context)}
    folder = path if path.name == "info" else path / "info"
    parts = table.groupby("tomogram", sort=False)
    return {
        file: _encode_file(part, file, str(name), context)
        for name, part in parts
        for file in [folder / f"{in_a_path(str(name))}{_END}"]
    }


def _encode_file(table: pd.DataFrame, path: Path, tomogram: str, context: Context) -> bytes:
    content = _content(path) if path.is_file() else {}
    if (table["label"] < 1).any():
        raise InputError("EMAN2 has no distractors; leave them out")
    unbinned = float(content.get("apix_unbin", 0))
    if not unbinned and len(table):
        unbinned = context.voxel(tomogram) if context.pixel_size is None else context.unbinned(tomogram)
    unbinned = unbinned or 1.0
    middle = _middle(tomogram, context) if len(table) else 0.0
    index = (positions(table) - middle) / unbinned
    # EMAN2's list of classes begins at any number; ours is the label.
    classes = {}
    for label, name in sorted(set(zip(table["label"], table["class_name"], strict=True))):
        radius = context.radius_of(name)
        classes[str(label)] = {
            "name": name,
            "boxsize": _BOX if radius is None else round(2 * radius / unbinned),
        }
    boxes = [
        [float(x), float(y), float(z), "tlpick", float(score) if np.isfinite(score) else 0.0, int(label)]
        for (x, y, z), score, label in zip(index, table["score"], table["label"], strict=True)
    ]
    content |= {"apix_unbin": unbinned, "boxes_3d": boxes, "class_list": classes}
    return (json.dumps(content, indent=1) + "\n").encode()


EMAN2 = Format(
    name="eman2",
    title="EMAN2 info files",
    suffixes=(".json", ""),
    holds=POSITION | {"tomogram", "class_name", "label", "score"},
    detect=_detect,
    read=_read,
    encode=_encode,
)
