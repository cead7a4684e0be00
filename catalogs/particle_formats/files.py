"""Reads and writes the files of particle lists, and sidecars for what a format cannot hold.

Formats with one tomogram per file are written to a folder, ``FOLDER/TOMOGRAM.mod``; formats with one class
per file as ``FOLDER/CLASS/TOMOGRAM.coords``. Folders are read in the same way.

A sidecar is a CSV file with the whole table, ``NAME.tl.csv`` beside the list. When the list is read, its
particles get the columns that the list cannot hold from the sidecar's particles at the same positions. So
particles may be deleted, added and reordered by another program in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from catalogs.atomic_write import replacing
from catalogs.errors import InputError
from catalogs.file_names import file_name, file_names
from catalogs.particle_formats import names, registry
from catalogs.particle_formats import table as csv
from catalogs.particle_formats.base import (
    EVERYTHING,
    NOTES,
    ORIENTATION,
    Context,
    Format,
    in_a_path,
    positions,
)
from catalogs.particle_formats.relion import unwritable
from catalogs.particle_formats.relion_columns import BLOCKS
from catalogs.particle_table import COLUMNS, OPTIONAL, make

_SIDECAR = ".tl.csv"
# Largest distance in Å between a particle and its row in the sidecar, besides rounding of the format.
_SAME_PLACE = 0.01


@dataclass(frozen=True)
class Loaded:
    """A particle table and its source.

    ``why`` explains how the format was recognised, ``context`` has the facts about the tomograms from the
    file and the caller, ``notes`` are sentences for the user.
    """

    table: pd.DataFrame
    format: Format
    why: str
    context: Context
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saved:
    """The written files, the format, and the columns that it cannot hold."""

    files: tuple[Path, ...]
    format: Format
    lost: tuple[str, ...]
    sidecar: Path | None = None


def load(path: Path, format: str | None = None, context: Context | None = None) -> Loaded:
    """Read a particle list; see :func:`catalogs.particles.read`."""
    context = context or Context()
    found = _find(path, format)
    files = _members(path, found.format)
    if files is None:
        table, context = _read(found.format, path, context)
    else:
        parts = [_read_member(found.format, path, file, context) for file in files]
        said = [
            f"{file.name}: {note}"
            for file, (part, _) in zip(files, parts, strict=True)
            for note in part.attrs.pop(NOTES, ())
        ]
        table = _join([part for part, _ in parts])
        table.attrs |= {NOTES: said}
        context = _join_contexts(context, [learnt for _, learnt in parts])
    notes = tuple(table.attrs.pop(NOTES, ()))
    if context.tomogram is not None and len(set(table["tomogram"])) > 1:
        table = table[table["tomogram"] == context.tomogram].reset_index(drop=True)
        if table.empty:
            raise InputError(f"{path} has no particles of the tomogram {context.tomogram!r}")
    beside = sidecar_of(path)
    if beside.is_file():
        attrs = table.attrs
        table, note = _restore(table, csv.read(beside), found.format, context, beside)
        table.attrs |= attrs
        notes = (*notes, note)
    return Loaded(table, found.format, found.why, context, notes)


def save(
    table: pd.DataFrame,
    path: Path,
    format: str | None = None,
    context: Context | None = None,
    sidecar: bool = False,
    overwrite: bool = True,
) -> Saved:
    """Write a particle list; see :func:`catalogs.particles.write`.

    Without ``overwrite``, an existing file is refused; EMAN2's files are extended in any case.
    """
    context = context or Context()
    chosen = registry.target(path) if format is None else registry.named(format)
    files: dict[Path, bytes] = {}
    if chosen.one_tomogram and _is_folder(path, chosen):
        for member, part in _split(table, path, chosen):
            files |= chosen.encode(part.reset_index(drop=True), member, context)
    else:
        files = chosen.encode(table.reset_index(drop=True), path, context)
    if _is_folder(path, chosen):
        for column in ("class_name", "tomogram"):
            file_names(map(str, table[column]))  # two files of the same name would lose particles
    if not files:
        raise InputError(f"there are no particles to write into the folder {path}")
    lost = lost_columns(table, chosen, context)
    if chosen.one_class and _is_folder(path):
        lost = tuple(name for name in lost if name != "class_name")  # the folders name it
    beside = sidecar_of(path) if sidecar and (lost or chosen.rounding > 0.01) else None
    if beside is not None:
        files[beside] = csv.format_csv(table).encode()
    taken = next((file for file in files if file.exists()), None)
    if taken is not None and not overwrite and chosen.name != "eman2":
        raise InputError(f"{taken} already exists; give another name, or `overwrite`")
    _write(files)
    if beside is None:
        # it belongs to the list that has just been replaced
        sidecar_of(path).unlink(missing_ok=True)
    return Saved(tuple(files), chosen, lost, beside)


def sidecar_of(path: Path) -> Path:
    """Return the path of the sidecar of a list: beside a file, or in a folder."""
    return path / f"particles{_SIDECAR}" if _is_folder(path) else path.with_name(path.name + _SIDECAR)


def lost_columns(table: pd.DataFrame, format: Format, context: Context) -> tuple[str, ...]:
    """List the columns of a table with known values that a format cannot hold."""
    blocks = [f"data_{name}" for name in table.attrs.get(BLOCKS, ())]
    if format.name.startswith("relion"):
        return tuple(unwritable(table))
    if EVERYTHING in format.holds or table.empty:
        return tuple(blocks)
    columns = [str(name) for name in table if name not in ORIENTATION]
    lost = [name for name in columns if name not in format.holds and _says(table, name)]
    if not format.holds >= ORIENTATION and any(_says(table, name) for name in ("qx", "qy", "qz")):
        lost.append("orientation")
    if "class_name" in format.holds:
        known = names.classes_of_names([str(name) for name in table["class_name"]], context)
        follows = "label" in format.holds or list(known["label"]) == list(table["label"])
        lost = [name for name in lost if name != "label" or not follows]
    elif "label" in format.holds and names.class_names_follow(table, context):
        lost = [name for name in lost if name != "class_name"]
    changed = any(file_name(str(name)) != name for name in set(table["tomogram"]) if name)
    if format.one_tomogram and changed and "tomogram" not in lost:
        lost.insert(0, "tomogram")  # the file name is the name
    if format.numbers_tomograms and not context.tomograms:
        numbered = names.number_tomograms(table["tomogram"], context)
        if any(str(number) != name for name, number in numbered.items()):
            lost.insert(0, "tomogram")
    return (*lost, *blocks)


def _says(table: pd.DataFrame, name: str) -> bool:
    """Return whether a column has any known value."""
    values = table[name]
    if name in ("instance", "qx", "qy", "qz"):
        return bool((values != 0).any())
    if name == "variant":
        return bool((values != -1).any())
    if name in ("structure", "flags", "tomogram"):
        return bool((values.map(str) != "").any())
    if COLUMNS.get(name) is float or OPTIONAL.get(name) is float:
        return bool(values.notna().any())
    return True


def _find(path: Path, format: str | None) -> registry.Detected:
    if format is None:
        return registry.detect(path)
    if not path.exists():
        raise InputError(f"there is no particle list {path}")
    return registry.Detected(registry.named(format), "as requested")


def _is_folder(path: Path, format: Format | None = None) -> bool:
    if path.is_dir() or path.is_file():
        return path.is_dir()
    return not path.suffix or (
        format is not None and path.suffix.lower() not in format.suffixes and not path.suffix
    )


def _members(path: Path, format: Format) -> list[Path] | None:
    """List the files of a folder of lists; None if the format reads the path itself."""
    if not path.is_dir() or "" in format.suffixes:
        return None
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in format.suffixes
        and file.is_file()
        and not file.name.startswith(".")
        and not file.name.endswith(_SIDECAR)
    )
    if not files:
        raise InputError(
            f"the folder {path} has no files {' or '.join(format.suffixes)} of the format {format.name}"
        )
    return files


def _read_member(format: Format, folder: Path, file: Path, context: Context) -> tuple[pd.DataFrame, Context]:
    table, context = _read(format, file, context)
    if format.one_class and file.parent != folder:
        table["class_name"] = file.parent.name
    return table, context


def _join_contexts(given: Context, learnt: Sequence[Context]) -> Context:
    """Merge the contexts of the files of a folder, each of one tomogram."""
    joined: dict[str, Any] = {}
    for key in ("voxel_size", "shape", "pixel_size"):
        known = [value for each in learnt if isinstance(value := getattr(each, key), Mapping)]
        if getattr(given, key) is None and known:
            joined[key] = {name: value for each in known for name, value in each.items()}
    return replace(given, **joined)


def _join(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate tables, and number the classes of all files together."""
    table = pd.concat(parts, ignore_index=True)
    labels = table.groupby("class_name")["label"].nunique()
    if len(labels) and (labels.max() > 1 or table.groupby("label")["class_name"].nunique().max() > 1):
        table = table.drop(columns="label")
    return make(**{str(name): table[name] for name in table})


def _read(format: Format, path: Path, context: Context) -> tuple[pd.DataFrame, Context]:
    try:
        context = format.learn(path, context)
        return format.read(path, context), context
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        # the cause is in the file: the message says what, the traceback where
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} cannot be read as {format.title} ({why})") from error


def _split(table: pd.DataFrame, folder: Path, format: Format) -> list[tuple[Path, pd.DataFrame]]:
    keys = ["class_name", "tomogram"] if format.one_class else ["tomogram"]
    members = []
    for key, part in table.groupby(keys, sort=False):
        values = [in_a_path(str(value)) for value in key]
        *folders, name = values
        members.append((folder.joinpath(*folders, name + format.suffixes[0]), part))
    return members


def _restore(
    table: pd.DataFrame, kept: pd.DataFrame, format: Format, context: Context, path: Path
) -> tuple[pd.DataFrame, str]:
    """Add the columns of the sidecar to the particles of a list."""
    steps = [context.pixel(name) for name in set(table["tomogram"])] if format.rounding > 0.01 else [0.0]
    near = _SAME_PLACE + format.rounding * max(steps, default=0.0) * np.sqrt(3)
    rows = _pair(positions(table), positions(kept), near)
    found = rows >= 0
    taken = (
        kept.iloc[np.maximum(rows, 0)].reset_index(drop=True)
        if len(kept)
        else kept.reindex(range(len(table)))
    )
    blank = make(x=np.zeros(len(table)), y=np.zeros(len(table)), z=np.zeros(len(table)))
    restored: dict[str, object] = {}
    for name in [*table.columns, *(column for column in kept if column not in table)]:
        keep_own = name in table and (
            name in format.holds and name not in ("x", "y", "z", "label", "tomogram")
        )
        if name not in kept or keep_own:
            restored[name] = table[name]
            continue
        other = table[name] if name in table else blank.get(name, _unknown(kept[name], len(table)))
        restored[name] = [
            mine if ok else theirs for ok, mine, theirs in zip(found, taken[name], other, strict=True)
        ]
    note = f"{int(found.sum())} of {len(table)} particles have more about them in {path.name}"
    return make(**restored), note


def _unknown(column: pd.Series, n: int) -> pd.Series:
    return pd.Series([np.nan if column.dtype.kind in "fiu" else ""] * n)


def _pair(these: np.ndarray, those: np.ndarray, near: float) -> np.ndarray:
    """Match each of ``these`` to a row of ``those`` at its position, each used once; -1 without a match."""
    rows = np.full(len(these), -1)
    if len(these) == len(those) and (np.linalg.norm(these - those, axis=1) <= near).all():
        return np.arange(len(these))
    if not len(these) or not len(those):
        return rows
    used: set[int] = set()
    for k, candidates in enumerate(cKDTree(those).query_ball_point(these, near)):
        free = sorted((float(np.linalg.norm(those[c] - these[k])), c) for c in candidates if c not in used)
        if free:
            rows[k] = free[0][1]
            used.add(free[0][1])
    return rows


def _write(files: dict[Path, bytes]) -> None:
    """Write files, each completely or not at all, and none unless all could be written."""
    try:
        with ExitStack() as all_of_them:
            for path, content in files.items():
                all_of_them.enter_context(replacing(path)).write_bytes(content)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be written ({error.strerror})") from error
