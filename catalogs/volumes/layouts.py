"""Folders of copick projects and the CryoET Data Portal: finds a tomogram, its run and voxel size.

::

    copick        ExperimentRuns/<run>/VoxelSpacing<Å>/<type>.zarr
    Data Portal   <dataset>/<run>/Reconstructions/VoxelSpacing<Å>/Tomograms/<id>/<name>.zarr and .mrc
                  <dataset>/<run>/Tomograms/VoxelSpacing<Å>/CanonicalTomogram/<name>.zarr and .mrc
"""

from __future__ import annotations

import re
from pathlib import Path

from catalogs.errors import InputError
from catalogs.volumes.source import explained

_SPACING = re.compile(r"VoxelSpacing([\d.]+)")
_BETWEEN = ("Reconstructions", "Tomograms")
_FOLDERS = ("Tomograms", "Reconstructions", "CanonicalTomogram")


def run_of(text: str) -> str | None:
    """Return the name of a tomogram's run; None outside of these layouts."""
    parts = text.rstrip("/").split("/")
    for k in range(len(parts) - 2, 0, -1):  # the last part is the volume itself
        if _SPACING.fullmatch(parts[k]):
            run = parts[k - 1] if parts[k - 1] not in _BETWEEN else parts[k - 2] if k > 1 else ""
            return run or None
    return None


def spacing_of(text: str) -> float | None:
    """Return the voxel size in Å in the name of a tomogram's folder; None outside of these layouts."""
    for part in reversed(text.rstrip("/").split("/")[:-1]):
        found = _SPACING.fullmatch(part)
        if found:
            try:
                return float(found[1])
            except ValueError:
                return None
    return None


def checked_spacing(text: str, size: float | None) -> float | None:
    """Return the voxel size of a tomogram from its header and its folder.

    Raises
    ------
    InputError
        If the two differ by more than 1 %.
    """
    stated = spacing_of(text)
    if size is None or stated is None:
        return size if stated is None else stated
    if abs(size - stated) > 0.01 * stated:
        raise InputError(
            f"{text} states voxels of {size:g} Å and lies in a folder for {stated:g} Å; correct one of them"
        )
    return size


def volume_below(text: str) -> str | None:
    """Find the only tomogram of a run, a voxel spacing or a folder of tomograms in these layouts.

    Parameters
    ----------
    text
        Path or URL of a folder that is not a volume itself.

    Returns
    -------
    str or None
        Path or URL of the tomogram; None if the folder has another layout.

    Raises
    ------
    InputError
        If it contains several or none.
    """
    text = text.rstrip("/")
    parts = text.split("/")
    inside = any(_SPACING.fullmatch(part) for part in parts)
    names = _children(text)
    volumes = [name for name in names if _is_tomogram(name)]
    if inside and volumes:
        # the portal has each tomogram twice; Zarr can be read in parts everywhere
        zarrs = [name for name in volumes if name.endswith(".zarr")] or volumes
        return f"{text}/{_only(zarrs, text)}"
    spacings = [name for name in names if _SPACING.fullmatch(name)]
    folders = spacings or [name for name in names if name in _FOLDERS]
    if inside and not folders and any(part in _FOLDERS for part in parts):
        folders = [name for name in names if name.isdigit()]  # Tomograms/<id>
    if not folders:
        return None
    if not spacings:
        folders = sorted(folders, key=_FOLDERS.index) if folders[0] in _FOLDERS else folders
        for name in folders if folders[0] in _FOLDERS else []:
            found = volume_below(f"{text}/{name}")
            if found is not None:
                return found
        if folders[0] in _FOLDERS:
            return None
    return volume_below(f"{text}/{_only(folders, text)}")


def _is_tomogram(name: str) -> bool:
    """Leave out copick's features, which are stored beside their tomogram."""
    return name.endswith((".zarr", ".mrc")) and not name.endswith("_features.zarr") and name[0] != "."


def _only(names: list[str], text: str) -> str:
    if len(names) == 1:
        return names[0]
    listed = ", ".join(sorted(names)[:5])
    raise InputError(
        f"{text} holds {len(names)} ({listed}); name the one that is meant, e.g. {text}/{names[0]}"
    )


def _children(text: str) -> list[str]:
    with explained(text):
        if "://" not in text:
            return sorted(entry.name for entry in Path(text).iterdir())
        from catalogs.storage.store import filesystem

        fs, path = filesystem(text)
        try:
            found = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(key).rstrip("/").rsplit("/", 1)[-1] for key in found)
