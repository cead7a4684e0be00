"""copick picks: a JSON file for each run (tomogram), object (class), user and session.

Positions are Å from the centre of the first voxel; a point's transformation is its rotation, and a
translation that is added to the position. As a folder it is copick's layout,
``ExperimentRuns/RUN/Picks/USER_SESSION_OBJECT.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

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
    positions,
)
from catalogs.particle_formats.eulers import from_matrices, quaternions, rotations
from catalogs.particle_formats.sniff import SniffedFile
from catalogs.particle_table import make
from catalogs.volumes.units import angstroms_in

_RUNS, _PICKS = "ExperimentRuns", "Picks"


def _files(folder: Path) -> list[Path]:
    """Find picks in a project, in its ExperimentRuns, in a run or in a folder of picks."""
    for pattern in (f"{_RUNS}/*/{_PICKS}/*.json", f"*/{_PICKS}/*.json", f"{_PICKS}/*.json"):
        if found := sorted(folder.glob(pattern)):
            return found
    return sorted(folder.glob("*.json")) if folder.name == _PICKS else []


def _detect(sniffed: SniffedFile) -> str | None:
    if sniffed.is_folder:
        found = _files(sniffed.path)
        return f"it has {len(found)} files of copick picks: Å from the first voxel" if found else None
    if not isinstance(sniffed.json, dict) or "pickable_object_name" not in sniffed.json:
        return None
    return "it has a pickable_object_name: copick picks, Å from the first voxel"


def _read(path: Path, context: Context) -> pd.DataFrame:
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no copick picks: {_RUNS}/RUN/{_PICKS}/*.json are needed")
    read = [_read_file(file, context) for file in files]
    classes = names.classes_of_names([name for _, part in read for name in part["class_name"]], context)
    columns: dict[str, Any] = {
        key: np.concatenate([np.asarray(part[key]) for _, part in read]) for key in read[0][1]
    }
    columns["tomogram"] = [run for run, part in read for _ in part["x"]]
    return make(**columns | classes)


def _learn(path: Path, context: Context) -> Context:
    """Take the voxel spacings that the picks were made at."""
    if context.voxel_size is not None:
        return context
    sizes = {}
    for file in _files(path) if path.is_dir() else [path]:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict) and content.get("voxel_spacing") is not None:
            sizes[_run_of(file, content, context)] = float(content["voxel_spacing"])
    return replace(context, voxel_size=sizes) if sizes else context


def _run_of(path: Path, content: Mapping[str, Any], context: Context) -> str:
    of_folder = path.parent.parent.name if path.parent.name == _PICKS else context.name_of(path)
    return str(context.tomogram or content.get("run_name") or of_folder)


def _read_file(path: Path, context: Context) -> tuple[str, dict[str, Any]]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        points = content["points"] or []
        name, unit = str(content["pickable_object_name"]), content.get("unit") or "angstrom"
        factor = angstroms_in(str(unit))
        if factor is None:
            raise InputError(f"{path} is in {unit!r}, which is not a known unit; write its picks in angstrom")
        xyz = np.array([[float(point["location"][axis]) for axis in "xyz"] for point in points]).reshape(
            -1, 3
        )
        identity = np.eye(4).tolist()
        matrices = np.array(
            [point.get("transformation_") or identity for point in points], np.float64
        ).reshape(-1, 4, 4)
        scores = [point.get("score") for point in points]
        instances = [point.get("instance_id") or 0 for point in points]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a file of copick picks ({error!r})") from error
    columns = as_columns(["x", "y", "z"], factor * (xyz + matrices[:, :3, 3]))
    turned = Rotation.identity(len(points))
    if len(points) and content.get("trust_orientation", True):
        try:
            turned = from_matrices(matrices[:, :3, :3])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    columns |= quaternions(turned)
    return _run_of(path, content, context), {
        **columns,
        "class_name": [name] * len(points),
        "score": [np.nan if score is None else float(score) for score in scores],
        "instance": [int(instance) for instance in instances],
    }


def _encode(table: pd.DataFrame, path: Path, context: Context) -> dict[Path, bytes]:
    for what, name in [("user", context.user), ("session", context.session)]:
        _refuse(what, name)
    if path.suffix == ".json":
        one_of(table, "tomogram", "tomogram", path)
        one_of(table, "class_name", "class", path)
        if table.empty:
            raise InputError(
                "a file of copick picks names its class, and there are no particles to say which"
            )
    root = path if path.name == _RUNS else path / _RUNS
    files = {}
    for (run, object_name), part in table.groupby(["tomogram", "class_name"], sort=False):
        _refuse("class", str(object_name))
        file = root / in_a_path(str(run)) / _PICKS / f"{context.user}_{context.session}_{object_name}.json"
        content = _encode_file(part, str(run), str(object_name), context)
        files[path if path.suffix == ".json" else file] = content
    return files


def _encode_file(table: pd.DataFrame, run: str, name: str, context: Context) -> bytes:
    points = []
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    matrices[:, :3, :3] = rotations(table).as_matrix()
    rows = zip(positions(table), matrices, table["instance"], table["score"], strict=True)
    for (x, y, z), matrix, instance, score in rows:
        point = {
            "location": {"x": float(x), "y": float(y), "z": float(z)},
            "transformation_": matrix.tolist(),
            "instance_id": int(instance),
        }
        points.append(point | ({"score": float(score)} if np.isfinite(score) else {}))
    content = {
        "pickable_object_name": name,
        "user_id": context.user,
        "session_id": context.session,
        "run_name": run,
        "voxel_spacing": None if context.voxel_size is None else context.voxel(run),
        "unit": "angstrom",
        "points": points,
        "trust_orientation": has_orientations(table),
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _refuse(what: str, name: str) -> None:
    # copick would change these names, and picks and project would differ
    if name.strip("-") != name or not name or set(name) & set('_/\\ <>:"|?*') or not name.isprintable():
        raise InputError(
            f"copick cannot take the {what} {name!r}: no underscore, space or slash may be in it; rename it"
        )


COPICK = Format(
    name="copick",
    title="copick picks",
    suffixes=(".json", ""),
    holds=POSITION | ORIENTATION | {"tomogram", "class_name", "instance", "score"},
    detect=_detect,
    read=_read,
    learn=_learn,
    encode=_encode,
)
