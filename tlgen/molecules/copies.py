"""Several models in one structure file: an ensemble of one molecule, or the copies of an assembly.

The models of an NMR ensemble lie on each other. Those of an assembly's file (``.pdb1`` of the PDB) stand
beside each other, each with the coordinates of its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

#: Atoms of different molecules are no nearer than this, Å, but for a few.
_NEAREST = 2.4
#: Share of atoms that may be nearer, for ions on axes of symmetry and clashes of low resolution.
_FEW = 0.05
#: Å by which copies of a rigid molecule may differ; files are written to 0.001 Å.
_SAME = 0.1


def are_copies(models: Sequence[NDArray[np.float64]], same: Sequence[bool], path: Path) -> bool:
    """Tell whether models are copies of an assembly, and not one molecule again and again.

    Parameters
    ----------
    models
        (n, 3) positions of the atoms of each, Å.
    same
        For each, whether it has the same atoms in the same order as the first.
    path
        The file, for the error.

    Raises
    ------
    InputError
        If they do not lie on each other, and are no copies of each other either.
    """
    from scipy.spatial import cKDTree

    if len(models) < 2:
        return False
    tree = cKDTree(models[0])
    apart = [float((tree.query(xyz)[0] < _NEAREST).mean()) < _FEW for xyz in models[1:]]
    if not any(apart):
        return False
    rigid = all(
        not alike or _deviation(models[0], xyz) < _SAME
        for alike, xyz in zip(same[1:], models[1:], strict=True)
    )
    if all(apart) and rigid:
        return True
    if sum(apart) < len(apart) / 2:  # an ensemble with a few models that have moved away
        return False
    raise InputError(
        f"{path} has {len(models)} models, which neither lie on each other, as those of an NMR ensemble do, "
        "nor are copies that stand beside each other, as those of an assembly do; use assembly: asymmetric "
        "to take the first model, or assembly: models to take all of them as one molecule"
    )


def _deviation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """RMSD in Å of two sets of points after the best rigid motion (Kabsch, Acta Cryst. A 32, 922, 1976)."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.sqrt(np.square(a @ turn - b).sum(axis=1).mean()))
