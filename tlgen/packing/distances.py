"""Measure the distances between packed molecules, from their atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tlgen.molecules.molecule import Library

if TYPE_CHECKING:
    from tlgen.packing.tetris import Packing


def nearest_atoms(packing: Packing, library: Library, *, within: float = 50.0) -> NDArray[np.float64]:
    """Measure the distance of each molecule to its nearest neighbour, atom to atom.

    Parameters
    ----------
    packing
        The packed molecules.
    library
        The molecules, by digest.
    within
        Å; neighbours beyond it are not searched.

    Returns
    -------
    ndarray
        (n,) Å from each molecule's atoms to the nearest atom of any other; infinite beyond ``within``.
    """
    atoms = [
        Rotation.from_quat(q).apply(library[packing.requests[i].digest].points.positions) + p
        for i, q, p in zip(packing.which, packing.quaternions, packing.positions, strict=True)
    ]
    return nearest_of(atoms, within=within)


def nearest_of(atoms: Sequence[NDArray[np.float64]], *, within: float = 50.0) -> NDArray[np.float64]:
    """Measure the distance of each of several bodies of atoms, (n, 3) Å each, to its nearest neighbour.

    Returns
    -------
    ndarray
        Å from each body to the nearest atom of any other; infinite beyond ``within``.
    """
    trees = [cKDTree(xyz) for xyz in atoms]
    low = np.array([xyz.min(axis=0) for xyz in atoms]).reshape(-1, 3)
    high = np.array([xyz.max(axis=0) for xyz in atoms]).reshape(-1, 3)
    nearest = np.full(len(atoms), np.inf)
    for a in range(len(atoms)):
        apart = np.linalg.norm(
            np.maximum(0, np.maximum(low - high[a], low[a] - high)), axis=1
        )  # of the bounds
        for b in a + 1 + np.argsort(apart[a + 1 :], kind="stable"):
            limit = min(within, max(nearest[a], nearest[b]))
            if apart[b] >= limit:
                continue
            few, many = (a, b) if len(atoms[a]) < len(atoms[b]) else (b, a)
            near = ((atoms[few] > low[many] - limit) & (atoms[few] < high[many] + limit)).all(axis=1)
            some = trees[many].query(atoms[few][near][::30], distance_upper_bound=limit)[
                0
            ]  # bounds the search
            limit = min(limit, np.nextafter(some.min(initial=np.inf), np.inf))
            distance = trees[many].query(atoms[few][near], distance_upper_bound=limit)[0].min(initial=np.inf)
            nearest[[a, b]] = np.minimum(nearest[[a, b]], distance)
    return nearest
