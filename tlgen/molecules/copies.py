"""Files with several models: either an ensemble of one molecule, or the copies of an assembly.

The models of an NMR ensemble overlap. The models of an assembly file (``.pdb1`` of the PDB) are placed
side by side, each with the coordinates of its copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs.errors import InputError

#: Å; atoms of different molecules are farther apart than this, with few exceptions.
_NEAREST = 2.4
#: Share of atoms that may be closer: ions on symmetry axes, and clashes in low-resolution structures.
_FEW = 0.05
#: Atoms that may lie on others of the same name in any file.
_SINGLE = 3
#: Å; largest RMSD between copies of a rigid molecule. Coordinates in files are rounded to 0.001 Å.
_SAME = 0.1


def are_copies(models: Sequence[NDArray[np.float64]], same: Sequence[bool], path: Path) -> bool:
    """Tell whether models are the copies of an assembly, rather than repeats of one molecule.

    Parameters
    ----------
    models
        (n, 3) positions of the atoms of each model, Å.
    same
        For each model, whether it has the same atoms as the first one, in the same order.
    path
        The file; named in the error message.

    Raises
    ------
    InputError
        If the models do not overlap and are not copies of each other either.
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
    if sum(apart) < len(apart) / 2:  # an ensemble of which a few models have moved away
        return False
    raise InputError(
        f"{path} has {len(models)} models, which neither overlap, like those of an NMR ensemble, "
        "nor are copies side by side, like those of an assembly; use assembly: asymmetric "
        "to take the first model, or assembly: models to take all of them as one molecule"
    )


def _deviation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """RMSD in Å of two sets of points after the best rigid motion (Kabsch, Acta Cryst. A 32, 922, 1976)."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.sqrt(np.square(a @ turn - b).sum(axis=1).mean()))


def refuse_atoms_twice(
    path: Path, residues: NDArray[np.str_], names: NDArray[np.bytes_], xyz: NDArray[np.float64]
) -> None:
    """Refuse a file that holds its atoms twice, as after it was joined with itself.

    Parameters
    ----------
    path
        The file.
    residues, names
        (n,) a word for the residue of each atom, and its name.
    xyz
        (n, 3) its place in Å.

    Raises
    ------
    InputError
        If more than a few atoms have the residue, name and place of others.
    """
    keys = zip(residues.tolist(), names.tolist(), np.round(xyz, 2).tolist(), strict=True)
    twice = len(xyz) - len({(residue, name, *place) for residue, name, place in keys})
    if twice > max(_SINGLE, _FEW * len(xyz)):
        raise InputError(
            f"{path} has {twice:,} of its {len(xyz):,} atoms twice, with the same name and place; keep each "
            "once"
        )
