"""The particle table: one pandas row per particle, the same in a corpus, in a run and in memory.

The columns in order; a table may have more after them, which all readers and writers keep:

======================  =======  ==============================================================
``tomogram``            str      Name of the tomogram that contains it.
``class_name``          str      Name of its class.
``label``               int      Value of the class in a class volume; 0 for a distractor.
``instance``            int      Value in the instance volume; 0 if unknown.
``x``, ``y``, ``z``     float    Å; the centre of the tomogram's voxel 0 is 0 Å.
``qx qy qz qw``         float    Unit quaternion of the active rotation particle -> tomogram.
``score``               float    Score of the pick; nan if there is none.
``structure``           str      Name of the structure it was made from; empty if unknown.
``variant``             int      Number of the flexible variant; -1 if unknown.
======================  =======  ==============================================================

Three more columns are optional and have the same meaning in every table:

======================  =======  ==============================================================
``calibrated``          float    The score as a probability that the pick is right; nan if unknown.
``size``                float    Voxels of the pick's cluster; nan if unknown.
``flags``               str      Words, e.g. ``border``; empty if there are none.
======================  =======  ==============================================================

:mod:`catalogs.particles` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catalogs.errors import InputError

#: Name -> type of the columns that every table has, in order.
COLUMNS: dict[str, type[str] | type[int] | type[float]] = {
    "tomogram": str,
    "class_name": str,
    "label": int,
    "instance": int,
    "x": float,
    "y": float,
    "z": float,
    "qx": float,
    "qy": float,
    "qz": float,
    "qw": float,
    "score": float,
    "structure": str,
    "variant": int,
}

#: Name -> type of the optional columns, which mean the same in every table.
OPTIONAL: dict[str, type[str] | type[float]] = {"calibrated": float, "size": float, "flags": str}

#: Class name of particles in the scene that are not to be picked.
DISTRACTOR = "distractor"

_DEFAULTS: dict[str, Any] = {
    "tomogram": "",
    "class_name": "particle",
    "instance": 0,
    "qx": 0.0,
    "qy": 0.0,
    "qz": 0.0,
    "qw": 1.0,
    "score": np.nan,
    "structure": "",
    "variant": -1,
}

#: One length for all tomograms of a table, or one for each by the tomogram's name.
VoxelSize = float | Mapping[str, float]
#: Voxels along z, y, x for all tomograms of a table, or for each by the tomogram's name.
Shape = tuple[int, int, int] | Mapping[str, tuple[int, int, int]]


def empty() -> pd.DataFrame:
    """Return a table without rows."""
    return make(x=[], y=[], z=[])


def make(**columns: Any) -> pd.DataFrame:
    """Make a particle table from columns.

    Parameters
    ----------
    **columns
        Sequences of equal length by column name, or one value for all rows; ``x``, ``y`` and ``z``
        (Å) must be given as sequences. Missing columns get the value for unknown;
        without ``label`` the class names are numbered 1, 2, ... in alphabetical order, and
        ``distractor`` is 0. Unknown columns are kept after the known ones.

    Returns
    -------
    pandas.DataFrame
        With all of :data:`COLUMNS`, in order and of the right type, and a fresh index.

    Raises
    ------
    InputError
        If a column does not fit: a coordinate is missing or not finite, the lengths differ, a value is
        of the wrong type, or a quaternion is zero.
    """
    missing = [name for name in "xyz" if name not in columns]
    if missing:
        raise InputError(f"a particle table needs the columns x, y and z; {', '.join(missing)} is missing")
    n = len(columns["x"])
    for name, values in columns.items():
        if np.ndim(values) == 1 and len(values) != n:
            raise InputError(f"the column {name!r} of a particle table has {len(values)} rows, x has {n}")

    table: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        if name in columns:
            table[name] = _column(name, columns[name], kind, n)
        elif name == "label":
            table[name] = _number_classes(table["class_name"])
        else:
            table[name] = _column(name, _DEFAULTS[name], kind, n)
    extra = {name: values for name, values in columns.items() if name not in COLUMNS}
    for name, values in extra.items():
        if name in OPTIONAL:
            table[name] = _column(name, values, OPTIONAL[name], n)
        else:
            table[name] = values.to_numpy() if isinstance(values, pd.Series) else values

    made = pd.DataFrame(table, index=pd.RangeIndex(n))
    _check(made)
    return made


def _column(name: str, values: Any, kind: type, n: int) -> NDArray[Any]:
    values = [values] * n if np.ndim(values) == 0 else values
    if kind is str:
        return np.array([str(value) for value in values], dtype=object)
    try:
        plain = np.asarray(values)
        numbers = plain.astype(np.int64 if plain.dtype.kind in "iub" else np.float64)
        if kind is float:
            return numbers.astype(np.float64)
        if np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all():
            return numbers.astype(np.int64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {name!r} of a particle table must hold numbers ({error})") from error
    raise InputError(f"the column {name!r} of a particle table must hold whole numbers")


def _number_classes(names: NDArray[Any]) -> NDArray[np.int64]:
    labels = {DISTRACTOR: 0}
    labels |= {name: k for k, name in enumerate(sorted(set(names) - {DISTRACTOR}), start=1)}
    return np.array([labels[name] for name in names], np.int64)


def _check(table: pd.DataFrame) -> None:
    for name in "xyz":
        if not np.isfinite(table[name]).all():
            row = int(np.flatnonzero(~np.isfinite(table[name]))[0])
            raise InputError(f"the coordinate {name} of particle {row + 1} is not a number")
    norm = np.linalg.norm(table[["qx", "qy", "qz", "qw"]].to_numpy(), axis=1)
    if not (np.isfinite(norm) & (norm > 1e-6)).all():
        row = int(np.flatnonzero(~(np.isfinite(norm) & (norm > 1e-6)))[0])
        raise InputError(f"the quaternion of particle {row + 1} is not a rotation")
