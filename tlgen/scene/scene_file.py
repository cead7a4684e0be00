"""Write and read a scene as a folder.

::

    scene.json       what stands where, every number to the last bit
    structures/      the molecules that it names, as in a corpus
    particles.star   the particle table (RELION 5, ChimeraX with ArtiaX)
    density.mrc      everything in it, coarsely, in g/cm³

``scene.json`` and ``structures/`` are the scene; the other two are made from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from catalogs import particles
from catalogs.atomic_write import write_text
from catalogs.corpus import molecules
from catalogs.errors import InputError
from catalogs.storage.store import Store
from catalogs.volumes import write_mrc
from tlgen.molecules.molecule import Library, Molecule, from_arrays, to_arrays
from tlgen.scene.decoration_shapes import from_dict, to_dict
from tlgen.scene.density import density
from tlgen.scene.scene import Scene

#: Name of the file that makes a folder a scene.
NAME = "scene.json"
#: Å; of the coarse density's voxels.
COARSE = 16.0
#: Version of the layout; a reader refuses a newer one.
VERSION = 1


class FolderLibrary(Mapping[str, Molecule]):
    """The molecules in a scene's folder, by digest; each is read once."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._store = Store(str(Path(folder).resolve()))
        self._read: dict[str, Molecule] = {}

    def __getitem__(self, digest: str) -> Molecule:
        if digest not in self._read:
            self._read[digest] = from_arrays(molecules.get(self._store, digest))
        return self._read[digest]

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(Path(self._store.url, "structures").glob("*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def write_scene(
    scene: Scene,
    library: Library,
    folder: str | os.PathLike[str],
    *,
    name: str = "scene",
    voxel_size: float = COARSE,
) -> None:
    """Write a scene, its molecules, its particle table and a coarse density.

    ``scene.json`` is written last, so a folder that has one is complete.

    Parameters
    ----------
    scene, library
        The scene, and its molecules by digest.
    folder
        Folder, which is created; a scene in it is replaced.
    name
        Of the tomogram in the particle table.
    voxel_size
        Å; of the coarse density.

    Raises
    ------
    InputError
        If the folder contains other files, or is a file.
    """
    check_target(folder, voxel_size)
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    (at / NAME).unlink(missing_ok=True)
    store = Store(str(at.resolve()))
    needed = {f"{molecules.STRUCTURES}/{digest}.npz" for digest in scene.digests}
    store.remove_objects(sorted(set(molecules.keys_of(store.entries(molecules.STRUCTURES))) - needed))
    for digest in sorted(set(scene.digests)):
        molecules.put(store, digest, to_arrays(library[digest]))
    table = scene.particles(name, library)
    particles.write(table, at / "particles.star", voxel_size=scene.voxel_size, shape=scene.shape)
    grid = scene.grid_of(voxel_size)
    write_mrc(at / "density.mrc", density(scene, library, grid=grid), voxel_size, origin=grid.origin)
    write_text(at / NAME, _format(to_words(scene)))


def check_target(folder: str | os.PathLike[str], voxel_size: float) -> None:
    """Refuse a folder with other files, or an invalid voxel size, before anything is packed.

    Raises
    ------
    InputError
        Says which.
    """
    at = Path(folder)
    if at.exists() and not at.is_dir():
        raise InputError(f"{at} is a file; give a folder to write the scene to")
    if at.is_dir() and any(at.iterdir()) and not (at / NAME).is_file():
        raise InputError(f"{at} is not empty and contains no scene; give a new folder")
    if not voxel_size > 0:
        raise InputError(f"the voxel size of a coarse density must be more than 0 Å, not {voxel_size:g}")


def read_scene(folder: str | os.PathLike[str]) -> tuple[Scene, FolderLibrary]:
    """Read what :func:`write_scene` wrote, to the bit.

    Parameters
    ----------
    folder
        Of the scene; the path of its ``scene.json`` will do.

    Returns
    -------
    scene : Scene
    library : FolderLibrary
        Its molecules, read when they are asked for.

    Raises
    ------
    InputError
        If there is no scene, or it is damaged or of a later version.
    """
    at = Path(folder)
    at = at.parent if at.name == NAME else at
    file = at / NAME
    if not file.is_file():
        raise InputError(f"there is no scene in {at}; `tlgen pack RECIPE --to {at}` makes one")
    try:
        words = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error}); pack it again") from error
    return from_words(words, str(file)), FolderLibrary(at)


def _format(words: dict[str, Any]) -> str:
    """JSON with a line for each key, kind, molecule and decoration."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def block(value: Any) -> str:
        if isinstance(value, list) and value:
            return "[\n  " + ",\n  ".join(map(text, value)) + "\n ]"
        return text(value)

    return "{\n " + ",\n ".join(f"{text(key)}: {block(value)}" for key, value in words.items()) + "\n}\n"


def to_words(scene: Scene) -> dict[str, Any]:
    """Turn a scene into what JSON holds; floats keep every bit there."""
    of_each: dict[str, tuple[Any, ...]] = {
        "digest": scene.digests, "name": scene.names, "variant": scene.variants, "label": scene.labels,
    }  # fmt: skip
    of_each |= {"rmsd": scene.rmsds} if scene.rmsds else {}
    of_each |= {"amplitudes": scene.amplitudes} if scene.amplitudes else {}
    kinds = [dict(zip(of_each, values, strict=True)) for values in zip(*of_each.values(), strict=True)]
    placed = zip(scene.which.tolist(), scene.positions.tolist(), scene.quaternions.tolist(), strict=True)
    return {
        "scene": VERSION,
        "shape": scene.shape,
        "voxel_size": scene.voxel_size,
        "class_names": scene.class_names,
        "asked": dict(scene.asked),
        "kinds": kinds,
        "molecules": [{"kind": k, "position": xyz, "quaternion": q} for k, xyz, q in placed],
        "decorations": [to_dict(decoration) for decoration in scene.decorations],
    }


def from_words(words: Any, where: str = "the scene") -> Scene:
    """Turn what JSON held back into the scene; see :func:`to_words`.

    Parameters
    ----------
    words
        As read.
    where
        Name of the file for messages.

    Raises
    ------
    InputError
        If something is missing, of a wrong kind, or of a later version.
    """
    version = words.get("scene") if isinstance(words, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{where} is not a scene of this program")
    if version > VERSION:
        raise InputError(f"{where} has version {version}; this program reads up to {VERSION}, update it")
    try:
        kinds, placed = words["kinds"], words["molecules"]
        z, y, x = (int(n) for n in words["shape"])
        made = Scene(
            shape=(z, y, x),
            voxel_size=float(words["voxel_size"]),
            digests=tuple(str(kind["digest"]) for kind in kinds),
            names=tuple(str(kind["name"]) for kind in kinds),
            variants=tuple(int(kind["variant"]) for kind in kinds),
            labels=tuple(int(kind["label"]) for kind in kinds),
            class_names=tuple(map(str, words["class_names"])),
            which=np.array([int(each["kind"]) for each in placed], np.int64),
            positions=np.array([each["position"] for each in placed], np.float64).reshape(-1, 3),
            quaternions=np.array([each["quaternion"] for each in placed], np.float64).reshape(-1, 4),
            rmsds=tuple(float(kind["rmsd"]) for kind in kinds if "rmsd" in kind),
            amplitudes=tuple(tuple(map(float, k["amplitudes"])) for k in kinds if "amplitudes" in k),
            decorations=tuple(map(from_dict, words["decorations"])),
            asked={str(name): int(n) for name, n in words["asked"].items()},
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is damaged ({type(error).__name__}: {error}); pack it again") from error
    _check_numbers(made, where)
    return made


def _check_numbers(scene: Scene, where: str) -> None:
    """Refuse numbers that are not valid in a scene, e.g. after editing (InputError names the first)."""
    if min(scene.shape) < 1 or not 0 < scene.voxel_size < np.inf:
        raise InputError(f"{where}: a box of {scene.shape} voxels of {scene.voxel_size:g} Å is not possible")
    if wrong := [label for label in scene.labels if not 0 <= label <= len(scene.class_names)]:
        raise InputError(f"{where}: there is no class of the label {wrong[0]}; 0 is that of a distractor")
    for i, (kind, quaternion) in enumerate(zip(scene.which.tolist(), scene.quaternions, strict=True)):
        if not 0 <= kind < len(scene.digests):
            raise InputError(
                f"{where}: molecule {i + 1} is of kind {kind}, and there are {len(scene.digests)}, from 0 on"
            )
        if not 1e-6 < np.abs(quaternion).max() < np.inf:
            raise InputError(
                f"{where}: the quaternion of molecule {i + 1} is not a rotation; give one such as 0, 0, 0, 1"
            )
