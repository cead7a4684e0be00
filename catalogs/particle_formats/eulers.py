"""Euler angles of the field's programs, in degrees, for the rotations particle -> tomogram of a table.

=========  ========================================  =================================================
RELION     rot, tilt, psi                            R = (Rz(rot) Ry(tilt) Rz(psi))⁻¹
Dynamo     tdrot, tilt, narot                        R = Rz(-tdrot) Rx(-tilt) Rz(-narot)
TOM        phi, theta, psi (also AV3, STOPGAP,       R = Rz(psi) Rx(theta) Rz(phi)
           DeepFinder, PyTom)
SHREC      Z1, X, Z2                                 R = Rz(Z1) Rx(X) Rz(Z2)
=========  ========================================  =================================================

Rz, Rx and Ry are the active right-handed rotations. RELION's and Dynamo's agree with each other in the test
vector of the package eulerangles; SHREC's was measured on voltools, which turned the particles of its
tomograms.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from catalogs.errors import InputError
from catalogs.particle_formats.base import as_columns

Convention = Literal["relion", "dynamo", "tom", "shrec"]

# Tolerance for rotations; some programs write three decimals.
_ORTHOGONAL = 0.02
_QUATERNION = ["qx", "qy", "qz", "qw"]
# scipy's sequence (capitals turn with the body), and whether it describes the inverse rotation.
_SEQUENCES = {
    "relion": ("ZYZ", True),
    "dynamo": ("zxz", True),
    "tom": ("zxz", False),
    "shrec": ("ZXZ", False),
}


def rotations(table: pd.DataFrame) -> Rotation:
    """Return the rotation particle -> tomogram of every row of a non-empty table."""
    return Rotation.from_quat(table[_QUATERNION].to_numpy(np.float64))


def eulers(table: pd.DataFrame, convention: Convention) -> NDArray[np.float64]:
    """Return (n, 3) angles of a convention, in the order of the table above."""
    if table.empty:
        return np.zeros((0, 3))
    sequence, inverse = _SEQUENCES[convention]
    turned = rotations(table)
    with warnings.catch_warnings():
        # Where the middle angle is 0 or 180 only a sum or difference of the others is defined; scipy
        # puts all of it into one.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        return np.asarray((turned.inv() if inverse else turned).as_euler(sequence, degrees=True), np.float64)


def from_eulers(angles: NDArray[np.float64], convention: Convention) -> Rotation:
    """Return rotations particle -> tomogram of (n, 3) angles; nan counts as 0."""
    sequence, inverse = _SEQUENCES[convention]
    if not len(angles):
        return Rotation.identity(0)
    turned = Rotation.from_euler(sequence, np.nan_to_num(angles), degrees=True)
    return turned.inv() if inverse else turned


def from_matrices(matrices: NDArray[np.float64]) -> Rotation:
    """Return rotations of (n, 3, 3) matrices, with the rounding of lists.

    Raises
    ------
    InputError
        If one is not a rotation, for example a mirror; the message says which.
    """
    if not len(matrices):
        return Rotation.identity(0)
    for k, matrix in enumerate(matrices, start=1):
        if not np.isfinite(matrix).all() or np.abs(matrix @ matrix.T - np.eye(3)).max() > _ORTHOGONAL:
            raise InputError(f"the matrix of point {k} is not a rotation; correct it or leave it out")
        if np.linalg.det(matrix) < 0:
            raise InputError(f"the matrix of point {k} mirrors the particle; a rotation's determinant is 1")
    return Rotation.from_matrix(matrices)


def quaternions(turned: Rotation) -> dict[str, NDArray[Any]]:
    """Make the four columns of a table of rotations."""
    return as_columns(_QUATERNION, turned.as_quat() if len(turned) else np.zeros((0, 4)))
